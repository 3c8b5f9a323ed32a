package record_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/graph"
	"godstack/internal/entity"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// sink is a subscriber that has no transport. It takes everything, unless it is told to be full.
type sink struct {
	stream *record.Stream
	cancel func()

	mu    sync.Mutex
	full  bool          // protected by mu
	got   []event       // protected by mu
	taken int           // of got; protected by mu
	ended bool          // protected by mu
	err   error         // why; protected by mu
	more  chan struct{} // holds one when got has grown
}

// event is one of any stream.
type event struct {
	Kind     string
	RecordID string
	Version  *int
	Cursor   string
	Fields   []string
	Record   map[string]any // under whatever name it was selected
	errs     int
}

// String is the event's kind, record, version and fields.
func (e event) String() string {
	v := "-"
	if e.Version != nil {
		v = fmt.Sprint(*e.Version)
	}
	id := e.RecordID
	if len(id) > 4 {
		id = id[:strings.LastIndexByte(id, '_')+1] + id[len(id)-4:]
	}
	return strings.TrimSpace(fmt.Sprint(e.Kind, " ", id, " v", v, " ", strings.Join(e.Fields, ",")))
}

func (s *sink) Next(a *record.Answer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return false
	}
	var data map[string]map[string]json.RawMessage
	if err := json.Unmarshal(a.Data, &data); err != nil {
		panic(fmt.Sprintf("%s: %v", a.Data, err))
	}
	e := event{errs: len(a.Errors)}
	for _, fields := range data {
		for name, raw := range fields {
			var into any = &e.Record
			switch name {
			case "kind":
				into = &e.Kind
			case "recordId":
				into = &e.RecordID
			case "version":
				into = &e.Version
			case "cursor":
				into = &e.Cursor
			case "fields":
				into = &e.Fields
			}
			if err := json.Unmarshal(raw, into); err != nil {
				panic(fmt.Sprintf("%s: %v", a.Data, err))
			}
		}
	}
	s.got = append(s.got, e)
	s.signal()
	return true
}

func (s *sink) signal() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (*sink) Flush() {}

func (s *sink) End(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended, s.err = true, err
	s.signal()
}

// fill has the sink refuse everything, or take it again.
func (s *sink) fill(full bool) {
	s.mu.Lock()
	s.full = full
	s.mu.Unlock()
	if !full {
		s.stream.Resume()
	}
}

// next waits for an event; ok is false where the stream has ended before.
func (s *sink) next(ctx context.Context) (e event, ok bool) {
	for {
		s.mu.Lock()
		if s.taken < len(s.got) {
			e = s.got[s.taken]
			s.taken++
			s.mu.Unlock()
			return e, true
		}
		ended := s.ended
		s.mu.Unlock()
		if ended {
			return e, false
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			return event{Kind: "nothing: " + ctx.Err().Error()}, false
		}
	}
}

// expect takes the next events, which are to look like this.
func (s *sink) expect(t testing.TB, want ...string) (last event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	for range want {
		e, ok := s.next(ctx)
		if !ok {
			got = append(got, fmt.Sprint("the end ", e.Kind, s.err))
			break
		}
		last = e
		got = append(got, e.String())
	}
	require.Equal(t, want, got)
	return last
}

// end waits for the end, before which there is nothing more.
func (s *sink) end(t testing.TB) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	e, ok := s.next(ctx)
	require.False(t, ok, e.String())
	require.True(t, s.ended, e.Kind)
	return s.err
}

// stream subscribes as a viewer, uuid.Nil for nobody. The error is the refusal.
func (b *bundle) stream(t testing.TB, who uuid.UUID, document string, vars ...any) (*sink, error) {
	t.Helper()
	s, err := b.open(who, document, vars...)
	if err == nil {
		t.Cleanup(s.close)
	}
	return s, err
}

