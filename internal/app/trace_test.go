package app

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"godstack/internal/dbtest"
	"godstack/internal/server"
)

// traces is a collector that speaks OTLP over HTTP.
type traces struct {
	*httptest.Server

	mu       sync.Mutex // protects what follows
	services map[string]bool
	spans    []*tracepb.Span
}

func newTraces(t *testing.T) *traces {
	t.Helper()
	c := &traces{services: map[string]bool{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var batch collector.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(body, &batch) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, of := range batch.ResourceSpans {
			for _, a := range of.Resource.Attributes {
				if a.Key == "service.name" {
					c.services[a.Value.GetStringValue()] = true
				}
			}
			for _, s := range of.ScopeSpans {
				c.spans = append(c.spans, s.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// one is the span of a name, of which there is one.
func (c *traces) one(t *testing.T, name string) (found *tracepb.Span) {
	t.Helper()
	for _, s := range c.spans {
		if s.Name == name {
			require.Nil(t, found, name)
			found = s
		}
	}
	require.NotNil(t, found, name)
	return found
}

// below are the spans whose parent is s.
func (c *traces) below(s *tracepb.Span) (found []*tracepb.Span) {
	for _, child := range c.spans {
		if string(child.ParentSpanId) == string(s.SpanId) {
			found = append(found, child)
		}
	}
	return found
}

// A request is one trace, from the proxy's span to the statements, and its lines in the log name it. Nothing in it is a client's.
func TestTraces(t *testing.T) {
	t.Parallel()
	const secret = "the subject nobody else reads"
	to := newTraces(t)
	var d diary
	cfg := Config{
		DatabaseURL: dbtest.URL(t), Development: true, Seed: true, PublicURL: publicURL,
		Tracing: &Tracing{Endpoint: to.URL + "/v1/traces", Service: "shop"},
		Server:  server.Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	}
	d.keep(&cfg)
	a, err := Start(t.Context(), settings(cfg))
	require.NoError(t, err)
	c := open(t, a)
	c = c.as(tokensOf(c.must(t, "login", login, map[string]any{"login": "ada", "password": SeedPassword})).access)

	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	req, err := http.NewRequest(http.MethodPost, c.url+"/graphql", strings.NewReader(
		`{"query": "mutation Write($s: String!) { createThread(input: {subject: $s}) { id owner { username } } }", "variables": {"s": "`+secret+`"}}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Traceparent", "00-"+trace+"-"+parent+"-01")
	resp, err := c.http.Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Contains(t, string(body), `"username":"ada"`)

	s := c.connect(t)
	s.operate("1", `query OverASocket { threads(first: 1) { edges { node { subject } } } }`, nil)
	require.Equal(t, "next", s.receive().Type)
	require.Equal(t, "complete", s.receive().Type)
	status, _ := get(t, local(a)+"/readyz")
	require.Equal(t, 200, status)
	require.NoError(t, s.conn.CloseNow())
	require.NoError(t, a.Close(), "what is left is sent")

	to.mu.Lock()
	defer to.mu.Unlock()
	require.Equal(t, map[string]bool{"shop": true}, to.services)
	write := to.one(t, "mutation Write")
	require.Equal(t, trace, hex.EncodeToString(write.TraceId))
	var request *tracepb.Span
	for _, s := range to.spans {
		if string(s.SpanId) == string(write.ParentSpanId) {
			request = s
		}
	}
	require.NotNil(t, request)
	require.Equal(t, "POST /graphql", request.Name)
	require.Equal(t, parent, hex.EncodeToString(request.ParentSpanId))
	inserted := false
	for _, s := range append(to.below(write), write) {
		for _, below := range append(to.below(s), s) {
			for _, a := range below.Attributes {
				inserted = inserted || a.Key == "db.query.text" && strings.Contains(a.Value.GetStringValue(), `INSERT INTO "threads"`)
			}
		}
	}
	require.True(t, inserted, "the statement is below the operation: %v", to.below(write))
	socket := to.one(t, "query OverASocket")
	require.Empty(t, socket.ParentSpanId)
	require.NotEmpty(t, to.below(socket))
	for _, s := range to.spans {
		text := s.String()
		require.NotContains(t, text, secret)
		require.NotContains(t, text, SeedPassword)
		require.NotContains(t, text, c.token)
		require.NotContains(t, text, "/readyz")
		require.NotContains(t, text, "pg_current_snapshot()", "reading the change log is nobody's request")
	}
	require.Regexp(t, `msg=request .*operation="mutation Write".* traceId=`+trace+`\b`, d.text.String())
	require.Regexp(t, `msg=operation operation="query OverASocket".* traceId=`+hex.EncodeToString(socket.TraceId)+`\b`, d.text.String())
}

// A collector that is away keeps the program from nothing, not from ending either.
func TestACollectorThatIsAway(t *testing.T) {
	t.Parallel()
	var d diary
	cfg := Config{DatabaseURL: dbtest.URL(t), Tracing: &Tracing{Endpoint: "http://" + freeAddress(t) + "/v1/traces"}}
	d.keep(&cfg)
	a, err := Start(t.Context(), settings(cfg))
	require.NoError(t, err)
	status, _ := get(t, local(a)+"/graphql?query={__typename}")
	require.Equal(t, 200, status)
	require.NoError(t, a.Close())
	require.Equal(t, 1, d.count("the last traces are lost")+d.count("traces were not taken"))

	_, err = Start(t.Context(), settings(Config{DatabaseURL: dbtest.URL(t), Tracing: &Tracing{Sampler: "sometimes"}}))
	require.ErrorContains(t, err, "telemetry: Sampler")
}
