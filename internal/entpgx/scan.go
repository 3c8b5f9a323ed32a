package entpgx

import (
	"bytes"
	stdsql "database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// mode is how a column is scanned.
type mode uint8

const (
	direct  mode = iota // by pgx, into ent's target
	wrapped             // by pgx, into what wrap makes of the target
	asValue             // by a sql.Scanner from database/sql's value, which pgx would not give it
)

// modeOf returns how to scan columns of this type and format into targets like this one. What is left to pgx gets the
// same value as from database/sql, if it is a sql.Scanner.
func modeOf(m *pgtype.Map, oid uint32, format int16, target any) mode {
	scan := wrapped
	if needsValue(m, oid, format) {
		scan = asValue
	}
	is := false
	switch t := target.(type) {
	case *string:
		if isText(oid, format) {
			return direct
		}
		return scan
	case *any, *driver.Value, *sql.UnknownType:
		return scan
	case *stdsql.NullString:
		is = isText(oid, format)
	case *stdsql.NullInt64:
		is = oid == pgtype.Int8OID || oid == pgtype.Int4OID || oid == pgtype.Int2OID
	case *stdsql.NullFloat64:
		is = oid == pgtype.Float8OID || oid == pgtype.Float4OID
	case *stdsql.NullBool:
		is = oid == pgtype.BoolOID
	case *stdsql.NullTime:
		is = oid == pgtype.TimestamptzOID || oid == pgtype.TimestampOID || oid == pgtype.DateOID
	case *uuid.UUID:
		is = oid == pgtype.UUIDOID
	case *sql.NullScanner:
		if _, ok := t.S.(*uuid.UUID); ok {
			is = oid == pgtype.UUIDOID
		}
	case pgtype.ArraySetter:
		return direct
	}
	if is {
		return wrapped
	}
	if _, ok := target.(stdsql.Scanner); ok && scan == asValue {
		return asValue
	}
	return direct
}

// isText reports whether the bytes on the wire are the text itself. Enums and other types that pgx does not know come
// in text format.
func isText(oid uint32, format int16) bool {
	if oid == pgtype.JSONOID || oid == pgtype.JSONBOID {
		return false // database/sql has bytes for these
	}
	return format == pgtype.TextFormatCode ||
		oid == pgtype.TextOID || oid == pgtype.VarcharOID || oid == pgtype.BPCharOID || oid == pgtype.NameOID
}

// needsValue reports whether pgx gives a sql.Scanner something else than database/sql: strings for json, and the binary
// format of arrays.
func needsValue(m *pgtype.Map, oid uint32, format int16) bool {
	if oid == pgtype.JSONOID || oid == pgtype.JSONBOID {
		return true
	}
	if t, ok := m.TypeForOID(oid); ok && format == pgtype.BinaryFormatCode {
		_, ok := t.Codec.(*pgtype.ArrayCodec)
		return ok
	}
	return false
}

// value returns database/sql's value of a column for which needsValue holds: bytes for json, else the text.
func value(m *pgtype.Map, oid uint32, format int16, raw []byte) (any, error) {
	if raw == nil {
		return nil, nil
	}
	t, _ := m.TypeForOID(oid)
	if _, ok := t.Codec.(*pgtype.ArrayCodec); !ok {
		return t.Codec.DecodeDatabaseSQLValue(m, oid, format, raw)
	}
	var a pgtype.Array[any] // which keeps the dimensions
	if err := m.Scan(oid, format, raw, &a); err != nil {
		return nil, err
	}
	text, err := m.Encode(oid, pgtype.TextFormatCode, a, nil)
	if err != nil {
		return nil, err
	}
	return string(text), nil
}

// wrap returns the target of column i as something that pgx scans into directly.
func (r *rows) wrap(i int, target any) any {
	switch t := target.(type) {
	case *stdsql.NullString:
		return (*nullString)(t)
	case *string:
		return (*anyString)(t)
	case *stdsql.NullInt64:
		return (*nullInt64)(t)
	case *stdsql.NullFloat64:
		return (*nullFloat64)(t)
	case *stdsql.NullBool:
		return (*nullBool)(t)
	case *stdsql.NullTime:
		return (*nullTime)(t)
	case *uuid.UUID:
		return (*uuidValue)(t)
	case *sql.NullScanner:
		if id, ok := t.S.(*uuid.UUID); ok {
			if r.nullUUID == nil {
				r.nullUUID = make([]nullUUID, len(r.columns))
			}
			r.nullUUID[i] = nullUUID{id, t}
			return &r.nullUUID[i]
		}
	case *any:
		return anyValue{t}
	case *driver.Value:
		return anyValue{(*any)(t)}
	case *sql.UnknownType:
		return anyValue{(*any)(t)}
	}
	return target
}

type nullString stdsql.NullString

func (n *nullString) ScanText(v pgtype.Text) error {
	n.String, n.Valid = v.String, v.Valid
	return nil
}

type nullInt64 stdsql.NullInt64

func (n *nullInt64) ScanInt64(v pgtype.Int8) error {
	n.Int64, n.Valid = v.Int64, v.Valid
	return nil
}

type nullFloat64 stdsql.NullFloat64

func (n *nullFloat64) ScanFloat64(v pgtype.Float8) error {
	n.Float64, n.Valid = v.Float64, v.Valid
	return nil
}

type nullBool stdsql.NullBool

func (n *nullBool) ScanBool(v pgtype.Bool) error {
	n.Bool, n.Valid = v.Bool, v.Valid
	return nil
}

type nullTime stdsql.NullTime

func (n *nullTime) ScanTimestamptz(v pgtype.Timestamptz) error {
	return n.set(v.Valid, v.InfinityModifier, stdsql.NullTime{Time: v.Time, Valid: v.Valid})
}

func (n *nullTime) ScanTimestamp(v pgtype.Timestamp) error {
	return n.set(v.Valid, v.InfinityModifier, stdsql.NullTime{Time: v.Time, Valid: v.Valid})
}

func (n *nullTime) ScanDate(v pgtype.Date) error {
	return n.set(v.Valid, v.InfinityModifier, stdsql.NullTime{Time: v.Time, Valid: v.Valid})
}

func (n *nullTime) set(valid bool, inf pgtype.InfinityModifier, v stdsql.NullTime) error {
	if valid && inf != pgtype.Finite {
		return fmt.Errorf("cannot scan %s into time.Time", inf)
	}
	*n = nullTime(v)
	return nil
}

type uuidValue uuid.UUID

// ScanUUID leaves the target alone on NULL, as uuid.UUID.Scan does.
func (u *uuidValue) ScanUUID(v pgtype.UUID) error {
	if v.Valid {
		*u = v.Bytes
	}
	return nil
}

type nullUUID struct {
	id   *uuid.UUID
	null *sql.NullScanner
}

func (n *nullUUID) ScanUUID(v pgtype.UUID) error {
	n.null.Valid = v.Valid
	if v.Valid {
		*n.id = v.Bytes
	}
	return nil
}

// anyString takes any type's text, as database/sql formats it.
type anyString string

func (s *anyString) Scan(src any) error {
	var n stdsql.NullString
	if err := n.Scan(src); err != nil {
		return err
	}
	if !n.Valid {
		return errors.New("cannot scan NULL into string")
	}
	*s = anyString(n.String)
	return nil
}

// anyValue takes the value that database/sql gives, where pgx would give types of its own.
type anyValue struct{ dest *any }

func (a anyValue) Scan(src any) error {
	if b, ok := src.([]byte); ok {
		src = bytes.Clone(b)
	}
	*a.dest = src
	return nil
}
