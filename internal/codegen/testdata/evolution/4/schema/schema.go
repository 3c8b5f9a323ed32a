// Package schema adds a column that the books there are could not have.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"

	"godstack/internal/entity"
)

// Book has a price.
type Book struct{ ent.Schema }

// Mixin of Book.
func (Book) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Book.
func (Book) Fields() []ent.Field {
	return []ent.Field{
		field.String("title").Optional().Nillable(),
		field.Int("price"),
	}
}
