// Package schema is the least there can be: one entity, and no annotation.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"

	"godstack/internal/entity"
)

// Note is a piece of paper.
type Note struct{ ent.Schema }

// Mixin of Note.
func (Note) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Note.
func (Note) Fields() []ent.Field {
	return []ent.Field{
		field.String("title").NotEmpty().MaxLen(200),
		field.Text("body").Default(""),
	}
}
