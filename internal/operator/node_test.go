package operator

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// TestNodes holds that a node is seen as it says, is silent once nothing is heard of it, and is forgotten later.
func TestNodes(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	now := Report{Problem: "it is draining", Sockets: 1, EventStreams: 2, Operations: 3, Subscriptions: 4, Lag: 5 * time.Millisecond, JobsRunning: 6}
	is := Identity{Host: "a", Role: "all", Version: "v1"}
	log := slog.New(slog.DiscardHandler)
	a := NewReporter(pool, is, func(context.Context) Report { return now }, log)
	b := NewReporter(pool, Identity{Host: "b", Role: "work"}, func(context.Context) Report { return Report{} }, log)
	read := func() []*Node {
		nodes, err := ReadNodes(t.Context(), pool)
		require.NoError(t, err)
		return nodes
	}
	require.NoError(t, a.say(t.Context()))
	require.NoError(t, b.say(t.Context()))
	nodes := read()
	require.Len(t, nodes, 2)
	require.Equal(t, is, nodes[0].Identity)
	require.Equal(t, now, nodes[0].Report)
	require.False(t, nodes[0].Silent)
	require.WithinDuration(t, time.Now(), nodes[0].SeenAt, time.Minute)

	_, err := pool.Exec(t.Context(), `UPDATE nodes SET seen_at = now() - $2::interval WHERE id = $1`, a.id, silence+time.Second)
	require.NoError(t, err)
	require.True(t, read()[0].Silent)
	now.Problem, now.Sockets = "", 7
	require.NoError(t, a.say(t.Context()))
	require.Equal(t, now, read()[0].Report)
	require.False(t, read()[0].Silent)

	_, err = pool.Exec(t.Context(), `UPDATE nodes SET seen_at = now() - $2::interval WHERE id = $1`, a.id, forgotten+time.Second)
	require.NoError(t, err)
	require.NoError(t, b.say(t.Context()))
	require.Len(t, read(), 1)
}

// TestANodeTakesLeave holds that a node that is stopped is not shown as silent.
func TestANodeTakesLeave(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	said := make(chan struct{}, 1)
	r := NewReporter(pool, Identity{}, func(context.Context) Report {
		said <- struct{}{}
		return Report{}
	}, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	<-said
	require.Eventually(t, func() bool {
		nodes, err := ReadNodes(t.Context(), pool)
		return err == nil && len(nodes) == 1
	}, 20*time.Second, time.Millisecond)
	stop()
	require.NoError(t, <-ended)
	nodes, err := ReadNodes(t.Context(), pool)
	require.NoError(t, err)
	require.Empty(t, nodes)
}

// TestANodeThatCannotSay holds that a database that is away ends nothing: the node goes on to say how it is.
func TestANodeThatCannotSay(t *testing.T) {
	t.Parallel()
	cfg, err := pgxpool.ParseConfig("postgres://127.0.0.1:1/none")
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		require.NoError(t, err)
		pool.Close()
		var log bytes.Buffer
		times := 0
		r := NewReporter(pool, Identity{}, func(context.Context) Report { times++; return Report{} }, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, stop := context.WithTimeout(t.Context(), 12*time.Second)
		defer stop()
		require.NoError(t, r.Run(ctx))
		require.Equal(t, 3, times)
		require.Contains(t, log.String(), "report to operators")
	})
}
