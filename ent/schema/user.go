package schema

import (
	"errors"
	"net/mail"
	"regexp"
	"strings"
	"unicode"

	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"

	"godstack/internal/entity"
)

// User is a person who uses the application. internal/auth writes what is read-only here.
type User struct{ ent.Schema }

// Mixin of User.
func (User) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of User.
func (User) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.SignedIn(),
		Create: entity.Role("admin"),
		Update: selfOrAdmin(),
		Delete: entity.Role("admin"),
	}}
}

// selfOrAdmin is who reads more of a user than the names, and changes it.
func selfOrAdmin() entity.Rule { return entity.Any(entity.Self(), entity.Role("admin")) }

// Fields of User.
func (User) Fields() []ent.Field {
	return []ent.Field{
		field.String("email").Unique().MaxLen(254).Validate(isAddress).Immutable().
			Annotations(entity.ReadableBy(selfOrAdmin())),
		field.String("username").Unique().MaxLen(32).
			Match(regexp.MustCompile(`^[a-z][a-z0-9_]{1,31}$`)).
			Comment("2 to 32 lower-case letters, digits and underscores, a letter first."),
		field.String("name").NotEmpty().MaxLen(100),
		field.Enum("role").Values("user", "moderator", "admin").Default("user").
			Annotations(entity.ReadOnly(), entity.ReadableBy(selfOrAdmin())),
		field.Time("email_verified_at").Optional().Nillable().
			Annotations(entity.ReadOnly(), entity.ReadableBy(selfOrAdmin())),
		field.Time("totp_confirmed_at").Optional().Nillable().
			Annotations(entity.ReadOnly(), entity.ReadableBy(selfOrAdmin())).
			Comment("Since when signing in takes a second factor."),
		field.Time("locked_at").Optional().Nillable().
			Annotations(entity.ReadOnly(), entity.ReadableBy(selfOrAdmin())).
			Comment("Since when an administrator keeps them from signing in."),

		field.String("password_hash").Optional().Nillable().Sensitive(),
	}
}

// Edges of User.
func (User) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("owned_threads", Thread.Type).Annotations(entity.ReadOnly()),
		edge.From("threads", Thread.Type).Ref("members").Annotations(entity.ReadOnly()),
		edge.To("messages", Message.Type).Annotations(entity.ReadOnly()),
		edge.To("sessions", Session.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("one_time_tokens", OneTimeToken.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("authenticators", Authenticator.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("backup_codes", BackupCode.Type).Annotations(entsql.OnDelete(entsql.Cascade)),
		edge.To("security_events", SecurityEvent.Type).Annotations(entity.Hidden(), entsql.OnDelete(entsql.SetNull)),
	}
}

// isAddress refuses what no mail can be sent to: package mail takes what it takes.
func isAddress(s string) error {
	a, err := mail.ParseAddress(s)
	switch {
	case err != nil:
		return err
	case a.Address != s:
		return errors.New("has more than an address")
	case strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("has a control character")
	}
	return nil
}
