package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

// event is one of an event stream.
type event struct{ name, data string }

// streamClient reads an event stream.
type streamClient struct {
	t    *testing.T
	resp *http.Response
	r    *bufio.Reader
}

// request sends a request; header holds names and values in turn.
func (b *bundle) request(t *testing.T, base, method, target, body string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, base+target, strings.NewReader(body))
	require.NoError(t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(client.CloseIdleConnections)
	resp, err := client.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// events opens a stream.
func (b *bundle) events(t *testing.T, base, method, target, body string, header ...string) *streamClient {
	t.Helper()
	resp := b.request(t, base, method, target, body, append(header, "Accept", "text/event-stream")...)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "text/event-stream; charset=utf-8", resp.Header.Get("Content-Type"))
	require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
	return &streamClient{t, resp, bufio.NewReader(resp.Body)}
}

// next reads an event; its name is "" at the end of the stream.
func (c *streamClient) next() (e event) {
	c.t.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if err == io.EOF {
			return event{}
		}
		require.NoError(c.t, err)
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" && e.name != "":
			return e
		case strings.HasPrefix(line, "event: "):
			e.name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			e.data = line[len("data: "):]
		default:
			require.Contains(c.t, []string{"", ":"}, line)
		}
	}
}

func (c *streamClient) expect(name, data string) {
	c.t.Helper()
	e := c.next()
	require.Equal(c.t, name, e.name)
	if data == "" {
		require.Empty(c.t, e.data)
		return
	}
	require.JSONEq(c.t, data, e.data)
}

// ended reads the end of the stream, which is not a completion.
func (c *streamClient) ended() {
	c.t.Helper()
	require.Equal(c.t, event{}, c.next())
}

func document(text string) string {
	b, _ := json.Marshal(map[string]string{"query": text})
	return string(b)
}

// ticking has ticks of a channel, until that is closed.
func (b *bundle) ticking() chan string {
	ticks := make(chan string)
	b.resolvers["ticks"] = func(ctx context.Context) (any, error) {
		select {
		case tick, more := <-ticks:
			if more {
				return tick, nil
			}
		case <-ctx.Done():
		}
		return nil, errStreamEnds
	}
	return ticks
}

func TestASubscriptionByEvents(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		b := setup(t)
		ticks := b.ticking()
		base := listen(t, b).URL
		target, body := "/graphql", document(`subscription { ticks }`)
		if method == http.MethodGet {
			target, body = "/graphql?query="+url.QueryEscape(`subscription { ticks }`), ""
		}
		c := b.events(t, base, method, target, body)
		for i := range 3 {
			ticks <- fmt.Sprint(i)
			c.expect("next", fmt.Sprintf(`{"data": {"ticks": "%d"}}`, i))
		}
		close(ticks)
		c.expect("complete", "")
		c.ended()
	}
}

func TestQueriesAndMutationsByEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	base := listen(t, b).URL
	c := b.events(t, base, "POST", "/graphql", document(`query Named { ok }`))
	c.expect("next", `{"data": {"ok": "fine"}}`)
	c.expect("complete", "")
	c.ended()
	c = b.events(t, base, "POST", "/graphql", document(`mutation { rename(id: 1, expectedVersion: 1) }`))
	c.expect("next", `{"data": {"rename": "fine"}}`)
	c.expect("complete", "")

	mutation := "/graphql?query=" + url.QueryEscape(`mutation { rename(id: 1, expectedVersion: 1) }`)
	b.resolvers["rename"] = func(context.Context) (any, error) { panic("executed") }
	require.Equal(t, 405, b.request(t, base, "GET", mutation, "", "Accept", "text/event-stream").StatusCode)
}

