package changelog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// slots is how many partitions the log has, one a day in turn.
const slots = 9

// readAll reads what $1 does not see, at most $2 rows. The first columns say where the log stands. Everything is seen by the one
// snapshot that the statement returns.
//
// Two branches and no OR: each is one walk of the index (xid, seq).
const readAll = `
SELECT h.snapshot, h.clock, h.epoch, h.expired, ` + columns + `
  FROM (SELECT pg_current_snapshot()::text AS snapshot, clock_timestamp() AS clock, epoch, expired FROM changelog_state) h
  LEFT JOIN (
       SELECT * FROM changes WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)` + "%[1]s" + `
       UNION ALL
       SELECT * FROM changes WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))` + "%[1]s" + `
       ) c ON true
 ORDER BY c.seq LIMIT $2`

var (
	// readEverywhere looks into all partitions.
	readEverywhere = fmt.Sprintf(readAll, "")
	// readDays looks into three. Scalars let the executor leave the others alone also in a generic plan, an array would not.
	readDays = fmt.Sprintf(readAll, " AND slot IN ($3::smallint, $4::smallint, $5::smallint)")
)

// errEpoch says that the log is not the one that was read until now.
var errEpoch = errors.New("the change log was replaced")

// reader reads the log on one connection.
type reader struct {
	conn  *pgx.Conn
	limit int // of rows in a read

	position
	fence fence
}

// position is what a reader knows: what After of its last batch said.
type position struct {
	epoch   uuid.UUID
	after   Snapshot
	expired uint64
}

// fence says since when a transaction can have written: one above xid has begun on that day or later, so its rows lie in partitions of
// that day and those after. That cannot be had from snapshots, which tell who ended, not who began. In the zero value it says nothing.
type fence struct {
	xid uint64
	day int64 // since 1970, UTC
}

// day is the number of a moment's day, which modulo [slots] is its partition.
func day(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }

// slot is the partition of a day.
func slot(day int64) int16 { return int16(day % slots) }

// newReader sets up a connection, compares the log with the database, and stands where the log does.
func newReader(ctx context.Context, conn *pgx.Conn, limit int) (*reader, error) {
	// The planner, which knows neither the snapshot nor how fast the log grows, would rather scan partitions.
	if _, err := conn.Exec(ctx, `SET enable_seqscan = off; SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan;
		SET jit = off`, pgx.QueryExecModeSimpleProtocol); err != nil {
		return nil, fmt.Errorf("prepare reading changes: %w", err)
	}
	if _, err := conn.Exec(ctx, `SELECT changelog_epoch()`); err != nil {
		return nil, fmt.Errorf("determine epoch: %w", err)
	}
	r := &reader{conn: conn, limit: limit}
	var (
		snapshot string
		epoch    pgtype.UUID
	)
	err := conn.QueryRow(ctx, `SELECT pg_current_snapshot()::text, epoch, expired FROM changelog_state`).Scan(&snapshot, &epoch, &r.expired)
	if err == nil {
		r.epoch = epoch.Bytes
		r.after, err = ParseSnapshot(snapshot)
	}
	if err != nil {
		return nil, fmt.Errorf("read position: %w", err)
	}
	return r, nil
}

// read returns what became visible since the last read. More than the limit, or a log of which what was not read yet has been removed,
// is a batch with Resync. It returns [errEpoch] where the log was replaced.
func (r *reader) read(ctx context.Context) (Batch, error) {
	b, next, clock, err := r.query(ctx)
	if err != nil {
		return Batch{}, fmt.Errorf("read changes: %w", err)
	}
	if next.epoch != r.epoch {
		return Batch{}, errEpoch
	}
	removed := next.expired != r.expired && next.expired >= r.after.Xmin()
	if len(b.Changes) > r.limit || removed || next.after.Xmax() < r.after.Xmax() {
		b = Batch{Epoch: b.Epoch, Before: b.After, After: b.After, Resync: true}
	}
	r.position = next
	if day(clock) != r.fence.day {
		err = r.raise(ctx)
	}
	return b, err
}

// query reads the partitions that can hold something new.
func (r *reader) query(ctx context.Context) (b Batch, next position, clock time.Time, err error) {
	if r.fence.xid > 0 && r.fence.xid < r.after.Xmin() {
		// Tomorrow's is for a read at midnight, yesterday's for a clock that is set back a little.
		today := r.fence.day
		b, next, clock, err = r.scan(ctx, readDays, slot(today-1), slot(today), slot(today+1))
		if err != nil || max(today-1, min(day(clock), today+1)) == day(clock) {
			return b, next, clock, err
		}
	}
	return r.scan(ctx, readEverywhere)
}

// raise takes a transaction id of its own for the fence: those given out later are higher.
func (r *reader) raise(ctx context.Context) error {
	var (
		xid uint64
		at  time.Time
	)
	if err := r.conn.QueryRow(ctx, `SELECT pg_current_xact_id(), statement_timestamp()`).Scan(&xid, &at); err != nil {
		return fmt.Errorf("take a transaction id: %w", err)
	}
	r.fence = fence{xid: xid, day: day(at)}
	return nil
}

func (r *reader) scan(ctx context.Context, sql string, days ...any) (b Batch, next position, clock time.Time, err error) {
	rows, err := r.conn.Query(ctx, sql, append([]any{r.after.String(), r.limit + 1}, days...)...)
	if err != nil {
		return b, next, clock, err
	}
	var (
		snapshot string
		epoch    pgtype.UUID
		found    row
	)
	tag, err := pgx.ForEachRow(rows, append([]any{&snapshot, &clock, &epoch, &next.expired}, found.targets()...), func() error {
		b.Changes = found.appendTo(b.Changes)
		return nil
	})
	if err == nil && tag.RowsAffected() == 0 {
		err = errEpoch // nobody has begun the log yet
	}
	if err == nil {
		next.after, err = ParseSnapshot(snapshot)
	}
	next.epoch = epoch.Bytes
	b.Epoch, b.Before, b.After = next.epoch, r.after, next.after
	return b, next, clock, err
}
