package entpgx

import (
	"cmp"
	"context"
	stdsql "database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/sqlgraph"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// mood is an enum as ent generates it.
type mood string

func (m mood) String() string { return string(m) }

// labels is an array field with a GoType of its own.
type labels []string

func (l labels) Value() (driver.Value, error) {
	text, err := pgtype.NewMap().Encode(pgtype.TextArrayOID, pgtype.TextFormatCode, []string(l), nil)
	return string(text), err
}

func (l *labels) Scan(src any) error {
	if _, ok := src.(string); !ok {
		return fmt.Errorf("labels from %T", src)
	}
	return pgtype.NewMap().SQLScanner((*[]string)(l)).Scan(src)
}

// decimal is a numeric field with a GoType of its own.
type decimal struct{ text string }

func (d decimal) Value() (driver.Value, error) { return d.text, nil }

func (d *decimal) Scan(src any) error {
	s, ok := src.(string)
	if !ok {
		return fmt.Errorf("decimal from %T", src)
	}
	d.text = s
	return nil
}

var (
	now  = time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.UTC)
	uid  = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")
	uid2 = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8058")
)

// fieldCase is a field of an ent schema: what is stored, and what generated code scans into.
type fieldCase struct {
	column string
	typ    field.Type
	value  any
	target func() any
	want   any // of *target
	null   any // of *target, where the column is NULL
}

func of[T any](v T) func() any { return func() any { t := v; return &t } }

var fieldCases = []fieldCase{
	{"name", field.TypeString, "a", of(sql.NullString{}), sql.NullString{String: "a", Valid: true}, sql.NullString{}},
	{"flag", field.TypeBool, true, of(sql.NullBool{}), sql.NullBool{Bool: true, Valid: true}, sql.NullBool{}},
	{"small", field.TypeInt16, int16(-7), of(sql.NullInt64{}), sql.NullInt64{Int64: -7, Valid: true}, sql.NullInt64{}},
	{"n", field.TypeUint32, uint32(42), of(sql.NullInt64{}), sql.NullInt64{Int64: 42, Valid: true}, sql.NullInt64{}},
	{"big", field.TypeInt64, int64(math.MinInt64), of(sql.NullInt64{}), sql.NullInt64{Int64: math.MinInt64, Valid: true}, sql.NullInt64{}},
	{"took", field.TypeInt64, time.Minute, of(sql.NullInt64{}), sql.NullInt64{Int64: 60e9, Valid: true}, sql.NullInt64{}},
	{"f4", field.TypeFloat32, float32(1.25), of(sql.NullFloat64{}), sql.NullFloat64{Float64: 1.25, Valid: true}, sql.NullFloat64{}},
	{"f8", field.TypeFloat64, math.Pi, of(sql.NullFloat64{}), sql.NullFloat64{Float64: math.Pi, Valid: true}, sql.NullFloat64{}},
	{"line", field.TypeString, "über\n\"x\"", of(sql.NullString{}), sql.NullString{String: "über\n\"x\"", Valid: true}, sql.NullString{}},
	{"code", field.TypeString, "ab", of(sql.NullString{}), sql.NullString{String: "ab ", Valid: true}, sql.NullString{}},
	{"mood", field.TypeEnum, mood("happy"), of(sql.NullString{}), sql.NullString{String: "happy", Valid: true}, sql.NullString{}},
	{"at", field.TypeTime, now, of(sql.NullTime{}), sql.NullTime{Time: now.Local(), Valid: true}, sql.NullTime{}},
	{"local", field.TypeTime, now, of(sql.NullTime{}), sql.NullTime{Time: now, Valid: true}, sql.NullTime{}},
	{"day", field.TypeTime, now, of(sql.NullTime{}), sql.NullTime{Time: now.Truncate(24 * time.Hour), Valid: true}, sql.NullTime{}},
	{"ref", field.TypeUUID, uid, of(uuid.UUID{}), uid, uuid.UUID{}},
	{"raw", field.TypeBytes, []byte{0, 1, 255}, of([]byte(nil)), []byte{0, 1, 255}, []byte(nil)},
	{"doc", field.TypeJSON, map[string]any{"a": []int{1, 2}}, of([]byte(nil)), []byte(`{"a": [1, 2]}`), []byte(nil)},
	{"plain", field.TypeJSON, []string{"x", "y"}, of([]byte(nil)), []byte(`["x","y"]`), []byte(nil)},
	{"labels", field.TypeOther, labels{"a", `b"{}`, ""}, of(labels(nil)), labels{"a", `b"{}`, ""}, nil},
	{"amount", field.TypeOther, decimal{"12345678901234567890.0123456789"}, of(decimal{}), decimal{"12345678901234567890.0123456789"}, nil},
	{"amount", field.TypeFloat64, 0.1, of(sql.NullFloat64{}), sql.NullFloat64{Float64: 0.1, Valid: true}, sql.NullFloat64{}},
	{"amount", field.TypeString, "1.5", of(sql.NullString{}), sql.NullString{String: "1.5000000000", Valid: true}, sql.NullString{}},
	{"grid", field.TypeOther, "{{1,2},{3,4}}", of(sql.NullString{}), sql.NullString{String: "{{1,2},{3,4}}", Valid: true}, sql.NullString{}},
	{"wait", field.TypeString, "01:02:03", of(sql.NullString{}), sql.NullString{String: "01:02:03", Valid: true}, sql.NullString{}},
	{"ref", field.TypeString, uid.String(), of(sql.NullString{}), sql.NullString{String: uid.String(), Valid: true}, sql.NullString{}},
	{"ref", field.TypeUUID, &uid, nullTarget(new(uuid.UUID)), sql.NullScanner{S: &uid, Valid: true}, sql.NullScanner{S: new(uuid.UUID)}},
	{"labels", field.TypeOther, &labels{"a"}, nullTarget(new(labels)), sql.NullScanner{S: &labels{"a"}, Valid: true}, sql.NullScanner{S: new(labels)}},
	{"amount", field.TypeOther, &decimal{"1.0000000000"}, nullTarget(new(decimal)), sql.NullScanner{S: &decimal{"1.0000000000"}, Valid: true}, sql.NullScanner{S: new(decimal)}},
}

func nullTarget(zero stdsql.Scanner) func() any {
	typ := reflect.TypeOf(zero).Elem()
	return func() any { return &sql.NullScanner{S: reflect.New(typ).Interface().(stdsql.Scanner)} }
}

// TestConformance runs one suite over ent's own driver and over this one, with and without RegisterUUID and settings.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, impl := range []struct {
		name   string
		change []func(*pgxpool.Config)
		open   func(*testing.T, *bundle) dialect.Driver
	}{
		{"database/sql", nil, func(t *testing.T, b *bundle) dialect.Driver { return b.std(t) }},
		{"entpgx", nil, func(_ *testing.T, b *bundle) dialect.Driver { return b.drv }},
		{"registered", []func(*pgxpool.Config){registered}, func(_ *testing.T, b *bundle) dialect.Driver { return b.drv }},
		{"settings", nil, func(_ *testing.T, b *bundle) dialect.Driver { return withSettings{b.drv} }},
	} {
		t.Run(impl.name, func(t *testing.T) {
			t.Parallel()
			conformance(t, func(t *testing.T) (*bundle, dialect.Driver) {
				b := setup(t, impl.change...)
				return b, impl.open(t, b)
			})
		})
	}
}

// withSettings sends every statement outside a transaction in a pipeline, and transactions with settings.
type withSettings struct{ *Driver }

func (d withSettings) ctx(ctx context.Context) context.Context {
	return WithSetting(WithSetting(ctx, "app.actor", "ann"), "app.reason", "test")
}

func (d withSettings) Exec(ctx context.Context, query string, args, v any) error {
	return d.Driver.Exec(d.ctx(ctx), query, args, v)
}

func (d withSettings) Query(ctx context.Context, query string, args, v any) error {
	return d.Driver.Query(d.ctx(ctx), query, args, v)
}

func (d withSettings) Tx(ctx context.Context) (dialect.Tx, error) { return d.Driver.Tx(d.ctx(ctx)) }

func conformance(t *testing.T, open func(*testing.T) (*bundle, dialect.Driver)) {
	t.Run("fields", func(t *testing.T) {
		t.Parallel()
		_, drv := open(t)
		for i, c := range fieldCases {
			full, empty := uuid.New(), uuid.New()
			create(t, drv, full, &sqlgraph.FieldSpec{Column: c.column, Type: c.typ, Value: c.value})
			create(t, drv, empty)
			ids := []driver.Value{full, empty}
			if c.null == nil { // the type itself does not take NULL
				ids = ids[:1]
			}
			var got []any
			err := sqlgraph.QueryNodes(t.Context(), drv, &sqlgraph.QuerySpec{
				Node:       &sqlgraph.NodeSpec{Table: "things", Columns: []string{"id", c.column}, ID: idSpec(nil)},
				Predicate:  func(s *sql.Selector) { s.Where(sql.InValues("id", ids...)) },
				Order:      func(s *sql.Selector) { s.OrderExpr(sql.Raw(fmt.Sprintf("%q IS NULL", c.column))) },
				ScanValues: func([]string) ([]any, error) { return []any{new(uuid.UUID), c.target()}, nil },
				Assign: func(_ []string, values []any) error {
					got = append(got, reflect.ValueOf(values[1]).Elem().Interface())
					return nil
				},
			})
			require.NoError(t, err, "case %d, %s", i, c.column)
			want := []any{c.want, c.null}[:len(ids)]
			require.Equal(t, want, got, "case %d, %s", i, c.column)
			_, err = sqlgraph.DeleteNodes(t.Context(), drv, sqlgraph.NewDeleteSpec("things", idSpec(nil)))
			require.NoError(t, err)
		}
	})

	t.Run("update", func(t *testing.T) {
		t.Parallel()
		_, drv := open(t)
		id := uuid.New()
		create(t, drv, id, fieldSpec("name", "a"), fieldSpec("n", 1), fieldSpec("line", "x"))
		spec := updateSpec(id)
		spec.SetField("name", field.TypeString, "b")
		spec.AddField("n", field.TypeInt, 41)
		spec.AddField("version", field.TypeInt, 1)
		spec.ClearField("line", field.TypeString)
		spec.Predicate = func(s *sql.Selector) { s.Where(sql.EQ(s.C("version"), 1)) }
		got := thing{}
		got.scanInto(spec)
		require.NoError(t, sqlgraph.UpdateNode(t.Context(), drv, spec))
		require.Equal(t, thing{ID: id, Name: "b", N: 42, Version: 2}, got)

		var missing *sqlgraph.NotFoundError
		require.ErrorAs(t, sqlgraph.UpdateNode(t.Context(), drv, spec), &missing, "the version is no longer 1")

		n, err := sqlgraph.UpdateNodes(t.Context(), drv, &sqlgraph.UpdateSpec{
			Node:   &sqlgraph.NodeSpec{Table: "things", ID: idSpec(nil)},
			Fields: sqlgraph.FieldMut{Set: []*sqlgraph.FieldSpec{fieldSpec("n", 7)}},
		})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		n, err = sqlgraph.DeleteNodes(t.Context(), drv, sqlgraph.NewDeleteSpec("things", idSpec(nil)))
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})

	t.Run("edges", func(t *testing.T) {
		t.Parallel()
		b, drv := open(t)
		tags := &sqlgraph.BatchCreateSpec{}
		for _, name := range []string{"red", "blue"} {
			tag := sqlgraph.NewCreateSpec("tags", &sqlgraph.FieldSpec{Column: "id", Type: field.TypeInt})
			tag.SetField("name", field.TypeString, name)
			tags.Nodes = append(tags.Nodes, tag)
		}
		require.NoError(t, sqlgraph.BatchCreate(t.Context(), drv, tags))
		red, blue := tags.Nodes[0].ID.Value, tags.Nodes[1].ID.Value
		require.Equal(t, []driver.Value{int64(1), int64(2)}, []driver.Value{red, blue})
		owner := uuid.New()
		require.NoError(t, drv.Exec(t.Context(), "insert into owners values ($1, 'o')", []any{owner}, nil))

		id := uuid.New()
		spec := createSpec(id)
		spec.Edges = []*sqlgraph.EdgeSpec{tagEdge(red, blue), ownerEdge(owner)}
		require.NoError(t, sqlgraph.CreateNode(t.Context(), drv, spec))
		require.Equal(t, 2, b.count(t, "thing_tags"))

		var pairs [][2]any
		require.NoError(t, sqlgraph.QueryEdges(t.Context(), drv, &sqlgraph.EdgeQuerySpec{
			Edge:       tagEdge(),
			Predicate:  func(s *sql.Selector) { s.Where(sql.EQ("tag_id", red)) },
			ScanValues: func() [2]any { return [2]any{new(uuid.UUID), new(sql.NullInt64)} },
			Assign: func(out, in any) error {
				pairs = append(pairs, [2]any{*out.(*uuid.UUID), in.(*sql.NullInt64).Int64})
				return nil
			},
		}))
		require.Equal(t, [][2]any{{id, red}}, pairs)

		// A bulk update with edges reads the ids as driver.Value and uses them again.
		bulk := &sqlgraph.UpdateSpec{Node: &sqlgraph.NodeSpec{Table: "things", ID: idSpec(nil)}}
		bulk.SetField("n", field.TypeInt, 3)
		bulk.Edges.Clear = []*sqlgraph.EdgeSpec{tagEdge(blue)}
		n, err := sqlgraph.UpdateNodes(t.Context(), drv, bulk)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, 1, b.count(t, "thing_tags"))

		// A failing second statement takes the first one back.
		spec = createSpec(uuid.New())
		spec.Edges = []*sqlgraph.EdgeSpec{tagEdge(int64(99))}
		require.True(t, sqlgraph.IsForeignKeyConstraintError(sqlgraph.CreateNode(t.Context(), drv, spec)))
		require.Equal(t, 1, b.count(t, "things"))
	})

	t.Run("select", func(t *testing.T) {
		t.Parallel()
		_, drv := open(t)
		for i, name := range []string{"a", "b", "c"} {
			create(t, drv, uuid.New(), fieldSpec("name", name), fieldSpec("big", int64(i)), fieldSpec("at", now),
				&sqlgraph.FieldSpec{Column: "doc", Type: field.TypeJSON, Value: map[string]int{"i": i}})
		}
		n, err := sqlgraph.CountNodes(t.Context(), drv, &sqlgraph.QuerySpec{Node: &sqlgraph.NodeSpec{Table: "things", ID: idSpec(nil)}})
		require.NoError(t, err)
		require.Equal(t, 3, n)

		scan := func(v any, columns string) {
			t.Helper()
			rows := &sql.Rows{}
			require.NoError(t, drv.Query(t.Context(), "select "+columns+" from things", []any{}, rows))
			require.NoError(t, sql.ScanSlice(rows, v))
			require.NoError(t, rows.Close())
		}
		var names []string
		scan(&names, "string_agg(name, '' order by name)")
		require.Equal(t, []string{"abc"}, names)
		var sums []int
		scan(&sums, "sum(big)") // a numeric
		require.Equal(t, []int{3}, sums)
		var means []float64
		scan(&means, "avg(big)")
		require.Equal(t, []float64{1}, means)
		var last []time.Time
		rows := &sql.Rows{}
		require.NoError(t, drv.Query(t.Context(), "select max(at) from things where false", []any{}, rows))
		require.NoError(t, rows.Close())
		var all []struct {
			Name  string
			Big   *int
			At    time.Time
			Ref   *uuid.UUID
			Doc   map[string]int
			Count int
		}
		scan(&all, "min(name) as name, max(big) as big, max(at) as at, null::uuid as ref, (jsonb_agg(doc)->0) as doc, count(*) as count")
		two := 2
		require.Len(t, all, 1)
		require.True(t, now.Equal(all[0].At))
		all[0].At = time.Time{}
		require.Equal(t, "a", all[0].Name)
		require.Equal(t, &two, all[0].Big)
		require.Nil(t, all[0].Ref)
		require.Contains(t, all[0].Doc, "i")
		require.Equal(t, 3, all[0].Count)
		require.Empty(t, last)

		rows = &sql.Rows{}
		require.NoError(t, drv.Query(t.Context(), "select exists (select from things)", []any{}, rows))
		found, err := sql.ScanBool(rows)
		require.NoError(t, err)
		require.True(t, found)
		require.NoError(t, rows.Close())

		// Columns that generated code does not know.
		var extra sql.SelectValues
		require.NoError(t, sqlgraph.QueryNodes(t.Context(), drv, &sqlgraph.QuerySpec{
			Node: &sqlgraph.NodeSpec{Table: "things", Columns: []string{"id"}, ID: idSpec(nil)},
			Modifiers: []func(*sql.Selector){func(s *sql.Selector) {
				s.Select().AppendSelectExprAs(sql.Raw("big + 1"), "next").AppendSelectExprAs(sql.Raw("1.5::float8"), "num").
					AppendSelectExprAs(sql.Raw("'"+uid.String()+"'::uuid"), "uid").Where(sql.EQ("name", "b"))
			}},
			ScanValues: func(columns []string) ([]any, error) {
				vs := make([]any, len(columns))
				for i := range vs {
					vs[i] = new(sql.UnknownType)
				}
				return vs, nil
			},
			Assign: func(columns []string, values []any) error {
				for i := range columns {
					extra.Set(columns[i], values[i])
				}
				return nil
			},
		}))
		for name, want := range map[string]any{"next": int64(2), "num": 1.5, "uid": uid.String()} {
			got, err := extra.Get(name)
			require.NoError(t, err)
			require.Equal(t, want, got, name)
		}
	})

	t.Run("constraints", func(t *testing.T) {
		t.Parallel()
		_, drv := open(t)
		create(t, drv, uuid.New(), fieldSpec("name", "a"))
		for _, c := range []struct {
			field *sqlgraph.FieldSpec
			is    func(error) bool
			code  string
		}{
			{fieldSpec("name", "a"), sqlgraph.IsUniqueConstraintError, "23505"},
			{fieldSpec("owner_id", uuid.New()), sqlgraph.IsForeignKeyConstraintError, "23503"},
			{fieldSpec("n", 1_000_000), sqlgraph.IsCheckConstraintError, "23514"},
		} {
			spec := createSpec(uuid.New(), c.field)
			err := sqlgraph.CreateNode(t.Context(), drv, spec)
			require.True(t, c.is(err), "%v", err)
			require.True(t, sqlgraph.IsConstraintError(err))
			var pg *pgconn.PgError
			require.ErrorAs(t, err, &pg)
			require.Equal(t, c.code, pg.Code)

			// The same from INSERT ... RETURNING, where the error must not hide behind missing columns.
			_, err = read[uuid.UUID](t.Context(), drv,
				fmt.Sprintf("insert into things (id, %s) values ($1, $2) returning id", c.field.Column), uuid.New(), c.field.Value)
			require.True(t, c.is(err), "%v", err)
		}
		_, err := read[int](t.Context(), drv, "select 1 from nowhere where 1 = $1", 1)
		var pg *pgconn.PgError
		require.ErrorAs(t, err, &pg)
		require.Equal(t, "42P01", pg.Code)
		require.False(t, sqlgraph.IsConstraintError(err))
	})

	t.Run("transactions", func(t *testing.T) {
		t.Parallel()
		b, drv := open(t)
		insert := func(q dialect.ExecQuerier) (int64, error) {
			var res sql.Result
			if err := q.Exec(t.Context(), "insert into owners values ($1, 'o')", []any{uuid.New()}, &res); err != nil {
				return 0, err
			}
			return res.RowsAffected()
		}
		tx, err := drv.Tx(t.Context())
		require.NoError(t, err)
		n, err := insert(tx)
		require.NoError(t, err)
		require.Equal(t, int64(1), n)
		n2, err := read[int](t.Context(), tx, "select count(*) from owners")
		require.NoError(t, err)
		require.Equal(t, 1, n2)
		require.Equal(t, 0, b.count(t, "owners"))
		require.NoError(t, tx.Commit())
		require.Error(t, tx.Commit(), "it has ended")
		require.Error(t, tx.Rollback(), "it has ended")
		_, err = insert(tx)
		require.Error(t, err, "it has ended")
		require.Equal(t, 1, b.count(t, "owners"))

		tx, err = drv.Tx(t.Context())
		require.NoError(t, err)
		_, err = insert(tx)
		require.NoError(t, err)
		require.NoError(t, tx.Rollback())
		require.Equal(t, 1, b.count(t, "owners"))

		tx, err = drv.(interface {
			BeginTx(context.Context, *sql.TxOptions) (dialect.Tx, error)
		}).BeginTx(t.Context(), &sql.TxOptions{Isolation: stdsql.LevelSerializable, ReadOnly: true})
		require.NoError(t, err)
		level, err := read[string](t.Context(), tx, "select current_setting('transaction_isolation')")
		require.NoError(t, err)
		require.Equal(t, "serializable", level)
		_, err = insert(tx)
		var pg *pgconn.PgError
		require.ErrorAs(t, err, &pg)
		require.Equal(t, "25006", pg.Code)
		require.NoError(t, tx.Rollback())
		b.idle(t)
	})

	t.Run("cancel", func(t *testing.T) {
		t.Parallel()
		b, drv := open(t)
		for _, run := range []func(context.Context) error{
			func(ctx context.Context) error {
				_, err := read[string](ctx, drv, "select pg_sleep(60)::text")
				return err
			},
			func(ctx context.Context) error { return drv.Exec(ctx, "select pg_sleep($1)", []any{60}, nil) },
		} {
			require.ErrorIs(t, b.cancelled(t, run), context.Canceled)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorIs(t, run(ctx), context.Canceled)
			for range 5 {
				n, err := read[int](t.Context(), drv, "select 1")
				require.NoError(t, err)
				require.Equal(t, 1, n)
			}
		}
		b.idle(t)
	})

	t.Run("misuse", func(t *testing.T) {
		t.Parallel()
		_, drv := open(t)
		require.Error(t, drv.Exec(t.Context(), "select 1", 1, nil))
		require.Error(t, drv.Exec(t.Context(), "select 1", []any{}, new(int)))
		require.Error(t, drv.Query(t.Context(), "select 1", []any{}, new(int)))
		require.Error(t, drv.Query(t.Context(), "select 1", 1, &sql.Rows{}))
		rows := &sql.Rows{}
		require.NoError(t, drv.Query(t.Context(), "select 1", []any{}, rows))
		require.True(t, rows.Next())
		require.Error(t, rows.Scan(new(int), new(int)))
		require.NoError(t, cmp.Or(drv.Query(t.Context(), "select 1", []any{}, rows), rows.Close()))
		require.Equal(t, dialect.Postgres, drv.Dialect())
	})
}

// TestScanLikeDatabaseSQL compares, for columns of many types, what targets of the general kind get.
func TestScanLikeDatabaseSQL(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][]func(*pgxpool.Config){"plain": nil, "registered": {registered}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scanLikeDatabaseSQL(t, setup(t, change...))
		})
	}
}

func scanLikeDatabaseSQL(t *testing.T, b *bundle) {
	std := b.std(t)
	exprs := []string{
		"true", "1::smallint", "2::int", "3::bigint", "1.5::real", "2.5::float8", "'x'::text", "'x'::varchar", "'xy'::char(3)",
		"'x'::name", "'happy'::mood", "'\\x00ff'::bytea", `'{"a": 1}'::json`, `'{"a": 1}'::jsonb`, "'null'::jsonb",
		"timestamptz '2024-02-29 12:00:00.5+00'", "timestamp '2024-02-29 12:00:00.5'", "date '2024-02-29'",
		"interval '1 day 02:03:04'", "'" + uid.String() + "'::uuid", "1234.5600::numeric",
		"'{a,\"b c\",NULL}'::text[]", "'{{1,2},{3,4}}'::int[]", "'{}'::int[]", "array['" + uid.String() + "'::uuid]",
		"array[1.50::numeric]", "'10.0.0.1/8'::inet", "'{1,2}'::bigint[]",
		"'infinity'::timestamptz", "'infinity'::timestamp", "'-infinity'::date", "7::oid", "array['happy'::mood]",
	}
	for _, typ := range []string{
		"bool", "int2", "int4", "int8", "float4", "float8", "text", "mood", "bytea", "json", "jsonb", "timestamptz", "timestamp",
		"date", "uuid", "numeric", "text[]",
	} {
		exprs = append(exprs, "null::"+typ)
	}
	targets := []func() any{
		of[any](nil), of[driver.Value](nil), of(""), of(sql.NullString{}), of(sql.NullInt64{}), of(sql.NullFloat64{}),
		of(sql.NullBool{}), of(sql.NullTime{}), of(uuid.UUID{}), nullTarget(new(uuid.UUID)), of(recorder{}),
	}
	for _, expr := range exprs {
		for _, target := range targets {
			get := func(drv dialect.Driver) (any, error) {
				v := target()
				rows := &sql.Rows{}
				if err := drv.Query(t.Context(), "select "+expr, []any{}, rows); err != nil {
					return nil, err
				}
				err := errors.Join(scanOne(rows, v), rows.Close())
				return reflect.ValueOf(v).Elem().Interface(), err
			}
			want, wantErr := get(std)
			got, err := get(b.drv)
			name := fmt.Sprintf("%s into %T", expr, target())
			if wantErr != nil {
				// database/sql has no NULL for driver.Value; ours is nil.
				if _, ok := target().(*driver.Value); !ok || got != nil {
					require.Error(t, err, name)
				}
				continue
			}
			require.NoError(t, err, name)
			require.Equal(t, want, got, name)
		}
	}
	b.idle(t)
}

// recorder is a sql.Scanner that keeps what it is given.
type recorder struct{ got any }

func (r *recorder) Scan(src any) error {
	r.got = src
	return nil
}

// TestScanPgtype reads arrays and ranges as pgx's own types, which database/sql cannot.
func TestScanPgtype(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.drv.Exec(t.Context(), "insert into things (id, labels, grid) values ($1, $2, $3)",
		[]any{uid, []string{"a", "b"}, [][]int32{{1}, {2}}}, nil))
	rows := &sql.Rows{}
	require.NoError(t, b.drv.Query(t.Context(), "select labels, labels, labels, grid, '[1,3)'::int4range from things", []any{}, rows))
	defer rows.Close()
	require.True(t, rows.Next())
	var (
		plain []string
		array pgtype.Array[string]
		flat  pgtype.FlatArray[string]
		grid  [][]int32
		span  pgtype.Range[int32]
	)
	require.NoError(t, rows.Scan(&plain, &array, &flat, &grid, &span))
	require.Equal(t, []string{"a", "b"}, plain)
	require.Equal(t, plain, array.Elements)
	require.Equal(t, plain, []string(flat))
	require.Equal(t, [][]int32{{1}, {2}}, grid)
	require.Equal(t, int32(3), span.Upper)
}

// TestScanReuse reads rows whose NULLs alternate: nothing of a row may show in the next.
func TestScanReuse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rows := &sql.Rows{}
	require.NoError(t, b.drv.Query(t.Context(), `select
		case when i % 2 = 0 then i end, case when i % 2 = 0 then i::text end, case when i % 2 = 0 then $1::uuid end, case when i % 2 = 0 then array[i] end
		from generate_series(1, 4) i`, []any{uid}, rows))
	defer rows.Close()
	for i := 1; rows.Next(); i++ {
		n, s, id, list := sql.NullInt64{}, sql.NullString{}, sql.NullScanner{S: new(uuid.UUID)}, sql.NullString{}
		require.NoError(t, rows.Scan(&n, &s, &id, &list))
		even := i%2 == 0
		require.Equal(t, []bool{even, even, even, even}, []bool{n.Valid, s.Valid, id.Valid, list.Valid})
		require.Equal(t, even, *id.S.(*uuid.UUID) == uid)
		if even {
			require.Equal(t, fmt.Sprintf("{%d}", i), list.String)
		}
	}
	require.NoError(t, rows.Err())
}

