// Package entity is what a schema file may say beyond ent's own words: the [Mixin] that every entity has, [SoftDelete],
// annotations for what the API shows of it, and [Access], who may do what.
//
//	type Task struct{ ent.Schema }
//
//	func (Task) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }
//
//	func (Task) Fields() []ent.Field {
//		return []ent.Field{
//			field.String("title").NotEmpty().MaxLen(200),
//			field.Time("closed_at").Optional().Nillable().Annotations(entity.ReadOnly()),
//		}
//	}
//
//	func (Task) Annotations() []schema.Annotation {
//		return []schema.Annotation{entity.Access{Read: entity.SignedIn(), Create: entity.SignedIn()}}
//	}
//
// Guarantees, each held by the generator's corpus (internal/codegen/testdata):
//
//   - an entity with the Mixin and no annotation is exposed whole, to administrators: query, list, mutations, subscription;
//   - id, version, createdAt and updatedAt are in no input;
//   - a Hidden or Sensitive field is nowhere in the SDL;
//   - a field that is ReadableBy some is nullable in its type, and as it was in inputs;
//   - an entity with the mixin SoftDelete keeps what is deleted, and has a mutation to restore it;
//   - rules of [Access] that do not fit the schema are refused, with their line (TestErrors).
//
// It is a leaf, and data only: it imports ent's schema vocabulary and nothing of ours. Schema files and the
// generator import it.
package entity

import (
	"encoding/json"
	"fmt"
	"slices"

	"entgo.io/ent/schema"
)

// Operation is a generated mutation.
type Operation string

// The generated mutations of an entity.
const (
	Create Operation = "create"
	Update Operation = "update"
	Delete Operation = "delete"
)

// Annotation says what the API shows of an entity, a field or an edge. Schema files make it with the functions
// of this package; the generator decodes it.
type Annotation struct {
	Mixin      bool        `json:"mixin,omitempty"`      // entity: it has the Mixin
	Internal   bool        `json:"internal,omitempty"`   // entity: not in the API
	Logged     bool        `json:"logged,omitempty"`     // entity: in the change log although it is internal
	Quiet      bool        `json:"quiet,omitempty"`      // entity: no subscription
	Operations []Operation `json:"operations,omitempty"` // entity: the mutations there are
	Restricted bool        `json:"restricted,omitempty"` // entity: Operations is meant, also when empty
	Hidden     bool        `json:"hidden,omitempty"`     // field, edge: not in the API
	ReadOnly   bool        `json:"readOnly,omitempty"`   // field, edge: in no input
	Viewer     bool        `json:"viewer,omitempty"`     // edge: the viewer on create, in no input
	ReadableBy *Rule       `json:"readableBy,omitempty"` // field: who reads it
	SoftDelete bool        `json:"softDelete,omitempty"` // entity: it has the mixin SoftDelete
	Restore    *Rule       `json:"restore,omitempty"`    // entity: who brings a deleted record back; nil for whoever may delete it
}

// Name is the key under which ent keeps the annotation.
func (Annotation) Name() string { return "Godstack" }

// Merge joins the annotations given for one schema, field or edge.
func (a Annotation) Merge(other schema.Annotation) schema.Annotation {
	b, ok := other.(Annotation)
	if !ok {
		return a
	}
	a.Mixin = a.Mixin || b.Mixin
	a.Internal = a.Internal || b.Internal
	a.Logged = a.Logged || b.Logged
	a.Quiet = a.Quiet || b.Quiet
	a.Hidden = a.Hidden || b.Hidden
	a.ReadOnly = a.ReadOnly || b.ReadOnly
	a.Viewer = a.Viewer || b.Viewer
	a.SoftDelete = a.SoftDelete || b.SoftDelete
	if b.Restore != nil {
		a.Restore = b.Restore
	}
	if b.ReadableBy != nil {
		a.ReadableBy = b.ReadableBy
	}
	if b.Restricted {
		a.Restricted, a.Operations = true, b.Operations
	}
	return a
}

// Decode reads the annotation from a loaded schema; the zero Annotation where there is none.
func Decode(annotations map[string]any) (a Annotation, err error) {
	v, ok := annotations[a.Name()]
	if !ok {
		return a, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return a, fmt.Errorf("encode annotation: %w", err)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("decode annotation: %w", err)
	}
	return a, nil
}

// Allows reports whether the entity has the generated mutation op.
func (a Annotation) Allows(op Operation) bool {
	return !a.Restricted || slices.Contains(a.Operations, op)
}

// Internal keeps an entity out of the API: it has models, a table and versions, and no GraphQL types. Its
// changes are not logged, unless it is Logged.
func Internal() Annotation { return Annotation{Internal: true} }

// Logged writes the changes of an internal entity to the change log, for the program itself to follow them.
func Logged() Annotation { return Annotation{Logged: true} }

// NoSubscription leaves an entity's subscription fields out.
func NoSubscription() Annotation { return Annotation{Quiet: true} }

// Operations limits an entity's generated mutations to ops.
func Operations(ops ...Operation) Annotation {
	return Annotation{Restricted: true, Operations: ops}
}

// ReadOnly on an entity leaves all its generated mutations out; on a field or edge it keeps that one out of the
// inputs.
func ReadOnly() Annotation { return Annotation{Restricted: true, ReadOnly: true} }

// Hidden keeps a field or an edge out of the API: out of types, inputs, filters and orders.
func Hidden() Annotation { return Annotation{Hidden: true} }

// Viewer makes a to-one edge to the user point to whoever creates the record. It is in no input, so that nobody
// writes as someone else; without a viewer, create answers UNAUTHENTICATED.
func Viewer() Annotation { return Annotation{Viewer: true} }
