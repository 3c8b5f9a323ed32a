package changelog

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// here is the cursor of a reader that has seen everything.
func (b *bundle) here() Cursor {
	b.t.Helper()
	m, err := Since(b.t.Context(), b, Cursor{}, Scope{}, 0)
	require.NoError(b.t, err)
	require.True(b.t, m.Resync)
	require.Empty(b.t, m.Changes)
	return Cursor{m.Epoch, Seen{Base: m.Snapshot}}
}

// since is what a reader at c has missed, in short.
func (b *bundle) since(c Cursor, scope Scope, limit int) []string {
	b.t.Helper()
	m, err := Since(b.t.Context(), b, c, scope, limit)
	require.NoError(b.t, err)
	require.Equal(b.t, b.text(`SELECT epoch FROM changelog_state`), m.Epoch.String())
	require.Positive(b.t, m.Snapshot.Xmax())
	if m.Resync {
		require.Empty(b.t, m.Changes)
		return []string{"resync"}
	}
	return short(m.Changes)
}

// short is a list of changes as entity, id, version and op.
func short(changes []Change) []string {
	lines := []string{}
	for _, c := range changes {
		lines = append(lines, fmt.Sprintf("%s%d v%d %s", c.Entity[:1], c.ID[15], c.Version, c.Op))
	}
	return lines
}

func threads(ids ...int) Scope {
	s := Scope{Records: map[string][]uuid.UUID{"Thread": nil}}
	for _, n := range ids {
		s.Records["Thread"] = append(s.Records["Thread"], id(n))
	}
	return s
}

func TestSince(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO person (id) VALUES (#1), (#2); INSERT INTO thread (id) VALUES (#1), (#2), (#3)`)
	c := b.here()
	all := Scope{Entities: []string{"Thread", "Person"}}
	for _, scope := range []Scope{{}, all, threads(1), {Entities: []string{"Nothing"}}} {
		require.Empty(t, b.since(c, scope, 0), "%v", scope)
	}

	b.exec(`UPDATE thread SET title = 'a' WHERE id IN (#1, #2); UPDATE person SET name = 'a' WHERE id = #1; DELETE FROM thread WHERE id = #2`)
	require.Equal(t, []string{"T1 v2 U", "T2 v2 U", "P1 v2 U", "T2 v3 D"}, b.since(c, all, 4))
	require.Equal(t, []string{"resync"}, b.since(c, all, 3))
	require.Equal(t, []string{"P1 v2 U"}, b.since(c, Scope{Entities: []string{"Person"}}, 4))
	require.Equal(t, []string{"resync"}, b.since(c, Scope{Entities: []string{"Person"}}, 3), "what is looked at counts")
	require.Equal(t, []string{"T1 v2 U"}, b.since(c, threads(1, 3, 9), 1))
	require.Equal(t, []string{"resync"}, b.since(c, threads(2), 1))
	require.Equal(t, []string{"T2 v2 U", "T2 v3 D"}, b.since(c, threads(2), 2))
	both := threads(2)
	both.Entities = []string{"Person"}
	require.Equal(t, []string{"T2 v2 U", "P1 v2 U", "T2 v3 D"}, b.since(c, both, 4))

	m, err := Since(t.Context(), b, c, all, 10)
	require.NoError(t, err)
	c.Seen = c.Seen.And(m.Snapshot, m.Changes[1].Seq)
	require.Equal(t, []string{"P1 v2 U", "T2 v3 D"}, b.since(c, all, 10))
	require.Equal(t, []string{"T2 v3 D"}, b.since(c, threads(1, 2), 10))
	require.Equal(t, []string{"resync"}, b.since(c, all, 3), "what was seen already counts as well")
}

// TestSinceOfAnIDUsedAgain: version numbers begin anew when a record is made with an id that another had.
func TestSinceOfAnIDUsedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type place struct {
		Cursor
		at int // in want
	}
	var want []string
	places := []place{{b.here(), 0}}
	for _, step := range []struct{ sql, want string }{
		{`INSERT INTO thread (id) VALUES (#1)`, "T1 v1 I"},
		{`UPDATE thread SET title = 'a'`, "T1 v2 U"},
		{`UPDATE thread SET title = 'b'`, "T1 v3 U"},
		{`DELETE FROM thread`, "T1 v4 D"},
		{`INSERT INTO thread (id) VALUES (#1)`, "T1 v1 I"},
		{`UPDATE thread SET title = 'c'`, "T1 v2 U"},
		{`TRUNCATE thread CASCADE`, "T0 v0 R,T0 v0 R"}, // of the table and of that which joins it
		{`INSERT INTO thread (id) VALUES (#1)`, "T1 v1 I"},
		{`UPDATE thread SET title = 'd'`, "T1 v2 U"},
		{`UPDATE thread SET title = 'e'`, "T1 v3 U"},
		{`UPDATE thread SET title = 'f'`, "T1 v4 U"},
		{`UPDATE thread SET title = 'g'`, "T1 v5 U"},
	} {
		b.exec(step.sql)
		want = append(want, strings.Split(step.want, ",")...)
		for _, p := range places {
			require.Equal(t, want[p.at:], b.since(p.Cursor, threads(1), 100), "from %d on, after %s", p.at, step.sql)
			require.Equal(t, want[p.at:], b.since(p.Cursor, Scope{Entities: []string{"Thread"}}, 100))
		}
		places = append(places, place{b.here(), len(want)})
	}
}

