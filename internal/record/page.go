package record

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
)

// The number of records in a page: where first and last are absent, and at most.
const (
	DefaultPage = 20
	MaxPage     = 100
)

// Cursor marks a place in a list. It is opaque to clients.
type Cursor string

// MarshalGQL writes the cursor as a JSON string.
func (c Cursor) MarshalGQL(w io.Writer) { graphql.MarshalString(string(c)).MarshalGQL(w) }

// UnmarshalGQL reads a cursor from an argument or a variable.
func (c *Cursor) UnmarshalGQL(v any) error {
	s, ok := v.(string)
	if !ok {
		return &Error{Code: BadUserInput, Message: fmt.Sprintf("a cursor is a string, not %T", v)}
	}
	*c = Cursor(s)
	return nil
}

// Order is a term of orderBy, as GraphQL gives it: { field, direction }.
type Order struct {
	Field string
	Desc  bool
}

// UnmarshalGQL reads an order term.
func (o *Order) UnmarshalGQL(v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return &Error{Code: BadUserInput, Message: fmt.Sprintf("an order is an input object, not %T", v)}
	}
	o.Field, _ = m["field"].(string)
	o.Desc = m["direction"] == "DESC"
	return nil
}

// MarshalGQL writes the term as JSON.
func (o Order) MarshalGQL(w io.Writer) { _ = json.NewEncoder(w).Encode(o) }

// Page is which part of a list is asked for: Relay's arguments
// (https://relay.dev/graphql/connections.htm), with where and orderBy.
type Page struct {
	After, Before *Cursor
	First, Last   *int
	Where         Input
	OrderBy       []*Order
	Deleted       *ShowDeleted // nil for ExcludeDeleted
}

// deleted says which records are asked for.
func (p Page) deleted() ShowDeleted {
	if p.Deleted == nil {
		return ExcludeDeleted
	}
	return *p.Deleted
}

// term is a column that a list is ordered by.
type term struct {
	field    *Field
	desc     bool
	nullable bool // to who asks
}

// listing is a checked Page of an entity.
type listing struct {
	who      asker
	entity   *Entity
	terms    []term // the last is the id, so that the order is total
	limit    int
	backward bool // the last records of the list are asked for
	bounds   []bound
	order    string // identifies the terms, in cursors
}

// bound limits a listing to what stands after, or before, a cursor.
type bound struct {
	values []any
	before bool
}

// listing checks p against the entity.
func (e *Entity) listing(who asker, p Page) (*listing, error) {
	l := &listing{who: who, entity: e, limit: DefaultPage}
	switch {
	case p.First != nil && p.Last != nil:
		return nil, &Error{Code: BadUserInput, Message: "first and last cannot be used together",
			Fields: []string{"first", "last"}}
	case p.First != nil:
		l.limit = *p.First
	case p.Last != nil:
		l.limit, l.backward = *p.Last, true
	}
	if l.limit < 0 || l.limit > MaxPage {
		name := "first"
		if l.backward {
			name = "last"
		}
		return nil, badInput(name, "%s must be from 0 to %d, not %d", name, MaxPage, l.limit)
	}
	var signature strings.Builder
	signature.WriteString(e.Name)
	for _, o := range p.OrderBy {
		f := e.orders[o.Field]
		if f == nil {
			return nil, badInput("orderBy", "%s cannot be ordered by %s", e.Name, o.Field)
		}
		if slices.ContainsFunc(l.terms, func(t term) bool { return t.field == f }) {
			continue
		}
		l.terms = append(l.terms, term{f, o.Desc, f.Nullable || who.limit(e, f) != nil})
		fmt.Fprintf(&signature, " %s %t", f.Column, o.Desc)
	}
	// The id follows the last term's direction, so that one index serves both.
	desc := len(l.terms) > 0 && l.terms[len(l.terms)-1].desc
	l.terms = append(l.terms, term{e.id, desc, false})
	sum := sha256.Sum256([]byte(signature.String()))
	l.order = base64.RawURLEncoding.EncodeToString(sum[:6])
	if err := l.bound("after", p.After); err != nil {
		return nil, err
	}
	return l, l.bound("before", p.Before)
}

// bound adds the bound that a cursor sets, if there is one.
func (l *listing) bound(argument string, c *Cursor) error {
	if c == nil {
		return nil
	}
	values, err := l.parse(*c)
	if err != nil {
		return badInput(argument, "%s: %v", argument, err)
	}
	l.bounds = append(l.bounds, bound{values, argument == "before"})
	return nil
}

