package job

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"riverqueue.com/riverui"
)

// Pages are River's pages of jobs and queues, with the API that they use. They ask nobody who they are: that is for whoever serves them.
type Pages struct {
	client *river.Client[pgx.Tx]
	prefix string
	log    *slog.Logger
	reads  http.Handler
}

// NewPages returns pages to be mounted at prefix, such as /jobs, and below it. They need no worker on this node, and nothing runs for them
// while nobody asks. log takes what goes wrong; nil: none.
func NewPages(pool *pgxpool.Pool, prefix string, log *slog.Logger) (*Pages, error) {
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: log})
	if err != nil {
		return nil, fmt.Errorf("job: pages: %w", err)
	}
	p := &Pages{client: client, prefix: prefix, log: log}
	if p.reads, err = p.handler(nil); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Pages) handler(tx *pgx.Tx) (http.Handler, error) {
	h, err := riverui.NewHandler(&riverui.HandlerOpts{
		Endpoints: riverui.NewEndpoints(p.client, &riverui.EndpointsOpts[pgx.Tx]{Tx: tx}), Logger: p.log, Prefix: p.prefix,
	})
	if err != nil {
		return nil, fmt.Errorf("job: pages: %w", err)
	}
	return h, nil // it is not started: that would count the jobs again and again, on each node, for whoever might ask
}

// ServeHTTP answers GET and HEAD; what changes something is for [Pages.Change].
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	p.reads.ServeHTTP(w, r)
}

// Change answers a request that changes something, on a transaction that the caller commits if the answer is a success.
func (p *Pages) Change(tx pgx.Tx, w http.ResponseWriter, r *http.Request) error {
	h, err := p.handler(&tx)
	if err != nil {
		return err
	}
	h.ServeHTTP(w, r)
	return nil
}

// Action is what a request to the pages' API changes.
type Action string

// The actions.
const (
	RetryJobs   Action = "retry"
	CancelJobs  Action = "cancel"
	DeleteJobs  Action = "delete"
	PauseQueue  Action = "pause"
	ResumeQueue Action = "resume"
	UpdateQueue Action = "update"
)

// Action says what a request with this body would change, and what it names: jobs, or a queue. ok is false for what the API does not have.
func (p *Pages) Action(r *http.Request, body []byte) (a Action, detail map[string]any, ok bool) {
	path, below := strings.CutPrefix(r.URL.Path, p.prefix+"/api/")
	parts := strings.Split(path, "/")
	switch {
	case !below:
	case r.Method == http.MethodPost && len(parts) == 2 && parts[0] == "jobs":
		var named struct {
			IDs []json.RawMessage `json:"ids"` // numbers, as texts or not
		}
		_ = json.Unmarshal(body, &named) // River says what is wrong with it
		switch a = Action(parts[1]); a {
		case RetryJobs, CancelJobs, DeleteJobs:
			return a, map[string]any{"jobs": named.IDs}, true
		}
	case r.Method == http.MethodPut && len(parts) == 3 && parts[0] == "queues":
		switch a = Action(parts[2]); a {
		case PauseQueue, ResumeQueue:
			return a, map[string]any{"queue": parts[1]}, true
		}
	case r.Method == http.MethodPatch && len(parts) == 2 && parts[0] == "queues":
		return UpdateQueue, map[string]any{"queue": parts[1]}, true
	}
	return "", nil, false
}

// States are how many jobs there are in each state, and of what has not ended, when the oldest should have begun.
type States struct {
	Available, Running, Retryable, Scheduled, Cancelled, Discarded int
	Waits                                                          float64 // seconds, of the job that could begin and waits for longest
}

// ReadStates counts jobs. Of each state it counts 10,000 at most, so that it is quick however many there are.
func ReadStates(ctx context.Context, pool *pgxpool.Pool) (s States, err error) {
	err = pool.QueryRow(ctx, `
		WITH n AS (
			SELECT state, (SELECT count(*) FROM (SELECT FROM river_job j WHERE j.state = s.state LIMIT 10000) few) AS jobs
			  FROM unnest(enum_range(NULL::river_job_state)) AS s(state)
		)
		SELECT sum(jobs) FILTER (WHERE state = 'available'), sum(jobs) FILTER (WHERE state = 'running'),
		       sum(jobs) FILTER (WHERE state = 'retryable'), sum(jobs) FILTER (WHERE state = 'scheduled'),
		       sum(jobs) FILTER (WHERE state = 'cancelled'), sum(jobs) FILTER (WHERE state = 'discarded'),
		       coalesce((SELECT extract(epoch FROM now() - min(scheduled_at)) FROM
		                 (SELECT scheduled_at FROM river_job WHERE state = 'available' LIMIT 10000) few), 0)::float8
		  FROM n`).Scan(&s.Available, &s.Running, &s.Retryable, &s.Scheduled, &s.Cancelled, &s.Discarded, &s.Waits)
	if err != nil {
		return s, fmt.Errorf("count jobs: %w", err)
	}
	s.Waits = max(s.Waits, 0)
	return s, nil
}
