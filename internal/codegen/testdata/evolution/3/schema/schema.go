// Package schema removes a table, and makes an entity internal.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"

	"godstack/internal/entity"
)

// Book is alone.
type Book struct{ ent.Schema }

// Mixin of Book.
func (Book) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Book.
func (Book) Fields() []ent.Field {
	return []ent.Field{
		field.String("title").Optional().Nillable(),
		field.Enum("state").Values("draft", "printed", "sold").Default("draft"),
		field.String("isbn").Optional().Nillable().Unique(),
	}
}

// Author is internal.
type Author struct{ ent.Schema }

// Mixin of Author.
func (Author) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Author.
func (Author) Annotations() []schema.Annotation { return []schema.Annotation{entity.Internal()} }

// Fields of Author.
func (Author) Fields() []ent.Field {
	return []ent.Field{field.String("pen_name").Optional().Sensitive()}
}
