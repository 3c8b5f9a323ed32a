package devdb

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
)

// account is the user that the server runs as; nil means the user of this process.
type account struct {
	uid, gid int
	groups   []uint32
}

// prepare makes the cluster's folder, for a user that may run a server, and returns both.
func prepare(ctx context.Context, dir string) (*account, string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, "", err
	}
	if os.Geteuid() != 0 {
		var acct *account
		return acct, dir, acct.claim(dir)
	}
	acct, err := unprivileged(dir)
	if err != nil {
		return nil, "", err
	}
	for _, try := range append([]string{dir}, temporaries("godstack-postgres", dir)...) {
		if err = acct.claim(try); err != nil {
			return nil, "", err
		}
		// The working folder is entered as the new user.
		if err = acct.command(context.WithoutCancel(ctx), try, "true").Run(); err == nil {
			return acct, try, nil
		}
		_ = os.Remove(try) // only if it is empty, so just made
	}
	return nil, "", fmt.Errorf("user %d can enter neither %s nor %s: %w", acct.uid, dir, os.TempDir(), err)
}

// unprivileged is whom root runs the server as: the owner of an existing folder, so that root and that user can take turns; else the
// system's user for it.
func unprivileged(dir string) (*account, error) {
	if info, err := os.Stat(dir); err == nil {
		if uid, gid := owner(info); uid != 0 {
			return &account{uid: uid, gid: gid}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		acct := &account{}
		if acct.uid, err = strconv.Atoi(u.Uid); err != nil {
			return nil, err
		}
		if acct.gid, err = strconv.Atoi(u.Gid); err != nil {
			return nil, err
		}
		ids, err := u.GroupIds()
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			gid, err := strconv.ParseUint(id, 10, 32)
			if err != nil {
				return nil, err
			}
			acct.groups = append(acct.groups, uint32(gid))
		}
		return acct, nil
	}
	return nil, errors.New("postgres refuses to run as root, and there is neither a user postgres nor nobody: run this as another user")
}

// claim makes the cluster's folder, or checks that it is one.
func (a *account) claim(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ours := func(e os.DirEntry) bool { return e.Name() == lockName }
	if len(entries) > 0 && !slices.ContainsFunc(entries, ours) {
		return fmt.Errorf("%s is neither empty nor a cluster of this program", dir)
	}
	return a.makeFolder(dir)
}

// makeFolder makes a folder that only the account may enter. It refuses one of somebody else, who may have laid it out in a shared
// folder under the name that we were about to use.
func (a *account) makeFolder(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err == nil {
		return a.own(dir)
	} else if !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	uid, _ := owner(info)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", dir)
	case uid == a.id():
	case uid == os.Geteuid():
		if err := a.own(dir); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s belongs to the user with id %d", dir, uid)
	}
	return os.Chmod(dir, 0o700)
}

// own gives a file that this process made to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

func (a *account) id() int {
	if a == nil {
		return os.Geteuid()
	}
	return a.uid
}

// command is a program to be run in dir as the account, in an environment that holds nothing meant for other clusters (PGDATA, PGPORT).
func (a *account) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "TMPDIR", "LD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	if a != nil {
		switchUser(cmd, a)
	}
	return cmd
}

// temporaries are folders that stand in for dir, the same at every call.
func temporaries(prefix, dir string) []string {
	name := fmt.Sprintf("%s-%x", prefix, sha256.Sum256([]byte(dir)))[:len(prefix)+1+12]
	return []string{filepath.Join(os.TempDir(), name), filepath.Join("/tmp", name)}
}
