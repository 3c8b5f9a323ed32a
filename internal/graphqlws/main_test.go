package graphqlws

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// handler does what a test says; what it does not say is answered in the simplest way.
type handler struct {
	init      func(c *Conn, payload json.RawMessage) (json.RawMessage, error)
	ping      func(c *Conn, payload json.RawMessage) (json.RawMessage, error)
	subscribe func(op *Operation)
	closed    chan *Conn
}

func (h *handler) Init(c *Conn, payload json.RawMessage) (json.RawMessage, error) {
	if h.init != nil {
		return h.init(c, payload)
	}
	return nil, nil
}

func (h *handler) Ping(c *Conn, payload json.RawMessage) (json.RawMessage, error) {
	if h.ping != nil {
		return h.ping(c, payload)
	}
	return payload, nil
}

func (h *handler) Subscribe(op *Operation) {
	if h.subscribe != nil {
		h.subscribe(op)
	}
}

func (h *handler) Closed(c *Conn) {
	if h.closed != nil {
		h.closed <- c
	}
}

// bundle is a server that listens.
type bundle struct {
	*Server
	http *httptest.Server
	dial func(address string) (net.Conn, error) // nil: TCP
}

func setup(t testing.TB, h *handler, cfg *Config) *bundle {
	t.Helper()
	s, err := New(h, cfg)
	require.NoError(t, err)
	b := &bundle{Server: s}
	b.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Serve(context.Background(), w, r)
	}))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, s.Shutdown(ctx))
		b.http.Close()
	})
	return b
}

// client is a WebSocket by hand, which may send what it likes.
type client struct {
	t  testing.TB
	nc net.Conn
	br *bufio.Reader
}

func newClient(t testing.TB, nc net.Conn) *client { return &client{t, nc, bufio.NewReader(nc)} }

// header is a handshake's, to be changed.
func header() http.Header {
	return http.Header{
		"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"WebSocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {"other, graphql-transport-ws"},
	}
}

// request writes a handshake, with more behind it, and reads the answer.
func (b *bundle) request(t testing.TB, method string, h http.Header, more []byte) (*client, *http.Response) {
	t.Helper()
	dial := b.dial
	if dial == nil {
		dial = func(address string) (net.Conn, error) { return net.Dial("tcp", address) }
	}
	nc, err := dial(b.http.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	var text strings.Builder
	fmt.Fprintf(&text, "%s /graphql HTTP/1.1\r\nHost: test\r\n", method)
	require.NoError(t, h.Write(&text))
	_, err = nc.Write(append([]byte(text.String()+"\r\n"), more...))
	require.NoError(t, err)
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	c := newClient(t, nc)
	answer, err := http.ReadResponse(c.br, nil)
	require.NoError(t, err)
	return c, answer
}

// open is a socket that has not sent anything.
func (b *bundle) open(t testing.TB) *client {
	t.Helper()
	c, answer := b.request(t, http.MethodGet, header(), nil)
	require.Equal(t, http.StatusSwitchingProtocols, answer.StatusCode)
	return c
}

// signedIn is a socket that has its acknowledgement.
func (b *bundle) signedIn(t testing.TB) *client {
	t.Helper()
	c := b.open(t)
	c.send(`{"type":"connection_init"}`)
	c.expect(`{"type":"connection_ack"}`)
	return c
}

// frame is a client's, masked.
func frame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n <= maxControl:
		b = append(b, maskBit|byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, maskBit|127), uint64(n))
	}
	key := []byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, key...)
	at := len(b)
	b = append(b, payload...)
	for i := range b[at:] {
		b[at+i] ^= key[i%4]
	}
	return b
}

func (c *client) write(b ...[]byte) {
	c.t.Helper()
	for _, part := range b {
		_, err := c.nc.Write(part)
		require.NoError(c.t, err)
	}
}

func (c *client) send(texts ...string) {
	c.t.Helper()
	for _, text := range texts {
		c.write(frame(finBit|opText, text))
	}
}

// next reads a frame of the server.
func (c *client) next() (opcode byte, payload string, err error) {
	var head [10]byte
	if _, err := io.ReadFull(c.br, head[:2]); err != nil {
		return 0, "", err
	}
	n, more := uint64(head[1]), 0
	switch n {
	case 126:
		more = 2
	case 127:
		more = 8
	}
	if more > 0 {
		if _, err := io.ReadFull(c.br, head[10-more:]); err != nil {
			return 0, "", err
		}
		n = 0
		for _, b := range head[10-more:] {
			n = n<<8 | uint64(b)
		}
	}
	b := make([]byte, n)
	_, err = io.ReadFull(c.br, b)
	if head[0]&^0xF != finBit {
		err = fmt.Errorf("first byte %x", head[0])
	}
	return head[0] & 0xF, string(b), err
}

// expect reads messages, and wants these.
func (c *client) expect(texts ...string) {
	c.t.Helper()
	for _, text := range texts {
		opcode, payload, err := c.next()
		require.NoError(c.t, err)
		require.Equal(c.t, byte(opText), opcode, "%q", payload)
		require.JSONEq(c.t, text, payload)
	}
}

// expectClose wants a close frame, a client's answer to which is the end, and nothing behind it.
func (c *client) expectClose(code int, reason string) {
	c.t.Helper()
	c.write(frame(finBit|opClose, c.expectCloseFrame(code, reason)))
	c.expectEnd()
}

func (c *client) expectCloseFrame(code int, reason string) (payload string) {
	c.t.Helper()
	opcode, payload, err := c.next()
	require.NoError(c.t, err)
	require.Equal(c.t, byte(opClose), opcode, "%q", payload)
	require.Equal(c.t, code, int(binary.BigEndian.Uint16([]byte(payload))), "%s", payload[2:])
	require.Equal(c.t, reason, payload[2:])
	return payload
}

// expectEnd wants nothing but the end of the connection.
func (c *client) expectEnd() {
	c.t.Helper()
	_, _, err := c.next()
	require.ErrorIs(c.t, err, io.EOF)
	require.NoError(c.t, c.nc.Close())
}

// wait gets from a channel what has to come.
func wait[T any](t testing.TB, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		require.FailNow(t, "nothing came")
	}
	return v
}

// pushed is an operation that was prepared for Offer, with what it was told.
type pushed struct {
	*Operation
	drained, done chan struct{}
}

// pushing hands out the operations of a handler that pushes.
func pushing() (*handler, <-chan *pushed) {
	ops := make(chan *pushed, 1000)
	return &handler{subscribe: func(op *Operation) {
		p := &pushed{op, make(chan struct{}, 1000), make(chan struct{}, 10)}
		op.Push(func() { p.drained <- struct{}{} }, func() { p.done <- struct{}{} })
		ops <- p
	}}, ops
}

// log keeps what was said to it.
type log struct {
	mu   sync.Mutex // protects text
	text strings.Builder
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func subscribe(id string) string {
	return `{"id":"` + id + `","type":"subscribe","payload":{"query":"subscription { x }"}}`
}
