package turn

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// none has no shares.
var none [2]string

func of(share string) [2]string { return [2]string{share} }

func newQueue(t testing.TB, cfg Config) *Queue[string] {
	t.Helper()
	q, err := New[string](cfg)
	require.NoError(t, err)
	return q
}

// taking takes turns on a goroutine of its own, and returns what comes of it when the queue has heard of it.
func taking(ctx context.Context, q *Queue[string], turns int, shares [2]string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- q.Take(ctx, turns, shares) }()
	synctest.Wait()
	return done
}

// waits holds that somebody has no answer yet.
func waits(t *testing.T, done <-chan error, who string) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-done:
		t.Fatalf("%s does not wait: %v", who, err)
	default:
	}
}

func refused(t *testing.T, err error, why Reason) {
	t.Helper()
	var r *Refused
	require.ErrorAs(t, err, &r)
	require.Equal(t, why, r.Reason)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{"Turns": {}, "Waiting": {Turns: 1, Waiting: -1}, "Patience": {Turns: 1, Patience: -1}} {
		_, err := New[string](cfg)
		require.ErrorContains(t, err, name)
	}
}

func TestTurnsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, Config{Turns: 2})
		require.NoError(t, q.Take(t.Context(), 1, none))
		require.NoError(t, q.Take(t.Context(), 1, none))
		third := taking(t.Context(), q, 1, none)
		waits(t, third, "the third")
		require.Equal(t, Stats{Turns: 2, Taken: 2, Waiting: 1, Refused: map[Reason]uint64{Full: 0, Crowded: 0, Late: 0}}, q.Stats())
		q.Give(1, none)
		require.NoError(t, <-third)
		q.Give(1, none)
		q.Give(1, none)
		require.Equal(t, 0, q.Stats().Taken)
		require.Empty(t, q.having)
		require.Empty(t, q.waiting)
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, Config{Turns: 1, Waiting: 2, Patience: time.Second})
		require.NoError(t, q.Take(t.Context(), 1, none))
		start := time.Now()
		first := taking(t.Context(), q, 1, of("ada"))
		refused(t, <-taking(t.Context(), q, 1, of("ada")), Crowded)
		ctx, cancel := context.WithCancel(t.Context())
		second := taking(ctx, q, 1, of("bob"))
		refused(t, <-taking(t.Context(), q, 1, of("cleo")), Full)
		require.Equal(t, start, time.Now(), "at once")
		cancel()
		require.ErrorIs(t, <-second, context.Canceled)
		require.ErrorIs(t, q.Take(ctx, 1, none), context.Canceled)
		refused(t, <-first, Late)
		require.Equal(t, time.Second, time.Since(start))
		require.Equal(t, map[Reason]uint64{Full: 1, Crowded: 1, Late: 1}, q.Stats().Refused)
		q.Give(1, none)
		require.NoError(t, q.Take(t.Context(), 1, of("ada")), "nothing stays of who was refused")
	})
}

func TestRefused(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for range 100 {
		r := refuse(Full)
		require.GreaterOrEqual(t, r.After, time.Second)
		require.Less(t, r.After, 5*time.Second)
		require.Zero(t, r.After%time.Millisecond)
		seen[r.After] = true
	}
	require.Greater(t, len(seen), 50)
	require.EqualError(t, refuse(Late), "no turn: late")
}

func TestOneShareIsNotAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, Config{Turns: 8})
		for range 6 {
			require.NoError(t, q.Take(t.Context(), 1, of("ada")), "there is room")
		}
		seventh := taking(t.Context(), q, 1, of("ada"))
		waits(t, seventh, "ada, who would leave less than a quarter")
		require.NoError(t, q.Take(t.Context(), 1, of("bob")), "bob passes her")
		require.NoError(t, q.Take(t.Context(), 1, of("cleo")))
		fourth := taking(t.Context(), q, 1, of("dan"))
		waits(t, fourth, "dan, when nothing is free")
		q.Give(1, of("ada"))
		require.NoError(t, <-fourth, "dan passes her too")
		q.Give(1, of("ada"))
		waits(t, seventh, "ada, who has half")
		q.Give(1, of("ada"))
		require.NoError(t, <-seventh, "one more would leave a quarter free")
	})
}

