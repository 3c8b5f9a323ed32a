package record_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"

	"godstack/internal/entity"
	"godstack/internal/record"
)

const watchThread = `subscription($id: ID!, $known: Int) { threadChanged(id: $id, knownVersion: $known) {
	kind recordId version fields thread { id version subject members { edges { node { username } } } } } }`

// message is one of graphql-transport-ws.
type message struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// answer reads a `next`, or an `error`, which is a list of errors alone.
func (m message) answer(t testing.TB) (a answer) {
	t.Helper()
	if m.Type == "error" {
		require.NoError(t, json.Unmarshal(m.Payload, &a.Errors), string(m.Payload))
		return a
	}
	return decodeAnswer(t, m.Payload)
}

// change is an event of threadChanged.
type change struct {
	Kind     string
	RecordID string
	Version  *int
	Fields   []string
	Thread   *struct {
		ID      string
		Version int
		Subject string
		Members struct {
			Edges []struct{ Node struct{ Username string } }
		}
	}
}

// socket is a connection that is initialised.
type socket struct {
	conn *websocket.Conn
	ctx  context.Context
}

// dial opens a socket whose test ends within a minute. Its errors are fit for goroutines.
func (b *bundle) dial(ctx context.Context) (*socket, error) {
	conn, _, err := websocket.Dial(ctx, strings.Replace(b.url, "http", "ws", 1), &websocket.DialOptions{
		HTTPClient: b.http, HTTPHeader: http.Header{}, Subprotocols: []string{"graphql-transport-ws"},
	})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(1 << 20)
	s := &socket{conn, ctx}
	if err := wsjson.Write(ctx, conn, message{Type: "connection_init"}); err != nil {
		return nil, err
	}
	m, err := s.receive()
	if err == nil && m.Type != "connection_ack" {
		err = fmt.Errorf("%s instead of connection_ack", m.Type)
	}
	return s, err
}

// connect is dial for tests.
func (b *bundle) connect(t testing.TB) *socket {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	s, err := b.dial(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.conn.CloseNow() })
	return s
}

// receive returns the next message that is no ping.
func (s *socket) receive() (m message, err error) {
	for {
		m = message{}
		if err := wsjson.Read(s.ctx, s.conn, &m); err != nil {
			return m, err
		}
		if m.Type != "ping" {
			return m, nil
		}
	}
}

func (s *socket) subscribe(id, document string, vars ...any) error {
	return wsjson.Write(s.ctx, s.conn, message{ID: id, Type: "subscribe", Payload: json.RawMessage(encode(document, vars))})
}

// next returns the next event of threadChanged.
func (s *socket) next() (c change, err error) {
	m, err := s.receive()
	if err != nil {
		return c, err
	}
	var payload struct {
		Data   struct{ ThreadChanged change }
		Errors []apiError
	}
	if m.Type != "next" {
		return c, fmt.Errorf("%s %s instead of next", m.Type, m.Payload)
	}
	if err := json.Unmarshal(m.Payload, &payload); err != nil || len(payload.Errors) > 0 {
		return c, fmt.Errorf("%s: %w", m.Payload, err)
	}
	return payload.Data.ThreadChanged, nil
}

// event is next for tests.
func (s *socket) event(t testing.TB) change {
	t.Helper()
	c, err := s.next()
	require.NoError(t, err)
	return c
}

// watch subscribes to a thread and takes the snapshot.
func (b *bundle) watch(t testing.TB, thread record.ID) *socket {
	t.Helper()
	s := b.connect(t)
	require.NoError(t, s.subscribe("1", watchThread, "id", thread))
	require.Equal(t, "SNAPSHOT", s.event(t).Kind)
	return s
}

