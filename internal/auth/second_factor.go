package auth

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"godstack/internal/mail"
	"godstack/internal/record"
)

// sealTOTP is the purpose under which secrets of authenticators are encrypted, each bound to its user.
const sealTOTP = "totp"

// secondFactor checks the second factor of a user who has one, after the password. What it refuses is a failure as a
// wrong password is; a code that is merely missing is none.
func (s *Service) secondFactor(ctx context.Context, t tx, r *reservation, code *string) error {
	if !r.user.SecondFactor {
		return nil
	}
	if code == nil || *code == "" {
		if err := s.attempt(ctx, t, r.account, r.user.ID, outcomeCodeRequired); err != nil {
			return err
		}
		return kept{unauthenticated("a second factor is needed", "code")}
	}
	if _, err := locked(ctx, t, r.user.ID); err != nil {
		return err
	}
	ok, err := s.useCode(ctx, t, r.user.ID, *code)
	if err != nil || ok {
		return err
	}
	return r.failed(ctx, t, outcomeWrongCode, unauthenticated("the second factor is wrong", "code"))
}

// useCode uses up a code of the authenticator of a user who is locked, or a backup code.
func (s *Service) useCode(ctx context.Context, t tx, id uuid.UUID, code string) (bool, error) {
	a, err := s.authenticator(ctx, t, id)
	if err != nil || a == nil || !a.confirmed {
		return false, err
	}
	if step, ok := CheckTOTP(a.secret, code, s.deps.Clock(), a.lastStep); ok {
		// It is sealed anew, so that in time no secret is left that an old key keeps.
		tag, err := t.Exec(ctx, `UPDATE authenticators SET last_step = $2, secret = $3 WHERE user_id = $1 AND last_step < $2`,
			id, step, s.deps.Secrets.Seal(sealTOTP, a.secret, id[:]))
		if err != nil {
			return false, fmt.Errorf("use code: %w", err)
		}
		return tag.RowsAffected() == 1, nil
	}
	tag, err := t.Exec(ctx, `UPDATE backup_codes SET used_at = now() WHERE user_id = $1 AND hash = ANY($2) AND used_at IS NULL`,
		id, HashBackupCodeAll(s.deps.Secrets, id, code))
	if err != nil {
		return false, fmt.Errorf("use backup code: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return false, nil
	}
	return true, t.happened(ctx, BackupCodeUsed, id, id, nil)
}

type authenticator struct {
	secret    []byte
	confirmed bool
	lapsed    bool // it was not confirmed in time
	lastStep  int
}

// enrollmentTTL is how long after EnrollTotp an authenticator can be confirmed.
const enrollmentTTL = 15 * time.Minute

// authenticator reads that of a user who is locked, nil where there is none.
func (s *Service) authenticator(ctx context.Context, t tx, id uuid.UUID) (*authenticator, error) {
	var a authenticator
	var sealed []byte
	err := t.QueryRow(ctx, `SELECT secret, confirmed_at IS NOT NULL, confirmed_at IS NULL AND updated_at <= now() - $2::interval, last_step
		FROM authenticators WHERE user_id = $1`, id, enrollmentTTL).Scan(&sealed, &a.confirmed, &a.lapsed, &a.lastStep)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read authenticator: %w", err)
	}
	if a.secret, err = s.deps.Secrets.Open(sealTOTP, sealed, id[:]); err != nil {
		return nil, fmt.Errorf("read authenticator: %w", err)
	}
	return &a, nil
}

// CheckSecrets counts the authenticators that people sign in with, and how many of the last hundred made no key opens: those people would
// have to enroll again.
func CheckSecrets(ctx context.Context, db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}, secrets *Secrets,
) (all, unreadable int, err error) {
	rows, err := db.Query(ctx, `SELECT user_id, secret, count(*) OVER () FROM authenticators WHERE confirmed_at IS NOT NULL ORDER BY id DESC LIMIT 100`)
	if err != nil {
		return 0, 0, fmt.Errorf("read authenticators: %w", err)
	}
	var id [16]byte
	var sealed []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &sealed, &all}, func() error {
		if _, err := secrets.Open(sealTOTP, sealed, id[:]); err != nil {
			unreadable++
		}
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("read authenticators: %w", err)
	}
	return all, unreadable, nil
}

