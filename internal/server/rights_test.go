package server

import (
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
		require.True(t, token.begin(v, false))
		require.True(t, cookie.begin(v, true))
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
		require.Empty(t, s.users)
	})
}

func TestRightsAreRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t).Server
		v := viewer.Viewer{ID: alice, Role: viewer.User, Session: uuid.New(), Until: time.Now().Add(time.Minute)}
		var ends atomic.Int32
		r := newRights(s, &ends)
		require.True(t, r.begin(v, true))
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
		require.Empty(t, s.users)
	})
}
