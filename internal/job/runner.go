package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// Config of a Runner. The zero value is the default.
type Config struct {
	// Workers is how many jobs of a queue run at the same time on this node. Default 10, at most 1,000.
	Workers int
	// Kinds are the types of jobs that are worked; others are left for nodes that know them. Nil: [All].
	Kinds []Kind
	// StopTimeout is how long jobs may go on after a stop, before their contexts end. Default 10 s.
	StopTimeout time.Duration
	// EndTimeout is how long jobs may take to end when their contexts have, and how long a node may take to say that it is gone. Default 5 s.
	EndTimeout time.Duration
	// Leases is the pool over which a node says that it lives, so that jobs that take all connections of the other one do not make it pass for
	// dead. Nil: the same.
	Leases *pgxpool.Pool
	// Lease is for how long a node is believed to live after it was last heard of. It says so each third of it. Default 45 s, so that its
	// jobs go on elsewhere within two minutes.
	Lease time.Duration
	// PollInterval is how often a queue is looked at where nobody says that there is something. Default a second.
	PollInterval time.Duration
	// PollOnly does without LISTEN, as behind a pooler that gives no sessions.
	PollOnly bool
	// Logger takes what goes wrong, and what clean-ups have removed. Default: none.
	Logger *slog.Logger
	// Now says what time it is for jobs that wait for theirs, and for periods. It is for tests. Nil: the clock, and the database's where it
	// is asked which jobs are due.
	Now func() time.Time
}

// clock is a Now for River.
type clock func() time.Time

// Now implements [rivertype.TimeGenerator].
func (c clock) Now() time.Time { return c() }

// NowOrNil is what River hands to statements in place of the database's clock.
func (c clock) NowOrNil() *time.Time { return new(c()) }

// complete returns c with its defaults, or what is wrong with it.
func (c Config) complete() (Config, error) {
	c.Workers = cmp.Or(c.Workers, 10)
	c.StopTimeout = cmp.Or(c.StopTimeout, 10*time.Second)
	c.EndTimeout = cmp.Or(c.EndTimeout, 5*time.Second)
	c.Lease = cmp.Or(c.Lease, defaultLease)
	c.PollInterval = cmp.Or(c.PollInterval, time.Second)
	if c.Kinds == nil {
		c.Kinds = All()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Workers < 1 || c.Workers > 1000:
		return c, fmt.Errorf("job: Workers must be from 1 to 1000, not %d", c.Workers)
	case c.StopTimeout < 0:
		return c, fmt.Errorf("job: StopTimeout is negative: %s", c.StopTimeout)
	case c.EndTimeout < 0:
		return c, fmt.Errorf("job: EndTimeout is negative: %s", c.EndTimeout)
	case c.Lease < 100*time.Millisecond:
		return c, fmt.Errorf("job: Lease must be 100ms or more, not %s", c.Lease)
	case c.PollInterval < 100*time.Millisecond:
		return c, fmt.Errorf("job: PollInterval must be 100ms or more, not %s", c.PollInterval)
	}
	return c, nil
}

const (
	// defaultLease is for how long a node is believed to live.
	defaultLease = 45 * time.Second
	// forgotten is after what time the rows of nodes go that are gone.
	forgotten = 24 * time.Hour
)

// Runner works jobs on a node. All nodes together choose one that makes periodic jobs and removes old ones.
type Runner struct {
	cfg    Config
	pool   *pgxpool.Pool // Config.Leases
	deps   *Deps
	client *river.Client[pgx.Tx]

	stopping          atomic.Bool
	running           atomic.Int64
	waiting           atomic.Int64 // a time.Duration
	returned, rescued atomic.Uint64
	kinds             map[string]*counts // by kind; nothing is added once it is made

	mu   sync.Mutex
	mine map[int64]time.Time // jobs that run here, and when those ended that have of late; protected by mu
}

// begins and ends say that a job does, here.
func (r *Runner) begins(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mine[id] = time.Time{}
}

func (r *Runner) ends(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mine[id] = time.Now()
}

// own returns the jobs that run here, and those of which it may not have been written down yet that they have ended.
func (r *Runner) own() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.mine, func(_ int64, ended time.Time) bool { return !ended.IsZero() && time.Since(ended) > 2*r.cfg.Lease })
	return slices.AppendSeq([]int64{}, maps.Keys(r.mine))
}

// counts are what came of attempts at jobs of a kind.
type counts struct{ worked, failed, removed atomic.Uint64 }

// Stats are what a Runner has done since it began.
type Stats struct {
	Running int // jobs at this moment
	// Waiting is for how long the job has been due that is for the longest, of all nodes' jobs, at the last look: one in a third of a lease.
	Waiting  time.Duration
	Returned uint64 // attempts that a stop cut short
	Rescued  uint64 // jobs of nodes that are gone
	Kinds    map[string]KindStats
}

// KindStats are what came of attempts at jobs of a kind.
type KindStats struct {
	Worked  uint64 // attempts that succeeded
	Failed  uint64 // attempts that did not
	Removed uint64 // what clean-ups have removed
}

