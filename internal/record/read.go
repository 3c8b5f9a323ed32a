package record

import (
	"bytes"
	"context"
	"slices"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/internal/entity"
)

// MaxRefs is how many records one call may name.
const MaxRefs = 1000

// Get answers with the record that has this id, null where there is none.
func Get(ctx context.Context, s *Store, id ID) (Raw, error) {
	key, err := id.of(s.Entity, "id")
	if err != nil {
		return nil, err
	}
	n, err := s.one(ctx, key)
	if err != nil {
		return nil, err
	}
	return render(ctx, s, n, true)
}

// byID returns the records among ids that exist and that who asks may read.
func (s *Store) byID(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]Node, error) {
	q := newQuery(ctx)
	return s.among(ctx, q, ids, func() { q.may(s.Entity, "t") })
}

// load returns the records that exist among ids, whoever asks.
func (s *Store) load(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]Node, error) {
	return s.among(ctx, &query{}, ids, func() {})
}

func (s *Store) among(ctx context.Context, q *query, ids []uuid.UUID, more func()) (map[uuid.UUID]Node, error) {
	m := make(map[uuid.UUID]Node, len(ids))
	if len(ids) == 0 {
		return m, nil
	}
	q.write("SELECT ", s.columns, " FROM ", quote(s.Table), " t WHERE t.id = ")
	if len(ids) == 1 { // for ANY Postgres expects ten, and so makes a plan for each single one
		q.arg(ids[0])
	} else {
		q.write("ANY(")
		q.arg(ids)
		q.write(")")
	}
	more()
	err := s.each(ctx, q, nil, func(n Node) {
		id, _ := s.key(n)
		m[id] = n
	})
	return m, err
}

// List answers with a page of all records of an entity.
func List(ctx context.Context, s *Store, p Page) (Raw, error) {
	c, err := s.Find(ctx, p)
	if err != nil {
		return nil, err
	}
	x := s.engine.rendererOf(ctx)
	list := x.connections(ctx, s, []*Connection{c}, x.sel, func(int) ast.Path { return x.path }, func(ctx context.Context) ([]int, error) {
		n, err := s.count(ctx, p)
		return []int{n}, err
	})
	return x.answer(ctx, list[0])
}

// Find returns a page of the records that who asks may read.
func (s *Store) Find(ctx context.Context, p Page) (*Connection, error) {
	l, err := s.listing(askerOf(ctx), p)
	if err != nil {
		return nil, err
	}
	q := newQuery(ctx)
	q.write("SELECT ", s.columns, " FROM ", quote(s.Table), " t WHERE ")
	if err := q.page(s.Entity, l, p); err != nil {
		return nil, err
	}
	var rows []Node
	if err := s.each(ctx, q, nil, func(n Node) { rows = append(rows, n) }); err != nil {
		return nil, err
	}
	return l.page(rows, p), nil
}

// Count counts the records that where describes and that who asks may read.
func (s *Store) Count(ctx context.Context, where Input) (int, error) {
	return s.count(ctx, Page{Where: where})
}

// count counts the records of the list that a page is of.
func (s *Store) count(ctx context.Context, p Page) (int, error) {
	q := newQuery(ctx)
	q.write("SELECT count(*) FROM ", quote(s.Table), " t WHERE ")
	if err := q.where(s.Entity, "t", p.Where); err != nil {
		return 0, err
	}
	if rules, limited := q.limits(s.shows(p.deleted())); limited {
		q.bulk(s.Entity, &rule{kind: entity.KindAny, rules: rules}, "t")
	}
	return s.engine.count(ctx, q)
}

// page writes what follows WHERE for a page of the whole table.
func (q *query) page(e *Entity, l *listing, p Page) error {
	where := p.Where
	rules, limited := q.limits(e.shows(p.deleted()))
	if !limited {
		return q.plainPage(e, l, where, func() {})
	}
	if len(rules) == 1 {
		return q.plainPage(e, l, where, func() { q.bulk(e, rules[0], "t") })
	}
	// A page of those that one of the rules lets: as many of each, and of these the first. So each is a search with an order and
	// a limit, for which the planner knows whether to begin with the order or with the rule; of an OR it does not.
	q.write("t.id IN (")
	for i, r := range rules {
		if i > 0 {
			q.write(" UNION ALL ")
		}
		q.write("(SELECT t.id FROM ", quote(e.Table), " t WHERE ")
		q.count = 0 // the same conditions again
		if err := q.plainPage(e, l, where, func() { q.bulk(e, r, "t") }); err != nil {
			return err
		}
		q.write(")")
	}
	q.write(")")
	q.rest(l)
	return nil
}

// limits returns the rules of which one has to hold for who asks, where r has to; not limited where it holds for all records. The
// statement is planned for who asks then: some may read three records, others all.
func (q *query) limits(r *rule) (rules []*rule, limited bool) {
	if holds, known := q.who.known(r); known {
		return []*rule{r}, !holds
	}
	return q.who.alternatives(r), true
}

// bulk writes " AND", and that a rule holds for the row t, in the form for whole tables.
func (q *query) bulk(e *Entity, r *rule, t string) {
	holds, known := q.who.known(r)
	if holds && known {
		return
	}
	q.custom = q.custom || !q.who.impersonal(r)
	q.write(" AND ")
	compiler{w: q, who: q.who, bulk: true}.rule(r, e, t)
}

// plainPage writes a page: the conditions, those that may writes, bounds, order and limit.
func (q *query) plainPage(e *Entity, l *listing, where Input, may func()) error {
	if err := q.where(e, "t", where); err != nil {
		return err
	}
	may()
	for _, b := range l.bounds {
		q.write(" AND ")
		q.after(l, b)
	}
	q.rest(l)
	return nil
}

