package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

func get(t *testing.T, query url.Values, header ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/graphql?"+query.Encode(), nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func TestPost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.query(t, `query Hello { ok }`, nil)
	require.Equal(t, 200, a.Status)
	require.JSONEq(t, `{"data": {"ok": "fine"}}`, a.raw)
	require.Equal(t, "application/json", a.Header.Get("Content-Type"))
	require.Equal(t, "nosniff", a.Header.Get("X-Content-Type-Options"))
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		request func(t *testing.T) *http.Request
		status  int
		code    string
		message string
	}{
		{"no JSON", func(*testing.T) *http.Request { return post(`{"query": "hidden`) }, 400, "BAD_USER_INPUT", "the body: not JSON, it ends too early"},
		{"bad syntax", func(*testing.T) *http.Request { return post(`{"query" = "hidden"}`) }, 400, "BAD_USER_INPUT", "the body: not JSON, at byte 10"},
		{"two values", func(*testing.T) *http.Request { return post(`{"query": "{ok}"} {}`) }, 400, "BAD_USER_INPUT", "the body: more than one JSON value"},
		{"a batch", func(*testing.T) *http.Request { return post(`[{"query": "{ok}"}]`) }, 400, "BAD_USER_INPUT", "the body: batches are not executed, send each operation in a request of its own"},
		{"a batch after a space", func(*testing.T) *http.Request { return post(" \n[]") }, 400, "BAD_USER_INPUT", "the body: batches are not executed, send each operation in a request of its own"},
		{"a number", func(*testing.T) *http.Request { return post(`5`) }, 400, "BAD_USER_INPUT", "the body: not a JSON object"},
		{"wrong type", func(*testing.T) *http.Request { return post(`{"query": 5}`) }, 400, "BAD_USER_INPUT", "the body: query has the wrong type"},
		{"null", func(*testing.T) *http.Request { return post(`null`) }, 400, "BAD_USER_INPUT", "query is missing"},
		{"no query", func(*testing.T) *http.Request { return post(`{}`) }, 400, "BAD_USER_INPUT", "query is missing"},
		{"invalid UTF-8", func(*testing.T) *http.Request {
			return post("{\"query\": \"{ ok }\", \"variables\": {\"t\": \"\xff\"}}")
		}, 400, "BAD_USER_INPUT", "the body: not UTF-8"},
		{"too long", func(*testing.T) *http.Request { return post(`{"query": "` + strings.Repeat(" ", 1<<20) + `"}`) }, 413, "TOO_COMPLEX", "the body is longer than 1048576 bytes"},
		{"form", func(*testing.T) *http.Request {
			return post(`query={ok}`, "Content-Type", "application/x-www-form-urlencoded")
		}, 415, "BAD_USER_INPUT", "the body must be application/json in UTF-8"},
		{"Latin 1", func(*testing.T) *http.Request {
			return post(`{}`, "Content-Type", "application/json; charset=iso-8859-1")
		}, 415, "BAD_USER_INPUT", "the body must be application/json in UTF-8"},
		{"no type", func(*testing.T) *http.Request { return post(`{}`, "Content-Type", "") }, 415, "BAD_USER_INPUT", "the body must be application/json in UTF-8"},
		{"not acceptable", func(*testing.T) *http.Request { return post(`{"query": "{ok}"}`, "Accept", "text/html") }, 406, "BAD_USER_INPUT", "answers are application/graphql-response+json, application/json or text/event-stream"},
		{"method", func(*testing.T) *http.Request { return httptest.NewRequest(http.MethodPatch, "/graphql", nil) }, 405, "BAD_USER_INPUT", "the method is GET or POST, or, for event streams, PUT or DELETE"},
		{"GET without a query", func(t *testing.T) *http.Request { return get(t, nil) }, 400, "BAD_USER_INPUT", "query is missing"},
		{"GET with bad variables", func(t *testing.T) *http.Request {
			return get(t, url.Values{"query": {"{ok}"}, "variables": {"[]"}})
		}, 400, "BAD_USER_INPUT", "variables: not a JSON object"},
		{"GET with invalid UTF-8", func(t *testing.T) *http.Request { return get(t, url.Values{"query": {"{ok} # \xff"}}) }, 400, "BAD_USER_INPUT", "the URL is not UTF-8"},
		{"GET of a mutation", func(t *testing.T) *http.Request {
			return get(t, url.Values{"query": {`mutation { rename(id: 1, expectedVersion: 1) }`}})
		}, 405, "BAD_USER_INPUT", "GET is for queries; use POST"},
		{"POST of a subscription", func(*testing.T) *http.Request { return post(`{"query": "subscription { ticks }"}`) }, 400, "BAD_USER_INPUT", "subscriptions need a WebSocket, or Accept: text/event-stream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.resolvers["rename"] = func(context.Context) (any, error) { panic("executed") }
			a := b.do(t, c.request(t))
			require.Equal(t, c.status, a.Status)
			require.Len(t, a.Errors, 1, a.raw)
			require.Equal(t, c.code, a.Errors[0].code())
			require.Equal(t, c.message, a.Errors[0].Message)
			require.NotEmpty(t, a.Errors[0].Extensions["requestId"])
			require.Empty(t, a.Data, "there is no data where nothing was executed")
			require.NotContains(t, a.raw+b.log.String(), "hidden", "bodies are neither echoed nor logged")
			if c.status == 405 {
				require.NotEmpty(t, a.Header.Get("Allow"))
			}
		})
	}
}

