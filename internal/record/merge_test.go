package record_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/ent"
	"godstack/internal/dbtest"
	"godstack/internal/entity"
	"godstack/internal/entpgx"
	"godstack/internal/record"
)

const (
	mergeThread = `mutation($id: ID!, $version: Int!, $input: UpdateThreadInput!) {
		updateThread(id: $id, expectedVersion: $version, input: $input, onConflict: MERGE) { version subject members { edges { node { username } } } } }`
	mergeUser = `mutation($id: ID!, $version: Int!, $input: UpdateUserInput!, $how: OnConflict = MERGE) {
		updateUser(id: $id, expectedVersion: $version, input: $input, onConflict: $how) { version username name } }`
)

// merged is what an answer says of merges, as JSON; "" for nothing.
func (a answer) merged(t testing.TB) string {
	t.Helper()
	var r struct {
		Extensions map[string]json.RawMessage
	}
	require.NoError(t, json.Unmarshal([]byte(a.raw), &r))
	return string(r.Extensions["merged"])
}

func TestMerge(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rename := func(version int, input object) answer {
		t.Helper()
		return b.ok(t, mergeUser, "id", b.ada, "version", version, "input", input)
	}
	require.Empty(t, rename(1, object{"username": "lovelace"}).merged(t), "nothing was to be merged")
	a := rename(1, object{"name": "Ada Lovelace"})
	require.JSONEq(t, `{"updateUser": {"version": 3, "username": "lovelace", "name": "Ada Lovelace"}}`, string(a.Data))
	require.JSONEq(t, `[{"path": ["updateUser"], "theirs": ["username"], "yours": ["name"]}]`, a.merged(t))
	require.Equal(t, []string{"name"}, one[[]string](t, b, `SELECT fields FROM changes WHERE id = $1 AND version = 3`, b.ada.UUID))
	require.Equal(t, b.ada.UUID.String(), one[string](t, b, `SELECT actor FROM changes WHERE id = $1 AND version = 3`, b.ada.UUID))

	// What does not overwrite what was changed to something else is merged, however old.
	a = rename(1, object{"name": "Ada Lovelace"})
	require.Equal(t, 4, a.number(t, "updateUser.version"), "a change that changes nothing has a version")
	require.JSONEq(t, `[{"path": ["updateUser"], "theirs": ["name", "username"], "yours": ["name"]}]`, a.merged(t), "both set the same")
	a = rename(2, object{})
	require.JSONEq(t, `[{"path": ["updateUser"], "theirs": ["name"], "yours": []}]`, a.merged(t))
	a = rename(4, object{"username": "ada"})
	require.JSONEq(t, `[{"path": ["updateUser"], "theirs": [], "yours": ["username"]}]`, a.merged(t), "a version that changed nothing")
	require.Equal(t, 6, a.number(t, "updateUser.version"))

	// And nothing else is.
	for _, c := range []struct {
		name    string
		version int
		input   object
		how     any
		fields  any
	}{
		{"another value", 1, object{"name": "Countess"}, "MERGE", []any{"name", "username"}},
		{"one of two", 1, object{"name": "Ada Lovelace", "username": "countess"}, "MERGE", []any{"name", "username"}},
		{"changed to and fro", 4, object{"username": "countess"}, "MERGE", []any{"username"}},
		{"a version that never was", 7, object{"name": "x"}, "MERGE", nil},
		{"not asked for", 2, object{"username": "ada"}, "FAIL", []any{"name", "username"}},
		{"null", 2, object{"username": "ada"}, nil, []any{"name", "username"}},
	} {
		e := b.fails(t, mergeUser, "id", b.ada, "version", c.version, "input", c.input, "how", c.how)
		require.Equal(t, "CONFLICT", e.code(), c.name)
		require.Equal(t, c.fields, e.Extensions["fields"], c.name)
		require.Equal(t, "6", fmt.Sprint(e.Extensions["currentVersion"]), c.name)
		require.Equal(t, fmt.Sprint(c.version), fmt.Sprint(e.Extensions["expectedVersion"]), c.name)
		require.Equal(t, "ada", e.Extensions["current"].(map[string]any)["username"], c.name)
	}
	e := b.fails(t, `mutation($id: ID!) { updateUser(id: $id, expectedVersion: 1, input: {name: "x"}) { id } }`, "id", b.ada)
	require.Equal(t, "CONFLICT", e.code(), "FAIL is the default")
	require.Equal(t, "BAD_USER_INPUT", b.fails(t, mergeUser, "id", b.ada, "version", 1, "input", object{"name": ""}).code())
	require.Equal(t, 6, one[int](t, b, `SELECT version FROM users WHERE id = $1`, b.ada.UUID))

	gone := b.user(t, "gone")
	b.sql(t, `UPDATE users SET name = 'x' WHERE id = $1`, gone.UUID)
	b.sql(t, `DELETE FROM users WHERE id = $1`, gone.UUID)
	require.Equal(t, "NOT_FOUND", b.fails(t, mergeUser, "id", gone, "version", 1, "input", object{"username": "x1"}).code())
}

