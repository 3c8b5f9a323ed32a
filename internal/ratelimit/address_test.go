package ratelimit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// memory is a store in this process, by the clock of its bubble.
type memory struct {
	mu    sync.Mutex // protects tat
	tat   map[string]time.Time
	asked atomic.Int64
	fails atomic.Bool
	slow  time.Duration
}

func (m *memory) Take(ctx context.Context, key string, l Limit) (Result, error) {
	m.asked.Add(1)
	if m.slow > 0 {
		select {
		case <-time.After(m.slow):
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}
	if m.fails.Load() {
		return Result{}, errors.New("no answer")
	}
	c, err := l.cell()
	if err != nil {
		return Result{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key = storeKey(l, key)
	now := time.Now()
	ahead := max(m.tat[key].Sub(now), 0)
	if ahead+c.interval > c.burst {
		return l.result(c, false, ahead), nil
	}
	if m.tat == nil {
		m.tat = map[string]time.Time{}
	}
	m.tat[key] = now.Add(ahead + c.interval)
	return l.result(c, true, ahead+c.interval), nil
}

var (
	global = Limit{"global", 600, time.Minute}
	home   = netip.MustParseAddr("192.0.2.1")
)

func perAddress(t *testing.T, s Store, cfg *AddressConfig) *PerAddress {
	t.Helper()
	p, err := NewPerAddress(s, global, cfg)
	require.NoError(t, err)
	return p
}

func TestPerAddressAsksTheStoreOnceAChunk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		p := perAddress(t, m, nil)
		for i := range 600 {
			r, err := p.Take(t.Context(), home)
			require.NoError(t, err)
			require.True(t, r.OK, i)
			require.Equal(t, global, r.Limit)
			require.Equal(t, 599-i, r.Remaining)
		}
		require.EqualValues(t, 20, m.asked.Load())
		for range 1000 {
			r, err := p.Take(t.Context(), home)
			require.NoError(t, err)
			require.False(t, r.OK)
			require.Equal(t, 3*time.Second, r.RetryAfter, "until there is a chunk again")
		}
		require.EqualValues(t, 21, m.asked.Load(), "a refusal is remembered")

		r, err := p.Take(t.Context(), netip.MustParseAddr("192.0.2.2"))
		require.NoError(t, err)
		require.True(t, r.OK, "another address")

		time.Sleep(3 * time.Second) //nolint:forbidigo // the bubble's clock
		for range 30 {
			r, err := p.Take(t.Context(), home)
			require.NoError(t, err)
			require.True(t, r.OK)
		}
		r, err = p.Take(t.Context(), home)
		require.NoError(t, err)
		require.False(t, r.OK)
	})
}

// A client that keeps below the rate is never refused, on however many nodes it lands.
func TestPerAddressIsFairToTheSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		nodes := []*PerAddress{perAddress(t, m, nil), perAddress(t, m, nil), perAddress(t, m, nil), perAddress(t, m, nil)}
		for i := range 10_000 {
			r, err := nodes[i%len(nodes)].Take(t.Context(), home)
			require.NoError(t, err)
			require.True(t, r.OK, i)
			time.Sleep(global.Window / time.Duration(global.Quota)) //nolint:forbidigo // the bubble's clock
		}
	})
}

func TestPerAddressUnderLoad(t *testing.T) {
	t.Parallel()
	m := &memory{}
	nodes := []*PerAddress{perAddress(t, m, nil), perAddress(t, m, nil)}
	var granted atomic.Int64
	start := make(chan struct{})
	began := time.Now()
	var all sync.WaitGroup
	for g := range 32 {
		all.Go(func() {
			<-start
			for range 100 {
				r, err := nodes[g%2].Take(t.Context(), home)
				if err != nil {
					t.Error(err)
				}
				if r.OK {
					granted.Add(1)
				}
			}
		})
	}
	close(start)
	all.Wait()
	more := int64(time.Since(began)/(3*time.Second)) * 30 // what came back meanwhile
	require.GreaterOrEqual(t, granted.Load(), int64(600))
	require.LessOrEqual(t, granted.Load(), 600+more)
	require.LessOrEqual(t, m.asked.Load(), 24+more, "requests wait for the one that asks")
}

func TestPerAddressWithoutItsStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		m := &memory{}
		m.fails.Store(true)
		p := perAddress(t, m, &AddressConfig{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for range 5 {
			for range 2000 {
				r, err := p.Take(t.Context(), home)
				require.NoError(t, err)
				require.True(t, r.OK)
			}
			time.Sleep(outage) //nolint:forbidigo // the bubble's clock
		}
		require.EqualValues(t, 5, m.asked.Load(), "a store that fails is asked once a second")
		require.Equal(t, 1, strings.Count(log.String(), "rate limit is not enforced"), "an outage is one line")
		m.fails.Store(false)
		for range 600 {
			_, err := p.Take(t.Context(), home)
			require.NoError(t, err)
		}
		r, err := p.Take(t.Context(), home)
		require.NoError(t, err)
		require.False(t, r.OK)
		require.Contains(t, log.String(), "rate limit is enforced again")

		m.slow = time.Hour
		began := time.Now()
		r, err = p.Take(t.Context(), netip.MustParseAddr("192.0.2.9"))
		require.NoError(t, err)
		require.True(t, r.OK)
		require.Equal(t, 250*time.Millisecond, time.Since(began), "a request waits no longer")
	})
}

// The request that asks the store may be canceled; whoever waits for it gets an answer all the same.
func TestPerAddressWithCanceledRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{slow: 100 * time.Millisecond}
		p := perAddress(t, m, nil)
		canceled, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() {
			_, err := p.Take(canceled, home)
			first <- err
		}()
		synctest.Wait()
		second := make(chan error, 1)
		go func() {
			_, err := p.Take(canceled, home)
			second <- err
		}()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-second, context.Canceled)
		r, err := p.Take(t.Context(), home)
		require.NoError(t, err)
		require.True(t, r.OK)
		require.NoError(t, <-first)
		require.EqualValues(t, 1, m.asked.Load())
	})
}

func TestPerAddressForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := perAddress(t, &memory{}, nil)
		take := func(i int) {
			_, err := p.Take(t.Context(), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
			require.NoError(t, err)
		}
		for i := range 5 * mostAddresses {
			take(i)
			require.LessOrEqual(t, len(p.young)+len(p.old), 2*mostAddresses)
		}
		for range 2 {
			time.Sleep(global.Window) //nolint:forbidigo // the bubble's clock
			take(0)
		}
		require.LessOrEqual(t, len(p.young)+len(p.old), 2)
	})
}

func TestPerAddressCountsANetwork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := perAddress(t, &memory{}, nil)
		for i := range 601 {
			r, err := p.Take(t.Context(), netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)))
			require.NoError(t, err)
			require.Equal(t, i < 600, r.OK)
		}
	})
}

func BenchmarkPerAddress(b *testing.B) {
	p, err := NewPerAddress(&memory{}, Limit{"global", 1_000_000, time.Second}, nil)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = p.Take(b.Context(), home)
	}
}
