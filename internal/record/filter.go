package record

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// maxConditions bounds the conditions of one where, nested ones included: what a filter costs the planner
// grows with them.
const maxConditions = 100

// condition is what a key of a where input means.
type condition struct {
	field *Field
	edge  *Edge
	op    op
}

type op uint8

const (
	opEQ op = iota
	opNEQ
	opIn
	opNotIn
	opGT
	opGTE
	opLT
	opLTE
	opIsNil
	opNotNil
	opContains
	opHasPrefix
	opHasSuffix
	opEqualFold
	opContainsFold
	opHas
	opHasWith
)

// suffixes are the endings that a where input's keys have after the field's name. They are entgql's.
var suffixes = [...]string{
	opEQ: "", opNEQ: "NEQ", opIn: "In", opNotIn: "NotIn", opGT: "GT", opGTE: "GTE", opLT: "LT", opLTE: "LTE",
	opIsNil: "IsNil", opNotNil: "NotNil", opContains: "Contains", opHasPrefix: "HasPrefix",
	opHasSuffix: "HasSuffix", opEqualFold: "EqualFold", opContainsFold: "ContainsFold",
}

// conditions lists the keys of e's where input, except and, or, not.
func conditions(e *Entity) map[string]condition {
	m := map[string]condition{}
	for i := range e.Fields {
		f := &e.Fields[i]
		if f.Use&InFilter == 0 {
			continue
		}
		for o, suffix := range suffixes {
			m[f.Name+suffix] = condition{field: f, op: op(o)}
		}
	}
	for i := range e.Edges {
		d := &e.Edges[i]
		if d.Hidden {
			continue
		}
		name := "has" + strings.ToUpper(d.Name[:1]) + d.Name[1:]
		m[name] = condition{edge: d, op: opHas}
		m[name+"With"] = condition{edge: d, op: opHasWith}
	}
	return m
}

// query builds a statement: text with $n for each argument.
type query struct {
	who    asker // whom rules are asked about
	text   strings.Builder
	args   []any
	alias  int  // the number of table aliases given out for sub-queries
	count  int  // of conditions
	custom bool // planned anew each time, for who asks
}

// newQuery begins a statement on behalf of who asks.
func newQuery(ctx context.Context) *query { return &query{who: askerOf(ctx)} }

// arguments returns what goes with the text to the driver.
func (q *query) arguments() []any {
	if q.custom { // prepared without a name, so that each execution is planned
		return append([]any{pgx.QueryExecModeCacheDescribe}, q.args...)
	}
	return q.args
}

func (q *query) write(parts ...string) {
	for _, p := range parts {
		q.text.WriteString(p)
	}
}

// arg writes the placeholder of a new argument.
func (q *query) arg(v any) {
	q.args = append(q.args, v)
	q.text.WriteByte('$')
	q.text.WriteString(strconv.Itoa(len(q.args)))
}

// where writes the predicate that in stands for on table alias t. An empty input is "true".
func (q *query) where(e *Entity, t string, in Input) error {
	if q.count += max(len(in), 1); q.count > maxConditions {
		return tooComplex("where", "where has more than %d conditions", maxConditions)
	}
	if len(in) == 0 {
		q.write("true")
		return nil
	}
	for i, key := range slices.Sorted(maps.Keys(in)) {
		if i > 0 {
			q.write(" AND ")
		}
		if err := q.condition(e, t, key, in[key]); err != nil {
			return err
		}
	}
	return nil
}

func (q *query) condition(e *Entity, t, key string, raw any) error {
	switch key {
	case "and", "or":
		return q.list(e, t, key, raw)
	case "not":
		if raw == nil {
			q.write("true")
			return nil
		}
		in, _ := raw.(map[string]any)
		q.write("NOT (")
		if err := q.where(e, t, in); err != nil {
			return err
		}
		q.write(")")
		return nil
	}
	c, ok := e.filters[key]
	switch {
	case !ok:
		return badInput("where", "where: %s has no condition %s", e.Name, key)
	case raw == nil:
		// GraphQL's null for an optional input means: not asked for.
		q.write("true")
		return nil
	case c.edge != nil:
		return q.edge(t, c, raw)
	}
	return q.compare(e, t, c, key, raw)
}

// list writes the and, or the or, of a list of where inputs.
func (q *query) list(e *Entity, t, key string, raw any) error {
	list := graphql.CoerceList(raw)
	if raw == nil || len(list) == 0 {
		q.write("true")
		return nil
	}
	q.write("(")
	for i, raw := range list {
		if i > 0 {
			q.write(" ", strings.ToUpper(key), " ")
		}
		in, _ := raw.(map[string]any)
		q.write("(")
		if err := q.where(e, t, in); err != nil {
			return err
		}
		q.write(")")
	}
	q.write(")")
	return nil
}

