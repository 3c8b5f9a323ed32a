package record

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/internal/changelog"
)

// entry is a change in a record's history.
type entry struct {
	version int
	op      changelog.Op
	fields  []string
	old     json.RawMessage
	actor   string
	at      time.Time
}

// history is a page of what happened to a record, the latest first.
type history struct {
	*Store
	who      asker
	node     Node // as it is
	version  int
	entries  []entry
	more     bool // earlier changes are in the log
	later    bool // it is not the first page
	complete bool // the log has all changes of the record
	moved    int  // the last version that changed what decides who reads single fields
}

// History answers history(id): the changes of a record that the log still has, the latest first, for who may read it now, or may restore
// it where it is deleted; null for everybody else. What they were before is answered as far as who asks may read it now, and might since:
// where the field is for whom an edge leads to, nothing from before that edge was changed is.
func History(ctx context.Context, g *Engine, id ID, first *int, after *Cursor) (Raw, error) {
	s := g.stores[id.Prefix]
	if s == nil {
		return nil, badInput("id", "id: %s is not the id of a record", id)
	}
	limit := DefaultPage
	if first != nil {
		limit = *first
	}
	if limit < 0 || limit > MaxPage {
		return nil, badInput("first", "first must be from 0 to %d, not %d", MaxPage, limit)
	}
	below := 0
	if after != nil {
		var err error
		if below, err = id.version(*after); err != nil {
			return nil, badInput("after", "after: %v", err)
		}
	}
	h := &history{Store: s, who: askerOf(ctx), later: after != nil}
	q := newQuery(ctx)
	q.write("SELECT ", s.columns, " FROM ", quote(s.Table), " t WHERE t.id = ")
	q.arg(id.UUID)
	q.meets(s.shows(IncludeDeleted), s.Entity, "t")
	if err := s.each(ctx, q, nil, func(n Node) { h.node = n }); err != nil || h.node == nil {
		return nil, err
	}
	_, h.version = s.key(h.node)
	if err := h.read(ctx, id.UUID, cmp.Or(below, h.version+1), limit); err != nil {
		return nil, err
	}
	x := g.rendererOf(ctx)
	return x.answer(ctx, h.render(ctx, x))
}

// cursorOf returns the place behind a version in the history of a record.
func (id ID) cursorOf(version int) Cursor {
	b, _ := json.Marshal([]any{"history", id.String(), version}) // which always encodes
	return Cursor(base64.RawURLEncoding.EncodeToString(b))
}

// version reads what cursorOf returned.
func (id ID) version(c Cursor) (int, error) {
	b, err := base64.RawURLEncoding.DecodeString(string(c))
	if err != nil {
		return 0, fmt.Errorf("malformed cursor")
	}
	var (
		kind, of string
		version  int
	)
	parts := []any{&kind, &of, &version}
	if err := json.Unmarshal(b, &parts); err != nil || len(parts) != 3 || kind != "history" || of != id.String() || version < 1 {
		return 0, fmt.Errorf("the cursor is of another list")
	}
	return version, nil
}

