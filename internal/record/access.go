package record

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"godstack/internal/changelog"
	"godstack/internal/entity"
	"godstack/internal/viewer"
)

// asker is who asks: a viewer, or nobody.
type asker struct {
	viewer.Viewer
	signedIn bool
	deleted  ShowDeleted // of a stream, of a list, that deleted records are asked for; empty where they are not
}

func askerOf(ctx context.Context) asker {
	v, ok := viewer.FromContext(ctx)
	// Two sessions of a user are one asker.
	return asker{Viewer: viewer.Viewer{ID: v.ID, Role: v.Role}, signedIn: ok}
}

// rule is an entity.Rule whose names are resolved.
type rule struct {
	kind   entity.RuleKind
	role   string
	edge   *Edge
	field  *Field           // live, dead: the time of deletion
	op     entity.Operation // through: whose rule of the other entity; empty for read
	part   *rule            // through: the part of that rule that is meant; nil for all of it
	custom *CustomRule
	rules  []*rule
}

var anyone = &rule{kind: entity.KindAnyone}

// CustomRule is a rule written in Go: one meaning, told twice.
type CustomRule struct {
	// Where writes the rule as an SQL condition on a row. A null counts as false.
	Where func(p *Predicate, v viewer.Viewer, signedIn bool)
	// Holds decides it in memory, for a record that Where would be asked about. Optional: without it the database is asked, with
	// a statement for each viewer that changes are delivered to.
	Holds func(ctx context.Context, n Node, v viewer.Viewer, signedIn bool) (bool, error)
}

// Predicate is where a CustomRule writes its condition to.
type Predicate struct{ w writer }

// customRow is the row's name in a custom rule: one that no sub-query of such a rule takes by chance.
const customRow = "godstack_row"

// Write appends SQL.
func (p *Predicate) Write(sql string) { p.w.write(sql) }

// Arg appends a placeholder for a value that pgx can send.
func (p *Predicate) Arg(v any) { p.w.arg(v) }

// Column appends a column of the row, by its name in the table. It is the only way to name the row, also in sub-queries.
func (p *Predicate) Column(name string) { p.w.write(customRow, ".", quote(name)) }

// resolve finds what a rule names. The zero Rule is for administrators.
func (e *Entity) resolve(r entity.Rule, custom map[string]CustomRule) (*rule, error) {
	out := &rule{kind: r.Kind, op: r.Op}
	switch r.Kind {
	case "":
		return &rule{kind: entity.KindRole, role: viewer.Admin}, nil
	case entity.KindAnyone, entity.KindSignedIn, entity.KindSelf:
	case entity.KindRole:
		out.role = r.Name
	case entity.KindIs, entity.KindHas, entity.KindThrough:
		if out.edge = e.edges[r.Name]; out.edge == nil {
			return nil, fmt.Errorf("record: a rule of %s names its edge %s, which it does not have", e.Name, r.Name)
		}
	case entity.KindCustom:
		c, ok := custom[r.Name]
		if !ok || c.Where == nil {
			return nil, fmt.Errorf("record: %s has the custom rule %s, which Config.Rules does not supply", e.Name, r.Name)
		}
		out.custom = &c
	case entity.KindAny, entity.KindAll:
		for _, part := range r.Rules {
			p, err := e.resolve(part, custom)
			if err != nil {
				return nil, err
			}
			out.rules = append(out.rules, p)
		}
	default:
		return nil, fmt.Errorf("record: a rule of %s has the unknown kind %q", e.Name, r.Kind)
	}
	return out, nil
}

// protect resolves the entity's rules, or, where the engine is unrestricted, has everybody meet them.
func (e *Entity) protect(c *Config) (err error) {
	e.rules = map[entity.Operation]*rule{}
	declared := map[entity.Operation]entity.Rule{
		reading: e.Access.Read, entity.Create: e.Access.Create, entity.Update: e.Access.Update, entity.Delete: e.Access.Delete,
	}
	if e.SoftDelete {
		declared[restoring] = e.Access.Delete
		if e.Restore != nil {
			declared[restoring] = *e.Restore
		}
	}
	for op, r := range declared {
		if c.Unrestricted {
			e.rules[op] = anyone
		} else if e.rules[op], err = e.resolve(r, c.Rules); err != nil {
			return err
		}
	}
	for i := range e.Fields {
		f := &e.Fields[i]
		if f.ReadableBy != nil && !c.Unrestricted {
			if f.rule, err = e.resolve(*f.ReadableBy, nil); err != nil {
				return err
			}
		}
	}
	e.sees(e.rules[reading], e.rules[restoring])
	e.limited = e.limitedFields()
	e.needs = map[entity.Operation]*rule{}
	for op, r := range e.rules {
		e.note(r)
		if e.needs[op] = r; op != reading {
			e.needs[op] = &rule{kind: entity.KindAll, rules: []*rule{e.rules[reading], r}}
		}
	}
	if e.SoftDelete {
		e.needs[restoring] = e.seeing[OnlyDeleted]
	}
	return nil
}