// Beyond what the log remembers nobody can say what was overwritten.
func TestMergeBeyondRetention(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ok(t, mergeUser, "id", b.ada, "version", 1, "input", object{"username": "lovelace"})
	require.Positive(t, one[int](t, b, `SELECT changelog_expire((now() AT TIME ZONE 'UTC')::date + 9)`))
	e := b.fails(t, mergeUser, "id", b.ada, "version", 1, "input", object{"name": "Ada"})
	require.Equal(t, "CONFLICT", e.code())
	require.Contains(t, e.Extensions, "fields")
	require.Nil(t, e.Extensions["fields"])
	b.ok(t, mergeUser, "id", b.ada, "version", 2, "input", object{"username": "countess"})
	a := b.ok(t, mergeUser, "id", b.ada, "version", 2, "input", object{"name": "Ada"})
	require.NotEmpty(t, a.merged(t), "later versions it still knows")

	// Under an id that is used again, versions mean nothing.
	b.sql(t, `WITH old AS (DELETE FROM users WHERE id = $1 RETURNING *) SELECT FROM old`, b.ada.UUID)
	b.sql(t, `INSERT INTO users (id, email, username, name) VALUES ($1, 'new@example.com', 'new', 'new')`, b.ada.UUID)
	b.sql(t, `UPDATE users SET username = 'newer' WHERE id = $1`, b.ada.UUID)
	require.Equal(t, "CONFLICT", b.fails(t, mergeUser, "id", b.ada, "version", 4, "input", object{"name": "x"}).code())
}

