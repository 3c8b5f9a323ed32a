package record

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/entity"
)

// The kinds of events.
const (
	snapshotKind = "SNAPSHOT" // the record as it is at the start
	readyKind    = "READY"    // nothing is missing up to here
	createdKind  = "CREATED"
	updatedKind  = "UPDATED"
	deletedKind  = "DELETED"
	resyncKind   = "RESYNC" // drop what you hold; snapshots follow
)

// loadTimeout bounds what is read for an event.
const loadTimeout = 10 * time.Second

// event is an event of streams, whatever each selects of it.
type event struct {
	kind    string
	store   *Store // of the record; nil where the event is about none
	id      uuid.UUID
	version int      // the change's, 0 where it is not told; the record, as of delivery, may be newer
	fields  []string // what an update changed, as the change log names it
	record  Node     // nil where there is none to show
	cursor  string

	mu      sync.Mutex
	answers map[answerKey]*reply // protected by mu
}

// reply is an answer that may still be rendered.
type reply struct {
	mu     sync.Mutex
	answer *Answer // protected by mu
}

// answerKey is what an answer depends on beside the event.
type answerKey struct {
	shape *shape
	class class
}

// class is as much of who asks as an answer depends on. Those of one class see the same.
type class struct {
	signedIn bool
	role     string
	visible  uint64    // which of the fields that not everybody reads, in the entity's order
	id       uuid.UUID // where the answer depends on more than that
}

// shape is what subscriptions select of their events. Those that select the same share one.
type shape struct {
	key   shapeKey
	typ   string // of the events, as "ThreadChange"
	alias string // of the subscription field
	op    *graphql.OperationContext
	sel   ast.SelectionSet
	uses  int // written under the hub's mu

	costly bool // rendering an event takes reading what the record leads to

	mu       sync.Mutex
	personal map[personalKey]bool // protected by mu
}

type shapeKey struct{ document, operation, variables string }

type personalKey struct {
	store    *Store
	signedIn bool
	role     string
}

// newShape describes what the subscription field selects that ctx resolves.
func newShape(ctx context.Context) *shape {
	f, op := graphql.GetFieldContext(ctx).Field, graphql.GetOperationContext(ctx)
	vars := map[string]any{} // that the selection uses: the field's own arguments are none of its business
	use := func(name string) {
		if v, ok := op.Variables[name]; ok {
			vars[name] = v
		}
	}
	roots(op.Operation.SelectionSet, use)
	text, err := json.Marshal(vars)
	if err != nil {
		text = fmt.Appendf(nil, "%v", vars)
	}
	sh := &shape{
		key: shapeKey{op.RawQuery, op.OperationName, string(text)}, typ: f.Definition.Type.Name(), alias: f.Alias,
		op:  &graphql.OperationContext{RawQuery: op.RawQuery, Doc: op.Doc, Operation: op.Operation, Variables: vars},
		sel: f.Selections, personal: map[personalKey]bool{},
	}
	sh.costly = nested(f.Selections, 0)
	return sh
}

// roots is selected for the operation itself, without the arguments of its fields.
func roots(set ast.SelectionSet, found func(name string)) {
	for _, s := range set {
		switch s := s.(type) {
		case *ast.Field:
			directed(s.Directives, found)
			selected(s.SelectionSet, found)
		case *ast.InlineFragment:
			directed(s.Directives, found)
			roots(s.SelectionSet, found)
		case *ast.FragmentSpread:
			directed(s.Directives, found)
			roots(s.Definition.SelectionSet, found)
		}
	}
}

// nested reports whether anything is selected below the record's own fields: below the event is the record, at depth 1.
func nested(set ast.SelectionSet, depth int) bool {
	return slices.ContainsFunc(set, func(s ast.Selection) bool {
		switch s := s.(type) {
		case *ast.Field:
			return len(s.SelectionSet) > 0 && (depth > 0 || nested(s.SelectionSet, depth+1))
		case *ast.InlineFragment:
			return nested(s.SelectionSet, depth)
		case *ast.FragmentSpread:
			return nested(s.Definition.SelectionSet, depth)
		}
		return false
	})
}

// selected calls found with the names of the variables that a selection uses.
func selected(set ast.SelectionSet, found func(name string)) {
	for _, s := range set {
		switch s := s.(type) {
		case *ast.Field:
			given(s.Arguments, found)
			directed(s.Directives, found)
			selected(s.SelectionSet, found)
		case *ast.InlineFragment:
			directed(s.Directives, found)
			selected(s.SelectionSet, found)
		case *ast.FragmentSpread:
			directed(s.Directives, found)
			selected(s.Definition.SelectionSet, found)
		}
	}
}

func given(args ast.ArgumentList, found func(name string)) {
	for _, a := range args {
		variables(a.Value, found)
	}
}

func directed(list ast.DirectiveList, found func(name string)) {
	for _, d := range list {
		given(d.Arguments, found)
	}
}

func variables(v *ast.Value, found func(name string)) {
	if v.Kind == ast.Variable {
		found(v.Raw)
	}
	for _, c := range v.Children {
		variables(c.Value, found)
	}
}