func TestErrorsOfValidationAreFew(t *testing.T) {
	t.Parallel()
	a := setup(t).query(t, `{ threads(where: {`+strings.Repeat(`title: 1 `, 1000)+`}) { totalCount } }`, nil)
	require.Len(t, a.Errors, mostErrors)
}

func TestGet(t *testing.T) {
	t.Parallel()
	a := setup(t).do(t, get(t, url.Values{
		"query": {`query A($n: Int) { threads(first: $n) { totalCount } } query B { ok }`}, "operationName": {"B"}, "variables": {`{"n": 1}`},
	}))
	require.Equal(t, 200, a.Status)
	require.JSONEq(t, `{"ok": "fine"}`, string(a.Data))
}

func TestTheTypeOfTheAnswerIsNegotiated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ accept, want string }{
		{"", typeJSON},
		{"*/*", typeJSON},
		{"application/*", typeJSON},
		{"application/json", typeJSON},
		{"application/graphql-response+json", typeResponse},
		{"application/graphql-response+json, application/json;q=0.9", typeResponse},
		{"application/graphql-response+json;q=0.5, application/json", typeJSON},
		{"application/json, application/graphql-response+json", typeJSON},
		{"application/graphql-response+json; charset=utf-8", typeResponse},
		{"text/html, */*;q=0.1", typeJSON},
		{"multipart/mixed", ""},
		{"application/json;q=0", ""},
		{"application/json;q=0, */*", typeResponse},
		{"*/*, application/json;q=0", typeResponse},
		{"application/*;q=0, */*", ""},
		{"application/json;q=0.2, application/*;q=0.5", typeResponse},
		{"application/json;q=0, application/graphql-response+json;q=0, */*", ""},
		{"application/json, text/plain, */*", typeJSON}, // a common client's
		{"application/json;q=x", ""},
		{"application/json;q=NaN", ""},
		{"application/json;q=9, application/graphql-response+json", typeResponse},
		{"application/json;q=-1", ""},
		{"nonsense", ""},
	} {
		got, ok := negotiate([]string{c.accept})
		require.Equal(t, c.want, got, c.accept)
		require.Equal(t, c.want != "", ok, c.accept)
	}
}

// A header may come in several lines, which are one list.
func TestAcceptInSeveralLines(t *testing.T) {
	t.Parallel()
	r := post(`{"query": "{ ok }"}`)
	r.Header["Accept"] = []string{"text/html", "application/json;q=0.5", "application/graphql-response+json"}
	a := setup(t).do(t, r)
	require.Equal(t, 200, a.Status, a.raw)
	require.Equal(t, typeResponse, a.Header.Get("Content-Type"))
}

func TestTheStatusFollowsTheTypeOfTheAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		accept, document string
		status           int
	}{
		{typeJSON, `{ nope }`, 200},
		{typeResponse, `{ nope }`, 400},
		{typeResponse, `{`, 400},
		{typeResponse, `{ ` + repeat(101, `a%d: ok `) + `}`, 400},
		{typeResponse, `query($n: Int) { threads(first: $n) { totalCount } } query B { ok }`, 400},
		{typeResponse, `{ crash }`, 200},
		{typeResponse, `{ ok }`, 200},
	} {
		require.Equal(t, c.status, setup(t).query(t, c.document, nil, "Accept", c.accept).Status, c)
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.Equal(t, "abc-1.2_Z", b.query(t, `{ ok }`, nil, "X-Request-Id", "abc-1.2_Z").Header.Get("X-Request-Id"))
	seen := map[string]bool{}
	for _, odd := range []string{"", "a b", "a\"b", "é", strings.Repeat("a", 65)} {
		a := b.query(t, `{ nope }`, nil, "X-Request-Id", odd)
		id := a.Header.Get("X-Request-Id")
		require.Regexp(t, `^[A-Z2-7]{26}$`, id)
		require.Equal(t, id, a.Errors[0].Extensions["requestId"])
		require.False(t, seen[id])
		seen[id] = true
	}
}

var alice = uuid.MustParse("0190a5c0-0000-7000-8000-000000000001")

