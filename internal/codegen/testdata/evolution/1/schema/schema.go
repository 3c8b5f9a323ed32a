// Package schema is where a database begins.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"

	"godstack/internal/entity"
)

// Book has pages that go, and a shelf that comes.
type Book struct{ ent.Schema }

// Mixin of Book.
func (Book) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Book.
func (Book) Fields() []ent.Field {
	return []ent.Field{
		field.String("title"),
		field.Int("pages"),
		field.UUID("author_id", uuid.UUID{}),
	}
}

// Edges of Book.
func (Book) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("author", Author.Type).Field("author_id").Unique().Required(),
		edge.To("readers", Author.Type),
	}
}

// Author writes.
type Author struct{ ent.Schema }

// Mixin of Author.
func (Author) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Edges of Author.
func (Author) Edges() []ent.Edge {
	return []ent.Edge{edge.From("books_read", Book.Type).Ref("readers").Annotations(entity.ReadOnly())}
}
