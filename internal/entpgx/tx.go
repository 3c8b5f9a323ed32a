package entpgx

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// rollbackPatience is how long a rollback may take, with the wait for a statement that still runs.
const rollbackPatience = 5 * time.Second

// Tx is a transaction for ent (it is a dialect.Tx), and through PGX for everything that takes a pgx.Tx. It begins with
// its first statement.
//
// It is safe for concurrent use: a statement waits until the one before it has finished, and rows until they are closed.
// So a goroutine must close its rows before it runs its next statement on the same Tx.
//
// A Tx whose BEGIN could not be sent is dead: its statements fail, and Commit returns pgx.ErrTxCommitRollback.
type Tx struct {
	pool     *pgxpool.Pool
	ctx      context.Context // of the settings, Commit and Rollback
	opts     pgx.TxOptions
	patience time.Duration

	sem        chan struct{} // is full while a statement runs; protects the fields up to abandoned
	conn       pgx.Tx        // nil until begun
	cause      error         // why it could not begin
	root       view
	savepoints int

	abandoned atomic.Bool // whoever holds sem rolls back
}

var _ dialect.Tx = (*Tx)(nil)

// Exec runs a statement for ent: args is a []any, v nil or a *sql.Result.
func (t *Tx) Exec(ctx context.Context, query string, args, v any) error {
	return exec(ctx, &t.root, query, args, v)
}

// Query runs a query for ent: args is a []any, v a *sql.Rows.
func (t *Tx) Query(ctx context.Context, query string, args, v any) error {
	return queryRows(ctx, &t.root, query, args, v)
}

// Commit is CommitContext with the context the transaction was begun with.
func (t *Tx) Commit() error { return t.CommitContext(t.ctx) }

// CommitContext commits; it does nothing where no statement has run. It returns an error that is
// pgx.ErrTxCommitRollback where a failed statement had aborted the transaction, and pgx.ErrTxClosed where it had ended.
func (t *Tx) CommitContext(ctx context.Context) error {
	if err := t.acquire(ctx); err != nil {
		return err
	}
	defer t.unlock()
	if t.root.closed {
		return pgx.ErrTxClosed
	}
	t.root.closed = true
	switch {
	case t.cause != nil:
		return fmt.Errorf("%w: %w", pgx.ErrTxCommitRollback, t.cause)
	case t.conn == nil:
		return nil
	}
	return t.conn.Commit(ctx)
}

// Rollback rolls back, also where the transaction's context has been cancelled, within five seconds. It returns
// pgx.ErrTxClosed where the transaction had ended.
func (t *Tx) Rollback() error { return t.rollback(t.ctx) }

func (t *Tx) rollback(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.patience)
	defer cancel()
	if err := t.acquire(ctx); err != nil {
		// A statement still runs. It, or we if it has just finished, must give the connection back.
		t.abandoned.Store(true)
		t.reap()
		return fmt.Errorf("roll back: a statement still runs: %w", err)
	}
	defer t.unlock()
	return t.end(ctx)
}

// end rolls back under the lock.
func (t *Tx) end(ctx context.Context) error {
	if t.root.closed {
		return pgx.ErrTxClosed
	}
	t.root.closed = true
	if t.conn == nil || t.cause != nil {
		return nil
	}
	// A cancelled statement has closed the connection, and the server rolls back.
	gone := t.conn.Conn().IsClosed()
	if err := t.conn.Rollback(ctx); err != nil && !gone {
		return err
	}
	return nil
}

// PGX returns the transaction as a pgx.Tx: the same transaction, under the same lock. Its Begin sets a savepoint; its
// Rollback works with a cancelled context too. Conn is nil until the first statement; what is done with it, or with
// LargeObjects, does not take the lock.
func (t *Tx) PGX() pgx.Tx { return &t.root }

