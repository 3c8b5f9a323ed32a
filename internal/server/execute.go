package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/graphqlws"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// outlet is an operation's way to its client, over a socket or by events. What its methods do stands at [graphqlws.Operation].
type outlet interface {
	Context() context.Context
	Send(payload []byte) error
	Offer(payload []byte) bool
	Flush()
	Push(drained, done func())
	Complete()
	Fail(errs json.RawMessage)
}

var (
	_ outlet = (*graphqlws.Operation)(nil)
	_ outlet = (*streamed)(nil)
)

// prepare parses, validates and measures an operation. What refuses it is presented.
func (s *Server) prepare(ctx context.Context, params *graphql.RawParams) (op *graphql.OperationContext, refused *graphql.Response) {
	op, errs := s.exec.CreateOperationContext(graphql.StartOperationTrace(ctx), params)
	if errs == nil {
		return op, nil
	}
	return nil, s.exec.DispatchError(graphql.WithOperationContext(ctx, op), errs[:min(len(errs), mostErrors)])
}

// execute runs a query or a mutation.
func (s *Server) execute(ctx context.Context, op *graphql.OperationContext) (*graphql.Response, error) {
	next, ctx := s.exec.DispatchOperation(ctx, op)
	if resp := next(ctx); resp != nil {
		return resp, nil
	}
	if err := context.Cause(ctx); err != nil { // gqlgen does not begin when the time is over
		return nil, err
	}
	return nil, errors.New("the schema gave no answer")
}

// perform runs an operation whose answers go to out. It returns when it is done, or when it goes on as a stream that is pushed.
func (s *Server) perform(out outlet, op *graphql.OperationContext) {
	ctx := out.Context()
	if op.Operation.Operation == ast.Subscription {
		s.stream(ctx, out, op)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.OperationTimeout)
	defer cancel()
	ctx, o := s.observe(ctx, op)
	defer o.end(true)
	resp, err := s.execute(ctx, op)
	o.end(failed(resp, err))
	if err != nil {
		s.fail(ctx, out, err)
		return
	}
	if out.Send(encode(resp, true)) == nil {
		out.Complete()
	}
}

// pushed is what a subscription field of package record leaves in its slot.
type pushed interface {
	Start()
	Resume()
	Close()
}

var _ pushed = (*record.Stream)(nil)

// stream runs a subscription.
func (s *Server) stream(ctx context.Context, out outlet, op *graphql.OperationContext) {
	ctx, slot := record.WithSink(ctx, &sink{s, out})
	s.open(ctx, out, op, func() pushed {
		if stream := slot.Stream(); stream != nil {
			return stream
		}
		return nil
	})
}

// open begins a subscription within OperationTimeout. Where its field left a stream, that is pushed from then on, and has nothing of ctx;
// else the events are pulled here until there are no more. A stream does not stay where anything goes wrong, be it a panic.
func (s *Server) open(ctx context.Context, out outlet, op *graphql.OperationContext, left func() pushed) {
	ctx, o := s.observe(ctx, op)
	defer o.end(true) // unless it has begun
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// No deadline: a stream that is pulled goes on with this context.
	timer := time.AfterFunc(s.cfg.OperationTimeout, func() { cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	going := false
	defer func() {
		if stream := left(); stream != nil && !going {
			stream.Close()
		}
	}()
	next, ctx := s.exec.DispatchOperation(ctx, op)
	if !timer.Stop() {
		s.fail(ctx, out, fmt.Errorf("begin a subscription: %w", context.DeadlineExceeded))
		return
	}
	if stream := left(); stream != nil {
		out.Push(stream.Resume, stream.Close)
		stream.Start()
		going = true
		o.end(false)
		return
	}
	o.begun = time.Now()
	for {
		resp := next(ctx)
		switch {
		case resp == nil:
			o.end(false)
			out.Complete()
			return
		case len(resp.Data) == 0 && len(resp.Errors) > 0: // it was refused
			out.Fail(marshal(resp.Errors))
			return
		}
		o.end(false)
		if out.Send(encode(resp, true)) != nil {
			return
		}
	}
}

// fail ends an operation with an error.
func (s *Server) fail(ctx context.Context, out outlet, err error) {
	out.Fail(marshal(gqlerror.List{s.present(ctx, err)}))
}

// rescue is deferred where an operation runs on a goroutine that nobody else guards.
func (s *Server) rescue(ctx context.Context, out outlet) {
	if v := recover(); v != nil {
		s.fail(ctx, out, s.recovered(ctx, v))
	}
}

// sink is where package record pushes what a subscription selects.
type sink struct {
	server *Server
	out    outlet
}

var _ record.Sink = (*sink)(nil)

func (k *sink) Next(a *record.Answer) bool {
	if a.Body != nil {
		return k.out.Offer(a.Body)
	}
	return k.out.Offer(a.Presented(k.server.presentAnswer))
}

// presentAnswer presents the errors of an answer, which is of no single request, under an id of its own.
func (s *Server) presentAnswer(a *record.Answer) []byte {
	ctx := context.WithValue(context.Background(), requestKey{}, &request{client: viewer.Client{RequestID: rand.Text()}})
	resp := &graphql.Response{Data: a.Data, Errors: make(gqlerror.List, len(a.Errors))}
	for i, err := range a.Errors {
		resp.Errors[i] = s.present(ctx, err)
	}
	return encode(resp, true)
}

func (k *sink) Flush() { k.out.Flush() }

func (k *sink) End(err error) {
	if err == nil {
		k.out.Complete()
		return
	}
	k.server.fail(k.out.Context(), k.out, err)
}
