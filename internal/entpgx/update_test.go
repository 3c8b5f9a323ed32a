package entpgx

import (
	"context"
	"errors"
	"testing"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/sqlgraph"
	"entgo.io/ent/dialect/sql/sqljson"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// countedDriver counts statements and transactions.
type countedDriver struct {
	dialect.Driver
	statements, txs int
}

func (d *countedDriver) Exec(ctx context.Context, query string, args, v any) error {
	d.statements++
	return d.Driver.Exec(ctx, query, args, v)
}

func (d *countedDriver) Query(ctx context.Context, query string, args, v any) error {
	d.statements++
	return d.Driver.Query(ctx, query, args, v)
}

func (d *countedDriver) Tx(ctx context.Context) (dialect.Tx, error) {
	d.txs++
	return d.Driver.Tx(ctx)
}

func pairEdge(ids ...uuid.UUID) *sqlgraph.EdgeSpec {
	e := &sqlgraph.EdgeSpec{
		Rel: sqlgraph.O2O, Inverse: true, Table: "things", Columns: []string{"pair_id"},
		Target: &sqlgraph.EdgeTarget{IDSpec: sqlgraph.NewFieldSpec("id", field.TypeUUID)},
	}
	for _, id := range ids {
		e.Target.Nodes = append(e.Target.Nodes, id)
	}
	return e
}

// TestUpdateOne runs each update by sqlgraph.UpdateNode and by UpdateOne and compares node, row and error.
func TestUpdateOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	owner, other := uuid.New(), uuid.New()
	require.NoError(t, b.drv.Exec(t.Context(), "insert into owners values ($1, 'o')", []any{owner}, nil))
	create(t, b.drv, other, fieldSpec("name", "taken"))

	for name, c := range map[string]struct {
		change func(*sqlgraph.UpdateSpec)
		doc    any // before the update
		err    func(error) bool
		still  bool // nothing is set after all
	}{
		"set": {change: func(s *sqlgraph.UpdateSpec) { s.SetField("name", field.TypeString, "b") }},
		"add": {change: func(s *sqlgraph.UpdateSpec) { s.AddField("n", field.TypeInt, 5) }},
		"clear": {change: func(s *sqlgraph.UpdateSpec) {
			s.ClearField("line", field.TypeString)
			s.ClearField("n", field.TypeInt)
		}},
		"json": {change: func(s *sqlgraph.UpdateSpec) { s.SetField("doc", field.TypeJSON, []int{1}) }},
		"version": {change: func(s *sqlgraph.UpdateSpec) {
			s.SetField("name", field.TypeString, "b")
			s.AddField("version", field.TypeInt, 1)
			s.Predicate = func(sel *sql.Selector) { sel.Where(sql.EQ(sel.C("version"), 1)) }
		}},
		"conflict": {
			change: func(s *sqlgraph.UpdateSpec) {
				s.SetField("name", field.TypeString, "b")
				s.Predicate = func(sel *sql.Selector) { sel.Where(sql.EQ(sel.C("version"), 2)) }
			},
			err: isNotFound,
		},
		"predicate with or": {
			change: func(s *sqlgraph.UpdateSpec) {
				s.SetField("name", field.TypeString, "b")
				s.Predicate = func(sel *sql.Selector) {
					sel.Where(sql.Or(sql.EQ("version", 2), sql.EQ("version", 3)))
				}
			},
			err: isNotFound,
		},
		"predicate on another table": {change: func(s *sqlgraph.UpdateSpec) {
			s.SetField("name", field.TypeString, "b")
			s.Predicate = func(sel *sql.Selector) {
				sel.Where(sql.In(sel.C("id"), sql.Select("id").From(sql.Table("things")).Where(sql.EQ("n", 1))))
			}
		}},
		"no such node": {
			change: func(s *sqlgraph.UpdateSpec) {
				s.SetField("name", field.TypeString, "b")
				s.Node.ID.Value = uuid.New()
			},
			err: isNotFound,
		},
		"edge on the own row": {change: func(s *sqlgraph.UpdateSpec) { s.Edges.Add = append(s.Edges.Add, ownerEdge(owner)) }},
		"cleared edge":        {change: func(s *sqlgraph.UpdateSpec) { s.Edges.Clear = append(s.Edges.Clear, ownerEdge()) }},
		"replaced edge": {change: func(s *sqlgraph.UpdateSpec) {
			s.Edges = sqlgraph.EdgeMut{Clear: edges(ownerEdge()), Add: edges(ownerEdge(owner))}
		}},
		"inverse of a one-to-one":    {change: func(s *sqlgraph.UpdateSpec) { s.Edges.Add = append(s.Edges.Add, pairEdge(other)) }},
		"cleared inverse one-to-one": {change: func(s *sqlgraph.UpdateSpec) { s.Edges.Clear = append(s.Edges.Clear, pairEdge()) }},
		"missing neighbour": {
			change: func(s *sqlgraph.UpdateSpec) { s.Edges.Add = append(s.Edges.Add, ownerEdge(uuid.New())) },
			err:    sqlgraph.IsForeignKeyConstraintError,
		},
		"unique": {
			change: func(s *sqlgraph.UpdateSpec) { s.SetField("name", field.TypeString, "taken") },
			err:    sqlgraph.IsUniqueConstraintError,
		},
		"appending modifier": {
			doc: []int{1},
			change: func(s *sqlgraph.UpdateSpec) {
				s.AddModifier(func(u *sql.UpdateBuilder) { sqljson.Append(u, "doc", []int{2, 3}) })
			},
		},
		"modifier beside fields": {change: func(s *sqlgraph.UpdateSpec) {
			s.SetField("name", field.TypeString, "b")
			s.AddModifier(func(u *sql.UpdateBuilder) { u.Set("line", sql.Expr("upper('q')")) })
		}},
		"modifier that sets nothing": {
			still:  true,
			change: func(s *sqlgraph.UpdateSpec) { s.AddModifier(func(*sql.UpdateBuilder) {}) },
		},
		"some columns": {change: func(s *sqlgraph.UpdateSpec) { s.Node.Schema = "public"; s.SetField("n", field.TypeInt, 9) }},
	} {
		var got [2]thing
		var errs [2]error
		var rows [2]string
		for i, update := range []func(context.Context, dialect.Driver, *sqlgraph.UpdateSpec) error{sqlgraph.UpdateNode, UpdateOne} {
			id := uuid.New()
			create(t, b.drv, id, fieldSpec("name", "a"), fieldSpec("n", 1), fieldSpec("line", "x"), fieldSpec("owner_id", owner),
				&sqlgraph.FieldSpec{Column: "doc", Type: field.TypeJSON, Value: c.doc})
			spec := updateSpec(id)
			got[i].scanInto(spec)
			c.change(spec)
			require.True(t, UpdateFits(spec), name)
			drv := &countedDriver{Driver: b.drv}
			errs[i] = update(t.Context(), drv, spec)
			if i == 1 && !c.still {
				require.Equal(t, []int{1, 0}, []int{drv.statements, drv.txs}, name)
			}
			if errs[i] == nil {
				require.Equal(t, id, got[i].ID, name)
				got[i].ID = uuid.Nil
			}
			var err error
			rows[i], err = read[string](t.Context(), b.drv, "select (to_jsonb(t) - 'id')::text from things t where id = $1", id)
			require.NoError(t, err)
			require.NoError(t, b.drv.Exec(t.Context(), "delete from things where id = $1", []any{id}, nil))
		}
		require.Equal(t, got[0], got[1], name)
		require.Equal(t, rows[0], rows[1], name)
		if c.err == nil {
			require.NoError(t, errors.Join(errs[:]...), name)
			continue
		}
		require.True(t, c.err(errs[0]), "%s: %v", name, errs[0])
		require.True(t, c.err(errs[1]), "%s: %v", name, errs[1])
	}
	b.idle(t)
}

