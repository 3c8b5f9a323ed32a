// Package schema has rules of every word, and a rule through three entities.
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

// User signs in. Some of it is for oneself.
type User struct{ ent.Schema }

// Mixin of User.
func (User) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of User.
func (User) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.Any(entity.Self(), entity.Is("manager"), entity.Has("friends"), entity.Role("moderator")),
		Create: entity.Role("admin"),
		Update: entity.Any(entity.Self(), entity.All(entity.Is("manager"), entity.Role("moderator"))),
	}}
}

// Fields of User.
func (User) Fields() []ent.Field {
	own := entity.ReadableBy(entity.Any(entity.Self(), entity.Role("admin")))
	return []ent.Field{
		field.String("name"),
		field.String("email").Unique().Annotations(own),
		field.Int("logins").Default(0).Annotations(entity.ReadOnly(), own),
		field.Enum("role").Values("user", "admin").Default("user").
			Annotations(entity.ReadableBy(entity.All(entity.SignedIn(), entity.Any(entity.Self(), entity.Is("manager"))))),
		field.Strings("tags").Optional().Annotations(own),
		field.UUID("manager_id", uuid.UUID{}).Optional().Nillable(),
		field.UUID("home_team_id", uuid.UUID{}).Optional().Nillable(),
	}
}

// Edges of User.
func (User) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("staff", User.Type).Annotations(entity.ReadOnly()).From("manager").Field("manager_id").Unique(),
		edge.To("friends", User.Type),
		edge.From("home_team", Team.Type).Ref("home_people").Field("home_team_id").Unique(),
		edge.From("teams", Team.Type).Ref("board_members").Annotations(entity.ReadOnly()),
		edge.To("watching", Project.Type),
		edge.To("comments", Comment.Type).Annotations(entity.Hidden()),
	}
}

// Indexes of User.
func (User) Indexes() []ent.Index {
	return []ent.Index{index.Fields("manager_id"), index.Fields("home_team_id")}
}

// Team has people of its own, one to many, and others, many to many.
type Team struct{ ent.Schema }

// Mixin of Team.
func (Team) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Team. Edges may be named as the API does.
func (Team) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.Any(entity.Has("home_people"), entity.Has("boardMembers")),
		Create: entity.SignedIn(),
		Update: entity.Has("board_members"),
		Delete: entity.All(entity.Has("board_members"), entity.Custom("is_empty")),
	}}
}

// Fields of Team.
func (Team) Fields() []ent.Field { return []ent.Field{field.String("name")} }

// Edges of Team.
func (Team) Edges() []ent.Edge {
	return []ent.Edge{
		edge.To("home_people", User.Type).Annotations(entity.ReadOnly()),
		edge.To("board_members", User.Type),
		edge.To("projects", Project.Type).Annotations(entity.ReadOnly()),
	}
}

// Project is of a team. Users watch it: the other side of a many-to-many edge, and hidden.
type Project struct{ ent.Schema }

// Mixin of Project.
func (Project) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Project.
func (Project) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.Any(entity.Through("lead_team"), entity.Has("watchers")),
		Create: entity.Through("lead_team", entity.Update),
		Update: entity.Through("lead_team", entity.Update),
		Delete: entity.Through("lead_team", entity.Delete),
	}}
}

// Fields of Project.
func (Project) Fields() []ent.Field {
	return []ent.Field{field.String("name"), field.UUID("lead_team_id", uuid.UUID{})}
}

// Edges of Project.
func (Project) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("lead_team", Team.Type).Ref("projects").Field("lead_team_id").Unique().Required(),
		edge.From("watchers", User.Type).Ref("watching").Annotations(entity.Hidden()),
		edge.To("comments", Comment.Type).Annotations(entity.ReadOnly()),
	}
}

// Indexes of Project.
func (Project) Indexes() []ent.Index { return []ent.Index{index.Fields("lead_team_id")} }

// Comment is read by whoever reads its project, which whoever reads its team does. Its author is hidden.
type Comment struct{ ent.Schema }

// Mixin of Comment.
func (Comment) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Comment.
func (Comment) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.Through("project"),
		Create: entity.Through("project"),
		Update: entity.Is("author"),
		Delete: entity.Any(entity.Is("author"), entity.Through("project", entity.Update)),
	}}
}

// Fields of Comment.
func (Comment) Fields() []ent.Field {
	return []ent.Field{
		field.String("body"),
		field.String("address").Optional().Nillable().Annotations(entity.ReadableBy(entity.Is("author"))),
		field.UUID("project_id", uuid.UUID{}),
		field.UUID("author_id", uuid.UUID{}).Optional().Nillable(),
	}
}

// Edges of Comment.
func (Comment) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("project", Project.Type).Ref("comments").Field("project_id").Unique().Required(),
		edge.From("author", User.Type).Ref("comments").Field("author_id").Unique().Annotations(entity.Hidden()),
	}
}

// Indexes of Comment.
func (Comment) Indexes() []ent.Index {
	return []ent.Index{index.Fields("project_id"), index.Fields("author_id")}
}

// Notice is for everybody, and written by nobody but administrators.
type Notice struct{ ent.Schema }

// Mixin of Notice.
func (Notice) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Notice.
func (Notice) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{Read: entity.Anyone()}}
}

// Fields of Notice.
func (Notice) Fields() []ent.Field { return []ent.Field{field.String("text")} }

// Draft has no rules.
type Draft struct{ ent.Schema }

// Mixin of Draft.
func (Draft) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Draft.
func (Draft) Fields() []ent.Field { return []ent.Field{field.String("text")} }
