package auth

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	entuser "godstack/ent/user"
	"godstack/internal/mail"
	"godstack/internal/ratelimit"
	"godstack/internal/record"
)

// purpose is what a one-time token is good for.
type purpose string

const (
	verifyEmail   purpose = "verify_email"
	resetPassword purpose = "reset_password"
	changeEmail   purpose = "change_email"
	revertEmail   purpose = "revert_email"
)

// link is where a mail leads.
func (s *Service) link(path, token string) string {
	return s.cfg.PublicURL + path + "?token=" + url.QueryEscape(token)
}

// home is where the application begins.
func (s *Service) home() string { return s.cfg.PublicURL + "/" }

// forgotten is the page where one asks for a link to set a new password. It has no token: whoever makes us mail it has made no link that is
// good for anything, and voided none.
func (s *Service) forgotten() string { return s.cfg.PublicURL + "/reset-password" }

// issue makes a one-time token about an address. It voids those of the purpose that were made before, but for those
// that take a change of address back: who changes it twice has not taken anything from its owner.
func (s *Service) issue(ctx context.Context, t tx, user uuid.UUID, p purpose, email string) (string, error) {
	ttl := s.cfg.TokenTTL
	if p == revertEmail {
		ttl = s.cfg.RevertTTL
	} else if err := t.void(ctx, user, p); err != nil {
		return "", err
	}
	token := newToken(oneTimeTokenPrefix)
	_, err := t.Exec(ctx, `INSERT INTO one_time_tokens (id, user_id, purpose, hash, email, expires_at)
		SELECT $1, u.id, $3, $4, $5, now() + $6::interval FROM users u WHERE u.id = $2`, newID(), user, p, hash(token), email, ttl)
	if err != nil {
		return "", fmt.Errorf("issue token %s: %w", p, err)
	}
	return token, nil
}

// void takes back a user's tokens that have not been used.
func (t tx) void(ctx context.Context, user uuid.UUID, purposes ...purpose) error {
	_, err := t.Exec(ctx, `UPDATE one_time_tokens SET used_at = now() WHERE user_id = $1 AND purpose = ANY($2) AND used_at IS NULL`, user, purposes)
	if err != nil {
		return fmt.Errorf("void tokens: %w", err)
	}
	return nil
}

// oneTime is a one-time token that was presented.
type oneTime struct {
	user    uuid.UUID
	purpose purpose
	email   string
	issued  time.Time
}

var errOneTimeToken = badInput("token", "the link is not valid any more: ask for a new one")

// use uses a token up, in one statement: of any number who present it one succeeds.
func (t tx) use(ctx context.Context, token string, purposes ...purpose) (o oneTime, err error) {
	err = t.QueryRow(ctx, `UPDATE one_time_tokens SET used_at = now()
		WHERE hash = $1 AND purpose = ANY($2) AND used_at IS NULL AND expires_at > now() RETURNING user_id, purpose, email, created_at`,
		hash(token), purposes).Scan(&o.user, &o.purpose, &o.email, &o.issued)
	if errors.Is(err, pgx.ErrNoRows) {
		return o, errOneTimeToken
	}
	if err != nil {
		return o, fmt.Errorf("use token: %w", err)
	}
	return o, nil
}

// mailLink mails a link to u, unless they have another address by now, and does the same work where nobody is to get one:
// it is taken back. u is nobody then.
func (s *Service) mailLink(ctx context.Context, t tx, u *user, p purpose, event string, compose func(u *user, token string) (mail.Message, error)) error {
	// The rows that are taken back are somebody's. The lock is the one that rows which refer to a user take: the address
	// does not change under it.
	now, err := findUser(ctx, t, `id = coalesce((SELECT id FROM users WHERE id = $1), (SELECT id FROM users LIMIT 1)) FOR KEY SHARE`, u.ID)
	if err != nil {
		return err
	}
	somebody := u.ID != uuid.Nil && now.ID == u.ID && now.Email == u.Email
	if !somebody {
		now.Email = nobodys()
	}
	if _, err := t.Exec(ctx, `SAVEPOINT link`); err != nil {
		return fmt.Errorf("mail link: %w", err)
	}
	token, err := s.issue(ctx, t, now.ID, p, now.Email)
	if err != nil {
		return err
	}
	if err := t.happened(ctx, event, now.ID, uuid.Nil, nil); err != nil {
		return err
	}
	m, err := compose(now, token)
	if err != nil {
		return err
	}
	end := `RELEASE SAVEPOINT link`
	if somebody {
		err = s.enqueue(ctx, t, m)
	} else {
		end, err = `ROLLBACK TO SAVEPOINT link`, s.rehearse(ctx, t, m)
	}
	if err != nil {
		return err
	}
	if _, err := t.Exec(ctx, end); err != nil {
		return fmt.Errorf("mail link: %w", err)
	}
	return nil
}

