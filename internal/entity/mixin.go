package entity

import (
	"time"

	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/mixin"
	"github.com/google/uuid"
)

// Mixin gives an entity its id (a UUID of version 7, so that new rows stand together in the index), version
// (1 on insert, one more at each update: the table's trigger sees to it, whoever writes), created_at and
// updated_at. Every entity has it.
type Mixin struct{ mixin.Schema }

// Fields returns id, version, created_at and updated_at. The database has defaults for them as well, so that
// rows may be inserted by hand.
func (Mixin) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("id", uuid.UUID{}).Default(NewID).Immutable().
			Annotations(entsql.DefaultExpr("gen_random_uuid()")),
		field.Int("version").Default(1).Immutable().
			Annotations(entsql.Default("1"), ReadOnly()).
			Comment("Raised by one at every change; send it back as expectedVersion."),
		field.Time("created_at").Default(Now).Immutable().
			Annotations(entsql.DefaultExpr("now()"), ReadOnly()),
		field.Time("updated_at").Default(Now).UpdateDefault(Now).
			Annotations(entsql.DefaultExpr("now()"), ReadOnly()),
	}
}

// Annotations marks the entity.
func (Mixin) Annotations() []schema.Annotation { return []schema.Annotation{Annotation{Mixin: true}} }

// SoftDelete is a mixin, beside Mixin, for an entity whose records can be brought back:
//
//	func (Thread) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}, entity.SoftDelete{}} }
//
// The generated delete sets deleted_at then, and nobody reads the record any more, wherever it could show, but for lists that are asked
// for deleted records by whoever may restore them. The row stays: unique columns keep their values taken, and nothing cascades. A
// statement in SQL, or of ent, that deletes the row deletes it for good.
type SoftDelete struct {
	mixin.Schema

	// Restore says who brings a deleted record back, and so sees it; they also have to meet the rule of read. Default: whoever may
	// delete it. For administrators alone it is Role("admin").
	Restore Rule
}

// Fields returns deleted_at.
func (SoftDelete) Fields() []ent.Field {
	return []ent.Field{
		field.Time("deleted_at").Optional().Nillable().Annotations(ReadOnly()).
			Comment("When it was deleted; null of a record that is not."),
	}
}

// Annotations marks the entity.
func (m SoftDelete) Annotations() []schema.Annotation {
	a := Annotation{SoftDelete: true}
	if m.Restore.Kind != "" {
		a.Restore = &m.Restore
	}
	return []schema.Annotation{a}
}

// NewID returns a UUID of version 7.
func NewID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// Now returns the time in UTC with the resolution that Postgres keeps, a microsecond: what a write answers is
// then what a later read gives.
func Now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
