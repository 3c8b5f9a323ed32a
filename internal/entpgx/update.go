package entpgx

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/sqlgraph"
)

// UpdateFits reports whether spec, the update of one node, can be one statement: it has a single id column, and sets
// something, but on the node's own row only.
func UpdateFits(spec *sqlgraph.UpdateSpec) bool {
	if spec.Node.ID == nil {
		return false
	}
	for _, edges := range [][]*sqlgraph.EdgeSpec{spec.Edges.Add, spec.Edges.Clear} {
		for _, e := range edges {
			// Of a bidirectional one-to-one edge the neighbour's row has a key as well.
			if e.Rel != sqlgraph.M2O && (e.Rel != sqlgraph.O2O || !e.Inverse) {
				return false
			}
		}
	}
	f := spec.Fields
	return len(f.Set)+len(f.Add)+len(f.Clear)+len(spec.Edges.Add)+len(spec.Edges.Clear)+len(spec.Modifiers) > 0
}

// UpdateOne does what sqlgraph.UpdateNode does for a spec that UpdateFits accepts, with ScanValues and Assign set, as
// UPDATE ... RETURNING: no transaction, no SELECT, and the row is as triggers left it. Where no row has the id and meets
// the predicate, it returns a *sqlgraph.NotFoundError.
func UpdateOne(ctx context.Context, drv dialect.Driver, spec *sqlgraph.UpdateSpec) error {
	one, id := *spec, spec.Node.ID
	var set []setting
	if _, ok := drv.(*Driver); ok {
		// Outside a transaction the statement makes the settings itself, before it changes the row: that is cheaper
		// than a statement for each. Where no row is found there is nothing to make them for.
		set = settings(ctx)
		ctx = context.WithValue(ctx, settingsKey{}, []setting(nil))
	}
	one.Predicate = func(s *sql.Selector) {
		s.Where(sql.EQ(id.Column, id.Value))
		for _, x := range set {
			s.Where(sql.P(func(b *sql.Builder) {
				b.WriteString("set_config(").Arg(x.name).Comma().Arg(x.value).WriteString(", true) IS NOT NULL")
			}))
		}
		if spec.Predicate != nil {
			spec.Predicate(s)
		}
	}
	one.Modifiers = append(slices.Clip(spec.Modifiers), func(u *sql.UpdateBuilder) { u.Returning(spec.Node.Columns...) })
	r := &returning{Driver: drv, spec: spec}
	n, err := sqlgraph.UpdateNodes(ctx, r, &one)
	switch {
	case err != nil:
		return err
	case !r.sent:
		// The modifiers set nothing: there is only the row to read.
		return sqlgraph.UpdateNode(ctx, drv, spec)
	case n == 0:
		return &sqlgraph.NotFoundError{}
	}
	return nil
}

// returning turns the one Exec of sqlgraph.UpdateNodes into a query and scans the row that comes back.
type returning struct {
	dialect.Driver
	spec *sqlgraph.UpdateSpec
	sent bool
}

func (r *returning) Exec(ctx context.Context, query string, args, v any) error {
	r.sent = true
	res, ok := v.(*sql.Result)
	if !ok {
		return fmt.Errorf("entpgx: invalid type %T for the result, expect *sql.Result", v)
	}
	rows := &sql.Rows{}
	if err := r.Query(ctx, query, args, rows); err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	n := 0
	for ; rows.Next(); n++ {
		values, err := r.spec.ScanValues(columns)
		if err != nil {
			return err
		}
		for i, v := range values {
			if _, ok := v.(*sql.UnknownType); ok {
				values[i] = sql.ScanTypeOf(rows, i)
			}
		}
		if err := rows.Scan(values...); err != nil {
			return fmt.Errorf("scan updated row: %w", err)
		}
		if err := r.spec.Assign(columns, values); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	*res = driver.RowsAffected(n)
	return nil
}
