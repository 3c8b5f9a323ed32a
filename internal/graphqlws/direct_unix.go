//go:build unix

package graphqlws

import (
	"net"
	"syscall"
)

// direct is a connection's own system call: a write that does not wait.
type direct struct {
	raw   syscall.RawConn // nil where there is none: TLS, pipes
	call  func(fd uintptr) bool
	rest  []byte
	wrote int
	err   error
}

func (d *direct) init(nc net.Conn) {
	switch t := nc.(type) { // a type that embeds one of these may have a Write of its own
	case *net.TCPConn:
		d.raw, d.err = t.SyscallConn()
	case *net.UnixConn:
		d.raw, d.err = t.SyscallConn()
	}
	d.call = d.write
}

// try writes what the connection takes at once.
func (d *direct) try(b []byte) (n int, err error) {
	if d.raw == nil {
		return 0, nil
	}
	d.rest, d.wrote, d.err = b, 0, nil
	err = d.raw.Write(d.call)
	d.rest = nil
	if err == nil {
		err = d.err
	}
	return d.wrote, err
}

func (d *direct) write(fd uintptr) bool {
	for len(d.rest) > 0 {
		n, err := syscall.Write(int(fd), d.rest)
		switch err {
		case nil:
			d.wrote += n
			d.rest = d.rest[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return true
		default:
			d.err = err
			return true
		}
	}
	return true
}
