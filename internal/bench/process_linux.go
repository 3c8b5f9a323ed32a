package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// endsWithParent has a process that is killed without warning take its children along.
var endsWithParent = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}

// cpuTime is the CPU time that a process has used, in user and kernel mode, its ended threads included.
func cpuTime(pid int) (time.Duration, error) {
	// The clock's number is as clock_getcpuclockid(3) makes it. /proc/PID/stat has the same in hundredths of a second.
	clock := int32(^pid<<3 | 2) //nolint:gosec // process ids have 22 bits
	var ts syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("clock of process %d: %w", pid, errno)
	}
	return time.Duration(ts.Nano()), nil
}

// residentBytes is the memory of a process that is in RAM.
func residentBytes(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}

// openFiles is how many files a process may open here. Go raises the soft limit to the hard one at the start.
func openFiles() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	return int(min(limit.Cur, math.MaxInt32)), nil //nolint:gosec // it fits
}

// readNow reads what a socket that does not block has.
func readNow(fd uintptr, b []byte) (int, error) { return syscall.Read(int(fd), b) }
