package record_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/ent"
	"godstack/internal/entity"
	"godstack/internal/record"
)

const updateTwo = `mutation($a: ID!, $b: ID!, $version: Int!) {
	first: updateThread(id: $a, expectedVersion: 1, input: {subject: "first"}) { id version }
	second: updateThread(id: $b, expectedVersion: $version, input: {subject: "second"}) { id version }
	third: createThread(input: {subject: "third"}) { id version }
}`

func TestOperationIsOneTransaction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	x, y := b.thread(t, "x"), b.thread(t, "y")

	err := b.fails(t, updateTwo, "a", x, "b", y, "version", 7)
	require.Equal(t, "CONFLICT", err.code())
	require.Equal(t, "second", err.path())
	require.Equal(t, "x", b.subject(t, x), "the first field is rolled back")
	require.Equal(t, 1, b.version(t, x))
	require.Equal(t, 2, one[int](t, b, `SELECT count(*) FROM threads`), "the third field is not executed")
	require.Equal(t, 0, one[int](t, b, `SELECT count(*) FROM changes WHERE op = 'U'`))

	a := b.ok(t, updateTwo, "a", x, "b", y, "version", 1)
	require.Equal(t, 2, a.number(t, "second.version"))
	require.Equal(t, 1, one[int](t, b, `SELECT count(DISTINCT xid) FROM changes WHERE op = 'U' OR id = $1`, threadID(t, a.text(t, "third.id"))))
	require.Equal(t, []string{"first", "second", "third"}, one[[]string](t, b, `SELECT array_agg(subject::text ORDER BY subject) FROM threads`))

	// A later field sees what an earlier one wrote, loaded before or not.
	a = b.ok(t, `mutation($a: ID!) {
		one: updateThread(id: $a, expectedVersion: 2, input: {subject: "two"}) { owner { ownedThreads { totalCount } } }
		two: createThread(input: {subject: "new"}) { owner { ownedThreads { totalCount } } }
		three: updateThread(id: $a, expectedVersion: 3, input: {subject: "three"}) { version }
	}`, "a", x)
	require.Equal(t, 3, a.number(t, "one.owner.ownedThreads.totalCount"))
	require.Equal(t, 4, a.number(t, "two.owner.ownedThreads.totalCount"))
	require.Equal(t, 4, a.number(t, "three.version"))
}

// Whatever makes a root field fail, the operation's first field is not there afterwards.
func TestEveryFailureOfARootFieldRollsBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	x := b.thread(t, "x")
	for _, c := range []struct{ name, field, code string }{
		{"not found", `deleteThread(id: "` + entity.NewID().String() + `", expectedVersion: 1) { version }`, "NOT_FOUND"},
		{"bad id", `deleteThread(id: "x", expectedVersion: 1) { version }`, "BAD_USER_INPUT"},
		{"bad version", `deleteThread(id: "` + x.String() + `", expectedVersion: 0) { version }`, "BAD_USER_INPUT"},
		{"validator", `createThread(input: {subject: ""}) { id }`, "BAD_USER_INPUT"},
		{"constraint", `createUser(input: {email: "ada@example.com", username: "new", name: "x"}) { id }`, "ALREADY_EXISTS"},
		{"foreign key", `createMessage(input: {body: "x", threadID: "` + entity.NewID().String() + `"}) { id }`, "BAD_USER_INPUT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := b.fails(t, `mutation($x: ID!) { a: updateThread(id: $x, expectedVersion: 1, input: {subject: "new"}) { id }
				b: `+c.field+` c: createThread(input: {subject: "c"}) { id } }`, "x", x)
			require.Equal(t, c.code, err.code(), err.Message)
			require.Equal(t, "b", err.path())
			require.Equal(t, 1, b.version(t, x))
			require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM threads`))
		})
	}
}

