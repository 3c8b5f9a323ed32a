package server

import (
	"context"
	"net/http"
	"time"

	"godstack/internal/ratelimit"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// route puts the viewer in the context of what is not GraphQL, and refuses whoever is refused there.
func (s *Server) route(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Cache-Control"] = noStore
		ctx, _, _, err := s.signIn(r.Context(), r.Header.Get("Authorization"))
		if err != nil {
			s.refuse(w, r, statusOf(translate(ctx, err).Code), err)
			return
		}
		next.ServeHTTP(s.flow(w), r.WithContext(ctx))
	})
}

// Identify says in the log and in the trace who sends the request that ctx belongs to.
func Identify(ctx context.Context, v viewer.Viewer) { requestFrom(ctx).user = v.ID }

// Explain returns what a client may be told of an error, and the status to tell it with.
func Explain(ctx context.Context, err error) (status int, e *record.Error) {
	e = translate(ctx, err)
	return statusOf(e.Code), e
}

// flowing is an answer that may take as long as it likes, as an export does, while each piece of it goes out within a
// time.
type flowing struct {
	http.ResponseWriter
	timeout  time.Duration
	extended time.Time
}

func (s *Server) flow(w http.ResponseWriter) *flowing {
	return &flowing{ResponseWriter: w, timeout: s.writeTimeout}
}

func (w *flowing) Write(p []byte) (int, error) {
	if now := time.Now(); now.Sub(w.extended) > w.timeout/4 {
		w.extended = now
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(now.Add(w.timeout)) // where there is a connection
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for [http.ResponseController].
func (w *flowing) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// limited counts requests by the client's address. Where nobody knows it, or how many there were, requests pass: a
// limiter that fails must not end the service.
func (s *Server) limited(next http.Handler) http.Handler {
	if s.deps.Limit == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if result, ok := s.count(r.Context()); ok {
			result.WriteHeaders(w.Header().Add)
			if !result.OK {
				w.Header()["Cache-Control"] = noStore
				s.refuse(w, r, http.StatusTooManyRequests, tooManyRequests(result))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// count counts a request, or an operation over a socket, of the client in ctx. It returns false where nobody knows the result.
func (s *Server) count(ctx context.Context) (result ratelimit.Result, ok bool) {
	c := viewer.ClientOf(ctx)
	if s.deps.Limit == nil || !c.Address.IsValid() {
		return result, false
	}
	result, err := s.deps.Limit(ctx, c.Address)
	if err != nil {
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "limit of requests", "requestId", c.RequestID, "error", err)
		}
		return result, false
	}
	return result, true
}

func tooManyRequests(r ratelimit.Result) *record.Error {
	return &record.Error{Code: record.RateLimited, Message: "too many requests", RetryAfter: r.RetryAfter}
}
