package server

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/ratelimit"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// message is one of graphql-transport-ws.
type message struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// socketClient is a client.
type socketClient struct {
	t    *testing.T
	conn *websocket.Conn
}

func listen(t *testing.T, b *bundle) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(b)
	t.Cleanup(func() {
		if err := b.shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return s
}

func dial(t *testing.T, url string, header http.Header) (*socketClient, *http.Response, error) {
	t.Helper()
	if header == nil {
		header = http.Header{}
	}
	protocols := []string{"graphql-transport-ws"}
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
	return &socketClient{t, conn}, resp, nil
}

func (s *socketClient) send(m message) {
	s.t.Helper()
	require.NoError(s.t, wsjson.Write(s.t.Context(), s.conn, m))
}

func (s *socketClient) receive() message {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	var m message
	require.NoError(s.t, wsjson.Read(ctx, s.conn, &m))
	return m
}

// closed reads until the connection ends and returns its close code.
func (s *socketClient) closed() (websocket.StatusCode, string) {
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
	s, _, err := dial(t, url, http.Header{"Sec-Websocket-Protocol": {"graphql-ws"}})
	require.NoError(t, err)
	code, _ := s.closed()
	require.EqualValues(t, 4406, code)
	s, _, err = dial(t, url, http.Header{"Sec-Websocket-Protocol": {"graphql-ws,graphql-transport-ws"}})
	require.NoError(t, err)
	require.Equal(t, "graphql-transport-ws", s.conn.Subprotocol())
}

func TestALongMessageEndsTheSocket(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.Sockets.MessageSize = 1000 })
	s, _, err := dial(t, listen(t, b).URL, nil)
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	s.send(subscribe("1", `{ ok } #`+strings.Repeat("x", 1000)))
	code, _ := s.closed()
	require.Equal(t, websocket.StatusMessageTooBig, code)
}

// Who takes nothing of what is sent for DrainTimeout is closed, and what is sent ends.
func TestClientsThatTakeNothing(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T, b *bundle, url string){
		"a socket": func(t *testing.T, _ *bundle, url string) {
			t.Helper()
			s, _, err := dial(t, url, nil)
			require.NoError(t, err)
			s.send(message{Type: "connection_init"})
			require.Equal(t, "connection_ack", s.receive().Type)
			s.send(subscribe("1", `subscription { ticks }`))
		},
		"an event stream": func(t *testing.T, b *bundle, url string) {
			t.Helper()
			b.events(t, url, "POST", "/graphql", document(`subscription { ticks }`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(_ *Deps, c *Config) { c.Sockets.DrainTimeout = time.Second })
			ended := make(chan struct{})
			end := sync.OnceFunc(func() { close(ended) })
			b.resolvers["ticks"] = func(ctx context.Context) (any, error) {
				context.AfterFunc(ctx, end)
				return strings.Repeat("x", 1<<20), nil
			}
			open(t, b, listen(t, b).URL)
			<-ended
		})
	}
}

// A client that answers no pings is gone after two. graphqlws.TestPings holds when each is sent; here the setting reaches it.
func TestPingInterval(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.Sockets.PingInterval = 50 * time.Millisecond })
	s, _, err := dial(t, listen(t, b).URL, nil)
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	pings := 0 // more than two where a busy machine still handled connection_init when one was due: that is a sign of life
	for {
		_, frame, err := s.conn.Read(ctx)
		if err != nil {
			break
		}
		require.JSONEq(t, `{"type": "ping"}`, string(frame))
		pings++
	}
	require.NoError(t, ctx.Err())
	require.GreaterOrEqual(t, pings, 2)
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
	require.EqualValues(t, 1012, code, "sockets are closed at once; clients open them again")
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
	watchers chan viewer.Watcher
	stopped  chan viewer.Viewer
}

func newSessions() sessions {
	return sessions{make(chan viewer.Watcher, 10), make(chan viewer.Viewer, 10)}
}

func (s sessions) watch(v viewer.Viewer, w viewer.Watcher) func() {
	s.watchers <- w
	return func() { s.stopped <- v }
}

