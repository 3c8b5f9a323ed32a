package changelog

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// maxRecords bounds the records of a [Scope].
const maxRecords = 1000

// Scope is what a reader wants of the log.
type Scope struct {
	Entities []string               // all records of these
	Records  map[string][]uuid.UUID // single ones, by entity; 1,000 at most unless there are Entities
}

// Missed is what a reader has missed.
type Missed struct {
	// Epoch and Snapshot are of the read. Behind all changes, Cursor{Epoch, Seen{Base: Snapshot}} is the place.
	Epoch    uuid.UUID
	Snapshot Snapshot

	// Changes are those that Snapshot sees and the cursor had not seen, in ascending order of Seq. Behind one of them,
	// Cursor{Epoch, cursor.Seen.And(Snapshot, change.Seq)} is the place.
	Changes []Change

	// Resync says that it cannot be told: the cursor is of another log or reaches beyond this one, what it lacks was removed from the
	// log, or is too much. Changes is empty then.
	Resync bool
}

// plan has the planner, which knows neither the cursor nor how fast the log grows, walk indexes, for the transaction.
const plan = `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
	set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true)`

// sinceHead says where the log stands, whether it is the one of this server (as changelog_epoch has it, which a server that was just
// promoted has not been asked yet), and whether it has all that the cursor ($1 its base, $2 its epoch, $3 its reach) lacks.
const sinceHead = `
WITH RECURSIVE h AS MATERIALIZED (
    SELECT pg_current_snapshot() AS snapshot, s.epoch,
           a.epoch IS NOT NULL AND (s.system_identifier, s.timeline, s.database)
               = (c.system_identifier, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer, d.oid) AS here,
           s.epoch = $2::uuid AND s.expired < pg_snapshot_xmin($1::text::pg_snapshot)
               AND $3::text::xid8 <= pg_snapshot_xmax(pg_current_snapshot()) AS known
      FROM pg_control_system() c
      JOIN pg_database d ON d.datname = current_database()
      CROSS JOIN changelog_state s
      LEFT JOIN changelog_alive a ON a.epoch = s.epoch AND a.made_in = a.tableoid
), `

// sinceEntities reads everything behind the cursor, at most $4 rows, of which it returns those of entities $5, with ids $6, and the
// resyncs of entities $7.
const sinceEntities = sinceHead + `found AS MATERIALIZED (
    SELECT * FROM (
        SELECT * FROM changes WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
        UNION ALL
        SELECT * FROM changes WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
    ) c WHERE (SELECT h.here AND h.known FROM h) LIMIT $4::bigint
)` + sinceTail + ` AND (c.entity = ANY ($5::text[]) OR c.id = ANY ($6::uuid[]) OR c.op = 'R' AND c.entity = ANY ($7::text[])) ORDER BY c.seq`

// sinceRecords reads the changes of records ($5 their entities, $6 their ids) from the newest back to the one that the cursor's base sees,
// and the resyncs of those entities, at most $4 rows.
//
// The change before one of version n is the one of version n - 1, and before the first that of a record which had the id earlier (it was
// deleted, or its table emptied). Only there, and where such a record had come to a higher version, are all changes of an id looked at.
const sinceRecords = sinceHead + `walk AS (
    SELECT first.* FROM unnest($5::text[], $6::uuid[]) r (entity, id)
     CROSS JOIN LATERAL (SELECT * FROM changes c WHERE c.id = r.id AND c.entity = r.entity
                          ORDER BY c.version DESC, c.seq DESC LIMIT 1) highest
     CROSS JOIN LATERAL (SELECT max(c.seq) AS seq FROM changes c WHERE c.id = r.id AND c.entity = r.entity AND c.version = 1) made
     CROSS JOIN LATERAL (
          (SELECT * FROM changes c WHERE c.id = r.id AND c.entity = r.entity AND made.seq > highest.seq ORDER BY c.seq DESC LIMIT 1)
          UNION ALL
          SELECT highest.* LIMIT 1) first
     WHERE (SELECT h.here AND h.known FROM h) AND NOT pg_visible_in_snapshot(first.xid, $1::text::pg_snapshot)
    UNION ALL
    SELECT before.* FROM walk w
     CROSS JOIN LATERAL (
          (SELECT * FROM changes c WHERE c.id = w.id AND c.entity = w.entity AND c.version = w.version - 1
              AND c.seq < w.seq AND w.version > 1 ORDER BY c.seq DESC LIMIT 1)
          UNION ALL
          (SELECT * FROM changes c WHERE c.id = w.id AND c.entity = w.entity
              AND c.seq < w.seq AND w.version <= 1 ORDER BY c.seq DESC LIMIT 1)) before
     WHERE NOT pg_visible_in_snapshot(before.xid, $1::text::pg_snapshot)
), found AS MATERIALIZED (
    SELECT * FROM (
        SELECT * FROM walk
        UNION ALL
        SELECT * FROM changes c WHERE c.id IS NULL AND c.entity = ANY ($5::text[]) AND (SELECT h.here AND h.known FROM h)
           AND NOT pg_visible_in_snapshot(c.xid, $1::text::pg_snapshot)
    ) c LIMIT $4::bigint
)` + sinceTail + ` ORDER BY c.seq`