// NewRunner returns a runner that works nothing until [Runner.Run].
func NewRunner(pool *pgxpool.Pool, deps Deps, cfg *Config) (_ *Runner, err error) {
	if cfg == nil {
		cfg = &Config{}
	}
	c, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	deps.Pool = pool
	if c.Leases == nil {
		c.Leases = pool
	}
	r := &Runner{cfg: c, pool: c.Leases, deps: &deps, kinds: map[string]*counts{}, mine: map[int64]time.Time{}}
	workers := river.NewWorkers()
	var repeated []*river.PeriodicJob
	for _, k := range c.Kinds {
		if err := k.add(workers, r); err != nil {
			return nil, fmt.Errorf("job: %w", err)
		}
		r.kinds[k.name] = &counts{}
		if p, ok := k.zero.(periodic); ok {
			job, err := repeat(k.zero, p.Every())
			if err != nil {
				return nil, fmt.Errorf("job: %s: %w", k.name, err)
			}
			repeated = append(repeated, job)
		}
	}
	perQueue := map[string]river.QueueConfig{}
	for _, q := range queues {
		perQueue[q] = river.QueueConfig{MaxWorkers: c.Workers}
	}
	var test river.TestConfig
	if c.Now != nil {
		test.Time = clock(c.Now)
	}
	r.client, err = river.NewClient(riverpgxv5.New(pool), &river.Config{
		Test:                test,
		ID:                  uuid.NewString(),
		Queues:              perQueue,
		Workers:             workers,
		PeriodicJobs:        repeated,
		FetchOnlyKnownKinds: true, // while a release is rolled out, the new one's jobs are for its nodes
		FetchPollInterval:   c.PollInterval,
		PollOnly:            c.PollOnly,
		JobTimeout:          DefaultTimeout,
		SoftStopTimeout:     c.StopTimeout,
		// River rescues by when an attempt began, of which jobs that take long know nothing: see rescue. Its own way is left for what cannot
		// be running any more.
		RescueStuckJobsAfter: MaxTimeout + time.Hour,
		Logger:               c.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("job: %w", err)
	}
	return r, nil
}

// repeat is a periodic job. Its scheduler lives in the memory of one node, and begins anew on another: what keeps it to one a period is
// that the row is unique by it.
func repeat(args Args, every time.Duration) (*river.PeriodicJob, error) {
	if every < time.Second || every > 24*time.Hour {
		return nil, fmt.Errorf("the period must be from 1s to a day, after which completed jobs are removed, not %s", every)
	}
	opts, err := Options{}.of(args)
	if err != nil {
		return nil, err
	}
	insert, err := opts.insert()
	if err != nil {
		return nil, err
	}
	insert.UniqueOpts = river.UniqueOpts{ByPeriod: every}
	return river.NewPeriodicJob(river.PeriodicInterval(every), func() (river.JobArgs, *river.InsertOpts) {
		o := *insert
		return args, &o
	}, &river.PeriodicJobOpts{ID: args.Kind(), RunOnStart: true}), nil
}

// Stats returns what was done.
func (r *Runner) Stats() Stats {
	s := Stats{Running: int(r.running.Load()), Waiting: time.Duration(r.waiting.Load()), Returned: r.returned.Load(), Rescued: r.rescued.Load(), Kinds: map[string]KindStats{}}
	for name, k := range r.kinds {
		s.Kinds[name] = KindStats{Worked: k.worked.Load(), Failed: k.failed.Load(), Removed: k.removed.Load()}
	}
	return s
}

// Worked is how many attempts have succeeded, of whatever kind.
func (s Stats) Worked() (n uint64) {
	for _, k := range s.Kinds {
		n += k.Worked
	}
	return n
}

// Failed is how many attempts have not.
func (s Stats) Failed() (n uint64) {
	for _, k := range s.Kinds {
		n += k.Failed
	}
	return n
}

// Run works jobs until ctx is done, and returns nil then, after at most StopTimeout and twice EndTimeout. It is called once. While the
// database is away it tries again: that is no reason for a node to end.
func (r *Runner) Run(ctx context.Context) error {
	for pause := r.cfg.PollInterval; ; pause = min(2*pause, r.cfg.Lease/3) {
		err := r.begin(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		r.cfg.Logger.WarnContext(ctx, "jobs do not begin", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
	background := context.WithoutCancel(ctx)
	alive, stopBeating := context.WithCancel(background)
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		r.watch(alive)
	}()
	<-ctx.Done()
	r.stopping.Store(true)
	stop, cancel := context.WithTimeout(background, r.cfg.StopTimeout+r.cfg.EndTimeout)
	defer cancel()
	err := r.client.Stop(stop)
	stopBeating()
	<-beating
	if err != nil {
		r.cfg.Logger.ErrorContext(ctx, "jobs do not end; another node will work them", "running", r.running.Load())
	}
	leave, cancel := context.WithTimeout(background, r.cfg.EndTimeout)
	defer cancel()
	if _, err := r.pool.Exec(leave, `DELETE FROM job_workers WHERE id = $1`, r.client.ID()); err != nil {
		r.cfg.Logger.WarnContext(ctx, "job: take leave", "error", err)
	}
	return nil
}

// begin says that this node lives, and then has it fetch jobs.
func (r *Runner) begin(ctx context.Context) error {
	if err := r.beat(ctx, r.cfg.Lease); err != nil {
		return fmt.Errorf("job: say that this node lives: %w", err)
	}
	if err := r.client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("job: start: %w", err)
	}
	return nil
}

// watch says that this node lives, and looks for jobs of nodes that do not, until ctx is done.
func (r *Runner) watch(ctx context.Context) {
	tick := time.NewTicker(r.cfg.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := r.beat(ctx, r.cfg.Lease/3) // in time for the next one
		if err == nil {
			err = r.rescue(ctx)
		}
		if err == nil {
			err = r.look(ctx)
		}
		if err != nil && ctx.Err() == nil {
			r.cfg.Logger.ErrorContext(ctx, "look after jobs", "error", err)
		}
	}
}

// beat says that this node lives, by the database's clock.
func (r *Runner) beat(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := r.pool.Exec(ctx, `INSERT INTO job_workers (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET seen_at = now()`, r.client.ID())
	return err
}

// gone is the error of an attempt whose worker has not been heard of for a lease.
const gone = "the worker is gone"

// rescue gives jobs back to the queue whose worker has not been heard of for a lease, or ends those that have no attempt left. So it does with
// those that this node is said to have and does not know of: it fetched them, and the connection broke before they came. One that has
// lost a worker before has to wait, longer each time: it may be what kills them.
func (r *Runner) rescue(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Lease)
	defer cancel()
	rows, err := r.pool.Query(ctx, `
		UPDATE river_job j SET
			state = CASE WHEN ended THEN state_after ELSE 'available' END,
			finalized_at = CASE WHEN ended THEN now() END,
			scheduled_at = CASE WHEN ended THEN j.scheduled_at ELSE now() + least(power(deaths, 4), 3600) * interval '1 second' END,
			errors = array_append(j.errors, jsonb_build_object('at', now(), 'attempt', j.attempt, 'error', $2::text, 'trace', ''))
		FROM (
			SELECT id, metadata ? 'cancel_attempted_at' OR attempt >= max_attempts AS ended,
				CASE WHEN metadata ? 'cancel_attempted_at' THEN 'cancelled'::river_job_state ELSE 'discarded' END AS state_after,
				1 + (SELECT count(*) FROM unnest(errors) e WHERE e ->> 'error' = $2) AS deaths
			FROM river_job
			WHERE state = 'running' AND (NOT EXISTS (SELECT FROM job_workers w
					WHERE w.id = attempted_by[array_upper(attempted_by, 1)] AND w.seen_at > now() - $1 * interval '1 millisecond')
				OR attempted_by[array_upper(attempted_by, 1)] = $3 AND attempted_at < now() - $1 * interval '1 millisecond' AND id <> ALL ($4))
			FOR UPDATE SKIP LOCKED
		) lost
		WHERE j.id = lost.id AND j.state = 'running'
		RETURNING j.id`, r.cfg.Lease.Milliseconds(), gone, r.client.ID(), r.own())
	if err != nil {
		return fmt.Errorf("rescue: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("rescue: %w", err)
	}
	if len(ids) > 0 {
		r.rescued.Add(uint64(len(ids)))
		r.cfg.Logger.WarnContext(ctx, "jobs rescued from workers that are gone", "jobs", strings.Trim(fmt.Sprint(ids), "[]"))
	}
	_, err = r.pool.Exec(ctx, `DELETE FROM job_workers WHERE seen_at < now() - $1::interval`, forgotten)
	if err != nil {
		return fmt.Errorf("forget nodes that are gone: %w", err)
	}
	return nil
}

// look sees how long jobs wait that are due.
func (r *Runner) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Lease)
	defer cancel()
	var waiting time.Duration
	err := r.pool.QueryRow(ctx, `SELECT coalesce(now() - min(scheduled_at), interval '0') FROM river_job WHERE state = 'available' AND scheduled_at <= now()`).
		Scan(&waiting)
	if err != nil {
		return fmt.Errorf("look how long jobs wait: %w", err)
	}
	r.waiting.Store(int64(waiting))
	return nil
}

// Ready says what keeps the node from working jobs, nil for nothing.
func (r *Runner) Ready(ctx context.Context) error {
	var alive bool
	err := r.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM job_workers WHERE id = $1 AND seen_at > now() - $2 * interval '1 millisecond')`,
		r.client.ID(), r.cfg.Lease.Milliseconds()).Scan(&alive)
	switch {
	case err != nil:
		return err
	case !alive:
		return errors.New("jobs are not being worked")
	}
	return nil
}
