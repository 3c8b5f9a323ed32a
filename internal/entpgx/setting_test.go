package entpgx

import (
	"context"
	"errors"
	"testing"

	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/sqlgraph"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

const getActor = "select coalesce(current_setting('app.actor', true), '')"

func TestSettingIsLocal(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec,
		pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(t, one, func(cfg *pgxpool.Config) { cfg.ConnConfig.DefaultQueryExecMode = mode })
			ann := WithSetting(t.Context(), "app.actor", "ann")
			bob := WithSetting(ann, "app.actor", "bob")
			carl := WithSetting(WithSetting(ann, "app.reason", "x"), "app.actor", `c"a'r\l`)
			for range 2 {
				for want, ctx := range map[string]context.Context{"ann": ann, "bob": bob, `c"a'r\l`: carl, "": t.Context()} {
					got, err := read[string](ctx, b.drv, getActor)
					require.NoError(t, err)
					require.Equal(t, want, got)
				}
				// Neither failures leave it behind, nor rows that are closed early.
				_, err := read[int](ann, b.drv, "select 1/0")
				var pg *pgconn.PgError
				require.ErrorAs(t, err, &pg)
				rows := &sql.Rows{}
				require.NoError(t, b.drv.Query(ann, "select generate_series(1, 10000)", []any{}, rows))
				require.True(t, rows.Next())
				require.NoError(t, rows.Close())
				got, err := read[string](t.Context(), b.drv, getActor)
				require.NoError(t, err)
				require.Empty(t, got)
			}
			_, err := b.drv.SQL().Exec(ann, "insert into owners values ($1, current_setting('app.actor'))", uid)
			require.NoError(t, err)
			name, err := read[string](t.Context(), b.drv, "select name from owners")
			require.NoError(t, err)
			require.Equal(t, "ann", name)
			b.idle(t)
		})
	}
}

func TestSettingIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	b := setup(t, one)
	ctx := WithSetting(WithSetting(t.Context(), "app.actor", "ann"), "app.reason", "x")
	run := func() int64 {
		before := b.writes.Load()
		got, err := read[string](ctx, b.drv, getActor)
		require.NoError(t, err)
		require.Equal(t, "ann", got)
		_, err = b.drv.SQL().Exec(ctx, getActor)
		require.NoError(t, err)
		return b.writes.Load() - before
	}
	run() // prepares the statements
	require.Equal(t, int64(2), run())
}

func TestSettingReportsCommitError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := WithSetting(t.Context(), "app.actor", "ann")
	_, err := b.drv.SQL().Exec(ctx, "insert into late values ($1, 1), ($2, 1)", 1, 2)
	require.True(t, sqlgraph.IsUniqueConstraintError(err), "%v", err)
	rows, err := b.drv.SQL().Query(ctx, "insert into late values ($1, 1), ($2, 1) returning id", 1, 2)
	require.NoError(t, err)
	_, err = pgx.CollectRows(rows, pgx.RowTo[int])
	require.True(t, sqlgraph.IsUniqueConstraintError(err), "%v", err)
	require.Zero(t, b.count(t, "late"))
	b.idle(t)
}

func TestSettingThatFails(t *testing.T) {
	t.Parallel()
	b := setup(t, one)
	bad := WithSetting(t.Context(), "no such name", "x")
	for _, run := range []func() error{
		func() error { _, err := b.drv.SQL().Exec(bad, "select 1"); return err },
		func() error { _, err := b.drv.SQL().Query(bad, "select 1"); return err },
		func() error {
			tx := b.begin(t, bad)
			_, err := tx.PGX().Exec(t.Context(), "select 1")
			require.ErrorIs(t, tx.Commit(), pgx.ErrTxCommitRollback)
			return err
		},
		func() error {
			tx := b.begin(t, bad)
			_, err := tx.PGX().Query(t.Context(), "select 1")
			return errors.Join(err, tx.Rollback())
		},
	} {
		var pg *pgconn.PgError
		require.ErrorAs(t, run(), &pg)
		b.idle(t)
	}
	good := WithSetting(t.Context(), "app.actor", "ann")
	_, err := b.drv.SQL().Exec(good, "select 1", pgx.QueryExecModeExec)
	require.ErrorContains(t, err, "options")
}

// unless is a check that fails where the condition does not hold.
func unless(cond string, args ...any) *Statement {
	return &Statement{SQL: "select 1 / case when " + cond + " then 1 else 0 end", Args: args}
}

