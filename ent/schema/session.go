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

// Session is a sign-in of a user on a device, and the family of the refresh tokens that continue it. It is logged: all
// nodes learn from the change log that one was revoked.
type Session struct{ ent.Schema }

// Mixin of Session.
func (Session) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Session.
func (Session) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Internal(), entity.Logged()}
}

// Fields of Session.
func (Session) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("user_id", uuid.UUID{}).Immutable(),
		field.String("address").Comment("From which it was last used."),
		field.String("user_agent"),
		field.Time("last_used_at"),
		field.Time("expires_at").Comment("Moves on with each refresh, up to ends_at."),
		field.Time("ends_at").Comment("When it ends, however often it was used."),
		field.Time("revoked_at").Optional().Nillable(),
		field.String("revoked_because").Optional().Nillable(),
	}
}

// Edges of Session.
func (Session) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("user", User.Type).Ref("sessions").Field("user_id").Unique().Required().Immutable(),
		edge.To("refresh_tokens", RefreshToken.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
	}
}

// Indexes of Session.
func (Session) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("user_id", "expires_at"),
		index.Fields("revoked_at").Annotations(entsql.IndexWhere("revoked_at IS NOT NULL")),
		index.Fields("expires_at"),
	}
}
