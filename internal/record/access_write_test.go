package record_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/internal/entity"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

const (
	createMessage = `mutation($thread: ID!) { createMessage(input: {body: "new", threadID: $thread}) { id version author { id } } }`
	updateMessage = `mutation($id: ID!, $version: Int!) { updateMessage(id: $id, expectedVersion: $version, input: {body: "new"}) { id version } }`
	deleteMessage = `mutation($id: ID!, $version: Int!) { deleteMessage(id: $id, expectedVersion: $version) { version } }`
)

// What rules add to the statements of typical documents is in testdata/access.golden: they stand in the statement itself, and
// cost no round trip.
func TestStatementsWithRules(t *testing.T) {
	t.Parallel()
	c := newCast(t, oneConnection)
	type fixture struct{ thread, message record.ID }
	var out strings.Builder
	for _, s := range []struct {
		name, document string
		who            string
		vars           func(f fixture) []any
		trips          int
		code           string
	}{
		{"a record", `query($id: ID!) { thread(id: $id) { subject } }`, "member", func(f fixture) []any { return []any{"id", f.thread} }, 1, ""},
		{"a record through another", `query($id: ID!) { message(id: $id) { body } }`, "member", func(f fixture) []any { return []any{"id", f.message} }, 1, ""},
		{"a list that is counted", `{ threads(first: 3) { totalCount edges { node { subject } } } }`, "member", nil, 2, ""},
		{"a list of what is read through another", `{ messages(first: 3) { edges { node { body } } } }`, "member", nil, 1, ""},
		{"a filter on a hidden field", `{ users(where: {emailHasPrefix: "a", hasThreads: true}, orderBy: [{field: EMAIL}]) { edges { node { name } } } }`, "member", nil, 1, ""},
		{"the same as an administrator", `{ users(where: {emailHasPrefix: "a"}, orderBy: [{field: EMAIL}]) { edges { node { name } } } }`, "admin", nil, 1, ""},
		{"create", `mutation { createThread(input: {subject: "new"}) { id } }`, "member", nil, 1, ""},
		{"create through another", createMessage, "member", func(f fixture) []any { return []any{"thread", f.thread} }, 2, ""}, // the second reads the author
		{"update", renameThread, "ada", func(f fixture) []any { return []any{"id", f.thread} }, 1, ""},
		{"update through another", updateMessage, "author", func(f fixture) []any { return []any{"id", f.message, "version", 1} }, 1, ""},
		{"update that is forbidden", updateMessage, "member", func(f fixture) []any { return []any{"id", f.message, "version", 1} }, 2, "FORBIDDEN"},
		{"delete", deleteThread, "ada", func(f fixture) []any { return []any{"id", f.thread, "version", 1} }, 1, ""},
		{"delete through another", deleteMessage, "author", func(f fixture) []any { return []any{"id", f.message, "version", 1} }, 1, ""},
	} {
		var pipelines [][]string
		var trips int
		for range 2 { // what the first run prepares is not counted
			f := fixture{thread: c.share(t)}
			f.message = c.say(t, f.thread, "author", "x")
			var vars []any
			if s.vars != nil {
				vars = s.vars(f)
			}
			c.trace.reset()
			a := c.by(t, s.who, s.document, vars...)
			if s.code == "" {
				require.Empty(t, a.Errors, "%s: %s", s.name, a.raw)
			} else {
				require.Equal(t, s.code, a.Errors[0].code(), s.name)
			}
			pipelines, trips = c.trace.statements()
		}
		require.Len(t, pipelines, trips, "%s: a pipeline is a round trip", s.name)
		require.Equal(t, s.trips, trips, s.name)
		fmt.Fprintf(&out, "# %s\n%s\n", s.name, s.document)
		for i, p := range pipelines {
			fmt.Fprintf(&out, "-- round trip %d of %d\n", i+1, trips)
			for _, sql := range p {
				fmt.Fprintln(&out, strings.ReplaceAll(sql, `"`, ""))
			}
		}
		out.WriteByte('\n')
	}
	golden := filepath.Join("testdata", "access.golden")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(out.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), out.String(), "if this is meant: go test ./internal/record -run TestStatementsWithRules -update")
}