// TestSinceIsCheap: whatever was written, and whatever the planner believes.
func TestSinceIsCheap(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.here() // empties the log, as the database is a copy
	foreign, err := b.Begin(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, foreign.Rollback(context.Background())) }()
	var xid uint64
	require.NoError(t, foreign.QueryRow(t.Context(), `SELECT pg_current_xact_id()`).Scan(&xid))

	b.exec(`INSERT INTO thread (id) VALUES (#1), (#2)`)
	old := b.here()
	b.exec(`INSERT INTO changes (slot, entity, id, version, op) SELECT n % 9, 'Thread', #3, n, 'U' FROM generate_series(1, 9000) n`)
	b.exec(`ANALYZE changes`) // and never again: all seems to be one record's
	b.exec(`INSERT INTO changes (entity, id, version, op) SELECT 'Thread', gen_random_uuid(), 1, 'U' FROM generate_series(1, 200000) n`)
	b.exec(`INSERT INTO changes (entity, id, version, op) SELECT 'Thread', #3, n, 'U' FROM generate_series(9001, 100000) n`)
	fresh := b.here()
	b.exec(`UPDATE thread SET title = 'a'; UPDATE thread SET title = 'b' WHERE id = #1;
		INSERT INTO changes (entity, id, version, op) VALUES ('Thread', #3, 100001, 'U'), ('Thread', #3, 100002, 'U')`)
	base := func(c Cursor) string {
		c.Seen.Base.xmin, c.Seen.Base.running = xid, []uint64{xid} // without what other databases have running
		return fmt.Sprintf("'%s', '%s', '3', 1001, ", c.Seen.Base, c.Epoch)
	}
	for _, read := range []struct {
		name, sql, args string
		rows, most      int
	}{
		{"entities", sinceEntities, base(fresh) + `'{Thread}', '{}', '{}'`, 5, 60},
		{"records", sinceRecords, base(fresh) + ids(`'{Thread,Thread,Thread}', ARRAY[#1, #2, #3]::uuid[]`), 5, 360},
		{"records beside much else", sinceRecords, base(old) + ids(`'{Thread,Thread}', ARRAY[#1, #2]::uuid[]`), 3, 240},
		{"history", history, ids(`'{Thread,Thread}', ARRAY[#1, #3]::uuid[], '{0,99995}', '{2,99999}'`), 6, 120},
	} {
		buffers, rows := b.cost(read.sql, read.args)
		t.Logf("%s: %d buffers", read.name, buffers)
		require.Equal(t, read.rows, rows, read.name)
		require.Less(t, buffers, read.most, read.name)
	}
}

// cost returns how many buffers a query reads as Since has it planned, and how many rows it finds.
func (b *bundle) cost(sql, args string) (buffers, rows int) {
	b.t.Helper()
	conn, err := b.Acquire(b.t.Context())
	require.NoError(b.t, err)
	defer conn.Release()
	run := func(sql string) (value []byte) {
		res, err := conn.Conn().PgConn().Exec(b.t.Context(), sql).ReadAll()
		require.NoError(b.t, err)
		if last := res[len(res)-1]; len(last.Rows) > 0 {
			value = last.Rows[0][0]
		}
		return value
	}
	settings := plan
	if sql == history {
		settings = `SELECT 1` // it has to do without
	}
	run(`BEGIN; ` + settings + `; PREPARE p AS ` + sql)
	defer run(`DEALLOCATE p; ROLLBACK`)
	execute := `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE p (` + args + `)`
	run(execute) // fills the caches of the connection
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
			Rows int `json:"Actual Rows"`
		}
	}
	require.NoError(b.t, json.Unmarshal(run(execute), &plans))
	return plans[0].Plan.Hit + plans[0].Plan.Read, plans[0].Plan.Rows
}