// What refuses an operation comes as an event: EventSource shows nothing of an answer with another status.
func TestErrorsByEvents(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer = byHeader })
	b.begin = func(context.Context) error { return &record.Error{Code: record.Forbidden, Message: "not yours"} }
	base := listen(t, b).URL
	for text, code := range map[string]string{
		`{ nope }`:               "GRAPHQL_VALIDATION_FAILED",
		`{`:                      "GRAPHQL_PARSE_FAILED",
		`subscription { ticks }`: "FORBIDDEN",
		`{ crash }`:              "INTERNAL",
	} {
		c := b.events(t, base, "POST", "/graphql", document(text), "X-Request-Id", "r-3")
		e := c.next()
		require.Equal(t, "next", e.name)
		var a answer
		require.NoError(t, json.Unmarshal([]byte(e.data), &a))
		require.Equal(t, code, a.Errors[0].code())
		require.Equal(t, "r-3", a.Errors[0].Extensions["requestId"])
		require.NotContains(t, e.data, "secret")
		c.expect("complete", "")
		c.ended()
	}
	// Who is refused, and what is no request, get no stream.
	accept := []string{"Accept", "text/event-stream"}
	require.Equal(t, 401, b.request(t, base, "POST", "/graphql", document(`{ ok }`), append(accept, "Authorization", "mallory")...).StatusCode)
	require.Equal(t, 400, b.request(t, base, "POST", "/graphql", `{`, accept...).StatusCode)
}

// The client of an answer by events cannot be sent cookies: its header is on the way.
func TestTheClientOfEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.resolvers["ok"] = func(ctx context.Context) (any, error) {
		c := viewer.ClientOf(ctx)
		c.SetCookie(&http.Cookie{Name: "b", Value: "2"})
		return fmt.Sprintln(c.Socket, c.UserAgent, c.RequestID), nil
	}
	c := b.events(t, listen(t, b).URL, "POST", "/graphql", document(`{ ok }`), "User-Agent", "phone", "X-Request-Id", "r-4")
	c.expect("next", `{"data": {"ok": "true phone r-4\n"}}`)
	require.Empty(t, c.resp.Cookies())
}

func TestEventsEndWithTheSession(t *testing.T) {
	t.Parallel()
	w := newSessions()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer, d.Watch = byHeader, w.watch })
	ticks := b.ticking()
	c := b.events(t, listen(t, b).URL, "POST", "/graphql", document(`subscription { ticks }`), "Authorization", "alice")
	ticks <- "one"
	c.expect("next", `{"data": {"ticks": "one"}}`)
	(<-w.watchers).Ended()
	c.ended()
	<-w.stopped
	require.Zero(t, b.held(alice))
}

func TestEventsEndWhenTheClientGoes(t *testing.T) {
	t.Parallel()
	w := newSessions()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer, d.Watch = byHeader, w.watch })
	began, ended := make(chan struct{}), make(chan struct{})
	b.resolvers["ticks"] = func(ctx context.Context) (any, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return nil, errStreamEnds
	}
	c := b.events(t, listen(t, b).URL, "POST", "/graphql", document(`subscription { ticks }`), "Authorization", "alice")
	<-began // what has gone before that is not asked at all
	require.NoError(t, c.resp.Body.Close())
	<-ended
	<-w.stopped
}

func TestEventsEndWhenTheServerDrains(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ticks := b.ticking()
	c := b.events(t, listen(t, b).URL, "POST", "/graphql", document(`subscription { ticks }`))
	ticks <- "one"
	c.expect("next", `{"data": {"ticks": "one"}}`)
	require.NoError(t, b.shutdown(t.Context()))
	c.ended()
}

// A reservation that nobody has opened ends at once as well, and does not wait for sockets.
func TestReservationsEndWhenTheServerDrains(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began, ended, waits := make(chan struct{}), make(chan struct{}), make(chan struct{})
	b.resolvers["ticks"] = func(ctx context.Context) (any, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return nil, errStreamEnds
	}
	b.resolvers["whoami"] = func(context.Context) (any, error) {
		close(waits)
		<-ended
		return nil, errStreamEnds
	}
	base := listen(t, b).URL
	token := b.reserve(t, base)
	body := operation("1", `subscription { ticks }`)
	require.Equal(t, 202, b.request(t, base, "POST", "/graphql", body, "X-GraphQL-Event-Stream-Token", token).StatusCode)
	<-began
	s, _ := connected(t, base, "")
	s.send(subscribe("1", `subscription { whoami }`))
	<-waits
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	go func() { _, _, _ = s.conn.Read(ctx) }() // answers the close
	require.NoError(t, b.shutdown(ctx))
}