// acquire takes the lock.
func (t *Tx) acquire(ctx context.Context) error {
	select {
	case t.sem <- struct{}{}:
		return nil
	default:
	}
	select {
	case t.sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lock takes the lock for a statement.
func (t *Tx) lock(ctx context.Context, v *view) error {
	if err := t.acquire(ctx); err != nil {
		return err
	}
	err := t.cause
	switch {
	case t.root.closed || v.closed:
		err = pgx.ErrTxClosed
	case err != nil:
		err = fmt.Errorf("transaction did not begin: %w", err)
	}
	if err != nil {
		t.unlock()
	}
	return err
}

func (t *Tx) unlock() {
	<-t.sem
	if t.abandoned.Load() {
		t.reap()
	}
}

// reap ends an abandoned transaction, unless another holder of the lock will.
func (t *Tx) reap() {
	select {
	case t.sem <- struct{}{}:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), t.patience)
		defer cancel()
		_ = t.end(ctx) // whoever rolled back has had an error already
		<-t.sem
	default:
	}
}

// begin sends BEGIN, the settings and the statements in one pipeline and reads the results of the first two. settle
// must follow.
func (t *Tx) begin(ctx context.Context, stmts ...*pgx.QueuedQuery) (pgx.BatchResults, error) {
	set := settings(t.ctx)
	b := &pgx.Batch{}
	b.BeginTx(t.opts)
	queueSettings(b, set)
	b.QueuedQueries = append(b.QueuedQueries, stmts...)
	br := t.pool.SendBatch(ctx, b)
	if err := skip(br, 1+len(set)); err != nil {
		return nil, t.settle(ctx, br, err)
	}
	return br, nil
}

// settle ends the pipeline of begin and keeps the transaction. err is the statement's error, if there is one already.
func (t *Tx) settle(ctx context.Context, br pgx.BatchResults, err error) error {
	if cerr := br.Close(); err == nil {
		err = cerr
	}
	t.conn = br.Tx()
	c := t.conn.Conn()
	if err != nil && (c == nil || c.IsClosed() || c.PgConn().TxStatus() == 'I') {
		t.cause = err
		_ = t.conn.Rollback(ctx) // gives the connection back
	}
	return err
}

// ready begins the transaction by itself, where a statement cannot travel with BEGIN.
func (t *Tx) ready(ctx context.Context) error {
	if t.conn != nil {
		return nil
	}
	br, err := t.begin(ctx)
	if err != nil {
		return err
	}
	return t.settle(ctx, br, nil)
}

// view is the pgx.Tx of a Tx, or of a savepoint in it.
type view struct {
	tx        *Tx
	savepoint string // "" for the transaction itself
	closed    bool   // protected by tx.sem
}

var _ pgx.Tx = (*view)(nil)

func (v *view) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	t := v.tx
	if err := t.lock(ctx, v); err != nil {
		return pgconn.CommandTag{}, err
	}
	defer t.unlock()
	if t.conn == nil && !hasOptions(args) {
		br, err := t.begin(ctx, &pgx.QueuedQuery{SQL: sql, Arguments: args})
		if err != nil {
			return pgconn.CommandTag{}, err
		}
		tag, err := br.Exec()
		return tag, t.settle(ctx, br, err)
	}
	if err := t.ready(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return t.conn.Exec(ctx, sql, args...)
}

func (v *view) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	t := v.tx
	if err := t.lock(ctx, v); err != nil {
		return failedRows(err)
	}
	if t.conn == nil && !hasOptions(args) {
		br, err := t.begin(ctx, &pgx.QueuedQuery{SQL: sql, Arguments: args})
		if err != nil {
			t.unlock()
			return failedRows(err)
		}
		rs, err := br.Query()
		held := &heldRows{Rows: rs, br: br, tx: t, ctx: ctx}
		if err != nil {
			held.Close()
		}
		return held, err
	}
	if err := t.ready(ctx); err != nil {
		t.unlock()
		return failedRows(err)
	}
	rs, err := t.conn.Query(ctx, sql, args...)
	held := &heldRows{Rows: rs, tx: t}
	if err != nil {
		held.Close()
	}
	return held, err
}

func (v *view) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rs, _ := v.Query(ctx, sql, args...) // rs carries the error
	return row{rs}
}

func (v *view) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	t := v.tx
	if err := t.lock(ctx, v); err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	if err := t.ready(ctx); err != nil {
		t.unlock()
		return pgx.FailedBatchResults(b, err)
	}
	return &heldBatch{BatchResults: t.conn.SendBatch(ctx, b), tx: t}
}

