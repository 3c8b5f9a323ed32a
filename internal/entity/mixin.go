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

// NewID returns a UUID of version 7.
func NewID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// Now returns the time in UTC with the resolution that Postgres keeps, a microsecond: what a write answers is
// then what a later read gives.
func Now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
