//go:build unix

package devdb

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// switchUser makes the command run as the account.
func switchUser(cmd *exec.Cmd, a *account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid), Groups: a.groups}}
}

// isolate puts the server in a session of its own, which a terminal's signals do not reach, and binds its life to the calling thread if asked.
func isolate(cmd *exec.Cmd, bind bool) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if bind {
		dieWithParent(cmd.SysProcAttr)
	}
}

// tryLock takes an exclusive lock on the file, unless somebody has it.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// reap tells whether a child has ended, without waiting. (Its command line would not do: it is empty for a moment after its start, too.)
func reap(pid int) bool {
	ended, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	return ended == pid || errors.Is(err, syscall.ECHILD)
}

func owner(info os.FileInfo) (uid, gid int) {
	stat := info.Sys().(*syscall.Stat_t)
	return int(stat.Uid), int(stat.Gid)
}
