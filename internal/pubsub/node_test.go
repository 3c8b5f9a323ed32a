package pubsub

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// cluster makes nodes that wake each other, and breaks what is between them.
type cluster struct {
	node func(*Config) (*Node, error)
	// breaks end the nodes' connections, and mends lets them be made again.
	breaks, mends func(*testing.T)
}

// TestNodes is what each backend has to pass.
func TestNodes(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) cluster{
		"memory": memoryCluster, "postgres": postgresCluster, "postgres, terminated": terminated, "redis": redisCluster, "redis, killed": killed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, test := range []struct {
				name string
				run  func(*testing.T, cluster)
			}{
				{"hints", hints}, {"many hints", manyHints}, {"many nodes", manyNodes}, {"ends", ends}, {"breaks", breaks},
			} {
				t.Run(test.name, func(t *testing.T) { test.run(t, start(t)) })
			}
		})
	}
}

// quiet logs nothing.
func quiet() *Config { return &Config{Logger: slog.New(slog.DiscardHandler)} }

func (c cluster) run(t *testing.T, onWake func()) *running {
	t.Helper()
	n, err := c.node(quiet())
	require.NoError(t, err)
	return run(t, n, onWake)
}

func hints(t *testing.T, c cluster) {
	a, b := c.run(t, nil).connected(t), c.run(t, nil).connected(t)
	a.Notify()
	eventually(t, func() bool { return b.wakes.Load() == 2 })
	b.Notify()
	eventually(t, func() bool { return a.wakes.Load() == 2 })

	// Hints come in the order in which they went, so its own would have been there.
	s := a.Status()
	require.EqualValues(t, 1, s.Received)
	require.EqualValues(t, 1, s.Connections)
	require.NoError(t, s.Err)
	eventually(t, func() bool { return a.Status().Sent == 1 })
}

// manyHints counts what was written before each hint: who is woken reads how much.
func manyHints(t *testing.T, c cluster) {
	const hints = 1000
	var written, read atomic.Int64
	a := c.run(t, nil).connected(t)
	b := c.run(t, func() { read.Store(written.Load()) }).connected(t)
	for range 3 {
		began, sent := time.Now(), a.Status().Sent
		for range hints {
			written.Add(1)
			a.Notify()
		}
		eventually(t, func() bool { return read.Load() == written.Load() })
		intervals := time.Since(began)/a.cfg.Interval + 1
		require.LessOrEqual(t, a.Status().Sent-sent, uint64(intervals)+1)
	}
	require.LessOrEqual(t, b.Status().Received, a.Status().Sent+1)
}

func manyNodes(t *testing.T, c cluster) {
	nodes := make([]*running, 8)
	for i := range nodes {
		nodes[i] = c.run(t, nil)
	}
	for _, n := range nodes {
		n.connected(t)
	}
	for i, n := range nodes {
		n.Notify()
		for _, other := range nodes {
			if other != n {
				eventually(t, func() bool { return other.Status().Received >= uint64(i) })
			}
		}
	}
	for i, n := range nodes { // each has one of every other
		eventually(t, func() bool { return n.Status().Received == uint64(len(nodes)-1) })
		require.NoError(t, n.Status().Err, i)
	}
}

func ends(t *testing.T, c cluster) {
	a, b := c.run(t, nil).connected(t), c.run(t, nil).connected(t)
	since := a.Status().Since
	a.end(t)
	s := a.Status()
	require.False(t, s.Connected)
	require.EqualError(t, s.Err, "not running")
	require.False(t, s.Since.Before(since))
	for range 100 {
		a.Notify() // nobody takes it
	}
	require.True(t, b.Status().Connected)

	// One whose time is over before it began.
	n, err := c.node(quiet())
	require.NoError(t, err)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, n.Run(over, func() {}))
}

