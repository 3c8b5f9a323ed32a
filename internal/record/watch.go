package record

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/google/uuid"

	"godstack/internal/changelog"
	"godstack/internal/entity"
	"godstack/internal/viewer"
)

// maxMissed is how many changes are told to who comes back. Who has missed more begins anew, with no more records than that.
const maxMissed = MaxRefs

// Watch streams a record: a SNAPSHOT of it, or READY where the client holds the current version, then each change. The stream ends after
// DELETED, which is also what is sent where the viewer may not read the record any more. A record that does not exist, or may not be
// read, is NOT_FOUND.
//
// Since a cursor, it begins with what was missed and READY instead, or with RESYNC, and SNAPSHOT or DELETED, where that cannot be told.
//
// It registers first and reads then: what is committed in between is in both, and is told apart by the database's own snapshot, which
// comes with the record in one statement.
func Watch(ctx context.Context, s *Store, id ID, knownVersion *int, since *Cursor) (<-chan *Event, error) {
	key, err := id.of(s.Entity, "id")
	if err != nil {
		return nil, err
	}
	who := askerOf(ctx)
	if err := s.watchable(who); err != nil {
		return nil, err
	}
	st := &Stream{engine: s.engine, who: who, single: true, keys: []recordKey{{s.Prefix, key}}}
	known := map[recordKey]int{}
	if knownVersion != nil {
		known[st.keys[0]] = *knownVersion
	}
	return nil, st.open(ctx, since, known)
}

// WatchRecords streams up to MaxRefs records of any type: a SNAPSHOT of each, but for those of which the client holds the current
// version, DELETED for those that do not exist or may not be read, then READY, then each change. A record that the viewer loses is
// DELETED, and CREATED if it comes back. Since a cursor, it begins with what was missed and READY, or with RESYNC.
func WatchRecords(ctx context.Context, g *Engine, refs []*Ref, since *Cursor) (<-chan *Event, error) {
	batches, err := g.group(refs, "refs")
	if err != nil {
		return nil, err
	}
	st := &Stream{engine: g, who: askerOf(ctx)}
	known := map[recordKey]int{}
	for _, b := range batches {
		if err := b.store.watchable(st.who); err != nil {
			return nil, err
		}
		for _, id := range b.ids {
			k := recordKey{b.store.Prefix, id}
			st.keys = append(st.keys, k)
			known[k] = b.known[id]
		}
	}
	slices.SortFunc(st.keys, recordKey.compare)
	return nil, st.open(ctx, since, known)
}

// WatchList streams the records that where describes, which takes conditions on the record's own fields and the ids of its to-one
// edges: a SNAPSHOT of each, MaxRefs at most, then READY, then changes: CREATED where a record enters the list, UPDATED, DELETED where
// it leaves it. Since a cursor, it begins with what was missed and READY, or with RESYNC.
//
// deleted says which records are asked for; nil is ExcludeDeleted.
func WatchList(ctx context.Context, s *Store, where Input, deleted *ShowDeleted, since *Cursor) (<-chan *Event, error) {
	who := askerOf(ctx)
	if deleted != nil && *deleted != ExcludeDeleted {
		who.deleted = *deleted
	}
	if err := s.watchable(who); err != nil {
		return nil, err
	}
	l, err := newGroup(s, who, where)
	if err != nil {
		return nil, err
	}
	st := &Stream{engine: s.engine, who: who, list: l}
	return nil, st.open(ctx, since, nil)
}

// watchable refuses who may read no record at all for want of a session.
func (s *Store) watchable(who asker) error {
	if holds, known := who.known(s.shows(who.deleted)); known && !holds && !who.signedIn {
		return s.denied(who, "watch")
	}
	return nil
}

// errNoSink is a subscription over a transport that does not take streams.
var errNoSink = errors.New("record: the transport of this subscription has no Sink")

