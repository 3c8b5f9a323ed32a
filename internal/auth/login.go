package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"godstack/internal/mail"
	"godstack/internal/record"
)

// executor runs a statement: a pool or a transaction.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// querier reads: a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// user is what this package needs to know of a user. The zero value is nobody.
type user struct {
	ID                    uuid.UUID
	Email, Username, Name string
	Role                  string
	Verified              bool
	SecondFactor          bool
	Locked                bool   // by an administrator
	PasswordHash          string // "" where there is none
}

const selectUser = `SELECT id, email, username, name, role, email_verified_at IS NOT NULL, totp_confirmed_at IS NOT NULL,
	locked_at IS NOT NULL, coalesce(password_hash, '') FROM users WHERE `

// findUser returns the user that a condition describes; nobody where there is none.
func findUser(ctx context.Context, q querier, where string, args ...any) (*user, error) {
	rows, err := q.Query(ctx, selectUser+where, args...)
	if err != nil {
		return nil, fmt.Errorf("find user: %w", err)
	}
	u, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByPos[user])
	if errors.Is(err, pgx.ErrNoRows) {
		return &user{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find user: %w", err)
	}
	return u, nil
}

// byLogin finds a user by mail address or user name: the former has an @, the latter cannot.
func (s *Service) byLogin(ctx context.Context, login string) (*user, error) {
	column := "username"
	if strings.Contains(login, "@") {
		column = "email"
	}
	return findUser(ctx, s.deps.Pool, column+" = $1", login)
}

// normal is a mail address or a user name as it is stored: case and spaces around it do not matter.
func normal(s string) string { return strings.ToLower(strings.TrimSpace(storable(s, len(s)))) }

// errLocked is what who could sign in is told, and nobody else.
var errLocked = &record.Error{Code: record.AccountLocked, Message: "an administrator has locked this account"}

var errLogin = unauthenticated("the login or the password is wrong")

// Login signs in by mail address or user name and password, and where the account has one, a second factor. What is
// wrong of login and password it does not say, and takes the same statements, hash and time for a login that nobody has.
//
// Errors: UNAUTHENTICATED, with the field "code" where the password was right and the second factor is missing or wrong;
// ACCOUNT_LOCKED and RATE_LIMITED with the time to wait; ACCOUNT_LOCKED without one where all was right and an administrator has locked the
// account. Where the address has to be confirmed first, the payload is
// empty.
func (s *Service) Login(ctx context.Context, in LoginInput) (*Payload, error) {
	if err := s.cookies.settable(ctx); err != nil {
		return nil, err
	}
	if err := s.limit(ctx, s.cfg.Limits.Login); err != nil {
		return nil, err
	}
	login := normal(in.Login)
	u, err := s.byLogin(ctx, login)
	if err != nil {
		return nil, err
	}
	account, wrong := s.unknownAccount(login), outcomeUnknownLogin
	if u.ID != uuid.Nil {
		account, wrong = u.ID.String(), outcomeWrongPassword
	}
	r, err := s.reserve(ctx, account, u)
	if err != nil {
		return nil, err
	}
	defer r.release(ctx)
	newHash, ok, err := s.checkHash(ctx, u.PasswordHash, in.Password)
	if err != nil {
		return nil, err
	}
	var p *Payload
	err = s.inTx(ctx, u.ID, func(ctx context.Context, t tx) error {
		if !ok {
			return r.failed(ctx, t, wrong, errLogin)
		}
		if err := s.secondFactor(ctx, t, r, in.Code); err != nil {
			return err
		}
		if s.cfg.VerifyEmail == VerifyRequired && !u.Verified {
			p, err = &Payload{}, s.attempt(ctx, t, account, u.ID, outcomeUnverified)
		} else {
			p, err = s.signIn(ctx, t, u, newHash)
		}
		if errors.Is(err, errLocked) {
			if err := s.attempt(ctx, t, account, u.ID, outcomeLocked); err != nil {
				return err
			}
			return kept{errLocked}
		}
		if err != nil {
			return err
		}
		return r.forget(ctx, t)
	})
	if err != nil {
		return nil, err
	}
	s.deliverTokens(ctx, p)
	return p, nil
}

// checkHash verifies a password. Where its hash is outdated, newHash is one to store.
func (s *Service) checkHash(ctx context.Context, hash, password string) (newHash string, ok bool, err error) {
	ok, outdated, err := s.deps.Passwords.Verify(ctx, hash, password)
	if err == nil && outdated {
		newHash, err = s.deps.Passwords.Hash(ctx, password)
	}
	return newHash, ok, err
}

// signIn ends a sign-in that succeeded.
func (s *Service) signIn(ctx context.Context, t tx, u *user, newHash string) (*Payload, error) {
	p, err := s.startSession(ctx, t, u)
	if err != nil {
		return nil, err
	}
	if newHash != "" {
		if _, err := t.Exec(ctx, `UPDATE users SET password_hash = $2 WHERE id = $1`, u.ID, newHash); err != nil {
			return nil, fmt.Errorf("store a new hash: %w", err)
		}
	}
	if err := s.notice(ctx, t, u); err != nil {
		return nil, err
	}
	if err := s.attempt(ctx, t, u.ID.String(), u.ID, outcomeSuccess); err != nil {
		return nil, err
	}
	return p, t.happened(ctx, LoginSucceeded, u.ID, u.ID, nil)
}

