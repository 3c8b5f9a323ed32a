package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// readyTimeout bounds a look at what the server stands on.
	readyTimeout = 2 * time.Second
	// readyFor is how long a look is good for: balancers, Kubernetes and Prometheus ask each on their own, and anybody may.
	readyFor = 250 * time.Millisecond
)

var errDraining = errors.New("it is draining")

// readiness looks at what the server stands on, once for all who ask at about the same time.
type readiness struct {
	check func(context.Context) error // Deps.Ready

	mu   sync.Mutex // protects last
	last *look
}

// look is what was found. at and err are valid once done is closed.
type look struct {
	done chan struct{}
	at   time.Time
	err  error
}

// good reports whether a look goes on, or is not old.
func (l *look) good() bool {
	select {
	case <-l.done:
		return time.Since(l.at) < readyFor
	default:
		return true
	}
}

// ask returns what keeps the server from serving, and whether it has looked for this caller.
func (r *readiness) ask(ctx context.Context) (looked bool, err error) {
	r.mu.Lock()
	l := r.last
	if looked = l == nil || !l.good(); looked {
		l = &look{done: make(chan struct{}), err: errors.New("nobody knows")} // where the check panics
		r.last = l
	}
	r.mu.Unlock()
	if looked {
		defer func() {
			l.at = time.Now()
			close(l.done)
		}()
		// Others wait for it: it goes on when who asked first goes.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
		defer cancel()
		l.err = r.check(ctx)
		return true, l.err
	}
	select {
	case <-l.done:
		return false, l.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// Ready returns what keeps the server from serving: that it is being stopped, or what Deps.Ready says, which is asked at most once in
// 250 ms.
func (s *Server) Ready(ctx context.Context) error {
	if s.draining.Err() != nil {
		return errDraining
	}
	looked, err := s.readiness.ask(ctx)
	if err != nil && looked {
		s.log.WarnContext(ctx, "not ready", "error", err, "requestId", RequestID(ctx))
	}
	return err
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if err := s.Ready(r.Context()); err != nil {
		http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ready\n")
	if s.deps.Notes != nil {
		for _, line := range s.deps.Notes() {
			_, _ = io.WriteString(w, line+"\n")
		}
	}
}
