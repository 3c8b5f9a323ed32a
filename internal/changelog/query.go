package changelog

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Querier is a connection, a pool or a transaction of pgx.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// columns are those of a change, in the order of [row.targets].
const columns = `c.seq, c.xid, c.entity, c.id, c.version, c.op::text, c.fields, c.old, c.actor, c.at`

// row is a row of the log as it is scanned; all columns are null where an outer join found none.
type row struct {
	id                pgtype.UUID
	seq, version      pgtype.Int8
	xid               pgtype.Uint64
	entity, op, actor pgtype.Text
	at                pgtype.Timestamptz
	fields            []string
	old               []byte
}

func (r *row) targets() []any {
	return []any{&r.seq, &r.xid, &r.entity, &r.id, &r.version, &r.op, &r.fields, &r.old, &r.actor, &r.at}
}

// appendTo appends the change, if there is one.
func (r *row) appendTo(changes []Change) []Change {
	if !r.seq.Valid {
		return changes
	}
	c := Change{
		Seq: r.seq.Int64, Xid: r.xid.Uint64, Entity: r.entity.String, ID: r.id.Bytes, Version: r.version.Int64, Op: Op(r.op.String[0]),
		Fields: r.fields, Old: r.old, Actor: r.actor.String, At: r.at.Time,
	}
	r.fields, r.old = nil, nil // they are the change's now
	return append(changes, c)
}
