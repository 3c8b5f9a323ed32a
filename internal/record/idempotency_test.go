package record_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/ent"
	"godstack/internal/entity"
	"godstack/internal/record"
)

const (
	create     = `mutation($s: String!) { createThread(input: {subject: $s}) { id version subject createdAt owner { name } } }`
	createMine = `mutation($t: ID!, $s: String!) { createMessage(input: {threadID: $t, body: $s}) { id body thread { subject } } }`
)

// request is an operation with idempotency keys.
type request struct {
	as       string // who sends it, as bundle.post has it
	header   []string
	inBody   any
	document string
	name     string // of the operation
	vars     object
}

func (r request) body() string {
	m := object{"query": r.document, "variables": r.vars}
	if r.inBody != nil {
		m["extensions"] = object{"idempotencyKey": r.inBody}
	}
	if r.name != "" {
		m["operationName"] = r.name
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// send posts a request. Its errors are fit for goroutines.
func (b *bundle) send(r request) (a answer, err error) {
	req, err := http.NewRequest(http.MethodPost, b.url, strings.NewReader(r.body()))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	if r.header != nil {
		req.Header["Idempotency-Key"] = r.header
	}
	if r.as != "" {
		req.Header.Set(viewerHeader, r.as)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	a.Status, a.raw = resp.StatusCode, string(raw)
	return a, json.Unmarshal(raw, &a)
}

// sent is send for tests, where no error is expected.
func (b *bundle) sent(t testing.TB, r request) answer {
	t.Helper()
	a, err := b.send(r)
	require.NoError(t, err)
	require.Empty(t, a.Errors, a.raw)
	return a
}

// unsent is send where one error is expected, and no data.
func (b *bundle) unsent(t testing.TB, code string, r request) answer {
	t.Helper()
	a, err := b.send(r)
	require.NoError(t, err)
	require.Len(t, a.Errors, 1, a.raw)
	require.Contains(t, []string{"", "null"}, string(a.Data), a.raw)
	require.Equal(t, code, a.Errors[0].code(), a.raw)
	return a
}

// extensions are those of an answer.
func (a answer) extensions(t testing.TB) (e struct {
	Replayed bool
	Merged   json.RawMessage
}) {
	t.Helper()
	var r struct{ Extensions json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(a.raw), &r))
	if r.Extensions != nil {
		require.NoError(t, json.Unmarshal(r.Extensions, &e))
	}
	return e
}

// requireReplayed compares an answer with the one before.
func requireReplayed(t testing.TB, before, a answer) {
	t.Helper()
	require.True(t, a.extensions(t).Replayed, a.raw)
	require.Equal(t, string(before.Data), string(a.Data))
}

func (b *bundle) keys(t testing.TB) int {
	return one[int](t, b, `SELECT count(*) FROM idempotency_keys`)
}

func TestAKeyHasOneEffect(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.user(t, "bob")
	first := b.sent(t, request{header: []string{"k"}, document: create, vars: object{"s": "<one> & ü"}})
	require.False(t, first.extensions(t).Replayed)
	for _, r := range []request{{header: []string{"k"}}, {inBody: "k"}, {header: []string{"k"}, inBody: "k"}, {header: []string{"k", "k"}}} {
		r.document, r.vars = create, object{"s": "<one> & ü"}
		requireReplayed(t, first, b.sent(t, r))
	}
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM threads`))
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM changes WHERE entity = 'thread' AND actor = $1`, b.ada.UUID.String()))

	// Keys are of who sends them, and each has an effect.
	for _, r := range []request{{as: bob.UUID.String(), header: []string{"k"}}, {header: []string{"K"}}, {header: []string{strings.Repeat("~", 255)}}} {
		r.document, r.vars = create, object{"s": "<one> & ü"}
		require.False(t, b.sent(t, r).extensions(t).Replayed)
	}
	require.Equal(t, 4, one[int](t, b, `SELECT count(*) FROM threads`))

	// An update that came a second time would conflict, a delete would find nothing.
	id := first.text(t, "createThread.id")
	update := request{header: []string{"u"}, document: updateThread, vars: object{"id": id, "version": 1, "input": object{"subject": "two"}}}
	requireReplayed(t, b.sent(t, update), b.sent(t, update))
	b.ok(t, updateThread, "id", id, "version", 2, "input", object{"subject": "three"})
	again := b.sent(t, update)
	require.Equal(t, "two", again.text(t, "updateThread.subject"), "as it was then")
	remove := request{header: []string{"d"}, document: deleteThread, vars: object{"id": id, "version": 3}}
	requireReplayed(t, b.sent(t, remove), b.sent(t, remove))

	// What it merged with is said again.
	x := b.thread(t, "x")
	b.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, x.UUID, bob.UUID)
	merge := request{header: []string{"m"}, vars: object{"id": x.String()},
		document: `mutation($id: ID!) { updateThread(id: $id, expectedVersion: 1, onConflict: MERGE, input: {subject: "y"}) { version } }`}
	first = b.sent(t, merge)
	again = b.sent(t, merge)
	requireReplayed(t, first, again)
	require.JSONEq(t, string(first.extensions(t).Merged), string(again.extensions(t).Merged))
	require.Contains(t, string(first.extensions(t).Merged), `"owner"`)
}

