package server

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// pipes is a listener whose connections are pipes, on the clock of a bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial connects, unless nobody accepts any more.
func (p *pipes) dial(t *testing.T) (net.Conn, bool) {
	t.Helper()
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		t.Cleanup(func() { _ = near.Close() })
		return near, true
	case <-p.closed:
		return nil, false
	}
}

// on sends a request over a connection of its own, and returns the answer's head.
func (p *pipes) on(t *testing.T, r *http.Request) (*http.Response, bool) {
	t.Helper()
	c, ok := p.dial(t)
	if !ok {
		return nil, false
	}
	r.RequestURI = ""
	go func() { _ = r.Write(c) }()
	resp, err := http.ReadResponse(bufio.NewReader(c), r)
	require.NoError(t, err)
	return resp, true
}

// serving runs the server in a bubble until stop is called.
func serving(t *testing.T, b *bundle) (p *pipes, stop func(), served <-chan error) {
	t.Helper()
	p = newPipes()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, p) }()
	synctest.Wait()
	return p, stop, done
}

func probe(path string) *http.Request {
	r, _ := http.NewRequest(http.MethodGet, "http://example.com"+path, http.NoBody)
	return r
}

// TestShutdownDelay: who is to end says at once that it is not ready, and goes on for a time; only then does it accept nothing.
func TestShutdownDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(_ *Deps, c *Config) { c.ShutdownDelay = 5 * time.Second })
		p, stop, served := serving(t, b)
		resp, _ := p.on(t, probe("/readyz"))
		require.Equal(t, 200, resp.StatusCode)
		start := time.Now()
		stop()
		synctest.Wait()
		resp, _ = p.on(t, probe("/readyz"))
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		<-time.After(5*time.Second - time.Nanosecond)
		resp, _ = p.on(t, probe("/healthz"))
		require.Equal(t, 200, resp.StatusCode)
		resp, _ = p.on(t, probe("/graphql?query={ok}"))
		require.Equal(t, 200, resp.StatusCode)
		require.True(t, resp.Close, "the next request goes to another node")
		require.NoError(t, <-served)
		require.Less(t, time.Since(start), 6*time.Second)
		_, accepts := p.dial(t)
		require.False(t, accepts)
	})
}

// TestAListenerThatFailsInTheDelay: there is nothing to wait for then.
func TestAListenerThatFailsInTheDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(_ *Deps, c *Config) { c.ShutdownDelay = 5 * time.Second })
		p, stop, served := serving(t, b)
		start := time.Now()
		stop()
		synctest.Wait()
		require.NoError(t, p.Close())
		require.ErrorIs(t, <-served, net.ErrClosed)
		require.Less(t, time.Since(start), time.Second)
	})
}

// TestEventStreamsEndOneByOne: a thousand of them over two seconds, none with a completion, upon which clients connect again.
func TestEventStreamsEndOneByOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(_ *Deps, c *Config) { c.Sockets.PerAddress = -1 })
		b.resolvers["ticks"] = func(ctx context.Context) (any, error) { <-ctx.Done(); return nil, errStreamEnds }
		ended := make(chan time.Time, 1000)
		for range cap(ended) {
			w := &writer{header: http.Header{}}
			r := post(document(`subscription { ticks }`), "Accept", "text/event-stream")
			go func() {
				b.ServeHTTP(w, r)
				if strings.Contains(w.body.String(), "complete") {
					t.Error("it is told to be complete")
				}
				ended <- time.Now()
			}()
		}
		synctest.Wait()
		require.Equal(t, 1000, b.EventStreams())
		start := time.Now()
		require.NoError(t, b.shutdown(t.Context()))
		synctest.Wait()
		require.Len(t, ended, 1000)
		spreadOut(t, start, ended)
	})
}

// spreadOut holds that a thousand ends come in a hundred steps over two seconds.
func spreadOut(t *testing.T, start time.Time, ended <-chan time.Time) {
	t.Helper()
	at := map[time.Duration]int{}
	for range 1000 {
		at[(<-ended).Sub(start)]++
	}
	require.Len(t, at, 100)
	for when, n := range at {
		require.Equal(t, 10, n)
		require.Zero(t, when%(20*time.Millisecond))
		require.Less(t, when, 2*time.Second)
	}
}

// TestShutdownIsBounded: when the time is over all that is left ends at once, delay and all.
func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(_ *Deps, c *Config) { c.ShutdownDelay, c.ShutdownTimeout = 5*time.Second, 8*time.Second })
		b.resolvers["fail"] = func(ctx context.Context) (any, error) { <-ctx.Done(); return nil, ctx.Err() }
		p, stop, served := serving(t, b)
		go func() {
			c, ok := p.dial(t)
			if ok {
				r := post(`{"query": "{ fail }"}`)
				r.Host, r.RequestURI = "example.com", ""
				_ = r.Write(c)
			}
		}()
		synctest.Wait()
		start := time.Now()
		stop()
		require.ErrorIs(t, <-served, context.DeadlineExceeded)
		require.Equal(t, 8*time.Second, time.Since(start))
	})
}

func TestShutdownIsChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{
		{ShutdownDelay: -1}, {ShutdownSpread: -1}, {ShutdownTimeout: -1}, {ShutdownDelay: time.Minute}, {ShutdownDelay: 2, ShutdownTimeout: 2},
	} {
		_, err := New(Deps{Schema: setup(t).executable()}, &c)
		require.ErrorContains(t, err, "Shutdown")
	}
}