// answer returns what a stream selects of an event, as its viewer may see it. If it has to be rendered, the records that come next are
// rendered with it.
func (g *Engine) answer(e *event, s *Stream, next map[*Store][]Node) *Answer {
	r := e.reply(answerKey{s.shape, s.shape.classOf(g, e, s.who)})
	r.mu.Lock()
	defer r.mu.Unlock() // who wants the same meanwhile waits for it
	if r.answer == nil {
		if next != nil {
			if s.ready = g.renderAll(next, s.shape, s.who); s.ready == nil {
				s.chunk = 1
			}
		}
		r.answer = g.render(e, s.shape, s.who, s.ready)
		g.hub.stats.answers.Add(1)
	}
	return r.answer
}

// mostAnswers is how many answers an event keeps: where each viewer has one of their own, a slow stream would keep those of all.
const mostAnswers = 64

// reply returns the place of an answer.
func (e *event) reply(k answerKey) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.answers[k]
	if r == nil {
		if e.answers == nil {
			e.answers = map[answerKey]*reply{}
		}
		if r = (&reply{}); len(e.answers) < mostAnswers {
			e.answers[k] = r
		}
	}
	return r
}

// forget has an answer that a stream's sink refused rendered again: what it leads to may be another by then, or forbidden.
func (g *Engine) forget(e *event, s *Stream) {
	k := answerKey{s.shape, s.shape.classOf(g, e, s.who)}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.answers, k)
}

// classOf returns the class of who asks, for an event.
func (sh *shape) classOf(g *Engine, e *event, who asker) class {
	if e.record == nil {
		return class{}
	}
	c := class{signedIn: who.signedIn, role: who.Role}
	for i, f := range e.store.limited {
		if who.reads(e.store.Entity, f, e.record) {
			c.visible |= 1 << i
		}
	}
	k := personalKey{e.store, who.signedIn, who.Role}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	personal, known := sh.personal[k]
	if !known {
		personal = sh.isPersonal(g, e.store, who)
		sh.personal[k] = personal
	}
	if personal {
		c.id = who.ID
	}
	return c
}

// isPersonal reports whether two viewers of one role may see different things behind a record that they both may read.
func (sh *shape) isPersonal(g *Engine, s *Store, who asker) bool {
	if len(s.limited) > 64 {
		return true
	}
	x := &renderer{engine: g, op: sh.op}
	for _, f := range graphql.CollectFields(x.op, sh.sel, []string{sh.typ}) {
		if f.Definition.Type.Name() == s.Name || f.Definition.Type.Name() == "Record" {
			if x.personal(s, f.Selections, who, true) {
				return true
			}
		}
	}
	return false
}

// personal reports whether what is selected of a record, which may be read for certain, depends on more of who asks than the role.
// It does not count the fields of the first record.
func (x *renderer) personal(s *Store, sel ast.SelectionSet, who asker, first bool) bool {
	for _, f := range graphql.CollectFields(x.op, sel, s.types) {
		d := s.edges[f.Name]
		if d == nil {
			if c := s.fields[f.Name]; c != nil && c.rule != nil && !first && !who.impersonal(c.rule) {
				return true
			}
			continue
		}
		to := x.engine.stores[d.to.Prefix]
		certain := !first && implies(s.rules[reading], d) // what is behind the first is asked for when it is rendered
		inner := f.Selections
		if !d.ToOne() {
			b := s.back(d)
			certain = !first && b != nil && to.rules[reading].follows(b)
			p, err := pageOf(f.ArgumentMap(x.op.Variables))
			if err != nil || p.deleted() != ExcludeDeleted && !who.impersonal(to.shows(p.deleted())) {
				return true
			}
			if len(f.Arguments) > 0 && (len(to.limited) > 0 || to.hides(who)) {
				return true // an order or a filter by what not everybody reads
			}
			if len(p.Where) > 0 {
				if m, err := to.compile(who, p.Where); err != nil || m.personal() {
					return true // a filter by what is behind
				}
			}
			inner = nil
			for _, e := range graphql.CollectFields(x.op, f.Selections, []string{to.Name + "Connection"}) {
				for _, n := range graphql.CollectFields(x.op, e.Selections, []string{to.Name + "Edge"}) {
					inner = append(inner, n.Selections...)
				}
			}
		}
		if !certain && !who.impersonal(to.rules[reading]) || x.personal(to, inner, who, false) {
			return true
		}
	}
	return false
}

// hides reports whether an edge of some record may lead to one that who asks may not read.
func (e *Entity) hides(who asker) bool {
	return slices.ContainsFunc(e.Edges, func(d Edge) bool { return d.field != nil && who.limit(e, d.field) != nil })
}

// rendered is records as a shape's events have them, by the field that selects them.
type rendered map[Node]map[string]part

type part struct {
	data Raw
	errs []*gqlerror.Error
}

