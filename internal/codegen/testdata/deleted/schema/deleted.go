// Package schema has records that can be restored: by whoever may delete them, and by others.
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

// User signs in, and is deleted for good.
type User struct{ ent.Schema }

// Mixin of User.
func (User) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of User.
func (User) Fields() []ent.Field { return []ent.Field{field.String("name")} }

// Edges of User.
func (User) Edges() []ent.Edge {
	return []ent.Edge{edge.To("folders", Folder.Type).Annotations(entity.ReadOnly())}
}

// Folder is restored by whoever may delete it.
type Folder struct{ ent.Schema }

// Mixin of Folder.
func (Folder) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}, entity.SoftDelete{}} }

// Annotations of Folder.
func (Folder) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{Read: entity.SignedIn(), Delete: entity.Is("owner")}}
}

// Fields of Folder.
func (Folder) Fields() []ent.Field {
	return []ent.Field{field.String("name").Unique(), field.UUID("owner_id", uuid.UUID{})}
}

// Edges of Folder.
func (Folder) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("owner", User.Type).Ref("folders").Field("owner_id").Unique().Required(),
		edge.To("pages", Page.Type).Annotations(entity.ReadOnly()),
	}
}

// Indexes of Folder.
func (Folder) Indexes() []ent.Index { return []ent.Index{index.Fields("owner_id")} }

// Page is restored by the folder's owner and by moderators. Nobody follows it.
type Page struct{ ent.Schema }

// Mixin of Page.
func (Page) Mixin() []ent.Mixin {
	return []ent.Mixin{entity.Mixin{}, entity.SoftDelete{
		Restore: entity.Any(entity.Through("folder", entity.Delete), entity.Role("moderator")),
	}}
}

// Annotations of Page.
func (Page) Annotations() []schema.Annotation {
	return []schema.Annotation{
		entity.NoSubscription(), entity.Operations(entity.Create, entity.Delete),
		entity.Access{Read: entity.Through("folder"), Create: entity.Through("folder"), Delete: entity.Through("folder")},
	}
}

// Fields of Page.
func (Page) Fields() []ent.Field {
	return []ent.Field{field.Text("body"), field.UUID("folder_id", uuid.UUID{})}
}

// Edges of Page.
func (Page) Edges() []ent.Edge {
	return []ent.Edge{edge.From("folder", Folder.Type).Ref("pages").Field("folder_id").Unique().Required()}
}

// Indexes of Page.
func (Page) Indexes() []ent.Index { return []ent.Index{index.Fields("folder_id")} }
