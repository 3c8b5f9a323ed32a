package job

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

func TestRetry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	wrong := errors.New("something is wrong")
	attempts := make(chan Attempt, 10)
	b.work(t, func(ctx context.Context, n note) error {
		a, ok := Current(ctx)
		if !ok {
			return errors.New("no attempt")
		}
		attempts <- a
		switch {
		case n.Text == "never":
			return Cancel(wrong)
		case n.Text == "always" || a.Number == 1:
			return wrong
		}
		return nil
	})
	e := b.enqueue(t, note{"once"}, nil)
	first := time.Now()
	require.Equal(t, Attempt{e.ID, 1}, receive(t, attempts))
	require.Equal(t, Attempt{e.ID, 2}, receive(t, attempts))
	require.Greater(t, time.Since(first), 800*time.Millisecond)
	b.becomes(t, e, "completed")
	require.Equal(t, "something is wrong", one[string](t, b, `SELECT errors[1] ->> 'error' FROM river_job WHERE id = $1`, e.ID))

	// The wait grows, and at the end the job is kept.
	e = b.enqueue(t, note{"always"}, &Options{MaxAttempts: 5, At: time.Now().Add(time.Hour)})
	b.exec(t, `UPDATE river_job SET attempt = 3, state = 'available', scheduled_at = now(),
		errors = array_fill('{"at": "2026-01-02T03:04:05Z", "attempt": 1, "error": "before", "trace": ""}'::jsonb, ARRAY[3]) WHERE id = $1`, e.ID)
	require.Equal(t, Attempt{e.ID, 4}, receive(t, attempts))
	b.becomes(t, e, "retryable")
	require.InDelta(t, 256, one[float64](t, b, `SELECT extract(epoch FROM scheduled_at - now())::float8 FROM river_job WHERE id = $1`, e.ID), 60)
	b.exec(t, `UPDATE river_job SET state = 'available', scheduled_at = now() WHERE id = $1`, e.ID)
	require.Equal(t, Attempt{e.ID, 5}, receive(t, attempts))
	b.becomes(t, e, "discarded")

	e = b.enqueue(t, note{"never"}, nil)
	b.becomes(t, e, "cancelled")
	require.Equal(t, 1, one[int](t, b, `SELECT attempt FROM river_job WHERE id = $1`, e.ID))
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.work(t, func(ctx context.Context, _ note) error {
		<-ctx.Done()
		return ctx.Err()
	})
	e := b.enqueue(t, note{}, &Options{Timeout: 50 * time.Millisecond, MaxAttempts: 1})
	b.becomes(t, e, "discarded")
	require.Equal(t, "context deadline exceeded", one[string](t, b, `SELECT errors[1] ->> 'error' FROM river_job WHERE id = $1`, e.ID))
	require.Equal(t, Stats{Kinds: map[string]KindStats{"note": {Failed: 1}}}, n.counts())
}

// While a release is rolled out, what it alone can do waits for its nodes.
func TestUnknownKindsAreLeft(t *testing.T) {
	t.Parallel()
	b := setup(t)
	unknown := b.enqueue(t, patient{}, nil)
	b.work(t, func(context.Context, note) error { return nil })
	known := b.enqueue(t, note{}, &Options{Queue: QueueMail, Priority: 4})
	b.becomes(t, known, "completed")
	require.Equal(t, "available", b.state(t, unknown))
	require.Zero(t, one[int](t, b, `SELECT attempt FROM river_job WHERE id = $1`, unknown.ID))
}

// effect is a job whose effect is a row.
func effect(ctx context.Context, db *pgxpool.Pool) error {
	a, _ := Current(ctx)
	_, err := db.Exec(ctx, `INSERT INTO effects (job) VALUES ($1) ON CONFLICT DO NOTHING`, a.ID)
	return err
}

// child works notes, and stops in the middle of one: before its effect, or after.
func child(when, url string) error {
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		return err
	}
	r, err := NewRunner(pool, Deps{}, &Config{Lease: lease, Kinds: []Kind{Func(func(ctx context.Context, _ note) error {
		if when == "after" {
			if err := effect(ctx, pool); err != nil {
				return err
			}
		}
		fmt.Println("here")
		select {}
	})}})
	if err != nil {
		return err
	}
	return r.Run(context.Background())
}

