package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// TestMain is the servers as well: the test's binary stands for godstack and for this command.
func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	is, err := serveAs(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if !is {
		dbtest.Main(m)
	}
}

// small is as small as the operations allow.
var small = size{users: 10, threads: 200, messages: 1500}

func TestBench(t *testing.T) {
	t.Parallel()
	testBench(t, true)
}

func TestBenchWithoutRules(t *testing.T) {
	t.Parallel()
	testBench(t, false)
}

func testBench(t *testing.T, rules bool) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cfg := config{
		slice: 20 * time.Millisecond, program: self, size: small, rules: rules, temp: t.TempDir(), benchfmt: t.TempDir() + "/bench.txt",
		logLevel: "warn", only: regexp.MustCompile("^[RW]"),
	}
	r, err := bench(t.Context(), cfg)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("CPU time is counted on Linux alone")
	}
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, r.print(&out))
	for _, op := range operations {
		for _, n := range concurrencies {
			require.Regexp(t, fmt.Sprintf(`(?m)^ *%s +%d( +[\d.]+){9}$`, op.name, n), out.String())
		}
		require.Regexp(t, `(?m)^ *`+op.name+`( +[\d.]+){8}$`, out.String())
	}
	require.Regexp(t, `from start to ready: \S+s `, out.String())
	raw, err := os.ReadFile(cfg.benchfmt)
	require.NoError(t, err)
	line := regexp.MustCompile(`(?m)^BenchmarkRequest/\w+/clients=\d/(godstack|L) \d+ [\d.]+ server-us/op [\d.]+ postgres-us/op( [\d.]+ ratio)?$`)
	require.Len(t, line.FindAll(raw, -1), 2*len(operations)*len(concurrencies))
	left, err := os.ReadDir(cfg.temp)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestAnswersThatDifferAreFound(t *testing.T) {
	t.Parallel()
	const uuid, global = "0190a5c0-0000-7000-8000-000000000001", "user_01j2jw0000e008000000000001"
	read, write := &operation{name: "R"}, &operation{name: "W", writes: true}
	for _, c := range []struct {
		op   *operation
		a, b string
		says string
	}{
		{read, `{"id": "` + global + `"}`, `{"id": "` + uuid + `"}`, ""},
		{read, `{"id": "` + global + `"}`, `{"id": "0190a5c0-0000-7000-8000-000000000002"}`, "differ"},
		{read, `[{"updatedAt": "2026-01-01T00:00:00.5Z"}]`, `[{"updatedAt": "2026-01-01T01:00:00.500+01:00"}]`, ""},
		{read, `{"updatedAt": "2026-01-01T00:00:00Z"}`, `{"updatedAt": "2026-01-01T00:00:01Z"}`, "differ"},
		{write, `{"updatedAt": "2026-01-01T00:00:00Z"}`, `{"updatedAt": "2026-01-01T00:00:01Z"}`, ""},
		{write, `{"updatedAt": "2026-01-01T00:00:00Z"}`, `{"updatedAt": null}`, "differ"},
		{read, `{"a": [1, 2]}`, `{"a": [1]}`, "differ"},
		{read, `{}`, `<html>`, "L answers no JSON"},
	} {
		err := equalAnswers(c.op, [2][]byte{[]byte(c.a), []byte(c.b)})
		if c.says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.says)
		}
	}
}

func TestCPUTimeGrows(t *testing.T) {
	t.Parallel()
	before, err := cpuTime(os.Getpid())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("CPU time is counted on Linux alone")
	}
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		after, err := cpuTime(os.Getpid())
		return err == nil && after > before
	}, patience, time.Millisecond)
	_, err = cpuTime(1 << 22)
	require.ErrorContains(t, err, "clock of process")
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	require.Equal(t, 3, median([]int{5, 1, 3}))
	require.Equal(t, 2, quantile([]int{4, 3, 2, 1}, 0.25))
	require.Equal(t, 4, quantile([]int{4, 3, 2, 1}, 1))
}

// TestSockets has a few sockets hear of each update exactly once, in the order of versions: listeners fail otherwise.
func TestSockets(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	cfg := config{
		program: self, size: small, rules: true, temp: t.TempDir(), benchfmt: t.TempDir() + "/bench.txt", logLevel: "warn",
		only: regexp.MustCompile("^(S.|idle)$"), sockets: 20, spell: 100 * time.Millisecond,
	}
	r, err := bench(t.Context(), cfg)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("CPU time is counted on Linux alone")
	}
	require.NoError(t, err)
	for _, c := range r.crowds {
		require.Empty(t, c.left)
		for target, res := range c.result {
			if c.idle {
				require.NotZero(t, res.goroutines, crowdTargets[target])
				continue
			}
			require.NotZero(t, res.writes)
			require.Equal(t, res.writes*c.sockets/c.records, res.deliveries, "%s of %s", c.name, crowdTargets[target])
			require.Zero(t, res.joined)
			require.Len(t, res.delays, res.deliveries)
		}
	}
	var out bytes.Buffer
	require.NoError(t, r.print(&out))
	require.Len(t, regexp.MustCompile(`(?m)^ *S\d +(godstack|bare)( +-?[\d.]+| +-){14}$`).FindAllString(out.String(), -1), 6, out.String())
	require.Len(t, regexp.MustCompile(`(?m)^ *idle( +-?[\d.]+){6}$`).FindAllString(out.String(), -1), 2, out.String())
	raw, err := os.ReadFile(cfg.benchfmt)
	require.NoError(t, err)
	require.Len(t, regexp.MustCompile(`(?m)^BenchmarkSockets/\w+/sockets=\d+/(godstack|bare) \d+( -?[\d.]+ [\w/-]+)+$`).FindAll(raw, -1), 10)
	left, err := os.ReadDir(cfg.temp)
	require.NoError(t, err)
	require.Empty(t, left)
}

