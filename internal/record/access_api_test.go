package record_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"godstack/internal/entity"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// cast is a data set with rules, and who looks at it: ada owns the thread "shared", where member and author take part and
// author said "words" and ada "reply". hermit owns "secret" and said "thought" there. member and stranger have a security
// event each, and one belongs to nobody.
type cast struct {
	*bundle
	ids map[string]record.ID
}

// the people, in the order of the matrix's columns.
var people = []string{"anonymous", "stranger", "member", "ada", "author", "moderator", "admin", "hermit"}

func newCast(t *testing.T, change ...func(*options)) *cast {
	t.Helper()
	c := &cast{setup(t, append(change, withRules)...), map[string]record.ID{}}
	c.ids["ada"] = c.ada
	for _, name := range people {
		if name != "anonymous" && name != "ada" {
			c.ids[name] = c.user(t, name)
		}
	}
	for _, role := range []string{viewer.Moderator, viewer.Admin} {
		c.sql(t, `UPDATE users SET role = $2 WHERE id = $1`, c.ids[role].UUID, role)
	}
	c.ids["shared"] = c.share(t)
	c.ids["words"] = c.say(t, c.ids["shared"], "author", "words")
	c.ids["reply"] = c.say(t, c.ids["shared"], "ada", "reply")
	c.ids["secret"] = c.thread(t, "secret")
	c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, c.ids["secret"].UUID, c.ids["hermit"].UUID)
	c.ids["thought"] = c.say(t, c.ids["secret"], "hermit", "thought")
	for _, of := range []string{"member", "stranger", "nobody"} {
		c.ids["event of "+of] = c.happen(t, of)
	}
	return c
}

// share makes a thread like shared.
func (c *cast) share(t testing.TB) record.ID {
	t.Helper()
	return c.thread(t, "shared", c.ids["member"], c.ids["author"])
}

// say makes a message of somebody's.
func (c *cast) say(t testing.TB, thread record.ID, author, body string) record.ID {
	t.Helper()
	id := record.ID{Prefix: "message", UUID: entity.NewID()}
	c.sql(t, `INSERT INTO messages (id, body, thread_id, author_id) VALUES ($1, $2, $3, $4)`, id.UUID, body, thread.UUID, c.ids[author].UUID)
	return id
}

// happen makes a security event of somebody's.
func (c *cast) happen(t testing.TB, of string) record.ID {
	t.Helper()
	id := record.ID{Prefix: "security_event", UUID: entity.NewID()}
	var user any
	if u, ok := c.ids[of]; ok {
		user = u.UUID
	}
	c.sql(t, `INSERT INTO security_events (id, name, severity, user_id, address) VALUES ($1, 'login_failed', 'warning', $2, '192.0.2.1')`, id.UUID, user)
	return id
}

// who is how bundle.as knows somebody.
func (c *cast) who(name string) string {
	switch name {
	case "anonymous":
		return "-"
	case viewer.Moderator, viewer.Admin:
		return c.ids[name].UUID.String() + " " + name
	}
	return c.ids[name].UUID.String()
}

// by runs an operation as one of the people.
func (c *cast) by(t testing.TB, name, document string, vars ...any) answer {
	t.Helper()
	return c.as(t, c.who(name), document, vars...)
}

// refused is by where one error is expected, and no data.
func (c *cast) refused(t testing.TB, name, code, document string, vars ...any) apiError {
	t.Helper()
	a := c.by(t, name, document, vars...)
	require.Len(t, a.Errors, 1, a.raw)
	require.Contains(t, []string{"", "null"}, string(a.Data))
	require.Equal(t, code, a.Errors[0].code(), a.raw)
	return a.Errors[0]
}

// all are the ids of all records of the data set, in order of their names.
func (c *cast) all() (ids []string) {
	for _, name := range c.names() {
		ids = append(ids, c.ids[name].String())
	}
	return ids
}

