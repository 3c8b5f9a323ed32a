package graphqlws

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Subprotocol is the name of graphql-transport-ws in a handshake.
const Subprotocol = "graphql-transport-ws"

// Close codes of RFC 6455 and of graphql-transport-ws.
const (
	closeProtocol       = 1002
	closeInvalidData    = 1007
	closePolicy         = 1008
	closeTooBig         = 1009
	closeRestart        = 1012
	closeBadRequest     = 4400
	closeUnauthorized   = 4401
	closeSubprotocol    = 4406
	closeInitTimeout    = 4408
	closeExists         = 4409
	closeTooManyInits   = 4429
	closeInternalError  = 4500
	internalErrorReason = "Internal server error"
)

// ErrDone is returned by [Operation.Send] when the operation has ended.
var ErrDone = errors.New("operation has ended")

// CloseError says how a socket is closed. Reason is for the client; what is beyond 123 bytes of it is cut off.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string { return fmt.Sprintf("close %d: %s", e.Code, e.Reason) }

// Handler is what a Server asks. Its methods may be called at the same time for different sockets and operations. One that panics is
// logged: after Init and Ping the socket is closed with 4500, after Subscribe the operation fails.
type Handler interface {
	// Init signs a socket in; payload is connection_init's, nil where there is none. ack is the payload of connection_ack, an object, nil
	// for none. A *CloseError says how the socket is closed; any other error is logged and closes it with 4500.
	Init(c *Conn, payload json.RawMessage) (ack json.RawMessage, err error)
	// Subscribe runs an operation. It has a goroutine of its own and may return while the operation goes on (a stream that is
	// pushed), which ends with Complete, Fail, the client's complete or the socket.
	Subscribe(op *Operation)
	// Ping answers a client's ping with the payload of the pong, an object, nil for none. It is asked for pings with a payload alone, of
	// sockets whose Init has succeeded; nothing else is read from the socket meanwhile. Errors are as Init's.
	Ping(c *Conn, payload json.RawMessage) (pong json.RawMessage, err error)
	// Closed is called once for each socket for which Init was called, after the last Operation is done and its Subscribe has returned.
	Closed(c *Conn)
}

// Config bounds what a socket may do. Zero values are the defaults.
type Config struct {
	// InitTimeout is how long a socket may take to send connection_init, else it is closed with 4408. Default: 10 s.
	InitTimeout time.Duration
	// PingInterval is the time between the server's pings. A socket of which nothing came after two of them is dead. Default: 20 s.
	PingInterval time.Duration
	// DrainTimeout is how long a socket may take nothing of what waits for it, and how long it may take to send a whole message; then it is
	// closed (with 1008 in the second case). Default: 30 s.
	DrainTimeout time.Duration
	// CloseSpread is over what time Shutdown closes the sockets, in a hundred steps at most: so many at once would come back at once. Few are
	// closed sooner. Default: none.
	CloseSpread time.Duration
	// MessageSize is how many bytes a client's message may have, else its socket is closed with 1009. Default: 64 KiB.
	MessageSize int
	// MessageRate is how many messages and control frames a second a client may send, and how many at once, else its socket is closed with
	// 1008, upon which clients do not connect again. Default: 100.
	MessageRate int
	// Operations is how many may run at the same time on a socket; the one too many is answered by an `error` message. Default: 100.
	Operations int
	// WriteBuffer is how many bytes may wait for a socket; with more Offer refuses, Send waits, and nothing is read from the socket. One
	// message always may, however long. Default: 256 KiB.
	WriteBuffer int
	// TooMany returns the payload of the `error` message for an operation beyond Operations, an array of GraphQL errors. Nothing is read
	// from the socket meanwhile. Default: one with a message alone.
	TooMany func(c *Conn) json.RawMessage
	// Logger is told the causes of 4500, panics, and at level debug why sockets were closed. Nil: no log.
	Logger *slog.Logger
}

// withDefaults returns the configuration in full.
func (cfg *Config) withDefaults() (Config, error) {
	var full Config
	if cfg != nil {
		full = *cfg
	}
	for name, d := range map[string]*time.Duration{
		"InitTimeout": &full.InitTimeout, "PingInterval": &full.PingInterval, "DrainTimeout": &full.DrainTimeout,
		"CloseSpread": &full.CloseSpread,
	} {
		if *d < 0 {
			return full, fmt.Errorf("graphqlws: %s is negative", name)
		}
	}
	for name, n := range map[string]*int{
		"MessageSize": &full.MessageSize, "MessageRate": &full.MessageRate, "Operations": &full.Operations, "WriteBuffer": &full.WriteBuffer,
	} {
		if *n < 0 {
			return full, fmt.Errorf("graphqlws: %s is negative", name)
		}
	}
	full.InitTimeout = cmp.Or(full.InitTimeout, 10*time.Second)
	full.PingInterval = cmp.Or(full.PingInterval, 20*time.Second)
	full.DrainTimeout = cmp.Or(full.DrainTimeout, 30*time.Second)
	full.MessageSize = cmp.Or(full.MessageSize, 64<<10)
	full.MessageRate = cmp.Or(full.MessageRate, 100)
	full.Operations = cmp.Or(full.Operations, 100)
	full.WriteBuffer = cmp.Or(full.WriteBuffer, 256<<10)
	if full.TooMany == nil {
		full.TooMany = func(*Conn) json.RawMessage {
			return json.RawMessage(`[{"message":"too many operations on this socket"}]`)
		}
	}
	if full.Logger == nil {
		full.Logger = slog.New(slog.DiscardHandler)
	}
	return full, nil
}