// All fields of an operation are one effect, and what went wrong in their selection is answered again under the id of who asks again.
func TestAKeyOfSeveralFields(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := request{header: []string{"k"}, document: `mutation {
		a: createThread(input: {subject: "a"}) { id version owner { id ownedThreads(first: -1) { totalCount } } }
		b: createThread(input: {subject: "b"}) { id owner { ownedThreads { totalCount edges { node { subject } } } } } }`}
	first, err := b.send(r)
	require.NoError(t, err)
	require.Len(t, first.Errors, 1, first.raw)
	require.Equal(t, 2, first.number(t, "b.owner.ownedThreads.totalCount"))
	again, err := b.send(r)
	require.NoError(t, err)
	requireReplayed(t, first, again)
	require.Len(t, again.Errors, 1, again.raw)
	require.Equal(t, "a.owner.ownedThreads", again.Errors[0].path())
	require.NotEqual(t, first.Errors[0].Extensions["requestId"], again.Errors[0].Extensions["requestId"])
	require.NotContains(t, first.Errors[0].Extensions, "replayed")
	require.Equal(t, true, again.Errors[0].Extensions["replayed"])
	delete(first.Errors[0].Extensions, "requestId")
	delete(again.Errors[0].Extensions, "requestId")
	delete(again.Errors[0].Extensions, "replayed")
	require.Equal(t, first.Errors, again.Errors)
	require.Equal(t, 2, one[int](t, b, `SELECT count(*) FROM threads`))
}

