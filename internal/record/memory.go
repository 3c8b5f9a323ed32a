package record

import (
	"reflect"
	"sync"
	"time"

	"github.com/google/uuid"
)

// What streams hold for clients that do not take it, or have much of it, is bounded: where it is reached, a subscription is refused until
// there is room. One that is begun is let through whole.
const (
	maxMemory        = 512 << 20 // bytes of a node
	maxMemoryOfOne   = 64 << 20  // bytes of a viewer
	maxMemoryOfNone  = 128 << 20 // bytes of all who are not signed in
	untilThereIsRoom = 5 * time.Second
	itemSize         = 256 // bytes of an item without what it is about
	parsed           = 8   // what is parsed takes about so many times its text
)

// memory is what streams hold, by viewer; those of nobody share an account.
type memory struct {
	mu    sync.Mutex
	total int               // bytes; protected by mu
	of    map[uuid.UUID]int // bytes; protected by mu
}

// charge puts bytes on a viewer's account, or takes them off it.
func (m *memory) charge(who uuid.UUID, bytes int) {
	if bytes == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(who, bytes)
}

// take charges a viewer who has room left, or refuses.
func (m *memory) take(who uuid.UUID, bytes int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.refusal(who)
	if err == nil && bytes > 0 {
		m.add(who, bytes)
	}
	return err
}

func (m *memory) add(who uuid.UUID, bytes int) {
	if m.of == nil {
		m.of = map[uuid.UUID]int{}
	}
	m.total += bytes
	if m.of[who] += bytes; m.of[who] == 0 {
		delete(m.of, who)
	}
}

// room refuses who has no room left.
func (m *memory) room(who uuid.UUID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refusal(who)
}

func (m *memory) refusal(who uuid.UUID) error {
	most := maxMemoryOfOne
	if who == uuid.Nil {
		most = maxMemoryOfNone
	}
	if m.of[who] >= most {
		return &Error{Code: Unavailable, RetryAfter: untilThereIsRoom,
			Message: "your subscriptions hold as much as they may: take what they have for you, or end some"}
	}
	if m.total >= maxMemory {
		return &Error{Code: Unavailable, RetryAfter: untilThereIsRoom, Message: "there is no room for more subscriptions at the moment"}
	}
	return nil
}

// size is about how many bytes a subscription takes: its text, its filter, and the records that it names. It does not change.
func (s *Stream) size() int {
	k, filter := s.shape.key, ""
	if s.list != nil {
		filter = s.list.key.filter
	}
	return parsed*(len(k.document)+len(k.variables)+len(filter)) + itemSize*len(s.keys)
}

// sizeOf is about how many bytes a record holds.
func sizeOf(n Node) int {
	if n == nil {
		return 0
	}
	row := reflect.ValueOf(n).Elem()
	size := int(row.Type().Size())
	for _, f := range row.Fields() {
		size += sizeBehind(f)
	}
	return size
}

// sizeBehind is about how many bytes a value leads to.
func sizeBehind(v reflect.Value) (size int) {
	switch v.Kind() {
	case reflect.String:
		return v.Len()
	case reflect.Slice:
		size = v.Len() * int(v.Type().Elem().Size())
		if k := v.Type().Elem().Kind(); k < reflect.Bool || k > reflect.Complex128 {
			for i := range v.Len() {
				size += sizeBehind(v.Index(i))
			}
		}
	case reflect.Map:
		for m := v.MapRange(); m.Next(); {
			size += itemSize + sizeBehind(m.Key()) + sizeBehind(m.Value())
		}
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return int(v.Elem().Type().Size()) + sizeBehind(v.Elem())
		}
	}
	return size
}
