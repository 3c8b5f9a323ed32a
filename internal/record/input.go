package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"entgo.io/ent"
	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
)

// Input is an input object of the API (CreateThreadInput, ThreadWhereInput ...) as GraphQL gives it, checked
// against the schema already: one Go type for all, decoded by the entity's description.
type Input map[string]any

// UnmarshalGQL takes the input object over.
func (in *Input) UnmarshalGQL(v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return &Error{Code: BadUserInput, Message: fmt.Sprintf("an input object is expected, not %T", v)}
	}
	*in = m
	return nil
}

// MarshalGQL writes the input as JSON.
func (in Input) MarshalGQL(w io.Writer) { _ = json.NewEncoder(w).Encode(map[string]any(in)) }

// Values are the changes that a create or update input asks for, under ent's names.
type Values struct {
	ID    uuid.UUID // of a new record
	Set   []Assignment
	Clear []string
	Links []Link
}

// columns lists what is set.
func (v *Values) columns() []string {
	names := make([]string, len(v.Set))
	for i, a := range v.Set {
		names[i] = a.Column
	}
	return names
}

// touched lists the columns that are set or cleared, and the edges whose links are changed. It is not nil.
func (v *Values) touched() []string {
	names := append(v.columns(), v.Clear...)
	for _, l := range v.Links {
		if l.Clear || len(l.Add)+len(l.Remove) > 0 {
			names = append(names, l.Edge)
		}
	}
	return names
}

// Assignment sets one column.
type Assignment struct {
	Column string
	Value  any
}

// Link changes a many-to-many edge.
type Link struct {
	Edge        string
	Add, Remove []uuid.UUID
	Clear       bool
}

// wants says whether a record is linked after the change, if the change is about it.
func (l *Link) wants(id uuid.UUID) (linked, said bool) {
	switch {
	case slices.Contains(l.Remove, id): // and ent removes after it adds
		return false, true
	case slices.Contains(l.Add, id):
		return true, true
	}
	return false, l.Clear
}

// Apply sets the values, except the links, on a mutation.
func (v *Values) Apply(m ent.Mutation) error {
	for _, a := range v.Set {
		if err := m.SetField(a.Column, a.Value); err != nil {
			return fmt.Errorf("set %s: %w", a.Column, err)
		}
	}
	for _, column := range v.Clear {
		if err := m.ClearField(column); err != nil {
			return fmt.Errorf("clear %s: %w", column, err)
		}
	}
	return nil
}

// set adds an assignment, or a clear for nil.
func (v *Values) set(f *Field, value any) {
	if value == nil {
		v.Clear = append(v.Clear, f.Column)
		return
	}
	v.Set = append(v.Set, Assignment{f.Column, value})
}

