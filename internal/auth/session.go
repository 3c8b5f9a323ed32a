package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

// Prefixes tell what a token is, to people and to scanners for secrets.
const (
	refreshTokenPrefix = "gst_"
	oneTimeTokenPrefix = "got_"
)

// newToken returns a token of 256 random bits.
func newToken(prefix string) string {
	return token(prefix, randomBytes(32))
}

func token(prefix string, b []byte) string { return prefix + base64.RawURLEncoding.EncodeToString(b) }

// hash is what is stored of a token. It has 256 random bits: nothing slower is needed.
func hash(token string) []byte {
	h := sha256.Sum256([]byte(token))
	return h[:]
}

// tooMany is why a session is revoked, beside the names of events.
const tooMany = "too_many_sessions"

// startSession signs u in, on the transaction. It locks the user's row: a sign-in that began before a change of the
// password or of the second factor does not outlive that, and there are never too many sessions.
func (s *Service) startSession(ctx context.Context, t tx, u *user) (*Payload, error) {
	now, err := locked(ctx, t, u.ID)
	if err != nil {
		return nil, err
	}
	if now.PasswordHash != u.PasswordHash || now.SecondFactor != u.SecondFactor {
		return nil, errLogin
	}
	if now.Locked {
		return nil, errLocked
	}
	var (
		c       = clientOf(ctx)
		id      = newID()
		refresh = newToken(refreshTokenPrefix)
		ends    time.Time
	)
	err = t.QueryRow(ctx, `
		WITH session AS (
			INSERT INTO sessions (id, user_id, address, user_agent, last_used_at, expires_at, ends_at)
			VALUES ($1, $2, $3, $4, now(), now() + least($5::interval, $6::interval), now() + $6::interval) RETURNING id, expires_at)
		INSERT INTO refresh_tokens (id, session_id, hash, expires_at) SELECT $7, s.id, $8, s.expires_at FROM session s RETURNING expires_at`,
		id, u.ID, c.address, c.userAgent, s.cfg.RefreshTTL, s.cfg.SessionTTL, newID(), hash(refresh)).Scan(&ends)
	if err != nil {
		return nil, fmt.Errorf("start session: %w", err)
	}
	gaveWay, err := s.revoke(ctx, t, tooMany, `id IN (SELECT id FROM sessions WHERE user_id = $2 AND revoked_at IS NULL
		AND expires_at > now() ORDER BY id = $3 DESC, last_used_at DESC, id DESC OFFSET $4)`, u.ID, id, s.cfg.MaxSessions)
	if err != nil {
		return nil, err
	}
	for _, id := range gaveWay {
		if err := t.happened(ctx, SessionRevoked, u.ID, u.ID, map[string]any{"session": sessionID(id), "because": tooMany}); err != nil {
			return nil, err
		}
	}
	return s.payload(viewer.Viewer{ID: u.ID, Role: now.Role, Session: id}, refresh, ends)
}

// payload is what a sign-in or a refresh answers. ends is when the session does, unless it is refreshed.
func (s *Service) payload(v viewer.Viewer, refresh string, ends time.Time) (*Payload, error) {
	issued := s.deps.Clock().UTC().Truncate(time.Second)
	expires := issued.Add(s.cfg.AccessTTL)
	if ends = ends.UTC().Truncate(time.Second); ends.Before(expires) && ends.After(issued) {
		expires = ends
	}
	v.Until = expires
	access, err := s.deps.Keys.Sign(Claims{User: v.ID, Session: v.Session, Role: v.Role, IssuedAt: issued, ExpiresAt: expires})
	if err != nil {
		return nil, err
	}
	return &Payload{AccessToken: &access, RefreshToken: &refresh, ExpiresAt: &expires, Viewer: &v}, nil
}

// deliverTokens sets the cookies, and in cookie mode takes the tokens out of the body. It is called after the commit.
func (s *Service) deliverTokens(ctx context.Context, p *Payload) {
	if p == nil || p.AccessToken == nil {
		return
	}
	s.cookies.set(ctx, *p.AccessToken, *p.RefreshToken, s.cfg.RefreshTTL)
	if s.cfg.Storage == InCookie {
		p.AccessToken, p.RefreshToken = nil, nil
	}
}