// open begins the stream that ctx asks for, since a place in the log or with what there is; known are versions that the client holds.
func (s *Stream) open(ctx context.Context, since *Cursor, known map[recordKey]int) error {
	slot, ok := ctx.Value(slotKey{}).(*Slot)
	if !ok {
		return errNoSink
	}
	var from *changelog.Cursor
	if since != nil {
		c, err := s.engine.sealer.Open(string(*since))
		if err != nil {
			return &Error{Code: BadUserInput, Message: "since: not a cursor of a subscription", Fields: []string{"since"}, Err: err}
		}
		from = &c
	}
	s.sink, s.shape = slot.sink, newShape(ctx)
	s.versions = slices.Repeat([]int64{unheld}, len(s.keys))
	h := s.engine.hub
	if err := h.memory.room(s.who.ID); err != nil {
		return err
	}
	select {
	case <-h.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	h.subscribe(s)
	defer func() {
		if slot.stream == nil { // it is refused, or panics
			s.Close()
		}
	}()
	if err := s.first(ctx, from, known); err != nil {
		return err
	}
	slot.stream = s
	return nil
}

// first prepares what the stream begins with.
func (s *Stream) first(ctx context.Context, from *changelog.Cursor, known map[recordKey]int) error {
	if from != nil {
		var ahead []item
		if s.list == nil { // what the rights depend on is followed before anything is read
			if _, err := s.look(ctx); err != nil {
				return err
			}
		}
		err := s.engine.still(ctx, func(ctx context.Context) (err error) {
			ahead, err = s.missed(ctx, *from)
			return err
		})
		if err != nil {
			return err
		}
		if ahead != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.start(ahead)
		}
	}
	v, err := s.look(ctx)
	if err != nil {
		return err
	}
	if s.single && len(v.nodes) == 0 && from == nil {
		k := s.keys[0]
		return s.engine.stores[k.entity].notFound(k.id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var ahead []item
	if from != nil {
		ahead, known = []item{{event: s.nowhere(resyncKind)}}, nil
	}
	return s.start(append(ahead, s.opening(v, known)...))
}

// view is what a stream's records are at a moment.
type view struct {
	nodes    map[recordKey]Node // those that may be read
	order    []recordKey        // of nodes
	snapshot changelog.Snapshot // what all of them contain; some may contain more
	epoch    uuid.UUID
}

// opening returns what a stream begins with, and takes note of what the client has then. It wants mu.
func (s *Stream) opening(v view, known map[recordKey]int) (list []item) {
	s.seen = &changelog.Seen{Base: v.snapshot}
	here := s.engine.cursor(v.epoch, *s.seen)
	add := func(e *event) { list = append(list, item{event: e}) }
	for i, k := range s.keys {
		store, n := s.engine.stores[k.entity], v.nodes[k]
		e := &event{kind: snapshotKind, store: store, id: k.id, record: n, cursor: s.engine.nowhere}
		if s.single {
			e.cursor = here
		}
		if n == nil {
			e.kind, s.versions[i] = deletedKind, unheld
			add(e)
			continue
		}
		_, e.version = store.key(n)
		s.versions[i] = int64(e.version)
		switch {
		case known[k] != e.version:
			add(e)
		case s.single:
			e.kind, e.record = readyKind, nil
			add(e)
		}
	}
	if s.list != nil {
		store := s.list.store
		for _, k := range v.order {
			n := v.nodes[k]
			_, version := store.key(n)
			add(&event{kind: snapshotKind, store: store, id: k.id, version: version, record: n, cursor: s.engine.nowhere})
		}
	}
	if !s.single {
		add(&event{kind: readyKind, cursor: here})
	}
	return list
}

// look reads the stream's records, as far as the viewer may. What the right to read depends on is followed by then, or a change after
// the read would be missed: where the records show that there is more to follow, they are read again.
func (s *Stream) look(ctx context.Context) (v view, err error) {
	if err := s.engine.hub.memory.room(s.who.ID); err != nil {
		return v, err
	}
	if s.list != nil {
		return s.lookAtList(ctx)
	}
	if err := s.follow(ctx, nil); err != nil && !errors.Is(err, errMore) {
		return v, err
	}
	for {
		if s.entities() > 1 {
			err = s.engine.still(ctx, func(ctx context.Context) (err error) {
				v, err = s.lookAtRecords(ctx)
				return err
			})
		} else {
			v, err = s.lookAtRecords(ctx)
		}
		if err != nil {
			return v, err
		}
		if err := s.follow(ctx, v.nodes); !errors.Is(err, errMore) {
			return v, err
		}
	}
}

// errMore says that a stream follows more than before.
var errMore = errors.New("more to follow")

// follow has the changes reported of the other records that decide whether the viewer may read those of the stream; errMore where there
// are more of them than before. Without nodes it is those that do not depend on them.
func (s *Stream) follow(ctx context.Context, nodes map[recordKey]Node) error {
	var (
		keys     = map[recordKey]struct{}{}
		wanted   = reliances{}
		subjects = map[recordKey]*subject{} // whose right depends on where they lead, and that may not be read
	)
	for _, k := range s.keys {
		store := s.engine.stores[k.entity]
		r := store.rules[reading]
		if _, known := s.who.known(r); known || !r.reaches() {
			continue
		}
		if nodes != nil && nodes[k] == nil && r.goes() && !s.single {
			subjects[k] = &subject{store: store, id: k.id}
			continue
		}
		wanted.add(store, reliance{s.who, nodes[k], keys})
	}
	if err := s.engine.loadAll(ctx, subjects); err != nil {
		return err
	}
	for _, sub := range subjects {
		wanted.add(sub.store, reliance{s.who, sub.node, keys})
	}
	if err := wanted.find(ctx); err != nil {
		return err
	}
	if nodes == nil {
		for _, k := range s.engine.hub.behind(s) { // it may know more already
			keys[k] = struct{}{}
		}
	}
	if s.engine.hub.follow(s, keys) {
		return errMore
	}
	return nil
}

// lookAtRecords reads the records that the stream names: a statement an entity, the first of which says what all contain.
func (s *Stream) lookAtRecords(ctx context.Context) (v view, err error) {
	v.nodes, v.epoch = make(map[recordKey]Node, len(s.keys)), s.engine.hub.current()
	for first, rest := 0, s.keys; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(k recordKey) bool { return k.entity != rest[0].entity })
		if n < 0 {
			n = len(rest)
		}
		store := s.engine.stores[rest[0].entity]
		ids := make([]uuid.UUID, n)
		for i := range n {
			ids[i] = rest[i].id
		}
		q := newQuery(ctx)
		store.withSnapshot(q, func() {
			q.write(" t ON t.id = ")
			if n == 1 {
				q.arg(ids[0])
			} else {
				q.write("ANY(")
				q.arg(ids)
				q.write(")")
			}
			q.may(store.Entity, "t")
		}, quote(store.Table))
		snapshot, err := store.readSnapshot(ctx, q, func(id uuid.UUID, r Node) { v.nodes[recordKey{store.Prefix, id}] = r })
		if err != nil {
			return v, err
		}
		if first == 0 {
			v.snapshot = snapshot
		}
		first, rest = first+n, rest[n:]
	}
	return v, nil
}