func TestAKeyIsOfOneRequest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const two = `mutation A($s: String = "x", $t: String = "y") { createThread(input: {subject: $s}) { owner { ownedThreads(where: {subject: $t}) { totalCount } } } }
		mutation B($s: String = "x", $t: String = "y") { createThread(input: {subject: $s}) { owner { ownedThreads(where: {subject: $t}) { totalCount } } } }`
	first := b.sent(t, request{inBody: "k", document: two, name: "A", vars: object{"s": "x"}})
	requireReplayed(t, first, b.sent(t, request{inBody: "k", document: two, name: "A", vars: object{}}))
	requireReplayed(t, first, b.sent(t, request{inBody: "k", document: two, name: "A", vars: object{"t": "y", "s": "x"}}))
	for _, other := range []request{
		{document: two, name: "B", vars: object{"s": "x"}},
		{document: two, name: "A", vars: object{"s": "z"}},
		{document: two, name: "A", vars: object{"s": "x", "t": "z"}},
		{document: two + " ", name: "A", vars: object{"s": "x"}},
	} {
		other.inBody = "k"
		a := b.unsent(t, "BAD_USER_INPUT", other)
		require.Equal(t, "this idempotency key was sent before with another document, operation name or variables", a.Errors[0].Message)
		require.False(t, a.extensions(t).Replayed)
	}
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM threads`))

	// A document is the same whether it is sent or named by its hash.
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte(create)))
	named := func(document string) answer {
		t.Helper()
		var a answer
		body, err := json.Marshal(object{"query": document, "variables": object{"s": "x"}, "extensions": object{
			"idempotencyKey": "named", "persistedQuery": object{"version": 1, "sha256Hash": hash}}})
		require.NoError(t, err)
		a, err = b.post(t.Context(), "", string(body))
		require.NoError(t, err)
		require.Empty(t, a.Errors, a.raw)
		return a
	}
	first = named(create)
	requireReplayed(t, first, named(""))
	requireReplayed(t, first, b.sent(t, request{inBody: "named", document: create, vars: object{"s": "x"}}))

	// The name need not be said where there is one operation.
	const single = `mutation C { createThread(input: {subject: "c"}) { subject } }`
	requireReplayed(t, b.sent(t, request{inBody: "c", document: single}), b.sent(t, request{inBody: "c", document: single, name: "C"}))
}

func TestKeysThatAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *options) { o.alone = []string{"createUser"} })
	const (
		malformed = "an idempotency key has 1 to 255 visible ASCII characters"
		user      = `createUser(input: {email: "bob@example.com", username: "bob", name: "Bob"}) { id }`
	)
	thread := request{document: create, vars: object{"s": "x"}}
	with := func(r request, inBody any, header ...string) request {
		r.inBody, r.header = inBody, header
		return r
	}
	for name, c := range map[string]struct {
		request
		says string
	}{
		"empty header":    {with(thread, nil, ""), malformed},
		"empty":           {with(thread, ""), malformed},
		"a space":         {with(thread, "a b"), malformed},
		"a control":       {with(thread, "a\x7f"), malformed},
		"not ASCII":       {with(thread, nil, "\xe9"), malformed},
		"long":            {with(thread, strings.Repeat("k", 256)), malformed},
		"a number":        {with(thread, 7), "extensions.idempotencyKey is not a string"},
		"header and body": {with(thread, "k", "K"), "the operation has several idempotency keys, by the header Idempotency-Key or extensions.idempotencyKey, and they differ"},
		"two headers":     {with(thread, nil, "k", "K"), "the operation has several idempotency keys, by the header Idempotency-Key or extensions.idempotencyKey, and they differ"},
		"a query":         {with(request{document: `{ threads { totalCount } }`}, "k"), "an idempotency key is for mutations, and this is a query"},
		"an account":      {with(request{document: `mutation { ` + user + ` }`}, "k"), "an idempotency key is for mutations of records: fields that sign in or manage an account take none"},
		"nobody":          {with(request{as: "-", document: create, vars: object{"s": "x"}}, "k"), "an idempotency key is of who is signed in, and nobody is"},
	} {
		a := b.unsent(t, "BAD_USER_INPUT", c.request)
		require.Equal(t, c.says, a.Errors[0].Message, name)
		require.Equal(t, []any{"idempotencyKey"}, a.Errors[0].Extensions["fields"], name)
	}
	b.unsent(t, "BAD_USER_INPUT", with(request{document: `mutation { createThread(input: {subject: "x"}) { id } ` + user + ` }`}, "k"))
	s := b.connect(t)
	for id, document := range map[string]string{"1": `subscription { threadsChanged { kind } }`, "2": `{ threads { totalCount } }`} {
		require.NoError(t, wsjson.Write(s.ctx, s.conn, message{ID: id, Type: "subscribe", Payload: json.RawMessage(request{inBody: "k", document: document}.body())}))
		m, err := s.receive()
		require.NoError(t, err)
		require.Equal(t, "error", m.Type, string(m.Payload))
		require.Equal(t, "BAD_USER_INPUT", m.answer(t).Errors[0].code())
		require.Contains(t, m.answer(t).Errors[0].Message, "an idempotency key is for mutations, and this is a "+map[string]string{"1": "subscription", "2": "query"}[id])
	}
	require.Zero(t, one[int](t, b, `SELECT count(*) FROM threads`))
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM users`))
	require.Zero(t, b.keys(t))

	// None is meant by null. One that is refused for something else is not used up.
	for range 2 {
		require.False(t, b.sent(t, with(thread, json.RawMessage("null"))).extensions(t).Replayed)
	}
	b.unsent(t, "TOO_COMPLEX", with(request{document: `mutation { createThread(input: {subject: "x"}) { owner { ownedThreads(first: 100000000) { edges { node { id } } } } } }`}, "k"))
	require.Zero(t, b.keys(t))
}

