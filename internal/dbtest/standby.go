//go:build unix

package dbtest

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"godstack/internal/devdb"
	"godstack/migrations"
)

// Server is a server of the test's own, with the database app: all migrations applied, for as long as the server runs. It ends with the
// test, if nobody has stopped it.
type Server struct {
	t   testing.TB
	cfg devdb.Config
	run *devdb.Cluster
}

// NewServer starts a primary. Its disk is not waited for, its log is: what is committed can be streamed at once.
func NewServer(t testing.TB) *Server {
	t.Helper()
	// Below a short path, for the sake of the socket's, which the server's user can pass through.
	parent, err := os.MkdirTemp("", "dbtest-")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(parent)) })
	check(t, os.Chmod(parent, 0o755))
	s := &Server{t: t, cfg: devdb.Config{
		Dir: filepath.Join(parent, "primary"), Unsafe: true,
		Settings: map[string]string{
			"synchronous_commit": "on", "full_page_writes": "on", // for standbys of standbys
			"wal_retrieve_retry_interval": "100ms",
		},
	}}
	t.Cleanup(s.Stop)
	s.Start()
	check(t, s.run.CreateDatabase(t.Context(), "app"))
	_, err = migrations.Up(t.Context(), s.URL())
	check(t, err)
	return s
}

// URL is the connection string of the database.
func (s *Server) URL() string { return s.run.URL("app") }

// Standby starts a streaming standby, which has what the server has by now.
func (s *Server) Standby(name string) *Server {
	s.t.Helper()
	dir := filepath.Join(filepath.Dir(s.cfg.Dir), name)
	check(s.t, os.Mkdir(dir, 0o700))
	check(s.t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600)) // a folder of devdb's
	s.Run(nil, "pg_basebackup", "--dbname="+s.run.URL("postgres"), "--pgdata="+filepath.Join(dir, "data"), "--write-recovery-conf",
		"--checkpoint=fast", "--no-sync")
	owned, err := os.Stat(s.run.Dir())
	check(s.t, err)
	owner := owned.Sys().(*syscall.Stat_t)
	check(s.t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	}))
	standby := &Server{t: s.t, cfg: s.cfg}
	standby.cfg.Dir = dir
	s.t.Cleanup(standby.Stop)
	standby.Start()
	return standby
}

// Start starts a server that was stopped, at the same address.
func (s *Server) Start() {
	s.t.Helper()
	var err error
	s.run, err = devdb.Start(s.t.Context(), s.cfg)
	check(s.t, err)
}

// Stop stops it.
func (s *Server) Stop() {
	s.t.Helper()
	if s.run != nil {
		check(s.t, s.run.Stop(context.Background()))
	}
}

// Run runs a program of the server's, and returns what it writes.
func (s *Server) Run(stdin []byte, name string, args ...string) []byte {
	s.t.Helper()
	return Run(s.t, s.URL(), stdin, name, args...)
}

// Run runs a program of the version that the server at url has, and returns what it writes.
func Run(t testing.TB, url string, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	check(t, err)
	var folder string
	err = conn.QueryRow(t.Context(), `SELECT setting FROM pg_config WHERE name = 'BINDIR'`).Scan(&folder)
	_ = conn.Close(t.Context())
	check(t, err)
	path := filepath.Join(folder, name)
	if _, err := os.Stat(path); err != nil {
		path = name // the server is another machine's
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("dbtest: %s: %v: %s", name, err, &stderr)
	}
	return stdout.Bytes()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
}
