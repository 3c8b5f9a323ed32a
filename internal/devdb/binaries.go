package devdb

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// oldest is the first major version that has all we use: DROP DATABASE ... WITH (FORCE) and pg_current_xact_id().
const oldest = 13

// download is the version fetched where none is installed.
const download = embedded.V17

// places are where packages put the server's programs without putting them on the PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin",         // Debian
	"/usr/pgsql-*/bin",                  // PostgreSQL's own RPMs
	"/opt/homebrew/opt/postgresql*/bin", // Homebrew on ARM
	"/usr/local/opt/postgresql*/bin",    // Homebrew on Intel
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// installation is a folder of server programs.
type installation struct {
	bin   string
	major int
}

// binaries is the folder of the server's programs: those that made the data, else the first on the PATH, else the newest, else downloaded ones.
func (c *Cluster) binaries(ctx context.Context) (string, error) {
	made := 0
	if b, err := os.ReadFile(filepath.Join(c.data, "PG_VERSION")); err == nil {
		if made, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
			return "", fmt.Errorf("read version of %s: %w", c.data, err)
		}
	}
	dist := filepath.Join(c.dir, "dist")
	found := c.installed(ctx, append(slices.Clone(places), filepath.Join(dist, "bin")))
	for _, i := range found {
		if made == 0 || made == i.major {
			return i.bin, nil
		}
	}
	if len(found) > 0 {
		return "", fmt.Errorf("%s was made by PostgreSQL %d, which is not installed (%d is): install it, or remove the folder", c.dir, made, found[0].major)
	}
	c.cfg.Logger.InfoContext(ctx, "no PostgreSQL installed, downloading one", "version", string(download), "dir", dist)
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	if err := fetch(ctx, embedded.DefaultConfig().CachePath(filepath.Join(cache, "godstack")), dist); err != nil {
		return "", fmt.Errorf("no PostgreSQL is installed and downloading one failed (%w): install version %d or newer "+
			"(Debian: apt-get install postgresql, macOS: brew install postgresql)", err, oldest)
	}
	return filepath.Join(dist, "bin"), nil
}

// installed are the usable installations, the PATH's first, then by descending version.
func (c *Cluster) installed(ctx context.Context, globs []string) []installation {
	var found []installation
	add := func(bin string) {
		if major := c.version(ctx, bin); major >= oldest {
			found = append(found, installation{bin, major})
		}
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			add(filepath.Dir(path))
		}
	}
	onPath := len(found)
	for _, glob := range globs {
		bins, _ := filepath.Glob(glob) // the one error is a malformed pattern
		for _, bin := range bins {
			add(bin)
		}
	}
	slices.SortStableFunc(found[onPath:], func(a, b installation) int { return cmp.Compare(b.major, a.major) })
	return found
}

// version is the major version of the server in bin, 0 where there is none that the server's user can run.
func (c *Cluster) version(ctx context.Context, bin string) int {
	if _, err := os.Stat(filepath.Join(bin, "initdb")); err != nil {
		return 0
	}
	out, err := c.account.command(ctx, c.dir, filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	// postgres (PostgreSQL) 17.5 (Debian 17.5-1)
	_, rest, _ := bytes.Cut(out, []byte(") "))
	major, _ := strconv.Atoi(string(rest[:len(rest)-len(bytes.TrimLeft(rest, "0123456789"))]))
	return major
}

// fetch unpacks a server into dist. The library can only start one, which is of no use to us, and as root it cannot: its start and stop
// are let go as long as the programs are there afterwards. ctx is left unheeded by the library, so fetch returns without it.
func fetch(ctx context.Context, cfg embedded.Config, dist string) error {
	scratch, err := os.MkdirTemp("", "godstack-fetch-")
	if err != nil {
		return err
	}
	free, err := freePort()
	if err != nil {
		return err
	}
	// While it runs it listens on the network.
	cfg = cfg.Version(download).Password(rand.Text()).Port(free).RuntimePath(scratch).BinariesPath(dist).
		Logger(io.Discard).StartTimeout(time.Minute)
	done := make(chan error, 1)
	go func() {
		server := embedded.NewDatabase(cfg)
		err := server.Start()
		if err == nil {
			err = server.Stop()
		}
		done <- errors.Join(err, os.RemoveAll(scratch))
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err = <-done:
	}
	for _, name := range []string{"initdb", "postgres"} {
		if _, statErr := os.Stat(filepath.Join(dist, "bin", name)); statErr != nil {
			return cmp.Or(err, statErr)
		}
	}
	return nil
}

func freePort() (uint32, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return uint32(l.Addr().(*net.TCPAddr).Port), nil
}