// note takes down what a rule of the entity looks at.
func (e *Entity) note(r *rule) {
	switch d := r.edge; {
	case r.kind == entity.KindCustom:
		for i := range e.Fields {
			e.decides[e.Fields[i].Column] = true
		}
		for i := range e.Edges {
			e.decides[e.Edges[i].Name] = true
		}
	case r.field != nil:
		e.decides[r.field.Column] = true
	case d == nil:
	case d.ToOne():
		e.decides[d.field.Column] = true
	case d.Through == "":
		d.to.decides[d.From] = true
	default: // the log has the links at the record that declares the edge, which may be either
		e.decides[d.Name] = true
		for i := range d.to.Edges {
			if back := &d.to.Edges[i]; back.Through == d.Through {
				d.to.decides[back.Name] = true
			}
		}
	}
	for _, part := range r.rules {
		e.note(part)
	}
}

// mayDecide reports whether a change of a record of the entity may change who reads another one.
func (e *Entity) mayDecide(c changelog.Change) bool {
	return c.Op != changelog.OpUpdate || slices.ContainsFunc(c.Fields, func(name string) bool { return e.decides[name] })
}

// reading is what Rule.Op is for read.
const reading entity.Operation = ""

// need returns what the operation needs: its own rule, and that the record may be read.
func (e *Entity) need(op entity.Operation) *rule { return e.needs[op] }

// needs returns what a through asks of the other record.
func (r *rule) needs() *rule {
	if r.part != nil {
		return r.part
	}
	return r.edge.to.need(r.op)
}

// mostAlternatives bounds what a rule is taken apart to.
const mostAlternatives = 8

// alternatives takes a rule apart: it holds where one of them does, and in none is there an Any, unless they were more than
// mostAlternatives. Parts that hold for no record are left out.
func (a asker) alternatives(r *rule) []*rule {
	if holds, known := a.known(r); known && !holds {
		return nil
	}
	var out []*rule
	switch r.kind {
	case entity.KindAny:
		for _, part := range r.rules {
			out = append(out, a.alternatives(part)...)
		}
	case entity.KindThrough:
		for _, part := range a.alternatives(r.needs()) {
			out = append(out, &rule{kind: entity.KindThrough, edge: r.edge, part: part})
		}
	case entity.KindAll:
		out = []*rule{{kind: entity.KindAll}}
		for _, part := range r.rules {
			var next []*rule
			for _, p := range a.alternatives(part) {
				for _, o := range out {
					next = append(next, &rule{kind: entity.KindAll, rules: append(slices.Clip(o.rules), p)})
				}
			}
			if out = next; len(out) > mostAlternatives {
				break
			}
		}
	default:
		return []*rule{r}
	}
	if len(out) > mostAlternatives {
		return []*rule{r}
	}
	return out
}

// known decides a rule for all records at once, as far as who asks is enough for that.
func (a asker) known(r *rule) (holds, known bool) { return a.decided(r, false) }

// decided is known; with alive, of records that are not deleted, and lead to none.
func (a asker) decided(r *rule, alive bool) (holds, known bool) {
	switch r.kind {
	case kindLive:
		return true, alive
	case entity.KindAnyone:
		return true, true
	case entity.KindSignedIn:
		return a.signedIn, true
	case entity.KindRole:
		return a.signedIn && a.Is(r.role), true
	case entity.KindSelf, entity.KindIs, entity.KindHas:
		return false, !a.signedIn
	case entity.KindThrough:
		holds, known = a.decided(r.needs(), alive)
		if holds && known { // where the edge is empty it does not hold
			known = !r.edge.field.Nullable
		}
		return holds, known
	case entity.KindAny, entity.KindAll:
		all := r.kind == entity.KindAll
		undecided := false
		for _, part := range r.rules {
			h, k := a.decided(part, alive)
			if k && h != all {
				return h, true
			}
			undecided = undecided || !k
		}
		return all, !undecided
	}
	return false, false
}

