package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/internal/ratelimit"
	"godstack/internal/record"
	"godstack/internal/turn"
	"godstack/internal/viewer"
)

// Load bounds how much runs at the same time. What is beyond it is refused early, with UNAVAILABLE and when to come again, rather than kept
// waiting with all the rest.
type Load struct {
	// Turns is how many operations run at the same time. A query has as many turns as root fields, since these run side by side, half of all
	// at most. Default: any number; package app derives one from the pool.
	Turns int
	// Waiting is how many operations may wait for a turn, half of them of one user, or with one document. Default 256 for each turn.
	Waiting int
	// Patience is how long they may. Default 2 s.
	Patience time.Duration
}

// parting is how many operations of Deps.Parting run at the same time, beside all others.
const parting = 1

// share is what should not have all turns: a user, or who is not signed in at an address; or a document.
type share struct {
	of       holder
	document *ast.QueryDocument
}

// turns is what operations wait for.
type turns struct {
	all     *turn.Queue[share] // nil: nobody waits
	slow    *turn.Queue[share]
	parting *turn.Queue[share]
	told    atomic.Int64 // when the log was told last that there are refusals, in seconds
}

func (s *Server) setTurns() (err error) {
	l := s.cfg.Load
	if l.Turns < 0 || l.Waiting < 0 || l.Patience < 0 {
		return errors.New("server: Load: Turns, Waiting and Patience must not be negative")
	}
	if l.Turns == 0 {
		return nil
	}
	if s.turns.all, err = turn.New[share](turn.Config{Turns: l.Turns, Waiting: l.Waiting, Patience: l.Patience}); err != nil {
		return fmt.Errorf("server: Load: %w", err)
	}
	s.turns.slow, err = turn.New[share](turn.Config{Turns: max(2, l.Turns/2), Patience: max(l.Patience, s.cfg.OperationTimeout/2)})
	if err != nil {
		return fmt.Errorf("server: Load: %w", err)
	}
	s.turns.parting, err = turn.New[share](turn.Config{Turns: parting, Patience: l.Patience})
	return err
}

// Load says how many operations have turns, and wait for them, and how many were refused; nothing where Config.Load bounds nothing.
func (s *Server) Load() turn.Stats {
	if s.turns.all == nil {
		return turn.Stats{}
	}
	stats := s.turns.all.Stats()
	for _, q := range []*turn.Queue[share]{s.turns.slow, s.turns.parting} {
		own := q.Stats()
		stats.Turns, stats.Taken, stats.Waiting = stats.Turns+own.Turns, stats.Taken+own.Taken, stats.Waiting+own.Waiting
		for why, n := range own.Refused {
			stats.Refused[why] += n
		}
	}
	return stats
}

// held is the turns of an operation, to be given back.
type held struct {
	queue  *turn.Queue[share] // nil: none
	turns  int
	shares [2]share
}

// give gives the turns back; only the first call does.
func (h *held) give() {
	if h.queue != nil {
		h.queue.Give(h.turns, h.shares)
		h.queue = nil
	}
}

// turn waits until an operation may run, and returns the context to run it in. The turns have to be given back, also where there is an error.
func (s *Server) turn(ctx context.Context, op *graphql.OperationContext) (_ context.Context, h held, err error) {
	if s.turns.all == nil {
		return ctx, h, nil
	}
	h = s.wanted(ctx, op)
	if h.queue == nil {
		return ctx, h, nil
	}
	if has := h.queue.Most(h.turns); has < h.turns {
		ctx = context.WithValue(ctx, laneKey{}, make(lane, has))
	}
	return ctx, h, s.wait(ctx, &h)
}

// lane is in the context of a query that has fewer turns than root fields. It holds one for each that runs.
type lane chan struct{}

type laneKey struct{}

// inTurn runs a root field when its query has a turn for it: gqlgen runs all of them at once, and each takes a connection or more.
func inTurn(ctx context.Context, next graphql.RootResolver) graphql.Marshaler {
	if l, ok := ctx.Value(laneKey{}).(lane); ok {
		select {
		case l <- struct{}{}:
			defer func() { <-l }()
		case <-ctx.Done(): // which the field says
		}
	}
	return next(ctx)
}

// arrive waits until somebody may be asked who they are, who comes by a socket: thousands may come at once.
func (s *Server) arrive(ctx context.Context) (h held, err error) {
	if s.turns.all == nil {
		return h, nil
	}
	h = held{queue: s.turns.all, turns: 1}
	return h, s.wait(ctx, &h)
}

// wait takes turns, or says why there are none.
func (s *Server) wait(ctx context.Context, h *held) error {
	err := h.queue.Take(ctx, h.turns, h.shares)
	if err == nil {
		return nil
	}
	h.queue = nil
	refused, ok := errors.AsType[*turn.Refused](err)
	if !ok {
		return err
	}
	if now := time.Now().Unix(); now > s.turns.told.Swap(now) { // of each refusal the metrics tell
		s.log.LogAttrs(ctx, slog.LevelWarn, "overload: operations are refused", slog.String("reason", string(refused.Reason)))
	}
	return &record.Error{Code: record.Unavailable, Message: "too much to do at the moment: nothing was done", RetryAfter: refused.After, Err: err}
}

// wanted is what turns an operation takes: none where it asks for nothing but the schema.
func (s *Server) wanted(ctx context.Context, op *graphql.OperationContext) held {
	fields, leaves, slow := 0, true, true
	roots(op.Operation.SelectionSet, func(name string) {
		if strings.HasPrefix(name, "__") {
			return
		}
		fields++
		leaves = leaves && slices.Contains(s.deps.Parting, name)
		slow = slow && slices.Contains(s.deps.Slow, name)
	})
	h := held{queue: s.turns.all, turns: fields, shares: [2]share{s.shareOf(ctx), {document: op.Doc}}}
	switch kind := op.Operation.Operation; {
	case fields == 0:
		return held{}
	case kind == ast.Query:
		return h
	case kind == ast.Mutation && leaves:
		h.queue = s.turns.parting
		h.shares = [2]share{}
	case kind == ast.Mutation && slow:
		h.queue = s.turns.slow
		h.shares = [2]share{} // limits by address are for that
	}
	h.turns = 1 // one root field after the other
	return h
}

// shareOf is who asks.
func (s *Server) shareOf(ctx context.Context) share {
	if v, ok := viewer.FromContext(ctx); ok && v.ID != uuid.Nil {
		return share{of: holder{user: v.ID}}
	}
	return share{of: holder{address: ratelimit.Address(viewer.ClientOf(ctx).Address)}}
}

// roots calls f with the name of each root field.
func roots(set ast.SelectionSet, f func(name string)) {
	for _, selection := range set {
		switch of := selection.(type) {
		case *ast.Field:
			f(of.Name)
		case *ast.InlineFragment:
			roots(of.SelectionSet, f)
		case *ast.FragmentSpread:
			roots(of.Definition.SelectionSet, f)
		}
	}
}

// setRetryAfter tells what is not of GraphQL when to come again.
func setRetryAfter(h http.Header, after time.Duration) {
	if after > 0 && h["Retry-After"] == nil {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
	}
}

// isRefused reports whether an error says that there was no turn. There may be thousands a second.
func isRefused(err error) bool {
	_, ok := errors.AsType[*turn.Refused](err)
	return ok
}
