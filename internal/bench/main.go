// Command bench measures what requests cost Godstack, as ratios to L: a hand-written handler on net/http and pgx whose JSON Postgres
// builds (baseline.go), on the same data. It says figures and judges none.
//
// Guarantees:
//   - Both are processes of their own, reached over HTTP on loopback with connections kept alive; their turns alternate within one run,
//     so that a ratio compares slices that are a moment apart.
//   - CPU time is that of the server's process and of its Postgres backends together, as the kernel counts it; the load's is not in it.
//   - Requests to Godstack are made as those of signed-in users: what is read by a member of all threads who owns none, what is written by
//     the thread's owner. Each shows an access token, which is verified, and is held to the access rules (unless -rules=false) and counted
//     by the rate limit, which is never reached. The baseline asks nobody who they are and filters nothing.
//   - Before anything is measured, both have given equal answers (TestAnswersThatDifferAreFound).
//   - It ends about when -duration says, and leaves neither a process nor a file behind (TestBench).
//
// The processes' CPU clocks are Linux's. The benchmarks of this package's tests run one server in their own process, for profiles:
//
//	go test -run - -bench Request/W1/godstack -cpuprofile w1.pprof ./internal/bench
//
// It may import everything but cmd; nothing imports it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"godstack/internal/devdb"
	"godstack/migrations"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// config is what a run measures.
type config struct {
	duration time.Duration  // of the whole run, about
	slice    time.Duration  // of one turn
	program  string         // the path of godstack; built where it is empty
	logLevel string         // of godstack
	durable  bool           // commits wait for the disk
	rules    bool           // who asks is held to the access rules
	benchfmt string         // a file for benchstat
	only     *regexp.Regexp // which operations; nil for all
	temp     string         // where the run's folder is made; the system's default if empty
	size     size
}

// run executes the command and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var err error
	switch {
	case len(args) == 1 && args[0] == roleBaseline:
		err = baselineMain(ctx, stdout)
	case len(args) == 1 && args[0] == roleUnrestricted:
		err = godstackMain(ctx, false, stdout)
	default:
		var cfg config
		flags := flag.NewFlagSet("bench", flag.ContinueOnError)
		flags.SetOutput(stderr)
		flags.DurationVar(&cfg.duration, "duration", time.Minute, "about how long the whole run takes")
		flags.DurationVar(&cfg.slice, "slice", 250*time.Millisecond, "length of one turn")
		flags.StringVar(&cfg.program, "godstack", "", "`path` of the program; built from this module if empty")
		flags.StringVar(&cfg.logLevel, "log-level", "warn", "LOG_LEVEL of the program; info is its default and writes a line a request")
		flags.BoolVar(&cfg.durable, "durable", false, "let commits wait for the disk")
		flags.BoolVar(&cfg.rules, "rules", true, "hold who asks to the access rules; false serves Godstack from this program, without them")
		flags.StringVar(&cfg.benchfmt, "benchfmt", "", "also write each slice to this `file`, for benchstat")
		flags.Func("run", "measure only operations whose name matches this `regexp`", func(s string) (err error) {
			cfg.only, err = regexp.Compile(s)
			return err
		})
		cfg.size = size{users: 1_000, threads: 20_000, messages: 100_000}
		if flags.Parse(args) != nil {
			return 2
		}
		var r *report
		if r, err = bench(ctx, cfg); err == nil {
			err = r.print(stdout) // nothing is left to clean up then, should nobody read it
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// bench does a whole run.
func bench(ctx context.Context, cfg config) (r *report, err error) {
	deadline := time.Now().Add(cfg.duration)
	if _, err := cpuTime(os.Getpid()); err != nil {
		return nil, fmt.Errorf("read CPU time: %w", err)
	}
	dir, err := os.MkdirTemp(cfg.temp, "godstack-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // where this is root, Postgres is another user, who has to pass
		return nil, err
	}

	if cfg.program == "" && cfg.rules {
		cfg.program = filepath.Join(dir, "godstack")
		build := exec.CommandContext(ctx, "go", "build", "-o", cfg.program, "godstack/cmd/godstack")
		if said, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build godstack: %w\n%s", err, said)
		}
	}
	// Vacuuming would fall into some slices and not into others.
	cluster, err := devdb.Start(ctx, devdb.Config{
		Dir: filepath.Join(dir, "postgres"), Unsafe: !cfg.durable, Settings: map[string]string{"autovacuum": "off", "max_wal_size": "4GB"},
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, cluster.Stop(context.WithoutCancel(ctx)))
		err = errors.Join(err, os.RemoveAll(cluster.Dir())) // elsewhere if Postgres cannot reach dir
	}()
	if err := cluster.CreateDatabase(ctx, "bench"); err != nil {
		return nil, err
	}
	url := cluster.URL("bench")
	if _, err := migrations.Up(ctx, url); err != nil {
		return nil, err
	}
	d, err := fill(ctx, url, cfg.size)
	if err != nil {
		return nil, err
	}
	defer d.close()

	servers, starts, err := startBoth(ctx, cfg, d, url)
	defer func() { err = errors.Join(err, servers.stop()) }()
	if err != nil {
		return nil, err
	}
	r = &report{cfg: cfg, data: d, starts: starts}
	if err := servers.rss(&r.idle); err != nil {
		return nil, err
	}
	if err := checkAnswers(d, servers); err != nil {
		return nil, err
	}
	if r.counts, err = countAll(ctx, d, cfg.rules, url, dir); err != nil {
		return nil, err
	}
	if err := measure(ctx, r, servers, deadline); err != nil {
		return nil, err
	}
	if err := servers.rss(&r.loaded); err != nil {
		return nil, err
	}
	if cfg.benchfmt != "" {
		return r, r.writeBenchfmt(cfg.benchfmt)
	}
	return r, nil
}
