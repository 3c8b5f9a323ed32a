package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"godstack/internal/changelog"
	"godstack/internal/entity"
)

// news is a change on its way to streams, shared by all of them. Without an Op it is no change: somebody may have won or lost the right
// to read the record.
type news struct {
	engine *Engine
	change changelog.Change
	key    recordKey
	store  *Store
	epoch  uuid.UUID
	before changelog.Snapshot // of the read that found it: what was seen before
	after  changelog.Snapshot
	place  changelog.Seen // in the log, after the change, for those who have seen what came before
	node   Node           // as of delivery; nil where it is not there any more

	named  []*Stream // that name the record
	listed bool      // there are streams of lists of its entity
	lists  []listed  // those that the change concerns

	mu     sync.Mutex
	events map[eventKey]*event // protected by mu
}

// listed is some streams of a list that has the record before the change, or after it.
type listed struct {
	streams []*Stream
	was, is bool
}

// eventKey tells the events of one change apart.
type eventKey struct {
	kind     string
	seen     *changelog.Seen
	numbered bool
}

// event makes the change's event, once for all streams for which it is the same. seen is what a stream has seen of what came before,
// where that is not all.
func (n *news) event(kind string, seen *changelog.Seen, p pending) *event {
	// How the deletion is numbered is for those to know who might have seen it.
	numbered := p.was && n.store.ends(n.change)
	if p.also != nil || p.nowhere {
		e := n.newEvent(kind, seen, numbered)
		if kind != deletedKind {
			e.fields = slices.Concat(p.also, e.fields)
		}
		if p.nowhere {
			e.cursor = n.engine.nowhere
		}
		return e
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	k := eventKey{kind, seen, numbered}
	e := n.events[k]
	if e == nil {
		e = n.newEvent(kind, seen, numbered)
		if n.events == nil {
			n.events = map[eventKey]*event{}
		}
		n.events[k] = e
	}
	return e
}

func (n *news) newEvent(kind string, seen *changelog.Seen, numbered bool) *event {
	place := n.place
	if seen != nil {
		place = seen.And(n.after, n.change.Seq)
	}
	e := &event{kind: kind, store: n.store, id: n.key.id, cursor: n.engine.cursor(n.epoch, place)}
	switch {
	case kind != deletedKind:
		e.version, e.record, e.fields = int(n.change.Version), n.node, n.change.Fields
	case numbered:
		e.version = int(n.change.Version)
	}
	return e
}

// with is the same change with the record as it is later.
func (n *news) with(node Node) *news {
	return &news{
		engine: n.engine, change: n.change, key: n.key, store: n.store, epoch: n.epoch, before: n.before, after: n.after, place: n.place, node: node,
	}
}

// round is a delivery: some changes, and what is found out about their records for all streams at once.
type round struct {
	*Engine
	news    []*news // in order
	rest    []*news // what comes after them, of which only this is known yet
	records map[recordKey]*subject
	gone    map[recordKey]changelog.Change // deletions, also of records that nobody listens for
	lists   func(entity string, was, is Node) []listed
}

// subject is a record of a round.
type subject struct {
	store   *Store
	id      uuid.UUID
	node    Node
	news    []*news            // in order
	askers  map[asker]struct{} // who wants to read it
	allowed map[asker]bool     // who may

	// Where somebody asks what the record was: its changes from the first of news on, as far as the database has come; for each what the
	// record was before, nil where it was not there, and behind the last after; and who might read it then.
	changes []changelog.Change
	links   []links // done by each
	states  []Node
	rights  []map[asker]bool
}

func (g *Engine) newRound() *round {
	return &round{Engine: g, records: map[recordKey]*subject{}, gone: map[recordKey]changelog.Change{}, lists: g.hub.listsOf}
}

// add takes a change up. place is where the log stands after it.
func (r *round) add(c changelog.Change, epoch uuid.UUID, after changelog.Snapshot, place changelog.Seen) *news {
	n := &news{engine: r.Engine, change: c, key: recordKey{c.Entity, c.ID}, store: r.stores[c.Entity], epoch: epoch, after: after, place: place}
	r.news = append(r.news, n)
	return n
}

// deliver has all streams concerned hear of some batches, and asks again for the rights of some.
func (h *hub) deliver(batches []changelog.Batch, again []*Stream) {
	defer func() { // nobody above would, and nobody would hear of the rest
		if v := recover(); v != nil {
			h.engine.log.Error("panic while delivering changes", "error", v, "stack", string(debug.Stack()))
			for _, s := range h.all() {
				s.lost()
			}
		}
	}()
	var (
		r      = h.engine.newRound()
		lost   = map[*Stream]struct{}{}
		doubts = map[*Stream]struct{}{}
	)
	for _, s := range again {
		doubts[s] = struct{}{}
	}
	for _, b := range batches {
		h.done = changelog.Batch{Epoch: b.Epoch, Before: b.After, After: b.After}
		if b.Resync {
			r = h.engine.newRound()
			for _, s := range h.all() {
				lost[s] = struct{}{}
			}
			continue
		}
		h.gather(r, b, lost, doubts)
	}
	for s := range lost {
		s.lost()
		delete(doubts, s)
	}
	h.tell(r, doubts)
}

// patiently reads what a delivery needs. A database that does not answer is waited for, and what follows waits in the inbox meanwhile:
// nothing is missing, so nobody has to begin anew. A statement that fails although the database answers is tried three times.
func (h *hub) patiently(read func(ctx context.Context) error) error {
	for tries, pause := 1, firstPause; ; pause = min(2*pause, time.Second) {
		ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
		err := read(ctx)
		if err != nil && h.engine.driver.Pool().Ping(ctx) == nil {
			tries++
		}
		cancel()
		if err == nil || final(err) || errors.Is(err, errHistory) || tries > 3 || h.nobody() {
			return err
		}
		h.engine.log.Warn("read for a delivery again", "error", err)
		<-time.After(pause) // there is nobody to wait less for
	}
}

// nobody reports whether there are no streams.
func (h *hub) nobody() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.streams == 0
}