// A stream in which nothing happens says so.
func TestEventsAreKeptAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		e, err := b.newEvents(t.Context(), "", viewer.Viewer{}, false)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		r := post("").WithContext(ctx)
		w := &writer{header: http.Header{}}
		go e.write(w, r)
		<-time.After(5 * keepAlive / 2)
		synctest.Wait()
		require.Equal(t, ":\n\n:\n\n:\n\n", w.body.String())
		cancel()
		synctest.Wait()
	})
}

// patient is an answer whose client takes a piece of an event in a while.
type patient struct {
	writer
	takes    time.Duration
	deadline time.Time
}

func (w *patient) SetWriteDeadline(t time.Time) error {
	w.deadline = t
	return nil
}

func (w *patient) Write(p []byte) (int, error) {
	<-time.After(w.takes * time.Duration((len(p)+pieceSize-1)/pieceSize))
	if !time.Now().Before(w.deadline) {
		return 0, os.ErrDeadlineExceeded
	}
	return w.writer.Write(p)
}

// A client has the time for each piece of what waits for it, not for all.
func TestPiecesOfEventsHaveATimeEach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(_ *Deps, c *Config) { c.Sockets.DrainTimeout = time.Hour })
		e, err := b.newEvents(t.Context(), "", viewer.Viewer{}, false)
		require.NoError(t, err)
		op, err := e.begin(t.Context(), "")
		require.NoError(t, err)
		w := &patient{writer: writer{header: http.Header{}}, takes: 40 * time.Minute}
		long := `"` + strings.Repeat("x", 3*pieceSize) + `"`
		for _, payload := range []string{`{}`, long, `{}`} {
			require.True(t, op.Offer([]byte(payload)))
		}
		op.Complete()
		e.write(w, post(""))
		text := strings.ReplaceAll(w.body.String(), string(commentPart), "") // as many as there were ticks
		require.Equal(t, "event: next\ndata: {}\n\nevent: next\ndata: "+long+"\n\nevent: next\ndata: {}\n\nevent: complete\ndata: \n\n", text)
	})
}

// unread is an answer that nobody reads.
type unread struct {
	writer
	conn net.Conn
}

func (w *unread) SetWriteDeadline(t time.Time) error { return w.conn.SetWriteDeadline(t) }
func (w *unread) Write(p []byte) (int, error)        { return w.conn.Write(p) }

// A client that takes nothing does not hold up the end of its stream, nor that of the server.
func TestEventsThatNobodyTakesEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*bundle, *events){
		"the session ends":  func(_ *bundle, e *events) { e.rights.Ended() },
		"the server drains": func(b *bundle, _ *events) { b.drain() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, func(_ *Deps, c *Config) { c.Sockets.DrainTimeout = time.Hour })
				e, err := b.newEvents(t.Context(), "", viewer.Viewer{}, false)
				require.NoError(t, err)
				near, far := net.Pipe()
				defer func() { _, _ = near.Close(), far.Close() }()
				over := make(chan struct{})
				go func() {
					defer close(over)
					e.write(&unread{writer{header: http.Header{}}, near}, post(""))
				}()
				synctest.Wait() // it writes
				end(b, e)
				<-time.After(endTimeout)
				synctest.Wait()
				select {
				case <-over:
				default:
					require.Fail(t, "it still writes")
				}
			})
		})
	}
}

// writer is an answer that is written on another goroutine.
type writer struct {
	header http.Header
	body   strings.Builder
}

func (w *writer) Header() http.Header         { return w.header }
func (w *writer) Write(p []byte) (int, error) { return w.body.Write(p) }
func (w *writer) WriteHeader(int)             {}
func (w *writer) Flush()                      {}

// The server's timeouts, which are for answers that end, do not end a stream.
func TestEventsOutliveTimeouts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ticks := b.ticking()
	hs := httptest.NewUnstartedServer(b)
	hs.Config.ReadTimeout, hs.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	hs.Start()
	t.Cleanup(hs.Close)
	t.Cleanup(b.drain)
	c := b.events(t, hs.URL, "POST", "/graphql", document(`subscription { ticks }`))
	for began := time.Now(); time.Since(began) < 300*time.Millisecond; {
		ticks <- "on"
		c.expect("next", `{"data": {"ticks": "on"}}`)
	}
}

