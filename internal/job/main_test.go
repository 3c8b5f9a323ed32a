package job

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

const (
	// childEnv makes this program a node of another process: its words are when it stops in the middle of a job, and the database.
	childEnv = "JOB_TEST_CHILD"

	// patience bounds what a test waits for.
	patience = 60 * time.Second
	tick     = 5 * time.Millisecond

	// lease is that of the tests' nodes.
	lease = 600 * time.Millisecond
)

func TestMain(m *testing.M) {
	if when, url, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		fmt.Fprintln(os.Stderr, child(when, url))
		os.Exit(1)
	}
	dbtest.Main(m)
}

// note is a job that tests give a meaning.
type note struct {
	Text string `json:"text"`
}

func (note) Kind() string { return "note" }

// bundle is a database of its own.
type bundle struct {
	*pgxpool.Pool
	url string
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{url: dbtest.URL(t)}
	cfg, err := pgxpool.ParseConfig(b.url)
	require.NoError(t, err)
	cfg.MaxConns = 30
	b.Pool, err = pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(b.Close)
	return b
}

// enqueue enqueues in a transaction of its own.
func (b *bundle) enqueue(t *testing.T, args Args, o *Options) (e Enqueued) {
	t.Helper()
	e, err := b.tryEnqueue(t.Context(), args, o)
	require.NoError(t, err)
	return e
}

// tryEnqueue is enqueue for goroutines that are not the test's.
func (b *bundle) tryEnqueue(ctx context.Context, args Args, o *Options) (e Enqueued, err error) {
	err = pgx.BeginFunc(ctx, b, func(tx pgx.Tx) (err error) {
		e, err = EnqueueTx(ctx, tx, args, o)
		return err
	})
	return e, err
}

// node is a runner that runs.
type node struct {
	*Runner
	stop func() error // waits for its end
}

// start starts a node, which ends with the test.
func (b *bundle) start(t *testing.T, deps Deps, cfg Config) *node {
	t.Helper()
	cfg.Lease, cfg.PollInterval = lease, 100*time.Millisecond
	r, err := NewRunner(b.Pool, deps, &cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var failed error
	go func() {
		defer close(done)
		failed = r.Run(ctx)
	}()
	n := &node{Runner: r, stop: func() error {
		cancel()
		<-done
		return failed
	}}
	t.Cleanup(func() { require.NoError(t, n.stop()) })
	return n
}

// work starts a node that works notes.
func (b *bundle) work(t *testing.T, f func(context.Context, note) error) *node {
	t.Helper()
	return b.start(t, Deps{}, Config{Kinds: []Kind{Func(f)}})
}

// one scans one value.
func one[T any](t *testing.T, b *bundle, sql string, args ...any) (v T) {
	t.Helper()
	require.NoError(t, b.QueryRow(t.Context(), sql, args...).Scan(&v))
	return v
}

func (b *bundle) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := b.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func (b *bundle) state(t *testing.T, e Enqueued) string {
	t.Helper()
	return one[string](t, b, `SELECT state FROM river_job WHERE id = $1`, e.ID)
}

// becomes waits until a job has a state.
func (b *bundle) becomes(t *testing.T, e Enqueued, state string) {
	t.Helper()
	eventually(t, func() bool { return b.state(t, e) == state }, state)
}

func eventually(t *testing.T, f func() bool, what string) {
	t.Helper()
	require.Eventually(t, f, patience, tick, what)
}

// receive waits for a value.
func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		require.Fail(t, "nothing comes")
	}
	return v
}