// Server serves sockets.
type Server struct {
	handler Handler
	cfg     Config
	start   time.Time // the rate's clock begins
	stats   struct{ operations, in, out, refused, slow atomic.Int64 }

	readers, queues, buffers sync.Pool // of *reader, *queue, *buffer: what idle sockets have not

	mu     sync.Mutex // protects conns and closed
	conns  map[*Conn]struct{}
	closed chan struct{} // by the last socket after Shutdown; nil before
}

// Stats is what a Server does, and did since it was made.
type Stats struct {
	Sockets, Operations int64 // now
	In, Out             int64 // messages and control frames
	Refused             int64 // offers, for want of room
	Slow                int64 // sockets closed because they took nothing
}

// New returns a server that asks h.
func New(h Handler, cfg *Config) (*Server, error) {
	full, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{handler: h, cfg: full, start: time.Now(), conns: map[*Conn]struct{}{}}
	s.readers.New = func() any { return newReader(full.MessageSize) }
	s.queues.New = func() any { return new(queue) }
	s.buffers.New = func() any { return new(buffer) }
	return s, nil
}

// Serve upgrades the request, or answers 400 or 426 where it is no proper upgrade, and 503 after Shutdown. It returns at once: the socket
// lives on a goroutine of its own. base is the context of the socket's operations, of which the values alone count. An upgrade that does
// not offer [Subprotocol] is accepted and closed with 4406. Whether the request's origin may open sockets is for the caller to decide.
func (s *Server) Serve(base context.Context, w http.ResponseWriter, r *http.Request) {
	if s.closing() {
		http.Error(w, "the server restarts", http.StatusServiceUnavailable)
		return
	}
	up, err := upgrade(w, r)
	if err != nil {
		s.cfg.Logger.DebugContext(base, "upgrade", "error", err)
		return
	}
	s.open(base, up.conn, up.ahead, up.spoken)
}

// open starts a socket on a connection whose first bytes were read already.
func (s *Server) open(base context.Context, nc net.Conn, ahead []byte, spoken bool) {
	c := newConn(base, s, nc, ahead)
	s.mu.Lock()
	s.conns[c] = struct{}{}
	restarts := s.closed != nil
	s.mu.Unlock()
	switch {
	case restarts:
		c.Close(closeRestart, "Service restart")
	case !spoken:
		c.Close(closeSubprotocol, "Subprotocol not acceptable")
	}
	go c.read()
}

func (s *Server) closing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed != nil
}

// remove is called by a socket as the last.
func (s *Server) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.finish()
}

// finish tells Shutdown when there is nothing to wait for; s.mu is held.
func (s *Server) finish() {
	if s.closed == nil || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
}

// Shutdown closes all sockets with 1012, upon which clients connect again, one after the other over Config.CloseSpread, and waits until they
// are closed and their operations done. Until its turn comes a socket is as ever. When ctx ends before, Shutdown cuts the connections and
// returns the context's error. Serve opens none from then on.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.closed == nil {
		s.closed = make(chan struct{})
		s.finish()
	}
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	Spread(ctx, s.cfg.CloseSpread, conns, func(c *Conn) { c.Close(closeRestart, "Service restart") })
	select {
	case <-s.closed:
		return nil
	case <-ctx.Done():
	}
	for _, c := range conns {
		c.cut(ctx.Err())
	}
	return fmt.Errorf("shut sockets down: %w", ctx.Err())
}

// Spread calls f for each of all, in a hundred steps of equal length over a time, or as many as there are to call it for; without waiting
// from when ctx is done.
func Spread[T any](ctx context.Context, over time.Duration, all []T, f func(T)) {
	const steps = 100
	tick := time.NewTicker(max(over/steps, 1))
	defer tick.Stop()
	for i, some := range slices.Collect(slices.Chunk(all, max(1, (len(all)+steps-1)/steps))) {
		if i > 0 && over > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		for _, one := range some {
			f(one)
		}
	}
}

// Stats returns the figures. It costs next to nothing.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	sockets := len(s.conns)
	s.mu.Unlock()
	return Stats{
		Sockets: int64(sockets), Operations: s.stats.operations.Load(),
		In: s.stats.in.Load(), Out: s.stats.out.Load(), Refused: s.stats.refused.Load(), Slow: s.stats.slow.Load(),
	}
}
