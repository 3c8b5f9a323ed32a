package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"godstack/internal/auth"
	"godstack/internal/devdb"
	"godstack/internal/followtest"
	"godstack/internal/logtest"
)

// long bounds what a test waits for where much is to be done.
const long = 3 * patience

// Whatever nodes wake each other by, and also where that is dead, what is written on one is delivered by the other, and who is signed out
// on one loses the sockets on the other.
func TestNodesDeliverToEachOther(t *testing.T) {
	t.Parallel()
	for _, by := range []Pubsub{PubsubMemory, PubsubPostgres, PubsubRedis} {
		t.Run(string(by), func(t *testing.T) {
			t.Parallel()
			log := &diary{}
			die := func() {}
			c := newCluster(t, log.keep, func(cfg *Config) {
				cfg.Pubsub = by
				switch by {
				case PubsubRedis:
					r := newRedis(t)
					cfg.RedisURL, die = r.url(), r.kill
				case PubsubPostgres:
					p := newDeafProxy(t, cfg.DatabaseURL)
					cfg.ListenURL, die = p.url, p.die
				}
			})
			c.user(t, "ada", "user")
			me := c.on(1).as(c.on(1).login(t, "ada").access)
			log.wait(t, "pubsub: connected", len(c.nodes))

			c.delivers(t, me)
			die()
			if by != PubsubMemory {
				log.wait(t, "pubsub: connecting again", len(c.nodes))
			}
			c.delivers(t, me)
			for i := range c.nodes {
				status, _ := get(t, c.on(i).url+"/readyz")
				require.Equal(t, 200, status, "who has no hints is ready")
			}
		})
	}
}

// delivers writes on node 1, as me, what is followed on node 0, in all three ways, and ends a session.
func (c *cluster) delivers(t *testing.T, me client) {
	t.Helper()
	id := me.newThread(t)
	s := c.on(0).as(me.token).connect(t)
	s.operate("thread", followtest.Thread, map[string]any{"id": id})
	s.expectChanges(change{"thread", "SNAPSHOT", id, 1})
	s.operate("records", followtest.Records, map[string]any{"refs": []any{map[string]any{"id": id, "knownVersion": 1}}})
	s.expectChanges(change{op: "records", kind: "READY"})
	s.operate("threads", followtest.Threads, nil)
	for f := s.change(); f.kind != "READY"; f = s.change() {
		require.Equal(t, "SNAPSHOT", f.kind)
	}
	me.must(t, "updateThread", updateThread, map[string]any{"id": id, "v": 1})
	s.expectChanges(change{"thread", "UPDATED", id, 2}, change{"threads", "UPDATED", id, 2}, change{"records", "UPDATED", id, 2})
	me.must(t, "deleteThread", deleteThread, map[string]any{"id": id, "v": 2})
	s.expectChanges(change{"thread", "DELETED", id, 3}, change{"threads", "DELETED", id, 3}, change{"records", "DELETED", id, 3})

	over := c.on(1).login(t, "ada").access
	ended := c.on(0).as(over).connect(t).watch()
	c.on(1).as(over).must(t, "logout", `mutation { logout }`, nil)
	c.ends(t, ended)
}

// newThread makes a thread and returns its id.
func (c client) newThread(t *testing.T) string {
	t.Helper()
	return c.must(t, "createThread", createThread, nil).(map[string]any)["id"].(string)
}

// change is what an event says, and of which operation.
type change struct {
	op, kind, id string
	version      int
}

// operate sends an operation.
func (s *socket) operate(id, document string, vars map[string]any) {
	s.t.Helper()
	payload, err := json.Marshal(map[string]any{"query": document, "variables": vars})
	require.NoError(s.t, err)
	require.NoError(s.t, wsjson.Write(s.ctx, s.conn, frame{ID: id, Type: "subscribe", Payload: payload}))
}

// change receives an event; what a stream completes with is none.
func (s *socket) change() change {
	s.t.Helper()
	c, _ := s.changeAt()
	return c
}

// changeAt is change, and the event's cursor.
func (s *socket) changeAt() (change, string) {
	s.t.Helper()
	f := s.receive()
	for f.Type == "complete" {
		f = s.receive()
	}
	require.Equal(s.t, "next", f.Type, string(f.Payload))
	e, err := followtest.ParseEvent(f.Payload)
	require.NoError(s.t, err)
	return change{f.ID, e.Kind, e.RecordID, e.Version}, e.Cursor
}

// expectChanges compares the next events, in any order.
func (s *socket) expectChanges(want ...change) {
	s.t.Helper()
	var got []change
	for range want {
		got = append(got, s.change())
	}
	require.ElementsMatch(s.t, want, got)
}

// diary is a log that can be asked.
type diary struct {
	mu   sync.Mutex // protects text
	text bytes.Buffer
}

// keep has the programs write to it.
func (d *diary) keep(cfg *Config) {
	cfg.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(d, logtest.Writer()), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(p)
}

// count counts entries by their message.
func (d *diary) count(message string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Count(d.text.Bytes(), []byte(" msg="+message+" ")) + bytes.Count(d.text.Bytes(), []byte(` msg="`+message+`" `))
}

// wait waits until there are n such entries.
func (d *diary) wait(t *testing.T, message string, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return d.count(message) >= n }, long, 5*time.Millisecond, message)
}

// redisServer is a redis-server that can be killed and started again.
type redisServer struct {
	t    *testing.T
	dir  string
	kill func()
}

func newRedis(t *testing.T) *redisServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &redisServer{t: t, dir: dir}
	r.start()
	t.Cleanup(func() { r.kill() })
	return r
}

func (r *redisServer) socket() string { return filepath.Join(r.dir, "s") }

func (r *redisServer) url() string { return "unix://" + r.socket() }

func (r *redisServer) start() {
	r.t.Helper()
	// As startRedis does it.
	cmd := exec.Command("sh", "-c", `"$@" </dev/null & pid=$!; read -r _; kill -9 $pid; wait $pid`, "sh", "redis-server",
		"--port", "0", "--unixsocket", r.socket(), "--dir", r.dir, "--save", "", "--appendonly", "no", "--logfile", filepath.Join(r.dir, "log"))
	stdin, err := cmd.StdinPipe()
	require.NoError(r.t, err)
	require.NoError(r.t, cmd.Start())
	r.kill = sync.OnceFunc(func() {
		_ = stdin.Close()
		_ = cmd.Wait() // it was killed
	})
	require.Eventually(r.t, func() bool {
		conn, err := net.Dial("unix", r.socket())
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, patience, 5*time.Millisecond, "redis-server does not start")
}

// deafProxy passes connections on to the database, but once it is dead none over which somebody listens to hints, or gives one.
type deafProxy struct {
	url  string
	dead atomic.Bool

	mu    sync.Mutex // protects hints
	hints []net.Conn
}

func newDeafProxy(t *testing.T, database string) *deafProxy {
	t.Helper()
	cfg, err := pgx.ParseConfig(database)
	require.NoError(t, err)
	network, address := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u, err := url.Parse(database)
	require.NoError(t, err)
	u.Host, u.RawQuery = ln.Addr().String(), "sslmode=disable"
	p := &deafProxy{url: u.String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial(network, address)
			if err != nil {
				_ = near.Close()
				continue
			}
			all.Go(func() {
				defer func() { _ = near.Close() }()
				_, _ = io.Copy(near, far)
			})
			all.Go(func() {
				defer func() { _ = far.Close() }()
				p.pass(far, near)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		all.Wait()
	})
	return p
}

// pass copies what a client says. A statement is one write of the client's.
func (p *deafProxy) pass(far, near net.Conn) {
	b := make([]byte, 64<<10)
	for {
		n, err := near.Read(b)
		if err != nil {
			return
		}
		if bytes.Contains(b[:n], []byte("LISTEN ")) {
			p.mu.Lock()
			p.hints = append(p.hints, far)
			p.mu.Unlock()
			if p.dead.Load() {
				return
			}
		}
		if _, err := far.Write(b[:n]); err != nil {
			return
		}
	}
}

// die ends what is listened to, for good.
func (p *deafProxy) die() {
	p.dead.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.hints {
		_ = c.Close()
	}
}

// In a storm of writes on two nodes what they wake each other by, and what they read, goes away and comes back. Every subscriber gets every
// version once and in order; where the log begins anew, all begin anew.
func TestConnectionsAreLostInAStorm(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		name  string // of the connections that are terminated
		says  string // what the log says, so often, when there are others
		times int
	}{
		"listeners are terminated": {"godstack listen", "pubsub: connected", 4},
		"tailers are terminated":   {"godstack tailer", "change log: connecting again", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &diary{}
			c := newCluster(t, log.keep)
			s := c.storm(t)
			log.wait(t, "pubsub: connected", len(c.nodes))
			s.more(t, 3)
			ended := 0
			require.Eventually(t, func() bool {
				ended += c.count(t, `(SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND application_name = $1) ended`, test.name)
				return ended >= len(c.nodes)
			}, patience, time.Millisecond)
			log.wait(t, test.says, test.times)
			s.more(t, 3)
			c.ready(t, 200)
			s.end(t, false)
		})
	}
	t.Run("redis is killed", func(t *testing.T) {
		t.Parallel()
		log, r := &diary{}, newRedis(t)
		c := newCluster(t, log.keep, func(cfg *Config) { cfg.Pubsub, cfg.RedisURL = PubsubRedis, r.url() })
		s := c.storm(t)
		log.wait(t, "pubsub: connected", len(c.nodes))
		s.more(t, 3)
		r.kill()
		log.wait(t, "pubsub: connecting again", len(c.nodes))
		s.more(t, 3)
		c.ready(t, 200)
		r.start()
		log.wait(t, "pubsub: connected", 2*len(c.nodes))
		s.more(t, 3)
		s.end(t, false)
	})
	for name, crash := range map[string]bool{"postgres restarts": false, "postgres crashes": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, db := &diary{}, newPostgres(t)
			c := newCluster(t, log.keep, func(cfg *Config) {
				cfg.Pubsub, cfg.DatabaseURL = PubsubPostgres, db.server.URL(privateDatabase)
				applied, err := Migrate(t.Context(), settings(*cfg))
				require.NoError(t, err)
				require.Positive(t, applied)
			})
			c.url = c.cfg.DatabaseURL
			pool, err := pgxpool.New(t.Context(), c.url)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			c.db = pool
			s := c.storm(t)
			log.wait(t, "pubsub: connected", len(c.nodes))
			s.more(t, 3)
			db.stop(t, crash)
			c.ready(t, 503)
			db.start()
			c.ready(t, 200)
			log.wait(t, "pubsub: connected", 2*len(c.nodes))
			s.more(t, 3)
			s.end(t, crash) // its log is another one then
		})
	}
}

// ready waits until all nodes say this of themselves.
func (c *cluster) ready(t *testing.T, want int) {
	t.Helper()
	for i := range c.nodes {
		require.Eventually(t, func() bool {
			status, _ := get(t, c.on(i).url+"/readyz")
			return status == want
		}, long, 10*time.Millisecond)
	}
}

// postgres is a server of the test's own.
type postgres struct {
	t      *testing.T
	dir    string
	server *devdb.Cluster
}

func newPostgres(t *testing.T) *postgres {
	t.Helper()
	parent, err := os.MkdirTemp("", "app-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(parent)) })
	require.NoError(t, os.Chmod(parent, 0o755)) // the server of root has another user
	p := &postgres{t: t, dir: filepath.Join(parent, "pg")}
	p.start()
	t.Cleanup(func() { require.NoError(t, p.server.Stop(context.Background())) })
	require.NoError(t, p.server.CreateDatabase(t.Context(), privateDatabase))
	return p
}

func (p *postgres) start() {
	p.t.Helper()
	var err error
	p.server, err = devdb.Start(p.t.Context(), devdb.Config{Dir: p.dir, Unsafe: true, Settings: map[string]string{
		"synchronous_commit": "on", // what was answered is there after a crash
	}})
	require.NoError(p.t, err)
}

// stop stops the server; in a crash, it writes nothing more.
func (p *postgres) stop(t *testing.T, crash bool) {
	t.Helper()
	if crash {
		text, err := os.ReadFile(filepath.Join(p.server.Dir(), "data", "postmaster.pid"))
		require.NoError(t, err)
		first, _, _ := strings.Cut(string(text), "\n")
		pid, err := strconv.Atoi(first)
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(pid, syscall.SIGQUIT))
		<-p.server.Done()
	}
	require.NoError(t, p.server.Stop(t.Context()))
}

// storm is writers and followers of some threads, on all nodes.
type storm struct {
	c         *cluster
	me        client
	ids       []string
	followers []*followtest.Follower
	stop      func() // the writers
	quit      func() // the followers
}

// storm begins one.
func (c *cluster) storm(t *testing.T) *storm {
	t.Helper()
	c.user(t, "ada", "user")
	s := &storm{c: c, me: c.on(0).as(c.on(0).login(t, "ada").access)}
	var refs []any
	for range 6 {
		id := s.me.newThread(t)
		s.ids, refs = append(s.ids, id), append(refs, map[string]any{"id": id})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var following, writing sync.WaitGroup
	s.quit = sync.OnceFunc(func() { cancel(); following.Wait() })
	t.Cleanup(s.quit)
	for i := range 12 {
		document := []string{followtest.Thread, followtest.Threads, followtest.Records}[i/2%3]
		f := s.me.on(c.nodes[i%2]).follower(document, map[string]any{"id": s.ids[i%len(s.ids)], "refs": refs})
		s.followers = append(s.followers, f)
		following.Go(func() { f.Run(ctx) })
	}
	done := make(chan struct{})
	s.stop = sync.OnceFunc(func() { close(done); writing.Wait() })
	t.Cleanup(s.stop)
	for i, id := range s.ids {
		writing.Go(func() { s.write(id, i, done) })
	}
	return s
}

// on is the client at another program.
func (c client) on(a *App) client {
	c.url = local(a)
	return c
}

// write updates a thread, by one node after the other, until done.
func (s *storm) write(id string, n int, done <-chan struct{}) {
	tick := time.NewTicker(50 * time.Millisecond) // or slow machines have no time to read
	defer tick.Stop()
	for version := 1; ; n++ {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		a, err := s.me.on(s.c.nodes[n%len(s.c.nodes)]).ask(updateThread, map[string]any{"id": id, "v": version})
		switch {
		case err == nil && a.code() == "":
			version = int(a.Data["updateThread"].(map[string]any)["version"].(float64))
		case err == nil && a.code() == "CONFLICT": // it was committed by a node that could not say so
			version = int(a.Errors[0].Extensions["currentVersion"].(float64))
		}
	}
}

// more waits until everybody has got n more versions of each record.
func (s *storm) more(t *testing.T, n int) {
	t.Helper()
	before := make([]map[string]int, len(s.followers))
	for i, f := range s.followers {
		before[i] = f.Held()
	}
	eachInTurn(t, len(before), func(i int) bool { return s.followers[i].Beyond(before[i], n) })
}

// eachInTurn waits until a condition held once for each i.
func eachInTurn(t *testing.T, n int, holds func(i int) bool) {
	t.Helper()
	i := 0
	if !assert.Eventually(t, func() bool {
		for i < n && holds(i) {
			i++
		}
		return i == n
	}, long, 5*time.Millisecond) {
		t.FailNow()
	}
}

// end ends the storm, and compares what followers have with what there is. All have begun anew, or nobody has.
func (s *storm) end(t *testing.T, anew bool) {
	t.Helper()
	s.stop()
	final := map[string]int{}
	for _, id := range s.ids {
		got := s.me.must(t, "thread", `query($id: ID!) { thread(id: $id) { version } }`, map[string]any{"id": id})
		final[id] = int(got.(map[string]any)["version"].(float64))
	}
	eachInTurn(t, len(s.followers), func(i int) bool { return s.followers[i].Has(final) })
	s.quit()
	for i, f := range s.followers {
		require.Empty(t, f.Wrong(), "follower %d", i)
		require.Equal(t, anew, f.Resyncs() > 0, "follower %d, who began anew %d times and came back %d times", i, f.Resyncs(), f.Returns())
	}
}

// follower is a client of the program with a subscription.
func (c client) follower(document string, vars map[string]any) *followtest.Follower {
	host := strings.TrimPrefix(c.url, "http://")
	return &followtest.Follower{Node: func(int) string { return host }, Token: c.token, Document: document, Vars: vars}
}

// A cursor is good on every node, also after a restart, and with keys that were added since; one that no key of ours has made is refused.
func TestCursorsAreGoodEverywhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "ada", "user")
	me := c.on(0).as(c.on(0).login(t, "ada").access)
	id := me.newThread(t)
	version := 1
	update := func(at client) {
		at.must(t, "updateThread", updateThread, map[string]any{"id": id, "v": version})
		version++
	}
	s := me.connect(t)
	cursors := map[string]string{}
	subscriptions := map[string]string{"thread": followtest.Thread, "threads": followtest.Threads, "records": followtest.Records}
	vars := map[string]any{"id": id, "refs": []any{map[string]any{"id": id}}}
	for op, document := range subscriptions {
		s.operate(op, document, vars)
		for got, cursor := s.changeAt(); ; got, cursor = s.changeAt() {
			if cursors[op] = cursor; got.kind == "READY" || op == "thread" {
				break
			}
		}
	}
	// resume goes on at a program from where it was last, which is missed updates ago.
	resume := func(at client, missed int) {
		t.Helper()
		s := at.connect(t)
		for op, document := range subscriptions {
			since := maps.Clone(vars)
			since["since"] = cursors[op]
			s.operate(op, document, since)
			for v := version - missed + 1; v <= version; v++ {
				require.Equal(t, change{op, "UPDATED", id, v}, s.change())
			}
			got, cursor := s.changeAt()
			require.Equal(t, "READY", got.kind)
			cursors[op] = cursor
		}
		update(at)
		for range subscriptions {
			got, cursor := s.changeAt()
			require.Equal(t, change{got.op, "UPDATED", id, version}, got)
			cursors[got.op] = cursor
		}
		require.NoError(t, s.conn.CloseNow())
	}
	update(me)
	update(me)
	resume(me.on(c.nodes[1]), 2)
	update(me)
	resume(me.on(c.nodes[1]), 1)
	resume(me, 0)
	require.NoError(t, s.conn.CloseNow())
	for _, a := range c.nodes {
		require.NoError(t, a.Close())
	}
	again := start(t, c.cfg)
	update(me.on(again))
	resume(me.on(again), 1)
	rotated := c.cfg
	rotated.JWTKeys, rotated.SecretKeys = jwtKeys, auth.GenerateSecret()+","+secretKeys
	resume(me.on(start(t, rotated)), 0)
	replaced := c.cfg
	replaced.JWTKeys, replaced.SecretKeys = jwtKeys, auth.GenerateSecret()
	stranger := start(t, replaced)

	flip := func(text string) string {
		return text[:10] + string("AB"[strings.IndexByte("BA", text[10])&1]) + text[11:]
	}
	for op, document := range subscriptions {
		for what, try := range map[string]struct {
			at     *App
			cursor string
		}{
			"of keys that it has not": {stranger, cursors[op]}, "changed": {again, flip(cursors[op])},
			"cut": {again, cursors[op][1:]}, "no cursor": {again, "x"},
		} {
			s := me.on(try.at).connect(t)
			since := maps.Clone(vars)
			since["since"] = try.cursor
			s.operate(op, document, since)
			f := s.receive()
			require.Equal(t, "error", f.Type, what)
			require.Contains(t, string(f.Payload), `"BAD_USER_INPUT"`, what)
			require.NoError(t, s.conn.CloseNow())
		}
	}
}

// A socket outlives its access token where it is renewed: by a newer token that the client sends, whichever node made it, or by its cookie.
// One that is not is closed.
func TestSocketsAreRenewed(t *testing.T) {
	t.Parallel()
	for _, storage := range []auth.TokenStorage{auth.InHeader, auth.InCookie} {
		t.Run(string(storage), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, func(cfg *Config) {
				cfg.PublicURL = "http://localhost" // cookies that this client sends
				cfg.Auth.Storage, cfg.Auth.AccessTTL = storage, 5*time.Second
			})
			c.user(t, "ada", "user")
			one, other := c.signIn(t), c.signIn(t)
			id := one.at(0).newThread(t)
			renewed, left := one.connect(t, 0), other.connect(t, 0).watch()
			renewed.operate("1", followtest.Thread, map[string]any{"id": id})
			renewed.expectChanges(change{"1", "SNAPSHOT", id, 1})

			// It has to be good when the other one has ended.
			require.Eventually(t, func() bool {
				one.refresh(t, 1)
				return one.expires.After(other.expires.Add(time.Second))
			}, patience, 100*time.Millisecond)
			if storage == auth.InHeader {
				payload, err := json.Marshal(map[string]string{"authorization": "Bearer " + one.access})
				require.NoError(t, err)
				require.NoError(t, wsjson.Write(renewed.ctx, renewed.conn, frame{Type: "ping", Payload: payload}))
				f := renewed.receive()
				require.Equal(t, "pong", f.Type)
				require.JSONEq(t, fmt.Sprintf(`{"expiresAt": %q}`, one.expires.UTC().Format(time.RFC3339Nano)), string(f.Payload))
			}
			end := <-left
			require.Equal(t, websocket.StatusCode(4403), end.code)
			require.False(t, end.at.Before(other.expires))
			one.at(1).must(t, "updateThread", updateThread, map[string]any{"id": id, "v": 1})
			renewed.expectChanges(change{"1", "UPDATED", id, 2})
			end = <-renewed.watch()
			require.Equal(t, websocket.StatusCode(4403), end.code)
			require.False(t, end.at.Before(one.expires))
		})
	}
}

// session is somebody who is signed in, by header or by cookie.
type session struct {
	c               *cluster
	http            *http.Client
	access, renewal string // "" by cookie
	expires         time.Time
}

func (c *cluster) signIn(t *testing.T) *session {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	s := &session{c: c, http: &http.Client{Transport: c.http.Transport, Jar: jar}}
	s.take(t, s.at(0).must(t, "login", login, map[string]any{"login": "ada", "password": password}))
	return s
}

func (s *session) take(t *testing.T, payload any) {
	t.Helper()
	got := tokensOf(payload)
	s.access, s.renewal = got.access, got.refresh
	var err error
	s.expires, err = time.Parse(time.RFC3339, payload.(map[string]any)["expiresAt"].(string))
	require.NoError(t, err)
}

// at is the client at a node.
func (s *session) at(node int) client {
	return client{http: s.http, url: local(s.c.nodes[node]), token: s.access}
}

func (s *session) refresh(t *testing.T, node int) {
	t.Helper()
	vars := map[string]any{}
	if s.renewal != "" {
		vars["token"] = s.renewal
	}
	s.take(t, s.at(node).as("").must(t, "refresh", refresh, vars))
}

// connect opens a socket to a node.
func (s *session) connect(t *testing.T, node int) *socket {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, strings.Replace(s.at(node).url, "http", "ws", 1)+"/graphql",
		&websocket.DialOptions{HTTPClient: s.http, Subprotocols: []string{"graphql-transport-ws"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	hello := frame{Type: "connection_init"}
	if s.access != "" {
		hello.Payload, err = json.Marshal(map[string]string{"authorization": "Bearer " + s.access})
		require.NoError(t, err)
	}
	k := &socket{t, conn, ctx}
	require.NoError(t, wsjson.Write(ctx, conn, hello))
	f := k.receive()
	require.Equal(t, "connection_ack", f.Type)
	require.JSONEq(t, fmt.Sprintf(`{"expiresAt": %q}`, s.expires.UTC().Format(time.RFC3339Nano)), string(f.Payload))
	return k
}

// An event stream on one node has what is written on the other, and ends with the session.
func TestEventStreams(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "ada", "user")
	me := c.on(1).as(c.on(1).login(t, "ada").access)
	over := c.on(0).as(c.on(0).login(t, "ada").access)
	id := me.newThread(t)
	body, err := json.Marshal(map[string]any{"query": followtest.Thread, "variables": map[string]any{"id": id}})
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, over.url+"/graphql", bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Authorization", "Bearer "+over.token)
	resp, err := c.http.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, "text/event-stream; charset=utf-8", resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	expect := func(kind string, version int) {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				e, err := followtest.ParseEvent([]byte(data))
				require.NoError(t, err)
				require.Equal(t, followtest.Event{Kind: kind, RecordID: id, Cursor: e.Cursor, Version: version}, e)
				return
			}
		}
		require.FailNow(t, "the stream has ended", lines.Err())
	}
	expect("SNAPSHOT", 1)
	me.must(t, "updateThread", updateThread, map[string]any{"id": id, "v": 1})
	expect("UPDATED", 2)
	c.on(1).as(over.token).must(t, "logout", `mutation { logout }`, nil)
	for lines.Scan() {
		require.NotContains(t, lines.Text(), "complete")
	}
}

// Clients that never read hold nobody up, and take no memory.
//
//nolint:paralleltest // it measures the heap of the process
func TestClientsThatNeverRead(t *testing.T) {
	const healthy, stuck, threads, rounds = 1000, 50, 100, 20
	a := newAudience(t, healthy, stuck, threads, time.Hour)
	a.write(t, 2)
	before := heap()
	a.write(t, rounds)
	grown := heap() - before
	t.Logf("%d events later the heap has grown by %d KiB, from %d KiB", rounds*(threads+2), grown>>10, before>>10)
	require.Less(t, grown, int64(3<<20))
	require.Zero(t, a.log.count("socket"), "nobody has gone")
	a.end(t)
}

// Clients that take nothing for DrainTimeout are closed, and no others.
func TestClientsThatNeverReadAreClosed(t *testing.T) {
	t.Parallel()
	const stuck = 3
	a := newAudience(t, 3, stuck, 20, time.Second)
	for since := time.Now(); a.log.count("socket") < stuck; a.write(t, 1) {
		require.Less(t, time.Since(since), long)
	}
	a.write(t, 1)
	require.Equal(t, stuck, a.log.count("socket"), "those who read stay")
	a.end(t)
}

// audience is clients that follow all threads, or the first, of whom some never read.
type audience struct {
	c        *cluster
	log      *diary
	ids      []string
	crowd    []*followtest.Follower // those who read
	versions map[string]int         // of the threads
	quit     func()
}

// newAudience has clients connect to a node that has drain for each. All that read have what there is when it returns.
func newAudience(t *testing.T, healthy, stuck, threads int, drain time.Duration) *audience {
	t.Helper()
	a := &audience{log: &diary{}, versions: map[string]int{}}
	a.c = newCluster(t, a.log.keep, func(cfg *Config) {
		k := &cfg.Server.Sockets
		k.PerUser, k.WriteBuffer, k.DrainTimeout = 2*(healthy+stuck), 64<<10, drain
		k.PingInterval = time.Hour // those who never read answer none
	})
	a.c.user(t, "ada", "user")
	me := a.c.on(0).as(a.c.on(0).login(t, "ada").access)
	var refs []any
	for range threads {
		id := me.newThread(t)
		a.ids, refs, a.versions[id] = append(a.ids, id), append(refs, map[string]any{"id": id}), 1
	}
	vars := map[string]any{"id": a.ids[0], "refs": refs}
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	a.quit = sync.OnceFunc(func() { cancel(); following.Wait() })
	t.Cleanup(a.quit)

	// Those that are stuck select as much as they may, and their connections hold little.
	var much strings.Builder
	for i := range 95 {
		fmt.Fprintf(&much, " s%d: subject", i)
	}
	for i := range stuck {
		f := me.follower([]string{
			`subscription($id: ID!) { threadChanged(id: $id) { version thread {` + much.String() + ` } } }`,
			`subscription { threadsChanged { version thread {` + much.String() + ` } } }`,
			`subscription($refs: [RecordRef!]!) { recordsChanged(refs: $refs) { version record { ... on Thread {` + much.String() + ` } } } }`,
		}[i%3], vars)
		f.Dial = narrow
		conn, err := f.Open(ctx, 0)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.CloseNow() })
		require.NoError(t, f.Subscribe(ctx, conn))
	}
	for i := range healthy {
		document := followtest.Thread
		switch i % 200 {
		case 0:
			document = followtest.Threads
		case 1:
			document = followtest.Records
		}
		f := me.follower(document, vars)
		a.crowd = append(a.crowd, f)
		conn, err := f.Open(ctx, 0)
		require.NoError(t, err)
		following.Go(func() {
			defer func() { _ = conn.CloseNow() }()
			if err := f.Follow(ctx, conn); ctx.Err() == nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	a.wait(t)
	return a
}

// wait waits for those who read, and for nobody else.
func (a *audience) wait(t *testing.T) {
	t.Helper()
	eachInTurn(t, len(a.crowd), func(i int) bool { return a.crowd[i].Has(a.versions) })
}

// write makes so many rounds of an update of each thread and some of the first.
func (a *audience) write(t *testing.T, rounds int) {
	t.Helper()
	for range rounds {
		a.c.exec(t, `UPDATE threads SET subject = repeat(md5(random()::text), 6)`)
		for range 2 {
			a.c.exec(t, `UPDATE threads SET subject = 'the first' WHERE id = (SELECT id FROM threads ORDER BY created_at, id LIMIT 1)`)
		}
		for _, id := range a.ids {
			a.versions[id]++
		}
		a.versions[a.ids[0]] += 2
		a.wait(t)
	}
}

// end has all go. Those who read have been told all, and nothing twice.
func (a *audience) end(t *testing.T) {
	t.Helper()
	a.quit()
	for i, f := range a.crowd {
		require.Empty(t, f.Wrong(), "client %d", i)
		require.Zero(t, f.Resyncs(), "client %d", i)
	}
}

// narrow dials a connection on whose way little can wait.
func narrow(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var refused error
		err := c.Control(func(fd uintptr) {
			refused = errors.Join(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10),
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1000)) // of which the other side keeps some
		})
		return errors.Join(err, refused)
	}}
	return d.DialContext(ctx, network, address)
}

// heap is how much is in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools have kept
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
