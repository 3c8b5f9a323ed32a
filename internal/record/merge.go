package record

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/internal/entity"
)

// OnConflict says what becomes of an update whose expected version is not the current one any more.
type OnConflict string

// The values of OnConflict.
const (
	Fail  OnConflict = "FAIL"  // it is refused
	Merge OnConflict = "MERGE" // it is applied to the current version, if none of its fields was changed to something else since
)

// Merged is an entry of `extensions.merged` in an answer: an update that was applied to a later version than it expected.
type Merged struct {
	Path   ast.Path `json:"path"`   // of the root field
	Theirs []string `json:"theirs"` // what others had changed, as far as who asks may read it
	Yours  []string `json:"yours"`  // what the update has set
}

// revision is an update of one record.
type revision struct {
	*Store
	who      asker
	id       uuid.UUID
	expected int
	values   *Values
	need     *rule // what it takes to make it
}

// merge applies the update to whatever version the record has, unless it would overwrite what was changed to something else after
// the expected one: that is CONFLICT. The record is locked first, so that no other writer gets in between and nobody tries twice.
func (u *revision) merge(ctx context.Context, drv dialect.Driver, may func(*sql.Selector)) (Node, error) {
	if err := u.lock(ctx, drv, u.who, u.need, u.id, 0); err != nil && !errors.Is(err, ErrNoRow) { // standing says why there is none
		return nil, err
	}
	// What the lock has waited for, a statement of its own sees: other tables too, which rules look at.
	n, err := u.standing(ctx, entity.Update, u.rules[reading], u.need, u.id)
	if err != nil {
		return nil, err
	}
	_, current := u.key(n)
	columns, err := u.changedSince(ctx, u.id, u.expected, current)
	if err != nil {
		return nil, err
	}
	overwrites := columns == nil
	if !overwrites {
		if overwrites, err = u.overwrites(ctx, n, columns); err != nil {
			return nil, err
		}
	}
	if overwrites {
		return nil, u.conflicting(ctx, n, u.expected, columns)
	}
	after, err := u.model.Update(ctx, drv, u.id, current, u.values, may)
	if err != nil {
		return nil, err
	}
	w := workOf(ctx)
	merged := Merged{
		Path:   graphql.GetPath(ctx),
		Theirs: u.publicNames(u.who, n, columns),
		Yours:  u.publicNames(u.who, n, u.values.touched()),
	}
	w.merged = append(w.merged, merged)
	if w.key != nil { // that a field has changed is for those who may read it
		for _, name := range merged.Theirs {
			if f := u.fields[name]; f != nil && f.rule != nil {
				w.key.shown.add(u.Store, after, name)
			}
		}
	}
	return after, nil
}

// overwrites reports whether the update gives one of the columns, which changed since the expected version, another value than n has
// now. Each link is a value of its own: there, or not there.
func (u *revision) overwrites(ctx context.Context, n Node, columns []string) (bool, error) {
	now := reflect.ValueOf(n)
	for _, a := range u.values.Set {
		if f := u.column[a.Column]; slices.Contains(columns, a.Column) && !f.equal(f.value(now), a.Value) {
			return true, nil
		}
	}
	for _, column := range u.values.Clear {
		if slices.Contains(columns, column) && u.column[column].value(now) != nil {
			return true, nil
		}
	}
	for i := range u.values.Links {
		l := &u.values.Links[i]
		if !slices.Contains(columns, l.Edge) {
			continue
		}
		links, err := u.relinked(ctx, n, u.edges[l.Edge])
		if err != nil {
			return false, err
		}
		for id, linked := range links {
			if wants, said := l.wants(id); said && wants != linked {
				return true, nil
			}
		}
	}
	return false, nil
}

// equal reports whether two values of a field are the same to clients.
func (f *Field) equal(a, b any) bool {
	var x, y bytes.Buffer
	return f.write(&x, a) == nil && f.write(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// relinked returns the records that were linked or unlinked since the expected version, and whether they are linked now.
func (u *revision) relinked(ctx context.Context, n Node, d *Edge) (map[uuid.UUID]bool, error) {
	_, current := u.key(n)
	q := &query{args: []any{u.id, u.Prefix, u.expected, current, d.Name}}
	q.write(`SELECT i.id, EXISTS (SELECT FROM `, quote(d.Through), ` j WHERE j.`, quote(d.From), ` = $1 AND j.`, quote(d.Ref), ` = i.id)
  FROM (SELECT DISTINCT e::uuid AS id
          FROM changes c, jsonb_array_elements_text((c.old->$5::text->'added') || (c.old->$5::text->'removed')) e
         WHERE c.id = $1 AND c.entity = $2 AND c.version > $3::bigint AND c.version <= $4::bigint) i`)
	links := map[uuid.UUID]bool{}
	err := u.engine.scan(ctx, q, func(rows *sql.Rows) error {
		var (
			id     uuid.UUID
			linked bool
		)
		err := rows.Scan(&id, &linked)
		links[id] = linked
		return err
	})
	return links, err
}