// Each link is a value of its own: there, or not.
func TestMergeOfLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob, eve, mel := b.user(t, "bob"), b.user(t, "eve"), b.user(t, "mel")
	ids := func(ids ...record.ID) (out []string) {
		for _, id := range ids {
			out = append(out, id.String())
		}
		return out
	}
	add := func(who ...record.ID) object { return object{"addMemberIDs": ids(who...)} }
	remove := func(who ...record.ID) object { return object{"removeMemberIDs": ids(who...)} }
	both := func(objects ...object) object {
		all := object{}
		for _, o := range objects {
			maps.Copy(all, o)
		}
		return all
	}
	clearAll := object{"clearMembers": true}
	for _, c := range []struct {
		name   string
		theirs []object
		mine   object
		want   []string // the members, nil for a conflict
		yours  string
	}{ // bob is a member to begin with
		{"different ones", []object{add(eve)}, add(mel), []string{"bob", "eve", "mel"}, `["members"]`},
		{"different ones out", []object{add(eve)}, remove(bob), []string{"eve"}, `["members"]`},
		{"the same", []object{add(eve)}, add(eve), []string{"bob", "eve"}, `["members"]`},
		{"the same out", []object{remove(bob)}, remove(bob), []string{}, `["members"]`},
		{"one who was removed", []object{remove(bob)}, add(bob), nil, ""},
		{"one who was added", []object{add(eve)}, remove(eve), nil, ""},
		{"one who came and went", []object{add(eve), remove(eve)}, add(eve), nil, ""},
		{"one who went and came", []object{remove(bob), add(bob)}, add(bob, eve), []string{"bob", "eve"}, `["members"]`},
		{"all", []object{add(eve)}, clearAll, nil, ""},
		{"all of whom one has gone", []object{remove(bob)}, clearAll, []string{}, `["members"]`},
		{"all but one who was added", []object{add(eve)}, both(clearAll, add(eve)), []string{"eve"}, `["members"]`},
		{"another set", []object{{"subject": "theirs"}}, both(clearAll, add(mel)), []string{"mel"}, `["members"]`},
		{"a field", []object{{"subject": "theirs"}}, add(mel), []string{"bob", "mel"}, `["members"]`},
		{"beside a field", []object{add(eve)}, both(add(mel), object{"subject": "mine"}), []string{"bob", "eve", "mel"}, `["members", "subject"]`},
		{"beside a field that was changed", []object{both(add(eve), object{"subject": "theirs"})}, both(add(mel), object{"subject": "mine"}), nil, ""},
		{"links that are none", []object{both(add(eve), object{"subject": "theirs"})}, object{"addMemberIDs": []string{}, "clearMembers": false}, []string{"bob", "eve"}, `[]`},
		{"cleared by others", []object{clearAll}, add(mel), []string{"mel"}, `["members"]`},
		{"set anew by others", []object{both(clearAll, add(eve))}, remove(mel), []string{"eve"}, `["members"]`},
	} {
		id := b.thread(t, "thread", bob)
		for i, input := range c.theirs {
			b.ok(t, updateThread, "id", id, "version", i+1, "input", input)
		}
		before := b.version(t, id)
		a := b.do(t, mergeThread, "id", id, "version", 1, "input", c.mine)
		if c.want == nil {
			require.Len(t, a.Errors, 1, "%s: %s", c.name, a.raw)
			require.Equal(t, "CONFLICT", a.Errors[0].code(), c.name)
			require.Contains(t, a.Errors[0].Extensions["fields"], "members", c.name)
			require.Equal(t, before, b.version(t, id), c.name)
			continue
		}
		require.Empty(t, a.Errors, "%s: %s", c.name, a.raw)
		require.ElementsMatch(t, c.want, a.texts(t, "updateThread.members", "username"), c.name)
		require.Equal(t, before+1, a.number(t, "updateThread.version"), c.name)
		var m []struct{ Yours json.RawMessage }
		require.NoError(t, json.Unmarshal([]byte(a.merged(t)), &m), c.name)
		require.JSONEq(t, c.yours, string(m[0].Yours), c.name)
	}
	e := b.fails(t, mergeThread, "id", b.thread(t, "x"), "version", 1, "input", add(record.ID{Prefix: "user", UUID: entity.NewID()}))
	require.Equal(t, "BAD_USER_INPUT", e.code())
}

