package job

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/record"
)

func TestEnqueueIsOfTheTransaction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	texts := make(chan string, 10)
	b.work(t, func(_ context.Context, n note) error {
		texts <- n.Text
		return nil
	})
	undo := errors.New("undo")
	require.ErrorIs(t, pgx.BeginFunc(t.Context(), b, func(tx pgx.Tx) error {
		_, err := EnqueueTx(t.Context(), tx, note{"rolled back"}, nil)
		return errors.Join(err, undo)
	}), undo)
	tx, err := b.Begin(t.Context())
	require.NoError(t, err)
	e, err := EnqueueTx(t.Context(), tx, note{"committed"}, nil)
	require.NoError(t, err)
	require.Zero(t, one[int](t, b, `SELECT count(*) FROM river_job`), "nobody else sees it")
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, "committed", receive(t, texts))
	b.becomes(t, e, "completed")
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM river_job`))
}

func TestEnqueueOutsideATransaction(t *testing.T) {
	t.Parallel()
	_, err := Enqueue(t.Context(), note{"x"}, nil)
	require.ErrorIs(t, err, record.ErrNoTransaction)
	require.ErrorContains(t, err, "enqueue note: no transaction runs here")
	_, err = EnqueueTx(t.Context(), nil, note{"x"}, nil)
	require.EqualError(t, err, "enqueue note: there is no transaction")
}

// patient has options of its own.
type patient struct{}

func (patient) Kind() string { return "patient" }
func (patient) Defaults() Options {
	return Options{Priority: 3, Timeout: time.Hour, Queue: QueueMail, MaxAttempts: 4}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type row struct {
		Priority, Max  int
		Queue, Timeout string
	}
	of := func(args Args, o *Options) (r row) {
		e := b.enqueue(t, args, o)
		require.NoError(t, b.QueryRow(t.Context(), `SELECT priority, max_attempts, queue, metadata ->> 'timeout_ms' FROM river_job WHERE id = $1`,
			e.ID).Scan(&r.Priority, &r.Max, &r.Queue, &r.Timeout))
		return r
	}
	require.Equal(t, row{1, 25, "default", "60000"}, of(note{}, nil))
	require.Equal(t, row{2, 5, "mail", "1000"}, of(note{}, &Options{Priority: 2, MaxAttempts: 5, Queue: QueueMail, Timeout: time.Second}))
	require.Equal(t, row{3, 4, "mail", "3600000"}, of(patient{}, nil))
	require.Equal(t, row{1, 4, "default", "3600000"}, of(patient{}, &Options{Priority: 1, Queue: QueueDefault}))

	for want, o := range map[string]Options{
		"enqueue note: priority must be from 1 to 4, not 5":                   {Priority: 5},
		"enqueue note: timeout must be from 1ms to 24h0m0s, not -1s":          {Timeout: -time.Second},
		"enqueue note: timeout must be from 1ms to 24h0m0s, not 25h0m0s":      {Timeout: 25 * time.Hour},
		`enqueue note: there is no queue "fast"; there are [default mail]`:    {Queue: "fast"},
		"enqueue note: the number of attempts must be from 1 to 100, not 101": {MaxAttempts: 101},
		"enqueue note: key has 501 bytes, which is more than 500":             {Key: strings.Repeat("k", 501)},
	} {
		require.EqualError(t, pgx.BeginFunc(t.Context(), b, func(tx pgx.Tx) error {
			_, err := EnqueueTx(t.Context(), tx, note{}, &o)
			return err
		}), want)
	}
}

func TestRunAt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	at := make(chan time.Time, 2)
	b.work(t, func(context.Context, note) error {
		at <- time.Now()
		return nil
	})
	begin := time.Now().Add(1500 * time.Millisecond)
	e := b.enqueue(t, note{}, &Options{At: begin})
	require.Equal(t, "scheduled", b.state(t, e))
	later := b.enqueue(t, note{}, &Options{At: time.Now().Add(time.Hour)})
	require.False(t, receive(t, at).Before(begin))
	b.becomes(t, e, "completed")
	require.Equal(t, "scheduled", b.state(t, later))
}

func TestKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var (
		wg   sync.WaitGroup
		all  = make([]Enqueued, 12)
		errs = make([]error, len(all))
	)
	for i := range all {
		wg.Go(func() { all[i], errs[i] = b.tryEnqueue(t.Context(), note{}, &Options{Key: "k"}) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	made := 0
	for _, e := range all {
		require.Equal(t, all[0].ID, e.ID)
		if !e.Duplicate {
			made++
		}
	}
	require.Equal(t, 1, made)
	require.False(t, b.enqueue(t, note{}, &Options{Key: "other"}).Duplicate)
	require.False(t, b.enqueue(t, patient{}, &Options{Key: "k"}).Duplicate, "another kind")
	require.False(t, b.enqueue(t, note{}, nil).Duplicate)

	// One that was rolled back is in nobody's way, and one that waits for it goes on.
	tx, err := b.Begin(t.Context())
	require.NoError(t, err)
	first, err := EnqueueTx(t.Context(), tx, note{}, &Options{Key: "undone"})
	require.NoError(t, err)
	second, failed := make(chan Enqueued, 1), make(chan error, 1)
	go func() {
		e, err := b.tryEnqueue(t.Context(), note{}, &Options{Key: "undone"})
		second <- e
		failed <- err
	}()
	eventually(t, func() bool {
		return one[int](t, b, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
	}, "the second waits")
	require.NoError(t, tx.Rollback(t.Context()))
	e := receive(t, second)
	require.NoError(t, receive(t, failed))
	require.False(t, e.Duplicate)
	require.NotEqual(t, first.ID, e.ID)

	// While it runs there is no other, and when it has ended there may be one.
	began, end := make(chan struct{}, 20), make(chan struct{})
	b.work(t, func(context.Context, note) error {
		began <- struct{}{}
		<-end
		return nil
	})
	receive(t, began)
	b.becomes(t, all[0], "running")
	require.True(t, b.enqueue(t, note{}, &Options{Key: "k"}).Duplicate)
	close(end)
	b.becomes(t, all[0], "completed")
	require.False(t, b.enqueue(t, note{}, &Options{Key: "k"}).Duplicate)
}

// The database itself refuses a second job with the key, whoever makes it.
func TestKeyIsHeldByAnIndex(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.enqueue(t, note{}, &Options{Key: "k"})
	again := `INSERT INTO river_job (args, kind, metadata) SELECT args, kind, metadata FROM river_job WHERE id = $1`
	_, err := b.Exec(t.Context(), again, e.ID)
	require.ErrorContains(t, err, "job_key_idx")
	b.exec(t, `UPDATE river_job SET state = 'discarded', finalized_at = now()`)
	b.exec(t, again, e.ID)
}

func TestRecorder(t *testing.T) {
	t.Parallel()
	r := &Recorder{}
	ctx := r.Context(t.Context())
	e, err := Enqueue(ctx, note{"a"}, &Options{Key: "k"})
	require.NoError(t, err)
	again, err := EnqueueTx(ctx, nil, note{"b"}, &Options{Key: "k"})
	require.NoError(t, err)
	require.Equal(t, Enqueued{ID: e.ID, Duplicate: true}, again)
	_, err = Enqueue(ctx, patient{}, nil)
	require.NoError(t, err)
	_, err = Enqueue(ctx, note{"c"}, &Options{Priority: 9})
	require.EqualError(t, err, "enqueue note: priority must be from 1 to 4, not 9")
	require.Equal(t, []Recorded{
		{note{"a"}, Options{Key: "k", Priority: 1, Timeout: time.Minute, Queue: "default", MaxAttempts: 25}},
		{patient{}, Options{Priority: 3, Timeout: time.Hour, Queue: "mail", MaxAttempts: 4}},
	}, r.Jobs())
}