// RequestPasswordReset mails a link to set a new password, if the address is somebody's. It answers true and does the
// same work in any case. An address gets as many in an hour as a client may ask for.
func (s *Service) RequestPasswordReset(ctx context.Context, email string) (bool, error) {
	if err := s.limit(ctx, s.cfg.Limits.Forgot); err != nil {
		return false, err
	}
	u, err := s.recipient(ctx, s.cfg.Limits.Forgot, email, func(*user) bool { return true })
	if err != nil {
		return false, err
	}
	err = s.inTx(ctx, uuid.Nil, func(ctx context.Context, t tx) error {
		return s.mailLink(ctx, t, u, resetPassword, PasswordResetRequested, func(u *user, token string) (mail.Message, error) {
			return s.compose(ctx, mail.ResetPassword, u.Email, mail.Data{Name: u.Name, Link: s.link("/reset-password", token)})
		})
	})
	return err == nil, err
}

// recipient returns the user who has an address and is wanted, else nobody: also where the address has had as many mails
// as the limit allows, whoever asked for them.
func (s *Service) recipient(ctx context.Context, l ratelimit.Limit, email string, wanted func(*user) bool) (*user, error) {
	email = normal(email)
	l.Name += "-mail"
	r, counted := s.take(ctx, l, hex.EncodeToString(s.deps.Secrets.Derive("mail", []byte(email))))
	u, err := findUser(ctx, s.deps.Pool, "email = $1", email)
	if err != nil {
		return nil, err
	}
	if u.ID == uuid.Nil || !wanted(u) || counted && !r.OK {
		return &user{}, nil
	}
	return u, nil
}

// RequestEmailVerification mails the link that confirms an address once more: to the one given, or to that of who asks. It
// answers true and does the same work whether the address is somebody's, and confirmed, or not.
func (s *Service) RequestEmailVerification(ctx context.Context, email *string) (bool, error) {
	if err := s.limit(ctx, s.cfg.Limits.Resend); err != nil {
		return false, err
	}
	if email == nil {
		u, err := s.self(ctx)
		if err != nil {
			return false, err
		}
		email = &u.Email
	}
	u, err := s.recipient(ctx, s.cfg.Limits.Resend, *email, func(u *user) bool { return !u.Verified })
	if err != nil {
		return false, err
	}
	err = s.inTx(ctx, uuid.Nil, func(ctx context.Context, t tx) error {
		return s.mailLink(ctx, t, u, verifyEmail, EmailVerificationRequested, func(u *user, token string) (mail.Message, error) {
			return s.compose(ctx, mail.VerifyEmail, u.Email, mail.Data{Link: s.link("/verify-email", token)})
		})
	})
	return err == nil, err
}

