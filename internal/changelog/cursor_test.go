package changelog

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// crowd is a snapshot with n transactions running, of which every other one has ended.
func crowd(xmin uint64, n int) Snapshot {
	s := Snapshot{xmin: xmin, xmax: xmin + 2*uint64(n) + 1}
	for i := range n {
		s.running = append(s.running, xmin+2*uint64(i))
	}
	return s
}

func cursors() map[string]Cursor {
	epoch := uuid.MustParse("5b1f4d0e-6f6c-4a8e-9c66-0f1d3c1f7a10")
	base := Snapshot{xmin: 5_000_000, xmax: 5_000_003, running: []uint64{5_000_000, 5_000_001}}
	after := Snapshot{xmin: 5_000_001, xmax: 5_000_005, running: []uint64{5_000_001}}
	return map[string]Cursor{
		"zero":        {},
		"quiet":       {epoch, Seen{Base: Snapshot{xmin: 5_000_000, xmax: 5_000_000}}},
		"live":        {epoch, Seen{Base: base, Parts: []Part{{after, 9_000_000}}}},
		"300 running": {epoch, Seen{Base: crowd(5_000_000, 300), Parts: []Part{{crowd(5_000_100, 300), 9_000_000}}}},
		"extreme": {epoch, Seen{
			Base:  Snapshot{xmin: math.MaxUint64 - 2, xmax: math.MaxUint64, running: []uint64{math.MaxUint64 - 2, math.MaxUint64 - 1}},
			Parts: []Part{{Snapshot{xmin: 1, xmax: math.MaxUint64, running: []uint64{1, math.MaxUint64 - 1}}, math.MaxInt64}, {Seq: math.MinInt64}},
		}},
	}
}

func TestSealer(t *testing.T) {
	t.Parallel()
	s := NewSealer([]byte("one"))
	for name, c := range cursors() {
		text := s.Seal(c)
		require.Equal(t, text, s.Seal(c))
		got, err := s.Open(text)
		require.NoError(t, err, name)
		require.Equal(t, c, got)
		t.Logf("%s: %d characters", name, len(text))
	}
	require.Less(t, len(s.Seal(cursors()["quiet"])), 60)
	require.Less(t, len(s.Seal(cursors()["live"])), 80)
	require.Less(t, len(s.Seal(cursors()["300 running"])), 1000)
}

// TestForgedCursors: nothing but what was sealed opens.
func TestForgedCursors(t *testing.T) {
	t.Parallel()
	s := NewSealer([]byte("one"))
	text := s.Seal(cursors()["live"])
	refused := func(text string) {
		_, err := s.Open(text)
		require.ErrorIs(t, err, ErrCursor, text)
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range text {
		refused(text[:i])
		refused(text[i+1:])
		refused(text[:i] + text[i+1:])
		refused(text[:i] + "A" + text[i:])
		refused(text[:i] + "\n" + text[i:])
		for _, other := range alphabet {
			if byte(other) != text[i] {
				refused(text[:i] + string(other) + text[i+1:])
			}
		}
	}
	for _, text := range []string{"", " ", "=", text + "=", text + "A", text + "\n", strings.Repeat("A", len(text)), "not/base+64", "é"} {
		refused(text)
	}
	_, err := NewSealer([]byte("other")).Open(text)
	require.ErrorIs(t, err, ErrCursor)
}

func TestSealerKeys(t *testing.T) {
	t.Parallel()
	c := cursors()["live"]
	old, both, fresh := NewSealer([]byte("old")), NewSealer([]byte("new"), []byte("old")), NewSealer([]byte("new"))
	for _, s := range []*Sealer{old, both} {
		got, err := both.Open(s.Seal(c))
		require.NoError(t, err)
		require.Equal(t, c, got)
	}
	require.Equal(t, fresh.Seal(c), both.Seal(c))
	_, err := fresh.Open(old.Seal(c))
	require.ErrorIs(t, err, ErrCursor)
	require.Panics(t, func() { NewSealer() })
	require.Panics(t, func() { NewSealer([]byte("one"), nil) })
}

// TestCursorText is a cursor as clients keep it across our releases.
func TestCursorText(t *testing.T) {
	t.Parallel()
	const text = "AVsfTQ5vbEqOnGYPHTwfehCAreIEAwIAAAGA0coIAgQBANYG4s2zHwcTjuzd-cIbA5M"
	require.Equal(t, text, NewSealer([]byte("one")).Seal(cursors()["live"]))
}

// FuzzOpen: what does not open is [ErrCursor], what does is as it was sealed. The text is tried as it is, and as the body of one with a
// right MAC, which no client can make.
func FuzzOpen(f *testing.F) {
	s := NewSealer([]byte("one"))
	for _, c := range cursors() {
		f.Add([]byte(s.Seal(c)))
		f.Add(c.append(nil))
	}
	head := "01" + strings.Repeat("00", 16)
	for _, body := range []string{"02", "01", head + "000000ff", head + "ffffffffffffffffffff01"} {
		b, err := hex.DecodeString(body)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := s.keys[0].Get().(*seal)
		signed := encoding.EncodeToString(m.sum(append([]byte(nil), b...)))
		for _, text := range []string{string(b), signed} {
			c, err := s.Open(text)
			if err != nil {
				require.ErrorIs(t, err, ErrCursor)
				require.Zero(t, c)
				continue
			}
			again, err := s.Open(s.Seal(c))
			require.NoError(t, err)
			require.Equal(t, c, again)
			for _, p := range append([]Part{{c.Seen.Base, 0}}, c.Seen.Parts...) {
				if p.Snapshot.xmin > 0 {
					_, err := ParseSnapshot(p.Snapshot.String())
					require.NoError(t, err)
				}
			}
		}
	})
}

func BenchmarkSealer(b *testing.B) {
	s := NewSealer([]byte("one"))
	for _, name := range []string{"quiet", "live", "300 running"} {
		c := cursors()[name]
		text := s.Seal(c)
		b.Run(fmt.Sprintf("seal/%s/%d characters", name, len(text)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Seal(c)
			}
		})
		b.Run("open/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Open(text)
			}
		})
	}
}

func BenchmarkAnd(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	s, after := cursors()["live"].Seen, Snapshot{xmin: 5_000_010, xmax: 5_000_010}
	b.ReportAllocs()
	for b.Loop() {
		s.And(after, r.Int64N(10_000_000))
	}
}