func TestAKilledWorkersJobIsWorkedAgain(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.exec(t, `CREATE TABLE effects (job bigint PRIMARY KEY)`)
			e := b.enqueue(t, note{}, &Options{Timeout: 10 * time.Hour})
			last := b.enqueue(t, note{}, &Options{MaxAttempts: 1, Priority: 2})

			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+when+" "+b.url)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			lines := bufio.NewScanner(out)
			for range 2 {
				require.True(t, lines.Scan(), "both jobs are in the middle")
			}
			require.NoError(t, cmd.Process.Kill())
			require.Error(t, cmd.Wait())
			require.Equal(t, "running", b.state(t, e))
			effects := `SELECT count(*) FROM effects WHERE job = $1`
			require.Equal(t, map[string]int{"before": 0, "after": 1}[when], one[int](t, b, effects, e.ID))

			n := b.work(t, func(ctx context.Context, _ note) error { return effect(ctx, b.Pool) })
			b.becomes(t, e, "completed")
			require.Equal(t, 2, one[int](t, b, `SELECT attempt FROM river_job WHERE id = $1`, e.ID))
			require.Equal(t, "the worker is gone", one[string](t, b, `SELECT errors[1] ->> 'error' FROM river_job WHERE id = $1`, e.ID))
			require.Equal(t, 1, one[int](t, b, effects, e.ID))
			require.Equal(t, "discarded", b.state(t, last), "it had one attempt")
			require.EqualValues(t, 2, n.Stats().Rescued)
		})
	}
}

// A job that a node has fetched and never got, as the connection broke, is found out about while the node lives.
func TestALostFetchIsMadeUpFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began, end := make(chan struct{}, 2), make(chan struct{})
	n := b.work(t, func(_ context.Context, x note) error {
		if x.Text == "long" {
			began <- struct{}{}
			<-end
		}
		return nil
	})
	long := b.enqueue(t, note{"long"}, &Options{Timeout: time.Hour})
	receive(t, began)
	e := b.enqueue(t, note{"lost"}, &Options{At: time.Now().Add(time.Hour)})
	b.exec(t, `UPDATE river_job SET state = 'running', attempt = 1, attempted_at = now() - interval '1 minute', attempted_by = ARRAY[$2] WHERE id = $1`,
		e.ID, n.client.ID())
	b.exec(t, `UPDATE river_job SET attempted_at = now() - interval '1 hour' WHERE id = $1`, long.ID)
	b.becomes(t, e, "completed")
	require.EqualValues(t, 1, n.Stats().Rescued)
	require.Equal(t, "running", b.state(t, long), "it knows of that")
	close(end)
	b.becomes(t, long, "completed")
	require.Empty(t, began)
}

// What has lost workers waits by how many those were, and what the server of a mail refused, say, does not count.
func TestRescueWaitsByDeaths(t *testing.T) {
	t.Parallel()
	b := setup(t)
	lost := func(deaths int) Enqueued {
		e := b.enqueue(t, note{}, nil)
		b.exec(t, `UPDATE river_job SET state = 'running', attempt = 9, attempted_at = now(), attempted_by = '{nobody}', errors =
			array_fill('{"at": "2026-01-02T03:04:05Z", "attempt": 1, "error": "refused", "trace": ""}'::jsonb, ARRAY[8 - $2::int]) ||
			array_fill('{"at": "2026-01-02T03:04:05Z", "attempt": 1, "error": "the worker is gone", "trace": ""}'::jsonb, ARRAY[$2::int])
			WHERE id = $1`, e.ID, deaths)
		return e
	}
	wants := map[Enqueued]float64{lost(1): 16, lost(3): 256, lost(8): 3600}
	first := lost(0)
	b.work(t, func(context.Context, note) error { return nil })
	for e, want := range wants {
		b.becomes(t, e, "available")
		require.InDelta(t, want, one[float64](t, b, `SELECT extract(epoch FROM scheduled_at - now())::float8 FROM river_job WHERE id = $1`, e.ID), want/2)
	}
	b.becomes(t, first, "completed")
	require.Equal(t, 10, one[int](t, b, `SELECT attempt FROM river_job WHERE id = $1`, first.ID))
}

