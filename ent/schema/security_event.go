package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"godstack/internal/entity"
)

// SecurityEvent is an entry of the audit trail. The database refuses to change one or to remove it.
type SecurityEvent struct{ ent.Schema }

// Mixin of SecurityEvent.
func (SecurityEvent) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of SecurityEvent.
func (SecurityEvent) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entity.ReadOnly(),
		entity.Access{Read: entity.Any(entity.Is("user"), entity.Role("admin"))},
	}
}

// Fields of SecurityEvent.
func (SecurityEvent) Fields() []ent.Field {
	return []ent.Field{
		field.String("name").Immutable().Comment("What happened, as account_locked."),
		field.Enum("severity").Values("info", "warning", "critical").Immutable(),
		field.UUID("user_id", uuid.UUID{}).Optional().Nillable(),
		field.String("actor").Optional().Nillable().Immutable().Comment("Who did it: the id of a user; null for somebody who was not signed in."),
		field.String("address").Optional().Nillable().Immutable(),
		field.String("user_agent").Optional().Nillable().Immutable(),
		field.String("request_id").Optional().Nillable().Immutable(),
		field.JSON("detail", map[string]any{}).Optional().Immutable(),
	}
}

// Edges of SecurityEvent.
func (SecurityEvent) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("user", User.Type).Ref("security_events").Field("user_id").Unique(),
	}
}

// Indexes of SecurityEvent.
func (SecurityEvent) Indexes() []ent.Index {
	return []ent.Index{index.Fields("user_id", "created_at", "id"), index.Fields("created_at", "id"), index.Fields("name", "created_at")}
}