// cursor returns the place of a record. It tells only what who asks may read.
func (l *listing) cursor(n Node) Cursor {
	parts := []any{l.order}
	for _, t := range l.terms {
		if l.who.reads(l.entity, t.field, n) {
			parts = append(parts, place(t.field.value(reflect.ValueOf(n))))
		} else {
			parts = append(parts, nil)
		}
	}
	b, err := json.Marshal(parts)
	if err != nil {
		panic(fmt.Sprintf("record: encode cursor: %v", err)) // what place returns always encodes
	}
	return Cursor(base64.RawURLEncoding.EncodeToString(b))
}

// place returns a value as cursors have it.
func place(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.UnixMicro() // JSON's times end with the year 9999, Postgres's do not
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64) // JSON has neither NaN nor infinities
	}
	return v
}

// unplace reads what place wrote.
func (f *Field) unplace(raw any) (any, error) {
	switch f.Kind {
	case Time:
		n, err := graphql.UnmarshalInt64(raw)
		return time.UnixMicro(n).UTC(), err
	case UUID:
		s, _ := raw.(string)
		return uuid.Parse(s)
	}
	v, err := f.decode(raw)
	return plain(f, v), err
}

// parse reads the values of a cursor of this listing.
func (l *listing) parse(c Cursor) ([]any, error) {
	b, err := base64.RawURLEncoding.DecodeString(string(c))
	if err != nil {
		return nil, fmt.Errorf("malformed cursor")
	}
	var parts []any
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	if err := d.Decode(&parts); err != nil || len(parts) == 0 {
		return nil, fmt.Errorf("malformed cursor")
	}
	if parts[0] != l.order || len(parts) != len(l.terms)+1 {
		return nil, fmt.Errorf("the cursor is of another list or order")
	}
	values := make([]any, len(l.terms))
	for i, t := range l.terms {
		raw := parts[i+1]
		if raw == nil && t.nullable {
			continue
		}
		values[i], err = t.field.unplace(raw)
		if err != nil || raw == nil {
			return nil, fmt.Errorf("malformed cursor")
		}
	}
	return values, nil
}

// after writes the predicate "stands after b" (or before). Postgres takes null for the greatest value, in both
// directions; so does this.
func (q *query) after(l *listing, b bound) {
	q.write("(")
	for i := range l.terms {
		if i > 0 {
			q.write(" OR ")
		}
		q.write("(")
		for j, t := range l.terms[:i+1] {
			if j > 0 {
				q.write(" AND ")
			}
			v := b.values[j]
			compare := func(op string) {
				q.column(l.entity, "t", t.field)
				q.write(op)
				q.arg(v)
			}
			is := func(state string) {
				q.column(l.entity, "t", t.field)
				q.write(" IS ", state)
			}
			switch less := t.desc != b.before; {
			case j < i && v == nil:
				is("NULL")
			case j < i:
				compare(" = ")
			case v == nil && less:
				is("NOT NULL")
			case v == nil:
				q.write("false")
			case less:
				compare(" < ")
			case t.nullable:
				q.write("(")
				compare(" > ")
				q.write(" OR ")
				is("NULL")
				q.write(")")
			default:
				compare(" > ")
			}
		}
		q.write(")")
	}
	q.write(")")
	// Said again for the first column alone, so that its index bounds the scan.
	first := l.terms[0]
	if v := b.values[0]; len(l.terms) > 1 && v != nil && !first.nullable {
		q.write(" AND ")
		q.column(l.entity, "t", first.field)
		if first.desc != b.before {
			q.write(" <= ")
		} else {
			q.write(" >= ")
		}
		q.arg(v)
	}
}

// orderBy writes the order in which the rows are read: reversed where the last ones are asked for.
func (q *query) orderBy(l *listing) {
	for i, by := range l.terms {
		if i > 0 {
			q.write(", ")
		}
		q.column(l.entity, "t", by.field)
		if by.desc != l.backward {
			q.write(" DESC")
		}
	}
}

// Connection is a page of a list.
type Connection struct {
	Nodes                        []Node
	HasNextPage, HasPreviousPage bool

	listing *listing
}

// Cursor returns the place of the i-th node.
func (c *Connection) Cursor(i int) Cursor { return c.listing.cursor(c.Nodes[i]) }

// page makes a connection of the rows read for l: one more than asked for says that there are more.
func (l *listing) page(rows []Node, p Page) *Connection {
	more := len(rows) > l.limit
	if more {
		rows = rows[:l.limit]
	}
	c := &Connection{Nodes: rows, listing: l}
	if l.backward {
		slices.Reverse(rows)
		c.HasPreviousPage, c.HasNextPage = more, p.Before != nil
	} else {
		c.HasNextPage, c.HasPreviousPage = more, p.After != nil
	}
	return c
}
