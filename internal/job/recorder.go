package job

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Recorder keeps what is enqueued, for tests of what enqueues. It checks options as [Enqueue] does, asks for no transaction, works nothing,
// and knows no rollback. The zero value is ready; it is safe for concurrent use.
type Recorder struct {
	mu   sync.Mutex // protects what follows
	jobs []Recorded
}

// Recorded is a job that was enqueued, with its options complete.
type Recorded struct {
	Args    Args
	Options Options
}

type recorderKey struct{}

// Context returns a context in which jobs go to the recorder.
func (r *Recorder) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, recorderKey{}, r)
}

// Jobs returns what was enqueued, oldest first. A duplicate is not in it.
func (r *Recorder) Jobs() []Recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.jobs)
}

// enqueue keeps a job, whose id is its place, from 1.
func (r *Recorder) enqueue(args Args, o *Options) (Enqueued, error) {
	opts, err := deref(o).of(args)
	if err != nil {
		return Enqueued{}, fmt.Errorf("enqueue %s: %w", args.Kind(), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if opts.Key != "" {
		for i, j := range r.jobs {
			if j.Args.Kind() == args.Kind() && j.Options.Key == opts.Key {
				return Enqueued{ID: int64(i + 1), Duplicate: true}, nil
			}
		}
	}
	r.jobs = append(r.jobs, Recorded{Args: args, Options: opts})
	return Enqueued{ID: int64(len(r.jobs))}, nil
}
