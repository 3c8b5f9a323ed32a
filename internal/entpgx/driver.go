package entpgx

import (
	"context"
	stdsql "database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrSchemaCreate is returned to ent's Schema.Create, which works on a *sql.DB only. Run migrations from SQL files.
var ErrSchemaCreate = errors.New("entpgx: Schema.Create needs database/sql: run migrations from SQL files")

// Querier runs SQL that does not come from ent. Driver.SQL gives one on the pool, Tx.PGX one in a transaction. Rows
// must be closed; errors are those of pgx.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Driver is ent's driver on a pool: ent.NewClient(ent.Driver(entpgx.Open(pool))).
type Driver struct {
	pool *pgxpool.Pool
}

var _ dialect.Driver = (*Driver)(nil)

// Open returns a driver on pool.
func Open(pool *pgxpool.Pool) *Driver { return &Driver{pool: pool} }

// Dialect returns dialect.Postgres.
func (d *Driver) Dialect() string { return dialect.Postgres }

// Close closes the pool, as ent's own driver closes its database.
func (d *Driver) Close() error {
	d.pool.Close()
	return nil
}

// Exec runs a statement for ent: args is a []any, v nil or a *sql.Result.
func (d *Driver) Exec(ctx context.Context, query string, args, v any) error {
	return exec(ctx, d.SQL(), query, args, v)
}

// Query runs a query for ent: args is a []any, v a *sql.Rows.
func (d *Driver) Query(ctx context.Context, query string, args, v any) error {
	return queryRows(ctx, d.SQL(), query, args, v)
}

// SQL returns the pool as a Querier that sends the context's settings along.
func (d *Driver) SQL() Querier { return poolQuerier{d.pool} }

// Pool returns the pool itself.
func (d *Driver) Pool() *pgxpool.Pool { return d.pool }

// Tx returns a *Tx with the database's default options; see Begin.
func (d *Driver) Tx(ctx context.Context) (dialect.Tx, error) {
	return d.Begin(ctx, pgx.TxOptions{}), nil
}

// BeginTx returns a *Tx with the given isolation level and access mode. It fails for levels that Postgres lacks.
func (d *Driver) BeginTx(ctx context.Context, opts *sql.TxOptions) (dialect.Tx, error) {
	var o pgx.TxOptions
	if opts != nil {
		switch opts.Isolation {
		case stdsql.LevelDefault:
		case stdsql.LevelReadUncommitted:
			o.IsoLevel = pgx.ReadUncommitted
		case stdsql.LevelReadCommitted:
			o.IsoLevel = pgx.ReadCommitted
		case stdsql.LevelRepeatableRead, stdsql.LevelSnapshot:
			o.IsoLevel = pgx.RepeatableRead
		case stdsql.LevelSerializable:
			o.IsoLevel = pgx.Serializable
		default:
			return nil, fmt.Errorf("entpgx: unsupported isolation level %s", opts.Isolation)
		}
		if opts.ReadOnly {
			o.AccessMode = pgx.ReadOnly
		}
	}
	return d.Begin(ctx, o), nil
}

// Begin returns a transaction that begins with its first statement; until then it holds no connection. ctx carries the
// transaction's settings and is the context of Tx.Commit and Tx.Rollback; its end does not roll back by itself.
func (d *Driver) Begin(ctx context.Context, opts pgx.TxOptions) *Tx {
	t := &Tx{pool: d.pool, ctx: ctx, opts: opts, sem: make(chan struct{}, 1), patience: rollbackPatience}
	t.root.tx = t
	return t
}

// poolQuerier runs each statement on a connection of its own.
type poolQuerier struct {
	pool *pgxpool.Pool
}

func (q poolQuerier) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	set := settings(ctx)
	if len(set) == 0 && checks(ctx) == (around{}) {
		return q.pool.Exec(ctx, sql, args...)
	}
	br, err := q.send(ctx, set, sql, args)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := br.Exec()
	if c := checks(ctx).after; c != nil && err == nil {
		err = c.result(br)
	}
	// The implicit commit happens at the end of the pipeline: deferred constraints fail only there.
	if cerr := br.Close(); err == nil {
		err = cerr
	}
	return tag, err
}

