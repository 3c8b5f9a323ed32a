// Package schema has entities of which the API shows a part.
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

// Country is read only.
type Country struct{ ent.Schema }

// Mixin of Country.
func (Country) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Country.
func (Country) Annotations() []schema.Annotation { return []schema.Annotation{entity.ReadOnly()} }

// Fields of Country.
func (Country) Fields() []ent.Field { return []ent.Field{field.String("name")} }

// Edges of Country.
func (Country) Edges() []ent.Edge { return []ent.Edge{edge.To("visits", Visit.Type)} }

// Visit is created, and stays as it is.
type Visit struct{ ent.Schema }

// Mixin of Visit.
func (Visit) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Visit.
func (Visit) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Operations(entity.Create)}
}

// Fields of Visit.
func (Visit) Fields() []ent.Field {
	return []ent.Field{field.Time("seen_at"), field.UUID("country_id", uuid.UUID{}), field.UUID("secret_id", uuid.UUID{}).Optional().Nillable()}
}

// Edges of Visit.
func (Visit) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("country", Country.Type).Ref("visits").Field("country_id").Unique().Required(),
		edge.From("secret", Secret.Type).Ref("visits").Field("secret_id").Unique(),
	}
}

// Indexes of Visit.
func (Visit) Indexes() []ent.Index { return []ent.Index{index.Fields("country_id")} }

// Setting has no subscription, and is not deleted.
type Setting struct{ ent.Schema }

// Mixin of Setting.
func (Setting) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Setting.
func (Setting) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.NoSubscription(), entity.Operations(entity.Create, entity.Update)}
}

// Fields of Setting.
func (Setting) Fields() []ent.Field {
	return []ent.Field{field.String("name").Immutable().Unique(), field.String("value")}
}

// Secret is not in the API.
type Secret struct{ ent.Schema }

// Mixin of Secret.
func (Secret) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Secret.
func (Secret) Annotations() []schema.Annotation { return []schema.Annotation{entity.Internal()} }

// Fields of Secret.
func (Secret) Fields() []ent.Field { return []ent.Field{field.Bytes("hash").Sensitive()} }

// Edges of Secret.
func (Secret) Edges() []ent.Edge { return []ent.Edge{edge.To("visits", Visit.Type)} }