// A slow client makes streams that are pushed pause, and others wait.
func TestEventsOfASlowClient(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.Sockets.WriteBuffer = 100 })
	e, err := b.newEvents(t.Context(), "t", viewer.Viewer{}, false)
	require.NoError(t, err)
	pushed, err := e.begin(t.Context(), "1")
	require.NoError(t, err)
	pulled, err := e.begin(t.Context(), "2")
	require.NoError(t, err)
	drained, done := make(chan struct{}, 2), 0
	pushed.Push(func() { drained <- struct{}{} }, func() { done++ })
	k := &sink{b.Server, pushed}
	big := &record.Answer{Body: []byte(`{"data":"` + strings.Repeat("x", 200) + "\"\n}")}
	require.True(t, k.Next(big), "one fits, however long")
	require.False(t, k.Next(big))
	sent := make(chan error, 1)
	go func() { sent <- pulled.Send([]byte(`{}`)) }()
	parts, _ := e.take()
	require.Equal(t, "event: next\ndata: {\"id\":\"1\",\"payload\":{\"data\":\""+strings.Repeat("x", 200)+"\" }}\n\n", join(parts))
	require.False(t, k.Next(big), "it is not written yet")
	e.written(parts)
	<-drained
	require.NoError(t, <-sent)
	k.End(nil)
	k.Next(big)
	parts, last := e.take()
	require.Contains(t, join(parts), "event: complete\ndata: {\"id\":\"1\"}\n\n")
	require.False(t, last)
	require.Zero(t, done, "it ended by itself")

	other, err := e.begin(t.Context(), "3")
	require.NoError(t, err)
	e.end()
	other.Push(func() {}, func() { done++ })
	require.Equal(t, 1, done)
	<-other.Context().Done()
	<-pulled.Context().Done()
	require.ErrorIs(t, pulled.Send(nil), context.Canceled)
}

// An operation that was cancelled takes its place for as long as it runs, as over a socket.
func TestCancelledOperationsOfAStreamAreFew(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.Sockets.Operations = 1 })
	entered, release := make(chan struct{}), make(chan struct{})
	released := sync.OnceFunc(func() { close(release) })
	defer released()
	b.resolvers["fail"] = func(context.Context) (any, error) {
		close(entered)
		<-release
		return "late", nil
	}
	base := listen(t, b).URL
	token := b.reserve(t, base)
	send := func(method, target, body string) int {
		return b.request(t, base, method, target, body, "X-GraphQL-Event-Stream-Token", token).StatusCode
	}
	require.Equal(t, 202, send("POST", "/graphql", operation("1", `{ fail }`)))
	<-entered
	require.Equal(t, 200, send("DELETE", "/graphql?operationId=1", ""))
	require.Equal(t, 429, send("POST", "/graphql", operation("1", `{ ok }`)))
	released()
	b.streaming.Wait()
	require.Equal(t, 202, send("POST", "/graphql", operation("1", `{ ok }`)))
	c := b.events(t, base, "GET", "/graphql?token="+token, "")
	c.expect("next", `{"id": "1", "payload": {"data": {"ok": "fine"}}}`)
	c.expect("complete", `{"id": "1"}`)
}

// What an operation reads before it goes on holds up neither the others nor the end of the stream, and its panic ends it alone.
func TestOperationsGoOnAside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(_ *Deps, c *Config) { c.Sockets.WriteBuffer = 1 })
		e, err := b.newEvents(t.Context(), "t", viewer.Viewer{}, false)
		require.NoError(t, err)
		var done []string
		begin := func(id string, drained func()) *streamed {
			op, err := e.begin(t.Context(), id)
			require.NoError(t, err)
			op.Push(drained, func() { done = append(done, id) })
			require.Equal(t, id == "other", op.Offer([]byte(`{}`)), "there is room for one")
			return op
		}
		proceed := make(chan struct{})
		other := begin("other", func() {})
		begin("reads", func() { <-proceed })
		begin("crashes", func() { panic("secret state") })
		w := &writer{header: http.Header{}}
		over := make(chan struct{})
		go func() {
			defer close(over)
			e.write(w, post(""))
		}()
		synctest.Wait()
		require.True(t, other.Offer([]byte(`"more"`)))
		other.Flush()
		synctest.Wait()
		require.Contains(t, w.body.String(), `{"id":"other","payload":"more"}`)
		require.Contains(t, w.body.String(), "event: complete\ndata: {\"id\":\"crashes\"}")
		require.NotContains(t, w.body.String(), "secret")
		require.Equal(t, []string{"crashes"}, done, "no stream stays of it")
		e.end()
		<-over
		close(proceed)
	})
}

// What has ended takes an operation's place until its client is told: else who reads nothing could have any number of errors wait.
func TestEndsOfASlowClient(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.Sockets.Operations = 3 })
	b.begin = func(context.Context) error {
		return &record.Error{Code: record.NotFound, Message: "there is no such thread"}
	}
	base := listen(t, b).URL
	token := b.reserve(t, base)
	send := func(id int) int {
		body := operation(fmt.Sprint(id), `subscription { ticks }`)
		status := b.request(t, base, "POST", "/graphql", body, "X-GraphQL-Event-Stream-Token", token).StatusCode
		b.streaming.Wait() // it has ended
		return status
	}
	for id := range 3 {
		require.Equal(t, 202, send(id))
	}
	require.Equal(t, 429, send(3))
	c := b.events(t, base, "GET", "/graphql?token="+token, "")
	for id := range 3 {
		require.Contains(t, c.next().data, "there is no such thread")
		c.expect("complete", fmt.Sprintf(`{"id": "%d"}`, id))
	}
	require.Equal(t, 202, send(4))
}

// What waits for room ends with its request, even where nobody has noticed yet that the client has gone.
func TestAnAnswerThatWaitsForRoomEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(_ *Deps, c *Config) { c.Sockets.WriteBuffer = 1 })
		e, err := b.newEvents(t.Context(), "", viewer.Viewer{}, false)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		op, err := e.begin(ctx, "")
		require.NoError(t, err)
		require.NoError(t, op.Send([]byte(`{}`)))
		sent := make(chan error, 1)
		go func() { sent <- op.Send([]byte(`{}`)) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-sent, context.Canceled)
		e.end()
	})
}

func join(parts [][]byte) string {
	var b strings.Builder
	for _, p := range parts {
		b.Write(p)
	}
	return b.String()
}

// An answer that is pushed says what went wrong in it, and hides what is not for clients. All who get it are told the same, under an id
// that the log has once.
func TestErrorsOfWhatIsPushed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	shared := &record.Answer{Data: []byte(`{"a":null}`), Errors: partial("secret")}
	var streams [5]*events
	var pushing sync.WaitGroup
	for i := range streams {
		e, err := b.newEvents(t.Context(), "", viewer.Viewer{}, false)
		require.NoError(t, err)
		op, err := e.begin(t.Context(), "")
		require.NoError(t, err)
		streams[i] = e
		pushing.Go(func() {
			k := &sink{b.Server, op}
			k.Next(shared)
			k.Flush()
			k.End(&record.Error{Code: record.Forbidden, Message: "no more"})
		})
	}
	pushing.Wait()
	var entries []map[string]any
	for _, entry := range b.log.entries(t, "graphql error") {
		if entry["path"] == "a" {
			entries = append(entries, entry)
		}
	}
	require.Len(t, entries, 1)
	require.Contains(t, entries[0]["error"], "secret")
	for _, e := range streams {
		parts, last := e.take()
		require.True(t, last)
		text := join(parts)
		require.Contains(t, text, `"path":["a"]`)
		require.Contains(t, text, `"code":"INTERNAL"`)
		require.Contains(t, text, fmt.Sprintf(`"requestId":%q`, entries[0]["requestId"]))
		require.Contains(t, text, `"data":{"a":null}`)
		require.Contains(t, text, `"message":"no more"`)
		require.NotContains(t, text, "secret")
	}
}