// impersonal reports whether a rule holds for the same records whoever asks, of those who are signed in and have the role of a.
func (a asker) impersonal(r *rule) bool {
	if _, known := a.known(r); known || r.kind == kindLive || r.kind == kindDead {
		return true
	}
	return (r.kind == entity.KindAny || r.kind == entity.KindAll) && !slices.ContainsFunc(r.rules, func(part *rule) bool { return !a.impersonal(part) })
}

// writer takes SQL: a query of ours, or a predicate of ent's.
type writer interface {
	write(parts ...string)
	arg(v any)
}

// entWriter writes into a predicate of ent.
type entWriter struct{ *sql.Builder }

func (w entWriter) write(parts ...string) {
	for _, p := range parts {
		w.WriteString(p)
	}
}

func (w entWriter) arg(v any) { w.Arg(v) }

// compiler writes rules as SQL.
type compiler struct {
	w     writer
	who   asker
	bulk  bool // for a whole table: sub-queries that do not depend on the row, so that the planner may begin with them
	depth int  // of sub-queries, which names their tables
}

// rule writes the condition that r holds for the row t of e.
func (c compiler) rule(r *rule, e *Entity, t string) {
	if holds, known := c.who.known(r); known {
		c.w.write(strconv.FormatBool(holds))
		return
	}
	switch r.kind {
	case kindLive:
		c.w.write(t, ".", quote(r.field.Column), " IS NULL")
	case kindDead:
		c.w.write(t, ".", quote(r.field.Column), " IS NOT NULL")
	case entity.KindSelf:
		c.w.write(t, ".id = ")
		c.w.arg(c.who.ID)
	case entity.KindIs:
		c.w.write(t, ".", quote(r.edge.field.Column), " = ")
		c.w.arg(c.who.ID)
	case entity.KindHas:
		c.has(r.edge, t)
	case entity.KindThrough:
		c.through(r, t)
	case entity.KindCustom:
		c.w.write("EXISTS (SELECT FROM (SELECT ", t, ".*) ", customRow, " WHERE ")
		r.custom.Where(&Predicate{c.w}, c.who.Viewer, c.who.signedIn)
		c.w.write(")")
	case entity.KindAny, entity.KindAll:
		var parts []*rule
		for _, part := range r.rules {
			if _, known := c.who.known(part); !known { // the others do not change the result
				parts = append(parts, part)
			}
		}
		if c.bulk && r.kind == entity.KindAny && len(parts) > 1 {
			c.union(parts, e, t)
			return
		}
		word := " OR "
		if r.kind == entity.KindAll {
			word = " AND "
		}
		c.w.write("(")
		for i, part := range parts {
			if i > 0 {
				c.w.write(word)
			}
			c.rule(part, e, t)
		}
		c.w.write(")")
	}
}

// below returns the compiler of a sub-query and the name of its table.
func (c compiler) below() (compiler, string) {
	c.depth++
	return c, "r" + strconv.Itoa(c.depth)
}

// users returns the table that tells to which users a to-many edge leads, and its column of their ids.
func (d *Edge) users() (table, column string) {
	if d.Through == "" {
		return d.to.Table, "id"
	}
	return d.Through, quote(d.Ref)
}

func (c compiler) has(d *Edge, t string) {
	_, r := c.below()
	table, ref := d.users()
	if c.bulk {
		c.w.write(t, ".id IN (SELECT ", r, ".", quote(d.From), " FROM ", quote(table), " ", r, " WHERE ", r, ".", ref, " = ")
	} else {
		c.w.write("EXISTS (SELECT FROM ", quote(table), " ", r, " WHERE ", r, ".", quote(d.From), " = ", t, ".id AND ", r, ".", ref, " = ")
	}
	c.w.arg(c.who.ID)
	c.w.write(")")
}

func (c compiler) through(r *rule, t string) {
	inner, a := c.below()
	to, column := r.edge.to, t+"."+quote(r.edge.field.Column)
	need := r.needs()
	if holds, known := c.who.known(need); holds && known {
		c.w.write(column, " IS NOT NULL")
		return
	}
	if c.bulk {
		c.w.write(column, " IN (SELECT ", a, ".id FROM ", quote(to.Table), " ", a, " WHERE ")
	} else {
		c.w.write("EXISTS (SELECT FROM ", quote(to.Table), " ", a, " WHERE ", a, ".id = ", column, " AND ")
	}
	inner.rule(need, to, a)
	c.w.write(")")
}

