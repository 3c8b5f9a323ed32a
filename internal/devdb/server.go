package devdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

const (
	lockName = "lock"
	port     = 5432 // part of the socket's file name; nothing listens on the network

	// maxSocketPath is what macOS allows; Linux allows four bytes more.
	maxSocketPath = 103

	// maxLog is the size in bytes from which on the server's log begins anew at a start.
	maxLog = 8 << 20
)

// serverState is what a server tells of itself in its postmaster.pid.
type serverState struct {
	pid     int
	sockets string
	status  string // starting, ready, stopping, standby; empty very early
}

// state reads postmaster.pid; ok is false where no server runs. The file of one that was killed stays behind, and another process may
// have got its number since, so the process must be a server of these data.
func (c *Cluster) state() (s serverState, ok bool) {
	b, err := os.ReadFile(filepath.Join(c.data, "postmaster.pid"))
	if err != nil {
		return s, false
	}
	lines := strings.Split(string(b), "\n")
	if s.pid, err = strconv.Atoi(strings.TrimSpace(lines[0])); err != nil || !c.serves(s.pid) {
		return s, false
	}
	const socketLine, statusLine = 4, 7
	if len(lines) > socketLine {
		s.sockets = lines[socketLine]
	}
	if len(lines) > statusLine {
		s.status = strings.TrimSpace(lines[statusLine])
	}
	return s, true
}

// serves reports whether the process is a live server of these data, by its command line, which is empty for one that has ended.
func (c *Cluster) serves(pid int) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		// No such process, or no such file system.
		cmdline, _ = exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	}
	cmdline = bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})
	return bytes.Contains(cmdline, []byte(" -D "+c.data+" "))
}

