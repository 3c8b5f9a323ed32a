//go:build !linux

package main

import (
	"errors"
	"syscall"
	"time"
)

var endsWithParent *syscall.SysProcAttr

func cpuTime(int) (time.Duration, error) { return 0, errors.ErrUnsupported }

func residentBytes(int) (int64, error) { return 0, errors.ErrUnsupported }

func openFiles() (int, error) { return 0, errors.ErrUnsupported }

func readNow(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