// union has each part find its rows by an index of its own.
func (c compiler) union(parts []*rule, e *Entity, t string) {
	inner, a := c.below()
	c.w.write(t, ".id IN (")
	for i, part := range parts {
		if i > 0 {
			c.w.write(" UNION ALL ")
		}
		c.w.write("SELECT ", a, ".id FROM ", quote(e.Table), " ", a, " WHERE ")
		inner.rule(part, e, a)
	}
	c.w.write(")")
}

// may writes " AND", and that who asks may read the row t; nothing where they may read all.
func (q *query) may(e *Entity, t string) { q.meets(e.rules[reading], e, t) }

// meets writes " AND", and that r holds for the row t; nothing where it does for all.
func (q *query) meets(r *rule, e *Entity, t string) {
	if holds, known := q.who.known(r); holds && known {
		return
	}
	q.write(" AND ")
	compiler{w: q, who: q.who}.rule(r, e, t)
}

// column writes a column as who asks may read it: a value that they may not is null.
func (q *query) column(e *Entity, t string, f *Field) {
	col := t + "." + quote(f.Column)
	r := q.who.limit(e, f)
	if r == nil {
		q.write(col)
		return
	}
	q.write("CASE WHEN ")
	compiler{w: q, who: q.who}.rule(r, e, t)
	q.write(" THEN ", col, " END")
}

// limit returns the rule that decides for each record whether who asks may read a field of it; nil if they may always. The id
// of a record that may not be read may not be read either, unless that is for its deletion alone.
func (a asker) limit(e *Entity, f *Field) *rule {
	r := f.rule
	if r == nil && f.edge != nil && !implies(e.rules[reading], f.edge) {
		if holds, known := a.decided(f.edge.to.rules[reading], true); holds && known {
			return nil
		}
		r = &rule{kind: entity.KindThrough, edge: f.edge}
	}
	if r == nil {
		return nil
	}
	if holds, known := a.known(r); holds && known {
		return nil
	}
	return r
}

// follows reports whether r holds for each record from which the edge leads to one that may be read.
func (r *rule) follows(d *Edge) bool {
	switch r.kind {
	case entity.KindThrough:
		return r.edge == d && r.op == reading
	case entity.KindAny:
		return slices.ContainsFunc(r.rules, func(part *rule) bool { return part.follows(d) })
	case entity.KindAll:
		return !slices.ContainsFunc(r.rules, func(part *rule) bool { return !part.follows(d) })
	}
	return false
}

// back returns the to-one edge that leads from the records of a to-many edge back to e, nil if there is none.
func (e *Entity) back(d *Edge) *Edge {
	for i := range d.to.Edges {
		if b := &d.to.Edges[i]; d.Through == "" && b.ToOne() && b.to == e && b.field.Column == d.From {
			return b
		}
	}
	return nil
}

// implies reports whether whoever meets r may read what the edge leads to.
func implies(r *rule, d *Edge) bool {
	if r.kind == entity.KindAll {
		return slices.ContainsFunc(r.rules, func(part *rule) bool { return implies(part, d) })
	}
	return r.kind == entity.KindThrough && r.edge == d
}

// reads reports whether who asks may read a field of a record that they may read. It needs nothing but the record: rules of
// fields are made so. For the id behind an edge it does not speak.
func (a asker) reads(e *Entity, f *Field, n Node) bool {
	return f.rule == nil || a.local(f.rule, e, reflect.ValueOf(n))
}

func (a asker) local(r *rule, e *Entity, n reflect.Value) bool {
	if holds, known := a.known(r); known {
		return holds
	}
	switch r.kind {
	case kindLive:
		return r.field.value(n) == nil
	case kindDead:
		return r.field.value(n) != nil
	case entity.KindSelf:
		return e.id.value(n) == any(a.ID)
	case entity.KindIs:
		return r.edge.field.value(n) == any(a.ID)
	case entity.KindAny:
		return slices.ContainsFunc(r.rules, func(part *rule) bool { return a.local(part, e, n) })
	case entity.KindAll:
		return !slices.ContainsFunc(r.rules, func(part *rule) bool { return !a.local(part, e, n) })
	}
	return false
}

