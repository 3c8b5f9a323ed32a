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

// Authenticator is the application on a user's device that makes the codes of the second factor (RFC 6238).
type Authenticator struct{ ent.Schema }

// Mixin of Authenticator.
func (Authenticator) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Authenticator.
func (Authenticator) Annotations() []schema.Annotation { return []schema.Annotation{entity.Internal()} }

// Fields of Authenticator.
func (Authenticator) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("user_id", uuid.UUID{}).Immutable(),
		field.Bytes("secret").Sensitive().Comment("Encrypted."),
		field.Time("confirmed_at").Optional().Nillable(),
		field.Int("last_step").Default(0).Annotations(entsql.Default("0")).Comment("The time step of the last code that was accepted: none is accepted twice."),
	}
}

// Edges of Authenticator.
func (Authenticator) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("user", User.Type).Ref("authenticators").Field("user_id").Unique().Required().Immutable(),
	}
}

// Indexes of Authenticator.
func (Authenticator) Indexes() []ent.Index {
	return []ent.Index{index.Fields("user_id").Unique()}
}
