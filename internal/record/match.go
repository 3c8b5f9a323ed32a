package record

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
)

// match is a where input that is decided in memory, for one who asks. It means what query.where writes, in a database whose lower()
// is Unicode's simple mapping (any UTF-8 locale of libc but C and the Turkic ones). It is not changed once it is compiled.
//
// A not stands at the conditions alone: De Morgan's laws hold in SQL's logic of true, false and null. What is left, "and" and "or", is
// true just where it is with false in the place of null, so there is no null above the conditions.
type match struct {
	who     asker
	entity  *Entity
	root    clause
	count   int  // of conditions, as the input has them
	limited bool // see personal
}

// clause is a condition, or an "and" or "or" of clauses, which are neither of the same kind nor equal. Without parts, "and" is true
// and "or" is false.
type clause struct {
	key   string // canonical
	test  *test  // a condition; nil for and, or
	or    bool
	parts []clause // in the order of their keys
}

// test is a condition on a field.
type test struct {
	field *Field
	sight sight
	not   bool
	is    func(v reflect.Value) bool // of a value; nil asks whether there is none
	id    *uuid.UUID                 // the one value for which it holds
}

// sight is of which records who asks may read a field. What they may not read is null.
type sight uint8

const (
	ofAll  sight = iota
	ofSome       // asker.reads says
	ofNone
)

// compile prepares a where input for who asks. What is wrong with it gives query.where's errors; what the record alone cannot decide,
// or not before a change of it, is BAD_USER_INPUT that names the condition.
func (e *Entity) compile(who asker, in Input) (*match, error) {
	m := &match{who: who, entity: e}
	var err error
	m.root, err = m.where(in, false)
	return m, err
}

// holds reports whether the record is one of those that where describes. Who asks may read it.
func (m *match) holds(n Node) bool { return m.decide(&m.root, n, reflect.ValueOf(n).Elem()) }

// key is equal for filters that are the same but for the order of conditions, repetition, and the like. For those who see all that
// the conditions look at (see personal) they hold for the same records.
func (m *match) key() string { return m.root.key }

// personal reports whether who asks may not read, of all records, each field that the conditions look at. Otherwise the filter holds
// for the same records as any other that has the same key and is not personal, whoever asks.
func (m *match) personal() bool { return m.limited }

// pinned returns the id that all records for which the filter holds have in f, if there is one.
func (m *match) pinned(f *Field) (uuid.UUID, bool) {
	parts := m.root.parts
	if m.root.test != nil {
		parts = []clause{m.root}
	}
	for i := range parts {
		if t := parts[i].test; !m.root.or && t != nil && t.field == f && t.id != nil {
			return *t.id, true
		}
	}
	return uuid.UUID{}, false
}

func (m *match) decide(c *clause, n Node, row reflect.Value) bool {
	if c.test != nil {
		return m.passes(c.test, n, row)
	}
	for i := range c.parts {
		if m.decide(&c.parts[i], n, row) == c.or {
			return c.or
		}
	}
	return !c.or
}

// passes reports whether a condition is true of a record.
func (m *match) passes(t *test, n Node, row reflect.Value) bool {
	v, there := row.Field(t.field.index), t.sight != ofNone
	if v.Kind() == reflect.Pointer {
		there = there && !v.IsNil()
		v = v.Elem()
	}
	if there && t.sight == ofSome {
		there = m.who.reads(m.entity, t.field, n)
	}
	if t.is == nil {
		return there == t.not
	}
	return there && t.is(v) != t.not
}

// where compiles an input, or what not makes of it.
func (m *match) where(in Input, not bool) (clause, error) {
	if m.count += max(len(in), 1); m.count > maxConditions {
		return clause{}, tooComplex("where", "where has more than %d conditions", maxConditions)
	}
	parts := make([]clause, 0, len(in))
	for _, key := range slices.Sorted(maps.Keys(in)) {
		c, err := m.condition(key, in[key], not)
		if err != nil {
			return clause{}, err
		}
		parts = append(parts, c)
	}
	return joined(not, parts), nil
}