func breaks(t *testing.T, c cluster) {
	if c.breaks == nil {
		return // within a process nothing does
	}
	var written, read atomic.Int64
	a, b := c.run(t, nil).connected(t), c.run(t, func() { read.Store(written.Load()) }).connected(t)
	c.breaks(t)
	for _, n := range []*running{a, b} {
		eventually(t, func() bool { s := n.Status(); return !s.Connected && s.Err != nil || s.Connections > 1 })
	}
	written.Add(1)
	for range 1000 {
		a.Notify()
	}
	d := c.run(t, nil) // begins while the server is down
	c.mends(t)
	for _, n := range []*running{a, b} {
		eventually(t, func() bool {
			s := n.Status()
			return s.Connected && s.Err == nil && s.Connections > 1 && n.wakes.Load() > 1
		})
	}
	d.connected(t)
	eventually(t, func() bool { return read.Load() == 1 })

	// All is as before.
	written.Add(1)
	got := d.Status().Received
	a.Notify()
	eventually(t, func() bool { return read.Load() == 2 && d.Status().Received > got })

	c.breaks(t)
	for _, n := range []*running{a, b, d} { // whatever each is at
		n.end(t)
	}
	c.mends(t)
}

func memoryCluster(*testing.T) cluster {
	bus := &Bus{}
	return cluster{node: func(cfg *Config) (*Node, error) { return NewMemory(bus, cfg) }}
}

func postgresCluster(t *testing.T) cluster {
	url := dbtest.URL(t)
	return cluster{node: func(cfg *Config) (*Node, error) { return openPostgres(url, cfg) }}
}

