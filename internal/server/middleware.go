package server

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"godstack/internal/record"
	"godstack/internal/telemetry"
	"godstack/internal/viewer"
)

// request is what is known about a request: who sent it, and what the log says. The goroutine that serves it writes
// it, and no other.
type request struct {
	client    viewer.Client
	operation string
	user      uuid.UUID
	route     string // for metrics, where it is not the pattern's
}

// detach takes from the client what outlives its request, where answers have no header.
func (r *request) detach(from *viewer.Client) {
	r.client.Address, r.client.UserAgent, r.client.RequestID, r.client.Socket = from.Address, from.UserAgent, from.RequestID, true
}

type requestKey struct{}

func requestFrom(ctx context.Context) *request {
	switch r := ctx.Value(requestKey{}).(type) {
	case *request:
		return r
	case *socket:
		return &r.request
	}
	return &request{}
}

// RequestID returns the id of the request that ctx belongs to, or "" outside of requests. All operations of a
// socket share the id of the request that opened it.
func RequestID(ctx context.Context) string { return requestFrom(ctx).client.RequestID }

// requestIDHeader names the header in requests and answers.
const requestIDHeader = "X-Request-Id"

// saneID is what is taken over from a client or a proxy: short, and harmless in a log.
var saneID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// ServeHTTP gives the request an id, answers it, counts and traces it, and writes the access log, which has neither the query string nor
// anything of a header or a body but the id and the operation's name.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(requestIDHeader)
	if !saneID.MatchString(id) {
		id = rand.Text()
	}
	info := &request{client: viewer.Client{RequestID: id}}
	s.describe(&info.client, r)
	info.client.SetAnswer(w.Header())
	ctx, span := r.Context(), telemetry.Span{}
	if s.deps.Tracer != nil && !isProbe(r.URL.Path) {
		_, trusted := s.peer(r)
		ctx, span = s.deps.Tracer.Request(r, trusted)
		span.Set("godstack.request_id", id)
	}
	r = r.WithContext(viewer.WithClient(context.WithValue(ctx, requestKey{}, info), &info.client))
	out := &recorder{ResponseWriter: w}
	setHeaders(out.Header(), s.headers)
	out.Header().Set(requestIDHeader, id)

	start := time.Now()
	s.deps.Metrics.Begin()
	defer func() {
		v := recover()
		aborted := v == http.ErrAbortHandler //nolint:errorlint // net/http compares so as well
		if v != nil && !aborted {
			s.log.ErrorContext(r.Context(), "panic", "requestId", id, "error", v, "stack", string(debug.Stack()))
			if out.status == 0 {
				s.refuse(out, r, http.StatusInternalServerError, internal(nil))
			}
		}
		took := time.Since(start)
		if info.route == "" {
			info.route = routeOf(r.Pattern) // which the mux has set
		}
		s.deps.Metrics.End(info.route, r.Method, out.code(), took)
		s.logAccess(r, out, info, took, span.TraceID())
		if info.user != uuid.Nil {
			span.Set("user.id", info.user.String())
		}
		span.EndRequest(r.Method, info.route, out.code())
		if aborted {
			panic(v)
		}
	}()
	if !s.crossOrigin(out, r) {
		s.mux.ServeHTTP(out, r)
	}
}

func (s *Server) logAccess(r *http.Request, out *recorder, info *request, took time.Duration, traceID string) {
	level := slog.LevelInfo
	if r.URL.Path != "/graphql" {
		level = slog.LevelDebug // probes and assets
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method),
		slog.String("path", r.URL.Path),
		slog.Int("status", out.code()),
		slog.Duration("duration", took),
		slog.String("requestId", info.client.RequestID),
	}
	if info.operation != "" {
		attrs = append(attrs, slog.String("operation", info.operation))
	}
	if info.user != uuid.Nil {
		attrs = append(attrs, slog.String("user", info.user.String()))
	}
	if traceID != "" {
		attrs = append(attrs, slog.String("traceId", traceID))
	}
	s.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int // 0 until the header is written
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	w.status = w.code()
	return w.ResponseWriter.Write(p)
}

// Unwrap lets [http.ResponseController], and the WebSocket's upgrade, reach what lies beneath.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

// statusOf is the HTTP status of an error that ends a request before GraphQL begins.
func statusOf(code record.Code) int {
	switch code {
	case record.Unauthenticated:
		return http.StatusUnauthorized
	case record.Forbidden, record.CSRFRejected, record.AccountLocked:
		return http.StatusForbidden
	case record.NotFound:
		return http.StatusNotFound
	case record.AlreadyExists:
		return http.StatusConflict
	case record.RateLimited:
		return http.StatusTooManyRequests
	case record.Unavailable:
		return http.StatusServiceUnavailable
	case record.Internal:
		return http.StatusInternalServerError
	default:
		return http.StatusBadRequest
	}
}
