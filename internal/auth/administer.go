package auth

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

// Account is a user as administrators see one.
type Account struct {
	ID                    record.ID
	Email, Username, Name string
	Role                  string
	CreatedAt             time.Time
	Verified              bool       // the address is confirmed
	SecondFactor          bool       // signing in takes one
	LockedAt              *time.Time // since when an administrator keeps them from signing in; nil: none does
	GuardedUntil          *time.Time // until when too many failures do; nil: they do not
	Sessions              int        // that have not ended
}

// selectAccounts are users as u, of whom a condition has to follow.
const selectAccounts = `SELECT u.id, u.email, u.username, u.name, u.role, u.created_at, u.email_verified_at IS NOT NULL,
	u.totp_confirmed_at IS NOT NULL, u.locked_at,
	(SELECT g.locked_until FROM login_guards g WHERE g.account = u.id::text AND g.locked_until > now()),
	(SELECT count(*) FROM sessions s WHERE s.user_id = u.id AND s.revoked_at IS NULL AND s.expires_at > now())
	FROM users u `

func scanAccount(row pgx.CollectableRow) (*Account, error) {
	a := &Account{ID: record.ID{Prefix: userPrefix}}
	err := row.Scan(&a.ID.UUID, &a.Email, &a.Username, &a.Name, &a.Role, &a.CreatedAt, &a.Verified, &a.SecondFactor, &a.LockedAt,
		&a.GuardedUntil, &a.Sessions)
	return a, err
}

// AccountFilter says which accounts to list. Zero fields are no condition.
type AccountFilter struct {
	// Search is how a user name, a mail address or a word of a name begins, in whatever case, or an id.
	Search string
	// Role is one of the roles.
	Role string
	// Locked: by an administrator, or since there were too many failures.
	Locked bool
	// After is the user name that the list goes on after.
	After string
}

// likely escapes what LIKE would take for a pattern.
var likely = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// Accounts lists at most limit accounts by user name, for administrators.
func (s *Service) Accounts(ctx context.Context, f AccountFilter, limit int) ([]*Account, error) {
	if _, err := administrator(ctx); err != nil {
		return nil, err
	}
	search := normal(f.Search)
	var id uuid.UUID
	if parsed, err := record.ParseID(strings.TrimSpace(f.Search)); err == nil {
		id = parsed.UUID
	}
	rows, err := s.deps.Pool.Query(ctx, selectAccounts+`
		WHERE ($1 = '' OR u.id = $2 OR u.username LIKE $1 || '%' OR lower(u.email) LIKE $1 || '%' OR lower(u.name) LIKE $1 || '%'
		       OR lower(u.name) LIKE '% ' || $1 || '%')
		  AND ($3 = '' OR u.role = $3) AND u.username > $4
		  AND (NOT $5 OR u.locked_at IS NOT NULL
		       OR EXISTS (SELECT FROM login_guards g WHERE g.account = u.id::text AND g.locked_until > now()))
		ORDER BY u.username LIMIT $6`,
		likely.Replace(search), nullable(id), f.Role, storable(f.After, len(f.After)), f.Locked, limit)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanAccount)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return list, nil
}

// Account returns one, for administrators. Errors: NOT_FOUND.
func (s *Service) Account(ctx context.Context, id record.ID) (*Account, error) {
	if _, err := administrator(ctx); err != nil {
		return nil, err
	}
	user, err := userID(id)
	if err != nil {
		return nil, err
	}
	return s.oneAccount(ctx, `u.id = $1`, user)
}

// FindAccount returns the one that has an id, a user name or a mail address, for administrators. Errors: NOT_FOUND.
func (s *Service) FindAccount(ctx context.Context, text string) (*Account, error) {
	if id, err := record.ParseID(strings.TrimSpace(text)); err == nil {
		return s.Account(ctx, id)
	}
	if _, err := administrator(ctx); err != nil {
		return nil, err
	}
	return s.oneAccount(ctx, `u.username = $1 OR u.email = $1`, normal(text))
}

