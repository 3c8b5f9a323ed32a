package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"godstack/internal/record"
	"godstack/internal/telemetry"
)

// counting has the server count, and returns what has been.
func counting(registry *prometheus.Registry) func(*Deps, *Config) {
	return func(d *Deps, _ *Config) {
		d.Viewer = byHeader
		d.Metrics = telemetry.NewMetrics(registry)
	}
}

func scrape(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, 200, w.Code)
	return w.Body.String()
}

func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()
	r, during := prometheus.NewRegistry(), ""
	b := setup(t, counting(r), func(d *Deps, _ *Config) {
		d.Routes = map[string]http.Handler{"GET /export/{name}": http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			during = scrape(t, r)
		})}
		d.Playground = http.NotFoundHandler()
	})
	for _, target := range []string{"/export/a", "/export/b", "/nothing/1", "/nothing/2", "/readyz", "/playground/a.js"} {
		b.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, target, nil))
	}
	b.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("MADEUP", "/graphql", nil))
	b.query(t, `{ ok }`, nil)
	b.query(t, `{ whoami }`, nil, "Authorization", "mallory")
	text := scrape(t, r)
	for _, want := range []string{
		`{method="GET",route="/export/{name}",status="200"} 2`,
		`{method="GET",route="(none)",status="404"} 2`,
		`{method="GET",route="/readyz",status="200"} 1`,
		`{method="GET",route="/playground/",status="404"} 1`,
		`{method="(other)",route="/graphql",status="405"} 1`,
		`{method="POST",route="/graphql",status="200"} 1`,
		`{method="POST",route="/graphql",status="401"} 1`,
	} {
		require.Contains(t, text, "\ngodstack_http_request_duration_seconds_count"+want+"\n")
	}
	require.Contains(t, during, "\ngodstack_http_requests_in_flight 1\n")
	require.Contains(t, text, "\ngodstack_http_requests_in_flight 0\n")
}

// An operation counts once, by whatever way it comes. What was refused before it was known has no name, and its error counts.
func TestOperationsAreCounted(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	b := setup(t, counting(r))
	b.resolvers["fail"] = func(context.Context) (any, error) { return nil, errors.New("secret") }
	b.resolvers["rename"] = func(context.Context) (any, error) {
		return nil, &record.Error{Code: record.Conflict, Message: "late", Conflict: &record.ConflictState{Type: "Thread"}}
	}
	ticks := b.ticking()
	base := listen(t, b).URL

	b.query(t, `query Named { ok }`, nil)
	b.query(t, `{ fail crash }`, nil)
	b.query(t, `mutation { rename(id: 1, expectedVersion: 1) }`, nil)
	b.query(t, `query Unknown { nothing }`, nil)
	b.query(t, `{`, nil)
	events := b.events(t, base, "POST", "/graphql", document(`query Named { ok }`))
	events.expect("next", `{"data": {"ok": "fine"}}`)
	events.expect("complete", "")
	events.ended()
	s, _, err := dial(t, base, nil)
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	s.send(subscribe("1", `query Named { ok }`))
	require.Equal(t, "next", s.receive().Type)
	require.Equal(t, "complete", s.receive().Type)
	s.send(subscribe("2", `subscription Ticks { ticks }`))
	ticks <- "1"
	require.Equal(t, "next", s.receive().Type)
	ticks <- "2"
	require.Equal(t, "next", s.receive().Type)
	require.NoError(t, s.conn.Close(websocket.StatusNormalClosure, ""))
	require.NoError(t, b.shutdown(t.Context()))

	text := scrape(t, r)
	for _, want := range []string{
		`operation_duration_seconds_count{name="Named",type="query"} 3`,
		`operation_duration_seconds_count{name="(anonymous)",type="query"} 1`,
		`operation_duration_seconds_count{name="(anonymous)",type="mutation"} 1`,
		`operation_duration_seconds_count{name="Ticks",type="subscription"} 1`,
		`operation_failures_total{name="Named",type="query"} 0`,
		`operation_failures_total{name="(anonymous)",type="query"} 1`,
		`operation_failures_total{name="(anonymous)",type="mutation"} 1`,
		`operation_failures_total{name="Ticks",type="subscription"} 0`,
		`errors_total{code="INTERNAL"} 2`,
		`errors_total{code="CONFLICT"} 1`,
		`errors_total{code="GRAPHQL_PARSE_FAILED"} 1`,
		`errors_total{code="GRAPHQL_VALIDATION_FAILED"} 1`,
	} {
		require.Contains(t, text, "\ngodstack_graphql_"+want+"\n")
	}
	require.Contains(t, text, "\ngodstack_conflicts_total{type=\"Thread\"} 1\n")
	require.NotContains(t, text, "Unknown")
	require.Contains(t, text, `{method="POST",route="/graphql (events)",status="200"} 1`)
	require.Zero(t, b.EventStreams())
}

