package record

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"

	"github.com/google/uuid"

	"godstack/internal/changelog"
)

// ChangeKind says what an event of a stream is.
type ChangeKind string

// The kinds of events.
const (
	SnapshotKind ChangeKind = "SNAPSHOT" // the record as it is at the start
	ReadyKind    ChangeKind = "READY"    // the client's copy is current
	CreatedKind  ChangeKind = "CREATED"
	UpdatedKind  ChangeKind = "UPDATED"
	DeletedKind  ChangeKind = "DELETED"
	ResyncKind   ChangeKind = "RESYNC" // drop what you hold; a snapshot follows
)

// MarshalGQL writes the kind as a JSON string.
func (k ChangeKind) MarshalGQL(w io.Writer) { _, _ = io.WriteString(w, strconv.Quote(string(k))) }

// UnmarshalGQL is here for gqlgen; no input has a ChangeKind.
func (k *ChangeKind) UnmarshalGQL(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("a change kind is a string, not %T", v)
	}
	*k = ChangeKind(s)
	return nil
}

// Change is an event of a stream of records.
type Change[T any] struct {
	Kind     ChangeKind
	RecordID *ID
	Version  *int     // the change's; the record, as of delivery, may be newer
	Fields   []string // what an update changed
	Record   *T
}

// maxPending is how many events wait for one subscriber; beyond it they are joined to the newest.
const maxPending = 256

// event is a change on its way to the subscribers, and the record, loaded once for all of them.
type event struct {
	change changelog.Change
	load   sync.Once
	record any
	err    error
}

// subscription is one subscriber to one record.
type subscription struct {
	key recordKey

	mu      sync.Mutex
	pending []*event // protected by mu
	resync  bool     // protected by mu: anything may have happened
	wake    chan struct{}
}

// recordKey is a record as the change log names it.
type recordKey struct {
	entity string
	id     uuid.UUID
}

// hub hands changes to the subscribers they concern.
type hub struct {
	mu   sync.RWMutex
	subs map[recordKey]map[*subscription]struct{} // protected by mu
	n    int                                      // of subscriptions; protected by mu

	watching func(n int)
	ready    chan struct{} // closed with the first batch: what is committed from then on is delivered
	start    sync.Once
}

func newHub(watching func(int)) *hub {
	return &hub{subs: map[recordKey]map[*subscription]struct{}{}, watching: watching, ready: make(chan struct{})}
}

func (h *hub) subscribe(k recordKey) *subscription {
	s := &subscription{key: k, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs[k] == nil {
		h.subs[k] = map[*subscription]struct{}{}
	}
	h.subs[k][s] = struct{}{}
	h.n++
	h.watching(h.n)
	return s
}

func (h *hub) unsubscribe(s *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs[s.key], s)
	if len(h.subs[s.key]) == 0 {
		delete(h.subs, s.key)
	}
	h.n--
	h.watching(h.n)
}

// Deliver hands a batch of the change log to the subscriptions. The tailer calls it.
func (g *Engine) Deliver(_ context.Context, b changelog.Batch) {
	h := g.hub
	h.start.Do(func() { close(h.ready) })
	h.mu.RLock()
	defer h.mu.RUnlock()
	if b.Resync {
		for _, subs := range h.subs {
			for s := range subs {
				s.lost()
			}
		}
	}
	for i := range b.Changes {
		c := b.Changes[i]
		if c.Op == changelog.OpResync {
			for k, subs := range h.subs {
				if k.entity == c.Entity {
					for s := range subs {
						s.lost()
					}
				}
			}
			continue
		}
		subs := h.subs[recordKey{c.Entity, c.ID}]
		if len(subs) == 0 {
			continue
		}
		e := &event{change: c}
		for s := range subs {
			s.push(e)
		}
	}
}

func (s *subscription) push(e *event) {
	s.mu.Lock()
	if len(s.pending) < maxPending {
		s.pending = append(s.pending, e)
	} else {
		last := s.pending[maxPending-1]
		joined := &event{change: e.change}
		joined.change.Fields = slices.Concat(last.change.Fields, e.change.Fields)
		slices.Sort(joined.change.Fields)
		joined.change.Fields = slices.Compact(joined.change.Fields)
		s.pending[maxPending-1] = joined
	}
	s.mu.Unlock()
	s.signal()
}

func (s *subscription) lost() {
	s.mu.Lock()
	s.pending, s.resync = nil, true
	s.mu.Unlock()
	s.signal()
}

