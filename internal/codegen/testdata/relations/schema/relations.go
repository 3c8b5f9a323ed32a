// Package schema has each kind of relation.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"
	"github.com/google/uuid"

	"godstack/internal/entity"
)

// Team has players.
type Team struct{ ent.Schema }

// Mixin of Team.
func (Team) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Team.
func (Team) Fields() []ent.Field {
	return []ent.Field{
		field.String("name").Unique(),
		field.UUID("captain_id", uuid.UUID{}).Optional().Nillable(),
	}
}

// Edges of Team.
func (Team) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("players", Player.Type).Annotations(entity.ReadOnly(), entsql.OnDelete(entsql.Cascade)),
		edge.To("captain", Player.Type).Field("captain_id").Unique(), // nothing leads back
		edge.To("sponsors", Sponsor.Type),
	}
}

// Player is in one team, and may be lent to another.
type Player struct{ ent.Schema }

// Mixin of Player.
func (Player) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Player.
func (Player) Fields() []ent.Field {
	return []ent.Field{
		field.String("name"),
		field.UUID("team_id", uuid.UUID{}),
		field.UUID("lent_to_id", uuid.UUID{}).Optional().Nillable(),
		field.UUID("mentor_id", uuid.UUID{}).Optional().Nillable(),
	}
}

// Edges of Player.
func (Player) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("team", Team.Type).Ref("players").Field("team_id").Unique().Required(),
		edge.To("lent_to", Team.Type).Field("lent_to_id").Unique(),
		edge.To("students", Player.Type).Annotations(entity.ReadOnly()).
			From("mentor").Field("mentor_id").Unique(),
		edge.To("friends", Player.Type),
		edge.To("follows", Player.Type).From("followers").Annotations(entity.ReadOnly()),
	}
}

// Indexes of Player.
func (Player) Indexes() []ent.Index {
	return []ent.Index{index.Fields("team_id"), index.Fields("lent_to_id"), index.Fields("mentor_id")}
}

// Sponsor pays for teams.
type Sponsor struct{ ent.Schema }

// Mixin of Sponsor.
func (Sponsor) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Edges of Sponsor.
func (Sponsor) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("teams", Team.Type).Ref("sponsors").Annotations(entity.ReadOnly()),
		edge.To("contract", Contract.Type).Unique().Annotations(entity.Hidden()),
	}
}

// Contract is one a sponsor.
type Contract struct{ ent.Schema }

// Mixin of Contract.
func (Contract) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Contract.
func (Contract) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("sponsor_id", uuid.UUID{}),
		field.UUID("replaces_id", uuid.UUID{}).Optional().Nillable(),
	}
}

// Edges of Contract.
func (Contract) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("sponsor", Sponsor.Type).Ref("contract").Field("sponsor_id").Unique().Required(),
		edge.To("replaced_by", Contract.Type).Unique().Annotations(entity.Hidden()).
			From("replaces").Field("replaces_id").Unique(),
	}
}