// lookAtList reads the records of the list, in one statement.
func (s *Stream) lookAtList(ctx context.Context) (v view, err error) {
	store := s.list.store
	v.nodes, v.epoch = map[recordKey]Node{}, s.engine.hub.current()
	q := newQuery(ctx)
	store.withSnapshot(q, func() {
		q.write("(SELECT t.* FROM ", quote(store.Table), " t WHERE ")
		if err = q.where(store.Entity, "t", s.list.where); err != nil {
			return
		}
		if rules, limited := q.limits(store.shows(s.who.deleted)); limited {
			q.bulk(store.Entity, &rule{kind: entity.KindAny, rules: rules}, "t")
		}
		q.write(" ORDER BY t.id LIMIT ")
		q.arg(MaxRefs + 1)
		q.write(") t ON true")
	}, "")
	if err != nil {
		return v, err
	}
	v.snapshot, err = store.readSnapshot(ctx, q, func(id uuid.UUID, r Node) {
		k := recordKey{store.Prefix, id}
		v.nodes[k], v.order = r, append(v.order, k)
	})
	if err == nil && len(v.order) > MaxRefs {
		err = tooComplex("where", "where describes more than %d %s", MaxRefs, store.List)
	}
	return v, err
}

// withSnapshot writes a statement that reads records and the snapshot that they belong to: a row with the snapshot alone where there
// are none. records writes what is joined, after the name of a table or in its place.
func (s *Store) withSnapshot(q *query, records func(), table string) {
	q.write("SELECT pg_current_snapshot()::text, t.id IS NOT NULL, ", s.columns, " FROM (SELECT) one LEFT JOIN ", table)
	records()
}

// readSnapshot runs a statement of withSnapshot.
func (s *Store) readSnapshot(ctx context.Context, q *query, f func(uuid.UUID, Node)) (snapshot changelog.Snapshot, err error) {
	var (
		text string
		ok   bool
	)
	err = s.each(ctx, q, []any{&text, &ok}, func(n Node) {
		if ok {
			id, _ := s.key(n)
			f(id, n)
		}
	})
	if err != nil {
		return snapshot, err
	}
	return changelog.ParseSnapshot(text)
}

