// Package schema has names that are hard to make other names of.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"

	"godstack/internal/entity"
)

// Order has a name that SQL knows, and one of a type's endings.
type Order struct{ ent.Schema }

// Mixin of Order.
func (Order) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Order. The names are words of SDL, of SQL, of Go and of the generated resolvers.
func (Order) Fields() []ent.Field {
	return []ent.Field{
		field.String("type"),
		field.String("input"),
		field.String("query"),
		field.String("fragment"),
		field.String("on"),
		field.String("select").Optional().Nillable(),
		field.String("func"),
		field.String("range"),
		field.String("obj"),
		field.String("ctx"),
		field.Int("first"),
		field.Enum("interface").Values("type", "enum", "query", "on"),
	}
}

// Edges of Order.
func (Order) Edges() []ent.Edge { return []ent.Edge{edge.To("order_items", OrderItem.Type)} }

// OrderItem is of several words.
type OrderItem struct{ ent.Schema }

// Mixin of OrderItem.
func (OrderItem) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of OrderItem.
func (OrderItem) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("parent_order_id", uuid.UUID{}),
		field.String("html_url"),
		field.Int("unit_price_2"),
		field.Int("old_price"), // ent has methods OldX, SaveX and ByX
		field.Int("pos_x"),
		field.Bool("by_hand"),
		field.UUID("api_key_id", uuid.UUID{}).Optional().Nillable(),
	}
}

// Edges of OrderItem.
func (OrderItem) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("parent_order", Order.Type).Ref("order_items").Field("parent_order_id").Unique().Required(),
		edge.To("api_key", APIKey.Type).Field("api_key_id").Unique(),
		edge.To("news", News.Type),
		edge.To("people", Person.Type),
	}
}

// APIKey begins with an acronym.
type APIKey struct{ ent.Schema }

// Mixin of APIKey.
func (APIKey) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of APIKey.
func (APIKey) Fields() []ent.Field { return []ent.Field{field.String("url")} }

// News has no plural.
type News struct{ ent.Schema }

// Mixin of News.
func (News) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Edges of News.
func (News) Edges() []ent.Edge {
	return []ent.Edge{edge.From("items", OrderItem.Type).Ref("news").Annotations(entity.ReadOnly())}
}

// Person has a plural of its own.
type Person struct{ ent.Schema }

// Mixin of Person.
func (Person) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Person.
func (Person) Fields() []ent.Field { return []ent.Field{field.Strings("news").Optional()} }

// Edges of Person.
func (Person) Edges() []ent.Edge {
	return []ent.Edge{edge.From("order_items", OrderItem.Type).Ref("people").Annotations(entity.ReadOnly())}
}

// PurchaseOrder ends as a type that is made for an entity would; there is no Purchase.
type PurchaseOrder struct{ ent.Schema }

// Mixin of PurchaseOrder.
func (PurchaseOrder) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }
