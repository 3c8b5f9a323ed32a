package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// patience bounds what a test waits for.
const patience = time.Minute

// Nodes are killed, joined and stopped in a storm of updates. Clients that go on from their last cursors, on whichever node there is, get
// every version of every record once and in order.
func TestNodesComeAndGoInAStorm(t *testing.T) {
	t.Parallel()
	const threads, followers = 20, 50
	url := dbtest.URL(t)
	_, stderr, err := createUser(t, url, "ada", password)
	require.NoError(t, err, stderr)
	f := &fleet{t: t, url: url, nodes: map[string]*exec.Cmd{}}
	one, two := f.join(), f.join()
	token := client{addr: one}.must(t, "login", login, map[string]any{"login": "ada", "password": password})["accessToken"].(string)
	ids := make([]string, threads)
	refs := make([]map[string]any, threads)
	for i := range ids {
		made := client{addr: one, token: token}.must(t, "createThread", `mutation { createThread(input: {subject: "0"}) { id } }`, nil)
		ids[i] = made["id"].(string)
		refs[i] = map[string]any{"id": ids[i]}
	}

	ctx, stop := context.WithCancel(t.Context())
	var following sync.WaitGroup
	defer following.Wait()
	defer stop()
	var crowd []*follower
	for i := range followers {
		w := &follower{fleet: f, token: token, home: []string{one, two}[i%2], versions: map[string]int{}}
		switch i % 3 {
		case 0:
			w.document, w.vars, w.single = `subscription($id: ID!, $since: Cursor) { change: threadChanged(id: $id, since: $since) `+changeFields,
				map[string]any{"id": ids[i%threads]}, true
		case 1:
			w.document, w.vars = `subscription($since: Cursor) { change: threadsChanged(since: $since) `+changeFields, map[string]any{}
		case 2:
			w.vars = map[string]any{"refs": refs}
			w.document = `subscription($refs: [RecordRef!]!, $since: Cursor) { change: recordsChanged(refs: $refs, since: $since) ` + changeFields
		}
		crowd = append(crowd, w)
		following.Go(func() { w.run(ctx) })
	}
	// more waits until everybody has got n more versions of each record.
	more := func(n int) {
		t.Helper()
		before := make([]map[string]int, len(crowd))
		for i, w := range crowd {
			before[i] = w.held()
		}
		for i, w := range crowd {
			require.Eventually(t, func() bool { return w.beyond(before[i], n) }, patience, 10*time.Millisecond, "follower %d", i)
		}
	}

	done := make(chan struct{})
	var storm sync.WaitGroup
	for i, id := range ids {
		storm.Go(func() { f.write(token, id, i, done) })
	}
	endStorm := sync.OnceFunc(func() { close(done); storm.Wait() })
	defer endStorm()
	more(3)

	f.leave(one, syscall.SIGKILL)
	more(3)
	three := f.join()
	for range 4 {
		w := &follower{fleet: f, token: token, home: three, versions: map[string]int{}, vars: map[string]any{},
			document: `subscription($since: Cursor) { change: threadsChanged(since: $since) ` + changeFields}
		crowd = append(crowd, w)
		following.Go(func() { w.run(ctx) })
	}
	more(3)
	f.leave(two, syscall.SIGTERM)
	more(3)
	endStorm()

	final := map[string]int{}
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = db.Close(context.Background()) }()
	for _, id := range ids {
		a, err := client{addr: three, token: token}.ask(`query($id: ID!) { thread(id: $id) { version } }`, map[string]any{"id": id})
		require.NoError(t, err)
		final[id] = int(a.Data["thread"]["version"].(float64))
	}
	events, moves, codes := 0, 0, map[websocket.StatusCode]int{}
	for i, w := range crowd {
		want := final
		if w.single {
			want = map[string]int{ids[i%threads]: final[ids[i%threads]]}
		}
		require.Eventually(t, func() bool { return maps.Equal(want, w.held()) }, patience, 10*time.Millisecond, "follower %d", i)
		w.mu.Lock()
		require.Empty(t, w.wrong, "follower %d", i)
		require.Zero(t, w.resyncs, "follower %d", i)
		events, moves = events+w.events, moves+len(w.ends)
		for _, code := range w.ends {
			codes[code]++
		}
		w.mu.Unlock()
	}
	t.Logf("%d events to %d clients, which moved %d times, after %v", events, len(crowd), moves, codes)
	require.Equal(t, followers/2, codes[-1], "those of the node that was killed")
	require.Equal(t, followers, codes[websocket.StatusServiceRestart], "those of the node that was stopped")
}

// changeFields is what followers select.
const changeFields = `{ kind recordId version cursor } }`

// fleet is the nodes that there are.
type fleet struct {
	t   *testing.T
	url string // of the database

	mu    sync.Mutex // protects nodes
	nodes map[string]*exec.Cmd
}

// join starts a node and returns its address.
func (f *fleet) join() (addr string) {
	f.t.Helper()
	cmd, addr := serve(f.t, inProduction(f.url, "RATE_LIMIT=0", "SOCKETS_PER_USER=1000")...)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes[addr] = cmd
	return addr
}

// leave ends a node by a signal.
func (f *fleet) leave(addr string, by syscall.Signal) {
	f.t.Helper()
	f.mu.Lock()
	cmd := f.nodes[addr]
	delete(f.nodes, addr)
	f.mu.Unlock()
	require.NoError(f.t, cmd.Process.Signal(by))
	err := cmd.Wait()
	if by == syscall.SIGTERM {
		require.NoError(f.t, err)
	}
}