// TestEachShareCounts: what many do with the same document leaves room for another.
func TestEachShareCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, Config{Turns: 4})
		for i := range 3 {
			require.NoError(t, q.Take(t.Context(), 1, [2]string{fmt.Sprint(i), "slow"}))
		}
		slow := taking(t.Context(), q, 1, [2]string{"3", "slow"})
		waits(t, slow, "the slow one")
		require.NoError(t, q.Take(t.Context(), 1, [2]string{"3", "quick"}), "the same user, with another document")
		q.Give(1, [2]string{"3", "quick"})
		waits(t, slow, "the slow one")
		q.Give(1, [2]string{"0", "slow"})
		require.NoError(t, <-slow)
		require.NoError(t, q.Take(t.Context(), 1, [2]string{"same", "same"}))
		require.Equal(t, 1, q.having["same"])
	})
}

func TestAShareHasATurn(t *testing.T) {
	t.Parallel()
	for turns := range 5 {
		q := newQueue(t, Config{Turns: turns + 1})
		require.NoError(t, q.Take(t.Context(), 100, of("ada")), "as much as there may be")
		require.Equal(t, max(1, (turns+1)/2), q.Stats().Taken)
		q.Give(100, of("ada"))
		require.NoError(t, q.Take(t.Context(), 0, of("ada")), "at least one")
		require.Equal(t, 1, q.Stats().Taken)
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, Config{Turns: 4})
		for range 4 {
			require.NoError(t, q.Take(t.Context(), 1, none))
		}
		two := taking(t.Context(), q, 2, of("ada"))
		one := taking(t.Context(), q, 1, of("bob"))
		ctx, cancel := context.WithCancel(t.Context())
		more := taking(ctx, q, 2, of("cleo"))
		last := taking(t.Context(), q, 1, of("dan"))
		q.Give(1, none)
		waits(t, one, "bob, who came after ada,")
		q.Give(1, none)
		require.NoError(t, <-two)
		waits(t, one, "bob")
		q.Give(1, none)
		require.NoError(t, <-one)
		q.Give(1, none)
		waits(t, last, "dan, who came after cleo,")
		cancel()
		require.ErrorIs(t, <-more, context.Canceled)
		require.NoError(t, <-last, "nobody is before dan any more")
	})
}

// TestEverybodyAtOnce: whatever many do at the same time, and whenever they give up, there are never too many, and nothing is lost.
func TestEverybodyAtOnce(t *testing.T) {
	t.Parallel()
	q := newQueue(t, Config{Turns: 5, Waiting: 20, Patience: time.Millisecond})
	var (
		all             sync.WaitGroup
		taken           atomic.Int64
		had, turnedAway atomic.Int64
	)
	for range 50 {
		all.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*time.Millisecond))
				turns, shares := 1+rand.N(2), [2]string{fmt.Sprint(rand.N(4)), fmt.Sprint("doc", rand.N(3))}
				err := q.Take(ctx, turns, shares)
				cancel()
				var r *Refused
				switch {
				case err == nil:
					if n := taken.Add(int64(turns)); n > 5 {
						t.Errorf("%d turns are taken", n)
					}
					taken.Add(int64(-turns))
					q.Give(turns, shares)
					had.Add(1)
				case !errors.As(err, &r) && !errors.Is(err, context.DeadlineExceeded):
					t.Error(err)
				default:
					turnedAway.Add(1)
				}
			}
		})
	}
	all.Wait()
	require.NotZero(t, had.Load())
	require.NotZero(t, turnedAway.Load())
	s := q.Stats()
	require.Zero(t, s.Taken)
	require.Zero(t, s.Waiting)
	require.Empty(t, q.having)
	require.Empty(t, q.waiting)
}

func BenchmarkTake(b *testing.B) {
	q := newQueue(b, Config{Turns: 8})
	ctx, shares := b.Context(), [2]string{"ada", "a document"}
	b.ReportAllocs()
	for b.Loop() {
		if err := q.Take(ctx, 1, shares); err != nil {
			b.Fatal(err)
		}
		q.Give(1, shares)
	}
	if n := testing.AllocsPerRun(100, func() {
		_ = q.Take(ctx, 1, shares)
		q.Give(1, shares)
	}); n > 0 {
		b.Fatalf("%v allocations", n)
	}
}