func (s *Service) oneAccount(ctx context.Context, where string, args ...any) (*Account, error) {
	rows, err := s.deps.Pool.Query(ctx, selectAccounts+`WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanAccount)
	if err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	if len(list) == 0 {
		return nil, errNoUser
	}
	return list[0], nil
}

// SessionsOf returns the live sessions of a user, the last used first, for administrators.
func (s *Service) SessionsOf(ctx context.Context, id record.ID) ([]*Session, error) {
	v, err := administrator(ctx)
	if err != nil {
		return nil, err
	}
	user, err := userID(id)
	if err != nil {
		return nil, err
	}
	return s.sessionsOf(ctx, user, v.Session)
}

// RevokeSessionsOf ends all sessions of a user, for administrators, and returns how many there were. Errors: NOT_FOUND.
func (s *Service) RevokeSessionsOf(ctx context.Context, id record.ID) (n int, err error) {
	v, err := administrator(ctx)
	if err != nil {
		return 0, err
	}
	user, err := userID(id)
	if err != nil {
		return 0, err
	}
	err = s.inTx(ctx, v.ID, func(ctx context.Context, t tx) error {
		if _, err := locked(ctx, t, user); err != nil {
			return err
		}
		ids, err := s.revoke(ctx, t, SessionRevoked, `user_id = $2 AND expires_at > now()`, user)
		if n = len(ids); err != nil || n == 0 {
			return err
		}
		return t.happened(ctx, SessionRevoked, user, v.ID, map[string]any{"sessions": n})
	})
	return n, err
}

// Event is a security event as administrators see it.
type Event struct {
	ID        record.ID
	At        time.Time
	Name      string
	Severity  string
	User      *Person // whom it is about; nil for nobody, or one who is gone
	Actor     *Person // who did it; nil for nobody who was signed in
	Address   string
	UserAgent string
	RequestID string
	Detail    string // JSON; "" for none
}

// Person is a user by name.
type Person struct {
	ID       record.ID
	Username string // "" where they are gone
}

const eventPrefix = "security_event"

// Events lists at most limit security events, the newest first, for administrators. before is the id of the event that the list goes on
// after; zero is the beginning.
func (s *Service) Events(ctx context.Context, f ExportFilter, before record.ID, limit int) ([]*Event, error) {
	if _, err := administrator(ctx); err != nil {
		return nil, err
	}
	rows, err := s.deps.Pool.Query(ctx, `
		SELECT e.id, e.created_at, e.name, e.severity, e.user_id, coalesce(u.username, ''), coalesce(e.actor, ''), coalesce(e.address, ''),
		       coalesce(e.user_agent, ''), coalesce(e.request_id, ''), coalesce(e.detail::text, '')
		  FROM security_events e LEFT JOIN users u ON u.id = e.user_id
		 WHERE ($1::timestamptz IS NULL OR e.created_at >= $1) AND ($2::timestamptz IS NULL OR e.created_at < $2)
		   AND ($3 = '' OR e.severity = $3) AND ($4 = '' OR e.name = $4) AND ($5::uuid IS NULL OR e.user_id = $5)
		   AND ($6::uuid IS NULL OR (e.created_at, e.id) < (SELECT b.created_at, b.id FROM security_events b WHERE b.id = $6))
		 ORDER BY e.created_at DESC, e.id DESC LIMIT $7`,
		nullTime(f.From), nullTime(f.To), f.Severity, f.Name, nullable(f.User), nullable(before.UUID), limit)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	people := map[uuid.UUID][]*Person{} // of whom the name is not known yet
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Event, error) {
		e := &Event{ID: record.ID{Prefix: eventPrefix}}
		var user *uuid.UUID
		var username, actor string
		err := row.Scan(&e.ID.UUID, &e.At, &e.Name, &e.Severity, &user, &username, &actor, &e.Address, &e.UserAgent, &e.RequestID, &e.Detail)
		e.At = e.At.UTC()
		if user != nil {
			e.User = &Person{globalID(*user), username}
		}
		if id, err := record.ParseID(actor); err == nil {
			e.Actor = &Person{ID: id}
			people[id.UUID] = append(people[id.UUID], e.Actor)
		}
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return list, s.name(ctx, people)
}

// name fills in user names.
func (s *Service) name(ctx context.Context, people map[uuid.UUID][]*Person) error {
	ids := make([]uuid.UUID, 0, len(people))
	for id := range people {
		ids = append(ids, id)
	}
	rows, err := s.deps.Pool.Query(ctx, `SELECT id, username FROM users WHERE id = ANY($1)`, ids)
	if err != nil {
		return fmt.Errorf("read names: %w", err)
	}
	var id uuid.UUID
	var username string
	if _, err := pgx.ForEachRow(rows, []any{&id, &username}, func() error {
		for _, p := range people[id] {
			p.Username = username
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read names: %w", err)
	}
	return nil
}

// Administer runs f in a transaction that has a security event of what an administrator does to something else than an account: either
// both are done, or neither. The error is f's, FORBIDDEN, or of the database.
func (s *Service) Administer(ctx context.Context, event string, detail map[string]any, f func(ctx context.Context, tx pgx.Tx) error) error {
	v, err := administrator(ctx)
	if err != nil {
		return err
	}
	return s.inTx(ctx, v.ID, func(ctx context.Context, t tx) error {
		if err := t.happened(ctx, event, uuid.Nil, v.ID, detail); err != nil {
			return err
		}
		return f(ctx, t.Tx)
	})
}

// ForPages returns the accounts as pages use them that people navigate to, as operators' do. A browser sends no header of ours with a
// navigation, so here tokens are in cookies whatever [Config.Storage] says: those of that mode, so that where the application has them
// it is the same sign-in. Nothing else reads them in header mode.
func (s *Service) ForPages() *Service {
	p := *s
	p.cfg.Storage = InCookie
	p.cookies.storage = InCookie
	return &p
}

// Visitor says who asks for a page, as [Service.Viewer] does. Where the cookie's access token is not good any more the session goes on by
// that of the refresh token, and the answer sets both; ok is false where it has ended. Errors are those of the database and of limits, and
// UNAUTHENTICATED for a header that is wrong.
func (s *Service) Visitor(ctx context.Context, authorization string) (v viewer.Viewer, ok bool, err error) {
	v, ok, err = s.Viewer(ctx, authorization)
	if err == nil || authorization != "" || !isUnauthenticated(err) {
		return v, ok, err
	}
	if s.cookies.refreshToken(ctx) == "" {
		s.cookies.clear(ctx)
		return viewer.Viewer{}, false, nil
	}
	p, err := s.Refresh(ctx, nil)
	switch {
	case isUnauthenticated(err):
		return viewer.Viewer{}, false, nil
	case err != nil:
		return viewer.Viewer{}, false, err
	}
	return *p.Viewer, true, nil
}
