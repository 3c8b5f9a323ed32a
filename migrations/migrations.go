// Package migrations holds the database's schema as versioned SQL files and brings a database up to it.
//
// Guarantees:
//   - Files are applied in the order of their numbers, each in a transaction of its own unless it says
//     "-- +goose NO TRANSACTION"; a broken file is named in the error and leaves no trace.
//   - Any number of nodes may call [Up] at the same time: each file is applied once. A node that has nothing to apply does not wait.
//   - Forward only: no file has a Down part. A mistake is mended by a further file.
//
// It may import goose and pgx, and nothing of this module.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Files are the migrations, named NUMBER_what_it_does.sql.
//
//go:embed *.sql
var Files embed.FS

// lockPoll is how often a node asks for the lock that another holds.
const lockPoll = 50 * time.Millisecond

// Up applies the migrations that the database at url lacks, waiting for another node that is doing so.
// It returns how many it applied, also with an error, which names the file that failed.
func Up(ctx context.Context, url string) (applied int, err error) {
	return up(ctx, url, Files)
}

// Status returns the version of the database at url, 0 for an empty one, and the version that [Up] would bring it to.
// It changes nothing and waits for nothing.
func Status(ctx context.Context, url string) (current, latest int64, err error) {
	return status(ctx, url, Files)
}

func up(ctx context.Context, url string, files fs.FS) (applied int, err error) {
	m, err := open(ctx, url, files)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.close()) }()

	if pending, err := m.pending(ctx); err != nil || !pending {
		return 0, err
	}
	if err := m.lock(ctx); err != nil {
		return 0, err
	}
	results, err := m.goose.Up(ctx)
	if failed, ok := errors.AsType[*goose.PartialError](err); ok {
		return len(failed.Applied), fmt.Errorf("migrate %s: %w", failed.Failed.Source.Path, failed.Err)
	}
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	return len(results), nil
}

func status(ctx context.Context, url string, files fs.FS) (current, latest int64, err error) {
	m, err := open(ctx, url, files)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, m.close()) }()

	fresh, err := m.fresh(ctx)
	if err != nil {
		return 0, 0, err
	}
	if fresh {
		sources := m.goose.ListSources()
		return 0, sources[len(sources)-1].Version, nil
	}
	current, latest, err = m.goose.GetVersions(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("read migration status: %w", err)
	}
	return current, latest, nil
}

// migrator is a connection to one database and the migrations for it.
type migrator struct {
	db    *sql.DB
	conn  *sql.Conn // holds the lock; goose takes a connection of its own
	goose *goose.Provider
}

func open(ctx context.Context, url string, files fs.FS) (*migrator, error) {
	cfg, err := pgxpool.ParseConfig(url) // which knows the pool's parameters
	if err != nil {
		return nil, fmt.Errorf("parse database url: %w", err)
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "godstack migrate" // for pg_stat_activity: it may hold a lock
	}
	db := stdlib.OpenDB(*cfg.ConnConfig)
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read migrations: %w", err), db.Close())
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect for migrations: %w", err), db.Close())
	}
	return &migrator{db: db, conn: conn, goose: provider}, nil
}

// close ends the connections, and with them the lock.
func (m *migrator) close() error {
	return errors.Join(m.conn.Close(), m.db.Close())
}

// fresh reports whether no migration was ever applied. Asking goose would create its table, unlocked.
func (m *migrator) fresh(ctx context.Context) (fresh bool, err error) {
	err = m.conn.QueryRowContext(ctx, `SELECT to_regclass($1) IS NULL`, goose.DefaultTablename).Scan(&fresh)
	if err != nil {
		return false, fmt.Errorf("look for migration table: %w", err)
	}
	return fresh, nil
}

// pending reports whether there is something to apply.
func (m *migrator) pending(ctx context.Context) (bool, error) {
	fresh, err := m.fresh(ctx)
	if fresh || err != nil {
		return fresh, err
	}
	pending, err := m.goose.HasPending(ctx)
	if err != nil {
		return false, fmt.Errorf("compare migrations: %w", err)
	}
	return pending, nil
}

// lock waits for the advisory lock that the goose command takes as well. goose's own session locker polls at most once a
// second and leaves the creation of its table outside; pg_advisory_lock would deadlock with CREATE INDEX CONCURRENTLY, which waits
// for the snapshot of whoever waits in a statement.
func (m *migrator) lock(ctx context.Context) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		var locked bool
		err := m.conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1)`, lock.DefaultLockID).Scan(&locked)
		if err != nil {
			return fmt.Errorf("lock migrations: %w", err)
		}
		if locked {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for another node's migration: %w", ctx.Err())
		}
	}
}
