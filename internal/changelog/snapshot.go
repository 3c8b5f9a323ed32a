package changelog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Snapshot is a pg_snapshot: which transactions a statement sees. In the zero value none is seen; it has no text that Postgres accepts.
type Snapshot struct {
	xmin, xmax uint64   // all before xmin have ended; xmax and above had not begun or not ended
	running    []uint64 // ascending, those from xmin to below xmax that had not ended
}

// ParseSnapshot reads what `pg_current_snapshot()::text` gives: xmin:xmax:running,running.
func ParseSnapshot(text string) (Snapshot, error) {
	bad := func() (Snapshot, error) { //nolint:unparam // both are returned
		return Snapshot{}, fmt.Errorf("parse snapshot %q: not xmin:xmax:ids in ascending order", text)
	}
	low, rest, ok := strings.Cut(text, ":")
	high, list, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return bad()
	}
	xmin, err := parseXid(low)
	xmax, err2 := parseXid(high)
	if err != nil || err2 != nil || xmin == 0 || xmin > xmax {
		return bad()
	}
	s := Snapshot{xmin: xmin, xmax: xmax}
	if list == "" {
		return s, nil
	}
	s.running = make([]uint64, 0, strings.Count(list, ",")+1)
	for next := range strings.SplitSeq(list, ",") {
		xid, err := parseXid(next)
		if err != nil || xid < xmin || xid >= xmax {
			return bad()
		}
		s.running = append(s.running, xid)
		xmin = xid + 1
	}
	return s, nil
}

// parseXid takes one spelling of a number only, so that a snapshot has one text.
func parseXid(s string) (uint64, error) {
	xid, err := strconv.ParseUint(s, 10, 64)
	if err == nil && s[0] == '0' && len(s) > 1 {
		err = strconv.ErrSyntax
	}
	return xid, err
}

// String is the text that [ParseSnapshot] reads, and Postgres as pg_snapshot.
func (s Snapshot) String() string {
	b := strconv.AppendUint(nil, s.xmin, 10)
	b = append(b, ':')
	b = strconv.AppendUint(b, s.xmax, 10)
	b = append(b, ':')
	for i, xid := range s.running {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, xid, 10)
	}
	return string(b)
}

// Visible reports whether what the transaction wrote is seen, if it committed.
func (s Snapshot) Visible(xid uint64) bool {
	if xid < s.xmin || xid >= s.xmax {
		return xid < s.xmin
	}
	_, running := slices.BinarySearch(s.running, xid)
	return !running
}

// Covers reports whether everything that o sees is seen by s as well. Of two snapshots of one server the later covers the earlier.
func (s Snapshot) Covers(o Snapshot) bool {
	if o.xmax > s.xmax {
		// Only what was running for o can be unseen by both.
		n, _ := slices.BinarySearch(o.running, s.xmax)
		if uint64(len(o.running)-n) != o.xmax-s.xmax {
			return false
		}
	}
	return !slices.ContainsFunc(s.running, o.Visible)
}

// Xmin is the lowest transaction that had not ended. All below are visible.
func (s Snapshot) Xmin() uint64 { return s.xmin }

// Xmax is above the highest transaction that had ended. None from here on is visible.
func (s Snapshot) Xmax() uint64 { return s.xmax }
