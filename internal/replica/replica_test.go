package replica

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/logtest"
)

// patience bounds what a test waits for.
const patience = 30 * time.Second

func TestMain(m *testing.M) { dbtest.Main(logtest.Watch(m)) }

func TestPositions(t *testing.T) {
	t.Parallel()
	ordered := []Position{{}, {0, 1}, {1, 0}, {1, 0x3_0000_0018}, {1, 1<<64 - 1}, {2, 0}, {1<<32 - 1, 1<<64 - 1}}
	for i, p := range ordered {
		text := p.String()
		got, err := Parse(text)
		require.NoError(t, err)
		require.Equal(t, p, got)
		for j, o := range ordered {
			require.Equal(t, i < j, p.Before(o))
			require.Equal(t, i < j, text < o.String())
			require.Equal(t, ordered[max(i, j)], p.Later(o))
			require.Equal(t, i >= j && p.Timeline == o.Timeline, p.Covers(o))
		}
	}
	for _, zero := range []string{"", "0"} {
		p, err := Parse(zero)
		require.NoError(t, err)
		require.Zero(t, p)
	}
	zeros := strings.Repeat("0", 23)
	for _, bad := range []string{"1", "x", "0/3000018", zeros, zeros + "00", zeros + "g", "+" + zeros, zeros[:8] + "-" + zeros[:15]} {
		_, err := Parse(bad)
		require.ErrorIs(t, err, ErrPosition, bad)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("")
	f.Add("0")
	f.Add("00000001000000000301f2a8")
	f.Add("FFFFFFFFffffffffFFFFFFFF")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			require.ErrorIs(t, err, ErrPosition)
			return
		}
		again, err := Parse(p.String())
		require.NoError(t, err)
		require.Equal(t, p, again)
	})
}

type bundle struct {
	*Replica
	t                *testing.T
	primary, standby *pgxpool.Pool // the latter is not the replica's
}

// setup looks at the server at standby until the test ends.
func setup(t *testing.T, primary, standby string, cfg Config) *bundle {
	t.Helper()
	b := &bundle{t: t, primary: open(t, primary), standby: open(t, standby)}
	cfg.Interval, cfg.Retry, cfg.Logger = 5*time.Millisecond, 5*time.Millisecond, logtest.Logger()
	cfg.Timeout = cmp.Or(cfg.Timeout, patience)
	var err error
	b.Replica, err = New(t.Context(), b.primary, b.standby.Config(), &cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.False(t, b.Status().Connected)
		b.Close()
	})
	return b
}

func open(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func (b *bundle) exec(db *pgxpool.Pool, sql string) {
	b.t.Helper()
	_, err := db.Exec(b.t.Context(), sql)
	require.NoError(b.t, err)
}

// usable tells whether the standby is used for who has seen p.
func (b *bundle) usable(p Position) bool {
	_, _, stop, ok := b.Use(b.t.Context(), p)
	if ok {
		stop(nil)
	}
	return ok
}

func (b *bundle) eventually(what func() bool) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		// A record that ends with its page has a position that is reached with the next.
		_, err := b.primary.Exec(b.t.Context(), `SELECT txid_current()`)
		return what() && err == nil
	}, patience, 5*time.Millisecond)
}

// TestStandby follows a standby that lags, goes and comes.
func TestStandby(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	server := primary.Standby("standby")
	b := setup(t, primary.URL(), server.URL(), Config{})
	b.eventually(func() bool { return b.usable(Position{}) })

	b.exec(b.primary, `CREATE TABLE seen (n int)`)
	created := b.Primary(t.Context())
	b.eventually(func() bool { return b.usable(created) })
	b.exec(b.standby, `TABLE seen`)

	b.exec(b.standby, `SELECT pg_wal_replay_pause()`)
	b.eventually(func() bool {
		var state string
		require.NoError(t, b.standby.QueryRow(t.Context(), `SELECT pg_get_wal_replay_pause_state()`).Scan(&state))
		return state == "paused"
	})
	b.exec(b.primary, `INSERT INTO seen VALUES (1)`)
	inserted := b.Primary(t.Context())
	require.True(t, created.Before(inserted))
	require.False(t, b.usable(inserted))
	require.True(t, b.usable(created))
	require.NotZero(t, b.Status().Lag)

	here, _, stop, ok := b.Use(t.Context(), created)
	require.True(t, ok)
	defer stop(nil)
	server.Stop()
	<-here.Done()
	require.ErrorIs(t, context.Cause(here), ErrDown)
	s := b.Status()
	require.False(t, s.Connected)
	require.Error(t, s.Err)
	require.False(t, b.usable(Position{}))

	server.Start()
	b.eventually(func() bool { return b.usable(inserted) })
	require.True(t, b.Status().Connected)
	require.NoError(t, b.Status().Err)
	b.exec(b.standby, `TABLE seen`)
}

// TestSilentStandby: a server that neither answers nor closes the connection.
func TestSilentStandby(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	b := setup(t, primary.URL(), primary.Standby("standby").URL(), Config{Timeout: 200 * time.Millisecond})
	b.eventually(func() bool { return b.usable(Position{}) })
	here, _, stop, ok := b.Use(t.Context(), Position{})
	require.True(t, ok)
	defer stop(nil)
	// There may be more than the one in use: a server that took 200 ms to answer was left before.
	rows, _ := b.standby.Query(t.Context(), `SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`)
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	require.NoError(t, err)
	require.NotEmpty(t, pids)
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); !errors.Is(err, syscall.ESRCH) { // one that was left may have ended by now
			require.NoError(t, err)
		}
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	}
	<-here.Done()
	require.ErrorIs(t, context.Cause(here), ErrDown)
	b.eventually(func() bool { return b.usable(Position{}) }) // over another connection
}

func TestLag(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	b := setup(t, primary.URL(), primary.Standby("standby").URL(), Config{MaxLag: 50 * time.Millisecond})
	b.eventually(func() bool { return b.usable(Position{}) })
	b.exec(b.standby, `SELECT pg_wal_replay_pause()`)
	b.eventually(func() bool { return !b.usable(Position{}) && b.Status().Err != nil })
	require.ErrorContains(t, b.Status().Err, "lacks")
	// Who begins now does not know since when. Nor does who has not looked for long.
	late, err := New(t.Context(), b.primary, b.standby.Config(), nil)
	require.NoError(t, err)
	defer late.Close()
	for range 2 {
		require.NotEqual(t, Unreached, late.Primary(t.Context()))
		var conn *pgx.Conn
		require.ErrorContains(t, late.visit(t.Context(), &conn), "lacks")
		require.NoError(t, conn.Close(t.Context()))
		_, _, _, ok := late.Use(t.Context(), Position{})
		require.False(t, ok)
		late.floor, late.next, late.rise = Position{}, Position{}, late.rise.Add(-time.Hour)
	}
	b.exec(b.standby, `SELECT pg_wal_replay_resume()`)
	b.eventually(func() bool { return b.usable(Position{}) })
}

func TestAnotherCluster(t *testing.T) {
	t.Parallel()
	b := setup(t, dbtest.NewServer(t).URL(), dbtest.URL(t), Config{})
	b.eventually(func() bool { return b.Status().Err != nil })
	require.ErrorContains(t, b.Status().Err, "another cluster")
	require.False(t, b.usable(Position{}))
	require.ErrorContains(t, b.Pool().Ping(t.Context()), "another cluster", "one of several is")
}

