package job

import (
	"context"
	"errors"
	"time"

	"godstack/internal/record"
)

// purgeKeys removes idempotency keys of more than a day ago, and the answers to them.
type purgeKeys struct{}

var _ = define[purgeKeys]()

func (purgeKeys) Kind() string { return "purge_idempotency_keys" }

// Every is how often it runs.
func (purgeKeys) Every() time.Duration { return time.Hour }

// Defaults: the next one is an hour away.
func (purgeKeys) Defaults() Options { return Options{Timeout: 5 * time.Minute, MaxAttempts: 5} }

func (purgeKeys) Work(ctx context.Context, d *Deps) error {
	n, err := record.PurgeKeys(ctx, d.Pool)
	return errors.Join(err, d.removed(ctx, int64(n)))
}
