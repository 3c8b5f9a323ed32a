package graphqlws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a socket.
type Conn struct {
	server *Server
	nc     net.Conn

	life  atomic.Uint32  // silent, heard or busy
	tasks sync.WaitGroup // Init and Subscribe

	// The goroutine that reads uses these, and no other.
	ahead []byte // bytes that were read and are not yet looked at
	first [1]byte
	due   time.Duration // on the server's clock: when a client that sends at MessageRate would send its next message

	mu          sync.Mutex // protects what follows
	ctx         context.Context
	cancel      context.CancelFunc
	value       any
	timer       *time.Timer // InitTimeout, then PingInterval
	pings       uint8       // unanswered
	initialised bool        // connection_init has come
	signedIn    bool        // and is acknowledged
	closing     bool        // deaf and mute, but for a close frame
	broken      bool        // nc is closed
	draining    bool        // drain writes, and nobody else
	operations  []*Operation
	held        int           // operations that go on, or whose Subscribe does
	queue       *queue        // nil: empty
	waiting     int           // bytes queued, or being written
	room        chan struct{} // closed when there is room; nil: nobody waits
	refused     bool          // some operation's Offer was
	direct      direct
}

// What Conn.life says of the time since the last ping.
const (
	silent uint32 = iota
	heard         // bytes have come
	busy          // some are being looked at
)

var errDead = errors.New("two pings were not answered")

func newConn(base context.Context, s *Server, nc net.Conn, ahead []byte) *Conn {
	c := &Conn{server: s, nc: nc, ahead: ahead}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(base))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.direct.init(nc)
	c.timer = time.AfterFunc(s.cfg.InitTimeout, c.tick)
	return c
}

// Context returns the context of the socket, done when that is closed. An operation's has its values as they were when it began.
func (c *Conn) Context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ctx
}

// SetContext replaces the context, by one that was derived from it.
func (c *Conn) SetContext(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx = ctx
}

// Value returns what SetValue set: the handler's own state of the socket.
func (c *Conn) Value() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value
}

// SetValue sets the handler's own state of the socket.
func (c *Conn) SetValue(v any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value = v
}

// Close closes the socket with a code and a reason, at once: the contexts of its operations end, what is queued is dropped, and nothing is
// read from then on. It does not wait, and does nothing for a socket that is being closed. What is beyond 123 bytes of reason is cut off.
func (c *Conn) Close(code int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close(code, reason)
}

// close is Close; c.mu is held.
func (c *Conn) close(code int, reason string) {
	if !c.closing {
		c.server.cfg.Logger.DebugContext(c.ctx, "socket closed", "code", code, "reason", reason)
		c.farewell(closePayload(code, reason))
	}
}

// farewell makes the socket deaf and mute but for a close frame; c.mu is held.
func (c *Conn) farewell(payload []byte) {
	c.mute()
	c.push(item{opcode: opClose, payload: payload})
	c.flush()
}

// mute ends all that goes on, and wakes the goroutine that reads; c.mu is held.
func (c *Conn) mute() {
	c.closing = true
	c.timer.Stop()
	c.cancel()
	for _, op := range c.operations {
		op.state = muted
		op.cancel()
	}
	c.drop(nil)
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	if c.draining {
		c.setWriteDeadline(closeTimeout)
	}
}

// cut ends a socket without a word.
func (c *Conn) cut(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut(err)
}

// shut is cut; c.mu is held.
func (c *Conn) shut(err error) {
	if c.broken {
		return
	}
	if !c.closing {
		c.server.cfg.Logger.DebugContext(c.ctx, "socket ended", "error", err)
		c.mute()
	}
	c.broken = true
	c.drop(nil)
	_ = c.nc.Close() // whatever is wrong with it, nobody can be told
}

// setReadDeadline gives a message some time, 0 for ever. The deadline that mute sets stands.
func (c *Conn) setReadDeadline(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		_ = c.nc.SetReadDeadline(after(d)) // an error is the connection's, and read gets it too
	}
}

// setWriteDeadline gives a write some time, 0 for ever; c.mu is held.
func (c *Conn) setWriteDeadline(d time.Duration) {
	if c.closing {
		d = min(d, closeTimeout)
	}
	_ = c.nc.SetWriteDeadline(after(d)) // likewise
}

func after(d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// tick is what the timer calls.
func (c *Conn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
	case !c.initialised:
		c.close(closeInitTimeout, "Connection initialisation timeout")
	case c.signedIn:
		if c.life.CompareAndSwap(heard, silent) || c.life.Load() == busy {
			c.pings = 0
		}
		if c.pings == 2 {
			c.shut(errDead)
			return
		}
		c.timer.Reset(c.server.cfg.PingInterval)
		if c.waiting == 0 { // else drain sees whether it is alive
			c.pings++
			c.push(item{opcode: opText, payload: compose(typePing, "", nil)})
			c.flush()
		}
	}
}

