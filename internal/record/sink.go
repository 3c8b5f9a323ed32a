package record

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Sink is a subscriber's end of a stream: its transport. The methods are called by one goroutine at a time.
type Sink interface {
	// Next takes an answer. It never blocks. False says that it was not taken, and that none should come until the transport calls
	// [Stream.Resume].
	Next(a *Answer) bool
	// Flush sends what Next took. It never blocks either.
	Flush()
	// End says that the stream is over: nil is completion. Nothing is called after it.
	End(err error)
}

// Answer is what a subscription selects of an event. All subscribers that see the same share it: it must not be changed.
type Answer struct {
	Body   []byte        // {"data":{...}}, all there is to send; nil where there are Errors
	Data   []byte        // {...}
	Errors gqlerror.List // of places in Data, yet to be presented: Err is the cause

	once      sync.Once
	presented []byte
}

// Presented is what there is to send in the place of Body where there are Errors: what present makes of the answer. That is called once,
// whoever comes first: who gets the same answer is told the same.
func (a *Answer) Presented(present func(*Answer) []byte) []byte {
	a.once.Do(func() { a.presented = present(a) })
	return a.presented
}

// Slot is where a subscription field leaves its stream.
type Slot struct {
	sink   Sink
	stream *Stream
}

type slotKey struct{}

// WithSink has the subscription field that is resolved with the context push its events to s.
func WithSink(ctx context.Context, s Sink) (context.Context, *Slot) {
	slot := &Slot{sink: s}
	return context.WithValue(ctx, slotKey{}, slot), slot
}

// Stream returns the stream, once the operation was dispatched. It is nil where the field is not of this package, or was refused: the
// ResponseHandler has the events then, or the refusal. Who gets a stream has to Start it, and to Close it when the subscriber has gone.
func (s *Slot) Stream() *Stream { return s.stream }

// Event is what gqlgen takes the events of a stream for. There is none: they do not go through gqlgen.
type Event struct{}

// MarshalGQLContext is here for gqlgen.
func (*Event) MarshalGQLContext(context.Context, io.Writer) error { return errNoSink }

// UnmarshalGQLContext is here for gqlgen: no input is an Event.
func (*Event) UnmarshalGQLContext(context.Context, any) error {
	return errors.New("record: Event is no input")
}
