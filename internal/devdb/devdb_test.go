//go:build unix

package devdb

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// ownerEnv makes this program start a cluster in the folder it names, print the server's pid, and wait for its end.
const ownerEnv = "DEVDB_TEST_OWNER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerEnv); dir != "" {
		c, err := Start(context.Background(), Config{Dir: dir, Unsafe: true})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		state, _ := c.state()
		fmt.Println(state.pid)
		<-c.Done()
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func TestClusterKeepsDataAndHasOneOwner(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	dir := folder(t)
	c := start(t, Config{Dir: dir, Unsafe: true, Settings: map[string]string{"max_connections": "33"}})
	require.Equal(t, dir, c.Dir())

	require.NoError(t, c.CreateDatabase(ctx, `odd "name" 100%`))
	require.NoError(t, c.CreateDatabase(ctx, `odd "name" 100%`), "making it again is no error")
	query(t, c.URL(`odd "name" 100%`), `CREATE TABLE kept AS SELECT 'as it was' AS word`)
	require.Equal(t, []string{"33", "off", "off", "off", "UTC", "UTF8", "Ä"}, strings.Fields(query(t, c.URL("postgres"),
		`SELECT concat_ws(' ', current_setting('max_connections'), current_setting('fsync'), current_setting('full_page_writes'),
			current_setting('synchronous_commit'), current_setting('timezone'), current_setting('server_encoding'), upper('ä'))`)))

	state, ok := c.state()
	require.True(t, ok)
	group, err := syscall.Getpgid(state.pid)
	require.NoError(t, err)
	require.Equal(t, state.pid, group, "Ctrl-C must not reach the server")

	_, err = Start(ctx, Config{Dir: dir})
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, fmt.Sprintf("pid %d;", state.pid))

	require.NoError(t, c.Err())
	require.NoError(t, c.Stop(ctx))
	require.NoError(t, c.Stop(ctx), "stopping again is no error")
	<-c.Done()
	require.NoError(t, c.Err())

	// A file left by a killed server, whose number another process has by now: ours, which must survive this.
	stale := filepath.Join(dir, "data", "postmaster.pid")
	require.NoError(t, os.WriteFile(stale, fmt.Appendf(nil, "%d\n%s\n", os.Getpid(), filepath.Join(dir, "data")), 0o600))
	c = start(t, Config{Dir: dir})
	require.Equal(t, "as it was", query(t, c.URL(`odd "name" 100%`), `SELECT word FROM kept`))
	require.Equal(t, "200 on 128MB", query(t, c.URL("postgres"),
		`SELECT concat_ws(' ', current_setting('max_connections'), current_setting('fsync'), current_setting('shared_buffers'))`))

	state, ok = c.state()
	require.True(t, ok)
	require.NoError(t, syscall.Kill(state.pid, syscall.SIGQUIT))
	<-c.Done()
	require.ErrorContains(t, c.Err(), "ended by itself")
	require.NoError(t, c.Stop(ctx))
}

func TestDetachedServerIsShared(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	cfg := Config{Dir: folder(t), Unsafe: true, Detached: true}
	first := start(t, cfg)
	second := start(t, cfg)
	require.Equal(t, first.URL("postgres"), second.URL("postgres"))
	require.Nil(t, first.Done())
	require.NoError(t, first.Err())
	one, _ := first.state()
	two, _ := second.state()
	require.Equal(t, one.pid, two.pid)

	require.NoError(t, second.Stop(ctx))
	_, running := first.state()
	require.False(t, running)
	require.NoError(t, first.Stop(ctx), "one that is gone already")

	// An owner finds an orphan: it is stopped and replaced.
	orphan := start(t, cfg)
	one, _ = orphan.state()
	cfg.Detached = false
	owned := start(t, cfg)
	two, ok := owned.state()
	require.True(t, ok)
	require.NotEqual(t, one.pid, two.pid)

	cfg.Detached = true
	waiting, cancel := context.WithCancel(ctx)
	cancel()
	_, err := Start(waiting, cfg)
	require.ErrorIs(t, err, ErrInUse, "a detached start waits for the lock as long as its context allows")
}

func TestServerEndsWithAKilledOwner(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), ownerEnv+"="+dir)
	out, err := owner.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, owner.Start())
	var pid int
	_, err = fmt.Fscan(out, &pid)
	require.NoError(t, err)
	require.NoError(t, owner.Process.Kill())
	_ = owner.Wait()

	if runtime.GOOS == "linux" {
		dead := &Cluster{dir: dir, data: filepath.Join(dir, "data")}
		require.NoError(t, poll(bounded(t), func() (bool, error) { return !dead.serves(pid), nil }))
	}
	c := start(t, Config{Dir: dir, Unsafe: true})
	require.False(t, c.serves(pid))
	log, err := os.ReadFile(c.logFile())
	require.NoError(t, err)
	require.Contains(t, string(log), "fast shutdown request")
}

func TestServerOfRootRunsElsewhere(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	private := t.TempDir()
	require.NoError(t, os.Chmod(private, 0o700))
	// Such a path is too long for a socket, too.
	dir := filepath.Join(private, strings.Repeat("long", 30))
	c := start(t, Config{Dir: dir, Unsafe: true})
	t.Cleanup(func() { require.NoError(t, c.Stop(context.Background())) })
	// Even without its files it is stopped.
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(c.Dir())) })
	require.NotEqual(t, dir, c.Dir())
	require.NoDirExists(t, dir)
	state, _ := c.state()
	info, err := os.Stat(fmt.Sprintf("/proc/%d", state.pid))
	require.NoError(t, err)
	uid, _ := owner(info)
	require.NotZero(t, uid)
	require.Equal(t, "1", query(t, c.URL("postgres"), `SELECT '1'`))
}

