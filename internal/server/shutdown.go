package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"godstack/internal/graphqlws"
)

// Serve answers on ln, which it closes, until ctx is done. Then it is not ready, and goes on for ShutdownDelay, so that those who send it
// requests notice; then it accepts nothing new, lets running requests finish, and closes sockets and event streams one after the other over
// ShutdownSpread. It returns an error where the listener failed, or where something still ran ShutdownTimeout after ctx was done.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	// Requests outlive ctx: they end by themselves, or when time is up.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	hs := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      s.writeTimeout, // a hijacked connection has none
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(ln) }()
	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}

	limit, cancel := context.WithTimeout(base, s.cfg.ShutdownTimeout)
	defer cancel()
	s.leaving.Store(true)
	if err == nil && s.cfg.ShutdownDelay > 0 {
		s.log.InfoContext(ctx, "draining", "delay", s.cfg.ShutdownDelay)
		hs.SetKeepAlivesEnabled(false) // who has a connection finds another node with the next
		delay := time.NewTimer(s.cfg.ShutdownDelay)
		defer delay.Stop()
		select {
		case <-delay.C:
		case err = <-failed:
			err = fmt.Errorf("serve http: %w", err)
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- s.shutdown(limit) }()
	late := errors.Join(hs.Shutdown(limit), <-closed)
	if late != nil {
		cut()
		_ = hs.Close()
		late = fmt.Errorf("shut down http: requests still run after %s: %w", s.cfg.ShutdownTimeout, late)
	}
	return errors.Join(err, late)
}

// shutdown ends sockets and event streams, each over the same time.
func (s *Server) shutdown(ctx context.Context) error {
	s.leaving.Store(true)
	sockets := make(chan error, 1)
	go func() { sockets <- s.sockets.Shutdown(ctx) }()
	s.mu.Lock()
	streams := slices.Collect(maps.Keys(s.written))
	s.mu.Unlock()
	graphqlws.Spread(ctx, s.cfg.ShutdownSpread, streams, (*events).end)
	s.drain() // those that have begun meanwhile
	s.mu.Lock()
	reservations := slices.Collect(maps.Values(s.reservations))
	s.mu.Unlock()
	for _, e := range reservations { // also those that nobody writes
		e.end()
	}
	err := <-sockets
	ended := make(chan struct{})
	go func() {
		s.streaming.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}

// list says that somebody writes an event stream.
func (s *Server) list(e *events) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written[e] = struct{}{}
}

func (s *Server) unlist(e *events) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.written, e)
}
