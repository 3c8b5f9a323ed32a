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

// Thread is a conversation: its owner started it, its members take part. Deleted, it is gone with its messages, until its owner restores
// it.
type Thread struct{ ent.Schema }

// Mixin of Thread.
func (Thread) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}, entity.SoftDelete{}} }

// Annotations of Thread.
func (Thread) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.Any(entity.Is("owner"), entity.Has("members")),
		Create: entity.SignedIn(),
		Update: entity.Is("owner"),
		Delete: entity.Is("owner"),
	}}
}

// Fields of Thread.
func (Thread) Fields() []ent.Field {
	return []ent.Field{
		field.String("subject").NotEmpty().MaxLen(200),
		field.UUID("owner_id", uuid.UUID{}).Immutable(),
	}
}

// Edges of Thread.
func (Thread) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("owner", User.Type).Ref("owned_threads").Field("owner_id").
			Unique().Required().Immutable().Annotations(entity.Viewer()),
		edge.To("members", User.Type),
		edge.To("messages", Message.Type).
			Annotations(entity.ReadOnly(), entsql.OnDelete(entsql.Cascade)),
	}
}

// Indexes of Thread.
func (Thread) Indexes() []ent.Index {
	return []ent.Index{index.Fields("owner_id"), index.Fields("created_at", "id")}
}