const renameThread = `mutation($id: ID!) { updateThread(id: $id, expectedVersion: 1, input: {subject: "new"}) { id version } }`

// Nobody writes as somebody else, or into what they do not see.
func TestWritesAreOnesOwn(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	a := c.by(t, "member", createMessage, "thread", c.ids["shared"])
	require.Equal(t, c.ids["member"].String(), a.text(t, "createMessage.author.id"))
	for _, input := range []string{
		`mutation($o: ID!, $t: ID!) { createMessage(input: {body: "x", threadID: $t, authorID: $o}) { id } }`,
		`mutation($o: ID!, $t: ID!) { createThread(input: {subject: "x", ownerID: $o}) { id } updateThread(id: $t, expectedVersion: 1, input: {}) { id } }`,
		`mutation($o: ID!, $t: ID!) { updateThread(id: $t, expectedVersion: 1, input: {ownerID: $o}) { id } }`,
		`mutation($o: ID!, $t: ID!) { updateMessage(id: $t, expectedVersion: 1, input: {threadID: $o}) { id } }`,
		`mutation($o: ID!, $t: ID!) { updateUser(id: $o, expectedVersion: 1, input: {role: admin}) { id } updateThread(id: $t, expectedVersion: 1, input: {}) { id } }`,
	} {
		c.refused(t, "ada", "GRAPHQL_VALIDATION_FAILED", input, "o", c.ids["author"], "t", c.ids["shared"])
	}
	require.Equal(t, 1, c.version(t, c.ids["shared"]))
}

// Where one write of an operation is refused, none of them stays, whatever refused it.
func TestARefusedWriteUndoesTheOthers(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	for _, r := range []struct{ name, field, code string }{
		{"update of what is seen", `updateMessage(id: "` + c.ids["words"].String() + `", expectedVersion: 1, input: {body: "x"}) { id }`, "FORBIDDEN"},
		{"update of what is not", `updateThread(id: "` + c.ids["secret"].String() + `", expectedVersion: 1, input: {subject: "x"}) { id }`, "NOT_FOUND"},
		{"links of what is not", `updateThread(id: "` + c.ids["secret"].String() + `", expectedVersion: 1, input: {clearMembers: true}) { id }`, "NOT_FOUND"},
		{"deletion", `deleteMessage(id: "` + c.ids["words"].String() + `", expectedVersion: 1) { version }`, "FORBIDDEN"},
		{"creation in what is not seen", `createMessage(input: {body: "x", threadID: "` + c.ids["secret"].String() + `"}) { id }`, "BAD_USER_INPUT"},
		{"creation by rule", `createUser(input: {email: "x@example.com", username: "xx", name: "x"}) { id }`, "FORBIDDEN"},
	} {
		before := c.written(t)
		e := c.refused(t, "ada", r.code, `mutation($t: ID!) {
			a: updateThread(id: $t, expectedVersion: 1, input: {subject: "new"}) { id }
			b: createMessage(input: {body: "first", threadID: $t}) { id }
			c: `+r.field+`
			d: createThread(input: {subject: "last"}) { id }
		}`, "t", c.ids["shared"])
		require.Equal(t, "c", e.path(), r.name)
		require.Equal(t, before, c.written(t), r.name)
		require.Equal(t, 1, c.version(t, c.ids["shared"]), r.name)
	}
}

