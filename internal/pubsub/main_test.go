package pubsub

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

const (
	// childEnv makes this program a node of another process: its words are the backend, where it is, and a file.
	childEnv = "PUBSUB_TEST_CHILD"

	// patience bounds what a test waits for.
	patience = 30 * time.Second
	tick     = 2 * time.Millisecond
)

func TestMain(m *testing.M) {
	if words := strings.Fields(os.Getenv(childEnv)); len(words) > 0 {
		if err := child(words[0], words[1], words[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	dbtest.Main(m)
}

// child runs a node until its standard input ends, and prints a line for each time it is woken. For a line with a number it hints so
// often, and each time before writes how often to the file.
func child(backend, where, file string) error {
	open := map[string]func(string, *Config) (*Node, error){"postgres": openPostgres, "redis": openRedis}[backend]
	n, err := open(where, quiet())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = n.Run(ctx, func() { fmt.Println("woken") }) })
	lines := bufio.NewScanner(os.Stdin)
	for err == nil && lines.Scan() {
		var times int
		times, err = strconv.Atoi(lines.Text())
		for i := range times {
			err = os.WriteFile(file, []byte(strconv.Itoa(i+1)), 0o600)
			n.Notify()
		}
	}
	cancel()
	running.Wait()
	return err
}

func openPostgres(url string, cfg *Config) (*Node, error) {
	db, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	return NewPostgres(db, cfg)
}

func openRedis(socket string, cfg *Config) (*Node, error) {
	return NewRedis(redisOption(socket), "test", cfg)
}

// redisOption is for a server on a Unix socket.
func redisOption(socket string) rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{socket}, DisableCache: true,
		DialCtxFn: func(ctx context.Context, path string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		},
	}
}

// running is a node that runs.
type running struct {
	*Node
	wakes atomic.Int64
	stop  context.CancelFunc
	ended chan struct{} // closed
	err   error         // what Run returned; valid after ended
}

// run runs a node until it is stopped, at the latest at the end of the test.
func run(t testing.TB, n *Node, onWake func()) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Node: n, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = n.Run(ctx, func() {
			r.wakes.Add(1)
			if onWake != nil {
				onWake()
			}
		})
	}()
	t.Cleanup(func() { r.end(t) })
	return r
}

// end stops the node.
func (r *running) end(t testing.TB) {
	t.Helper()
	r.stop()
	<-r.ended
	require.NoError(t, r.err)
}

// connected waits until the node is, and was woken for it.
func (r *running) connected(t testing.TB) *running {
	t.Helper()
	eventually(t, func() bool { return r.Status().Connected && r.wakes.Load() > 0 })
	return r
}

func eventually(t testing.TB, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, tick)
}

// redisServer is a redis-server on a Unix socket.
type redisServer struct {
	socket string
	stop   func() // kills it
}

func startRedis(t testing.TB) *redisServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &redisServer{socket: filepath.Join(dir, "s")}
	s.start(t)
	return s
}

// start starts it, also again, where it was before.
func (s *redisServer) start(t testing.TB) {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	require.NoError(t, err, "this test needs redis-server: scripts/install installs it")
	dir := filepath.Dir(s.socket)
	// The shell ends the server when its standard input does: when the test stops it, or is killed.
	cmd := exec.Command("sh", "-c", `"$@" </dev/null & pid=$!; read -r _; kill -9 $pid; wait $pid`, "sh",
		binary, "--port", "0", "--unixsocket", s.socket, "--dir", dir, "--save", "", "--appendonly", "no", "--logfile", filepath.Join(dir, "log"))
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	s.stop = sync.OnceFunc(func() {
		_ = stdin.Close()
		_ = cmd.Wait() // it was killed
	})
	t.Cleanup(s.stop)
	eventually(t, func() bool {
		conn, err := net.Dial("unix", s.socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// proxy stands between a node and its server, and can fall silent: connections stay, and new ones are made, but nothing passes.
type proxy struct {
	net.Listener
	silent atomic.Bool
	target func() (net.Conn, error)

	mu    sync.Mutex // protects conns
	conns []net.Conn
	all   sync.WaitGroup
}

func startProxy(t *testing.T, target func() (net.Conn, error)) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{Listener: l, target: target}
	p.all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			p.join(near)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		p.all.Wait()
	})
	return p
}

func (p *proxy) join(near net.Conn) {
	far, err := p.target()
	if err != nil {
		_ = near.Close()
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, near, far)
	p.mu.Unlock()
	pass := func(to, from net.Conn) {
		defer func() { _, _ = to.Close(), from.Close() }()
		b := make([]byte, 4096)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if p.silent.Load() {
				continue
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	p.all.Go(func() { pass(near, far) })
	p.all.Go(func() { pass(far, near) })
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *proxy) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", p.Addr().String())
}

// otherProcess is a child.
type otherProcess struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	woken chan struct{} // a value for each line
}

func startChild(t *testing.T, words ...string) *otherProcess {
	t.Helper()
	c := &otherProcess{cmd: exec.CommandContext(t.Context(), os.Args[0]), woken: make(chan struct{}, 10_000)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+strings.Join(words, " "))
	c.cmd.Stderr = os.Stderr
	var err error
	c.in, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.woken)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.woken <- struct{}{}
		}
	}()
	return c
}

// expect waits until the child was woken.
func (c *otherProcess) expect(t *testing.T) {
	t.Helper()
	select {
	case _, ok := <-c.woken:
		require.True(t, ok, "the process ended")
	case <-time.After(patience):
		require.Fail(t, "the process is not woken")
	}
}

// hint has the child give hints.
func (c *otherProcess) hint(t *testing.T, times int) {
	t.Helper()
	_, err := fmt.Fprintln(c.in, times)
	require.NoError(t, err)
}
