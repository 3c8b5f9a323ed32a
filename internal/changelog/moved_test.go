package changelog

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// TestPromotedStandby: a streaming standby takes over, without what its primary committed last, whose transaction ids it gives out a
// second time. Cursors of the primary are void there, also those of what both had.
func TestPromotedStandby(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	b := setupIn(t, open(t, primary.URL()))
	standby := &bundle{open(t, primary.Standby("standby").URL()), t}
	require.Equal(t, "true", standby.text(`SELECT pg_is_in_recovery()`))
	early := b.here()
	b.exec(`INSERT INTO thread (id) VALUES (#1)`)
	both := b.here()
	b.eventually(func() bool { return standby.text(`SELECT count(*) FROM changes`) == "1" })
	_, err := Since(t.Context(), standby, early, threads(1), 10)
	require.ErrorContains(t, err, "recovery", "a standby does not answer")

	// The stream is cut.
	standby.exec(`ALTER SYSTEM SET primary_conninfo = ''`)
	standby.exec(`SELECT pg_reload_conf()`)
	b.eventually(func() bool { return b.text(`SELECT count(*) FROM pg_stat_replication`) == "0" })
	for range 5 {
		b.exec(`UPDATE thread SET title = 'lost'`)
	}
	ahead := b.here()
	require.Equal(t, early.Epoch, ahead.Epoch)
	b.Close()
	primary.Stop()

	require.Equal(t, "true", standby.text(`SELECT pg_promote()`))
	require.Equal(t, early.Epoch.String(), standby.text(`SELECT epoch FROM changelog_state`), "as the primary had it")
	standby.exec(`INSERT INTO thread (id) VALUES (#2)`)
	var xid uint64
	require.NoError(t, standby.QueryRow(t.Context(), ids(`SELECT xid FROM changes WHERE id = #2`)).Scan(&xid))
	require.True(t, ahead.Seen.Has(Change{Xid: xid}), "it would be lost silently")
	standby.moved(early, both, ahead)
}

// moved checks that cursors of another server, or database, answer Resync, and that the place which comes with it loses nothing.
func (b *bundle) moved(cursors ...Cursor) {
	b.t.Helper()
	scopes := []Scope{{Entities: []string{"Thread"}}, threads(1, 2, 3)}
	fresh := Cursor{}
	for _, c := range cursors {
		for _, scope := range scopes {
			m, err := Since(b.t.Context(), b, c, scope, 10)
			require.NoError(b.t, err)
			require.True(b.t, m.Resync)
			require.NotEqual(b.t, c.Epoch, m.Epoch)
			if fresh.Epoch == [16]byte{} {
				fresh = Cursor{m.Epoch, Seen{Base: m.Snapshot}}
			}
			require.Equal(b.t, fresh.Epoch, m.Epoch)
		}
	}
	b.exec(`INSERT INTO thread (id) VALUES (#3); UPDATE thread SET title = 'on' WHERE id = #1`)
	for _, scope := range scopes {
		require.Equal(b.t, []string{"T3 v1 I", "T1 v" + b.text(`SELECT version FROM thread WHERE id = #1`) + " U"}, b.since(fresh, scope, 10))
	}
	tl := b.tail(Config{})
	require.Equal(b.t, fresh.Epoch, tl.Epoch(), "a tailer takes it over")
	require.Zero(b.t, tl.Stats().Resyncs)
}

// TestDumpAndRestore: what pg_dump wrote is restored into a new database, with the log and its state.
func TestDumpAndRestore(t *testing.T) {
	t.Parallel()
	from := dbtest.New(t)
	b := setupIn(t, from)
	early := b.here()
	b.exec(`INSERT INTO thread (id) VALUES (#1), (#2)`)
	late := b.here()
	to := dbtest.Empty(t)
	dump := dbtest.Run(t, to, nil, "pg_dump", "--dbname="+from.Config().ConnString())
	dbtest.Run(t, to, dump, "psql", "--dbname="+to, "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1")

	restored := &bundle{open(t, to), t}
	require.Equal(t, early.Epoch.String(), restored.text(`SELECT epoch FROM changelog_state`), "as the other had it")
	require.Equal(t, "2", restored.text(`SELECT count(*) FROM changes`))
	restored.moved(early, late)
	require.Equal(t, []string{"T1 v1 I", "T2 v1 I"}, b.since(early, threads(1, 2), 10), "the other goes on")
}

// TestDumpAndRestoreInPlace: the same where it was taken.
func TestDumpAndRestoreInPlace(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	b := setupIn(t, pool)
	early := b.here()
	b.exec(`INSERT INTO thread (id) VALUES (#1), (#2)`)
	late := b.here()
	url := pool.Config().ConnString()
	dump := dbtest.Run(t, url, nil, "pg_dump", "--clean", "--dbname="+url)
	b.exec(`UPDATE thread SET title = 'lost' WHERE id = #1`)
	lost := b.here()
	pool.Reset() // which has statements prepared
	dbtest.Run(t, url, dump, "psql", "--dbname="+url, "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1")
	require.Equal(t, "t", b.text(`SELECT count(*) = 2 FROM changes`)[:1])
	b.moved(early, late, lost)
}

func open(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}
