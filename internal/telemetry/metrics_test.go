package telemetry

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

func scrape(t *testing.T, r *prometheus.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, 200, w.Code)
	return w.Body.String()
}

// Clients that make names up, many at the same time, get no more series than MostNames and those of all others.
func TestNamesOfOperationsAreFew(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	m := NewMetrics(r)
	m.Operation("query", "First", time.Second, true)
	var clients sync.WaitGroup
	for c := range 8 {
		clients.Go(func() {
			for i := range 1000 {
				m.Operation([]string{"query", "mutation", "subscription"}[i%3], fmt.Sprintf("Made%d", i*8+c), time.Second, i%2 == 0)
			}
		})
	}
	clients.Wait()
	m.Operation("query", "First", time.Second, false)
	m.Operation("query", "", time.Second, false)
	m.Operation("query", strings.Repeat("x", longestName+1), time.Second, false)
	text := scrape(t, r)
	require.Contains(t, text, "\ngodstack_graphql_operation_duration_seconds_count{name=\"First\",type=\"query\"} 2\n")
	require.Contains(t, text, "\ngodstack_graphql_operation_failures_total{name=\"First\",type=\"query\"} 1\n")
	require.Contains(t, text, "\ngodstack_graphql_operation_duration_seconds_count{name=\"(anonymous)\",type=\"query\"} 1\n")
	const counter = "\ngodstack_graphql_operation_failures_total{"
	require.Equal(t, MostNames+3+1, strings.Count(text, counter), "(other) of each type, and (anonymous)")
	require.NotContains(t, text, "xxx")
	total := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, counter[1:]) {
			var n int
			_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &n)
			require.NoError(t, err)
			total += n
		}
	}
	require.Equal(t, 1+8*500, total, "none is lost")
}

// Methods that a client makes up, and codes and types that a resolver makes up, are one each.
func TestLabelsAreFew(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	m := NewMetrics(r, "A", "B")
	require.Contains(t, scrape(t, r), "\ngodstack_graphql_errors_total{code=\"A\"} 0\n")
	for i := range 1000 {
		m.Begin()
		m.End("/graphql", fmt.Sprintf("METHOD%d", i), 405, time.Second)
		m.Error(fmt.Sprintf("CODE%d", i))
		m.Conflict(fmt.Sprintf("Type%d", i))
	}
	m.Begin()
	m.End("", http.MethodGet, 404, time.Second)
	text := scrape(t, r)
	require.Equal(t, 2, strings.Count(text, "\ngodstack_http_request_duration_seconds_count{"))
	require.Contains(t, text, "_count{method=\"(other)\",route=\"/graphql\",status=\"405\"} 1000\n")
	require.Contains(t, text, "_count{method=\"GET\",route=\"(none)\",status=\"404\"} 1\n")
	require.Equal(t, mostValues+1, strings.Count(text, "\ngodstack_graphql_errors_total{"))
	require.Contains(t, text, "\ngodstack_graphql_errors_total{code=\"(other)\"} 902\n")
	require.Contains(t, text, "\ngodstack_conflicts_total{type=\"(other)\"} 900\n")
	require.Contains(t, text, "\ngodstack_http_requests_in_flight 0\n")
}

//nolint:paralleltest // it counts what the process allocates
func TestOffCostsNothing(t *testing.T) {
	var (
		m   *Metrics
		tr  *Tracer
		req = httptest.NewRequest(http.MethodPost, "/graphql", nil)
	)
	req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		m.Begin()
		of, span := tr.Request(req, true)
		of, inner := tr.Operation(of, "query", "Named")
		if of != req.Context() {
			panic("a context was made")
		}
		tr.Error(of, "INTERNAL")
		inner.Set("user.id", "ada")
		inner.End(false)
		span.EndRequest(http.MethodPost, "/graphql", 200)
		if span.TraceID()+tr.TraceID(of)+tr.Carry(of) != "" {
			panic("there is a trace")
		}
		_, span = tr.Follow(ctx, "job", "")
		span.End(false)
		m.Operation("query", "Named", time.Second, true)
		m.Error("INTERNAL")
		m.Conflict("Thread")
		m.End("/graphql", http.MethodPost, 200, time.Second)
	}))
	require.Nil(t, tr.Statements())
	require.NoError(t, tr.Close(ctx))
	require.Zero(t, tr.Failures())
}

//nolint:paralleltest // it counts what the process allocates
func TestCountingAllocatesNothing(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	for i := range 2 * MostNames {
		m.Operation("query", fmt.Sprint("Made", i), time.Second, false)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		m.Begin()
		m.Operation("query", "Made1", time.Second, true)
		m.Operation("query", "OneTooMany", time.Second, true)
		m.Operation("query", "", time.Second, true)
		m.Error("INTERNAL")
		m.Conflict("Thread")
		m.End("/graphql", http.MethodPost, 200, time.Second)
	}))
}

// What the pool says is what it has.
func TestPoolMetrics(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	r := prometheus.NewRegistry()
	r.MustRegister(NewPoolCollector(pool.Stat))
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	text := scrape(t, r)
	require.Contains(t, text, "\ngodstack_pool_connections{state=\"acquired\"} 1\n")
	require.Contains(t, text, fmt.Sprintf("\ngodstack_pool_connections_limit %d\n", pool.Config().MaxConns))
	require.Contains(t, text, fmt.Sprintf("\ngodstack_pool_acquires_total %d\n", pool.Stat().AcquireCount()))
	require.Contains(t, text, fmt.Sprintf("\ngodstack_pool_connections_opened_total %d\n", pool.Stat().NewConnsCount()))
	conn.Release()
	require.Eventually(t, func() bool {
		return strings.Contains(scrape(t, r), "\ngodstack_pool_connections{state=\"acquired\"} 0\n")
	}, 10*time.Second, time.Millisecond)
}
