package main

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/app"
	"godstack/internal/server"
)

// TestTimes: what is said of times reaches the program, 0 is none where there may be none, and what is not said is the program's default but
// for the delay of production.
func TestTimes(t *testing.T) {
	t.Parallel()
	read := func(environ ...string) app.Config {
		c, err := loadConfig(environ)
		require.NoError(t, err)
		return c.app(slog.New(slog.DiscardHandler))
	}
	require.Equal(t, server.Config{}.Load, read().Server.Load)
	require.Zero(t, read().Server.ShutdownDelay)
	require.Zero(t, read().Timeouts)
	production := []string{"ENV=production", "DATABASE_URL=postgres://localhost/godstack"}
	require.Equal(t, 3*time.Second, read(production...).Server.ShutdownDelay)
	require.Zero(t, read(append(production, "SHUTDOWN_DELAY=0")...).Server.ShutdownDelay)

	a := read("OPERATION_TURNS=5", "OPERATION_QUEUE=6", "OPERATION_WAIT=7ms", "REQUEST_TIMEOUT=1m30s", "STATEMENT_TIMEOUT=0",
		"TRANSACTION_TIMEOUT=1h", "SHUTDOWN_DELAY=1s", "SHUTDOWN_TIMEOUT=30s")
	require.Equal(t, server.Load{Turns: 5, Waiting: 6, Patience: 7 * time.Millisecond}, a.Server.Load)
	require.Equal(t, 90*time.Second, a.Server.OperationTimeout)
	require.Negative(t, a.Timeouts.Statement)
	require.Equal(t, time.Hour, a.Timeouts.Transaction)
	require.Equal(t, time.Second, a.Server.ShutdownDelay)
	require.Equal(t, 30*time.Second, a.Server.ShutdownTimeout)
}

// TestTimesThatDoNotFit are refused before anything starts.
func TestTimesThatDoNotFit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ environ, says string }{
		{
			"SHUTDOWN_DELAY=18s",
			"godstack: SHUTDOWN_TIMEOUT: 20s is less than 22s: SHUTDOWN_DELAY, 2s in which sockets are closed, and 2s for what runs",
		},
		{
			"SHUTDOWN_TIMEOUT=3s",
			"godstack: SHUTDOWN_TIMEOUT: 3s is less than 4s: SHUTDOWN_DELAY, 2s in which sockets are closed, and 2s for what runs",
		},
		{"OPERATION_WAIT=31s", "godstack: OPERATION_WAIT: 31s is more than REQUEST_TIMEOUT, 30s"},
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, 1, run(t.Context(), []string{"serve"}, []string{c.environ}, &stdout, &stderr))
		require.Equal(t, c.says+"\n", stderr.String())
	}
}