func (c *cast) names() (names []string) {
	for name := range c.ids {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// seen says what an answer shows: a code, or the names of the records whose ids are in it; "users" is all of them,
// "everything" all records, "-" none.
func (c *cast) seen(a answer) string {
	if len(a.Errors) > 0 {
		return a.Errors[0].code()
	}
	var names, users []string
	for _, name := range c.names() {
		switch id := c.ids[name]; {
		case !strings.Contains(string(a.Data), id.String()):
		case id.Prefix == "user":
			users = append(users, name)
		default:
			names = append(names, strings.ReplaceAll(name, " ", "_"))
		}
	}
	if len(users) == len(people)-1 {
		users = []string{"users"}
	}
	if names = append(users, names...); len(names) == 0 {
		return "-"
	}
	return strings.Join(names, "+")
}

// The matrix: what each root field of the generated API answers to whom. A field without a row fails.
func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	c := newCast(t, withTailer)
	const (
		member    = "users+event_of_member+reply+shared+words"
		talker    = "users+reply+shared+words"
		noOne     = "UNAUTHENTICATED"
		unseen    = "NOT_FOUND"
		forbidden = "FORBIDDEN"
		bad       = "BAD_USER_INPUT"
	)
	all := func() []any { return []any{"ids", c.all()} }
	refs := func() []any {
		list := []object{}
		for _, id := range c.all() {
			list = append(list, object{"id": id})
		}
		return []any{"refs", list}
	}
	of := func(name string) func() []any { return func() []any { return []any{"id", c.ids[name]} } }
	nothing := func() []any { return nil }
	// fresh is a record made for one try, and its version.
	fresh := func(f func() record.ID) func() []any {
		return func() []any { return []any{"id", f(), "version", 1} }
	}
	freshThread := fresh(func() record.ID { return c.share(t) })
	freshDeleted := func() []any {
		id := c.share(t)
		c.sql(t, `UPDATE threads SET deleted_at = now() WHERE id = $1`, id.UUID)
		return []any{"id", id, "version", 2}
	}
	handedOver := func() []any {
		id := c.share(t)
		c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, id.UUID, c.ids["moderator"].UUID)
		c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, id.UUID, c.ids["ada"].UUID)
		c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, id.UUID, c.ids["hermit"].UUID)
		return []any{"id", id}
	}
	freshMessage := fresh(func() record.ID { return c.say(t, c.share(t), "author", "x") })
	count := 0
	name := func() string { count++; return fmt.Sprint("new", count) }
	freshUser := fresh(func() record.ID { return c.user(t, name()) })
	everyNode := strings.Builder{}
	for i, id := range c.all() {
		fmt.Fprintf(&everyNode, "n%d: node(id: %q) { id } ", i, id)
	}

	matrix := []struct {
		field    string
		document string
		vars     func() []any
		want     [8]string // as in people; "ok" where a write succeeds
	}{
		// field | anonymous, stranger, member, ada (owner), author, moderator, admin, hermit (owner of secret)
		{"Query.node", `{ ` + everyNode.String() + ` }`, nothing, [8]string{
			"-", "users+event_of_stranger", member, talker, talker, "users", "users+event_of_member+event_of_nobody+event_of_stranger", "users+secret+thought"}},
		{"Query.nodes", `query($ids: [ID!]!) { nodes(ids: $ids) { id } }`, all, [8]string{
			"-", "users+event_of_stranger", member, talker, talker, "users", "users+event_of_member+event_of_nobody+event_of_stranger", "users+secret+thought"}},
		{"Query.records", `query($refs: [RecordRef!]!) { records(refs: $refs) { threads { id } messages { id } users { id } securityEvents { id } unchanged } }`, refs, [8]string{
			"-", "users+event_of_stranger", member, talker, talker, "users", "users+event_of_member+event_of_nobody+event_of_stranger", "users+secret+thought"}},
		{"Query.user", `query($id: ID!) { user(id: $id) { id username name } }`, of("hermit"), [8]string{
			"-", "hermit", "hermit", "hermit", "hermit", "hermit", "hermit", "hermit"}},
		{"Query.users", `{ users { edges { node { id username } } } }`, nothing, [8]string{
			"-", "users", "users", "users", "users", "users", "users", "users"}},
		{"Query.thread", `query($id: ID!) { thread(id: $id) { id subject } }`, of("shared"), [8]string{
			"-", "-", "shared", "shared", "shared", "-", "-", "-"}},
		{"Query.thread", `query($id: ID!) { thread(id: $id) { id subject } }`, of("secret"), [8]string{
			"-", "-", "-", "-", "-", "-", "-", "secret"}},
		{"Query.history", `query($id: ID!) { history(id: $id) { edges { node { old { value } } } } }`, handedOver, [8]string{
			"-", "-", "ada+moderator", "-", "ada+moderator", "-", "-", "ada+moderator"}},
		{"Query.threads", `{ threads { edges { node { id subject } } } }`, nothing, [8]string{
			"-", "-", "shared", "shared", "shared", "-", "-", "secret"}},
		{"Query.message", `query($id: ID!) { message(id: $id) { id body } }`, of("words"), [8]string{
			"-", "-", "words", "words", "words", "-", "-", "-"}},
		{"Query.messages", `{ messages { edges { node { id body thread { id } author { id } } } } }`, nothing, [8]string{
			"-", "-", "ada+author+reply+shared+words", "ada+author+reply+shared+words", "ada+author+reply+shared+words", "-", "-", "hermit+secret+thought"}},
		{"Query.securityEvent", `query($id: ID!) { securityEvent(id: $id) { id name } }`, of("event of member"), [8]string{
			"-", "-", "event_of_member", "-", "-", "-", "event_of_member", "-"}},
		{"Query.securityEvents", `{ securityEvents { edges { node { id name } } } }`, nothing, [8]string{
			"-", "event_of_stranger", "event_of_member", "-", "-", "-", "event_of_member+event_of_nobody+event_of_stranger", "-"}},

		{"Subscription.userChanged", `subscription($id: ID!) { userChanged(id: $id) { kind recordId } }`, of("hermit"), [8]string{
			noOne, "hermit", "hermit", "hermit", "hermit", "hermit", "hermit", "hermit"}},
		{"Subscription.threadChanged", `subscription($id: ID!) { threadChanged(id: $id) { kind recordId } }`, of("shared"), [8]string{
			noOne, unseen, "shared", "shared", "shared", unseen, unseen, unseen}},
		{"Subscription.messageChanged", `subscription($id: ID!) { messageChanged(id: $id) { kind recordId } }`, of("words"), [8]string{
			noOne, unseen, "words", "words", "words", unseen, unseen, unseen}},
		{"Subscription.securityEventChanged", `subscription($id: ID!) { securityEventChanged(id: $id) { kind recordId } }`, of("event of member"), [8]string{
			noOne, unseen, "event_of_member", unseen, unseen, unseen, "event_of_member", unseen}},

		{"Subscription.usersChanged", `subscription { usersChanged { kind user { id username } } }`, nothing, [8]string{
			noOne, "users", "users", "users", "users", "users", "users", "users"}},
		{"Subscription.threadsChanged", `subscription { threadsChanged { kind thread { id subject } } }`, nothing, [8]string{
			noOne, "-", "shared", "shared", "shared", "-", "-", "secret"}},
		{"Subscription.messagesChanged", `subscription { messagesChanged { kind message { id body thread { id } } } }`, nothing, [8]string{
			noOne, "-", "reply+shared+words", "reply+shared+words", "reply+shared+words", "-", "-", "secret+thought"}},
		{"Subscription.securityEventsChanged", `subscription { securityEventsChanged { kind securityEvent { id name } } }`, nothing, [8]string{
			noOne, "event_of_stranger", "event_of_member", "-", "-", "-", "event_of_member+event_of_nobody+event_of_stranger", "-"}},
		{"Subscription.recordsChanged", `subscription($refs: [RecordRef!]!) { recordsChanged(refs: $refs) { kind record { id } } }`, refs, [8]string{
			noOne, "users+event_of_stranger", member, talker, talker, "users", "users+event_of_member+event_of_nobody+event_of_stranger", "users+secret+thought"}},

		{"Mutation.createThread", `mutation { createThread(input: {subject: "x"}) { version } }`, nothing, [8]string{
			noOne, "ok", "ok", "ok", "ok", "ok", "ok", "ok"}},
		{"Mutation.updateThread", `mutation($id: ID!, $version: Int!) { updateThread(id: $id, expectedVersion: $version, input: {subject: "new"}) { version } }`, freshThread, [8]string{
			noOne, unseen, forbidden, "ok", forbidden, unseen, unseen, unseen}},
		{"Mutation.updateThread", `mutation($id: ID!, $version: Int!) { updateThread(id: $id, expectedVersion: $version, input: {clearMembers: true}) { version } }`, freshThread, [8]string{
			noOne, unseen, forbidden, "ok", forbidden, unseen, unseen, unseen}},
		{"Mutation.deleteThread", `mutation($id: ID!, $version: Int!) { deleteThread(id: $id, expectedVersion: $version) { version } }`, freshThread, [8]string{
			noOne, unseen, forbidden, "ok", forbidden, unseen, unseen, unseen}},
		{"Mutation.restoreThread", restoreThread, freshDeleted, [8]string{
			noOne, unseen, unseen, "ok", unseen, unseen, unseen, unseen}},
		{"Mutation.createMessage", `mutation($id: ID!) { createMessage(input: {body: "x", threadID: $id}) { version } }`, func() []any { return []any{"id", c.share(t)} }, [8]string{
			noOne, bad, "ok", "ok", "ok", bad, bad, bad}},
		{"Mutation.updateMessage", `mutation($id: ID!, $version: Int!) { updateMessage(id: $id, expectedVersion: $version, input: {body: "new"}) { version } }`, freshMessage, [8]string{
			noOne, unseen, forbidden, forbidden, "ok", unseen, unseen, unseen}},
		{"Mutation.deleteMessage", `mutation($id: ID!, $version: Int!) { deleteMessage(id: $id, expectedVersion: $version) { version } }`, freshMessage, [8]string{
			noOne, unseen, forbidden, forbidden, "ok", unseen, unseen, unseen}},
		{"Mutation.createUser", `mutation($input: CreateUserInput!) { createUser(input: $input) { version } }`,
			func() []any {
				n := name()
				return []any{"input", object{"email": n + "@example.com", "username": n, "name": n}}
			}, [8]string{
				noOne, forbidden, forbidden, forbidden, forbidden, forbidden, "ok", forbidden}},
		{"Mutation.updateUser", `mutation($id: ID!, $version: Int!) { updateUser(id: $id, expectedVersion: $version, input: {name: "new"}) { version } }`,
			func() []any {
				v := one[int](t, c.bundle, `SELECT version FROM users WHERE id = $1`, c.ids["member"].UUID)
				return []any{"id", c.ids["member"], "version", v}
			}, [8]string{
				noOne, forbidden, "ok", forbidden, forbidden, forbidden, "ok", forbidden}},
		{"Mutation.deleteUser", `mutation($id: ID!, $version: Int!) { deleteUser(id: $id, expectedVersion: $version) { version } }`, freshUser, [8]string{
			noOne, forbidden, forbidden, forbidden, forbidden, forbidden, "ok", forbidden}},
	}
	rows := map[string]bool{}
	for _, row := range matrix {
		rows[row.field] = true
		for i, name := range people {
			note := row.field + " as " + name
			vars := row.vars()
			kind, _, _ := strings.Cut(row.field, ".")
			var got string
			switch kind {
			case "Query":
				got = c.seen(c.by(t, name, row.document, vars...))
			case "Subscription":
				got = c.seen(c.opening(t, name, row.document, vars...))
			case "Mutation":
				before := c.written(t)
				a := c.by(t, name, row.document, vars...)
				if got = c.seen(a); got == "-" {
					got = "ok"
				}
				require.Equal(t, got == "ok", c.written(t) > before, "%s: %s", note, a.raw)
			}
			require.Equal(t, row.want[i], got, note)
		}
	}
	sdl, err := os.ReadFile("../../graph/ent.graphql")
	require.NoError(t, err)
	doc, err := parser.ParseSchema(&ast.Source{Input: string(sdl)})
	require.NoError(t, err)
	fields := map[string]bool{}
	for _, kind := range []string{"Query", "Mutation", "Subscription"} {
		for _, f := range doc.Definitions.ForName(kind).Fields {
			fields[kind+"."+f.Name] = true
		}
	}
	require.Equal(t, fields, rows, "each root field needs a row of the matrix")
}

