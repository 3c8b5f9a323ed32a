//go:build unix

package dbtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/migrations"
)

// userEnv makes this program share the server in the folder that it names: it makes a database, prints its URL, and leaves when its
// standard input ends.
const userEnv = "DBTEST_TEST_USER"

func TestMain(m *testing.M) {
	if folder := os.Getenv(userEnv); folder != "" {
		if err := use(folder); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	Main(m)
}

func use(folder string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := open(ctx, "", folder)
	if err != nil {
		return err
	}
	db, err := s.migrated(ctx)
	if err == nil {
		fmt.Println(db.url)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	return errors.Join(err, s.close(ctx))
}

func TestNewIsMigratedAndAlone(t *testing.T) {
	t.Parallel()
	one, other := New(t), New(t)
	for _, url := range []string{one.Config().ConnString(), URL(t)} {
		current, latest, err := migrations.Status(t.Context(), url)
		require.NoError(t, err)
		require.Equal(t, latest, current)
		require.Positive(t, current)
	}
	_, err := one.Exec(t.Context(), `CREATE TABLE mine (n int)`)
	require.NoError(t, err)
	_, err = other.Exec(t.Context(), `SELECT FROM mine`)
	require.ErrorContains(t, err, "does not exist")
}

func TestEmptyIsEmpty(t *testing.T) {
	t.Parallel()
	conn := connect(t, Empty(t))
	var tables int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables))
	require.Zero(t, tables)
}

func TestDatabasesAreDroppedAtTheEnd(t *testing.T) {
	t.Parallel()
	var url string
	t.Run("user", func(t *testing.T) {
		pool := New(t)
		url = pool.Config().ConnString()
		require.NoError(t, pool.Ping(t.Context()))
		// A connection that nobody closes does not keep the database.
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	})
	_, err := pgx.Connect(t.Context(), url)
	require.ErrorContains(t, err, "does not exist")
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	for range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			require.NoError(t, New(t).Ping(t.Context()))
		})
	}
}

func TestServerIsSharedAndStoppedByTheLast(t *testing.T) {
	t.Parallel()
	folder := folder(t)
	users := []*user{join(t, folder), join(t, folder), join(t, folder)}
	for _, u := range users {
		connect(t, u.url(t))
	}
	users[0].leave(t) // who started it goes first
	require.NoError(t, connect(t, users[1].url(t)).Ping(t.Context()))

	// One is killed, one leaves in good order: nobody is there, the server goes on.
	require.NoError(t, users[1].cmd.Process.Kill())
	_ = users[1].cmd.Wait()
	left := users[1].url(t)
	require.NoError(t, connect(t, left).Ping(t.Context()))
	users[2].leave(t)
	_, err := pgx.Connect(t.Context(), users[2].url(t))
	require.Error(t, err, "the last to leave stops the server")

	// The killed one's database is gone once somebody else came, the template is still there.
	u := join(t, folder)
	require.NoError(t, connect(t, u.url(t)).Ping(t.Context()))
	_, err = pgx.Connect(t.Context(), left)
	require.ErrorContains(t, err, "does not exist")
	require.NoError(t, u.cmd.Process.Kill())
	_ = u.cmd.Wait()

	// All were killed: the orphan serves on.
	require.NoError(t, connect(t, u.url(t)).Ping(t.Context()))
	u = join(t, folder)
	require.NoError(t, connect(t, u.url(t)).Ping(t.Context()))
	u.leave(t)
	_, err = pgx.Connect(t.Context(), u.url(t))
	require.Error(t, err)

	// Data that no server accepts are made anew.
	version := filepath.Join(folder, "cluster", "data", "PG_VERSION")
	require.NoError(t, os.WriteFile(version, []byte("9.6\n"), 0o600))
	u = join(t, folder)
	require.NoError(t, connect(t, u.url(t)).Ping(t.Context()))
	u.leave(t)
}

func TestGivenServer(t *testing.T) {
	t.Parallel()
	given := Empty(t) // any database of a server will do to make others from
	s, err := open(t.Context(), given, "")
	require.NoError(t, err)
	require.Nil(t, s.shared)
	db, err := s.migrated(t.Context())
	require.NoError(t, err)
	require.NoError(t, connect(t, db.url).Close(t.Context()))
	require.NoError(t, s.drop(t.Context(), db.name))
	require.NoError(t, s.close(t.Context()))

	_, err = open(t.Context(), "host=localhost", "")
	require.ErrorContains(t, err, "TEST_DATABASE_URL has to be a postgres:// URL")
}

func TestClaimRefusesWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.ErrorContains(t, claim(path), "is not a folder of this user")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(t.TempDir(), link))
	require.ErrorContains(t, claim(link), "is not a folder of this user")
}

func TestTemplateNameFollowsContents(t *testing.T) {
	t.Parallel()
	name := func(files fstest.MapFS) string {
		name, err := templateName(files)
		require.NoError(t, err)
		return name
	}
	one := name(fstest.MapFS{"1.sql": {Data: []byte("a")}})
	require.Equal(t, one, name(fstest.MapFS{"1.sql": {Data: []byte("a")}}))
	require.NotEqual(t, one, name(fstest.MapFS{"1.sql": {Data: []byte("b")}}))
	require.NotEqual(t, one, name(fstest.MapFS{"2.sql": {Data: []byte("a")}}))
}

func BenchmarkNew(b *testing.B) {
	s, err := started()
	require.NoError(b, err)
	_, err = s.ready(b.Context())
	require.NoError(b, err)
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			db, err := s.migrated(b.Context())
			require.NoError(b, err)
			require.NoError(b, s.drop(b.Context(), db.name))
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				db, err := s.migrated(b.Context())
				require.NoError(b, err)
				require.NoError(b, s.drop(b.Context(), db.name))
			}
		})
	})
}

// user is a process that shares a server.
type user struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
	line  string
}

// join starts a process; url waits for it.
func join(t *testing.T, folder string) *user {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), userEnv+"="+folder)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return &user{cmd: cmd, stdin: in, out: bufio.NewReader(out)}
}

func (u *user) url(t *testing.T) string {
	t.Helper()
	if u.line == "" {
		line, err := u.out.ReadString('\n')
		require.NoError(t, err)
		u.line = line[:len(line)-1]
	}
	return u.line
}

func (u *user) leave(t *testing.T) {
	t.Helper()
	u.url(t)
	require.NoError(t, u.stdin.Close())
	require.NoError(t, u.cmd.Wait())
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// folder is one that the server's user can reach, which t.TempDir() is not for root.
func folder(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp(filepath.Dir(sharedFolder()), "dbtest-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(parent)) })
	require.NoError(t, os.Chmod(parent, 0o755))
	folder := filepath.Join(parent, "shared")
	t.Cleanup(func() {
		if t.Failed() {
			s, _, err := enter(context.Background(), folder)
			require.NoError(t, err)
			require.NoError(t, s.leave(context.Background()))
		}
	})
	return folder
}
