package devdb

import "syscall"

// dieWithParent asks the kernel for a fast shutdown of the server when its parent is gone.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGINT }
