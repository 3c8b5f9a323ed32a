package changelog

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// client is a reader that is cut off in the middle of most reads.
type client struct {
	b      *bundle
	r      *rand.Rand
	sealer *Sealer
	scope  Scope
	place  string
	given  []Change
}

func (b *bundle) client(seed uint64, scope Scope) *client {
	c := &client{b: b, r: rand.New(rand.NewPCG(seed, 1)), sealer: NewSealer([]byte("key")), scope: scope}
	c.place = c.sealer.Seal(b.here())
	return c
}

// resume reads what was missed, all of it unless it is cut.
func (c *client) resume(ctx context.Context, cut bool) error {
	at, err := c.sealer.Open(c.place)
	if err != nil {
		return err
	}
	m, err := Since(ctx, c.b, at, c.scope, 100_000)
	if err != nil {
		return err
	}
	if m.Resync {
		c.b.t.Errorf("resync at %+v", at)
	}
	for _, ch := range m.Changes {
		if cut && c.r.IntN(3) == 0 {
			return nil
		}
		c.given = append(c.given, ch)
		c.place = c.sealer.Seal(Cursor{m.Epoch, at.Seen.And(m.Snapshot, ch.Seq)})
	}
	c.place = c.sealer.Seal(Cursor{m.Epoch, Seen{Base: m.Snapshot}})
	return nil
}

// complete checks that all the changes in the log of a client's records were given once, and in order.
func (c *client) complete() {
	c.b.t.Helper()
	rows, err := c.b.Query(c.b.t.Context(), `SELECT seq FROM changes WHERE entity = ANY ($1) OR id = ANY ($2) ORDER BY seq`,
		c.scope.Entities, c.scope.Records["Thread"])
	require.NoError(c.b.t, err)
	want, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(c.b.t, err)
	var got []int64
	versions := map[uuid.UUID]int64{}
	for _, ch := range c.given {
		got = append(got, ch.Seq)
		versions[ch.ID]++
		require.Equal(c.b.t, versions[ch.ID], ch.Version, "versions of %s", ch.ID)
	}
	slices.Sort(got)
	require.Equal(c.b.t, want, got, "nothing is missed, nothing comes twice")
}

// TestResume: clients come back, again and again, beside eight writers who commit late and roll back, and are cut off in the middle of
// what they missed.
func TestResume(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var some Scope
	for n := range 7 {
		some.Records = map[string][]uuid.UUID{"Thread": append(some.Records["Thread"], uuid.UUID{0: 1, 15: byte(n)})}
	}
	clients := []*client{b.client(1, Scope{Entities: []string{"Thread"}}), b.client(2, some)}
	ctx, cancel := context.WithCancel(t.Context())
	var reading errgroup.Group
	resumes := make([]int, len(clients))
	for i, c := range clients {
		reading.Go(func() error {
			for ctx.Err() == nil {
				if err := c.resume(t.Context(), true); err != nil {
					return err
				}
				resumes[i]++
			}
			return nil
		})
	}
	committed := b.storm(2 * time.Second)
	cancel()
	require.NoError(t, reading.Wait())
	for i, c := range clients {
		require.NoError(t, c.resume(t.Context(), false))
		c.complete()
		t.Logf("%d of %d changes in %d reads", len(c.given), len(committed)+20, resumes[i])
	}
}

// TestCursorOfBatch: whoever took a batch up to a change goes on behind it.
func TestCursorOfBatch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.here()
	r := b.reader()
	b.exec(`INSERT INTO thread (id) VALUES (#1), (#2), (#3)`)
	batch, err := r.read(t.Context())
	require.NoError(t, err)
	b.exec(`DELETE FROM thread WHERE id = #1`)
	all := []string{"T1 v1 I", "T2 v1 I", "T3 v1 I", "T1 v2 D"}
	for i := range batch.Changes {
		require.Equal(t, all[i+1:], b.since(batch.Cursor(i), Scope{Entities: []string{"Thread"}}, 10))
		require.Equal(t, all[i+1:], b.since(batch.Cursor(i), threads(1, 2, 3), 10))
	}
}

// TestCursorsThatCannotResume answer Resync, with the place to go on from.
func TestCursorsThatCannotResume(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.here()
	scopes := []Scope{{Entities: []string{"Thread"}}, threads(1), {}}
	resync := func(c Cursor, why string) {
		t.Helper()
		for _, scope := range scopes {
			require.Equal(t, []string{"resync"}, b.since(c, scope, 10), why)
		}
	}
	resync(Cursor{}, "the zero cursor")
	resync(Cursor{uuid.New(), c.Seen}, "another epoch")
	beyond := Snapshot{xmin: 5, xmax: c.Seen.Base.xmax + 1000}
	resync(Cursor{c.Epoch, Seen{Base: beyond}}, "beyond")
	resync(Cursor{c.Epoch, c.Seen.And(beyond, 1)}, "a part beyond")
	pieces := c
	for n := range maxParts + 1 {
		require.Empty(t, b.since(pieces, scopes[0], 10), "%d parts", n)
		pieces.Seen.Parts = append(pieces.Seen.Parts, Part{c.Seen.Base, int64(100 - n)})
	}
	resync(pieces, "too many parts")
	scopes = []Scope{{Records: map[string][]uuid.UUID{"Thread": make([]uuid.UUID, maxRecords+1)}}}
	resync(c, "too many records")
}

// TestCursorsExpire: one whose base may not have seen what retention has removed.
func TestCursorsExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.here()
	b.exec(`INSERT INTO thread (id) VALUES (#1)`)
	behind := b.here()
	b.text(`SELECT changelog_expire('2100-01-01')`)
	b.exec(`INSERT INTO thread (id) VALUES (#2)`)
	for _, scope := range []Scope{{Entities: []string{"Thread"}}, threads(1, 2)} {
		require.Equal(t, []string{"resync"}, b.since(old, scope, 10))
		part := Cursor{old.Epoch, old.Seen.And(behind.Seen.Base, 1000)}
		require.Equal(t, []string{"resync"}, b.since(part, scope, 10), "a part is none the wiser")
		behind.Seen.Base.xmin, behind.Seen.Base.running = behind.Seen.Base.xmax, nil // without what other databases have running
		require.Equal(t, []string{"T2 v1 I"}, b.since(behind, scope, 10))
	}
}
