package record

import (
	"context"
	"errors"
	"path"
	"slices"

	"entgo.io/ent/dialect"
	"github.com/99designs/gqlgen/graphql"
	"github.com/jackc/pgx/v5"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/entpgx"
	"godstack/internal/viewer"
)

// ActorSetting is the Postgres setting that tells the change log who writes.
const ActorSetting = "godstack.actor"

// Operation makes each GraphQL operation a unit: it gives a query of several fields its loaders, and a mutation
// its transaction. It is a gqlgen extension.
type Operation struct {
	Engine *Engine
	// Alone names the mutation fields that see to their transactions themselves. Each commits on its own, also where it answers
	// with an error; they may not be mixed with others in one operation.
	Alone []string
}

var _ interface {
	graphql.HandlerExtension
	graphql.OperationContextMutator
	graphql.ResponseInterceptor
	graphql.RootFieldInterceptor
} = Operation{}

// ExtensionName names the extension.
func (Operation) ExtensionName() string { return "RecordOperation" }

// Validate does nothing: the extension fits every schema.
func (Operation) Validate(graphql.ExecutableSchema) error { return nil }

// InterceptResponse runs an operation, or one event of a subscription. A mutation is committed before its
// answer leaves. Where a root field failed, all is rolled back, and the answer is that field's error. A mutation with an idempotency key that
// was committed before is not run again: what was answered then is answered.
func (o Operation) InterceptResponse(ctx context.Context, next graphql.ResponseHandler) *graphql.Response {
	oc := graphql.GetOperationContext(ctx)
	op := oc.Operation
	if op == nil { // the document was refused
		return next(ctx)
	}
	alone := oneField(op.SelectionSet)
	if op.Operation != ast.Mutation {
		if !alone {
			ctx = withLoaders(ctx)
		}
		return next(ctx)
	}
	switch n, of := o.countAlone(oc); {
	case n == of:
		return next(ctx)
	case n > 0:
		return refuse(ctx, &Error{Code: BadUserInput, Message: "fields that sign in or manage an account cannot be mixed with " +
			"others in one operation: they commit on their own"})
	}
	w := &work{engine: o.Engine, alone: alone && generated(op.SelectionSet[0].(*ast.Field))}
	defer w.end(ctx)
	// What was refused before, as by the limits, comes here for its errors alone.
	if key, _ := keyOf(oc); key != "" && len(graphql.GetErrors(ctx)) == 0 {
		return w.once(ctx, key, next)
	}
	return w.run(ctx, next)
}

// run runs the operation and commits it.
func (w *work) run(ctx context.Context, next graphql.ResponseHandler) *graphql.Response {
	resp := next(context.WithValue(ctx, workKey{}, w))
	if resp == nil {
		return nil
	}
	if w.failed != nil {
		for _, err := range resp.Errors {
			if len(err.Path) > 0 && err.Path[0] == w.failed {
				return &graphql.Response{Data: []byte("null"), Errors: gqlerror.List{err}}
			}
		}
		return &graphql.Response{Data: []byte("null"), Errors: resp.Errors}
	}
	for _, err := range resp.Errors {
		delete(err.Extensions, "retryAfter") // what is committed must not be done again
	}
	if len(w.merged) > 0 {
		if resp.Extensions == nil {
			resp.Extensions = map[string]any{}
		}
		resp.Extensions["merged"] = w.merged
	}
	if w.key != nil {
		if err := w.store(ctx, resp); err != nil {
			return refuse(ctx, err)
		}
	}
	if err := w.commit(ctx); err != nil {
		return refuse(ctx, err)
	}
	return resp
}

// refuse answers an operation with an error and nothing else.
func refuse(ctx context.Context, err error) *graphql.Response {
	graphql.AddError(ctx, err) // which has it presented
	errs := graphql.GetErrors(ctx)
	return &graphql.Response{Data: []byte("null"), Errors: errs[len(errs)-1:]}
}

// countAlone says how many of a mutation's root fields commit on their own, of how many.
func (o Operation) countAlone(op *graphql.OperationContext) (n, of int) {
	for _, f := range graphql.CollectFields(op, op.Operation.SelectionSet, []string{"Mutation"}) {
		if f.Name == "__typename" {
			continue
		}
		of++
		if slices.Contains(o.Alone, f.Name) {
			n++
		}
	}
	return n, of
}

// InterceptRootField runs a root field, unless one before it has failed.
func (o Operation) InterceptRootField(ctx context.Context, next graphql.RootResolver) graphql.Marshaler {
	w := workOf(ctx)
	if w == nil {
		return next(ctx)
	}
	if w.failed != nil {
		return graphql.Null
	}
	w.written = false
	before := len(graphql.GetErrors(ctx))
	res := next(ctx)
	// A field whose write succeeded may still be null, for an error inside its selection: that is no failure. Nor is the
	// null that a hand-written field answers without an error.
	// One that is written by hand fails with its own error also after it has written: what it left undone belonged to that.
	if errs := graphql.GetErrors(ctx)[before:]; res == graphql.Null && len(errs) > 0 {
		field := graphql.GetRootFieldContext(ctx).Field
		own := func(err *gqlerror.Error) bool { return len(err.Path) == 1 }
		if !w.written || !generated(field.Field) && slices.ContainsFunc(errs, own) {
			w.failed = ast.PathName(field.Alias)
		}
	}
	return res
}