// missed returns what the stream begins with since a place in the log; nil where that cannot be told.
func (s *Stream) missed(ctx context.Context, from changelog.Cursor) ([]item, error) {
	g := s.engine
	scope := changelog.Scope{Records: map[string][]uuid.UUID{}}
	if s.list != nil {
		scope.Entities = append(slices.Clone(s.reaches()), s.list.store.Prefix)
	}
	behind := g.hub.behind(s)
	for _, k := range behind {
		if _, named := s.index(k); !named {
			scope.Records[k.entity] = append(scope.Records[k.entity], k.id)
		}
	}
	for _, k := range s.keys {
		scope.Records[k.entity] = append(scope.Records[k.entity], k.id)
	}
	m, err := changelog.Since(ctx, g.querier(ctx), from, scope, maxMissed)
	if err != nil {
		return nil, g.translate(err)
	}
	if m.Resync {
		return nil, nil
	}
	r := g.newRound()
	r.lists = func(_ string, was, is Node) []listed {
		l := s.list.listed(was, is)
		l.streams = []*Stream{s}
		return []listed{l}
	}
	for _, c := range m.Changes {
		k := recordKey{c.Entity, c.ID}
		store := g.stores[c.Entity]
		switch {
		case c.Op == changelog.OpResync:
			return nil, nil
		case store == nil:
			continue
		case c.Op == changelog.OpDelete:
			r.gone[k] = c
		}
		_, named := s.index(k)
		if store.mayDecide(c) && (slices.Contains(behind, k) || s.list != nil && s.list.store.concerns(s.list.store.shows(s.who.deleted), s, c)) {
			return nil, nil // it may read other records than it did
		}
		inList := s.list != nil && c.Entity == s.list.store.Prefix
		if !named && !inList {
			continue
		}
		n := r.add(c, m.Epoch, m.Snapshot, from.Seen.And(m.Snapshot, c.Seq))
		if named {
			n.named = []*Stream{s}
		} else {
			n.listed = true
		}
	}
	ahead := []item{}
	for i := range s.versions { // the client has, or had, something of each
		s.versions[i] = unknown
	}
	if err := r.learn(ctx); errors.Is(err, errHistory) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	r.verdicts(func(_ *Stream, p pending) {
		// When what one could not read has changed is told to nobody: it is DELETED with all others of which there is nothing to tell.
		if s.list != nil || p.is || p.was {
			ahead = append(ahead, item{change: p})
		}
	})
	if s.list == nil {
		v, err := s.lookAtRecords(ctx)
		if err != nil {
			return nil, err
		}
		for _, k := range s.keys {
			if v.nodes[k] == nil { // what has no change to tell it
				n := &news{engine: g, key: k, store: g.stores[k.entity], epoch: m.Epoch, after: m.Snapshot,
					place: changelog.Seen{Base: m.Snapshot}}
				n.change.Seq = everything
				ahead = append(ahead, item{change: pending{news: n}})
			}
		}
	}
	s.seen = &changelog.Seen{Base: m.Snapshot}
	ready := &event{kind: readyKind, cursor: g.cursor(m.Epoch, *s.seen)}
	if s.single {
		ready.store, ready.id = g.stores[s.keys[0].entity], s.keys[0].id
	}
	return append(ahead, item{event: ready}), nil
}

// reaches lists the entities of other records that decide which records of its list the viewer reads.
func (s *Stream) reaches() []string {
	return s.list.store.reaches[cmp.Or(s.who.deleted, ExcludeDeleted)]
}

// entities counts those of the records that the stream names, which are in order.
func (s *Stream) entities() (n int) {
	for i, k := range s.keys {
		if i == 0 || k.entity != s.keys[i-1].entity {
			n++
		}
	}
	return n
}

// behind returns the records that a stream's rights depend on.
func (h *hub) behind(s *Stream) []recordKey {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Collect(maps.Keys(s.behind))
}

// current is the epoch of the log.
func (h *hub) current() uuid.UUID {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.epoch
}

// cursor returns the text of a place in the log.
func (g *Engine) cursor(epoch uuid.UUID, place changelog.Seen) string {
	return g.sealer.Seal(changelog.Cursor{Epoch: epoch, Seen: place})
}

// context returns a context in which a asks.
func (a asker) context(ctx context.Context) context.Context {
	if !a.signedIn {
		return ctx
	}
	return viewer.NewContext(ctx, a.Viewer)
}

// final reports whether trying again is no use.
func final(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code != Unavailable || errors.Is(err, errPanic)
}
