package telemetry

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// statements makes a span of each statement that is sent within another span.
type statements struct{ tracer trace.Tracer }

var (
	_ pgx.QueryTracer = statements{}
	_ pgx.BatchTracer = statements{}
)

// Statements is what traces statements, for a connection's Tracer; nil where nothing is traced.
func (t *Tracer) Statements() pgx.QueryTracer {
	if t == nil {
		return nil
	}
	return statements{t.tracer}
}

// longestStatement is how much of a statement is kept, in bytes.
const longestStatement = 2 << 10

// statementKey is of the span that TraceQueryStart or TraceBatchStart has begun: what else ctx is in is not ours to end.
type statementKey struct{}

func (s statements) start(ctx context.Context, name string, attrs ...attribute.KeyValue) context.Context {
	attrs = append(attrs, attribute.String("db.system.name", "postgresql"))
	ctx, span := s.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
	return context.WithValue(ctx, statementKey{}, span)
}

func end(ctx context.Context, err error) {
	if span, ok := ctx.Value(statementKey{}).(trace.Span); ok {
		fail(span, err)
		span.End()
	}
}

// fail tells a span an error's code: its text may have values.
func fail(span trace.Span, err error) {
	if err == nil {
		return
	}
	kind := "error"
	pg, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case ok:
		kind = pg.Code
		span.SetAttributes(attribute.String("db.response.status_code", pg.Code))
	case errors.Is(err, context.Canceled):
		kind = "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		kind = "timeout"
	}
	span.SetAttributes(attribute.String("error.type", kind))
	span.SetStatus(codes.Error, "")
}

// TraceQueryStart begins a statement's span.
func (s statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx
	}
	return s.start(ctx, verb(data.SQL), attribute.String("db.query.text", shortened(data.SQL)))
}

// TraceQueryEnd ends it.
func (statements) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	end(ctx, data.Err)
}

// TraceBatchStart begins the span of statements that are sent together.
func (s statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx
	}
	return s.start(ctx, "BATCH", attribute.Int("db.operation.batch.size", data.Batch.Len()))
}

// TraceBatchQuery makes a span of one of them, which ends now.
func (s statements) TraceBatchQuery(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	if ctx.Value(statementKey{}) == nil {
		return
	}
	_, span := s.tracer.Start(ctx, verb(data.SQL), trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(data.ReadStartTime),
		trace.WithAttributes(attribute.String("db.system.name", "postgresql"), attribute.String("db.query.text", shortened(data.SQL))))
	fail(span, data.Err)
	span.End()
}

// TraceBatchEnd ends the span.
func (statements) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	end(ctx, data.Err)
}

// verb is the first word of a statement.
func verb(sql string) string {
	sql = strings.TrimLeft(sql, " \t\r\n(")
	if end := strings.IndexFunc(sql, func(r rune) bool { return r > 'z' || r < 'A' }); end >= 0 {
		sql = sql[:end]
	}
	if sql == "" || len(sql) > 20 {
		return "SQL"
	}
	return strings.ToUpper(sql)
}

func shortened(sql string) string {
	return strings.ToValidUTF8(sql[:min(len(sql), longestStatement)], "")
}
