package graphqlws

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"
)

func TestHandshake(t *testing.T) {
	t.Parallel()
	b := setup(t, &handler{}, nil)

	_, answer := b.request(t, http.MethodGet, header(), nil)
	require.Equal(t, http.StatusSwitchingProtocols, answer.StatusCode)
	require.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", answer.Header.Get("Sec-WebSocket-Accept"), "RFC 6455, section 1.3")
	require.Equal(t, Subprotocol, answer.Header.Get("Sec-WebSocket-Protocol"))
	require.Empty(t, answer.Header.Get("Sec-WebSocket-Extensions"))

	for name, c := range map[string]struct {
		method, header, value string
		status                int
	}{
		"no upgrade":    {"GET", "Upgrade", "", 426},
		"another":       {"GET", "Upgrade", "h2c", 426},
		"no connection": {"GET", "Connection", "keep-alive", 426},
		"no version":    {"GET", "Sec-WebSocket-Version", "", 426},
		"version 8":     {"GET", "Sec-WebSocket-Version", "8", 426},
		"POST":          {"POST", "Content-Length", "0", 400},
		"no key":        {"GET", "Sec-WebSocket-Key", "", 400},
		"short key":     {"GET", "Sec-WebSocket-Key", "YWJj", 400},
		"no base64":     {"GET", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ?==", 400},
	} {
		h := header()
		h.Set(c.header, c.value)
		_, answer := b.request(t, c.method, h, nil)
		require.Equal(t, c.status, answer.StatusCode, name)
		if strings.Contains(name, "version") {
			require.Equal(t, "13", answer.Header.Get("Sec-WebSocket-Version"))
		} else if c.status == 426 {
			require.Equal(t, "websocket", answer.Header.Get("Upgrade"), name)
		}
	}

	w := httptest.NewRecorder() // has no connection to take over
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = header()
	b.Serve(t.Context(), w, r)
	require.Equal(t, http.StatusNotImplemented, w.Code)
}

// TestSubprotocol: an upgrade that does not offer ours is accepted and closed with 4406, as the protocol's reference does it.
func TestSubprotocol(t *testing.T) {
	t.Parallel()
	closed := make(chan *Conn, 10)
	b := setup(t, &handler{closed: closed}, nil)
	for _, offer := range [][]string{nil, {"graphql-ws"}, {"a, b", "c"}} {
		h := header()
		h["Sec-Websocket-Protocol"] = offer
		s, answer := b.request(t, http.MethodGet, h, frame(finBit|opText, `{"type":"connection_init"}`))
		require.Equal(t, http.StatusSwitchingProtocols, answer.StatusCode)
		require.Empty(t, answer.Header.Values("Sec-WebSocket-Protocol"))
		s.expectClose(4406, "Subprotocol not acceptable")
	}
	require.Eventually(t, func() bool { return b.Stats().Sockets == 0 }, patience, time.Millisecond)
	require.Empty(t, closed, "Init was not called")
}

// TestBufferedBytes: what a client sends before the handshake is answered is not lost.
func TestBufferedBytes(t *testing.T) {
	t.Parallel()
	b := setup(t, &handler{}, nil)
	s, _ := b.request(t, http.MethodGet, header(), append(frame(finBit|opText, `{"type":"connection_init"}`), frame(opText, ping[:3])...))
	s.expect(`{"type":"connection_ack"}`)
	s.write(frame(finBit|opContinuation, ping[3:]))
	s.expect(pong)
}

// deadlined is a connection that knows its deadlines. It is none that the kernel writes to without waiting, as those of TLS.
type deadlined struct {
	net.Conn
	mu          sync.Mutex // protects read and write
	read, write time.Time
}

func (d *deadlined) set(read, write *time.Time, t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*read, *write = t, t
}

func (d *deadlined) SetDeadline(t time.Time) error {
	d.set(&d.read, &d.write, t)
	return d.Conn.SetDeadline(t)
}

func (d *deadlined) SetReadDeadline(t time.Time) error {
	d.set(&d.read, &d.read, t)
	return d.Conn.SetReadDeadline(t)
}

func (d *deadlined) SetWriteDeadline(t time.Time) error {
	d.set(&d.write, &d.write, t)
	return d.Conn.SetWriteDeadline(t)
}

// free says that there are none.
func (d *deadlined) free() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.read.IsZero() && d.write.IsZero()
}