// earlier is what decide has to know of a record that is not as the database has it.
type earlier struct {
	links []links                                                  // what has been done to its edges since, from the newest on
	gone  func(context.Context, recordKey) (Node, *earlier, error) // finds a record that is not there any more; nil where there was none
}

// question is of a record in memory: for which askers does a rule hold?
type question struct {
	node Node
	who  []asker
	past *earlier // nil for a record as it is
}

// rest is what is left of the question where only some of its askers are of interest.
func (q question) rest(open []int) question { return question{q.node, pick(q.who, open), q.past} }

// decide answers questions about r: for each, for which of its askers it holds. What the records do not tell is read once for all of them.
func (s *Store) decide(ctx context.Context, r *rule, list []question) ([][]bool, error) {
	out := make([][]bool, len(list))
	open := make([][]int, len(list)) // the askers of each that nothing is known of yet
	asked := false
	for i, q := range list {
		out[i] = make([]bool, len(q.who))
		for k, a := range q.who {
			if holds, known := a.known(r); known {
				out[i][k] = holds
			} else {
				open[i] = append(open[i], k)
			}
		}
		asked = asked || len(open[i]) > 0
	}
	if !asked {
		return out, nil
	}
	switch r.kind {
	case entity.KindSelf, entity.KindIs, kindLive, kindDead:
		for i, q := range list {
			row := reflect.ValueOf(q.node)
			for _, k := range open[i] {
				out[i][k] = q.who[k].local(r, s.Entity, row)
			}
		}
		return out, nil
	case entity.KindHas:
		return out, s.decideHas(ctx, r, list, open, out)
	case entity.KindThrough:
		return out, s.decideThrough(ctx, r, list, open, out)
	case entity.KindCustom:
		return out, s.decideCustom(ctx, r, list, open, out)
	}
	all := r.kind == entity.KindAll
	for i := range list {
		for _, k := range open[i] {
			out[i][k] = all
		}
	}
	for _, part := range r.rules {
		var (
			rest []question
			at   []int
		)
		for i, q := range list {
			if len(open[i]) > 0 {
				rest, at = append(rest, q.rest(open[i])), append(at, i)
			}
		}
		if len(rest) == 0 {
			break
		}
		got, err := s.decide(ctx, part, rest)
		if err != nil {
			return nil, err
		}
		for n, i := range at {
			var undecided []int
			for k, holds := range got[n] {
				if holds != all {
					out[i][open[i][k]] = !all
				} else {
					undecided = append(undecided, open[i][k])
				}
			}
			open[i] = undecided
		}
	}
	return out, nil
}

// decideHas is decide for the open askers, where r asks whether an edge leads to them.
func (s *Store) decideHas(ctx context.Context, r *rule, list []question, open [][]int, out [][]bool) error {
	pairs := map[[2]uuid.UUID]bool{}
	for i, q := range list {
		id, _ := s.key(q.node)
		for _, k := range open[i] {
			pairs[[2]uuid.UUID{id, q.who[k].ID}] = false
		}
	}
	if err := s.members(ctx, r.edge, pairs); err != nil {
		return err
	}
	for i, q := range list {
		id, _ := s.key(q.node)
		was := map[uuid.UUID]bool{} // where it is not as it is
		if q.past != nil {
			for _, l := range q.past.links {
				for _, u := range l[r.edge.Name].Added {
					was[u] = false
				}
				for _, u := range l[r.edge.Name].Removed {
					was[u] = true
				}
			}
		}
		for _, k := range open[i] {
			u := q.who[k].ID
			there, other := was[u]
			out[i][k] = there || !other && pairs[[2]uuid.UUID{id, u}]
		}
	}
	return nil
}

