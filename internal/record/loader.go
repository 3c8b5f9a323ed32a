package record

import (
	"context"
	"sync"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"
	"github.com/vikstrous/dataloadgen"
)

// loaders batch what the root fields of one operation read, which run at the same time: one loader an entity.
// What is below a root field is read level by level and needs none.
type loaders struct {
	mu   sync.Mutex
	byID map[*Store]*dataloadgen.Loader[uuid.UUID, Node] // protected by mu
}

type loadersKey struct{}

// withLoaders gives an operation its loaders.
func withLoaders(ctx context.Context) context.Context {
	return context.WithValue(ctx, loadersKey{}, &loaders{byID: map[*Store]*dataloadgen.Loader[uuid.UUID, Node]{}})
}

// one loads a record, together with the others that the operation asks for meanwhile; nil if there is none.
func (s *Store) one(ctx context.Context, id uuid.UUID) (Node, error) {
	l, ok := ctx.Value(loadersKey{}).(*loaders)
	if !ok {
		m, err := s.byID(ctx, []uuid.UUID{id})
		return m[id], err
	}
	l.mu.Lock()
	loader := l.byID[s]
	if loader == nil {
		loader = dataloadgen.NewLoader(func(ctx context.Context, ids []uuid.UUID) ([]Node, []error) {
			m, err := s.byID(ctx, ids)
			out := make([]Node, len(ids))
			for i, id := range ids {
				out[i] = m[id]
			}
			if err == nil {
				return out, nil
			}
			errs := make([]error, len(ids))
			for i := range errs {
				errs[i] = err
			}
			return out, errs
		}, dataloadgen.WithWait(s.engine.batchWait))
		l.byID[s] = loader
	}
	l.mu.Unlock()
	return loader.Load(ctx, id)
}

// ofParent writes the children of p: FROM and the start of WHERE.
func (q *query) ofParent(s *Store, d *Edge) {
	if d.Through != "" {
		q.write(" FROM ", quote(d.Through), " j JOIN ", quote(s.Table), " t ON t.id = j.", quote(d.Ref),
			" WHERE j.", quote(d.From), " = p.id AND ")
		return
	}
	q.write(" FROM ", quote(s.Table), " t WHERE t.", quote(d.From), " = p.id AND ")
}

// fromParents writes FROM with the parents, p, and begins the sub-query of their children, t.
func (q *query) fromParents(parents []uuid.UUID, columns string) {
	q.write(" FROM unnest(")
	q.arg(parents)
	q.write("::uuid[]) WITH ORDINALITY p(id, n) CROSS JOIN LATERAL (SELECT ", columns)
}

// readChildren reads a page of the children of each parent, in one statement. may writes which of them who asks may read.
func (s *Store) readChildren(ctx context.Context, d *Edge, parents []uuid.UUID, p Page, l *listing, may func(*query)) ([]*Connection, error) {
	q := newQuery(ctx)
	q.write("SELECT p.n, ", s.columns)
	q.fromParents(parents, s.columns)
	q.ofParent(s, d)
	if err := q.plainPage(s.Entity, l, p.Where, func() { may(q) }); err != nil {
		return nil, err
	}
	q.write(") t ORDER BY p.n, ")
	q.orderBy(l)
	rows := make([][]Node, len(parents))
	var n int64
	if err := s.each(ctx, q, []any{&n}, func(t Node) { rows[n-1] = append(rows[n-1], t) }); err != nil {
		return nil, err
	}
	out := make([]*Connection, len(parents))
	for i := range parents {
		out[i] = l.page(rows[i], p)
	}
	return out, nil
}

// countChildren counts the children of each parent, in one statement.
func (s *Store) countChildren(ctx context.Context, d *Edge, parents []uuid.UUID, where Input, may func(*query)) ([]int, error) {
	q := newQuery(ctx)
	q.write("SELECT p.n, c.n")
	q.fromParents(parents, "count(*) n")
	q.ofParent(s, d)
	if err := q.where(s.Entity, "t", where); err != nil {
		return nil, err
	}
	may(q)
	q.write(") c")
	out := make([]int, len(parents))
	err := s.engine.scan(ctx, q, func(rows *sql.Rows) error {
		var n, count int64
		if err := rows.Scan(&n, &count); err != nil {
			return err
		}
		out[n-1] = int(count)
		return nil
	})
	return out, err
}

// count runs a statement that gives one number.
func (g *Engine) count(ctx context.Context, q *query) (n int, err error) {
	err = g.scan(ctx, q, func(rows *sql.Rows) error {
		var count int64
		err := rows.Scan(&count)
		n = int(count)
		return err
	})
	return n, err
}

// scan runs q and calls f for each row: in the operation's transaction once it has begun, on the standby where ReadAfter says so, else on
// the primary.
func (g *Engine) scan(ctx context.Context, q *query, f func(*sql.Rows) error) error {
	if g.replica != nil {
		if r, ok := ctx.Value(readsKey{}).(*reads); ok {
			return r.scan(ctx, q, f)
		}
	}
	return g.translate(scan(ctx, g.reader(ctx), q.text.String(), q.arguments(), f))
}

// scan runs a statement and calls f for each row. All that it answered is there when scan returns.
func scan(ctx context.Context, db dialect.ExecQuerier, query string, args []any, f func(*sql.Rows) error) (err error) {
	rows := &sql.Rows{}
	if err := db.Query(ctx, query, args, rows); err != nil {
		return err
	}
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
