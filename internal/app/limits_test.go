package app

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/auth"
	"godstack/internal/mail"
)

// limited has the limits that there are without configuration, and a proxy on this machine that says where clients are.
func limited(cfg *Config) {
	cfg.Auth.Limits = auth.Limits{}
	cfg.RateLimit = 0
	cfg.Server.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// Two nodes count together, in Postgres and in Redis.
func TestLimitsAreSharedByNodes(t *testing.T) {
	t.Parallel()
	for _, counts := range []string{"postgres", "redis"} {
		t.Run(counts, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, limited, func(cfg *Config) {
				if counts == "redis" {
					cfg.RedisURL = startRedis(t)
				}
			})
			c.user(t, "ada", "user")

			// Signing in: five a minute of an address.
			guess := map[string]any{"login": "nobody", "password": wrong}
			for i := range 5 {
				guess["login"] = fmt.Sprintf("nobody%d", i)
				a := c.on(i%2).at("192.0.2.1").query(t, login, guess)
				require.Equal(t, "UNAUTHENTICATED", a.code(), i)
				require.Contains(t, a.header["Ratelimit-Policy"], `"login";q=5;w=60`)
				require.True(t, slices.ContainsFunc(a.header["Ratelimit"], func(line string) bool {
					var left, reset int
					n, _ := fmt.Sscanf(line, `"login";r=%d;t=%d`, &left, &reset)
					return n == 2 && left == 4-i && reset > 0 && reset <= 60
				}), a.header["Ratelimit"])
				require.Empty(t, a.header.Get("Retry-After"))
			}
			for node := range c.nodes {
				a := c.on(node).at("192.0.2.1").query(t, login, map[string]any{"login": "ada", "password": password})
				require.Equal(t, "RATE_LIMITED", a.code(), "the sixth is refused on either node, whatever the password")
				require.Equal(t, 200, a.status)
				after, _ := a.Errors[0].Extensions["retryAfter"].(float64)
				require.Positive(t, after)
				require.LessOrEqual(t, after, 12.0)
				require.Regexp(t, `^([1-9]|1[0-2])$`, a.header.Get("Retry-After"))
			}
			require.Zero(t, c.count(t, `sessions`))
			c.on(1).at("192.0.2.2").login(t, "ada") // from elsewhere

			// Aliases in one document count each.
			a := c.on(0).at("192.0.2.3").query(t, aliases(7, "elsewhere%d"), map[string]any{"p": wrong})
			require.Equal(t, map[string]int{"UNAUTHENTICATED": 5, "RATE_LIMITED": 2}, a.codes())
			require.Equal(t, 5, c.count(t, `login_attempts WHERE address = '192.0.2.3'`))

			// The others, each by its own count.
			for _, l := range []struct {
				name, document string
				quota          int
			}{
				{"register", `mutation { register(input: {email: "x", username: "x", name: "x", password: "x"}) { expiresAt } }`, 3},
				{"forgot", `mutation { requestPasswordReset(email: "nobody@example.com") }`, 3},
				{"resend", `mutation { requestEmailVerification(email: "nobody@example.com") }`, 3},
				{"reset", `mutation { resetPassword(token: "x", password: "x") }`, 5},
				{"verify", `mutation { verifyEmail(token: "x") { expiresAt } }`, 5},
				{"refresh", `mutation { refresh(refreshToken: "x") { expiresAt } }`, 30},
			} {
				for i := range l.quota + 1 {
					a := c.on(i%2).at("192.0.2.4").query(t, l.document, nil)
					require.Equal(t, i == l.quota, a.code() == "RATE_LIMITED", "%s, try %d: %v", l.name, i, a.Errors)
				}
			}
		})
	}
}

// aliases is a document with n logins.
func aliases(n int, name string) string {
	document := "mutation($p: String!) {"
	for i := range n {
		document += fmt.Sprintf(` a%d: login(input: {login: %q, password: $p}) { accessToken }`, i, strings.Replace(name, "%d", strconv.Itoa(i), 1))
	}
	return document + "}"
}

