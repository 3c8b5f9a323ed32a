package changelog

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func (b *bundle) reader() *reader {
	b.t.Helper()
	conn, err := pgx.ConnectConfig(b.t.Context(), b.Config().ConnConfig)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	r, err := newReader(b.t.Context(), conn, 1000)
	require.NoError(b.t, err)
	return r
}

func TestReadIsCheapBesideAnOpenTransaction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reader()
	foreign, err := b.Begin(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, foreign.Rollback(context.Background())) }()
	var xid uint64
	require.NoError(t, foreign.QueryRow(t.Context(), `SELECT pg_current_xact_id()`).Scan(&xid))

	// Days before today have rows as well.
	b.exec(`INSERT INTO changes (slot, entity, id, version, op) SELECT n % 9, 'Thread', gen_random_uuid(), 1, 'U' FROM generate_series(1, 9000) n`)
	b.exec(`INSERT INTO changes (entity, id, version, op) SELECT 'Thread', gen_random_uuid(), 1, 'U' FROM generate_series(1, 300000) n`)
	_, err = r.read(t.Context())
	require.NoError(t, err)
	b.exec(`INSERT INTO thread (id) VALUES (#1)`)
	r.after.running = []uint64{xid} // without what other databases have running

	today := slot(r.fence.day)
	for sql, args := range map[string]string{
		readDays:       fmt.Sprintf(", 1001, %d, %d, %d", (today+8)%slots, today, (today+1)%slots),
		readEverywhere: ", 1001",
	} {
		buffers, found := b.explain(r, sql, args)
		t.Logf("%d buffers with%s", buffers, args)
		require.Equal(t, 1, found)
		if sql == readDays {
			require.Less(t, buffers, 20)
		} else {
			require.Less(t, buffers, 60, "a few for each partition")
		}
	}
}

// explain returns how many buffers a generic plan read, and how many rows it found.
func (b *bundle) explain(r *reader, sql, args string) (buffers, rows int) {
	b.t.Helper()
	conn := r.conn.PgConn()
	run := func(sql string) []byte {
		res, err := conn.Exec(b.t.Context(), sql).ReadAll()
		require.NoError(b.t, err)
		last := res[len(res)-1]
		if len(last.Rows) == 0 {
			return nil
		}
		return last.Rows[0][0]
	}
	run(`PREPARE p AS ` + sql)
	execute := fmt.Sprintf(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE p ('%s'%s)`, r.after, args)
	run(execute) // fills the caches of this connection
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
			Rows int `json:"Actual Rows"`
		}
	}
	require.NoError(b.t, json.Unmarshal(run(execute), &plans))
	run(`DEALLOCATE p`)
	return plans[0].Plan.Hit + plans[0].Plan.Read, plans[0].Plan.Rows
}

// TestReadAroundMidnight: the reader believes in a day that is not the server's.
func TestReadAroundMidnight(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reader()
	_, err := r.read(t.Context())
	require.NoError(t, err)
	today := r.fence.day
	for n, off := range []int64{0, -1, 1, -2, 2, -3, 4, 100} {
		// As if these were taken on another day; no transaction runs, so all later ones are above it.
		r.fence = fence{xid: 1, day: today + off}
		b.exec(fmt.Sprintf(`INSERT INTO thread (id) VALUES (#%d)`, n))
		batch, err := r.read(t.Context())
		require.NoError(t, err)
		require.Len(t, batch.Changes, 1, "%d days off", off)
		require.Equal(t, id(n), batch.Changes[0].ID)
		require.Equal(t, today, r.fence.day, "taken again")
	}
}

// TestReadOfOldTransactions: what began before the fence may have written into any partition.
func TestReadOfOldTransactions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reader()
	old, err := b.Begin(t.Context())
	require.NoError(t, err)
	_, err = old.Exec(t.Context(), `INSERT INTO changes (slot, entity, op, at) SELECT n, 'Thread', 'R', now() - n * interval '1 day' FROM generate_series(0, 8) n`)
	require.NoError(t, err)
	for range 3 { // takes the fence, and reads behind it
		batch, err := r.read(t.Context())
		require.NoError(t, err)
		require.Empty(t, batch.Changes)
	}
	require.NoError(t, old.Commit(t.Context()))
	batch, err := r.read(t.Context())
	require.NoError(t, err)
	require.Len(t, batch.Changes, slots)
}

// BenchmarkRead is a read that finds nothing.
func BenchmarkRead(b *testing.B) {
	bundle := setup(b)
	r := bundle.reader()
	for b.Loop() {
		_, err := r.read(b.Context())
		require.NoError(b, err)
	}
}
