package changelog

import (
	"context"
	"fmt"
)

// Expire removes the days before the last seven from the log and returns how many partitions it emptied. While another node does it,
// it does nothing. A partition that is in use is left for the next time; readers wait for a fifth of a second at most.
func Expire(ctx context.Context, db Querier) (emptied int, err error) {
	if err := db.QueryRow(ctx, `SELECT changelog_expire()`).Scan(&emptied); err != nil {
		return 0, fmt.Errorf("expire changes: %w", err)
	}
	return emptied, nil
}
