package changelog

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Expire removes the days before the last seven from the log and returns how many partitions it emptied. While another node does it,
// it does nothing. A partition that is in use is left for the next time; readers wait for a fifth of a second at most.
func Expire(ctx context.Context, db Querier) (emptied int, err error) {
	if err := db.QueryRow(ctx, `SELECT changelog_expire()`).Scan(&emptied); err != nil {
		return 0, fmt.Errorf("expire changes: %w", err)
	}
	return emptied, nil
}

// RunRetention calls [Expire] at once and at each interval (0 means an hour) until ctx is done, and returns nil then. Every node may
// run it. Errors are logged.
func RunRetention(ctx context.Context, db Querier, interval time.Duration, log *slog.Logger) error {
	if interval == 0 {
		interval = time.Hour
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		emptied, err := Expire(ctx, db)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			log.ErrorContext(ctx, "change log retention", "error", err)
		case emptied > 0:
			log.InfoContext(ctx, "change log retention", "emptied", emptied)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
