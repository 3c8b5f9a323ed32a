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

// Page is a page.
type Page struct{ ent.Schema }

// Mixin of Page.
func (Page) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Page: every signed-in user reads, creates, changes and deletes all of them. Say here who really may.
func (Page) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.SignedIn(),
		Create: entity.SignedIn(),
		Update: entity.SignedIn(),
		Delete: entity.SignedIn(),
	}}
}

// Fields of Page.
func (Page) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("owner_id", uuid.UUID{}).Optional().Nillable(),
		field.UUID("parent_id", uuid.UUID{}).Optional().Nillable(),
		field.UUID("draft_id", uuid.UUID{}).Optional().Nillable(),
		field.UUID("task_id", uuid.UUID{}),
	}
}

// Edges of Page.
func (Page) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("owner", User.Type).Field("owner_id").Unique(),
		edge.To("children", Page.Type).Annotations(entity.ReadOnly()).
			From("parent").Field("parent_id").Unique(),
		edge.To("draft_of", Page.Type).Annotations(entity.ReadOnly()).
			From("draft").Field("draft_id").Unique(),
		edge.To("task", Task.Type).Field("task_id").Unique().Required(),
	}
}

// Indexes of Page.
func (Page) Indexes() []ent.Index {
	return []ent.Index{index.Fields("owner_id"), index.Fields("parent_id"), index.Fields("draft_id"), index.Fields("task_id")}
}
