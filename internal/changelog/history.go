package changelog

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Span is a part of a record's life: its versions above After up to UpTo, 0 for as far as there are any.
type Span struct {
	Entity string
	ID     uuid.UUID
	After  int64
	UpTo   int64
}

// Place is that of a change in a record's life.
type Place struct {
	Entity  string
	ID      uuid.UUID
	Version int64
	Seq     int64
}

// later reads from places on. A record that has the id of an earlier one begins at version 1 again, behind it in Seq.
const later = `
SELECT ` + columns + `
  FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::bigint[]) p (entity, id, version, seq)
 CROSS JOIN LATERAL (
       SELECT * FROM changes c WHERE c.id = p.id AND c.entity = p.entity AND c.version > p.version AND c.seq > p.seq OFFSET 0) c
 ORDER BY c.seq`

// Later reads what happened to records behind the change at each place, in ascending order of Seq: all of it until the record's end, and
// something of later records of the same id.
func Later(ctx context.Context, db Querier, places []Place) ([]Change, error) {
	if len(places) == 0 {
		return nil, nil
	}
	var (
		entities      = make([]string, len(places))
		ids           = make([]uuid.UUID, len(places))
		versions, seq = make([]int64, len(places)), make([]int64, len(places))
	)
	for i, p := range places {
		entities[i], ids[i], versions[i], seq[i] = p.Entity, p.ID, p.Version, p.Seq
	}
	rows, err := db.Query(ctx, later, entities, ids, versions, seq)
	if err != nil {
		return nil, fmt.Errorf("read later changes: %w", err)
	}
	var (
		changes []Change
		found   row
	)
	_, err = pgx.ForEachRow(rows, found.targets(), func() error {
		changes = found.appendTo(changes)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read later changes: %w", err)
	}
	return changes, nil
}

// history reads spans. OFFSET 0 keeps it one walk of the index (id, version) for each: a join could be turned into a scan of the log.
const history = `
SELECT s.n, ` + columns + `
  FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::bigint[]) WITH ORDINALITY s (entity, id, after, up_to, n)
 CROSS JOIN LATERAL (
       SELECT * FROM changes c WHERE c.id = s.id AND c.entity = s.entity AND c.version > s.after AND c.version <= s.up_to OFFSET 0) c
 ORDER BY c.seq`

// History reads the changes of spans, in ascending order of Seq. Those of a span have no gap and end at its highest version, so the log has
// all of it if the first has the version After + 1. What happened to an earlier record of the same id is not among them.
func History(ctx context.Context, db Querier, spans []Span) ([]Change, error) {
	if len(spans) == 0 {
		return nil, nil
	}
	var (
		entities    = make([]string, len(spans))
		ids         = make([]uuid.UUID, len(spans))
		after, upTo = make([]int64, len(spans)), make([]int64, len(spans))
	)
	for i, s := range spans {
		entities[i], ids[i], after[i], upTo[i] = s.Entity, s.ID, s.After, s.UpTo
		if s.UpTo == 0 {
			upTo[i] = math.MaxInt64
		}
	}
	rows, err := db.Query(ctx, history, entities, ids, after, upTo)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	var (
		changes []Change
		of      []int // the number of its span, from 1, of each change
		n       int
		found   row
	)
	_, err = pgx.ForEachRow(rows, append([]any{&n}, found.targets()...), func() error {
		changes, of = found.appendTo(changes), append(of, n)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	// From the end of each span as far as the versions descend by one.
	expected := make([]int64, len(spans)+1) // 0 before the first, -1 behind the last
	kept := len(changes)
	for i, c := range slices.Backward(changes) {
		switch want := &expected[of[i]]; *want {
		case 0, c.Version:
			*want = max(c.Version-1, 0)
			if *want == 0 {
				*want = -1
			}
			kept--
			changes[kept] = c
		default:
			*want = -1
		}
	}
	return changes[kept:], nil
}