// Several fields are one transaction, merged or not, and the answer tells of merges that are committed.
func TestMergesOfAnOperation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.user(t, "bob")
	x, y := b.thread(t, "x"), b.thread(t, "y")
	b.ok(t, updateThread, "id", x, "version", 1, "input", object{"addMemberIDs": []string{bob.String()}})
	b.ok(t, updateThread, "id", y, "version", 1, "input", object{"addMemberIDs": []string{bob.String()}})
	const document = `mutation($x: ID!, $y: ID!, $version: Int!, $last: ID!) {
		one: updateThread(id: $x, expectedVersion: 1, input: {subject: "one"}, onConflict: MERGE) { version }
		two: updateThread(id: $y, expectedVersion: 2, input: {subject: "two"}, onConflict: MERGE) { version }
		three: updateThread(id: $y, expectedVersion: $version, input: {subject: "two", removeMemberIDs: ["` + bobless + `"]}, onConflict: MERGE) { version }
		four: updateThread(id: $last, expectedVersion: 3, input: {subject: "four"}) { version }
	}`
	for _, c := range []struct {
		version int
		last    record.ID
		path    string
	}{{9, x, "three"}, {1, y, "four"}} {
		a := b.do(t, document, "x", x, "y", y, "version", c.version, "last", c.last)
		require.Len(t, a.Errors, 1, a.raw)
		require.Equal(t, "CONFLICT", a.Errors[0].code())
		require.Equal(t, c.path, a.Errors[0].path())
		require.Empty(t, a.merged(t), "all is rolled back")
		require.Equal(t, []int{2, 2}, []int{b.version(t, x), b.version(t, y)})
		require.Equal(t, "x", b.subject(t, x))
	}
	a := b.ok(t, document, "x", x, "y", y, "version", 1, "last", x)
	require.JSONEq(t, `{"one": {"version": 3}, "two": {"version": 3}, "three": {"version": 4}, "four": {"version": 4}}`, string(a.Data))
	require.JSONEq(t, `[{"path": ["one"], "theirs": ["members"], "yours": ["subject"]},
		{"path": ["three"], "theirs": ["members", "subject"], "yours": ["members", "subject"]}]`, a.merged(t))
	require.Equal(t, 1, one[int](t, b, `SELECT count(DISTINCT xid) FROM changes WHERE version > 2`))

	// What fails in the selection undoes nothing, and what fails at COMMIT everything.
	a = b.do(t, `mutation($x: ID!) { updateThread(id: $x, expectedVersion: 3, input: {clearMembers: true}, onConflict: MERGE) { owner { ownedThreads(first: -1) { totalCount } } } }`, "x", x)
	require.Len(t, a.Errors, 1, a.raw)
	require.JSONEq(t, `[{"path": ["updateThread"], "theirs": ["subject"], "yours": ["members"]}]`, a.merged(t))
	b.sql(t, `ALTER TABLE threads ADD CONSTRAINT one_subject UNIQUE (subject) DEFERRABLE INITIALLY DEFERRED`)
	b.ok(t, updateThread, "id", y, "version", 4, "input", object{"clearMembers": true})
	a = b.do(t, mergeThread, "id", y, "version", 4, "input", object{"subject": "four"})
	require.Equal(t, "ALREADY_EXISTS", a.Errors[0].code())
	require.Empty(t, a.merged(t))

	// A socket tells it too.
	s := b.connect(t)
	require.NoError(t, s.subscribe("1", mergeThread, "id", y, "version", 4, "input", object{"subject": "socket"}))
	m, err := s.receive()
	require.NoError(t, err)
	require.JSONEq(t, `[{"path": ["updateThread"], "theirs": ["members"], "yours": ["subject"]}]`, answer{raw: string(m.Payload)}.merged(t))
}

// bobless is a user whom no thread has.
const bobless = "user_00000000000000000000000001"

