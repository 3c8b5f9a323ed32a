package telemetry

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"godstack/internal/dbtest"
)

// recording is a tracer whose spans are kept.
func recording(t *testing.T, cfg *TraceConfig) (*Tracer, *tracetest.InMemoryExporter) {
	t.Helper()
	kept := tracetest.NewInMemoryExporter()
	tr := &Tracer{}
	require.NoError(t, tr.begin(cfg, sdktrace.WithSyncer(kept)))
	t.Cleanup(func() { require.NoError(t, tr.Close(context.Background())) })
	return tr, kept
}

const (
	fromTrace = "0af7651916cd43dd8448eb211c80319c"
	fromSpan  = "b7ad6b7169203331"
)

// A proxy's span is the parent and decides; a client's is a link, and decides nothing.
func TestWhoMayBeTheParent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, traceparent string
		trusted           bool
		sampler           string
		kept              bool
		child, linked     bool
	}{
		{"nobody", "", true, "", true, false, false},
		{"a proxy", "00-" + fromTrace + "-" + fromSpan + "-01", true, "", true, true, false},
		{"a proxy that samples", "00-" + fromTrace + "-" + fromSpan + "-01", true, "parentbased_always_off", true, true, false},
		{"a proxy that does not sample", "00-" + fromTrace + "-" + fromSpan + "-00", true, "", false, false, false},
		{"a client", "00-" + fromTrace + "-" + fromSpan + "-01", false, "", true, false, true},
		{"a client that wants to be sampled", "00-" + fromTrace + "-" + fromSpan + "-01", false, "parentbased_always_off", false, false, false},
		{"a client that does not", "00-" + fromTrace + "-" + fromSpan + "-00", false, "", true, false, true},
		{"nonsense", "00-xyz", true, "", true, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tr, kept := recording(t, &TraceConfig{Sampler: c.sampler})
			r := httptest.NewRequest(http.MethodPost, "/graphql?secret=1", nil)
			if c.traceparent != "" {
				r.Header.Set("traceparent", c.traceparent)
			}
			ctx, span := tr.Request(r, c.trusted)
			id := span.TraceID()
			require.Equal(t, id, tr.TraceID(ctx))
			span.EndRequest(r.Method, "/graphql", 503)
			spans := kept.GetSpans()
			if !c.kept {
				require.Empty(t, spans)
				require.Empty(t, id, "nobody would find it")
				return
			}
			require.Len(t, spans, 1)
			got := spans[0]
			require.Equal(t, "POST /graphql", got.Name)
			require.Equal(t, trace.SpanKindServer, got.SpanKind)
			require.Equal(t, codes.Error, got.Status.Code)
			require.Equal(t, id, got.SpanContext.TraceID().String())
			require.Equal(t, c.child, got.SpanContext.TraceID().String() == fromTrace)
			require.Equal(t, c.child, got.Parent.SpanID().String() == fromSpan)
			require.Equal(t, c.linked, len(got.Links) == 1 && got.Links[0].SpanContext.SpanID().String() == fromSpan)
			attrs := map[string]string{}
			for _, a := range got.Attributes {
				attrs[string(a.Key)] = a.Value.String()
			}
			require.Equal(t, map[string]string{
				"http.request.method": "POST", "url.path": "/graphql", "http.route": "/graphql", "http.response.status_code": "503",
			}, attrs)
		})
	}
}

func attr(key, value string) attribute.KeyValue { return attribute.String(key, value) }

