// Package schema adds a table, columns with a default and with null, an index and edges, and removes a column and an
// edge of each kind.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"godstack/internal/entity"
)

// Book has a shelf.
type Book struct{ ent.Schema }

// Mixin of Book.
func (Book) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Book.
func (Book) Fields() []ent.Field {
	return []ent.Field{
		field.String("title"),
		field.Enum("state").Values("draft", "printed").Default("draft"),
		field.String("isbn").Optional().Nillable().Unique(),
		field.UUID("shelf_id", uuid.UUID{}).Optional().Nillable(),
	}
}

// Edges of Book.
func (Book) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("shelf", Shelf.Type).Field("shelf_id").Unique(),
		edge.To("editors", Author.Type),
	}
}

// Indexes of Book.
func (Book) Indexes() []ent.Index { return []ent.Index{index.Fields("shelf_id")} }

// Author has a secret now.
type Author struct{ ent.Schema }

// Mixin of Author.
func (Author) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Edges of Author.
func (Author) Edges() []ent.Edge {
	return []ent.Edge{edge.From("books_edited", Book.Type).Ref("editors").Annotations(entity.ReadOnly())}
}

// Fields of Author.
func (Author) Fields() []ent.Field {
	return []ent.Field{field.String("pen_name").Optional().Sensitive()}
}

// Shelf is new.
type Shelf struct{ ent.Schema }

// Mixin of Shelf.
func (Shelf) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }
