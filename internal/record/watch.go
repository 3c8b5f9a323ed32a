package record

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/internal/changelog"
)

// The kinds of events.
const (
	snapshotKind = "SNAPSHOT" // the record as it is at the start
	readyKind    = "READY"    // the client's copy is current
	createdKind  = "CREATED"
	updatedKind  = "UPDATED"
	deletedKind  = "DELETED"
	resyncKind   = "RESYNC" // drop what you hold; a snapshot follows
)

// Event is an event of a stream of records. gqlgen marshals it when it is sent: it renders itself then.
type Event struct {
	watcher *watcher
	kind    string
	version int      // the change's, 0 where there is none; the record, as of delivery, may be newer
	fields  []string // what an update changed
	record  Node
	err     error // why the stream ends; nothing else is set then
}

// MarshalGQLContext writes what the subscription selects of the event.
func (e *Event) MarshalGQLContext(ctx context.Context, out io.Writer) error {
	if e.err != nil {
		return e.err // gqlgen makes it the event's error
	}
	x, s := *e.watcher.render, e.watcher.store
	w := &bytes.Buffer{}
	w.WriteByte('{')
	for i, f := range graphql.CollectFields(x.op, x.sel, []string{s.Name + "Change"}) {
		writeKey(w, i, f.Alias)
		switch f.Name {
		case "__typename":
			writeString(w, s.Name+"Change")
		case "kind":
			writeString(w, e.kind)
		case "recordId":
			s.globalID(e.watcher.id).MarshalGQL(w)
		case "version":
			if e.version == 0 {
				w.WriteString("null")
			} else {
				w.WriteString(strconv.Itoa(e.version))
			}
		case "fields":
			w.WriteByte('[')
			for i, name := range e.fields {
				if i > 0 {
					w.WriteByte(',')
				}
				writeString(w, name)
			}
			w.WriteByte(']')
		default: // the record
			if e.record == nil {
				w.WriteString("null")
				continue
			}
			path := append(slices.Clip(x.path), ast.PathName(f.Alias))
			x.records(ctx, s, []Node{e.record}, false, f.Selections, func(int) ast.Path { return path })[0].MarshalGQL(w)
		}
	}
	w.WriteByte('}')
	if _, err := x.answer(ctx, w.Bytes()); err != nil {
		return err
	}
	_, err := out.Write(w.Bytes())
	return err
}

// UnmarshalGQLContext is here for gqlgen: no input is an Event.
func (*Event) UnmarshalGQLContext(context.Context, any) error {
	return errors.New("record: Event is no input")
}

// maxPending is how many events wait for one subscriber; beyond it they are joined to the newest.
const maxPending = 256

// loadTimeout bounds the read of a record for its subscribers.
const loadTimeout = 10 * time.Second

// event is a change on its way to the subscribers, and the record, loaded once for all of them.
type event struct {
	change  changelog.Change
	askers  []asker // of the subscribers
	load    sync.Once
	record  Node
	allowed map[asker]bool // who may read the record
	err     error
}

// subscription is one subscriber to one record.
type subscription struct {
	key recordKey
	who asker

	mu      sync.Mutex
	pending []*event               // protected by mu
	resync  bool                   // protected by mu: anything may have happened
	recheck bool                   // protected by mu: who may read the record may have changed
	behind  map[recordKey]struct{} // written under the hub's mu, by the subscriber alone: other records that this depends on
	wake    chan struct{}
}

// recordKey is a record as the change log names it.
type recordKey struct {
	entity string
	id     uuid.UUID
}

// hub hands changes to the subscribers they concern.
type hub struct {
	mu      sync.RWMutex
	subs    map[recordKey]map[*subscription]struct{} // protected by mu
	depends map[recordKey]map[*subscription]struct{} // protected by mu: who reads through the record
	n       int                                      // of subscriptions; protected by mu

	watching func(n int)
	ready    chan struct{} // closed with the first batch: what is committed from then on is delivered
	start    sync.Once
}

