package record_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"

	"godstack/internal/record"
)

// socket opens a socket of somebody's.
func (c *cast) socket(t testing.TB, name string) *socket {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, strings.Replace(c.url, "http", "ws", 1), &websocket.DialOptions{
		HTTPClient: c.http, Subprotocols: []string{"graphql-transport-ws"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	who, role, _ := strings.Cut(c.who(name), " ")
	payload, err := json.Marshal(map[string]string{"authorization": who + " " + role})
	require.NoError(t, err)
	s := &socket{conn, ctx}
	require.NoError(t, wsjson.Write(ctx, conn, message{Type: "connection_init", Payload: payload}))
	m, err := s.receive()
	require.NoError(t, err)
	require.Equal(t, "connection_ack", m.Type)
	return s
}

// first is what somebody's subscription begins with.
func (c *cast) first(t testing.TB, name, document string, vars ...any) answer {
	t.Helper()
	s := c.socket(t, name)
	defer func() { _ = s.conn.CloseNow() }()
	require.NoError(t, s.subscribe("1", document, vars...))
	m, err := s.receive()
	require.NoError(t, err)
	return m.answer(t)
}

// opening is all that somebody's subscription begins with: up to READY, or the SNAPSHOT of a single record.
func (c *cast) opening(t testing.TB, name, document string, vars ...any) answer {
	t.Helper()
	s := c.socket(t, name)
	defer func() { _ = s.conn.CloseNow() }()
	require.NoError(t, s.subscribe("1", document, vars...))
	var data []json.RawMessage
	for {
		m, err := s.receive()
		require.NoError(t, err)
		a := m.answer(t)
		if len(a.Errors) > 0 {
			return a
		}
		data = append(data, a.Data)
		if last := string(a.Data); strings.Contains(last, "READY") || strings.Contains(document, "$id") {
			all, err := json.Marshal(data)
			require.NoError(t, err)
			return answer{Data: all, raw: string(all)}
		}
	}
}

// stream is a subscription of somebody's to a record.
type stream struct {
	*socket
	field string
}

// watchAs subscribes to a record and takes the snapshot.
func (c *cast) watchAs(t testing.TB, name string, id record.ID) *stream {
	t.Helper()
	selection := map[string]string{
		"thread": `thread { id version subject }`, "message": `message { id version body }`, "user": `user { id name username email role }`,
		"security_event": `securityEvent { id }`,
	}[id.Prefix]
	typ := map[string]string{"thread": "thread", "message": "message", "user": "user", "security_event": "securityEvent"}[id.Prefix]
	s := &stream{c.socket(t, name), typ + "Changed"}
	require.NoError(t, s.subscribe("1", `subscription($id: ID!) { `+s.field+`(id: $id) { kind recordId version fields `+selection+` } }`, "id", id))
	require.Equal(t, "SNAPSHOT", s.event(t)["kind"])
	return s
}

// event returns the next event, the record under "record".
func (s *stream) event(t testing.TB) object {
	t.Helper()
	m, err := s.receive()
	require.NoError(t, err)
	require.Equal(t, "next", m.Type, string(m.Payload))
	a := decodeAnswer(t, m.Payload)
	require.Empty(t, a.Errors, string(m.Payload))
	e := a.at(t, s.field).(map[string]any)
	typ := strings.TrimSuffix(s.field, "Changed")
	e["record"] = e[typ]
	delete(e, typ)
	return e
}

// ends checks that the stream says no more than that the record is gone, and that within two seconds.
func (s *stream) ends(t testing.TB, id record.ID) {
	t.Helper()
	began := time.Now()
	e := s.event(t)
	if e["kind"] == "RESYNC" {
		e = s.event(t)
	}
	require.Equal(t, object{"kind": "DELETED", "recordId": id.String(), "version": nil, "fields": []any{}, "record": nil}, e)
	m, err := s.receive()
	require.NoError(t, err)
	require.Equal(t, message{ID: "1", Type: "complete"}, m)
	require.Less(t, time.Since(began), 2*time.Second)
}

// What one may not see one cannot watch, and is not told that it exists.
func TestWatchOfWhatIsNotSeen(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	gone := record.ID{Prefix: "thread", UUID: c.ids["words"].UUID}
	const document = `subscription($id: ID!, $known: Int) { threadChanged(id: $id, knownVersion: $known) { kind version } }`
	for _, known := range []any{nil, 1, 2} {
		for _, id := range []record.ID{c.ids["secret"], gone} {
			a := c.first(t, "stranger", document, "id", id, "known", known)
			require.Len(t, a.Errors, 1, string(a.Data))
			require.Equal(t, "NOT_FOUND", a.Errors[0].code())
			require.Equal(t, id.String()+" does not exist", a.Errors[0].Message)
			a = c.first(t, "anonymous", document, "id", id, "known", known)
			require.Equal(t, "UNAUTHENTICATED", a.Errors[0].code())
		}
	}
	require.Eventually(t, func() bool { return c.watching.Load() == 0 }, 10*time.Second, time.Millisecond)
}

// Who loses the right to read a record is told that it is gone, and nothing afterwards, however the right is lost: of the thread
// itself, and of what is read through it. Everybody else is told all.
func TestWatchersWhoLoseTheirRight(t *testing.T) {
	t.Parallel()
	for _, loss := range []struct {
		name string
		lose func(t *testing.T, c *cast)
	}{
		{"removed by the owner", func(t *testing.T, c *cast) {
			a := c.by(t, "ada", updateThread, "id", c.ids["shared"], "version", 1, "input", object{"removeMemberIDs": []string{c.ids["member"].String()}})
			require.Empty(t, a.Errors, a.raw)
		}},
		{"removed by hand", func(t *testing.T, c *cast) {
			c.sql(t, `DELETE FROM thread_members WHERE user_id = $1`, c.ids["member"].UUID)
		}},
		{"replaced by hand", func(t *testing.T, c *cast) {
			c.sql(t, `UPDATE thread_members SET user_id = $2 WHERE user_id = $1`, c.ids["member"].UUID, c.ids["stranger"].UUID)
		}},
		{"all removed at once, and others set", func(t *testing.T, c *cast) {
			c.sql(t, `DO $$ BEGIN CREATE TEMP TABLE k ON COMMIT DROP AS SELECT m.* FROM thread_members m JOIN users u ON u.id = m.user_id WHERE u.username <> 'member';
				TRUNCATE thread_members; INSERT INTO thread_members SELECT * FROM k; END $$`)
		}},
	} {
		t.Run(loss.name, func(t *testing.T) {
			t.Parallel()
			c := newCast(t, withTailer)
			shared, words := c.ids["shared"], c.ids["words"]
			thread, msg := c.watchAs(t, "member", shared), c.watchAs(t, "member", words)
			stays := map[string]*stream{}
			for _, name := range []string{"ada", "author"} {
				stays[name] = c.watchAs(t, name, shared)
				stays[name+" words"] = c.watchAs(t, name, words)
			}
			loss.lose(t, c)
			thread.ends(t, shared)
			msg.ends(t, words)
			c.sql(t, `UPDATE threads SET subject = 'after' WHERE id = $1`, shared.UUID)
			c.sql(t, `UPDATE messages SET body = 'after' WHERE id = $1`, words.UUID)
			for name, s := range stays {
				for {
					e := s.event(t)
					require.NotEqual(t, "DELETED", e["kind"], name)
					rec, _ := e["record"].(map[string]any)
					if rec["subject"] == "after" || rec["body"] == "after" {
						break
					}
				}
			}
		})
	}
}

func TestWatchersOfAnOwnedThread(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	shared, words := c.ids["shared"], c.ids["words"]
	owner, owners, member := c.watchAs(t, "ada", shared), c.watchAs(t, "ada", words), c.watchAs(t, "member", shared)
	c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, shared.UUID, c.ids["hermit"].UUID)
	owner.ends(t, shared)
	owners.ends(t, words)
	e := member.event(t)
	require.Equal(t, []any{"owner"}, e["fields"])

	// The new owner may watch, and who comes in later as well; a message that moves is judged where it lies then.
	hermits := c.watchAs(t, "hermit", words)
	c.sql(t, `UPDATE messages SET thread_id = $2 WHERE id = $1`, words.UUID, c.ids["secret"].UUID)
	require.Equal(t, "UPDATED", hermits.event(t)["kind"])
	c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, c.ids["secret"].UUID, c.ids["admin"].UUID)
	hermits.ends(t, words)
}

