package record_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/ent"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// held has the first write of a thread wait, in its transaction, until release is called; there says that it does.
func (b *bundle) held(t *testing.T) (there <-chan struct{}, release func()) {
	t.Helper()
	arrived, released := make(chan struct{}), make(chan struct{})
	var passed atomic.Bool
	b.client.Thread.Use(func(next ent.Mutator) ent.Mutator {
		return ent.MutateFunc(func(ctx context.Context, m ent.Mutation) (ent.Value, error) {
			if passed.CompareAndSwap(false, true) {
				close(arrived)
				<-released
			}
			return next.Mutate(ctx, m)
		})
	})
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	return arrived, release
}

// at waits until so many have a key of ada's, or wait for it, on this node.
func (b *bundle) at(t *testing.T, key string, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return b.stores.AtKey(b.ada.UUID, key) == n }, 10*time.Second, time.Millisecond)
}

// queued waits until so many statements wait for locks.
func (b *bundle) queued(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return one[int](t, b, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == n
	}, 10*time.Second, 5*time.Millisecond)
}

// inUse is the one answer to who has waited for a key in vain.
func inUse(t *testing.T, a answer) {
	t.Helper()
	require.Len(t, a.Errors, 1, a.raw)
	require.Equal(t, "UNAVAILABLE", a.Errors[0].code(), a.raw)
	require.Equal(t, "another request with this idempotency key is still under way", a.Errors[0].Message)
	require.EqualValues(t, 1, a.Errors[0].Extensions["retryAfter"])
}

// goSend sends a request and tells what came of it.
func (b *bundle) goSend(t *testing.T, r request) <-chan answer {
	t.Helper()
	answered := make(chan answer, 1)
	go func() {
		a, err := b.send(r)
		if err != nil {
			t.Error(err)
		}
		answered <- a
	}()
	return answered
}