func TestWatch(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	bob := b.user(t, "bob")
	x := b.thread(t, "one")
	s := b.connect(t)
	require.NoError(t, s.subscribe("1", watchThread, "id", x))
	c := s.event(t)
	require.Equal(t, "SNAPSHOT", c.Kind)
	require.Equal(t, x.String(), c.RecordID)
	require.Equal(t, 1, *c.Version)
	require.Equal(t, []string{}, c.Fields)
	require.Equal(t, "one", c.Thread.Subject)

	// By the API.
	b.ok(t, updateThread, "id", x, "version", 1, "input", object{"subject": "two"})
	c = s.event(t)
	require.Equal(t, "UPDATED", c.Kind)
	require.Equal(t, 2, *c.Version)
	require.Equal(t, []string{"subject"}, c.Fields)
	require.Equal(t, "two", c.Thread.Subject)

	// By hand. What is rolled back never arrives: the next event is the one after it.
	b.sql(t, `UPDATE threads SET subject = 'three', version = 99 WHERE id = $1`, x.UUID)
	c = s.event(t)
	require.Equal(t, "UPDATED", c.Kind)
	require.Equal(t, 3, *c.Version)
	require.Equal(t, "three", c.Thread.Subject)
	tx, err := b.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `UPDATE threads SET subject = 'never' WHERE id = $1`, x.UUID)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	b.do(t, updateTwo, "a", x, "b", x, "version", 77)

	// A link is a change of the thread.
	b.sql(t, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2)`, x.UUID, bob.UUID)
	c = s.event(t)
	require.Equal(t, "UPDATED", c.Kind)
	require.Equal(t, 4, *c.Version)
	require.Equal(t, []string{"members"}, c.Fields)
	require.Equal(t, "bob", c.Thread.Members.Edges[0].Node.Username)

	// Several writes of one transaction each have their version.
	b.ok(t, `mutation($id: ID!) { a: updateThread(id: $id, expectedVersion: 4, input: {subject: "five"}) { id }
		b: updateThread(id: $id, expectedVersion: 5, input: {subject: "six", clearMembers: true}) { id } }`, "id", x)
	c = s.event(t)
	require.Equal(t, 5, *c.Version)
	require.GreaterOrEqual(t, c.Thread.Version, 5, "the record is as of delivery")
	c = s.event(t)
	require.Equal(t, 6, *c.Version)
	require.Equal(t, []string{"members", "subject"}, c.Fields)

	// After the deletion there is nothing.
	b.ok(t, deleteThread, "id", x, "version", 6)
	c = s.event(t)
	require.Equal(t, "DELETED", c.Kind)
	require.Equal(t, 7, *c.Version)
	require.Equal(t, x.String(), c.RecordID)
	require.Nil(t, c.Thread)
	m, err := s.receive()
	require.NoError(t, err)
	require.Equal(t, message{ID: "1", Type: "complete"}, m)
}

func TestWatchWhatIsKnown(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x := b.thread(t, "one")
	b.sql(t, `UPDATE threads SET subject = 'two' WHERE id = $1`, x.UUID)
	for known, kind := range map[int]string{1: "SNAPSHOT", 2: "READY", 3: "SNAPSHOT", 0: "SNAPSHOT", -1: "SNAPSHOT"} {
		s := b.connect(t)
		require.NoError(t, s.subscribe("1", watchThread, "id", x, "known", known))
		c := s.event(t)
		require.Equal(t, kind, c.Kind, known)
		require.Equal(t, 2, *c.Version)
		require.Equal(t, kind == "SNAPSHOT", c.Thread != nil)
	}
	s := b.connect(t)
	require.NoError(t, s.subscribe("1", watchThread, "id", x, "known", 2))
	require.Equal(t, "READY", s.event(t).Kind)
	b.sql(t, `UPDATE threads SET subject = 'three' WHERE id = $1`, x.UUID)
	c := s.event(t)
	require.Equal(t, "UPDATED", c.Kind)
	require.Equal(t, 3, *c.Version)
}

func TestWatchIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	for _, c := range []struct {
		name, id, code string
	}{
		{"unknown", record.ID{Prefix: "thread", UUID: entity.NewID()}.String(), "NOT_FOUND"},
		{"of another type", b.ada.String(), "BAD_USER_INPUT"},
		{"malformed", "nonsense", "BAD_USER_INPUT"},
	} {
		s := b.connect(t)
		require.NoError(t, s.subscribe("1", watchThread, "id", c.id))
		m, err := s.receive()
		require.NoError(t, err)
		require.Equal(t, "error", m.Type)
		a := m.answer(t)
		require.Len(t, a.Errors, 1, "%s: %s", c.name, m.Payload)
		require.Equal(t, "threadChanged", a.Errors[0].path())
		require.Equal(t, c.code, a.Errors[0].code(), c.name)
		require.NotEmpty(t, a.Errors[0].Extensions["requestId"])
	}
	require.NotContains(t, b.log.String(), "level=ERROR")
}

func TestWatchAfterTruncate(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x, y := b.thread(t, "x"), b.thread(t, "y")
	sx, sy := b.watch(t, x), b.watch(t, y)
	tx, err := b.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `TRUNCATE threads CASCADE`)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO threads (id, subject, owner_id) VALUES ($1, 'y again', $2)`, y.UUID, b.ada.UUID)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))

	c := sx.event(t)
	require.Equal(t, "RESYNC", c.Kind)
	require.Nil(t, c.Version)
	c = sx.event(t)
	require.Equal(t, "DELETED", c.Kind)
	require.Equal(t, x.String(), c.RecordID)
	m, err := sx.receive()
	require.NoError(t, err)
	require.Equal(t, "complete", m.Type)

	require.Equal(t, "RESYNC", sy.event(t).Kind)
	c = sy.event(t)
	require.Equal(t, "SNAPSHOT", c.Kind)
	require.Equal(t, "y again", c.Thread.Subject)
	b.sql(t, `UPDATE threads SET subject = 'on' WHERE id = $1`, y.UUID)
	c = sy.event(t)
	require.Equal(t, "UPDATED", c.Kind, "what the snapshot contains does not come again")
	require.Equal(t, 2, *c.Version)
}