// A record that moves while somebody begins to watch it is judged where it lies from then on.
func TestWatchersOfWhatMoves(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	var wg sync.WaitGroup
	for range 40 {
		from, to := c.thread(t, "from"), c.thread(t, "to")
		msg := c.say(t, from, "author", "x")
		s := &stream{c.socket(t, "ada"), "messageChanged"}
		moved := make(chan struct{})
		wg.Go(func() {
			defer close(moved)
			if _, err := c.Exec(context.Background(), `UPDATE messages SET thread_id = $2 WHERE id = $1`, msg.UUID, to.UUID); err != nil {
				t.Error(err)
			}
		})
		require.NoError(t, s.subscribe("1", `subscription($id: ID!) { messageChanged(id: $id) { kind recordId version fields message { body } } }`, "id", msg))
		require.Equal(t, "SNAPSHOT", s.event(t)["kind"])
		<-moved
		c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, to.UUID, c.ids["hermit"].UUID)
		for s.event(t)["kind"] != "DELETED" {
		}
	}
	wg.Wait()
}

// A deletion is told to those who watch, with its version.
func TestWatchersOfADeletion(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	shared, words := c.ids["shared"], c.ids["words"]
	watchers := []*stream{c.watchAs(t, "ada", words), c.watchAs(t, "member", words)}
	other := c.watchAs(t, "hermit", c.ids["secret"])
	a := c.by(t, "author", `mutation($id: ID!) { deleteMessage(id: $id, expectedVersion: 1) { version } }`, "id", words)
	require.Empty(t, a.Errors, a.raw)
	for _, s := range watchers {
		e := s.event(t)
		require.Equal(t, "DELETED", e["kind"])
		require.Equal(t, "2", fmt.Sprint(e["version"]))
		require.Nil(t, e["record"])
	}
	reply := c.watchAs(t, "member", c.ids["reply"])
	a = c.by(t, "ada", deleteThread, "id", shared, "version", 1)
	require.Empty(t, a.Errors, a.raw)
	require.Equal(t, "DELETED", reply.event(t)["kind"])
	c.sql(t, `UPDATE threads SET subject = 'mine' WHERE id = $1`, c.ids["secret"].UUID)
	require.Equal(t, "mine", other.event(t)["record"].(map[string]any)["subject"])
}