// TestPromotion: of two standbys one takes over, without what the other has got from the primary last, which so is ahead and cannot follow.
// A third follows.
func TestPromotion(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	left, taking := primary.Standby("left"), primary.Standby("taking")
	old := setup(t, primary.URL(), left.URL(), Config{})
	b := setup(t, taking.URL(), left.URL(), Config{})
	following := setup(t, taking.URL(), taking.Standby("following").URL(), Config{})
	b.exec(b.primary, `ALTER SYSTEM SET primary_conninfo = ''`)
	b.exec(b.primary, `SELECT pg_reload_conf()`)
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, old.primary.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_replication`).Scan(&n))
		return n == 1
	}, patience, 5*time.Millisecond)
	b.exec(old.primary, `CREATE TABLE lost AS SELECT repeat('lost', 100) FROM generate_series(1, 10000)`)
	lost := old.Primary(t.Context())
	old.eventually(func() bool { return old.usable(lost) })

	b.exec(b.primary, `SELECT pg_promote()`)
	taken := b.Primary(t.Context())
	require.Equal(t, lost.Timeline+1, taken.Timeline)
	require.Less(t, taken.LSN, lost.LSN)
	require.True(t, lost.Before(taken))
	for _, p := range []Position{{}, lost, taken} {
		require.False(t, b.usable(p), p)
	}

	following.eventually(func() bool {
		following.exec(following.primary, `CHECKPOINT`)
		following.exec(following.standby, `CHECKPOINT`) // else it notes its timeline in a while
		return following.usable(taken) && following.usable(lost)
	})
}

// TestPromotedAlone: the standby takes over by mistake, and the primary goes on. What is on the later timeline lacks what is written now.
func TestPromotedAlone(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	b := setup(t, primary.URL(), primary.Standby("standby").URL(), Config{})
	b.eventually(func() bool { return b.usable(Position{}) })
	b.exec(b.standby, `SELECT pg_promote()`)
	b.exec(b.primary, `CREATE TABLE unseen ()`)
	created := b.Primary(t.Context())
	b.eventually(func() bool { return b.Status().Err != nil })
	require.ErrorContains(t, b.Status().Err, "timeline")
	require.False(t, b.usable(created))
}

// TestPrimaryAsStandby: the address leads to the primary, always or while the standby is away.
func TestPrimaryAsStandby(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	t.Run("always", func(t *testing.T) {
		t.Parallel()
		b := setup(t, primary.URL(), primary.URL(), Config{})
		b.eventually(func() bool { return b.usable(b.Primary(t.Context())) })
		require.True(t, b.Status().Primary)
	})
	t.Run("meanwhile", func(t *testing.T) {
		t.Parallel()
		server := primary.Standby("standby")
		hosts := func(u string) string {
			_, hosts, _ := strings.Cut(u, "?host=")
			return hosts
		}
		b := setup(t, primary.URL(), server.URL()+","+hosts(primary.URL())+"&target_session_attrs=prefer-standby", Config{})
		b.eventually(func() bool { return b.usable(Position{}) })
		require.False(t, b.Status().Primary)
		server.Stop()
		b.eventually(func() bool { return b.usable(b.Primary(t.Context())) })
		require.True(t, b.Status().Primary)
		conn, err := b.Pool().Acquire(t.Context())
		require.NoError(t, err)
		conn.Release()
		server.Start()
		b.eventually(func() bool {
			var recovers bool
			return b.Pool().QueryRow(t.Context(), `SELECT pg_is_in_recovery()`).Scan(&recovers) == nil && recovers && !b.Status().Primary
		})
	})
}

// TestOneSnapshot: where all statements of a transaction see the same, a position that one of them finds may be later than what is seen.
func TestOneSnapshot(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	b := setup(t, primary.URL(), primary.Standby("standby").URL()+"&default_transaction_isolation=repeatable%20read", Config{})
	b.eventually(func() bool { return b.Status().Err != nil })
	require.ErrorContains(t, b.Status().Err, "repeatable read")
	require.False(t, b.usable(Position{}))
}

// TestSilentPrimary: who may have seen what is not known is answered by the primary, until it says where it is.
func TestSilentPrimary(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	b := setup(t, primary.URL(), primary.URL(), Config{})
	b.eventually(func() bool { return b.usable(Position{}) })
	ended, end := context.WithCancel(t.Context())
	end()
	require.Equal(t, Unreached, b.Primary(ended))
	require.False(t, b.usable(Unreached))
	require.True(t, b.Primary(t.Context()).Before(Unreached))
	p, err := Parse(Unreached.String())
	require.NoError(t, err)
	require.Equal(t, Unreached, p)
}