// revoke revokes the live sessions that a condition describes, and returns their ids. args begin at $2. This node
// refuses their access tokens at once, the others when they read the log.
func (s *Service) revoke(ctx context.Context, t tx, because, where string, args ...any) ([]uuid.UUID, error) {
	rows, err := t.Query(ctx, `UPDATE sessions SET revoked_at = now(), revoked_because = $1 WHERE revoked_at IS NULL AND `+where+` RETURNING id`,
		append([]any{because}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("revoke sessions: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("revoke sessions: %w", err)
	}
	t.onCommit(func() { s.revoked.sessions(ids...) })
	return ids, nil
}

// revokeAll revokes all sessions of a user.
func (s *Service) revokeAll(ctx context.Context, t tx, user uuid.UUID, because string) ([]uuid.UUID, error) {
	return s.revoke(ctx, t, because, `user_id = $2`, user)
}

// Sessions returns the live sessions of who asks, the last used first.
func (s *Service) Sessions(ctx context.Context) ([]*Session, error) {
	v, err := signedIn(ctx)
	if err != nil {
		return nil, err
	}
	return s.sessionsOf(ctx, v.ID, v.Session)
}

// sessionsOf returns the live sessions of a user, of which one may be that which asks.
func (s *Service) sessionsOf(ctx context.Context, user, current uuid.UUID) ([]*Session, error) {
	rows, err := s.deps.Pool.Query(ctx, `SELECT id, created_at, last_used_at, expires_at, address, user_agent FROM sessions
		WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now() ORDER BY last_used_at DESC, id DESC`, user)
	if err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Session, error) {
		o := &Session{ID: record.ID{Prefix: sessionPrefix}}
		err := row.Scan(&o.ID.UUID, &o.CreatedAt, &o.LastUsedAt, &o.ExpiresAt, &o.Address, &o.UserAgent)
		o.CreatedAt, o.LastUsedAt, o.ExpiresAt = o.CreatedAt.UTC(), o.LastUsedAt.UTC(), o.ExpiresAt.UTC()
		o.Current = o.ID.UUID == current
		return o, err
	})
	if err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	return list, nil
}

// RevokeSession ends a session: one's own, or for administrators anybody's. Others are NOT_FOUND, and so is one that
// has ended.
func (s *Service) RevokeSession(ctx context.Context, id record.ID) (bool, error) {
	v, err := signedIn(ctx)
	if err != nil {
		return false, err
	}
	if id.Prefix != "" && id.Prefix != sessionPrefix {
		return false, badInput("id", "id: "+id.String()+" is not the id of a Session")
	}
	err = s.inTxOf(ctx, s.parting, v.ID, func(ctx context.Context, t tx) error {
		var owner uuid.UUID
		err := t.QueryRow(ctx, `SELECT user_id FROM sessions WHERE id = $1 AND (user_id = $2 OR $3)`, id.UUID, v.ID, v.Is(viewer.Admin)).Scan(&owner)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("find session: %w", err)
		}
		ids, err := s.revoke(ctx, t, SessionRevoked, `id = $2 AND user_id = $3`, id.UUID, owner)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			return &record.Error{Code: record.NotFound, Message: "no such session"}
		}
		return t.happened(ctx, SessionRevoked, owner, v.ID, map[string]any{"session": sessionID(id.UUID)})
	})
	return err == nil, err
}

func sessionID(id uuid.UUID) string { return record.ID{Prefix: sessionPrefix, UUID: id}.String() }

// Logout ends the session that asks, by its access token or by its refresh token's cookie, and clears the cookies. Where
// nobody is signed in there is nothing to do.
func (s *Service) Logout(ctx context.Context) (bool, error) {
	if err := s.cookies.settable(ctx); err != nil {
		return false, err
	}
	defer s.cookies.clear(ctx)
	v, _ := viewer.FromContext(ctx)
	refresh := s.cookies.refreshToken(ctx)
	if v.Session == uuid.Nil && refresh == "" {
		return true, nil
	}
	err := s.inTxOf(ctx, s.parting, v.ID, func(ctx context.Context, t tx) error {
		var owner, id uuid.UUID
		err := t.QueryRow(ctx, `SELECT user_id, id FROM sessions WHERE id = $1
			OR id = (SELECT session_id FROM refresh_tokens WHERE hash = $2) ORDER BY id = $1 DESC LIMIT 1`, v.Session, hash(refresh)).Scan(&owner, &id)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find session: %w", err)
		}
		ids, err := s.revoke(ctx, t, LoggedOut, `id = $2`, id)
		if err != nil || len(ids) == 0 {
			return err
		}
		return t.happened(ctx, LoggedOut, owner, owner, map[string]any{"session": sessionID(id)})
	})
	return err == nil, err
}

// LogoutEverywhere ends all sessions of who asks, this one too, and returns how many there were.
func (s *Service) LogoutEverywhere(ctx context.Context) (int, error) {
	v, err := signedIn(ctx)
	if err != nil {
		return 0, err
	}
	if err := s.cookies.settable(ctx); err != nil {
		return 0, err
	}
	var n int
	err = s.inTxOf(ctx, s.parting, v.ID, func(ctx context.Context, t tx) error {
		if _, err := locked(ctx, t, v.ID); err != nil {
			return err
		}
		if err := t.QueryRow(ctx, `SELECT count(*) FROM sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now()`, v.ID).Scan(&n); err != nil {
			return fmt.Errorf("count sessions: %w", err)
		}
		if _, err := s.revokeAll(ctx, t, v.ID, LoggedOutEverywhere); err != nil {
			return err
		}
		return t.happened(ctx, LoggedOutEverywhere, v.ID, v.ID, map[string]any{"sessions": n})
	})
	if err != nil {
		return 0, err
	}
	s.cookies.clear(ctx)
	return n, nil
}
