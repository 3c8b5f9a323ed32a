package pubsub

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/devdb"
)

func TestPostgresRestarts(t *testing.T) {
	t.Parallel()
	parent, err := os.MkdirTemp("", "pubsub-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(parent)) })
	require.NoError(t, os.Chmod(parent, 0o755)) // the server of root has another user
	start := func() *devdb.Cluster {
		c, err := devdb.Start(t.Context(), devdb.Config{Dir: filepath.Join(parent, "pg"), Unsafe: true})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Stop(context.Background())) })
		return c
	}
	server := start()
	c := cluster{
		node:   func(cfg *Config) (*Node, error) { return openPostgres(server.URL("postgres"), cfg) },
		breaks: func(t *testing.T) { require.NoError(t, server.Stop(t.Context())) },
		mends:  func(*testing.T) { server = start() },
	}
	breaks(t, c)
}

func TestDatabasesAreApart(t *testing.T) {
	t.Parallel()
	one, other := postgresCluster(t), postgresCluster(t)
	a, b, c := one.run(t, nil).connected(t), one.run(t, nil).connected(t), other.run(t, nil).connected(t)
	for i := range uint64(3) {
		a.Notify()
		eventually(t, func() bool { return b.Status().Received > i })
	}
	d := other.run(t, nil).connected(t)
	d.Notify()
	eventually(t, func() bool { return c.Status().Received == 1 })
	require.EqualValues(t, 1, c.wakes.Load()-1, "what came before is of its own database")
}

func TestAPoolerIsNoticed(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	for name, pooled := range map[string]bool{"pooler": true, "server": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := pgx.ParseConfig(url)
			require.NoError(t, err)
			dial := db.DialFunc
			db.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				if pooled {
					conn = &pooler{Conn: conn}
				}
				return conn, err
			}
			var log bytes.Buffer
			n, err := NewPostgres(db, &Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			require.NoError(t, err)
			a := run(t, n, nil).connected(t)
			a.end(t)
			require.Equal(t, pooled, bytes.Contains(log.Bytes(), []byte("this is a pooler")), log.String())
		})
	}
}

// pooler changes the process id that the server says at the beginning.
type pooler struct {
	net.Conn
	done atomic.Bool
}

func (p *pooler) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if i := bytes.Index(b[:n], []byte("K\x00\x00\x00\x0c")); i >= 0 && !p.done.Swap(true) {
		b[i+5] ^= 0x40
	}
	return n, err
}