// A merge obeys the rules as they are now, and names what its reader may read.
func TestMergeObeysRules(t *testing.T) {
	t.Parallel()
	c := newCast(t, func(o *options) {
		o.change = func(s *ent.Stores) {
			s.Thread.Access.Update = entity.Any(entity.Is("owner"), entity.Has("members"))
			for i := range s.Thread.Fields {
				if s.Thread.Fields[i].Name == "subject" {
					s.Thread.Fields[i].ReadableBy = new(entity.Is("owner"))
				}
			}
		}
	})
	id := c.ids["shared"]
	add := func(who string) object { return object{"addMemberIDs": []string{c.ids[who].String()}} }
	c.sql(t, `UPDATE threads SET subject = 'new' WHERE id = $1`, id.UUID)
	a := c.by(t, "member", mergeThread, "id", id, "version", 1, "input", add("admin"))
	require.Empty(t, a.Errors, a.raw)
	require.JSONEq(t, `[{"path": ["updateThread"], "theirs": [], "yours": ["members"]}]`, a.merged(t), "the subject is not for members")
	a = c.by(t, "ada", mergeThread, "id", id, "version", 1, "input", add("moderator"))
	require.JSONEq(t, `[{"path": ["updateThread"], "theirs": ["members", "subject"], "yours": ["members"]}]`, a.merged(t))

	version := c.version(t, id)
	c.refused(t, "member", "FORBIDDEN", mergeThread, "id", id, "version", 1, "input", object{"subject": "new"}) // nor does it tell the subject
	c.refused(t, "stranger", "NOT_FOUND", mergeThread, "id", id, "version", 1, "input", object{"subject": "new"})
	c.refused(t, "anonymous", "UNAUTHENTICATED", mergeThread, "id", id, "version", 1, "input", object{"subject": "new"})
	c.refused(t, "stranger", "FORBIDDEN", mergeUser, "id", c.ids["member"], "version", 1, "input", object{"name": "x"})
	require.Equal(t, version, c.version(t, id))

	// Who waits for the transaction that removes them does not write, and is not shown what else it did.
	for i, commit := range []bool{false, true} {
		other := c.other(t)
		_, err := other.Exec(t.Context(), `DELETE FROM thread_members WHERE thread_id = $1 AND user_id = $2`, id.UUID, c.ids["member"].UUID)
		require.NoError(t, err)
		answered := make(chan answer, 1)
		go func() {
			a, err := c.post(context.Background(), c.who("member"), encode(mergeThread, []any{"id", id, "version", 1, "input", add([]string{"hermit", "stranger"}[i])}))
			if err != nil {
				t.Error(err)
			}
			answered <- a
		}()
		c.blocked(t)
		if commit {
			require.NoError(t, other.Commit(t.Context()))
			a := <-answered
			require.Len(t, a.Errors, 1, a.raw)
			require.Equal(t, "NOT_FOUND", a.Errors[0].code(), a.raw)
		} else {
			require.NoError(t, other.Rollback(t.Context()))
			require.Empty(t, (<-answered).Errors)
		}
	}
	require.Equal(t, version+2, c.version(t, id), "one merge and the removal")
}

// Hooks run once for each update, in its transaction, and what they refuse is not written.
func TestHooksOfMerges(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.user(t, "bob")
	var ran atomic.Int32
	b.client.Thread.Use(func(next ent.Mutator) ent.Mutator {
		return ent.MutateFunc(func(ctx context.Context, m ent.Mutation) (ent.Value, error) {
			ran.Add(1)
			if err := m.(*ent.ThreadMutation).Client().User.UpdateOneID(bob.UUID).SetName("hooked").Exec(ctx); err != nil {
				return nil, err
			}
			if subject, _ := m.(*ent.ThreadMutation).Subject(); subject == "bad" {
				return nil, errors.New("refused by the hook")
			}
			return next.Mutate(ctx, m)
		})
	})
	id := b.thread(t, "x")
	b.sql(t, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2)`, id.UUID, bob.UUID)
	counts := func() []int {
		return []int{int(ran.Load()), b.version(t, id), one[int](t, b, `SELECT version FROM users WHERE id = $1`, bob.UUID)}
	}
	require.Equal(t, []int{0, 2, 1}, counts())
	a := b.ok(t, mergeThread, "id", id, "version", 1, "input", object{"subject": "y"})
	require.NotEmpty(t, a.merged(t))
	require.Equal(t, []int{1, 3, 2}, counts())
	require.Equal(t, "CONFLICT", b.fails(t, mergeThread, "id", id, "version", 2, "input", object{"subject": "bad"}).code())
	require.Equal(t, []int{1, 3, 2}, counts(), "no hook has run")
	require.Equal(t, "INTERNAL", b.fails(t, mergeThread, "id", id, "version", 3, "input", object{"subject": "bad"}).code())
	require.Equal(t, []int{2, 3, 2}, counts())
	b.ok(t, `mutation($id: ID!, $bob: ID!) {
		a: updateThread(id: $id, expectedVersion: 3, input: {subject: "a"}, onConflict: MERGE) { version }
		b: updateThread(id: $id, expectedVersion: 3, input: {removeMemberIDs: [$bob]}, onConflict: MERGE) { version } }`, "id", id, "bob", bob)
	require.Equal(t, []int{4, 5, 4}, counts())
}

// MERGE costs nothing where there is nothing to merge.
func TestStatementsOfMerges(t *testing.T) {
	t.Parallel()
	b := setup(t, oneConnection)
	bob, eve := b.user(t, "bob"), b.user(t, "eve")
	trips := func(document string, vars ...any) int {
		t.Helper()
		b.trace.reset()
		b.ok(t, document, vars...)
		_, n := b.trace.statements()
		return n
	}
	const document = `mutation($id: ID!, $version: Int!, $input: UpdateThreadInput!, $how: OnConflict!) {
		updateThread(id: $id, expectedVersion: $version, input: $input, onConflict: $how) { version } }`
	for _, c := range []struct {
		name            string
		input           object
		merged, without int
	}{
		{"a field", object{"subject": "mine"}, 6, 1}, // the write that finds another version; the lock; the record; the log; the write; COMMIT
		{"links", object{"addMemberIDs": []string{eve.String()}}, 0, 0},
	} {
		var got [3]int
		for range 2 { // the second time all is prepared
			for i, how := range []string{"FAIL", "MERGE"} {
				got[i] = trips(document, "id", b.thread(t, "x"), "version", 1, "input", c.input, "how", how)
			}
			id := b.thread(t, "x")
			b.sql(t, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2)`, id.UUID, bob.UUID)
			got[2] = trips(document, "id", id, "version", 1, "input", c.input, "how", "MERGE")
		}
		require.Equal(t, got[0], got[1], c.name)
		if c.without > 0 {
			require.Equal(t, [3]int{c.without, c.without, c.merged}, got, c.name)
		}
	}
}

