package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"godstack/internal/changelog"
)

// links are what a change did to the many-to-many edges of a record, by edge.
type links map[string]linkChange

// linkChange is what a change did to one: before it there were those after it, less Added, with Removed.
type linkChange struct{ Added, Removed []uuid.UUID }

// before returns what the record n, which the change c made, was before, as far as it was loaded, and what c did to its links. n is
// not changed; for OpDelete it is not looked at. What the log does not have stays as it is in n, and zero of a deleted record: the
// sensitive columns, which no record is loaded with, and the former updated_at of an OpUpdate. Before OpInsert there was nothing: nil.
func (s *Store) before(n Node, c changelog.Change) (Node, links, error) {
	var old Node
	switch c.Op {
	case changelog.OpInsert:
		return nil, nil, nil
	case changelog.OpDelete:
		old = s.model.New()
	case changelog.OpUpdate:
		row := reflect.ValueOf(n)
		if v := s.version.value(row).(int); int64(v) != c.Version {
			return nil, nil, fmt.Errorf("undo a change of %s %s: it made version %d, this is %d", s.Name, c.ID, c.Version, v)
		}
		was := reflect.New(row.Type().Elem())
		was.Elem().Set(row.Elem())
		was.Elem().Field(s.version.index).SetInt(c.Version - 1)
		old = was.Interface().(Node)
	default:
		return nil, nil, fmt.Errorf("undo a change of %s: it is no one record's (op %s)", s.Name, c.Op)
	}
	l, err := s.restore(old, c.Old)
	if err != nil {
		return nil, nil, fmt.Errorf("undo a change of %s %s to version %d: %w", s.Name, c.ID, c.Version, err)
	}
	return old, l, nil
}

// restore sets the fields of n that old has, and returns the links in it. Columns that records are not loaded with are passed over.
func (s *Store) restore(n Node, old json.RawMessage) (links, error) {
	values, err := oldValues(old)
	if err != nil {
		return nil, err
	}
	row := reflect.ValueOf(n).Elem()
	var l links
	for _, name := range s.names {
		if raw, ok := values[name]; ok {
			if err := restoreValue(row.Field(s.column[name].index), raw); err != nil {
				return nil, fmt.Errorf("column %s: %w", name, err)
			}
		}
	}
	for i := range s.Edges {
		name := s.Edges[i].Name
		raw, ok := values[name]
		if !ok || s.Edges[i].Through == "" {
			continue
		}
		var change linkChange
		if err := json.Unmarshal(raw, &change); err != nil {
			return nil, fmt.Errorf("edge %s: %w", name, err)
		}
		if l == nil {
			l = links{}
		}
		l[name] = change
	}
	return l, nil
}

// oldValues reads Change.Old.
func oldValues(old json.RawMessage) (values map[string]json.RawMessage, err error) {
	err = json.Unmarshal(old, &values)
	return values, err
}

// restoreValue sets a field of a record to a column's value as to_jsonb writes it.
func restoreValue(v reflect.Value, raw json.RawMessage) error {
	v.SetZero() // of maps and pointers too: another record may have what they lead to
	if string(raw) == "null" {
		return nil
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	var text string
	isText := raw[0] == '"'
	if isText {
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
	}
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		t, err := parseTime(text)
		*p = t
		return err
	case *float64:
		if isText { // NaN or infinite, which JSON has no number for
			f, err := strconv.ParseFloat(text, 64)
			*p = f
			return err
		}
	}
	if k := v.Kind(); isText && (k == reflect.Map || k == reflect.Slice) { // of type json, which is logged as text
		raw = json.RawMessage(text)
	}
	return json.Unmarshal(raw, v.Addr().Interface())
}

// parseTime reads a time as to_jsonb writes it, in the zone that the writer's session had: ISO 8601 with years of four digits or
// more, " BC" after those before 1, and offsets that may have seconds.
func parseTime(s string) (time.Time, error) {
	s, bc := strings.CutSuffix(s, " BC")
	digits, rest, ok := strings.Cut(s, "-")
	year, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return time.Time{}, errors.New("is not a time") // infinity has none in Go
	}
	if bc {
		year = 1 - year
	}
	// The calendar repeats every 400 years, so another year that time.Parse takes stands in.
	const cycle = 146_097 * 24 * 60 * 60
	near := 2000 + (year%400+400)%400
	s = strconv.Itoa(near) + "-" + rest
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		if t, err = time.Parse("2006-01-02T15:04:05.999999999Z07:00:00", s); err != nil {
			return time.Time{}, err
		}
	}
	return time.Unix(t.Unix()+int64(year-near)/400*cycle, int64(t.Nanosecond())), nil
}