func (v *view) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, src pgx.CopyFromSource) (int64, error) {
	t := v.tx
	if err := t.lock(ctx, v); err != nil {
		return 0, err
	}
	defer t.unlock()
	if err := t.ready(ctx); err != nil {
		return 0, err
	}
	return t.conn.CopyFrom(ctx, table, columns, src)
}

func (v *view) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	t := v.tx
	if err := t.lock(ctx, v); err != nil {
		return nil, err
	}
	defer t.unlock()
	if err := t.ready(ctx); err != nil {
		return nil, err
	}
	return t.conn.Prepare(ctx, name, sql)
}

func (v *view) LargeObjects() pgx.LargeObjects {
	t := v.tx
	err := t.lock(t.ctx, v)
	if err == nil {
		defer t.unlock()
		err = t.ready(t.ctx)
	}
	if err != nil {
		b := &pgx.Batch{}
		b.BeginTx(t.opts)
		return pgx.FailedBatchResults(b, err).Tx().LargeObjects() // those of a closed transaction
	}
	return t.conn.LargeObjects()
}

func (v *view) Conn() *pgx.Conn {
	t := v.tx
	if err := t.lock(t.ctx, v); err != nil {
		return nil
	}
	defer t.unlock()
	if t.conn == nil {
		return nil
	}
	return t.conn.Conn()
}

func (v *view) Begin(ctx context.Context) (pgx.Tx, error) {
	t := v.tx
	if err := t.lock(ctx, v); err != nil {
		return nil, err
	}
	t.savepoints++
	name := fmt.Sprintf("sp_%d", t.savepoints)
	t.unlock()
	if _, err := v.Exec(ctx, "savepoint "+name); err != nil {
		return nil, err
	}
	return &view{tx: t, savepoint: name}, nil
}

func (v *view) Commit(ctx context.Context) error {
	if v.savepoint == "" {
		return v.tx.CommitContext(ctx)
	}
	return v.endSavepoint(ctx, "release savepoint ")
}

func (v *view) Rollback(ctx context.Context) error {
	if v.savepoint == "" {
		return v.tx.rollback(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), v.tx.patience)
	defer cancel()
	return v.endSavepoint(ctx, "rollback to savepoint ")
}

func (v *view) endSavepoint(ctx context.Context, command string) error {
	t := v.tx
	if err := t.lock(ctx, v); err != nil {
		return err
	}
	defer t.unlock()
	v.closed = true
	_, err := t.conn.Exec(ctx, command+v.savepoint)
	return err
}

// heldBatch unlocks the transaction when it is closed.
type heldBatch struct {
	pgx.BatchResults
	tx     *Tx
	closed bool
}

func (b *heldBatch) Close() error {
	err := b.BatchResults.Close()
	if !b.closed {
		b.closed = true
		b.tx.unlock()
	}
	return err
}

// row is the first of rows.
type row struct{ rows pgx.Rows }

func (r row) Scan(dest ...any) error {
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// FromTx returns tx as ent's driver: ent.NewClient(ent.Driver(entpgx.FromTx(tx))). A transaction that ent, or its
// user, begins on that client is part of tx: its commit and rollback do nothing, for tx decides. After an error tx must
// therefore be rolled back.
func FromTx(tx *Tx) dialect.Driver { return txDriver{tx} }

type txDriver struct{ tx *Tx }

func (d txDriver) Exec(ctx context.Context, query string, args, v any) error {
	return d.tx.Exec(ctx, query, args, v)
}

func (d txDriver) Query(ctx context.Context, query string, args, v any) error {
	return d.tx.Query(ctx, query, args, v)
}

func (txDriver) Dialect() string { return dialect.Postgres }

func (txDriver) Close() error { return nil }

func (d txDriver) Tx(context.Context) (dialect.Tx, error) { return dialect.NopTx(d), nil }

// BeginTx is what ent's client asks for by type assertion.
func (d txDriver) BeginTx(ctx context.Context, opts *sql.TxOptions) (dialect.Tx, error) {
	if opts != nil && *opts != (sql.TxOptions{}) {
		return nil, errors.New("entpgx: transaction options inside a transaction")
	}
	return d.Tx(ctx)
}
