package server

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/viewer"
)

// newRights are rights whose end is counted.
func newRights(s *Server, ended *atomic.Int32) *rights {
	r := &rights{server: s}
	r.lapse = func() { ended.Add(1) }
	return r
}

func TestRightsEndWithTheToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t).Server
		v := viewer.Viewer{ID: alice, Role: viewer.User, Session: uuid.New(), Until: time.Now().Add(time.Minute)}
		var ends, cookieEnds atomic.Int32
		token, cookie := newRights(s, &ends), newRights(s, &cookieEnds)
		require.True(t, token.begin(v, false, netip.Addr{}))
		require.True(t, cookie.begin(v, true, netip.Addr{}))
		cookie.Renewed(v.Until.Add(time.Minute))
		token.Renewed(v.Until.Add(time.Minute)) // it says nothing to who has no cookie
		<-time.After(time.Minute)
		synctest.Wait()
		require.EqualValues(t, 1, ends.Load())
		require.Zero(t, cookieEnds.Load())
		<-time.After(time.Minute)
		synctest.Wait()
		require.EqualValues(t, 1, cookieEnds.Load())
		token.release()
		cookie.release()
		require.Empty(t, s.holders)
	})
}

func TestRightsAreRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t).Server
		v := viewer.Viewer{ID: alice, Role: viewer.User, Session: uuid.New(), Until: time.Now().Add(time.Minute)}
		var ends atomic.Int32
		r := newRights(s, &ends)
		require.True(t, r.begin(v, true, netip.Addr{}))
		first := v.Until
		v.Until = first.Add(time.Hour)
		until, ok := r.renew(v, false)
		require.True(t, ok)
		require.Equal(t, v.Until, until)
		v.Until = first
		until, ok = r.renew(v, false)
		require.True(t, ok)
		require.Equal(t, first.Add(time.Hour), until, "an older token shortens nothing")
		<-time.After(time.Hour)
		synctest.Wait()
		require.Zero(t, ends.Load())
		r.release()
		<-time.After(time.Hour)
		synctest.Wait()
		require.Zero(t, ends.Load(), "nothing is told to who has closed")
		_, ok = r.renew(v, false)
		require.False(t, ok)
		r.release() // again
		require.Empty(t, s.holders)
	})
}

// A timer that is late ends nothing: neither what is renewed, nor what has no end.
func TestTheEndIsThatOfTheLastToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t).Server
		var ends atomic.Int32
		r := newRights(s, &ends)
		require.True(t, r.begin(viewer.Viewer{ID: alice, Until: time.Now().Add(time.Minute)}, false, netip.Addr{}))
		until := time.Now().Add(time.Hour)
		_, ok := r.renew(viewer.Viewer{ID: alice, Until: until}, false)
		require.True(t, ok)
		r.expire()
		require.Zero(t, ends.Load())
		_, ok = r.renew(viewer.Viewer{ID: alice, Session: uuid.New()}, false)
		require.True(t, ok)
		r.expire()
		<-time.After(2 * time.Hour)
		synctest.Wait()
		require.Zero(t, ends.Load())
		r.release()
	})
}

// Of two renewals at once, the session is watched that the viewer is of in the end, and no other.
func TestRenewalsAtOnce(t *testing.T) {
	t.Parallel()
	late, begun, proceed := uuid.New(), make(chan struct{}), make(chan struct{})
	var mu sync.Mutex // protects watched
	watched := map[uuid.UUID]int{}
	b := setup(t, func(d *Deps, _ *Config) {
		d.Watch = func(v viewer.Viewer, _ viewer.Watcher) func() {
			if v.Session == late {
				close(begun)
				<-proceed
			}
			add := func(n int) {
				mu.Lock()
				defer mu.Unlock()
				if watched[v.Session] += n; watched[v.Session] == 0 {
					delete(watched, v.Session)
				}
			}
			add(1)
			return func() { add(-1) }
		}
	})
	var ends atomic.Int32
	r := newRights(b.Server, &ends)
	v := viewer.Viewer{ID: alice, Role: viewer.User, Session: uuid.New()}
	require.True(t, r.begin(v, false, netip.Addr{}))
	renewed := make(chan bool)
	go func() {
		v := v
		v.Session = late
		_, ok := r.renew(v, false)
		renewed <- ok
	}()
	<-begun
	v.Session = uuid.New()
	_, ok := r.renew(v, false)
	require.True(t, ok)
	close(proceed)
	require.True(t, <-renewed)
	require.Equal(t, map[uuid.UUID]int{v.Session: 1}, watched)
	r.release()
	require.Empty(t, watched)
	require.Zero(t, ends.Load())
}
