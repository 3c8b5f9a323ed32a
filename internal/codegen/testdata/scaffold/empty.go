package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema"

	"godstack/internal/entity"
)

// Empty is an empty.
type Empty struct{ ent.Schema }

// Mixin of Empty.
func (Empty) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of Empty: every signed-in user reads, creates, changes and deletes all of them. Say here who really may.
func (Empty) Annotations() []schema.Annotation {
	return []schema.Annotation{entity.Access{
		Read:   entity.SignedIn(),
		Create: entity.SignedIn(),
		Update: entity.SignedIn(),
		Delete: entity.SignedIn(),
	}}
}
