package auth

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"godstack/ent"
	entuser "godstack/ent/user"
	"godstack/internal/entpgx"
	"godstack/internal/mail"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// NewUser is an account to make.
type NewUser struct {
	Email, Username, Password string
	Name                      string // default Username
	Role                      string // default viewer.User
}

func (n *NewUser) normalize() {
	n.Email, n.Username, n.Name = normal(n.Email), normal(n.Username), strings.TrimSpace(n.Name)
	if n.Role == "" {
		n.Role = viewer.User
	}
}

// own is what a user's password must have nothing of.
func own(email, username, name string) []string {
	local, _, _ := strings.Cut(email, "@")
	return append(strings.Fields(name), name, username, local)
}

// CreateUser makes an account whose address counts as confirmed: it is for administrators, and makes the first one.
// Errors: BAD_USER_INPUT and ALREADY_EXISTS with the field.
func (s *Service) CreateUser(ctx context.Context, n NewUser) (uuid.UUID, error) {
	n.normalize()
	n.Name = cmp.Or(n.Name, n.Username)
	if err := CheckPassword(n.Password, own(n.Email, n.Username, n.Name)...); err != nil {
		return uuid.UUID{}, err
	}
	phc, err := s.deps.Passwords.Hash(ctx, n.Password)
	if err != nil {
		return uuid.UUID{}, err
	}
	id := newID()
	err = s.inTx(ctx, uuid.Nil, func(ctx context.Context, t tx) error {
		if err := t.createUser(ctx, id, n, phc, true); err != nil {
			return err
		}
		return t.happened(ctx, UserRegistered, id, uuid.Nil, map[string]any{"role": n.Role})
	})
	if err != nil {
		return uuid.UUID{}, taken(err)
	}
	return id, nil
}

// createUser inserts a user through ent, so that validators and hooks of its schema run.
func (t tx) createUser(ctx context.Context, id uuid.UUID, n NewUser, phc string, verified bool) error {
	create := ent.NewClient(ent.Driver(entpgx.FromTx(t.ent))).User.Create().SetID(id).
		SetEmail(n.Email).SetUsername(n.Username).SetName(n.Name).SetRole(entuser.Role(n.Role)).SetPasswordHash(phc)
	if verified {
		var now time.Time
		if err := t.QueryRow(ctx, `SELECT now()`).Scan(&now); err != nil {
			return fmt.Errorf("create user: %w", err)
		}
		create.SetEmailVerifiedAt(now.UTC())
	}
	if err := create.Exec(ctx); err != nil {
		return invalid(err)
	}
	return nil
}

// invalid turns what ent's validators say into BAD_USER_INPUT with the field.
func invalid(err error) error {
	v, ok := errors.AsType[*ent.ValidationError](err)
	if !ok {
		return fmt.Errorf("create user: %w", err)
	}
	cause := error(v)
	for inner := cause; inner != nil; inner = errors.Unwrap(inner) {
		cause = inner
	}
	return &record.Error{Code: record.BadUserInput, Message: v.Name + ": " + cause.Error(), Fields: []string{v.Name}, Err: err}
}

// unique returns the field that a unique index of users refused, "" for another error.
func unique(err error) string {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pg.Code != "23505" || pg.TableName != entuser.Table {
		return ""
	}
	if strings.Contains(pg.ConstraintName, entuser.FieldEmail) {
		return entuser.FieldEmail
	}
	return entuser.FieldUsername
}

// taken turns the error of a unique index into ALREADY_EXISTS.
func taken(err error) error {
	if field := unique(err); field != "" {
		return exists(field)
	}
	return err
}

// nobodys is an address that is nobody's, and not known before.
func nobodys() string {
	id := newID()
	return hex.EncodeToString(id[:]) + "@example.invalid"
}

func exists(field string) *record.Error {
	return &record.Error{Code: record.AlreadyExists, Message: "another user has this " + field, Fields: []string{field}}
}

// Register makes an account. Where addresses must be confirmed, the answer is empty and takes the same work whether the
// address is known or not; its owner gets a mail: the link, or that there is an account already. Else it signs in at
// once, and a known address is ALREADY_EXISTS.
//
// Errors: BAD_USER_INPUT with the field, ALREADY_EXISTS for a user name that is taken, RATE_LIMITED.
func (s *Service) Register(ctx context.Context, in RegisterInput) (*Payload, error) {
	if err := s.cookies.settable(ctx); err != nil {
		return nil, err
	}
	if err := s.limit(ctx, s.cfg.Limits.Register); err != nil {
		return nil, err
	}
	n := NewUser{Email: in.Email, Username: in.Username, Name: in.Name, Password: in.Password}
	n.normalize()
	if err := CheckPassword(n.Password, own(n.Email, n.Username, n.Name)...); err != nil {
		return nil, err
	}
	phc, err := s.deps.Passwords.Hash(ctx, n.Password)
	if err != nil {
		return nil, err
	}
	var p *Payload
	// Whoever loses a race for a name or an address finds it taken at the second try.
	for range 3 {
		id := newID()
		err = s.inTx(ctx, id, func(ctx context.Context, t tx) error {
			p, err = s.register(ctx, t, id, n, phc)
			return err
		})
		if unique(err) == "" {
			break
		}
	}
	if err != nil {
		return nil, taken(err)
	}
	s.deliverTokens(ctx, p)
	return p, nil
}

