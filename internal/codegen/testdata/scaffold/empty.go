package schema

import (
	"entgo.io/ent"

	"godstack/internal/entity"
)

// Empty is an empty.
type Empty struct{ ent.Schema }

// Mixin of Empty.
func (Empty) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }
