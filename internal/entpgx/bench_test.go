package entpgx

import (
	"context"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/sqlgraph"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"
)

// contender is one way of doing what a benchmark does.
type contender struct {
	name string
	run  func(context.Context) error
}

// race runs the contenders in turns, so that all see the same machine, and reports each one's time, and its ratio to
// the first's.
func race(b *testing.B, cs ...contender) {
	b.Helper()
	for _, c := range cs {
		for range 10 { // prepares statements, fills pools
			require.NoError(b, c.run(b.Context()))
		}
	}
	spent := make([]time.Duration, len(cs))
	for b.Loop() {
		for i, c := range cs {
			start := time.Now()
			if err := c.run(b.Context()); err != nil {
				b.Fatal(c.name, err)
			}
			spent[i] += time.Since(start)
		}
	}
	b.ReportMetric(0, "ns/op") // of all contenders together: meaningless
	for i, c := range cs {
		b.ReportMetric(float64(spent[i].Microseconds())/float64(b.N), c.name+"-us")
		if i > 0 {
			b.ReportMetric(float64(spent[i])/float64(spent[0]), c.name+"/"+cs[0].name)
		}
	}
}

// benchAllocs reports the allocations of each contender on its own.
func benchAllocs(b *testing.B, cs ...contender) {
	for _, c := range cs {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			require.NoError(b, c.run(b.Context()))
			for b.Loop() {
				if err := c.run(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

const thingSelect = `select id, name, n, version, line, doc, owner_id, pair_id from things`

func (th *thing) scanPgx(rows pgx.Rows) error {
	var (
		doc         []byte
		n           pgtype.Int8
		line        pgtype.Text
		owner, pair pgtype.UUID // for uuid.UUID pgx would go through text
	)
	if err := rows.Scan((*uuidValue)(&th.ID), &th.Name, &n, &th.Version, &line, &doc, &owner, &pair); err != nil {
		return err
	}
	th.N, th.Doc = int(n.Int64), string(doc)
	if line.Valid {
		th.Line = &line.String
	}
	if owner.Valid {
		th.Owner = (*uuid.UUID)(&owner.Bytes)
	}
	if pair.Valid {
		th.Pair = (*uuid.UUID)(&pair.Bytes)
	}
	return nil
}

func queryPgx(ctx context.Context, q Querier, query string, args ...any) ([]*thing, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []*thing
	for rows.Next() {
		th := &thing{}
		if err := th.scanPgx(rows); err != nil {
			return nil, err
		}
		all = append(all, th)
	}
	return all, rows.Err()
}

func queryEnt(ctx context.Context, drv dialect.Driver, change func(*sqlgraph.QuerySpec)) ([]*thing, error) {
	var all []*thing
	spec := sqlgraph.NewQuerySpec("things", thingColumns, idSpec(nil))
	spec.ScanValues = (*thing)(nil).scanValues
	spec.Assign = func(columns []string, values []any) error {
		th := &thing{}
		all = append(all, th)
		return th.assign(columns, values)
	}
	change(spec)
	return all, sqlgraph.QueryNodes(ctx, drv, spec)
}

func benchThings(b *testing.B, n int) (*bundle, []uuid.UUID) {
	bu := setup(b, registered)
	owner := uuid.New()
	require.NoError(b, bu.drv.Exec(b.Context(), "insert into owners values ($1, 'o')", []any{owner}, nil))
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
		create(b, bu.drv, ids[i], fieldSpec("name", ids[i].String()), fieldSpec("n", i), fieldSpec("line", "a line of text"),
			fieldSpec("owner_id", owner), &sqlgraph.FieldSpec{Column: "doc", Type: field.TypeJSON, Value: []int{1, 2, 3}})
	}
	return bu, ids
}

func getContenders(b *testing.B) []contender {
	bu, ids := benchThings(b, 1)
	get := func(drv dialect.Driver) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := queryEnt(ctx, drv, func(s *sqlgraph.QuerySpec) {
				s.Predicate = func(sel *sql.Selector) { sel.Where(sql.EQ(sel.C("id"), ids[0])) }
				s.Limit = 2
			})
			return err
		}
	}
	return []contender{
		{"pgx", func(ctx context.Context) error {
			_, err := queryPgx(ctx, bu.pool, thingSelect+" where id = $1 limit 2", ids[0])
			return err
		}},
		{"entpgx", get(bu.drv)},
		{"entpgx+setting", get(withActor{bu.drv})},
		{"database/sql", get(bu.std(b))},
	}
}

// withActor sends each statement with one setting.
type withActor struct{ *Driver }

func (d withActor) Query(ctx context.Context, query string, args, v any) error {
	return d.Driver.Query(WithSetting(ctx, "app.actor", "ann"), query, args, v)
}

func listContenders(b *testing.B) []contender {
	bu, _ := benchThings(b, 50)
	list := func(drv dialect.Driver) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := queryEnt(ctx, drv, func(s *sqlgraph.QuerySpec) { s.Limit = 50 })
			return err
		}
	}
	return []contender{
		{"pgx", func(ctx context.Context) error {
			_, err := queryPgx(ctx, bu.pool, thingSelect+" limit 50")
			return err
		}},
		{"entpgx", list(bu.drv)},
		{"database/sql", list(bu.std(b))},
	}
}