// written is how many changes the log has.
func (c *cast) written(t testing.TB) int {
	t.Helper()
	return one[int](t, c.bundle, `SELECT count(*) FROM changes`)
}

// whereKeys are the conditions of a generated where input on the given fields.
func whereKeys(t testing.TB, input string, fields ...string) (keys []*ast.FieldDefinition) {
	t.Helper()
	sdl, err := os.ReadFile("../../graph/ent.graphql")
	require.NoError(t, err)
	doc, gerr := parser.ParseSchema(&ast.Source{Input: string(sdl)})
	require.NoError(t, gerr)
	suffixes := []string{"", "NEQ", "In", "NotIn", "GT", "GTE", "LT", "LTE", "IsNil", "NotNil", "Contains", "HasPrefix", "HasSuffix", "EqualFold", "ContainsFold"}
	for _, f := range doc.Definitions.ForName(input).Fields {
		for _, field := range fields {
			if suffix, ok := strings.CutPrefix(f.Name, field); ok && slices.Contains(suffixes, suffix) {
				keys = append(keys, f)
			}
		}
	}
	return keys
}

// question is a query, and what it is about.
type question struct {
	name, document string
	vars           []any
}

// answersTo is what somebody is told.
func (c *cast) answersTo(t testing.TB, name string, questions []question) (data []string) {
	t.Helper()
	for _, q := range questions {
		a := c.by(t, name, q.document, q.vars...)
		require.Empty(t, a.Errors, "%s: %s", q.name, a.raw)
		data = append(data, string(a.Data))
	}
	return data
}