// renderAll renders what the shape selects of records, as who asks may see it: with a statement for each selected edge of a level, and
// not for each of the records. It is nil where that did not end well.
func (g *Engine) renderAll(nodes map[*Store][]Node, sh *shape, who asker) (out rendered) {
	ctx, cancel := context.WithTimeout(who.context(context.Background()), loadTimeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil || ctx.Err() != nil { // which comes again, where it belongs, when they are rendered one by one
			out = nil
		}
	}()
	out = rendered{}
	for s, list := range nodes {
		for _, n := range list {
			out[n] = map[string]part{}
		}
		for _, f := range graphql.CollectFields(sh.op, sh.sel, []string{sh.typ}) {
			if len(f.Selections) == 0 { // of the event itself
				continue
			}
			x := &renderer{engine: g, op: sh.op}
			parts := x.records(ctx, s, list, false, f.Selections, func(i int) ast.Path {
				return ast.Path{ast.PathIndex(i), ast.PathName(sh.alias), ast.PathName(f.Alias)}
			})
			errs := make([][]*gqlerror.Error, len(list))
			for _, err := range x.errs {
				i := err.Path[0].(ast.PathIndex)
				err.Path = err.Path[1:]
				errs[i] = append(errs[i], err)
			}
			for i, n := range list {
				out[n][f.Alias] = part{parts[i], errs[i]}
			}
		}
	}
	return out
}

// render writes what the shape selects of the event, as who asks may see it.
func (g *Engine) render(e *event, sh *shape, who asker, prepared rendered) (a *Answer) {
	// It is for all that see the same, so not with the context of one.
	ctx, cancel := context.WithTimeout(who.context(context.Background()), loadTimeout)
	defer cancel()
	x := &renderer{engine: g, op: sh.op, path: ast.Path{ast.PathName(sh.alias)}}
	defer func() { // there is nobody above who could
		if v := recover(); v != nil {
			g.log.ErrorContext(ctx, "panic in a subscription", "error", v, "stack", string(debug.Stack()))
			a = &Answer{Data: []byte("null"), Errors: gqlerror.List{{Err: fmt.Errorf("panic: %v", v), Path: x.path}}}
		}
	}()
	const before, after = `{"data":`, `}`
	w := bytes.NewBuffer(make([]byte, 0, 512))
	w.WriteString(before + "{")
	writeKey(w, 0, sh.alias)
	x.event(ctx, w, e, sh, who, prepared)
	w.WriteString("}" + after)
	body := w.Bytes()
	a = &Answer{Body: body, Data: body[len(before) : len(body)-len(after)], Errors: x.errs}
	if len(x.errs) > 0 {
		a.Body = nil
	}
	return a
}

// event writes an event.
func (x *renderer) event(ctx context.Context, w *bytes.Buffer, e *event, sh *shape, who asker, prepared rendered) {
	w.WriteByte('{')
	for i, f := range graphql.CollectFields(x.op, sh.sel, []string{sh.typ}) {
		writeKey(w, i, f.Alias)
		switch f.Name {
		case "__typename":
			writeString(w, sh.typ)
		case "kind":
			writeString(w, e.kind)
		case "recordId":
			if e.store == nil {
				w.WriteString("null")
				continue
			}
			e.store.globalID(e.id).MarshalGQL(w)
		case "version":
			if e.version == 0 {
				w.WriteString("null")
			} else {
				w.WriteString(strconv.Itoa(e.version))
			}
		case "cursor":
			writeString(w, e.cursor)
		case "fields":
			w.WriteByte('[')
			if e.store != nil {
				for i, name := range e.store.publicNames(who, e.record, e.fields) {
					if i > 0 {
						w.WriteByte(',')
					}
					writeString(w, name)
				}
			}
			w.WriteByte(']')
		default: // the record
			if e.record == nil {
				w.WriteString("null")
				continue
			}
			if r, ready := prepared[e.record][f.Alias]; ready {
				x.errs = append(x.errs, r.errs...)
				r.data.MarshalGQL(w)
				continue
			}
			path := append(slices.Clip(x.path), ast.PathName(f.Alias))
			x.records(ctx, e.store, []Node{e.record}, false, f.Selections, func(int) ast.Path { return path })[0].MarshalGQL(w)
		}
	}
	w.WriteByte('}')
}

// limitedFields returns the fields that not everybody reads who may read the record.
func (e *Entity) limitedFields() (list []*Field) {
	for i := range e.Fields {
		if f := &e.Fields[i]; f.rule != nil {
			list = append(list, f)
		}
	}
	return list
}

// reach adds the entities of the records that a rule depends on, beside the one it is asked of.
func (r *rule) reach(prefixes map[string]struct{}) {
	switch r.kind {
	case entity.KindHas:
		prefixes[r.edge.to.Prefix] = struct{}{}
	case entity.KindThrough:
		if _, known := prefixes[r.edge.to.Prefix]; !known {
			prefixes[r.edge.to.Prefix] = struct{}{}
			r.needs().reach(prefixes)
		}
	}
	for _, part := range r.rules {
		part.reach(prefixes)
	}
}