func updateContenders(b *testing.B) []contender {
	bu, ids := benchThings(b, 6)
	type updater func(context.Context, dialect.Driver, *sqlgraph.UpdateSpec) error
	update := func(drv dialect.Driver, id uuid.UUID, f updater) func(context.Context) error {
		th := &thing{Version: 1}
		return func(ctx context.Context) error {
			version := th.Version
			spec := updateSpec(id)
			th.scanInto(spec)
			spec.SetField("n", field.TypeInt, version%1000)
			spec.AddField("version", field.TypeInt, 1)
			spec.Predicate = func(s *sql.Selector) { s.Where(sql.EQ(s.C("version"), version)) }
			return f(ctx, drv, spec)
		}
	}
	version := 1
	return []contender{
		{"pgx", func(ctx context.Context) error {
			all, err := queryPgx(ctx, bu.pool, `update things set n = $3, version = version + 1 where id = $1 and version = $2
				returning id, name, n, version, line, doc, owner_id, pair_id`, ids[0], version, version%1000)
			if err == nil {
				version = all[0].Version
			}
			return err
		}},
		{"entpgx", update(bu.drv, ids[1], UpdateOne)},
		{"entpgx+setting", update(withActor{bu.drv}, ids[2], UpdateOne)},
		{"entpgx-tx", func() func(context.Context) error {
			th := &thing{Version: 1}
			return func(ctx context.Context) error {
				tx := bu.drv.Begin(WithSetting(ctx, "app.actor", "ann"), pgx.TxOptions{})
				if err := update(FromTx(tx), ids[3], func(ctx context.Context, drv dialect.Driver, spec *sqlgraph.UpdateSpec) error {
					th.scanInto(spec)
					spec.Predicate = nil
					return UpdateOne(ctx, drv, spec)
				})(ctx); err != nil {
					return err
				}
				return tx.Commit()
			}
		}()},
		{"entpgx-4-statements", update(bu.drv, ids[4], sqlgraph.UpdateNode)},
		{"database/sql-4-statements", update(bu.std(b), ids[5], sqlgraph.UpdateNode)},
	}
}

func BenchmarkGet(b *testing.B)    { race(b, getContenders(b)...) }
func BenchmarkList50(b *testing.B) { race(b, listContenders(b)...) }
func BenchmarkUpdate(b *testing.B) { race(b, updateContenders(b)...) }

func BenchmarkGetAllocs(b *testing.B)    { benchAllocs(b, getContenders(b)...) }
func BenchmarkList50Allocs(b *testing.B) { benchAllocs(b, listContenders(b)...) }
func BenchmarkUpdateAllocs(b *testing.B) { benchAllocs(b, updateContenders(b)...) }