func idSpec(id any) *sqlgraph.FieldSpec {
	return &sqlgraph.FieldSpec{Column: "id", Type: field.TypeUUID, Value: id}
}

// fieldSpec is for values whose field type makes no difference.
func fieldSpec(column string, value any) *sqlgraph.FieldSpec {
	return &sqlgraph.FieldSpec{Column: column, Type: field.TypeOther, Value: value}
}

func createSpec(id uuid.UUID, fields ...*sqlgraph.FieldSpec) *sqlgraph.CreateSpec {
	spec := sqlgraph.NewCreateSpec("things", idSpec(id))
	spec.Fields = fields
	return spec
}

func create(t testing.TB, drv dialect.Driver, id uuid.UUID, fields ...*sqlgraph.FieldSpec) {
	t.Helper()
	require.NoError(t, sqlgraph.CreateNode(t.Context(), drv, createSpec(id, fields...)))
}

func tagEdge(ids ...driver.Value) *sqlgraph.EdgeSpec {
	return &sqlgraph.EdgeSpec{
		Rel: sqlgraph.M2M, Table: "thing_tags", Columns: []string{"thing_id", "tag_id"},
		Target: &sqlgraph.EdgeTarget{Nodes: ids, IDSpec: sqlgraph.NewFieldSpec("id", field.TypeInt)},
	}
}

