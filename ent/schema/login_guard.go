package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"godstack/internal/entity"
)

// LoginGuard counts an account's failed sign-ins, and locks it.
type LoginGuard struct{ ent.Schema }

// Mixin of LoginGuard.
func (LoginGuard) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of LoginGuard.
func (LoginGuard) Annotations() []schema.Annotation { return []schema.Annotation{entity.Internal()} }

// Fields of LoginGuard.
func (LoginGuard) Fields() []ent.Field {
	return []ent.Field{
		field.String("account").Unique().Immutable().Comment("As in LoginAttempt."),
		field.Int("failures"),
		field.Time("window_started_at"),
		field.Time("next_attempt_at").Optional().Nillable().Comment("Before it no password is looked at."),
		field.Time("locked_until").Optional().Nillable(),
	}
}

// Indexes of LoginGuard.
func (LoginGuard) Indexes() []ent.Index { return []ent.Index{index.Fields("window_started_at")} }
