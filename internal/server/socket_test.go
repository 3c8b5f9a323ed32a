package server

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

// message is one of graphql-transport-ws.
type message struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// socket is a client.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
}

func listen(t *testing.T, b *bundle) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(b)
	t.Cleanup(func() {
		b.drain()
		b.sockets.Wait()
		s.Close()
	})
	return s
}

func dial(t *testing.T, url string, header http.Header) (*socket, *http.Response, error) {
	t.Helper()
	if header == nil {
		header = http.Header{}
	}
	protocols := []string{subprotocol}
	if p := header.Get("Sec-WebSocket-Protocol"); p != "" {
		protocols = strings.Split(p, ",")
		header.Del("Sec-WebSocket-Protocol")
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	opts := &websocket.DialOptions{HTTPHeader: header, HTTPClient: &http.Client{Transport: transport}, Subprotocols: protocols}
	conn, resp, err := websocket.Dial(t.Context(), strings.Replace(url, "http", "ws", 1)+"/graphql", opts)
	if err != nil {
		return nil, resp, err
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return &socket{t, conn}, resp, nil
}

func (s *socket) send(m message) {
	s.t.Helper()
	require.NoError(s.t, wsjson.Write(s.t.Context(), s.conn, m))
}

func (s *socket) receive() message {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	var m message
	require.NoError(s.t, wsjson.Read(ctx, s.conn, &m))
	return m
}

// closed reads until the connection ends and returns its close code.
func (s *socket) closed() (websocket.StatusCode, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	for {
		if _, _, err := s.conn.Read(ctx); err != nil {
			var e websocket.CloseError
			require.ErrorAs(s.t, err, &e)
			return e.Code, e.Reason
		}
	}
}

func subscribe(id, document string) message {
	payload, _ := json.Marshal(map[string]string{"query": document})
	return message{ID: id, Type: "subscribe", Payload: payload}
}

func TestASocketIsSignedInByItsPayload(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		header  http.Header
		payload string
		want    string
	}{
		{"payload", nil, `{"authorization": "alice"}`, `{"data": {"whoami": "` + alice.String() + `"}}`},
		{"header", http.Header{"Authorization": {"alice"}}, `{}`, `{"data": {"whoami": "` + alice.String() + `"}}`},
		{"payload goes first", http.Header{"Authorization": {"mallory"}}, `{"Authorization": "alice"}`, `{"data": {"whoami": "` + alice.String() + `"}}`},
		{"an empty payload", http.Header{"Authorization": {"alice"}}, `{"authorization": ""}`, `{"data": {"whoami": "` + alice.String() + `"}}`},
		{"no text", nil, `{"authorization": 5}`, `{"data": {"whoami": null}}`},
		{"nobody", nil, ``, `{"data": {"whoami": null}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(d *Deps, _ *Config) { d.Viewer = byHeader })
			sent := false
			b.resolvers["whoami"] = func(ctx context.Context) (any, error) {
				if sent {
					return nil, errStreamEnds
				}
				sent = true
				return whoami(ctx)
			}
			s, _, err := dial(t, listen(t, b).URL, c.header)
			require.NoError(t, err)
			s.send(message{Type: "connection_init", Payload: json.RawMessage(c.payload)})
			require.Equal(t, "connection_ack", s.receive().Type)
			s.send(subscribe("1", `subscription { whoami }`))
			next := s.receive()
			require.Equal(t, "next", next.Type)
			require.JSONEq(t, c.want, string(next.Payload))
			require.Equal(t, message{ID: "1", Type: "complete"}, s.receive())
		})
	}
}

func TestASocketIsRefusedWhereTheViewerIs(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer = byHeader })
	url := listen(t, b).URL
	for payload, want := range map[string]websocket.StatusCode{`{"authorization": "mallory"}`: 4403, `{"authorization": "broken"}`: 4500} {
		s, _, err := dial(t, url, nil)
		require.NoError(t, err)
		s.send(message{Type: "connection_init", Payload: json.RawMessage(payload)})
		code, reason := s.closed()
		require.Equal(t, want, code)
		require.NotContains(t, reason, "secret")
	}
	require.Contains(t, b.log.String(), "secret", "the cause is logged")
}

func TestErrorsOverASocket(t *testing.T) {
	t.Parallel()
	b := setup(t)
	url := listen(t, b).URL
	for document, code := range map[string]string{
		`{ nope }`:                              "GRAPHQL_VALIDATION_FAILED",
		`{`:                                     "GRAPHQL_PARSE_FAILED",
		`{ ` + repeat(101, `a%d: ok `) + `}`:    "TOO_COMPLEX",
		`query($t: ID!) { thread(id: $t) {id}}`: "BAD_USER_INPUT",
	} {
		s, _, err := dial(t, url, http.Header{"X-Request-Id": {"r-7"}})
		require.NoError(t, err)
		s.send(message{Type: "connection_init"})
		require.Equal(t, "connection_ack", s.receive().Type)
		s.send(subscribe("1", document))
		m := s.receive()
		require.Equal(t, "error", m.Type)
		var errs []apiError
		require.NoError(t, json.Unmarshal(m.Payload, &errs))
		require.Equal(t, code, errs[0].code())
		require.Equal(t, "r-7", errs[0].Extensions["requestId"])
	}
	s, _, err := dial(t, url, nil)
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	s.send(subscribe("1", `{ crash }`))
	m := s.receive()
	require.Contains(t, string(m.Payload), `"code":"INTERNAL"`)
	require.NotContains(t, string(m.Payload), "secret")
}

func TestOriginsOfSockets(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.Origins = []string{"https://app.example"} })
	url := listen(t, b).URL
	for _, c := range []struct {
		origin  string
		allowed bool
	}{
		{"", true},
		{url, true},
		{"https://app.example", true},
		{"http://app.example", false},
		{"https://evil.example", false},
		{"https://app.example.evil.example", false},
		{"null", false},
	} {
		header := http.Header{}
		if c.origin != "" {
			header.Set("Origin", c.origin)
		}
		_, resp, err := dial(t, url, header)
		require.Equal(t, c.allowed, err == nil, c.origin)
		if !c.allowed {
			require.Equal(t, 403, resp.StatusCode, c.origin)
		}
	}
}

func TestTheSubprotocolIsRequired(t *testing.T) {
	t.Parallel()
	url := listen(t, setup(t)).URL
	_, resp, err := dial(t, url, http.Header{"Sec-Websocket-Protocol": {"graphql-ws"}})
	require.Error(t, err)
	require.Equal(t, 400, resp.StatusCode)
	s, _, err := dial(t, url, http.Header{"Sec-Websocket-Protocol": {"graphql-ws,graphql-transport-ws"}})
	require.NoError(t, err)
	require.Equal(t, subprotocol, s.conn.Subprotocol())
}

func TestALongMessageEndsTheSocket(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.Limits.Body = 1000 })
	s, _, err := dial(t, listen(t, b).URL, nil)
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	s.send(subscribe("1", `{ ok } #`+strings.Repeat("x", 1000)))
	code, _ := s.closed()
	require.Equal(t, websocket.StatusMessageTooBig, code)
}

func TestServeDrains(t *testing.T) {
	t.Parallel()
	b := setup(t)
	entered, release := make(chan struct{}), make(chan struct{})
	b.resolvers["fail"] = func(context.Context) (any, error) {
		close(entered)
		<-release
		return "done", nil
	}
	b.resolvers["ticks"] = func(ctx context.Context) (any, error) {
		<-ctx.Done()
		return nil, errStreamEnds
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url := "http://" + ln.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, ln) }()

	s, _, err := dial(t, url, nil)
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	s.send(subscribe("1", `subscription { ticks }`))

	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answered := make(chan int, 1)
	go func() {
		resp, err := client.Post(url+"/graphql", "application/json", strings.NewReader(`{"query": "{ fail }"}`))
		if err != nil {
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-entered
	stop()
	code, _ := s.closed()
	require.Equal(t, websocket.StatusNormalClosure, code, "sockets are closed at once")
	close(release)
	require.Equal(t, 200, <-answered, "running requests end by themselves")
	require.NoError(t, <-served)
	_, err = net.DialTimeout("tcp", ln.Addr().String(), time.Second)
	require.Error(t, err)
}

func TestServeIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.ShutdownTimeout = time.Millisecond })
	entered := make(chan struct{})
	b.resolvers["fail"] = func(ctx context.Context) (any, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, ln) }()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		resp, err := client.Post("http://"+ln.Addr().String()+"/graphql", "application/json", strings.NewReader(`{"query": "{ fail }"}`))
		if err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-entered
	stop()
	require.ErrorContains(t, <-served, "requests still run after 1ms")
	<-answered
}

func TestServeReportsABrokenListener(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	require.ErrorContains(t, setup(t).Serve(t.Context(), ln), "serve http")
}

// sessions are watched on behalf of sockets.
type sessions struct {
	revoked chan struct{}
	stopped chan struct{}
}

func (s sessions) watch(viewer.Viewer) (<-chan struct{}, func()) {
	return s.revoked, func() { close(s.stopped) }
}

func TestASocketEndsWithItsSession(t *testing.T) {
	t.Parallel()
	w := sessions{make(chan struct{}), make(chan struct{})}
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer, d.Watch = byHeader, w.watch })
	ended := make(chan struct{})
	b.resolvers["ticks"] = func(ctx context.Context) (any, error) {
		<-ctx.Done()
		close(ended)
		return "too late", nil
	}
	s, _, err := dial(t, listen(t, b).URL, http.Header{"Authorization": {"alice"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	s.send(subscribe("1", `subscription { ticks }`))
	s.send(subscribe("2", `{ ok }`))
	for s.receive().ID != "2" { // so that the subscription has begun
	}
	began := time.Now()
	close(w.revoked)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, data, err := s.conn.Read(ctx)
		if err == nil {
			require.NotContains(t, string(data), "too late", "nothing is sent once the session has ended")
			continue
		}
		var e websocket.CloseError
		require.ErrorAs(t, err, &e)
		require.EqualValues(t, 4403, e.Code)
		require.Equal(t, "Forbidden", e.Reason)
		break
	}
	require.Less(t, time.Since(began), time.Second)
	<-ended
	<-w.stopped
}

// A client that does not answer the close is not served while the server waits for it.
func TestARevokedSocketIsDeaf(t *testing.T) {
	t.Parallel()
	w := sessions{make(chan struct{}), make(chan struct{})}
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer, d.Watch = byHeader, w.watch })
	b.resolvers["rename"] = func(context.Context) (any, error) {
		t.Error("executed")
		return nil, nil
	}
	s, _, err := dial(t, listen(t, b).URL, http.Header{"Authorization": {"alice"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	close(w.revoked)
	<-w.stopped
	for range 10 { // nothing is read here, so no close is answered
		_ = wsjson.Write(t.Context(), s.conn, subscribe("1", `mutation { rename(id: 1, expectedVersion: 1) }`))
	}
	code, _ := s.closed()
	require.EqualValues(t, 4403, code)
}

func TestASocketOfASessionThatHasEnded(t *testing.T) {
	t.Parallel()
	w := sessions{make(chan struct{}), make(chan struct{})}
	close(w.revoked)
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer, d.Watch = byHeader, w.watch })
	s, _, err := dial(t, listen(t, b).URL, http.Header{"Authorization": {"alice"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	code, _ := s.closed()
	require.EqualValues(t, 4403, code)
	<-w.stopped
}

func TestWatchingStopsWithTheSocket(t *testing.T) {
	t.Parallel()
	w := sessions{make(chan struct{}), make(chan struct{})}
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer, d.Watch = byHeader, w.watch })
	url := listen(t, b).URL
	s, _, err := dial(t, url, http.Header{"Authorization": {"alice"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	require.NoError(t, s.conn.Close(websocket.StatusNormalClosure, ""))
	<-w.stopped

	nobody, _, err := dial(t, url, nil)
	require.NoError(t, err)
	nobody.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", nobody.receive().Type, "who is nobody has no session to watch: a second stop would panic")
}

// until is byHeader with access tokens that expire.
func until(at func() time.Time) ViewerFunc {
	return func(ctx context.Context, authorization string) (viewer.Viewer, bool, error) {
		v, ok, err := byHeader(ctx, authorization)
		v.Until = at()
		return v, ok, err
	}
}

// A client that ignores the close is served nothing either: no event of what it subscribed to, and no operation.
func TestASocketEndsWithItsAccessToken(t *testing.T) {
	t.Parallel()
	for _, watched := range []bool{true, false} {
		var expiry time.Time
		w := sessions{make(chan struct{}), make(chan struct{})}
		b := setup(t, func(d *Deps, _ *Config) {
			d.Viewer = until(func() time.Time { expiry = time.Now().Add(300 * time.Millisecond); return expiry })
			if watched {
				d.Watch = w.watch
			}
		})
		ended := make(chan struct{})
		b.resolvers["ticks"] = func(ctx context.Context) (any, error) {
			<-ctx.Done()
			close(ended)
			return "too late", nil
		}
		b.resolvers["rename"] = func(context.Context) (any, error) {
			t.Error("executed")
			return nil, nil
		}
		s, _, err := dial(t, listen(t, b).URL, http.Header{"Authorization": {"alice"}})
		require.NoError(t, err)
		s.send(message{Type: "connection_init"})
		require.Equal(t, "connection_ack", s.receive().Type)
		s.send(subscribe("1", `subscription { ticks }`))
		s.send(subscribe("2", `{ ok }`))
		for s.receive().ID != "2" { // it is good until then
		}
		<-ended
		require.False(t, time.Now().Before(expiry), "not before")
		for range 10 { // nothing is read here, so no close is answered
			_ = wsjson.Write(t.Context(), s.conn, subscribe("3", `mutation { rename(id: 1, expectedVersion: 1) }`))
		}
		for {
			_, data, err := s.conn.Read(t.Context())
			if err == nil {
				require.NotContains(t, string(data), "too late")
				require.NotContains(t, string(data), "rename")
				continue
			}
			var e websocket.CloseError
			require.ErrorAs(t, err, &e)
			require.EqualValues(t, 4403, e.Code)
			require.Equal(t, "Forbidden", e.Reason)
			break
		}
		require.Less(t, time.Since(expiry), 5*time.Second)
		if watched {
			<-w.stopped
		}
	}
}

func TestASocketOfAnAccessTokenThatHasExpired(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer = until(func() time.Time { return time.Now().Add(-time.Second) }) })
	s, _, err := dial(t, listen(t, b).URL, http.Header{"Authorization": {"alice"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	code, _ := s.closed()
	require.EqualValues(t, 4403, code)
}

// Whether the viewer's rights go on is asked before each operation, and where they do not, nothing is executed.
func TestOperationsOverASocketAreChecked(t *testing.T) {
	t.Parallel()
	answers := make(chan error, 3)
	b := setup(t, func(d *Deps, _ *Config) {
		d.Viewer = byHeader
		d.Check = func(_ context.Context, v viewer.Viewer) error {
			if v.ID != alice {
				t.Error("asked about", v.ID)
			}
			return <-answers
		}
	})
	executed := 0
	b.resolvers["ok"] = func(context.Context) (any, error) {
		executed++
		return "fine", nil
	}
	url := listen(t, b).URL
	s, _, err := dial(t, url, http.Header{"Authorization": {"alice"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)

	answers <- nil
	s.send(subscribe("1", `{ ok }`))
	require.Equal(t, "next", s.receive().Type)
	require.Equal(t, "complete", s.receive().Type)
	require.Equal(t, 1, executed)

	answers <- errors.New("secret: the database is away")
	s.send(subscribe("2", `{ ok }`))
	m := s.receive()
	require.Equal(t, "error", m.Type, "it cannot be told, and the socket goes on")
	require.Contains(t, string(m.Payload), `"code":"INTERNAL"`)
	require.NotContains(t, string(m.Payload), "secret")
	for m.Type != "complete" {
		m = s.receive()
	}

	answers <- &record.Error{Code: record.Unauthenticated, Message: "the session has ended"}
	s.send(subscribe("3", `{ ok }`))
	code, reason := s.closed()
	require.EqualValues(t, 4403, code)
	require.Equal(t, "Forbidden", reason)
	require.Equal(t, 1, executed)

	nobody, _, err := dial(t, url, nil)
	require.NoError(t, err)
	nobody.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", nobody.receive().Type)
	nobody.send(subscribe("1", `{ ok }`))
	require.Equal(t, "next", nobody.receive().Type, "nobody has no rights that end")
}
