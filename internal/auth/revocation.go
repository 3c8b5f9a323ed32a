package auth

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"godstack/internal/changelog"
	"godstack/internal/viewer"
)

// maxLag is how far the log may be behind for access tokens to be judged by it.
const maxLag = time.Second

// revocations are what of the change log ends access tokens, as long as there may be any that are concerned: sessions
// that were revoked or deleted, and users whose role changed or who were deleted. A change of role ends the tokens that
// say another role than the user has now; no clock is compared.
type revocations struct {
	ttl time.Duration

	mu        sync.RWMutex            // protects what follows
	complete  bool                    // all of the last ttl is here
	ended     map[uuid.UUID]time.Time // sessions, and when that was learnt
	roles     map[uuid.UUID]role      // of users
	bySession watches
	byUser    watches // the same
	swept     time.Time
}

// role is what a user has now; "" for one who is gone.
type role struct {
	name   string
	learnt time.Time
}

// watch is what somebody watches.
type watch struct {
	viewer  viewer.Viewer
	watcher viewer.Watcher
}

// watches are found by what may happen. Most have few: a map each would take ten times the memory.
type watches map[uuid.UUID][]*watch

func (m watches) add(id uuid.UUID, w *watch) { m[id] = append(m[id], w) }

func (m watches) remove(id uuid.UUID, w *watch) {
	rest := slices.DeleteFunc(m[id], func(o *watch) bool { return o == w })
	if len(rest) == 0 {
		delete(m, id)
		return
	}
	m[id] = rest
}

func newRevocations(ttl time.Duration) *revocations {
	return &revocations{
		ttl: ttl, ended: map[uuid.UUID]time.Time{}, roles: map[uuid.UUID]role{}, bySession: watches{}, byUser: watches{}, swept: time.Now(),
	}
}

// ends reports whether v's rights have ended. It wants the lock.
func (r *revocations) ends(v viewer.Viewer) bool {
	if _, ended := r.ended[v.Session]; ended {
		return true
	}
	now, known := r.roles[v.ID]
	return known && now.name != v.Role
}

// sessions takes note of sessions that ended.
func (r *revocations) sessions(ids ...uuid.UUID) {
	if len(ids) > 0 {
		r.learn(ids, nil)
	}
}

// learn takes note of sessions that ended and of users' roles, and tells who watches.
func (r *revocations) learn(sessions []uuid.UUID, roles map[uuid.UUID]string) {
	for _, w := range r.note(sessions, roles) {
		w.watcher.Ended()
	}
}

// watch has w told from now on, unless its rights have ended.
func (r *revocations) watch(w *watch) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ends(w.viewer) {
		return false
	}
	r.bySession.add(w.viewer.Session, w)
	r.byUser.add(w.viewer.ID, w)
	return true
}

// note takes note, and returns those whose rights have ended, who are forgotten.
func (r *revocations) note(sessions []uuid.UUID, roles map[uuid.UUID]string) (ended []*watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	end := func(them []*watch) {
		for _, w := range slices.Clone(them) {
			if r.ends(w.viewer) {
				ended = append(ended, w)
				r.forget(w)
			}
		}
	}
	for _, id := range sessions {
		r.ended[id] = now
		end(r.bySession[id])
	}
	for id, name := range roles {
		r.roles[id] = role{name, now}
		end(r.byUser[id])
	}
	if now.Sub(r.swept) > r.ttl/10 {
		r.sweep(now)
	}
	return ended
}

// doubt tells who watches some users, or anybody where users is nil, that they have to ask again, as what became of their rights is not
// known.
func (r *revocations) doubt(users []uuid.UUID) {
	r.mu.Lock()
	if users == nil {
		users = slices.Collect(maps.Keys(r.byUser))
	}
	var all []*watch
	for _, id := range users {
		for _, w := range slices.Clone(r.byUser[id]) {
			all = append(all, w)
			r.forget(w)
		}
	}
	r.mu.Unlock()
	for _, w := range all {
		w.watcher.Ended()
	}
}

// forget has w told nothing any more. It wants the lock.
func (r *revocations) forget(w *watch) {
	r.bySession.remove(w.viewer.Session, w)
	r.byUser.remove(w.viewer.ID, w)
}

// watched returns those of some sessions that somebody watches.
func (r *revocations) watched(sessions []uuid.UUID) []uuid.UUID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.DeleteFunc(sessions, func(id uuid.UUID) bool { return len(r.bySession[id]) == 0 })
}

