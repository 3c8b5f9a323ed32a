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
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// TestMain is both servers as well: the test's binary stands for godstack and for this command.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && (os.Args[1] == "serve" || os.Args[1] == roleUnrestricted || os.Args[1] == roleBaseline) {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		var err error
		if os.Args[1] == roleBaseline {
			err = baselineMain(ctx, os.Stdout)
		} else {
			err = godstackMain(ctx, os.Args[1] == "serve", os.Stdout)
		}
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	dbtest.Main(m)
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
		slice: 20 * time.Millisecond, program: self, size: small, rules: rules, temp: t.TempDir(), benchfmt: t.TempDir() + "/bench.txt", logLevel: "warn",
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
