package job

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"godstack/ent"
	"godstack/internal/mail"
)

// Deps are what jobs work with.
type Deps struct {
	Pool     *pgxpool.Pool
	Records  *ent.Client
	Sender   mail.Sender // sends mails
	Sealer   Sealer      // opens what [MailQueue] has sealed
	Accounts Accounts

	removed func(ctx context.Context, n int64) error // writes down what a clean-up has removed
}

// Accounts is what jobs need of accounts.
type Accounts interface {
	// Cleanup removes tokens, sessions, attempts and guards that are of no use any more, and returns how many.
	Cleanup(ctx context.Context) (removed int64, err error)
	// FollowUp asks a user who signed up how it goes.
	FollowUp(ctx context.Context, user uuid.UUID) error
}

// Job is a type of job of the application: its arguments, and what is done.
type Job interface {
	Args
	// Work does it. An error has it tried again, but for [Cancel]'s. ctx ends with the timeout, and at a stop. It may be called again for a
	// job that was done, where the worker was killed before that was written down: it has to bear that.
	Work(ctx context.Context, d *Deps) error
}

// periodic are jobs that are enqueued by themselves, once in each period of this length, for all nodes together.
type periodic interface{ Every() time.Duration }

// Kind is a type of job that a [Runner] works.
type Kind struct {
	name string
	zero Args
	add  func(w *river.Workers, r *Runner) error
}

// all are the application's kinds. Each file adds its own when the program begins, and nothing does later.
var all []Kind

// define adds a type of job to the application's.
func define[T Job]() struct{} {
	all = append(all, kindOf(func(ctx context.Context, d *Deps, args T) error { return args.Work(ctx, d) }))
	return struct{}{}
}

// All are the application's types of jobs.
func All() []Kind { return slices.Clone(all) }

// Func is a type of job whose work is a function, which knows what it needs.
func Func[T Args](work func(ctx context.Context, args T) error) Kind {
	return kindOf(func(ctx context.Context, _ *Deps, args T) error { return work(ctx, args) })
}

func kindOf[T Args](work func(ctx context.Context, d *Deps, args T) error) Kind {
	var zero T
	return Kind{name: zero.Kind(), zero: zero, add: func(w *river.Workers, r *Runner) error {
		return river.AddWorkerSafely(w, &worker[T]{runner: r, work: work})
	}}
}

// Cancel wraps an error after which a job is not tried again.
func Cancel(err error) error { return river.JobCancel(err) }

// Attempt is the attempt at a job that runs in a context.
type Attempt struct {
	ID     int64 // of the job
	Number int   // from 1
}

type attemptKey struct{}

// Current returns the attempt that runs in ctx: what it does may be marked with the job's id, so that it is not done twice.
func Current(ctx context.Context) (Attempt, bool) {
	a, ok := ctx.Value(attemptKey{}).(Attempt)
	return a, ok
}

// worker works one type of job for River.
type worker[T Args] struct {
	river.WorkerDefaults[T]
	runner *Runner
	work   func(ctx context.Context, d *Deps, args T) error
}

// depsOf are what an attempt works with.
func (w *worker[T]) depsOf(j *river.Job[T]) *Deps {
	d := *w.runner.deps
	d.removed = w.runner.removed(j.Kind)
	return &d
}

// Timeout is the job's own.
func (*worker[T]) Timeout(j *river.Job[T]) time.Duration {
	var m metadata
	if err := json.Unmarshal(j.Metadata, &m); err != nil || m.Timeout <= 0 {
		return DefaultTimeout
	}
	return time.Duration(m.Timeout) * time.Millisecond
}

// Work runs an attempt. One that a stop has cut short goes back to the queue as if it had not been.
func (w *worker[T]) Work(ctx context.Context, j *river.Job[T]) error {
	r := w.runner
	c := r.kinds[j.Kind]
	r.running.Add(1)
	r.begins(j.ID)
	panicked := true
	defer func() {
		r.running.Add(-1)
		r.ends(j.ID)
		if panicked {
			c.failed.Add(1)
		}
	}()
	err := w.work(context.WithValue(ctx, attemptKey{}, Attempt{ID: j.ID, Number: j.Attempt}), w.depsOf(j), j.Args)
	panicked = false
	switch {
	case err == nil:
		c.worked.Add(1)
	case r.stopping.Load() && errors.Is(ctx.Err(), context.Canceled) && !errors.Is(context.Cause(ctx), rivertype.ErrJobCancelledRemotely):
		r.returned.Add(1)
		return river.JobSnooze(0)
	default:
		c.failed.Add(1)
	}
	return err
}
