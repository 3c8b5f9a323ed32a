package record

import (
	"context"
	"fmt"
	"sync"

	"entgo.io/ent/dialect/sql"

	"godstack/internal/entpgx"
	"godstack/internal/replica"
)

// reads is what an operation reads on the standby.
type reads struct {
	engine *Engine
	fail   context.CancelCauseFunc // ends the operation
	least  replica.Position        // that a statement has to find

	mu   sync.Mutex
	seen replica.Position // the latest position that a statement may have seen; zero while none has run; protected by mu
}

type readsKey struct{}

// ReadAfter runs a query for a client that has seen what token covers: on the standby where that is as far, else on the primary. query
// is called with the context to read with, and a second time where the standby failed: what it did the first time is void then. newer
// covers what the client has seen by now, and so what token covers; it may be less than token only where that lies ahead of the primary.
// The error is BAD_USER_INPUT for a token that is none, and query is not called.
//
// Streams, transactions and what does not read by this package are on the primary. The engine must have a Config.Replica.
func (g *Engine) ReadAfter(ctx context.Context, token string, query func(context.Context)) (newer string, err error) {
	after, err := replica.Parse(token)
	if err != nil {
		return "", &Error{Code: BadUserInput, Message: "Read-After is none that was answered", Err: err}
	}
	if here, least, stop, ok := g.replica.Use(ctx, after); ok {
		defer stop(nil)
		r := &reads{engine: g, fail: stop, least: least}
		query(context.WithValue(here, readsKey{}, r))
		if here.Err() == nil || ctx.Err() != nil { // else the standby has gone, or a statement failed
			seen := r.end()
			return after.Later(seen).String(), nil
		}
		g.replica.Failed()
		g.log.DebugContext(ctx, "standby failed, the primary is asked", "error", context.Cause(here))
	}
	query(ctx)
	return g.Token(ctx), nil // not before after, unless that was none of this database's
}

// Token covers all that was written before, by whomever.
func (g *Engine) Token(ctx context.Context) string { return g.replica.Primary(ctx).String() }

// scan asks for the standby's position in the statement's round trip, before and after: the connection may lead to another standby than
// the one before. Any failure ends the operation, of which the primary knows whether it is one.
func (r *reads) scan(ctx context.Context, q *query, f func(*sql.Rows) error) error {
	var before, after replica.Position
	asking := entpgx.WithChecks(ctx, &entpgx.Statement{SQL: replica.Here, Into: before.Columns()},
		&entpgx.Statement{SQL: replica.Here, Into: after.Columns()})
	if q.custom { // as arguments has it, in a pipeline
		asking = entpgx.WithSetting(asking, "plan_cache_mode", "force_custom_plan")
	}
	r.mu.Lock()
	least := r.least.Later(r.seen)
	r.mu.Unlock()
	err := scan(asking, r.engine.standby, q.text.String(), q.args, f)
	if err == nil && (!before.Covers(least) || !after.Covers(before)) {
		err = fmt.Errorf("the standby is at %s, then %s, and has to cover %s", before, after, least)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.seen = r.seen.Later(after)
		return nil
	}
	r.fail(err)
	return context.Canceled // which nobody logs
}

// end returns what the operation has seen.
func (r *reads) end() replica.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.engine.replica.Read(r.seen)
	return r.seen
}