// accepting hands out the connections that it accepts.
type accepting struct {
	net.Listener
	conns chan *deadlined
}

func (a accepting) Accept() (net.Conn, error) {
	nc, err := a.Listener.Accept()
	if err != nil {
		return nil, err
	}
	d := &deadlined{Conn: nc}
	a.conns <- d
	return d, nil
}

// TestDeadlines: the timeouts of net/http end with the handshake, and so does the request's context; headers set before are sent. A
// socket that waits has no deadline.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	s, err := New(&handler{}, nil)
	require.NoError(t, err)
	over := make(chan context.Context, 1)
	b := &bundle{Server: s, http: httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "7")
		s.Serve(r.Context(), w, r)
		over <- r.Context()
	}))}
	conns := make(chan *deadlined, 1)
	b.http.Listener = accepting{b.http.Listener, conns}
	b.http.Config.ReadTimeout, b.http.Config.WriteTimeout = time.Hour, time.Hour
	b.http.Start()
	t.Cleanup(b.http.Close)
	c, answer := b.request(t, http.MethodGet, header(), nil)
	require.Equal(t, "7", answer.Header.Get("X-Request-Id"))
	<-wait(t, over).Done()
	nc := wait(t, conns)
	require.True(t, nc.free())
	c.send(`{"type":"connection_init"}`)
	c.expect(`{"type":"connection_ack"}`)
	require.Eventually(t, nc.free, patience, time.Millisecond)
	require.NoError(t, c.nc.Close())
	require.NoError(t, s.Shutdown(context.Background()))
}

// TestTLS: what is encrypted is written by a goroutine, and is otherwise the same.
func TestTLS(t *testing.T) {
	t.Parallel()
	h, ops := pushing()
	s, err := New(h, nil)
	require.NoError(t, err)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.Serve(t.Context(), w, r) }))
	t.Cleanup(server.Close)
	b := &bundle{Server: s, http: server, dial: func(address string) (net.Conn, error) {
		return tls.Dial("tcp", address, server.Client().Transport.(*http.Transport).TLSClientConfig)
	}}
	c := b.signedIn(t)
	c.send(subscribe("1"))
	op := wait(t, ops)
	for i := range 100 {
		require.True(t, op.Offer(fmt.Appendf(nil, "%d", i)))
		if i%3 == 0 {
			op.Flush()
		}
	}
	op.Complete()
	for i := range 100 {
		c.expect(fmt.Sprintf(`{"id":"1","type":"next","payload":%d}`, i))
	}
	c.expect(`{"id":"1","type":"complete"}`)
	op.Conn().Close(4403, "Forbidden")
	c.expectClose(4403, "Forbidden")
	require.NoError(t, s.Shutdown(context.Background()))
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]*Config{
		"InitTimeout": {InitTimeout: -1}, "PingInterval": {PingInterval: -1}, "DrainTimeout": {DrainTimeout: -1},
		"CloseSpread": {CloseSpread: -1}, "MessageSize": {MessageSize: -1}, "MessageRate": {MessageRate: -1}, "Operations": {Operations: -1}, "WriteBuffer": {WriteBuffer: -1},
	} {
		_, err := New(&handler{}, cfg)
		require.ErrorContains(t, err, name)
	}
	s, err := New(&handler{}, nil)
	require.NoError(t, err)
	require.Equal(t, 256<<10, s.cfg.WriteBuffer)
}

// TestMessageRate: one message too many within a second closes the socket with 1008, and so does a control frame or an empty fragment.
func TestMessageRate(t *testing.T) {
	t.Parallel()
	b := setup(t, &handler{}, &Config{MessageRate: 3})
	for _, f := range [][]byte{frame(finBit|opText, `{"type":"pong"}`), frame(finBit|opPong, "")} {
		s := b.open(t)
		s.write(bytes.Repeat(f, 4))
		s.expectClose(1008, "Too many messages")
	}
	s := b.open(t)
	s.write(frame(opText, ""), frame(opContinuation, ""), frame(opContinuation, " "), frame(opContinuation, ""), frame(opContinuation, ""))
	s.expectClose(1008, "Too many messages")
}

