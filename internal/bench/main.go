// Command bench measures what requests and sockets cost Godstack, as ratios to servers written by hand. It says figures and judges none.
//
// Requests are compared to L: a handler on net/http and pgx whose JSON Postgres builds (baseline.go), on the same data. Sockets are
// compared to a bare server that writes bytes it is given to each of them (broadcast.go).
//
// Guarantees:
//   - What is compared are processes of their own, reached on loopback with connections kept alive. Of requests, their turns alternate
//     within one run, so that a ratio compares slices that are a moment apart; each crowd of sockets has fresh servers, one after another.
//   - CPU time is as the kernel counts it, and the load's is not in it: of requests that of the server's process and of its Postgres
//     backends together, of sockets that of the server's process, with the backends' beside it.
//   - Requests to Godstack are made as those of signed-in users: what is read by a member of all threads who owns none, what is written by
//     the thread's owner. Each shows an access token, which is verified, and is held to the access rules (unless -rules=false) and counted
//     by the rate limit, which is never reached. The baseline asks nobody who they are and filters nothing.
//   - Sockets are those of a few signed-in members of all threads, with one subscription each. Writers update threads by SQL; a delay
//     begins when their statement has returned, and ends when the event has been read.
//   - Before requests are measured, both have given equal answers (TestAnswersThatDifferAreFound). Each socket has heard of each update,
//     once and in the order of versions, or of a later one in its place, which is counted (TestSockets, TestSocketTakesFrames).
//   - Requests take about as long as -duration says, and updates for sockets as -spell says; what does not come within 30 s is an error.
//     Neither a process nor a file is left behind (TestBench, TestSockets).
//
// The processes' CPU clocks are Linux's. The benchmarks of this package's tests run one server in their own process, for profiles:
//
//	go test -run - -bench Request/W1/godstack -cpuprofile w1.pprof ./internal/bench
//	go test -run - -bench Delivery -cpuprofile delivery.pprof ./internal/bench
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
	"slices"
	"syscall"
	"time"

	"godstack/internal/devdb"
	"godstack/migrations"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
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
	only     *regexp.Regexp // which operations and crowds; nil for all
	sockets  int            // of a crowd
	spell    time.Duration  // how long a crowd is written to
	temp     string         // where the run's folder is made; the system's default if empty
	size     size
}

// run executes the command and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	is, err := serveAs(ctx, args, stdin, stdout)
	if !is {
		var cfg config
		flags := flag.NewFlagSet("bench", flag.ContinueOnError)
		flags.SetOutput(stderr)
		flags.DurationVar(&cfg.duration, "duration", time.Minute, "about how long requests are measured, with all that comes before")
		flags.DurationVar(&cfg.slice, "slice", 250*time.Millisecond, "length of one turn")
		flags.StringVar(&cfg.program, "godstack", "", "`path` of the program; built from this module if empty")
		flags.StringVar(&cfg.logLevel, "log-level", "warn", "LOG_LEVEL of the program; info is its default and writes a line a request")
		flags.BoolVar(&cfg.durable, "durable", false, "let commits wait for the disk")
		flags.BoolVar(&cfg.rules, "rules", true, "hold who asks to the access rules; false serves Godstack from this program, without them")
		flags.StringVar(&cfg.benchfmt, "benchfmt", "", "also write each slice to this `file`, for benchstat")
		flags.Func("run", "measure only operations and sockets whose name matches this `regexp`, as in S1|idle", func(s string) (err error) {
			cfg.only, err = regexp.Compile(s)
			return err
		})
		flags.IntVar(&cfg.sockets, "sockets", 5_000, "how many sockets S1, S2 and S3 have")
		flags.DurationVar(&cfg.spell, "spell", 10*time.Second, "how long a crowd of sockets is written to")
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

// serveAs is the program in one of its roles, and says whether args are one.
func serveAs(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) (is bool, err error) {
	if len(args) != 1 {
		return false, nil
	}
	switch args[0] {
	case roleGodstack, roleUnrestricted:
		return true, godstackMain(ctx, args[0] == roleGodstack, stdin, stdout)
	case roleBaseline:
		return true, baselineMain(ctx, stdout)
	case roleBroadcast:
		return true, broadcastMain(ctx, stdin, stdout)
	}
	return false, nil
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

	if cfg.program == "" && cfg.rules && slices.ContainsFunc(operations, func(o operation) bool { return cfg.includes(o.name) }) {
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

	r = &report{cfg: cfg, data: d}
	for i := range operations {
		if !cfg.includes(operations[i].name) {
			continue
		}
		for _, n := range concurrencies {
			r.series = append(r.series, &series{op: &operations[i], clients: n})
		}
	}
	for _, c := range crowds(cfg.sockets) {
		if cfg.includes(c.name) {
			r.crowds = append(r.crowds, c)
		}
	}
	if len(r.series) == 0 && len(r.crowds) == 0 {
		return nil, fmt.Errorf("nothing matches %s", cfg.only)
	}
	if len(r.crowds) > 0 && (cfg.sockets < 1 || cfg.spell < minSpell) {
		return nil, fmt.Errorf("a crowd has at least one socket, and a spell of %s", minSpell)
	}
	if len(r.series) > 0 {
		if err := r.measureRequests(ctx, url, dir, deadline); err != nil {
			return nil, err
		}
	}
	if len(r.crowds) > 0 {
		if err := r.measureCrowds(ctx, url); err != nil {
			return nil, err
		}
	}
	if cfg.benchfmt != "" {
		return r, r.writeBenchfmt(cfg.benchfmt)
	}
	return r, nil
}

func (c config) includes(name string) bool { return c.only == nil || c.only.MatchString(name) }

func (r *report) measureRequests(ctx context.Context, url, dir string, deadline time.Time) (err error) {
	servers, starts, err := startBoth(ctx, r.cfg, r.data, url)
	defer func() { err = errors.Join(err, servers.stop()) }()
	if err != nil {
		return err
	}
	r.starts = starts
	if err := servers.rss(&r.idle); err != nil {
		return err
	}
	if err := checkAnswers(r.data, servers); err != nil {
		return err
	}
	if r.counts, err = countAll(ctx, r.data, r.cfg.rules, url, dir); err != nil {
		return err
	}
	if err := measure(ctx, r, servers, deadline); err != nil {
		return err
	}
	return servers.rss(&r.loaded)
}
