// Package devdb runs a private PostgreSQL cluster for development and tests.
//
// Guarantees:
//   - The cluster listens on a unix socket in a folder that only its user may enter, on no network address and with no password.
//   - It keeps its data: a later [Start] on the same folder finds what an earlier one left.
//   - One owner at a time: a second Start on a running cluster answers [ErrInUse] with the process id of the server.
//   - An owned server ends with its owner: on Linux the kernel stops it even where the owner is killed with SIGKILL; elsewhere the
//     next Start stops the orphan and goes on. Ctrl-C in a terminal reaches the owner alone, which decides when the server stops.
//   - It never runs as root: then the server's user is the folder's owner, or else postgres, or else nobody.
//
// It may import pgx and embedded-postgres, and nothing of this module.
package devdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrInUse is answered where another process, or another [Cluster] of this one, owns the folder.
var ErrInUse = errors.New("postgres folder is in use")

// superuser is the role that owns everything in a private cluster.
const superuser = "postgres"

// pollEvery is how often files and processes of the server are looked at while waiting for them.
const pollEvery = 10 * time.Millisecond

// harderAfter is how long an immediate shutdown, or a kill, may take.
const harderAfter = 10 * time.Second

// Config says which cluster to run, and how.
type Config struct {
	// Dir is the cluster's folder: data, socket and log. It is made if missing and must be empty or a cluster's. Where the server
	// runs as another user who cannot reach it, a folder below the system's temporary one is taken instead, named after Dir.
	Dir string

	// Unsafe trades durability for speed: fsync, full_page_writes and synchronous_commit are off. For tests: a crash of the
	// machine, not of the server, can ruin the data.
	Unsafe bool

	// Detached lets the server outlive this process, until some process calls [Cluster.Stop]. Start then takes a server that
	// already runs as its own.
	Detached bool

	// Settings are server settings besides, or instead of, the ones that devdb chooses, as in postgresql.conf. They do not reach a
	// detached server that already runs.
	Settings map[string]string

	// Logger is told what devdb does. Default: nothing is logged. The server's own log is the file postgres.log in the folder.
	Logger *slog.Logger
}

// Cluster is a running server.
type Cluster struct {
	cfg     Config
	account *account
	dir     string
	data    string
	sockets string
	lock    *os.File // held while this process owns the server, or starts or stops a detached one

	server  *os.Process   // an owned server
	exited  chan struct{} // closed when an owned server has ended; nil for a detached one
	exitErr error         // what Wait said; to be read once exited is closed

	mu      sync.Mutex // protects the fields below; held for the length of Stop
	stopped bool
	stopErr error
}

// Start runs the cluster in cfg.Dir and returns when it accepts connections; ctx bounds the start alone. A new cluster takes about a
// second, an existing one a tenth of that. Errors are one line long and say what to do.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.Dir == "" {
		return nil, errors.New("start postgres: no folder given")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	acct, dir, err := prepare(ctx, cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	if given, err := filepath.Abs(cfg.Dir); err == nil && given != dir {
		cfg.Logger.WarnContext(ctx, "postgres runs in another folder: its user cannot reach the one given", "given", given, "dir", dir)
	}
	c := &Cluster{cfg: cfg, account: acct, dir: dir, data: filepath.Join(dir, "data")}
	if err := c.acquire(ctx); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start postgres: %w", err), c.release())
	}
	if cfg.Detached {
		if err := c.release(); err != nil {
			return nil, fmt.Errorf("start postgres: %w", err)
		}
	}
	return c, nil
}

// Dir is the folder that the cluster is in: Config.Dir made absolute, or the one taken instead.
func (c *Cluster) Dir() string { return c.dir }

// URL is the connection string of a database, which must exist: "postgres" always does.
func (c *Cluster) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database, RawQuery: url.Values{"host": {c.sockets}}.Encode()}
	return u.String()
}

// CreateDatabase makes an empty database, unless it exists.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, c.URL(superuser))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	const duplicateDatabase = "42P04"
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == duplicateDatabase {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// Done is closed when an owned server has ended, by [Cluster.Stop] or on its own; [Cluster.Err] tells which. It is nil, which blocks
// for ever, for a detached server.
func (c *Cluster) Done() <-chan struct{} { return c.exited }

// Err says why the server ended although nobody stopped it. It is nil before [Cluster.Done] is closed and after a Stop.
func (c *Cluster) Err() error {
	if !c.ended() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil
	}
	return fmt.Errorf("postgres ended by itself, see %s: %w", c.logFile(), cmp.Or(c.exitErr, errors.New("exit status 0")))
}

// Stop ends the server: a fast shutdown, which breaks open connections, and an immediate one when ctx ends first; the error says so
// then. The server is gone when Stop returns. Calling it again does nothing and returns the same.
func (c *Cluster) Stop(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return c.stopErr
	}
	c.stopped = true
	if c.cfg.Detached {
		if c.stopErr = c.acquire(ctx); c.stopErr != nil {
			c.stopErr = fmt.Errorf("stop postgres: %w", c.stopErr)
			return c.stopErr
		}
	}
	if err := errors.Join(c.shutdown(ctx), c.release()); err != nil {
		c.stopErr = fmt.Errorf("stop postgres: %w", err)
	}
	return c.stopErr
}

// acquire takes the folder's lock, which the system takes back from a process that dies.
func (c *Cluster) acquire(ctx context.Context) error {
	path := filepath.Join(c.dir, lockName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := c.account.own(path); err != nil {
		return errors.Join(err, f.Close())
	}
	err = poll(ctx, func() (bool, error) {
		locked, err := tryLock(f)
		if err == nil && !locked && !c.cfg.Detached {
			err = c.inUse()
		}
		return locked, err
	})
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w: %w", c.inUse(), err)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	c.lock = f
	return nil
}

func (c *Cluster) release() error {
	if c.lock == nil {
		return nil
	}
	defer func() { c.lock = nil }()
	return c.lock.Close()
}

func (c *Cluster) inUse() error {
	state, ok := c.state()
	if !ok {
		return fmt.Errorf("%w: %s, by a process that is starting it", ErrInUse, c.dir)
	}
	return fmt.Errorf("%w: %s, by the server with pid %d; stop the process that started it first", ErrInUse, c.dir, state.pid)
}

// arguments of the server, in a fixed order.
func (c *Cluster) arguments() []string {
	settings := map[string]string{
		"listen_addresses":        "",
		"unix_socket_directories": c.sockets,
		"unix_socket_permissions": "0700",
		"max_connections":         "200",
		"shared_buffers":          "128MB",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
	}
	if c.cfg.Unsafe {
		for _, name := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
			settings[name] = "off"
		}
	}
	maps.Copy(settings, c.cfg.Settings)
	args := []string{"-D", c.data, "-p", strconv.Itoa(port)}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// poll calls until every [pollEvery] until it answers true or an error, or ctx ends.
func poll(ctx context.Context, until func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if done, err := until(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
