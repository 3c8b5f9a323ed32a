package entpgx

import (
	"context"
	"errors"
	"testing"

	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/sqlgraph"
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