// gather finds the streams that the changes of a batch concern.
func (h *hub) gather(r *round, b changelog.Batch, lost, doubts map[*Stream]struct{}) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for i := range b.Changes {
		c := b.Changes[i]
		k := recordKey{c.Entity, c.ID}
		store := h.engine.stores[c.Entity]
		if c.Op == changelog.OpResync {
			for k, streams := range h.records {
				if k.entity == c.Entity {
					for s := range streams {
						lost[s] = struct{}{}
					}
				}
			}
			for k, streams := range h.depends {
				if k.entity == c.Entity {
					for s := range streams {
						doubts[s] = struct{}{}
					}
				}
			}
			for s := range h.lists[c.Entity].streams() {
				lost[s] = struct{}{}
			}
			for s := range h.through[c.Entity] {
				lost[s] = struct{}{}
			}
			continue
		}
		if store == nil { // an entity that is logged, and not shown
			continue
		}
		if c.Op == changelog.OpDelete {
			r.gone[k] = c
		}
		if store.mayDecide(c) {
			for s := range h.depends[k] {
				doubts[s] = struct{}{}
			}
			for s := range h.through[c.Entity] {
				if s.list.store.concerns(s.list.store.shows(s.who.deleted), s, c) {
					lost[s] = struct{}{}
				}
			}
		}
		streams, lists := h.records[k], h.lists[c.Entity]
		if len(streams) == 0 && lists == nil {
			continue
		}
		n := r.add(c, b.Epoch, b.After, b.Cursor(i).Seen)
		n.before = b.Before
		n.named = slices.Collect(maps.Keys(streams))
		n.listed = lists != nil
	}
}

// listsOf finds the streams of lists that have a record, or had it before a change. Those that begin meanwhile are found as well, and
// drop what they have read.
func (h *hub) listsOf(entity string, was, is Node) (list []listed) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if lists := h.lists[entity]; lists != nil {
		for g := range lists.among(was, is) {
			if l := g.listed(was, is); l.was || l.is {
				l.streams = slices.Collect(maps.Keys(g.streams))
				list = append(list, l)
			}
		}
	}
	return list
}

