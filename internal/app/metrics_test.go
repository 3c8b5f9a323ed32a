package app

import (
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := free.Addr().String()
	require.NoError(t, free.Close())
	a, err := Start(t.Context(), settings(Config{DatabaseURL: dbtest.URL(t), MetricsAddr: addr}))
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	resp, err := http.Get("http://" + addr + "/metrics")
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	for _, name := range []string{
		"sockets", "socket_messages_sent_total", "streams", "stream_events_total", "changelog_lag_seconds", "changelog_reads_total",
		"pubsub_connected", "pubsub_connections_total", "jobs_running", "jobs_worked_total",
	} {
		require.Contains(t, string(body), "\ngodstack_"+name+" ")
	}
	require.Contains(t, string(body), "\ngo_goroutines ")
	// Whoever uses the API does not see them.
	resp, err = http.Get("http://" + a.Addr().String() + "/metrics")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusNotFound, resp.StatusCode)

	_, err = Start(t.Context(), settings(Config{DatabaseURL: dbtest.URL(t), MetricsAddr: addr}))
	require.ErrorContains(t, err, "METRICS_ADDR")
}