// renew tells who watches a session until when its newest access token is good.
func (r *revocations) renew(session uuid.UUID, until time.Time) {
	r.mu.RLock()
	them := slices.Clone(r.bySession[session])
	r.mu.RUnlock()
	for _, w := range them {
		w.watcher.Renewed(until)
	}
}

// sweep forgets what no access token can be about any more. It wants the lock.
func (r *revocations) sweep(now time.Time) {
	r.swept = now
	for id, at := range r.ended {
		if now.Sub(at) > r.ttl {
			delete(r.ended, id)
		}
	}
	for id, role := range r.roles {
		if now.Sub(role.learnt) > r.ttl {
			delete(r.roles, id)
		}
	}
}

func (r *revocations) setComplete(complete bool) {
	r.mu.Lock()
	r.complete = complete
	r.mu.Unlock()
}

// judge reports whether v's rights have ended, and whether all is here to know that.
func (r *revocations) judge(v viewer.Viewer) (ended, complete bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ends(v), r.complete
}

// Deliver takes what the change log's tailer read. It is the tailer's handler, or is called by it with every batch.
// Until the first batch, and after one that asks for it, everything of the last 15 min is loaded; while that fails,
// Viewer asks the database. Where it cannot be read what was missed, or what a user's role has become, who watches
// those concerned is told that their rights ended.
func (s *Service) Deliver(ctx context.Context, b changelog.Batch) {
	if b.Resync {
		s.deps.Reserve.Reset() // its connections may be to a server that is gone, as the log's was
	}
	if _, complete := s.revoked.judge(viewer.Viewer{}); b.Resync || !complete {
		err := s.Load(ctx)
		if err != nil {
			s.log.WarnContext(ctx, "load revocations", "error", err)
		}
		s.revoked.setComplete(err == nil)
		if err != nil && b.Resync {
			s.revoked.doubt(nil) // the next batch, which tries again, may be long in coming
		}
	}
	var sessions, refreshed, users []uuid.UUID
	for _, c := range b.Changes {
		switch {
		case c.Entity == "session" && (c.Op == changelog.OpDelete || c.Op == changelog.OpUpdate && slices.Contains(c.Fields, "revoked_at")):
			sessions = append(sessions, c.ID)
		case c.Entity == "session" && c.Op == changelog.OpUpdate && slices.Contains(c.Fields, "last_used_at"):
			refreshed = append(refreshed, c.ID)
		case c.Entity == "user" && (c.Op == changelog.OpDelete || c.Op == changelog.OpUpdate && slices.Contains(c.Fields, "role")):
			users = append(users, c.ID)
		}
	}
	if len(sessions)+len(users) > 0 {
		roles, err := s.roles(ctx, users)
		if err != nil {
			s.log.WarnContext(ctx, "load roles", "error", err)
			s.revoked.setComplete(false) // until they can be loaded
			s.revoked.doubt(users)       // who ask again are judged by the row
		}
		s.revoked.learn(sessions, roles)
	}
	if err := s.renew(ctx, refreshed); err != nil {
		s.log.WarnContext(ctx, "read refreshed sessions", "error", err) // their sockets end with the tokens that they have
	}
}

// renew tells who watches sessions that were refreshed. In header mode nobody is: a client there shows the token that it got. The row
// says more than its change: no token outlives its session.
func (s *Service) renew(ctx context.Context, sessions []uuid.UUID) error {
	if s.cfg.Storage == InHeader {
		return nil
	}
	if sessions = s.revoked.watched(sessions); len(sessions) == 0 {
		return nil
	}
	rows, err := s.deps.Reserve.Query(ctx, `SELECT id, least(last_used_at + $2::interval, expires_at) FROM sessions
		WHERE id = ANY($1) AND revoked_at IS NULL`, sessions, s.cfg.AccessTTL)
	if err != nil {
		return err
	}
	var id uuid.UUID
	var until time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &until}, func() error {
		s.revoked.renew(id, until)
		return nil
	})
	return err
}

// Load reads what has ended access tokens within their lifetime. Deliver calls it with the first batch, as what was
// committed before that comes in none.
func (s *Service) Load(ctx context.Context) error {
	rows, err := s.deps.Reserve.Query(ctx, `
		SELECT 'session', id FROM sessions WHERE revoked_at > now() - $1::interval
		UNION ALL
		SELECT entity, id FROM changes
		 WHERE slot IN (changelog_slot(now()), changelog_slot(now() - $1::interval)) AND at > now() - $1::interval
		   AND (entity IN ('session', 'user') AND op = 'D' OR entity = 'user' AND op = 'U' AND 'role' = ANY(fields))`, s.revoked.ttl)
	if err != nil {
		return fmt.Errorf("load revocations: %w", err)
	}
	var sessions, users []uuid.UUID
	var entity string
	var id uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&entity, &id}, func() error {
		if entity == "session" {
			sessions = append(sessions, id)
		} else {
			users = append(users, id)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("load revocations: %w", err)
	}
	roles, err := s.roles(ctx, users)
	if err != nil {
		return err
	}
	s.revoked.learn(sessions, roles)
	return nil
}

