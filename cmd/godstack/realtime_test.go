package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/followtest"
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
	f := &fleet{t: t, url: url, nodes: map[string]*exec.Cmd{}, ends: map[websocket.StatusCode]int{}}
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
	var crowd []*followtest.Follower
	follow := func(document, home string, vars map[string]any) {
		w := f.follower(document, token, home, vars)
		crowd = append(crowd, w)
		following.Go(func() { w.Run(ctx) })
	}
	for i := range followers {
		document := []string{followtest.Thread, followtest.Threads, followtest.Records}[i%3]
		follow(document, []string{one, two}[i%2], map[string]any{"id": ids[i%threads], "refs": refs})
	}
	// more waits until everybody has got n more versions of each record.
	more := func(n int) {
		t.Helper()
		before := make([]map[string]int, len(crowd))
		for i, w := range crowd {
			before[i] = w.Held()
		}
		for i, w := range crowd {
			require.Eventually(t, func() bool { return w.Beyond(before[i], n) }, patience, 10*time.Millisecond, "follower %d", i)
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
		follow(followtest.Threads, three, nil)
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
	events := 0
	for i, w := range crowd {
		require.Eventually(t, func() bool { return w.Has(final) }, patience, 10*time.Millisecond, "follower %d", i)
		require.Empty(t, w.Wrong(), "follower %d", i)
		require.Zero(t, w.Resyncs(), "follower %d", i)
		events += w.Events()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t.Logf("%d events to %d clients, whose sockets ended with %v", events, len(crowd), f.ends)
	require.Equal(t, followers/2, f.ends[-1], "those of the node that was killed")
	require.Equal(t, followers, f.ends[websocket.StatusServiceRestart], "those of the node that was stopped")
}

// fleet is the nodes that there are.
type fleet struct {
	t   *testing.T
	url string // of the database

	mu    sync.Mutex                   // protects what follows
	nodes map[string]*exec.Cmd         // by address
	ends  map[websocket.StatusCode]int // of followers' sockets, with -1 where there was no code
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

// follower is a client with a subscription, which goes on wherever there is a node; at home where that is one.
func (f *fleet) follower(document, token, home string, vars map[string]any) *followtest.Follower {
	return &followtest.Follower{
		Node: func(n int) string { return f.pick(home, n) }, Token: token, Document: document, Vars: vars,
		May: func(opened bool, err error) bool {
			if !opened {
				return true // the node goes away
			}
			code := websocket.CloseStatus(err)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.ends[code]++
			return code != -1 || cut(err)
		},
	}
}

// cut reports whether a connection ended without a word, as those of a process that is killed do.
func cut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