// What fails leaves its key free.
func TestAFailureStoresNoKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sql(t, `ALTER TABLE threads ADD CONSTRAINT one_subject UNIQUE (subject) DEFERRABLE INITIALLY DEFERRED`)
	x := b.thread(t, "x")
	b.thread(t, "y")
	update := func(version int, subject string) request {
		return request{header: []string{"k"}, document: updateThread, vars: object{"id": x.String(), "version": version, "input": object{"subject": subject}}}
	}
	b.unsent(t, "CONFLICT", update(7, "z"))
	b.unsent(t, "BAD_USER_INPUT", update(1, ""))
	b.unsent(t, "ALREADY_EXISTS", update(1, "y")) // at COMMIT
	b.unsent(t, "NOT_FOUND", request{header: []string{"k"}, document: `mutation { a: createThread(input: {subject: "a"}) { id }
		b: deleteThread(id: "` + entity.NewID().String() + `", expectedVersion: 1) { version } }`})
	require.Zero(t, b.keys(t))
	require.Equal(t, 2, one[int](t, b, `SELECT count(*) FROM threads`))
	require.False(t, b.sent(t, update(1, "z")).extensions(t).Replayed)
	require.True(t, b.sent(t, update(1, "z")).extensions(t).Replayed)
}

func TestKeysAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n = 30
	answers := make([]answer, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			var err error
			if answers[i], err = b.send(request{header: []string{"k"}, document: create, vars: object{"s": "x"}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	replayed := 0
	for _, a := range answers {
		require.Empty(t, a.Errors, a.raw)
		require.Equal(t, string(answers[0].Data), string(a.Data))
		if a.extensions(t).Replayed {
			replayed++
		}
	}
	require.Equal(t, n-1, replayed)
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM threads`))
}

// A replayed answer shows nothing that its viewer may not read any more: it says that it was done.
func TestReplayedAnswersObeyTheRules(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	refused := func(r request, secret string) {
		t.Helper()
		a := c.unsent(t, "NOT_FOUND", r)
		require.True(t, a.extensions(t).Replayed, a.raw)
		require.Equal(t, true, a.Errors[0].Extensions["replayed"], "also where clients show errors alone")
		require.NotContains(t, a.raw, secret)
	}

	// The record itself: the author is put out of the thread, and comes back.
	said := request{as: c.who("author"), header: []string{"k"}, document: createMine, vars: object{"t": c.ids["shared"].String(), "s": "treasure"}}
	first := c.sent(t, said)
	c.sql(t, `DELETE FROM thread_members WHERE user_id = $1`, c.ids["author"].UUID)
	refused(said, "treasure")
	c.sql(t, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2)`, c.ids["shared"].UUID, c.ids["author"].UUID)
	requireReplayed(t, first, c.sent(t, said))

	// A related record alone: bob's update of himself shows threads.
	seen := request{as: c.who("member"), header: []string{"k"}, vars: object{"id": c.ids["member"].String()},
		document: `mutation($id: ID!) { updateUser(id: $id, expectedVersion: 1, input: {name: "New"}) { name threads { edges { node { subject } } } } }`}
	first = c.sent(t, seen)
	require.Contains(t, first.raw, "shared")
	c.sql(t, `DELETE FROM thread_members WHERE user_id = $1`, c.ids["member"].UUID)
	refused(seen, "shared")
	c.sql(t, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2)`, c.ids["shared"].UUID, c.ids["member"].UUID)
	requireReplayed(t, first, c.sent(t, seen))

	// A field that not everybody reads.
	made := request{as: c.who("admin"), header: []string{"k"}, document: `mutation {
		createUser(input: {email: "treasure@example.com", username: "new", name: "New"}) { name address: email } }`}
	first = c.sent(t, made)
	require.Contains(t, first.raw, "treasure")
	made.as = c.ids["admin"].UUID.String() // whose role is taken away
	refused(made, "treasure")
	made.as = c.who("admin")
	requireReplayed(t, first, c.sent(t, made))

	// That such a field has changed.
	c.sql(t, `UPDATE users SET role = 'moderator' WHERE id = $1`, c.ids["stranger"].UUID)
	renamed := request{as: c.who("admin"), header: []string{"merge"}, vars: object{"id": c.ids["stranger"].String()},
		document: `mutation($id: ID!) { updateUser(id: $id, expectedVersion: 1, onConflict: MERGE, input: {name: "New"}) { name } }`}
	first = c.sent(t, renamed)
	require.Contains(t, string(first.extensions(t).Merged), `"role"`)
	requireReplayed(t, first, c.sent(t, renamed))
	renamed.as = c.ids["admin"].UUID.String()
	refused(renamed, `"role"`)

	// What only a cursor tells of.
	listed := request{header: []string{"k"}, vars: object{"t": c.ids["shared"].String(), "s": "x"},
		document: `mutation($t: ID!, $s: String!) { createMessage(input: {threadID: $t, body: $s}) { thread { messages(first: 1) { pageInfo { endCursor } } } } }`}
	first = c.sent(t, listed)
	requireReplayed(t, first, c.sent(t, listed))
	c.sql(t, `DELETE FROM messages WHERE id = $1`, c.ids["words"].UUID)
	refused(listed, first.text(t, "createMessage.thread.messages.pageInfo.endCursor"))

	// What somebody may see of deleted records because they may restore them, as long as they may.
	binned := c.thread(t, "binned")
	c.sql(t, `UPDATE threads SET deleted_at = now() WHERE id = $1`, binned.UUID)
	bin := request{header: []string{"bin"}, vars: object{"id": c.ada.String()},
		document: `mutation($id: ID!) { updateUser(id: $id, expectedVersion: 1, input: {name: "Ada"}) { ownedThreads(deleted: ONLY) { edges { node { subject } } } } }`}
	first = c.sent(t, bin)
	require.Contains(t, first.raw, "binned")
	requireReplayed(t, first, c.sent(t, bin))
	c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, binned.UUID, c.ids["hermit"].UUID)
	refused(bin, "binned")

	// What is gone. A receipt shows nothing that can be gone.
	remove := request{as: c.who("author"), header: []string{"d"}, vars: object{"id": c.newest(t, "author")},
		document: `mutation($id: ID!) { deleteMessage(id: $id, expectedVersion: 1) { deletedId version } }`}
	first = c.sent(t, remove)
	refused(said, "treasure")
	requireReplayed(t, first, c.sent(t, remove))
}

// newest is the id of somebody's newest message.
func (c *cast) newest(t testing.TB, author string) string {
	t.Helper()
	return one[string](t, c.bundle, `SELECT id::text FROM messages WHERE author_id = $1 ORDER BY created_at DESC LIMIT 1`, c.ids[author].UUID)
}

// Who has written what they may not read is answered with it, and is so again, but for fields that they may not read any more.
func TestReplayOfWhatOneHasWritten(t *testing.T) {
	t.Parallel()
	b := setup(t, withRules, func(o *options) {
		o.change = func(s *ent.Stores) {
			s.Thread.Access.Read = entity.Has("members")
			s.User.Access.Read = entity.Self()
		}
	})
	r := request{header: []string{"k"}, document: create, vars: object{"s": "dropped"}}
	r.document = `mutation($s: String!) { createThread(input: {subject: $s}) { id subject owner { name } } }`
	first := b.sent(t, r)
	require.JSONEq(t, `{"thread": null}`, string(b.ok(t, `query($id: ID!) { thread(id: $id) { id } }`, "id", first.text(t, "createThread.id")).Data))
	requireReplayed(t, first, b.sent(t, r))

	// Administrators make users, whom they do not see here; of one they have made they read the address.
	made := request{as: b.ada.UUID.String() + " admin", header: []string{"made"}, document: `mutation {
		createUser(input: {email: "treasure@example.com", username: "new", name: "New"}) { id name address: email } }`}
	plain := made
	plain.header, plain.document = []string{"plain"}, `mutation { createUser(input: {email: "x@example.com", username: "xx", name: "X"}) { id name } }`
	first, other := b.sent(t, made), b.sent(t, plain)
	require.Contains(t, first.raw, "treasure")
	requireReplayed(t, first, b.sent(t, made))
	dismissed := func(r request) request {
		r.as = b.ada.UUID.String()
		return r
	}
	a := b.unsent(t, "NOT_FOUND", dismissed(made))
	require.NotContains(t, a.raw, "treasure")
	require.Equal(t, true, a.Errors[0].Extensions["replayed"])
	requireReplayed(t, other, b.sent(t, dismissed(plain)))

	// A rule of a field that asks for a role alone holds when the record has gone as well.
	b.sql(t, `DELETE FROM users WHERE name IN ('New', 'X')`)
	requireReplayed(t, first, b.sent(t, made))
	b.unsent(t, "NOT_FOUND", dismissed(made))
	requireReplayed(t, other, b.sent(t, dismissed(plain)))

	// What nobody knows how to check is not answered again.
	b.sql(t, `UPDATE idempotency_keys SET shown = '{"else": {}}'`)
	b.unsent(t, "INTERNAL", made)
}

// A key is good for a day, by the database's clock.
func TestKeysExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := request{header: []string{"k"}, document: create, vars: object{"s": "x"}}
	first := b.sent(t, r)
	age := func(by string) {
		t.Helper()
		b.sql(t, `UPDATE idempotency_keys SET created_at = now() - $1::interval`, by)
	}
	age("23 hours 59 minutes")
	requireReplayed(t, first, b.sent(t, r))
	age("24 hours")
	second := b.sent(t, r)
	require.False(t, second.extensions(t).Replayed)
	require.NotEqual(t, first.text(t, "createThread.id"), second.text(t, "createThread.id"))
	requireReplayed(t, second, b.sent(t, r))
	age("25 hours")
	r.vars = object{"s": "y"}
	require.False(t, b.sent(t, r).extensions(t).Replayed, "it may be used for something else")
	require.Equal(t, 3, one[int](t, b, `SELECT count(*) FROM threads`))
	require.Equal(t, 1, b.keys(t))

	// A failure leaves the expired one, which is as good as none.
	age("25 hours")
	b.unsent(t, "BAD_USER_INPUT", request{header: []string{"k"}, document: create, vars: object{"s": ""}})
	require.False(t, b.sent(t, r).extensions(t).Replayed)
}

func TestPurgeKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const old = 12_000
	b.sql(t, `INSERT INTO idempotency_keys (user_id, key, request, created_at)
		SELECT gen_random_uuid(), 'k' || n, '', now() - interval '24 hours 1 second' FROM generate_series(1, $1) n`, old)
	b.sql(t, `INSERT INTO idempotency_keys (user_id, key, request, created_at) VALUES (gen_random_uuid(), 'k', '', now() - interval '23 hours 59 minutes')`)
	// One that is in use is left for the next time, and waited for by nobody.
	other := b.other(t)
	_, err := other.Exec(t.Context(), `SELECT FROM idempotency_keys WHERE key = 'k7' FOR UPDATE`)
	require.NoError(t, err)
	removed, err := record.PurgeKeys(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, old-1, removed)
	require.NoError(t, other.Rollback(t.Context()))
	removed, err = record.PurgeKeys(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, 1, removed)
	require.Equal(t, "k", one[string](t, b, `SELECT key FROM idempotency_keys`))

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = record.PurgeKeys(ended, b)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "purge idempotency keys: ")
}

// Without a key nothing is allocated for it, nor sent to the database: TestStatements and TestStatementsOfWrites have the statements.
//
//nolint:paralleltest // it counts the allocations of the process
func TestNoKeyCostsNothing(t *testing.T) {
	op := record.Operation{Engine: &record.Engine{}, Alone: []string{"login"}}
	field := &ast.Field{Name: "createThread", Alias: "createThread"}
	answer := &graphql.Response{Data: []byte(`{}`)}
	execute := func(header http.Header, extensions map[string]any) float64 {
		oc := &graphql.OperationContext{
			Operation: &ast.OperationDefinition{Operation: ast.Mutation, SelectionSet: ast.SelectionSet{field}}, Headers: header, Extensions: extensions,
		}
		ctx := graphql.WithOperationContext(t.Context(), oc)
		return testing.AllocsPerRun(100, func() {
			ctx := graphql.WithResponseContext(ctx, graphql.DefaultErrorPresenter, graphql.DefaultRecover)
			if op.MutateOperationContext(ctx, oc) == nil && op.InterceptResponse(ctx, func(context.Context) *graphql.Response { return answer }) == nil {
				t.Error("no answer")
			}
		})
	}
	// The context of the response (2), counting which fields commit on their own (1), and what has the operation's transaction when it wants
	// one, in a context (2).
	const withoutKeys = 5
	none := execute(http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer x"}}, map[string]any{"persistedQuery": map[string]any{}})
	require.Equal(t, withoutKeys, int(none))
	// And it would show here.
	require.Greater(t, execute(http.Header{"Idempotency-Key": {"k"}}, nil), none)
	require.Greater(t, execute(nil, map[string]any{"idempotencyKey": "k"}), none)
}

// With a key an operation is a transaction with two statements more to keep the answer, and one to see what it shows.
func TestStatementsOfKeys(t *testing.T) {
	t.Parallel()
	b := setup(t, oneConnection)
	x := b.thread(t, "x")
	count := func(r request) (texts []string) {
		t.Helper()
		b.trace.reset()
		b.sent(t, r)
		pipelines, _ := b.trace.statements()
		for _, p := range pipelines {
			for _, text := range p {
				texts = append(texts, strings.ToLower(strings.Join(strings.Fields(strings.ReplaceAll(text, `"`, "") + " .")[:2], " ")))
			}
		}
		return texts
	}
	r := request{header: []string{"k"}, document: updateThread, vars: object{"id": x.String(), "version": 1, "input": object{"subject": "y"}}}
	r.document = `mutation($id: ID!, $version: Int!, $input: UpdateThreadInput!) { updateThread(id: $id, expectedVersion: $version, input: $input) { version } }`
	require.Equal(t, []string{"begin .", "select set_config($1,", "with was", "update threads", "select t.id,", "update idempotency_keys", "commit ."}, count(r))
	require.Equal(t, []string{"begin .", "select set_config($1,", "with was", "select request,", "rollback .", "select t.id,"}, count(r))
}

// BenchmarkKeys measures what a key costs a mutation of one record, and what an answer costs that is given again.
func BenchmarkKeys(b *testing.B) {
	t := setup(b)
	body := func(header []string) request {
		return request{header: header, document: `mutation { createThread(input: {subject: "x"}) { id version } }`}
	}
	t.sent(b, body([]string{"again"}))
	n := 0
	for _, c := range []struct {
		name string
		key  func() []string
	}{
		{"none", func() []string { return nil }},
		{"new", func() []string { n++; return []string{fmt.Sprint("k", n)} }},
		{"again", func() []string { return []string{"again"} }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t.sent(b, body(c.key()))
			}
		})
	}
}
