package record_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/internal/entity"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// said is what a refusal tells, without what names the request.
func said(t testing.TB, e apiError) string {
	t.Helper()
	delete(e.Extensions, "requestId")
	text, err := json.Marshal(e)
	require.NoError(t, err)
	return string(text)
}

// spoken is a custom rule of threads: who has a message there. The sub-query gives the table of messages a name.
func spoken(as string) map[string]record.CustomRule {
	return map[string]record.CustomRule{"spoken": {Where: func(p *record.Predicate, v viewer.Viewer, _ bool) {
		p.Write("EXISTS (SELECT FROM messages " + as + " WHERE " + as + ".thread_id = ")
		p.Column("id")
		p.Write(" AND " + as + ".author_id = ")
		p.Arg(v.ID)
		p.Write(")")
	}}}
}

// Nobody makes a record readable for themselves by what they attach to it.
func TestWritesGrantNothingToTheWriter(t *testing.T) {
	t.Parallel()
	c := newCast(t, func(o *options) {
		o.custom = spoken("m")
		o.change = func(s *ent.Stores) { s.Thread.Access.Read = entity.Custom("spoken") }
	})
	gone := record.ID{Prefix: "thread", UUID: entity.NewID()}
	for name, document := range map[string]string{
		"alone":   `mutation($thread: ID!) { b: createMessage(input: {body: "x", threadID: $thread}) { id thread { subject } } }`,
		"second":  `mutation($thread: ID!) { a: createThread(input: {subject: "x"}) { version } b: createMessage(input: {body: "x", threadID: $thread}) { id thread { subject } } }`,
		"first":   `mutation($thread: ID!) { b: createMessage(input: {body: "x", threadID: $thread}) { id } a: createThread(input: {subject: "x"}) { version } }`,
		"and all": `mutation($thread: ID!) { b: createMessage(input: {body: "x", threadID: $thread}) { id } a: createMessage(input: {body: "y", threadID: $thread}) { id } }`,
	} {
		for _, who := range []string{"stranger", "ada", "moderator", "admin"} {
			before := c.written(t)
			want := said(t, c.refused(t, who, "BAD_USER_INPUT", document, "thread", gone))
			require.Contains(t, want, "threadID names a record that does not exist")
			require.Equal(t, want, said(t, c.refused(t, who, "BAD_USER_INPUT", document, "thread", c.ids["secret"])), "%s as %s", name, who)
			require.Equal(t, before, c.written(t), "%s as %s", name, who)
		}
		a := c.by(t, "hermit", document, "thread", c.ids["secret"])
		require.Empty(t, a.Errors, a.raw)
	}
	require.Zero(t, one[int](t, c.bundle, `SELECT count(*) FROM messages WHERE thread_id = $1 AND author_id <> $2`, c.ids["secret"].UUID, c.ids["hermit"].UUID))
}

// A unique index tells of what is unreadable as little as of what does not exist.
func TestUniqueIndexesDoNotLeak(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	c.sql(t, `CREATE UNIQUE INDEX messages_body ON messages (thread_id, body)`)
	gone := record.ID{Prefix: "thread", UUID: entity.NewID()}
	for _, document := range []string{
		`mutation($thread: ID!, $body: String!) { b: createMessage(input: {body: $body, threadID: $thread}) { id } }`,
		`mutation($thread: ID!, $body: String!) { a: createThread(input: {subject: "x"}) { version } b: createMessage(input: {body: $body, threadID: $thread}) { id } }`,
	} {
		for _, who := range []string{"stranger", "ada", "admin"} {
			want := said(t, c.refused(t, who, "BAD_USER_INPUT", document, "thread", gone, "body", "thought"))
			for _, body := range []string{"thought", "another"} {
				require.Equal(t, want, said(t, c.refused(t, who, "BAD_USER_INPUT", document, "thread", c.ids["secret"], "body", body)), body)
			}
		}
		c.refused(t, "hermit", "ALREADY_EXISTS", document, "thread", c.ids["secret"], "body", "thought")
	}
	require.Equal(t, 1, one[int](t, c.bundle, `SELECT count(*) FROM messages WHERE thread_id = $1`, c.ids["secret"].UUID))
}

