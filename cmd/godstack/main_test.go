package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/app"
	"godstack/internal/auth"
	"godstack/internal/dbtest"
	"godstack/internal/logtest"
)

func TestMain(m *testing.M) {
	if args := os.Getenv("GODSTACK_TEST_MAIN"); args != "" { // see process
		os.Args = append([]string{"godstack"}, strings.Fields(args)...)
		main()
	}
	logtest.Secret(password, app.SeedPassword, testSecretKeys, testJWTKeys[strings.LastIndexByte(testJWTKeys, ':')+1:])
	dbtest.Main(logtest.Watch(m))
}

// password is that of the tests' users.
const password = "plover-xylem 42 Dunes"

var testJWTKeys, testSecretKeys = auth.GenerateKey(), auth.GenerateSecret()

// inProduction is an environment for a database.
func inProduction(url string, more ...string) []string {
	return append([]string{
		"ENV=production", "ADDR=127.0.0.1:0", "PUBLIC_URL=http://localhost:8080", "LOG_LEVEL=debug", "DATABASE_URL=" + url, "JWT_KEYS=" + testJWTKeys, "SECRET_KEYS=" + testSecretKeys,
		"SMTP_URL=none", "SHUTDOWN_DELAY=0",
	}, more...)
}

func TestVersion(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"version"}, nil, &stdout, &stderr))
	require.Regexp(t, `^godstack .*go1\.`, stdout.String())
	require.Empty(t, stderr.String())

	require.Equal(t, "godstack, of an unknown build", version(nil))
	require.Equal(t, "godstack v1.2.0, commit abc with changes of 2026-01-02T03:04:05Z, go1.26.0", version(&debug.BuildInfo{
		GoVersion: "go1.26.0", Main: debug.Module{Version: "v1.2.0"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: "true"}},
	}))
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args    []string
		environ []string
		says    string
	}{
		{[]string{"sevre"}, nil, `godstack: unknown command "sevre" for "godstack"`},
		{[]string{"serve", "now"}, nil, "godstack: unknown command"},
		{[]string{"serve", "--port", "1"}, nil, "godstack: unknown flag: --port"},
		{[]string{"serve"}, []string{"ENV=x"}, "godstack: environment: ENV:"},
		{[]string{"migrate"}, []string{"ENV=production"}, "godstack: environment: DATABASE_URL: required"},
		{[]string{"migrate"}, []string{"DATABASE_URL=postgres://localhost:x/"}, "godstack: environment: DATABASE_URL: no address"},
		{
			[]string{"serve"}, inProduction("postgres://localhost/godstack", "SMTP_URL="),
			"godstack: SMTP_URL: required in production; none, where no mail is to be sent",
		},
		{
			[]string{"serve"}, inProduction("postgres://localhost/godstack", "SMTP_URL=smtps://smtp.example.com"),
			"godstack: MAIL_FROM: required where SMTP_URL is a server's",
		},
		{[]string{"serve"}, []string{"PUBSUB=redis"}, "godstack: REDIS_URL: required where PUBSUB is redis"},
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, 1, run(t.Context(), c.args, c.environ, &stdout, &stderr), c.args)
		require.Contains(t, stderr.String(), c.says)
		require.Empty(t, stdout.String())
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	environ := []string{"ENV=production", "DATABASE_URL=" + dbtest.URL(t)}
	require.Zero(t, run(t.Context(), []string{"migrate"}, environ, &stdout, &stderr), stderr.String())
	require.Equal(t, "0 migrations applied\n", stdout.String())
}

func TestServeUntilTheContextIsDone(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	stdout, w := io.Pipe()
	var stderr bytes.Buffer
	code := make(chan int, 1)
	url := dbtest.URL(t)
	go func() {
		code <- run(ctx, []string{"serve"}, inProduction(url), w, &stderr)
		_ = w.Close()
	}()
	banner := make([]byte, 4096)
	n, err := stdout.Read(banner)
	require.NoError(t, err)
	lines := strings.Fields(string(banner[:n])) // Listening, and where
	resp, err := http.Post("http://"+lines[1]+"/graphql", "application/json", strings.NewReader(`{"query": "{ __typename }"}`))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	require.Equal(t, 200, resp.StatusCode)
	stop()
	require.Zero(t, <-code, stderr.String())
	require.Contains(t, stderr.String(), `"msg":"request"`, "logs are JSON in production")
	_, _ = logtest.Writer().Write(stderr.Bytes())
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	database := dbtest.URL(t)
	_, addr := serve(t, inProduction(database)...)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"healthy"}, "ok\n"},
		{[]string{"healthy", "--ready"}, "ready\n"},
		{[]string{"healthy", "--addr", addr, "--ready"}, "ready\n"},
	} {
		var stdout, stderr bytes.Buffer
		require.Zero(t, run(t.Context(), c.args, inProduction(database, "ADDR="+addr), &stdout, &stderr), stderr.String())
		require.Equal(t, c.says, stdout.String())
	}
	var stdout, stderr bytes.Buffer
	require.Equal(t, 1, run(t.Context(), []string{"healthy"}, inProduction(database), &stdout, &stderr))
	require.Equal(t, "godstack: nobody knows the port of \"127.0.0.1:0\"\n", stderr.String())
}

