package record

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
)

// ID is a record's global id as the API shows it: the entity's prefix and the row's UUID, in the TypeID format
// (https://github.com/jetify-com/typeid, version 0.3), as in "thread_01h455vb4pex5vsknk084sn02q". As input a plain
// UUID is accepted as well, which leaves Prefix empty.
type ID struct {
	Prefix string
	UUID   uuid.UUID
}

// crockford is the base 32 alphabet of TypeID.
const crockford = "0123456789abcdefghjkmnpqrstvwxyz"

var crockfordValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(crockford) {
		t[crockford[i]] = byte(i)
	}
	return t
}()

var errID = errors.New("not an id")

// Append appends the id's text to b.
func (id ID) Append(b []byte) []byte {
	if id.Prefix == "" {
		return append(b, id.UUID.String()...)
	}
	b = append(append(b, id.Prefix...), '_')
	// 26 characters of 5 bits hold 130; the first character has the two spare ones, zero.
	var acc, bits uint
	bits = 2
	for _, v := range id.UUID {
		acc, bits = acc<<8|uint(v), bits+8
		for bits >= 5 {
			bits -= 5
			b = append(b, crockford[acc>>bits&31])
		}
	}
	return b
}

func (id ID) String() string { return string(id.Append(nil)) }

// ParseID reads an id in the TypeID format, or a plain UUID.
func ParseID(s string) (ID, error) {
	i := strings.LastIndexByte(s, '_')
	if i < 0 {
		u, err := uuid.Parse(s)
		if err != nil || len(s) != 36 {
			return ID{}, errID
		}
		return ID{UUID: u}, nil
	}
	prefix, s := s[:i], s[i+1:]
	if !isPrefix(prefix) || len(s) != 26 || s[0] > '7' {
		return ID{}, errID
	}
	var (
		id        = ID{Prefix: prefix}
		acc, bits uint
		n         int
	)
	for i := range len(s) {
		v := crockfordValue[s[i]]
		if v == 0xff {
			return ID{}, errID
		}
		acc, bits = acc<<5|uint(v), bits+5
		if i == 0 {
			bits = 3
		}
		if bits >= 8 {
			bits -= 8
			id.UUID[n] = byte(acc >> bits)
			n++
		}
	}
	return id, nil
}

// isPrefix reports whether TypeID allows s as a prefix.
func isPrefix(s string) bool {
	for i := range len(s) {
		inside := i > 0 && i < len(s)-1
		if c := s[i]; (c < 'a' || c > 'z') && (c != '_' || !inside) {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// MarshalGQL writes the id as a JSON string.
func (id ID) MarshalGQL(w io.Writer) {
	b := make([]byte, 0, 64)
	_, _ = w.Write(append(id.Append(append(b, '"')), '"'))
}

// UnmarshalGQL reads an id from an argument or a variable.
func (id *ID) UnmarshalGQL(v any) error {
	s, err := graphql.UnmarshalID(v)
	if err != nil {
		return &Error{Code: BadUserInput, Message: fmt.Sprintf("an id is a string, not %T", v)}
	}
	if *id, err = ParseID(s); err != nil {
		if len(s) > 80 {
			s = s[:80] + "..."
		}
		return &Error{Code: BadUserInput, Message: "malformed id " + strconv.QuoteToASCII(s)}
	}
	return nil
}

// of returns the row's UUID if the id can be of entity e, and else a BAD_USER_INPUT error that names the
// argument.
func (id ID) of(e *Entity, argument string) (uuid.UUID, error) {
	if id.Prefix != "" && id.Prefix != e.Prefix {
		return uuid.UUID{}, badInput(argument, "%s: %s is not the id of a %s", argument, id, e.Name)
	}
	return id.UUID, nil
}
