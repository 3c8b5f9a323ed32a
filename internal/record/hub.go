package record

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"godstack/internal/changelog"
)

// maxWaiting is how many changes wait to be delivered. Beyond it all streams begin anew.
const maxWaiting = 100_000

// recordKey is a record as the change log names it.
type recordKey struct {
	entity string
	id     uuid.UUID
}

// hub knows the streams, and delivers batch after batch to those that they concern.
type hub struct {
	engine *Engine

	mu      sync.RWMutex
	records map[recordKey]map[*Stream]struct{} // protected by mu: streams by the records that they name
	lists   map[string]*lists                  // protected by mu: by the prefix of their entity, as long as it has some
	through map[string]map[*Stream]struct{}    // protected by mu: streams of lists, by the entities that the right to read goes through
	depends map[recordKey]map[*Stream]struct{} // protected by mu: streams of named records, by the records that it goes through
	shapes  map[shapeKey]*shape                // protected by mu
	streams int                                // protected by mu

	inbox struct {
		sync.Mutex
		batches []changelog.Batch // protected by inbox
		changes int               // in batches; protected by inbox
		doubts  []*Stream         // whose rights are to be asked again; protected by inbox
		busy    bool              // somebody takes them; protected by inbox
	}

	stats struct{ events, answers, joined, resyncs atomic.Uint64 }

	turns struct {
		sync.Mutex
		waiting map[uuid.UUID][]func() // what waits for a turn, by viewer; protected by turns
		order   []uuid.UUID            // the viewers whose turn comes; protected by turns
		having  map[uuid.UUID]int      // how many turns viewers have at the moment; protected by turns
		running int                    // goroutines that give turns; protected by turns
	}

	memory memory

	epoch    uuid.UUID       // of the log; protected by mu
	done     changelog.Batch // the last that was delivered, without its changes; of whoever delivers
	watching func(n int)
	ready    chan struct{} // closed with the first batch: what is committed from then on is delivered
	start    sync.Once
	restarts chan struct{} // holds one for each stream that begins anew without a turn
}

func newHub(g *Engine, watching func(int)) *hub {
	return &hub{
		engine: g, records: map[recordKey]map[*Stream]struct{}{}, lists: map[string]*lists{},
		through: map[string]map[*Stream]struct{}{}, depends: map[recordKey]map[*Stream]struct{}{}, shapes: map[shapeKey]*shape{},
		watching: watching, ready: make(chan struct{}), restarts: make(chan struct{}, maxRestarts),
	}
}

// subscribe has a stream hear of changes. Of a list's group, one that is there already takes the place.
func (h *hub) subscribe(s *Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if there := h.shapes[s.shape.key]; there != nil {
		s.shape = there
	} else {
		h.shapes[s.shape.key] = s.shape
	}
	s.shape.uses++
	for _, k := range s.keys {
		put(h.records, k, s)
	}
	if s.list != nil {
		prefix := s.list.store.Prefix
		if h.lists[prefix] == nil {
			h.lists[prefix] = newLists()
		}
		s.list = h.lists[prefix].join(s.list)
		s.list.streams[s] = struct{}{}
		for _, p := range s.reaches() {
			put(h.through, p, s)
		}
	}
	h.streams++
	h.memory.charge(s.who.ID, s.size())
	h.watching(h.streams)
}

// unsubscribe undoes subscribe.
func (h *hub) unsubscribe(s *Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.gone = true
	h.memory.charge(s.who.ID, -s.size())
	if s.shape.uses--; s.shape.uses == 0 {
		delete(h.shapes, s.shape.key)
	}
	for _, k := range s.keys {
		drop(h.records, k, s)
	}
	for k := range s.behind {
		drop(h.depends, k, s)
	}
	if s.list != nil {
		prefix := s.list.store.Prefix
		if delete(s.list.streams, s); len(s.list.streams) == 0 {
			if h.lists[prefix].leave(s.list); len(h.lists[prefix].groups) == 0 {
				delete(h.lists, prefix)
			}
		}
		for _, p := range s.reaches() {
			drop(h.through, p, s)
		}
	}
	h.streams--
	h.watching(h.streams)
}

