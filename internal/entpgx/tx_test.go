package entpgx

import (
	"context"
	stdsql "database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/schema"
	"entgo.io/ent/dialect/sql/sqlgraph"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

func insertOwner(t testing.TB, q Querier) {
	t.Helper()
	tag, err := q.Exec(t.Context(), "insert into owners values ($1, 'o')", uuid.New())
	require.NoError(t, err)
	require.Equal(t, int64(1), tag.RowsAffected())
}

func TestTxIsLazy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	before := b.writes.Load()
	for _, end := range []func(*Tx) error{(*Tx).Commit, (*Tx).Rollback} {
		tx := b.begin(t, t.Context())
		require.Nil(t, tx.PGX().Conn())
		require.Zero(t, b.pool.Stat().AcquiredConns())
		require.NoError(t, end(tx))
		require.ErrorIs(t, tx.Commit(), pgx.ErrTxClosed)
		require.ErrorIs(t, tx.Rollback(), pgx.ErrTxClosed)
		px := tx.PGX()
		_, err := px.Exec(t.Context(), "select 1")
		require.ErrorIs(t, err, pgx.ErrTxClosed)
		_, err = px.Query(t.Context(), "select 1")
		require.ErrorIs(t, err, pgx.ErrTxClosed)
		require.ErrorIs(t, px.QueryRow(t.Context(), "select 1").Scan(new(int)), pgx.ErrTxClosed)
		_, err = px.CopyFrom(t.Context(), pgx.Identifier{"owners"}, []string{"id"}, pgx.CopyFromRows(nil))
		require.ErrorIs(t, err, pgx.ErrTxClosed)
		_, err = px.Prepare(t.Context(), "p", "select 1")
		require.ErrorIs(t, err, pgx.ErrTxClosed)
		_, err = px.Begin(t.Context())
		require.ErrorIs(t, err, pgx.ErrTxClosed)
		require.ErrorIs(t, px.SendBatch(t.Context(), &pgx.Batch{}).Close(), pgx.ErrTxClosed)
		require.Nil(t, px.Conn())
	}
	require.Equal(t, before, b.writes.Load())
}

func TestTxBeginsInOneRoundTrip(t *testing.T) {
	t.Parallel()
	b := setup(t, one)
	ctx := WithSetting(WithSetting(t.Context(), "app.actor", "ann"), "app.reason", "test")
	const query = "select current_setting('app.actor') || current_setting('app.reason') || $1::text"
	run := func() (begin, commit int64) {
		before := b.writes.Load()
		tx := b.begin(t, ctx)
		s, err := read[string](ctx, tx, query, "!")
		require.NoError(t, err)
		require.Equal(t, "anntest!", s)
		begin = b.writes.Load() - before
		require.NotNil(t, tx.PGX().Conn())
		require.NoError(t, tx.Commit())
		return begin, b.writes.Load() - before - begin
	}
	run() // prepares the statements
	begin, commit := run()
	require.Equal(t, int64(1), begin)
	require.Equal(t, int64(1), commit)

	// The settings last for the whole transaction, and no longer.
	tx := b.begin(t, ctx)
	insertOwner(t, tx.PGX())
	s, err := read[string](t.Context(), tx, query, "")
	require.NoError(t, err)
	require.Equal(t, "anntest", s)
	require.NoError(t, tx.Commit())
	var rest string
	require.NoError(t, b.pool.QueryRow(ctx, "select coalesce(current_setting('app.actor', true), '')").Scan(&rest))
	require.Empty(t, rest)
}

