package server

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

const (
	// keepAlive is how often an event stream has something in it at least: proxies close what is silent.
	keepAlive = 12 * time.Second
	// pieceSize is how many bytes are written at once: who takes them has DrainTimeout for the next.
	pieceSize = 16 << 10
	// endTimeout is how long a client may take what is being written when its stream has ended.
	endTimeout = 5 * time.Second
)

// The parts of events that are always the same.
var (
	commentPart  = []byte(":\n\n")
	nextPart     = []byte("event: next\ndata: ")
	completePart = []byte("event: complete\ndata: ")
	endPart      = []byte("\n\n")
)

// events is an event stream. Operations put events into it, and the goroutine of its request writes them.
type events struct {
	server *Server
	rights rights
	owned  bool          // by who was signed in
	token  string        // of a reservation; "" for a stream of one operation
	wake   chan struct{} // holds one: there is something for who writes

	mu         sync.Mutex // protects what follows, and what operations say it does
	open       bool       // somebody writes
	over       bool       // nothing is put in any more
	ended      bool       // nothing of it is written any more
	parts      [][]byte   // yet to be written
	size       int        // bytes that are yet to be written, or are being
	room       chan struct{}
	operations map[string]*streamed
	held       int                   // operations that go on, or still run, or whose end is not yet taken
	ends       []*streamed           // operations whose end is in parts
	unopened   *time.Timer           // ends a reservation that nobody uses
	within     func(d time.Duration) // bounds the write that goes on; nil: there is none
}

// newEvents returns an event stream of a viewer, zero for nobody, whose client is in the context; refused says why there is none. It may
// have ended by then: the rights are live.
func (s *Server) newEvents(ctx context.Context, token string, v viewer.Viewer, byCookie bool) (e *events, refused error) {
	e = &events{server: s, token: token, owned: v.ID != uuid.Nil, wake: make(chan struct{}, 1), operations: map[string]*streamed{}}
	e.rights.server, e.rights.lapse = s, e.end
	if !e.rights.begin(v, byCookie, viewer.ClientOf(ctx).Address) {
		return nil, errTooMany
	}
	return e, nil
}

// begin adds an operation, for run to be called; its id is "" in a stream of its own. The error says that the stream has ended, or has
// one of this id, or as many as there may be. Those count that have ended and still run, or whose end waits to be written: it is put in
// without asking for room.
func (e *events) begin(ctx context.Context, id string) (*streamed, error) {
	op := &streamed{events: e, id: id, head: nextPart, tail: endPart}
	if e.token != "" {
		op.head = append(append(append(bytes.Clone(nextPart), `{"id":`...), marshal(id)...), `,"payload":`...)
		op.tail = []byte("}\n\n")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.over:
		return nil, errNoStream
	case e.operations[id] != nil:
		return nil, &record.Error{Code: record.AlreadyExists, Message: "there is an operation of this id already"}
	case e.held >= e.server.cfg.Sockets.Operations:
		return nil, errTooManyOperations
	}
	op.ctx, op.cancel = context.WithCancel(ctx)
	e.operations[id] = op
	e.held++
	if e.token != "" {
		e.server.streaming.Add(1)
	}
	return op, nil
}

// write sends what is put in until the stream is over, the client has gone, or the server drains.
func (e *events) write(w http.ResponseWriter, r *http.Request) {
	defer e.end()
	defer context.AfterFunc(e.server.draining, e.end)()
	requestFrom(r.Context()).route = eventsRoute
	e.server.streams.Add(1)
	defer e.server.streams.Add(-1)
	// The server's timeouts are for answers that end.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // it is watched whether the client goes
	e.bound(func(d time.Duration) { _ = control.SetWriteDeadline(time.Now().Add(d)) })
	defer e.bound(nil)
	w.Header().Set("Content-Type", typeEvents+"; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no") // for nginx
	w.WriteHeader(http.StatusOK)
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	send := func(parts ...[]byte) bool {
		for _, p := range parts {
			for piece := range slices.Chunk(p, pieceSize) {
				e.extend()
				if _, err := w.Write(piece); err != nil {
					return false
				}
			}
		}
		e.extend()
		return control.Flush() == nil
	}
	for going := send(commentPart); going; { // some browsers wait for a first byte
		select {
		case <-e.wake:
			parts, last := e.take()
			going = send(parts...) && !last
			e.written(parts)
		case <-tick.C:
			going = send(commentPart)
		case <-r.Context().Done():
			return
		}
	}
}

