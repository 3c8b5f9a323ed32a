package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// wire stands between a program and Postgres and counts what goes by. It allocates nothing while it does.
type wire struct {
	ln         net.Listener
	postgres   string // the path of the server's socket
	statements atomic.Int64
	trips      atomic.Int64 // messages after which the program waits for Postgres

	running sync.WaitGroup
	mu      sync.Mutex // protects conns and closed
	conns   []net.Conn
	closed  bool
}

// socketName is what Postgres calls its socket in a folder.
const socketName = ".s.PGSQL.5432"

// listenWire returns a wire to the server whose socket is in folder postgres; its own is in dir.
func listenWire(dir, postgres string) (*wire, error) {
	ln, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		return nil, err
	}
	w := &wire{ln: ln, postgres: filepath.Join(postgres, socketName)}
	w.running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			w.running.Go(func() { w.serve(conn) })
		}
	})
	return w, nil
}

// close breaks all connections.
func (w *wire) close() error {
	err := w.ln.Close()
	w.mu.Lock()
	w.closed = true
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.running.Wait()
	return err
}

// hold has close close the connection, and reports whether that is still to come.
func (w *wire) hold(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, c)
	return !w.closed
}

func (w *wire) serve(program net.Conn) {
	defer func() { _ = program.Close() }()
	postgres, err := net.Dial("unix", w.postgres)
	if err != nil {
		return
	}
	defer func() { _ = postgres.Close() }()
	if !w.hold(program) || !w.hold(postgres) {
		return
	}
	w.running.Go(func() {
		_, _ = io.Copy(program, postgres)
		_ = program.Close()
	})
	_ = w.forward(postgres, program)
}

// forward passes on what the program says: a startup message without a type, then messages of one byte, a length and the rest.
func (w *wire) forward(postgres io.Writer, program io.Reader) error {
	buf := make([]byte, 64<<10)
	have, typeSize := 0, 0
	for {
		n, err := program.Read(buf[have:])
		if err != nil {
			return err
		}
		have += n
		whole := 0
		for have-whole >= typeSize+4 {
			size := typeSize + int(binary.BigEndian.Uint32(buf[whole+typeSize:]))
			if size > len(buf) {
				return errors.New("a message is longer than the buffer")
			}
			if have-whole < size {
				break
			}
			if typeSize == 1 {
				w.count(buf[whole])
			}
			typeSize = 1
			whole += size
		}
		if _, err := postgres.Write(buf[:whole]); err != nil {
			return err
		}
		have = copy(buf, buf[whole:have])
	}
}

func (w *wire) count(message byte) {
	switch message {
	case 'E': // Execute
		w.statements.Add(1)
	case 'Q': // Query
		w.statements.Add(1)
		w.trips.Add(1)
	case 'S': // Sync
		w.trips.Add(1)
	}
}