// concerns reports whether a change of another record may change which records a list's viewer may read.
func (s *Store) concerns(r *rule, st *Stream, c changelog.Change) bool {
	if c.Op != changelog.OpUpdate { // what refers to a record that comes or goes has changes of its own
		return false
	}
	switch r.kind {
	case entity.KindHas:
		return r.edge.to.Prefix == c.Entity && c.ID == st.who.ID
	case entity.KindThrough:
		to := s.engine.stores[r.edge.to.Prefix]
		if to.Prefix == c.Entity {
			if id, pinned := st.list.match.pinned(r.edge.field); !pinned || id == c.ID {
				// The viewer comes or goes, or something that the record refers to is another one.
				return bytes.Contains(c.Old, []byte(st.who.ID.String())) || slices.ContainsFunc(c.Fields, func(name string) bool {
					return to.column[name] != nil && to.decides[name]
				})
			}
		}
		return to.concerns(r.needs(), st, c)
	}
	return slices.ContainsFunc(r.rules, func(part *rule) bool { return s.concerns(part, st, c) })
}

// maxRound is how many changes are held against all streams at once: what is known of each record and viewer takes memory.
const maxRound = 200

// tell finds out what the streams have to know, and tells them: of the changes first, then of rights that are in doubt.
func (h *hub) tell(r *round, doubts map[*Stream]struct{}) {
	var touched []*Stream
	push := func(s *Stream, p pending) {
		if s.push(p) {
			touched = append(touched, s)
		}
	}
	rest := r.news
	for news := range slices.Chunk(r.news, maxRound) {
		rest = rest[len(news):]
		part := &round{Engine: r.Engine, news: news, rest: rest, records: map[recordKey]*subject{}, gone: r.gone, lists: r.lists}
		err := h.patiently(func(ctx context.Context) error {
			if part.needsStill() {
				return h.engine.still(ctx, part.learn)
			}
			return part.learn(ctx)
		})
		if err == nil {
			part.verdicts(push)
			flush(touched) // what is read next may be long in coming
			touched = nil
			continue
		}
		h.engine.log.Warn("read changed records", "error", err)
		for s := range h.concerned(part) {
			s.lost()
		}
	}
	for _, n := range r.news {
		if rule := n.store.rules[reading]; rule.goes() && rule.moved(n.change) {
			for _, s := range n.named {
				doubts[s] = struct{}{}
			}
		}
	}
	if len(doubts) > 0 {
		if err := h.patiently(func(ctx context.Context) error { return h.doubt(ctx, doubts, push) }); err != nil {
			h.engine.log.Warn("decide on rights again", "error", err)
			for s := range doubts {
				s.lost()
			}
		}
	}
	flush(touched)
}

// flush has the streams' sinks send; many of them at once, where there are many.
func flush(streams []*Stream) {
	const few = 256
	workers := min(runtime.GOMAXPROCS(0), 1+len(streams)/few)
	var wg sync.WaitGroup
	for part := range slices.Chunk(streams, max(1, (len(streams)+workers-1)/workers)) {
		run := func() {
			for _, s := range part {
				s.flush()
			}
		}
		if workers == 1 {
			run()
		} else {
			wg.Go(run)
		}
	}
	wg.Wait()
}

