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

// Task is of a project: who sees the project sees it.
type Task struct{ ent.Schema }

// Mixin of Task.
func (Task) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Task.
func (Task) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.Through("project"),
		Create: entity.Through("project"),
		Update: entity.Any(entity.Is("assignee"), entity.Through("project", entity.Update)),
		Delete: entity.Through("project", entity.Update),
	}}
}

// Fields of Task.
func (Task) Fields() []ent.Field {
	return []ent.Field{
		field.String("title").NotEmpty().MaxLen(200),
		field.Bool("done").Default(false),
		field.UUID("project_id", uuid.UUID{}).Immutable(),
		field.UUID("assignee_id", uuid.UUID{}).Optional().Nillable(),
	}
}

// Edges of Task.
func (Task) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("project", Project.Type).Ref("tasks").Field("project_id").Unique().Required().Immutable(),
		edge.To("assignee", User.Type).Field("assignee_id").Unique(),
	}
}

// Indexes of Task.
func (Task) Indexes() []ent.Index {
	return []ent.Index{index.Fields("project_id"), index.Fields("assignee_id")}
}
