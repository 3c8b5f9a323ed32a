package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/app"
	"godstack/internal/dbtest"
	"godstack/internal/logtest"
)

// answer is what the API answered.
type answer struct {
	Data   map[string]map[string]any
	Errors []struct {
		Message    string
		Extensions map[string]any
	}
}

// client is somebody who talks to a program.
type client struct{ addr, token, from string }

func (c client) ask(document string, vars map[string]any) (a answer, err error) {
	body, err := json.Marshal(map[string]any{"query": document, "variables": vars})
	if err != nil {
		return a, err
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+c.addr+"/graphql", bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.from != "" {
		req.Header.Set("X-Forwarded-For", c.from)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// must is ask, where there has to be no error, and returns the field.
func (c client) must(t *testing.T, field, document string, vars map[string]any) map[string]any {
	t.Helper()
	a, err := c.ask(document, vars)
	require.NoError(t, err)
	require.Empty(t, a.Errors)
	return a.Data[field]
}

const (
	login   = `mutation($login: String!, $password: String!) { login(input: {login: $login, password: $password}) { accessToken refreshToken } }`
	refresh = `mutation($token: String!) { refresh(refreshToken: $token) { refreshToken } }`
)

// createUser runs user create.
func createUser(t *testing.T, url, name, password string, flags ...string) (stdout, stderr string, err error) {
	t.Helper()
	args := append([]string{"user create --email", name + "@example.com", "--username", name, "--name", name}, flags...)
	cmd := process(t, strings.Join(args, " "), inProduction(url)...)
	cmd.Stdin = strings.NewReader(password + "\n")
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, io.MultiWriter(&log, logtest.Writer())
	err = cmd.Run()
	return strings.TrimSpace(out.String()), log.String(), err
}

func TestTheFirstAdministrator(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	_, stderr, err := createUser(t, url, "ada", "ada-example-1", "--admin")
	require.Error(t, err)
	require.Contains(t, stderr, "godstack: password ", "a weak password is refused")
	_, stderr, err = createUser(t, url, "ada", "", "--admin")
	require.Error(t, err)
	require.Contains(t, stderr, "godstack: the standard input has no password")

	id, stderr, err := createUser(t, url, "ada", password, "--admin")
	require.NoError(t, err, stderr)
	_, stderr, err = createUser(t, url, "ada", password)
	require.Error(t, err)
	require.Contains(t, stderr, "godstack: another user has this email")
	other, stderr, err := createUser(t, url, "bob", password)
	require.NoError(t, err, stderr)

	// She signs in at once, though addresses have to be confirmed here, and makes others what they are.
	_, addr := serve(t, inProduction(url)...)
	c := client{addr: addr}
	c.token = c.must(t, "login", login, map[string]any{"login": "ada@example.com", "password": password})["accessToken"].(string)
	me := c.must(t, "me", `{ me { id role } }`, nil)
	require.Equal(t, map[string]any{"id": id, "role": "admin"}, me)
	const setRole = `mutation($id: ID!, $role: UserRole!) { setRole(id: $id, role: $role) { username role } }`
	require.Equal(t, map[string]any{"username": "bob", "role": "moderator"}, c.must(t, "setRole", setRole, map[string]any{"id": other, "role": "moderator"}))
	a, err := c.ask(setRole, map[string]any{"id": id, "role": "user"})
	require.NoError(t, err)
	require.Len(t, a.Errors, 1)
	require.Equal(t, "FORBIDDEN", a.Errors[0].Extensions["code"], "the last administrator stays one")
}

func TestProductionRefusesKeys(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	short, repeating := strings.Repeat("7f3a", 7), strings.Repeat("00112233445566778899aabbccddeeff", 2)
	random := testSecretKeys
	for _, c := range []struct {
		name, jwt, secret string
		says              []string
	}{
		{"missing", "", "", []string{"JWT_KEYS: required in production", "SECRET_KEYS: required in production"}},
		{"no JWT_KEYS", "", random, []string{"JWT_KEYS: required in production"}},
		{"no SECRET_KEYS", testJWTKeys, "", []string{"SECRET_KEYS: required in production"}},
		{"short", "a:EdDSA:" + short, short, []string{`JWT_KEYS: key "a" is shorter than 32 bytes`, "SECRET_KEYS: key 1 is shorter than 32 bytes"}},
		{"repeating", "a:HS256:" + repeating, repeating, []string{`JWT_KEYS: key "a" repeats itself`, "SECRET_KEYS: key 1 repeats itself"}},
		{"the second", testJWTKeys + ",b:HS256:" + repeating, random + "," + short, []string{`JWT_KEYS: key "b" repeats itself`, "SECRET_KEYS: key 2 is shorter"}},
		{"twice", testJWTKeys, random + "," + random, []string{"SECRET_KEYS: key 2 is key 1 again"}},
		{
			"default", "a:HS256:change-me-change-me-change-me-change-me", "insecure-default-secret-for-development",
			[]string{`JWT_KEYS: key "a" contains a well-known word`, "SECRET_KEYS: key 1 contains a well-known word"},
		},
		{"of the example", "2026a:EdDSA:...", "...", []string{`JWT_KEYS: key "2026a" `, "SECRET_KEYS: key 1 "}},
		{"not kid:alg:key", random, random, []string{"JWT_KEYS: key 1 is not kid:alg:material"}},
		{"no algorithm", "a:none:" + random, random, []string{`JWT_KEYS: key "a": alg must be EdDSA or HS256`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			environ := []string{"ENV=production", "ADDR=127.0.0.1:0", "PUBLIC_URL=https://example.com", "DATABASE_URL=" + url, "JWT_KEYS=" + c.jwt, "SECRET_KEYS=" + c.secret, "SMTP_URL=none"}
			require.Equal(t, 1, run(t.Context(), []string{"serve"}, environ, &stdout, &stderr))
			for _, says := range c.says {
				require.Contains(t, stderr.String(), says)
			}
			for _, key := range []string{short, repeating, random, "change-me", "insecure-default"} {
				require.NotContains(t, stderr.String(), key, "what is refused is not shown")
			}
		})
	}
}

// Two programs that start at the same time in development make one set of keys, which their owner alone may read.
func TestDevelopmentMakesKeysOnce(t *testing.T) {
	t.Parallel()
	url, dir := dbtest.URL(t), t.TempDir()
	var listen [2]func() string
	for i := range listen {
		cmd := process(t, "serve", "ADDR=127.0.0.1:0", "DATABASE_URL="+url, "PUBLIC_URL=http://localhost:8080", "LOG_LEVEL=debug")
		cmd.Dir = dir
		listen[i] = begin(t, cmd)
	}
	addrs := []string{listen[0](), listen[1]()}
	info, err := os.Stat(filepath.Join(dir, ".data", "secrets.json"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	files, err := os.ReadDir(filepath.Join(dir, ".data"))
	require.NoError(t, err)
	require.Len(t, files, 1)

	c := client{addr: addrs[0]}
	p := c.must(t, "register", `mutation($password: String!) { register(input: {email: "ada@example.com", username: "ada", name: "Ada", password: $password})
		{ accessToken refreshToken } }`, map[string]any{"password": password})
	c = client{addr: addrs[1], token: p["accessToken"].(string)}
	require.Equal(t, "ada", c.must(t, "me", `{ me { username } }`, nil)["username"])
	c.must(t, "refresh", refresh, map[string]any{"token": p["refreshToken"]})
}

// proxy passes connections on to a program, and tells of answers before it passes them on.
type proxy struct {
	net.Listener
	mu     sync.Mutex // protects to
	to     string
	answer func() (pass bool) // called when an answer begins
	all    sync.WaitGroup
}

func newProxy(t *testing.T, answer func() bool) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{Listener: ln, answer: answer}
	p.all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.all.Go(func() { p.pass(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		p.all.Wait()
	})
	return p
}

func (p *proxy) pass(c net.Conn) {
	defer func() { _ = c.Close() }()
	p.mu.Lock()
	to := p.to
	p.mu.Unlock()
	s, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	p.all.Go(func() { _, _ = io.Copy(s, c) })
	first := make([]byte, 1)
	if _, err := io.ReadFull(s, first); err != nil || !p.answer() {
		return
	}
	_, _ = c.Write(first)
	_, _ = io.Copy(c, s)
}

func (p *proxy) lead(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
}

// A program is killed in the midst of refreshes: between commit and answer, and wherever it happens to be. It is started
// again, its client tries again with the token that it has, and goes on. There are never two refresh tokens that are good.
func TestKilledWhileRefreshing(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	_, stderr, err := createUser(t, url, "ada", password)
	require.NoError(t, err, stderr)
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = db.Close(context.Background()) }()
	environ := inProduction(url, "PUBLIC_URL=https://example.com")

	var lost atomic.Pointer[func()] // what to do with an answer instead of passing it on
	p := newProxy(t, func() (pass bool) {
		kill := lost.Load()
		if kill != nil {
			(*kill)() // the answer is here: it was committed
		}
		return kill == nil
	})
	cmd, addr := serve(t, environ...)
	p.lead(addr)
	c := client{addr: p.Addr().String()}
	token := c.must(t, "login", login, map[string]any{"login": "ada", "password": password})["refreshToken"].(string)

	rotated := 0
	for _, delay := range []time.Duration{time.Minute, 0, time.Millisecond, 3 * time.Millisecond, 6 * time.Millisecond, time.Minute} {
		process := cmd.Process
		kill := sync.OnceFunc(func() { _ = process.Kill() })
		lost.Store(&kill)
		early := time.AfterFunc(delay, kill)
		_, err := c.ask(refresh, map[string]any{"token": token})
		require.Error(t, err, "the answer is lost")
		early.Stop()
		kill()
		require.Error(t, cmd.Wait())
		require.Equal(t, syscall.SIGKILL, cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
		// What Postgres still does for the one that was killed ends with its backends.
		require.Eventually(t, func() bool {
			var others int
			require.NoError(t, db.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'godstack%'`).Scan(&others))
			return others == 0
		}, 10*time.Second, time.Millisecond)
		hash := sha256.Sum256([]byte(token))
		var committed bool
		require.NoError(t, db.QueryRow(t.Context(), `SELECT rotated_at IS NOT NULL FROM refresh_tokens WHERE hash = $1`, hash[:]).Scan(&committed))
		if committed {
			rotated++
		}
		if delay == time.Minute {
			require.True(t, committed)
		}

		cmd, addr = serve(t, environ...)
		p.lead(addr)
		lost.Store(nil)
		token = c.must(t, "refresh", refresh, map[string]any{"token": token})["refreshToken"].(string)
		hash = sha256.Sum256([]byte(token))
		var leaves, mine int
		require.NoError(t, db.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE hash = $1) FROM refresh_tokens WHERE rotated_at IS NULL`, hash[:]).Scan(&leaves, &mine))
		require.Equal(t, []int{1, 1}, []int{leaves, mine}, "killed after %s", delay)
	}
	t.Logf("killed 6 times, %d of them after the commit", rotated)
	var sessions, events int
	require.NoError(t, db.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM sessions WHERE revoked_at IS NULL),
		(SELECT count(*) FROM security_events WHERE name = 'token_reuse_detected')`).Scan(&sessions, &events))
	require.Equal(t, []int{1, 0}, []int{sessions, events})
}

// manySignInAtOnce has 200 sign in at the same time, who are all answered, by a program that hashes two passwords at once.
func manySignInAtOnce(t *testing.T, bin string) {
	const logins, users = 200, 20
	url := dbtest.URL(t)
	var stdout, stderr bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"seed"}, []string{"DATABASE_URL=" + url}, &stdout, &stderr), stderr.String())
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = db.Close(context.Background()) }()
	rows, err := db.Query(t.Context(), `SELECT username FROM users ORDER BY username`)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Len(t, names, users)

	cmd := exec.CommandContext(t.Context(), bin, "serve")
	cmd.Env = inProduction(url, "TRUSTED_PROXIES=127.0.0.1", "GOMAXPROCS=2")
	addr := begin(t, cmd)()
	before := peakMemory(t, cmd.Process.Pid)
	began := time.Now()
	var (
		all   sync.WaitGroup
		again atomic.Int64
	)
	// 200 hashes are some six seconds of a processor. Where others have it, they take longer than an operation may, and those who are told so
	// come again: nobody is refused for good.
	unavailable := func(a answer) bool { return len(a.Errors) == 1 && a.Errors[0].Extensions["code"] == "UNAVAILABLE" }
	for i := range logins {
		all.Go(func() {
			c := client{addr: addr, from: fmt.Sprintf("192.0.2.%d", i)}
			var (
				a   answer
				err error
			)
			for {
				a, err = c.ask(login, map[string]any{"login": names[i%users], "password": app.SeedPassword})
				if err != nil || !unavailable(a) || time.Since(began) > 3*time.Minute {
					break
				}
				again.Add(1)
				after, _ := a.Errors[0].Extensions["retryAfter"].(float64)
				<-time.After(time.Duration(max(after, 1) * float64(time.Second)))
			}
			if err != nil || len(a.Errors) > 0 || a.Data["login"]["accessToken"] == nil {
				t.Errorf("login %d: %v, %v", i, a.Errors, err)
			}
		})
	}
	all.Wait()
	grown := peakMemory(t, cmd.Process.Pid) - before
	t.Logf("%d logins at once in %s, %d times told to come again; memory grew by %d MiB at the peak, from %d MiB",
		logins, time.Since(began).Round(time.Millisecond), again.Load(), grown>>20, before>>20)
	require.Less(t, grown, int64(logins)*19<<20/4, "a quarter of what all hashes would take")
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peakMemory is the most that a process had resident, in bytes; 0 where the system does not tell.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	m := highWater.FindSubmatch(status)
	require.NotNil(t, m)
	kb, err := strconv.ParseInt(string(m[1]), 10, 64)
	require.NoError(t, err)
	return kb << 10
}
