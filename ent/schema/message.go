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

// Message is what somebody said in a thread.
type Message struct{ ent.Schema }

// Mixin of Message.
func (Message) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Message.
func (Message) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.Through("thread"),
		Create: entity.Through("thread"),
		Update: entity.Is("author"),
		Delete: entity.Is("author"),
	}}
}

// Fields of Message.
func (Message) Fields() []ent.Field {
	return []ent.Field{
		field.Text("body").NotEmpty().MaxLen(10_000),
		field.UUID("thread_id", uuid.UUID{}).Immutable(),
		field.UUID("author_id", uuid.UUID{}).Immutable(),
	}
}

// Edges of Message.
func (Message) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("thread", Thread.Type).Ref("messages").Field("thread_id").
			Unique().Required().Immutable(),
		edge.From("author", User.Type).Ref("messages").Field("author_id").
			Unique().Required().Immutable().Annotations(entity.Viewer()),
	}
}

// Indexes of Message.
func (Message) Indexes() []ent.Index {
	return []ent.Index{index.Fields("thread_id", "id"), index.Fields("author_id")}
}
