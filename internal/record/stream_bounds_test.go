package record_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/internal/changelog"
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
			b.lockMessages(t)
			b.sql(t, `UPDATE threads SET subject = 'one' WHERE id = $1`, x.UUID)
			require.Eventually(t, func() bool { return b.waiting(t) > 0 }, 10*time.Second, time.Millisecond)
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

// flusher keeps what was flushed.
type flusher struct {
	*keeper
	taken []*record.Answer // of whoever pushes
}

func (f *flusher) Next(a *record.Answer) bool {
	f.taken = append(f.taken, a)
	return true
}

func (f *flusher) Flush() {
	for _, a := range f.taken {
		f.keeper.Next(a)
	}
	f.taken = nil
}

// Of many changes that come together, what is read of the first is told before the last are read.
func TestToldAsRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.node(t, false)
	x := b.thread(t, "x")
	b.message(t, x, "hello")
	b.sql(t, `INSERT INTO threads (id, subject, owner_id) SELECT gen_random_uuid(), 'y', $1 FROM generate_series(1, $2)`,
		b.ada.UUID, record.MaxRound-1)
	f := &flusher{keeper: newKeeper()}
	s, cancel, err := n.attach(b.ada.UUID, f, `subscription { threadsChanged(where: {}) { kind } }`)
	require.NoError(t, err)
	defer cancel()
	defer s.Close()
	s.Start()
	n.keep(t, b.ada.UUID, `subscription { messagesChanged(where: {}) { kind } }`)
	for range record.MaxRound + 1 {
		f.next(t)
	}
	n.quiet(t)
	tx, lock := b.begin(t), b.begin(t)
	_, err = tx.Exec(t.Context(), `UPDATE threads SET subject = 'new'`)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `UPDATE messages SET body = 'new'`)
	require.NoError(t, err)
	locked := make(chan error)
	go func() { // who asks later for the table waits behind this
		_, err := lock.Exec(t.Context(), `LOCK TABLE messages IN ACCESS EXCLUSIVE MODE`)
		locked <- err
	}()
	require.Eventually(t, func() bool { return b.waiting(t) > 0 }, 10*time.Second, time.Millisecond)
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-locked)
	for range record.MaxRound {
		require.Equal(t, "UPDATED", field(t, f.next(t))["kind"])
	}
}

// Changes that are read apart are of the lives that they were made in.
func TestLivesReadApart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.node(t, false)
	x := b.thread(t, "out")
	b.sql(t, `INSERT INTO threads (id, subject, owner_id) SELECT gen_random_uuid(), 'y', $1 FROM generate_series(1, $2)`,
		b.ada.UUID, record.MaxRound-1)
	k := n.keep(t, b.ada.UUID, `subscription { threadsChanged(where: {subject: "in"}) { kind version } }`)
	require.Equal(t, "READY", field(t, k.next(t))["kind"])
	n.quiet(t)
	tx := b.begin(t)
	for _, statement := range []string{
		`UPDATE threads SET subject = 'z' WHERE subject = 'y' AND owner_id = $2 AND id <> $1`,
		`UPDATE threads SET subject = 'out, too' WHERE id = $1 AND owner_id = $2`,
		`DELETE FROM threads WHERE id = $1 AND owner_id = $2`,
		`INSERT INTO threads (id, subject, owner_id) VALUES ($1, 'new', $2)`,
		`UPDATE threads SET subject = 'in' WHERE id = $1 AND owner_id = $2`,
	} {
		_, err := tx.Exec(t.Context(), statement, x.UUID, b.ada.UUID)
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit(t.Context()))
	n.quiet(t)
	k.mu.Lock()
	defer k.mu.Unlock()
	require.Len(t, k.got, 1)
	require.Contains(t, string(k.got[0].Data), "CREATED")
}

// A record that has the id of an earlier one, by the time that a change of that is delivered, is not taken for it, whatever its version is.
func TestLivesToldLate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.node(t, false)
	for version := 1; version <= 4; version++ {
		x := b.thread(t, fmt.Sprint("in ", version))
		k := n.keep(t, b.ada.UUID, `subscription($in: String!) { threadsChanged(where: {subjectHasPrefix: $in}) { kind version } }`,
			"in", fmt.Sprint("in ", version))
		want := []string{"SNAPSHOT 1", "READY <nil>", "DELETED <nil>", "CREATED 1"}
		for _, w := range want[:2] {
			require.Equal(t, w, told(t, k.next(t)))
		}
		n.quiet(t)
		next := func() {
			b.sql(t, `DELETE FROM threads WHERE id = $1`, x.UUID)
			b.sql(t, `INSERT INTO threads (id, subject, owner_id) VALUES ($1, $2, $3)`, x.UUID, fmt.Sprint("in ", version, " again"), b.ada.UUID)
			for range version - 1 {
				b.sql(t, `UPDATE threads SET subject = subject || '!' WHERE id = $1`, x.UUID)
			}
		}
		n.late.Store(&next)
		b.sql(t, `UPDATE threads SET subject = 'out' WHERE id = $1`, x.UUID)
		for v := 2; v <= version; v++ {
			want = append(want, fmt.Sprint("UPDATED ", v))
		}
		for _, w := range want[2:] {
			require.Equal(t, w, told(t, k.next(t)), "version %d", version)
		}
	}
}

// told is an event's kind and version.
func told(t testing.TB, a *record.Answer) string {
	t.Helper()
	e := field(t, a)
	return fmt.Sprint(e["kind"], " ", e["version"])
}

