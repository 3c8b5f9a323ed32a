package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/server"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func TestTheProgramAnswers(t *testing.T) {
	t.Parallel()
	a := start(t, Config{DatabaseURL: dbtest.URL(t)})
	for _, path := range []string{"/healthz", "/readyz", "/playground/", "/graphql?query={__typename}"} {
		status, _ := get(t, local(a)+path)
		require.Equal(t, 200, status, path)
	}
	require.NoError(t, a.Close())
	_, err := net.Dial("tcp", a.Addr().String())
	require.Error(t, err)
}

// What is asked is the program itself, on whatever address it listens, and what it answers is why it is not well.
func TestHealthy(t *testing.T) {
	t.Parallel()
	p := newPostgresProxy(t, dbtest.URL(t))
	p.url += "&pool_max_conn_idle_time=1ms&pool_health_check_period=1ms"   // who asks the database connects anew
	a := start(t, Config{DatabaseURL: p.url, Addr: ":0", Role: RoleServe}) // jobs that cannot begin end a node
	_, port, err := net.SplitHostPort(a.Addr().String())
	require.NoError(t, err)
	for _, addr := range []string{":" + port, "0.0.0.0:" + port, "127.0.0.1:" + port, "localhost:" + port} {
		line, err := Healthy(t.Context(), addr, false)
		require.NoError(t, err)
		require.Equal(t, "ok", line)
		line, err = Healthy(t.Context(), addr, true)
		require.NoError(t, err)
		require.Equal(t, "ready", line)
	}
	p.refuse(true)
	require.Eventually(t, func() bool {
		_, err = Healthy(t.Context(), ":"+port, true)
		return err != nil
	}, patience, time.Millisecond)
	require.EqualError(t, err, "not ready: the database does not answer")
	_, err = Healthy(t.Context(), ":"+port, false)
	require.NoError(t, err)

	require.NoError(t, a.Close())
	_, err = Healthy(t.Context(), ":"+port, false)
	require.ErrorContains(t, err, "ask /healthz of :"+port+": dial tcp :"+port+": connect: connection refused")
	for _, addr := range []string{":0", "localhost"} {
		_, err = Healthy(t.Context(), addr, false)
		require.EqualError(t, err, `nobody knows the port of "`+addr+`"`)
	}
}

// Whoever listens there and says nothing is not healthy.
func TestHealthyDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = Healthy(ctx, ln.Addr().String(), false)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// What is no answer of the program is told as what it is.
func TestHealthOfAnotherProgram(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusFound, http.StatusNotFound, http.StatusServiceUnavailable} {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		defer other.Close()
		addr := other.Listener.Addr().String()
		_, err := Healthy(t.Context(), addr, false)
		require.EqualError(t, err, fmt.Sprintf("ask /healthz of %s: the answer is %d %s", addr, status, http.StatusText(status)))
	}
}

// Operators find in pg_stat_activity what each connection is for, below the name that they gave.
func TestConnectionsHaveNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", longestName)
	for _, c := range []struct {
		name, listen string // what the addresses say; "-": LISTEN_DATABASE_URL is not set
		want         []string
	}{
		{"", "-", []string{"godstack", "godstack listen", "godstack tailer"}},
		{"", "", []string{"godstack", "godstack listen", "godstack tailer"}},
		{"shop", "-", []string{"shop", "shop listen", "shop tailer"}},
		{"shop", "", []string{"shop", "shop listen", "shop tailer"}},
		{"shop", "direct", []string{"direct listen", "direct tailer", "shop"}},
		{long, "-", []string{long[:56] + " listen", long[:56] + " tailer", long}},
	} {
		pool := dbtest.New(t)
		address := pool.Config().ConnString()
		with := func(name string) string {
			if name == "" {
				return address
			}
			u, err := url.Parse(address)
			require.NoError(t, err)
			q := u.Query()
			q.Set("application_name", name)
			u.RawQuery = q.Encode()
			return u.String()
		}
		cfg := Config{DatabaseURL: with(c.name), Pubsub: PubsubPostgres}
		if c.listen != "-" {
			cfg.ListenURL = with(c.listen)
		}
		a := start(t, cfg)
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			rows, err := pool.Query(context.Background(), `SELECT DISTINCT application_name COLLATE "C" FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY 1`)
			require.NoError(t, err)
			got, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		}, patience, time.Millisecond)
		require.NoError(t, a.Close())
	}
}

func TestTheProgramEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	a, err := Start(ctx, settings(Config{DatabaseURL: dbtest.URL(t)}))
	require.NoError(t, err)
	stop()
	require.NoError(t, a.Wait())
}

func TestDevelopmentBringsItsOwnDatabase(t *testing.T) {
	t.Parallel()
	cfg := settings(Config{Development: true, DataDir: t.TempDir()})
	a := start(t, cfg)
	status, body := get(t, local(a)+"/readyz")
	require.Equal(t, 200, status, body)
	require.NoError(t, a.Close())

	applied, err := Migrate(t.Context(), cfg) // the first start stopped what it began, and migrated
	require.NoError(t, err)
	require.Zero(t, applied)
}

func TestDevelopmentMigrates(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	_, err := Start(t.Context(), settings(Config{DatabaseURL: url}))
	require.ErrorContains(t, err, "the database's schema is at version 0")
	require.ErrorContains(t, err, "run godstack migrate")
	start(t, Config{DatabaseURL: url, Development: true})
	start(t, Config{DatabaseURL: url})
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	db, err := connect(t.Context(), Config{DatabaseURL: dbtest.URL(t), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	require.NoError(t, db.ready(t.Context()))
	require.NoError(t, db.close(t.Context()))
	require.EqualError(t, db.ready(t.Context()), "the database does not answer")
	require.Contains(t, log.String(), "closed pool")
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	url := dbtest.URL(t)
	for _, c := range []struct {
		name   string
		change func(*Config)
		says   string
	}{
		{"no database", func(c *Config) { c.DatabaseURL = "" }, "DatabaseURL is required"},
		{"taken port", func(c *Config) { c.Addr = taken.Addr().String() }, "address already in use"},
		{"bad url", func(c *Config) { c.DatabaseURL = "postgres://localhost:x/" }, "DATABASE_URL: no address"},
		{"no server", func(c *Config) { c.DatabaseURL = "postgres://127.0.0.1:1/x" }, "connect to database"},
		{"bad limits", func(c *Config) { c.Server.Limits.Depth = -1 }, "Limits.Depth"},
		{"bad public url", func(c *Config) { c.PublicURL = "example" }, "PUBLIC_URL"},
		{"no public url", func(c *Config) { c.PublicURL = "" }, "PUBLIC_URL: required in production"},
		{"no public url and no keys", func(c *Config) { c.PublicURL, c.JWTKeys = "", "" }, "PUBLIC_URL: required in production\nJWT_KEYS: required"},
		{"no https", func(c *Config) { c.PublicURL = "http://example.com" }, `PUBLIC_URL: "http://example.com" is not https`},
		{"no https, like localhost", func(c *Config) { c.PublicURL = "http://localhost.example.com" }, "is not https"},
		{"no https on another address", func(c *Config) { c.PublicURL = "http://192.168.0.1:8080" }, "is not https"},
		{"no keys", func(c *Config) { c.JWTKeys, c.SecretKeys = "", "" }, "JWT_KEYS: required in production\nSECRET_KEYS: required in production"},
		{"weak keys", func(c *Config) { c.SecretKeys = "00" }, "SECRET_KEYS: key 1 is shorter than 32 bytes"},
		{"bad redis url", func(c *Config) { c.RedisURL = "localhost" }, "REDIS_URL"},
		{"no redis", func(c *Config) { c.RedisURL = "redis://127.0.0.1:1" }, "connect to redis"},
		{"no such storage", func(c *Config) { c.Auth.Storage = "disk" }, "Storage"},
		{"seed in production", func(c *Config) { c.Seed = true }, "Seed is for development"},
	} {
		cfg := settings(Config{DatabaseURL: url})
		c.change(&cfg)
		_, err := Start(t.Context(), cfg)
		require.ErrorContains(t, err, c.says, c.name)
	}
}

func TestAServiceThatFailsEndsTheProgram(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	core, err := newCore(t.Context(), settings(Config{PublicURL: publicURL, Pubsub: PubsubMemory}), pool, pool)
	require.NoError(t, err)
	s, err := server.New(server.Deps{Schema: core.schema}, nil)
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	broken := errors.New("broken")
	ended := false
	err = run(t.Context(), s, ln, []service{
		{name: "tailer", run: func(context.Context) error { return broken }},
		{name: "other", run: func(ctx context.Context) error { <-ctx.Done(); ended = true; return ctx.Err() }},
	})
	require.ErrorIs(t, err, broken)
	require.EqualError(t, err, "tailer: broken")
	require.True(t, ended)
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"localhost", "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"} {
		require.True(t, Loopback(host), host)
	}
	for _, host := range []string{"", "0.0.0.0", "::", "192.168.0.1", "example.com", "localhost.example.com", "127.0.0.1.example.com"} {
		require.False(t, Loopback(host), host)
	}
}

func TestProductionIsFoundByHTTPS(t *testing.T) {
	t.Parallel()
	for _, u := range []string{"https://example.com", "https://10.0.0.1:8443", "http://localhost", "http://localhost:8080", "http://127.0.0.1:1", "http://[::1]:80"} {
		require.NoError(t, Config{PublicURL: u}.checkPublicURL(), u)
	}
	for _, u := range []string{"", "http://example.com", "http://localhost.example.com", "ws://localhost", "localhost:8080", "http://localhost@example.com", "http://[::1"} {
		require.ErrorContains(t, Config{PublicURL: u}.checkPublicURL(), "PUBLIC_URL: ", u)
		require.NoError(t, Config{Development: true, PublicURL: u}.checkPublicURL(), u)
	}
}

// What is wrong with an address is said without the password that may be in it.
func TestAddressesAreNotQuoted(t *testing.T) {
	t.Parallel()
	for _, u := range []string{
		"postgres://ada:plover%zz@localhost/x", "postgres://ada:plover/xylem@localhost/x", "postgres://ada:plover@xylem:42@x:y/",
		"postgres://ada:plover@localhost:x/", "host=localhost password='plover xylem", "host=localhost password=plover sslmode=x",
	} {
		_, err := Start(t.Context(), settings(Config{DatabaseURL: u}))
		require.ErrorContains(t, err, "DATABASE_URL: no address such as")
		require.NotRegexp(t, "plover|xylem", err.Error())
	}
	url := dbtest.URL(t)
	for _, u := range []string{
		"redis://ada:plover%zz@localhost", "redis://ada:plover/xylem@localhost", "redis://:plover@localhost/x", "plover:xylem@localhost",
		"redis://ada:plover@127.0.0.1:1/0",
	} {
		_, err := Start(t.Context(), settings(Config{DatabaseURL: url, RedisURL: u}))
		require.Error(t, err)
		require.NotRegexp(t, "plover|xylem", err.Error())
	}
}

func TestLocalURL(t *testing.T) {
	t.Parallel()
	require.Equal(t, "http://localhost:80", localURL(&net.TCPAddr{IP: net.IPv6unspecified, Port: 80}))
	require.Equal(t, "http://127.0.0.1:80", localURL(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}))
	require.Equal(t, "http://[::1]:80", localURL(&net.TCPAddr{IP: net.IPv6loopback, Port: 80}))
}

func TestIntrospectionIsForDevelopment(t *testing.T) {
	t.Parallel()
	for _, development := range []bool{true, false} {
		a := start(t, Config{DatabaseURL: dbtest.URL(t), Development: development})
		_, body := get(t, local(a)+"/graphql?query={__schema{queryType{name}}}")
		require.Equal(t, !development, strings.Contains(body, "introspection is disabled"), body)
		require.True(t, json.Valid([]byte(body)))
	}
}
