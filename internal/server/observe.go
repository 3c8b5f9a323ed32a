package server

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"godstack/internal/telemetry"
	"godstack/internal/viewer"
)

// observed is an operation for metrics, traces and the log.
type observed struct {
	server *Server
	ctx    context.Context
	op     *graphql.OperationContext
	span   telemetry.Span
	begun  time.Time // of a subscription that is pulled, whose first event tells whether it was refused, and may take its time
	ended  bool
}

// observe begins to watch an operation, which runs in the context that it returns. end has to be called.
func (s *Server) observe(ctx context.Context, op *graphql.OperationContext) (context.Context, observed) {
	ctx, span := s.deps.Tracer.Operation(ctx, string(op.Operation.Operation), op.Operation.Name)
	return ctx, observed{server: s, ctx: ctx, op: op, span: span}
}

// end says that the operation has ended, or, of a subscription, begun. The first call counts.
func (o *observed) end(failed bool) {
	if o.ended {
		return
	}
	o.ended = true
	s, kind := o.server, string(o.op.Operation.Operation)
	if o.begun.IsZero() {
		o.begun = time.Now()
	}
	took := o.begun.Sub(o.op.Stats.OperationStart)
	s.deps.Metrics.Operation(kind, o.op.Operation.Name, took, failed)
	s.logOperation(o, took, failed)
	if v, ok := viewer.FromContext(o.ctx); ok {
		o.span.Set("user.id", v.ID.String())
	}
	o.span.End(failed)
}

// failed reports whether an answer has an error, or there is none.
func failed(resp *graphql.Response, err error) bool {
	return err != nil || resp == nil || len(resp.Errors) > 0
}

// operationName is what the log calls an operation: its type, and what of its name is not too long.
func operationName(op *graphql.OperationContext) string {
	name := op.Operation.Name // of ASCII alone
	return strings.TrimSpace(string(op.Operation.Operation) + " " + name[:min(len(name), longestLoggedName)])
}

// logOperation logs an operation over a socket or an event stream. Others have the line of their request.
func (s *Server) logOperation(o *observed, took time.Duration, failed bool) {
	client := viewer.ClientOf(o.ctx)
	if !client.Socket || !s.log.Enabled(o.ctx, slog.LevelInfo) {
		return
	}
	attrs := []slog.Attr{
		slog.String("operation", operationName(o.op)),
		slog.Bool("failed", failed),
		slog.Duration("duration", took),
		slog.String("requestId", client.RequestID),
	}
	if v, ok := viewer.FromContext(o.ctx); ok {
		attrs = append(attrs, slog.String("user", v.ID.String()))
	}
	if id := o.span.TraceID(); id != "" {
		attrs = append(attrs, slog.String("traceId", id))
	}
	s.log.LogAttrs(o.ctx, slog.LevelInfo, "operation", attrs...)
}

// eventsRoute is what metrics call the route of event streams, which last: their time is not that of an answer.
const eventsRoute = "/graphql (events)"

// isProbe names what is asked all the time, and tells nothing in a trace.
func isProbe(path string) bool { return path == "/healthz" || path == "/readyz" }

// routeOf is the path of the pattern that found who answers, "" for none.
func routeOf(pattern string) string {
	if _, path, ok := strings.Cut(pattern, " "); ok {
		return path
	}
	return pattern
}
