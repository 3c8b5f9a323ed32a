package codegen

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/postgres"
	"ariga.io/atlas/sql/schema"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// A database to which all migrations were applied has the tables that the schema files describe, and the triggers.
func TestMigrationsGiveTheSchema(t *testing.T) {
	t.Parallel()
	want, tracks, err := readSnapshot(filepath.Join(root, migrationsDir, snapshotFile))
	require.NoError(t, err)
	changes, err := postgres.DefaultDiff.SchemaDiff(schema.New("public"), want)
	require.NoError(t, err)
	plan, err := postgres.DefaultPlan.PlanChanges(t.Context(), "", changes, func(o *migrate.PlanOptions) { o.SchemaQualifier = new(string) })
	require.NoError(t, err)

	migrated, described := open(t, dbtest.URL(t)), open(t, dbtest.Empty(t))
	for _, c := range plan.Changes {
		_, err := described.ExecContext(t.Context(), c.Cmd)
		require.NoError(t, err, c.Cmd)
	}
	var tables []string
	for _, table := range want.Tables {
		tables = append(tables, table.Name)
	}
	diff, err := postgres.DefaultDiff.SchemaDiff(inspect(t, migrated, tables), inspect(t, described, tables))
	require.NoError(t, err)
	require.Empty(t, diff)

	// What is in neither is of the change log, of goose, of the rate limits, of idempotency keys, of jobs, or of nodes.
	for _, table := range inspect(t, migrated, nil).Tables {
		if !strings.HasPrefix(table.Name, "change") && !strings.HasPrefix(table.Name, "river_") && !slices.Contains([]string{"goose_db_version", "idempotency_keys", "job_workers", "nodes", "rate_limits"}, table.Name) {
			require.Contains(t, tables, table.Name)
		}
	}
	for _, track := range tracks {
		var n int
		require.NoError(t, migrated.QueryRowContext(t.Context(),
			`SELECT count(*) FROM pg_trigger WHERE tgrelid = $1::regclass AND NOT tgisinternal`, track.table).Scan(&n))
		require.Positive(t, n, track.table)
	}
}

func open(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func inspect(t *testing.T, db *sql.DB, tables []string) *schema.Schema {
	t.Helper()
	drv, err := postgres.Open(db)
	require.NoError(t, err)
	s, err := drv.InspectSchema(context.Background(), "public", &schema.InspectOptions{Tables: tables, Mode: schema.InspectTables})
	require.NoError(t, err)
	return s
}