// bound says how to bound the writes that follow; nil: there are none.
func (e *events) bound(within func(time.Duration)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.within = within
}

// extend gives the client time for a write. What has been said at the end of the stream stands.
func (e *events) extend() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.ended {
		e.within(e.server.cfg.Sockets.DrainTimeout)
	}
}

// take returns what is to be written, and whether it is the last.
func (e *events) take() (parts [][]byte, last bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	parts, e.parts = e.parts, nil
	for _, op := range e.ends {
		op.told = true
		op.release()
	}
	e.ends = nil
	return parts, e.over
}

// written makes room, and tells who waits for it.
func (e *events) written(parts [][]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range parts {
		e.size -= len(p)
	}
	if e.room != nil {
		close(e.room)
		e.room = nil
	}
	for _, op := range e.operations {
		if op.refused && op.drained != nil {
			op.refused = false
			go op.resume(op.drained, op.done)
		}
	}
}

// put adds parts. It wants the lock.
func (e *events) put(parts ...[]byte) {
	for _, p := range parts {
		e.size += len(p)
	}
	e.parts = append(e.parts, parts...)
}

// signal wakes who writes.
func (e *events) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// finish ends a stream when what is in it has been written: that of a single operation, which is done. It wants the lock.
func (e *events) finish() {
	if e.token == "" {
		e.over = true
	}
}

// end ends the stream at once. Nothing that is in it is written any more, and clients see that it did not complete.
func (e *events) end() {
	e.mu.Lock()
	e.over, e.parts = true, nil
	if !e.ended && e.within != nil {
		e.within(min(e.server.cfg.Sockets.DrainTimeout, endTimeout))
	}
	e.ended = true
	if e.unopened != nil {
		e.unopened.Stop()
	}
	operations := e.operations
	e.operations = nil
	e.mu.Unlock()
	e.signal()
	for _, op := range operations {
		op.abort()
	}
	e.server.forget(e)
	e.rights.release()
}

// abort ends one operation at once, if there is one of this id.
func (e *events) abort(id string) {
	e.mu.Lock()
	op := e.operations[id]
	delete(e.operations, id)
	e.mu.Unlock()
	if op != nil {
		op.abort()
	}
}

// streamed is an operation whose answers are events.
type streamed struct {
	events     *events
	id         string
	head, tail []byte // around a payload
	ctx        context.Context
	cancel     context.CancelFunc

	// What follows is protected by the stream's lock.
	drained, done func()
	refused       bool // an offer was
	aborted       bool
	returned      bool // it runs no more
	told          bool // its end is taken, or is not for the client
}

// Context is done when the operation is.
func (o *streamed) Context() context.Context { return o.ctx }

// current reports whether the operation goes on. It wants the lock.
func (o *streamed) current() bool { return o.events.operations[o.id] == o }

// Offer takes a payload unless too much waits already.
func (o *streamed) Offer(payload []byte) bool {
	payload = oneLine(payload)
	e := o.events
	e.mu.Lock()
	defer e.mu.Unlock()
	if !o.current() {
		return true // nobody misses it
	}
	if e.size > 0 && e.size+len(payload) > e.server.cfg.Sockets.WriteBuffer {
		o.refused = true
		e.signal()
		return false
	}
	e.put(o.head, payload, o.tail)
	return true
}

// Flush has what was offered written.
func (o *streamed) Flush() { o.events.signal() }

// Send waits for room.
func (o *streamed) Send(payload []byte) error {
	for !o.Offer(payload) {
		e := o.events
		e.mu.Lock()
		if e.room == nil {
			e.room = make(chan struct{})
		}
		room, empty := e.room, e.size == 0
		e.mu.Unlock()
		if empty {
			continue // there is room since
		}
		select {
		case <-room:
		case <-o.ctx.Done():
			return o.ctx.Err()
		}
	}
	o.Flush()
	return o.ctx.Err()
}

