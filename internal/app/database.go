package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/internal/devdb"
	"godstack/internal/entpgx"
	"godstack/migrations"
)

// database is the pool, and the cluster beneath it where that is ours.
type database struct {
	pool    *pgxpool.Pool
	url     string
	cluster *devdb.Cluster // nil where DatabaseURL names another
	log     *slog.Logger
}

// privateDatabase is the database's name in the private cluster.
const privateDatabase = "godstack"

// applicationName is by what operators find the program's connections in pg_stat_activity, where the address gives them no other name.
const applicationName = "godstack"

// identify names a connection that has no name.
func identify(db *pgx.ConnConfig, as string) {
	if db.RuntimeParams["application_name"] == "" {
		db.RuntimeParams["application_name"] = as
	}
}

// longestName is what Postgres keeps of a name, in bytes: NAMEDATALEN - 1. It takes each that is not ASCII for a question mark.
const longestName = 63

// purposed returns how to connect for a purpose, which stands behind the connection's name.
func purposed(db *pgx.ConnConfig, purpose string) *pgx.ConnConfig {
	db = db.Copy()
	purpose = " " + purpose
	as := db.RuntimeParams["application_name"]
	as = as[:min(len(as), longestName-len(purpose))]
	db.RuntimeParams["application_name"] = as + purpose
	return db
}

// stopTimeout bounds how long the private cluster may take to stop.
const stopTimeout = 30 * time.Second

// ParseDatabaseURL reads a DatabaseURL. Its error has nothing of the text, in which there may be a password.
func ParseDatabaseURL(text string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(text)
	if file, ok := errors.AsType[*fs.PathError](err); ok { // of a certificate
		return nil, file
	}
	if err != nil {
		return nil, errors.New("no address such as postgres://user:password@localhost:5432/godstack?sslmode=require, with %40 for an @ in the password")
	}
	return cfg, nil
}

// poolConfig is how to connect for what needs no session.
func poolConfig(text string) (*pgxpool.Config, error) {
	cfg, err := ParseDatabaseURL(text)
	if err != nil {
		return nil, err
	}
	identify(cfg.ConnConfig, applicationName)
	cfg.AfterConnect = func(_ context.Context, c *pgx.Conn) error {
		entpgx.RegisterUUID(c.TypeMap())
		return nil
	}
	return cfg, nil
}

// connect opens the database as it is.
func connect(ctx context.Context, cfg Config) (_ *database, err error) {
	db := &database{url: cfg.DatabaseURL, log: cfg.Logger}
	if db.url == "" {
		db.cluster, err = devdb.Start(ctx, devdb.Config{Dir: filepath.Join(cfg.DataDir, "postgres"), Logger: cfg.Logger})
		if err != nil {
			return nil, err
		}
		if err := db.cluster.CreateDatabase(ctx, privateDatabase); err != nil {
			return nil, errors.Join(err, db.close(ctx))
		}
		db.url = db.cluster.URL(privateDatabase)
	}
	poolCfg, err := poolConfig(db.url)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("DATABASE_URL: %w", err), db.close(ctx))
	}
	poolCfg.ConnConfig.Tracer = cfg.tracer.Statements()
	db.pool, err = pgxpool.NewWithConfig(ctx, poolCfg)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), db.close(ctx))
	}
	if err := db.pool.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to database: %w", err), db.close(ctx))
	}
	return db, nil
}

// openDatabase opens the database with the schema that the program needs: it migrates in development, and
// refuses an older schema in production. A newer one is that of the next release being rolled out.
func openDatabase(ctx context.Context, cfg Config) (*database, error) {
	db, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Development {
		_, err = db.migrate(ctx)
	} else {
		var current, latest int64
		current, latest, err = migrations.Status(ctx, db.url)
		if err == nil && current < latest {
			err = fmt.Errorf("the database's schema is at version %d and the program needs %d: run godstack migrate", current, latest)
		}
	}
	if err != nil {
		return nil, errors.Join(err, db.close(ctx))
	}
	return db, nil
}

func (db *database) migrate(ctx context.Context) (applied int, err error) {
	applied, err = migrations.Up(ctx, db.url)
	if applied > 0 {
		db.log.InfoContext(ctx, "database migrated", "applied", applied)
	}
	return applied, err
}

// ready is the readiness check. What it returns is shown to whoever asks, so the details go to the log.
func (db *database) ready(ctx context.Context) error {
	if err := db.pool.Ping(ctx); err != nil {
		db.log.WarnContext(ctx, "database does not answer", "error", err)
		return errors.New("the database does not answer")
	}
	return nil
}

// watch is the service that fails when the private cluster ends by itself.
func (db *database) watch() []service {
	if db.cluster == nil {
		return nil
	}
	return []service{{"private database", func(ctx context.Context) error {
		select {
		case <-db.cluster.Done():
			return db.cluster.Err()
		case <-ctx.Done():
			return nil
		}
	}}}
}

// close ends what was opened, also after ctx is done.
func (db *database) close(ctx context.Context) error {
	if db.pool != nil {
		db.pool.Close()
	}
	if db.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return db.cluster.Stop(ctx)
}

// Migrate brings the database's schema up to date and returns how many migrations it applied.
func Migrate(ctx context.Context, cfg Config) (applied int, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return 0, err
	}
	db, err := connect(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.close(ctx)) }()
	return db.migrate(ctx)
}