func (m *match) condition(key string, raw any, not bool) (clause, error) {
	nothing := joined(not, nil) // what was not asked for is true
	switch key {
	case "and", "or":
		list := graphql.CoerceList(raw)
		if len(list) == 0 {
			return nothing, nil
		}
		parts := make([]clause, len(list))
		for i, raw := range list {
			in, _ := raw.(map[string]any)
			var err error
			if parts[i], err = m.where(in, not); err != nil {
				return clause{}, err
			}
		}
		return joined((key == "or") != not, parts), nil
	case "not":
		if raw == nil {
			return nothing, nil
		}
		in, _ := raw.(map[string]any)
		return m.where(in, !not)
	}
	c, ok := m.entity.filters[key]
	switch {
	case !ok:
		return clause{}, badInput("where", "where: %s has no condition %s", m.entity.Name, key)
	case raw == nil:
		return nothing, nil
	case c.edge != nil:
		return clause{}, unfollowed(key, "it is about other records than those that the list has")
	}
	return m.test(c, key, raw, not)
}

// unfollowed is the answer to a condition that cannot be decided in memory.
func unfollowed(key, why string) *Error {
	return badInput("where", "where.%s cannot be followed: %s", key, why)
}

// test compiles a condition on a field.
func (m *match) test(c condition, key string, raw any, not bool) (clause, error) {
	t := &test{field: c.field, not: not}
	r := m.who.limit(m.entity, c.field)
	holds, known := true, true
	if r != nil {
		m.limited = true
		holds, known = m.who.known(r)
	}
	switch {
	case !known && c.field.rule == nil:
		return clause{}, unfollowed(key, "who may read what the id leads to is not for this record to say")
	case !known:
		t.sight = ofSome
	case !holds:
		t.sight = ofNone
	}
	switch {
	case c.field.Column == "updated_at": // a before-image has no such time: triggers set it with each change
		return clause{}, unfollowed(key, "the change log does not keep earlier times of update")
	case c.field.Kind == JSON, c.op >= opContains && c.field.Kind != String:
		return clause{}, unfollowed(key, "it is not for values of this type")
	}

	o := c.op
	switch o { // each comes with its opposite
	case opNEQ, opNotIn:
		o, t.not = opIn, !not
	case opEQ:
		o = opIn
	case opGT:
		o, t.not = opLTE, !not
	case opGTE:
		o, t.not = opLT, !not
	case opNotNil:
		o, t.not = opIsNil, !not
	}
	operands := ""
	list := []any{raw}
	switch {
	case o == opIsNil:
		yes, err := graphql.UnmarshalBoolean(raw)
		if err != nil {
			return clause{}, badInput("where", "where.%s: %v", key, err)
		}
		t.not = t.not == yes
	case (o == opLT || o == opLTE) && !slices.Contains([]Kind{Int, Float, Time, UUID}, c.field.Kind):
		return clause{}, unfollowed(key, "the order of texts is the database's own")
	case c.op == opIn || c.op == opNotIn:
		if list = graphql.CoerceList(raw); len(list) > MaxRefs {
			return clause{}, tooComplex("where", "where.%s has %d values, more than %d", key, len(list), MaxRefs)
		}
		if len(list) == 0 { // false, also of null
			return joined(!t.not, nil), nil
		}
		fallthrough
	default:
		values, err := decodeList(c.field, list)
		if err != nil {
			return clause{}, badInput("where", "where.%s: %v", key, err)
		}
		t.is, operands = compare(o, values)
		if ids, ok := values.([]uuid.UUID); ok && o == opIn && !t.not && len(slices.Compact(ids)) == 1 {
			t.id = &ids[0]
		}
	}
	name := c.field.Name + " " + suffixes[o]
	if t.not {
		name = "not " + name
	}
	return clause{key: name + "(" + operands + ")", test: t}, nil
}

// joined is the "and", or the "or", of clauses, in canonical form.
func joined(or bool, parts []clause) clause {
	c := clause{or: or}
	for _, p := range parts {
		switch {
		case p.test == nil && p.or == or:
			c.parts = append(c.parts, p.parts...)
		case p.test == nil && len(p.parts) == 0:
			return p // false in an "and", true in an "or"
		default:
			c.parts = append(c.parts, p)
		}
	}
	slices.SortFunc(c.parts, func(a, b clause) int { return cmp.Compare(a.key, b.key) })
	c.parts = slices.CompactFunc(c.parts, func(a, b clause) bool { return a.key == b.key })
	if len(c.parts) == 1 {
		return c.parts[0]
	}
	keys := make([]string, len(c.parts))
	for i := range c.parts {
		keys[i] = c.parts[i].key
	}
	word := "and"
	if or {
		word = "or"
	}
	c.key = word + "(" + strings.Join(keys, ", ") + ")"
	return c
}