// read is the socket's goroutine. It waits without a buffer, and waits again on a new, small stack after it did something.
func (c *Conn) read() {
	if len(c.ahead) == 0 {
		n, err := c.nc.Read(c.first[:])
		if err != nil {
			c.end(err)
			return
		}
		c.ahead = c.first[:n]
	}
	c.life.Store(busy)
	if err := c.input(); err != nil {
		c.end(err)
		return
	}
	c.life.Store(heard)
	go c.read()
}

// source is what a reader reads a Conn by.
type source Conn

func (s *source) Read(p []byte) (int, error) {
	if len(s.ahead) == 0 {
		return s.nc.Read(p)
	}
	n := copy(p, s.ahead)
	s.ahead = s.ahead[n:]
	return n, nil
}

// input handles what has come, until nothing is left of it. It returns what ends the socket.
func (c *Conn) input() error {
	r := c.server.readers.Get().(*reader)
	r.br.Reset((*source)(c))
	defer func() {
		r.br.Reset(nil)
		r.begun = 0
		if cap(r.message) > maxPooled {
			r.message = nil
		}
		c.server.readers.Put(r)
	}()
	for {
		if r.begun == 0 {
			if len(c.ahead) == 0 && r.br.Buffered() == 0 {
				c.setReadDeadline(0)
				return nil
			}
			c.awaitRoom()
			c.setReadDeadline(c.server.cfg.DrainTimeout)
		}
		opcode, payload, err := r.next()
		if err == nil {
			err = c.frame(opcode, payload)
		}
		if err != nil {
			return err
		}
	}
}

// frame handles one.
func (c *Conn) frame(opcode byte, payload []byte) error {
	if opcode == opContinuation && len(payload) > 0 {
		return nil
	}
	if !c.admit() {
		return &CloseError{closePolicy, "Too many messages"}
	}
	switch opcode {
	case opText:
		return c.message(payload)
	case opBinary:
		return &CloseError{closeBadRequest, "Invalid message: not a text"}
	case opPing:
		c.answer(item{opcode: opPong, payload: bytes.Clone(payload)})
	case opClose:
		if err := checkClose(payload); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closing {
			c.farewell(bytes.Clone(payload))
		}
		return io.EOF
	}
	return nil
}

// admit says whether a client may send one more now: a generic cell rate algorithm.
func (c *Conn) admit() bool {
	c.server.stats.in.Add(1)
	rate := time.Duration(c.server.cfg.MessageRate)
	now := time.Since(c.server.start)
	c.due = max(c.due, now) + time.Second/rate
	return c.due-now <= time.Second
}

// message handles one of graphql-transport-ws.
func (c *Conn) message(text []byte) error {
	m, err := parse(text)
	if err != nil {
		return invalid(err)
	}
	switch m.kind {
	case typeInit:
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case c.closing:
		case c.initialised:
			return &CloseError{closeTooManyInits, "Too many initialisation requests"}
		default:
			c.initialised = true
			c.timer.Stop()
			c.tasks.Go(func() { c.init(m.payload) })
		}
	case typePing:
		return c.pong(m.payload)
	case typeSubscribe:
		return c.subscribe(m)
	case typeComplete:
		c.complete(m.id)
	}
	return nil
}

func invalid(err error) error { return &CloseError{closeBadRequest, "Invalid message: " + err.Error()} }

// init signs the socket in.
func (c *Conn) init(payload json.RawMessage) {
	ack, err := c.ask("init", func() (json.RawMessage, error) { return c.server.handler.Init(c, payload) })
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
	case err != nil:
		c.close(err.Code, err.Reason)
	default:
		c.signedIn = true
		c.timer.Reset(c.server.cfg.PingInterval)
		c.push(item{opcode: opText, payload: compose(typeAck, "", ack)})
		c.flush()
	}
}

// pong answers a ping.
func (c *Conn) pong(payload json.RawMessage) error {
	c.mu.Lock()
	asks := c.signedIn && payload != nil && !c.closing
	c.mu.Unlock()
	var answer json.RawMessage
	if asks {
		var err *CloseError
		answer, err = c.ask("ping", func() (json.RawMessage, error) { return c.server.handler.Ping(c, payload) })
		if err != nil {
			return err
		}
	}
	c.answer(item{opcode: opText, payload: compose(typePong, "", answer)})
	return nil
}

