package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"godstack/internal/changelog"
	"godstack/internal/entity"
	"godstack/internal/entpgx"
)

// Create inserts a record from a create input.
func Create(ctx context.Context, s *Store, in Input) (Raw, error) {
	who := askerOf(ctx)
	if holds, known := who.known(s.rules[entity.Create]); known && !holds {
		return nil, s.denied(who, string(entity.Create))
	}
	v, err := s.decode(in, InCreate)
	if err != nil {
		return nil, err
	}
	v.ID = entity.NewID()
	for i := range s.Edges {
		d := &s.Edges[i]
		if !d.Viewer {
			continue
		}
		if !who.signedIn {
			return nil, s.denied(who, string(entity.Create))
		}
		v.set(d.field, who.ID)
	}
	var n Node
	err = s.engine.write(ctx, s.oneStatement(v), checks{s.checkIDs(who, v, InCreate), s.checkNew(who, v)}, func(ctx context.Context, drv dialect.Driver) (err error) {
		n, err = s.model.Create(ctx, drv, v)
		return err
	})
	if err != nil {
		return nil, s.refused(who, err, InCreate)
	}
	return Render(ctx, s, n)
}

// Update changes the record that has this id if its version is the expected one, or what has changed since can be merged. Else it
// answers CONFLICT, FORBIDDEN or NOT_FOUND. onConflict nil is Fail.
func Update(ctx context.Context, s *Store, id ID, expectedVersion int, in Input, onConflict *OnConflict) (Raw, error) {
	who := askerOf(ctx)
	key, err := s.target(who, entity.Update, id, expectedVersion)
	if err != nil {
		return nil, err
	}
	v, err := s.decode(in, InUpdate)
	if err != nil {
		return nil, err
	}
	u := &revision{Store: s, who: who, id: key, expected: expectedVersion, values: v, need: s.toSet(v)}
	merging := onConflict != nil && *onConflict == Merge
	may := s.allowed(who, u.need)
	// Where ent, or hooks, write in statements of their own, the first of all finds out whether the record is the one to change.
	first := may != nil && len(v.Links) > 0 || merging && s.model.Hooked()
	c := checks{s.checkIDs(who, v, InUpdate), s.checkMoved(who, key, v)}
	var (
		n    Node
		held bool
	)
	err = s.engine.write(ctx, s.oneStatement(v), c, func(ctx context.Context, drv dialect.Driver) (err error) {
		if first {
			if err := s.lock(ctx, drv, who, u.need, key, expectedVersion); err != nil {
				return err
			}
			held = true
		}
		n, err = s.model.Update(ctx, drv, key, expectedVersion, v, may)
		return err
	})
	if merging && !held && errors.Is(err, ErrNoRow) { // so nothing is written yet
		err = s.engine.write(ctx, false, c, func(ctx context.Context, drv dialect.Driver) (err error) {
			n, err = u.merge(ctx, drv, may)
			return err
		})
	}
	if errors.Is(err, ErrNoRow) {
		err = s.conflict(ctx, entity.Update, u.need, key, expectedVersion)
	}
	if err != nil {
		return nil, s.refused(who, err, InUpdate)
	}
	return Render(ctx, s, n)
}

// lock keeps a record as it is until the transaction ends. ErrNoRow says that none has the id and version, 0 for any, and meets
// need.
func (s *Store) lock(ctx context.Context, drv dialect.Driver, who asker, need *rule, id uuid.UUID, version int) error {
	q := &query{who: who}
	q.write("SELECT FROM ", quote(s.Table), " t WHERE t.id = ")
	q.arg(id)
	if version != 0 {
		q.write(" AND t.version = ")
		q.arg(version)
	}
	q.write(" AND ")
	compiler{w: q, who: who}.rule(need, s.Entity, "t")
	q.write(" FOR NO KEY UPDATE")
	rows := &sql.Rows{}
	if err := drv.Query(ctx, q.text.String(), q.args, rows); err != nil {
		return err
	}
	found := rows.Next()
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || found {
		return err
	}
	return ErrNoRow
}