func (q poolQuerier) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	set := settings(ctx)
	if len(set) == 0 && checks(ctx) == (around{}) {
		return q.pool.Query(ctx, sql, args...)
	}
	br, err := q.send(ctx, set, sql, args)
	if err != nil {
		return failedRows(err)
	}
	rs, err := br.Query()
	if err != nil {
		_ = br.Close() // repeats the error
		return rs, err
	}
	return &heldRows{Rows: rs, br: br, after: checks(ctx).after}, nil
}

// send sends the settings, the statement and its checks as one implicit transaction and reads the results of what precedes
// the statement.
func (q poolQuerier) send(ctx context.Context, set []setting, sql string, args []any) (pgx.BatchResults, error) {
	if hasOptions(args) {
		return nil, errors.New("entpgx: query options cannot be combined with settings or checks outside a transaction")
	}
	b := &pgx.Batch{}
	queueSettings(b, set)
	checks := checks(ctx)
	if c := checks.before; c != nil {
		b.Queue(c.SQL, c.Args...)
	}
	b.Queue(sql, args...)
	if c := checks.after; c != nil {
		b.Queue(c.SQL, c.Args...)
	}
	br := q.pool.SendBatch(ctx, b)
	err := skip(br, len(set))
	if c := checks.before; c != nil && err == nil {
		err = c.result(br)
	}
	if err != nil {
		_ = br.Close() // repeats the error
		return nil, err
	}
	return br, nil
}

// skip reads the results of the n statements that precede the caller's.
func skip(br pgx.BatchResults, n int) error {
	for range n {
		if _, err := br.Exec(); err != nil {
			return err
		}
	}
	return nil
}

// hasOptions reports whether args start with one of pgx's query options, which a batch does not take.
func hasOptions(args []any) bool {
	if len(args) == 0 {
		return false
	}
	switch args[0].(type) {
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
		return true
	}
	return false
}

// failedRows returns rows in an error state: pgx's callers may look at those alone.
func failedRows(err error) (pgx.Rows, error) {
	return pgx.FailedBatchResults(&pgx.Batch{}, err).Query()
}

// exec is dialect.Driver's Exec on a Querier.
func exec(ctx context.Context, q Querier, query string, args, v any) error {
	argv, ok := args.([]any)
	if !ok {
		return fmt.Errorf("entpgx: invalid type %T for args, expect []any", args)
	}
	res, ok := v.(*sql.Result)
	if !ok && v != nil {
		return fmt.Errorf("entpgx: invalid type %T for the result, expect *sql.Result", v)
	}
	tag, err := q.Exec(ctx, query, argv...)
	if err != nil {
		return err
	}
	if res != nil {
		*res = driver.RowsAffected(tag.RowsAffected())
	}
	return nil
}

// queryRows is dialect.Driver's Query on a Querier.
func queryRows(ctx context.Context, q Querier, query string, args, v any) error {
	out, ok := v.(*sql.Rows)
	if !ok {
		return fmt.Errorf("entpgx: invalid type %T for the rows, expect *sql.Rows", v)
	}
	argv, ok := args.([]any)
	if !ok {
		return fmt.Errorf("entpgx: invalid type %T for args, expect []any", args)
	}
	// Only Schema.Create asks ent's driver for this; it goes on to assert a type that no native driver can give.
	if query == "SHOW server_version_num" {
		return ErrSchemaCreate
	}
	rs, err := q.Query(ctx, query, argv...)
	if err != nil {
		return err
	}
	r, err := newRows(rs)
	if err != nil {
		return err
	}
	out.ColumnScanner = r
	return nil
}