// What changed is named to those who may read it.
func TestWatchersOfHiddenFields(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	member := c.ids["member"]
	self, admin, other := c.watchAs(t, "member", member), c.watchAs(t, "admin", member), c.watchAs(t, "stranger", member)
	c.sql(t, `UPDATE users SET email = 'new@example.com', role = 'moderator', name = 'New', password_hash = 'x' WHERE id = $1`, member.UUID)
	for _, s := range []*stream{self, admin} {
		e := s.event(t)
		require.Equal(t, []any{"email", "name", "role"}, e["fields"])
		require.Equal(t, "new@example.com", e["record"].(map[string]any)["email"])
	}
	e := other.event(t)
	require.Equal(t, []any{"name"}, e["fields"])
	require.Equal(t, map[string]any{"id": member.String(), "name": "New", "username": "member", "email": nil, "role": nil}, e["record"])
}

// A change is read once for all who watch, and who may see it is found out for all at once.
func TestWatchersWithDifferentRightsShareTheRecord(t *testing.T) {
	t.Parallel()
	for _, of := range []string{"shared", "words", "member"} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			c := newCast(t, withTailer)
			id := c.ids[of]
			var watchers []*stream
			for _, name := range []string{"ada", "member", "author"} {
				for range 4 {
					watchers = append(watchers, c.watchAs(t, name, id))
				}
			}
			count := func(statement string) int {
				require.Eventually(t, c.stores.Quiet, 10*time.Second, time.Millisecond)
				c.trace.reset()
				c.sql(t, statement, id.UUID)
				for _, s := range watchers {
					require.Equal(t, "UPDATED", s.event(t)["kind"])
				}
				statements, _ := c.trace.statements()
				return len(statements)
			}
			statement := map[string]string{
				"shared": `UPDATE threads SET subject = 'new' WHERE id = $1`, "words": `UPDATE messages SET body = 'new' WHERE id = $1`,
				"member": `UPDATE users SET name = 'new' WHERE id = $1`,
			}[of]
			// The record; for a thread its members; for a message the thread and its members; and COMMIT, where that is more than one.
			want := map[string]int{"shared": 3, "words": 4, "member": 1}[of]
			count(statement) // with this, what was done before is delivered as well
			require.Equal(t, want, count(statement))
		})
	}
}

// Only a change of what rules look at has the rights of others asked again.
func TestWatchersAreRecheckedWhereThatMayMatter(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	shared, words := c.ids["shared"], c.ids["words"]
	msg := c.watchAs(t, "author", words)
	c.sql(t, `UPDATE messages SET body = 'first' WHERE id = $1`, words.UUID)
	require.Equal(t, "UPDATED", msg.event(t)["kind"]) // and what was logged before is behind
	c.trace.reset()
	c.sql(t, `UPDATE threads SET subject = 'another' WHERE id = $1`, shared.UUID)
	c.sql(t, `UPDATE users SET name = 'Another' WHERE id = $1`, c.ids["author"].UUID)
	c.sql(t, `UPDATE messages SET body = 'another' WHERE id = $1`, words.UUID)
	require.Equal(t, "UPDATED", msg.event(t)["kind"])
	read := func() int {
		statements, _ := c.trace.statements()
		return strings.Count(fmt.Sprint(statements), `FROM "messages"`)
	}
	require.Equal(t, 1, read(), "for its own change")

	c.trace.reset()
	c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, shared.UUID, c.ids["hermit"].UUID)
	require.Eventually(t, func() bool { return read() > 0 }, 10*time.Second, time.Millisecond)
}

// Each of many subscribers to one record is told of each change.
func TestManyWatchersWithRights(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	const watchers, changes = 60, 15
	id := c.ids["shared"]
	s := c.socket(t, "member")
	for i := range watchers {
		require.NoError(t, s.subscribe(fmt.Sprint(i), `subscription($id: ID!) { threadChanged(id: $id) { kind version } }`, "id", id))
	}
	for range watchers {
		require.Equal(t, "SNAPSHOT", s.event(t).Kind)
	}
	for range changes {
		c.sql(t, `UPDATE threads SET subject = 'again' WHERE id = $1`, id.UUID)
	}
	told := map[int]int{}
	for range watchers * changes {
		e := s.event(t)
		require.Equal(t, "UPDATED", e.Kind)
		told[*e.Version]++
	}
	for v := range changes {
		require.Equal(t, watchers, told[v+2], maps.Clone(told))
	}
}