// open is stream for goroutines, who close it.
func (b *bundle) open(who uuid.UUID, document string, vars ...any) (*sink, error) {
	var params graphql.RawParams
	d := json.NewDecoder(strings.NewReader(encode(document, vars)))
	d.UseNumber()
	if err := d.Decode(&params); err != nil {
		return nil, err
	}
	x := executor.New(graph.NewExecutableSchema(graph.Config{Resolvers: &graph.Resolver{Stores: b.stores}}))
	s := &sink{more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(graphql.StartOperationTrace(context.Background()))
	s.cancel = cancel
	if who != uuid.Nil {
		ctx = viewer.NewContext(ctx, viewer.Viewer{ID: who, Role: viewer.User})
	}
	ctx, slot := record.WithSink(ctx, s)
	op, errs := x.CreateOperationContext(ctx, &params)
	if len(errs) > 0 {
		cancel()
		return nil, errs
	}
	next, ctx := x.DispatchOperation(ctx, op)
	if s.stream = slot.Stream(); s.stream == nil {
		defer cancel()
		return nil, next(ctx).Errors[0].Err
	}
	s.stream.Start()
	return s, nil
}

func (s *sink) close() {
	s.stream.Close()
	s.cancel()
}

// tail is stream as ada, which is not refused.
func (b *bundle) tail(t testing.TB, document string, vars ...any) *sink {
	t.Helper()
	return b.tailAs(t, b.ada.UUID, document, vars...)
}

func (b *bundle) tailAs(t testing.TB, who uuid.UUID, document string, vars ...any) *sink {
	t.Helper()
	s, err := b.stream(t, who, document, vars...)
	require.NoError(t, err)
	return s
}

const (
	followThread = `subscription($id: ID!, $known: Int, $since: Cursor) { threadChanged(id: $id, knownVersion: $known, since: $since) {
		kind recordId version cursor fields thread { id version subject } } }`
	followThreads = `subscription($where: ThreadWhereInput, $since: Cursor) { threadsChanged(where: $where, since: $since) {
		kind recordId version cursor fields thread { id version subject } } }`
	followMessages = `subscription($where: MessageWhereInput, $since: Cursor) { messagesChanged(where: $where, since: $since) {
		kind recordId version cursor fields message { id version body } } }`
	followRecords = `subscription($refs: [RecordRef!]!, $since: Cursor) { recordsChanged(refs: $refs, since: $since) {
		kind recordId version cursor fields record { id version ... on Thread { subject } ... on Message { body } ... on User { name } } } }`
)

// short is how an id appears in an event's String.
func short(id record.ID) string {
	s := id.String()
	return s[:strings.LastIndexByte(s, '_')+1] + s[len(s)-4:]
}

func refs(ids ...record.ID) []object {
	var list []object
	for _, id := range ids {
		list = append(list, object{"id": id.String()})
	}
	return list
}

func TestList(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	one, two := b.thread(t, "a one"), b.thread(t, "b two")
	s := b.tail(t, followThreads, "where", object{"subjectHasPrefix": "a"})
	e := s.expect(t, "SNAPSHOT "+short(one)+" v1")
	require.Equal(t, "a one", e.Record["subject"])
	s.expect(t, "READY  v-")
	b.sql(t, `UPDATE threads SET subject = 'a 1' WHERE id = $1`, one.UUID)
	s.expect(t, "UPDATED "+short(one)+" v2 subject")
	b.sql(t, `UPDATE threads SET subject = 'b 2' WHERE id = $1`, two.UUID)
	b.sql(t, `UPDATE threads SET subject = 'a 2' WHERE id = $1`, two.UUID)
	e = s.expect(t, "CREATED "+short(two)+" v3 subject")
	require.Equal(t, "a 2", e.Record["subject"])
	b.sql(t, `UPDATE threads SET subject = 'c 1' WHERE id = $1`, one.UUID)
	e = s.expect(t, "DELETED "+short(one)+" v-")
	require.Nil(t, e.Record)
	b.sql(t, `UPDATE threads SET subject = 'c 2' WHERE id = $1`, one.UUID)
	b.sql(t, `DELETE FROM threads WHERE id = $1`, one.UUID)
	three := b.thread(t, "a three")
	s.expect(t, "CREATED "+short(three)+" v1")
	b.sql(t, `DELETE FROM threads WHERE id = $1`, three.UUID)
	s.expect(t, "DELETED "+short(three)+" v2")

	// All in one transaction: each version is told, as it was then.
	b.sql(t, `DO $$ BEGIN FOR i IN 1..3 LOOP
		UPDATE threads SET subject = CASE WHEN i = 2 THEN 'z' ELSE 'a' || i END WHERE subject LIKE 'a%' OR subject = 'z'; END LOOP; END $$`)
	s.expect(t, "UPDATED "+short(two)+" v4 subject", "DELETED "+short(two)+" v-", "CREATED "+short(two)+" v6 subject")
	b.sql(t, `TRUNCATE threads CASCADE`)
	s.expect(t, "RESYNC  v-", "READY  v-")
}

func TestListIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer, withRules)
	_, err := b.stream(t, b.ada.UUID, followThreads, "where", object{"hasMembers": true})
	var e *record.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, record.BadUserInput, e.Code)
	require.Contains(t, e.Message, "hasMembers")
	_, err = b.stream(t, b.ada.UUID, followThreads, "since", "nonsense")
	require.ErrorAs(t, err, &e)
	require.Equal(t, []string{"since"}, e.Fields)
	b.sql(t, `INSERT INTO threads (id, subject, owner_id) SELECT gen_random_uuid(), 'x', $1 FROM generate_series(1, 1001)`, b.ada.UUID)
	_, err = b.stream(t, b.ada.UUID, followThreads)
	require.ErrorAs(t, err, &e)
	require.Equal(t, record.TooComplex, e.Code)
	require.Eventually(t, func() bool { return b.watching.Load() == 0 }, 10*time.Second, time.Millisecond)
}

