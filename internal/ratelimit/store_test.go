package ratelimit

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// cluster makes stores that share what they know, one a node, and breaks what they stand on.
type cluster struct {
	node  func() Store
	crash func()
}

// TestStores is what each store has to pass.
func TestStores(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) cluster{"postgres": postgresCluster, "redis": redisCluster} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t)
			for _, test := range []struct {
				name string
				run  func(*testing.T, cluster)
			}{
				{"counts", counts}, {"comes back", comesBack}, {"keys", keys}, {"race", race}, {"a limit changes", changes}, {"crash", crash},
			} {
				t.Run(test.name, func(t *testing.T) { test.run(t, c) })
			}
		})
	}
}

func counts(t *testing.T, c cluster) {
	a, b := c.node(), c.node()
	l := Limit{"counts", 5, time.Hour}
	for i := range 5 {
		r, err := []Store{a, b}[i%2].Take(t.Context(), "k", l)
		require.NoError(t, err)
		require.True(t, r.OK)
		require.Equal(t, l, r.Limit)
		require.Equal(t, 4-i, r.Remaining)
		require.Zero(t, r.RetryAfter)
		require.InDelta(t, time.Duration(i+1)*l.Window/5, r.ResetAfter, float64(10*time.Second))
	}
	for range 10 {
		r, err := a.Take(t.Context(), "k", l)
		require.NoError(t, err)
		require.False(t, r.OK)
		require.Zero(t, r.Remaining)
		require.InDelta(t, l.Window/5, r.RetryAfter, float64(10*time.Second), "what is refused uses nothing up")
		require.InDelta(t, l.Window, r.ResetAfter, float64(10*time.Second))
	}
}

// comesBack waits for as long as it is told to: not less is enough.
func comesBack(t *testing.T, c cluster) {
	s := c.node()
	l := Limit{"comes-back", 2, 200 * time.Millisecond}
	for range 2 {
		r, err := s.Take(t.Context(), "k", l)
		require.NoError(t, err)
		require.True(t, r.OK)
	}
	for range 3 {
		r, err := s.Take(t.Context(), "k", l)
		require.NoError(t, err)
		require.False(t, r.OK)
		require.LessOrEqual(t, r.RetryAfter, l.Window/2)
		<-time.After(r.RetryAfter + time.Millisecond)
		r, err = s.Take(t.Context(), "k", l)
		require.NoError(t, err)
		require.True(t, r.OK)
	}
}

func keys(t *testing.T, c cluster) {
	s := c.node()
	l := Limit{"keys", 1, time.Hour}
	other := Limit{"other", 1, time.Hour}
	long := string(make([]byte, 10_000))
	for _, key := range []string{"", "a", "b", "ä", "a\x00", "\xff", "' OR 1=1", long, long + "x"} {
		for _, l := range []Limit{l, other} {
			for _, want := range []bool{true, false} {
				r, err := s.Take(t.Context(), key, l)
				require.NoError(t, err)
				require.Equal(t, want, r.OK, "%.20q", key)
			}
		}
	}
}

// race has many goroutines on two nodes ask at the same time: the quota is granted, no more and no less.
func race(t *testing.T, c cluster) {
	const quota, goroutines, each = 100, 32, 10
	l := Limit{"race", quota, 24 * time.Hour}
	nodes := []Store{c.node(), c.node()}
	for round := range 5 {
		var granted atomic.Int64
		start := make(chan struct{})
		var all sync.WaitGroup
		for g := range goroutines {
			all.Go(func() {
				<-start
				for range each {
					r, err := nodes[g%2].Take(t.Context(), fmt.Sprint(round), l)
					if err != nil {
						t.Error(err)
					}
					if r.OK {
						granted.Add(1)
					} else if r.RetryAfter <= 0 || r.RetryAfter > l.Window/quota {
						t.Errorf("refused, with RetryAfter %s", r.RetryAfter)
					}
				}
			})
		}
		close(start)
		all.Wait()
		require.EqualValues(t, quota, granted.Load())
	}
}