// Nor does it delay who makes room for a stream, who may be writing for others as well.
func TestResumeReadsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.node(t, false)
	v := &valve{sink: sink{more: make(chan struct{}, 1)}}
	s, cancel, err := n.attach(b.ada.UUID, v, costlyThread, "id", b.thread(t, "x").String())
	require.NoError(t, err)
	defer cancel()
	defer s.Close()
	s.Start()
	tx := b.lockMessages(t)
	v.open(-1)
	s.Resume()
	require.Empty(t, v.take(1))
	require.NoError(t, tx.Rollback(t.Context()))
	n.quiet(t)
	require.Len(t, v.take(1), 1)
}

// Streams that begin anew, all at once, take no more connections to read what their records lead to than others do.
func TestRestartsTakeTurns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.node(t, false)
	x := b.thread(t, "x")
	var streams []*keeper
	for i := range record.MaxTurns + 3 {
		streams = append(streams, n.keep(t, b.user(t, fmt.Sprint("user", i)).UUID, costlyThread, "id", x.String()))
	}
	n.quiet(t)
	tx := b.lockMessages(t)
	n.stores.Deliver(t.Context(), changelog.Batch{Resync: true})
	require.Eventually(t, func() bool {
		return int(n.stores.Stats().Resyncs) == len(streams) && n.stores.Waiting() == len(streams)-record.MaxTurns
	}, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return b.waiting(t) >= record.MaxTurns }, 10*time.Second, time.Millisecond)
	require.Equal(t, record.MaxTurns, b.waiting(t))
	require.NoError(t, tx.Rollback(t.Context()))
	for _, k := range streams {
		for _, kind := range []string{"SNAPSHOT", "RESYNC", "SNAPSHOT"} {
			a := k.next(t)
			require.Empty(t, a.Errors)
			require.Equal(t, kind, field(t, a)["kind"])
		}
	}
}

// lockMessages has whoever reads messages wait until it is over.
func (b *bundle) lockMessages(t testing.TB) pgx.Tx {
	t.Helper()
	tx := b.begin(t)
	_, err := tx.Exec(t.Context(), `LOCK TABLE messages IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	return tx
}

// waiting counts who waits for the table of messages. Other tests' databases have one of the same oid.
func (b *bundle) waiting(t testing.TB) int {
	t.Helper()
	return one[int](t, b, `SELECT count(*)::int FROM pg_locks WHERE relation = 'messages'::regclass AND NOT granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
}

// begin begins a transaction, which is over with the test.
func (b *bundle) begin(t testing.TB) pgx.Tx {
	t.Helper()
	tx, err := b.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	return tx
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
	n.quiet(t)
	list := v.take(10)
	require.NotContains(t, fmt.Sprint(list[0].Record), "shown to bob")
}

// ender counts what it takes, and keeps the error that it ends with.
type ender struct {
	mu    sync.Mutex
	kinds map[string]int // protected by mu
	err   error          // protected by mu
}

func (e *ender) Next(a *record.Answer) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, kind := range []string{"RESYNC", "READY"} {
		if strings.Contains(string(a.Data), `"kind":"`+kind) {
			e.kinds[kind]++
		}
	}
	return true
}

func (*ender) Flush() {}

func (e *ender) End(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

// Streams whose client takes all that they have do not end because others' reading takes long when all begin anew.
func TestRestartsThatWaitForTheirTurnStay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.node(t, false)
	x := b.thread(t, "x")
	b.sql(t, `INSERT INTO messages (id, body, thread_id, author_id)
		SELECT gen_random_uuid(), repeat('x', 40000), $1, $2 FROM generate_series(1, 250)`, x.UUID, b.ada.UUID)
	for i := range record.MaxTurns {
		k := n.keep(t, b.user(t, fmt.Sprint("user", i)).UUID, `subscription($id: ID!) { threadChanged(id: $id) {
			kind thread { members(first: 1) { edges { node { name } } } } } }`, "id", b.thread(t, "y").String())
		k.next(t)
	}
	var enders []*ender
	for range 9 {
		e := &ender{kinds: map[string]int{}}
		s, cancel, err := n.attach(b.ada.UUID, e, `subscription($where: MessageWhereInput!) { messagesChanged(where: $where) {
			kind message { thread { messages(first: 1) { edges { node { id } } } } } } }`, "where", object{"threadID": x.String()})
		require.NoError(t, err)
		t.Cleanup(cancel)
		t.Cleanup(s.Close)
		s.Start()
		enders = append(enders, e)
	}
	n.quiet(t)
	tx := b.begin(t)
	_, err := tx.Exec(t.Context(), `LOCK TABLE thread_members IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	b.sql(t, `UPDATE threads SET subject = 'z' WHERE id <> $1`, x.UUID)
	require.Eventually(t, func() bool {
		return one[int](t, b, `SELECT count(*)::int FROM pg_locks WHERE relation = 'thread_members'::regclass AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == record.MaxTurns
	}, 10*time.Second, time.Millisecond)
	n.stores.Deliver(t.Context(), changelog.Batch{Resync: true})
	begun := func(e *ender) bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.kinds["READY"] == 2 || e.err != nil
	}
	require.Eventually(t, func() bool { return n.stores.Waiting() >= len(enders) }, 20*time.Second, time.Millisecond)
	require.Less(t, n.stores.Held(), 1<<20, "what waits for a turn has not been read")
	require.NoError(t, tx.Rollback(t.Context()))
	for _, e := range enders {
		require.Eventually(t, func() bool { return begun(e) }, 20*time.Second, time.Millisecond)
	}
	for i, e := range enders {
		require.NoError(t, e.err, i)
	}
}