// terminated has the server end the connections that listen.
func terminated(t *testing.T) cluster {
	pool := dbtest.New(t)
	c := postgresCluster(t)
	c.node = func(cfg *Config) (*Node, error) { return openPostgres(pool.Config().ConnString(), cfg) }
	c.breaks = func(t *testing.T) {
		var ended int
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'pubsub'`).Scan(&ended))
		require.Positive(t, ended)
	}
	c.mends = func(*testing.T) {}
	return c
}

func redisCluster(t *testing.T) cluster {
	s := startRedis(t)
	return cluster{node: func(cfg *Config) (*Node, error) { return openRedis(s.socket, cfg) }}
}

// killed kills the server, and starts another in its place.
func killed(t *testing.T) cluster {
	s := startRedis(t)
	return cluster{
		node:   func(cfg *Config) (*Node, error) { return openRedis(s.socket, cfg) },
		breaks: func(*testing.T) { s.stop() },
		mends:  func(t *testing.T) { s.start(t) },
	}
}

// TestProcesses has nodes in two processes wake each other, until one is killed.
func TestProcesses(t *testing.T) {
	t.Parallel()
	for name, where := range map[string]string{"postgres": dbtest.URL(t), "redis": startRedis(t).socket} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "written")
			var read atomic.Int64
			n, err := map[string]func(string, *Config) (*Node, error){"postgres": openPostgres, "redis": openRedis}[name](where, quiet())
			require.NoError(t, err)
			a := run(t, n, func() {
				b, _ := os.ReadFile(file) // there is none at first, and an empty one while it is written
				number, _ := strconv.ParseInt(string(b), 10, 64)
				read.Store(number)
			}).connected(t)

			b := startChild(t, name, where, file)
			b.expect(t) // connected
			a.Notify()
			b.expect(t)
			const hints = 200
			b.hint(t, hints)
			eventually(t, func() bool { return read.Load() == hints })

			require.NoError(t, b.cmd.Process.Kill())
			_ = b.cmd.Wait()
			a.Notify()
			b = startChild(t, name, where, file)
			b.expect(t)
			a.Notify()
			b.expect(t)
			b.hint(t, 1)
			eventually(t, func() bool { return read.Load() == 1 })
			require.NoError(t, b.in.Close())
			require.NoError(t, b.cmd.Wait())
			require.EqualValues(t, 1, a.Status().Connections)
		})
	}
}

// TestSilence has a server that does not answer, and does not end the connection either.
func TestSilence(t *testing.T) {
	t.Parallel()
	short := func() *Config {
		const ms = time.Millisecond
		return &Config{Probe: 100 * ms, Timeout: 300 * ms, MaxRetry: 50 * ms, Logger: slog.New(slog.DiscardHandler)}
	}
	for name, start := range map[string]func(*testing.T) (*proxy, *Node){
		"postgres": func(t *testing.T) (*proxy, *Node) {
			db, err := pgx.ParseConfig(dbtest.URL(t))
			require.NoError(t, err)
			network, address := pgconn.NetworkAddress(db.Host, db.Port)
			p := startProxy(t, func() (net.Conn, error) { return net.Dial(network, address) })
			db.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx) }
			n, err := NewPostgres(db, short())
			require.NoError(t, err)
			return p, n
		},
		"redis": func(t *testing.T) (*proxy, *Node) {
			s := startRedis(t)
			p := startProxy(t, func() (net.Conn, error) { return net.Dial("unix", s.socket) })
			n, err := NewRedis(rueidis.ClientOption{InitAddress: []string{p.Addr().String()}}, "test", short())
			require.NoError(t, err)
			return p, n
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, n := start(t)
			a := run(t, n, nil).connected(t)
			for range 2 {
				p.silent.Store(true)
				eventually(t, func() bool { s := a.Status(); return !s.Connected && s.Err != nil })
				a.Notify()
				connections, wakes := a.Status().Connections, a.wakes.Load()
				p.silent.Store(false)
				p.cut() // what was withheld is lost
				eventually(t, func() bool {
					return a.Status().Connected && a.Status().Connections > connections && a.wakes.Load() > wakes
				})
			}
			p.silent.Store(true)
			eventually(t, func() bool { return !a.Status().Connected })
			a.end(t)
		})
	}
}

func TestHintsWithinAnInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		bus := &Bus{}
		began := time.Now()
		var woken []time.Duration
		a, err := NewMemory(bus, quiet())
		require.NoError(t, err)
		b, err := NewMemory(bus, quiet())
		require.NoError(t, err)
		run(t, a, nil)
		run(t, b, func() { woken = append(woken, time.Since(began)) })
		synctest.Wait()
		for _, at := range []time.Duration{0, 1 * ms, 2 * ms, 4 * ms, 10 * ms, 12 * ms, 100 * ms} {
			<-time.After(at - time.Since(began))
			for range 3 {
				a.Notify()
				synctest.Wait()
			}
		}
		<-time.After(time.Second)
		synctest.Wait()
		require.Equal(t, []time.Duration{0, 0, 5 * ms, 10 * ms, 15 * ms, 100 * ms, 105 * ms}, woken, "the first is for the connection")
	})
}

func TestRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, err := NewMemory(&Bus{}, &Config{MaxRetry: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		var tries []time.Time
		n.session = func(_ context.Context, ready func(func(context.Context) error), _ func(string)) error {
			tries = append(tries, time.Now())
			if len(tries) == 6 {
				ready(func(context.Context) error { return nil })
			}
			return errors.New("broken")
		}
		a := run(t, n, nil)
		<-time.After(time.Second)
		a.end(t)
		const ms = time.Millisecond
		for i, most := range []time.Duration{20 * ms, 40 * ms, 80 * ms, 100 * ms, 100 * ms, 20 * ms, 40 * ms, 80 * ms, 100 * ms} {
			pause := tries[i+1].Sub(tries[i])
			require.GreaterOrEqual(t, pause, most/2, i)
			require.LessOrEqual(t, pause, most, i)
		}
		require.EqualValues(t, 1, a.wakes.Load())
	})
}

func TestAFailedSendEndsTheSession(t *testing.T) {
	t.Parallel()
	n, err := NewMemory(&Bus{}, quiet())
	require.NoError(t, err)
	var failed atomic.Bool
	n.session = func(ctx context.Context, ready func(func(context.Context) error), _ func(string)) error {
		ready(func(context.Context) error {
			if failed.CompareAndSwap(false, true) {
				return errors.New("broken")
			}
			return nil
		})
		<-ctx.Done()
		return ctx.Err()
	}
	a := run(t, n, nil)
	a.Notify()
	eventually(t, func() bool { s := a.Status(); return s.Connections == 2 && s.Sent == 1 })
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := NewMemory(&Bus{}, &Config{Interval: -1})
	require.EqualError(t, err, "pubsub: Interval is negative")
	_, err = NewPostgres(&pgx.ConnConfig{}, &Config{Probe: -1})
	require.EqualError(t, err, "pubsub: Probe is negative")
	_, err = NewRedis(rueidis.ClientOption{}, "c", &Config{Timeout: -1})
	require.EqualError(t, err, "pubsub: Timeout is negative")
	_, err = NewRedis(rueidis.ClientOption{}, "", nil)
	require.EqualError(t, err, "pubsub: the channel has no name")
	n, err := NewMemory(&Bus{}, nil)
	require.NoError(t, err)
	require.Equal(t, "memory", n.Status().Backend)
	require.False(t, n.Status().Connected)
}
