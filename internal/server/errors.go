package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/errcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/record"
)

// translate is the one table from an error to what a client is told. Whatever it does not name is INTERNAL.
func translate(ctx context.Context, err error) *record.Error {
	if e, ok := errors.AsType[*record.Error](err); ok {
		return e
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		if e := translatePostgres(pg); e != nil {
			return e
		}
		return internal(err)
	}
	if p, ok := errors.AsType[*panicError](err); ok {
		return internal(p)
	}
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return unavailable(err, 0)
	case connecting, pgconn.SafeToRetry(err):
		return unavailable(err, time.Second) // nothing was sent
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return unavailable(err, time.Second) // a statement before COMMIT had failed
	case network, errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, pgconn.ErrConnClosed):
		return unavailable(err, 0) // the statement may have been executed
	case decodingArguments(ctx):
		return &record.Error{Code: record.BadUserInput, Message: text(err)}
	}
	return internal(err)
}

// translatePostgres returns nil for a code that is not in the table.
func translatePostgres(pg *pgconn.PgError) *record.Error {
	switch pg.Code {
	case "40001", "40P01": // serialization failure, deadlock: rolled back, and free at once
		return unavailable(pg, 100*time.Millisecond)
	// Canceled, lock not available, starting up, a statement before it failed: rolled back, or never begun.
	case "57014", "55P03", "57P03", "25P02":
		return unavailable(pg, time.Second)
	case "GS409": // users_last_administrator
		return &record.Error{Code: record.Forbidden, Message: "the last administrator stays one", Err: pg}
	case "57P01", "57P02", "25006": // shut down, crashed, read-only after a promotion
		return unavailable(pg, 0)
	case "22021", "22P05": // a byte or a character that Postgres cannot store
		return &record.Error{Code: record.BadUserInput, Message: "text contains a character that cannot be stored", Err: pg}
	}
	switch pg.Code[:min(2, len(pg.Code))] {
	case "53": // too many connections, out of memory, disk full
		return unavailable(pg, time.Second)
	case "08": // the connection broke
		return unavailable(pg, 0)
	}
	return nil
}

// unavailable is given a time only where nothing can have happened, so that trying again is safe.
func unavailable(err error, retryAfter time.Duration) *record.Error {
	return &record.Error{Code: record.Unavailable, Message: "temporarily unavailable", RetryAfter: retryAfter, Err: err}
}

func internal(err error) *record.Error {
	return &record.Error{Code: record.Internal, Message: "internal error", Err: err}
}

// present turns err into what is sent, and logs the rest. It never changes err: a loader hands one error to
// many fields at the same time.
func (s *Server) present(ctx context.Context, err error) *gqlerror.Error {
	out := &gqlerror.Error{Path: graphql.GetPath(ctx)}
	var code string
	g, _ := errors.AsType[*gqlerror.Error](err)
	if g != nil {
		out.Path, out.Locations = g.Path, g.Locations
		code, _ = g.Extensions["code"].(string)
	}
	switch {
	case code == errcode.ParseFailed && len(g.Locations) == 0:
		// A syntax error has a place; running out of tokens has none.
		out.Message, out.Extensions = g.Message, extensions(record.TooComplex)
	case code == errcode.ValidationFailed && len(g.Path) > 1 && g.Path[0] == ast.PathName("variable"):
		// A variable's value. Its path is one into the variables, not into the answer.
		out.Message = fmt.Sprintf("variable %s: %s", g.Path[1:], g.Message)
		out.Path, out.Extensions = nil, (&record.Error{Code: record.BadUserInput, Fields: argument(g)}).Extensions()
	case code != "" && g.Err == nil:
		// gqlgen's own, or one that was presented before.
		out.Message, out.Extensions = g.Message, maps.Clone(g.Extensions)
	default:
		e := *translate(ctx, err)
		if decodingArguments(ctx) {
			// gqlgen's path goes on into the arguments, which tells the field that is wrong.
			if e.Code == record.BadUserInput && len(e.Fields) == 0 {
				e.Fields = argument(err)
			}
			out.Path = graphql.GetFieldContext(ctx).Path()
		}
		if e.Conflict != nil {
			s.deps.Metrics.Conflict(e.Conflict.Type)
		}
		s.logError(ctx, &e, out.Path, err)
		out.Message, out.Extensions = e.Message, e.Extensions()
		if e.Code == record.Internal {
			out.Message = internal(nil).Message
		}
	}
	if g == nil || g.Extensions["requestId"] == nil { // not one that was presented before
		code, _ = out.Extensions["code"].(string)
		s.deps.Metrics.Error(code)
		s.deps.Tracer.Error(ctx, code)
	}
	out.Extensions["requestId"] = RequestID(ctx)
	return out
}

func extensions(code record.Code) map[string]any { return (&record.Error{Code: code}).Extensions() }

// logError logs what the client is not told.
func (s *Server) logError(ctx context.Context, e *record.Error, path ast.Path, err error) {
	level := slog.LevelDebug
	switch {
	case e.Code == record.Internal:
		level = slog.LevelError
	case e.Code == record.Unavailable && !errors.Is(err, context.Canceled):
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("requestId", RequestID(ctx)), slog.String("code", string(e.Code)),
		slog.String("path", path.String()), slog.Any("error", err),
	}
	if id := s.deps.Tracer.TraceID(ctx); id != "" {
		attrs = append(attrs, slog.String("traceId", id))
	}
	if p, ok := errors.AsType[*panicError](err); ok {
		attrs = append(attrs, slog.String("stack", string(p.stack)))
	}
	s.log.LogAttrs(ctx, level, "graphql error", attrs...)
}

// panicError is what a resolver panicked with.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// recovered is gqlgen's recover function. What it returns is presented: gqlgen would put a path around the panic.
func (s *Server) recovered(ctx context.Context, v any) error {
	// gqlparser panics on a number literal that fits no integer, where the argument is a custom scalar.
	if err, ok := v.(error); ok && decodingArguments(ctx) {
		if _, ok := errors.AsType[*strconv.NumError](err); ok {
			return s.present(ctx, err)
		}
	}
	return s.present(ctx, &panicError{value: v, stack: debug.Stack()})
}

// decodingArguments reports whether ctx is that of a field whose arguments are still being read. gqlgen sets
// Args, to a map that is not nil, before it calls a resolver.
func decodingArguments(ctx context.Context) bool {
	fc := graphql.GetFieldContext(ctx)
	return fc != nil && fc.Args == nil && fc.Field.Field != nil &&
		fc.Field.Definition != nil && len(fc.Field.Definition.Arguments) > 0
}

// text is the message of err without the path that gqlgen's errors print before theirs.
func text(err error) string {
	if g, ok := errors.AsType[*gqlerror.Error](err); ok {
		return g.Message
	}
	return err.Error()
}

// argument names the innermost argument or input field on the error's path.
func argument(err error) []string {
	g, ok := errors.AsType[*gqlerror.Error](err)
	if !ok {
		return nil
	}
	for _, element := range slices.Backward(g.Path) {
		if name, ok := element.(ast.PathName); ok {
			return []string{string(name)}
		}
	}
	return nil
}