func TestLogs(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := newLogger(config{Env: development, LogLevel: level(slog.LevelWarn)}, &b)
	log.Info("no")
	log.Warn("yes", "n", 1)
	require.Regexp(t, `^time=\S+ level=WARN msg=yes n=1\n$`, b.String())
}

// process is the test's binary as the program.
func process(t *testing.T, args string, environ ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append([]string{"GODSTACK_TEST_MAIN=" + args}, environ...)
	return cmd
}

var listening = regexp.MustCompile(`msg"?[=:]"?listening"?.*?(127\.0\.0\.1:\d+)`)

// serve runs the program until the test ends it, and returns it with its address.
func serve(t *testing.T, environ ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := process(t, "serve", environ...)
	return cmd, begin(t, cmd)()
}

// begin starts a program that serves. Its log is looked at; what is returned waits for the address.
func begin(t *testing.T, cmd *exec.Cmd) (listens func() string) {
	t.Helper()
	pipe, w, err := os.Pipe()
	require.NoError(t, err)
	log := io.MultiWriter(t.Output(), logtest.Writer())
	cmd.Stderr = w
	require.NoError(t, cmd.Start())
	require.NoError(t, w.Close())
	addr := make(chan string, 1)
	var read sync.WaitGroup
	read.Go(func() {
		defer close(addr)
		for s := bufio.NewScanner(pipe); s.Scan(); {
			_, _ = log.Write(append(s.Bytes(), '\n'))
			if m := listening.FindStringSubmatch(s.Text()); m != nil {
				addr <- m[1]
			}
		}
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // unless it has ended
		_ = cmd.Wait()
		read.Wait()
		_ = pipe.Close()
	})
	return func() string {
		a, ok := <-addr
		require.True(t, ok, "it ends before it listens")
		return a
	}
}

func TestASignalStopsTheProgram(t *testing.T) {
	t.Parallel()
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		cmd, _ := serve(t, inProduction(dbtest.URL(t))...)
		require.NoError(t, cmd.Process.Signal(s))
		require.NoError(t, cmd.Wait(), "exits with 0")
	}
}

func TestASecondSignalKillsAtOnce(t *testing.T) {
	t.Parallel()
	cmd, addr := serve(t, inProduction(dbtest.URL(t))...)
	// A request whose body never comes keeps the shutdown waiting.
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "100 Continue")

	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}, 10*time.Second, time.Millisecond, "the first signal closes the listener")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, syscall.SIGINT, exit.Sys().(syscall.WaitStatus).Signal())
}

// TestASecondSignalEndsTheDelay: a node that waits for balancers to notice answers meanwhile, and ends at once when it is told again.
func TestASecondSignalEndsTheDelay(t *testing.T) {
	t.Parallel()
	cmd, addr := serve(t, inProduction(dbtest.URL(t), "SHUTDOWN_DELAY=1h", "SHUTDOWN_TIMEOUT=2h")...)
	ready := func() (line string) {
		var stdout, stderr bytes.Buffer
		_ = run(t.Context(), []string{"healthy", "--ready", "--addr", addr}, nil, &stdout, &stderr)
		return stdout.String() + stderr.String()
	}
	require.Equal(t, "ready\n", ready())
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool { return ready() == "godstack: not ready: it is draining\n" }, 10*time.Second, time.Millisecond)
	resp, err := http.Post("http://"+addr+"/graphql", "application/json", strings.NewReader(`{"query": "{ threads { totalCount } }"}`))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	require.True(t, resp.Close)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, syscall.SIGTERM, exit.Sys().(syscall.WaitStatus).Signal())
}
