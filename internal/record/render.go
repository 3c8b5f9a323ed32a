package record

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Raw is a finished part of an answer: JSON, or nil for null. Resolvers of records return it, so that gqlgen need
// not know the entities' types: records, connections and record maps are rendered here, level by level, with a
// statement for each selected edge of a level.
type Raw []byte

// MarshalGQL writes the JSON.
func (r Raw) MarshalGQL(w io.Writer) {
	if r == nil {
		r = Raw("null")
	}
	_, _ = w.Write(r)
}

// UnmarshalGQL is here for gqlgen: no input is a Raw.
func (*Raw) UnmarshalGQL(any) error { return fmt.Errorf("record: Raw is no input") }

// renderer renders what one field of an operation selects.
type renderer struct {
	engine *Engine
	op     *graphql.OperationContext
	sel    ast.SelectionSet // of the field
	path   ast.Path         // of the field
	errs   []*gqlerror.Error
	shown  *shown // of an answer that is kept for who sends the same again; else nil
}

// rendererOf returns the renderer of the field that ctx resolves.
func (g *Engine) rendererOf(ctx context.Context) *renderer {
	f := graphql.GetFieldContext(ctx)
	x := &renderer{engine: g, op: graphql.GetOperationContext(ctx), sel: f.Field.Selections, path: f.Path()}
	if x.op.Operation.Operation == ast.Mutation {
		if w := workOf(ctx); w != nil && w.key != nil {
			x.shown = &w.key.shown
		}
	}
	return x
}

// Render answers the current field with a record, which who asks may read or has written; nil is null. What is related to it
// is answered as far as they may read it.
func Render(ctx context.Context, s *Store, n Node) (Raw, error) { return render(ctx, s, n, false) }

func render(ctx context.Context, s *Store, n Node, seen bool) (Raw, error) {
	if n == nil {
		return nil, nil
	}
	x := s.engine.rendererOf(ctx)
	if !seen {
		x.shown.wrote(s, n)
	}
	return x.answer(ctx, x.records(ctx, s, []Node{n}, seen, x.sel, func(int) ast.Path { return x.path })[0])
}

// answer reports the errors that rendering met beside the answer. Where they left nothing of it, the last one is
// the field's own error, or gqlgen would add that the field must not be null.
func (x *renderer) answer(ctx context.Context, r Raw) (Raw, error) {
	for i, err := range x.errs {
		if r == nil && i == len(x.errs)-1 {
			return nil, err
		}
		graphql.AddError(ctx, err)
	}
	return r, nil
}

// fail notes an error at a place of the answer.
func (x *renderer) fail(path ast.Path, f *graphql.CollectedField, err error) {
	e := &gqlerror.Error{Err: err, Message: err.Error(), Path: path}
	if f != nil && f.Position != nil {
		e.Locations = []gqlerror.Location{{Line: f.Position.Line, Column: f.Position.Column}}
	}
	x.errs = append(x.errs, e)
}

// below returns the path of something in the i-th of the things that have paths.
func below(paths func(int) ast.Path, i int, more ...ast.PathElement) ast.Path {
	p := paths(i)
	return append(slices.Clip(p), more...)
}

// records renders records of one entity. seen says that who asks may read them for certain: what may be read because of
// that is not asked again. paths says where each stands in the answer.
func (x *renderer) records(ctx context.Context, s *Store, nodes []Node, seen bool, sel ast.SelectionSet, paths func(int) ast.Path) []Raw {
	out := make([]Raw, len(nodes))
	if len(nodes) == 0 {
		return out
	}
	fields := graphql.CollectFields(x.op, sel, s.types)
	// First all that is related, for all records at once.
	related := make([][]Raw, len(fields))
	for i := range fields {
		if d := s.edges[fields[i].Name]; d != nil {
			alias := ast.PathName(fields[i].Alias)
			related[i] = x.edge(ctx, s, d, &fields[i], nodes, seen, func(n int) ast.Path { return below(paths, n, alias) })
		}
	}
	who := askerOf(ctx)
	limited := make([]bool, len(fields)) // some of the records' values may be hidden
	for i := range fields {
		if c := s.fields[fields[i].Name]; c != nil && c.rule != nil {
			limited[i] = who.limit(s.Entity, c) != nil
		}
	}
	for n, node := range nodes {
		v := reflect.ValueOf(node)
		w := &bytes.Buffer{}
		w.WriteByte('{')
		valid := true
		x.shown.add(s, node)
		for i := range fields {
			f := &fields[i]
			writeKey(w, i, f.Alias)
			switch {
			case f.Name == "__typename":
				writeString(w, s.Name)
			case related[i] != nil:
				related[i][n].MarshalGQL(w)
			default:
				c := s.fields[f.Name]
				if limited[i] && !who.reads(s.Entity, c, node) {
					w.WriteString("null")
					continue
				}
				if x.shown != nil && c.rule != nil {
					x.shown.add(s, node, c.Name)
				}
				if err := c.write(w, c.value(v)); err != nil {
					x.fail(below(paths, n, ast.PathName(f.Alias)), f, err)
					valid = valid && c.Nullable
					w.WriteString("null")
				}
			}
		}
		w.WriteByte('}')
		if valid {
			out[n] = w.Bytes()
		}
	}
	return out
}