func TestAnErrorInTheSelectionRollsNothingBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	x, y := b.thread(t, "x"), b.thread(t, "y")
	const wrong = `{ version owner { id ownedThreads(first: -1) { totalCount } } }`
	owner := `{"id": "` + b.ada.String() + `", "ownedThreads": null}`
	a := b.do(t, `mutation($id: ID!) { updateThread(id: $id, expectedVersion: 1, input: {subject: "new"}) `+wrong+` }`, "id", x)
	require.Len(t, a.Errors, 1, a.raw)
	require.Equal(t, "BAD_USER_INPUT", a.Errors[0].code())
	require.Equal(t, "updateThread.owner.ownedThreads", a.Errors[0].path())
	require.JSONEq(t, `{"updateThread": {"version": 2, "owner": `+owner+`}}`, string(a.Data))
	require.Equal(t, "new", b.subject(t, x))

	a = b.do(t, `mutation($x: ID!, $y: ID!) {
		first: updateThread(id: $x, expectedVersion: 2, input: {subject: "newer"}) `+wrong+`
		second: updateThread(id: $y, expectedVersion: 1, input: {subject: "new"}) { version }
	}`, "x", x, "y", y)
	require.Len(t, a.Errors, 1, a.raw)
	require.JSONEq(t, `{"first": {"version": 3, "owner": `+owner+`}, "second": {"version": 2}}`, string(a.Data))
	require.Equal(t, "newer", b.subject(t, x))
	require.Equal(t, "new", b.subject(t, y))
}

