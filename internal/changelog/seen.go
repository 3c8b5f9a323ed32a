package changelog

// maxParts bounds what a reader may leave in pieces, see [Seen].
const maxParts = 8

// Seen is a set of changes: those that Base sees, and those that one of Parts sees up to its Seq. The zero value is empty.
//
// A reader that takes the changes of a read in ascending Seq and is cut off has seen a part of it: the rest has a higher Seq, or became
// visible later. What it reads next may begin below that Seq, with what a slow transaction wrote early, and be cut off there: hence
// several parts, each of a later snapshot with a lower Seq. More than eight, which takes as many cuts in a row, are [Missed] with Resync.
type Seen struct {
	Base  Snapshot
	Parts []Part
}

// Part is what Snapshot sees up to Seq.
type Part struct {
	Snapshot Snapshot
	Seq      int64
}

// Has reports whether the change is in the set.
func (s Seen) Has(c Change) bool {
	if s.Base.Visible(c.Xid) {
		return true
	}
	for i := range s.Parts {
		if p := &s.Parts[i]; c.Seq <= p.Seq && p.Snapshot.Visible(c.Xid) {
			return true
		}
	}
	return false
}

// And returns a new set that also has what after sees up to seq. Parts that add nothing to the others are left out.
func (s Seen) And(after Snapshot, seq int64) Seen {
	added := Part{after, seq}
	if s.Base.Covers(after) {
		return s
	}
	parts := make([]Part, 0, len(s.Parts)+1)
	for _, p := range s.Parts {
		if p.covers(added) {
			return s
		}
		if !added.covers(p) {
			parts = append(parts, p)
		}
	}
	return Seen{Base: s.Base, Parts: append(parts, added)}
}

func (p Part) covers(o Part) bool { return p.Seq >= o.Seq && p.Snapshot.Covers(o.Snapshot) }