// piped is a socket on a pipe, on the clock of a bubble.
func piped(t *testing.T, h *handler, cfg *Config) (*Server, *client) {
	t.Helper()
	s, err := New(h, cfg)
	require.NoError(t, err)
	near, far := net.Pipe()
	s.open(t.Context(), near, nil, true)
	return s, newClient(t, far)
}

// TestInitTimeout: 4408 when the time is over and connection_init has not come; answering it may take longer.
func TestInitTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, c := piped(t, &handler{}, nil)
		start := time.Now()
		c.expectCloseFrame(4408, "Connection initialisation timeout")
		require.Equal(t, 10*time.Second, time.Since(start))
		c.expectEnd()

		_, c = piped(t, &handler{init: func(*Conn, json.RawMessage) (json.RawMessage, error) {
			<-time.After(time.Minute)
			return nil, nil
		}}, nil)
		c.send(`{"type":"connection_init"}`)
		c.expect(`{"type":"connection_ack"}`)
		c.write(frame(finBit|opClose, ""))
		_, _, err := c.next()
		require.NoError(t, err)
		c.expectEnd()
	})
}

// TestPings: the server's pings come at their time; any byte is a sign of life, and after two without one the socket is dead.
func TestPings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &handler{closed: make(chan *Conn, 1)}
		_, c := piped(t, h, nil)
		c.send(`{"type":"connection_init"}`)
		c.expect(`{"type":"connection_ack"}`)
		start := time.Now()
		for _, life := range [][]byte{
			frame(finBit|opText, pong), nil, frame(finBit|opPong, ""), nil, frame(finBit|opText, `{"id":"1","type":"complete"}`), nil,
			frame(opText, " "), frame(finBit|opContinuation, pong),
		} {
			c.expect(ping)
			c.write(life)
		}
		require.Equal(t, 160*time.Second, time.Since(start))
		c.expect(ping, ping)
		c.expectEnd()
		require.Equal(t, 220*time.Second, time.Since(start))
		<-h.closed
	})
}

// TestUnfinishedMessage: a client that begins a message ends it in time, or is closed with 1008.
func TestUnfinishedMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, b := range [][]byte{frame(finBit|opText, ping)[:4], frame(opText, ping)} {
			_, c := piped(t, &handler{}, &Config{InitTimeout: time.Hour})
			start := time.Now()
			c.write(b)
			c.expectCloseFrame(1008, "Message took too long")
			require.Equal(t, 30*time.Second, time.Since(start))
			c.expectEnd()
		}
	})
}

// TestCloseTimeout: a client that does not answer a close frame, or does not even take it, is cut off.
func TestCloseTimeout(t *testing.T) {
	t.Parallel()
	for _, takes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h, ops := pushing()
			h.closed = make(chan *Conn, 1)
			s, c := piped(t, h, nil)
			c.send(`{"type":"connection_init"}`)
			c.expect(`{"type":"connection_ack"}`)
			c.send(subscribe("1"))
			op := <-ops
			if !takes {
				require.NoError(t, op.Send([]byte(`1`)))
				synctest.Wait()
			}
			start := time.Now()
			op.Conn().Close(4403, "Forbidden")
			if takes {
				_, _, err := c.next()
				require.NoError(t, err)
			}
			<-op.done
			require.Zero(t, time.Since(start))
			<-h.closed
			require.Equal(t, closeTimeout, time.Since(start))
			synctest.Wait()
			require.Zero(t, s.Stats().Sockets)
		})
	}
}