// secret asks the questions before and after what the viewers may not see changes: no answer may differ. Some must, for one who
// sees it, or the questions are no good; most says that nearly all must.
func (c *cast) secret(t *testing.T, questions []question, viewers []string, seer string, change func()) {
	t.Helper()
	before := map[string][]string{}
	for _, v := range append(viewers, seer) {
		before[v] = c.answersTo(t, v, questions)
	}
	change()
	for _, v := range viewers {
		after := c.answersTo(t, v, questions)
		for i, q := range questions {
			require.Equal(t, before[v][i], after[i], "%s is told of a change by: %s %v", v, q.name, q.vars)
		}
	}
	differ := 0
	for i, data := range c.answersTo(t, seer, questions) {
		if data != before[seer][i] {
			differ++
		}
	}
	require.Greater(t, differ, len(questions)/2, "as %s", seer)
}

// No filter, order, cursor or count tells what a field has that the viewer may not read.
func TestFieldsDoNotLeak(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	c.sql(t, `UPDATE users SET email_verified_at = '2026-01-01', totp_confirmed_at = '2026-01-01' WHERE username IN ('member', 'hermit')`)
	const (
		users = `query($w: UserWhereInput, $o: [UserOrder!]) { users(where: $w, orderBy: $o) { totalCount pageInfo { startCursor endCursor }
			edges { cursor node { id username email role emailVerifiedAt totpConfirmedAt } } } }`
		threads  = `query($w: [UserWhereInput!]) { threads(where: {hasMembersWith: $w}) { totalCount edges { node { id } } } }`
		messages = `query($w: [UserWhereInput!]) { messages(where: {hasAuthorWith: $w}) { totalCount edges { node { id } } } }`
		members  = `query($w: UserWhereInput, $o: [UserOrder!]) { threads { edges { node { members(where: $w, orderBy: $o) {
			totalCount edges { cursor node { id email } } } } } } }`
	)
	var questions []question
	ask := func(name, document string, vars ...any) {
		questions = append(questions, question{name, document, vars})
	}
	for _, key := range whereKeys(t, "UserWhereInput", "email", "role", "emailVerifiedAt", "totpConfirmedAt") {
		operand := map[string]any{"String": "member@example.com", "UserRole": "user", "Time": "2026-01-01T00:00:00Z", "Boolean": true}[key.Type.Name()]
		switch {
		case strings.HasSuffix(key.Name, "HasPrefix"):
			operand = "memb"
		case strings.HasSuffix(key.Name, "HasSuffix"):
			operand = "example.com"
		case strings.Contains(key.Name, "Contains"):
			operand = "ember@"
		case key.Type.Elem != nil:
			operand = []any{operand}
		}
		w := object{key.Name: operand}
		ask("where", users, "w", w)
		ask("not", users, "w", object{"not": w})
		ask("not not", users, "w", object{"not": object{"not": w}})
		ask("or", users, "w", object{"or": []any{w, object{"username": "ada"}}})
		ask("not or", users, "w", object{"not": object{"or": []any{w, object{"username": "ada"}}}})
		ask("and", users, "w", object{"and": []any{w, object{"username": "member"}}})
		ask("members with", threads, "w", []any{w})
		ask("author with", messages, "w", []any{w})
		ask("members", members, "w", w)
	}
	for _, field := range []string{"EMAIL", "ROLE", "EMAIL_VERIFIED_AT", "TOTP_CONFIRMED_AT"} {
		for _, direction := range []string{"ASC", "DESC"} {
			order := []any{object{"field": field, "direction": direction}}
			ask("order", users, "o", order)
			ask("order of an edge", members, "o", order)
		}
	}
	c.secret(t, questions, []string{"anonymous", "stranger", "ada", "moderator"}, "admin", func() {
		c.sql(t, `UPDATE users SET email = 'x' || email || '.org', role = 'admin', email_verified_at = now(), totp_confirmed_at = NULL
			WHERE username IN ('member', 'hermit')`)
	})

	// One's own is not hidden.
	a := c.by(t, "ada", users, "w", object{"email": "ada@example.com"})
	require.Equal(t, []string{"ada@example.com"}, a.texts(t, "users", "email"))
}

