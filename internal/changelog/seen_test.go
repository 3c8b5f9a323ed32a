package changelog

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func snapshot(t testing.TB, text string) Snapshot {
	t.Helper()
	s, err := ParseSnapshot(text)
	require.NoError(t, err)
	return s
}

func TestCovers(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	random := func() (s Snapshot) {
		s.xmin = r.Uint64N(8)
		s.xmax = s.xmin + r.Uint64N(5)
		for x := s.xmin; x < s.xmax; x++ {
			if r.IntN(2) == 0 {
				s.running = append(s.running, x)
			}
		}
		return s
	}
	covered := 0
	for range 20_000 {
		a, b := random(), random()
		want := true
		for x := range uint64(20) {
			want = want && (a.Visible(x) || !b.Visible(x))
		}
		require.Equal(t, want, a.Covers(b), "%v of %v", a, b)
		if want {
			covered++
		}
	}
	require.Greater(t, covered, 1000)
	require.True(t, Snapshot{}.Covers(Snapshot{}))
}

func TestSeen(t *testing.T) {
	t.Parallel()
	early, late, later := snapshot(t, "10:20:10,14"), snapshot(t, "14:30:14"), snapshot(t, "40:40:")
	require.False(t, Seen{}.Has(Change{Xid: 1}))
	s := Seen{Base: early}
	require.True(t, s.Has(Change{Xid: 11, Seq: 1000}))
	require.False(t, s.Has(Change{Xid: 10}))

	s = s.And(late, 100)
	require.True(t, s.Has(Change{Xid: 10, Seq: 100}))
	require.False(t, s.Has(Change{Xid: 10, Seq: 101}))
	require.False(t, s.Has(Change{Xid: 14, Seq: 1}))
	require.Equal(t, s, s.And(early, 500), "the base has it")
	require.Equal(t, s, s.And(late, 99), "a part has it")
	require.Equal(t, Seen{early, []Part{{late, 101}}}, s.And(late, 101), "it has the part")
	require.Equal(t, Seen{early, []Part{{later, 100}}}, s.And(later, 100), "it has the part")
	two := s.And(later, 50)
	require.Equal(t, Seen{early, []Part{{late, 100}, {later, 50}}}, two, "neither has the other")
	require.Equal(t, Seen{early, []Part{{late, 100}, {later, 60}}}, two.And(later, 60))
	require.Equal(t, Seen{early, []Part{{late, 100}, {later, 50}}}, two, "sets do not change")
	require.Equal(t, Seen{early, []Part{{later, 100}}}, two.And(later, 100))
}

// world is a model of a server: transactions that write records, one at a time each, and end in any order.
type world struct {
	r       *rand.Rand
	next    uint64               // xid
	seq     int64                // last
	running map[uint64][]Change  // by xid, what they wrote
	log     []Change             // committed
	records []int64              // versions
	writer  map[uuid.UUID]uint64 // who holds a record's lock
}

func newWorld(r *rand.Rand) *world {
	return &world{r: r, next: 3, running: map[uint64][]Change{}, records: make([]int64, 4), writer: map[uuid.UUID]uint64{}}
}

// step is one thing that a transaction does.
func (w *world) step() {
	if len(w.running) == 0 || len(w.running) < 6 && w.r.IntN(4) == 0 {
		w.running[w.next] = nil
		w.next++
		return
	}
	xids := make([]uint64, 0, len(w.running))
	for xid := range w.running {
		xids = append(xids, xid)
	}
	slices.Sort(xids)
	xid := xids[w.r.IntN(len(xids))]
	if w.r.IntN(3) > 0 {
		n := w.r.IntN(len(w.records))
		if holder, held := w.writer[id(n)]; !held || holder == xid {
			w.writer[id(n)] = xid
			w.seq++
			w.records[n]++
			w.running[xid] = append(w.running[xid], Change{Seq: w.seq, Xid: xid, ID: id(n), Version: w.records[n]})
		}
		return
	}
	w.end(xid, w.r.IntN(4) > 0)
}

func (w *world) end(xid uint64, commits bool) {
	for _, c := range w.running[xid] {
		delete(w.writer, c.ID)
		if commits {
			w.log = append(w.log, c)
		} else {
			w.records[c.ID[15]]--
		}
	}
	delete(w.running, xid)
}

func (w *world) snapshot() Snapshot {
	s := Snapshot{xmin: w.next, xmax: w.next}
	for xid := range w.running {
		s.running = append(s.running, xid)
	}
	slices.Sort(s.running)
	if len(s.running) > 0 {
		s.xmin = s.running[0]
	}
	// As Postgres has it: the highest that has ended, and one.
	for len(s.running) > 0 && s.running[len(s.running)-1] == s.xmax-1 {
		s.xmax--
		s.running = s.running[:len(s.running)-1]
	}
	return s
}

// between is what after sees and seen does not have, in ascending Seq.
func (w *world) between(seen Seen, after Snapshot) (changes []Change) {
	for _, c := range w.log {
		if after.Visible(c.Xid) && !seen.Has(c) {
			changes = append(changes, c)
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return int(a.Seq - b.Seq) })
	return changes
}

// TestSeenResumes: a reader that is cut off at any event, of a replay or live, and comes back, again and again, is given each change once,
// and those of a record in order.
func TestSeenResumes(t *testing.T) {
	t.Parallel()
	sealer := NewSealer([]byte("key"))
	most := 0
	for round := range uint64(400) {
		w := newWorld(rand.New(rand.NewPCG(round, 0)))
		var (
			given  []Change
			place  = Cursor{Seen: Seen{Base: w.snapshot()}}
			before = w.snapshot() // the tailer's
			live   bool
		)
		at := func(seen Seen) {
			var err error
			place, err = sealer.Open(sealer.Seal(Cursor{Seen: seen}))
			require.NoError(t, err)
			most = max(most, len(seen.Parts))
		}
		resume := func(cut bool) {
			after := w.snapshot()
			missed := w.between(place.Seen, after)
			was := place.Seen
			for i, c := range missed {
				if cut && w.r.IntN(4) == 0 {
					return
				}
				given = append(given, c)
				at(was.And(after, missed[i].Seq))
			}
			at(Seen{Base: after})
			live = true
		}
		for range 200 {
			for range w.r.IntN(6) {
				w.step()
			}
			if !live {
				resume(true)
				continue
			}
			// The tailer reads, and the reader is given what it has not; it is ahead where it came after the tailer's last read.
			b := Batch{Before: before, After: w.snapshot()}
			b.Changes = w.between(Seen{Base: before}, b.After)
			before = b.After
			joined := place.Seen
			for i, c := range b.Changes {
				if joined.Has(c) {
					continue
				}
				if w.r.IntN(6) == 0 {
					live = false
					break
				}
				given = append(given, c)
				if b.Before.Covers(joined.Base) {
					at(b.Cursor(i).Seen)
				} else {
					at(joined.And(b.After, c.Seq))
				}
			}
		}
		for xid := range w.running {
			w.end(xid, true)
		}
		resume(false)

		versions := make([]int64, len(w.records))
		for _, c := range given {
			versions[c.ID[15]]++
			require.Equal(t, versions[c.ID[15]], c.Version, "round %d: record %d", round, c.ID[15])
		}
		require.Equal(t, w.records, versions, "round %d", round)
	}
	require.Greater(t, most, 1, "cuts in the middle of what was cut")
}