// reserve reserves a stream.
func (b *bundle) reserve(t *testing.T, base string, header ...string) string {
	t.Helper()
	resp := b.request(t, base, "PUT", "/graphql", "", header...)
	require.Equal(t, 201, resp.StatusCode)
	require.Equal(t, "text/plain; charset=utf-8", resp.Header.Get("Content-Type"))
	token, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(token)
}

// operation is one of a reserved stream.
func operation(id, text string) string {
	b, _ := json.Marshal(map[string]any{"query": text, "extensions": map[string]any{"operationId": id}})
	return string(b)
}

func TestAReservedStream(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, c *Config) { d.Viewer, c.Sockets.Operations = byHeader, 2 })
	b.resolvers["whoami"] = whoami
	ticks := b.ticking()
	base := listen(t, b).URL
	token := b.reserve(t, base, "Authorization", "alice")
	as := []string{"Authorization", "alice", "X-GraphQL-Event-Stream-Token", token}
	send := func(body string, header ...string) int {
		return b.request(t, base, "POST", "/graphql", body, header...).StatusCode
	}
	require.Equal(t, 202, send(operation("1", `{ whoami }`), as...), "before it is opened, too")
	c := b.events(t, base, "GET", "/graphql?token="+token, "")
	c.expect("next", `{"id": "1", "payload": {"data": {"whoami": "`+alice.String()+`"}}}`)
	c.expect("complete", `{"id": "1"}`)
	b.streaming.Wait() // it runs no more
	require.Equal(t, 409, b.request(t, base, "GET", "/graphql?token="+token, "", "Accept", "text/event-stream").StatusCode)

	require.Equal(t, 202, send(operation("2", `subscription { ticks }`), as...))
	ticks <- "one"
	c.expect("next", `{"id": "2", "payload": {"data": {"ticks": "one"}}}`)
	require.Equal(t, 409, send(operation("2", `{ ok }`), as...))
	require.Equal(t, 202, send(operation("3", `subscription { ticks }`), as...))
	require.Equal(t, 429, send(operation("4", `{ ok }`), as...))
	require.Equal(t, 200, b.request(t, base, "DELETE", "/graphql?operationId=3", "", as...).StatusCode)
	require.Equal(t, 200, b.request(t, base, "DELETE", "/graphql?operationId=3", "", as...).StatusCode, "again")
	require.Eventually(t, func() bool { return send(operation("3", `{ ok }`), as...) == 202 }, 10*time.Second, time.Millisecond, "it has a place")
	c.expect("next", `{"id": "3", "payload": {"data": {"ok": "fine"}}}`)
	c.expect("complete", `{"id": "3"}`)

	require.Equal(t, 400, send(operation("5", `{ nope }`), as...))
	require.Equal(t, 400, send(document(`{ ok }`), as...), "without an id")
	require.Equal(t, 400, b.request(t, base, "DELETE", "/graphql", "", as...).StatusCode, "likewise")
	require.Equal(t, 400, send(operation(strings.Repeat("x", longestOperationID+1), `{ ok }`), as...), "it comes with every event")
	require.Equal(t, 401, send(operation("5", `{ ok }`), "Authorization", "mallory", "X-GraphQL-Event-Stream-Token", token))
	require.Equal(t, 404, send(operation("5", `{ ok }`), "X-GraphQL-Event-Stream-Token", token), "it is alice's")
	require.Equal(t, 404, send(operation("5", `{ ok }`), "Authorization", "alice", "X-GraphQL-Event-Stream-Token", "nonsense"))
	require.Equal(t, 404, b.request(t, base, "DELETE", "/graphql?operationId=2", "", "Authorization", "alice").StatusCode)
	mutation := url.Values{"query": {`mutation { rename(id: 1, expectedVersion: 1) }`}, "extensions": {`{"operationId": "6"}`}}
	require.Equal(t, 405, b.request(t, base, "GET", "/graphql?"+mutation.Encode(), "", as...).StatusCode)

	close(ticks)
	c.expect("complete", `{"id": "2"}`)
	require.Equal(t, 1, b.held(alice))
	require.NoError(t, c.resp.Body.Close())
	require.Eventually(t, func() bool { return send(operation("7", `{ ok }`), as...) == 404 }, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return b.held(alice) == 0 }, 10*time.Second, time.Millisecond, "its place is given back")
}

