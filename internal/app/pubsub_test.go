package app

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/logtest"
	"godstack/internal/pubsub"
)

// wakeable is a node's part in waking, as newPubsub builds it.
type wakeable struct {
	*pubsub.Node
	woken chan struct{}
}

func runPubsub(t *testing.T, by Pubsub, redisURL string, pool *pgxpool.Pool) wakeable {
	t.Helper()
	listen, err := listenConfig("", pool)
	require.NoError(t, err)
	n, err := newPubsub(t.Context(), by, Config{RedisURL: redisURL, Logger: logtest.Logger()}, listen, pool)
	require.NoError(t, err)
	w := wakeable{n, make(chan struct{}, 100)}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = n.Run(ctx, func() { w.woken <- struct{}{} }) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	w.expect(t) // connected
	return w
}

func (w wakeable) expect(t *testing.T) {
	t.Helper()
	select {
	case <-w.woken:
	case <-time.After(patience):
		require.Fail(t, "not woken")
	}
}

func TestNodesWakeEachOther(t *testing.T) {
	t.Parallel()
	redisURL := startRedis(t) // for two databases
	for _, by := range []Pubsub{PubsubPostgres, PubsubRedis} {
		t.Run(string(by), func(t *testing.T) {
			t.Parallel()
			one, other := dbtest.New(t), dbtest.New(t)
			a, b := runPubsub(t, by, redisURL, one), runPubsub(t, by, redisURL, one)
			c, d := runPubsub(t, by, redisURL, other), runPubsub(t, by, redisURL, other)
			a.Notify()
			b.expect(t)
			d.Notify()
			c.expect(t)
			require.EqualValues(t, 1, b.Status().Received)
			require.EqualValues(t, 1, c.Status().Received, "what came before is another database's")
		})
	}
	alone := runPubsub(t, PubsubMemory, "", dbtest.New(t))
	alone.Notify()
	require.True(t, alone.Status().Connected)
}

func TestPubsubSettings(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	require.Equal(t, PubsubMemory, defaultPubsub(true))
	require.Equal(t, PubsubPostgres, defaultPubsub(false))
	listen, err := listenConfig("postgres://direct.example:5433/godstack", pool)
	require.NoError(t, err)
	require.Equal(t, "direct.example", listen.Host)
	_, err = listenConfig("postgres://ada:s3cret@:x/", pool)
	require.ErrorContains(t, err, "LISTEN_DATABASE_URL: ")
	require.NotContains(t, err.Error(), "s3cret")
	_, err = Config{DatabaseURL: "postgres://localhost/godstack", Pubsub: PubsubRedis}.withDefaults()
	require.EqualError(t, err, "REDIS_URL: required where PUBSUB is redis")
	for _, c := range []struct {
		by    Pubsub
		redis string
		says  string
	}{
		{"", "", `PUBSUB: "" is none of memory, postgres and redis`},
		{"kafka", "", `PUBSUB: "kafka" is none of memory, postgres and redis`},
		{PubsubRedis, "http://localhost", "REDIS_URL: no address"},
	} {
		_, err := newPubsub(t.Context(), c.by, Config{RedisURL: c.redis}, pool.Config().ConnConfig, pool)
		require.ErrorContains(t, err, c.says)
	}
}