// After the removal of a member was acknowledged, no message of theirs is accepted any more.
func TestRemovalStopsAWriter(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	const writers, messages = 8, 25
	var removing, removed atomic.Bool
	var asked, accepted, refused atomic.Int32
	half, ended := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer wg.Wait()
	defer cancel()
	for range writers {
		wg.Go(func() {
			for left := messages; left > 0 && ctx.Err() == nil; { // to the removal, and as many after it
				late := removed.Load()
				if asked.Add(1); late {
					left--
				}
				a, err := c.post(context.Background(), c.who("member"), encode(createMessage, []any{"thread", c.ids["shared"]}))
				switch {
				case err != nil:
					t.Error(err)
					return
				case len(a.Errors) == 0 && late:
					t.Error("accepted after the removal")
				case len(a.Errors) == 0:
					if accepted.Add(1) == writers*messages/4 {
						close(half)
					}
				case a.Errors[0].code() != "BAD_USER_INPUT" || !removing.Load():
					t.Error(a.raw)
					return
				default:
					refused.Add(1)
				}
			}
		})
	}
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-half:
	case <-ended:
		t.FailNow() // each has said why
	}
	removing.Store(true)
	a := c.by(t, "ada", updateThread, "id", c.ids["shared"], "version", 1, "input", object{"removeMemberIDs": []string{c.ids["member"].String()}})
	require.Empty(t, a.Errors, a.raw)
	removed.Store(true)
	<-ended
	require.GreaterOrEqual(t, refused.Load(), int32(writers*messages))
	require.Equal(t, asked.Load(), accepted.Load()+refused.Load())
	require.EqualValues(t, accepted.Load(), one[int](t, c.bundle, `SELECT count(*) FROM messages WHERE author_id = $1`, c.ids["member"].UUID))
	c.refused(t, "member", "BAD_USER_INPUT", createMessage, "thread", c.ids["shared"])
}

// Of many writers at once the one wins who may and whose version is right; each is told why not, by what they may see.
func TestWritersWithDifferentRights(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 48 {
		who := []string{"ada", "member", "stranger", "admin"}[i%4]
		wg.Go(func() {
			<-start
			a, err := c.post(context.Background(), c.who(who), encode(renameThread, []any{"id", c.ids["shared"]}))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if len(a.Errors) == 0 {
				got[who+" ok"]++
			} else {
				got[who+" "+a.Errors[0].code()]++
			}
		})
	}
	close(start)
	wg.Wait()
	require.Equal(t, map[string]int{"ada ok": 1, "ada CONFLICT": 11, "member FORBIDDEN": 12, "stranger NOT_FOUND": 12, "admin NOT_FOUND": 12}, got)
	require.Equal(t, 2, c.version(t, c.ids["shared"]))
}

// A writer who waits for the transaction that takes their right away does not write.
func TestTheRightIsAskedWithTheVersion(t *testing.T) {
	t.Parallel()
	for _, commit := range []bool{true, false} {
		c := newCast(t)
		other := c.other(t)
		_, err := other.Exec(t.Context(), `UPDATE threads SET owner_id = $2 WHERE id = $1`, c.ids["shared"].UUID, c.ids["hermit"].UUID)
		require.NoError(t, err)
		answered := make(chan answer, 1)
		go func() {
			a, err := c.post(context.Background(), c.who("ada"), encode(renameThread, []any{"id", c.ids["shared"]}))
			if err != nil {
				t.Error(err)
			}
			answered <- a
		}()
		c.blocked(t)
		if !commit {
			require.NoError(t, other.Rollback(t.Context()))
			require.Empty(t, (<-answered).Errors)
			continue
		}
		require.NoError(t, other.Commit(t.Context()))
		a := <-answered
		require.Len(t, a.Errors, 1, a.raw)
		require.Equal(t, "NOT_FOUND", a.Errors[0].code(), a.raw)
		require.Equal(t, "shared", c.subject(t, c.ids["shared"]))
	}
}