// codes counts the errors by their codes.
func (a answer) codes() map[string]int {
	codes := map[string]int{}
	for _, e := range a.Errors {
		codes[fmt.Sprint(e.Extensions["code"])]++
	}
	return codes
}

// Where no proxy is trusted, nobody says where they are but the connection itself.
func TestForwardedForIsBelievedOfTrustedProxiesAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, limited, func(cfg *Config) { cfg.Server.TrustedProxies = nil })
	for i := range 6 {
		a := c.on(i%2).at(fmt.Sprintf("192.0.2.%d", i)).query(t, login, map[string]any{"login": fmt.Sprintf("nobody%d", i), "password": wrong})
		require.Equal(t, i == 5, a.code() == "RATE_LIMITED", i)
	}
	require.Equal(t, 5, c.count(t, `login_attempts WHERE address = '127.0.0.1'`))

	// Of a trusted one, what the client itself wrote in front is not.
	c = newCluster(t, limited)
	for i := range 6 {
		a := c.on(i%2).at(fmt.Sprintf("198.51.100.%d, 192.0.2.1", i)).query(t, login, map[string]any{"login": fmt.Sprintf("nobody%d", i), "password": wrong})
		require.Equal(t, i == 5, a.code() == "RATE_LIMITED", i)
	}
	require.Equal(t, 5, c.count(t, `login_attempts WHERE address = '192.0.2.1'`))
}

// An address may ask so often, for whatever it is.
func TestRequestsOfAnAddressAreLimited(t *testing.T) {
	t.Parallel()
	const quota, again = 10, 6 * time.Second // when there is one more
	var log diary
	c := newCluster(t, limited, log.keep, func(cfg *Config) { cfg.RateLimit = quota })
	began := time.Now()
	granted, uncounted, limit := 0, 0, answer{status: 200}
	for i := 0; limit.status == 200; i++ {
		require.Less(t, time.Since(began), time.Minute, "nothing is limited")
		limit = c.on(i%2).at("192.0.2.1").query(t, `{ me { id } }`, nil)
		switch {
		case limit.status != 200:
		case strings.Contains(limit.header.Get("RateLimit"), fmt.Sprintf(";r=%d;", quota)):
			uncounted++ // the database took too long to say how many there were, and nobody knows for a second
		default:
			granted++
		}
	}
	require.GreaterOrEqual(t, granted+uncounted, quota)
	require.Equal(t, log.count("rate limit is not enforced") > 0, uncounted > 0, "a node pardons when it cannot count, and says so")
	require.LessOrEqual(t, granted, quota+2+int(time.Since(began)/again), "each node may grant a chunk beyond")
	require.Equal(t, 429, limit.status)
	require.Equal(t, "RATE_LIMITED", limit.code())
	require.NotEmpty(t, limit.header.Get("Retry-After"))
	status, _ := get(t, c.on(0).url+"/healthz")
	require.Equal(t, 200, status)
}