// TestTxFirstStatement begins by each method of pgx.Tx, in each of pgx's modes.
func TestTxFirstStatement(t *testing.T) {
	t.Parallel()
	first := map[string]func(context.Context, pgx.Tx) error{
		"Exec": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into owners values ($1, 'o')", uid)
			return err
		},
		"Exec with an option": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into owners values ($1, 'o')", pgx.QueryExecModeExec, uid)
			return err
		},
		"Exec with named arguments": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into owners values (@id, 'o')", pgx.NamedArgs{"id": uid})
			return err
		},
		"Query": func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, "insert into owners values ($1, 'o') returning id", uid)
			if err != nil {
				return err
			}
			_, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[uuid.UUID])
			return err
		},
		"Query with an option": func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, "insert into owners values ($1, 'o') returning id", pgx.QueryExecModeExec, uid)
			if err != nil {
				return err
			}
			for rows.Next() {
				if _, err := rows.Values(); err != nil {
					return err
				}
			}
			return rows.Err()
		},
		"QueryRow": func(ctx context.Context, tx pgx.Tx) error {
			return tx.QueryRow(ctx, "insert into owners values ($1, 'o') returning id", uid).Scan(new(uuid.UUID))
		},
		"SendBatch": func(ctx context.Context, tx pgx.Tx) error {
			batch := &pgx.Batch{}
			batch.Queue("insert into owners values ($1, 'o')", uid)
			return tx.SendBatch(ctx, batch).Close()
		},
		"CopyFrom": func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"owners"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{uid, "o"}}))
			return err
		},
		"Prepare": func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Prepare(ctx, "ins", "insert into owners values ($1, 'o')"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "ins", uid)
			return err
		},
		"Begin": func(ctx context.Context, tx pgx.Tx) error {
			sp, err := tx.Begin(ctx)
			if err != nil {
				return err
			}
			if _, err := sp.Exec(ctx, "insert into owners values ($1, 'o')", uid); err != nil {
				return err
			}
			return sp.Commit(ctx)
		},
		"LargeObjects": func(ctx context.Context, tx pgx.Tx) error {
			lobs := tx.LargeObjects()
			oid, err := lobs.Create(ctx, 0)
			if err != nil {
				return err
			}
			if err := lobs.Unlink(ctx, oid); err != nil {
				return err
			}
			_, err = tx.Exec(ctx, "insert into owners values ($1, 'o')", uid)
			return err
		},
	}
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec,
		pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(cfg *pgxpool.Config) { cfg.ConnConfig.DefaultQueryExecMode = mode })
			ctx := WithSetting(t.Context(), "app.actor", "ann")
			for name, f := range first {
				tx := b.begin(t, ctx)
				require.NoError(t, f(ctx, tx.PGX()), name)
				actor, err := read[string](ctx, tx, "select current_setting('app.actor')")
				require.NoError(t, err, name)
				require.Equal(t, "ann", actor, name)
				require.Zero(t, b.count(t, "owners"), name)
				require.NoError(t, tx.Rollback(), name)

				tx = b.begin(t, ctx)
				require.NoError(t, f(ctx, tx.PGX()), name)
				require.NoError(t, tx.Commit(), name)
				require.Equal(t, 1, b.count(t, "owners"), name)

				if name == "LargeObjects" || name == "Begin" {
					require.NoError(t, b.drv.Exec(ctx, "delete from owners", []any{}, nil))
					continue
				}
				tx = b.begin(t, ctx)
				var pg *pgconn.PgError
				require.ErrorAs(t, f(ctx, tx.PGX()), &pg, name)
				require.Equal(t, "23505", pg.Code, name)
				require.ErrorIs(t, tx.Commit(), pgx.ErrTxCommitRollback, name)
				require.NoError(t, b.drv.Exec(ctx, "delete from owners", []any{}, nil))
			}
			b.idle(t)
		})
	}
}

func TestTxIsShared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	write := func(tx *Tx) {
		// ent's edge needs two statements, so ent begins a transaction inside ours.
		spec := createSpec(uuid.New())
		_, err := tx.PGX().Exec(t.Context(), "insert into tags (name) values ('red') on conflict (name) do nothing")
		require.NoError(t, err)
		id, err := read[int64](t.Context(), tx, "select id from tags")
		require.NoError(t, err)
		spec.Edges = []*sqlgraph.EdgeSpec{tagEdge(id)}
		require.NoError(t, sqlgraph.CreateNode(t.Context(), FromTx(tx), spec))
		insertOwner(t, tx.PGX())
	}
	counts := func() [4]int {
		return [4]int{b.count(t, "things"), b.count(t, "tags"), b.count(t, "thing_tags"), b.count(t, "owners")}
	}
	tx := b.begin(t, t.Context())
	write(tx)
	require.Zero(t, counts())
	require.NoError(t, tx.Rollback())
	require.Zero(t, counts())

	tx = b.begin(t, t.Context())
	write(tx)
	require.NoError(t, tx.PGX().Commit(t.Context()))
	require.Equal(t, [4]int{1, 1, 1, 1}, counts())
	b.idle(t)
}

func TestFromTx(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tx := b.begin(t, t.Context())
	drv := FromTx(tx)
	require.Equal(t, dialect.Postgres, drv.Dialect())
	inner, err := drv.Tx(t.Context())
	require.NoError(t, err)
	require.NoError(t, inner.Exec(t.Context(), "insert into owners values ($1, 'o')", []any{uid}, nil))
	require.NoError(t, inner.Rollback())
	n, err := read[int](t.Context(), drv, "select count(*) from owners")
	require.NoError(t, err)
	require.Equal(t, 1, n, "the outer transaction decides")
	begin := drv.(interface {
		BeginTx(context.Context, *sql.TxOptions) (dialect.Tx, error)
	}).BeginTx
	inner, err = begin(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, inner.Commit())
	_, err = begin(t.Context(), &sql.TxOptions{ReadOnly: true})
	require.Error(t, err)
	require.NoError(t, drv.Close())
	require.NoError(t, tx.Commit())
	require.Equal(t, 1, b.count(t, "owners"))
}

