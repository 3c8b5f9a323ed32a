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

// Task is a task.
type Task struct{ ent.Schema }

// Mixin of Task.
func (Task) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Task: every signed-in user reads, creates, changes and deletes all of them. Say here who really may.
func (Task) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.SignedIn(),
		Create: entity.SignedIn(),
		Update: entity.SignedIn(),
		Delete: entity.SignedIn(),
	}}
}

// Fields of Task.
func (Task) Fields() []ent.Field {
	return []ent.Field{
		field.String("title").NotEmpty().MaxLen(200),
		field.Bool("done").Default(false),
		field.UUID("owner_id", uuid.UUID{}),
	}
}

// Edges of Task.
func (Task) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("owner", User.Type).Field("owner_id").Unique().Required(),
	}
}

// Indexes of Task.
func (Task) Indexes() []ent.Index {
	return []ent.Index{index.Fields("owner_id")}
}
