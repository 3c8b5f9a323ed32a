//go:build unix && !linux

package devdb

import "syscall"

// dieWithParent is not to be had here: the next Start stops an orphan.
func dieWithParent(*syscall.SysProcAttr) {}
