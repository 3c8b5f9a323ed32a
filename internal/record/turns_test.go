package record

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Who wants the same goes one after another, as they came; who wants something else does not wait.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var all turns[string]
		leave, err := all.take(t.Context(), "a", time.Minute)
		require.NoError(t, err)
		var order []int
		for i := range 5 {
			go func() {
				leave, err := all.take(t.Context(), "a", time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i) // without a lock: they do not go at the same time
				leave()
			}()
			synctest.Wait()
		}
		other, err := all.take(t.Context(), "b", time.Minute)
		require.NoError(t, err)
		other()
		require.Empty(t, order)
		require.Len(t, all.of, 1)
		leave()
		synctest.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4}, order)
		require.Empty(t, all.of, "nothing is kept")
	})
}

// Who waits for too long, or whose client has left, is out of the way of the next.
func TestTurnsThatAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var all turns[string]
		leave, err := all.take(t.Context(), "a", time.Minute)
		require.NoError(t, err)
		began := time.Now()
		_, err = all.take(t.Context(), "a", time.Minute)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, Unavailable, e.Code)
		require.Equal(t, time.Second, e.RetryAfter)
		require.Equal(t, time.Minute, time.Since(began))

		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := all.take(ctx, "a", time.Hour)
			left <- err
		}()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-left, context.Canceled)

		next := make(chan error, 1)
		go func() {
			leave, err := all.take(t.Context(), "a", time.Hour)
			if err == nil {
				leave()
			}
			next <- err
		}()
		synctest.Wait()
		require.Equal(t, 2, all.of["a"].n)
		leave()
		require.NoError(t, errors.Join(<-next))
		require.Empty(t, all.of)
	})
}
