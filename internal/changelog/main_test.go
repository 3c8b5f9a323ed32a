package changelog

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// bundle is a database with a few tracked tables: person, thread (written by a person) and member, which joins them.
type bundle struct {
	*pgxpool.Pool
	t testing.TB
}

func setup(t testing.TB) *bundle { return setupIn(t, dbtest.New(t)) }

func setupIn(t testing.TB, migrated *pgxpool.Pool) *bundle {
	b := &bundle{migrated, t}
	b.exec(`
		CREATE TABLE person (id uuid PRIMARY KEY, version bigint NOT NULL, updated_at timestamptz NOT NULL DEFAULT now(),
		                     name text UNIQUE, secret text);
		CREATE TABLE thread (id uuid PRIMARY KEY, version bigint NOT NULL, title text,
		                     author uuid REFERENCES person ON DELETE SET NULL, owner uuid REFERENCES person ON DELETE CASCADE);
		CREATE TABLE member (thread uuid REFERENCES thread ON DELETE CASCADE, person uuid REFERENCES person ON DELETE CASCADE,
		                     PRIMARY KEY (thread, person));
		SELECT changelog_track('person', 'Person', '{secret}');
		SELECT changelog_track('thread', 'Thread');
		SELECT changelog_track_join('member', 'Thread', 'thread', 'thread', 'person', 'members')`)
	return b
}

// exec runs statements, in one transaction unless they say otherwise. #7 is id 7.
func (b *bundle) exec(sql string) {
	b.t.Helper()
	require.NoError(b.t, b.try(sql))
}

func (b *bundle) try(sql string) error {
	_, err := b.Exec(context.Background(), ids(sql), pgx.QueryExecModeSimpleProtocol)
	return err
}

func ids(sql string) string {
	for n := range 10 {
		sql = strings.ReplaceAll(sql, fmt.Sprintf("#%d", n), fmt.Sprintf("'%s'", id(n)))
	}
	return sql
}

func id(n int) uuid.UUID { return uuid.UUID{15: byte(n)} }

// log is the log since the last call, a line a row: op, entity, id, version, fields, old.
func (b *bundle) log() []string {
	b.t.Helper()
	rows, err := b.Query(b.t.Context(), `WITH gone AS (DELETE FROM changes RETURNING *)
		SELECT concat_ws(' ', op, entity || coalesce('#' || right(id::text, 1), ''), 'v' || version, nullif(fields, '{}'),
		                 replace(regexp_replace(old::text, '"0{8}-[0-9-]*(\d)"', '#\1', 'g'), ': ', ':'))
		  FROM gone ORDER BY seq`)
	require.NoError(b.t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(b.t, err)
	return lines
}

// text is one value as text.
func (b *bundle) text(sql string) (s string) {
	b.t.Helper()
	require.NoError(b.t, b.QueryRow(b.t.Context(), `SELECT (`+ids(sql)+`)::text`).Scan(&s))
	return s
}
