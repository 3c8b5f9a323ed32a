package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// listeners are a crowd of WebSockets, each of which hears of one record, in the messages of graphql-transport-ws or in bare events of
// the same form. It takes one read for a message, and a goroutine and no buffer while nothing comes.
type listeners struct {
	addr    string
	began   time.Time
	sockets []*socket
	sample  []byte        // the last event of the first socket
	due     atomic.Int64  // how many versions sockets are yet to hear of
	none    chan struct{} // has one after due has come to zero
	failed  chan error    // has the first failure
	closing atomic.Bool
	running sync.WaitGroup
	buffers sync.Pool // of *[]byte
}

// entry is what a socket says to get in.
type entry struct {
	path      string // of the upgrade
	init      []byte // the first message; nil where the server speaks first
	subscribe []byte // the message after connection_ack
	record    int    // which one it hears of
}

// arrival is when a socket heard of a version.
type arrival struct {
	version int64
	after   time.Duration // since the listeners' beginning
}

// socket is a client. All but its first fields belong to the goroutine that runs it, and to whoever has seen in due that it is at rest.
type socket struct {
	*listeners
	entry
	conn     net.Conn
	ready    chan struct{} // closed when it hears of changes
	upgraded bool
	rest     []byte // the beginning of what has not come whole
	parts    []byte // the beginning of a message in several frames
	version  int64
	heard    []arrival // of what came after ready
	last     *[]byte   // the last message that says a version; nil where nobody asks
}

func newListeners(addr string) *listeners {
	return &listeners{
		addr: addr, began: time.Now(), none: make(chan struct{}, 1), failed: make(chan error, 1),
		buffers: sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }},
	}
}

// handshakes is how many sockets are on their way in at the same time.
const handshakes = 32

// open adds a socket for each entry, and returns when all hear of changes.
func (l *listeners) open(ctx context.Context, entries []entry) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(handshakes)
	for _, e := range entries {
		s := &socket{listeners: l, entry: e, ready: make(chan struct{})}
		if len(l.sockets) == 0 {
			s.last = &l.sample
		}
		l.sockets = append(l.sockets, s)
		g.Go(func() error { return s.open(ctx) })
	}
	return g.Wait()
}

// close ends all sockets.
func (l *listeners) close() {
	l.closing.Store(true)
	for _, s := range l.sockets {
		if s.conn != nil {
			_ = s.conn.Close()
		}
	}
	l.running.Wait()
}

// settle waits until nothing is due.
func (l *listeners) settle(ctx context.Context) error {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case err := <-l.failed:
			return err
		default:
		}
		if l.due.Load() == 0 {
			return nil
		}
		select {
		case <-l.none:
		case err := <-l.failed:
			return err
		case <-late.C:
			return fmt.Errorf("%d deliveries have not come within %s", l.due.Load(), patience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *listeners) fail(err error) {
	if !l.closing.Load() {
		select {
		case l.failed <- err:
		default: // a later one
		}
	}
}

func (s *socket) open(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return err
	}
	s.conn = conn
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n", s.path)
	if err != nil {
		return err
	}
	s.running.Go(func() {
		if err := s.run(); err != nil {
			s.fail(fmt.Errorf("socket: %w", err))
		}
	})
	select {
	case <-s.ready:
		return nil
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("open a socket: %w", ctx.Err())
	}
}

// run takes what comes until the end. It reads once each time that there is something, and not again to see that there is no more.
func (s *socket) run() error {
	raw, err := s.conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		buf := s.buffers.Get().(*[]byte)
		defer s.buffers.Put(buf)
		for {
			n, err := readNow(fd, *buf)
			switch {
			case errors.Is(err, syscall.EAGAIN):
				return false
			case errors.Is(err, syscall.EINTR):
				continue
			case err == nil && n == 0:
				err = io.ErrUnexpectedEOF
			case err == nil:
				err = s.take((*buf)[:n], time.Since(s.began))
			}
			if failed = err; err != nil || n < len(*buf) {
				return err != nil
			}
		}
	})
	return errors.Join(failed, err)
}

// The frames of RFC 6455, section 5.2: opcodes, and the bit of a message's last frame.
const (
	opContinuation = 0x0
	opText         = 0x1
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
	final          = 0x80
)

// take takes the next bytes that came.
func (s *socket) take(b []byte, after time.Duration) error {
	if len(s.rest) > 0 {
		s.rest = append(s.rest, b...)
		b = s.rest
	}
	if !s.upgraded {
		i := bytes.Index(b, []byte("\r\n\r\n"))
		if i >= 0 && !bytes.HasPrefix(b, []byte("HTTP/1.1 101 ")) {
			return fmt.Errorf("the upgrade is refused: %.500s", b)
		}
		if s.upgraded = i >= 0; s.upgraded {
			b = b[i+4:]
			if err := s.send(opText, s.init); err != nil {
				return err
			}
		}
	}
	for s.upgraded {
		first, payload, rest, ok := cutFrame(b)
		if !ok {
			break
		}
		b = rest
		if err := s.frame(first, payload, after); err != nil {
			return err
		}
	}
	s.rest = append(s.rest[:0], b...)
	return nil
}

