package server

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"

	"godstack/internal/ratelimit"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// rights are those of a viewer for as long as a socket or an event stream is open.
type rights struct {
	server *Server
	lapse  func() // called when they have ended, perhaps more than once; it must not block

	mu       sync.Mutex    // protects what follows
	held     bool          // from begin to release
	holder   holder        // of whom it is one, while held
	viewer   viewer.Viewer // nobody's is zero
	byCookie bool          // the viewer is known by a cookie, and has the next token without being asked
	expiry   *time.Timer
	stop     func() // ends watching
}

var _ viewer.Watcher = (*rights)(nil)

// begin takes v's rights, or, where v is zero, those of nobody at an address; they have to be released. It returns false where there are
// too many sockets and event streams of v's user, or of nobody there.
func (r *rights) begin(v viewer.Viewer, byCookie bool, from netip.Addr) bool {
	of := holder{user: v.ID}
	if v.ID == uuid.Nil {
		of.address = ratelimit.Address(from)
	}
	if !r.server.admit(of) {
		return false
	}
	r.mu.Lock()
	r.held, r.holder, r.byCookie = true, of, byCookie
	r.set(v)
	r.mu.Unlock()
	if v.ID != uuid.Nil {
		r.watch(v)
	}
	return true
}

// set replaces the viewer. It wants the lock.
func (r *rights) set(v viewer.Viewer) {
	r.viewer = v
	switch {
	case v.Until.IsZero():
		if r.expiry != nil {
			r.expiry.Stop()
		}
	case r.expiry == nil:
		r.expiry = time.AfterFunc(time.Until(v.Until), r.expire)
	default:
		r.expiry.Reset(time.Until(v.Until))
	}
}

// watch has r told about v, and no more about who it was before. Of several at once, the one whose session the viewer is of then counts.
func (r *rights) watch(v viewer.Viewer) {
	if r.server.deps.Watch == nil {
		return
	}
	stop := r.server.deps.Watch(v, r)
	r.mu.Lock()
	if r.held && r.viewer.Session == v.Session {
		stop, r.stop = r.stop, stop
	}
	r.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// Ended is for who watches the session.
func (r *rights) Ended() { r.lapse() }

// Renewed is likewise.
func (r *rights) Renewed(until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held && r.byCookie && until.After(r.viewer.Until) {
		v := r.viewer
		v.Until = until
		r.set(v)
	}
}

// expire is what the timer calls.
func (r *rights) expire() {
	r.mu.Lock()
	until, over := r.viewer.Until, false
	switch {
	case !r.held || until.IsZero():
	case time.Now().Before(until): // renewed just now
		r.expiry.Reset(time.Until(until))
	default:
		over = true
	}
	r.mu.Unlock()
	if over {
		r.lapse()
	}
}

// renew goes on with another access token, and returns until when. It returns false where that is not of the same user in the same role:
// streams hold the rights that they began with. An older token of the session changes nothing.
func (r *rights) renew(v viewer.Viewer, byCookie bool) (until time.Time, ok bool) {
	r.mu.Lock()
	was := r.viewer
	if !r.held || v.ID != was.ID || v.Role != was.Role {
		r.mu.Unlock()
		return time.Time{}, false
	}
	another := v.Session != was.Session
	if another || v.Until.After(was.Until) {
		r.byCookie = byCookie
		r.set(v)
	}
	until = r.viewer.Until
	r.mu.Unlock()
	if another {
		r.watch(v)
	}
	return until, true
}

// check returns what keeps the viewer from another operation. Nobody has no rights that end.
func (r *rights) check(ctx context.Context) error {
	r.mu.Lock()
	v := r.viewer
	r.mu.Unlock()
	if v.ID == uuid.Nil || r.server.deps.Check == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.server.cfg.OperationTimeout)
	defer cancel()
	return r.server.deps.Check(ctx, v)
}

// release ends it all.
func (r *rights) release() {
	r.mu.Lock()
	held, of, stop := r.held, r.holder, r.stop
	r.held, r.stop = false, nil
	if r.expiry != nil {
		r.expiry.Stop()
	}
	r.mu.Unlock()
	if stop != nil {
		stop()
	}
	if held {
		r.server.dismiss(of)
	}
}

// holder is whose sockets and event streams are counted together: a user's, or those of nobody at an address, or in a network of 64 bits.
type holder struct {
	user    uuid.UUID
	address string // "" for a user, and where it is not known: those are not counted, as their requests are not
}

// most is how many sockets and event streams there may be of h; negative is any number.
func (s *Server) most(h holder) int {
	switch {
	case h.user != uuid.Nil:
		return s.cfg.Sockets.PerUser
	case h.address != "":
		return s.cfg.Sockets.PerAddress
	}
	return -1
}

// admit counts a socket or an event stream, unless there are as many as there may be.
func (s *Server) admit(h holder) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if most := s.most(h); most >= 0 && s.holders[h] >= most {
		return false
	}
	s.holders[h]++
	return true
}

func (s *Server) dismiss(h holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holders[h]--; s.holders[h] == 0 {
		delete(s.holders, h)
	}
}

// errTooMany refuses an event stream of whom there are too many; a socket has a close code for it.
var errTooMany = &record.Error{Code: record.RateLimited, Message: "too many sockets and event streams", RetryAfter: 10 * time.Second}