// edge renders what an edge of each node leads to.
func (x *renderer) edge(ctx context.Context, s *Store, d *Edge, f *graphql.CollectedField, nodes []Node, seen bool, paths func(int) ast.Path) []Raw {
	to := x.engine.stores[d.to.Prefix]
	if !d.ToOne() {
		parents := make([]uuid.UUID, len(nodes))
		for i, n := range nodes {
			parents[i], _ = s.key(n)
		}
		may := func(q *query, deleted ShowDeleted) {
			r := to.shows(deleted)
			if b := s.back(d); !seen || b == nil || !r.follows(b) {
				q.meets(r, to.Entity, "t")
			}
		}
		return x.children(ctx, to, d, f, parents, may, paths)
	}
	out := make([]Raw, len(nodes))
	keys := make([]uuid.UUID, 0, len(nodes))
	of := make([]uuid.UUID, len(nodes))
	asked := make(map[uuid.UUID]bool, len(nodes))
	for i, n := range nodes {
		id, ok := d.field.value(reflect.ValueOf(n)).(uuid.UUID)
		if ok && !asked[id] {
			asked[id] = true
			keys = append(keys, id)
		}
		of[i] = id
	}
	read := to.byID
	if seen && implies(s.rules[reading], d) {
		read = to.load
	}
	found, err := read(ctx, keys)
	if err != nil {
		for i := range nodes {
			x.fail(paths(i), f, err)
		}
		return out
	}
	var (
		there []Node
		at    []int
	)
	for i, id := range of {
		if n := found[id]; n != nil {
			there, at = append(there, n), append(at, i)
		}
	}
	for i, r := range x.records(ctx, to, there, true, f.Selections, func(i int) ast.Path { return paths(at[i]) }) {
		out[at[i]] = r
	}
	return out
}

// children renders a page of each parent's children.
func (x *renderer) children(ctx context.Context, to *Store, d *Edge, f *graphql.CollectedField, parents []uuid.UUID, may func(*query, ShowDeleted),
	paths func(int) ast.Path) []Raw {
	out := make([]Raw, len(parents))
	failed := func(err error) []Raw {
		for i := range parents {
			x.fail(paths(i), f, err)
		}
		return out
	}
	p, err := pageOf(f.ArgumentMap(x.op.Variables))
	if err != nil {
		return failed(err)
	}
	l, err := to.listing(askerOf(ctx), p)
	if err != nil {
		return failed(err)
	}
	readable := func(q *query) { may(q, p.deleted()) }
	pages, err := to.readChildren(ctx, d, parents, p, l, readable)
	if err != nil {
		return failed(err)
	}
	return x.connections(ctx, to, pages, f.Selections, paths, func(ctx context.Context) ([]int, error) {
		return to.countChildren(ctx, d, parents, p.Where, readable)
	})
}

// connections renders pages of one entity. count gives the total of each.
func (x *renderer) connections(ctx context.Context, s *Store, pages []*Connection, sel ast.SelectionSet, paths func(int) ast.Path,
	count func(context.Context) ([]int, error)) []Raw {
	out := make([]Raw, len(pages))
	fields := graphql.CollectFields(x.op, sel, []string{s.Name + "Connection"})
	edges := make([][]Raw, len(fields))
	var totals []int
	for i := range fields {
		f := &fields[i]
		alias := ast.PathName(f.Alias)
		switch {
		case f.Name == "edges":
			edges[i] = x.edges(ctx, s, pages, f, func(n int) ast.Path { return below(paths, n, alias) })
		case f.Name == "totalCount" && totals == nil:
			var err error
			if totals, err = count(ctx); err != nil {
				for n := range pages {
					x.fail(below(paths, n, alias), f, err)
				}
				return out
			}
		}
	}
	for n, p := range pages {
		for _, node := range p.Nodes { // cursors tell of them
			x.shown.add(s, node)
		}
		w := &bytes.Buffer{}
		w.WriteByte('{')
		for i := range fields {
			f := &fields[i]
			writeKey(w, i, f.Alias)
			switch f.Name {
			case "__typename":
				writeString(w, s.Name+"Connection")
			case "edges":
				edges[i][n].MarshalGQL(w)
			case "totalCount":
				w.WriteString(strconv.Itoa(totals[n]))
			case "pageInfo":
				x.pageInfo(w, p, f.Selections)
			}
		}
		w.WriteByte('}')
		out[n] = w.Bytes()
	}
	return out
}