func TestRecordsOfManyTypes(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	thread := b.thread(t, "one")
	message := b.message(t, thread, "hello")
	gone := record.ID{Prefix: "message", UUID: entity.NewID()}
	list := refs(message, thread, b.ada, gone)
	list[1]["knownVersion"] = 1
	s := b.tail(t, followRecords, "refs", list)
	// In the order of their keys.
	s.expect(t, "SNAPSHOT "+short(message)+" v1", "DELETED "+short(gone)+" v-", "SNAPSHOT "+short(b.ada)+" v1", "READY  v-")
	b.sql(t, `UPDATE threads SET subject = 'two' WHERE id = $1`, thread.UUID)
	e := s.expect(t, "UPDATED "+short(thread)+" v2 subject")
	require.Equal(t, "two", e.Record["subject"])
	b.sql(t, `DELETE FROM messages WHERE id = $1`, message.UUID)
	s.expect(t, "DELETED "+short(message)+" v2")
	b.sql(t, `INSERT INTO messages (id, body, thread_id, author_id) VALUES ($1, 'again', $2, $3)`, message.UUID, thread.UUID, b.ada.UUID)
	e = s.expect(t, "CREATED "+short(message)+" v1")
	require.Equal(t, "again", e.Record["body"])
	b.sql(t, `UPDATE users SET name = 'Ada L.' WHERE id = $1`, b.ada.UUID)
	s.expect(t, "UPDATED "+short(b.ada)+" v2 name")
}