// However many wait for one key on a node, they hold no connection: of two there is one for everybody else.
func TestWhoWaitsForAKeyHoldsNoConnection(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *options) { o.conns = 2 })
	there, release := b.held(t)
	r := request{header: []string{"k"}, document: create, vars: object{"s": "x"}}
	const n = 50
	answered := []<-chan answer{b.goSend(t, r)}
	<-there
	for range n - 1 {
		answered = append(answered, b.goSend(t, r))
	}
	b.at(t, "k", n)
	for range 10 {
		b.ok(t, `{ threads { totalCount } }`)
		b.sent(t, request{header: []string{"other"}, document: create, vars: object{"s": "y"}})
	}
	require.EqualValues(t, 1, b.Stat().AcquiredConns())
	release()
	first := <-answered[0]
	require.Empty(t, first.Errors, first.raw)
	for _, a := range answered[1:] {
		requireReplayed(t, first, <-a)
	}
	b.at(t, "k", 0)
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM threads WHERE subject = 'x'`))
}

// Where the first fails, the next takes its place.
func TestTheNextTakesThePlaceOfAFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	there, release := b.held(t)
	r := request{header: []string{"k"}, document: create, vars: object{"s": "x"}}
	first := b.goSend(t, r)
	<-there
	second, third := b.goSend(t, r), b.goSend(t, r)
	b.at(t, "k", 3)
	b.sql(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'`)
	release()
	lost := <-first
	require.Len(t, lost.Errors, 1, lost.raw)
	require.Equal(t, "UNAVAILABLE", lost.Errors[0].code(), lost.raw)
	require.EqualValues(t, 1, lost.Errors[0].Extensions["retryAfter"], "with a key it is safe to try again whatever became of it")
	done, told := <-second, <-third
	require.Empty(t, done.Errors, done.raw)
	require.Empty(t, told.Errors, told.raw)
	require.Equal(t, string(done.Data), string(told.Data))
	require.NotEqual(t, done.extensions(t).Replayed, told.extensions(t).Replayed, "one of them did it")
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM threads`))
}

// Who waits is told to try again after a while, on the same node and on another, and what they waited for goes on.
func TestAKeyIsNotWaitedForForever(t *testing.T) {
	t.Parallel()
	soon := func(o *options) { o.engine = func(c *record.Config) { c.KeyWait = 20 * time.Millisecond } }
	b := setup(t, soon)
	other := b.beside(t, soon)
	there, release := b.held(t)
	r := request{header: []string{"k"}, document: create, vars: object{"s": "x"}}
	first := b.goSend(t, r)
	<-there
	inUse(t, <-b.goSend(t, r))
	inUse(t, <-other.goSend(t, r))
	release()
	done := <-first
	require.Empty(t, done.Errors, done.raw)
	requireReplayed(t, done, b.sent(t, r))
	requireReplayed(t, done, other.sent(t, r))
}

// Only the wait for the key is bounded: what the operation waits for is the database's to say. That its transaction may not stand idle
// holds to its end.
func TestSettingsOfAKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ lock, idle, wantLock, wantIdle string }{
		{"0", "0", "0", "30s"},
		{"1min", "1h", "1min", "30s"},
		{"2s", "3s", "2s", "3s"},
	} {
		b := setup(t)
		b.sql(t, fmt.Sprintf(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET lock_timeout = %q', current_database());
			EXECUTE format('ALTER DATABASE %%I SET idle_in_transaction_session_timeout = %q', current_database()); END $$`, c.lock, c.idle))
		b.Reset()
		var lock, idle string
		b.client.Thread.Use(func(next ent.Mutator) ent.Mutator {
			return ent.MutateFunc(func(ctx context.Context, m ent.Mutation) (ent.Value, error) {
				tx, err := record.Tx(ctx)
				if err != nil {
					return nil, err
				}
				err = tx.QueryRow(ctx, `SELECT current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')`).Scan(&lock, &idle)
				if err != nil {
					return nil, err
				}
				return next.Mutate(ctx, m)
			})
		})
		b.sent(t, request{header: []string{"k"}, document: create, vars: object{"s": "x"}})
		require.Equal(t, []string{c.wantLock, c.wantIdle}, []string{lock, idle}, c)
		require.Equal(t, c.idle, one[string](t, b, `SELECT current_setting('idle_in_transaction_session_timeout')`), "and no longer")
	}
}

// A node that vanishes in the midst of a mutation, with its connection as it was, does not keep the key: another carries the mutation out.
func TestAVanishedNodeLeavesItsKeys(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *options) { o.engine = func(c *record.Config) { c.KeyIdle = 20 * time.Millisecond } })
	other := b.beside(t)
	there, release := b.held(t)
	r := request{header: []string{"k"}, document: create, vars: object{"s": "x"}}
	first := b.goSend(t, r)
	<-there
	done := other.sent(t, r)
	require.False(t, done.extensions(t).Replayed)
	release() // it comes back
	lost := <-first
	require.Len(t, lost.Errors, 1, lost.raw)
	require.Equal(t, "UNAVAILABLE", lost.Errors[0].code(), lost.raw)
	require.EqualValues(t, 1, lost.Errors[0].Extensions["retryAfter"])
	requireReplayed(t, done, other.sent(t, r))
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM threads`))
}

// Who sends a key on another node while the first is under way waits for it. Where the first fails, as its connection is lost, the next
// does it.
func TestDuplicatesWaitForTheFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	x := b.thread(t, "x")
	other := b.other(t)
	_, err := other.Exec(t.Context(), `UPDATE threads SET subject = 'other' WHERE id = $1`, x.UUID)
	require.NoError(t, err)
	r := request{header: []string{"k"}, document: updateThread, vars: object{"id": x.String(), "version": 1, "input": object{"subject": "new"}}}
	first := b.goSend(t, r)
	b.queued(t, 1)
	pid := one[int](t, b, `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
	second := b.beside(t).goSend(t, r)
	b.queued(t, 2)
	third := b.beside(t).goSend(t, r)
	b.queued(t, 3)
	b.sql(t, `SELECT pg_terminate_backend($1)`, pid)
	lost := <-first
	require.Len(t, lost.Errors, 1, lost.raw)
	require.Equal(t, "UNAVAILABLE", lost.Errors[0].code(), lost.raw)
	require.EqualValues(t, 1, lost.Errors[0].Extensions["retryAfter"])
	b.queued(t, 2)
	require.NoError(t, other.Rollback(t.Context()))
	done, told := <-second, <-third
	require.Empty(t, done.Errors, done.raw)
	require.Empty(t, told.Errors, told.raw)
	require.Equal(t, string(done.Data), string(told.Data))
	require.NotEqual(t, done.extensions(t).Replayed, told.extensions(t).Replayed, "one of them did it")
	require.Equal(t, 2, b.version(t, x))
	requireReplayed(t, done, b.sent(t, r))
}

