package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"godstack/internal/entity"
)

// LoginAttempt is a try to sign in.
type LoginAttempt struct{ ent.Schema }

// Mixin of LoginAttempt.
func (LoginAttempt) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of LoginAttempt.
func (LoginAttempt) Annotations() []schema.Annotation { return []schema.Annotation{entity.Internal()} }

// Fields of LoginAttempt.
func (LoginAttempt) Fields() []ent.Field {
	return []ent.Field{
		field.String("account").Immutable().Comment("The user's id, or a keyed hash of a login that nobody has."),
		field.UUID("user_id", uuid.UUID{}).Optional().Nillable().Immutable(),
		field.Enum("outcome").Values("success", "wrong_password", "wrong_code", "code_required", "unknown_login", "locked", "unverified").Immutable(),
		field.String("address").Immutable(),
		field.String("user_agent").Immutable(),
	}
}

// Indexes of LoginAttempt.
func (LoginAttempt) Indexes() []ent.Index {
	return []ent.Index{index.Fields("account", "created_at"), index.Fields("created_at")}
}