// decideThrough is decide for the open askers, where r asks about the record that an edge leads to.
func (s *Store) decideThrough(ctx context.Context, r *rule, list []question, open [][]int, out [][]bool) error {
	to := s.engine.stores[r.edge.to.Prefix]
	var ids []uuid.UUID
	of := map[uuid.UUID][]int{}  // questions, by the record that theirs leads to
	gone := map[uuid.UUID]bool{} // some of them are about the past
	for i, q := range list {
		if len(open[i]) == 0 {
			continue
		}
		if id, ok := r.edge.field.value(reflect.ValueOf(q.node)).(uuid.UUID); ok {
			if of[id] == nil {
				ids = append(ids, id)
			}
			of[id] = append(of[id], i)
			gone[id] = gone[id] || q.past != nil
		}
	}
	found, err := to.load(ctx, ids)
	if err != nil {
		return err
	}
	var (
		parents []question
		places  []map[asker]int // of the askers of each; nil where it has those of one question, in their order
		keys    []uuid.UUID
	)
	for _, id := range ids {
		p := question{node: found[id]}
		if p.node == nil && gone[id] {
			i := slices.IndexFunc(of[id], func(i int) bool { return list[i].past != nil })
			if p.node, p.past, err = list[of[id][i]].past.gone(ctx, recordKey{to.Prefix, id}); err != nil {
				return err
			}
		}
		if p.node == nil {
			continue
		}
		var place map[asker]int
		if one := of[id][0]; len(of[id]) == 1 {
			p.who = pick(list[one].who, open[one])
		} else {
			place = map[asker]int{}
			for _, i := range of[id] {
				for _, k := range open[i] {
					a := list[i].who[k]
					if _, twice := place[a]; !twice {
						place[a] = len(p.who)
						p.who = append(p.who, a)
					}
				}
			}
		}
		parents, places, keys = append(parents, p), append(places, place), append(keys, id)
	}
	got, err := to.decide(ctx, to.need(r.op), parents)
	if err != nil {
		return err
	}
	for n, id := range keys {
		for _, i := range of[id] {
			if parents[n].past != nil && list[i].past == nil {
				continue // what is, leads to nothing that was
			}
			for j, k := range open[i] {
				if places[n] != nil {
					j = places[n][list[i].who[k]]
				}
				out[i][k] = got[n][j]
			}
		}
	}
	return nil
}

// decideCustom is decide for the open askers of a rule written in Go.
func (s *Store) decideCustom(ctx context.Context, r *rule, list []question, open [][]int, out [][]bool) error {
	if r.custom.Holds != nil {
		for i, q := range list {
			for _, k := range open[i] {
				var err error
				if out[i][k], err = r.custom.Holds(ctx, q.node, q.who[k].Viewer, q.who[k].signedIn); err != nil {
					return err
				}
			}
		}
		return nil
	}
	type place struct {
		id   uuid.UUID
		i, k int
	}
	asked := map[asker][]place{}
	for i, q := range list {
		id, _ := s.key(q.node)
		for _, k := range open[i] {
			asked[q.who[k]] = append(asked[q.who[k]], place{id, i, k})
		}
	}
	for a, places := range asked {
		ids := make([]uuid.UUID, len(places))
		for n, p := range places {
			ids[n] = p.id
		}
		q := &query{}
		q.write("SELECT t.id FROM ", quote(s.Table), " t WHERE t.id = ANY(")
		q.arg(ids)
		q.write(") AND ")
		compiler{w: q, who: a}.rule(r, s.Entity, "t")
		holds := map[uuid.UUID]bool{}
		err := s.engine.scan(ctx, q, func(rows *sql.Rows) error {
			var id uuid.UUID
			err := rows.Scan(&id)
			holds[id] = true
			return err
		})
		if err != nil {
			return err
		}
		for _, p := range places {
			out[p.i][p.k] = holds[p.id]
		}
	}
	return nil
}

// looksAt reports whether r is about where the edge leads.
func (r *rule) looksAt(d *Edge) bool {
	return r.edge == d || slices.ContainsFunc(r.rules, func(part *rule) bool { return part.looksAt(d) })
}

// reaches reports whether r depends on more than the record itself and who asks.
func (r *rule) reaches() bool {
	switch r.kind {
	case entity.KindHas, entity.KindThrough:
		return true
	}
	return slices.ContainsFunc(r.rules, (*rule).reaches)
}

// asks reports whether deciding r takes more than the record itself.
func (r *rule) asks() bool {
	return r.kind == entity.KindCustom || r.reaches() || slices.ContainsFunc(r.rules, (*rule).asks)
}

// goes reports whether r goes through another record: which one, the record tells.
func (r *rule) goes() bool {
	return r.kind == entity.KindThrough || slices.ContainsFunc(r.rules, (*rule).goes)
}

// moved reports whether a change of the record may have r go through another one than before.
func (r *rule) moved(c changelog.Change) bool {
	if r.kind == entity.KindThrough {
		return c.Op == changelog.OpInsert || slices.Contains(c.Fields, r.edge.field.Column)
	}
	return slices.ContainsFunc(r.rules, func(part *rule) bool { return part.moved(c) })
}