// TestShutdown closes all sockets with 1012, waits for their operations, and refuses new ones.
func TestShutdown(t *testing.T) {
	t.Parallel()
	h, begun, ended := lasting()
	h.closed = make(chan *Conn, 10)
	b := setup(t, h, nil)
	silent, c := b.open(t), b.signedIn(t)
	c.send(subscribe("1"))
	wait(t, begun)
	down := make(chan error)
	go func() { down <- b.Shutdown(context.Background()) }()
	c.expectClose(1012, "Service restart")
	silent.expectClose(1012, "Service restart")
	require.NoError(t, wait(t, down))
	require.Len(t, ended, 1)
	require.Len(t, h.closed, 1)
	require.Zero(t, b.Stats().Sockets)
	_, answer := b.request(t, http.MethodGet, header(), nil)
	require.Equal(t, http.StatusServiceUnavailable, answer.StatusCode)
	require.NoError(t, b.Shutdown(context.Background()))
}

// TestShutdownSpread: a thousand sockets are closed in a hundred steps over the time that Config says, and each is as ever until then; the end
// of the context closes those that are left at once.
func TestShutdownSpread(t *testing.T) {
	t.Parallel()
	for name, within := range map[string]time.Duration{"all of it": time.Minute, "half": 990 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const sockets = 1000
				s, err := New(&handler{}, &Config{CloseSpread: 2 * time.Second})
				require.NoError(t, err)
				closed := make(chan time.Time, sockets)
				for range sockets {
					near, far := net.Pipe()
					s.open(t.Context(), near, nil, true)
					c := newClient(t, far)
					c.send(`{"type":"connection_init"}`)
					c.expect(`{"type":"connection_ack"}`)
					go func() {
						opcode, payload, err := c.next()
						if err == nil {
							if opcode != opClose || binary.BigEndian.Uint16([]byte(payload)) != closeRestart {
								t.Errorf("frame %x %q", opcode, payload)
							}
							closed <- time.Now()
							_, _ = c.nc.Write(frame(finBit|opClose, payload))
						}
						_ = c.nc.Close()
					}()
				}
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				start := time.Now()
				err = s.Shutdown(ctx)
				steps := map[time.Duration]int{}
				for range len(closed) {
					steps[(<-closed).Sub(start)]++
				}
				if within < 2*time.Second {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Equal(t, 10, steps[980*time.Millisecond])
					require.Zero(t, steps[time.Second])
					synctest.Wait()
					require.Zero(t, s.Stats().Sockets)
					return
				}
				require.NoError(t, err)
				require.Len(t, steps, 100)
				for at, n := range steps {
					require.Equal(t, sockets/100, n)
					require.Zero(t, at%(20*time.Millisecond))
					require.Less(t, at, 2*time.Second)
				}
			})
		})
	}
}

// TestShutdownInTime: with the context's end Shutdown returns, whatever operations do.
func TestShutdownInTime(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	begun := make(chan struct{})
	h := &handler{subscribe: func(*Operation) { close(begun); <-release }}
	b := setup(t, h, nil)
	c := b.signedIn(t)
	c.send(subscribe("1"))
	wait(t, begun)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.Shutdown(ctx), context.Canceled)
	require.EqualValues(t, 1, b.Stats().Sockets)
	close(release)
}

// TestManySockets: nothing stays of sockets that were open, however they ended (goleak, in TestMain, looks for goroutines).
func TestManySockets(t *testing.T) {
	t.Parallel()
	h, ops := pushing()
	h.closed = make(chan *Conn, 1000)
	b := setup(t, h, nil)
	for i := range 1000 {
		c := b.signedIn(t)
		c.send(subscribe("1"))
		op := wait(t, ops)
		require.NoError(t, op.Send([]byte(`{}`)))
		switch i % 4 {
		case 0:
			c.write(frame(finBit|opClose, ""))
		case 1:
			require.NoError(t, c.nc.(*net.TCPConn).SetLinger(0)) // a reset
		case 2:
			op.Conn().Close(4403, "Forbidden")
		}
		require.NoError(t, c.nc.Close())
		wait(t, op.done)
	}
	for range 1000 {
		wait(t, h.closed)
	}
	require.Eventually(t, func() bool { return b.Stats().Sockets == 0 }, patience, time.Millisecond)
	require.Zero(t, b.Stats().Operations)
	require.Empty(t, h.closed, "once")
}