// register makes the account in a savepoint. Where the address is known it makes one with another address and takes
// that back: the same statements, validators and writes.
func (s *Service) register(ctx context.Context, t tx, id uuid.UUID, n NewUser, phc string) (*Payload, error) {
	var emailTaken, usernameTaken bool
	err := t.QueryRow(ctx, `SELECT EXISTS (SELECT FROM users WHERE email = $1), EXISTS (SELECT FROM users WHERE username = $2)`,
		n.Email, n.Username).Scan(&emailTaken, &usernameTaken)
	if err != nil {
		return nil, fmt.Errorf("look for user: %w", err)
	}
	if usernameTaken {
		return nil, exists(entuser.FieldUsername)
	}
	if emailTaken && s.cfg.VerifyEmail == VerifyOptional {
		return nil, exists(entuser.FieldEmail)
	}
	made := n
	if emailTaken {
		made.Email = nobodys()
	}
	if _, err := t.Exec(ctx, `SAVEPOINT account`); err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	if err := t.createUser(ctx, id, made, phc, false); err != nil {
		return nil, err
	}
	token, err := s.issue(ctx, t, id, verifyEmail, made.Email)
	if err != nil {
		return nil, err
	}
	if err := t.happened(ctx, UserRegistered, id, id, nil); err != nil {
		return nil, err
	}
	if s.deps.FollowUps != nil {
		if err := s.deps.FollowUps.FollowUp(ctx, t, id, s.deps.Clock().Add(followUpAfter)); err != nil {
			return nil, fmt.Errorf("register: %w", err)
		}
	}
	if emailTaken {
		if _, err := t.Exec(ctx, `ROLLBACK TO SAVEPOINT account`); err != nil {
			return nil, fmt.Errorf("register: %w", err)
		}
		return &Payload{}, s.mail(ctx, t, mail.AccountExists, n.Email, mail.Data{Link: s.forgotten()})
	}
	if _, err := t.Exec(ctx, `RELEASE SAVEPOINT account`); err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	p := &Payload{}
	if s.cfg.VerifyEmail == VerifyOptional {
		u := &user{ID: id, Email: n.Email, Username: n.Username, Name: n.Name, Role: n.Role, PasswordHash: phc}
		if p, err = s.startSession(ctx, t, u); err != nil {
			return nil, err
		}
		if err := s.attempt(ctx, t, id.String(), id, outcomeSuccess); err != nil { // its device is known then
			return nil, err
		}
	}
	return p, s.mail(ctx, t, mail.VerifyEmail, n.Email, mail.Data{Link: s.link("/verify-email", token)})
}