func newHub(watching func(int)) *hub {
	return &hub{
		subs: map[recordKey]map[*subscription]struct{}{}, depends: map[recordKey]map[*subscription]struct{}{},
		watching: watching, ready: make(chan struct{}),
	}
}

func (h *hub) subscribe(k recordKey, who asker) *subscription {
	s := &subscription{key: k, who: who, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	put(h.subs, k, s)
	h.n++
	h.watching(h.n)
	return s
}

func (h *hub) unsubscribe(s *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	drop(h.subs, s.key, s)
	for k := range s.behind {
		drop(h.depends, k, s)
	}
	h.n--
	h.watching(h.n)
}

// follow says what else a subscription depends on from now on, and reports whether it did not depend on all of that before.
func (h *hub) follow(s *subscription, keys map[recordKey]struct{}) (more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k := range s.behind {
		if _, stays := keys[k]; !stays {
			drop(h.depends, k, s)
		}
	}
	for k := range keys {
		if _, there := s.behind[k]; !there {
			put(h.depends, k, s)
			more = true
		}
	}
	s.behind = keys
	return more
}

func put(m map[recordKey]map[*subscription]struct{}, k recordKey, s *subscription) {
	if m[k] == nil {
		m[k] = map[*subscription]struct{}{}
	}
	m[k][s] = struct{}{}
}

func drop(m map[recordKey]map[*subscription]struct{}, k recordKey, s *subscription) {
	delete(m[k], s)
	if len(m[k]) == 0 {
		delete(m, k)
	}
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
			for k, subs := range h.depends {
				if k.entity == c.Entity {
					for s := range subs {
						s.doubt()
					}
				}
			}
			continue
		}
		k := recordKey{c.Entity, c.ID}
		behind := h.depends[k]
		if len(behind) > 0 && !g.stores[c.Entity].mayDecide(c) {
			behind = nil
		}
		for s := range behind {
			s.doubt()
		}
		subs := h.subs[k]
		if len(subs) == 0 {
			continue
		}
		e := &event{change: c, askers: make([]asker, 0, len(subs))}
		for s := range subs {
			e.askers = append(e.askers, s.who)
		}
		for s := range subs { // the first of them may decide for all at once
			s.push(e)
		}
	}
}

// doubt has the subscriber's right checked again.
func (s *subscription) doubt() {
	s.mu.Lock()
	s.recheck = true
	s.mu.Unlock()
	s.signal()
}

func (s *subscription) push(e *event) {
	s.mu.Lock()
	if len(s.pending) < maxPending {
		s.pending = append(s.pending, e)
	} else {
		last := s.pending[maxPending-1]
		joined := &event{change: e.change, askers: []asker{s.who}}
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

// news is what has happened to a subscription.
type news struct {
	events          []*event
	resync, recheck bool
}

// take waits for news.
func (s *subscription) take(ctx context.Context) (news, error) {
	for {
		s.mu.Lock()
		n := news{s.pending, s.resync, s.recheck}
		s.pending, s.resync, s.recheck = nil, false, false
		s.mu.Unlock()
		if len(n.events) > 0 || n.resync || n.recheck {
			return n, nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return news{}, ctx.Err()
		}
	}
}

// Watch streams a record: a SNAPSHOT of it, or READY where the client holds the current version, then each
// change. The stream ends after DELETED, which is also what is sent where the viewer may not read the record any more, or
// with an error where the database cannot be read. A record that does not exist, or may not be read, is NOT_FOUND.
//
// It registers first and reads then: what is committed in between is in both, and is told apart by the
// database's own snapshot, which comes with the record in one statement.
func Watch(ctx context.Context, s *Store, id ID, knownVersion *int) (<-chan *Event, error) {
	key, err := id.of(s.Entity, "id")
	if err != nil {
		return nil, err
	}
	who := askerOf(ctx)
	if holds, known := who.known(s.rules[reading]); known && !holds && !who.signedIn {
		return nil, s.denied(who, "watch")
	}
	select {
	case <-s.engine.hub.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w := &watcher{store: s, render: s.engine.rendererOf(ctx), id: key, who: who,
		sub: s.engine.hub.subscribe(recordKey{s.Prefix, key}, who)}
	n, err := w.read(ctx)
	if err == nil && n == nil {
		err = s.notFound(key)
	}
	if err != nil {
		s.engine.hub.unsubscribe(w.sub)
		return nil, err
	}
	first := w.event(snapshotKind, n)
	if knownVersion != nil && *knownVersion == first.version {
		first.kind, first.record = readyKind, nil
	}
	out := make(chan *Event)
	go func() {
		defer close(out)
		defer s.engine.hub.unsubscribe(w.sub)
		if err := w.run(ctx, out, first); err != nil {
			// Or the stream would seem to end as it does after DELETED.
			_ = send(ctx, out, &Event{watcher: w, err: err})
		}
	}()
	return out, nil
}

// watcher is one run of Watch.
type watcher struct {
	store    *Store
	render   *renderer
	id       uuid.UUID
	who      asker
	sub      *subscription
	snapshot changelog.Snapshot // what the last read record contains
	unsure   bool               // changes were left out of which nobody knows whether the viewer might see them
}

// read reads the record, if the viewer may, and notes the snapshot it belongs to.
func (w *watcher) read(ctx context.Context) (n Node, err error) {
	n, w.snapshot, err = w.look(ctx)
	return n, err
}

// look reads the record, if the viewer may, and the snapshot it belongs to. What the right depends on is followed by then, or
// a change after the read would be missed: where the record shows that there is more to follow, it is read again.
func (w *watcher) look(ctx context.Context) (n Node, snapshot changelog.Snapshot, err error) {
	_, err = w.follow(ctx, nil)
	for more := true; more && err == nil; {
		if n, snapshot, err = w.readOnce(ctx); n == nil || err != nil {
			break
		}
		more, err = w.follow(ctx, n)
	}
	return n, snapshot, err
}

func (w *watcher) readOnce(ctx context.Context) (n Node, snapshot changelog.Snapshot, err error) {
	q := newQuery(ctx)
	q.write("SELECT pg_current_snapshot()::text, t.id IS NOT NULL, ", w.store.columns, " FROM (SELECT) one LEFT JOIN ",
		quote(w.store.Table), " t ON t.id = ")
	q.arg(w.id)
	q.may(w.store.Entity, "t")
	var (
		text string
		ok   bool
	)
	err = w.store.each(ctx, q, []any{&text, &ok}, func(r Node) {
		if ok {
			n = r
		}
	})
	if err != nil {
		return nil, snapshot, err
	}
	snapshot, err = changelog.ParseSnapshot(text)
	return n, snapshot, err
}

// event makes an event about a record that was read.
func (w *watcher) event(kind string, n Node) *Event {
	_, version := w.store.key(n)
	return &Event{watcher: w, kind: kind, version: version, record: n}
}

// send waits until the subscriber takes an event.
func send(ctx context.Context, out chan<- *Event, e *Event) error {
	select {
	case out <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *watcher) run(ctx context.Context, out chan<- *Event, first *Event) error {
	if err := send(ctx, out, first); err != nil {
		return err
	}
	for {
		news, err := w.sub.take(ctx)
		if err != nil {
			return err
		}
		switch {
		case news.resync:
			done, err := w.resync(ctx, out)
			if done || err != nil {
				return err
			}
		case news.recheck:
			done, err := w.recheck(ctx, out)
			if done || err != nil {
				return err
			}
		}
		for _, e := range news.events {
			if w.snapshot.Visible(e.change.Xid) {
				continue
			}
			c, err := w.next(ctx, e)
			if err != nil {
				return err
			}
			if c == nil {
				continue
			}
			if err := send(ctx, out, c); err != nil || c.kind == deletedKind {
				return err
			}
		}
	}
}

// resync starts the stream again; done where the record is gone.
func (w *watcher) resync(ctx context.Context, out chan<- *Event) (done bool, err error) {
	if err := send(ctx, out, &Event{watcher: w, kind: resyncKind}); err != nil {
		return false, err
	}
	n, err := w.read(ctx)
	if err != nil {
		return false, err
	}
	if n == nil {
		return true, send(ctx, out, &Event{watcher: w, kind: deletedKind})
	}
	return false, send(ctx, out, w.event(snapshotKind, n))
}

// follow has the changes reported of the other records that decide whether the viewer may read this one, and says whether
// there are more of them than before. Without the record, n, it is those that do not depend on it.
func (w *watcher) follow(ctx context.Context, n Node) (more bool, err error) {
	r := w.store.rules[reading]
	if _, known := w.who.known(r); known || !r.reaches() || n == nil && len(w.sub.behind) > 0 {
		return false, nil
	}
	keys := map[recordKey]struct{}{}
	if err := w.store.dependencies(ctx, r, w.who, n, keys); err != nil {
		return false, err
	}
	return w.store.engine.hub.follow(w.sub, keys), nil
}

// recheck asks again whether the viewer may read the record; done where not.
func (w *watcher) recheck(ctx context.Context, out chan<- *Event) (done bool, err error) {
	// The snapshot stays: what the stream has told is not what was read here.
	n, _, err := w.look(ctx)
	if err != nil || n != nil {
		return false, err
	}
	return true, send(ctx, out, &Event{watcher: w, kind: deletedKind})
}

// next makes the subscriber's event of a change. The record is loaded, and who may read it found out, by the first
// subscriber that needs it, for all of them. It is nil where there is nothing to tell.
func (w *watcher) next(ctx context.Context, e *event) (*Event, error) {
	c := &Event{watcher: w, version: int(e.change.Version)}
	switch e.change.Op {
	case changelog.OpDelete:
		c.kind = deletedKind
		if w.unsure {
			c.version = 0
		}
		return c, nil
	case changelog.OpInsert:
		c.kind = createdKind
	default:
		c.kind = updatedKind
	}
	e.load.Do(func() {
		// For all subscribers, so not with the context of the first one.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
		defer cancel()
		e.err = e.read(ctx, w.store, w.id)
	})
	if e.err != nil {
		return nil, e.err
	}
	c.record = e.record
	_, known := w.who.known(w.store.rules[reading])
	switch {
	case c.record == nil && !known:
		// It is gone, which comes next. Whether this was still for the viewer nobody can tell any more.
		w.unsure = true
		return nil, nil
	case c.record != nil && !e.allowed[w.who]:
		return &Event{watcher: w, kind: deletedKind}, nil
	}
	c.fields = w.store.publicNames(w.who, c.record, e.change.Fields)
	if c.record != nil && w.store.rules[reading].moved(e.change) {
		// Who may read it depends on other records now, of which one may have changed before it was followed.
		n, _, err := w.look(ctx)
		if err != nil {
			return nil, err
		}
		if n == nil {
			return &Event{watcher: w, kind: deletedKind}, nil
		}
	}
	return c, nil
}

// read loads the record and decides for the subscribers.
func (e *event) read(ctx context.Context, s *Store, id uuid.UUID) error {
	found, err := s.load(ctx, []uuid.UUID{id})
	if err != nil || found[id] == nil {
		return err
	}
	e.record = found[id]
	e.allowed = make(map[asker]bool, len(e.askers))
	for _, a := range e.askers {
		e.allowed[a] = false
	}
	who := slices.Collect(maps.Keys(e.allowed)) // each once, however many subscriptions they have
	allowed, err := s.decide(ctx, s.rules[reading], e.record, who)
	for i := range allowed {
		e.allowed[who[i]] = allowed[i]
	}
	return err
}