// How long jobs wait is seen by whoever works others.
func TestWaiting(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.work(t, func(context.Context, note) error { return nil })
	e := b.enqueue(t, patient{}, nil) // which nobody knows
	b.exec(t, `UPDATE river_job SET scheduled_at = now() - interval '1 hour'`)
	later := b.enqueue(t, patient{}, &Options{At: time.Now().Add(time.Hour)})
	eventually(t, func() bool { return n.Stats().Waiting > 59*time.Minute }, "it is seen")
	require.Less(t, n.Stats().Waiting, 61*time.Minute)
	b.exec(t, `DELETE FROM river_job WHERE id = $1`, e.ID)
	eventually(t, func() bool { return n.Stats().Waiting == 0 }, "nothing waits")
	require.Equal(t, "scheduled", b.state(t, later))
}

func TestAPanicIsAFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.work(t, func(context.Context, note) error { panic("at the disco") })
	e := b.enqueue(t, note{}, &Options{MaxAttempts: 1})
	b.becomes(t, e, "discarded")
	require.Equal(t, Stats{Kinds: map[string]KindStats{"note": {Failed: 1}}}, n.counts())
}

// However long it has run, by any clock.
func TestALiveWorkersJobIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began, end := make(chan struct{}, 2), make(chan struct{})
	work := func(context.Context, note) error {
		began <- struct{}{}
		<-end
		return nil
	}
	e := b.enqueue(t, note{}, &Options{Timeout: time.Hour})
	one1, two := b.work(t, work), b.work(t, work)
	receive(t, began)
	b.exec(t, `UPDATE river_job SET attempted_at = now() - interval '23 hours'`)
	since := one[time.Time](t, b, `SELECT now()`)
	eventually(t, func() bool {
		return one[bool](t, b, `SELECT count(*) = 2 AND min(seen_at) > $1::timestamptz + 2 * $2::interval FROM job_workers`, since, lease)
	}, "both look a few times")
	close(end)
	b.becomes(t, e, "completed")
	require.Empty(t, began)
	require.Equal(t, 1, one[int](t, b, `SELECT attempt FROM river_job WHERE id = $1`, e.ID))
	require.Zero(t, one1.Stats().Rescued+two.Stats().Rescued)
}

// The default lease leaves time for the two minutes that are promised: until it is over, until somebody looks, and for the poll.
func TestRescueIsWithinTwoMinutes(t *testing.T) {
	t.Parallel()
	c, err := Config{}.complete()
	require.NoError(t, err)
	require.Less(t, c.Lease+c.Lease/3+2*time.Second+c.PollInterval, 2*time.Minute)
}

// hourly and often are periodic.
type hourly struct{}

func (hourly) Kind() string         { return "hourly" }
func (hourly) Every() time.Duration { return 24 * time.Hour }

type often struct{}

func (often) Kind() string         { return "often" }
func (often) Every() time.Duration { return time.Second }

