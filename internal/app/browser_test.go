package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/auth"
	"godstack/internal/dbtest"
	"godstack/internal/ratelimit"
)

// TestInABrowser runs the tests of web/e2e in Chromium, against the program with its demonstration data.
func TestInABrowser(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file    string
		storage auth.TokenStorage
		expiry  time.Duration // of access tokens; 0 for the default
	}{
		{"playground.test.mjs", auth.InHeader, 0},
		{"signin.test.mjs", auth.InHeader, 0},
		{"signin.test.mjs", auth.InCookie, 0},
		{"clients.test.mjs", auth.InHeader, 10 * time.Second},
		{"clients.test.mjs", auth.InCookie, 10 * time.Second},
		{"clients.test.mjs", auth.InBoth, 10 * time.Second},
		{"mailbox.test.mjs", auth.InHeader, 0},
		{"origins.test.mjs", auth.InCookie, 0},
		{"operator.test.mjs", auth.InHeader, 0},
		{"operator.test.mjs", auth.InCookie, 0},
	} {
		t.Run(c.file+" "+string(c.storage), func(t *testing.T) {
			t.Parallel()
			other, friend := emptyPage(t), emptyPage(t)
			cfg := Config{DatabaseURL: dbtest.URL(t), Development: true, Seed: true}
			cfg.Server.Origins = []string{friend}
			cfg.Auth = auth.Config{Storage: c.storage, AccessTTL: c.expiry}
			// One address signs in all the time.
			cfg.Auth.Limits.Login = ratelimit.Limit{Quota: 10_000}
			cfg.Auth.Limits.Refresh = ratelimit.Limit{Quota: 10_000}
			a := start(t, cfg)
			runNode(t, c.file, "BASE_URL="+a.URL(), "TOKEN_STORAGE="+string(c.storage), "OTHER_URL="+other, "FRIEND_URL="+friend)
			requireNoForks(t, cfg.DatabaseURL)
		})
	}
}

// runNode runs a file of tests.
func runNode(t *testing.T, file string, env ...string) {
	t.Helper()
	const web = "../../web"
	require.FileExists(t, filepath.Join(web, "node_modules/playwright-core/package.json"), "run npm ci in web/; make test does so")
	node, err := exec.LookPath("node")
	require.NoError(t, err, "run scripts/install")
	cmd := exec.CommandContext(t.Context(), node, "--test", "--test-reporter=spec", filepath.Join("e2e", file))
	cmd.Dir = web
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	require.NoError(t, cmd.Run())
}

// emptyPage serves one, and returns its origin.
func emptyPage(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>empty</title><link rel=icon href=data:,>")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// requireNoForks holds of all that browsers did: no session has two refresh tokens that are good, and none was taken for
// stolen.
func requireNoForks(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(t.Context())) }()
	var forks, reuses int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT
		(SELECT count(*) FROM (SELECT FROM refresh_tokens WHERE rotated_at IS NULL GROUP BY session_id HAVING count(*) > 1) f),
		(SELECT count(*) FROM security_events WHERE name = $1)`, auth.TokenReuseDetected).Scan(&forks, &reuses))
	require.Zero(t, forks)
	require.Zero(t, reuses)
}

func TestSeedIsForDevelopment(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Config{DatabaseURL: dbtest.URL(t), Seed: true})
	require.EqualError(t, err, "app: Seed is for development")
}
