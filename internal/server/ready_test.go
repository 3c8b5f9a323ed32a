package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Probes in any number are one look, whose answer is good for 250 ms; who asks while it goes on has its answer, and not that before.
func TestReadinessIsLookedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		found := errors.New("the database does not answer")
		s := setup(t, func(d *Deps, _ *Config) {
			d.Ready = func(ctx context.Context) error {
				looks.Add(1)
				select {
				case <-time.After(time.Second):
					return found
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}).Server
		answers := make(chan error, 1000)
		impatient, leave := context.WithCancel(t.Context())
		go func() { answers <- s.Ready(impatient) }()
		synctest.Wait() // it looks
		for range cap(answers) - 1 {
			go func() { answers <- s.Ready(t.Context()) }()
		}
		leave() // who looks goes on for the others
		for range cap(answers) {
			require.ErrorIs(t, <-answers, found)
		}
		require.EqualValues(t, 1, looks.Load())

		time.Sleep(readyFor - 1) //nolint:forbidigo // the clock is the test's
		require.ErrorIs(t, s.Ready(t.Context()), found)
		require.EqualValues(t, 1, looks.Load())
		found = nil
		time.Sleep(time.Nanosecond) //nolint:forbidigo // the clock is the test's
		require.NoError(t, s.Ready(t.Context()))
		require.EqualValues(t, 2, looks.Load())
	})
}

// A look that never ends is given up, and one that panics holds up nobody.
func TestLooksThatFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, func(d *Deps, _ *Config) {
			d.Ready = func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}
		}).Server
		began := time.Now()
		require.ErrorIs(t, s.Ready(t.Context()), context.DeadlineExceeded)
		require.Equal(t, readyTimeout, time.Since(began))

		s = setup(t, func(d *Deps, _ *Config) { d.Ready = func(context.Context) error { panic("secret") } }).Server
		require.Panics(t, func() { _ = s.Ready(t.Context()) })
		require.EqualError(t, s.Ready(t.Context()), "nobody knows")
	})
}

// A node that is being stopped says so, whatever it stands on.
func TestADrainingNodeIsNotReady(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		b.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return w
	}
	require.Equal(t, 200, ask().Code)
	require.NoError(t, b.shutdown(t.Context()))
	w := ask()
	require.Equal(t, 503, w.Code)
	require.Equal(t, "not ready: it is draining\n", w.Body.String())
}