// Any number of writers of one version, each of a field of its own, all succeed; of those of one field with different values one.
func TestManyMerge(t *testing.T) {
	t.Parallel()
	const writers = 32
	for _, c := range []struct {
		name    string
		input   func(i int) record.Input
		version int
	}{
		{"own fields", func(i int) record.Input { return record.Input{fmt.Sprint("c", i): i} }, writers + 1},
		{"the same value", func(int) record.Input { return record.Input{"c0": 1} }, writers + 1},
		{"other values", func(i int) record.Input { return record.Input{"c0": i} }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSheets(t)
			id := s.add(t)
			var wg sync.WaitGroup
			start := make(chan struct{})
			for i := range writers {
				wg.Go(func() {
					<-start
					if err := s.merge(id, 1, c.input(i)); err != nil && (c.version > 2 || !conflicts(err)) {
						t.Error(err)
					}
				})
			}
			close(start)
			wg.Wait()
			row := s.row(t, id)
			require.Equal(t, c.version, row.Version)
			if c.name == "own fields" {
				for i := range writers {
					require.Equal(t, i, *row.field(fmt.Sprint("c", i)).Interface().(*int))
				}
			}
		})
	}
}

// The same over the API, with links.
func TestManyMergeLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const writers = 32
	var users []record.ID
	for i := range writers {
		users = append(users, b.user(t, fmt.Sprint("user", i)))
	}
	half := users[:writers/2]
	id := b.thread(t, "x", half...)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i, u := range append(users, record.ID{}) {
		input := object{"addMemberIDs": []string{u.String()}}
		switch {
		case i == writers:
			input = object{"subject": "new"}
		case i < len(half):
			input = object{"removeMemberIDs": []string{u.String()}}
		}
		wg.Go(func() {
			<-start
			a, err := b.post(context.Background(), "", encode(mergeThread, []any{"id", id, "version", 1, "input", input}))
			if err != nil || len(a.Errors) > 0 {
				t.Error(err, a.raw)
			}
		})
	}
	close(start)
	wg.Wait()
	require.Equal(t, writers+2, b.version(t, id))
	require.Equal(t, "new", b.subject(t, id))
	var want []uuid.UUID
	for _, u := range users[len(half):] {
		want = append(want, u.UUID)
	}
	require.ElementsMatch(t, want, one[[]uuid.UUID](t, b, `SELECT array_agg(user_id) FROM thread_members WHERE thread_id = $1`, id.UUID))
}