func (s *subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take waits for events.
func (s *subscription) take(ctx context.Context) (events []*event, resync bool, err error) {
	for {
		s.mu.Lock()
		events, resync = s.pending, s.resync
		s.pending, s.resync = nil, false
		s.mu.Unlock()
		if len(events) > 0 || resync {
			return events, resync, nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// Watch streams a record: a SNAPSHOT of it, or READY where the client holds the current version, then each
// change. The stream ends after DELETED. A record that does not exist is NOT_FOUND.
//
// It registers first and reads then: what is committed in between is in both, and is told apart by the
// database's own snapshot, which comes with the record in one statement.
func Watch[T any](ctx context.Context, s *Store[T], id ID, knownVersion *int) (<-chan *Change[T], error) {
	key, err := id.of(s.Entity, "id")
	if err != nil {
		return nil, err
	}
	select {
	case <-s.engine.hub.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w := &watcher[T]{store: s, id: key, sub: s.engine.hub.subscribe(recordKey{s.Prefix, key})}
	t, err := w.read(ctx)
	if err == nil && t == nil {
		err = s.notFound(key)
	}
	if err != nil {
		s.engine.hub.unsubscribe(w.sub)
		return nil, err
	}
	first := w.change(SnapshotKind, t)
	if knownVersion != nil && *knownVersion == *first.Version {
		first.Kind, first.Record = ReadyKind, nil
	}
	out := make(chan *Change[T])
	go func() {
		defer close(out)
		defer s.engine.hub.unsubscribe(w.sub)
		if err := w.run(ctx, out, first); err != nil && ctx.Err() == nil {
			s.engine.log.ErrorContext(ctx, "subscription ended", "record", s.globalID(key).String(), "error", err)
		}
	}()
	return out, nil
}

// watcher is one run of Watch.
type watcher[T any] struct {
	store    *Store[T]
	id       uuid.UUID
	sub      *subscription
	snapshot changelog.Snapshot // what the last read record contains
}

// read reads the record and the snapshot it belongs to.
func (w *watcher[T]) read(ctx context.Context) (t *T, err error) {
	q := &query{}
	q.write("SELECT pg_current_snapshot()::text, t.id IS NOT NULL, ", w.store.columns, " FROM (SELECT) one LEFT JOIN ",
		quote(w.store.Table), " t ON t.id = ")
	q.arg(w.id)
	var (
		text string
		ok   bool
	)
	err = w.store.each(ctx, q, []any{&text, &ok}, func(r *T) {
		if ok {
			t = r
		}
	})
	if err != nil {
		return nil, err
	}
	w.snapshot, err = changelog.ParseSnapshot(text)
	return t, err
}

// change makes an event about a record that was read.
func (w *watcher[T]) change(kind ChangeKind, t *T) *Change[T] {
	id := w.store.globalID(w.id)
	_, version := w.store.key(t)
	return &Change[T]{Kind: kind, RecordID: &id, Version: &version, Fields: []string{}, Record: t}
}

func (w *watcher[T]) run(ctx context.Context, out chan<- *Change[T], first *Change[T]) error {
	send := func(c *Change[T]) error {
		select {
		case out <- c:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := send(first); err != nil {
		return err
	}
	for {
		events, resync, err := w.sub.take(ctx)
		if err != nil {
			return err
		}
		if resync {
			done, err := w.resync(ctx, send)
			if done || err != nil {
				return err
			}
		}
		for _, e := range events {
			if w.snapshot.Visible(e.change.Xid) {
				continue
			}
			c, err := w.next(ctx, e)
			if err != nil {
				return err
			}
			if err := send(c); err != nil || c.Kind == DeletedKind {
				return err
			}
		}
	}
}

// resync starts the stream again; done where the record is gone.
func (w *watcher[T]) resync(ctx context.Context, send func(*Change[T]) error) (done bool, err error) {
	id := w.store.globalID(w.id)
	if err := send(&Change[T]{Kind: ResyncKind, RecordID: &id, Fields: []string{}}); err != nil {
		return false, err
	}
	t, err := w.read(ctx)
	if err != nil {
		return false, err
	}
	if t == nil {
		return true, send(&Change[T]{Kind: DeletedKind, RecordID: &id, Fields: []string{}})
	}
	return false, send(w.change(SnapshotKind, t))
}

// next makes the subscriber's event of a change. The record is loaded by the first subscriber that needs it.
func (w *watcher[T]) next(ctx context.Context, e *event) (*Change[T], error) {
	id, version := w.store.globalID(w.id), int(e.change.Version)
	c := &Change[T]{RecordID: &id, Version: &version, Fields: w.fields(e.change.Fields)}
	switch e.change.Op {
	case changelog.OpDelete:
		c.Kind = DeletedKind
		return c, nil
	case changelog.OpInsert:
		c.Kind = CreatedKind
	default:
		c.Kind = UpdatedKind
	}
	e.load.Do(func() {
		// For all subscribers, so not with the context of the first one.
		m, err := w.store.byID(context.WithoutCancel(ctx), []uuid.UUID{w.id})
		e.record, e.err = m[w.id], err
	})
	if e.err != nil {
		return nil, e.err
	}
	c.Record = e.record.(*T)
	return c, nil
}

// fields gives the readable names of changed columns.
func (w *watcher[T]) fields(columns []string) []string {
	names := make([]string, 0, len(columns))
	for _, c := range columns {
		if name, readable := w.store.publicName(c); readable {
			names = append(names, name)
		}
	}
	return names
}