func changes(t *testing.T, c cluster) {
	s := c.node()
	for range 10 {
		_, err := s.Take(t.Context(), "k", Limit{"changes", 10, time.Hour})
		require.NoError(t, err)
	}
	r, err := s.Take(t.Context(), "k", Limit{"changes", 10, time.Minute})
	require.NoError(t, err)
	require.False(t, r.OK, "what was used under the old limit is not forgotten")
	require.Zero(t, r.Remaining)
	require.InDelta(t, 59*time.Minute, r.RetryAfter, float64(2*time.Minute))
	r, err = s.Take(t.Context(), "k", Limit{"changes", 100, 10 * time.Hour})
	require.NoError(t, err)
	require.True(t, r.OK)
}

func crash(t *testing.T, c cluster) {
	s := c.node()
	l := Limit{"crash", 1, time.Hour}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := s.Take(canceled, "k", l)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, r.OK)

	c.crash()
	r, err = s.Take(t.Context(), "k", l)
	require.ErrorContains(t, err, "take from limit crash: ")
	require.False(t, r.OK, "a store that fails grants nothing")
}

func postgresCluster(t *testing.T) cluster {
	url := dbtest.URL(t)
	var pools []*pgxpool.Pool
	open := func() *pgxpool.Pool {
		pool, err := pgxpool.New(t.Context(), url)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		pools = append(pools, pool)
		return pool
	}
	return cluster{
		node: func() Store { return NewPostgres(open()) },
		crash: func() {
			_, err := open().Exec(t.Context(), `DROP TABLE rate_limits`)
			require.NoError(t, err)
		},
	}
}

func TestExpiredRowsAreRemoved(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	s := NewPostgres(pool)
	for _, stmt := range []string{
		`INSERT INTO rate_limits SELECT 'old:' || i, now() - interval '1 second' FROM generate_series(1, 600) i`,
		`INSERT INTO rate_limits SELECT 'new:' || i, now() + interval '1 hour' FROM generate_series(1, 600) i`,
	} {
		_, err := pool.Exec(t.Context(), stmt)
		require.NoError(t, err)
	}
	count := func(prefix string) (n int) {
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM rate_limits WHERE key LIKE $1 || ':%'`, prefix).Scan(&n))
		return n
	}
	for _, left := range []int{600 - sweepMost, 0} {
		for range sweepEach {
			_, err := s.Take(t.Context(), "k", Limit{"live", 1, time.Hour})
			require.NoError(t, err)
		}
		require.Equal(t, left, count("old"))
	}
	require.Equal(t, 600, count("new"))
	require.Equal(t, 1, count("live"))
}

// redisCluster starts a redis-server on a Unix socket.
func redisCluster(t *testing.T) cluster {
	binary, err := exec.LookPath("redis-server")
	require.NoError(t, err, "this test needs redis-server: scripts/install installs it")
	dir, err := os.MkdirTemp("", "redis")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	// The shell ends the server when its standard input does: when the test stops it, or is killed.
	cmd := exec.Command("sh", "-c", `"$@" </dev/null & pid=$!; read -r _; kill -9 $pid; wait $pid`, "sh",
		binary, "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--appendonly", "no", "--logfile", filepath.Join(dir, "log"))
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	stop := sync.OnceFunc(func() {
		_ = stdin.Close()
		_ = cmd.Wait() // it was killed
	})
	t.Cleanup(stop)
	require.Eventually(t, func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, 20*time.Second, 5*time.Millisecond, "redis-server does not start")

	open := func() rueidis.Client {
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{socket}, DisableCache: true, DisableRetry: true,
			DialCtxFn: func(ctx context.Context, path string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				return d.DialContext(ctx, "unix", path)
			},
		})
		require.NoError(t, err)
		t.Cleanup(client.Close)
		return client
	}
	t.Run("its keys expire", func(t *testing.T) {
		client := open()
		_, err := NewRedis(client, "test:").Take(t.Context(), "k", Limit{"expiry", 2, 100 * time.Millisecond})
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			n, err := client.Do(t.Context(), client.B().Exists().Key("test:expiry:k").Build()).AsInt64()
			return err == nil && n == 0
		}, 20*time.Second, 5*time.Millisecond)
	})
	return cluster{node: func() Store { return NewRedis(open(), "test:") }, crash: stop}
}
