//go:build !unix

package devdb

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Without unix sockets in private folders and file locks there is no private cluster; DATABASE_URL has to name a server.

func switchUser(*exec.Cmd, *account) {}

func isolate(*exec.Cmd, bool) {}

func tryLock(*os.File) (bool, error) {
	return false, fmt.Errorf("private clusters need unix, so set DATABASE_URL: %w", errors.ErrUnsupported)
}

func reap(int) bool { return false }

func owner(os.FileInfo) (uid, gid int) { return os.Geteuid(), os.Getegid() }