// traced is a pool whose statements are traced.
func traced(t *testing.T, tr *Tracer) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(dbtest.URL(t))
	require.NoError(t, err)
	cfg.ConnConfig.Tracer = tr.Statements()
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// Values are no part of a trace: neither those of statements, nor those that Postgres tells in an error.
func TestStatementsHaveNoValues(t *testing.T) {
	t.Parallel()
	const secret = "correct-horse-battery"
	tr, kept := recording(t, &TraceConfig{})
	pool := traced(t, tr)
	ctx, span := tr.Operation(t.Context(), "query", "Named")
	var got string
	require.NoError(t, pool.QueryRow(ctx, `SELECT $1::text`, secret).Scan(&got))
	_, err := pool.Exec(ctx, `SELECT $1::text::int`, secret)
	require.ErrorContains(t, err, secret)
	b := &pgx.Batch{}
	b.Queue(`SELECT set_config('godstack.test', $1, false)`, secret)
	b.Queue(`SELECT length($1)`, secret)
	require.NoError(t, pool.SendBatch(ctx, b).Close())
	late, cancel := context.WithCancel(ctx)
	cancel()
	_, err = pool.Exec(late, `SELECT 1`)
	require.ErrorIs(t, err, context.Canceled)
	span.End(false)

	spans := kept.GetSpans()
	names := map[string]tracetest.SpanStub{}
	for _, s := range spans {
		require.Equal(t, span.TraceID(), s.SpanContext.TraceID().String())
		for _, a := range s.Attributes {
			require.NotContains(t, a.Value.String(), secret)
			if a.Key == "db.query.text" {
				names[a.Value.AsString()] = s
			}
		}
		for _, e := range s.Events {
			require.NotContains(t, e.Name, secret)
			for _, a := range e.Attributes {
				require.NotContains(t, a.Value.String(), secret)
			}
		}
		require.NotContains(t, s.Status.Description, secret)
		names[s.Name] = s
	}
	operation, batch := names["query Named"], names["BATCH"]
	require.Equal(t, operation.SpanContext.SpanID(), names[`SELECT $1::text`].Parent.SpanID())
	require.Equal(t, "SELECT", names[`SELECT $1::text`].Name)
	require.Equal(t, codes.Unset, names[`SELECT $1::text`].Status.Code)
	bad := names[`SELECT $1::text::int`]
	require.Equal(t, codes.Error, bad.Status.Code)
	require.Contains(t, bad.Attributes, attr("db.response.status_code", "22P02"))
	require.Equal(t, operation.SpanContext.SpanID(), batch.Parent.SpanID())
	for _, text := range []string{`SELECT set_config('godstack.test', $1, false)`, `SELECT length($1)`} {
		require.Equal(t, batch.SpanContext.SpanID(), names[text].Parent.SpanID(), text)
	}
}

// What runs in no span, or in one that is not kept, makes none.
func TestStatementsOfNoTrace(t *testing.T) {
	t.Parallel()
	for _, sampler := range []string{"always_on", "always_off"} {
		tr, kept := recording(t, &TraceConfig{Sampler: sampler})
		pool := traced(t, tr)
		ctx, span := t.Context(), Span{}
		if sampler == "always_off" {
			ctx, span = tr.Operation(ctx, "query", "")
		}
		_, err := pool.Exec(ctx, `SELECT 1`)
		require.NoError(t, err)
		b := &pgx.Batch{}
		b.Queue(`SELECT 1`)
		require.NoError(t, pool.SendBatch(ctx, b).Close())
		span.End(false)
		require.Empty(t, kept.GetSpans())
	}
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		"select 1": "SELECT", "\n\t(SELECT 1)": "SELECT", "UPDATE": "UPDATE", "WITH x AS (SELECT 1) TABLE x": "WITH", "": "SQL", ";": "SQL",
		"-- who knows\nSELECT 1": "SQL", strings.Repeat("x", 30): "SQL", "ünicode": "SQL",
	} {
		require.Equal(t, want, verb(sql), sql)
	}
	long := strings.Repeat("x", longestStatement-1) + "ü"
	require.Equal(t, long[:longestStatement-1], shortened(long))
}

