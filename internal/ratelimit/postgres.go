package ratelimit

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DB is what Postgres needs of a pool. It must not be a transaction: what is taken stays taken, whatever comes of the
// request, and its row stays locked no longer than one statement.
type DB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Postgres keeps limits in the table rate_limits, whose primary holds it alone: a standby cannot be asked.
type Postgres struct {
	db    DB
	takes atomic.Uint64
}

var _ Store = (*Postgres)(nil)

// NewPostgres returns a store in the database of db, to which the migrations have been applied.
func NewPostgres(db DB) *Postgres { return &Postgres{db: db} }

// Each sweepEach-th take removes up to sweepMost expired rows. One take adds one row at most, so they are removed
// faster than they are made.
const (
	sweepEach = 256
	sweepMost = 512
)

// excluded.tat is the clock's time and one interval ($2). What is refused writes nothing; its row is read as it was
// when the statement began, or not at all where it was made after that.
const take = `
WITH taken AS (
    INSERT INTO rate_limits AS r (key, tat) VALUES ($1, clock_timestamp() + $2::interval)
    ON CONFLICT (key) DO UPDATE SET tat = greatest(r.tat + $2::interval, excluded.tat)
    WHERE r.tat <= excluded.tat + $3::interval - 2 * $2::interval
    RETURNING tat
)
SELECT EXISTS (SELECT FROM taken),
       coalesce((SELECT tat FROM taken), (SELECT tat FROM rate_limits WHERE key = $1)) - clock_timestamp()`

const sweep = `
DELETE FROM rate_limits WHERE key IN (
    SELECT key FROM rate_limits WHERE tat < statement_timestamp() ORDER BY tat LIMIT $1 FOR UPDATE SKIP LOCKED
)`

// Take implements [Store].
func (p *Postgres) Take(ctx context.Context, key string, l Limit) (Result, error) {
	c, err := l.cell()
	if err != nil {
		return Result{}, err
	}
	var ok bool
	var ahead *time.Duration
	if err := p.db.QueryRow(ctx, take, storeKey(l, key), c.interval, c.burst).Scan(&ok, &ahead); err != nil {
		return Result{}, fmt.Errorf("take from limit %s: %w", l.Name, err)
	}
	if p.takes.Add(1)%sweepEach == 0 {
		_, _ = p.db.Exec(ctx, sweep, sweepMost) // the take stands; what is left over, a later one removes
	}
	if !ok && (ahead == nil || *ahead <= c.burst-c.interval) {
		ahead = &c.burst // used up by others while the statement ran
	}
	return l.result(c, ok, *ahead), nil
}
