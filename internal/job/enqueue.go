package job

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"godstack/internal/record"
)

// Args are what a job is about. They are kept as JSON: ids rather than records, which are others by then, and no secrets.
type Args interface {
	// Kind is the name of the type of job, as "send_mail". It must not change while there are jobs of it.
	Kind() string
}

// The queues. Each has its own workers on a node, so that one that is full holds up no other.
const (
	QueueDefault = river.QueueDefault
	QueueMail    = "mail"
)

var queues = []string{QueueDefault, QueueMail}

const (
	// DefaultTimeout is how long an attempt may take where its options do not say.
	DefaultTimeout = time.Minute
	// MaxTimeout is how long one may take at most.
	MaxTimeout = 24 * time.Hour
	// defaultAttempts take about three weeks.
	defaultAttempts = river.MaxAttemptsDefault
	maxAttempts     = 100
	maxKey          = 500 // bytes
)

// Options of a job. Zero values are the defaults: those of the arguments' Defaults method, if they have one, else what is said here.
type Options struct {
	// At is when it begins at the earliest. Default: at once.
	At time.Time
	// Priority is from 1, which is first and the default, to 4.
	Priority int
	// Key makes a job the only one of its kind and key that waits, runs, or is to be tried again: another is not made. At most 500 bytes.
	// A job that runs counts, although it may have read what has changed since: where that matters, put a version into the key.
	Key string
	// Timeout is how long an attempt may take before its context is done. Default a minute, at most a day.
	Timeout time.Duration
	// Queue is one of the queues above. Default: QueueDefault.
	Queue string
	// MaxAttempts is how often it is tried, from 1 to 100. Default 25, which takes three weeks: the wait is the fourth power of
	// the number of attempts, in seconds.
	MaxAttempts int
}

// defaulter are arguments that have options of their own.
type defaulter interface{ Defaults() Options }

// of returns the options of a job with args, complete and checked.
func (o Options) of(args Args) (Options, error) {
	var d Options
	if a, ok := args.(defaulter); ok {
		d = a.Defaults()
	}
	o = Options{
		At: o.At, Key: o.Key, Priority: cmp.Or(o.Priority, d.Priority, river.PriorityDefault), Timeout: cmp.Or(o.Timeout, d.Timeout, DefaultTimeout),
		Queue: cmp.Or(o.Queue, d.Queue, QueueDefault), MaxAttempts: cmp.Or(o.MaxAttempts, d.MaxAttempts, defaultAttempts),
	}
	switch {
	case o.Priority < 1 || o.Priority > 4:
		return o, fmt.Errorf("priority must be from 1 to 4, not %d", o.Priority)
	case o.Timeout < time.Millisecond || o.Timeout > MaxTimeout:
		return o, fmt.Errorf("timeout must be from 1ms to %s, not %s", MaxTimeout, o.Timeout)
	case !slices.Contains(queues, o.Queue):
		return o, fmt.Errorf("there is no queue %q; there are %v", o.Queue, queues)
	case o.MaxAttempts < 1 || o.MaxAttempts > maxAttempts:
		return o, fmt.Errorf("the number of attempts must be from 1 to %d, not %d", maxAttempts, o.MaxAttempts)
	case len(o.Key) > maxKey:
		return o, fmt.Errorf("key has %d bytes, which is more than %d", len(o.Key), maxKey)
	}
	return o, nil
}

// metadata is what the row has of ours. Its names are in the database, and in an index.
type metadata struct {
	Key     string `json:"key,omitempty"`
	Timeout int64  `json:"timeout_ms"`
}

func (o Options) insert() (*river.InsertOpts, error) {
	m, err := json.Marshal(metadata{Key: o.Key, Timeout: o.Timeout.Milliseconds()})
	return &river.InsertOpts{
		MaxAttempts: o.MaxAttempts, Metadata: m, Priority: o.Priority, Queue: o.Queue, ScheduledAt: o.At,
	}, err
}

// Enqueued says what became of a job.
type Enqueued struct {
	ID int64
	// Duplicate reports that there was one with the key, whose ID that is.
	Duplicate bool
}

// Enqueue makes a job in the transaction of the write that runs in ctx: of a mutation's operation, or of a hook's write. nil options are
// the defaults. Errors: [record.ErrNoTransaction] outside one, for which there is [EnqueueTx], and what is wrong with the options. An error
// of the database leaves the transaction to be rolled back.
func Enqueue(ctx context.Context, args Args, o *Options) (Enqueued, error) {
	if r, ok := ctx.Value(recorderKey{}).(*Recorder); ok {
		return r.enqueue(args, o)
	}
	tx, err := record.Tx(ctx)
	if err != nil {
		return Enqueued{}, fmt.Errorf("enqueue %s: %w", args.Kind(), err)
	}
	return EnqueueTx(ctx, tx, args, o)
}

// EnqueueTx is Enqueue in a transaction that the caller has begun, and commits.
func EnqueueTx(ctx context.Context, tx pgx.Tx, args Args, o *Options) (_ Enqueued, err error) {
	if r, ok := ctx.Value(recorderKey{}).(*Recorder); ok {
		return r.enqueue(args, o)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("enqueue %s: %w", args.Kind(), err)
		}
	}()
	if tx == nil {
		return Enqueued{}, errors.New("there is no transaction")
	}
	opts, err := deref(o).of(args)
	if err != nil {
		return Enqueued{}, err
	}
	if opts.Key != "" {
		id, err := guard(ctx, tx, args.Kind(), opts.Key)
		if err != nil || id != 0 {
			return Enqueued{ID: id, Duplicate: id != 0}, err
		}
	}
	insert, err := opts.insert()
	if err != nil {
		return Enqueued{}, err
	}
	client, err := inserter()
	if err != nil {
		return Enqueued{}, err
	}
	res, err := client.InsertTx(ctx, tx, args, insert)
	if err != nil {
		return Enqueued{}, err
	}
	return Enqueued{ID: res.Job.ID}, nil
}

func deref(o *Options) Options {
	if o == nil {
		return Options{}
	}
	return *o
}

// inserter is a client of River that has no database: all it does is in a transaction that it is given.
var inserter = sync.OnceValues(func() (*river.Client[pgx.Tx], error) {
	return river.NewClient(riverpgxv5.New(nil), &river.Config{Logger: slog.New(slog.DiscardHandler)})
})

// guard waits for other transactions that enqueue with the key, and returns the job with it that has not ended, 0 for none. River's own
// unique jobs are by arguments, and count completed ones. A unique index holds what this sees to, for jobs that are tried again by hand.
func guard(ctx context.Context, tx pgx.Tx, kind, key string) (id int64, err error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 1788))`, kind, key); err != nil {
		return 0, fmt.Errorf("lock the key: %w", err)
	}
	err = tx.QueryRow(ctx, `SELECT id FROM river_job WHERE kind = $1 AND metadata ->> 'key' = $2 AND metadata ? 'key'
		AND state IN ('available', 'pending', 'retryable', 'running', 'scheduled')`, kind, key).Scan(&id)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("look for the key: %w", err)
	}
	return id, nil
}