// compare returns whether a value compares as op says with values, as decodeList returns them, and the canonical text of those.
func compare(o op, values any) (is func(reflect.Value) bool, text string) {
	switch v := values.(type) {
	case []int64:
		return ordered(o, v, reflect.Value.Int, cmp.Compare[int64])
	case []float64:
		for i := range v {
			if v[i] == 0 {
				v[i] = 0 // not -0
			}
		}
		return ordered(o, v, reflect.Value.Float, compareFloats)
	case []bool:
		return ordered(o, v, reflect.Value.Bool, compareBools)
	case []time.Time:
		return ordered(o, v, func(v reflect.Value) time.Time { return *v.Addr().Interface().(*time.Time) }, time.Time.Compare)
	case []uuid.UUID:
		return ordered(o, v, func(v reflect.Value) uuid.UUID { return *v.Addr().Interface().(*uuid.UUID) },
			func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	}
	texts := values.([]string)
	s := texts[0]
	switch o {
	case opContains:
		is = func(v reflect.Value) bool { return strings.Contains(v.String(), s) }
	case opHasPrefix:
		is = func(v reflect.Value) bool { return strings.HasPrefix(v.String(), s) }
	case opHasSuffix:
		is = func(v reflect.Value) bool { return strings.HasSuffix(v.String(), s) }
	case opEqualFold:
		folded := appendLower(nil, s)
		is, s = func(v reflect.Value) bool {
			var b [256]byte
			return bytes.Equal(appendLower(b[:0], v.String()), folded)
		}, string(folded)
	case opContainsFold:
		folded := appendLower(nil, s)
		is, s = func(v reflect.Value) bool {
			var b [256]byte // a longer text is allocated
			return bytes.Contains(appendLower(b[:0], v.String()), folded)
		}, string(folded)
	default:
		return ordered(o, texts, reflect.Value.String, strings.Compare)
	}
	return is, strconv.Quote(s)
}

// ordered is compare for values of a type that has an order.
func ordered[T any](o op, values []T, of func(reflect.Value) T, order func(a, b T) int) (is func(reflect.Value) bool, text string) {
	values = slices.Clone(values)
	slices.SortFunc(values, order)
	values = slices.CompactFunc(values, func(a, b T) bool { return order(a, b) == 0 })
	first := values[0]
	switch {
	case o == opLT:
		is = func(v reflect.Value) bool { return order(of(v), first) < 0 }
	case o == opLTE:
		is = func(v reflect.Value) bool { return order(of(v), first) <= 0 }
	case len(values) == 1:
		is = func(v reflect.Value) bool { return order(of(v), first) == 0 }
	default:
		is = func(v reflect.Value) bool {
			_, found := slices.BinarySearchFunc(values, of(v), order)
			return found
		}
	}
	texts := make([]string, len(values))
	for i, v := range values {
		if s, ok := any(v).(string); ok {
			texts[i] = strconv.Quote(s)
		} else {
			texts[i] = fmt.Sprint(v)
		}
	}
	return is, strings.Join(texts, ",")
}

// compareFloats is Postgres's order: all NaN are equal, and greater than any number
// (https://www.postgresql.org/docs/current/datatype-numeric.html#DATATYPE-FLOAT).
func compareFloats(a, b float64) int {
	if math.IsNaN(a) || math.IsNaN(b) {
		return -cmp.Compare(a, b) // to Go it is less
	}
	return cmp.Compare(a, b)
}

// compareBools has false before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// appendLower appends s in lower case, each character by itself, as lower() and ILIKE do it.
func appendLower(b []byte, s string) []byte {
	for _, r := range s {
		b = utf8.AppendRune(b, unicode.ToLower(r))
	}
	return b
}
