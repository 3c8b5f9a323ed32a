package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"

	"godstack/internal/entity"
)

// User signs in.
type User struct{ ent.Schema }

// Mixin of User.
func (User) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of User.
func (User) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.ReadOnly(), entity.Access{Read: entity.SignedIn()}}
}

// Fields of User.
func (User) Fields() []ent.Field { return []ent.Field{field.String("name")} }

// Edges of User.
func (User) Edges() []ent.Edge {
	return []ent.Edge{edge.From("projects", Project.Type).Ref("members")}
}