// Work that is done later is in the trace of who asked for it.
func TestCarry(t *testing.T) {
	t.Parallel()
	tr, kept := recording(t, &TraceConfig{})
	ctx, span := tr.Operation(t.Context(), "mutation", "")
	carried := tr.Carry(ctx)
	span.End(false)
	_, job := tr.Follow(t.Context(), "job welcome", carried)
	job.End(true)
	for _, none := range []string{"", "00-nonsense"} {
		_, alone := tr.Follow(t.Context(), "job alone", none)
		alone.End(false)
	}
	spans := kept.GetSpans()
	require.Len(t, spans, 4)
	require.Equal(t, "mutation", spans[0].Name)
	require.Equal(t, spans[0].SpanContext.TraceID(), spans[1].SpanContext.TraceID())
	require.Equal(t, spans[0].SpanContext.SpanID(), spans[1].Parent.SpanID())
	require.Equal(t, trace.SpanKindConsumer, spans[1].SpanKind)
	require.Equal(t, codes.Error, spans[1].Status.Code)
	for _, s := range spans[2:] {
		require.False(t, s.Parent.IsValid())
	}
	require.Empty(t, tr.Carry(t.Context()))

	off, _ := recording(t, &TraceConfig{Sampler: "always_off"})
	ctx, span = off.Operation(t.Context(), "mutation", "")
	require.Empty(t, off.Carry(ctx))
	span.End(false)
}

// Spans go where the configuration says, with its headers, at the latest when the tracer is closed.
func TestExport(t *testing.T) {
	t.Parallel()
	got := make(chan *http.Request, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r }))
	defer collector.Close()
	tr, err := NewTracer(t.Context(), &TraceConfig{Endpoint: collector.URL + "/v1/traces", Headers: map[string]string{"Api-Key": "abc"}}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, span := tr.Operation(t.Context(), "query", "")
	span.End(false)
	require.NoError(t, tr.Close(t.Context()))
	r := <-got
	require.Equal(t, "/v1/traces", r.URL.Path)
	require.Equal(t, "abc", r.Header.Get("Api-Key"))
	require.Equal(t, "application/x-protobuf", r.Header.Get("Content-Type"))
	require.Zero(t, tr.Failures())
}

// A collector that refuses is logged, and keeps nothing from going on.
func TestACollectorThatFails(t *testing.T) {
	t.Parallel()
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }))
	defer collector.Close()
	var log bytes.Buffer
	tr, err := NewTracer(t.Context(), &TraceConfig{Endpoint: collector.URL}, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	_, span := tr.Operation(t.Context(), "query", "")
	span.End(false)
	require.NoError(t, tr.Close(t.Context()))
	require.EqualValues(t, 1, tr.Failures())
	require.Contains(t, log.String(), "traces were not taken")
}

func TestTraceConfig(t *testing.T) {
	t.Parallel()
	for _, good := range []TraceConfig{
		{}, {Endpoint: "https://collector.example.com/v1/traces"}, {Sampler: "always_on"}, {Sampler: "parentbased_traceidratio", Ratio: new(0.0)},
	} {
		require.NoError(t, good.Validate())
	}
	for _, bad := range []TraceConfig{
		{Endpoint: "localhost:4318"}, {Endpoint: "ftp://localhost"}, {Endpoint: "http://"}, {Endpoint: "http://ada:plover@localhost"},
		{Sampler: "sometimes"}, {Sampler: "parentbased_"}, {Ratio: new(1.1)}, {Ratio: new(-0.1)},
	} {
		require.Error(t, bad.Validate())
		_, err := NewTracer(t.Context(), &bad, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, "telemetry: ")
		require.NotContains(t, err.Error(), "plover")
	}
	none, err := NewTracer(t.Context(), nil, nil)
	require.NoError(t, err)
	require.Nil(t, none)

	const few = 0.1
	tr, kept := recording(t, &TraceConfig{Sampler: "traceidratio", Ratio: new(few)})
	for range 1000 {
		_, span := tr.Operation(t.Context(), "query", "")
		span.End(false)
	}
	require.InDelta(t, few, float64(len(kept.GetSpans()))/1000, 0.07, "seven standard deviations")
}
