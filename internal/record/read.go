package record

import (
	"context"
	"reflect"

	"github.com/google/uuid"
)

// Get returns the record that has this id, nil where there is none.
func Get[T any](ctx context.Context, s *Store[T], id ID) (*T, error) {
	key, err := id.of(s.Entity, "id")
	if err != nil {
		return nil, err
	}
	return s.one(ctx, key)
}

// One returns the record that a to-one edge leads to; nil where it leads nowhere.
func One[T any](ctx context.Context, s *Store[T], id *uuid.UUID) (*T, error) {
	if id == nil || *id == uuid.Nil {
		return nil, nil
	}
	return s.one(ctx, *id)
}

// one loads a record, together with the others that the request asks for meanwhile.
func (s *Store[T]) one(ctx context.Context, id uuid.UUID) (*T, error) {
	if l := s.loaders(ctx); l != nil {
		return l.byID.Load(ctx, id)
	}
	m, err := s.byID(ctx, []uuid.UUID{id})
	return m[id], err
}

// byID returns the records that exist among ids.
func (s *Store[T]) byID(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]*T, error) {
	q := &query{}
	q.write("SELECT ", s.columns, " FROM ", quote(s.Table), " t WHERE t.id = ANY(")
	q.arg(ids)
	q.write(")")
	m := make(map[uuid.UUID]*T, len(ids))
	err := s.each(ctx, q, nil, func(t *T) {
		id, _ := s.key(t)
		m[id] = t
	})
	return m, err
}

func (s *Store[T]) load(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]Node, error) {
	m, err := s.byID(ctx, ids)
	nodes := make(map[uuid.UUID]Node, len(m))
	for id, t := range m {
		nodes[id] = any(t).(Node)
	}
	return nodes, err
}

func (s *Store[T]) list(nodes []Node) any {
	list := make([]*T, len(nodes))
	for i, n := range nodes {
		list[i] = any(n).(*T)
	}
	return list
}

// Connection is a page of a list.
type Connection[T any] struct {
	Edges    []*ConnectionEdge[T]
	PageInfo PageInfo
	count    func(context.Context) (int, error)
}

// TotalCount counts the whole list. It runs where the field is selected, and costs a statement.
func (c *Connection[T]) TotalCount(ctx context.Context) (int, error) { return c.count(ctx) }

// List returns a page of all records of an entity.
func List[T any](ctx context.Context, s *Store[T], p Page) (*Connection[T], error) {
	l, err := s.listing(p)
	if err != nil {
		return nil, err
	}
	q := &query{}
	q.write("SELECT ", s.columns, " FROM ", quote(s.Table), " t WHERE ")
	if err := q.page(s.Entity, l, p.Where); err != nil {
		return nil, err
	}
	rows, err := s.query(ctx, q)
	if err != nil {
		return nil, err
	}
	c := page(l, rows, p)
	c.count = func(ctx context.Context) (int, error) {
		q := &query{}
		q.write("SELECT count(*) FROM ", quote(s.Table), " t WHERE ")
		if err := q.where(s.Entity, "t", p.Where); err != nil {
			return 0, err
		}
		return s.engine.count(ctx, q)
	}
	return c, nil
}

// page writes what follows WHERE for one page.
func (q *query) page(e *Entity, l *listing, where Input) error {
	if err := q.where(e, "t", where); err != nil {
		return err
	}
	for _, b := range l.bounds {
		q.write(" AND ")
		q.after(l, b)
	}
	q.write(" ORDER BY ")
	q.orderBy(l)
	q.write(" LIMIT ")
	q.arg(l.limit + 1)
	return nil
}

// Children returns a page of the records that a to-many edge of parent leads to.
func Children[P, T any](ctx context.Context, from *Store[P], s *Store[T], edge string, parent *P, p Page) (*Connection[T], error) {
	l, err := s.listing(p)
	if err != nil {
		return nil, err
	}
	id, _ := from.key(parent)
	return s.children(ctx, from.edges[edge], id, p, l)
}

// Fetch answers node(id) and nodes(ids): the records in the order asked for, nil for those that do not exist.
func Fetch(ctx context.Context, g *Engine, refs []*ID) ([]Node, error) {
	ids := make([]ID, len(refs))
	for i, r := range refs {
		ids[i] = *r
	}
	if len(ids) > MaxRefs {
		return nil, tooMany("ids", len(ids))
	}
	byStore, err := g.group(ids, "ids")
	if err != nil {
		return nil, err
	}
	found := map[ID]Node{}
	for _, b := range byStore {
		e, _ := b.store.entity()
		nodes, err := b.store.load(ctx, b.ids)
		if err != nil {
			return nil, err
		}
		for id, n := range nodes {
			found[e.globalID(id)] = n
		}
	}
	nodes := make([]Node, len(ids))
	for i, id := range ids {
		nodes[i] = found[id]
	}
	return nodes, nil
}

// MaxRefs is how many records one call may name.
const MaxRefs = 1000

func tooMany(argument string, n int) error {
	err := badInput(argument, "%s names %d records, more than %d", argument, n, MaxRefs)
	err.Code = TooComplex
	return err
}

// Ref names a record, and the version of it that the client holds.
type Ref struct {
	ID           ID
	KnownVersion *int
}

// Records answers records(refs): a record map, with a list an entity under the entity's list name, the ids that
// are unchanged since the version the client holds, and those that do not exist. One statement an entity.
func Records(ctx context.Context, g *Engine, refs []*Ref) (map[string]any, error) {
	if len(refs) > MaxRefs {
		return nil, tooMany("refs", len(refs))
	}
	ids := make([]ID, len(refs))
	known := make(map[ID]int, len(refs))
	for i, r := range refs {
		ids[i] = r.ID
		if r.KnownVersion != nil {
			known[r.ID] = *r.KnownVersion
		}
	}
	byStore, err := g.group(ids, "refs")
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	unchanged, missing := []ID{}, []ID{}
	for _, b := range byStore {
		e, _ := b.store.entity()
		nodes, err := b.store.load(ctx, b.ids)
		if err != nil {
			return nil, err
		}
		version := e.column["version"]
		var list []Node
		for _, id := range b.ids {
			n, global := nodes[id], e.globalID(id)
			if n == nil {
				missing = append(missing, global)
				continue
			}
			if v, ok := known[global]; ok && v == version.value(reflect.ValueOf(n)).(int) {
				unchanged = append(unchanged, global)
				continue
			}
			list = append(list, n)
		}
		out[e.List] = b.store.list(list)
	}
	out["unchanged"], out["missing"] = unchanged, missing
	return out, nil
}

// batch is the part of a list of ids that is of one entity, each once, in the order given.
type batch struct {
	store AnyStore
	ids   []uuid.UUID
}

// group splits ids by entity.
func (g *Engine) group(ids []ID, argument string) ([]*batch, error) {
	var batches []*batch
	byPrefix := map[string]*batch{}
	seen := make(map[ID]bool, len(ids))
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		b := byPrefix[id.Prefix]
		if b == nil {
			store := g.stores[id.Prefix]
			if store == nil {
				return nil, badInput(argument, "%s: %s is not the id of a record", argument, id)
			}
			b = &batch{store: store}
			byPrefix[id.Prefix] = b
			batches = append(batches, b)
		}
		b.ids = append(b.ids, id.UUID)
	}
	return batches, nil
}