// edges renders the edges of each page: the records of all of them at once.
func (x *renderer) edges(ctx context.Context, s *Store, pages []*Connection, f *graphql.CollectedField, paths func(int) ast.Path) []Raw {
	var (
		nodes []Node
		at    [][2]int // page and place
	)
	for n, p := range pages {
		for i, node := range p.Nodes {
			nodes, at = append(nodes, node), append(at, [2]int{n, i})
		}
	}
	fields := graphql.CollectFields(x.op, f.Selections, []string{s.Name + "Edge"})
	rendered := make([][]Raw, len(fields))
	for i := range fields {
		if fields[i].Name == "node" {
			alias := ast.PathName(fields[i].Alias)
			rendered[i] = x.records(ctx, s, nodes, true, fields[i].Selections, func(n int) ast.Path {
				return below(paths, at[n][0], ast.PathIndex(at[n][1]), alias)
			})
		}
	}
	out := make([]Raw, len(pages))
	k := 0
	for n, p := range pages {
		w := &bytes.Buffer{}
		w.WriteByte('[')
		for place := range p.Nodes {
			if place > 0 {
				w.WriteByte(',')
			}
			w.WriteByte('{')
			for i := range fields {
				writeKey(w, i, fields[i].Alias)
				switch fields[i].Name {
				case "__typename":
					writeString(w, s.Name+"Edge")
				case "cursor":
					writeString(w, string(p.Cursor(place)))
				case "node":
					rendered[i][k].MarshalGQL(w)
				}
			}
			w.WriteByte('}')
			k++
		}
		w.WriteByte(']')
		out[n] = w.Bytes()
	}
	return out
}

func (x *renderer) pageInfo(w *bytes.Buffer, p *Connection, sel ast.SelectionSet) {
	w.WriteByte('{')
	for i, f := range graphql.CollectFields(x.op, sel, []string{"PageInfo"}) {
		writeKey(w, i, f.Alias)
		switch f.Name {
		case "__typename":
			writeString(w, "PageInfo")
		case "hasNextPage":
			w.WriteString(strconv.FormatBool(p.HasNextPage))
		case "hasPreviousPage":
			w.WriteString(strconv.FormatBool(p.HasPreviousPage))
		case "startCursor":
			writeCursor(w, p, 0)
		case "endCursor":
			writeCursor(w, p, len(p.Nodes)-1)
		}
	}
	w.WriteByte('}')
}

func writeCursor(w *bytes.Buffer, p *Connection, i int) {
	if len(p.Nodes) == 0 {
		w.WriteString("null")
		return
	}
	writeString(w, string(p.Cursor(i)))
}

// writeKey writes the i-th key of an object.
func writeKey(w *bytes.Buffer, i int, alias string) {
	if i > 0 {
		w.WriteByte(',')
	}
	w.WriteByte('"')
	w.WriteString(alias) // a GraphQL name: nothing to escape
	w.WriteString(`":`)
}

func writeString(w *bytes.Buffer, s string) { graphql.MarshalString(s).MarshalGQL(w) }

// write writes a value as gqlgen does, or nothing and returns an error.
func (f *Field) write(w *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case nil:
		w.WriteString("null")
	case string:
		writeString(w, v)
	case int:
		w.Write(strconv.AppendInt(w.AvailableBuffer(), int64(v), 10))
	case bool:
		w.WriteString(strconv.FormatBool(v))
	case time.Time:
		graphql.MarshalTime(v.UTC()).MarshalGQL(w)
	case float64:
		b, err := json.Marshal(v) // refuses what JSON cannot say
		if err != nil {
			return err
		}
		w.Write(b)
	case uuid.UUID:
		f.of.globalID(v).MarshalGQL(w)
	default:
		if f.Kind == Enum {
			writeString(w, reflect.ValueOf(v).String())
			return nil
		}
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		w.Write(b)
	}
	return nil
}

// pageOf reads the arguments of a list field.
func pageOf(args map[string]any) (p Page, err error) {
	for name, to := range map[string]**Cursor{"after": &p.After, "before": &p.Before} {
		if v := args[name]; v != nil {
			*to = new(Cursor)
			if err := (*to).UnmarshalGQL(v); err != nil {
				return p, badInput(name, "%s: %v", name, err)
			}
		}
	}
	for name, to := range map[string]**int{"first": &p.First, "last": &p.Last} {
		if v := args[name]; v != nil {
			n, err := graphql.UnmarshalInt(v)
			if err != nil {
				return p, badInput(name, "%s: %v", name, err)
			}
			*to = &n
		}
	}
	if v, ok := args["deleted"].(string); ok {
		p.Deleted = new(ShowDeleted(v))
	}
	if v := args["where"]; v != nil {
		if err := p.Where.UnmarshalGQL(v); err != nil {
			return p, err
		}
	}
	if v := args["orderBy"]; v != nil {
		for _, v := range graphql.CoerceList(v) {
			o := &Order{}
			if err := o.UnmarshalGQL(v); err != nil {
				return p, err
			}
			p.OrderBy = append(p.OrderBy, o)
		}
	}
	return p, nil
}