// Push says whom to tell that there is room again, and that the operation was ended by others.
func (o *streamed) Push(drained, done func()) {
	o.events.mu.Lock()
	o.drained, o.done = drained, done
	aborted := o.aborted
	o.events.mu.Unlock()
	if aborted {
		done()
	}
}

// resume has the operation go on, on a goroutine of its own: it may read first. Where that panics, nothing of it stays.
func (o *streamed) resume(drained, done func()) {
	going := false
	defer func() {
		if !going {
			done()
		}
	}()
	defer o.events.server.rescue(o.ctx, o)
	drained()
	going = true
}

// abort ends the operation, which is no more in its stream.
func (o *streamed) abort() {
	o.events.mu.Lock()
	done := o.done
	o.aborted, o.told = true, true
	o.release()
	o.events.mu.Unlock()
	o.cancel()
	if done != nil {
		done()
	}
}

// leave says that the operation runs no more.
func (o *streamed) leave() {
	o.events.mu.Lock()
	defer o.events.mu.Unlock()
	o.returned = true
	o.release()
}

// release makes the operation's place another's when nothing of it is left. It wants the lock.
func (o *streamed) release() {
	if o.told && o.returned {
		o.events.held--
	}
}

// Complete ends the operation.
func (o *streamed) Complete() { o.end(nil) }

// Fail ends it with errors. Events know no others than those of an answer.
func (o *streamed) Fail(errs json.RawMessage) { o.end(errs) }

func (o *streamed) end(errs json.RawMessage) {
	e := o.events
	e.mu.Lock()
	if o.current() {
		delete(e.operations, o.id)
		e.ends = append(e.ends, o)
		if errs != nil {
			e.put(o.head, []byte(`{"errors":`), errs, []byte("}"), o.tail)
		}
		if o.events.token == "" {
			e.put(completePart, endPart) // EventSource wants data, though empty
		} else {
			e.put(completePart, []byte(`{"id":`), marshal(o.id), []byte("}"), endPart)
		}
		e.finish()
	}
	e.mu.Unlock()
	e.signal()
	o.cancel()
}

// oneLine is a JSON text without line breaks, which would end the data of an event.
func oneLine(text []byte) []byte {
	if !bytes.ContainsAny(text, "\r\n") {
		return text
	}
	return bytes.Map(func(c rune) rune {
		if c == '\r' || c == '\n' { // of white space: in strings they are escaped
			return ' '
		}
		return c
	}, text)
}

// answerEvents is GraphQL over server-sent events, a stream for each operation: what graphql-sse calls distinct connections.
func (s *Server) answerEvents(w http.ResponseWriter, r *http.Request) {
	params, status, err := s.params(w, r)
	if err != nil {
		s.refuse(w, r, status, err)
		return
	}
	presented := r.Header.Get("Authorization")
	ctx, v, _, err := s.signIn(r.Context(), presented)
	if err != nil {
		s.refuse(w, r, statusOf(translate(ctx, err).Code), err)
		return
	}
	client := viewer.ClientOf(ctx)
	client.Socket = true
	client.SetAnswer(nil)
	prepared, refused := s.prepare(ctx, params)
	if refused == nil && !s.allowed(w, r, prepared) {
		return
	}
	e, err := s.newEvents(ctx, "", v, presented == "")
	if err != nil {
		s.refuse(w, r, statusOf(translate(ctx, err).Code), err)
		return
	}
	op, err := e.begin(ctx, "")
	switch {
	case err != nil: // the rights have ended since
	case refused != nil:
		op.Fail(marshal(refused.Errors))
	default:
		done := make(chan struct{})
		defer func() { <-done }()
		go func() {
			defer close(done)
			s.run(op, prepared)
		}()
	}
	e.write(w, r)
}

// run performs an operation on the goroutine that it has for itself.
func (s *Server) run(op *streamed, prepared *graphql.OperationContext) {
	defer op.leave()
	defer s.rescue(op.ctx, op)
	s.perform(op, prepared)
}