func TestReservationsAreOfSomebody(t *testing.T) {
	t.Parallel()
	w := newSessions()
	later := time.Now().Add(2 * time.Hour)
	b := setup(t, func(d *Deps, _ *Config) {
		d.Watch = w.watch
		d.Viewer = tokens{
			"alice": {ID: alice, Role: viewer.User, Until: time.Now().Add(time.Hour)},
			"next":  {ID: alice, Role: viewer.User, Until: later},
			"bob":   {ID: uuid.New(), Role: viewer.User},
		}.viewer
	})
	base := listen(t, b).URL
	token := b.reserve(t, base, "Authorization", "alice")
	open := func(authorization string) int {
		return b.request(t, base, "GET", "/graphql?token="+token, "", "Accept", "text/event-stream", "Authorization", authorization).StatusCode
	}
	require.Equal(t, 404, open("bob"))
	require.Equal(t, 401, open("mallory"))
	c := b.events(t, base, "GET", "/graphql", "", "Authorization", "alice", "X-GraphQL-Event-Stream-Token", token)
	require.Equal(t, 202, b.request(t, base, "POST", "/graphql", operation("1", `{ ok }`), "Authorization", "next", "X-GraphQL-Event-Stream-Token", token).StatusCode)
	c.expect("next", `{"id": "1", "payload": {"data": {"ok": "fine"}}}`)
	b.mu.Lock()
	e := b.reservations[token]
	b.mu.Unlock()
	e.rights.mu.Lock()
	require.Equal(t, later, e.rights.viewer.Until, "a newer access token lengthens it")
	e.rights.mu.Unlock()
	c.expect("complete", `{"id": "1"}`)
	(<-w.watchers).Ended()
	c.ended()
	require.Equal(t, 404, open("alice"))

	token = b.reserve(t, base) // nobody's
	require.Equal(t, 404, open("bob"))
	b.events(t, base, "GET", "/graphql?token="+token, "")
}

// A reservation that nobody uses is forgotten.
func TestReservationsExpire(t *testing.T) {
	t.Parallel()
	w := newSessions()
	b := setup(t, func(d *Deps, c *Config) {
		d.Viewer, d.Watch, c.Sockets.InitTimeout = byHeader, w.watch, time.Millisecond
	})
	base := listen(t, b).URL
	token := b.reserve(t, base, "Authorization", "alice")
	<-w.stopped
	require.Equal(t, 404, b.request(t, base, "POST", "/graphql", operation("1", `{ ok }`),
		"Authorization", "alice", "X-GraphQL-Event-Stream-Token", token).StatusCode)
	require.Empty(t, b.reservations)
}

// A session may end while its reservation is made, which leaves nothing behind.
func TestAReservationOfASessionThatEnds(t *testing.T) {
	t.Parallel()
	var told sync.WaitGroup
	b := setup(t, func(d *Deps, _ *Config) {
		d.Viewer = byHeader
		d.Watch = func(_ viewer.Viewer, w viewer.Watcher) func() {
			told.Go(w.Ended)
			for range 1000 { // so that it is under way, and nothing but the server's own locks puts it in order
				runtime.Gosched()
			}
			return func() {}
		}
	})
	for range 20 {
		r := httptest.NewRequest(http.MethodPut, "/graphql", nil)
		r.Header.Set("Authorization", "alice")
		require.Equal(t, 201, b.do(t, r).Status)
	}
	told.Wait()
	require.Empty(t, b.reservations)
	require.Empty(t, b.holders)
}

// Where cookies sign in, pages of other origins reserve nothing and send nothing.
func TestEventsAndOtherOrigins(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.Cookies = true })
	base := listen(t, b).URL
	for _, method := range []string{"PUT", "POST", "DELETE"} {
		resp := b.request(t, base, method, "/graphql", "", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
		require.Equal(t, 403, resp.StatusCode, method)
	}
}
