package job

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Queues is how jobs are, on all nodes.
type Queues struct {
	// Workers are the nodes that work jobs, as far as they were heard of within the default lease.
	Workers int
	// Due is how many jobs could be worked now, and Oldest for how long the first of them could have been, in which the database's clock
	// counts.
	Due    int
	Oldest time.Duration
	// Discarded are the kinds of jobs that were given up within a week, in the order of their names.
	Discarded []string
	// Paused are the queues that were told to rest.
	Paused []string
	// Sealed is how many mails wait, and Unreadable how many of the first hundred of these no key opens.
	Sealed, Unreadable int
}

// Look reads how jobs are, and changes nothing.
func Look(ctx context.Context, db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, sealer Sealer,
) (q Queues, err error) {
	var oldest float64
	err = db.QueryRow(ctx, `SELECT
		(SELECT count(*) FROM job_workers WHERE seen_at > now() - $1 * interval '1 millisecond'),
		(SELECT count(*) FROM river_job WHERE state = 'available' AND scheduled_at <= now()),
		(SELECT coalesce(extract(epoch FROM now() - min(scheduled_at)), 0)::float8 FROM river_job WHERE state = 'available' AND scheduled_at <= now()),
		ARRAY(SELECT DISTINCT kind FROM river_job WHERE state = 'discarded' AND finalized_at > now() - interval '7 days' ORDER BY 1),
		ARRAY(SELECT name FROM river_queue WHERE paused_at IS NOT NULL ORDER BY 1),
		(SELECT count(*) FROM river_job WHERE kind = $2 AND state IN ('available', 'pending', 'retryable', 'scheduled'))`,
		defaultLease.Milliseconds(), sendMail{}.Kind()).Scan(&q.Workers, &q.Due, &oldest, &q.Discarded, &q.Paused, &q.Sealed)
	if err != nil {
		return Queues{}, fmt.Errorf("look at jobs: %w", err)
	}
	q.Oldest = time.Duration(oldest * float64(time.Second))
	rows, err := db.Query(ctx, `SELECT args::text FROM river_job
		WHERE kind = $1 AND state IN ('available', 'pending', 'retryable', 'scheduled') ORDER BY id LIMIT 100`, sendMail{}.Kind())
	if err != nil {
		return Queues{}, fmt.Errorf("look at mails: %w", err)
	}
	waiting, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return Queues{}, fmt.Errorf("look at mails: %w", err)
	}
	for _, args := range waiting {
		var s sendMail
		if err := json.Unmarshal([]byte(args), &s); err != nil {
			q.Unreadable++
		} else if _, err := sealer.Open(mailPurpose, s.Sealed, []byte(s.Mail)); err != nil {
			q.Unreadable++
		}
	}
	return q, nil
}