// cutFrame cuts a server's frame off, if it is there whole. first is its first byte.
func cutFrame(b []byte) (first byte, payload, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, nil, false
	}
	head, size := 2, uint64(b[1])
	switch size {
	case 126:
		if head = 4; len(b) >= head {
			size = uint64(binary.BigEndian.Uint16(b[2:]))
		}
	case 127:
		if head = 10; len(b) >= head {
			size = binary.BigEndian.Uint64(b[2:])
		}
	}
	if len(b) < head || uint64(len(b)-head) < size {
		return 0, nil, nil, false
	}
	return b[0], b[head : head+int(size)], b[head+int(size):], true //nolint:gosec // it is no more than len(b)
}

// send sends a frame, unless there is nothing to say. Its mask is zero, which leaves the payload as it is.
func (s *socket) send(opcode byte, payload []byte) error {
	if payload == nil {
		return nil
	}
	b := []byte{final | opcode}
	if len(payload) < 126 {
		b = append(b, 0x80|byte(len(payload)))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(len(payload))) //nolint:gosec // what is sent here is short
	}
	_, err := s.conn.Write(append(append(b, 0, 0, 0, 0), payload...))
	return err
}

func (s *socket) frame(first byte, payload []byte, after time.Duration) error {
	switch opcode := first &^ final; {
	case opcode == opClose:
		return fmt.Errorf("the server closes: %q", payload)
	case opcode == opPing:
		return s.send(opPong, append([]byte{}, payload...))
	case opcode == opPong:
		return nil
	case first == final|opText:
		return s.message(payload, after)
	case opcode == opText || opcode == opContinuation:
		if s.parts = append(s.parts, payload...); first&final == 0 {
			return nil
		}
		whole := s.parts
		s.parts = s.parts[:0]
		return s.message(whole, after)
	}
	return fmt.Errorf("a frame begins with %#x", first)
}

var (
	kindUpdated  = []byte(`"kind":"UPDATED"`)
	kindSnapshot = []byte(`"kind":"SNAPSHOT"`)
	kindReady    = []byte(`"kind":"READY"`)
	typeAck      = []byte(`"type":"connection_ack"`)
	typePing     = []byte(`"type":"ping"`)
	typePong     = []byte(`{"type":"pong"}`)
)

func (s *socket) message(m []byte, after time.Duration) error {
	switch {
	case bytes.Contains(m, kindUpdated), bytes.Contains(m, kindSnapshot):
		return s.hear(m, after)
	case bytes.Contains(m, kindReady):
		s.start()
		return nil
	case bytes.Contains(m, typeAck):
		return s.send(opText, s.subscribe)
	case bytes.Contains(m, typePing):
		return s.send(opText, typePong)
	}
	return fmt.Errorf("unexpected message: %.500s", m)
}

// hear takes an event with a version, which is the first that the message says. Events that were joined count as those of all versions that
// they are about.
func (s *socket) hear(m []byte, after time.Duration) error {
	_, version, ok := cutVersion(m)
	if !ok {
		return fmt.Errorf("an event has no version: %.500s", m)
	}
	before := s.version
	if s.version = version; s.last != nil {
		*s.last = append((*s.last)[:0], m...)
	}
	if s.start() {
		return nil // what is there already
	}
	if version <= before {
		return fmt.Errorf("version %d comes after %d", version, before)
	}
	s.heard = append(s.heard, arrival{version, after})
	if s.due.Add(before-version) == 0 {
		select {
		case s.none <- struct{}{}:
		default: // it is not taken yet
		}
	}
	return nil
}

// start makes the socket ready, with the first of a snapshot and READY, and reports whether it was not yet.
func (s *socket) start() bool {
	select {
	case <-s.ready:
		return false
	default:
		close(s.ready)
		return true
	}
}

// cutVersion finds the first version in a message: head ends where its digits begin.
func cutVersion(m []byte) (head []byte, version int64, ok bool) {
	key := []byte(`"version":`)
	i := bytes.Index(m, key)
	if i < 0 {
		return nil, 0, false
	}
	head, m = m[:i+len(key)], m[i+len(key):]
	for i = 0; i < len(m) && '0' <= m[i] && m[i] <= '9'; i++ {
		version = 10*version + int64(m[i]-'0')
	}
	return head, version, i > 0
}