func TestLongPathsHaveTheirSocketElsewhere(t *testing.T) {
	t.Parallel()
	c := &Cluster{dir: filepath.Join(folder(t), strings.Repeat("long", 30)), account: nil}
	sockets, err := c.socketFolder()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.Remove(sockets)) })
	info, err := os.Stat(sockets)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	again, err := c.socketFolder()
	require.NoError(t, err)
	require.Equal(t, sockets, again)
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"a folder of other things": {map[string]string{"thesis.txt": "mine"}, "neither empty nor a cluster"},
		"another version's data":   {map[string]string{"lock": "", "data/PG_VERSION": "9\n"}, "made by PostgreSQL 9, which is not installed"},
		"broken data":              {map[string]string{"lock": "", "data/PG_VERSION": "nine\n"}, "read version of"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			for name, content := range c.files {
				path := filepath.Join(dir, name)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			}
			_, err := Start(bounded(t), Config{Dir: dir})
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
			for name := range c.files {
				require.FileExists(t, filepath.Join(dir, name))
			}
		})
	}
	_, err := Start(bounded(t), Config{})
	require.ErrorContains(t, err, "no folder given")
}

func TestFetchUnpacksPrograms(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // not parallel: the library leaves logs of failed starts there
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("needs xz to pack an archive")
	}
	// Programs that fail, as the real initdb does for root: they are wanted all the same.
	tree := t.TempDir()
	for _, name := range []string{"initdb", "postgres", "pg_ctl"} {
		path := filepath.Join(tree, "bin", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o755))
	}
	packed, err := exec.Command("tar", "-C", tree, "-cJf", "-", "bin").Output()
	require.NoError(t, err)
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	w, err := z.Create("postgres.txz")
	require.NoError(t, err)
	_, err = w.Write(packed)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".sha256") {
			_, _ = fmt.Fprintf(w, "%x", sha256.Sum256(jar.Bytes()))
			return
		}
		_, _ = io.Copy(w, bytes.NewReader(jar.Bytes()))
	}))
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	t.Cleanup(repository.Close)

	cfg := embedded.DefaultConfig().CachePath(t.TempDir()).BinaryRepositoryURL(repository.URL)
	dist := filepath.Join(t.TempDir(), "dist")
	require.NoError(t, fetch(bounded(t), cfg, dist))
	require.FileExists(t, filepath.Join(dist, "bin", "postgres"))

	nowhere := embedded.DefaultConfig().CachePath(t.TempDir()).BinaryRepositoryURL("http://127.0.0.1:1")
	require.Error(t, fetch(bounded(t), nowhere, filepath.Join(t.TempDir(), "dist")))
}

func TestInstalledPrefersTheNewest(t *testing.T) {
	t.Parallel()
	root := folder(t)
	for _, version := range []string{"9.6", "15.3", "14.1"} {
		bin := filepath.Join(root, version, "bin")
		require.NoError(t, os.MkdirAll(bin, 0o755))
		script := fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %s (Some 1-1)'\n", version)
		require.NoError(t, os.WriteFile(filepath.Join(bin, "postgres"), []byte(script), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(bin, "initdb"), nil, 0o755))
	}
	c := &Cluster{dir: root}
	found := c.installed(t.Context(), []string{filepath.Join(root, "*", "bin")})
	require.GreaterOrEqual(t, len(found), 2)
	require.Equal(t, []installation{
		{filepath.Join(root, "15.3", "bin"), 15},
		{filepath.Join(root, "14.1", "bin"), 14},
	}, found[len(found)-2:])
}

func TestComplaint(t *testing.T) {
	t.Parallel()
	require.Equal(t, "FATAL:  lock file exists", complaint([]byte("LOG: hello\nFATAL:  lock file exists\nHINT:  is it?\n")))
	require.Equal(t, "initdb: error: no", complaint([]byte("The files\ninitdb: error: no\ninitdb: hint: yes\n")))
	require.Equal(t, "last", complaint([]byte("first\nlast\n")))
	require.Empty(t, complaint(nil))
}

// folder is a folder for a cluster that the server's user can reach, which t.TempDir() is not for root.
func folder(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "devdb-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(parent)) })
	require.NoError(t, os.Chmod(parent, 0o755))
	parent, err = filepath.EvalSymlinks(parent)
	require.NoError(t, err)
	return filepath.Join(parent, "pg")
}

func start(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	c, err := Start(bounded(t), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, c.Stop(ctx))
	})
	return c
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// query runs a statement on a connection of its own and returns the one text that it answers, if any.
func query(t *testing.T, url, sql string) (answer string) {
	t.Helper()
	ctx := bounded(t)
	conn, err := pgx.Connect(ctx, url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx)) }()
	rows, err := conn.Query(ctx, sql)
	require.NoError(t, err)
	for rows.Next() {
		require.NoError(t, rows.Scan(&answer))
	}
	require.NoError(t, rows.Err())
	return answer
}