// toSet returns what it needs to make the changes of v: beside the rule of update those of the fields, for what one may not
// read one may not overwrite.
func (s *Store) toSet(v *Values) *rule {
	need := s.need(entity.Update)
	var rules []*rule
	for _, column := range slices.Concat(v.columns(), v.Clear) {
		if f := s.column[column]; f != nil && f.rule != nil {
			rules = append(rules, f.rule)
		}
	}
	if rules == nil {
		return need
	}
	return &rule{kind: entity.KindAll, rules: append(rules, need)}
}

// ErrNoRow is what Model.Update returns where no record has the id and the version.
var ErrNoRow = errors.New("no such row")

// Deleted is the receipt of a delete. The version is the deletion's own: one above the record's last.
type Deleted struct {
	DeletedID ID
	Version   int
}

// Delete removes the record that has this id if its version is the expected one, or hides it where it can be restored. Else it answers CONFLICT, FORBIDDEN or
// NOT_FOUND.
func Delete(ctx context.Context, s *Store, id ID, expectedVersion int) (*Deleted, error) {
	who := askerOf(ctx)
	key, err := s.target(who, entity.Delete, id, expectedVersion)
	if err != nil {
		return nil, err
	}
	need := s.need(entity.Delete)
	if s.SoftDelete {
		err = s.deleteSoftly(ctx, who, need, key, expectedVersion)
	} else {
		err = s.engine.write(ctx, !s.model.Hooked(), checks{}, func(ctx context.Context, drv dialect.Driver) error {
			n, err := s.model.Delete(ctx, drv, key, expectedVersion, s.allowed(who, need))
			if err == nil && n == 0 {
				err = ErrNoRow
			}
			return err
		})
	}
	if errors.Is(err, ErrNoRow) {
		err = s.conflict(ctx, entity.Delete, need, key, expectedVersion)
	}
	if err != nil {
		return nil, s.refused(who, err, 0)
	}
	return &Deleted{DeletedID: s.globalID(key), Version: expectedVersion + 1}, nil
}

// target checks what update and delete are told to change. Who is not signed in is told so, where that is what is missing.
func (s *Store) target(who asker, op entity.Operation, id ID, expectedVersion int) (uuid.UUID, error) {
	if holds, known := who.known(s.need(op)); known && !holds && !who.signedIn {
		return uuid.UUID{}, s.denied(who, string(op))
	}
	key, err := id.of(s.Entity, "id")
	if err == nil && expectedVersion < 1 {
		err = badInput("expectedVersion", "expectedVersion must be 1 or more, not %d", expectedVersion)
	}
	return key, err
}

// oneStatement reports whether a write of v is a single statement.
func (s *Store) oneStatement(v *Values) bool { return len(v.Links) == 0 && !s.model.Hooked() }

// conflict says why no row had the id and the expected version and met need: two reads, and only then.
func (s *Store) conflict(ctx context.Context, op entity.Operation, need *rule, id uuid.UUID, expected int) error {
	n, err := s.standing(ctx, op, s.rules[reading], need, id)
	if err != nil {
		return err
	}
	_, current := s.key(n)
	columns, err := s.changedSince(ctx, id, expected, current)
	if err != nil {
		return err
	}
	return s.conflicting(ctx, n, expected, columns)
}

// standing reads a record that op is to change: NOT_FOUND where there is none, or read is not met, FORBIDDEN where need is not met.
func (s *Store) standing(ctx context.Context, op entity.Operation, read, need *rule, id uuid.UUID) (Node, error) {
	q := newQuery(ctx)
	q.write("SELECT (")
	compiler{w: q, who: q.who}.rule(need, s.Entity, "t")
	q.write(") IS TRUE, ", s.columns, " FROM ", quote(s.Table), " t WHERE t.id = ")
	q.arg(id)
	q.meets(read, s.Entity, "t")
	var (
		n   Node
		may bool
	)
	if err := s.each(ctx, q, []any{&may}, func(r Node) { n = r }); err != nil {
		return nil, err
	}
	switch {
	case n == nil:
		return nil, s.notFound(id)
	case !may:
		return nil, s.denied(q.who, string(op))
	}
	return n, nil
}

