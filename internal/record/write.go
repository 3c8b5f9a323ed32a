package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"godstack/internal/changelog"
	"godstack/internal/viewer"
)

// Create inserts a record from a create input.
func Create(ctx context.Context, s *Store, in Input) (Raw, error) {
	v, err := s.decode(in, InCreate)
	if err != nil {
		return nil, err
	}
	for i := range s.Edges {
		d := &s.Edges[i]
		if !d.Viewer {
			continue
		}
		who, ok := viewer.FromContext(ctx)
		if !ok {
			return nil, &Error{Code: Unauthenticated, Message: "sign in to create a " + s.Name}
		}
		v.set(d.field, who.ID)
	}
	var n Node
	err = s.engine.write(ctx, s.oneStatement(v), func(ctx context.Context, drv dialect.Driver) (err error) {
		n, err = s.model.Create(ctx, drv, v)
		return err
	})
	if err != nil {
		return nil, s.refused(err, InCreate)
	}
	return Render(ctx, s, n)
}

// Update changes the record that has this id if its version is the expected one. Else it answers CONFLICT, or
// NOT_FOUND.
func Update(ctx context.Context, s *Store, id ID, expectedVersion int, in Input) (Raw, error) {
	key, err := s.target(id, expectedVersion)
	if err != nil {
		return nil, err
	}
	v, err := s.decode(in, InUpdate)
	if err != nil {
		return nil, err
	}
	var n Node
	err = s.engine.write(ctx, s.oneStatement(v), func(wctx context.Context, drv dialect.Driver) (err error) {
		n, err = s.model.Update(wctx, drv, key, expectedVersion, v)
		if errors.Is(err, ErrNoRow) {
			err = s.conflict(ctx, key, expectedVersion)
		}
		return err
	})
	if err != nil {
		return nil, s.refused(err, InUpdate)
	}
	return Render(ctx, s, n)
}

// ErrNoRow is what Model.Update returns where no record has the id and the version.
var ErrNoRow = errors.New("no such row")

// Deleted is the receipt of a delete. The version is the deletion's own: one above the record's last.
type Deleted struct {
	DeletedID ID
	Version   int
}

// Delete removes the record that has this id if its version is the expected one. Else it answers CONFLICT, or
// NOT_FOUND.
func Delete(ctx context.Context, s *Store, id ID, expectedVersion int) (*Deleted, error) {
	key, err := s.target(id, expectedVersion)
	if err != nil {
		return nil, err
	}
	err = s.engine.write(ctx, !s.model.Hooked(), func(wctx context.Context, drv dialect.Driver) error {
		n, err := s.model.Delete(wctx, drv, key, expectedVersion)
		if err == nil && n == 0 {
			err = s.conflict(ctx, key, expectedVersion)
		}
		return err
	})
	if err != nil {
		return nil, s.refused(err, 0)
	}
	return &Deleted{DeletedID: s.globalID(key), Version: expectedVersion + 1}, nil
}

// target checks what update and delete are told to change.
func (s *Store) target(id ID, expectedVersion int) (uuid.UUID, error) {
	key, err := id.of(s.Entity, "id")
	if err == nil && expectedVersion < 1 {
		err = badInput("expectedVersion", "expectedVersion must be 1 or more, not %d", expectedVersion)
	}
	return key, err
}

// oneStatement reports whether a write of v is a single statement.
func (s *Store) oneStatement(v *Values) bool { return len(v.Links) == 0 && !s.model.Hooked() }

// conflict says why no row had the id and the expected version: two reads, and only then.
func (s *Store) conflict(ctx context.Context, id uuid.UUID, expected int) error {
	m, err := s.byID(ctx, []uuid.UUID{id})
	if err != nil {
		return err
	}
	n := m[id]
	if n == nil {
		return s.notFound(id)
	}
	_, current := s.key(n)
	fields, err := s.changedSince(ctx, id, expected, current)
	if err != nil {
		return err
	}
	global := s.globalID(id)
	return &Error{
		Code:    Conflict,
		Message: fmt.Sprintf("%s has version %d, not %d", global, current, expected),
		Conflict: &ConflictState{
			Type: s.Name, ID: global.String(), ExpectedVersion: expected, CurrentVersion: current,
			Current: s.current(n), Fields: fields,
		},
	}
}

func (e *Entity) notFound(id uuid.UUID) *Error {
	return &Error{Code: NotFound, Message: e.globalID(id).String() + " does not exist"}
}