// Pages of a list ordered by what is hidden add up, and no cursor has what its reader may not read.
func TestCursorsDoNotLeak(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	for _, direction := range []string{"ASC", "DESC"} {
		for _, way := range []string{"first: 2, after", "last: 2, before"} {
			var names []string
			for cursor := any(nil); ; {
				a := c.by(t, "stranger", `query($c: Cursor) { users(`+way+`: $c, orderBy: [{field: EMAIL, direction: `+direction+`}]) {
					pageInfo { startCursor endCursor hasNextPage hasPreviousPage } edges { cursor node { username email } } } }`, "c", cursor)
				require.Empty(t, a.Errors, a.raw)
				for _, e := range a.at(t, "users.edges").([]any) {
					e := e.(map[string]any)
					text, err := base64.RawURLEncoding.DecodeString(e["cursor"].(string))
					require.NoError(t, err)
					node := e["node"].(map[string]any)
					own := node["username"] == "stranger"
					require.Equal(t, own, strings.Contains(string(text), "@"), "%s of %v", text, node)
					require.Equal(t, own, node["email"] != nil)
					names = append(names, node["username"].(string))
				}
				more := "users.pageInfo.hasNextPage"
				if cursor = a.at(t, "users.pageInfo.endCursor"); strings.HasPrefix(way, "last") {
					more, cursor = "users.pageInfo.hasPreviousPage", a.at(t, "users.pageInfo.startCursor")
				}
				if a.at(t, more) == false {
					break
				}
			}
			slices.Sort(names)
			require.Equal(t, []string{"ada", "admin", "author", "hermit", "member", "moderator", "stranger"}, names, "%s %s", direction, way)
		}
	}
	// A cursor that somebody made up asks about nothing hidden: all others stand in one place.
	a := c.by(t, "stranger", `{ users(orderBy: [{field: EMAIL}]) { pageInfo { endCursor } } }`)
	text, err := base64.RawURLEncoding.DecodeString(a.text(t, "users.pageInfo.endCursor"))
	require.NoError(t, err)
	var parts []any
	require.NoError(t, json.Unmarshal(text, &parts))
	var last string
	for _, guess := range []string{"a", "hermit@example.com", "member@example.com", "n", "s"} {
		parts[1] = guess
		forged, err := json.Marshal(parts)
		require.NoError(t, err)
		a := c.by(t, "stranger", `query($c: Cursor) { users(after: $c, orderBy: [{field: EMAIL}], where: {usernameNEQ: "stranger"}) { edges { node { username } } } }`,
			"c", base64.RawURLEncoding.EncodeToString(forged))
		require.Empty(t, a.Errors, a.raw)
		if last != "" {
			require.Equal(t, last, string(a.Data), guess)
		}
		last = string(a.Data)
	}
}

