package changelog

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// tail is a running tailer and what it has read.
type tail struct {
	*Tailer
	stop func() // returns when Run has

	mu      sync.Mutex
	batches []Batch
	seen    map[int64]time.Time // by seq
	changes []Change
}

func (b *bundle) tail(cfg Config) *tail {
	b.t.Helper()
	cfg.MaxRetry = 20 * time.Millisecond
	cfg.Logger = slog.New(slog.DiscardHandler)
	tl := &tail{seen: map[int64]time.Time{}}
	var err error
	tl.Tailer, err = NewTailer(b.Config().ConnConfig, func(_ context.Context, batch Batch) {
		tl.mu.Lock()
		defer tl.mu.Unlock()
		tl.batches = append(tl.batches, batch)
		for _, c := range batch.Changes {
			tl.seen[c.Seq] = time.Now()
			tl.changes = append(tl.changes, c)
		}
	}, &cfg)
	require.NoError(b.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tl.Run(ctx) }()
	tl.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(b.t, <-done)
	})
	b.t.Cleanup(tl.stop)
	tl.Interest(1)
	b.eventually(func() bool { return tl.Stats().Reads > 0 })
	return tl
}

// read is a copy of what came.
func (tl *tail) read() (changes []Change, batches []Batch) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	return slices.Clone(tl.changes), slices.Clone(tl.batches)
}

// came waits for n changes or more.
func (b *bundle) came(tl *tail, n int) {
	b.t.Helper()
	b.eventually(func() bool { changes, _ := tl.read(); return len(changes) >= n })
}

func (b *bundle) eventually(condition func() bool) {
	b.t.Helper()
	require.Eventually(b.t, condition, 20*time.Second, time.Millisecond)
}

// complete waits until all of the log has come, and checks that it came once and in order.
func (b *bundle) complete(tl *tail) {
	b.t.Helper()
	rows, err := b.Query(b.t.Context(), `SELECT seq FROM changes ORDER BY seq`)
	require.NoError(b.t, err)
	want, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(b.t, err)
	b.came(tl, len(want))

	changes, batches := tl.read()
	var got []int64
	versions := map[uuid.UUID]int64{}
	for _, c := range changes {
		got = append(got, c.Seq)
		require.Equal(b.t, versions[c.ID]+1, c.Version, "versions of %s", c.ID)
		versions[c.ID] = c.Version
	}
	slices.Sort(got)
	require.Equal(b.t, want, got, "nothing is missed, nothing comes twice")
	for _, batch := range batches {
		require.False(b.t, batch.Resync)
		require.True(b.t, slices.IsSortedFunc(batch.Changes, func(a, b Change) int { return int(a.Seq - b.Seq) }))
		for _, c := range batch.Changes {
			require.True(b.t, batch.After.Visible(c.Xid) && !batch.Before.Visible(c.Xid))
		}
	}
}

// storm has 8 writers update 20 records for a time, one to three in a transaction of 0 to 40 ms, of which a fifth is rolled back. It
// returns when each committed change was committed.
func (b *bundle) storm(lasts time.Duration) map[int64]time.Time {
	b.t.Helper()
	for n := range 20 {
		_, err := b.Exec(b.t.Context(), `INSERT INTO thread (id) VALUES ($1)`, uuid.UUID{0: 1, 15: byte(n)})
		require.NoError(b.t, err)
	}
	var (
		writers   errgroup.Group
		mu        sync.Mutex // protects committed
		committed = map[int64]time.Time{}
	)
	end := time.Now().Add(lasts)
	for w := range 8 {
		writers.Go(func() error {
			for r := rand.New(rand.NewPCG(1, uint64(w))); time.Now().Before(end); {
				seqs, err := b.write(r)
				if err != nil {
					return err
				}
				now := time.Now()
				mu.Lock()
				for _, seq := range seqs {
					committed[seq] = now
				}
				mu.Unlock()
			}
			return nil
		})
	}
	require.NoError(b.t, writers.Wait())
	return committed
}

