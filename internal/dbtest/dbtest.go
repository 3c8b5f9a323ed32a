//go:build unix

// Package dbtest gives each test a PostgreSQL database of its own, with all migrations applied.
//
// Guarantees:
//   - A database is seen by its test alone, is a clone of a template (tens of milliseconds), and is dropped when the test ends.
//   - All test binaries that run at the same time share one server: the first starts it, the last stops it, and one that a killed
//     run left behind is used on. Its data, about 100 MB, stay in memory (/dev/shm) where there is plenty, else in the temporary
//     folder, in godstack-test-UID. TEST_DATABASE_URL names another server instead, where databases can be made.
//   - What killed runs left is removed by the next run, never a database of a run that lives.
//   - A passing run with goroutines left over fails.
//
// A package that uses it says so once:
//
//	func TestMain(m *testing.M) { dbtest.Main(m) }
//
// It may import devdb and migrations. Only _test files may import it.
package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"
)

// URLVariable is the environment variable that names a server to use instead of a private one, as postgres://... for a role that may
// make databases. The database in it does not matter; one called postgres must exist. Templates stay there, a few megabytes each.
const URLVariable = "TEST_DATABASE_URL"

const (
	// patience bounds each step that waits for the server.
	patience = time.Minute

	// maxConns is the size of a test's pool: enough for tests that race ten writers.
	maxConns = 10
)

// binary is this test binary's part in the server. It has no owner to be passed by: tests of a package meet only in their TestMain.
var binary struct {
	mu     sync.Mutex // protects the fields below, and lets one test at a time start the server
	inMain bool
	server *server
	err    error // why there is no server; not tried again
}

// Main runs a package's tests, m being its *testing.M, and exits: with their code, or 1 where they passed and left goroutines behind.
// opts are goleak's, for goroutines that may stay.
func Main(m interface{ Run() int }, opts ...goleak.Option) {
	binary.mu.Lock()
	binary.inMain = true
	binary.mu.Unlock()

	code := m.Run()
	if err := finish(); err != nil {
		fmt.Fprintln(os.Stderr, "dbtest:", err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(opts...); err != nil {
			fmt.Fprintln(os.Stderr, "dbtest: passed, but", err)
			code = 1
		}
	}
	os.Exit(code)
}

// New is a pool on a fresh database with all migrations. When the test ends, it must have given back every connection.
func New(t testing.TB) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(URL(t))
	if err != nil {
		t.Fatalf("dbtest: parse url: %v", err)
	}
	cfg.MaxConns = maxConns
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		t.Fatalf("dbtest: open pool: %v", err)
	}
	t.Cleanup(func() { closePool(t, pool) })
	return pool
}

// URL is the connection string of a fresh database with all migrations.
func URL(t testing.TB) string {
	t.Helper()
	return create(t, (*server).migrated)
}

// Empty is the connection string of a fresh, empty database.
func Empty(t testing.TB) string {
	t.Helper()
	return create(t, (*server).empty)
}

func create(t testing.TB, makeOne func(*server, context.Context) (database, error)) string {
	t.Helper()
	s, err := started()
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	db, err := makeOne(s, ctx)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.drop(ctx, db.name); err != nil {
			t.Errorf("dbtest: %v", err)
		}
	})
	return db.url
}

// closePool waits for connections to come back for a bounded time, since pgx would for ever.
func closePool(t testing.TB, pool *pgxpool.Pool) {
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(patience / 6):
		t.Errorf("dbtest: the test ended with %d connections of its pool in use", pool.Stat().AcquiredConns())
	}
}

// started is the server, started on first use.
func started() (*server, error) {
	binary.mu.Lock()
	defer binary.mu.Unlock()
	if !binary.inMain {
		return nil, errors.New("the package lacks func TestMain(m *testing.M) { dbtest.Main(m) }, which stops the server")
	}
	if binary.server == nil && binary.err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		binary.server, binary.err = open(ctx, os.Getenv(URLVariable), sharedFolder())
	}
	return binary.server, binary.err
}

func finish() error {
	binary.mu.Lock()
	defer binary.mu.Unlock()
	if binary.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return binary.server.close(ctx)
}
