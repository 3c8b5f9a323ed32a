package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// TraceConfig says where traces go, and which.
type TraceConfig struct {
	// Endpoint is the whole address of a collector that speaks OTLP over HTTP. Default http://localhost:4318/v1/traces.
	Endpoint string
	// Headers go with each export, as an API key.
	Headers map[string]string
	// Service is the program's name in traces. Default godstack.
	Service string
	// Attributes are further ones of the program, as deployment.environment.name.
	Attributes map[string]string
	// Sampler is always_on, always_off, traceidratio, or one of these with parentbased_ before it. Default parentbased_always_on.
	Sampler string
	// Ratio is of traceidratio, from 0 to 1. Nil: 1.
	Ratio *float64
}

// sampler returns the one that the configuration names.
func (c *TraceConfig) sampler() (sdktrace.Sampler, error) {
	name, parentBased := strings.CutPrefix(cmp.Or(c.Sampler, "parentbased_always_on"), "parentbased_")
	ratio := 1.0
	if c.Ratio != nil {
		ratio = *c.Ratio
	}
	if !(ratio >= 0 && ratio <= 1) { // NaN is neither
		return nil, fmt.Errorf("a ratio of %v is not from 0 to 1", ratio)
	}
	var s sdktrace.Sampler
	switch name {
	case "always_on":
		s = sdktrace.AlwaysSample()
	case "always_off":
		s = sdktrace.NeverSample()
	case "traceidratio":
		s = sdktrace.TraceIDRatioBased(ratio)
	default:
		return nil, fmt.Errorf("%q is none of always_on, always_off and traceidratio, nor parentbased_ and one of them", c.Sampler)
	}
	if parentBased {
		s = sdktrace.ParentBased(s)
	}
	return s, nil
}

// Validate returns what is wrong.
func (c *TraceConfig) Validate() error {
	if u, err := url.Parse(c.Endpoint); c.Endpoint != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil) {
		return errors.New("telemetry: Endpoint is no address such as http://localhost:4318/v1/traces")
	}
	if _, err := c.sampler(); err != nil {
		return fmt.Errorf("telemetry: Sampler: %w", err)
	}
	return nil
}

// Tracer makes spans and has them exported. Nil makes none.
type Tracer struct {
	tracer   trace.Tracer
	provider *sdktrace.TracerProvider
	failures atomic.Uint64
}

// NewTracer returns a tracer that exports as cfg says, until Close; nil where cfg is. It does not wait for the collector.
func NewTracer(ctx context.Context, cfg *TraceConfig, log *slog.Logger) (*Tracer, error) {
	if cfg == nil {
		return nil, nil
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	options := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(cmp.Or(cfg.Endpoint, "http://localhost:4318/v1/traces"))}
	if len(cfg.Headers) > 0 {
		options = append(options, otlptracehttp.WithHeaders(cfg.Headers))
	}
	out, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("export traces: %w", err)
	}
	t := &Tracer{}
	if err := t.begin(cfg, sdktrace.WithBatcher(&exporter{out, t, log})); err != nil {
		return nil, errors.Join(err, out.Shutdown(ctx))
	}
	return t, nil
}

// begin makes the provider, whose spans go where option says.
func (t *Tracer) begin(cfg *TraceConfig, option sdktrace.TracerProviderOption) error {
	sampler, err := cfg.sampler()
	if err != nil {
		return err
	}
	attrs := []attribute.KeyValue{attribute.String("service.name", cmp.Or(cfg.Service, "godstack"))}
	for _, name := range slices.Sorted(maps.Keys(cfg.Attributes)) {
		attrs = append(attrs, attribute.String(name, cfg.Attributes[name]))
	}
	t.provider = sdktrace.NewTracerProvider(option, sdktrace.WithSampler(sampler), sdktrace.WithResource(resource.NewSchemaless(attrs...)))
	t.tracer = t.provider.Tracer("godstack")
	return nil
}

// exporter logs what goes wrong, where the SDK would write to the standard error.
type exporter struct {
	sdktrace.SpanExporter
	tracer *Tracer
	log    *slog.Logger
}

// ExportSpans sends spans. The SDK bounds how long.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.tracer.failures.Add(1)
		e.log.WarnContext(ctx, "traces were not taken", "spans", len(spans), "error", err)
	}
	return nil
}

// Failures is how many batches of spans the collector did not take.
func (t *Tracer) Failures() uint64 {
	if t == nil {
		return 0
	}
	return t.failures.Load()
}