// While the owner writes as fast as they can, the thread gets another one: no version after that is theirs.
func TestNoVersionIsAFormerOwners(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	id := c.ids["shared"]
	const writers = 6
	var wrote atomic.Int32
	enough := make(chan struct{})
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for version := any(1); ; {
				a, err := c.post(context.Background(), c.who("ada"), encode(updateThread, []any{"id", id, "version", version, "input", object{"subject": "x"}}))
				switch {
				case err != nil:
					t.Error(err)
					return
				case len(a.Errors) == 0:
					version = a.at(t, "updateThread.version")
					if wrote.Add(1) == 30 {
						close(enough)
					}
				case a.Errors[0].code() == "CONFLICT":
					version = a.Errors[0].Extensions["currentVersion"]
				case a.Errors[0].code() == "NOT_FOUND":
					return
				default:
					t.Error(a.raw)
					return
				}
			}
		})
	}
	<-enough
	c.sql(t, `UPDATE threads SET owner_id = $2 WHERE id = $1`, id.UUID, c.ids["hermit"].UUID)
	wg.Wait()
	taken := one[int](t, c.bundle, `SELECT version FROM changes WHERE id = $1 AND 'owner_id' = ANY(fields)`, id.UUID)
	require.Equal(t, taken, c.version(t, id))
	require.Equal(t, taken-2, one[int](t, c.bundle, `SELECT count(*) FROM changes WHERE id = $1 AND actor = $2`, id.UUID, c.ada.UUID.String()))
}

// Where users see but themselves, what leads to others tells nothing of them, and nobody is named who is not seen.
func TestRulesOfUsersWhoSeeThemselves(t *testing.T) {
	t.Parallel()
	c := newCast(t, func(o *options) {
		o.change = func(s *ent.Stores) { s.User.Access.Read = entity.Any(entity.Self(), entity.Role(viewer.Admin)) }
	})
	gone := record.ID{Prefix: "user", UUID: entity.NewID()}
	for _, id := range []record.ID{gone, c.ids["hermit"]} {
		e := c.refused(t, "ada", "BAD_USER_INPUT", updateThread, "id", c.ids["shared"], "version", 1, "input", object{"addMemberIDs": []string{id.String()}})
		require.Equal(t, "addMemberIDs names a record that does not exist", e.Message)
		require.Equal(t, []any{"addMemberIDs"}, e.Extensions["fields"])
		e = c.refused(t, "ada", "BAD_USER_INPUT", `mutation($ids: [ID!]) { createThread(input: {subject: "x", memberIDs: $ids}) { id } }`, "ids", []string{c.ada.String(), id.String()})
		require.Equal(t, "memberIDs names a record that does not exist", e.Message)
	}
	require.Equal(t, 1, c.version(t, c.ids["shared"]))
	require.Equal(t, 2, one[int](t, c.bundle, `SELECT count(*) FROM threads`))
	a := c.by(t, "ada", updateThread, "id", c.ids["shared"], "version", 1, "input", object{"addMemberIDs": []string{c.ada.String()}})
	require.Empty(t, a.Errors, a.raw)

	a = c.by(t, "member", `{ threads { edges { node { subject owner { id } members { totalCount edges { node { id } } } messages { edges { node { body author { id } } } } } } } }`)
	require.JSONEq(t, fmt.Sprintf(`{"threads": {"edges": [{"node": {"subject": "shared", "owner": null, "members": {"totalCount": 1, "edges": [{"node": {"id": %q}}]},
		"messages": {"edges": [{"node": {"body": "words", "author": null}}, {"node": {"body": "reply", "author": null}}]}}}]}}`, c.ids["member"]), string(a.Data))
	for _, where := range []string{
		`ownerID: "` + c.ada.String() + `"`, `ownerIDIn: ["` + c.ada.String() + `"]`, `ownerIDNEQ: "` + c.ids["hermit"].String() + `"`,
		`ownerIDNotIn: ["` + c.ids["hermit"].String() + `"]`, `hasOwner: true`, `hasOwnerWith: [{username: "ada"}]`, `hasMembersWith: [{username: "author"}]`,
		`hasMessagesWith: [{authorID: "` + c.ids["author"].String() + `"}]`, `hasMessagesWith: [{hasAuthor: true}]`,
	} {
		a := c.by(t, "member", `{ threads(where: {`+where+`}) { totalCount } }`)
		require.JSONEq(t, `{"threads": {"totalCount": 0}}`, string(a.Data), where)
	}
	// A conflict does not name the owner either; here it is one's own, and there the author's message's thread.
	c.sql(t, `UPDATE messages SET author_id = $2 WHERE id = $1`, c.ids["words"].UUID, c.ids["member"].UUID)
	e := c.refused(t, "member", "CONFLICT", updateMessage, "id", c.ids["words"], "version", 1)
	current := e.Extensions["current"].(map[string]any)
	require.Equal(t, map[string]any{"__typename": "User", "id": c.ids["member"].String()}, current["author"])
	require.Equal(t, map[string]any{"__typename": "Thread", "id": c.ids["shared"].String()}, current["thread"])
}