// roles reads the roles of users as they are now, "" for who is gone.
func (s *Service) roles(ctx context.Context, users []uuid.UUID) (map[uuid.UUID]string, error) {
	if len(users) == 0 {
		return nil, nil
	}
	rows, err := s.deps.Reserve.Query(ctx, `SELECT i, coalesce(u.role, '') FROM unnest($1::uuid[]) AS i LEFT JOIN users u ON u.id = i`, users)
	if err != nil {
		return nil, fmt.Errorf("load roles: %w", err)
	}
	roles := map[uuid.UUID]string{}
	var id uuid.UUID
	var name string
	_, err = pgx.ForEachRow(rows, []any{&id, &name}, func() error {
		roles[id] = name
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load roles: %w", err)
	}
	return roles, nil
}

var errAccess = unauthenticated("the access token is not valid: refresh, or sign in again")

// Viewer says who asks, by the bearer token in authorization, the value of the header or of connection_init's payload,
// else by the request's cookie where those are used. ok is false where there is neither. The error is UNAUTHENTICATED for
// a token that is malformed, expired or revoked, and for a header of another kind; the operations of PublicFields go on
// without a viewer then. A browser that has a refresh token alone is told so by the same error.
func (s *Service) Viewer(ctx context.Context, authorization string) (v viewer.Viewer, ok bool, err error) {
	token := s.cookies.accessToken(ctx)
	if authorization != "" {
		scheme, rest, _ := strings.Cut(authorization, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return v, false, unauthenticated("the authorization must be Bearer and an access token")
		}
		token = strings.TrimSpace(rest)
	} else if token == "" {
		if s.cookies.refreshToken(ctx) != "" {
			return v, false, errAccess
		}
		return v, false, nil
	}
	claims, err := s.deps.Keys.Verify(token)
	if err != nil {
		e := *errAccess
		e.Err = err
		return v, false, &e
	}
	v = viewer.Viewer{ID: claims.User, Role: claims.Role, Session: claims.Session, Until: claims.ExpiresAt}
	if err := s.ended(ctx, v); err != nil {
		return viewer.Viewer{}, false, err
	}
	return v, true, nil
}

// Check returns UNAUTHENTICATED where v, whom Viewer returned some time ago, may ask no more: the access token has expired,
// or v's rights have ended. It reads memory alone as long as the log is not behind.
func (s *Service) Check(ctx context.Context, v viewer.Viewer) error {
	if !v.Until.IsZero() && !s.deps.Clock().Before(v.Until) {
		return errAccess
	}
	return s.ended(ctx, v)
}

// ended returns UNAUTHENTICATED where v's rights have ended, by the log where that is not behind, else by the row.
func (s *Service) ended(ctx context.Context, v viewer.Viewer) error {
	ended, complete := s.revoked.judge(v)
	if !ended && (!complete || s.deps.Lag == nil || s.deps.Lag() > maxLag) {
		var err error
		if ended, err = s.endedByRow(ctx, v); err != nil {
			return err
		}
	}
	if ended {
		return errAccess
	}
	return nil
}

// endedByRow asks the database whether v's rights have ended.
func (s *Service) endedByRow(ctx context.Context, v viewer.Viewer) (ended bool, err error) {
	err = s.deps.Reserve.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM sessions s JOIN users u ON u.id = s.user_id
		WHERE s.id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND u.role = $3)`, v.Session, v.ID, v.Role).Scan(&ended)
	if err != nil {
		return false, fmt.Errorf("check session: %w", err)
	}
	return ended, nil
}

// Watch has w told when v's rights end, as the session is revoked, or the user's role changes, or the user is deleted, or as that
// cannot be told: before Watch returns where they have ended already. In cookie mode w is told as well when the session is refreshed,
// on whatever node. stop ends watching and has to be called; a call that is under way may still come after it.
func (s *Service) Watch(v viewer.Viewer, w viewer.Watcher) (stop func()) {
	entry := &watch{v, w}
	if !s.revoked.watch(entry) {
		w.Ended()
		return func() {}
	}
	return func() {
		r := s.revoked
		r.mu.Lock()
		defer r.mu.Unlock()
		r.forget(entry)
	}
}