// A new log of changes voids what was learnt from the old one.
func TestWatchAfterANewEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x := b.thread(t, "x")
	s := b.watch(t, x)
	b.sql(t, `UPDATE changelog_state SET epoch = gen_random_uuid()`)
	require.Equal(t, "RESYNC", s.event(t).Kind)
	require.Equal(t, "SNAPSHOT", s.event(t).Kind)
	b.sql(t, `UPDATE threads SET subject = 'on' WHERE id = $1`, x.UUID)
	require.Equal(t, 2, *s.event(t).Version)
}

// Whoever subscribes, whenever, gets a snapshot and from then on each version once, in order.
func TestWatchInAStorm(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x := b.thread(t, "0")
	const writers, writes, clients = 8, 40, 20
	const last = 1 + writers*writes
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range writes {
				tx, err := b.Begin(ctx)
				if err == nil {
					_, err = tx.Exec(ctx, `UPDATE threads SET subject = version::text WHERE id = $1`, x.UUID)
				}
				if err == nil {
					err = tx.Commit(ctx)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range clients {
		when := rand.IntN(last - last/10)
		wg.Go(func() {
			for { // at a random moment of the storm
				var v int
				if err := b.QueryRow(ctx, `SELECT version FROM threads WHERE id = $1`, x.UUID).Scan(&v); err != nil {
					t.Error(err)
					return
				}
				if v >= when {
					break
				}
			}
			if err := b.follow(ctx, x, last); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// follow watches a thread up to a version and checks that none is missing.
func (b *bundle) follow(ctx context.Context, x record.ID, last int) error {
	s, err := b.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = s.conn.CloseNow() }()
	if err := s.subscribe("1", watchThread, "id", x); err != nil {
		return err
	}
	c, err := s.next()
	if err != nil || c.Kind != "SNAPSHOT" || c.Thread.Version != *c.Version {
		return fmt.Errorf("not a snapshot: %+v: %w", c, err)
	}
	for v := *c.Version + 1; v <= last; v++ {
		c, err := s.next()
		if err != nil || c.Kind != "UPDATED" || *c.Version != v || c.Thread.Version < v {
			return fmt.Errorf("not version %d: %+v: %w", v, c, err)
		}
	}
	return nil
}

// Whoever goes away, in whatever way, is forgotten.
func TestWatchersThatLeave(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x := b.thread(t, "x")
	are := func(n int64) {
		t.Helper()
		require.Eventually(t, func() bool { return b.watching.Load() == n }, 10*time.Second, time.Millisecond)
	}
	stay, leave, cut := b.watch(t, x), b.watch(t, x), b.watch(t, x)
	are(3)
	require.NoError(t, wsjson.Write(leave.ctx, leave.conn, message{ID: "1", Type: "complete"}))
	are(2)
	require.NoError(t, cut.conn.CloseNow())
	are(1)
	b.sql(t, `DELETE FROM threads WHERE id = $1`, x.UUID)
	require.Equal(t, "DELETED", stay.event(t).Kind)
	are(0)
}

// A change of a record with many subscribers is read once.
func TestWatchersShareTheRecord(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x := b.thread(t, "one")
	const watchers = 50
	s := b.connect(t)
	for i := range watchers {
		require.NoError(t, s.subscribe(fmt.Sprint(i), `subscription($id: ID!) { threadChanged(id: $id) { kind version thread { subject } } }`, "id", x))
	}
	for range watchers {
		require.Equal(t, "SNAPSHOT", s.event(t).Kind)
	}
	set := func(subject string) {
		b.sql(t, `UPDATE threads SET subject = $2 WHERE id = $1`, x.UUID, subject)
		for range watchers {
			require.Equal(t, subject, s.event(t).Thread.Subject)
		}
	}
	set("two") // with this, that it was made is delivered as well
	require.Eventually(t, b.stores.Quiet, 10*time.Second, time.Millisecond)
	b.trace.reset()
	set("three")
	statements, _ := b.trace.statements()
	require.Len(t, statements, 1)
}

// A stream that cannot go on says so, and does not end as one whose record was deleted.
func TestWatchThatFails(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x := b.thread(t, "one")
	s := b.watch(t, x)
	b.sql(t, `DO $$ BEGIN UPDATE threads SET subject = 'two'; ALTER TABLE threads RENAME TO gone; END $$`)
	m, err := s.receive()
	require.NoError(t, err)
	require.Equal(t, "error", m.Type)
	a := m.answer(t)
	require.Len(t, a.Errors, 1, string(m.Payload))
	require.Equal(t, "INTERNAL", a.Errors[0].code())
	require.NotEmpty(t, a.Errors[0].Extensions["requestId"])
	require.Contains(t, b.log.String(), "42P01")
	require.Eventually(t, func() bool { return b.watching.Load() == 0 }, 10*time.Second, 5*time.Millisecond)
}
