package graphqlws

import (
	"errors"
	"os"
	"slices"
	"time"
)

const (
	// batchSize is how many bytes are put together for one write; whole messages, so it may be more.
	batchSize = 32 << 10
	// maxPooled is what a buffer may have grown to and still be kept for others.
	maxPooled = 64 << 10
	// closeTimeout is how long a client has to take a close frame, and to close its side.
	closeTimeout = 5 * time.Second
)

// What stands around the payload of a `next` message, and the id in it.
const (
	nextBegin  = `{"id":`
	nextMiddle = `,"type":"` + typeNext + `","payload":`
	nextEnd    = `}`
)

// item is a message or control frame that waits: the payload of op's `next` message, or without op all that is in the frame.
type item struct {
	op      *Operation
	payload []byte
	opcode  byte
}

func next(op *Operation, payload []byte) item { return item{op, payload, opText} }

// content is how many bytes the frame has behind its head.
func (i *item) content() int {
	if i.op == nil {
		return len(i.payload)
	}
	return len(nextBegin) + len(i.op.key) + len(nextMiddle) + len(i.payload) + len(nextEnd)
}

func (i *item) size() int { n := i.content(); return headSize(n) + n }

func (i *item) append(b []byte) []byte {
	b = appendHead(b, i.opcode, i.content())
	if i.op == nil {
		return append(b, i.payload...)
	}
	b = append(append(append(b, nextBegin...), i.op.key...), nextMiddle...)
	return append(append(b, i.payload...), nextEnd...)
}

// queue is what waits for a socket, in order. A socket has one while something does.
type queue struct{ items []item }

// buffer is frames that are being written.
type buffer struct{ data []byte }

// fits says whether there is room for a message; c.mu is held, here and below.
func (c *Conn) fits(i item) bool {
	return c.waiting == 0 || c.waiting+i.size() <= c.server.cfg.WriteBuffer
}

// push queues without asking for room.
func (c *Conn) push(i item) {
	if c.queue == nil {
		c.queue = c.server.queues.Get().(*queue)
	}
	c.queue.items = append(c.queue.items, i)
	c.waiting += i.size()
}

// drop forgets what is queued, of one operation or all.
func (c *Conn) drop(op *Operation) {
	if c.queue == nil {
		return
	}
	c.queue.items = slices.DeleteFunc(c.queue.items, func(i item) bool {
		dropped := op == nil || i.op == op
		if dropped {
			c.waiting -= i.size()
		}
		return dropped
	})
	c.recycle()
}

// recycle gives an empty queue back.
func (c *Conn) recycle() {
	if len(c.queue.items) > 0 {
		return
	}
	if cap(c.queue.items) <= 256 {
		c.server.queues.Put(c.queue)
	}
	c.queue = nil
}

// encode takes the next batch from the queue.
func (c *Conn) encode() *buffer {
	out := c.server.buffers.Get().(*buffer)
	items := c.queue.items
	n := 0
	for n < len(items) && len(out.data) < batchSize {
		out.data = items[n].append(out.data)
		n++
	}
	c.queue.items = slices.Delete(items, 0, n)
	c.recycle()
	c.server.stats.out.Add(int64(n))
	return out
}

// wrote takes a batch that was written, or never will be.
func (c *Conn) wrote(out *buffer) {
	c.waiting -= len(out.data)
	if cap(out.data) <= maxPooled {
		out.data = out.data[:0]
		c.server.buffers.Put(out)
	}
}

// flush writes what is queued as far as the connection takes it now, and leaves the rest to a goroutine.
func (c *Conn) flush() {
	if c.draining {
		return
	}
	for c.queue != nil && !c.broken {
		out := c.encode()
		n, err := c.direct.try(out.data)
		if err != nil {
			c.wrote(out)
			c.shut(err)
			return
		}
		if n < len(out.data) {
			c.draining = true
			go c.drain(out, n)
			return
		}
		c.wrote(out)
	}
	c.flushed()
}

// drain writes what the connection did not take at once, a batch of which n bytes are written and then what is queued, until it has taken
// all or takes nothing for too long.
func (c *Conn) drain(out *buffer, n int) {
	for {
		err := c.write(out.data[n:])
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.server.stats.slow.Add(1)
			}
			c.cut(err)
		}
		c.mu.Lock()
		c.wrote(out)
		if c.queue == nil || c.broken {
			break
		}
		c.relieve()
		out, n = c.encode(), 0
		c.mu.Unlock()
	}
	c.draining = false
	c.setWriteDeadline(0)
	c.flushed()
	c.mu.Unlock()
}

// write is a Write that may take as long as it makes progress. c.mu is not held.
func (c *Conn) write(b []byte) error {
	for len(b) > 0 {
		c.mu.Lock()
		c.setWriteDeadline(c.server.cfg.DrainTimeout)
		c.mu.Unlock()
		n, err := c.nc.Write(b)
		b = b[n:]
		if err != nil && (n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return err
		}
	}
	return nil
}

// flushed is called when nothing is queued any more, after a write.
func (c *Conn) flushed() {
	c.relieve()
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok && c.closing && !c.broken {
		_ = half.CloseWrite() // what is wrong with the connection, read will tell
	}
}

// relieve tells those who wait for room that there is, once half of the buffer is.
func (c *Conn) relieve() {
	if c.waiting > c.server.cfg.WriteBuffer/2 {
		return
	}
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
	if !c.refused {
		return
	}
	c.refused = false
	for _, op := range c.operations {
		if op.refused && op.state == running {
			op.refused = false
			if op.drained != nil {
				go c.guard("drained", op.drained)
			}
		}
	}
}
