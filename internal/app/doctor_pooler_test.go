//go:build unix

package app

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// startPgBouncer starts a PgBouncer before a database, on a Unix socket, and returns the database's address through it.
func startPgBouncer(t *testing.T, database, mode string) string {
	t.Helper()
	path := os.Getenv("PATH") + ":/usr/sbin" // where Debian has it
	var binary string
	for dir := range strings.SplitSeq(path, ":") {
		if found, err := exec.LookPath(filepath.Join(dir, "pgbouncer")); err == nil {
			binary = found
			break
		}
	}
	require.NotEmpty(t, binary, "this test needs pgbouncer: scripts/install installs it")
	to, err := pgx.ParseConfig(database)
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "pgbouncer")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	password := ""
	if to.Password != "" {
		password = " password='" + strings.ReplaceAll(to.Password, "'", "''") + "'"
	}
	ini := fmt.Sprintf(`[databases]
app = host=%s port=%d dbname=%s user=%s%s
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = %s
auth_type = any
pool_mode = %s
default_pool_size = 10
`, to.Host, to.Port, to.Database, to.User, password, dir, mode)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ini"), []byte(ini), 0o644))

	// The shell ends it when its standard input does: when the test stops it, or is killed.
	cmd := exec.Command("sh", "-c", `"$@" </dev/null >log 2>&1 & pid=$!; read -r _; kill -9 $pid; wait $pid`, "sh", binary, "ini")
	cmd.Dir = dir
	if os.Geteuid() == 0 { // as whom it does not run: as the owner of the server's socket, who alone may enter that
		require.NoError(t, os.Chmod(dir, 0o755))
		owner := &syscall.Credential{Uid: 65534, Gid: 65534}
		if info, err := os.Stat(to.Host); err == nil {
			s := info.Sys().(*syscall.Stat_t)
			owner = &syscall.Credential{Uid: s.Uid, Gid: s.Gid}
		}
		require.NoError(t, os.Chown(dir, int(owner.Uid), int(owner.Gid)))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner}
	}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait() // it was killed
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("unix", filepath.Join(dir, ".s.PGSQL.6432"))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, patience, 5*time.Millisecond, "pgbouncer does not start")
	return "postgres://app@/app?" + url.Values{"host": {dir}, "port": {"6432"}, "sslmode": {"disable"}}.Encode()
}

// TestDoctorOfAPooler goes through PgBouncer in each of its modes. Version 1.20 and those before, and later ones with max_prepared_statements = 0,
// lose named statements.
func TestDoctorOfAPooler(t *testing.T) {
	t.Parallel()
	database := dbtest.URL(t)
	t.Run("transaction", func(t *testing.T) {
		t.Parallel()
		address := startPgBouncer(t, database, "transaction\nmax_client_conn = 200")
		unnamed := with(t, address, "default_query_exec_mode", "cache_describe")
		d := examine(t, Config{DatabaseURL: unnamed}, Examination{})
		d.require(t, "database.pooler", CheckOK, "one that gives a server for a transaction")
		d.require(t, "listen", CheckFail, "through DATABASE_URL no notification arrives")
		d.require(t, "database.connections", CheckOK, "a pooler's pool not counted")
		d = examine(t, Config{DatabaseURL: unnamed, ListenURL: database}, Examination{})
		d.require(t, "listen", CheckOK, "through LISTEN_DATABASE_URL a notification arrives")
		require.NotContains(t, d.names(CheckFail), "database.pooler")
		d.require(t, "migrations", CheckOK, "all are applied")
		d.require(t, "schema", CheckOK, "as the program knows them")
	})
	t.Run("named statements", func(t *testing.T) {
		t.Parallel()
		address := startPgBouncer(t, database, "transaction")
		d := examine(t, Config{DatabaseURL: address, ListenURL: database}, Examination{})
		if keepsStatements(t, address) {
			d.require(t, "database.pooler", CheckOK, "keeps named statements")
		} else {
			d.require(t, "database.pooler", CheckFail, "loses named statements")
		}
	})
	t.Run("session", func(t *testing.T) {
		t.Parallel()
		d := examine(t, Config{DatabaseURL: startPgBouncer(t, database, "session")}, Examination{})
		d.require(t, "database.pooler", CheckOK, "one that keeps sessions together")
		d.require(t, "listen", CheckOK, "through DATABASE_URL a notification arrives")
	})
	t.Run("statement", func(t *testing.T) {
		t.Parallel()
		address := with(t, startPgBouncer(t, database, "statement"), "default_query_exec_mode", "cache_describe")
		d := examine(t, Config{DatabaseURL: address, ListenURL: database}, Examination{})
		d.require(t, "database.pooler", CheckFail, "a pooler that has no transactions")
	})
}

// keepsStatements reports whether this PgBouncer does: from 1.21 on it can, and from 1.24 on it does unless it is told not to.
func keepsStatements(t *testing.T, address string) bool {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	u.Path, u.User = "/pgbouncer", url.User("pgbouncer")
	cfg, err := pgx.ParseConfig(u.String())
	require.NoError(t, err)
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(t.Context())) }()
	rows, err := conn.PgConn().Exec(t.Context(), "SHOW CONFIG").ReadAll()
	require.NoError(t, err)
	for _, row := range rows[0].Rows {
		if string(row[0]) == "max_prepared_statements" {
			return string(row[1]) != "0"
		}
	}
	return false
}