// follow says what else a stream depends on from now on, and reports whether it did not depend on all of that before.
func (h *hub) follow(s *Stream, keys map[recordKey]struct{}) (more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.gone {
		return false
	}
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

func put[K comparable](m map[K]map[*Stream]struct{}, k K, s *Stream) {
	if m[k] == nil {
		m[k] = map[*Stream]struct{}{}
	}
	m[k][s] = struct{}{}
}

func drop[K comparable](m map[K]map[*Stream]struct{}, k K, s *Stream) {
	delete(m[k], s)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

// Stats says what streams there are and counts what was done for them.
type Stats struct {
	Streams int
	Events  uint64 // that sinks took
	Answers uint64 // that were rendered for them
	Joined  uint64 // changes that went into a later one of the same record, for a subscriber who did not keep up
	Resyncs uint64 // streams that began anew
}

// Stats returns the streams there are now; counts are since the engine was made.
func (g *Engine) Stats() Stats {
	g.hub.mu.RLock()
	defer g.hub.mu.RUnlock()
	c := &g.hub.stats
	return Stats{g.hub.streams, c.events.Load(), c.answers.Load(), c.joined.Load(), c.resyncs.Load()}
}

// all returns the streams.
func (h *hub) all() (list []*Stream) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	seen := map[*Stream]struct{}{}
	add := func(m map[*Stream]struct{}) {
		for s := range m {
			if _, twice := seen[s]; !twice {
				seen[s] = struct{}{}
				list = append(list, s)
			}
		}
	}
	for _, m := range h.records {
		add(m)
	}
	for _, l := range h.lists {
		for _, g := range l.groups {
			add(g.streams)
		}
	}
	return list
}

// Deliver hands a batch of the change log to the streams, and does not wait for that. The tailer calls it.
func (g *Engine) Deliver(_ context.Context, b changelog.Batch) {
	h := g.hub
	h.mu.Lock()
	h.epoch = b.Epoch
	nobody := h.streams == 0
	h.mu.Unlock()
	h.start.Do(func() { close(h.ready) })
	if nobody || len(b.Changes) == 0 && !b.Resync {
		return
	}
	h.inbox.Lock()
	defer h.inbox.Unlock()
	if h.inbox.changes += len(b.Changes); h.inbox.changes > maxWaiting {
		b.Resync, b.Changes, b.Before = true, nil, b.After
		h.inbox.batches, h.inbox.changes = nil, 0
	}
	h.inbox.batches = append(h.inbox.batches, b)
	h.hurry()
}

// reconsider asks again whether a stream's viewer may read its records, after what is delivered already.
func (h *hub) reconsider(s *Stream) {
	h.inbox.Lock()
	defer h.inbox.Unlock()
	h.inbox.doubts = append(h.inbox.doubts, s)
	h.hurry()
}

// hurry has somebody take what is in the inbox, whose lock it wants.
func (h *hub) hurry() {
	if !h.inbox.busy {
		h.inbox.busy = true
		go h.work()
	}
}

// work delivers what is in the inbox, all of it in one round, until nothing is.
func (h *hub) work() {
	for {
		h.inbox.Lock()
		batches, doubts := h.inbox.batches, h.inbox.doubts
		h.inbox.batches, h.inbox.changes, h.inbox.doubts = nil, 0, nil
		h.inbox.busy = len(batches)+len(doubts) > 0
		h.inbox.Unlock()
		if len(batches)+len(doubts) == 0 {
			return
		}
		h.deliver(batches, doubts)
	}
}

// maxTurns is how many streams whose events take reading begin anew or are rendered at the same time, beside those whose subscribers have
// them start. They wait for each other, and nobody for them.
const maxTurns = 4

// turnsOf is how many of them a viewer may have at the same time. Those who are not signed in are one viewer, and many people.
func turnsOf(who uuid.UUID) int {
	if who == uuid.Nil {
		return maxTurns - 1
	}
	return 1
}

// queue calls f when the viewer's turn comes: viewers take turns, however many streams each has. f must not panic.
func (h *hub) queue(who uuid.UUID, f func()) {
	t := &h.turns
	t.Lock()
	defer t.Unlock()
	if t.waiting == nil {
		t.waiting, t.having = map[uuid.UUID][]func(){}, map[uuid.UUID]int{}
	}
	t.waiting[who] = append(t.waiting[who], f)
	if len(t.waiting[who]) == 1 {
		h.line(who)
	}
}

// inTurn calls f when the viewer's turn comes, and waits for it.
func (h *hub) inTurn(who uuid.UUID, f func() error) error {
	done := make(chan error, 1)
	h.queue(who, func() { done <- f() })
	return <-done
}

// withFew calls f when few others are called so.
func (h *hub) withFew(f func() error) error {
	h.restarts <- struct{}{}
	defer func() { <-h.restarts }()
	return f()
}

// line puts a viewer into the order, unless nothing of theirs waits or they have as many turns as they may. It wants the lock of turns.
func (h *hub) line(who uuid.UUID) {
	t := &h.turns
	if len(t.waiting[who]) == 0 || t.having[who] == turnsOf(who) {
		return
	}
	t.order = append(t.order, who)
	if t.running < maxTurns {
		t.running++
		go h.takeTurns()
	}
}

// takeTurns gives one turn after the other, until nothing waits.
func (h *hub) takeTurns() {
	for {
		who, f := h.next()
		if f == nil {
			return
		}
		f()
		h.had(who)
	}
}

// next takes whose turn it is; f is nil, and one less runs, where nothing waits.
func (h *hub) next() (who uuid.UUID, f func()) {
	t := &h.turns
	t.Lock()
	defer t.Unlock()
	if len(t.order) == 0 {
		t.order = nil
		t.running--
		return who, nil
	}
	who = t.order[0]
	t.order = t.order[1:]
	t.having[who]++
	f = t.waiting[who][0]
	if t.waiting[who] = t.waiting[who][1:]; len(t.waiting[who]) == 0 {
		delete(t.waiting, who)
	}
	h.line(who)
	return who, f
}

// had says that a viewer has had a turn.
func (h *hub) had(who uuid.UUID) {
	t := &h.turns
	t.Lock()
	defer t.Unlock()
	full := t.having[who] == turnsOf(who)
	if t.having[who]--; t.having[who] == 0 {
		delete(t.having, who)
	}
	if full { // and so not in the order
		h.line(who)
	}
}