func TestASocketEndsWithItsSession(t *testing.T) {
	t.Parallel()
	w := newSessions()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer, d.Watch = byHeader, w.watch })
	begun, ended := make(chan struct{}), make(chan struct{})
	b.resolvers["ticks"] = func(ctx context.Context) (any, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return "too late", nil
	}
	s, _, err := dial(t, listen(t, b).URL, http.Header{"Authorization": {"alice"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	s.send(subscribe("1", `subscription { ticks }`))
	<-begun
	(<-w.watchers).Ended()
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
	<-ended
	<-w.stopped
}

// A client that does not answer the close is not served while the server waits for it.
func TestARevokedSocketIsDeaf(t *testing.T) {
	t.Parallel()
	w := newSessions()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer, d.Watch = byHeader, w.watch })
	b.resolvers["rename"] = func(context.Context) (any, error) {
		t.Error("executed")
		return nil, nil
	}
	s, _, err := dial(t, listen(t, b).URL, http.Header{"Authorization": {"alice"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	(<-w.watchers).Ended()
	for range 10 { // nothing is read here, so no close is answered
		_ = wsjson.Write(t.Context(), s.conn, subscribe("1", `mutation { rename(id: 1, expectedVersion: 1) }`))
	}
	code, _ := s.closed()
	require.EqualValues(t, 4403, code)
}

func TestASocketOfASessionThatHasEnded(t *testing.T) {
	t.Parallel()
	w := newSessions()
	b := setup(t, func(d *Deps, _ *Config) {
		d.Viewer = byHeader
		d.Watch = func(v viewer.Viewer, watcher viewer.Watcher) func() {
			watcher.Ended() // at once
			return w.watch(v, watcher)
		}
	})
	s, _, err := dial(t, listen(t, b).URL, http.Header{"Authorization": {"alice"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	code, _ := s.closed()
	require.EqualValues(t, 4403, code)
	<-w.stopped
}

func TestWatchingStopsWithTheSocket(t *testing.T) {
	t.Parallel()
	w := newSessions()
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
	require.Equal(t, "connection_ack", nobody.receive().Type, "who is nobody has no session to watch")
	require.Len(t, w.watchers, 1)
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
		w := newSessions()
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

// connected returns a socket that is signed in, and the payload of connection_ack.
func connected(t *testing.T, url, authorization string) (*socketClient, string) {
	t.Helper()
	s, _, err := dial(t, url, nil)
	require.NoError(t, err)
	s.send(message{Type: "connection_init", Payload: json.RawMessage(`{"authorization": "` + authorization + `"}`)})
	ack := s.receive()
	require.Equal(t, "connection_ack", ack.Type)
	return s, string(ack.Payload)
}

// tokens are those of a ViewerFunc, by what a client presents, or by its cookie.
type tokens map[string]viewer.Viewer

func (k tokens) viewer(ctx context.Context, authorization string) (viewer.Viewer, bool, error) {
	if authorization == "" {
		authorization = viewer.ClientOf(ctx).Cookie("access")
	}
	if authorization == "" {
		return viewer.Viewer{}, false, nil
	}
	v, ok := k[authorization]
	if !ok {
		return v, false, &record.Error{Code: record.Unauthenticated, Message: "the access token is not valid"}
	}
	return v, true, nil
}

// A client that presents its next access token keeps its socket and its subscriptions, and asks with the new one from then on.
func TestASocketIsRenewed(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(time.Hour).UTC()
	later := soon.Add(time.Hour)
	first, second := uuid.New(), uuid.New()
	w := newSessions()
	b := setup(t, func(d *Deps, _ *Config) {
		d.Watch = w.watch
		d.Viewer = tokens{
			"old": {ID: alice, Role: viewer.User, Session: first, Until: soon},
			"new": {ID: alice, Role: viewer.User, Session: second, Until: later},
		}.viewer
	})
	b.resolvers["ok"] = func(ctx context.Context) (any, error) {
		v, _ := viewer.FromContext(ctx)
		return v.Session.String(), nil
	}
	ticks := make(chan string)
	b.resolvers["ticks"] = func(ctx context.Context) (any, error) {
		select {
		case tick := <-ticks:
			return tick, nil
		case <-ctx.Done():
			return nil, errStreamEnds
		}
	}
	s, ack := connected(t, listen(t, b).URL, "old")
	require.JSONEq(t, `{"expiresAt": "`+soon.Format(time.RFC3339Nano)+`"}`, ack)
	s.send(subscribe("1", `subscription { ticks }`))
	ticks <- "one"
	require.Equal(t, "next", s.receive().Type)
	<-w.watchers

	s.send(message{Type: "ping", Payload: json.RawMessage(`{"Authorization": "new"}`)})
	pong := s.receive()
	require.Equal(t, "pong", pong.Type)
	require.JSONEq(t, `{"expiresAt": "`+later.Format(time.RFC3339Nano)+`"}`, string(pong.Payload))
	require.Equal(t, first, (<-w.stopped).Session)
	ticks <- "two"
	require.JSONEq(t, `{"data": {"ticks": "two"}}`, string(s.receive().Payload))
	s.send(subscribe("2", `{ ok }`))
	require.JSONEq(t, `{"data": {"ok": "`+second.String()+`"}}`, string(s.receive().Payload))
	require.Equal(t, message{ID: "2", Type: "complete"}, s.receive())

	// Other pings have nothing to do with it.
	for _, payload := range []string{"", `{}`, `{"n": 1}`, `{"authorization": 5}`} {
		s.send(message{Type: "ping", Payload: json.RawMessage(payload)})
		require.Equal(t, message{Type: "pong"}, s.receive())
	}
	(<-w.watchers).Ended()
	code, reason := s.closed()
	require.EqualValues(t, 4403, code, "the new session ends it")
	require.Equal(t, "Forbidden", reason)
	require.Equal(t, second, (<-w.stopped).Session)
}

func TestASocketIsNotRenewedForSomebodyElse(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) {
		d.Viewer = tokens{
			"alice":     {ID: alice, Role: viewer.User},
			"moderator": {ID: alice, Role: viewer.Moderator},
			"bob":       {ID: uuid.New(), Role: viewer.User},
		}.viewer
	})
	url := listen(t, b).URL
	for _, c := range []struct{ with, next, reason string }{
		{"alice", "bob", "another user"},
		{"alice", "moderator", "another role"},
		{"alice", "nonsense", "the access token is not valid"},
		{"", "alice", "another user"},
	} {
		s, _ := connected(t, url, c.with)
		s.send(message{Type: "ping", Payload: json.RawMessage(`{"authorization": "` + c.next + `"}`)})
		code, reason := s.closed()
		require.EqualValues(t, 4403, code)
		require.Contains(t, reason, c.reason)
	}
}

// A socket that a cookie signed in goes on as long as its session is refreshed.
func TestRenewalOfCookies(t *testing.T) {
	t.Parallel()
	w := newSessions()
	checked := make(chan time.Time, 1)
	soon := time.Now().Add(time.Hour)
	b := setup(t, func(d *Deps, _ *Config) {
		d.Watch = w.watch
		d.Viewer = tokens{"a": {ID: alice, Role: viewer.User, Until: soon}}.viewer
		d.Check = func(_ context.Context, v viewer.Viewer) error {
			checked <- v.Until
			return nil
		}
	})
	url := listen(t, b).URL
	ask := func(s *socketClient) time.Time {
		s.send(subscribe("1", `{ ok }`))
		require.Equal(t, "next", s.receive().Type)
		require.Equal(t, "complete", s.receive().Type)
		return <-checked
	}
	s, _, err := dial(t, url, http.Header{"Cookie": {"access=a"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	watcher := <-w.watchers
	watcher.Renewed(soon.Add(time.Hour))
	require.Equal(t, soon.Add(time.Hour), ask(s))
	watcher.Renewed(soon) // read late
	require.Equal(t, soon.Add(time.Hour), ask(s))

	s, _ = connected(t, url, "a")
	(<-w.watchers).Renewed(soon.Add(time.Hour))
	require.Equal(t, soon, ask(s), "who has a token of their own shows the next")
}

func TestSocketsOfAUserAreFew(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, c *Config) { d.Viewer, c.Sockets.PerUser = byHeader, 2 })
	url := listen(t, b).URL
	first, _ := connected(t, url, "alice")
	connected(t, url, "alice")
	s, _, err := dial(t, url, http.Header{"Authorization": {"alice"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	code, _ := s.closed()
	require.EqualValues(t, 1013, code, "clients try again later")
	a := b.query(t, `{ ok }`, nil, "Authorization", "alice", "Accept", "text/event-stream")
	require.Equal(t, 429, a.Status, "event streams count as well")
	require.Equal(t, "RATE_LIMITED", a.Errors[0].code())
	require.NoError(t, first.conn.Close(websocket.StatusNormalClosure, ""))
	require.Eventually(t, func() bool { return b.held(alice) == 1 }, 10*time.Second, time.Millisecond)
	connected(t, url, "alice")
}

// held is how many sockets and event streams a user has.
func (b *bundle) held(user uuid.UUID) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.holders[holder{user: user}]
}

// Those of nobody are few as well, of an address.
func TestSocketsOfNobodyAreFew(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, c *Config) {
		d.Viewer, c.Sockets.PerAddress = byHeader, 2
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	url := listen(t, b).URL
	open := func(address string) *socketClient {
		s, _, err := dial(t, url, http.Header{"X-Forwarded-For": {address}})
		require.NoError(t, err)
		s.send(message{Type: "connection_init"})
		return s
	}
	first := open("2001:db8::1")
	require.Equal(t, "connection_ack", first.receive().Type)
	b.reserve(t, url, "X-Forwarded-For", "2001:db8::2") // of the same 64 bits
	code, reason := open("2001:db8::3").closed()
	require.EqualValues(t, 1013, code)
	require.Equal(t, "Too many sockets", reason)
	for _, method := range []string{"POST", "PUT"} {
		resp := b.request(t, url, method, "/graphql", document(`{ ok }`), "Accept", "text/event-stream", "X-Forwarded-For", "2001:db8::3")
		require.Equal(t, 429, resp.StatusCode)
	}
	require.Equal(t, "connection_ack", open("2001:db8:1::").receive().Type, "others are not concerned")
	s, _, err := dial(t, url, http.Header{"X-Forwarded-For": {"2001:db8::3"}, "Authorization": {"alice"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type, "nor is who is signed in")

	require.NoError(t, first.conn.Close(websocket.StatusNormalClosure, ""))
	nobody := holder{address: "2001:db8::"}
	require.Eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.holders[nobody] == 1
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, "connection_ack", open("2001:db8::3").receive().Type)
}

// Operations over a socket count as requests do.
func TestOperationsOverASocketAreCounted(t *testing.T) {
	t.Parallel()
	var left atomic.Int32
	left.Store(3)
	b := setup(t, func(d *Deps, _ *Config) {
		d.Limit = func(_ context.Context, a netip.Addr) (ratelimit.Result, error) {
			if !a.IsLoopback() {
				t.Error("counted", a)
			}
			switch n := left.Add(-1); {
			case n >= 0:
				return ratelimit.Result{OK: true}, nil
			case n == -2:
				return ratelimit.Result{}, errors.New("the store is away")
			}
			return ratelimit.Result{RetryAfter: 2500 * time.Millisecond}, nil
		}
	})
	s, _ := connected(t, listen(t, b).URL, "")
	for _, want := range []string{"next", "next", "error", "next"} {
		s.send(subscribe("1", `{ ok }`))
		m := s.receive()
		require.Equal(t, want, m.Type)
		if m.Type == "next" {
			require.Equal(t, "complete", s.receive().Type)
			continue
		}
		var errs []apiError
		require.NoError(t, json.Unmarshal(m.Payload, &errs))
		require.Equal(t, "RATE_LIMITED", errs[0].code())
		require.InDelta(t, 2.5, errs[0].Extensions["retryAfter"], 0)
		require.NotEmpty(t, errs[0].Extensions["requestId"])
	}
}

// Nor can a client present one token after the other.
func TestRenewalsAreCounted(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	b := setup(t, func(d *Deps, _ *Config) {
		d.Viewer = byHeader
		d.Limit = func(context.Context, netip.Addr) (ratelimit.Result, error) {
			return ratelimit.Result{OK: !full.Load()}, nil
		}
	})
	s, _ := connected(t, listen(t, b).URL, "alice")
	renewal := message{Type: "ping", Payload: json.RawMessage(`{"authorization": "alice"}`)}
	s.send(renewal)
	require.Equal(t, "pong", s.receive().Type)
	full.Store(true)
	s.send(message{Type: "ping"})
	require.Equal(t, "pong", s.receive().Type, "others cost nothing")
	s.send(renewal)
	code, reason := s.closed()
	require.EqualValues(t, 1013, code)
	require.Equal(t, "too many requests", reason)
}

// Who cannot be told in time is asked to come again.
func TestViewersAreKnownInTime(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	var away atomic.Bool // the database
	b := setup(t, func(d *Deps, c *Config) {
		c.OperationTimeout = 50 * time.Millisecond
		d.Viewer = func(ctx context.Context, authorization string) (viewer.Viewer, bool, error) {
			if away.Load() {
				return viewer.Viewer{}, false, hang(ctx)
			}
			return byHeader(ctx, authorization)
		}
		d.Check = func(ctx context.Context, _ viewer.Viewer) error { return hang(ctx) }
	})
	url := listen(t, b).URL
	first, _ := connected(t, url, "alice")
	first.send(subscribe("1", `{ ok }`))
	m := first.receive()
	require.Equal(t, "error", m.Type)
	require.Contains(t, string(m.Payload), `"code":"UNAVAILABLE"`)
	away.Store(true)
	first.send(message{Type: "ping", Payload: json.RawMessage(`{"authorization": "alice"}`)})
	code, _ := first.closed()
	require.EqualValues(t, 1013, code)
	second, _, err := dial(t, url, nil)
	require.NoError(t, err)
	second.send(message{Type: "connection_init"})
	code, _ = second.closed()
	require.EqualValues(t, 1013, code)
	require.Equal(t, 503, b.request(t, url, "PUT", "/graphql", "").StatusCode)
	require.Equal(t, 503, b.request(t, url, "POST", "/graphql", document(`subscription { ticks }`), "Accept", "text/event-stream").StatusCode)
}

// The error of one operation too many is as others are.
func TestOneOperationTooMany(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.Sockets.Operations = 1 })
	b.ticking()
	s, _, err := dial(t, listen(t, b).URL, http.Header{"X-Request-Id": {"r-9"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	s.send(subscribe("1", `subscription { ticks }`))
	s.send(subscribe("2", `{ ok }`))
	m := s.receive()
	require.Equal(t, "2", m.ID)
	require.Equal(t, "error", m.Type)
	var errs []apiError
	require.NoError(t, json.Unmarshal(m.Payload, &errs))
	require.Equal(t, "RATE_LIMITED", errs[0].code())
	require.Equal(t, "r-9", errs[0].Extensions["requestId"])
}

func TestAuthorizationOfAPayload(t *testing.T) {
	t.Parallel()
	for range 20 { // maps have no order
		for payload, want := range map[string]string{
			``:                       "",
			`[]`:                     "",
			`{"authorization": 5}`:   "",
			`{"AUTHORIZATION": "a"}`: "a",
			`{"authorization": "a", "Authorization": "b", "AUTHORIZATION": "c"}`: "a",
			`{"authorization": "", "Authorization": "b", "AUTHORIZATION": "c"}`:  "c",
			`{"Authorization": "b", "authorizatioN": "c", "AUTHORIZATION": 1}`:   "b",
		} {
			require.Equal(t, want, authorization([]byte(payload)), payload)
		}
	}
}

// What refuses a subscription before it begins is an error; what goes wrong in an event is part of it.
func TestSubscriptionsThatAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.begin = func(context.Context) error { return &record.Error{Code: record.NotFound, Message: "no such thread"} }
	url := listen(t, b).URL
	s, _ := connected(t, url, "")
	s.send(subscribe("1", `subscription { ticks }`))
	m := s.receive()
	require.Equal(t, "error", m.Type)
	var errs []apiError
	require.NoError(t, json.Unmarshal(m.Payload, &errs))
	require.Equal(t, "NOT_FOUND", errs[0].code())
	require.Equal(t, "no such thread", errs[0].Message)
	require.NotEmpty(t, errs[0].Extensions["requestId"])

	events := make(chan error, 2)
	b = setup(t)
	b.resolvers["ticks"] = func(context.Context) (any, error) { return "tick", <-events }
	s, _ = connected(t, listen(t, b).URL, "")
	s.send(subscribe("1", `subscription { ticks }`))
	events <- errors.New("secret")
	m = s.receive()
	require.Equal(t, "next", m.Type)
	require.Contains(t, string(m.Payload), `"data":{"ticks":null}`)
	require.Contains(t, string(m.Payload), `"code":"INTERNAL"`)
	require.NotContains(t, string(m.Payload), "secret")
	events <- errStreamEnds
	require.Equal(t, message{ID: "1", Type: "complete"}, s.receive())
}

// A panic that no resolver has caught ends its operation alone.
func TestAPanicOverASocket(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.begin = func(context.Context) error { panic("secret") }
	s, _ := connected(t, listen(t, b).URL, "")
	s.send(subscribe("1", `subscription { ticks }`))
	m := s.receive()
	require.Equal(t, "error", m.Type)
	require.Contains(t, string(m.Payload), `"code":"INTERNAL"`)
	require.NotContains(t, string(m.Payload), "secret")
	require.Contains(t, b.log.String(), "panic: secret")
	s.send(subscribe("1", `{ ok }`))
	require.Equal(t, "next", s.receive().Type)
}

// The time of an operation is for queries, mutations, and what subscriptions begin with.
func TestOperationsOverASocketAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.OperationTimeout = time.Millisecond })
	wait := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	b.resolvers["ok"] = func(ctx context.Context) (any, error) { return nil, wait(ctx) }
	b.begin = wait
	s, _ := connected(t, listen(t, b).URL, "")
	s.send(subscribe("1", `{ ok }`))
	require.Contains(t, string(s.receive().Payload), `"code":"UNAVAILABLE"`)
	require.Equal(t, "complete", s.receive().Type)
	s.send(subscribe("2", `subscription { ticks }`))
	m := s.receive()
	require.Equal(t, "error", m.Type)
	require.Contains(t, string(m.Payload), `"code":"UNAVAILABLE"`)
}

func TestVariablesOverASocket(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s, _ := connected(t, listen(t, b).URL, "")
	s.send(message{ID: "1", Type: "subscribe", Payload: json.RawMessage(`{"query": "query($n: Int) { threads(first: $n) { totalCount } }", "variables": {"n": "1"}}`)})
	require.Contains(t, string(s.receive().Payload), "variable n: a string is no Int")
	s.send(message{ID: "1", Type: "subscribe", Payload: json.RawMessage(`{"query": "query($n: Int) { threads(first: $n) { totalCount } }", "variables": {"n": 9007199254740993}}`)})
	require.Contains(t, string(s.receive().Payload), "variable n: 9007199254740993 is no Int")
}

func TestTheLogOfASocket(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer = byHeader })
	s, _, err := dial(t, listen(t, b).URL, http.Header{"Authorization": {"alice"}, "X-Request-Id": {"r-5"}})
	require.NoError(t, err)
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	require.NoError(t, s.conn.Close(websocket.StatusNormalClosure, ""))
	require.NoError(t, b.shutdown(t.Context()))
	// The request ends when its connection is taken over, and is logged beside what goes over the socket.
	require.Eventually(t, func() bool { return len(b.log.entries(t, "request")) > 0 }, 10*time.Second, time.Millisecond)
	opened := b.log.entries(t, "request")
	require.Len(t, opened, 1)
	require.EqualValues(t, 101, opened[0]["status"])
	closed := b.log.entries(t, "socket")
	require.Len(t, closed, 1)
	require.Equal(t, "r-5", closed[0]["requestId"])
	require.Equal(t, alice.String(), closed[0]["user"])
}