// What comes in any pieces is taken as if it came whole; what must not come is an error.
func TestSocketTakesFrames(t *testing.T) {
	t.Parallel()
	event := func(kind string, version int) string {
		return fmt.Sprintf(`{"id":"1","type":"next","payload":{"data":{"threadChanged":{"kind":%q,"version":%d,"thread":{"version":%d}}}}}`,
			kind, version, version+1)
	}
	frame := func(first byte, payload string) string {
		if len(payload) < 126 {
			return string([]byte{first, byte(len(payload))}) + payload
		}
		return string([]byte{first, 126, byte(len(payload) >> 8), byte(len(payload))}) + payload
	}
	text := func(payload string) string { return frame(final|opText, payload) }
	const head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
	start := head + text(event("SNAPSHOT", 2)) + text(`{"kind":"READY"}`)
	for _, c := range []struct{ in, says string }{
		{start + text(event("UPDATED", 3)) + text(event("UPDATED", 5)), ""},
		{start + frame(opText, event("UPDATED", 3)) + frame(final|opPong, "") + frame(final|opContinuation, "") + text(event("UPDATED", 5)), ""},
		{start + text(event("UPDATED", 3)) + text(event("UPDATED", 5)) + text(event("UPDATED", 5)), "version 5 comes after 5"},
		{start + text(event("UPDATED", 2)), "version 2 comes after 2"},
		{start + text(`{"id":"1","type":"complete"}`), "unexpected message"},
		{start + text(`{"kind":"UPDATED"}`), "no version"},
		{start + frame(final|opClose, "\x11\x94gone"), "the server closes"},
		{start + frame(final|0x3, ""), "begins with 0x83"},
		{"HTTP/1.1 403 Forbidden\r\n\r\n", "refused"},
	} {
		for size := range 4 {
			l := newListeners("")
			l.due.Store(3)
			s := &socket{listeners: l, ready: make(chan struct{})}
			var err error
			for piece := range slices.Chunk([]byte(c.in), 1+size*size*size*7) {
				if err = s.take(piece, 0); err != nil {
					break
				}
			}
			if c.says != "" {
				require.ErrorContains(t, err, c.says)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, []arrival{{version: 3}, {version: 5}}, s.heard)
			require.NoError(t, l.settle(t.Context()))
		}
	}
}

// BenchmarkRequest runs either server in this process, with one client, for profiles. Figures to compare are those of the command.
func BenchmarkRequest(b *testing.B) {
	url := dbtest.URL(b)
	d, err := fill(b.Context(), url, size{users: 1_000, threads: 20_000, messages: 100_000})
	require.NoError(b, err)
	defer d.close()
	for i := range operations {
		op := &operations[i]
		for target, name := range targetNames {
			b.Run(op.name+"/"+name, func(b *testing.B) {
				addr, stop, err := startHere(b.Context(), d, target, true, url)
				require.NoError(b, err)
				defer func() { require.NoError(b, stop()) }()
				c, err := dial(addr)
				require.NoError(b, err)
				defer c.close()
				tokens, err := d.signIn()
				require.NoError(b, err)
				random := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // no secrets
				for b.Loop() {
					in, thread := op.input(d, random, target, 0, 1)
					if _, err := c.do(op.appendRequest(nil, target, tokens, in)); err != nil {
						b.Fatal(err)
					}
					if op.writes {
						d.versions[target][thread]++
					}
				}
			})
		}
	}
}

// BenchmarkDelivery runs Godstack in this process, with sockets that all watch one record, for profiles.
func BenchmarkDelivery(b *testing.B) {
	url := dbtest.URL(b)
	d, err := fill(b.Context(), url, small)
	require.NoError(b, err)
	defer d.close()
	require.NoError(b, d.admit(b.Context()))
	addr, stop, err := startHere(b.Context(), d, godstack, true, url)
	require.NoError(b, err)
	defer func() { require.NoError(b, stop()) }()
	tokens, err := d.signIn()
	require.NoError(b, err)
	conn, err := pgx.Connect(b.Context(), url)
	require.NoError(b, err)
	defer func() { require.NoError(b, conn.Close(b.Context())) }()
	s := &stage{
		crowd: &crowd{sockets: 500, records: 1}, data: d, tokens: tokens, target: godstack, all: newListeners(addr), conns: []*pgx.Conn{conn},
		writes: make([][]write, 1),
	}
	defer s.all.close()
	require.NoError(b, s.open(b.Context(), s.sockets))
	for b.Loop() {
		if err := errors.Join(s.write(b.Context(), 0, 0), s.all.settle(b.Context())); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*s.sockets), "ns/delivery")
}
