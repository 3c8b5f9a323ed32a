package graphqlws

import (
	"bytes"
	"context"
	"encoding/json"
)

// Operation is a query, a mutation or a subscription that a client runs. All fields but ID are emptied when Handler.Subscribe returns, so
// that a stream that goes on keeps nothing of them.
type Operation struct {
	ID            string
	Query         string // "" where a persisted document is named, by DocumentID or in Extensions
	DocumentID    string // "" where none is named
	OperationName string
	Variables     json.RawMessage // an object; nil where there are none
	Extensions    json.RawMessage // likewise

	conn   *Conn
	key    string // ID as the client wrote it, JSON
	ctx    context.Context
	cancel context.CancelFunc

	// Conn.mu protects what follows.
	state         state
	returned      bool // from Subscribe
	refused       bool // an Offer
	drained, done func()
}

// state is how far an operation is.
type state uint8

const (
	running  state = iota
	muted          // its socket has been closed
	finished       // by Complete or Fail
	gone           // by the client, or with the socket: done was called, if there was one
)

// Conn returns the socket.
func (o *Operation) Conn() *Conn { return o.conn }

// Context returns the context of the operation: the socket's when it began, done when the operation is.
func (o *Operation) Context() context.Context { return o.ctx }

// Send sends a `next` message with the payload, which may be reused afterwards. It waits for room, and returns ErrDone when the operation
// has ended.
func (o *Operation) Send(payload []byte) error {
	c := o.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	n := next(o, payload)
	if !c.fits(n) {
		c.flush()
	}
	for o.state == running && !c.fits(n) {
		room := c.awaited()
		c.mu.Unlock()
		select {
		case <-room:
		case <-o.ctx.Done():
		}
		c.mu.Lock()
	}
	if o.state != running {
		return ErrDone
	}
	c.push(n)
	c.flush()
	if c.queue != nil { // ours is the last of those that wait
		last := &c.queue.items[len(c.queue.items)-1]
		last.payload = bytes.Clone(last.payload)
	}
	return nil
}

// Offer is Send for many: it never waits and does not copy. payload is shared, must never change, and may be kept until it is written.
// False says that nothing was taken, because WriteBuffer is full; drained (see Push) is called when there is room again. An operation that
// has ended takes everything, and sends nothing.
func (o *Operation) Offer(payload []byte) bool {
	c := o.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.state != running {
		return true
	}
	n := next(o, payload)
	if !c.fits(n) {
		o.refused, c.refused = true, true
		c.server.stats.refused.Add(1)
		return false
	}
	c.push(n)
	return true
}

// Flush sends what was offered to the socket, in one write where that takes it. It never waits either.
func (o *Operation) Flush() {
	c := o.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.state == running {
		c.flush()
	}
}

// Push prepares an operation for Offer: drained is called, on a goroutine of its own, after an Offer that was refused, and done once when
// the operation has ended for whatever reason but Complete and Fail. Both may be called before Push returns; neither may be nil.
func (o *Operation) Push(drained, done func()) {
	c := o.conn
	c.mu.Lock()
	o.drained, o.done = drained, done
	late := o.state == gone
	c.mu.Unlock()
	if late {
		done()
	}
}

// Complete ends the operation by a `complete` message, after what was sent and offered. It does nothing when it has ended.
func (o *Operation) Complete() { o.finish(compose(typeComplete, o.key, nil)) }

// Fail ends the operation by an `error` message, after which there is no `complete`. errs is an array of GraphQL errors.
func (o *Operation) Fail(errs json.RawMessage) { o.finish(compose(typeError, o.key, errs)) }

func (o *Operation) finish(last []byte) {
	c := o.conn
	c.mu.Lock()
	if o.state == running {
		c.leave(o, finished)
		c.push(item{opcode: opText, payload: last})
		c.flush()
	}
	c.mu.Unlock()
	o.cancel()
}

// run has the handler run the operation.
func (o *Operation) run() {
	c := o.conn
	if !c.guard("subscribe", func() { c.server.handler.Subscribe(o) }) {
		o.Fail(json.RawMessage(`[{"message":"` + internalErrorReason + `"}]`))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o.returned = true
	o.Query, o.DocumentID, o.OperationName, o.Variables, o.Extensions = "", "", "", nil, nil
	c.release(o)
}
