package operator

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// reportInterval is how often a node says how it is.
	reportInterval = 5 * time.Second
	// silence is after what time without a word a node counts as silent.
	silence = 4 * reportInterval
	// forgotten is after what time the row of a silent one goes.
	forgotten = time.Hour
)

// Report is how a node is.
type Report struct {
	Problem       string // what keeps it from serving; "" for nothing
	Sockets       int    // WebSockets that are open
	EventStreams  int
	Operations    int           // that run over WebSockets
	Subscriptions int           // to records, over either
	Lag           time.Duration // age of the last read of the change log
	JobsRunning   int
}

// Identity is what a node is.
type Identity struct {
	Host    string // where it runs
	Role    string // what of the program
	Version string
}

// Reporter tells operators how a node is, by a row of the table nodes.
type Reporter struct {
	pool   *pgxpool.Pool
	id     uuid.UUID
	is     Identity
	report func(context.Context) Report
	log    *slog.Logger
}

// NewReporter returns a reporter that asks report every five seconds once it runs.
func NewReporter(pool *pgxpool.Pool, is Identity, report func(context.Context) Report, log *slog.Logger) *Reporter {
	return &Reporter{pool: pool, id: uuid.Must(uuid.NewV7()), is: is, report: report, log: log}
}

// Run reports until ctx is done, and takes leave then. What cannot be said is logged: the node works all the same.
func (r *Reporter) Run(ctx context.Context) error {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		if err := r.say(ctx); err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "report to operators", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportInterval)
			defer cancel()
			if _, err := r.pool.Exec(leave, `DELETE FROM nodes WHERE id = $1`, r.id); err != nil {
				r.log.WarnContext(leave, "take leave of operators", "error", err)
			}
			return nil
		}
	}
}

// say writes the row, and removes those that are forgotten.
func (r *Reporter) say(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportInterval)
	defer cancel()
	now := r.report(ctx)
	_, err := r.pool.Exec(ctx, `
		WITH gone AS (DELETE FROM nodes WHERE seen_at < now() - $12::interval AND id <> $1)
		INSERT INTO nodes (id, host, role, version, problem, sockets, event_streams, operations, subscriptions, lag_ms, jobs_running)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (id) DO UPDATE SET seen_at = now(), problem = $5, sockets = $6, event_streams = $7, operations = $8, subscriptions = $9,
			lag_ms = $10, jobs_running = $11`,
		r.id, r.is.Host, r.is.Role, r.is.Version, now.Problem, now.Sockets, now.EventStreams, now.Operations, now.Subscriptions,
		now.Lag.Milliseconds(), now.JobsRunning, forgotten)
	if err != nil {
		return fmt.Errorf("write node: %w", err)
	}
	return nil
}

// Node is a node as it last said.
type Node struct {
	Identity
	Report
	ID        uuid.UUID
	StartedAt time.Time
	SeenAt    time.Time
	Silent    bool // it has not been heard of for 20 s
}

// ReadNodes returns the nodes, those that began first before others.
func ReadNodes(ctx context.Context, pool *pgxpool.Pool) ([]*Node, error) {
	rows, err := pool.Query(ctx, `SELECT id, host, role, version, started_at, seen_at, seen_at < now() - $1::interval, problem, sockets,
		event_streams, operations, subscriptions, lag_ms, jobs_running FROM nodes ORDER BY started_at, id`, silence)
	if err != nil {
		return nil, fmt.Errorf("read nodes: %w", err)
	}
	nodes, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Node, error) {
		n, lag := &Node{}, int64(0)
		err := row.Scan(&n.ID, &n.Host, &n.Role, &n.Version, &n.StartedAt, &n.SeenAt, &n.Silent, &n.Problem, &n.Sockets,
			&n.EventStreams, &n.Operations, &n.Subscriptions, &lag, &n.JobsRunning)
		n.Lag = time.Duration(lag) * time.Millisecond
		return n, err
	})
	if err != nil {
		return nil, fmt.Errorf("read nodes: %w", err)
	}
	return nodes, nil
}