// byHeader signs in whoever names Alice, and refuses Mallory.
func byHeader(_ context.Context, authorization string) (viewer.Viewer, bool, error) {
	switch authorization {
	case "":
		return viewer.Viewer{}, false, nil
	case "alice":
		return viewer.Viewer{ID: alice, Role: "user"}, true, nil
	case "broken":
		return viewer.Viewer{}, false, errors.New("secret")
	default:
		return viewer.Viewer{}, false, &record.Error{Code: record.Unauthenticated, Message: "sign in again"}
	}
}

// whoami answers with the viewer's id.
func whoami(ctx context.Context) (any, error) {
	v, ok := viewer.FromContext(ctx)
	if !ok {
		return nil, nil
	}
	return v.ID.String(), nil
}

func TestTheViewerComesFromHeaders(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer = byHeader })
	b.resolvers["whoami"] = whoami
	for _, c := range []struct {
		authorization string
		status        int
		answer        string
	}{
		{"", 200, `{"data": {"whoami": null}}`},
		{"alice", 200, `{"data": {"whoami": "` + alice.String() + `"}}`},
		{"mallory", 401, `{"errors": [{"message": "sign in again", "extensions": {"code": "UNAUTHENTICATED", "requestId": "r"}}]}`},
		{"broken", 500, `{"errors": [{"message": "internal error", "extensions": {"code": "INTERNAL", "requestId": "r"}}]}`},
	} {
		a := b.query(t, `{ whoami }`, nil, "Authorization", c.authorization, "X-Request-Id", "r")
		require.Equal(t, c.status, a.Status)
		require.JSONEq(t, c.answer, a.raw)
	}
}

func TestTheAccessLog(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer = byHeader })
	b.query(t, `query Secret($t: Time) { at(time: $t) }`, map[string]any{"t": "hidden"}, "Authorization", "alice", "X-Request-Id", "r-1")
	logged := b.log.entries(t, "request")
	require.Len(t, logged, 1)
	e := logged[0]
	require.Equal(t, "INFO", e["level"])
	require.Equal(t, "POST", e["method"])
	require.Equal(t, "/graphql", e["path"])
	require.EqualValues(t, 200, e["status"])
	require.Equal(t, "query Secret", e["operation"])
	require.Equal(t, alice.String(), e["user"])
	require.Equal(t, "r-1", e["requestId"])
	require.Positive(t, e["duration"])
	require.NotContains(t, b.log.String(), "hidden")

	b.do(t, get(t, url.Values{"query": {"{ ok(hidden: 1) }"}}))
	require.NotContains(t, b.log.String(), "hidden", "a GET's document is not part of the path")

	b.query(t, `query `+strings.Repeat("n", 300)+` { ok }`, nil)
	require.Equal(t, "query "+strings.Repeat("n", 100), b.log.entries(t, "request")[2]["operation"])
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	notReady := errors.New("database: no answer")
	b := setup(t, func(d *Deps, _ *Config) {
		d.Ready = func(context.Context) error { return notReady }
		d.Playground = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/crash" {
				panic("secret")
			}
			_, _ = w.Write([]byte("playground " + r.URL.Path))
		})
	})
	for _, c := range []struct {
		path, location, body string
		status               int
	}{
		{"/", "/playground/", "Found", 302},
		{"/playground", "/playground/", "", 307},
		{"/playground/app.js", "", "playground /app.js", 200},
		{"/playground/crash", "", `"code":"INTERNAL"`, 500},
		{"/healthz", "", "ok", 200},
		{"/readyz", "", "not ready: database: no answer", 503},
		{"/nothing", "", "not found", 404},
	} {
		w := httptest.NewRecorder()
		b.ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.path, nil))
		require.Equal(t, c.status, w.Code, c.path)
		require.Equal(t, c.location, w.Header().Get("Location"), c.path)
		require.Contains(t, w.Body.String(), c.body, c.path)
		require.NotEmpty(t, w.Header().Get("X-Request-Id"), c.path)
		require.NotContains(t, w.Body.String(), "secret")
	}
	panics := b.log.entries(t, "panic")
	require.Len(t, panics, 1)
	require.Contains(t, panics[0]["stack"], "http_test.go")

	w := httptest.NewRecorder()
	setup(t).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	require.Equal(t, 200, w.Code)
}

// A panic outside of resolvers, here in an extension's place, is answered in GraphQL's shape too.
func TestAPanicOfTheExecutor(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) {
		d.Viewer = func(context.Context, string) (viewer.Viewer, bool, error) { panic("secret") }
	})
	a := b.query(t, `{ ok }`, nil)
	require.Equal(t, 500, a.Status)
	require.Len(t, a.Errors, 1, a.raw)
	require.Equal(t, "INTERNAL", a.Errors[0].code())
	require.NotContains(t, a.raw, "secret")
	require.Equal(t, "secret", b.log.entries(t, "panic")[0]["error"])
}
