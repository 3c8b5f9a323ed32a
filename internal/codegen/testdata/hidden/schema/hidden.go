// Package schema has fields and edges that the API hides, or does not write.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"godstack/internal/entity"
)

// User signs in.
type User struct{ ent.Schema }

// Mixin of User.
func (User) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of User.
func (User) Fields() []ent.Field {
	return []ent.Field{
		field.String("name"),
		field.String("password_hash").Optional().Sensitive(),
		field.Enum("role").Values("user", "admin").Default("user").Annotations(entity.ReadOnly()),
		field.Int("logins").Default(0).Annotations(entity.ReadOnly()),
		field.Enum("shade").Values("light", "dark").Default("dark").Annotations(entity.Hidden()),
		field.Bytes("picture").Optional().Annotations(entity.Hidden()),
		field.JSON("trace", []struct{ At, What string }{}).Optional().Annotations(entity.Hidden()),
	}
}

// Edges of User.
func (User) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("documents", Document.Type).Annotations(entity.ReadOnly()),
		edge.To("reviews", Document.Type).Annotations(entity.Hidden()),
		edge.From("watched", Document.Type).Ref("watchers").Annotations(entity.Hidden()),
	}
}

// Document is of its author.
type Document struct{ ent.Schema }

// Mixin of Document.
func (Document) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Document.
func (Document) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("author_id", uuid.UUID{}).Immutable(),
		field.UUID("reviewer_id", uuid.UUID{}).Optional().Nillable(),
		field.UUID("editor_id", uuid.UUID{}).Optional().Nillable(),
	}
}

// Edges of Document.
func (Document) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("author", User.Type).Ref("documents").Field("author_id").
			Unique().Required().Immutable().Annotations(entity.Viewer()),
		edge.From("reviewer", User.Type).Ref("reviews").Field("reviewer_id").Unique().Annotations(entity.Hidden()),
		edge.To("editor", User.Type).Field("editor_id").Unique().Annotations(entity.ReadOnly()),
		edge.To("watchers", User.Type).Annotations(entity.Hidden()),
	}
}

// Indexes of Document.
func (Document) Indexes() []ent.Index { return []ent.Index{index.Fields("author_id").Unique()} }