// read reads the entries below a version, and what is said of the whole. An earlier record of the same id ended with a deletion.
func (h *history) read(ctx context.Context, id uuid.UUID, below, limit int) error {
	life := func(q *query) {
		q.write(" FROM changes c WHERE c.id = ")
		q.arg(id)
		q.write(" AND c.entity = ")
		q.arg(h.Prefix)
		q.write(" AND c.version <= ")
		q.arg(h.version)
		q.write(" AND c.seq > coalesce((SELECT max(d.seq) FROM changes d WHERE d.op = 'D' AND d.id = ")
		q.arg(id)
		q.write(" AND d.entity = ")
		q.arg(h.Prefix)
		q.write("), 0)")
	}
	q := &query{}
	q.write("SELECT count(DISTINCT c.version), coalesce(max(c.version) FILTER (WHERE c.fields && ")
	q.arg(h.deciding())
	q.write("::text[]), 0)")
	life(q)
	err := h.engine.scan(ctx, q, func(rows *sql.Rows) error {
		var known, moved int64
		err := rows.Scan(&known, &moved)
		h.complete, h.moved = int(known) == h.version, int(moved)
		return err
	})
	if err != nil {
		return fmt.Errorf("read history of %s: %w", h.globalID(id), err)
	}
	q = &query{}
	q.write("SELECT c.version, c.op::text, c.fields, c.old, coalesce(c.actor, ''), c.at")
	life(q)
	q.write(" AND c.version < ")
	q.arg(below)
	q.write(" ORDER BY c.version DESC, c.seq DESC LIMIT ")
	q.arg(limit + 1)
	err = h.engine.scan(ctx, q, func(rows *sql.Rows) error {
		var (
			e       entry
			version int64
			op      string
			old     []byte
		)
		if err := rows.Scan(&version, &op, &e.fields, &old, &e.actor, &e.at); err != nil {
			return err
		}
		e.version, e.op, e.old = int(version), changelog.Op(op[0]), old
		h.entries = append(h.entries, e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read history of %s: %w", h.globalID(id), err)
	}
	if h.more = len(h.entries) > limit; h.more {
		h.entries = h.entries[:limit]
	}
	return nil
}

// deciding lists the columns that decide who reads single fields.
func (h *history) deciding() []string {
	columns := []string{}
	var look func(r *rule)
	look = func(r *rule) {
		if r.edge != nil {
			columns = append(columns, r.edge.field.Column)
		}
		for _, part := range r.rules {
			look(part)
		}
	}
	for _, f := range h.limited {
		look(f.rule)
	}
	return columns
}

// reads reports whether who asks may read what an entry says of a column, or of an edge's links.
func (h *history) reads(e entry, column string) bool {
	f := h.column[column]
	if f == nil || f.rule == nil {
		return true
	}
	if holds, known := h.who.known(f.rule); known {
		return holds
	}
	return e.version > h.moved && h.who.reads(h.Entity, f, h.node)
}

// names returns the fields that an entry tells of.
func (h *history) names(e entry) []string {
	return h.publicNames(h.who, h.node, slices.DeleteFunc(slices.Clone(e.fields), func(c string) bool { return !h.reads(e, c) }))
}

func (h *history) kind(e entry) string {
	c := changelog.Change{Op: e.op, Fields: e.fields, Old: e.old}
	switch {
	case e.op == changelog.OpInsert:
		return createdKind
	case h.deletes(c):
		return deletedKind
	case h.deleted != nil && slices.Contains(e.fields, deletedColumn):
		return "RESTORED"
	}
	return updatedKind
}

// render writes what is selected of the page.
func (h *history) render(ctx context.Context, x *renderer) Raw {
	w := &bytes.Buffer{}
	w.WriteByte('{')
	for i, f := range graphql.CollectFields(x.op, x.sel, []string{"HistoryConnection"}) {
		writeKey(w, i, f.Alias)
		switch f.Name {
		case "__typename":
			writeString(w, "HistoryConnection")
		case "complete":
			w.WriteString(strconv.FormatBool(h.complete))
		case "pageInfo":
			h.pageInfo(w, x, f.Selections)
		case "edges":
			h.edgesOf(ctx, w, x, f)
		}
	}
	w.WriteByte('}')
	return w.Bytes()
}

func (h *history) cursor(i int) string {
	id, _ := h.key(h.node)
	return string(h.globalID(id).cursorOf(h.entries[i].version))
}

func (h *history) pageInfo(w *bytes.Buffer, x *renderer, sel ast.SelectionSet) {
	place := func(i int) {
		if len(h.entries) == 0 {
			w.WriteString("null")
			return
		}
		writeString(w, h.cursor(i))
	}
	w.WriteByte('{')
	for i, f := range graphql.CollectFields(x.op, sel, []string{"PageInfo"}) {
		writeKey(w, i, f.Alias)
		switch f.Name {
		case "__typename":
			writeString(w, "PageInfo")
		case "hasNextPage":
			w.WriteString(strconv.FormatBool(h.more))
		case "hasPreviousPage":
			w.WriteString(strconv.FormatBool(h.later))
		case "startCursor":
			place(0)
		case "endCursor":
			place(len(h.entries) - 1)
		}
	}
	w.WriteByte('}')
}

// edgesOf writes the entries.
func (h *history) edgesOf(ctx context.Context, w *bytes.Buffer, x *renderer, f graphql.CollectedField) {
	w.WriteByte('[')
	fields := graphql.CollectFields(x.op, f.Selections, []string{"HistoryEdge"})
	nodes := make([][]Raw, len(fields))
	for k, e := range fields {
		if e.Name == "node" {
			nodes[k] = h.nodes(ctx, x, e, func(i int) ast.Path {
				return append(slices.Clip(x.path), ast.PathName(f.Alias), ast.PathIndex(i), ast.PathName(e.Alias))
			})
		}
	}
	for i := range h.entries {
		if i > 0 {
			w.WriteByte(',')
		}
		w.WriteByte('{')
		for k, e := range fields {
			writeKey(w, k, e.Alias)
			switch e.Name {
			case "__typename":
				writeString(w, "HistoryEdge")
			case "cursor":
				writeString(w, h.cursor(i))
			case "node":
				nodes[k][i].MarshalGQL(w)
			}
		}
		w.WriteByte('}')
	}
	w.WriteByte(']')
}

// nodes renders what is selected of each entry.
func (h *history) nodes(ctx context.Context, x *renderer, f graphql.CollectedField, paths func(int) ast.Path) []Raw {
	fields := graphql.CollectFields(x.op, f.Selections, []string{"HistoryEntry"})
	column := make([][]Raw, len(fields))
	for k := range fields {
		switch fields[k].Name {
		case "actor":
			column[k] = h.actors(ctx, x, &fields[k], paths)
		case "old":
			column[k] = h.olds(ctx, x, &fields[k], paths)
		}
	}
	out := make([]Raw, len(h.entries))
	for i, e := range h.entries {
		w := &bytes.Buffer{}
		w.WriteByte('{')
		for k, f := range fields {
			writeKey(w, k, f.Alias)
			switch f.Name {
			case "__typename":
				writeString(w, "HistoryEntry")
			case "version":
				w.WriteString(strconv.Itoa(e.version))
			case "kind":
				writeString(w, h.kind(e))
			case "at":
				graphql.MarshalTime(e.at.UTC()).MarshalGQL(w)
			case "fields":
				w.WriteByte('[')
				for n, name := range h.names(e) {
					if n > 0 {
						w.WriteByte(',')
					}
					writeString(w, name)
				}
				w.WriteByte(']')
			default:
				column[k][i].MarshalGQL(w)
			}
		}
		w.WriteByte('}')
		out[i] = w.Bytes()
	}
	return out
}

// actors renders who made each change, as far as who asks may read them.
func (h *history) actors(ctx context.Context, x *renderer, f *graphql.CollectedField, paths func(int) ast.Path) []Raw {
	out := make([]Raw, len(h.entries))
	e := h.engine.entities["User"]
	if e == nil {
		return out
	}
	users := h.engine.stores[e.Prefix]
	ids := make([]uuid.UUID, len(h.entries))
	var wanted []uuid.UUID
	for i, e := range h.entries {
		if id, err := uuid.Parse(e.actor); err == nil { // at the command line it may be anything
			ids[i] = id
			wanted = append(wanted, id)
		}
	}
	slices.SortFunc(wanted, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	found, err := users.byID(ctx, slices.Compact(wanted))
	if err != nil {
		for i := range h.entries {
			x.fail(append(paths(i), ast.PathName(f.Alias)), f, err)
		}
		return out
	}
	var (
		there []Node
		at    []int
	)
	for i, id := range ids {
		if n := found[id]; n != nil {
			there, at = append(there, n), append(at, i)
		}
	}
	for i, r := range x.records(ctx, users, there, true, f.Selections, func(i int) ast.Path { return append(paths(at[i]), ast.PathName(f.Alias)) }) {
		out[at[i]] = r
	}
	return out
}

// former is what an entry says of how the record was.
type former struct {
	node   reflect.Value
	values map[string]json.RawMessage
	links  links
}

// olds renders what each change replaced, as far as who asks may read it.
func (h *history) olds(ctx context.Context, x *renderer, f *graphql.CollectedField, paths func(int) ast.Path) []Raw {
	out := make([]Raw, len(h.entries))
	olds := make([]former, len(h.entries))
	ids := map[*Entity]map[uuid.UUID]struct{}{} // of the records that edges led to
	want := func(e *Entity, id uuid.UUID) {
		if ids[e] == nil {
			ids[e] = map[uuid.UUID]struct{}{}
		}
		ids[e][id] = struct{}{}
	}
	failed := func(err error) []Raw {
		for i := range h.entries {
			x.fail(append(paths(i), ast.PathName(f.Alias)), f, err)
			out[i] = Raw("[]")
		}
		return out
	}
	for i, e := range h.entries {
		if e.old == nil {
			continue
		}
		var (
			err error
			n   = h.model.New()
			o   = &olds[i]
		)
		if o.values, err = oldValues(e.old); err == nil {
			o.links, err = h.restore(n, e.old)
		}
		if err != nil {
			return failed(fmt.Errorf("read what %s was before version %d: %w", h.Name, e.version, err))
		}
		o.node = reflect.ValueOf(n)
		for k := range h.Edges {
			d := &h.Edges[k]
			if d.ToOne() {
				if id, ok := d.field.value(o.node).(uuid.UUID); ok && !d.Hidden {
					want(d.to, id)
				}
				continue
			}
			for _, id := range slices.Concat(o.links[d.Name].Added, o.links[d.Name].Removed) {
				want(d.to, id)
			}
		}
	}
	readable := map[*Entity]map[uuid.UUID]Node{}
	for e, set := range ids {
		list := make([]uuid.UUID, 0, len(set))
		for id := range set {
			list = append(list, id)
		}
		var err error
		if readable[e], err = h.engine.stores[e.Prefix].byID(ctx, list); err != nil {
			return failed(err)
		}
	}
	sel := graphql.CollectFields(x.op, f.Selections, []string{"OldValue"})
	for i, e := range h.entries {
		w := &bytes.Buffer{}
		w.WriteByte('[')
		if e.old != nil {
			first := true
			for _, column := range slices.Sorted(slices.Values(e.fields)) {
				name, public := h.publicName(column)
				if !public || !h.reads(e, column) {
					continue
				}
				value, ok := h.oldValue(olds[i], column, readable)
				if !ok {
					continue
				}
				if !first {
					w.WriteByte(',')
				}
				first = false
				w.WriteByte('{')
				for k, f := range sel {
					writeKey(w, k, f.Alias)
					switch f.Name {
					case "__typename":
						writeString(w, "OldValue")
					case "field":
						writeString(w, name)
					case "value":
						value.MarshalGQL(w)
					}
				}
				w.WriteByte('}')
			}
		}
		w.WriteByte(']')
		out[i] = w.Bytes()
	}
	return out
}

// oldValue returns what a column, or an edge, was; not ok where the log does not have it, or it leads to what may not be read.
func (h *history) oldValue(o former, column string, readable map[*Entity]map[uuid.UUID]Node) (value Raw, ok bool) {
	w := &bytes.Buffer{}
	if d := h.edges[column]; d != nil && !d.ToOne() {
		change, logged := o.links[column]
		if !logged {
			return nil, false
		}
		w.WriteString(`{"added":`)
		writeIDs(w, d.to, change.Added, readable[d.to])
		w.WriteString(`,"removed":`)
		writeIDs(w, d.to, change.Removed, readable[d.to])
		w.WriteByte('}')
		return w.Bytes(), true
	}
	f := h.column[column]
	if _, logged := o.values[column]; f == nil || !logged {
		return nil, false
	}
	v := f.value(o.node)
	if id, leads := v.(uuid.UUID); leads && f.edge != nil && readable[f.edge.to][id] == nil {
		return nil, false
	}
	if f.write(w, v) != nil { // NaN, which JSON cannot say
		return Raw("null"), true
	}
	return w.Bytes(), true
}

// writeIDs writes the ids of those records that are readable.
func writeIDs(w *bytes.Buffer, e *Entity, ids []uuid.UUID, readable map[uuid.UUID]Node) {
	w.WriteByte('[')
	first := true
	for _, id := range ids {
		if readable[id] == nil {
			continue
		}
		if !first {
			w.WriteByte(',')
		}
		first = false
		e.globalID(id).MarshalGQL(w)
	}
	w.WriteByte(']')
}
