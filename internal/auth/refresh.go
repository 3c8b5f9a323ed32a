package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"godstack/internal/mail"
	"godstack/internal/viewer"
)

// Rotation of refresh tokens.
//
// Only hashes are stored, and yet who asks again within Grace gets the same child: it is derived from its parent, which
// the client presents, and a random salt, which is stored with the parent when that is rotated, by HMAC under a key of
// SECRET_KEYS. Neither the database nor the parent alone tells the child. A parent has one child at most, which a unique
// index holds as well: the family is a chain.
//
//	presented            stored               answer
//	the leaf             not rotated          rotated in one statement: its child
//	the leaf's parent    rotated < Grace ago  the same child, derived again: a lost answer, a second tab
//	anything older       rotated              reuse: the family is revoked, with events and a mail
//	unknown, expired     nothing to tell by   UNAUTHENTICATED

// deriveToken is the purpose under which children are derived.
const deriveToken = "refresh"

var errRefresh = unauthenticated("the refresh token is not valid: sign in again")

// Refresh gives new tokens for a refresh token: the argument, else the cookie's, but for a socket: what its upgrade
// brought may have been used up since. Errors: UNAUTHENTICATED where the session has ended or the token is not known, and
// RATE_LIMITED.
func (s *Service) Refresh(ctx context.Context, argument *string) (*Payload, error) {
	if err := s.cookies.settable(ctx); err != nil {
		return nil, err
	}
	if err := s.limit(ctx, s.cfg.Limits.Refresh); err != nil {
		return nil, err
	}
	var presented string
	fromCookie := argument == nil || *argument == ""
	switch {
	case !fromCookie:
		presented = *argument
	case !viewer.ClientOf(ctx).Socket:
		presented = s.cookies.refreshToken(ctx)
	}
	if presented == "" {
		return nil, unauthenticated("there is no refresh token: sign in first")
	}
	p, err := s.rotate(ctx, presented)
	if err != nil {
		if fromCookie && errors.Is(err, errRefresh) {
			s.cookies.clear(ctx)
		}
		return nil, err
	}
	s.deliverTokens(ctx, p)
	return p, nil
}

// rotate uses up a refresh token.
func (s *Service) rotate(ctx context.Context, parent string) (*Payload, error) {
	var (
		salt = randomBytes(16)
		c    = clientOf(ctx)
		v    viewer.Viewer
		ends time.Time
	)
	child := token(refreshTokenPrefix, s.deps.Secrets.Derive(deriveToken, []byte(parent), salt))
	// The actor is set before the session is updated: one part of the statement reads what the other returns.
	err := s.deps.Pool.QueryRow(ctx, `
		WITH parent AS (
			UPDATE refresh_tokens t SET rotated_at = now(), salt = $2 FROM sessions s
			 WHERE t.hash = $1 AND t.rotated_at IS NULL AND t.expires_at > now()
			   AND s.id = t.session_id AND s.revoked_at IS NULL AND s.expires_at > now()
			RETURNING t.id, t.session_id, set_config('godstack.actor', s.user_id::text, true)::uuid AS user_id
		), session AS (
			UPDATE sessions s SET last_used_at = now(), expires_at = least(now() + $3::interval, s.ends_at), address = $4, user_agent = $5
			  FROM parent p WHERE s.id = p.session_id AND s.revoked_at IS NULL
			RETURNING s.id, p.id AS parent_id, p.user_id, s.expires_at
		), child AS (
			INSERT INTO refresh_tokens (id, session_id, parent_id, hash, expires_at) SELECT $6, id, parent_id, $7, expires_at FROM session
		)
		SELECT s.id, s.user_id, u.role, s.expires_at FROM session s JOIN users u ON u.id = s.user_id`,
		hash(parent), salt, s.cfg.RefreshTTL, c.address, c.userAgent, newID(), hash(child)).
		Scan(&v.Session, &v.ID, &v.Role, &ends)
	if errors.Is(err, pgx.ErrNoRows) {
		return s.rotatedBefore(ctx, parent)
	}
	if err != nil {
		return nil, fmt.Errorf("rotate refresh token: %w", err)
	}
	s.deps.Committed()
	return s.payload(v, child, ends)
}

// rotatedBefore answers a token that could not be rotated: with the child that it has, where that was lost a moment
// ago, else as reuse.
func (s *Service) rotatedBefore(ctx context.Context, parent string) (*Payload, error) {
	var (
		v                            viewer.Viewer
		ends                         time.Time
		salt, childHash              []byte
		live, rotated, recent, spent bool
	)
	err := s.deps.Pool.QueryRow(ctx, `
		SELECT s.id, s.user_id, u.role, s.expires_at, s.revoked_at IS NULL AND s.expires_at > now(),
		       t.rotated_at IS NOT NULL, coalesce(t.rotated_at > now() - $2::interval, false), t.salt,
		       c.hash, c.id IS NULL OR c.rotated_at IS NOT NULL
		  FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id JOIN users u ON u.id = s.user_id
		  LEFT JOIN refresh_tokens c ON c.parent_id = t.id
		 WHERE t.hash = $1`, hash(parent), s.cfg.Grace).
		Scan(&v.Session, &v.ID, &v.Role, &ends, &live, &rotated, &recent, &salt, &childHash, &spent)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, errRefresh
	case err != nil:
		return nil, fmt.Errorf("read refresh token: %w", err)
	case !live || !rotated:
		return nil, errRefresh // revoked or expired
	case !recent || spent:
		return nil, s.reused(ctx, v)
	}
	for _, b := range s.deps.Secrets.DeriveAll(deriveToken, []byte(parent), salt) {
		if child := token(refreshTokenPrefix, b); bytes.Equal(hash(child), childHash) {
			return s.payload(v, child, ends)
		}
	}
	return nil, errRefresh // the key that it was derived with is gone
}

// reused revokes the family of a token that was used again: somebody else has it.
func (s *Service) reused(ctx context.Context, v viewer.Viewer) error {
	return s.inTx(ctx, uuid.Nil, func(ctx context.Context, t tx) error {
		ids, err := s.revoke(ctx, t, TokenReuseDetected, `id = $2`, v.Session)
		if err != nil {
			return err
		}
		if len(ids) == 0 { // another request was first
			return kept{errRefresh}
		}
		u, err := findUser(ctx, t, "id = $1", v.ID)
		if err != nil {
			return err
		}
		for _, name := range []string{TokenReuseDetected, TokenFamilyRevoked} {
			if err := t.happened(ctx, name, v.ID, uuid.Nil, map[string]any{"session": sessionID(v.Session)}); err != nil {
				return err
			}
		}
		if err := s.tryToMail(ctx, t, mail.TokenReuse, u.Email, mail.Data{Name: u.Name}); err != nil {
			return err
		}
		return kept{errRefresh}
	})
}