// sinceTail joins what was found, unless it is too much.
const sinceTail = `
SELECT h.snapshot::text, h.epoch, h.here, h.known AND n.n < $4::bigint, ` + columns + `
  FROM h CROSS JOIN (SELECT count(*) AS n FROM found) n LEFT JOIN found c ON n.n < $4::bigint`

// Since reads what the cursor has not seen of a scope. db has to be connected to the primary; a transaction keeps the planner settings that
// this makes.
//
// With Entities it reads everything that was written since, and more than limit rows are a Resync. With Records alone it reads their
// changes since, by their ids, and more than limit of these are.
func Since(ctx context.Context, db Querier, c Cursor, scope Scope, limit int) (Missed, error) {
	m, here, err := since(ctx, db, c, scope, limit)
	if err == nil && !here {
		// The first to come after a promotion, a restore or a crash.
		var epoch pgtype.UUID
		if err = db.QueryRow(ctx, `SELECT changelog_epoch()`).Scan(&epoch); err == nil {
			m, _, err = since(ctx, db, Cursor{}, Scope{}, limit)
		}
	}
	if err != nil {
		return Missed{}, fmt.Errorf("read changes since a cursor: %w", err)
	}
	return m, nil
}

// since returns here false where the log is not this server's; m is void then.
func since(ctx context.Context, db Querier, c Cursor, scope Scope, limit int) (m Missed, here bool, err error) {
	var (
		entities []string
		ids      []uuid.UUID
	)
	for entity, list := range scope.Records {
		ids = append(ids, list...)
		entities = append(entities, slices.Repeat([]string{entity}, len(list))...)
	}
	if len(c.Seen.Parts) > maxParts || c.Seen.Base.xmin == 0 || len(scope.Entities) == 0 && len(ids) > maxRecords {
		// No log has this epoch, so nothing is looked for.
		c, scope = Cursor{Seen: Seen{Base: Snapshot{xmin: 1, xmax: 1}}}, Scope{}
		entities, ids = nil, nil
	}
	reach := c.Seen.Base.xmax
	for _, p := range c.Seen.Parts {
		reach = max(reach, p.Snapshot.xmax)
	}
	args := []any{c.Seen.Base.String(), c.Epoch, strconv.FormatUint(reach, 10), limit + 1}

	var b pgx.Batch
	b.Queue(plan)
	if len(scope.Entities) > 0 {
		b.Queue(sinceEntities, append(args, scope.Entities, ids, entities)...)
	} else {
		b.Queue(sinceRecords, append(args, entities, ids)...)
	}
	results := db.SendBatch(ctx, &b)
	defer func() {
		if closeErr := results.Close(); err == nil {
			err = closeErr
		}
	}()
	if _, err = results.Exec(); err != nil {
		return m, false, err
	}
	rows, err := results.Query()
	if err != nil {
		return m, false, err
	}
	var (
		snapshot string
		epoch    pgtype.UUID
		known    bool
		found    row
	)
	_, err = pgx.ForEachRow(rows, append([]any{&snapshot, &epoch, &here, &known}, found.targets()...), func() error {
		m.Changes = found.appendTo(m.Changes)
		return nil
	})
	if err != nil || !here {
		return m, false, err
	}
	m.Epoch, m.Resync = epoch.Bytes, !known
	m.Changes = slices.DeleteFunc(m.Changes, func(ch Change) bool {
		return c.Seen.Has(ch) || len(scope.Entities) > 0 && !scope.has(ch)
	})
	m.Snapshot, err = ParseSnapshot(snapshot)
	return m, true, err
}

// has reports whether a change is of the scope: the query matches the id of any record with any entity.
func (s Scope) has(c Change) bool {
	if slices.Contains(s.Entities, c.Entity) {
		return true
	}
	ids, ok := s.Records[c.Entity]
	return ok && (c.Op == OpResync || slices.Contains(ids, c.ID))
}
