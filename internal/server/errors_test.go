package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/record"
)

func TestEveryErrorHasACodeOfTheTable(t *testing.T) {
	t.Parallel()
	pg := func(code string) error {
		return fmt.Errorf("update thread: %w", &pgconn.PgError{Code: code, Message: "secret"})
	}
	for _, c := range []struct {
		name    string
		err     error
		code    string
		message string
		retry   any // seconds
	}{
		{"record", &record.Error{Code: record.NotFound, Message: "no such thread", Err: errors.New("secret")}, "NOT_FOUND", "no such thread", nil},
		{"wrapped record", fmt.Errorf("load: %w", &record.Error{Code: record.Forbidden, Message: "not yours"}), "FORBIDDEN", "not yours", nil},
		{"record in gqlerror", gqlerror.Wrap(&record.Error{Code: record.AlreadyExists, Message: "taken"}), "ALREADY_EXISTS", "taken", nil},
		{"internal record", &record.Error{Code: record.Internal, Message: "secret"}, "INTERNAL", "internal error", nil},
		{"coded gqlerror", &gqlerror.Error{Message: "slow down", Extensions: map[string]any{"code": "RATE_LIMITED"}}, "RATE_LIMITED", "slow down", nil},
		{"uncoded gqlerror", gqlerror.Errorf("secret"), "INTERNAL", "internal error", nil},
		{"unknown", errors.New("secret"), "INTERNAL", "internal error", nil},
		{"canceled", fmt.Errorf("query: %w", context.Canceled), "UNAVAILABLE", "temporarily unavailable", nil},
		{"deadline", context.DeadlineExceeded, "UNAVAILABLE", "temporarily unavailable", nil},
		{"serialization failure", pg("40001"), "UNAVAILABLE", "temporarily unavailable", 0.1},
		{"deadlock", pg("40P01"), "UNAVAILABLE", "temporarily unavailable", 0.1},
		{"statement timeout", pg("57014"), "UNAVAILABLE", "temporarily unavailable", 1.0},
		{"lock timeout", pg("55P03"), "UNAVAILABLE", "temporarily unavailable", 1.0},
		{"failed transaction", pg("25P02"), "UNAVAILABLE", "temporarily unavailable", 1.0},
		{"idle transaction", pg("25P03"), "UNAVAILABLE", "temporarily unavailable", 1.0},
		{"transaction timeout", pg("25P04"), "UNAVAILABLE", "temporarily unavailable", 1.0},
		{"commit of a failed transaction", fmt.Errorf("commit: %w", pgx.ErrTxCommitRollback), "UNAVAILABLE", "temporarily unavailable", 1.0},
		{"starting up", pg("57P03"), "UNAVAILABLE", "temporarily unavailable", 1.0},
		{"too many connections", pg("53300"), "UNAVAILABLE", "temporarily unavailable", 1.0},
		{"shutting down", pg("57P01"), "UNAVAILABLE", "temporarily unavailable", nil},
		{"connection failure", pg("08006"), "UNAVAILABLE", "temporarily unavailable", nil},
		{"connect", fmt.Errorf("begin: %w", &pgconn.ConnectError{}), "UNAVAILABLE", "temporarily unavailable", 1.0},
		{"connection lost", fmt.Errorf("read: %w", io.ErrUnexpectedEOF), "UNAVAILABLE", "temporarily unavailable", nil},
		{"network", &net.OpError{Op: "read", Err: errors.New("reset")}, "UNAVAILABLE", "temporarily unavailable", nil},
		{"bad encoding", pg("22021"), "BAD_USER_INPUT", "text contains a character that cannot be stored", nil},
		{"untranslatable character", pg("22P05"), "BAD_USER_INPUT", "text contains a character that cannot be stored", nil},
		{"last administrator", pg("GS409"), "FORBIDDEN", "the last administrator stays one", nil},
		{"other of postgres", pg("42P01"), "INTERNAL", "internal error", nil},
		{"nonsense of postgres", pg(""), "INTERNAL", "internal error", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.resolvers["fail"] = func(context.Context) (any, error) { return nil, c.err }
			a := b.query(t, `{ mine: fail }`, nil, "X-Request-Id", "r-1")
			require.Equal(t, 200, a.Status)
			require.JSONEq(t, `{"mine": null}`, string(a.Data))
			require.Len(t, a.Errors, 1)
			e := a.Errors[0]
			require.Equal(t, c.code, e.code())
			require.Equal(t, c.message, e.Message)
			require.Equal(t, c.retry, e.Extensions["retryAfter"])
			require.Equal(t, "r-1", e.Extensions["requestId"])
			require.Equal(t, []any{"mine"}, e.Path)
			require.NotContains(t, a.raw, "secret")
			if c.code == "INTERNAL" && c.name != "internal record" {
				logged := b.log.entries(t, "graphql error")
				require.Len(t, logged, 1)
				require.Equal(t, "r-1", logged[0]["requestId"])
				require.Contains(t, logged[0]["error"], text(c.err)[:5])
			}
		})
	}
}

func TestAConflictCarriesItsState(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.resolvers["rename"] = func(context.Context) (any, error) {
		return nil, &record.Error{Code: record.Conflict, Message: "changed", Conflict: &record.ConflictState{
			Type: "Thread", ID: "thread_1", ExpectedVersion: 1, CurrentVersion: 3, Current: map[string]any{"title": "new"}, Fields: []string{"title"},
		}}
	}
	e := b.failure(t, `mutation { rename(id: "1", expectedVersion: 1) }`, nil)
	require.Equal(t, "CONFLICT", e.code())
	require.EqualValues(t, 3, e.Extensions["currentVersion"])
	require.Equal(t, map[string]any{"title": "new"}, e.Extensions["current"])
	require.Equal(t, []any{"title"}, e.Extensions["fields"])
}