func ownerEdge(ids ...driver.Value) *sqlgraph.EdgeSpec {
	return &sqlgraph.EdgeSpec{
		Rel: sqlgraph.M2O, Inverse: true, Table: "things", Columns: []string{"owner_id"},
		Target: &sqlgraph.EdgeTarget{Nodes: ids, IDSpec: sqlgraph.NewFieldSpec("id", field.TypeUUID)},
	}
}

// thing is a node as ent generates it.
type thing struct {
	ID      uuid.UUID
	Name    string
	N       int
	Version int
	Line    *string
	Doc     string
	Owner   *uuid.UUID
	Pair    *uuid.UUID
}

var thingColumns = []string{"id", "name", "n", "version", "line", "doc", "owner_id", "pair_id"}

func (*thing) scanValues([]string) ([]any, error) {
	return []any{
		new(uuid.UUID), new(sql.NullString), new(sql.NullInt64), new(sql.NullInt64), new(sql.NullString), new([]byte),
		&sql.NullScanner{S: new(uuid.UUID)}, &sql.NullScanner{S: new(uuid.UUID)},
	}, nil
}

func (th *thing) assign(_ []string, vs []any) error {
	th.ID = *vs[0].(*uuid.UUID)
	th.Name = vs[1].(*sql.NullString).String
	th.N = int(vs[2].(*sql.NullInt64).Int64)
	th.Version = int(vs[3].(*sql.NullInt64).Int64)
	if s := vs[4].(*sql.NullString); s.Valid {
		th.Line = &s.String
	}
	th.Doc = string(*vs[5].(*[]byte))
	for i, to := range []**uuid.UUID{&th.Owner, &th.Pair} {
		if id := vs[6+i].(*sql.NullScanner); id.Valid {
			*to = id.S.(*uuid.UUID)
		}
	}
	return nil
}

func (th *thing) scanInto(spec *sqlgraph.UpdateSpec) {
	spec.ScanValues, spec.Assign = th.scanValues, th.assign
}

func updateSpec(id uuid.UUID) *sqlgraph.UpdateSpec {
	return sqlgraph.NewUpdateSpec("things", thingColumns, idSpec(id))
}