// TestOtherClient: a client that is not of this package understands all of it.
func TestOtherClient(t *testing.T) {
	t.Parallel()
	b := setup(t, &handler{
		init: func(_ *Conn, payload json.RawMessage) (json.RawMessage, error) { return payload, nil },
		subscribe: func(op *Operation) {
			for n := range 100 {
				if err := op.Send(fmt.Appendf(nil, `{"data":{"n":%d,"x":"%s"}}`, n, strings.Repeat("x", n*n*10))); err != nil {
					t.Error(err)
				}
			}
			op.Complete()
		},
	}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, b.http.URL, &websocket.DialOptions{
		Subprotocols: []string{Subprotocol}, CompressionMode: websocket.CompressionContextTakeover,
	})
	require.NoError(t, err)
	require.Equal(t, Subprotocol, c.Subprotocol())
	c.SetReadLimit(1 << 20)
	type m map[string]any
	var got m
	require.NoError(t, wsjson.Write(ctx, c, m{"type": "connection_init", "payload": m{"a": strings.Repeat("a", 10_000)}}))
	require.NoError(t, wsjson.Read(ctx, c, &got))
	require.Equal(t, m{"type": "connection_ack", "payload": map[string]any{"a": strings.Repeat("a", 10_000)}}, got)
	require.NoError(t, wsjson.Write(ctx, c, m{"type": "subscribe", "id": "1", "payload": m{"query": "{x}"}}))
	for n := range 100 {
		var got struct {
			ID, Type string
			Payload  struct {
				Data struct {
					N int
					X string
				}
			}
		}
		require.NoError(t, wsjson.Read(ctx, c, &got))
		require.Equal(t, "next", got.Type)
		require.Equal(t, n, got.Payload.Data.N)
		require.Len(t, got.Payload.Data.X, n*n*10)
	}
	got = nil
	require.NoError(t, wsjson.Read(ctx, c, &got))
	require.Equal(t, m{"type": "complete", "id": "1"}, got)
	pinged := make(chan error)
	go func() { pinged <- c.Ping(ctx) }()
	go func() { _, _, _ = c.Read(ctx) }()
	require.NoError(t, wait(t, pinged))
	require.NoError(t, c.Close(websocket.StatusNormalClosure, "bye"))
	require.Eventually(t, func() bool { return b.Stats().Sockets == 0 }, patience, time.Millisecond)
}

// TestAtTheSameTime: offers, ends by both sides and closes, from all goroutines at once.
func TestAtTheSameTime(t *testing.T) {
	t.Parallel()
	h, ops := pushing()
	b := setup(t, h, &Config{WriteBuffer: 2000, MessageRate: 1_000_000})
	payload := []byte(strings.Repeat("1", 500))
	var wg sync.WaitGroup
	for n := range 40 {
		c := b.signedIn(t)
		for _, id := range []string{"1", "2", "3", "4"} {
			c.send(subscribe(id))
			op := wait(t, ops)
			wg.Go(func() {
				for op.Context().Err() == nil {
					if !op.Offer(payload) {
						select {
						case <-op.drained:
						case <-op.Context().Done():
						}
					}
					op.Flush()
				}
			})
			switch op.ID {
			case "2":
				wg.Go(func() {
					for op.Send(payload) == nil {
						if b.Stats().Out%50 == 0 {
							op.Complete()
						}
					}
				})
			case "3":
				wg.Go(op.Complete)
			}
		}
		wg.Go(func() {
			for i := range 200 {
				if _, _, err := c.next(); err != nil {
					return
				}
				if i == 50 {
					_, _ = c.nc.Write(frame(finBit|opText, `{"id":"1","type":"complete"}`))
				}
			}
			if n%2 == 0 {
				_, _ = c.nc.Write(frame(finBit|opClose, ""))
			}
			_ = c.nc.Close()
		})
	}
	wg.Wait()
	require.Eventually(t, func() bool { return b.Stats().Sockets == 0 }, patience, time.Millisecond)
	require.Zero(t, b.Stats().Operations)
}