func TestChecks(t *testing.T) {
	t.Parallel()
	var (
		empty = unless("(select count(*) from things where name = 'b') = 0")
		full  = unless("(select count(*) from things where name = $1) > 0", "b")
		actor = unless("current_setting('app.actor', true) = 'ann'")
	)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		for name, write := range map[string]func(context.Context, *bundle, uuid.UUID) error{
			"exec": func(ctx context.Context, b *bundle, id uuid.UUID) error {
				_, err := b.drv.SQL().Exec(ctx, "update things set name = 'b' where id = $1", id)
				return err
			},
			"query": func(ctx context.Context, b *bundle, id uuid.UUID) error {
				name, err := read[string](ctx, b.drv, "update things set name = 'b' where id = $1 returning name", id)
				require.True(t, err != nil || name == "b")
				return err
			},
			"update one": func(ctx context.Context, b *bundle, id uuid.UUID) error {
				var got thing
				spec := updateSpec(id)
				got.scanInto(spec)
				spec.SetField("name", field.TypeString, "b")
				err := UpdateOne(ctx, b.drv, spec)
				require.True(t, err != nil || got.Name == "b")
				return err
			},
		} {
			t.Run(name+" "+mode.String(), func(t *testing.T) {
				t.Parallel()
				b := setup(t, one, func(cfg *pgxpool.Config) { cfg.ConnConfig.DefaultQueryExecMode = mode })
				for i, c := range []struct {
					before, after *Statement
					ok            bool
				}{
					{nil, nil, true},
					{empty, nil, true},
					{nil, full, true},
					{empty, full, true},
					{full, nil, false},
					{full, full, false},
					{nil, empty, false},
					{empty, empty, false},
				} {
					for _, set := range []bool{false, true} {
						id := uuid.New()
						create(t, b.drv, id, fieldSpec("name", "a"))
						ctx := t.Context()
						if set {
							ctx = WithSetting(ctx, "app.actor", "ann")
						}
						err := write(WithChecks(ctx, c.before, c.after), b, id)
						if c.ok {
							require.NoError(t, err, i)
						} else {
							var pg *pgconn.PgError
							require.ErrorAs(t, err, &pg, i)
							require.Equal(t, "22012", pg.Code, i)
						}
						got, err := read[string](t.Context(), b.drv, "delete from things where id = $1 returning name", id)
						require.NoError(t, err)
						require.Equal(t, map[bool]string{true: "b", false: "a"}[c.ok], got, i)
						b.idle(t)
					}
				}
				// What follows the statement has its settings.
				id := uuid.New()
				create(t, b.drv, id, fieldSpec("name", "a"))
				require.Error(t, write(WithChecks(t.Context(), nil, actor), b, id))
				require.NoError(t, write(WithChecks(WithSetting(t.Context(), "app.actor", "ann"), nil, actor), b, id))
				// Where the statement itself fails, its error is the one that is told.
				create(t, b.drv, uuid.New(), fieldSpec("name", "a"))
				_, err := b.drv.SQL().Exec(WithChecks(t.Context(), full, full), "update things set name = 'b'")
				require.True(t, sqlgraph.IsUniqueConstraintError(err), "%v", err)
				b.idle(t)
			})
		}
	}
}

func TestChecksAreOneRoundTrip(t *testing.T) {
	t.Parallel()
	b := setup(t, one)
	id := uuid.New()
	create(t, b.drv, id, fieldSpec("name", "a"))
	check := unless("(select count(*) from things where name = $1) > 0", "a")
	ctx := WithChecks(WithSetting(t.Context(), "app.actor", "ann"), check, check)
	run := func() int64 {
		before := b.writes.Load()
		_, err := b.drv.SQL().Exec(ctx, "update things set n = 1")
		require.NoError(t, err)
		_, err = read[int](ctx, b.drv, "update things set n = 1 returning n")
		require.NoError(t, err)
		spec := updateSpec(id)
		new(thing).scanInto(spec)
		spec.SetField("n", field.TypeInt, 2)
		require.NoError(t, UpdateOne(ctx, b.drv, spec))
		return b.writes.Load() - before
	}
	run() // prepares the statements
	require.Equal(t, int64(3), run())
}

// TestAnswersOfChecks: what the statements around one answer, in its round trip.
func TestAnswersOfChecks(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(t, one, func(cfg *pgxpool.Config) { cfg.ConnConfig.DefaultQueryExecMode = mode })
			var before, after int
			count := func(into *int) *Statement {
				return &Statement{SQL: "select count(*) from owners where name <> $1", Args: []any{"nobody"}, Into: []any{into}}
			}
			ctx := WithChecks(WithSetting(t.Context(), "app.actor", "ann"), count(&before), count(&after))
			run := func(n int) {
				_, err := b.drv.SQL().Exec(ctx, "insert into owners values ($1, 'a')", uuid.New())
				require.NoError(t, err)
				require.Equal(t, []int{n, n + 1}, []int{before, after})
				name, err := read[string](ctx, b.drv, "insert into owners values ($1, 'b') returning name", uuid.New())
				require.NoError(t, err)
				require.Equal(t, "b", name)
				require.Equal(t, []int{n + 1, n + 2}, []int{before, after})
			}
			run(0) // prepares the statements
			sent := b.writes.Load()
			run(2)
			require.Equal(t, int64(2), b.writes.Load()-sent)

			// No row to scan is an error.
			none := &Statement{SQL: "select 1 where false", Into: []any{&before}}
			_, err := read[string](WithChecks(t.Context(), none, nil), b.drv, "select 'x'")
			require.ErrorIs(t, err, pgx.ErrNoRows)
			_, err = read[string](WithChecks(t.Context(), nil, none), b.drv, "select 'x'")
			require.ErrorIs(t, err, pgx.ErrNoRows)
			require.Equal(t, 4, b.count(t, "owners"))
		})
	}
}

func TestTxIgnoresChecks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	never := unless("false")
	ctx := WithChecks(WithSetting(t.Context(), "app.actor", "ann"), never, never)
	tx := b.begin(t, ctx)
	_, err := tx.PGX().Exec(ctx, "insert into owners values ($1, current_setting('app.actor'))", uid)
	require.NoError(t, err)
	got, err := read[string](ctx, tx, "select name from owners")
	require.NoError(t, err)
	require.Equal(t, "ann", got)
	require.NoError(t, tx.Commit())
	require.Equal(t, 1, b.count(t, "owners"))
}
