package replica

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Position is a place in the write-ahead log: what a server shows that is there, and everything that is not before it. The zero value is
// before all.
type Position struct {
	// Timeline counts how often a standby has become the primary. It compares first, as the one that follows has what the primaries before
	// had in common with it.
	Timeline uint32
	LSN      uint64
}

// Unreached is a position that no server reaches. Who has it may have seen what nobody can tell, and reads the primary, which tells where
// that is: [Replica.Primary].
var Unreached = Position{math.MaxUint32, math.MaxUint64}

// ErrPosition is returned for a text that is no position.
var ErrPosition = errors.New("not a position of the log")

const digits = 8 + 16

// Parse reads what [Position.String] wrote. An empty text and 0 are the zero value.
func Parse(text string) (Position, error) {
	if text == "" || text == "0" {
		return Position{}, nil
	}
	if len(text) != digits {
		return Position{}, ErrPosition
	}
	timeline, err := strconv.ParseUint(text[:8], 16, 32)
	lsn, err2 := strconv.ParseUint(text[8:], 16, 64)
	if err != nil || err2 != nil {
		return Position{}, ErrPosition
	}
	return Position{uint32(timeline), lsn}, nil
}

// String is a text of 24 characters; texts compare as positions do.
func (p Position) String() string { return fmt.Sprintf("%08x%016x", p.Timeline, p.LSN) }

// Before reports whether p comes before o.
func (p Position) Before(o Position) bool {
	return p.Timeline < o.Timeline || p.Timeline == o.Timeline && p.LSN < o.LSN
}

// Covers reports whether a server at p shows all that one at o did. On another timeline it may not: where the one before goes on as well,
// each lacks what the other has got since.
func (p Position) Covers(o Position) bool { return p.Timeline == o.Timeline && p.LSN >= o.LSN }

// Later returns the later of two positions.
func (p Position) Later(o Position) Position {
	if p.Before(o) {
		return o
	}
	return p
}

// Here is SQL for the position of the server that runs it, of the columns [Position.Columns]. A standby's is that of what it has
// replayed; its timeline is the one that it has noted down, which it may do minutes after it changed over, and never before. In a
// transaction that is read committed, the statements after this one see what is there.
const Here = `SELECT CASE WHEN recovers THEN (SELECT min_recovery_end_timeline::bigint FROM pg_control_recovery())
		ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint END,
	(CASE WHEN recovers THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END - '0/0')::bigint
	FROM pg_is_in_recovery() recovers`

// Columns are what a row of [Here] is scanned into.
func (p *Position) Columns() []any { return []any{&p.Timeline, &p.LSN} }