// generatedSDL is the file of the schema whose mutations are wholly those of this package. One that is written by hand may do more beside a
// write, such as enqueue a job, and all that is one transaction.
const generatedSDL = "ent.graphql"

func generated(f *ast.Field) bool {
	d := f.Definition
	return d != nil && d.Position != nil && d.Position.Src != nil && path.Base(d.Position.Src.Name) == generatedSDL
}

// oneField reports whether a selection is a single field for certain.
func oneField(set ast.SelectionSet) bool {
	if len(set) != 1 {
		return false
	}
	_, ok := set[0].(*ast.Field)
	return ok
}

// work is what a mutation operation writes.
type work struct {
	engine  *Engine
	tx      *entpgx.Tx
	alone   bool            // the operation has one root field
	written bool            // the current root field has written
	gone    bool            // something is written and committed, without a transaction that could take more
	dirty   bool            // something is written that Committed should be told of
	failed  ast.PathElement // the root field that failed
	merged  []Merged        // what the root fields so far have merged
	key     *keyed          // nil without an idempotency key
}

type workKey struct{}

func workOf(ctx context.Context) *work {
	w, _ := ctx.Value(workKey{}).(*work)
	return w
}

// ErrNoTransaction is returned by [Tx] where none runs.
var ErrNoTransaction = errors.New("no transaction runs here: only in a mutation that is written by hand, and in hooks of ent")

// Tx returns the transaction in which the write of ctx runs, for what else belongs to it: that of the mutation operation, where a resolver
// written by hand asks, or a hook's. It begins with its first statement, is committed before the answer leaves, and rolled back where a
// field fails; the caller does neither. Elsewhere, in fields of a selection and in those that commit on their own, it is ErrNoTransaction.
func Tx(ctx context.Context) (pgx.Tx, error) {
	w := workOf(ctx)
	if w == nil || w.gone {
		return nil, ErrNoTransaction
	}
	if w.tx == nil {
		if w.alone {
			return nil, ErrNoTransaction
		}
		w.tx = w.engine.begin(ctx)
	}
	return w.tx.PGX(), nil
}

// reader returns what reads go through on the primary: the operation's transaction once it has begun, else the pool.
func (g *Engine) reader(ctx context.Context) dialect.ExecQuerier {
	if w := workOf(ctx); w != nil && w.tx != nil {
		return entpgx.FromTx(w.tx)
	}
	return g.driver
}

// begin returns a transaction that names who asks to the change log.
func (g *Engine) begin(ctx context.Context) *entpgx.Tx {
	return g.driver.Begin(withActor(ctx), pgx.TxOptions{})
}

// withActor has statements name who asks to the change log.
func withActor(ctx context.Context) context.Context {
	if v, ok := viewer.FromContext(ctx); ok {
		ctx = entpgx.WithSetting(ctx, ActorSetting, v.ID.String())
	}
	return ctx
}

// write runs f, which writes through the driver it gets. A write that is one statement, in an operation of one
// root field, goes without BEGIN and COMMIT: statement and actor travel in one pipeline, which is a transaction
// of its own. Everything else goes into the operation's transaction, or into one made for f.
//
// The checks run before and after f, and undo what f wrote by failing.
func (g *Engine) write(ctx context.Context, oneStatement bool, c checks, f func(context.Context, dialect.Driver) error) error {
	ctx = withActor(ctx)
	w := workOf(ctx)
	switch {
	case w != nil && (w.tx != nil || !w.alone || !oneStatement):
		if w.tx == nil {
			w.tx = g.driver.Begin(ctx, pgx.TxOptions{})
		}
		if err := c.around(ctx, w.tx, f); err != nil {
			return err
		}
		w.written, w.dirty = true, true
	case oneStatement:
		if c != (checks{}) {
			ctx = entpgx.WithChecks(ctx, c.before, c.after)
		}
		if err := f(ctx, g.driver); err != nil {
			return err
		}
		if w != nil {
			w.written, w.gone = true, true
		}
		g.committed()
	default:
		tx := g.driver.Begin(ctx, pgx.TxOptions{})
		ctx = context.WithValue(ctx, workKey{}, &work{engine: g, tx: tx})
		if err := c.around(ctx, tx, f); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		if err := tx.CommitContext(ctx); err != nil {
			return err
		}
		g.committed()
	}
	return nil
}

// checks are statements that fail where a write is not allowed; each may be nil.
type checks struct{ before, after *entpgx.Statement }

// around runs f between the checks, in a transaction.
func (c checks) around(ctx context.Context, tx *entpgx.Tx, f func(context.Context, dialect.Driver) error) error {
	run := func(s *entpgx.Statement) error {
		if s == nil {
			return nil
		}
		_, err := tx.PGX().Exec(ctx, s.SQL, s.Args...)
		return err
	}
	if err := run(c.before); err != nil {
		return err
	}
	if err := f(ctx, entpgx.FromTx(tx)); err != nil {
		return err
	}
	return run(c.after)
}

// commit ends the operation's transaction, if there is one.
func (w *work) commit(ctx context.Context) error {
	if w.tx == nil {
		return nil
	}
	if err := w.tx.CommitContext(ctx); err != nil {
		return w.engine.translate(err)
	}
	w.tx = nil
	if w.dirty {
		w.engine.committed()
	}
	return nil
}

// end rolls back what was not committed.
func (w *work) end(ctx context.Context) {
	if w.tx == nil {
		return
	}
	if err := w.tx.Rollback(); err != nil {
		w.engine.log.WarnContext(ctx, "roll back", "error", err)
	}
}