// closeTimeout bounds how long the last spans may take to be sent.
const closeTimeout = 5 * time.Second

// Close sends what there is, also after ctx is done, and ends the tracer.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last traces: %w", err)
	}
	return nil
}

// Span is a part of a trace. The zero value is none: its methods do nothing.
type Span struct{ span trace.Span }

// TraceID is the trace's, in hexadecimal; "" where nobody will find it.
func (s Span) TraceID() string {
	if s.span == nil {
		return ""
	}
	return sampledID(s.span.SpanContext())
}

func sampledID(c trace.SpanContext) string {
	if !c.IsValid() || !c.IsSampled() {
		return ""
	}
	return c.TraceID().String()
}

// Set adds an attribute, unless value is empty.
func (s Span) Set(name, value string) {
	if s.span != nil && value != "" {
		s.span.SetAttributes(attribute.String(name, value))
	}
}

// End ends it.
func (s Span) End(failed bool) {
	if s.span == nil {
		return
	}
	if failed {
		s.span.SetStatus(codes.Error, "")
	}
	s.span.End()
}

// EndRequest ends the span of a request, which has the name of its route from now on.
func (s Span) EndRequest(method, route string, status int) {
	if s.span == nil {
		return
	}
	name := knownMethod(method)
	if route != "" {
		name += " " + route
		s.span.SetAttributes(attribute.String("http.route", route))
	}
	s.span.SetName(name)
	s.span.SetAttributes(attribute.Int("http.response.status_code", status))
	s.End(status >= http.StatusInternalServerError)
}

// longestPath is how much of a path is kept, in bytes.
const longestPath = 200

// Request begins the span of a request, and returns the context to answer it in. Where trusted says that r comes by a trusted proxy, the
// span that traceparent names is its parent, and decides whether it is sampled; else the trace is a new one, with a link to that span.
func (t *Tracer) Request(r *http.Request, trusted bool) (context.Context, Span) {
	ctx := r.Context()
	if t == nil {
		return ctx, Span{}
	}
	path := r.URL.Path
	options := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(
			attribute.String("http.request.method", knownMethod(r.Method)),
			attribute.String("url.path", strings.ToValidUTF8(path[:min(len(path), longestPath)], "")),
		),
	}
	from := parse(propagation.HeaderCarrier(r.Header))
	switch {
	case !from.IsValid():
	case trusted:
		ctx = trace.ContextWithRemoteSpanContext(ctx, from)
	default:
		options = append(options, trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: from}))
	}
	ctx, span := t.tracer.Start(ctx, knownMethod(r.Method), options...)
	return ctx, Span{span}
}

func parse(from propagation.TextMapCarrier) trace.SpanContext {
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), from))
}

// Operation begins the span of a GraphQL operation. It has neither the document nor variables, in which there may be anything.
func (t *Tracer) Operation(ctx context.Context, kind, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	name = name[:min(len(name), longestName)]
	ctx, span := t.tracer.Start(ctx, strings.TrimSpace(kind+" "+name), trace.WithAttributes(attribute.String("graphql.operation.type", kind)))
	s := Span{span}
	s.Set("graphql.operation.name", name)
	return ctx, s
}

// Error tells the span of ctx which error a client was told.
func (t *Tracer) Error(ctx context.Context, code string) {
	if t == nil {
		return
	}
	trace.SpanFromContext(ctx).AddEvent("error", trace.WithAttributes(attribute.String("error.type", code)))
}

// TraceID is the id of the trace that ctx is in; "" where nobody will find it.
func (t *Tracer) TraceID(ctx context.Context) string {
	if t == nil {
		return ""
	}
	return sampledID(trace.SpanContextFromContext(ctx))
}

// traceparent is the name of W3C's header, and of what Carry returns.
const traceparent = "traceparent"

// Carry returns where ctx is in its trace, to be kept with work that is done later, as a job; "" where nothing is traced.
func (t *Tracer) Carry(ctx context.Context) string {
	if t.TraceID(ctx) == "" {
		return ""
	}
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return c[traceparent]
}

// Follow begins the span of such work, in the trace that carried names; in one of its own where that is "" or is none.
func (t *Tracer) Follow(ctx context.Context, name, carried string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	if from := parse(propagation.MapCarrier{traceparent: carried}); from.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, from)
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindConsumer))
	return ctx, Span{span}
}
