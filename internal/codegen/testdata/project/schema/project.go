// Package schema is the worked example of docs/access.md.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"godstack/internal/entity"
)

// Project is of its owner, who lets members in.
type Project struct{ ent.Schema }

// Mixin of Project.
func (Project) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Project.
func (Project) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.Any(entity.Is("owner"), entity.Has("members"), entity.Role("moderator")),
		Create: entity.SignedIn(), // the owner is Viewer(): one creates for oneself
		Update: entity.Is("owner"),
		Delete: entity.All(entity.Is("owner"), entity.Custom("archived")),
	}}
}

// Fields of Project.
func (Project) Fields() []ent.Field {
	return []ent.Field{
		field.String("name").NotEmpty().MaxLen(100),
		field.Int("budget").Optional().Nillable().
			Annotations(entity.ReadableBy(entity.Any(entity.Is("owner"), entity.Role("admin")))),
		field.Time("archived_at").Optional().Nillable(),
		field.UUID("owner_id", uuid.UUID{}).Immutable(),
	}
}

// Edges of Project.
func (Project) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("owner", User.Type).Field("owner_id").Unique().Required().Immutable().Annotations(entity.Viewer()),
		edge.To("members", User.Type),
		edge.To("tasks", Task.Type).Annotations(entity.ReadOnly(), entsql.OnDelete(entsql.Cascade)),
	}
}

// Indexes of Project.
func (Project) Indexes() []ent.Index { return []ent.Index{index.Fields("owner_id")} }