// VerifyEmail confirms an address: that of a new account, which it signs in, or the one that an account changes to. It
// does not sign in who has a second factor, nor after a change: the payload is empty then.
func (s *Service) VerifyEmail(ctx context.Context, token string) (*Payload, error) {
	if err := s.cookies.settable(ctx); err != nil {
		return nil, err
	}
	if err := s.limit(ctx, s.cfg.Limits.Verify); err != nil {
		return nil, err
	}
	p := &Payload{}
	err := s.inTx(ctx, uuid.Nil, func(ctx context.Context, t tx) error {
		o, err := t.use(ctx, token, verifyEmail, changeEmail)
		if err != nil {
			return err
		}
		u, err := locked(ctx, t, o.user)
		if err != nil {
			return err
		}
		if err := t.act(ctx, u.ID); err != nil {
			return err
		}
		if o.purpose == changeEmail {
			return s.changedEmail(ctx, t, u, o.email)
		}
		tag, err := t.Exec(ctx, `UPDATE users SET email_verified_at = coalesce(email_verified_at, now()) WHERE id = $1 AND email = $2`, u.ID, o.email)
		if err != nil {
			return fmt.Errorf("verify email: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errOneTimeToken
		}
		if err := s.proved(ctx, t, u, o.email); err != nil {
			return err
		}
		if err := t.happened(ctx, EmailVerified, u.ID, u.ID, nil); err != nil {
			return err
		}
		if u.SecondFactor {
			return nil
		}
		if p, err = s.startSession(ctx, t, u); err != nil {
			return err
		}
		return s.attempt(ctx, t, u.ID.String(), u.ID, outcomeSuccess)
	})
	if err != nil {
		return nil, err
	}
	s.deliverTokens(ctx, p)
	return p, nil
}

// act has the change log name a user for the rest of the transaction.
func (t tx) act(ctx context.Context, actor uuid.UUID) error {
	if _, err := t.Exec(ctx, `SELECT set_config($1, $2, true)`, record.ActorSetting, actor.String()); err != nil {
		return fmt.Errorf("set actor: %w", err)
	}
	return nil
}

// ResetPassword sets a password, given a token that was mailed to the address that the user has. It proves the address as
// well, ends all sessions and unlocks the account; a second factor stays in force, unless the address had not been proved:
// whoever turned it on may have registered with somebody else's. It does not sign in.
func (s *Service) ResetPassword(ctx context.Context, token, password string) (bool, error) {
	if err := s.limit(ctx, s.cfg.Limits.Reset); err != nil {
		return false, err
	}
	// The password is checked before the token is used up, and hashed outside of the transaction.
	u, err := findUser(ctx, s.deps.Pool, `id = (SELECT user_id FROM one_time_tokens
		WHERE hash = $1 AND purpose = 'reset_password' AND used_at IS NULL AND expires_at > now())`, hash(token))
	if err != nil {
		return false, err
	}
	if u.ID == uuid.Nil {
		return false, errOneTimeToken
	}
	if err := CheckPassword(password, own(u.Email, u.Username, u.Name)...); err != nil {
		return false, err
	}
	phc, err := s.deps.Passwords.Hash(ctx, password)
	if err != nil {
		return false, err
	}
	err = s.inTx(ctx, u.ID, func(ctx context.Context, t tx) error {
		o, err := t.use(ctx, token, resetPassword)
		if err != nil {
			return err
		}
		if u, err = locked(ctx, t, o.user); err != nil {
			return err
		}
		if u.Email != o.email {
			return errOneTimeToken
		}
		if !u.Verified {
			if _, err := t.Exec(ctx, `UPDATE users SET email_verified_at = now() WHERE id = $1`, u.ID); err != nil {
				return fmt.Errorf("verify email: %w", err)
			}
			if err := s.removeSecondFactor(ctx, t, u, u.ID); err != nil {
				return err
			}
			if err := s.proved(ctx, t, u, u.Email); err != nil {
				return err
			}
		}
		if err := s.setPassword(ctx, t, u, phc, PasswordReset); err != nil {
			return err
		}
		unlocked, err := t.resetGuard(ctx, u.ID.String())
		if err != nil {
			return err
		}
		return t.happened(ctx, PasswordReset, u.ID, u.ID, map[string]any{"unlocked": unlocked})
	})
	return err == nil, err
}

// ChangeEmail mails a link to a new address, which VerifyEmail takes. It needs the password, and answers true whether
// another user has proved the address to be theirs or not: they get a mail then.
func (s *Service) ChangeEmail(ctx context.Context, password, email string) (bool, error) {
	u, err := s.self(ctx)
	if err != nil {
		return false, err
	}
	if err := s.limit(ctx, s.cfg.Limits.Resend); err != nil {
		return false, err
	}
	email = normal(email)
	if err := entuser.EmailValidator(email); err != nil {
		return false, &record.Error{Code: record.BadUserInput, Message: "email: not a mail address", Fields: []string{"email"}, Err: err}
	}
	if email == u.Email {
		return false, badInput("email", "email: it is that already")
	}
	c, err := s.confirmPassword(ctx, u, "password", password)
	if err != nil {
		return false, err
	}
	defer c.release(ctx)
	err = c.inTx(ctx, func(ctx context.Context, t tx, u *user) error {
		other, err := findUser(ctx, t, "email = $1", email)
		if err != nil {
			return err
		}
		token, err := s.issue(ctx, t, u.ID, changeEmail, email)
		if err != nil {
			return err
		}
		if err := t.happened(ctx, EmailChangeRequested, u.ID, u.ID, nil); err != nil {
			return err
		}
		if other.Verified {
			return s.mail(ctx, t, mail.AccountExists, email, mail.Data{Link: s.forgotten()})
		}
		return s.mail(ctx, t, mail.ChangeEmail, email, mail.Data{Link: s.link("/verify-email", token)})
	})
	return err == nil, err
}

// setEmail gives a user an address that they have proved to be theirs. Who has it and never proved that gives way; who did
// keeps it: ALREADY_EXISTS.
func (s *Service) setEmail(ctx context.Context, t tx, u *user, email string) error {
	other, err := findUser(ctx, t, "email = $1 AND email_verified_at IS NULL AND id <> $2 FOR NO KEY UPDATE", email, u.ID)
	if err != nil {
		return err
	}
	if other.ID != uuid.Nil {
		if _, err := t.Exec(ctx, `UPDATE users SET email = $2 WHERE id = $1`, other.ID, nobodys()); err != nil {
			return fmt.Errorf("release email: %w", err)
		}
		if _, err := s.revokeAll(ctx, t, other.ID, EmailReleased); err != nil {
			return err
		}
		if err := t.void(ctx, other.ID, verifyEmail, resetPassword, changeEmail, revertEmail); err != nil {
			return err
		}
		if err := t.happened(ctx, EmailReleased, other.ID, uuid.Nil, map[string]any{"from": email}); err != nil {
			return err
		}
	}
	_, err = t.Exec(ctx, `UPDATE users SET email = $2, email_verified_at = now() WHERE id = $1`, u.ID, email)
	if unique(err) != "" {
		return exists(entuser.FieldEmail)
	}
	if err != nil {
		return fmt.Errorf("set email: %w", err)
	}
	return s.proved(ctx, t, u, email)
}

// proved welcomes a user at an address that they have just proved to be theirs, unless they had proved one before. u is as it was then.
func (s *Service) proved(ctx context.Context, t tx, u *user, email string) error {
	if u.Verified {
		return nil
	}
	u.Verified = true
	return s.mail(ctx, t, mail.Welcome, email, mail.Data{Name: u.Name, Link: s.home()})
}

// changedEmail puts a new address in the place of the old one, to which it mails a link that takes it back.
func (s *Service) changedEmail(ctx context.Context, t tx, u *user, email string) error {
	if err := s.setEmail(ctx, t, u, email); err != nil {
		return err
	}
	if err := t.void(ctx, u.ID, verifyEmail, resetPassword); err != nil { // mailed to the old one
		return err
	}
	if err := t.happened(ctx, EmailChanged, u.ID, u.ID, map[string]any{"from": u.Email, "to": email}); err != nil {
		return err
	}
	token, err := s.issue(ctx, t, u.ID, revertEmail, u.Email)
	if err != nil {
		return err
	}
	return s.mail(ctx, t, mail.EmailChanged, u.Email, mail.Data{Name: u.Name, Email: email, Link: s.link("/revert-email", token)})
}

// RevertEmail takes a change of address back, and those that came after it, for who has the old one. Whoever changed it
// knew the password: that is void, so is a second factor that was turned on since, all sessions end, and the old address
// gets a link to set a new password.
func (s *Service) RevertEmail(ctx context.Context, token string) (bool, error) {
	if err := s.limit(ctx, s.cfg.Limits.Verify); err != nil {
		return false, err
	}
	err := s.inTx(ctx, uuid.Nil, func(ctx context.Context, t tx) error {
		o, err := t.use(ctx, token, revertEmail)
		if err != nil {
			return err
		}
		u, err := locked(ctx, t, o.user)
		if err != nil {
			return err
		}
		if err := t.act(ctx, u.ID); err != nil {
			return err
		}
		from := u.Email
		if err := s.setEmail(ctx, t, u, o.email); err != nil {
			return err
		}
		u.Email = o.email
		var theirs bool
		err = t.QueryRow(ctx, `UPDATE users SET password_hash = NULL WHERE id = $1 RETURNING coalesce(totp_confirmed_at >= $2, false)`, u.ID, o.issued).Scan(&theirs)
		if err != nil {
			return fmt.Errorf("void password: %w", err)
		}
		if theirs {
			if err := s.removeSecondFactor(ctx, t, u, u.ID); err != nil {
				return err
			}
		}
		if _, err := s.revokeAll(ctx, t, u.ID, EmailReverted); err != nil {
			return err
		}
		if err := t.void(ctx, u.ID, verifyEmail, resetPassword, changeEmail); err != nil {
			return err
		}
		// Who had the address before still takes it back: an older link wins.
		_, err = t.Exec(ctx, `UPDATE one_time_tokens SET used_at = now()
			WHERE user_id = $1 AND purpose = $2 AND used_at IS NULL AND created_at >= $3`, u.ID, revertEmail, o.issued)
		if err != nil {
			return fmt.Errorf("void tokens: %w", err)
		}
		reset, err := s.issue(ctx, t, u.ID, resetPassword, o.email)
		if err != nil {
			return err
		}
		if err := t.happened(ctx, EmailReverted, u.ID, u.ID, map[string]any{"from": from, "to": o.email}); err != nil {
			return err
		}
		return s.mail(ctx, t, mail.ResetPassword, o.email, mail.Data{Name: u.Name, Link: s.link("/reset-password", reset)})
	})
	return err == nil, err
}