// Who does not get to wait to the end is told to try again, and nothing happens twice.
func TestDuplicatesThatMayNotWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		setting string // of the database
		cut     string // what ends the wait; "" for the setting
		commits bool   // the first ends it
	}{
		{"lock timeout of the database", "lock_timeout = 20", "", false},
		{"canceled statement, as by statement_timeout", "", `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`, false},
		{"serialization failure", `default_transaction_isolation = "repeatable read"`, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := request{header: []string{"k"}, document: create, vars: object{"s": "x"}}
			// Somebody else has the key, and stores an answer.
			other := b.other(t)
			_, err := other.Exec(t.Context(), `INSERT INTO idempotency_keys (user_id, key, request) VALUES ($1, 'k', '')`, b.ada.UUID)
			require.NoError(t, err)
			if c.setting != "" {
				b.sql(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET `+c.setting+`', current_database()); END $$`)
				b.Reset()
			}
			answered := b.goSend(t, r)
			switch {
			case c.commits:
				b.queued(t, 1)
				require.NoError(t, other.Commit(t.Context()))
			case c.cut != "":
				b.queued(t, 1)
				b.sql(t, c.cut)
			}
			a := <-answered
			require.Len(t, a.Errors, 1, a.raw)
			require.Equal(t, "UNAVAILABLE", a.Errors[0].code(), a.raw)
			require.NotEmpty(t, a.Errors[0].Extensions["retryAfter"])
			require.Zero(t, one[int](t, b, `SELECT count(*) FROM threads`))
			if c.commits {
				b.unsent(t, "BAD_USER_INPUT", r)
				return
			}
			require.NoError(t, other.Rollback(t.Context()))
			requireReplayed(t, b.sent(t, r), b.sent(t, r))
			require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM threads`))
		})
	}
}

// An answer that is too long to be kept fails its mutation before anything is committed; without a key, or with a shorter answer, it may
// be sent.
func TestAnswersThatAreTooLongToKeep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := request{header: []string{"k"}, document: `mutation($s: String!) { createThread(input: {subject: $s}) { id subject } }`, vars: object{"s": strings.Repeat("x", 200)}}
	b.sent(t, r)
	n := one[int](t, b, `SELECT octet_length(data) + coalesce(octet_length(beside::text), 0) + octet_length(shown::text) FROM idempotency_keys`)
	b.sql(t, `DELETE FROM threads`)
	b.sql(t, `DELETE FROM idempotency_keys`)
	keeping := func(bytes int) *bundle {
		return b.beside(t, func(o *options) { o.engine = func(c *record.Config) { c.KeyAnswer = bytes } })
	}
	tight := keeping(n - 1)
	a := tight.unsent(t, "TOO_COMPLEX", r)
	require.Equal(t, fmt.Sprintf("the answer would take %d bytes to keep for its idempotency key, of at most %d: nothing was done, select less", n, n-1), a.Errors[0].Message)
	require.Equal(t, []any{"idempotencyKey"}, a.Errors[0].Extensions["fields"])
	require.Zero(t, one[int](t, b, `SELECT count(*) FROM threads`))
	require.Zero(t, b.keys(t))
	less := r
	less.document = `mutation($s: String!) { createThread(input: {subject: $s}) { id } }`
	requireReplayed(t, tight.sent(t, less), tight.sent(t, less))
	tight.sent(t, request{document: r.document, vars: r.vars})
	require.Equal(t, 2, one[int](t, b, `SELECT count(*) FROM threads`))
	exact := r
	exact.header = []string{"exact"}
	requireReplayed(t, keeping(n).sent(t, exact), b.sent(t, exact))

	// By default there are 256 KiB.
	aliases := func(n int) request {
		var fields strings.Builder
		for i := range n {
			_, _ = fmt.Fprintf(&fields, " f%d: body", i)
		}
		return request{header: []string{fmt.Sprint(n)}, vars: object{"t": b.thread(t, "x").String(), "s": strings.Repeat("b", 10_000)},
			document: `mutation($t: ID!, $s: String!) { createMessage(input: {threadID: $t, body: $s}) {` + fields.String() + ` } }`}
	}
	b.sent(t, aliases(26))
	b.unsent(t, "TOO_COMPLEX", aliases(27))
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM messages`))
}

