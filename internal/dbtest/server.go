//go:build unix

package dbtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/migrations"
)

// Names of databases: testPrefix TOKEN _ NUMBER and templatePrefix HASH.
const (
	testPrefix     = "godstack_test_"
	templatePrefix = "godstack_template_"
)

// database is one that a test uses.
type database struct{ name, url string }

// server makes and drops databases.
type server struct {
	shared *shared // nil for a server that is not ours
	base   *url.URL
	admin  *pgxpool.Pool
	alive  *pgx.Conn // holds an advisory lock on token: while it lives, nobody clears up after us
	token  string
	last   atomic.Int64

	mu       sync.Mutex // protects template, and lets one test at a time make it
	template string
}

// open connects to the server at rawURL, or to the one shared in folder.
func open(ctx context.Context, rawURL, folder string) (s *server, err error) {
	s = &server{token: strings.ToLower(rand.Text()[:10])}
	defer func() {
		if err != nil {
			s, err = nil, errors.Join(err, s.close(ctx))
		}
	}()
	alone := false
	if rawURL == "" {
		if s.shared, alone, err = enter(ctx, folder); err != nil {
			return s, fmt.Errorf("start the shared postgres: %w", err)
		}
		rawURL = s.shared.cluster.URL("postgres")
	}
	if s.base, err = url.Parse(rawURL); err != nil || s.base.Scheme == "" {
		return s, fmt.Errorf("%s has to be a postgres:// URL", URLVariable)
	}
	// Advisory locks are a database's, so all have to meet in the same one.
	cfg, err := pgxpool.ParseConfig(s.url("postgres"))
	if err != nil {
		return s, err
	}
	cfg.MaxConns = 4
	if s.admin, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return s, err
	}
	if s.alive, err = pgx.ConnectConfig(ctx, cfg.ConnConfig.Copy()); err != nil {
		return s, err
	}
	if _, err := s.alive.Exec(ctx, `SELECT pg_advisory_lock($1)`, lockKey(s.token)); err != nil {
		return s, err
	}
	return s, s.sweep(ctx, alone)
}

// close drops nothing: each test has dropped its own.
func (s *server) close(ctx context.Context) error {
	var err error
	if s.admin != nil {
		s.admin.Close()
	}
	if s.alive != nil {
		err = s.alive.Close(ctx)
	}
	if s.shared != nil {
		err = errors.Join(err, s.shared.leave(ctx))
	}
	return err
}

// migrated makes a database with all migrations.
func (s *server) migrated(ctx context.Context) (database, error) {
	template, err := s.ready(ctx)
	if err != nil {
		return database{}, err
	}
	return s.create(ctx, template)
}

// empty makes a database with nothing in it.
func (s *server) empty(ctx context.Context) (database, error) {
	return s.create(ctx, "template0")
}

func (s *server) create(ctx context.Context, template string) (database, error) {
	name := fmt.Sprintf("%s%s_%d", testPrefix, s.token, s.last.Add(1))
	if _, err := s.admin.Exec(ctx, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s`, name, template)); err != nil {
		return database{}, fmt.Errorf("create database from %s: %w", template, err)
	}
	return database{name, s.url(name)}, nil
}

func (s *server) url(name string) string {
	u := *s.base
	u.Path = "/" + name
	return u.String()
}

// drop removes a database and whoever is still connected to it.
func (s *server) drop(ctx context.Context, name string) error {
	if _, err := s.admin.Exec(ctx, fmt.Sprintf(`DROP DATABASE IF EXISTS %s WITH (FORCE)`, name)); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}

// ready is the name of the template, made by the first who asks, among all processes. It is marked as one when it is complete, and takes
// no connections from then on, as nobody may be connected to what is being cloned.
func (s *server) ready(ctx context.Context) (name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.template != "" {
		return s.template, nil
	}
	if name, err = templateName(migrations.Files); err != nil {
		return "", err
	}
	err = s.locked(ctx, name, func(conn *pgxpool.Conn) error {
		var complete bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate)`, name).Scan(&complete)
		if err != nil || complete {
			return err
		}
		if err := s.drop(ctx, name); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE template0`, name)); err != nil {
			return err
		}
		if _, err := migrations.Up(ctx, s.url(name)); err != nil {
			return err
		}
		_, err = conn.Exec(ctx, fmt.Sprintf(`ALTER DATABASE %s WITH IS_TEMPLATE true ALLOW_CONNECTIONS false`, name))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("make template database: %w", err)
	}
	s.template = name
	return name, nil
}

// locked runs do on a connection that holds the advisory lock of a name.
func (s *server) locked(ctx context.Context, name string, do func(*pgxpool.Conn) error) error {
	conn, err := s.admin.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, lockKey(name)); err != nil {
		return err
	}
	err = do(conn)
	_, unlockErr := conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, lockKey(name))
	return errors.Join(err, unlockErr)
}

// sweep drops the databases of runs that are gone and, where nobody else can be using them, the templates of other migrations.
func (s *server) sweep(ctx context.Context, alone bool) error {
	names, err := s.names(ctx, testPrefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		token, _, _ := strings.Cut(strings.TrimPrefix(name, testPrefix), "_")
		var gone bool
		err := s.alive.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, lockKey(token)).Scan(&gone)
		if err != nil {
			return err
		}
		if !gone || token == s.token {
			continue
		}
		// The lock stays with us: another sweep leaves these to ours.
		if err := s.drop(ctx, name); err != nil {
			return err
		}
	}
	if !alone {
		return nil
	}
	current, err := templateName(migrations.Files)
	if err != nil {
		return err
	}
	if names, err = s.names(ctx, templatePrefix); err != nil {
		return err
	}
	for _, name := range names {
		if name == current {
			continue
		}
		if _, err := s.admin.Exec(ctx, fmt.Sprintf(`ALTER DATABASE %s WITH IS_TEMPLATE false`, name)); err != nil {
			return err
		}
		if err := s.drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) names(ctx context.Context, prefix string) ([]string, error) {
	rows, err := s.admin.Query(ctx, `SELECT datname FROM pg_database WHERE starts_with(datname, $1)`, prefix)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// templateName is made from the migrations' names and contents: checkouts that have the same share a template.
func templateName(files fs.FS) (string, error) {
	hash := sha256.New()
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, path)
		_, _ = fmt.Fprintf(hash, "%s\x00%d\x00%s", path, len(content), content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read migrations: %w", err)
	}
	return fmt.Sprintf("%s%x", templatePrefix, hash.Sum(nil)[:8]), nil
}

// lockKey is the advisory lock that stands for a name.
func lockKey(name string) int64 {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte("godstack test " + name))
	return int64(hash.Sum64())
}
