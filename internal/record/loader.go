package record

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"
	"github.com/vikstrous/dataloadgen"
)

// batchWait is how long a loader waits for more keys: long enough for the resolvers of one level to ask, which
// run at the same time.
const batchWait = 200 * time.Microsecond

// loaders batch what one request reads.
type loaders struct {
	mu     sync.Mutex
	stores map[*Entity]any // *storeLoaders[T]; protected by mu
}

type loadersKey struct{}

// withLoaders gives a request its loaders.
func withLoaders(ctx context.Context) context.Context {
	return context.WithValue(ctx, loadersKey{}, &loaders{stores: map[*Entity]any{}})
}

// forget drops what was loaded, after a write.
func forget(ctx context.Context) {
	if l, ok := ctx.Value(loadersKey{}).(*loaders); ok {
		l.mu.Lock()
		clear(l.stores)
		l.mu.Unlock()
	}
}

// storeLoaders are the loaders of one entity.
type storeLoaders[T any] struct {
	byID *dataloadgen.Loader[uuid.UUID, *T]

	mu       sync.Mutex
	children map[string]*dataloadgen.Loader[uuid.UUID, *Connection[T]] // by edge and arguments; protected by mu
	counts   map[string]*dataloadgen.Loader[uuid.UUID, int]            // likewise
}

func (s *Store[T]) newLoaders() any {
	return &storeLoaders[T]{
		byID: dataloadgen.NewLoader(func(ctx context.Context, ids []uuid.UUID) ([]*T, []error) {
			m, err := s.byID(ctx, ids)
			out := make([]*T, len(ids))
			for i, id := range ids {
				out[i] = m[id]
			}
			return out, fail(err, len(ids))
		}, dataloadgen.WithWait(batchWait)),
		children: map[string]*dataloadgen.Loader[uuid.UUID, *Connection[T]]{},
		counts:   map[string]*dataloadgen.Loader[uuid.UUID, int]{},
	}
}

// fail says a batch's error for each key.
func fail(err error, n int) []error {
	if err == nil {
		return nil
	}
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// loaders returns the store's part of the request's loaders, nil outside a request.
func (s *Store[T]) loaders(ctx context.Context) *storeLoaders[T] {
	l, ok := ctx.Value(loadersKey{}).(*loaders)
	if !ok {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	sl, ok := l.stores[s.Entity].(*storeLoaders[T])
	if !ok {
		sl = s.newLoaders().(*storeLoaders[T])
		l.stores[s.Entity] = sl
	}
	return sl
}

// children loads a page of one parent's children, together with those of other parents that the request asks
// for with the same arguments.
func (s *Store[T]) children(ctx context.Context, d *Edge, parent uuid.UUID, p Page, l *listing) (*Connection[T], error) {
	args, err := json.Marshal(struct {
		Page
		Edge string
		From string
	}{p, d.Name, d.From + d.Through})
	if err != nil {
		return nil, fmt.Errorf("encode arguments: %w", err)
	}
	key := string(args)
	sl := s.loaders(ctx)
	if sl == nil {
		sl = s.newLoaders().(*storeLoaders[T])
	}
	sl.mu.Lock()
	pages := sl.children[key]
	if pages == nil {
		counts := dataloadgen.NewLoader(func(ctx context.Context, parents []uuid.UUID) ([]int, []error) {
			n, err := s.countChildren(ctx, d, parents, p.Where)
			return n, fail(err, len(parents))
		}, dataloadgen.WithWait(batchWait))
		pages = dataloadgen.NewLoader(func(ctx context.Context, parents []uuid.UUID) ([]*Connection[T], []error) {
			c, err := s.readChildren(ctx, d, parents, p, l, counts)
			return c, fail(err, len(parents))
		}, dataloadgen.WithWait(batchWait))
		sl.children[key], sl.counts[key] = pages, counts
	}
	sl.mu.Unlock()
	return pages.Load(ctx, parent)
}

// fromParents writes FROM: the parents given as an array, p, and to each its children, t.
func (q *query) fromParents(s *Entity, d *Edge, parents []uuid.UUID) {
	q.write(" FROM unnest(")
	q.arg(parents)
	q.write("::uuid[]) WITH ORDINALITY p(id, n) ")
}

// ofParent writes the children of p: FROM and the start of WHERE.
func (q *query) ofParent(s *Entity, d *Edge) {
	if d.Through != "" {
		q.write(" FROM ", quote(d.Through), " j JOIN ", quote(s.Table), " t ON t.id = j.", quote(d.Ref),
			" WHERE j.", quote(d.From), " = p.id AND ")
		return
	}
	q.write(" FROM ", quote(s.Table), " t WHERE t.", quote(d.From), " = p.id AND ")
}

// readChildren reads a page for each parent, in one statement.
func (s *Store[T]) readChildren(ctx context.Context, d *Edge, parents []uuid.UUID, p Page, l *listing,
	counts *dataloadgen.Loader[uuid.UUID, int]) ([]*Connection[T], error) {
	q := &query{}
	q.write("SELECT p.n, ", s.columns)
	q.fromParents(s.Entity, d, parents)
	q.write("CROSS JOIN LATERAL (SELECT ", s.columns)
	q.ofParent(s.Entity, d)
	if err := q.page(s.Entity, l, p.Where); err != nil {
		return nil, err
	}
	q.write(") t ORDER BY p.n, ")
	q.orderBy(l)
	rows := make([][]*T, len(parents))
	var n int64
	if err := s.each(ctx, q, []any{&n}, func(t *T) { rows[n-1] = append(rows[n-1], t) }); err != nil {
		return nil, err
	}
	out := make([]*Connection[T], len(parents))
	for i, parent := range parents {
		out[i] = page(l, rows[i], p)
		out[i].count = func(ctx context.Context) (int, error) { return counts.Load(ctx, parent) }
	}
	return out, nil
}

// countChildren counts the children of each parent, in one statement.
func (s *Store[T]) countChildren(ctx context.Context, d *Edge, parents []uuid.UUID, where Input) ([]int, error) {
	q := &query{}
	q.write("SELECT p.n, c.n")
	q.fromParents(s.Entity, d, parents)
	q.write("CROSS JOIN LATERAL (SELECT count(*) n")
	q.ofParent(s.Entity, d)
	if err := q.where(s.Entity, "t", where); err != nil {
		return nil, err
	}
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

// scan runs q and calls f for each row.
func (g *Engine) scan(ctx context.Context, q *query, f func(*sql.Rows) error) (err error) {
	rows := &sql.Rows{}
	if err := g.reader(ctx).Query(ctx, q.text.String(), q.args, rows); err != nil {
		return g.translate(err)
	}
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = g.translate(cerr)
		}
	}()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return g.translate(rows.Err())
}