// ask calls the handler, and makes a *CloseError of whatever goes wrong.
func (c *Conn) ask(what string, f func() (json.RawMessage, error)) (answer json.RawMessage, refusal *CloseError) {
	var err error
	if !c.guard(what, func() { answer, err = f() }) {
		return nil, &CloseError{closeInternalError, internalErrorReason}
	}
	if err != nil && !errors.As(err, &refusal) {
		c.server.cfg.Logger.ErrorContext(c.Context(), "socket", "asked", what, "error", err)
		refusal = &CloseError{closeInternalError, internalErrorReason}
	}
	return answer, refusal
}

// guard calls f, and says whether it returned; a panic is logged.
func (c *Conn) guard(what string, f func()) (returned bool) {
	defer func() {
		if v := recover(); v != nil {
			c.server.cfg.Logger.ErrorContext(c.Context(), "panic", "asked", what, "error", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
	}()
	f()
	return true
}

// answer sends a message or control frame.
func (c *Conn) answer(i item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.push(i)
		c.flush()
	}
}

// awaited is closed when there is room; c.mu is held.
func (c *Conn) awaited() <-chan struct{} {
	if c.room == nil {
		c.room = make(chan struct{})
	}
	return c.room
}

// awaitRoom holds up a client that does not read what it is sent.
func (c *Conn) awaitRoom() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting >= c.server.cfg.WriteBuffer {
		c.flush()
	}
	for !c.closing && c.waiting >= c.server.cfg.WriteBuffer {
		room := c.awaited()
		c.mu.Unlock()
		<-room
		c.mu.Lock()
	}
}

// subscribe has the client's operation run, or says that there are too many.
func (c *Conn) subscribe(m message) error {
	op := &Operation{conn: c}
	if err := m.operation(op); err != nil {
		return invalid(err)
	}
	full, err := c.begin(op)
	if full { // not under mu, as the payload may depend on the socket
		c.answer(item{opcode: opText, payload: compose(typeError, op.key, c.server.cfg.TooMany(c))})
	}
	return err
}

// begin runs an operation, unless as many go on as may.
func (c *Conn) begin(op *Operation) (full bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
	case !c.signedIn:
		return false, &CloseError{closeUnauthorized, "Unauthorized"}
	case c.find(op.ID) != nil:
		return false, &CloseError{closeExists, "Subscriber for " + op.ID + " already exists"}
	case c.held >= c.server.cfg.Operations:
		return true, nil
	default:
		op.ctx, op.cancel = context.WithCancel(context.WithoutCancel(c.ctx))
		c.operations = append(c.operations, op)
		c.held++
		c.server.stats.operations.Add(1)
		c.tasks.Go(op.run)
	}
	return false, nil
}

// find returns the operation that goes on with an id; c.mu is held.
func (c *Conn) find(id string) *Operation {
	for _, op := range c.operations {
		if op.ID == id {
			return op
		}
	}
	return nil
}

// complete ends an operation that the client has enough of.
func (c *Conn) complete(id string) {
	c.mu.Lock()
	op := c.find(id)
	if op == nil || c.closing {
		c.mu.Unlock()
		return
	}
	c.drop(op)
	c.relieve()
	done := c.leave(op, gone)
	c.mu.Unlock()
	op.cancel()
	c.guard("done", done)
}

// leave takes an operation from the socket. It returns what Push was told to call when the client ends it; c.mu is held.
func (c *Conn) leave(op *Operation, s state) (done func()) {
	op.state = s
	c.operations = slices.DeleteFunc(c.operations, func(o *Operation) bool { return o == op })
	c.release(op)
	if op.done == nil {
		return func() {}
	}
	return op.done
}

// release counts an operation no more that has ended and has returned; c.mu is held.
func (c *Conn) release(op *Operation) {
	if op.returned && op.state >= finished {
		c.held--
		c.server.stats.operations.Add(-1)
	}
}

// end is the end of the socket's goroutine, and of the socket.
func (c *Conn) end(err error) {
	var refusal *CloseError
	c.mu.Lock()
	switch {
	case c.closing:
	case errors.As(err, &refusal):
		c.close(refusal.Code, refusal.Reason)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.close(closePolicy, "Message took too long")
	default:
		c.shut(err)
	}
	var done []func()
	for _, op := range slices.Clone(c.operations) {
		done = append(done, c.leave(op, gone))
	}
	initialised := c.initialised
	c.mu.Unlock()
	for _, f := range done {
		c.guard("done", f)
	}
	// RFC 6455, section 7.1.1: what was sent is lost if the connection is closed while something is unread.
	_ = c.nc.SetReadDeadline(after(closeTimeout))
	_, _ = io.Copy(io.Discard, c.nc)
	c.cut(nil)
	c.tasks.Wait()
	if initialised {
		c.guard("closed", func() { c.server.handler.Closed(c) })
	}
	c.server.remove(c)
}
