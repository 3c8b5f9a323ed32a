package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"

	"godstack/internal/entity"
)

// OrderItem is an order item.
type OrderItem struct{ ent.Schema }

// Mixin of OrderItem.
func (OrderItem) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of OrderItem: every signed-in user reads, creates, changes and deletes all of them. Say here who really may.
func (OrderItem) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.SignedIn(),
		Create: entity.SignedIn(),
		Update: entity.SignedIn(),
		Delete: entity.SignedIn(),
	}}
}

// Fields of OrderItem.
func (OrderItem) Fields() []ent.Field {
	return []ent.Field{
		field.String("code").MaxLen(200).Optional().Nillable(),
		field.Text("note").NotEmpty().MaxLen(10_000),
		field.Text("about").MaxLen(10_000).Optional().Nillable(),
		field.Int("count"),
		field.Int("rank").Optional().Nillable(),
		field.Float("price"),
		field.Float("rebate").Optional().Nillable(),
		field.Bool("paid").Optional().Nillable(),
		field.Time("due_at"),
		field.Time("sent_at").Optional().Nillable(),
		field.Enum("state").Values("open", "done").Default("open"),
		field.Enum("kind").Values("a", "b").Optional().Nillable(),
		field.Strings("tags").Default([]string{}),
		field.Strings("marks").Optional(),
	}
}