// Nothing tells of a record that the viewer may not see: not what it has, not how many there are, not that it exists.
func TestRecordsDoNotLeak(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	var questions []question
	ask := func(name, document string, vars ...any) {
		questions = append(questions, question{name, document, vars})
	}
	users := func(where string) {
		for _, w := range []string{where, `not: {` + where + `}`, `or: [{` + where + `}, {username: "ada"}]`} {
			ask("users where "+w, `{ users(where: {`+w+`}) { totalCount edges { node { id } } } }`)
		}
	}
	for _, where := range []string{
		`hasOwnedThreads: true`, `hasOwnedThreads: false`, `hasOwnedThreadsWith: [{subject: "secret"}]`, `hasOwnedThreadsWith: [{subjectHasPrefix: "sec"}]`,
		`hasThreads: true`, `hasThreads: false`, `hasThreadsWith: [{subjectContains: "secret"}]`, `hasThreadsWith: [{not: {subject: "changed"}}]`,
		`hasThreadsWith: [{hasMessages: true}]`, `hasThreadsWith: [{hasOwnerWith: [{username: "hermit"}]}]`,
		`hasMessages: true`, `hasMessages: false`, `hasMessagesWith: [{bodyContains: "thought"}]`, `hasMessagesWith: [{hasThreadWith: [{subject: "secret"}]}]`,
		`hasMessagesWith: [{threadID: "` + c.ids["secret"].String() + `"}]`, `hasMessagesWith: [{hasThread: false}]`,
	} {
		users(where)
	}
	secret, thought, event := c.ids["secret"].String(), c.ids["thought"].String(), c.ids["event of member"].String()
	ask("counts of edges", `{ users { edges { node { id ownedThreads { totalCount } threads { totalCount edges { node { id } } } messages { totalCount pageInfo { hasNextPage } } } } } }`)
	ask("an edge's page", `{ users(where: {username: "hermit"}) { edges { node { ownedThreads(first: 0) { totalCount pageInfo { hasNextPage hasPreviousPage } } } } } }`)
	ask("counts", `{ threads { totalCount pageInfo { hasNextPage } } messages { totalCount } securityEvents { totalCount } }`)
	ask("pages", `{ threads(first: 0) { totalCount pageInfo { hasNextPage } } messages(last: 0) { pageInfo { hasPreviousPage } } }`)
	for _, where := range []string{
		`id: "` + secret + `"`, `ownerID: "` + c.ids["hermit"].String() + `"`, `hasOwnerWith: [{username: "hermit"}]`, `subject: "secret"`,
		`hasMembersWith: [{username: "admin"}]`, `hasMembers: false`, `hasMessagesWith: [{id: "` + thought + `"}]`,
	} {
		ask("threads where "+where, `{ threads(where: {`+where+`}) { totalCount edges { node { id subject version } } } }`)
	}
	for _, where := range []string{
		`threadID: "` + secret + `"`, `threadIDIn: ["` + secret + `"]`, `authorID: "` + c.ids["hermit"].String() + `"`, `hasThreadWith: [{subject: "secret"}]`, `body: "thought"`,
	} {
		ask("messages where "+where, `{ messages(where: {`+where+`}) { totalCount edges { node { id body version } } } }`)
	}
	ask("by id", `query($t: ID!, $m: ID!) { thread(id: $t) { version } message(id: $m) { version } a: node(id: $t) { id } b: node(id: $m) { id } }`, "t", secret, "m", thought)
	ask("nodes", `query($ids: [ID!]!) { nodes(ids: $ids) { id } }`, "ids", []string{secret, thought, c.ada.String()})
	for version := range 4 {
		ask("records", `query($refs: [RecordRef!]!) { records(refs: $refs) { threads { version } messages { version } unchanged missing } }`,
			"refs", []object{{"id": secret, "knownVersion": version}, {"id": thought, "knownVersion": version}, {"id": event, "knownVersion": version}})
	}
	viewers := []string{"anonymous", "stranger", "ada", "moderator"}
	c.secret(t, questions, viewers, "hermit", func() {
		c.sql(t, `UPDATE threads SET subject = 'changed' WHERE id = $1`, c.ids["secret"].UUID)
		c.sql(t, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2)`, c.ids["secret"].UUID, c.ids["admin"].UUID)
		c.sql(t, `UPDATE messages SET body = 'new thought' WHERE id = $1`, c.ids["thought"].UUID)
		c.say(t, c.ids["secret"], "stranger", "said before leaving")
		c.happen(t, "member")
	})
	c.secret(t, questions, viewers, "hermit", func() {
		c.sql(t, `DELETE FROM threads WHERE id = $1`, c.ids["secret"].UUID)
	})

	// Security events are read by nobody through the user, but by filters they could be.
	for _, where := range []string{`userID: "` + c.ids["member"].String() + `"`, `hasUserWith: [{username: "member"}]`, `userIDIsNil: true`} {
		a := c.by(t, "stranger", `{ securityEvents(where: {`+where+`}) { totalCount edges { node { id } } } }`)
		require.JSONEq(t, `{"securityEvents": {"totalCount": 0, "edges": []}}`, string(a.Data), where)
	}
	a := c.by(t, "stranger", `{ user(id: "`+c.ids["member"].String()+`") { securityEvents { totalCount } } }`)
	require.Equal(t, "GRAPHQL_VALIDATION_FAILED", a.Errors[0].code())
}

// A refused write tells no more than a query does.
func TestRefusalsDoNotLeak(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	gone := record.ID{Prefix: "thread", UUID: entity.NewID()}
	said := func(e apiError) string {
		delete(e.Extensions, "requestId")
		text, err := json.Marshal(e)
		require.NoError(t, err)
		return string(text)
	}
	// Of what is not seen, whatever version is expected, and of what is not there, the answers are alike.
	for _, document := range []string{
		`mutation($id: ID!, $version: Int!) { updateThread(id: $id, expectedVersion: $version, input: {subject: "x"}) { id } }`,
		`mutation($id: ID!, $version: Int!) { updateThread(id: $id, expectedVersion: $version, input: {clearMembers: true}) { id } }`,
		`mutation($id: ID!, $version: Int!) { deleteThread(id: $id, expectedVersion: $version) { version } }`,
	} {
		for _, name := range []string{"stranger", "ada", "moderator", "admin"} {
			want := said(c.refused(t, name, "NOT_FOUND", document, "id", gone, "version", 1))
			for version := 1; version < 4; version++ {
				got := said(c.refused(t, name, "NOT_FOUND", document, "id", c.ids["secret"], "version", version))
				require.Equal(t, strings.ReplaceAll(want, gone.String(), c.ids["secret"].String()), got)
			}
		}
		// Who may see it and not change it is not told its version.
		e := c.refused(t, "member", "FORBIDDEN", document, "id", c.ids["shared"], "version", 7)
		delete(e.Extensions, "requestId")
		require.Equal(t, map[string]any{"code": "FORBIDDEN"}, e.Extensions)
	}
	const createMessage = `mutation($id: ID!) { createMessage(input: {body: "x", threadID: $id}) { id } }`
	for _, name := range []string{"stranger", "ada", "admin"} {
		want := said(c.refused(t, name, "BAD_USER_INPUT", createMessage, "id", gone))
		require.Equal(t, want, said(c.refused(t, name, "BAD_USER_INPUT", createMessage, "id", c.ids["secret"])))
		require.Contains(t, want, "threadID names a record that does not exist")
	}
	require.Equal(t, 1, one[int](t, c.bundle, `SELECT count(*) FROM messages WHERE thread_id = $1`, c.ids["secret"].UUID))

	// That a user name is taken is public; that an address is taken is told to administrators alone.
	const (
		createUser = `mutation($input: CreateUserInput!) { createUser(input: $input) { id } }`
		rename     = `mutation($id: ID!, $name: String!) { updateUser(id: $id, expectedVersion: 1, input: {username: $name}) { id } }`
	)
	c.refused(t, "stranger", "ALREADY_EXISTS", rename, "id", c.ids["stranger"], "name", "member")
	for _, taken := range []string{"member", "nobody"} {
		c.refused(t, "stranger", "FORBIDDEN", rename, "id", c.ids["hermit"], "name", taken)
		c.refused(t, "anonymous", "UNAUTHENTICATED", rename, "id", c.ids["hermit"], "name", taken)
		input := object{"email": taken + "@example.com", "username": "free", "name": "x"}
		c.refused(t, "stranger", "FORBIDDEN", createUser, "input", input)
		c.refused(t, "moderator", "FORBIDDEN", createUser, "input", input)
		c.refused(t, "anonymous", "UNAUTHENTICATED", createUser, "input", input)
	}
	e := c.refused(t, "admin", "ALREADY_EXISTS", createUser, "input", object{"email": "member@example.com", "username": "free", "name": "x"})
	require.Equal(t, []any{"email"}, e.Extensions["fields"])
	require.NotContains(t, c.log.String(), "level=ERROR")
}