// Where a selection's statement fails, Postgres ends the operation's transaction: nothing was written, and trying again is safe.
func TestASelectionThatAbortsTheTransaction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	x := b.thread(t, "x")
	b.sql(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = 50', current_database()); END $$`)
	b.Reset()
	other := b.other(t)
	_, err := other.Exec(t.Context(), `LOCK TABLE messages`)
	require.NoError(t, err)
	const reads = `updateThread(id: $x, expectedVersion: 1, input: {subject: "new"}) { messages { totalCount } }`
	for _, document := range []string{
		`mutation($x: ID!) { a: createThread(input: {subject: "a"}) { id } b: ` + reads + ` }`,
		`mutation($x: ID!) { b: ` + reads + ` a: createThread(input: {subject: "a"}) { id } }`,
	} {
		err := b.fails(t, document, "x", x)
		require.Equal(t, "UNAVAILABLE", err.code(), err.Message)
		require.NotEmpty(t, err.Extensions["retryAfter"])
		require.Equal(t, 1, b.version(t, x))
		require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM threads`))
	}
}

// A hand-written field may answer null: without an error that is no failure.
func TestNullIsNoFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	op := record.Operation{Engine: b.stores.Engine}
	fields := ast.SelectionSet{&ast.Field{Name: "a", Alias: "a"}, &ast.Field{Name: "b", Alias: "b"}}
	for _, wrong := range []error{nil, errors.New("wrong")} {
		ctx := graphql.WithOperationContext(t.Context(), &graphql.OperationContext{
			Operation: &ast.OperationDefinition{Operation: ast.Mutation, SelectionSet: fields},
		})
		ctx = graphql.WithResponseContext(ctx, graphql.DefaultErrorPresenter, graphql.DefaultRecover)
		executed := 0
		resp := op.InterceptResponse(ctx, func(ctx context.Context) *graphql.Response {
			for _, f := range fields {
				f := graphql.CollectedField{Field: f.(*ast.Field)}
				op.InterceptRootField(graphql.WithRootFieldContext(ctx, &graphql.RootFieldContext{Field: f}), func(ctx context.Context) graphql.Marshaler {
					executed++
					graphql.AddError(ctx, wrong)
					return graphql.Null
				})
			}
			return &graphql.Response{Data: []byte(`{}`), Errors: graphql.GetErrors(ctx)}
		})
		if wrong == nil {
			require.Equal(t, 2, executed)
			require.Equal(t, "{}", string(resp.Data))
		} else {
			require.Equal(t, 1, executed)
			require.Equal(t, "null", string(resp.Data))
		}
	}
}

func TestTheActorIsLogged(t *testing.T) {
	t.Parallel()
	b := setup(t, oneConnection)
	bob := b.user(t, "bob")
	x := b.thread(t, "x")
	last := func() *string {
		return one[*string](t, b, `SELECT actor FROM changes ORDER BY seq DESC LIMIT 1`)
	}
	leaked := func() string {
		return one[string](t, b, `SELECT coalesce(current_setting('godstack.actor', true), '')`)
	}
	require.Nil(t, last(), "nobody is named for what is typed by hand")

	b.as(t, bob.UUID.String(), updateThread, "id", x, "version", 1, "input", object{"subject": "implicit"})
	require.Equal(t, bob.UUID.String(), *last())
	require.Empty(t, leaked())

	b.as(t, bob.UUID.String(), updateThread, "id", x, "version", 2, "input", object{"addMemberIDs": []string{bob.String()}})
	require.Equal(t, bob.UUID.String(), *last())
	require.Empty(t, leaked())

	b.ok(t, `mutation { a: createThread(input: {subject: "explicit"}) { id } b: createThread(input: {subject: "explicit"}) { id } }`)
	require.Equal(t, []string{b.ada.UUID.String(), b.ada.UUID.String()},
		one[[]string](t, b, `SELECT array_agg(actor) FROM (SELECT actor FROM changes ORDER BY seq DESC LIMIT 2) c`))
	require.Empty(t, leaked())

	b.as(t, "-", updateThread, "id", x, "version", 3, "input", object{"subject": "by nobody"})
	require.Nil(t, last())
	b.as(t, bob.UUID.String(), updateThread, "id", x, "version", 1, "input", object{"subject": "refused"})
	require.Empty(t, leaked())
	b.as(t, bob.UUID.String(), deleteThread, "id", x, "version", 4)
	require.Equal(t, bob.UUID.String(), *last())
	require.Equal(t, 4, one[int](t, b, `SELECT count(*) FROM changes WHERE actor = $1`, bob.UUID.String())+1,
		"two updates and a delete, of the cascade's link no row of its own")
}

// blocked waits until a statement of the pool waits for a lock.
func (b *bundle) blocked(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		return one[int](t, b, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
	}, 10*time.Second, 5*time.Millisecond)
}

// other begins a transaction on a connection of its own.
func (b *bundle) other(t *testing.T) pgx.Tx {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.Config().ConnString())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(t.Context(), `SET deadlock_timeout = '1min'`)
	require.NoError(t, err)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	return tx
}

func TestAWriteInTheWayIsUnavailable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		// meet makes the operation, which has written x and waits for y, fail.
		meet func(ctx context.Context, other pgx.Tx, x any) error
	}{
		{"deadlock", func(ctx context.Context, other pgx.Tx, x any) error {
			_, err := other.Exec(ctx, `UPDATE threads SET subject = 'other' WHERE id = $1`, x)
			return errors.Join(err, other.Rollback(ctx))
		}},
		{"serialization failure", func(ctx context.Context, other pgx.Tx, _ any) error { return other.Commit(ctx) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			if c.name != "deadlock" {
				b.sql(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = "repeatable read"', current_database()); END $$`)
				b.Reset()
			}
			x, y := b.thread(t, "x"), b.thread(t, "y")
			other := b.other(t)
			_, err := other.Exec(t.Context(), `UPDATE threads SET subject = 'other' WHERE id = $1`, y.UUID)
			require.NoError(t, err)

			answered := make(chan answer, 1)
			body := encode(updateTwo, []any{"a", x, "b", y, "version", 1})
			go func() {
				a, err := b.post(context.Background(), "", body)
				if err != nil {
					t.Error(err)
				}
				answered <- a
			}()
			b.blocked(t)
			require.NoError(t, c.meet(t.Context(), other, x.UUID))
			a := <-answered
			require.Len(t, a.Errors, 1, a.raw)
			require.Equal(t, "null", string(a.Data))
			require.Equal(t, "UNAVAILABLE", a.Errors[0].code(), a.raw)
			require.Equal(t, "second", a.Errors[0].path())
			require.NotEmpty(t, a.Errors[0].Extensions["retryAfter"])
			require.Equal(t, "x", b.subject(t, x))
			require.Equal(t, 2, one[int](t, b, `SELECT count(*) FROM threads`))
		})
	}
}