// changedSince names the fields that changed after a version; nil if the log does not know any more.
func (s *Store) changedSince(ctx context.Context, id uuid.UUID, expected, current int) ([]string, error) {
	if expected >= current { // no version that the log could know
		return nil, nil
	}
	q := &query{args: []any{id, s.Prefix, expected, current}}
	q.write(changelog.FieldsSince)
	var names []string // nil where the log does not know
	err := s.engine.scan(ctx, q, func(rows *sql.Rows) error {
		var columns []string
		if err := rows.Scan(&columns); err != nil {
			return err
		}
		if columns != nil {
			names = s.publicNames(columns)
		}
		return nil
	})
	return names, err
}

// current returns a record's readable fields under their GraphQL names, each as a query would answer it.
func (s *Store) current(n Node) map[string]any {
	rv := reflect.ValueOf(n)
	m := map[string]any{"__typename": s.Name}
	for i := range s.Fields {
		f := &s.Fields[i]
		if f.Use&InType == 0 {
			continue
		}
		w := &bytes.Buffer{}
		if err := f.write(w, f.value(rv)); err != nil {
			w.WriteString("null")
		}
		m[f.Name] = json.RawMessage(w.Bytes())
	}
	for i := range s.Edges {
		d := &s.Edges[i]
		if !d.ToOne() || d.Hidden {
			continue
		}
		m[d.Name] = nil
		if id, ok := d.field.value(rv).(uuid.UUID); ok {
			m[d.Name] = map[string]any{"__typename": d.To, "id": d.to.globalID(id).String()}
		}
	}
	return m
}

// refused turns a write's error into what the client is told.
func (s *Store) refused(err error, use Use) error {
	if name, ok := s.model.Invalid(err); ok {
		public, _ := s.publicName(name)
		return &Error{Code: BadUserInput, Message: fmt.Sprintf("%s: %v", public, root(err)), Fields: []string{public}, Err: err}
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23503" { // foreign_key_violation
		d := s.edges[s.Constraints[pg.ConstraintName]]
		switch {
		case use == 0:
			return &Error{Code: BadUserInput, Fields: []string{"id"}, Err: err,
				Message: fmt.Sprintf("the %s is still referred to by %s", s.Name, s.engine.listOf(pg.TableName))}
		case d != nil && d.Viewer:
			return &Error{Code: Unauthenticated, Message: "who is signed in does not exist any more", Err: err}
		}
	}
	return s.engine.translate(err, use)
}

// root returns the innermost error: what a validator said, without where.
func root(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// listOf names the records of a table.
func (g *Engine) listOf(table string) string {
	if e := g.ofTable(table); e != nil {
		return e.List
	}
	return "other records"
}

// ofTable returns the entity that a table is of, nil if there is none.
func (g *Engine) ofTable(table string) *Entity {
	for _, e := range g.entities {
		if e.Table == table {
			return e
		}
	}
	return nil
}

// inputOf returns the input field that a constraint is about.
func (g *Engine) inputOf(constraint string, use Use) []string {
	for _, e := range g.entities {
		name, ok := e.Constraints[constraint]
		if !ok {
			continue
		}
		if d := e.edges[name]; d != nil && use == InUpdate && d.Through != "" {
			return []string{d.Inputs[0]}
		} else if d != nil && d.Input != "" {
			return []string{d.Input}
		}
		return []string{name}
	}
	return nil
}

// translate turns what Postgres says about a value into the API's errors. Everything else, for which nobody needs to know
// the entity, stays as it is: the server has a table for it.
func (g *Engine) translate(err error, use ...Use) error {
	var pg *pgconn.PgError
	if err == nil || !errors.As(err, &pg) {
		return err
	}
	var u Use
	if len(use) > 0 {
		u = use[0]
	}
	fields := g.inputOf(pg.ConstraintName, u)
	switch pg.Code {
	case "23505": // unique_violation
		return &Error{Code: AlreadyExists, Message: fmt.Sprintf("another record has this %s", join(fields)), Fields: fields, Err: err}
	case "23503": // foreign_key_violation
		return &Error{Code: BadUserInput, Message: fmt.Sprintf("%s names a record that does not exist", join(fields)), Fields: fields, Err: err}
	case "23502", "23514": // not_null_violation, check_violation
		if pg.ColumnName != "" {
			if e := g.ofTable(pg.TableName); e != nil {
				name, _ := e.publicName(pg.ColumnName)
				fields = []string{name}
			}
		}
		return &Error{Code: BadUserInput, Message: fmt.Sprintf("%s is not allowed to be so", join(fields)), Fields: fields, Err: err}
	case "22003", "22001", "22008": // numeric_value_out_of_range, string_data_right_truncation, datetime_field_overflow
		return &Error{Code: BadUserInput, Message: "a value is out of range", Err: err}
	}
	return err
}

func join(fields []string) string {
	if len(fields) == 0 {
		return "value"
	}
	return fields[0]
}