func TestOneErrorInManyFieldsIsNotShared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	shared := &gqlerror.Error{Message: "m", Extensions: map[string]any{"code": "NOT_FOUND"}}
	b.resolvers["fail"] = func(context.Context) (any, error) { return nil, shared }
	require.Len(t, b.query(t, `{ a: fail b: fail }`, nil).Errors, 2)
	require.Equal(t, map[string]any{"code": "NOT_FOUND"}, shared.Extensions)
}

func TestGraphQLsOwnErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, document string
		variables      map[string]any
		code           string
		message        string
		fields         any
	}{
		{"syntax", `{ ok`, nil, "GRAPHQL_PARSE_FAILED", "Expected Name, found <EOF>", nil},
		{"unknown field", `{ nope }`, nil, "GRAPHQL_VALIDATION_FAILED", `Cannot query field "nope" on type "Query".`, nil},
		{"literal of a wrong type", `{ threads(first: "1") { totalCount } }`, nil, "GRAPHQL_VALIDATION_FAILED", `Int cannot represent non-integer value: "1"`, nil},
		{"literal out of range", `{ threads(first: 99999999999999999999) { totalCount } }`, nil, "GRAPHQL_VALIDATION_FAILED", `Int cannot represent non 32-bit signed integer value: 99999999999999999999`, nil},
		{"no operation of that name", ``, nil, "BAD_USER_INPUT", "query is missing", nil},
		{"variable is missing", `query($id: ID!) { thread(id: $id) { id } }`, nil, "BAD_USER_INPUT", "variable id: must be defined", []any{"id"}},
		{"variable is no Int", `query($n: Int) { threads(first: $n) { totalCount } }`, map[string]any{"n": "x"}, "BAD_USER_INPUT", "variable n: cannot use string as Int", []any{"n"}},
		{"variable is a number in quotes", `query($n: Int) { threads(first: $n) { totalCount } }`, map[string]any{"n": "1"}, "BAD_USER_INPUT", "variable n: a string is no Int", []any{"n"}},
		{"variable is beyond 32 bits", `query($n: Int) { threads(first: $n) { totalCount } }`, map[string]any{"n": 1 << 31}, "BAD_USER_INPUT", "variable n: 2147483648 is no Int", []any{"n"}},
		{"variable is a fraction", `query($n: Int) { threads(first: $n) { totalCount } }`, map[string]any{"n": 1.5}, "BAD_USER_INPUT", "variable n: cannot use value 0 as Int", []any{"n"}},
		{"input field is unknown", `query($w: Where) { threads(where: $w) { totalCount } }`, map[string]any{"w": map[string]any{"x": 1}}, "BAD_USER_INPUT", "variable w.x: unknown field", []any{"x"}},
		{"input field is a number", `query($w: Where) { threads(where: $w) { totalCount } }`, map[string]any{"w": map[string]any{"title": 1}}, "BAD_USER_INPUT", "variable w.title: a number is no String", []any{"title"}},
		{
			"nested input field is a string", `query($w: Where) { threads(where: $w) { totalCount } }`,
			map[string]any{"w": map[string]any{"and": []any{map[string]any{"in": []any{1, "2"}}}}}, "BAD_USER_INPUT", "variable w.and[0].in[1]: a string is no Float", []any{"in"},
		},
		{"scalar refuses a literal", `{ mine: at(time: "noon") }`, nil, "BAD_USER_INPUT", "time should be RFC3339Nano formatted string", []any{"time"}},
		{"scalar refuses a variable", `query($t: Time) { mine: at(time: $t) }`, map[string]any{"t": 5}, "BAD_USER_INPUT", "time should be RFC3339Nano formatted string", []any{"time"}},
		{"scalar cannot be read", `{ mine: at(time: 99999999999999999999) }`, nil, "BAD_USER_INPUT", `strconv.ParseInt: parsing "99999999999999999999": value out of range`, nil},
		{"subscription of nothing", `subscription { ticks @skip(if: true) }`, nil, "BAD_USER_INPUT", "a subscription selects one root field, and this selects 0", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := setup(t).failure(t, c.document, c.variables)
			require.Equal(t, c.code, e.code())
			require.Equal(t, c.message, e.Message)
			require.Equal(t, c.fields, e.Extensions["fields"])
			require.NotEmpty(t, e.Extensions["requestId"])
			if strings.Contains(c.document, "mine") {
				require.Equal(t, []any{"mine"}, e.Path, "the path is one of the answer, not of the arguments")
			}
		})
	}
}

func TestAPanicIsHiddenAndLoggedWithItsStack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.query(t, `{ crash ok }`, nil, "X-Request-Id", "r-9")
	require.JSONEq(t, `{"crash": null, "ok": "fine"}`, string(a.Data))
	require.Len(t, a.Errors, 1)
	require.Equal(t, "INTERNAL", a.Errors[0].code())
	require.Equal(t, "internal error", a.Errors[0].Message)
	require.NotContains(t, a.raw, "secret")
	logged := b.log.entries(t, "graphql error")
	require.Len(t, logged, 1)
	require.Equal(t, "r-9", logged[0]["requestId"])
	require.Equal(t, "panic: secret state", logged[0]["error"])
	require.Contains(t, logged[0]["stack"], "schema_test.go")
}

func TestAnOperationThatTakesTooLongIsUnavailable(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.OperationTimeout = time.Millisecond })
	b.resolvers["fail"] = func(ctx context.Context) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	require.Equal(t, "UNAVAILABLE", b.failure(t, `{ fail }`, nil).code())
}