// conflicting is the answer to who expected another version of n. columns are those that changed since, nil where nobody knows.
func (s *Store) conflicting(ctx context.Context, n Node, expected int, columns []string) error {
	id, version := s.key(n)
	if version == expected { // what was in the way a moment ago is not any more
		return &Error{Code: Unavailable, Message: "who may change the record has just changed", RetryAfter: 100 * time.Millisecond}
	}
	state, err := s.current(ctx, n)
	if err != nil {
		return err
	}
	global := s.globalID(id)
	return &Error{
		Code:    Conflict,
		Message: fmt.Sprintf("%s has version %d, not %d", global, version, expected),
		Conflict: &ConflictState{
			Type: s.Name, ID: global.String(), ExpectedVersion: expected, CurrentVersion: version,
			Current: state, Fields: s.publicNames(askerOf(ctx), n, columns),
		},
	}
}

func (e *Entity) notFound(id uuid.UUID) *Error {
	return &Error{Code: NotFound, Message: e.globalID(id).String() + " does not exist"}
}

// changedSince names the columns and edges that changed after a version; nil if the log does not know any more.
func (s *Store) changedSince(ctx context.Context, id uuid.UUID, expected, current int) ([]string, error) {
	if expected >= current { // no version that the log could know
		return nil, nil
	}
	q := &query{args: []any{id, s.Prefix, expected, current}}
	q.write(changelog.FieldsSince)
	var columns []string // nil where the log does not know
	err := s.engine.scan(ctx, q, func(rows *sql.Rows) error { return rows.Scan(&columns) })
	return columns, err
}