// Values are the same if clients cannot tell them apart.
func TestMergeOfTheSameValue(t *testing.T) {
	t.Parallel()
	s := newSheets(t)
	for _, c := range []struct {
		field       string
		theirs      any
		same, other []any // the first of other is what there was before
	}{
		{"c0", 1, []any{1, json.Number("1")}, []any{2, nil}},
		{"c1", nil, []any{nil}, []any{0}},
		{"label", "a", []any{"a"}, []any{"A", "", nil}},
		{"label", "", []any{""}, []any{nil}},
		{"score", 0.1, []any{0.1}, []any{0.10000000000000002}},
		{"done", false, []any{false}, []any{true, nil}},
		{"at", "2026-01-01T00:00:00.1234567Z", []any{"2026-01-01T01:00:00.123456+01:00"}, []any{"2026-01-01T00:00:00.123457Z", nil}},
		{"mood", "sad", []any{"sad"}, []any{"happy", nil}},
		{"tags", []any{"a", "b"}, []any{[]any{"a", "b"}}, []any{[]any{"b", "a"}, []any{}, nil}},
		{"tags", []any{}, []any{[]any{}}, []any{nil}},
		{"data", object{"b": 1, "a": []any{1.5, nil}}, []any{object{"a": []any{1.5, nil}, "b": 1.0}}, []any{object{"a": []any{1.5}, "b": 1}, object{}}},
	} {
		for i, mine := range slices.Concat(c.same, c.other) {
			name := fmt.Sprintf("%s: theirs %v, mine %v", c.field, c.theirs, mine)
			id := s.add(t)
			require.NoError(t, s.merge(id, 1, record.Input{c.field: c.other[0]}), name)
			require.NoError(t, s.merge(id, 2, record.Input{c.field: c.theirs}), name)
			err := s.merge(id, 2, record.Input{c.field: mine})
			if i < len(c.same) {
				require.NoError(t, err, name)
				require.Equal(t, 4, s.row(t, id).Version, name)
			} else {
				require.True(t, conflicts(err), "%s: %v", name, err)
			}
			require.NoError(t, s.merge(id, 1, record.Input{"c31": 1}), name)
		}
	}
}

func conflicts(err error) bool {
	var e *record.Error
	return errors.As(err, &e) && e.Code == record.Conflict
}

// sheet has many columns, and one of each kind.
type sheet struct {
	ID      uuid.UUID
	Version int
	C0, C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13, C14, C15,
	C16, C17, C18, C19, C20, C21, C22, C23, C24, C25, C26, C27, C28, C29, C30, C31 *int
	Label *string
	Score *float64
	Done  *bool
	At    *time.Time
	Mood  *mood
	Tags  []string
	Data  map[string]any
}

func (n *sheet) field(column string) reflect.Value {
	return reflect.ValueOf(n).Elem().FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, column) })
}

func (n *sheet) ScanTargets(columns []string) ([]any, error) {
	targets := make([]any, len(columns))
	for i, c := range columns {
		targets[i] = reflect.New(n.field(c).Type()).Interface()
	}
	return targets, nil
}

func (n *sheet) AssignRow(columns []string, targets []any) error {
	for i, c := range columns {
		n.field(c).Set(reflect.ValueOf(targets[i]).Elem())
	}
	return nil
}

// sheets is a table of them, with the change log, and its store.
type sheets struct {
	pool  *pgxpool.Pool
	store *record.Store
}