// write is one transaction of a storm.
func (b *bundle) write(r *rand.Rand) (seqs []int64, err error) {
	ctx := b.t.Context()
	records := r.Perm(20)[:1+r.IntN(3)]
	slices.Sort(records) // no deadlock
	errRollback := errors.New("roll back")
	err = pgx.BeginFunc(ctx, b, func(tx pgx.Tx) error {
		for _, n := range records {
			if _, err := tx.Exec(ctx, `UPDATE thread SET title = title WHERE id = $1`, uuid.UUID{0: 1, 15: byte(n)}); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `SELECT pg_sleep($1)`, r.Float64()*0.013); err != nil {
				return err
			}
		}
		if r.IntN(5) == 0 {
			return errRollback
		}
		rows, _ := tx.Query(ctx, `SELECT seq FROM changes WHERE xid = pg_current_xact_id()`)
		seqs, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	if errors.Is(err, errRollback) {
		return nil, nil
	}
	return seqs, err
}

func TestNothingIsMissed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tl := b.tail(Config{})

	// A foreign writer, all the time but for its beginning.
	foreign := make(chan error, 1)
	go func() {
		_, err := b.Exec(t.Context(), `WITH x AS MATERIALIZED (SELECT pg_current_xact_id()) SELECT pg_sleep(3) FROM x`)
		foreign <- err
	}()
	committed := b.storm(3500 * time.Millisecond)
	require.NoError(t, <-foreign)
	b.complete(tl)

	var delays []time.Duration
	for seq, at := range committed {
		delays = append(delays, tl.seen[seq].Sub(at))
	}
	slices.Sort(delays)
	require.Greater(t, len(delays), 100)
	t.Logf("%d changes, delay after commit p50 %v p99 %v max %v", len(delays),
		delays[len(delays)/2], delays[len(delays)*99/100], delays[len(delays)-1])
}

func TestLostConnections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tl := b.tail(Config{})
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		for n := uint64(1); n <= 8; n++ {
			b.terminate()
			b.eventually(func() bool { return tl.Stats().Failures >= n })
			reads := tl.Stats().Reads
			b.eventually(func() bool { return tl.Stats().Reads > reads })
		}
	}()
	b.storm(1500 * time.Millisecond)
	<-lost
	b.complete(tl)
	require.EqualValues(t, 0, tl.Stats().Resyncs)
}

// terminate ends the connections of tailers.
func (b *bundle) terminate() {
	_, err := b.Exec(context.Background(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = 'changelog' AND datname = current_database()`)
	if err != nil {
		b.t.Error(err)
	}
}

func TestChangeHasItAll(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tl := b.tail(Config{})
	b.exec(`SET LOCAL godstack.actor = 'me'; INSERT INTO thread (id) VALUES (#1); UPDATE thread SET title = 'a'; DELETE FROM thread; TRUNCATE thread CASCADE`)
	b.came(tl, 4)
	changes, _ := tl.read()
	for i := range changes {
		c := &changes[i]
		require.WithinDuration(t, time.Now(), c.At, time.Minute)
		require.NotZero(t, c.Seq)
		require.NotZero(t, c.Xid)
		c.Seq, c.Xid, c.At = 0, 0, time.Time{}
	}
	none := []string{}
	require.Equal(t, []Change{
		{Entity: "Thread", ID: id(1), Version: 1, Op: OpInsert, Fields: none, Actor: "me"},
		{Entity: "Thread", ID: id(1), Version: 2, Op: OpUpdate, Fields: []string{"title"}, Old: []byte(`{"title": null}`), Actor: "me"},
		{Entity: "Thread", ID: id(1), Version: 3, Op: OpDelete, Fields: none, Actor: "me",
			Old: []byte(`{"id": "00000000-0000-0000-0000-000000000001", "owner": null, "title": "a", "author": null, "version": 2}`)},
		{Entity: "Thread", Op: OpResync, Fields: none, Actor: "me"},
	}, changes[:4])
	require.Equal(t, "UDIR", OpUpdate.String()+OpDelete.String()+OpInsert.String()+OpResync.String())
}

// TestStartsFromNow: a tailer that is made anew knows nothing of what was before, and says where it is.
func TestStartsFromNow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tl := b.tail(Config{})
	b.exec(`INSERT INTO thread (id) VALUES (#1)`)
	b.came(tl, 1)
	tl.stop()
	b.exec(`INSERT INTO thread (id) VALUES (#2)`)
	again := b.tail(Config{})
	b.exec(`INSERT INTO thread (id) VALUES (#3)`)
	b.came(again, 1)
	changes, batches := again.read()
	require.Equal(t, id(3), changes[0].ID)
	first := batches[0]
	require.Empty(t, first.Changes)
	require.False(t, first.Resync)
	require.Equal(t, first.Before, first.After)
	require.Equal(t, tl.Epoch(), first.Epoch)
	require.Equal(t, again.Epoch(), first.Epoch)
	require.False(t, first.After.Visible(changes[0].Xid))
}

func TestWakeReadsAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tl := b.tail(Config{ActiveInterval: time.Hour, IdleInterval: time.Hour})
	reads := tl.Stats().Reads
	b.exec(`INSERT INTO thread (id) VALUES (#1)`)
	for range 1000 {
		tl.Wake()
	}
	b.came(tl, 1)
	require.Less(t, tl.Stats().Reads, reads+100, "hints are joined")
	require.True(t, tl.Healthy())
	require.Less(t, tl.Lag(), time.Minute)
}

func TestInterestReadsOften(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tl := b.tail(Config{IdleInterval: time.Hour})
	reads := tl.Stats().Reads
	b.eventually(func() bool { return tl.Stats().Reads > reads+3 })
	tl.Interest(0)
	b.exec(`INSERT INTO thread (id) VALUES (#1)`)
	tl.Interest(2)
	b.came(tl, 1)
}

func TestTooMuchIsResync(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tl := b.tail(Config{MaxBatch: 10})
	b.exec(`INSERT INTO thread (id) SELECT gen_random_uuid() FROM generate_series(1, 11)`)
	b.eventually(func() bool { return tl.Stats().Resyncs == 1 })
	b.exec(`INSERT INTO thread (id) SELECT gen_random_uuid() FROM generate_series(1, 10)`)
	b.came(tl, 10)
	_, batches := tl.read()
	require.True(t, batches[1].Resync)
	require.Empty(t, batches[1].Changes)
	require.Equal(t, batches[1].Before, batches[1].After)
	require.Equal(t, uint64(1), tl.Stats().Resyncs)
}

func TestNewEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tl := b.tail(Config{})
	for n, c := range []struct {
		name, event string
		lost        bool // the connection
		emptied     bool // the log
	}{
		{"the server crashed", `TRUNCATE changelog_alive`, true, false},
		{"the server was promoted", `UPDATE changelog_state SET timeline = timeline + 1`, true, true},
		{"the database was copied", `UPDATE changelog_state SET database = 1`, true, true},
		{"the cluster is another", `UPDATE changelog_state SET system_identifier = 1`, true, true},
		{"the tables were restored", `UPDATE changelog_state SET epoch = gen_random_uuid()`, false, false},
		{"the state is lost", `DELETE FROM changelog_state`, false, true},
	} {
		before := tl.Epoch()
		b.exec(`INSERT INTO thread (id) VALUES (gen_random_uuid())`)
		b.exec(c.event)
		if c.lost {
			b.terminate()
		}
		b.eventually(func() bool { return tl.Stats().Resyncs > uint64(n) })
		require.NotEqual(t, before, tl.Epoch(), c.name)
		require.Equal(t, b.text(`SELECT epoch FROM changelog_state`), tl.Epoch().String(), c.name)
		require.Equal(t, c.emptied, b.text(`SELECT count(*) FROM changes`) == "0", c.name)
		_, batches := tl.read()
		last := batches[len(batches)-1]
		require.Equal(t, Batch{Epoch: tl.Epoch(), Before: last.After, After: last.After, Resync: true}, last, c.name)
	}
	b.exec(`INSERT INTO thread (id) VALUES (#1)`)
	b.eventually(func() bool {
		changes, _ := tl.read()
		return len(changes) > 0 && changes[len(changes)-1].ID == id(1)
	})
}

func TestNodesAgreeOnTheEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t) // a copy of another database
	var nodes []*tail
	for range 4 {
		nodes = append(nodes, b.tail(Config{}))
	}
	for range 3 {
		b.exec(`UPDATE changelog_state SET timeline = timeline + 1`)
		b.terminate()
		b.eventually(func() bool {
			return nodes[0].Stats().Resyncs > 0 && b.text(`SELECT epoch FROM changelog_state`) == nodes[0].Epoch().String()
		})
		for _, n := range nodes[1:] {
			b.eventually(func() bool { return n.Epoch() == nodes[0].Epoch() })
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	conn, err := pgx.ParseConfig("postgres://localhost/x")
	require.NoError(t, err)
	_, err = NewTailer(conn, nil, &Config{ActiveInterval: -1})
	require.ErrorContains(t, err, "ActiveInterval is negative")
	_, err = NewTailer(conn, nil, &Config{MaxBatch: -1})
	require.ErrorContains(t, err, "MaxBatch is negative")
	tl, err := NewTailer(conn, nil, nil)
	require.NoError(t, err)
	require.Equal(t, uuid.Nil, tl.Epoch())
	require.Empty(t, conn.RuntimeParams["application_name"], "the caller's configuration is not touched")
}

// TestNoServer: while there is none, Run tries again and ends when it is told to.
func TestNoServer(t *testing.T) {
	t.Parallel()
	conn, err := pgx.ParseConfig("postgres://127.0.0.1:1/x")
	require.NoError(t, err)
	tl, err := NewTailer(conn, nil, &Config{Logger: slog.New(slog.DiscardHandler), IdleInterval: time.Millisecond})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- tl.Run(ctx) }()
	require.Eventually(t, func() bool { return tl.Stats().Failures > 1 && !tl.Healthy() }, 10*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
}