// start leaves a server running that is ready, and c.sockets set. The caller holds the lock.
func (c *Cluster) start(ctx context.Context) error {
	if running, err := c.settle(ctx); running || err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(c.data, "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	bin, err := c.binaries(ctx)
	if err != nil {
		return err
	}
	if err := c.initialize(ctx, bin); err != nil {
		return err
	}
	if c.sockets, err = c.socketFolder(); err != nil {
		return err
	}
	return c.run(ctx, bin)
}

// settle deals with a server that already runs, although nobody has the lock: a detached one is taken when it is ready, an orphan is
// stopped, one that stops is waited for.
func (c *Cluster) settle(ctx context.Context) (running bool, err error) {
	state, ok := c.state()
	if !ok {
		return false, nil
	}
	if !c.cfg.Detached {
		c.cfg.Logger.WarnContext(ctx, "stopping a postgres that outlived its owner", "pid", state.pid)
		return false, c.shutdown(ctx)
	}
	err = poll(ctx, func() (bool, error) {
		if state, ok = c.state(); !ok {
			return true, nil
		}
		c.sockets, running = state.sockets, state.status == "ready"
		return running, nil
	})
	if err != nil {
		return false, fmt.Errorf("wait for the server with pid %d, which is %s: %w", state.pid, state.status, err)
	}
	return running, nil
}

// initialize makes the data folder, unless there is one. An interrupted attempt leaves none.
func (c *Cluster) initialize(ctx context.Context, bin string) error {
	if _, err := os.Stat(c.data); err == nil {
		return nil
	}
	c.cfg.Logger.InfoContext(ctx, "making a postgres cluster", "dir", c.dir, "binaries", bin)
	half := c.data + ".new"
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	// Letters are classified as Unicode has it, names and text sort by bytes, the same everywhere.
	ctype := "C.UTF-8"
	if runtime.GOOS == "darwin" {
		ctype = "UTF-8"
	}
	cmd := c.account.command(ctx, c.dir, filepath.Join(bin, "initdb"), "-D", half, "-U", superuser, "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--lc-ctype="+ctype, "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, complaint(out))
	}
	return os.Rename(half, c.data)
}

// socketFolder makes the folder for the socket, beside the data where the path is short enough.
func (c *Cluster) socketFolder() (string, error) {
	for _, dir := range append([]string{filepath.Join(c.dir, "run")}, temporaries("godstack-socket", c.dir)...) {
		if len(dir)+len("/.s.PGSQL.")+len(strconv.Itoa(port)) > maxSocketPath {
			continue
		}
		return dir, c.account.makeFolder(dir)
	}
	return "", fmt.Errorf("%s is too long a path for a unix socket, and so is %s", c.dir, os.TempDir())
}

func (c *Cluster) logFile() string { return filepath.Join(c.dir, "postgres.log") }

// run starts the server process and waits until it is ready.
func (c *Cluster) run(ctx context.Context, bin string) error {
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if err := c.account.own(c.logFile()); err != nil {
		return err
	}
	size, err := log.Seek(0, io.SeekEnd)
	if err == nil && size > maxLog {
		size, err = 0, log.Truncate(0)
	}
	if err != nil {
		return err
	}

	// Not bound to ctx: the server outlives the start.
	cmd := c.account.command(context.WithoutCancel(ctx), c.dir, filepath.Join(bin, "postgres"), c.arguments()...)
	cmd.Stdout, cmd.Stderr = log, log
	isolate(cmd, !c.cfg.Detached)
	gone, err := c.spawn(cmd)
	if err != nil {
		return err
	}
	pid := cmd.Process.Pid
	err = poll(ctx, func() (bool, error) {
		if gone() {
			tail, _ := io.ReadAll(io.NewSectionReader(log, size, maxLog))
			return false, fmt.Errorf("postgres did not start: %s", complaint(tail))
		}
		state, ok := c.state()
		return ok && state.pid == pid && state.status == "ready", nil
	})
	if err != nil {
		return errors.Join(err, end(ctx, cmd.Process, gone))
	}
	c.cfg.Logger.DebugContext(ctx, "postgres runs", "pid", pid, "dir", c.dir, "binaries", bin)
	return nil
}

// spawn starts the process; gone tells whether it has ended since. An owned one is waited for by a goroutine that keeps its thread: Linux
// signals the server when the *thread* that forked it ends.
func (c *Cluster) spawn(cmd *exec.Cmd) (gone func() bool, err error) {
	if c.cfg.Detached {
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return func() bool { return reap(cmd.Process.Pid) }, nil
	}
	exited := make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.exitErr = cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	c.exited, c.server = exited, cmd.Process
	return c.ended, nil
}

// ended tells whether the owned server has.
func (c *Cluster) ended() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// shutdown stops the server if one runs: the owned one, whatever became of its files, or the one that the folder names.
func (c *Cluster) shutdown(ctx context.Context) error {
	if c.server != nil {
		return end(ctx, c.server, c.ended)
	}
	state, ok := c.state()
	if !ok {
		return nil
	}
	process, err := os.FindProcess(state.pid)
	if err != nil {
		return err
	}
	defer func() { _ = process.Release() }()
	return end(ctx, process, func() bool { return !c.serves(state.pid) })
}

// end asks for a fast shutdown; when ctx ends before the server, for an immediate one; then it kills.
func end(ctx context.Context, process *os.Process, gone func() bool) (late error) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("signal the server with pid %d: %w", process.Pid, err)
		}
		err := poll(ctx, func() (bool, error) { return gone(), nil })
		if err == nil {
			return late
		}
		late = fmt.Errorf("the server with pid %d went on after signal %q: %w", process.Pid, signal, err)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), harderAfter)
		defer cancel()
	}
	return late
}

// complaint picks from a program's output the line that says what went wrong.
func complaint(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for _, mark := range []string{"PANIC:", "FATAL:", "error:", "ERROR:"} {
		for _, line := range lines {
			if strings.Contains(line, mark) {
				return strings.TrimSpace(line)
			}
		}
	}
	return strings.TrimSpace(lines[len(lines)-1])
}