// EnrollTotp makes a secret for an authenticator, given the password: who took a session over must not lock its owner out.
// It is of use once ConfirmTotp has seen a code of it, within 15 min; until then another call makes another one.
func (s *Service) EnrollTotp(ctx context.Context, password string) (*TotpEnrollment, error) {
	u, err := s.self(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.confirmPassword(ctx, u, "password", password)
	if err != nil {
		return nil, err
	}
	defer c.release(ctx)
	secret := NewTOTP()
	err = c.inTx(ctx, func(ctx context.Context, t tx, u *user) error {
		tag, err := t.Exec(ctx, `
			INSERT INTO authenticators AS a (id, user_id, secret) VALUES ($1, $2, $3)
			ON CONFLICT (user_id) DO UPDATE SET secret = excluded.secret, last_step = 0 WHERE a.confirmed_at IS NULL`,
			newID(), u.ID, s.deps.Secrets.Seal(sealTOTP, secret, u.ID[:]))
		if err != nil {
			return fmt.Errorf("store authenticator: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errSecondFactor
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &TotpEnrollment{
		Secret: strings.TrimRight(base32.StdEncoding.EncodeToString(secret), "="),
		URI:    TOTPURI(secret, s.cfg.App, u.Email),
	}, nil
}

var errSecondFactor = &record.Error{Code: record.AlreadyExists, Message: "there is a second factor already: disable it first"}

// ConfirmTotp turns the second factor on, given a code of the new authenticator, and returns the backup codes: they are
// shown this once. A wrong code is a failure as at a sign-in.
func (s *Service) ConfirmTotp(ctx context.Context, code string) ([]string, error) {
	u, err := s.self(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.reserve(ctx, u.ID.String(), u)
	if err != nil {
		return nil, err
	}
	defer r.release(ctx)
	codes := NewBackupCodes()
	err = s.inTx(ctx, u.ID, func(ctx context.Context, t tx) error {
		if u, err = locked(ctx, t, u.ID); err != nil {
			return err
		}
		a, err := s.authenticator(ctx, t, u.ID)
		switch {
		case err != nil:
			return err
		case a == nil || a.lapsed:
			return badInput("code", "there is no authenticator to confirm: enroll one first")
		case a.confirmed:
			return errSecondFactor
		}
		step, ok := CheckTOTP(a.secret, code, s.deps.Clock(), a.lastStep)
		if !ok {
			return r.failed(ctx, t, outcomeWrongCode, badInput("code", "the code is wrong"))
		}
		hashes := make([][]byte, len(codes))
		ids := make([]uuid.UUID, len(codes))
		for i, c := range codes {
			ids[i], hashes[i] = newID(), HashBackupCode(s.deps.Secrets, u.ID, c)
		}
		for _, q := range []struct {
			sql  string
			args []any
		}{
			{`UPDATE authenticators SET confirmed_at = now(), last_step = $2 WHERE user_id = $1`, []any{u.ID, step}},
			{`DELETE FROM backup_codes WHERE user_id = $1`, []any{u.ID}},
			{`INSERT INTO backup_codes (id, user_id, hash) SELECT i, $1, h FROM unnest($2::uuid[], $3::bytea[]) AS c (i, h)`, []any{u.ID, ids, hashes}},
			{`UPDATE users SET totp_confirmed_at = now() WHERE id = $1`, []any{u.ID}},
		} {
			if _, err := t.Exec(ctx, q.sql, q.args...); err != nil {
				return fmt.Errorf("confirm authenticator: %w", err)
			}
		}
		if err := t.happened(ctx, TwoFactorEnabled, u.ID, u.ID, nil); err != nil {
			return err
		}
		return s.mail(ctx, t, mail.TwoFactorChanged, u.Email, mail.Data{Name: u.Name, Change: "turned on"})
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// DisableTotp turns the second factor off. It takes the password and a code, or a backup code, as a sign-in does, and
// counts what is wrong as a failure.
func (s *Service) DisableTotp(ctx context.Context, password, code string) (bool, error) {
	u, err := s.self(ctx)
	if err != nil {
		return false, err
	}
	c, err := s.confirmPassword(ctx, u, "password", password)
	if err != nil {
		return false, err
	}
	defer c.release(ctx)
	err = c.inTx(ctx, func(ctx context.Context, t tx, u *user) error {
		if !u.SecondFactor {
			return badInput("code", "there is no second factor")
		}
		ok, err := s.useCode(ctx, t, u.ID, code)
		if err != nil {
			return err
		}
		if !ok {
			return c.failed(ctx, t, outcomeWrongCode, badInput("code", "the code is wrong"))
		}
		return s.removeSecondFactor(ctx, t, u, u.ID)
	})
	return err == nil, err
}

// removeSecondFactor turns the second factor of a user who is locked off, and tells them. An authenticator that was not
// confirmed goes without a word.
func (s *Service) removeSecondFactor(ctx context.Context, t tx, u *user, actor uuid.UUID) error {
	for _, sql := range []string{
		`DELETE FROM authenticators WHERE user_id = $1`,
		`DELETE FROM backup_codes WHERE user_id = $1`,
		`UPDATE users SET totp_confirmed_at = NULL WHERE id = $1 AND totp_confirmed_at IS NOT NULL`,
	} {
		if _, err := t.Exec(ctx, sql, u.ID); err != nil {
			return fmt.Errorf("remove second factor: %w", err)
		}
	}
	if !u.SecondFactor {
		return nil
	}
	if err := t.happened(ctx, TwoFactorDisabled, u.ID, actor, nil); err != nil {
		return err
	}
	return s.mail(ctx, t, mail.TwoFactorChanged, u.Email, mail.Data{Name: u.Name, Change: "turned off"})
}

// ResetTwoFactor turns the second factor of a user off who has lost it, for administrators, and returns the user's id. Their
// own they turn off by DisableTotp, with a code: FORBIDDEN.
func (s *Service) ResetTwoFactor(ctx context.Context, id record.ID) (record.ID, error) {
	v, err := administrator(ctx)
	if err != nil {
		return record.ID{}, err
	}
	user, err := userID(id)
	if err != nil {
		return record.ID{}, err
	}
	if user == v.ID {
		return record.ID{}, &record.Error{Code: record.Forbidden, Message: "your own second factor is turned off with a code: use disableTotp"}
	}
	err = s.inTx(ctx, v.ID, func(ctx context.Context, t tx) error {
		u, err := locked(ctx, t, user)
		if err != nil {
			return err
		}
		return s.removeSecondFactor(ctx, t, u, v.ID)
	})
	return globalID(user), err
}