// Every kind of stream goes on where it was cut, whatever happened meanwhile.
func TestResume(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x, other := b.thread(t, "one"), b.thread(t, "other")
	single := b.tail(t, followThread, "id", x)
	list := b.tail(t, followThreads, "where", object{"subjectNEQ": "hidden"})
	set := b.tail(t, followRecords, "refs", refs(x, other))
	at := single.expect(t, "SNAPSHOT "+short(x)+" v1").Cursor
	list.expect(t, "SNAPSHOT "+short(x)+" v1", "SNAPSHOT "+short(other)+" v1")
	set.expect(t, "SNAPSHOT "+short(x)+" v1", "SNAPSHOT "+short(other)+" v1")
	listAt, setAt := list.expect(t, "READY  v-").Cursor, set.expect(t, "READY  v-").Cursor
	for _, s := range []*sink{single, list, set} {
		s.close()
	}

	// Nothing was missed.
	single = b.tail(t, followThread, "id", x, "since", at)
	single.expect(t, "READY "+short(x)+" v-")
	single.close()
	list = b.tail(t, followThreads, "where", object{"subjectNEQ": "hidden"}, "since", listAt)
	list.expect(t, "READY  v-")
	list.close()

	b.sql(t, `UPDATE threads SET subject = 'two' WHERE id = $1`, x.UUID)
	b.sql(t, `UPDATE threads SET subject = 'hidden' WHERE id = $1`, x.UUID)
	b.sql(t, `UPDATE threads SET subject = 'three' WHERE id = $1`, x.UUID)
	b.sql(t, `DELETE FROM threads WHERE id = $1`, other.UUID)
	changes := []string{"UPDATED " + short(x) + " v2 subject", "UPDATED " + short(x) + " v3 subject", "UPDATED " + short(x) + " v4 subject"}
	single = b.tail(t, followThread, "id", x, "since", at)
	e := single.expect(t, changes[:2]...)
	single.close() // in the middle
	single = b.tail(t, followThread, "id", x, "since", e.Cursor)
	single.expect(t, changes[2], "READY "+short(x)+" v-")
	list = b.tail(t, followThreads, "where", object{"subjectNEQ": "hidden"}, "since", listAt)
	list.expect(t, changes[0], "DELETED "+short(x)+" v-", "CREATED "+short(x)+" v4 subject", "DELETED "+short(other)+" v2", "READY  v-")
	set = b.tail(t, followRecords, "refs", refs(x, other), "since", setAt)
	set.expect(t, append(changes, "DELETED "+short(other)+" v2", "READY  v-")...)
	b.sql(t, `UPDATE threads SET subject = 'five' WHERE id = $1`, x.UUID)
	for _, s := range []*sink{single, list, set} {
		s.expect(t, "UPDATED "+short(x)+" v5 subject")
	}

	// What ended meanwhile.
	b.sql(t, `DELETE FROM threads WHERE id = $1`, x.UUID)
	e = single.expect(t, "DELETED "+short(x)+" v6")
	require.NoError(t, single.end(t))
	single = b.tail(t, followThread, "id", x, "since", at)
	single.expect(t, append(changes, "UPDATED "+short(x)+" v5 subject", "DELETED "+short(x)+" v6")...)
	require.NoError(t, single.end(t))
	single = b.tail(t, followThread, "id", x, "since", e.Cursor)
	single.expect(t, "DELETED "+short(x)+" v-")
	require.NoError(t, single.end(t))
}

// Where it cannot be told what was missed, the stream begins anew and says so.
func TestResumeFromNowhere(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x := b.thread(t, "one")
	list := b.tail(t, followThreads)
	snapshot := list.expect(t, "SNAPSHOT "+short(x)+" v1").Cursor
	at := list.expect(t, "READY  v-").Cursor
	list.close()
	again := func(cursor string) {
		t.Helper()
		list := b.tail(t, followThreads, "since", cursor)
		list.expect(t, "RESYNC  v-", "SNAPSHOT "+short(x)+" v1", "READY  v-")
		list.close()
		list = b.tail(t, followRecords, "refs", refs(x), "since", cursor)
		list.expect(t, "RESYNC  v-", "SNAPSHOT "+short(x)+" v1", "READY  v-")
		list.close()
		single := b.tail(t, followThread, "id", x, "since", cursor)
		single.expect(t, "RESYNC "+short(x)+" v-", "SNAPSHOT "+short(x)+" v1")
		single.close()
	}
	again(snapshot) // of the middle of a snapshot
	b.sql(t, `UPDATE changelog_state SET expired = '999999999999'`)
	again(at)
	b.sql(t, `UPDATE changelog_state SET expired = '0', epoch = gen_random_uuid()`)
	b.sql(t, `UPDATE changelog_alive SET epoch = s.epoch FROM changelog_state s`)
	again(at)
}