// An executor that panics leaves no operation uncounted.
func TestAPanicIsAFailure(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	b := setup(t, counting(r), func(d *Deps, _ *Config) { d.Extensions = append(d.Extensions, panicking{}) })
	require.Equal(t, 500, b.query(t, `query Named { ok }`, nil).Status)
	require.Contains(t, scrape(t, r), "\ngodstack_graphql_operation_failures_total{name=\"Named\",type=\"query\"} 1\n")
}

// Each operation over a socket or an event stream has a line, with who asked and by which connection.
func TestTheLogOfOperations(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer = byHeader })
	b.resolvers["fail"] = func(context.Context) (any, error) { return nil, errors.New("secret") }
	base := listen(t, b).URL
	s, _, err := dial(t, base, http.Header{"Authorization": {"alice"}, "X-Request-Id": {"r-7"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	payload, err := json.Marshal(map[string]any{"query": `query Named($i: ID!) { thread(id: $i) { id } }`, "variables": map[string]any{"i": "hidden"}})
	require.NoError(t, err)
	s.send(message{ID: "1", Type: "subscribe", Payload: payload})
	require.Equal(t, "next", s.receive().Type)
	require.Equal(t, "complete", s.receive().Type)
	s.send(subscribe("2", `{ fail }`))
	require.Equal(t, "next", s.receive().Type)
	require.Equal(t, "complete", s.receive().Type)

	logged := b.log.entries(t, "operation")
	require.Len(t, logged, 2)
	require.Equal(t, "INFO", logged[0]["level"])
	require.Equal(t, "query Named", logged[0]["operation"])
	require.Equal(t, false, logged[0]["failed"])
	require.Equal(t, "r-7", logged[0]["requestId"])
	require.Equal(t, alice.String(), logged[0]["user"])
	require.Positive(t, logged[0]["duration"])
	require.NotContains(t, logged[0], "traceId")
	require.Equal(t, "query", logged[1]["operation"])
	require.Equal(t, true, logged[1]["failed"])
	require.NotContains(t, b.log.String(), "hidden")

	c := b.events(t, base, "POST", "/graphql", document(`query Streamed { ok }`), "X-Request-Id", "r-8")
	c.expect("next", `{"data": {"ok": "fine"}}`)
	c.expect("complete", "")
	c.ended()
	logged = b.log.entries(t, "operation")
	require.Len(t, logged, 3)
	require.Equal(t, "query Streamed", logged[2]["operation"])
	require.Equal(t, "r-8", logged[2]["requestId"])

	b.query(t, `{ ok }`, nil)
	require.Len(t, b.log.entries(t, "operation"), 3, "others have the line of their request")
}

// What is counted costs the answer no allocation, once its labels are known.
//
//nolint:paralleltest // it counts what the process allocates
func TestCountingCostsNoAllocation(t *testing.T) {
	measure := func(configure ...func(*Deps, *Config)) float64 {
		b := setup(t, configure...)
		body := bytes.NewReader([]byte(`{"query": "query Named { ok }"}`))
		r := post("")
		answer := func() {
			body.Reset([]byte(`{"query": "query Named { ok }"}`))
			r.Body = struct {
				*bytes.Reader
				closer
			}{Reader: body}
			b.ServeHTTP(httptest.NewRecorder(), r)
		}
		// The least of many: pools that are emptied, as the race detector does
		// at random, cost some of them more.
		least := math.Inf(1)
		for range 500 {
			least = min(least, testing.AllocsPerRun(1, answer))
		}
		return least
	}
	off := measure()
	on := measure(func(d *Deps, _ *Config) { d.Metrics = telemetry.NewMetrics(prometheus.NewRegistry()) })
	require.InDelta(t, off, on, 0.5)
}

type closer struct{}

func (closer) Close() error { return nil }

// panicking is an extension with a mistake.
type panicking struct{}

func (panicking) ExtensionName() string                   { return "Panicking" }
func (panicking) Validate(graphql.ExecutableSchema) error { return nil }

func (panicking) InterceptOperation(context.Context, graphql.OperationHandler) graphql.ResponseHandler {
	panic("secret")
}
