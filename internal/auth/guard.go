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
// no more than MaxFailures are at work. Then it is confirmed as a failure, released, or all are forgotten. The delay and
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

// reservation is a try that was counted as a failure in advance. It has to be released.
type reservation struct {
	s       *Service
	account string
	user    *user // who tries; nobody where nobody has the login
	settled bool  // the try stays a failure, or all of them were forgotten
}

// reserve counts a failure in advance. It returns ACCOUNT_LOCKED or RATE_LIMITED where the password must not be looked
// at.
func (s *Service) reserve(ctx context.Context, account string, u *user) (*reservation, error) {
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
		return nil, fmt.Errorf("reserve an attempt: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return &reservation{s: s, account: account, user: u}, nil
	}
	var locked, wait float64
	err = s.deps.Pool.QueryRow(ctx, `
		SELECT coalesce(extract(epoch FROM locked_until - now()), 0)::float8, coalesce(extract(epoch FROM next_attempt_at - now()), 0)::float8
		  FROM login_guards WHERE account = $1`, account).Scan(&locked, &wait)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("read guard: %w", err)
	}
	if locked > 0 {
		if err := s.attempt(ctx, s.deps.Pool, account, u.ID, outcomeLocked); err != nil {
			return nil, err
		}
		return nil, &record.Error{
			Code: record.AccountLocked, Message: "too many failures to sign in: this account is locked for a while", RetryAfter: duration(locked),
		}
	}
	// Otherwise all tries that may be at work are.
	return nil, &record.Error{
		Code: record.RateLimited, Message: "too many failures to sign in: wait a little", RetryAfter: max(duration(wait), time.Second),
	}
}

// duration makes whole seconds of some, rounded up.
func duration(seconds float64) time.Duration {
	return (time.Duration(seconds*float64(time.Second)) + time.Second - 1).Truncate(time.Second)
}

// release gives the try back, unless it is settled: it was no failure, or was not looked at.
func (r *reservation) release(ctx context.Context) {
	if r.settled {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	_, err := r.s.deps.Pool.Exec(ctx, `UPDATE login_guards SET failures = greatest(failures - 1, 0) WHERE account = $1`, r.account)
	if err != nil {
		r.s.log.ErrorContext(ctx, "give an attempt back", "error", err)
	}
}

// forget forgets all failures: somebody has signed in.
func (r *reservation) forget(ctx context.Context, t tx) error {
	_, err := t.resetGuard(ctx, r.account)
	t.onCommit(func() { r.settled = true })
	return err
}

// resetGuard forgets all failures, and unlocks. It reports whether there were any.
func (t tx) resetGuard(ctx context.Context, account string) (bool, error) {
	tag, err := t.Exec(ctx, `DELETE FROM login_guards WHERE account = $1`, account)
	if err != nil {
		return false, fmt.Errorf("reset guard: %w", err)
	}
	return tag.RowsAffected() > 0, nil
}

// failed confirms the try as a failure, which it stays even if that cannot be written down: the next one has to wait, or
// the account is locked, which its owner hears of. It returns answer, for the transaction to be kept.
func (r *reservation) failed(ctx context.Context, t tx, outcome string, answer error) error {
	r.settled = true
	s, u := r.s, r.user
	if err := s.attempt(ctx, t, r.account, u.ID, outcome); err != nil {
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
		r.account, freeFailures, maxDelay, s.cfg.MaxFailures, s.cfg.Lockout).Scan(&locks)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) { // without a row, somebody has signed in meanwhile
		return fmt.Errorf("count a failure: %w", err)
	}
	if locks {
		if err := t.happened(ctx, AccountLocked, u.ID, uuid.Nil, map[string]any{"account": r.account}); err != nil {
			return err
		}
		if u.ID != uuid.Nil {
			if err := s.tryToMail(ctx, t, mail.AccountLocked, u.Email, mail.Data{Name: u.Name}); err != nil {
				return err
			}
		}
	}
	return kept{answer}
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