func TestPeriodicOnTwoNodes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var ran atomic.Int64
	start := func() *node {
		return b.start(t, Deps{}, Config{Kinds: []Kind{
			Func(func(context.Context, hourly) error { ran.Add(1); return nil }),
			Func(func(context.Context, often) error { return nil }),
		}})
	}
	midnight := func() bool {
		return one[bool](t, b, `SELECT now() AT TIME ZONE 'UTC' > date_trunc('day', now() AT TIME ZONE 'UTC') + interval '23:58'`)
	}
	eventually(t, func() bool { return !midnight() }, "the day ends") // at most once a day: two minutes
	nodes := map[string]*node{}
	for range 2 {
		n := start()
		nodes[n.client.ID()] = n
	}
	leader := func() (id string) {
		_ = b.QueryRow(t.Context(), `SELECT leader_id FROM river_leader WHERE expires_at > now()`).Scan(&id)
		return id
	}
	finished := func(kind string, after int64) bool {
		return one[bool](t, b, `SELECT EXISTS (SELECT FROM river_job WHERE kind = $1 AND id > $2 AND state = 'completed')`, kind, after)
	}
	eventually(t, func() bool { return finished("hourly", 0) && finished("often", 0) }, "both have run")

	// Another takes over and begins with all of them, as it knows nothing of what was.
	old := leader()
	require.Contains(t, nodes, old)
	require.NoError(t, nodes[old].stop())
	newest := one[int64](t, b, `SELECT max(id) FROM river_job`)
	eventually(t, func() bool { return leader() != "" && leader() != old && finished("often", newest) }, "the other leads")
	require.EqualValues(t, 1, ran.Load())
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM river_job WHERE kind = 'hourly'`))
	require.Zero(t, one[int](t, b, `SELECT count(*) FROM (SELECT FROM river_job WHERE kind = 'often' GROUP BY date_trunc('second', scheduled_at) HAVING count(*) > 1) s`))
}

func TestStop(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began, end := make(chan string, 3), make(chan struct{})
	r := b.start(t, Deps{}, Config{StopTimeout: 300 * time.Millisecond, Kinds: []Kind{Func(func(ctx context.Context, n note) error {
		began <- n.Text
		switch n.Text {
		case "quick":
			<-end
			return nil
		default:
			<-ctx.Done()
			return fmt.Errorf("interrupted: %w", ctx.Err())
		}
	})}})
	quick, long := b.enqueue(t, note{"quick"}, nil), b.enqueue(t, note{"long"}, &Options{MaxAttempts: 1})
	require.ElementsMatch(t, []string{"quick", "long"}, []string{receive(t, began), receive(t, began)})
	stopped := make(chan error)
	begin := time.Now()
	go func() { stopped <- r.stop() }()
	eventually(t, r.stopping.Load, "it is stopping")
	late := b.enqueue(t, note{"late"}, nil)
	close(end)
	require.NoError(t, receive(t, stopped))
	require.Less(t, time.Since(begin), patience/4)
	require.Equal(t, "completed", b.state(t, quick))
	require.Equal(t, "available", b.state(t, long))
	require.Zero(t, one[int](t, b, `SELECT attempt FROM river_job WHERE id = $1`, long.ID), "the attempt does not count")
	require.Equal(t, "available", b.state(t, late))
	require.Equal(t, Stats{Returned: 1, Kinds: map[string]KindStats{"note": {Worked: 1}}}, r.counts())
	require.Zero(t, one[int](t, b, `SELECT count(*) FROM job_workers`), "it has taken leave")

	// The next node goes on with them.
	var texts sync.Map
	b.work(t, func(_ context.Context, n note) error {
		texts.Store(n.Text, true)
		return nil
	})
	b.becomes(t, long, "completed")
	b.becomes(t, late, "completed")
	_, again := texts.Load("quick")
	require.False(t, again)
}

func TestReady(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r, err := NewRunner(b.Pool, Deps{}, &Config{Kinds: []Kind{Func(func(context.Context, note) error { return nil })}})
	require.NoError(t, err)
	require.EqualError(t, r.Ready(t.Context()), "jobs are not being worked")
	n := b.work(t, func(context.Context, note) error { return nil })
	eventually(t, func() bool { return n.Ready(t.Context()) == nil }, "it is ready")
	require.NoError(t, n.stop())
	require.Error(t, n.Ready(t.Context()))
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Config{
		"job: Workers must be from 1 to 1000, not 1001":                                                     {Workers: 1001},
		"job: StopTimeout is negative: -1s":                                                                 {StopTimeout: -time.Second},
		"job: Lease must be 100ms or more, not 1ms":                                                         {Lease: time.Millisecond},
		"job: PollInterval must be 100ms or more, not 1ms":                                                  {PollInterval: time.Millisecond},
		`job: worker for kind "note" is already registered`:                                                 {Kinds: []Kind{Func(func(context.Context, note) error { return nil }), Func(func(context.Context, note) error { return nil })}},
		"job: instant: the period must be from 1s to a day, after which completed jobs are removed, not 0s": {Kinds: []Kind{Func(func(context.Context, instant) error { return nil })}},
	} {
		_, err := NewRunner(nil, Deps{}, &c)
		require.EqualError(t, err, want)
	}
}

type instant struct{}

func (instant) Kind() string         { return "instant" }
func (instant) Every() time.Duration { return 0 }

// TestRiversSchema holds that our migration leaves what River's own do.
func TestRiversSchema(t *testing.T) {
	t.Parallel()
	ours := setup(t)
	pool, err := pgxpool.New(t.Context(), dbtest.Empty(t))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	theirs := &bundle{Pool: pool}
	m, err := rivermigrate.New(riverpgxv5.New(theirs.Pool), nil)
	require.NoError(t, err)
	_, err = m.Migrate(t.Context(), rivermigrate.DirectionUp, nil)
	require.NoError(t, err)
	for _, query := range []string{
		`SELECT table_name, column_name, data_type, udt_name, character_maximum_length, is_nullable, column_default FROM information_schema.columns
			WHERE table_name LIKE 'river\_%' ORDER BY table_name, ordinal_position`,
		`SELECT tablename, indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'river\_%' AND tablename <> 'river_migration' AND indexname <> 'job_key_idx' ORDER BY 1, 2`,
		`SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
			WHERE conrelid::regclass::text LIKE 'river\_%' AND conrelid::regclass::text <> 'river_migration' ORDER BY 1, 2`,
		`SELECT proname, regexp_replace(pg_get_functiondef(oid), '\s+', ' ', 'g') FROM pg_proc WHERE proname LIKE 'river\_%' ORDER BY 1`,
		`SELECT enumlabel FROM pg_enum WHERE enumtypid = 'river_job_state'::regtype ORDER BY enumsortorder`,
		`SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'river\_%' ORDER BY 1, 2`,
		`SELECT relname, relpersistence FROM pg_class WHERE relname LIKE 'river\_%' AND relkind = 'r' ORDER BY 1`,
	} {
		require.Equal(t, rows(t, theirs, query), rows(t, ours, query))
	}
	m, err = rivermigrate.New(riverpgxv5.New(ours.Pool), nil)
	require.NoError(t, err)
	res, err := m.Validate(t.Context(), nil)
	require.NoError(t, err)
	require.True(t, res.OK, res.Messages)
}

func rows(t *testing.T, b *bundle, query string) (all [][]any) {
	t.Helper()
	rs, err := b.Query(t.Context(), query)
	require.NoError(t, err)
	defer rs.Close()
	for rs.Next() {
		v, err := rs.Values()
		require.NoError(t, err)
		all = append(all, v)
	}
	require.NoError(t, rs.Err())
	return all
}

// A node may start before its database does: it works as soon as that is there.
func TestTheDatabaseIsAwayAtFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.enqueue(t, note{}, nil)
	var back atomic.Bool
	tries := make(chan struct{}, 100)
	cfg := b.Config()
	cfg.BeforeConnect = func(context.Context, *pgx.ConnConfig) error {
		if back.Load() {
			return nil
		}
		select {
		case tries <- struct{}{}:
		default:
		}
		return errors.New("the database is away")
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	(&bundle{Pool: pool}).work(t, func(context.Context, note) error { return nil })
	for range 3 {
		receive(t, tries)
	}
	back.Store(true)
	b.becomes(t, e, "completed")
}

// What is told to stop while its database is away stops.
func TestStopWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tries := make(chan struct{}, 100)
	cfg := b.Config()
	cfg.BeforeConnect = func(context.Context, *pgx.ConnConfig) error {
		tries <- struct{}{}
		return errors.New("the database is away")
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	n := (&bundle{Pool: pool}).work(t, func(context.Context, note) error { return nil })
	receive(t, tries)
	require.NoError(t, n.stop())
}
