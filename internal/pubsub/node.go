package pubsub

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Config adjusts a [Node]. The zero value holds the defaults.
type Config struct {
	// Interval is the time between two hints that a node sends, at least. 5 ms by default.
	Interval time.Duration

	// Probe is the time without a word from the server after which it is asked whether it is there. 5 s by default.
	Probe time.Duration

	// Timeout bounds connecting, the sending of a hint, and the answer to a probe. 5 s by default.
	Timeout time.Duration

	// MaxRetry bounds the pause before connecting again, which begins at a fiftieth of a second and doubles. 5 s by default.
	MaxRetry time.Duration

	// Logger is told of connections made and lost. slog.Default() by default.
	Logger *slog.Logger
}

func (c *Config) withDefaults() (Config, error) {
	var d Config
	if c != nil {
		d = *c
	}
	for _, v := range []struct {
		name    string
		value   *time.Duration
		initial time.Duration
	}{
		{"Interval", &d.Interval, 5 * time.Millisecond},
		{"Probe", &d.Probe, 5 * time.Second},
		{"Timeout", &d.Timeout, 5 * time.Second},
		{"MaxRetry", &d.MaxRetry, 5 * time.Second},
	} {
		if *v.value < 0 {
			return Config{}, fmt.Errorf("pubsub: %s is negative", v.name)
		}
		*v.value = cmp.Or(*v.value, v.initial)
	}
	d.Logger = cmp.Or(d.Logger, slog.Default())
	return d, nil
}

// Node gives hints to the other nodes and takes theirs. Notify and Status may be called at any time from anywhere, Run once.
type Node struct {
	cfg     Config
	backend string
	id      string // what its hints carry: it is in the place of a sender's address, and tells a node its own
	session session

	hint chan struct{} // one that waits to be sent

	sent, received, connections atomic.Uint64

	mu        sync.Mutex // protects what follows
	connected bool
	since     time.Time
	err       error
}

// session connects, calls ready when hints are heard and can be sent, by send, and got for each that comes, from whom. It returns when
// ctx is done or the connection is lost. send is called by one goroutine at a time, and may be called after the session.
type session func(ctx context.Context, ready func(send func(context.Context) error), got func(from string)) error

func newNode(backend string, cfg *Config) (*Node, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Node{
		cfg: c, backend: backend, id: rand.Text(), hint: make(chan struct{}, 1),
		since: time.Now(), err: errors.New("not running"),
	}, nil
}

// Notify hints that there is something to read. It costs nanoseconds: Run sends the hint.
func (n *Node) Notify() {
	select {
	case n.hint <- struct{}{}:
	default: // one waits already, and is sent later than now
	}
}

// Status is what a node knows of itself.
type Status struct {
	// Backend is "memory", "postgres" or "redis".
	Backend string
	// Connected says whether hints come and go, Since since when it is so.
	Connected bool
	Since     time.Time
	// Err is why there is no connection; nil where there is one.
	Err error
	// Sent and Received count hints, merged ones as one; Connections those that were made. No hint is dropped: what is not sent waits.
	Sent, Received, Connections uint64
}

// Status returns what is known now; counts are since the node was made.
func (n *Node) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	return Status{n.backend, n.connected, n.since, n.err, n.sent.Load(), n.received.Load(), n.connections.Load()}
}

// Run takes hints until ctx is done, and returns nil then. wake is called for each hint of another node and after each connection was
// made; it must not block. No error ends Run: it logs them and connects again.
func (n *Node) Run(ctx context.Context, wake func()) error {
	const firstRetry = 20 * time.Millisecond
	retry := firstRetry
	defer func() { n.set(false, errors.New("not running")) }()
	for {
		connections := n.connections.Load()
		err := n.connect(ctx, wake)
		if ctx.Err() != nil {
			return nil
		}
		n.set(false, err)
		n.Notify() // one that was on its way may be lost
		if n.connections.Load() > connections {
			retry = firstRetry
		}
		pause := retry/2 + mathrand.N(retry/2+1) // nodes do not come back in step
		retry = min(2*retry, n.cfg.MaxRetry)
		n.cfg.Logger.WarnContext(ctx, "pubsub: connecting again", "backend", n.backend, "error", err, "pause", pause)
		if sleep(ctx, pause) != nil {
			return nil
		}
	}
}

// connect runs a session, and beside it what sends.
func (n *Node) connect(ctx context.Context, wake func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var sender sync.WaitGroup
	err := n.session(ctx,
		func(send func(context.Context) error) {
			n.connections.Add(1)
			n.set(true, nil)
			n.cfg.Logger.InfoContext(ctx, "pubsub: connected", "backend", n.backend)
			wake()
			sender.Go(func() { cancel(n.send(ctx, send)) })
		},
		func(from string) {
			if from != n.id {
				n.received.Add(1)
				wake()
			}
		})
	cancel(err)
	sender.Wait()
	return context.Cause(ctx) // what failed first
}

// send sends hints until ctx is done, or one cannot be sent.
func (n *Node) send(ctx context.Context, send func(context.Context) error) error {
	var last time.Time
	for {
		select {
		case <-n.hint:
		case <-ctx.Done():
			return nil
		}
		if err := sleep(ctx, n.cfg.Interval-time.Since(last)); err != nil {
			return err
		}
		select {
		case <-n.hint: // given since
		default:
		}
		last = time.Now()
		if err := n.sendOne(ctx, send); err != nil {
			return fmt.Errorf("send a hint: %w", err)
		}
		n.sent.Add(1)
	}
}

func (n *Node) sendOne(ctx context.Context, send func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	return send(ctx)
}

func (n *Node) set(connected bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.connected != connected {
		n.connected, n.since = connected, time.Now()
	}
	n.err = err
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
