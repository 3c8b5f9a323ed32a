package changelog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Config adjusts a [Tailer]. The zero value holds the defaults.
type Config struct {
	// ActiveInterval is the time between reads while somebody is interested. 10 ms by default.
	ActiveInterval time.Duration

	// IdleInterval is the time between reads while nobody is. 500 ms by default.
	IdleInterval time.Duration

	// MinInterval is the time between reads at least, however many hints come. 1 ms by default.
	MinInterval time.Duration

	// Timeout bounds connecting, and each read. 10 s by default.
	Timeout time.Duration

	// MaxRetry bounds the pause before connecting again, which begins at a fiftieth of a second and doubles. 5 s by default.
	MaxRetry time.Duration

	// MaxBatch is how many changes one batch holds; more are a Resync. 100,000 by default.
	MaxBatch int

	// Logger is told of failures. slog.Default() by default.
	Logger *slog.Logger
}

func (c *Config) withDefaults() (Config, error) {
	var d Config
	if c != nil {
		d = *c
	}
	for _, v := range []struct {
		name    string
		value   *time.Duration
		initial time.Duration
	}{
		{"ActiveInterval", &d.ActiveInterval, 10 * time.Millisecond},
		{"IdleInterval", &d.IdleInterval, 500 * time.Millisecond},
		{"MinInterval", &d.MinInterval, time.Millisecond},
		{"Timeout", &d.Timeout, 10 * time.Second},
		{"MaxRetry", &d.MaxRetry, 5 * time.Second},
	} {
		if *v.value < 0 {
			return Config{}, fmt.Errorf("changelog: %s is negative", v.name)
		}
		*v.value = cmp.Or(*v.value, v.initial)
	}
	if d.MaxBatch < 0 {
		return Config{}, errors.New("changelog: MaxBatch is negative")
	}
	d.MaxBatch = cmp.Or(d.MaxBatch, 100_000)
	d.Logger = cmp.Or(d.Logger, slog.Default())
	return d, nil
}

// Handler is given what a [Tailer] reads, one batch after the other. The next read waits for it, so it should not.
type Handler func(context.Context, Batch)

// Tailer reads the log as it grows. Only Run reads; the other methods may be called at any time from anywhere.
type Tailer struct {
	db     *pgx.ConnConfig
	handle Handler
	cfg    Config

	listeners atomic.Int64
	wake      chan struct{} // one hint at most

	epoch    atomic.Pointer[uuid.UUID]
	fresh    atomic.Pointer[time.Time] // what was committed before has been handled
	reads    atomic.Uint64
	changes  atomic.Uint64
	resyncs  atomic.Uint64
	failures atomic.Uint64
}

// NewTailer returns a tailer that reads over a connection of its own to the database at db, which has to be a primary: of several hosts
// it takes the one that is. It starts when Run does.
func NewTailer(db *pgx.ConnConfig, handle Handler, cfg *Config) (*Tailer, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	db = db.Copy()
	db.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	if db.ValidateConnect == nil {
		db.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
	if db.RuntimeParams["application_name"] == "" {
		db.RuntimeParams["application_name"] = "changelog"
	}
	t := &Tailer{db: db, handle: handle, cfg: c, wake: make(chan struct{}, 1)}
	created := time.Now()
	t.fresh.Store(&created)
	return t, nil
}

// Wake hints that there is something to read. Hints given while a read is due are one, and those that nobody listens
// for are none: the next read is soon enough.
func (t *Tailer) Wake() {
	if t.listeners.Load() == 0 {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Interest says how many listen: with any, reads are frequent.
func (t *Tailer) Interest(listeners int) {
	if t.listeners.Swap(int64(listeners)) == 0 && listeners > 0 {
		t.Wake()
	}
}

// Epoch is the log's epoch, uuid.Nil before the first connection.
func (t *Tailer) Epoch() uuid.UUID {
	if e := t.epoch.Load(); e != nil {
		return *e
	}
	return uuid.Nil
}

// Lag is how long ago the last read began that has been handled: whatever was committed earlier than that has been.
// Without any, it counts from NewTailer.
func (t *Tailer) Lag() time.Duration { return time.Since(*t.fresh.Load()) }

// Healthy reports whether the tailer keeps up: its lag is below ten idle intervals.
func (t *Tailer) Healthy() bool { return t.Lag() < 10*t.cfg.IdleInterval }

// Stats counts what a tailer has done.
type Stats struct {
	Reads, Changes, Resyncs, Failures uint64
}

// Stats returns the counts since NewTailer.
func (t *Tailer) Stats() Stats {
	return Stats{t.reads.Load(), t.changes.Load(), t.resyncs.Load(), t.failures.Load()}
}

// Run reads until ctx is done, and returns nil then. It begins with what is committed after its first read, whose batch is empty and says
// where that is. No error ends it: it logs them, connects again and reads on where it was.
func (t *Tailer) Run(ctx context.Context) error {
	const firstRetry = 20 * time.Millisecond
	var (
		at    position
		retry = firstRetry
	)
	for {
		reads := t.reads.Load()
		err := t.session(ctx, &at)
		if ctx.Err() != nil {
			return nil
		}
		t.failures.Add(1)
		if t.reads.Load() > reads {
			retry = firstRetry
		}
		pause := retry/2 + rand.N(retry/2) // nodes do not come back in step
		retry = min(2*retry, t.cfg.MaxRetry)
		t.cfg.Logger.WarnContext(ctx, "change log: connecting again", "error", err, "pause", pause)
		if sleep(ctx, pause) != nil {
			return nil
		}
	}
}

// session reads on one connection, from position at on, until something fails.
func (t *Tailer) session(ctx context.Context, at *position) error {
	r, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = r.conn.Close(ctx)
	}()
	if r.epoch == at.epoch {
		r.position = *at
	} else {
		t.epoch.Store(new(r.epoch))
		t.deliver(ctx, Batch{Epoch: r.epoch, Before: r.after, After: r.after, Resync: at.epoch != uuid.Nil})
		*at = r.position
	}
	for {
		began := time.Now()
		b, err := t.read(ctx, r)
		if err != nil {
			return err
		}
		if len(b.Changes) > 0 || b.Resync {
			t.deliver(ctx, b)
		}
		*at = r.position
		t.fresh.Store(&began)
		if err := t.wait(ctx, began); err != nil {
			return err
		}
	}
}

// open connects and finds out where the log stands.
func (t *Tailer) open(ctx context.Context) (_ *reader, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, t.db)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	r, err := newReader(ctx, conn, t.cfg.MaxBatch)
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return r, nil
}

func (t *Tailer) read(ctx context.Context, r *reader) (Batch, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	b, err := r.read(ctx)
	if err == nil {
		t.reads.Add(1)
	}
	return b, err
}

func (t *Tailer) deliver(ctx context.Context, b Batch) {
	t.changes.Add(uint64(len(b.Changes)))
	if b.Resync {
		t.resyncs.Add(1)
	}
	t.handle(ctx, b)
}

// wait returns when the next read is due.
func (t *Tailer) wait(ctx context.Context, last time.Time) error {
	interval := t.cfg.IdleInterval
	if t.listeners.Load() > 0 {
		interval = t.cfg.ActiveInterval
	}
	timer := time.NewTimer(interval - time.Since(last))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.wake:
	case <-ctx.Done():
		return ctx.Err()
	}
	return sleep(ctx, t.cfg.MinInterval-time.Since(last))
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
