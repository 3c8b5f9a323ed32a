package changelog

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// ErrCursor says that a text is not a cursor that was sealed with one of our keys.
var ErrCursor = errors.New("not a cursor of this log")

// Cursor is a place in a log: which log, and what of it was seen. It is valid on every node.
type Cursor struct {
	Epoch uuid.UUID
	Seen  Seen
}

const (
	cursorVersion = 1
	macSize       = 16 // bytes of HMAC-SHA256

	// cursorLabel keeps the key apart from whatever else is authenticated with it.
	cursorLabel = "change log cursor"
)

// encoding takes one spelling of a cursor only.
var encoding = base64.RawURLEncoding.Strict()

// Sealer makes cursors opaque and recognises its own. A text is base64url of a version, the epoch, numbers of variable length and
// a MAC: some 65 characters, and one or two more for each transaction that was running. It may be used by several goroutines.
type Sealer struct {
	keys []sync.Pool // of *seal
}

// seal is the memory of one use of a key.
type seal struct {
	mac  hash.Hash
	body []byte
	text []byte
}

// NewSealer returns a sealer with at least one key; keys are secret, 32 random bytes are a good one. The first seals, all open: a new key
// is added behind the first on all nodes, then moved to the front. It panics without keys, or with an empty one.
func NewSealer(keys ...[]byte) *Sealer {
	if len(keys) == 0 {
		panic("changelog: a sealer without keys")
	}
	s := &Sealer{keys: make([]sync.Pool, len(keys))}
	for i, key := range keys {
		if len(key) == 0 {
			panic("changelog: a sealer with an empty key")
		}
		h := hmac.New(sha256.New, key)
		h.Write([]byte(cursorLabel))
		derived := h.Sum(nil)
		s.keys[i].New = func() any { return &seal{mac: hmac.New(sha256.New, derived)} }
	}
	return s
}

// Seal returns the cursor as a text for clients.
func (s *Sealer) Seal(c Cursor) string {
	m := s.keys[0].Get().(*seal)
	defer s.keys[0].Put(m)
	m.body = m.sum(c.append(m.body[:0]))
	m.text = encoding.AppendEncode(m.text[:0], m.body)
	return string(m.text)
}

// Open reads what Seal returned. It returns [ErrCursor] for anything else.
func (s *Sealer) Open(text string) (Cursor, error) {
	// The decoder would leave line breaks out.
	if strings.ContainsAny(text, "\r\n") {
		return Cursor{}, ErrCursor
	}
	body, err := encoding.DecodeString(text)
	if err != nil || len(body) < macSize {
		return Cursor{}, ErrCursor
	}
	end := len(body) - macSize
	for i := range s.keys {
		if s.signed(i, body[:end], body[end:]) {
			return parseCursor(body[:end])
		}
	}
	return Cursor{}, ErrCursor
}

func (s *Sealer) signed(key int, body, mac []byte) bool {
	m := s.keys[key].Get().(*seal)
	defer s.keys[key].Put(m)
	m.body = m.sum(append(m.body[:0], body...))
	return hmac.Equal(m.body[len(body):], mac)
}

// sum appends the MAC of b to it.
func (m *seal) sum(b []byte) []byte {
	m.mac.Reset()
	m.mac.Write(b)
	return m.mac.Sum(b)[:len(b)+macSize]
}

// append appends the binary form of the cursor.
func (c *Cursor) append(b []byte) []byte {
	b = append(b, cursorVersion)
	b = append(b, c.Epoch[:]...)
	b = c.Seen.Base.append(b, 0)
	b = binary.AppendUvarint(b, uint64(len(c.Seen.Parts)))
	for i := range c.Seen.Parts {
		b = binary.AppendVarint(b, c.Seen.Parts[i].Seq)
		b = c.Seen.Parts[i].Snapshot.append(b, c.Seen.Base.xmin)
	}
	return b
}

// append appends the snapshot as differences: of xmin to from, of xmax to xmin, and of each running transaction to the one before.
func (s *Snapshot) append(b []byte, from uint64) []byte {
	b = binary.AppendVarint(b, int64(s.xmin-from))
	b = binary.AppendUvarint(b, s.xmax-s.xmin)
	b = binary.AppendUvarint(b, uint64(len(s.running)))
	next := s.xmin
	for _, xid := range s.running {
		b = binary.AppendUvarint(b, xid-next)
		next = xid + 1
	}
	return b
}

// parseCursor reads what append made.
func parseCursor(body []byte) (c Cursor, err error) {
	if len(body) <= len(c.Epoch) || body[0] != cursorVersion {
		return Cursor{}, ErrCursor
	}
	d := decoder{left: body[1:]}
	d.left = d.left[copy(c.Epoch[:], d.left):]
	c.Seen.Base = d.snapshot(0)
	if n := d.length(); n > 0 {
		c.Seen.Parts = make([]Part, n)
	}
	for i := range c.Seen.Parts {
		c.Seen.Parts[i].Seq = d.varint()
		c.Seen.Parts[i].Snapshot = d.snapshot(c.Seen.Base.xmin)
	}
	if d.bad || len(d.left) > 0 {
		return Cursor{}, ErrCursor
	}
	return c, nil
}

// decoder takes numbers from the front of left. Once one is bad it is empty, and all that follow are 0.
type decoder struct {
	left []byte
	bad  bool
}

func (d *decoder) took(n int) bool {
	if n <= 0 {
		d.left, d.bad = nil, true
		return false
	}
	d.left = d.left[n:]
	return true
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.left)
	if !d.took(n) {
		return 0
	}
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.left)
	if !d.took(n) {
		return 0
	}
	return v
}

// length is that of a list, each of whose elements takes a byte or more.
func (d *decoder) length() int {
	n := d.uvarint()
	if n > uint64(len(d.left)) {
		d.took(0)
		return 0
	}
	return int(n)
}

func (d *decoder) snapshot(from uint64) (s Snapshot) {
	s.xmin = from + uint64(d.varint())
	s.xmax = s.xmin + d.uvarint()
	d.bad = d.bad || s.xmax < s.xmin
	if n := d.length(); n > 0 {
		s.running = make([]uint64, n)
	}
	next := s.xmin
	for i := range s.running {
		s.running[i] = next + d.uvarint()
		d.bad = d.bad || s.running[i] < next || s.running[i] >= s.xmax
		next = s.running[i] + 1
	}
	return s
}