func isNotFound(err error) bool {
	_, ok := err.(*sqlgraph.NotFoundError) //nolint:errorlint // as generated code asks
	return ok
}

func edges(es ...*sqlgraph.EdgeSpec) []*sqlgraph.EdgeSpec { return es }

func TestUpdateOneInTx(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := uuid.New()
	create(t, b.drv, id, fieldSpec("name", "a"))
	tx := b.begin(t, t.Context())
	var got thing
	spec := updateSpec(id)
	got.scanInto(spec)
	spec.SetField("name", field.TypeString, "b")
	require.NoError(t, UpdateOne(t.Context(), FromTx(tx), spec))
	require.Equal(t, "b", got.Name)
	require.NoError(t, tx.Rollback())
	name, err := read[string](t.Context(), b.drv, "select name from things")
	require.NoError(t, err)
	require.Equal(t, "a", name)
}

// TestUpdateOneSeesTriggers has the version raised by a trigger: the node that comes back must carry it.
func TestUpdateOneSeesTriggers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.pool.Exec(t.Context(), `
		create function bump() returns trigger language plpgsql as $$ begin new.version := old.version + 1; return new; end $$;
		create trigger bump before update on things for each row execute function bump()`)
	require.NoError(t, err)
	id := uuid.New()
	create(t, b.drv, id, fieldSpec("name", "a"))
	for _, drv := range []dialect.Driver{b.drv, b.std(t)} {
		var got thing
		spec := updateSpec(id)
		got.scanInto(spec)
		spec.SetField("n", field.TypeInt, 1)
		before, err := read[int](t.Context(), drv, "select version from things")
		require.NoError(t, err)
		require.NoError(t, UpdateOne(t.Context(), drv, spec))
		require.Equal(t, before+1, got.Version)
	}
}

func TestUpdateFits(t *testing.T) {
	t.Parallel()
	edge := func(rel sqlgraph.Rel, inverse, bidi bool) *sqlgraph.EdgeSpec {
		return &sqlgraph.EdgeSpec{Rel: rel, Inverse: inverse, Bidi: bidi}
	}
	for name, change := range map[string]func(*sqlgraph.UpdateSpec){
		"nothing to set":     func(*sqlgraph.UpdateSpec) {},
		"no id":              func(s *sqlgraph.UpdateSpec) { s.Node.ID = nil; s.SetField("n", field.TypeInt, 1) },
		"many-to-many":       func(s *sqlgraph.UpdateSpec) { s.Edges.Add = edges(edge(sqlgraph.M2M, false, false)) },
		"one-to-many":        func(s *sqlgraph.UpdateSpec) { s.Edges.Clear = edges(edge(sqlgraph.O2M, false, false)) },
		"one-to-one":         func(s *sqlgraph.UpdateSpec) { s.Edges.Add = edges(edge(sqlgraph.O2O, false, false)) },
		"one-to-one of both": func(s *sqlgraph.UpdateSpec) { s.Edges.Add = edges(edge(sqlgraph.O2O, false, true)) },
		"one of several": func(s *sqlgraph.UpdateSpec) {
			s.Edges.Add = edges(edge(sqlgraph.M2O, true, false), edge(sqlgraph.M2M, true, false))
		},
	} {
		spec := updateSpec(uid)
		new(thing).scanInto(spec)
		change(spec)
		require.False(t, UpdateFits(spec), name)
	}
}