// compare writes a condition on one column.
func (q *query) compare(e *Entity, t string, c condition, key string, raw any) error {
	switch c.op {
	case opIsNil, opNotNil:
		yes, err := graphql.UnmarshalBoolean(raw)
		if err != nil {
			return badInput("where", "where.%s: %v", key, err)
		}
		q.column(e, t, c.field)
		q.write(" IS ")
		if yes != (c.op == opIsNil) {
			q.write("NOT ")
		}
		q.write("NULL")
		return nil
	case opIn, opNotIn:
		list := graphql.CoerceList(raw)
		if len(list) > MaxRefs {
			return tooComplex("where", "where.%s has %d values, more than %d", key, len(list), MaxRefs)
		}
		values, err := decodeList(c.field, list)
		if err != nil {
			return badInput("where", "where.%s: %v", key, err)
		}
		if c.op == opNotIn {
			q.write("NOT (")
		}
		q.column(e, t, c.field)
		q.write(" = ANY(")
		q.arg(values)
		q.write(")")
		if c.op == opNotIn {
			q.write(")")
		}
		return nil
	}
	v, err := c.field.decode(raw)
	if err != nil {
		return badInput("where", "where.%s: %v", key, err)
	}
	if c.op >= opContains {
		q.match(func() { q.column(e, t, c.field) }, c.op, v.(string))
		return nil
	}
	q.column(e, t, c.field)
	q.write(comparison[c.op])
	q.arg(plain(c.field, v))
	return nil
}

var comparison = [...]string{opEQ: " = ", opNEQ: " <> ", opGT: " > ", opGTE: " >= ", opLT: " < ", opLTE: " <= "}

var likeEscape = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// match writes a condition on a text.
func (q *query) match(col func(), o op, s string) {
	switch o {
	case opEqualFold:
		q.write("lower(")
		col()
		q.write(") = lower(")
		q.arg(s)
		q.write(")")
		return
	case opContainsFold:
		col()
		q.write(" ILIKE ")
	default:
		col()
		q.write(" LIKE ")
	}
	s = likeEscape.Replace(s)
	if o != opHasPrefix {
		s = "%" + s
	}
	if o != opHasSuffix {
		s += "%"
	}
	q.arg(s)
}

// edge writes whether related records exist that who asks may read, with conditions of their own or without.
func (q *query) edge(t string, c condition, raw any) error {
	d := c.edge
	q.alias++
	a := "x" + strconv.Itoa(q.alias)
	if c.op == opHas {
		yes, err := graphql.UnmarshalBoolean(raw)
		if err != nil {
			return badInput("where", "where: %v", err)
		}
		if !yes {
			q.write("NOT ")
		}
	}
	q.write("EXISTS (SELECT FROM ", quote(d.to.Table), " ", a)
	switch {
	case d.ToOne():
		q.write(" WHERE ", a, ".id = ", t, ".", quote(d.field.Column))
	case d.Through != "":
		q.write(" JOIN ", quote(d.Through), " j", a, " ON j", a, ".", quote(d.Ref), " = ", a, ".id WHERE j", a, ".",
			quote(d.From), " = ", t, ".id")
	default:
		q.write(" WHERE ", a, ".", quote(d.From), " = ", t, ".id")
	}
	if r := d.to.rules[reading]; r.reaches() {
		q.bulk(d.to, r, a) // for a whole table this begins with what may be read; for a few rows it is read once
	} else {
		q.may(d.to, a)
	}
	if c.op == opHasWith {
		for _, raw := range graphql.CoerceList(raw) {
			in, _ := raw.(map[string]any)
			q.write(" AND (")
			if err := q.where(d.to, a, in); err != nil {
				return err
			}
			q.write(")")
		}
	}
	q.write(")")
	return nil
}

func quote(name string) string { return `"` + name + `"` }

// plain turns a value into one that pgx knows how to send.
func plain(f *Field, v any) any {
	if f.Kind == Enum {
		return fmt.Sprint(v)
	}
	return v
}

// decodeList decodes the operand of In and NotIn, to be sent as one array.
func decodeList(f *Field, list []any) (any, error) {
	switch f.Kind {
	case Int:
		return collect[int64](f, list)
	case Float:
		return collect[float64](f, list)
	case Bool:
		return collect[bool](f, list)
	case Time:
		return collect[time.Time](f, list)
	case UUID:
		return collect[uuid.UUID](f, list)
	}
	return collect[string](f, list)
}

func collect[T any](f *Field, list []any) ([]T, error) {
	values := make([]T, 0, len(list))
	for _, raw := range list {
		v, err := f.decode(raw)
		if err != nil {
			return nil, err
		}
		switch x := plain(f, v).(type) {
		case T:
			values = append(values, x)
		case int: //nolint:gocritic // T is not int where this matters
			values = append(values, any(int64(x)).(T))
		default:
			return nil, fmt.Errorf("cannot use %T in a list", x)
		}
	}
	return values, nil
}
