// Package schema has a field of each type, with and without a null and a default.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"

	"godstack/internal/entity"
)

// Sample is a measurement.
type Sample struct{ ent.Schema }

// Mixin of Sample.
func (Sample) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Fields of Sample.
func (Sample) Fields() []ent.Field {
	return []ent.Field{
		field.String("label").NotEmpty().MaxLen(80).Unique(),
		field.String("note").Optional().Nillable(),
		field.String("unit").Default("m").Immutable(),
		field.Text("story"),
		field.Text("appendix").Optional().Nillable(),
		field.Int("count").NonNegative(),
		field.Int("limit").Optional().Nillable(),
		field.Int("attempts").Default(0),
		field.Float("mean").Comment("Of all values that were read."),
		field.Float("deviation").Optional().Nillable().Positive(),
		field.Bool("valid"),
		field.Bool("reviewed").Optional().Nillable(),
		field.Bool("archived").Default(false),
		field.Time("taken_at"),
		field.Time("reviewed_at").Optional().Nillable(),
		field.Time("due_at").Default(entity.Now),
		field.Enum("status").Values("draft", "final").Default("draft"),
		field.Enum("grade").Values("A", "B_PLUS").Optional().Nillable(),
		field.Strings("tags"),
		field.Strings("aliases").Optional(),
		field.Ints("readings").Optional(),
		field.Floats("curve").Optional(),
		field.JSON("extra", map[string]any{}).Optional(),
	}
}