// current returns what who asks may read of a record under the GraphQL names, each as a query would answer it.
func (s *Store) current(ctx context.Context, n Node) (map[string]any, error) {
	who, rv := askerOf(ctx), reflect.ValueOf(n)
	m := map[string]any{"__typename": s.Name}
	for i := range s.Fields {
		f := &s.Fields[i]
		if f.Use&InType == 0 {
			continue
		}
		w := &bytes.Buffer{}
		if !who.reads(s.Entity, f, n) || f.write(w, f.value(rv)) != nil {
			w.Reset()
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
		id, ok := d.field.value(rv).(uuid.UUID)
		if ok && (who.limit(s.Entity, d.field) != nil || d.to.deleted != nil) {
			seen, err := s.engine.stores[d.to.Prefix].byID(ctx, []uuid.UUID{id})
			if err != nil {
				return nil, err
			}
			ok = seen[id] != nil
		}
		if ok {
			m[d.Name] = map[string]any{"__typename": d.To, "id": d.to.globalID(id).String()}
		}
	}
	return m, nil
}

// accessRefused is the code that the database function access_refuse raises, with what it was about as the detail.
const accessRefused = "GS403"

// refusal builds a statement that fails with what the first of its conditions is about that does not hold.
type refusal struct{ query }

// unless begins a condition. What follows is written to the query, up to end.
func (q *refusal) unless() {
	if q.text.Len() == 0 {
		q.write("SELECT access_refuse(c.what) FROM (SELECT CASE")
	}
	q.write(" WHEN (")
}

func (q *refusal) end(what string) { q.write(") IS NOT TRUE THEN '", what, "'") }

// statement returns nil where there are no conditions.
func (q *refusal) statement() *entpgx.Statement {
	if q.text.Len() == 0 {
		return nil
	}
	q.write(" END AS what) c WHERE c.what IS NOT NULL")
	return &entpgx.Statement{SQL: q.text.String(), Args: q.args}
}

// checkIDs checks, before a write, that the records whose ids the input has may be read: the write itself may be what lets one
// read them, and what else is wrong with it would tell of them.
func (s *Store) checkIDs(who asker, v *Values, use Use) *entpgx.Statement {
	q := &refusal{query{who: who}}
	q.unreadable(s, v, use)
	return q.statement()
}

// unreadable writes the conditions of checkIDs.
func (q *refusal) unreadable(s *Store, v *Values, use Use) {
	who := q.who
	limited := func(e *Entity) bool {
		holds, known := who.known(e.rules[reading])
		return !holds || !known
	}
	for _, a := range v.Set {
		f := s.column[a.Column]
		if f == nil || f.edge == nil || f.edge.Viewer || !limited(f.of) {
			continue
		}
		q.unless()
		q.write("EXISTS (SELECT FROM ", quote(f.of.Table), " t WHERE t.id = ")
		q.arg(a.Value)
		q.may(f.of, "t")
		q.write(")")
		q.end(f.edge.Input)
	}
	for _, l := range v.Links {
		d := s.edges[l.Edge]
		if len(l.Add) == 0 || !limited(d.to) {
			continue
		}
		q.unless()
		q.write("NOT EXISTS (SELECT FROM unnest(")
		q.arg(l.Add)
		q.write("::uuid[]) i (id) WHERE NOT EXISTS (SELECT FROM ", quote(d.to.Table), " t WHERE t.id = i.id")
		q.may(d.to, "t")
		q.write("))")
		if use == InCreate {
			q.end(d.Input)
		} else {
			q.end(d.Inputs[0])
		}
	}
}

// checkNew checks, after a create, that the rule holds for the record. The ids come first, again: where a right was lost since
// they were checked, the answer is the same as where it was lost before.
func (s *Store) checkNew(who asker, v *Values) *entpgx.Statement {
	r := s.rules[entity.Create]
	if _, known := who.known(r); known {
		return nil
	}
	q := &refusal{query{who: who}}
	q.unreadable(s, v, InCreate)
	q.unless()
	q.write("EXISTS (SELECT FROM ", quote(s.Table), " t WHERE t.id = ")
	q.arg(v.ID)
	q.write(" AND ")
	compiler{w: q, who: who}.rule(r, s.Entity, "t")
	q.write(")")
	q.end(string(entity.Create))
	return q.statement()
}

// checkMoved checks, after an update that set an edge which the rules of create or update look at, that who asks might have
// created the record there: nothing is moved to where one may not put it.
func (s *Store) checkMoved(who asker, id uuid.UUID, v *Values) *entpgx.Statement {
	r := s.rules[entity.Create]
	moved := slices.ContainsFunc(slices.Concat(v.columns(), v.Clear), func(column string) bool {
		f := s.column[column]
		return f != nil && f.edge != nil && (r.looksAt(f.edge) || s.rules[entity.Update].looksAt(f.edge))
	})
	if holds, known := who.known(r); !moved || known && holds {
		return nil
	}
	q := &refusal{query{who: who}}
	q.unless()
	// Where no row was updated there is none of this transaction.
	q.write("NOT EXISTS (SELECT FROM ", quote(s.Table), " t WHERE t.id = ")
	q.arg(id)
	q.write(" AND t.xmin = pg_current_xact_id_if_assigned()::xid AND (")
	compiler{w: q, who: who}.rule(r, s.Entity, "t")
	q.write(") IS NOT TRUE)")
	q.end(string(entity.Update))
	return q.statement()
}

// refused turns a write's error into what the client is told.
func (s *Store) refused(who asker, err error, use Use) error {
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
	if pg != nil && pg.Code == accessRefused {
		switch op := entity.Operation(pg.Detail); op {
		case entity.Create, entity.Update:
			return s.denied(who, string(op))
		}
		return unknownRecord([]string{pg.Detail}, err)
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
		return unknownRecord(fields, err)
	case "23502", "23514": // not_null_violation, check_violation
		if pg.ColumnName != "" {
			if e := g.ofTable(pg.TableName); e != nil {
				if name, readable := e.publicName(pg.ColumnName); readable {
					fields = []string{name}
				}
			}
		}
		return &Error{Code: BadUserInput, Message: fmt.Sprintf("%s is not allowed to be so", join(fields)), Fields: fields, Err: err}
	case "22003", "22001", "22008": // numeric_value_out_of_range, string_data_right_truncation, datetime_field_overflow
		return &Error{Code: BadUserInput, Message: "a value is out of range", Err: err}
	}
	return err
}

// unknownRecord is the answer to the id of a record that does not exist, or that who asks may not read.
func unknownRecord(fields []string, err error) *Error {
	return &Error{Code: BadUserInput, Message: fmt.Sprintf("%s names a record that does not exist", join(fields)), Fields: fields, Err: err}
}

func join(fields []string) string {
	if len(fields) == 0 {
		return "value"
	}
	return fields[0]
}