// What a payload that is written by hand consists of is rendered at the same time, and all of it is checked when it is answered again.
func TestPayloadsByHand(t *testing.T) {
	t.Parallel()
	b := setup(t, withRules)
	op := record.Operation{Engine: b.stores.Engine}
	var threads []*ent.Thread
	for i := range 8 {
		x, err := b.client.Thread.Get(t.Context(), b.thread(t, fmt.Sprint("thread ", i)).UUID)
		require.NoError(t, err)
		threads = append(threads, x)
	}
	root := &ast.Field{Name: "mergeThreads", Alias: "mergeThreads"}
	executed := 0
	run := func() *graphql.Response {
		oc := &graphql.OperationContext{
			RawQuery: "mutation { mergeThreads }", Headers: http.Header{"Idempotency-Key": {"k"}},
			Operation: &ast.OperationDefinition{Operation: ast.Mutation, SelectionSet: ast.SelectionSet{root}},
		}
		ctx := viewer.NewContext(t.Context(), viewer.Viewer{ID: b.ada.UUID, Role: viewer.User})
		ctx = graphql.WithOperationContext(ctx, oc)
		ctx = graphql.WithResponseContext(ctx, presented, graphql.DefaultRecover)
		return op.InterceptResponse(ctx, func(ctx context.Context) *graphql.Response {
			executed++
			parts := make([]string, len(threads))
			var all sync.WaitGroup
			for i, x := range threads {
				all.Go(func() {
					ctx := graphql.WithFieldContext(ctx, &graphql.FieldContext{Field: graphql.CollectedField{
						Field: &ast.Field{Name: "thread", Alias: "thread"}, Selections: ast.SelectionSet{&ast.Field{Name: "subject", Alias: "subject"}},
					}})
					raw, err := record.Render(ctx, b.stores.Thread, x)
					if err != nil {
						t.Error(err)
					}
					parts[i] = string(raw)
				})
			}
			all.Wait()
			return &graphql.Response{Data: []byte("[" + strings.Join(parts, ",") + "]")}
		})
	}
	first := run()
	require.Empty(t, first.Errors)
	require.Contains(t, string(first.Data), "thread 7")
	again := run()
	require.Empty(t, again.Errors)
	require.Equal(t, string(first.Data), string(again.Data))
	require.Equal(t, true, again.Extensions["replayed"])
	b.sql(t, `DELETE FROM threads WHERE id = $1`, threads[3].ID)
	gone := run()
	require.Equal(t, "null", string(gone.Data))
	require.Len(t, gone.Errors, 1)
	require.Equal(t, 1, executed)
}

// presented is an error as the server would present it.
func presented(_ context.Context, err error) *gqlerror.Error {
	out := &gqlerror.Error{Message: err.Error(), Extensions: map[string]any{}}
	if e, ok := errors.AsType[*record.Error](err); ok {
		out.Extensions = e.Extensions()
	}
	return out
}