// ChangePassword sets another password, given the current one. It ends all sessions, takes back the links that were
// mailed, and signs in anew.
func (s *Service) ChangePassword(ctx context.Context, current, password string) (*Payload, error) {
	if err := s.cookies.settable(ctx); err != nil {
		return nil, err
	}
	u, err := s.self(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.confirmPassword(ctx, u, "current", current)
	if err != nil {
		return nil, err
	}
	defer c.release(ctx)
	if err := CheckPassword(password, own(u.Email, u.Username, u.Name)...); err != nil {
		return nil, err
	}
	phc, err := s.deps.Passwords.Hash(ctx, password)
	if err != nil {
		return nil, err
	}
	var p *Payload
	err = c.inTx(ctx, func(ctx context.Context, t tx, u *user) error {
		if err := s.setPassword(ctx, t, u, phc, PasswordChanged); err != nil {
			return err
		}
		if p, err = s.startSession(ctx, t, u); err != nil {
			return err
		}
		return t.happened(ctx, PasswordChanged, u.ID, u.ID, nil)
	})
	if err != nil {
		return nil, err
	}
	s.deliverTokens(ctx, p)
	return p, nil
}

// setPassword stores a password's hash, ends what was given to whoever had the old one, and tells the owner.
func (s *Service) setPassword(ctx context.Context, t tx, u *user, phc, because string) error {
	if _, err := t.Exec(ctx, `UPDATE users SET password_hash = $2 WHERE id = $1`, u.ID, phc); err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	u.PasswordHash = phc
	if _, err := s.revokeAll(ctx, t, u.ID, because); err != nil {
		return err
	}
	if err := t.void(ctx, u.ID, verifyEmail, resetPassword, changeEmail); err != nil {
		return err
	}
	return s.mail(ctx, t, mail.PasswordChanged, u.Email, mail.Data{Name: u.Name})
}

// LockUser keeps a user from signing in until UnlockUser, whatever they prove, and ends all of their sessions, for administrators. It
// returns the user's id. Who is locked already stays so. FORBIDDEN: nobody locks themselves, so that an administrator is left.
func (s *Service) LockUser(ctx context.Context, id record.ID) (record.ID, error) {
	v, err := administrator(ctx)
	if err != nil {
		return record.ID{}, err
	}
	user, err := userID(id)
	if err != nil {
		return record.ID{}, err
	}
	if user == v.ID {
		return record.ID{}, &record.Error{Code: record.Forbidden, Message: "nobody locks their own account"}
	}
	err = s.inTx(ctx, v.ID, func(ctx context.Context, t tx) error {
		if _, err := t.administrators(ctx, v); err != nil {
			return err
		}
		u, err := locked(ctx, t, user)
		if err != nil || u.Locked {
			return err
		}
		if _, err := t.Exec(ctx, `UPDATE users SET locked_at = now() WHERE id = $1`, user); err != nil {
			return fmt.Errorf("lock user: %w", err)
		}
		if _, err := s.revokeAll(ctx, t, user, AccountLocked); err != nil {
			return err
		}
		return t.happened(ctx, AccountLocked, user, v.ID, nil)
	})
	return globalID(user), err
}

// UnlockUser takes LockUser back and forgets the failures to sign in as a user, for administrators. It returns the user's id.
func (s *Service) UnlockUser(ctx context.Context, id record.ID) (record.ID, error) {
	v, err := administrator(ctx)
	if err != nil {
		return record.ID{}, err
	}
	user, err := userID(id)
	if err != nil {
		return record.ID{}, err
	}
	err = s.inTx(ctx, v.ID, func(ctx context.Context, t tx) error {
		u, err := locked(ctx, t, user)
		if err != nil {
			return err
		}
		counted, err := t.resetGuard(ctx, user.String())
		if err != nil || !counted && !u.Locked {
			return err
		}
		if u.Locked {
			if _, err := t.Exec(ctx, `UPDATE users SET locked_at = NULL WHERE id = $1`, user); err != nil {
				return fmt.Errorf("unlock user: %w", err)
			}
		}
		return t.happened(ctx, AccountUnlocked, user, v.ID, nil)
	})
	return globalID(user), err
}

// administrators locks the rows of all administrators who may sign in and returns their ids, so that two cannot depose each other at once.
// FORBIDDEN where v is none of them any more.
func (t tx) administrators(ctx context.Context, v viewer.Viewer) ([]uuid.UUID, error) {
	rows, err := t.Query(ctx, `SELECT id FROM users WHERE role = 'admin' AND locked_at IS NULL ORDER BY id FOR NO KEY UPDATE`)
	if err != nil {
		return nil, fmt.Errorf("lock administrators: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("lock administrators: %w", err)
	}
	if !slices.Contains(ids, v.ID) {
		return nil, &record.Error{Code: record.Forbidden, Message: "this is for administrators"}
	}
	return ids, nil
}

// SetRole gives a user a role, for administrators. Who was signed in goes on with the new role after a refresh. The last
// administrator who may sign in stays one: FORBIDDEN.
func (s *Service) SetRole(ctx context.Context, id record.ID, role string) (record.ID, error) {
	v, err := administrator(ctx)
	if err != nil {
		return record.ID{}, err
	}
	user, err := userID(id)
	if err != nil {
		return record.ID{}, err
	}
	err = s.inTx(ctx, v.ID, func(ctx context.Context, t tx) error {
		admins, err := t.administrators(ctx, v)
		if err != nil {
			return err
		}
		u, err := locked(ctx, t, user)
		if err != nil || u.Role == role {
			return err
		}
		if len(admins) == 1 && admins[0] == user {
			return &record.Error{Code: record.Forbidden, Message: "the last administrator stays one"}
		}
		if _, err := t.Exec(ctx, `UPDATE users SET role = $2 WHERE id = $1`, user, role); err != nil {
			return fmt.Errorf("set role: %w", err)
		}
		t.onCommit(func() { s.revoked.learn(nil, map[uuid.UUID]string{user: role}) })
		return t.happened(ctx, RoleChanged, user, v.ID, map[string]any{"from": u.Role, "to": role})
	})
	return globalID(user), err
}
