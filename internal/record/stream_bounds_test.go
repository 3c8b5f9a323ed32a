package record_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/internal/entity"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

const costlyThread = `subscription($id: ID!) { threadChanged(id: $id) { kind thread { subject messages(first: 1) { edges { node { body } } } } } }`
const cheapThread = `subscription($id: ID!) { threadChanged(id: $id) { kind thread { subject } } }`

// What takes long to read for one stream delays no other.
func TestCostlyStreamsHoldUpNobody(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{false, true} {
		t.Run(fmt.Sprint("same record ", same), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			n := b.node(t, false)
			x, y := b.thread(t, "x"), b.thread(t, "y")
			of := y
			if same {
				of = x
			}
			costly := n.keep(t, b.ada.UUID, costlyThread, "id", x.String())
			cheap := n.keep(t, b.ada.UUID, cheapThread, "id", of.String())
			costly.next(t)
			cheap.next(t)
			tx, err := b.Begin(t.Context())
			require.NoError(t, err)
			defer func() { _ = tx.Rollback(t.Context()) }()
			_, err = tx.Exec(t.Context(), `LOCK TABLE messages IN ACCESS EXCLUSIVE MODE`)
			require.NoError(t, err)
			b.sql(t, `UPDATE threads SET subject = 'one' WHERE id = $1`, x.UUID)
			require.Eventually(t, func() bool {
				return one[bool](t, b, `SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'messages'::regclass AND NOT granted)`)
			}, 10*time.Second, time.Millisecond)
			b.sql(t, `UPDATE threads SET subject = 'two' WHERE id = $1`, x.UUID)
			b.sql(t, `UPDATE threads SET subject = 'last' WHERE id = $1`, of.UUID)
			for told := ""; !strings.Contains(told, "last"); {
				told = string(cheap.next(t).Data)
			}
			costly.mu.Lock()
			defer costly.mu.Unlock()
			require.Empty(t, costly.got)
		})
	}
}

// The bound of a viewer holds however many subscribe at the same time.
func TestMemoryOfManyAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.node(t, false)
	x := b.thread(t, "x")
	b.sql(t, `INSERT INTO messages (id, body, thread_id, author_id) SELECT gen_random_uuid(), repeat('x', 10000), $1, $2 FROM generate_series(1, 1000)`,
		x.UUID, b.ada.UUID)
	doc := `subscription($where: MessageWhereInput!) { messagesChanged(where: $where) { kind message { id } } }`
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		streams []*record.Stream // protected by mu
		refused int              // protected by mu
	)
	for range 24 {
		wg.Go(func() {
			v := &valve{sink: sink{more: make(chan struct{}, 1)}}
			s, cancel, err := n.attach(b.ada.UUID, v, doc, "where", object{"threadID": x.String()})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				refused++
				return
			}
			t.Cleanup(cancel)
			s.Start()
			streams = append(streams, s)
		})
	}
	wg.Wait()
	held := n.stores.Held()
	t.Logf("%d streams, %d refused, %d MiB held", len(streams), refused, held>>20)
	for _, s := range streams {
		s.Close()
	}
	require.Zero(t, n.stores.Held())
	require.NotEmpty(t, streams)
	require.Positive(t, refused)
	require.LessOrEqual(t, held, record.MaxMemoryOfOne*3/2)
}

// A subscription whose beginning panics leaves nothing.
func TestPanicWhileBeginning(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer, withRules, func(o *options) {
		o.custom = map[string]record.CustomRule{"bad": {Where: func(*record.Predicate, viewer.Viewer, bool) { panic("bad rule") }}}
		o.change = func(s *ent.Stores) { s.Thread.Access.Read = entity.Custom("bad") }
	})
	func() {
		defer func() { _ = recover() }()
		_, _ = b.open(b.ada.UUID, followThreads)
	}()
	require.Zero(t, b.stores.Stats().Streams)
	require.Zero(t, b.stores.Held())
}

// What an event leads to is read again when the sink that refused it takes it.
func TestRefusedEventIsReadAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, withRules)
	n := b.node(t, true)
	bob := b.user(t, "bob")
	x := b.thread(t, "shown to bob", bob)
	v := &valve{sink: sink{more: make(chan struct{}, 1)}}
	s, cancel, err := n.attach(bob.UUID, v, `subscription($refs: [RecordRef!]!) { recordsChanged(refs: $refs) { kind record { id ... on User {
		threads(first: 5) { edges { node { subject } } } } } } }`, "refs", refs(bob))
	require.NoError(t, err)
	defer cancel()
	defer s.Close()
	s.Start()
	b.sql(t, `DELETE FROM thread_members WHERE thread_id = $1`, x.UUID)
	now := time.Now()
	require.Eventually(t, func() bool { return n.tailer.Lag() < time.Since(now) }, 30*time.Second, 5*time.Millisecond)
	v.open(-1)
	s.Resume()
	list := v.take(10)
	require.NotContains(t, fmt.Sprint(list[0].Record), "shown to bob")
}