// What a viewer may not read is in no stream, and who loses the right is told that it is gone, in lists as well.
func TestRightsInLists(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer, withRules)
	bob, eve := b.user(t, "bob"), b.user(t, "eve")
	x := b.thread(t, "one", bob)
	m := b.message(t, x, "hello")
	threads := b.tailAs(t, bob.UUID, followThreads)
	messages := b.tailAs(t, bob.UUID, followMessages)
	set := b.tailAs(t, bob.UUID, followRecords, "refs", refs(m, x))
	owner := b.tail(t, followRecords, "refs", refs(x, m))
	owner.expect(t, "SNAPSHOT "+short(m)+" v1", "SNAPSHOT "+short(x)+" v1", "READY  v-")
	nothing := b.tailAs(t, eve.UUID, followThreads)
	nothing.expect(t, "READY  v-")
	none := b.tailAs(t, eve.UUID, followRecords, "refs", refs(m, x))
	none.expect(t, "DELETED "+short(m)+" v-", "DELETED "+short(x)+" v-", "READY  v-")
	threads.expect(t, "SNAPSHOT "+short(x)+" v1", "READY  v-")
	messages.expect(t, "SNAPSHOT "+short(m)+" v1", "READY  v-")
	set.expect(t, "SNAPSHOT "+short(m)+" v1", "SNAPSHOT "+short(x)+" v1", "READY  v-")

	b.sql(t, `DELETE FROM thread_members WHERE user_id = $1`, bob.UUID)
	threads.expect(t, "DELETED "+short(x)+" v-")
	messages.expect(t, "RESYNC  v-", "READY  v-")
	require.ElementsMatch(t, []string{"DELETED " + short(x) + " v-", "DELETED " + short(m) + " v-"}, two(t, set))
	b.sql(t, `UPDATE threads SET subject = 'secret' WHERE id = $1`, x.UUID)
	b.sql(t, `UPDATE messages SET body = 'secret' WHERE id = $1`, m.UUID)
	owner.expect(t, "UPDATED "+short(x)+" v2 members", "UPDATED "+short(x)+" v3 subject", "UPDATED "+short(m)+" v2 body")
	b.sql(t, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2), ($1, $3)`, x.UUID, bob.UUID, eve.UUID)
	threads.expect(t, "CREATED "+short(x)+" v4 members")
	nothing.expect(t, "CREATED "+short(x)+" v4 members")
	messages.expect(t, "RESYNC  v-", "SNAPSHOT "+short(m)+" v2", "READY  v-")
	require.ElementsMatch(t, []string{"CREATED " + short(x) + " v4 members", "CREATED " + short(m) + " v2"}, two(t, set))
	require.ElementsMatch(t, []string{"CREATED " + short(x) + " v4 members", "CREATED " + short(m) + " v2"}, two(t, none))

	// A delete tells only those who could see the record, also where all that the right depends on went with it.
	last := b.user(t, "mallory")
	strangers := b.tailAs(t, last.UUID, followThreads)
	strangers.expect(t, "READY  v-")
	strangersMessages := b.tailAs(t, last.UUID, followMessages)
	strangersMessages.expect(t, "READY  v-")
	b.sql(t, `DELETE FROM threads WHERE id = $1`, x.UUID)
	for _, s := range []*sink{threads, nothing} {
		s.expect(t, "DELETED "+short(x)+" v5")
	}
	messages.expect(t, "DELETED "+short(m)+" v3")
	require.ElementsMatch(t, []string{"DELETED " + short(x) + " v5", "DELETED " + short(m) + " v3"}, two(t, set))
	mine := record.ID{Prefix: "thread", UUID: uuid.New()}
	b.sql(t, `INSERT INTO threads (id, subject, owner_id) VALUES ($1, 'mine', $2)`, mine.UUID, last.UUID)
	strangers.expect(t, "CREATED "+short(mine)+" v1")
	b.sql(t, `INSERT INTO messages (id, body, thread_id, author_id) VALUES (gen_random_uuid(), 'mine', $1, $2)`, mine.UUID, last.UUID)
	e, ok := strangersMessages.next(t.Context())
	require.True(t, ok)
	require.Equal(t, "CREATED", e.Kind)
}

// two takes two events.
func two(t testing.TB, s *sink) (list []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 2 {
		e, ok := s.next(ctx)
		require.True(t, ok, "%v %v", list, e.Kind)
		list = append(list, e.String())
	}
	return list
}

// A record that TRUNCATE removed, and another with its id, in one transaction: the log has no deletion between their changes.
func TestTruncateAndAnotherLife(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x := b.thread(t, "one")
	s := b.tail(t, followThreads)
	s.expect(t, "SNAPSHOT "+short(x)+" v1", "READY  v-")
	b.sql(t, fmt.Sprintf(`DO $$ BEGIN UPDATE threads SET subject = 'two'; TRUNCATE threads CASCADE;
		INSERT INTO threads (id, subject, owner_id) VALUES ('%s', 'new', '%s'); END $$`, x.UUID, b.ada.UUID))
	for {
		e, ok := s.next(t.Context())
		require.True(t, ok)
		if e.Kind == "READY" {
			break
		}
		require.Contains(t, []string{"RESYNC  v-", "SNAPSHOT " + short(x) + " v1"}, e.String())
	}
}
