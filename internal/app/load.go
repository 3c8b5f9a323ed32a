package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"godstack/internal/server"
	"godstack/internal/turn"
)

// Timeouts bound what a connection of the pool may do to the rest, on the server's side: also where the node that asked is gone. Zero is the
// default, negative for ever. What DATABASE_URL says of the same settings stands.
type Timeouts struct {
	// Statement is how long a statement may take, and how long a transaction may wait for its next one (statement_timeout,
	// idle_in_transaction_session_timeout). Default a minute.
	Statement time.Duration
	// Transaction is how long a transaction may take (transaction_timeout, which Postgres has from 17 on). Default two minutes.
	Transaction time.Duration
}

const (
	// defaultConnections is how many connections the pools have where DATABASE_URL does not say.
	defaultConnections = 10
	// mostReserved is how many of them are for what has to go on.
	mostReserved = 2
	// closing is the part of a shutdown in which connections to the database are closed, when all else has ended.
	closing = time.Second
	// shortestShutdown is what is left of a shutdown beside the delay and closing sockets.
	shortestShutdown = closing + time.Second
)

// set has new connections begin with the timeouts. It is a statement rather than part of the connection's beginning, as poolers refuse
// connections that begin with settings they do not know, and as it depends on Postgres' version which there are.
func (t Timeouts) set(cfg *pgxpool.Config) {
	statement, transaction := bound(t.Statement, time.Minute), bound(t.Transaction, 2*time.Minute)
	before := cfg.AfterConnect
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		if before != nil {
			if err := before(ctx, c); err != nil {
				return err
			}
		}
		var calls []string
		add := func(name, value string) {
			if said := c.Config().RuntimeParams; said[name] == "" && !strings.Contains(said["options"], name) {
				calls = append(calls, fmt.Sprintf("set_config('%s', '%s', false)", name, value))
			}
		}
		add("statement_timeout", statement)
		add("idle_in_transaction_session_timeout", statement)
		if majorVersion(c.PgConn().ParameterStatus("server_version")) >= 17 {
			add("transaction_timeout", transaction)
		}
		if len(calls) == 0 {
			return nil
		}
		if _, err := c.Exec(ctx, "SELECT "+strings.Join(calls, ", ")); err != nil {
			return fmt.Errorf("set timeouts: %w", err)
		}
		return nil
	}
}

// majorVersion is that of a text such as 17.2 (Debian 17.2-1) or 18beta1; 0 of another.
func majorVersion(text string) int {
	end := strings.IndexFunc(text, func(c rune) bool { return c < '0' || c > '9' })
	if end < 0 {
		end = len(text)
	}
	n, _ := strconv.Atoi(text[:end])
	return n
}

// bound is a timeout as Postgres has it, in milliseconds.
func bound(d, initial time.Duration) string {
	return strconv.FormatInt(max(cmp.Or(d, initial), 0).Milliseconds(), 10)
}

// split returns the pool for operations and jobs, and that for what has to go on: readiness, leases of jobs, whose session has ended,
// signing out. What is asked by each request is not among that: it would take the reserve as well. Together they have as many connections as DATABASE_URL says, and two at least.
func split(cfg *pgxpool.Config) (own, reserved *pgxpool.Config) {
	own, reserved = cfg.Copy(), cfg.Copy()
	reserved.MaxConns = mostReserved
	if cfg.MaxConns < 6 {
		reserved.MaxConns = 1
	}
	own.MaxConns = max(1, cfg.MaxConns-reserved.MaxConns)
	own.MinConns = min(own.MinConns, own.MaxConns)
	own.MinIdleConns = min(own.MinIdleConns, own.MaxConns)
	reserved.MinConns, reserved.MinIdleConns = 0, 0
	return own, reserved
}

// turns is how many operations run at the same time on a pool where cfg does not say: as many as there are connections, less one by which
// changes are delivered, and one by which jobs are heard of.
func (c Config) turns(pool *pgxpool.Pool) int {
	n := int(pool.Config().MaxConns) - 1
	if c.Role != RoleServe && c.ListenURL == "" {
		n--
	}
	return max(1, n)
}

// shutdown is how long everything may take to end.
func (c Config) shutdown() time.Duration {
	return cmp.Or(c.Server.ShutdownTimeout, server.DefaultShutdownTimeout)
}

// jobsEnd is how long jobs may go on at a stop, and how long they may take to end when they may not.
func (c Config) jobsEnd() (soft, hard time.Duration) {
	rest := c.shutdown() - closing
	hard = rest / 4
	return rest - 2*hard, hard // and as long to take leave
}

// checkLoad sees to it that the times fit into each other.
func (c Config) checkLoad() error {
	s := c.Server
	total := c.shutdown()
	least := s.ShutdownDelay + cmp.Or(s.ShutdownSpread, server.DefaultShutdownSpread) + shortestShutdown
	if total < least {
		return fmt.Errorf("SHUTDOWN_TIMEOUT: %s is less than %s: SHUTDOWN_DELAY, %s in which sockets are closed, and %s for what runs",
			total, least, cmp.Or(s.ShutdownSpread, server.DefaultShutdownSpread), shortestShutdown)
	}
	timeout := cmp.Or(s.OperationTimeout, server.DefaultOperationTimeout)
	if s.Load.Patience > timeout { // the wait is part of it
		return fmt.Errorf("OPERATION_WAIT: %s is more than REQUEST_TIMEOUT, %s", s.Load.Patience, timeout)
	}
	return nil
}

// load registers how many operations run, wait and were refused.
func (m *metrics) load(srv *server.Server, c *core) {
	gauge := func(name, help string, f func(turn.Stats) int) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "godstack", Name: name, Help: help},
			func() float64 { return float64(f(srv.Load())) }))
	}
	gauge("turns_taken", "Turns of operations that run.", func(s turn.Stats) int { return s.Taken })
	gauge("turns_limit", "Turns that there are.", func(s turn.Stats) int { return s.Turns })
	gauge("turns_waiting", "Operations that wait for a turn.", func(s turn.Stats) int { return s.Waiting })
	refused := func(reason string, f func() uint64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "godstack", Name: "operations_refused_total", Help: "Operations refused since there was too much to do.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(f()) }))
	}
	for _, why := range turn.Reasons() {
		refused(string(why), func() uint64 { return srv.Load().Refused[why] })
	}
	refused("passwords", func() (n uint64) {
		for _, of := range c.accounts.passwords.Load().Refused {
			n += of
		}
		return n
	})
}

// bounded calls f, and returns when it does; or, with an error, some time after ctx was done.
func bounded(ctx context.Context, timeout time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	over := time.NewTimer(timeout)
	defer over.Stop()
	select {
	case err := <-done:
		return err
	case <-over.C:
		return errStillRuns
	}
}

// errStillRuns is the end of a program of which something does not end.
var errStillRuns = errors.New("SHUTDOWN_TIMEOUT is over, and not everything has ended")