func TestTxConcurrentReads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tx := b.begin(t, t.Context())
	g, ctx := errgroup.WithContext(t.Context())
	for i := range 8 {
		g.Go(func() error {
			for range 20 {
				rows := &sql.Rows{}
				if err := tx.Query(ctx, "select $1::int + s from generate_series(1, 50) s", []any{i * 100}, rows); err != nil {
					return err
				}
				var ns []int
				if err := errors.Join(sql.ScanSlice(rows, &ns), rows.Close()); err != nil {
					return err
				}
				if len(ns) != 50 || ns[0] != i*100+1 {
					return fmt.Errorf("rows of another statement: %v", ns)
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	require.NoError(t, tx.Commit())

	// A statement that waits for another's rows can be given up.
	tx = b.begin(t, t.Context())
	rows, err := tx.PGX().Query(t.Context(), "select generate_series(1, 3)")
	require.NoError(t, err)
	require.True(t, rows.Next())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = tx.PGX().Exec(ctx, "select 1")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, tx.CommitContext(ctx), context.Canceled)
	rows.Close()
	require.NoError(t, rows.Err())
	require.NoError(t, tx.Commit())
	b.idle(t)
}

func TestTxCommitOfAborted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, statements := range [][]string{
		{"select 1/0"},                         // the first one, with BEGIN
		{"select 1", "select 1/0"},             // a later one
		{"select 1", "select 1/0", "select 2"}, // and one after it
	} {
		tx := b.begin(t, t.Context())
		var last error
		for _, s := range statements {
			_, last = read[int](t.Context(), tx, s)
		}
		var pg *pgconn.PgError
		require.ErrorAs(t, last, &pg)
		require.ErrorIs(t, tx.Commit(), pgx.ErrTxCommitRollback)
		require.ErrorIs(t, tx.Rollback(), pgx.ErrTxClosed)
	}
	// What only the commit finds.
	tx := b.begin(t, t.Context())
	_, err := tx.PGX().Exec(t.Context(), "insert into late values ($1, 1), ($2, 1)", 1, 2)
	require.NoError(t, err)
	require.True(t, sqlgraph.IsUniqueConstraintError(tx.Commit()))
	b.idle(t)
}

func TestTxThatCannotBegin(t *testing.T) {
	t.Parallel()
	b := setup(t, one)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, fail := range map[string]func(*Tx) error{
		"cancelled": func(tx *Tx) error { _, err := read[int](cancelled, tx, "select 1"); return err },
		"no such table": func(tx *Tx) error { // found before BEGIN is sent
			return tx.Exec(t.Context(), "delete from nowhere where id = $1", []any{1}, nil)
		},
		"argument": func(tx *Tx) error { return tx.Exec(t.Context(), "select $1::int", []any{struct{}{}}, nil) },
	} {
		tx := b.begin(t, t.Context())
		cause := fail(tx)
		require.Error(t, cause, name)
		_, err := read[int](t.Context(), tx, "select 1")
		require.Error(t, err, name)
		require.Error(t, tx.PGX().QueryRow(t.Context(), "select 1").Scan(new(int)), name)
		require.Error(t, tx.PGX().SendBatch(t.Context(), &pgx.Batch{}).Close(), name)
		_, err = tx.PGX().Begin(t.Context())
		require.Error(t, err, name)
		lobs := tx.PGX().LargeObjects()
		_, err = lobs.Create(t.Context(), 0)
		require.ErrorIs(t, err, pgx.ErrTxClosed, name)
		err = tx.Commit()
		require.ErrorIs(t, err, pgx.ErrTxCommitRollback, name)
		require.ErrorContains(t, err, cause.Error(), name)
		b.idle(t)
		tx = b.begin(t, t.Context())
		require.Error(t, fail(tx), name)
		require.NoError(t, tx.Rollback(), name)
		b.idle(t)
	}
}

func TestBeginTx(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for level, want := range map[stdsql.IsolationLevel]string{
		stdsql.LevelDefault: "read committed", stdsql.LevelReadUncommitted: "read uncommitted",
		stdsql.LevelReadCommitted: "read committed", stdsql.LevelRepeatableRead: "repeatable read",
		stdsql.LevelSnapshot: "repeatable read", stdsql.LevelSerializable: "serializable",
	} {
		tx, err := b.drv.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
		require.NoError(t, err)
		got, err := read[string](t.Context(), tx, "select current_setting('transaction_isolation')")
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.NoError(t, tx.Commit())
	}
	_, err := b.drv.BeginTx(t.Context(), &sql.TxOptions{Isolation: stdsql.LevelLinearizable})
	require.Error(t, err)
	tx, err := b.drv.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
}

func TestTxRollbackAfterCancel(t *testing.T) {
	t.Parallel()
	b := setup(t)

	// Cancelled between statements.
	ctx, cancel := context.WithCancel(t.Context())
	tx := b.begin(t, ctx)
	insertOwner(t, tx.PGX())
	cancel()
	require.NoError(t, tx.Rollback())
	b.idle(t)

	// Cancelled before Commit: nothing is kept.
	ctx, cancel = context.WithCancel(t.Context())
	tx = b.begin(t, ctx)
	insertOwner(t, tx.PGX())
	cancel()
	require.ErrorIs(t, tx.Commit(), context.Canceled)
	b.idle(t)

	// Cancelled within a statement, the first and a later one.
	for _, first := range []bool{true, false} {
		require.ErrorIs(t, b.cancelled(t, func(ctx context.Context) error {
			tx = b.begin(t, ctx)
			if !first {
				insertOwner(t, tx.PGX())
			}
			_, err := tx.PGX().Exec(ctx, "select pg_sleep($1)", 60)
			return err
		}), context.Canceled)
		require.NoError(t, tx.Rollback())
		b.idle(t)
	}
	require.Zero(t, b.count(t, "owners"))
}

func TestTxRollbackWhileBusy(t *testing.T) {
	t.Parallel()
	b := setup(t, one)
	tx := b.begin(t, t.Context())
	tx.patience = time.Millisecond
	insertOwner(t, tx.PGX())
	rows, err := tx.PGX().Query(t.Context(), "select generate_series(1, 3)")
	require.NoError(t, err)
	require.ErrorIs(t, tx.Rollback(), context.DeadlineExceeded)
	require.True(t, rows.Next(), "the rows are still whole")
	tx.patience = rollbackPatience
	rows.Close()
	require.NoError(t, rows.Err())
	b.idle(t)
	require.ErrorIs(t, tx.Commit(), pgx.ErrTxClosed)
	require.Zero(t, b.count(t, "owners"))
}

func TestTxSavepoints(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tx := b.begin(t, t.Context())
	outer, err := tx.PGX().Begin(t.Context())
	require.NoError(t, err)
	insertOwner(t, outer)
	inner, err := outer.Begin(t.Context())
	require.NoError(t, err)
	insertOwner(t, inner)
	_, err = inner.Exec(t.Context(), "select 1/0")
	require.Error(t, err)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, inner.Rollback(cancelled))
	require.ErrorIs(t, inner.Rollback(t.Context()), pgx.ErrTxClosed)
	_, err = inner.Exec(t.Context(), "select 1")
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	require.NoError(t, outer.Commit(t.Context()))
	require.ErrorIs(t, outer.Commit(t.Context()), pgx.ErrTxClosed)
	require.ErrorIs(t, outer.QueryRow(t.Context(), "select 1").Scan(new(int)), pgx.ErrTxClosed)
	insertOwner(t, tx.PGX())
	require.NoError(t, tx.Commit())
	require.Equal(t, 2, b.count(t, "owners"))
}

func TestQueryRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tx := b.begin(t, t.Context())
	require.ErrorIs(t, tx.PGX().QueryRow(t.Context(), "select 1 where false").Scan(new(int)), pgx.ErrNoRows)
	require.Error(t, tx.PGX().QueryRow(t.Context(), "select 'x'").Scan(new(int)))
	var n int
	require.NoError(t, tx.PGX().QueryRow(t.Context(), "select generate_series(1, 3)").Scan(&n))
	require.Equal(t, 1, n)
	require.NoError(t, tx.Commit())
}

func TestSchemaCreate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, err := schema.NewMigrate(b.drv)
	require.NoError(t, err)
	err = m.Create(t.Context(), &schema.Table{Name: "x", Columns: []*schema.Column{{Name: "id", Type: field.TypeInt}}})
	require.ErrorIs(t, err, ErrSchemaCreate)
	rows := &sql.Rows{}
	require.NoError(t, b.drv.Query(t.Context(), "select 1", []any{}, rows))
	_, err = rows.ColumnTypes()
	require.Error(t, err)
	require.False(t, rows.NextResultSet())
	require.NoError(t, rows.Close())
	b.idle(t)
}

func TestClose(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.drv.Close())
	_, err := b.drv.SQL().Exec(t.Context(), "select 1")
	require.True(t, err != nil && strings.Contains(err.Error(), "closed pool"), err)
}
