package auth

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"godstack/internal/mail"
	"godstack/internal/record"
)

// The guard of an account counts its failures to sign in.
//
// A try is counted as a failure before its password is looked at, in one statement, so that however many arrive at once
// no more than MaxFailures are at work. Then it is confirmed as a failure, given back, or all is reset. The delay and
// the lock follow from confirmed failures: those who sign in at the same time with the right password are not
// delayed, and at most told to come back in a second.

const (
	// freeFailures are followed by no delay.
	freeFailures = 3
	maxDelay     = 30 * time.Second
)

// The outcomes of an attempt.
const (
	outcomeSuccess       = "success"
	outcomeWrongPassword = "wrong_password"
	outcomeWrongCode     = "wrong_code"
	outcomeCodeRequired  = "code_required"
	outcomeUnknownLogin  = "unknown_login"
	outcomeLocked        = "locked"
	outcomeUnverified    = "unverified"
)

// unknownAccount is the account of a login that nobody has: it is counted and locked like one.
func (s *Service) unknownAccount(login string) string {
	return "unknown:" + hex.EncodeToString(s.deps.Secrets.Derive("login", []byte(login)))
}

// reserve counts a failure in advance. It returns ACCOUNT_LOCKED or RATE_LIMITED where the password must not be looked
// at.
func (s *Service) reserve(ctx context.Context, account string, user uuid.UUID) error {
	tag, err := s.deps.Pool.Exec(ctx, `
		INSERT INTO login_guards AS g (id, account, failures, window_started_at) VALUES ($1, $2, 1, now())
		ON CONFLICT (account) DO UPDATE SET
			failures = CASE WHEN g.locked_until <= now() OR g.window_started_at <= now() - $4::interval THEN 1 ELSE g.failures + 1 END,
			window_started_at = CASE WHEN g.locked_until <= now() OR g.window_started_at <= now() - $4::interval THEN now() ELSE g.window_started_at END,
			locked_until = NULL
		WHERE (g.locked_until IS NULL OR g.locked_until <= now())
		  AND (g.next_attempt_at IS NULL OR g.next_attempt_at <= now())
		  AND (g.failures < $3 OR g.locked_until <= now() OR g.window_started_at <= now() - $4::interval)`,
		newID(), account, s.cfg.MaxFailures, s.cfg.FailureWindow)
	if err != nil {
		return fmt.Errorf("reserve an attempt: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return nil
	}
	var locked, wait float64
	err = s.deps.Pool.QueryRow(ctx, `
		SELECT coalesce(extract(epoch FROM locked_until - now()), 0)::float8, coalesce(extract(epoch FROM next_attempt_at - now()), 0)::float8
		  FROM login_guards WHERE account = $1`, account).Scan(&locked, &wait)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("read guard: %w", err)
	}
	if locked > 0 {
		if err := s.attempt(ctx, s.deps.Pool, account, user, outcomeLocked); err != nil {
			return err
		}
		return &record.Error{
			Code: record.AccountLocked, Message: "too many failures to sign in: this account is locked for a while", RetryAfter: duration(locked),
		}
	}
	// Otherwise all tries that may be at work are.
	return &record.Error{
		Code: record.RateLimited, Message: "too many failures to sign in: wait a little", RetryAfter: max(duration(wait), time.Second),
	}
}

// duration makes whole seconds of some, rounded up.
func duration(seconds float64) time.Duration {
	return (time.Duration(seconds*float64(time.Second)) + time.Second - 1).Truncate(time.Second)
}

// giveBack takes a reservation back: the try was no failure, or was not evaluated.
func (s *Service) giveBack(ctx context.Context, q executor, account string) error {
	if _, err := q.Exec(ctx, `UPDATE login_guards SET failures = greatest(failures - 1, 0) WHERE account = $1`, account); err != nil {
		return fmt.Errorf("give an attempt back: %w", err)
	}
	return nil
}

// resetGuard forgets all failures, and unlocks. It reports whether there were any.
func (t tx) resetGuard(ctx context.Context, account string) (bool, error) {
	tag, err := t.Exec(ctx, `DELETE FROM login_guards WHERE account = $1`, account)
	if err != nil {
		return false, fmt.Errorf("reset guard: %w", err)
	}
	return tag.RowsAffected() > 0, nil
}

// failed confirms a reservation as a failure: the next try has to wait, or the account is locked, which its owner hears
// of.
func (s *Service) failed(ctx context.Context, t tx, account string, u *user, outcome string) error {
	if err := s.attempt(ctx, t, account, u.ID, outcome); err != nil {
		return err
	}
	var locks bool
	err := t.QueryRow(ctx, `
		WITH before AS (SELECT id, locked_until FROM login_guards WHERE account = $1 FOR UPDATE)
		UPDATE login_guards g SET
			next_attempt_at = CASE WHEN g.failures >= $2 THEN now() + least($3::interval, interval '1 s' * power(2, least(g.failures - $2, 20))) END,
			locked_until = CASE WHEN g.locked_until IS NULL AND g.failures >= $4 THEN now() + $5::interval ELSE g.locked_until END
		  FROM before WHERE g.id = before.id
		RETURNING before.locked_until IS NULL AND g.locked_until IS NOT NULL`,
		account, freeFailures, maxDelay, s.cfg.MaxFailures, s.cfg.Lockout).Scan(&locks)
	if errors.Is(err, pgx.ErrNoRows) { // somebody has signed in meanwhile
		return nil
	}
	if err != nil {
		return fmt.Errorf("count a failure: %w", err)
	}
	if !locks {
		return nil
	}
	if err := t.happened(ctx, AccountLocked, u.ID, uuid.Nil, map[string]any{"account": account}); err != nil {
		return err
	}
	if u.ID == uuid.Nil {
		return nil
	}
	return s.mail(ctx, t, mail.AccountLocked, u.Email, mail.Data{Name: u.Name})
}

// attempt writes down a try to sign in.
func (s *Service) attempt(ctx context.Context, q executor, account string, user uuid.UUID, outcome string) error {
	c := clientOf(ctx)
	_, err := q.Exec(ctx, `INSERT INTO login_attempts (id, account, user_id, outcome, address, user_agent) VALUES ($1, $2, $3, $4, $5, $6)`,
		newID(), account, nullable(user), outcome, c.address, c.userAgent)
	if err != nil {
		return fmt.Errorf("write attempt: %w", err)
	}
	return nil
}
