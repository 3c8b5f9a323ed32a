package pubsub

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// BenchmarkDelay is the time from a hint of one node to the other's waking: the median, and what one in a hundred exceeds.
func BenchmarkDelay(b *testing.B) {
	for _, backend := range []string{"memory", "postgres", "redis"} {
		b.Run(backend, func(b *testing.B) {
			bus := &Bus{}
			open := map[string]func(*Config) (*Node, error){
				"memory":   func(cfg *Config) (*Node, error) { return NewMemory(bus, cfg) },
				"postgres": nodesOf(b, backend), "redis": nodesOf(b, backend),
			}[backend]
			// Each hint begins after the last one's interval.
			cfg := &Config{Interval: time.Nanosecond, Logger: slog.New(slog.DiscardHandler)}
			woken := make(chan time.Time, 1)
			sender, err := open(cfg)
			require.NoError(b, err)
			receiver, err := open(cfg)
			require.NoError(b, err)
			run(b, sender, nil).connected(b)
			run(b, receiver, func() {
				select {
				case woken <- time.Now():
				default:
				}
			}).connected(b)
			<-woken
			var delays []time.Duration
			for b.Loop() {
				began := time.Now()
				sender.Notify()
				delays = append(delays, (<-woken).Sub(began))
			}
			slices.Sort(delays)
			b.ReportMetric(float64(delays[len(delays)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(delays[len(delays)*99/100].Microseconds()), "p99-us")
		})
	}
}

// nodesOf makes nodes on a server of their own; nil for what has none.
func nodesOf(b *testing.B, backend string) func(*Config) (*Node, error) {
	switch backend {
	case "postgres":
		url := dbtest.URL(b)
		return func(cfg *Config) (*Node, error) { return openPostgres(url, cfg) }
	case "redis":
		s := startRedis(b)
		return func(cfg *Config) (*Node, error) { return openRedis(s.socket, cfg) }
	}
	return nil
}

// BenchmarkNotify is what a hint costs the one who gives it.
func BenchmarkNotify(b *testing.B) {
	for _, backend := range []string{"postgres", "redis"} {
		b.Run(backend, func(b *testing.B) {
			n, err := nodesOf(b, backend)(&Config{Logger: slog.New(slog.DiscardHandler)})
			require.NoError(b, err)
			run(b, n, nil).connected(b)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n.Notify()
				}
			})
		})
	}
}

// BenchmarkWriters is what a commit takes on each of eight connections that write without pause: without hints, with one after each
// commit, and, to compare, with a NOTIFY inside each transaction.
func BenchmarkWriters(b *testing.B) {
	const writers = 8
	for _, how := range []string{"without", "hints", "inside"} {
		b.Run(how, func(b *testing.B) {
			pool := dbtest.New(b)
			_, err := pool.Exec(b.Context(), `CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL)`)
			require.NoError(b, err)
			_, err = pool.Exec(b.Context(), `INSERT INTO t SELECT i, 0 FROM generate_series(0, $1 - 1) i`, writers)
			require.NoError(b, err)
			url := pool.Config().ConnString()
			var nodes []*running
			for range 2 {
				n, err := openPostgres(url, &Config{Logger: slog.New(slog.DiscardHandler)})
				require.NoError(b, err)
				nodes = append(nodes, run(b, n, nil).connected(b))
			}
			work := make(chan struct{})
			done := make(chan error, writers)
			for i := range writers {
				go func() { done <- write(b.Context(), pool, i, how, nodes[0].Notify, work) }()
			}
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			for range writers {
				require.NoError(b, <-done)
			}
		})
	}
}

func write(ctx context.Context, pool *pgxpool.Pool, id int, how string, notify func(), work <-chan struct{}) (err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	sql := `UPDATE t SET n = n + 1 WHERE id = $1`
	if how == "inside" {
		sql = `WITH w AS (UPDATE t SET n = n + 1 WHERE id = $1) SELECT pg_notify('` + channel + `', '')`
	}
	for range work { // to the end, so that nobody waits for us
		if err == nil {
			_, err = conn.Exec(ctx, sql, id)
		}
		if how == "hints" {
			notify()
		}
	}
	return err
}