// decode turns a create or update input into values. What is wrong is BAD_USER_INPUT and names the field.
func (e *Entity) decode(in Input, use Use) (*Values, error) {
	v := &Values{}
	links := map[string]*Link{}
	for _, name := range slices.Sorted(maps.Keys(in)) {
		raw := in[name]
		if f := e.fields[name]; f != nil && f.Use&use != 0 {
			if err := v.decodeField(f, name, raw, use); err != nil {
				return nil, err
			}
			continue
		}
		d, part := e.edgeInput(name, use)
		switch {
		case d == nil:
			return nil, badInput(name, "%s has no input field %s", e.Name, name)
		case d.ToOne():
			if raw == nil && !d.field.Nullable {
				return nil, badInput(name, "%s must not be null", name)
			}
			if raw == nil {
				v.set(d.field, nil)
				continue
			}
			id, err := decodeID(d.to, name, raw)
			if err != nil {
				return nil, err
			}
			v.set(d.field, id)
		default:
			l := links[d.Name]
			if l == nil {
				l = &Link{Edge: d.Name}
				links[d.Name] = l
			}
			if err := l.decode(d, part, name, raw); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(links)) {
		v.Links = append(v.Links, *links[name])
	}
	return v, nil
}

func (v *Values) decodeField(f *Field, name string, raw any, use Use) error {
	if raw == nil {
		switch {
		case f.Nullable && use == InUpdate:
			v.set(f, nil)
		case f.Nullable: // stays null
		default:
			return badInput(name, "%s must not be null", name)
		}
		return nil
	}
	value, err := f.decode(raw)
	if err != nil {
		return badInput(name, "%s: %v", name, err)
	}
	v.set(f, value)
	return nil
}

// edgeInput finds the edge that an input field writes, and which of Edge.Inputs it is.
func (e *Entity) edgeInput(name string, use Use) (*Edge, int) {
	for i := range e.Edges {
		d := &e.Edges[i]
		switch {
		case d.Input == "":
		case use == InCreate || d.ToOne():
			if d.Input == name {
				return d, 0
			}
		default:
			if part := slices.Index(d.Inputs[:], name); part >= 0 {
				return d, part
			}
		}
	}
	return nil, 0
}

func (l *Link) decode(d *Edge, part int, name string, raw any) error {
	if raw == nil {
		return nil
	}
	if part == 2 {
		clear, err := graphql.UnmarshalBoolean(raw)
		if err != nil {
			return badInput(name, "%s: %v", name, err)
		}
		l.Clear = clear
		return nil
	}
	list := graphql.CoerceList(raw)
	if len(list) > MaxRefs {
		return tooMany(name, len(list))
	}
	ids := make([]uuid.UUID, 0, len(list))
	for _, raw := range list {
		id, err := decodeID(d.to, name, raw)
		if err != nil {
			return err
		}
		if !slices.Contains(ids, id) { // a record is linked once, however often it is named
			ids = append(ids, id)
		}
	}
	if part == 1 {
		l.Remove = ids
	} else {
		l.Add = ids
	}
	return nil
}

func decodeID(e *Entity, name string, raw any) (uuid.UUID, error) {
	var id ID
	if err := id.UnmarshalGQL(raw); err != nil {
		return uuid.UUID{}, badInput(name, "%s: %v", name, err)
	}
	return id.of(e, name)
}

// decode converts a value as GraphQL gives it into the Go value that ent takes.
func (f *Field) decode(raw any) (any, error) {
	switch f.Kind {
	case String:
		s, err := graphql.UnmarshalString(raw)
		if err != nil {
			return nil, err
		}
		return s, checkText(s)
	case Int:
		n, err := graphql.UnmarshalInt64(raw)
		return int(n), err
	case Float:
		return graphql.UnmarshalFloat(raw)
	case Bool:
		return graphql.UnmarshalBoolean(raw)
	case Time:
		if raw == "" { // which gqlgen takes for the zero time
			return nil, errors.New("is not a time")
		}
		t, err := graphql.UnmarshalTime(raw)
		return t.UTC().Truncate(time.Microsecond), err // what Postgres keeps, so that a write answers what a read gives
	case UUID:
		var id ID
		if err := id.UnmarshalGQL(raw); err != nil {
			return nil, err
		}
		return id.of(f.of, f.Name)
	case Enum:
		s, err := graphql.UnmarshalString(raw)
		if err != nil {
			return nil, err
		}
		return reflect.ValueOf(s).Convert(f.Type).Interface(), nil
	case JSON:
		if err := checkJSON(raw); err != nil {
			return nil, err
		}
		b, err := json.Marshal(raw)
		if err != nil {
			return nil, err
		}
		p := reflect.New(f.Type)
		if err := json.Unmarshal(b, p.Interface()); err != nil {
			return nil, err
		}
		return p.Elem().Interface(), nil
	}
	return nil, fmt.Errorf("unknown kind %d", f.Kind)
}

// checkText refuses what a Postgres text cannot hold.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not valid UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return errors.New("contains the character NUL, which the database cannot store")
	}
	return nil
}

// checkJSON does the same for every string in v.
func checkJSON(v any) error {
	switch v := v.(type) {
	case string:
		return checkText(v)
	case []any:
		for _, x := range v {
			if err := checkJSON(x); err != nil {
				return err
			}
		}
	case map[string]any:
		for k, x := range v {
			if err := errors.Join(checkText(k), checkJSON(x)); err != nil {
				return err
			}
		}
	}
	return nil
}