// Ten failures lock an account, on both nodes, until its time is over or an administrator unlocks it.
func TestLockout(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	id := c.user(t, "ada", "user")
	c.user(t, "root", "admin")
	root := c.on(0).as(c.on(0).login(t, "root").access)
	fail := func(name string) {
		t.Helper()
		for i := range 10 {
			a := c.on(i%2).query(t, login, map[string]any{"login": name, "password": wrong})
			require.Equal(t, "UNAUTHENTICATED", a.code(), i)
			// The delay after a failure is not waited for, but there.
			if i >= 3 {
				a = c.on(i%2).query(t, login, map[string]any{"login": name, "password": wrong})
				require.Contains(t, []string{"RATE_LIMITED", "ACCOUNT_LOCKED"}, a.code(), i)
				require.Positive(t, a.Errors[0].Extensions["retryAfter"])
			}
			c.exec(t, `UPDATE login_guards SET next_attempt_at = NULL`)
		}
	}
	locked := func(node int, name string) answer {
		t.Helper()
		a := c.on(node).query(t, login, map[string]any{"login": name, "password": password})
		require.Equal(t, "ACCOUNT_LOCKED", a.code())
		require.InDelta(t, 1800, a.Errors[0].Extensions["retryAfter"], 60)
		return a
	}
	fail("ada")
	require.Equal(t, 1, c.count(t, `login_guards WHERE locked_until IS NOT NULL`))
	var lockedUntil, then time.Time
	require.NoError(t, c.db.QueryRow(t.Context(), `SELECT locked_until FROM login_guards WHERE account = $1`, id).Scan(&lockedUntil))
	for i := range 6 {
		locked(i%2, []string{"ada", "ada@example.com"}[i%2])
	}
	require.NoError(t, c.db.QueryRow(t.Context(), `SELECT locked_until FROM login_guards WHERE account = $1`, id).Scan(&then))
	require.Equal(t, lockedUntil, then, "trying goes on, the lock does not")
	require.Equal(t, 10, c.count(t, `login_attempts WHERE user_id = $1 AND outcome = 'wrong_password'`, id))
	require.GreaterOrEqual(t, c.count(t, `login_attempts WHERE user_id = $1 AND outcome = 'locked'`, id), 6)
	require.Equal(t, 1, c.events(t, auth.AccountLocked, id))
	c.mailed(t, mail.AccountLocked, "ada@example.com")

	// A login that nobody has locks alike.
	known := locked(0, "ada")
	fail("nobody")
	require.Equal(t, known.Errors[0].Message, locked(1, "nobody").Errors[0].Message)

	// Aliases are tries like others: from the third failure on there is a delay.
	c.user(t, "eve", "user")
	require.Equal(t, map[string]int{"UNAUTHENTICATED": 3, "RATE_LIMITED": 17}, c.on(0).query(t, aliases(20, "eve"), map[string]any{"p": wrong}).codes())

	const unlock = `mutation($id: ID!) { unlockUser(id: $id) { username } }`
	require.Equal(t, "UNAUTHENTICATED", c.on(0).query(t, unlock, map[string]any{"id": id}).code())
	c.user(t, "bob", "moderator")
	require.Equal(t, "FORBIDDEN", c.on(1).as(c.on(1).login(t, "bob").access).query(t, unlock, map[string]any{"id": id}).code())
	locked(0, "ada")
	require.Equal(t, map[string]any{"username": "ada"}, root.must(t, "unlockUser", unlock, map[string]any{"id": id}))
	require.Equal(t, 1, c.events(t, auth.AccountUnlocked, id))
	c.on(1).login(t, "ada")
	require.Zero(t, c.count(t, `login_guards WHERE account = $1`, id), "signing in forgets the failures")
}

// However many guess at once, on two nodes, no more passwords are looked at than lock the account.
func TestGuessesAtOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	id := c.user(t, "ada", "user")
	var guessed, refused atomic.Int64
	began := time.Now()
	atOnce(200, func(i int) {
		a, err := c.on(i%2).ask(login, map[string]any{"login": "ada", "password": fmt.Sprintf("%s%d", wrong, i)})
		switch {
		case err != nil:
			t.Error(err)
		case a.code() == "UNAUTHENTICATED":
			guessed.Add(1)
		case a.code() == "RATE_LIMITED", a.code() == "ACCOUNT_LOCKED":
			refused.Add(1)
		default:
			t.Errorf("guess %d: %v", i, a.Errors)
		}
	})
	evaluated := c.count(t, `login_attempts WHERE user_id = $1 AND outcome <> 'locked'`, id)
	t.Logf("200 guesses at once over two nodes in %s: %d evaluated", time.Since(began).Round(time.Millisecond), evaluated)
	require.LessOrEqual(t, evaluated, 10)
	require.EqualValues(t, evaluated, guessed.Load())
	require.EqualValues(t, 200-evaluated, refused.Load())
}

// startRedis starts a redis-server on a Unix socket, and returns its URL.
func startRedis(t *testing.T) string {
	t.Helper()
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
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait() // it was killed
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, patience, 5*time.Millisecond, "redis-server does not start")
	return "unix://" + socket
}