// reliance is of a viewer on what lets them read a record: keys gets the other records that may change that.
type reliance struct {
	who  asker
	node Node // nil: what does not depend on the record is wanted alone
	keys map[recordKey]struct{}
}

// dependencies adds to each the records whose changes may change what r is for the viewer: those that it goes through, and the viewer's
// own, which logs the links of the edges that users declare. A statement a level reads those that it goes through.
func (s *Store) dependencies(ctx context.Context, r *rule, list []reliance) error {
	switch r.kind {
	case entity.KindHas:
		for _, l := range list {
			l.keys[recordKey{r.edge.to.Prefix, l.who.ID}] = struct{}{}
		}
	case entity.KindThrough:
		var (
			to   = s.engine.stores[r.edge.to.Prefix]
			need = to.need(r.op)
			ids  []uuid.UUID
			of   = map[uuid.UUID][]reliance{}
			next []reliance
		)
		for _, l := range list {
			if l.node == nil {
				continue
			}
			if id, ok := r.edge.field.value(reflect.ValueOf(l.node)).(uuid.UUID); ok {
				l.keys[recordKey{to.Prefix, id}] = struct{}{}
				if of[id] == nil {
					ids = append(ids, id)
				}
				of[id] = append(of[id], l)
			}
		}
		var found map[uuid.UUID]Node
		if need.goes() {
			var err error
			if found, err = to.load(ctx, ids); err != nil {
				return err
			}
		}
		for _, id := range ids {
			for _, l := range of[id] {
				next = append(next, reliance{l.who, found[id], l.keys})
			}
		}
		if len(next) > 0 {
			return to.dependencies(ctx, need, next)
		}
	}
	for _, part := range r.rules {
		if err := s.dependencies(ctx, part, list); err != nil {
			return err
		}
	}
	return nil
}

// reliances are those of several entities' records.
type reliances map[*Store][]reliance

func (m *reliances) add(s *Store, l reliance) {
	if *m == nil {
		*m = reliances{}
	}
	(*m)[s] = append((*m)[s], l)
}

// find has the dependencies of all added.
func (m reliances) find(ctx context.Context) error {
	for s, list := range m {
		if err := s.dependencies(ctx, s.rules[reading], list); err != nil {
			return err
		}
	}
	return nil
}

func pick(who []asker, at []int) []asker {
	out := make([]asker, len(at))
	for k, i := range at {
		out[k] = who[i]
	}
	return out
}

// maxPairs is how many links one statement asks for.
const maxPairs = 10_000

// members says for pairs of a record and a user whether an edge leads from one to the other.
func (s *Store) members(ctx context.Context, d *Edge, pairs map[[2]uuid.UUID]bool) error {
	table, ref := d.users()
	for part := range slices.Chunk(slices.Collect(maps.Keys(pairs)), maxPairs) {
		ids, users := make([]uuid.UUID, len(part)), make([]uuid.UUID, len(part))
		for i, p := range part {
			ids[i], users[i] = p[0], p[1]
		}
		q := &query{}
		q.write("SELECT p.id, p.usr FROM unnest(")
		q.arg(ids)
		q.write("::uuid[], ")
		q.arg(users)
		q.write("::uuid[]) p (id, usr) JOIN ", quote(table), " t ON t.", quote(d.From), " = p.id AND t.", ref, " = p.usr")
		err := s.engine.scan(ctx, q, func(rows *sql.Rows) error {
			var p [2]uuid.UUID
			err := rows.Scan(&p[0], &p[1])
			pairs[p] = true
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// allowed returns a predicate of ent that holds where r does, nil where it holds for all rows.
func (s *Store) allowed(who asker, r *rule) func(*sql.Selector) {
	if holds, known := who.known(r); holds && known {
		return nil
	}
	return func(sel *sql.Selector) {
		sel.Where(sql.P(func(b *sql.Builder) {
			compiler{w: entWriter{b}, who: who}.rule(r, s.Entity, quote(s.Table))
		}))
	}
}

// denied is the answer to who may see a record, or needs to see none, and may not do op.
func (s *Store) denied(who asker, op string) *Error {
	if !who.signedIn {
		return &Error{Code: Unauthenticated, Message: fmt.Sprintf("sign in to %s a %s", op, s.Name)}
	}
	return &Error{Code: Forbidden, Message: fmt.Sprintf("you may not %s this %s", op, s.Name)}
}
