package migrations_test

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3/lock"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/migrations"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// files are migrations that make a table and a function each, numbered from 1.
func files(tables ...string) fstest.MapFS {
	all := fstest.MapFS{}
	for i, table := range tables {
		all[fmt.Sprintf("%05d_%s.sql", i+1, table)] = &fstest.MapFile{Data: fmt.Appendf(nil, `-- +goose Up
CREATE TABLE %[1]s (n int);
-- +goose StatementBegin
CREATE FUNCTION one_%[1]s() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    RETURN 1;
END $$;
-- +goose StatementEnd
`, table)}
	}
	return all
}

func TestUpAppliesWhatIsMissing(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	requireStatus(t, url, files("a", "b"), 0, 2)
	require.False(t, exists(t, url, "goose_db_version"), "asking changes nothing")

	for _, step := range []struct {
		files   fs.FS
		applied int
	}{{files("a", "b"), 2}, {files("a", "b"), 0}, {files("a", "b", "c"), 1}} {
		applied, err := migrations.UpWith(t.Context(), url, step.files)
		require.NoError(t, err)
		require.Equal(t, step.applied, applied)
	}
	requireStatus(t, url, files("a", "b", "c"), 3, 3)
	requireStatus(t, url, files("a"), 3, 1)
	require.True(t, exists(t, url, "c"))
}

func TestUpOnManyNodesAtOnce(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	const nodes = 8
	applied, errs := make([]int, nodes), make([]error, nodes)
	var all sync.WaitGroup
	for i := range nodes {
		all.Go(func() { applied[i], errs[i] = migrations.UpWith(t.Context(), url, files("a", "b", "c")) })
	}
	all.Wait()
	sum := 0
	for i := range nodes {
		require.NoError(t, errs[i])
		sum += applied[i]
	}
	require.Equal(t, 3, sum)
	requireStatus(t, url, files("a", "b", "c"), 3, 3)
}

func TestBrokenMigrationIsNamedAndUndone(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	broken := files("a")
	broken["00002_half.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE half (n int);\nCREATE TABLE nonsense (;\n")}
	for _, first := range []int{1, 0} {
		applied, err := migrations.UpWith(t.Context(), url, broken)
		require.ErrorContains(t, err, "migrate 00002_half.sql: ")
		require.ErrorContains(t, err, "syntax error")
		require.Equal(t, first, applied)
		requireStatus(t, url, broken, 1, 2)
		require.False(t, exists(t, url, "half"))
	}
	delete(broken, "00002_half.sql")
	broken["00002_unmarked.sql"] = &fstest.MapFile{Data: []byte("CREATE TABLE half (n int);\n")}
	_, err := migrations.UpWith(t.Context(), url, broken)
	require.ErrorContains(t, err, "00002_unmarked.sql")
}

func TestUpWaitsForAnotherNodeNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	busy, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	_, err = busy.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, lock.DefaultLockID)
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = migrations.UpWith(ctx, url, files("a"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = busy.Exec(t.Context(), `SELECT pg_advisory_unlock($1)`, lock.DefaultLockID)
	require.NoError(t, err)
	_, err = migrations.UpWith(t.Context(), url, files("a"))
	require.NoError(t, err)

	// Where nothing is to be done, nobody waits.
	_, err = busy.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, lock.DefaultLockID)
	require.NoError(t, err)
	applied, err := migrations.UpWith(t.Context(), url, files("a"))
	require.NoError(t, err)
	require.Zero(t, applied)
	require.NoError(t, busy.Close(t.Context()))
}

func TestErrors(t *testing.T) {
	t.Parallel()
	_, err := migrations.Up(t.Context(), "no url")
	require.ErrorContains(t, err, "parse database url")
	_, _, err = migrations.Status(t.Context(), "postgres://127.0.0.1:1/none")
	require.ErrorContains(t, err, "connect for migrations")
	_, err = migrations.UpWith(t.Context(), dbtest.Empty(t), fstest.MapFS{})
	require.ErrorContains(t, err, "read migrations")
}

func TestFilesApplyToAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	_, err := migrations.Up(t.Context(), url)
	require.NoError(t, err)
	current, latest, err := migrations.Status(t.Context(), url)
	require.NoError(t, err)
	require.Equal(t, latest, current)
}

func TestFilesAreForwardOnly(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(migrations.Files, "*")
	require.NoError(t, err)
	numbers := map[string]string{}
	for _, name := range names {
		require.Regexp(t, `^\d{5,}_[a-z0-9_]+\.sql$`, name)
		number, _, _ := strings.Cut(path.Base(name), "_")
		require.NotContains(t, numbers, number, name)
		numbers[number] = name
		text, err := fs.ReadFile(migrations.Files, name)
		require.NoError(t, err)
		require.Contains(t, string(text), "-- +goose Up\n", name)
		require.NotContains(t, strings.ToLower(string(text)), "+goose down", name)
	}
}

func requireStatus(t *testing.T, url string, files fs.FS, wantCurrent, wantLatest int64) {
	t.Helper()
	current, latest, err := migrations.StatusWith(t.Context(), url, files)
	require.NoError(t, err)
	require.Equal(t, []int64{wantCurrent, wantLatest}, []int64{current, latest})
}

func exists(t *testing.T, url, table string) (yes bool) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(t.Context())) }()
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT to_regclass($1) IS NOT NULL`, table).Scan(&yes))
	return yes
}