// rest writes order and limit.
func (q *query) rest(l *listing) {
	q.write(" ORDER BY ")
	q.orderBy(l)
	q.write(" LIMIT ")
	q.arg(l.limit + 1)
}

// Fetch answers node(id): a record of any entity, null where there is none.
func Fetch(ctx context.Context, g *Engine, id ID) (Raw, error) {
	s := g.stores[id.Prefix]
	if s == nil {
		return nil, badInput("id", "id: %s is not the id of a record", id)
	}
	return Get(ctx, s, id)
}

// FetchAll answers nodes(ids): the records in the order asked for, null for those that do not exist.
func FetchAll(ctx context.Context, g *Engine, ids []*ID) ([]Raw, error) {
	refs := make([]*Ref, len(ids))
	for i, id := range ids {
		refs[i] = &Ref{ID: *id}
	}
	batches, err := g.group(refs, "ids")
	if err != nil {
		return nil, err
	}
	x := g.rendererOf(ctx)
	out := make([]Raw, len(ids))
	for _, b := range batches {
		nodes, err := b.store.byID(ctx, b.ids)
		if err != nil {
			return nil, err
		}
		var (
			there []Node
			at    []int
		)
		for i, id := range ids {
			if n := nodes[id.UUID]; n != nil && id.Prefix == b.store.Prefix {
				there, at = append(there, n), append(at, i)
			}
		}
		paths := func(i int) ast.Path {
			return append(slices.Clip(x.path), ast.PathIndex(at[i]))
		}
		for i, r := range x.records(ctx, b.store, there, true, x.sel, paths) {
			out[at[i]] = r
		}
	}
	_, err = x.answer(ctx, Raw{})
	return out, err
}

func writeList(w *bytes.Buffer, list []Raw) {
	w.WriteByte('[')
	for i, r := range list {
		if i > 0 {
			w.WriteByte(',')
		}
		r.MarshalGQL(w)
	}
	w.WriteByte(']')
}

func tooMany(argument string, n int) *Error {
	return tooComplex(argument, "%s names %d records, more than %d", argument, n, MaxRefs)
}

// Ref names a record, and the version of it that the client holds.
type Ref struct {
	ID           ID
	KnownVersion *int
}

// batch is the part of a list of records that is of one entity, each once, in the order given.
type batch struct {
	store *Store
	ids   []uuid.UUID
	known map[uuid.UUID]int // the versions that the client holds; 0 for none
}

// group splits refs by entity.
func (g *Engine) group(refs []*Ref, argument string) ([]*batch, error) {
	if len(refs) > MaxRefs {
		return nil, tooMany(argument, len(refs))
	}
	var batches []*batch
	byPrefix := map[string]*batch{}
	for _, r := range refs {
		b := byPrefix[r.ID.Prefix]
		if b == nil {
			store := g.stores[r.ID.Prefix]
			if store == nil {
				return nil, badInput(argument, "%s: %s is not the id of a record", argument, r.ID)
			}
			b = &batch{store: store, known: make(map[uuid.UUID]int, len(refs))}
			byPrefix[r.ID.Prefix] = b
			batches = append(batches, b)
		}
		v := 0 // which no record has
		if r.KnownVersion != nil {
			v = *r.KnownVersion
		}
		if other, twice := b.known[r.ID.UUID]; !twice {
			b.ids = append(b.ids, r.ID.UUID)
		} else if other != v {
			v = 0
		}
		b.known[r.ID.UUID] = v
	}
	return batches, nil
}

// Records answers records(refs): a record map, with a list an entity, the ids that are unchanged since the version
// that the client holds, and those that do not exist. One statement an entity.
func Records(ctx context.Context, g *Engine, refs []*Ref) (Raw, error) {
	batches, err := g.group(refs, "refs")
	if err != nil {
		return nil, err
	}
	lists := map[string][]Node{} // by Entity.List
	stores := map[string]*Store{}
	unchanged, missing := []Raw{}, []Raw{}
	for _, b := range batches {
		nodes, err := b.store.byID(ctx, b.ids)
		if err != nil {
			return nil, err
		}
		stores[b.store.List] = b.store
		for _, id := range b.ids {
			text := Raw(`"` + b.store.globalID(id).String() + `"`)
			n := nodes[id]
			if n == nil {
				missing = append(missing, text)
				continue
			}
			if _, version := b.store.key(n); b.known[id] == version {
				unchanged = append(unchanged, text)
				continue
			}
			lists[b.store.List] = append(lists[b.store.List], n)
		}
	}
	x := g.rendererOf(ctx)
	w := &bytes.Buffer{}
	w.WriteByte('{')
	for i, f := range graphql.CollectFields(x.op, x.sel, []string{"RecordMap"}) {
		writeKey(w, i, f.Alias)
		switch f.Name {
		case "__typename":
			writeString(w, "RecordMap")
		case "unchanged":
			writeList(w, unchanged)
		case "missing":
			writeList(w, missing)
		default:
			list := x.records(ctx, stores[f.Name], lists[f.Name], true, f.Selections, func(n int) ast.Path {
				return append(slices.Clip(x.path), ast.PathName(f.Alias), ast.PathIndex(n))
			})
			for _, r := range list {
				if r == nil {
					return x.answer(ctx, nil) // a list of the map has no null
				}
			}
			writeList(w, list)
		}
	}
	w.WriteByte('}')
	return x.answer(ctx, w.Bytes())
}
