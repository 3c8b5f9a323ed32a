package entpgx

import (
	"context"
	stdsql "database/sql"
	"errors"

	"entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5"
)

// heldRows are rows of a pipeline or a transaction: closing them ends the one and unlocks the other.
type heldRows struct {
	pgx.Rows
	br     pgx.BatchResults // nil where the statement travelled alone
	after  *Statement       // follows in br; nil for none, and in a transaction
	tx     *Tx              // nil outside a transaction
	ctx    context.Context  // of the statement, where it began tx
	closed bool
	err    error // once closed
}

func (r *heldRows) Close() {
	if r.closed {
		return
	}
	r.closed = true
	r.Rows.Close()
	r.err = r.Rows.Err()
	switch {
	case r.br != nil && r.tx != nil:
		r.err = r.tx.settle(r.ctx, r.br, r.err)
	case r.br != nil:
		if r.after != nil && r.err == nil {
			r.err = r.after.result(r.br)
		}
		if err := r.br.Close(); r.err == nil {
			r.err = err
		}
	}
	if r.tx != nil {
		r.tx.unlock()
	}
}

func (r *heldRows) Err() error {
	if r.closed {
		return r.err
	}
	return r.Rows.Err()
}

func (r *heldRows) Next() bool {
	if !r.closed && r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

func (r *heldRows) Scan(dest ...any) error {
	err := r.Rows.Scan(dest...)
	if err != nil {
		r.Close()
	}
	return err
}

func (r *heldRows) Values() ([]any, error) {
	vs, err := r.Rows.Values()
	if err != nil {
		r.Close()
	}
	return vs, err
}

// rows are pgx's rows as ent wants them.
type rows struct {
	pgx.Rows
	columns []string
	ahead   bool // the first row has been read and Next not yet called

	// What Scan hands to pgx, made for the first row and filled anew for the others.
	dest     []any
	modes    []mode
	nullUUID []nullUUID
}

var _ sql.ColumnScanner = (*rows)(nil)

// newRows reads the first row, so that a failed query is an error before ent looks at its columns.
func newRows(rs pgx.Rows) (*rows, error) {
	fields := rs.FieldDescriptions()
	r := &rows{Rows: rs, columns: make([]string, len(fields))}
	// The connection reuses the descriptions once rs is closed, which Next may do.
	for i := range fields {
		r.columns[i] = fields[i].Name
	}
	r.ahead = rs.Next()
	if !r.ahead {
		if err := rs.Err(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *rows) Close() error {
	r.Rows.Close()
	return r.Err()
}

func (r *rows) ColumnTypes() ([]*stdsql.ColumnType, error) {
	return nil, errors.New("entpgx: column types are not available")
}

func (r *rows) Columns() ([]string, error) { return r.columns, nil }

func (r *rows) NextResultSet() bool { return false }

func (r *rows) Next() bool {
	if r.ahead {
		r.ahead = false
		return true
	}
	return r.Rows.Next()
}

// Scan scans the current row. Targets that ent's generated code uses are scanned without an intermediate value.
func (r *rows) Scan(dest ...any) error {
	if len(dest) != len(r.columns) {
		return r.Rows.Scan(dest...) // which says so
	}
	if r.dest == nil {
		r.plan(dest)
	}
	decoded := false
	for i, d := range dest {
		switch r.modes[i] {
		case wrapped:
			d = r.wrap(i, d)
		case asValue:
			d, decoded = nil, true
		}
		r.dest[i] = d
	}
	if err := r.Rows.Scan(r.dest...); err != nil {
		return err
	}
	if !decoded {
		return nil
	}
	for i, d := range dest {
		if r.modes[i] == asValue {
			if err := r.scanValue(i, d); err != nil {
				r.Rows.Close()
				return pgx.ScanArgError{ColumnIndex: i, FieldName: r.columns[i], Err: err}
			}
		}
	}
	return nil
}

func (r *rows) plan(dest []any) {
	r.dest = make([]any, len(dest))
	r.modes = make([]mode, len(dest))
	for i, f := range r.FieldDescriptions() {
		r.modes[i] = modeOf(r.TypeMap(), f.DataTypeOID, f.Format, dest[i])
	}
}

// scanValue gives database/sql's value of column i to target.
func (r *rows) scanValue(i int, target any) error {
	f := r.FieldDescriptions()[i]
	v, err := value(r.TypeMap(), f.DataTypeOID, f.Format, r.RawValues()[i])
	if err != nil {
		return err
	}
	s, ok := target.(stdsql.Scanner)
	if !ok {
		s = r.wrap(i, target).(stdsql.Scanner) // *any and *string
	}
	return s.Scan(v)
}
