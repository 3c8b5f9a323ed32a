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

// BackupCode stands in for the second factor once.
type BackupCode struct{ ent.Schema }

// Mixin of BackupCode.
func (BackupCode) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

// Annotations of BackupCode.
func (BackupCode) Annotations() []schema.Annotation { return []schema.Annotation{entity.Internal()} }

// Fields of BackupCode.
func (BackupCode) Fields() []ent.Field {
	return []ent.Field{
		field.UUID("user_id", uuid.UUID{}).Immutable(),
		field.Bytes("hash").Immutable().Sensitive(),
		field.Time("used_at").Optional().Nillable(),
	}
}

// Edges of BackupCode.
func (BackupCode) Edges() []ent.Edge {
	return []ent.Edge{
		edge.From("user", User.Type).Ref("backup_codes").Field("user_id").Unique().Required().Immutable(),
	}
}

// Indexes of BackupCode.
func (BackupCode) Indexes() []ent.Index {
	return []ent.Index{index.Fields("user_id", "hash").Unique()}
}