// What fails at COMMIT fails the operation: its answer leaves afterwards.
func TestTheAnswerLeavesAfterCommit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sql(t, `ALTER TABLE threads ADD CONSTRAINT one_subject UNIQUE (subject) DEFERRABLE INITIALLY DEFERRED`)
	x, y := b.thread(t, "x"), b.thread(t, "y")
	for _, c := range []struct{ name, document string }{
		{"implicit", `mutation($x: ID!) { updateThread(id: $x, expectedVersion: 1, input: {subject: "y"}) { id } }`},
		{"explicit", `mutation($x: ID!) { a: updateThread(id: $x, expectedVersion: 1, input: {subject: "y"}) { id } b: createThread(input: {subject: "z"}) { id } }`},
	} {
		err := b.fails(t, c.document, "x", x)
		require.Equal(t, "ALREADY_EXISTS", err.code(), c.name)
		require.Equal(t, 1, b.version(t, x), c.name)
		require.Equal(t, 2, one[int](t, b, `SELECT count(*) FROM threads`), c.name)
	}
	// Within the transaction it may be violated.
	b.ok(t, `mutation($x: ID!, $y: ID!) { a: updateThread(id: $x, expectedVersion: 1, input: {subject: "y"}) { id }
		b: updateThread(id: $y, expectedVersion: 1, input: {subject: "x"}) { id } }`, "x", x, "y", y)
	require.Equal(t, "y", b.subject(t, x))
}

// An operation whose connection is lost has not succeeded.
func TestALostConnectionIsUnavailable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	x, y := b.thread(t, "x"), b.thread(t, "y")
	other := b.other(t)
	_, err := other.Exec(t.Context(), `UPDATE threads SET subject = 'other' WHERE id = $1`, y.UUID)
	require.NoError(t, err)
	answered := make(chan answer, 1)
	body := encode(updateTwo, []any{"a", x, "b", y, "version", 1})
	go func() {
		a, err := b.post(context.Background(), "", body)
		if err != nil {
			t.Error(err)
		}
		answered <- a
	}()
	b.blocked(t)
	b.sql(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
	a := <-answered
	require.Len(t, a.Errors, 1, a.raw)
	require.Equal(t, "null", string(a.Data))
	require.Equal(t, "UNAVAILABLE", a.Errors[0].code(), a.raw)
	require.NoError(t, other.Rollback(t.Context()))
	require.Equal(t, "x", b.subject(t, x))
}