func newSheets(t *testing.T) *sheets {
	t.Helper()
	s := &sheets{pool: dbtest.New(t)}
	kinds := map[string]string{"ID": "uuid", "Version": "bigint", "Label": "text", "Score": "double precision", "Done": "boolean", "At": "timestamptz", "Mood": "text",
		"Tags": "jsonb", "Data": "jsonb"}
	fields := map[string]record.Field{"ID": {Kind: record.UUID}, "Version": {Kind: record.Int}, "Label": {Kind: record.String}, "Score": {Kind: record.Float},
		"Done": {Kind: record.Bool}, "At": {Kind: record.Time}, "Mood": {Kind: record.Enum, Type: reflect.TypeFor[mood]()},
		"Tags": {Kind: record.JSON, Type: reflect.TypeFor[[]string]()}, "Data": {Kind: record.JSON, Type: reflect.TypeFor[map[string]any]()}}
	e := &record.Entity{Name: "Sheet", Prefix: "sheet", List: "sheets", Table: "sheets"}
	var columns, definitions []string
	for f := range reflect.TypeFor[sheet]().Fields() {
		d, ok := fields[f.Name]
		if !ok {
			d.Kind = record.Int
		}
		d.Name, d.Go, d.Use, d.Nullable = strings.ToLower(f.Name), f.Name, record.InType|record.InUpdate, true
		d.Column = d.Name
		e.Fields = append(e.Fields, d)
		columns = append(columns, d.Column)
		definitions = append(definitions, d.Column+" "+cmp.Or(kinds[f.Name], "bigint"))
	}
	for _, statement := range []string{`CREATE TABLE sheets (` + strings.Join(definitions, ", ") + `, PRIMARY KEY (id))`, `SELECT changelog_track('sheets', 'sheet')`} {
		_, err := s.pool.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	s.store = record.NewStore(e, record.Model{
		New:     func() record.Node { return &sheet{} },
		Hooked:  func() bool { return false },
		Invalid: func(error) (string, bool) { return "", false },
		Update: func(ctx context.Context, drv dialect.Driver, id uuid.UUID, version int, v *record.Values, _ func(*sql.Selector)) (record.Node, error) {
			set, args := []string{"version = version"}, []any{id, version}
			for _, a := range v.Set {
				args = append(args, a.Value)
				set = append(set, fmt.Sprint(a.Column, " = $", len(args)))
			}
			for _, column := range v.Clear {
				set = append(set, column+" = NULL")
			}
			rows := &sql.Rows{}
			if err := drv.Query(ctx, `UPDATE sheets SET `+strings.Join(set, ", ")+` WHERE id = $1 AND version = $2 RETURNING `+strings.Join(columns, ", "), args, rows); err != nil {
				return nil, err
			}
			defer func() { _ = rows.Close() }()
			if !rows.Next() {
				return nil, cmp.Or(rows.Err(), record.ErrNoRow)
			}
			n := &sheet{}
			targets, _ := n.ScanTargets(columns)
			if err := rows.Scan(targets...); err != nil {
				return nil, err
			}
			return n, n.AssignRow(columns, targets)
		},
	})
	_, err := record.NewEngine(entpgx.Open(s.pool), []*record.Store{s.store}, &record.Config{Unrestricted: true})
	require.NoError(t, err)
	return s
}

func (s *sheets) add(t *testing.T) uuid.UUID {
	t.Helper()
	id := entity.NewID()
	_, err := s.pool.Exec(t.Context(), `INSERT INTO sheets (id) VALUES ($1)`, id)
	require.NoError(t, err)
	return id
}

func (s *sheets) row(t *testing.T, id uuid.UUID) *sheet {
	t.Helper()
	rows, _ := s.pool.Query(t.Context(), `SELECT * FROM sheets WHERE id = $1`, id)
	n, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[sheet])
	require.NoError(t, err)
	return n
}

// merge updates a sheet, as a resolver does outside of an operation.
func (s *sheets) merge(id uuid.UUID, version int, in record.Input) error {
	op := &ast.OperationDefinition{Operation: ast.Mutation}
	ctx := graphql.WithOperationContext(context.Background(), &graphql.OperationContext{Operation: op})
	ctx = graphql.WithResponseContext(ctx, graphql.DefaultErrorPresenter, graphql.DefaultRecover)
	ctx = graphql.WithFieldContext(ctx, &graphql.FieldContext{Field: graphql.CollectedField{Field: &ast.Field{Alias: "updateSheet"}}})
	_, err := record.Update(ctx, s.store, record.ID{Prefix: "sheet", UUID: id}, version, in, new(record.Merge))
	return err
}