const (
	// suspicious is after how many failures a success is.
	suspicious = 5
	// memory is for how long attempts, and so devices, are remembered.
	memory = 90 * 24 * time.Hour
)

// notice tells the user of a sign-in that may not be theirs:
//
//   - suspicious_login: since the last one there were 5 or more wrong passwords or codes, within the guard's window and
//     lock (an hour);
//   - new_device_login: with that user agent, but for version numbers, the user has not signed in within 90 days,
//     though with another.
//
// One mail is sent for both.
func (s *Service) notice(ctx context.Context, t tx, u *user) error {
	var wrong int
	var known, before bool
	err := t.QueryRow(ctx, `
		WITH attempts AS (
			SELECT outcome, created_at, user_agent FROM login_attempts WHERE account = $1 AND created_at > now() - $3::interval
		), success AS (
			SELECT max(created_at) AS last,
			       coalesce(bool_or(regexp_replace(user_agent, '[0-9._]+', '', 'g') = regexp_replace($2, '[0-9._]+', '', 'g')), false) AS known
			  FROM attempts WHERE outcome = 'success'
		)
		SELECT (SELECT count(*) FROM attempts WHERE outcome IN ('wrong_password', 'wrong_code')
		           AND created_at > greatest(now() - $4::interval, coalesce(s.last, '-infinity'))), s.known, s.last IS NOT NULL
		  FROM success s`,
		u.ID.String(), clientOf(ctx).userAgent, memory, s.cfg.FailureWindow+s.cfg.Lockout).Scan(&wrong, &known, &before)
	if err != nil {
		return fmt.Errorf("read attempts: %w", err)
	}
	tell := false
	if wrong >= suspicious {
		tell = true
		if err := t.happened(ctx, SuspiciousLogin, u.ID, u.ID, map[string]any{"failures": wrong}); err != nil {
			return err
		}
	}
	if before && !known {
		tell = true
		if err := t.happened(ctx, NewDeviceLogin, u.ID, u.ID, nil); err != nil {
			return err
		}
	}
	if !tell {
		return nil
	}
	return s.mail(ctx, t, mail.NewDeviceLogin, u.Email, mail.Data{Name: u.Name})
}

// confirmation is the right password of who is signed in already. It has to be released.
type confirmation struct {
	*reservation
	wrong *record.Error
}

// confirmPassword checks the password of who is signed in already, under the same guard as a sign-in: a session that
// was taken over is no way to guess passwords. field names the argument for the error. It is limited for each user, as
// each call costs a hash.
func (s *Service) confirmPassword(ctx context.Context, u *user, field, password string) (*confirmation, error) {
	if err := s.limitKey(ctx, s.cfg.Limits.Sensitive, u.ID.String()); err != nil {
		return nil, err
	}
	r, err := s.reserve(ctx, u.ID.String(), u)
	if err != nil {
		return nil, err
	}
	c := &confirmation{r, badInput(field, field+": the password is wrong")}
	ok, _, err := s.deps.Passwords.Verify(ctx, u.PasswordHash, password)
	if err == nil && !ok {
		err = s.inTx(ctx, u.ID, func(ctx context.Context, t tx) error { return c.failed(ctx, t, outcomeWrongPassword, c.wrong) })
	}
	if err != nil {
		c.release(ctx)
		return nil, err
	}
	return c, nil
}

// inTx runs f in a transaction of the user, whom it locks, unless the password has been changed meanwhile. u is as the
// user is now.
func (c *confirmation) inTx(ctx context.Context, f func(ctx context.Context, t tx, u *user) error) error {
	return c.s.inTx(ctx, c.user.ID, func(ctx context.Context, t tx) error {
		u, err := locked(ctx, t, c.user.ID)
		if err != nil {
			return err
		}
		if u.PasswordHash != c.user.PasswordHash {
			return c.wrong
		}
		return f(ctx, t, u)
	})
}

// self returns the user who asks.
func (s *Service) self(ctx context.Context) (*user, error) {
	v, err := signedIn(ctx)
	if err != nil {
		return nil, err
	}
	u, err := findUser(ctx, s.deps.Pool, "id = $1", v.ID)
	if err == nil && u.ID == uuid.Nil {
		err = unauthenticated("who is signed in does not exist any more")
	}
	return u, err
}

var errNoUser = &record.Error{Code: record.NotFound, Message: "no such user"}

// locked locks the user's row until the transaction ends, so that what a user may have one or ten of is counted once.
// It returns the user as it is now, or NOT_FOUND.
func locked(ctx context.Context, t tx, id uuid.UUID) (*user, error) {
	u, err := findUser(ctx, t, "id = $1 FOR NO KEY UPDATE", id)
	if err == nil && u.ID == uuid.Nil {
		err = errNoUser
	}
	return u, err
}