// Hooks that an application registers on the ent client run in the write's transaction.
func TestHooks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.user(t, "bob")
	refuse := errors.New("refused by the hook")
	hook := func(next ent.Mutator) ent.Mutator {
		return ent.MutateFunc(func(ctx context.Context, m ent.Mutation) (ent.Value, error) {
			v, err := next.Mutate(ctx, m)
			if err != nil {
				return nil, err
			}
			client := m.(interface{ Client() *ent.Client }).Client()
			if err := client.User.UpdateOneID(bob.UUID).SetName("hooked by " + m.Op().String()).Exec(ctx); err != nil {
				return nil, err
			}
			if subject, _ := m.Field("subject"); subject == "bad" {
				return nil, refuse
			}
			return v, nil
		})
	}
	b.client.Thread.Use(hook)
	b.client.Message.Use(hook)
	xid := func() int {
		return one[int](t, b, `SELECT count(DISTINCT xid) FROM changes WHERE seq > (SELECT max(seq) - 2 FROM changes)`)
	}
	name := func() string { return one[string](t, b, `SELECT name FROM users WHERE id = $1`, bob.UUID) }

	a := b.ok(t, `mutation { createThread(input: {subject: "good"}) { id } }`)
	require.Equal(t, "hooked by OpCreate", name())
	require.Equal(t, 1, xid(), "both are one transaction")
	id := a.text(t, "createThread.id")
	b.ok(t, updateThread, "id", id, "version", 1, "input", object{"subject": "better"})
	require.Equal(t, "hooked by OpUpdateOne", name())
	require.Equal(t, 1, xid())
	require.Equal(t, b.ada.UUID.String(), one[string](t, b, `SELECT actor FROM changes ORDER BY seq DESC LIMIT 1`))

	err := b.fails(t, updateThread, "id", id, "version", 2, "input", object{"subject": "bad"})
	require.Equal(t, "INTERNAL", err.code(), "an error that is not the API's stays inside")
	require.NotContains(t, err.Message, "hook")
	require.Equal(t, "better", one[string](t, b, `SELECT subject FROM threads`))
	require.Equal(t, 3, one[int](t, b, `SELECT version FROM users WHERE id = $1`, bob.UUID), "the hook's statement is rolled back as well")
	err = b.fails(t, `mutation { createThread(input: {subject: "bad"}) { id } }`)
	require.Equal(t, "INTERNAL", err.code())
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM threads`))

	// The version is checked before the hook's statement counts.
	require.Equal(t, "CONFLICT", b.fails(t, updateThread, "id", id, "version", 1, "input", object{"subject": "late"}).code())
	words := b.message(t, record.ID{Prefix: "thread", UUID: threadID(t, id)}, "words")
	b.ok(t, deleteMessage, "id", words, "version", 1)
	require.Equal(t, "hooked by OpDelete", name())
	// A deletion that can be undone is an update, and so is its end.
	b.ok(t, deleteThread, "id", id, "version", 2)
	require.Equal(t, "hooked by OpUpdateOne", name())
	require.Equal(t, 1, xid())
	b.sql(t, `UPDATE users SET name = 'bob' WHERE id = $1`, bob.UUID)
	require.Equal(t, "NOT_FOUND", b.fails(t, deleteThread, "id", id, "version", 3).code())
	require.Equal(t, "bob", name())
	b.ok(t, restoreThread, "id", id, "version", 3)
	require.Equal(t, "hooked by OpUpdateOne", name())
}

func TestStatementsOfWrites(t *testing.T) {
	t.Parallel()
	b := setup(t, oneConnection)
	x := b.thread(t, "x")
	count := func(document string, vars ...any) (statements, roundTrips int) {
		t.Helper()
		b.trace.reset()
		b.do(t, document, vars...)
		pipelines, roundTrips := b.trace.statements()
		for _, p := range pipelines {
			statements += len(p)
			for _, s := range p {
				require.NotContains(t, s, "begin")
			}
		}
		return statements, roundTrips
	}
	const (
		create = `mutation($s: String!) { createThread(input: {subject: $s}) { id version subject } }`
		update = `mutation($id: ID!, $v: Int!) { updateThread(id: $id, expectedVersion: $v, input: {subject: "new"}) { id version subject createdAt } }`
		remove = `mutation($id: ID!, $v: Int!) { deleteThread(id: $id, expectedVersion: $v) { version } }`
	)
	other := b.thread(t, "other")
	for i := range 2 { // the second time all is prepared
		for _, c := range []struct {
			name, document         string
			vars                   []any
			statements, roundTrips int
		}{
			{"create", create, []any{"s", fmt.Sprint("x", i)}, 2, 1},
			{"update", update, []any{"id", x, "v", 1 + i}, 1, 1},
			{"delete", remove, []any{"id", []any{other, x}[i], "v", []int{1, 3}[i]}, 1, 1},
			{"conflict", update, []any{"id", x, "v", 7}, []int{3, 2}[i], []int{3, 2}[i]},
		} {
			statements, roundTrips := count(c.document, c.vars...)
			if i == 1 || c.name != "conflict" {
				require.Equal(t, c.statements, statements, c.name)
			}
			if i == 1 {
				require.Equal(t, c.roundTrips, roundTrips, c.name)
			}
		}
	}
}