// streams are those that the change may concern.
func (n *news) streams() func(yield func(*Stream) bool) {
	return func(yield func(*Stream) bool) {
		for _, s := range n.named {
			if !yield(s) {
				return
			}
		}
		for _, l := range n.lists {
			for _, s := range l.streams {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// concerned returns all streams that a round's news may concern.
func (h *hub) concerned(r *round) map[*Stream]struct{} {
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := map[*Stream]struct{}{}
	entities := map[string]struct{}{}
	for _, n := range r.news {
		for _, s := range n.named {
			all[s] = struct{}{}
		}
		if n.listed {
			entities[n.key.entity] = struct{}{}
		}
	}
	for entity := range entities {
		for s := range h.lists[entity].streams() {
			all[s] = struct{}{}
		}
	}
	return all
}

// needsStill reports whether more than the records themselves have to be read.
func (r *round) needsStill() bool {
	return slices.ContainsFunc(r.news, func(n *news) bool {
		return n.listed || n.store.ends(n.change) || n.store.rules[reading].asks()
	})
}

// learn reads the records, their earlier states where lists ask for them, and who may read them.
func (r *round) learn(ctx context.Context) error {
	clear(r.records) // of a try before
	for _, n := range r.news {
		sub := r.records[n.key]
		if sub == nil {
			sub = &subject{store: n.store, id: n.key.id, askers: map[asker]struct{}{}}
			r.records[n.key] = sub
		}
		sub.news = append(sub.news, n)
	}
	if err := r.loadAll(ctx, r.records); err != nil {
		return err
	}
	for _, n := range r.news {
		n.node = r.records[n.key].node
	}
	if err := r.recall(ctx); err != nil {
		return err
	}
	next := map[*subject]int{}
	for _, n := range r.news {
		sub := r.records[n.key]
		if i := next[sub]; n.listed {
			n.lists = r.lists(n.key.entity, sub.states[i], sub.states[i+1])
		}
		next[sub]++
	}
	return r.judge(ctx)
}

// errHistory says that the log does not lead from what a record is to what it was.
var errHistory = errors.New("the log does not tell the record's earlier states")

// asksForPast reports whether it matters what the record was: to lists, and to who hears of its end.
func (sub *subject) asksForPast() bool {
	return slices.ContainsFunc(sub.news, func(n *news) bool { return n.listed || sub.store.ends(n.change) })
}

// recall finds the earlier states of records.
func (r *round) recall(ctx context.Context) error {
	var (
		places []changelog.Place
		rest   = map[recordKey][]changelog.Change{}
		later  = map[recordKey][]changelog.Change{}
	)
	for _, n := range r.rest {
		if sub := r.records[n.key]; sub != nil && sub.asksForPast() {
			rest[n.key] = append(rest[n.key], n.change)
		}
	}
	for k, sub := range r.records {
		if !sub.asksForPast() {
			continue
		}
		last := sub.news[len(sub.news)-1].change
		for _, c := range rest[k] {
			if last.Op == changelog.OpDelete || c.Version != last.Version+1 {
				break
			}
			later[k], last = append(later[k], c), c
		}
		if last.Op != changelog.OpDelete { // even if the version is the same: it may be another record's
			places = append(places, changelog.Place{Entity: k.entity, ID: k.id, Version: last.Version, Seq: last.Seq})
		}
	}
	list, err := changelog.Later(ctx, r.querier(ctx), places)
	if err != nil {
		return err
	}
	for _, c := range list {
		k := recordKey{c.Entity, c.ID}
		later[k] = append(later[k], c)
	}
	for k, sub := range r.records {
		if sub.asksForPast() {
			if err := sub.recall(later[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// version is the record's as of delivery, 0 where it is not there any more.
func (sub *subject) version() int64 {
	if sub.node == nil {
		return 0
	}
	_, v := sub.store.key(sub.node)
	return int64(v)
}

// recall goes back from the record as it is, by what has been done to it since, to what it was before each of the round's changes.
func (sub *subject) recall(later []changelog.Change) error {
	for _, n := range sub.news {
		sub.changes = append(sub.changes, n.change)
	}
	for _, c := range later {
		if last := sub.changes[len(sub.changes)-1]; last.Op == changelog.OpDelete {
			break // what came after that is a record of its own
		}
		sub.changes = append(sub.changes, c)
	}
	end := len(sub.changes)
	if last := sub.changes[end-1]; last.Op != changelog.OpDelete && last.Version != sub.version() {
		return errHistory
	}
	sub.states, sub.links = make([]Node, end+1), make([]links, end)
	sub.states[end] = sub.node
	for i, c := range slices.Backward(sub.changes) {
		if c.Op == changelog.OpDelete {
			sub.states[i+1] = nil
		} else if sub.states[i+1] == nil {
			return errHistory // its table was emptied in between
		}
		var err error
		if sub.states[i], sub.links[i], err = sub.store.before(sub.states[i+1], c); err != nil {
			return fmt.Errorf("%w: %w", errHistory, err)
		}
	}
	return nil
}

// judge finds out who may read the records, and who might read them before each change, for all streams at once.
func (r *round) judge(ctx context.Context) error {
	for _, n := range r.news {
		sub := r.records[n.key]
		for s := range n.streams() {
			sub.askers[s.who] = struct{}{}
		}
	}
	if err := judge(ctx, r.records); err != nil {
		return err
	}
	var past inquiry
	for _, sub := range r.records {
		if sub.states != nil {
			sub.askPast(&past, r.ended)
		}
	}
	return past.settle(ctx)
}

// judge finds out who may read records now.
func judge(ctx context.Context, subjects map[recordKey]*subject) error {
	var now inquiry
	for _, sub := range subjects {
		if sub.node != nil {
			sub.allowed = now.ask(sub, sub.node, nil)
			continue
		}
		sub.allowed = make(map[asker]bool, len(sub.askers))
		for a := range sub.askers {
			holds, known := a.decided(sub.store.rules[reading], true) // who reads all is told each change of a record that is gone
			sub.allowed[a] = holds && known
		}
	}
	return now.settle(ctx)
}

// inquiry is questions about who may read records, which are put together, and the maps that get the answers.
type inquiry struct {
	questions map[*Store][]question
	answers   map[*Store][]map[asker]bool
}

// ask adds the question which of a record's askers may read it, or might when it was n. The answer is there once all are settled.
func (q *inquiry) ask(sub *subject, n Node, p *earlier) map[asker]bool {
	if q.questions == nil {
		q.questions, q.answers = map[*Store][]question{}, map[*Store][]map[asker]bool{}
	}
	answer := make(map[asker]bool, len(sub.askers))
	q.questions[sub.store] = append(q.questions[sub.store], question{n, slices.Collect(maps.Keys(sub.askers)), p})
	q.answers[sub.store] = append(q.answers[sub.store], answer)
	return answer
}

// settle gets the answers.
func (q *inquiry) settle(ctx context.Context) error {
	for s, list := range q.questions {
		for deleted, part := range byDeleted(list) {
			got, err := s.decide(ctx, s.shows(deleted), part)
			if err != nil {
				return err
			}
			for i, answer := range q.answers[s] {
				for k, a := range part[i].who {
					answer[a] = got[i][k]
				}
			}
		}
	}
	return nil
}

// byDeleted splits questions by which records are asked for: there are as many in each part, with those of the askers that it is about.
func byDeleted(list []question) map[ShowDeleted][]question {
	parts := map[ShowDeleted][]question{}
	for i, q := range list {
		for _, a := range q.who {
			if parts[a.deleted] == nil {
				parts[a.deleted] = make([]question, len(list))
				for k, q := range list {
					parts[a.deleted][k] = question{node: q.node, past: q.past}
				}
			}
			parts[a.deleted][i].who = append(parts[a.deleted][i].who, a)
		}
	}
	return parts
}

// askPast asks who might read the record before each change. Where a change is of nothing that the rule looks at, that is who might
// after it.
func (sub *subject) askPast(q *inquiry, gone func(context.Context, recordKey) (Node, *earlier, error)) {
	sub.rights = make([]map[asker]bool, len(sub.changes)+1)
	sub.rights[len(sub.changes)] = sub.allowed
	var undone []links // from the newest on
	for i, c := range slices.Backward(sub.changes) {
		sub.rights[i] = sub.rights[i+1]
		switch {
		case c.Op == changelog.OpInsert:
			sub.rights[i] = nil
		case c.Op == changelog.OpDelete:
			sub.rights[i+1], undone = nil, nil
			fallthrough
		case sub.store.mayDecide(c):
			undone = append(undone, sub.links[i])
			sub.rights[i] = q.ask(sub, sub.states[i], &earlier{links: undone, gone: gone})
		}
	}
}

// verdicts tells each stream what a change means for it.
func (r *round) verdicts(push func(*Stream, pending)) {
	next := map[*subject]int{}
	for _, n := range r.news {
		sub := r.records[n.key]
		i := next[sub]
		next[sub]++
		ended := n.store.ends(n.change)
		for _, s := range n.named {
			p := pending{news: n, is: !ended && sub.allowed[s.who] && (sub.states == nil || !n.store.isDeleted(sub.states[i+1]))}
			switch {
			case ended:
				p.was = sub.rights[i][s.who]
			case (n.node == nil || n.store.isDeleted(n.node)) && !p.is:
				continue // it is gone, which comes next; whether this was still for the viewer nobody can tell any more
			}
			push(s, p)
		}
		for _, l := range n.lists {
			for _, s := range l.streams {
				p := pending{news: n, was: l.was && sub.rights[i][s.who], is: l.is && sub.rights[i+1][s.who]}
				if p.is && (n.node == nil || !sub.allowed[s.who]) {
					continue // a later change ends it
				}
				if p.was || p.is {
					push(s, p)
				}
			}
		}
	}
}

// ended finds a record that was deleted, in the round or before.
func (r *round) ended(ctx context.Context, k recordKey) (Node, *earlier, error) {
	c, ok := r.gone[k]
	if !ok {
		list, err := changelog.History(ctx, r.querier(ctx), []changelog.Span{{Entity: k.entity, ID: k.id}})
		if err != nil || len(list) == 0 || list[len(list)-1].Op != changelog.OpDelete {
			return nil, nil, err
		}
		c = list[len(list)-1]
		r.gone[k] = c
	}
	n, l, err := r.stores[k.entity].before(nil, c)
	return n, &earlier{links: []links{l}, gone: r.ended}, err
}

// doubt asks again who may read the records that streams name, and tells them. The streams follow what that depends on first, or a
// change after the decision would be missed.
func (h *hub) doubt(ctx context.Context, streams map[*Stream]struct{}, push func(*Stream, pending)) error {
	g := h.engine
	more := true
	once := func(ctx context.Context) error {
		more = false
		subjects := map[recordKey]*subject{}
		for s := range streams {
			for _, k := range s.keys {
				if subjects[k] == nil && g.stores[k.entity].rules[reading].reaches() {
					subjects[k] = &subject{store: g.stores[k.entity], id: k.id, askers: map[asker]struct{}{}}
				}
			}
		}
		if err := g.loadAll(ctx, subjects); err != nil {
			return err
		}
		var (
			wanted reliances
			behind = make(map[*Stream]map[recordKey]struct{}, len(streams))
		)
		for s := range streams {
			behind[s] = map[recordKey]struct{}{}
			for _, k := range s.keys {
				if sub := subjects[k]; sub != nil {
					sub.askers[s.who] = struct{}{}
					wanted.add(sub.store, reliance{s.who, sub.node, behind[s]})
				}
			}
		}
		if err := wanted.find(ctx); err != nil {
			return err
		}
		for s, keys := range behind {
			more = h.follow(s, keys) || more
		}
		if more {
			return nil
		}
		if err := judge(ctx, subjects); err != nil {
			return err
		}
		for k, sub := range subjects {
			n := &news{engine: g, key: k, store: sub.store, epoch: h.done.Epoch, before: h.done.After, after: h.done.After,
				place: changelog.Seen{Base: h.done.After}, node: sub.node}
			n.change.Seq, n.change.Version = everything, sub.version()
			sub.news = []*news{n}
		}
		for s := range streams {
			for _, k := range s.keys {
				if sub := subjects[k]; sub != nil && sub.node != nil && !sub.store.isDeleted(sub.node) { // what is gone has a change of its own
					push(s, pending{news: sub.news[0], is: sub.allowed[s.who]})
				}
			}
		}
		return nil
	}
	for more {
		if err := g.still(ctx, once); err != nil {
			return err
		}
	}
	return nil
}

// loadAll reads records, whoever asks: a statement an entity.
func (g *Engine) loadAll(ctx context.Context, subjects map[recordKey]*subject) error {
	ids := map[*Store][]uuid.UUID{}
	for _, sub := range subjects {
		ids[sub.store] = append(ids[sub.store], sub.id)
	}
	for s, ids := range ids {
		found, err := s.load(ctx, ids)
		if err != nil {
			return err
		}
		for _, id := range ids {
			subjects[recordKey{s.Prefix, id}].node = found[id]
		}
	}
	return nil
}

// querier is reader for what reads the change log.
func (g *Engine) querier(ctx context.Context) changelog.Querier {
	if w := workOf(ctx); w != nil && w.tx != nil {
		return w.tx.PGX()
	}
	return g.driver.Pool()
}

// still has f read one state of the database: what a record is and who may read it must not be of two moments, of which only the later
// one is the viewer's.
func (g *Engine) still(ctx context.Context, f func(context.Context) error) error {
	tx := g.driver.Begin(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err := f(context.WithValue(ctx, workKey{}, &work{engine: g, tx: tx})); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.CommitContext(ctx)
}
