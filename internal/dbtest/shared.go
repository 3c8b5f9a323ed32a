//go:build unix

package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"godstack/internal/devdb"
)

// shared is the cluster that concurrent test binaries of a user have in common. Two locks guard it, which the system takes back from a
// process that dies: gate, held while somebody comes or goes, and users, held shared by all who are there.
type shared struct {
	folder  string
	users   *os.File
	cluster *devdb.Cluster
}

// memory is Linux's file system in memory, and spare how many bytes of it have to be free for it to be used.
const (
	memory = "/dev/shm"
	spare  = 2 << 30
)

// sharedFolder is this user's folder for the cluster: in memory, since a clone writes some 15 MB, which on a busy disk takes ten times as
// long; else in the temporary folder.
func sharedFolder() string {
	parent := os.TempDir()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err == nil && fs.Bavail*uint64(fs.Bsize) >= spare {
		parent = memory
	}
	return filepath.Join(parent, "godstack-test-"+strconv.Itoa(os.Geteuid()))
}

// enter joins the shared cluster, starting it where it does not run. alone reports that nobody else was there.
func enter(ctx context.Context, folder string) (s *shared, alone bool, err error) {
	if err := claim(folder); err != nil {
		return nil, false, err
	}
	s = &shared{folder: folder}
	gate, err := s.gate(ctx)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, gate.Close()) }()

	if s.users, err = os.OpenFile(filepath.Join(folder, "users"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, false, err
	}
	if alone, err = tryLock(s.users, syscall.LOCK_EX); err != nil {
		return nil, false, errors.Join(err, s.users.Close())
	}
	s.cluster, err = s.start(ctx)
	if err != nil && alone {
		// Another version's data, or a machine that crashed with fsync off. Nobody misses them.
		if err = os.RemoveAll(s.dir()); err == nil {
			s.cluster, err = s.start(ctx)
		}
	}
	if err == nil {
		_, err = tryLock(s.users, syscall.LOCK_SH) // free, or changed from exclusive: who may object waits at the gate
	}
	if err != nil {
		return nil, false, errors.Join(err, s.users.Close())
	}
	return s, alone, nil
}

// leave stops the cluster if nobody else uses it.
func (s *shared) leave(ctx context.Context) error {
	gate, err := s.gate(ctx)
	if err != nil {
		return err
	}
	last, err := tryLock(s.users, syscall.LOCK_EX)
	if last {
		err = s.cluster.Stop(ctx)
	}
	return errors.Join(err, s.users.Close(), gate.Close())
}

func (s *shared) dir() string { return filepath.Join(s.folder, "cluster") }

func (s *shared) start(ctx context.Context) (*devdb.Cluster, error) {
	return devdb.Start(ctx, devdb.Config{
		Dir: s.dir(), Unsafe: true, Detached: true,
		// Many binaries, each with parallel tests and their pools. Vacuuming databases that live for a second is wasted.
		Settings: map[string]string{"max_connections": "500", "autovacuum": "off", "max_wal_size": "256MB"},
	})
}

// gate waits until nobody comes or goes; closing the file opens it again.
func (s *shared) gate(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.folder, "gate"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		locked, err := tryLock(f, syscall.LOCK_EX)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if locked {
			return f, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for %s: %w", f.Name(), ctx.Err()), f.Close())
		}
	}
}

func tryLock(f *os.File, how int) (bool, error) {
	err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return true, nil
}

// claim makes the folder, whose name everybody knows, and refuses one that somebody else made first. It can be passed through, as the
// server of root has another user.
func claim(folder string) error {
	if err := os.Mkdir(folder, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(folder)
	if err != nil {
		return err
	}
	if !info.IsDir() || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a folder of this user", folder)
	}
	return os.Chmod(folder, 0o711)
}
