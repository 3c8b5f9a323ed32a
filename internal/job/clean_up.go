package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river"
)

// cleanUpAccounts removes what accounts leave behind.
type cleanUpAccounts struct{}

var _ = define[cleanUpAccounts]()

func (cleanUpAccounts) Kind() string { return "clean_up_accounts" }

// Every is how often it runs.
func (cleanUpAccounts) Every() time.Duration { return time.Hour }

// Defaults: the next one is an hour away.
func (cleanUpAccounts) Defaults() Options { return Options{Timeout: 30 * time.Minute, MaxAttempts: 5} }

func (cleanUpAccounts) Work(ctx context.Context, d *Deps) error {
	n, err := d.Accounts.Cleanup(ctx)
	return errors.Join(err, d.removed(ctx, n))
}

// removed returns what writes down how much a clean-up of a kind has removed: in the row, in the counts, and in the log where it was something.
func (r *Runner) removed(kind string) func(context.Context, int64) error {
	return func(ctx context.Context, n int64) error {
		r.kinds[kind].removed.Add(uint64(max(n, 0)))
		if n > 0 {
			r.cfg.Logger.InfoContext(ctx, "cleaned up", "job", kind, "removed", n)
		}
		if err := river.RecordOutput(ctx, map[string]int64{"removed": n}); err != nil {
			return fmt.Errorf("write down what was removed: %w", err)
		}
		return nil
	}
}
