package auth

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

const (
	// afterlife is for how long sessions are kept that have ended.
	afterlife = 30 * 24 * time.Hour
	// cleanupBatch is how many rows go in one transaction.
	cleanupBatch = 5000
	// cleanupLock is the advisory lock of whoever cleans up.
	cleanupLock = 0x676f646175746800
)

// Cleanup removes what is of no use any more: attempts to sign in older than 90 days, expired tokens, sessions 30 days
// after their end, and guards whose window and lock are over. Security events stay. It returns how many rows those were, also beside an error.
// One node does it at a time: the others return at once.
func (s *Service) Cleanup(ctx context.Context) (removed int64, err error) {
	for _, c := range []struct {
		table, where string
		age          time.Duration
	}{
		{"login_attempts", `created_at < now() - $1::interval`, memory},
		{"one_time_tokens", `expires_at < now() - $1::interval`, 0},
		{"sessions", `revoked_at < now() - $1::interval OR expires_at < now() - $1::interval`, afterlife},
		{"refresh_tokens", `expires_at < now() - $1::interval`, 0},
		{"login_guards", `window_started_at < now() - $1::interval AND coalesce(locked_until < now(), true)`, s.cfg.FailureWindow},
	} {
		for more := true; more; {
			if err := ctx.Err(); err != nil {
				return removed, err
			}
			var n int64
			err := s.inTx(ctx, uuid.Nil, func(ctx context.Context, t tx) error {
				var mine bool
				if err := t.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, int64(cleanupLock)).Scan(&mine); err != nil || !mine {
					more = false
					return err
				}
				tag, err := t.Exec(ctx, `DELETE FROM `+c.table+` WHERE id IN (SELECT id FROM `+c.table+` WHERE `+c.where+` LIMIT $2)`,
					c.age, cleanupBatch)
				n = tag.RowsAffected()
				more = n == cleanupBatch
				return err
			})
			if err != nil {
				return removed, fmt.Errorf("clean up %s: %w", c.table, err)
			}
			removed += n
		}
	}
	return removed, nil
}
