package job

import (
	"context"
	"errors"
	"time"

	"godstack/internal/changelog"
)

// expireChanges removes the days before the last seven from the change log.
type expireChanges struct{}

var _ = define[expireChanges]()

func (expireChanges) Kind() string { return "expire_changes" }

// Every is how often it runs.
func (expireChanges) Every() time.Duration { return time.Hour }

// Defaults: the next one is an hour away.
func (expireChanges) Defaults() Options { return Options{Timeout: 5 * time.Minute, MaxAttempts: 5} }

func (expireChanges) Work(ctx context.Context, d *Deps) error {
	n, err := changelog.Expire(ctx, d.Pool)
	return errors.Join(err, d.removed(ctx, int64(n)))
}