// An event has of other records what its reader may read while it is rendered, not when it was found that they may read it.
func TestEventsAreRenderedAsTheyMayBeReadThen(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	shared, words := c.ids["shared"], c.ids["words"]
	s := &stream{c.socket(t, "member"), "messageChanged"}
	require.NoError(t, s.subscribe("1", `subscription($id: ID!) { messageChanged(id: $id) { kind
		message { body author { name } thread { subject messages { totalCount } } } } }`, "id", words))
	require.Equal(t, "SNAPSHOT", s.event(t)["kind"])

	other := c.other(t)
	_, err := other.Exec(t.Context(), `LOCK TABLE users IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	c.sql(t, `UPDATE messages SET body = 'new' WHERE id = $1`, words.UUID)
	c.blocked(t) // the subscriber is allowed its event, and reads the author for it
	_, err = other.Exec(t.Context(), `DELETE FROM thread_members WHERE user_id = $1`, c.ids["member"].UUID)
	require.NoError(t, err)
	_, err = other.Exec(t.Context(), `UPDATE threads SET subject = 'AFTER THE LOSS' WHERE id = $1`, shared.UUID)
	require.NoError(t, err)
	require.NoError(t, other.Commit(t.Context()))

	e := s.event(t)
	require.Equal(t, "UPDATED", e["kind"])
	require.Equal(t, map[string]any{"body": "new", "author": map[string]any{"name": "author"}, "thread": nil}, e["record"])
	require.Equal(t, object{"kind": "DELETED", "record": nil}, s.event(t))
	m, err := s.receive()
	require.NoError(t, err)
	require.Equal(t, "complete", m.Type)
}

// Whatever names a custom rule gives its tables, it means the same everywhere.
func TestCustomRulesNameTheirTables(t *testing.T) {
	t.Parallel()
	for _, as := range []string{"m", "t", "r1", "r2", "x1", "jx1", "p", "c", "threads"} {
		t.Run(as, func(t *testing.T) {
			t.Parallel()
			c := newCast(t, withTailer, func(o *options) {
				o.custom = spoken(as)
				o.change = func(s *ent.Stores) {
					rule := entity.Custom("spoken")
					s.Thread.Access = entity.Access{Read: entity.Any(entity.Is("owner"), rule), Create: entity.SignedIn(), Update: rule, Delete: rule}
				}
			})
			shared, words := c.ids["shared"], c.ids["words"]
			c.sql(t, `DELETE FROM messages WHERE author_id = $1`, c.ada.UUID)
			delete(c.ids, "reply")
			lost := c.thread(t, "lost") // ada's, where she said nothing
			c.ids["lost"] = lost
			for who, want := range map[string][2]string{
				"anonymous": {"-", "-"}, "stranger": {"-", "-"}, "member": {"-", "-"}, "admin": {"-", "-"},
				"author": {"shared", "words"}, "ada": {"lost+shared", "words"}, "hermit": {"secret", "thought"},
			} {
				for i, documents := range [2][]string{{
					`{ a: node(id: "` + shared.String() + `") { id } b: node(id: "` + c.ids["secret"].String() + `") { id } c: node(id: "` + lost.String() + `") { id } }`,
					`{ threads { edges { node { id } } } }`,
					`{ threads(orderBy: [{field: SUBJECT}], first: 5) { edges { node { id } } } }`,
				}, {
					`{ a: node(id: "` + words.String() + `") { id } b: node(id: "` + c.ids["thought"].String() + `") { id } }`,
					`{ messages { edges { node { id } } } }`,
					`{ messages(where: {hasThread: true}) { edges { node { id } } } }`,
					`{ messages(where: {hasThreadWith: [{hasMessages: true}]}) { edges { node { id } } } }`,
				}} {
					for _, document := range documents {
						require.Equal(t, want[i], c.seen(c.by(t, who, document)), "%s as %s", document, who)
					}
				}
				count := len(strings.Split(want[0], "+"))
				if want[0] == "-" {
					count = 0
				}
				a := c.by(t, who, `{ threads { totalCount } }`)
				require.Equal(t, count, a.number(t, "threads.totalCount"), who)
				owners := map[string]string{"author": "ada", "ada": "ada", "hermit": "hermit"}[who]
				if owners == "" {
					owners = "-"
				}
				require.Equal(t, owners, c.seen(c.by(t, who, `{ users(where: {hasOwnedThreads: true}) { edges { node { id } } } }`)), who)
				a = c.by(t, who, `{ users(where: {username: "ada"}) { edges { node { ownedThreads { edges { node { messages { totalCount edges { node { body } } } } } } } } } }`)
				require.Equal(t, who == "author" || who == "ada", strings.Contains(string(a.Data), "words"), who)
			}

			watcher := c.watchAs(t, "author", shared)
			update := func(who string) answer {
				return c.by(t, who, updateThread, "id", shared, "version", c.version(t, shared), "input", object{"subject": "new"})
			}
			link := func(who string) answer {
				return c.by(t, who, updateThread, "id", shared, "version", c.version(t, shared), "input", object{"addMemberIDs": []string{c.ids["stranger"].String()}})
			}
			for who, want := range map[string]string{"stranger": "NOT_FOUND", "member": "NOT_FOUND", "ada": "FORBIDDEN"} {
				require.Equal(t, want, c.seen(update(who)), who)
				require.Equal(t, want, c.seen(link(who)), who)
				require.Equal(t, want, c.seen(c.by(t, who, deleteThread, "id", shared, "version", 1)), who)
			}
			require.Equal(t, "BAD_USER_INPUT", c.seen(c.by(t, "member", createMessage, "thread", shared)))
			require.Empty(t, update("author").Errors)
			require.Equal(t, "UPDATED", watcher.event(t)["kind"])
			require.Empty(t, link("author").Errors)
			require.Empty(t, c.by(t, "author", createMessage, "thread", shared).Errors)
			require.Empty(t, c.by(t, "author", deleteThread, "id", shared, "version", c.version(t, shared)).Errors)
		})
	}
}

// rest is what a stream says up to its end.
func (s *stream) rest(t testing.TB) (events []object) {
	t.Helper()
	for {
		e := s.event(t)
		events = append(events, e)
		if e["kind"] == "DELETED" {
			m, err := s.receive()
			require.NoError(t, err)
			require.Equal(t, message{ID: "1", Type: "complete"}, m)
			return events
		}
	}
}

// What became of a record in the transaction that deleted it is told to those alone who could read it whatever it became: of
// others nobody can say any more whether they might.
func TestWatchersOfWhatIsGoneAtOnce(t *testing.T) {
	t.Parallel()
	everybody := func(o *options) {
		o.change = func(s *ent.Stores) { s.Thread.Access.Read = entity.Anyone() }
	}
	for name, change := range map[string]func(*options){"members": func(*options) {}, "everybody": everybody} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCast(t, withTailer, change)
			shared, words := c.ids["shared"], c.ids["words"]
			watchers := []string{"member", "author", "ada"}
			if name == "everybody" {
				watchers = append(watchers, "stranger", "anonymous")
			}
			threads, messages := map[string]*stream{}, map[string]*stream{}
			for _, who := range watchers {
				threads[who], messages[who] = c.watchAs(t, who, shared), c.watchAs(t, who, words)
			}
			tx, err := c.Begin(t.Context())
			require.NoError(t, err)
			for _, statement := range []string{
				`DELETE FROM thread_members WHERE thread_id = $1 AND user_id = (SELECT id FROM users WHERE username = 'member')`,
				`UPDATE threads SET subject = 'after' WHERE id = $1`, `UPDATE threads SET subject = 'and again' WHERE id = $1`,
				`UPDATE messages SET body = 'after' WHERE thread_id = $1`, `DELETE FROM threads WHERE id = $1`,
			} {
				_, err := tx.Exec(t.Context(), statement, shared.UUID)
				require.NoError(t, err)
			}
			require.NoError(t, tx.Commit(t.Context()))
			told := func(id record.ID, kind string, version any, fields ...any) object {
				return object{"kind": kind, "recordId": id.String(), "version": version, "fields": append([]any{}, fields...), "record": nil}
			}
			for _, who := range watchers {
				end := func(version float64) any { // who might have read it to the end is told how the deletion is numbered
					if who == "member" {
						return nil
					}
					return version
				}
				want := []object{told(shared, "DELETED", end(5))}
				if name == "everybody" {
					want = []object{told(shared, "UPDATED", 2., "members"), told(shared, "UPDATED", 3., "subject"),
						told(shared, "UPDATED", 4., "subject"), told(shared, "DELETED", 5.)}
				}
				got := threads[who].rest(t)
				require.Equal(t, fmt.Sprint(want), fmt.Sprint(got), "the thread, to %s", who)
				want = []object{told(words, "DELETED", end(3))}
				if name == "everybody" {
					want = []object{told(words, "UPDATED", 2., "body"), told(words, "DELETED", 3.)}
				}
				got = messages[who].rest(t)
				require.Equal(t, fmt.Sprint(want), fmt.Sprint(got), "the message, to %s", who)
			}
		})
	}
}

// What users are found by the records that they lead to is what SQL says of those that the viewer may read.
func TestEdgeFiltersSeeWhatTheViewerSees(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	c.sql(t, `INSERT INTO threads (id, subject, owner_id) SELECT gen_random_uuid(), left(u.username, 1), u.id FROM users u, generate_series(1, 2)`)
	c.sql(t, `INSERT INTO thread_members (thread_id, user_id) SELECT t.id, u.id FROM threads t, users u
		WHERE t.subject NOT IN ('shared', 'secret') AND abs(hashtext(t.subject || u.username)) % 4 = 0`)
	c.sql(t, `INSERT INTO messages (id, body, thread_id, author_id) SELECT gen_random_uuid(), 'x', t.id, u.id FROM threads t, users u
		WHERE t.subject NOT IN ('shared', 'secret') AND abs(hashtext(u.username || t.subject)) % 4 = 0`)
	const (
		seen = `WITH seen AS (SELECT * FROM threads t WHERE t.owner_id = $1 OR EXISTS (SELECT FROM thread_members m WHERE m.thread_id = t.id AND m.user_id = $1))
			SELECT coalesce(string_agg(u.username, ' ' ORDER BY u.username), '') FROM users u WHERE $1::uuid IS NOT NULL AND `
		threads  = `EXISTS (SELECT FROM seen s JOIN thread_members m ON m.thread_id = s.id WHERE m.user_id = u.id`
		owned    = `EXISTS (SELECT FROM seen s WHERE s.owner_id = u.id`
		messages = `EXISTS (SELECT FROM messages x JOIN seen s ON s.id = x.thread_id WHERE x.author_id = u.id`
	)
	answers := map[string]bool{}
	for _, q := range []struct{ where, sql string }{
		{`hasThreads: true`, threads + `)`},
		{`hasOwnedThreads: true`, owned + `)`},
		{`hasMessages: true`, messages + `)`},
		{`hasThreadsWith: [{subjectLT: "m"}]`, threads + ` AND s.subject < 'm')`},
		{`hasOwnedThreadsWith: [{hasMembers: true}]`, owned + ` AND EXISTS (SELECT FROM thread_members m WHERE m.thread_id = s.id))`},
		{`hasOwnedThreadsWith: [{hasMessagesWith: [{body: "x"}]}]`, owned + ` AND EXISTS (SELECT FROM messages x WHERE x.thread_id = s.id AND x.body = 'x'))`},
		{`hasMessagesWith: [{hasThreadWith: [{hasMembersWith: [{username: "member"}]}]}]`,
			messages + ` AND EXISTS (SELECT FROM thread_members m JOIN users k ON k.id = m.user_id WHERE m.thread_id = s.id AND k.username = 'member'))`},
		{`hasThreadsWith: [{hasOwnerWith: [{hasMessages: true}]}]`,
			threads + ` AND EXISTS (SELECT FROM messages x JOIN seen s2 ON s2.id = x.thread_id WHERE x.author_id = s.owner_id))`},
	} {
		for _, who := range people {
			var viewer any
			if who != "anonymous" {
				viewer = c.ids[who].UUID
			}
			want := one[string](t, c.bundle, seen+q.sql, viewer)
			others := one[string](t, c.bundle, seen+`NOT `+q.sql, viewer)
			answers[want] = true
			for where, want := range map[string]string{q.where: want, `not: {` + q.where + `}`: others, `not: {not: {` + q.where + `}}`: want} {
				a := c.by(t, who, `{ users(where: {`+where+`}, orderBy: [{field: USERNAME}]) { totalCount edges { node { username } } } }`)
				require.Empty(t, a.Errors, a.raw)
				require.Equal(t, want, strings.Join(a.texts(t, "users", "username"), " "), "%s as %s", where, who)
				require.Equal(t, len(strings.Fields(want)), a.number(t, "users.totalCount"), "%s as %s", where, who)
			}
			if has, ok := strings.CutSuffix(q.where, ": true"); ok {
				a := c.by(t, who, `{ users(where: {`+has+`: false}, orderBy: [{field: USERNAME}]) { edges { node { username } } } }`)
				require.Equal(t, others, strings.Join(a.texts(t, "users", "username"), " "), "no %s as %s", has, who)
			}
		}
	}
	require.Greater(t, len(answers), 10, "the data must make a difference")
}

// Links are written by those alone who may update the record when the operation begins with it.
func TestLinksNeedTheRightToUpdate(t *testing.T) {
	t.Parallel()
	const add = `mutation($id: ID!, $version: Int!, $ids: [ID!]) { updateThread(id: $id, expectedVersion: $version, input: {addMemberIDs: $ids}) { version } }`
	// begin adds the stranger to the shared thread as somebody, and answers once the operation is done.
	begin := func(t *testing.T, c *cast, who string) chan answer {
		answered := make(chan answer, 1)
		go func() {
			a, err := c.post(context.Background(), c.who(who), encode(add, []any{"id", c.ids["shared"], "version", 1, "ids", []string{c.ids["stranger"].String()}}))
			if err != nil {
				t.Error(err)
			}
			answered <- a
		}()
		return answered
	}
	linked := func(t *testing.T, c *cast) bool {
		return one[bool](t, c.bundle, `SELECT EXISTS (SELECT FROM thread_members WHERE user_id = $1)`, c.ids["stranger"].UUID)
	}

	t.Run("without", func(t *testing.T) {
		t.Parallel()
		c := newCast(t)
		before := c.written(t)
		for who, code := range map[string]string{"member": "FORBIDDEN", "author": "FORBIDDEN", "hermit": "NOT_FOUND", "stranger": "NOT_FOUND", "admin": "NOT_FOUND"} {
			require.Equal(t, code, c.seen(<-begin(t, c, who)), who)
		}
		require.Equal(t, before, c.written(t))
		require.False(t, linked(t, c))
	})
	// Who gets the thread while they try has not had it, nor keeps it who loses it.
	t.Run("with the row", func(t *testing.T) {
		t.Parallel()
		c := newCast(t)
		other := c.other(t)
		_, err := other.Exec(t.Context(), `UPDATE threads SET owner_id = $2 WHERE id = $1`, c.ids["shared"].UUID, c.ids["member"].UUID)
		require.NoError(t, err)
		require.Equal(t, "FORBIDDEN", c.seen(<-begin(t, c, "member")))
		answered := begin(t, c, "ada")
		c.blocked(t)
		require.NoError(t, other.Commit(t.Context()))
		require.Equal(t, "NOT_FOUND", c.seen(<-answered))
		require.False(t, linked(t, c))
		require.Equal(t, 2, c.version(t, c.ids["shared"]))
	})
	// The right comes from another row, and while the statement runs that asks for it: the version stays as expected.
	t.Run("beside the row", func(t *testing.T) {
		t.Parallel()
		c := newCast(t, func(o *options) {
			rules := spoken("m")
			where := rules["spoken"].Where
			rules["spoken"] = record.CustomRule{Where: func(p *record.Predicate, v viewer.Viewer, signedIn bool) {
				where(p, v, signedIn)
				p.Write(" OR pg_advisory_xact_lock_shared(7)::text IS NULL") // which it never is; it waits
			}}
			o.custom = rules
			o.change = func(s *ent.Stores) { s.Thread.Access.Update = entity.Custom("spoken") }
		})
		other := c.other(t)
		_, err := other.Exec(t.Context(), `SELECT pg_advisory_xact_lock(7)`)
		require.NoError(t, err)
		answered := begin(t, c, "member")
		c.blocked(t)
		_, err = other.Exec(t.Context(), `INSERT INTO messages (id, body, thread_id, author_id) VALUES ($1, 'x', $2, $3)`,
			entity.NewID(), c.ids["shared"].UUID, c.ids["member"].UUID)
		require.NoError(t, err)
		require.NoError(t, other.Commit(t.Context()))
		require.Equal(t, "UNAVAILABLE", c.seen(<-answered))
		require.False(t, linked(t, c))
		require.Equal(t, 1, c.version(t, c.ids["shared"]))

		a := <-begin(t, c, "member")
		require.Empty(t, a.Errors, a.raw)
		require.True(t, linked(t, c))
	})
}