// A conflict shows what its reader may read, and what one may not read one may not overwrite.
func TestConflictsHideFields(t *testing.T) {
	t.Parallel()
	c := newCast(t, func(o *options) {
		o.change = func(s *ent.Stores) {
			s.Thread.Access.Update = entity.Any(entity.Is("owner"), entity.Has("members"))
			s.User.Access.Read = entity.Self()
			for i := range s.Thread.Fields {
				if s.Thread.Fields[i].Name == "subject" {
					s.Thread.Fields[i].ReadableBy = new(entity.Is("owner"))
				}
			}
		}
	})
	id := c.ids["shared"]
	const clearMembers = `mutation($id: ID!, $version: Int!) { updateThread(id: $id, expectedVersion: $version, input: {removeMemberIDs: []}) { version } }`
	c.sql(t, `UPDATE threads SET subject = 'new' WHERE id = $1`, id.UUID)
	c.sql(t, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2)`, id.UUID, c.ids["stranger"].UUID)
	for who, want := range map[string]struct {
		subject, owner any
		fields         []any
	}{
		"ada":    {"new", map[string]any{"__typename": "User", "id": c.ada.String()}, []any{"members", "subject"}},
		"member": {nil, nil, []any{"members"}},
	} {
		e := c.refused(t, who, "CONFLICT", clearMembers, "id", id, "version", 1)
		current := e.Extensions["current"].(map[string]any)
		require.Equal(t, want.subject, current["subject"], who)
		require.Equal(t, want.owner, current["owner"], who)
		require.Equal(t, want.fields, e.Extensions["fields"], who)
	}
	c.refused(t, "member", "FORBIDDEN", `mutation($id: ID!) { updateThread(id: $id, expectedVersion: 3, input: {subject: "mine"}) { version } }`, "id", id)
	a := c.by(t, "member", clearMembers, "id", id, "version", 3)
	require.Empty(t, a.Errors, a.raw)
}

// open is the custom rule of these tests: who reads a thread says its subject.
func open(inMemory bool) map[string]record.CustomRule {
	r := record.CustomRule{Where: func(p *record.Predicate, _ viewer.Viewer, signedIn bool) {
		p.Column("subject")
		p.Write(" LIKE ")
		p.Arg("open%")
		if !signedIn {
			p.Write(" AND ")
			p.Column("subject")
			p.Write(" LIKE ")
			p.Arg("%all")
		}
	}}
	if inMemory {
		r.Holds = func(_ context.Context, n record.Node, _ viewer.Viewer, signedIn bool) (bool, error) {
			s := n.(*ent.Thread).Subject
			return strings.HasPrefix(s, "open") && (signedIn || strings.HasSuffix(s, "all")), nil
		}
	}
	return map[string]record.CustomRule{"open": r}
}

// A rule written in Go holds in queries, counts, writes and streams, and through other rules.
func TestCustomRules(t *testing.T) {
	t.Parallel()
	for _, inMemory := range []bool{true, false} {
		t.Run(fmt.Sprint("in memory ", inMemory), func(t *testing.T) {
			t.Parallel()
			c := newCast(t, withTailer, func(o *options) {
				o.custom = open(inMemory)
				o.change = func(s *ent.Stores) {
					rule := entity.Any(entity.Is("owner"), entity.Custom("open"))
					s.Thread.Access = entity.Access{Read: rule, Create: entity.Custom("open"), Update: entity.Custom("open")}
				}
			})
			shared, words := c.ids["shared"], c.ids["words"]
			set := func(subject string) { c.sql(t, `UPDATE threads SET subject = $2 WHERE id = $1`, shared.UUID, subject) }
			const list = `{ threads { totalCount edges { node { id } } } messages { totalCount } users(where: {hasOwnedThreads: true}) { edges { node { id } } } }`
			seen := map[string]map[string]string{
				"shared":       {"anonymous": "-", "stranger": "-", "ada": "ada+shared"},
				"open":         {"anonymous": "-", "stranger": "ada+shared", "ada": "ada+shared"},
				"open for all": {"anonymous": "shared", "stranger": "ada+shared", "ada": "ada+shared"},
			}
			for subject, want := range seen {
				set(subject)
				for who, want := range want {
					require.Equal(t, want, c.seen(c.by(t, who, list)), "%s as %s", subject, who)
					first := c.first(t, who, `subscription($id: ID!) { messageChanged(id: $id) { kind } }`, "id", words)
					if want == "-" {
						require.Equal(t, "NOT_FOUND", first.Errors[0].code(), "%s as %s", subject, who)
					} else {
						require.Empty(t, first.Errors, "%s as %s", subject, who)
					}
				}
			}

			// Writes.
			version := func() int { return c.version(t, shared) }
			set("shared")
			c.refused(t, "ada", "FORBIDDEN", updateThread, "id", shared, "version", version(), "input", object{"subject": "x"})
			c.refused(t, "stranger", "NOT_FOUND", updateThread, "id", shared, "version", version(), "input", object{"subject": "x"})
			c.refused(t, "ada", "FORBIDDEN", `mutation { createThread(input: {subject: "closed"}) { id } }`)
			require.Equal(t, 2, one[int](t, c.bundle, `SELECT count(*) FROM threads`))
			c.refused(t, "stranger", "BAD_USER_INPUT", createMessage, "thread", shared)
			set("open")
			require.Empty(t, c.by(t, "stranger", updateThread, "id", shared, "version", version(), "input", object{"subject": "open again"}).Errors)
			require.Empty(t, c.by(t, "stranger", createMessage, "thread", shared).Errors)
			require.Empty(t, c.by(t, "ada", `mutation { createThread(input: {subject: "open too"}) { id } }`).Errors)

			// Streams, of the record and of what is read through it.
			set("open for all")
			watchers := map[string][2]*stream{}
			for _, who := range []string{"anonymous", "stranger", "ada"} {
				watchers[who] = [2]*stream{c.watchAs(t, who, shared), c.watchAs(t, who, words)}
			}
			set("open")
			watchers["anonymous"][0].ends(t, shared)
			watchers["anonymous"][1].ends(t, words)
			for _, who := range []string{"stranger", "ada"} {
				require.Equal(t, "UPDATED", watchers[who][0].event(t)["kind"])
			}
			// Without Holds the database is asked, once for each who watches.
			watchers["again"] = [2]*stream{c.watchAs(t, "stranger", shared)}
			require.Eventually(t, c.stores.Quiet, 10*time.Second, time.Millisecond) // what was asked before is not counted
			c.trace.reset()
			set("open still")
			for _, who := range []string{"stranger", "again", "ada"} {
				require.Equal(t, "UPDATED", watchers[who][0].event(t)["kind"])
			}
			// For the stranger: of the thread, and of the message that is read through it.
			require.Eventually(t, c.stores.Quiet, 10*time.Second, time.Millisecond)
			require.Equal(t, map[bool]int{true: 0, false: 2}[inMemory], c.trace.counts(`SELECT t.id FROM "threads" t WHERE t.id = ANY(`))
			set("closed")
			watchers["again"][0].ends(t, shared)
			watchers["stranger"][0].ends(t, shared)
			watchers["stranger"][1].ends(t, words)
			require.Equal(t, "closed", watchers["ada"][0].event(t)["record"].(map[string]any)["subject"])
			c.sql(t, `UPDATE messages SET body = 'new' WHERE id = $1`, words.UUID)
			require.Equal(t, "UPDATED", watchers["ada"][1].event(t)["kind"])
		})
	}
}

// A rule that nobody supplies is found at the start.
func TestUnknownCustomRule(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	c.stores.Thread.Access.Read = entity.Custom("nope")
	_, err := record.NewEngine(nil, []*record.Store{c.stores.Message, c.stores.SecurityEvent, c.stores.Thread, c.stores.User}, nil)
	require.ErrorContains(t, err, "Thread has the custom rule nope")
}

// Fields that commit on their own are all executed, whichever fails, each in its own transaction; with others they are not mixed.
func TestFieldsThatCommitOnTheirOwn(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *options) { o.alone = []string{"createUser"} })
	const document = `mutation($a: CreateUserInput!, $b: CreateUserInput!) { a: createUser(input: $a) { username } b: createUser(input: $b) { username } __typename }`
	input := func(name string) object {
		return object{"email": name + "@example.com", "username": name, "name": name}
	}
	count := func() int { return one[int](t, b, `SELECT count(*) FROM users`) }

	a := b.do(t, document, "a", input("ada"), "b", input("bob"))
	require.Len(t, a.Errors, 1, a.raw)
	require.Equal(t, "a", a.Errors[0].path())
	require.Equal(t, "ALREADY_EXISTS", a.Errors[0].code())
	require.Equal(t, 2, count(), "the second is committed although the first failed")
	b.do(t, document, "a", input("eve"), "b", input("bob"))
	require.Equal(t, 3, count(), "and the first although the second failed")
	b.ok(t, document, "a", input("mel"), "b", input("zoe"))
	require.Equal(t, 5, count())

	for _, document := range []string{
		`mutation($a: CreateUserInput!) { createUser(input: $a) { id } createThread(input: {subject: "x"}) { id } }`,
		`mutation($a: CreateUserInput!) { createThread(input: {subject: "x"}) { id } createUser(input: $a) { id } }`,
		`mutation($a: CreateUserInput!) { a: createUser(input: $a) { id } ...F } fragment F on Mutation { ... on Mutation { b: createThread(input: {subject: "x"}) { id } } }`,
	} {
		err := b.fails(t, document, "a", input("new"))
		require.Equal(t, "BAD_USER_INPUT", err.code())
		require.NotEmpty(t, err.Extensions["requestId"])
		require.Equal(t, 5, count(), "nothing is executed")
		require.Zero(t, one[int](t, b, `SELECT count(*) FROM threads`))
	}
	// What is skipped is not mixed.
	b.ok(t, `mutation($a: CreateUserInput!) { createUser(input: $a) { id } createThread(input: {subject: "x"}) @skip(if: true) { id } }`, "a", input("new"))
	require.Equal(t, 6, count())
}

// counts is how many statements since reset begin so.
func (tr *trace) counts(prefix string) (n int) {
	pipelines, _ := tr.statements()
	for _, p := range pipelines {
		for _, sql := range p {
			if strings.HasPrefix(sql, prefix) {
				n++
			}
		}
	}
	return n
}
