package changelog

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Op is what happened to a record.
type Op byte

// The operations of the log.
const (
	OpInsert Op = 'I'
	OpUpdate Op = 'U'
	OpDelete Op = 'D'
	OpResync Op = 'R' // all records of the entity may have changed; the change has no id and no version
)

func (op Op) String() string { return string(rune(op)) }

// Change is a row of the log.
type Change struct {
	Seq     int64  // orders the changes of a batch, and those of a record always
	Xid     uint64 // the transaction
	Entity  string
	ID      uuid.UUID // uuid.Nil for OpResync
	Version int64     // after the change; 0 for OpResync
	Op      Op

	// Fields names the columns that an update changed, except version and updated_at, and the edges whose links it changed.
	// For OpInsert it names edges alone.
	Fields []string

	// Old is a JSON object. For OpUpdate it holds what the changed columns were, for OpDelete the whole row, without sensitive columns;
	// for both, an edge that was changed is {"added": [ids], "removed": [ids]}: before is after less added with removed.
	// It is nil for other operations.
	Old json.RawMessage

	Actor string // the setting godstack.actor of the transaction, empty where there was none
	At    time.Time
}

// Batch is what one read found.
type Batch struct {
	Epoch uuid.UUID // of the log that the snapshots belong to

	// Changes are those that After sees and Before does not, in ascending order of Seq.
	Changes []Change

	// Before is the snapshot of the read before this one, After that of this one.
	Before, After Snapshot

	// Resync says that changes before After may be missing: the log was replaced, or there were too many. Changes is empty then, and
	// Before equals After.
	Resync bool
}

// Cursor is the place behind change number i: a reader that had everything up to Before, and of this batch the changes up to that one.
func (b *Batch) Cursor(i int) Cursor {
	if i == len(b.Changes)-1 {
		return Cursor{Epoch: b.Epoch, Seen: Seen{Base: b.After}}
	}
	return Cursor{Epoch: b.Epoch, Seen: Seen{Base: b.Before, Parts: []Part{{b.After, b.Changes[i].Seq}}}}
}