// pick returns addr where that is a node, else another; the n-th of them.
func (f *fleet) pick(addr string, n int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes[addr] == nil {
		all := slices.Sorted(maps.Keys(f.nodes))
		addr = all[n%len(all)]
	}
	return addr
}

// write updates a thread, by one node after the other, until done.
func (f *fleet) write(token, id string, n int, done <-chan struct{}) {
	const document = `mutation($id: ID!, $v: Int!, $s: String!) {
		updateThread(id: $id, expectedVersion: $v, input: {subject: $s}) { version } }`
	tick := time.NewTicker(100 * time.Millisecond) // or slow machines have no time to read
	defer tick.Stop()
	for version := 1; ; n++ {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		c := client{addr: f.pick("", n), token: token}
		a, err := c.ask(document, map[string]any{"id": id, "v": version, "s": fmt.Sprint(n)})
		switch {
		case err == nil && len(a.Errors) == 0:
			version = int(a.Data["updateThread"]["version"].(float64))
		case err == nil && a.Errors[0].Extensions["code"] == "CONFLICT": // it was committed by a node that could not say so
			version = int(a.Errors[0].Extensions["currentVersion"].(float64))
		}
	}
}

// follower is a client with a subscription, which goes on from its last cursor wherever there is a node.
type follower struct {
	fleet    *fleet
	token    string
	home     string // the node that it prefers
	document string
	vars     map[string]any
	single   bool // of one record: its SNAPSHOT is a place

	mu       sync.Mutex     // protects what follows
	versions map[string]int // by id
	cursor   string
	opening  bool // snapshots come
	events   int
	resyncs  int
	wrong    []string // what should not have come
	ends     []websocket.StatusCode
}

// held is what the client has: nothing as long as it is incomplete.
func (w *follower) held() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opening {
		return nil
	}
	return maps.Clone(w.versions)
}

// beyond reports whether the client has n more versions of each record than before.
func (w *follower) beyond(before map[string]int, n int) bool {
	held := w.held()
	for id, version := range held {
		if version < before[id]+n {
			return false
		}
	}
	return len(held) > 0
}

// run opens socket after socket until ctx is done.
func (w *follower) run(ctx context.Context) {
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for n := 0; ctx.Err() == nil; n++ {
		conn, _, err := websocket.Dial(ctx, "ws://"+w.fleet.pick(w.home, n)+"/graphql",
			&websocket.DialOptions{HTTPClient: h, Subprotocols: []string{"graphql-transport-ws"}})
		if err != nil {
			continue // the node goes away
		}
		err = w.follow(ctx, conn)
		_ = conn.CloseNow()
		w.mu.Lock()
		code := websocket.CloseStatus(err)
		switch {
		case ctx.Err() != nil:
		case code == -1 && !cut(err):
			w.wrong = append(w.wrong, err.Error())
		default:
			w.ends = append(w.ends, code)
		}
		w.mu.Unlock()
	}
}

// cut reports whether a connection ended without a word, as those of a process that is killed do.
func cut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// message is one of graphql-transport-ws.
type message struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// follow subscribes on a socket and reads until it ends.
func (w *follower) follow(ctx context.Context, conn *websocket.Conn) error {
	hello, err := json.Marshal(map[string]string{"authorization": "Bearer " + w.token})
	if err == nil {
		err = wsjson.Write(ctx, conn, message{Type: "connection_init", Payload: hello})
	}
	var m message
	if err == nil {
		err = wsjson.Read(ctx, conn, &m)
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	vars := maps.Clone(w.vars)
	if w.cursor != "" {
		vars["since"] = w.cursor
	} else {
		w.opening = true
	}
	w.mu.Unlock()
	payload, err := json.Marshal(map[string]any{"query": w.document, "variables": vars})
	if err == nil {
		err = wsjson.Write(ctx, conn, message{ID: "1", Type: "subscribe", Payload: payload})
	}
	for err == nil {
		m = message{}
		switch err = wsjson.Read(ctx, conn, &m); {
		case err != nil:
		case m.Type == "ping":
			err = wsjson.Write(ctx, conn, message{Type: "pong"})
		default:
			w.take(m)
		}
	}
	return err
}

// take takes a message.
func (w *follower) take(m message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var p struct {
		Data struct {
			Change struct {
				Kind, RecordID, Cursor string
				Version                int
			}
		}
		Errors json.RawMessage
	}
	fail := func(why string) {
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %s %s, holding %v", why, m.Type, m.Payload, w.versions[p.Data.Change.RecordID]))
	}
	if m.Type != "next" {
		fail("the end")
		return
	}
	if err := json.Unmarshal(m.Payload, &p); err != nil || p.Errors != nil {
		fail("no event")
		return
	}
	c := p.Data.Change
	switch c.Kind {
	case "SNAPSHOT":
		if !w.opening {
			fail("a snapshot in between")
		}
		w.versions[c.RecordID] = c.Version
		w.opening = !w.single
	case "READY":
		w.opening = false
	case "UPDATED":
		if w.opening || c.Version != w.versions[c.RecordID]+1 {
			fail("not the next version")
		}
		w.versions[c.RecordID] = c.Version
	case "RESYNC":
		if !w.opening { // else the cursor that it came with was that of a snapshot
			w.resyncs++
		}
		w.opening = true
		clear(w.versions)
	default:
		fail("no such thing has happened")
	}
	w.events++
	w.cursor = cmp.Or(c.Cursor, w.cursor)
}
