package record

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"godstack/internal/changelog"
)

const (
	// maxPending is how many changes wait for one subscriber. Beyond it those of a record are joined, and if that is not enough, the
	// subscriber is told to begin anew.
	maxPending = 256
	// maxRestarts is how many streams read their records anew at the same time, beside those that have a turn to do so.
	maxRestarts = 8
	// triesToRestart is how often a stream tries to, with a pause that begins at firstPause and doubles, before it ends with an error.
	triesToRestart = 6
	firstPause     = 50 * time.Millisecond
	// betweenRestarts is the least time from one to the next of a stream: others may cause them.
	betweenRestarts = time.Second
)

// everything is a place in the log after all that a snapshot sees.
const everything = math.MaxInt64

// Stream is a subscription, which is pushed to a Sink. Its methods may be called at any time from anywhere.
type Stream struct {
	engine *Engine
	shape  *shape
	who    asker
	sink   Sink
	single bool        // of one record: it ends with it
	keys   []recordKey // the records that are named, in order
	list   *group      // nil where the records are named

	mu       sync.Mutex
	state    streamState
	versions []int64         // of keys, as the client has them: unheld where it has no copy, unknown where nobody knows which
	seen     *changelog.Seen // what the client has seen, where that is not all up to the last batch
	ahead    []item          // goes before queue: what the stream begins with
	weight   int             // bytes of what ahead was at first
	queue    []pending
	resync   bool      // it has to begin anew, once it can
	begun    time.Time // when it last began anew
	doubted  bool      // whether the viewer may read the records has to be asked again, once it has begun
	dirty    bool      // the sink has to be flushed
	ready    rendered  // some of what is sent next, while it is; of whoever pumps
	taken    int       // events since somebody pumps
	chunk    int       // how many records are rendered at once

	leaving atomic.Bool // Close was called: what still runs for the stream is for nobody

	gone   bool                   // protected by the hub's mu: it is not subscribed any more
	behind map[recordKey]struct{} // protected by the hub's mu: other records that the right to read depends on
}

type streamState uint8

const (
	preparing streamState = iota // it reads what it begins with: changes wait
	live
	queued  // it waits for its turn to be pumped: changes wait
	aside   // it reads what its next event leads to, without mu: changes wait
	blocked // the sink is full: changes wait
	closed
)

const (
	unknown int64 = 0
	unheld  int64 = -1
)

// item is an event, or a change of which the event is made when its turn comes.
type item struct {
	event  *event
	change pending
}

// pending is a change on its way to one stream.
type pending struct {
	news *news
	was  bool // it was among the stream's records; where those are named, the client may have seen it
	is   bool // it is

	also    []string // the fields of earlier changes that were joined with it
	ended   bool     // the record ended among those
	flips   []flip   // where what it was is another for who has seen some of those
	nowhere bool     // some that came before it are told later, joined: it is no place to go on from
}

// flip is what was says for those who have seen a change.
type flip struct {
	seen changelog.Change
	was  bool
}

// compare orders keys.
func (k recordKey) compare(o recordKey) int {
	return cmp.Or(cmp.Compare(k.entity, o.entity), bytes.Compare(k.id[:], o.id[:]))
}

// index finds a record among those that the stream names.
func (s *Stream) index(k recordKey) (i int, named bool) {
	return slices.BinarySearchFunc(s.keys, k, recordKey.compare)
}

// version finds what the client has of a named record; nil where the stream does not name it. It wants mu, as does whatever does not
// say otherwise.
func (s *Stream) version(k recordKey) *int64 {
	if i, named := s.index(k); named {
		return &s.versions[i]
	}
	return nil
}

// Start sends the stream's first events, on the caller's goroutine. None comes before it.
func (s *Stream) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != closed {
		s.sift()
		s.pump()
		s.flushLocked()
	}
}

// Resume goes on after Sink.Next refused an answer: on the caller's goroutine, but for what takes reading.
func (s *Stream) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == blocked {
		s.proceed()
	}
}

// Close ends the stream; the Sink hears nothing of it, and nothing any more.
func (s *Stream) Close() {
	s.leaving.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave()
}

// leave ends the stream.
func (s *Stream) leave() {
	if s.state == closed {
		return
	}
	s.state, s.versions, s.queue = closed, nil, nil
	s.began()
	s.engine.hub.unsubscribe(s)
}

// start has the stream begin with some items, whose memory is on its viewer's account until all were taken. It is refused where there is
// no room any more: many may have read what they begin with at the same time.
func (s *Stream) start(ahead []item) error {
	size := 0
	for _, i := range ahead {
		size += i.size()
	}
	if err := s.engine.hub.memory.take(s.who.ID, size); err != nil {
		return err
	}
	s.began()
	s.ahead, s.weight = ahead, size
	return nil
}

// began gives the memory back of what the stream began with.
func (s *Stream) began() {
	s.engine.hub.memory.charge(s.who.ID, -s.weight)
	s.ahead, s.weight = nil, 0
}

// size is about how many bytes an item holds, of its record and what that was.
func (i item) size() int {
	if i.event != nil {
		return itemSize + sizeOf(i.event.record)
	}
	return itemSize + sizeOf(i.change.news.node) + len(i.change.news.change.Old)
}

// finish ends the stream and says so.
func (s *Stream) finish(err error) {
	if s.state != closed {
		s.leave()
		s.sink.End(err)
	}
}

// flush has the sink send what it was given. It takes mu itself.
func (s *Stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushLocked()
}

func (s *Stream) flushLocked() {
	if s.dirty && s.state != closed {
		s.sink.Flush()
	}
	s.dirty = false
}

// sift leaves of the queue what the stream has not seen, once it is known what it has.
func (s *Stream) sift() {
	s.queue = slices.DeleteFunc(s.queue, func(p pending) bool { return s.knows(p.news) })
	for i := range s.queue {
		p := &s.queue[i]
		for _, f := range p.flips {
			if s.seen != nil && s.seen.Has(f.seen) {
				p.was = f.was
			}
		}
		p.flips = nil
	}
}

// knows reports whether what the stream begins with has a change in it.
func (s *Stream) knows(n *news) bool {
	return s.seen != nil && n.change.Op != 0 && s.seen.Has(n.change)
}

// pump sends what waits, as far as the sink takes it.
func (s *Stream) pump() {
	s.state, s.taken, s.chunk = live, 0, cmp.Or(s.chunk, maxPrepared)
	defer func() {
		s.ready = nil // what it leads to may be another, or forbidden, when it goes on
		if s.chunk = maxPrepared; s.state == blocked {
			s.chunk = min(max(1, 2*s.taken), maxPrepared) // what the sink does not take is read in vain
		}
	}()
	for len(s.ahead) > 0 {
		i := s.ahead[0]
		if !s.going(i.event != nil && s.send(i.event) || i.event == nil && s.tell(i.change, true)) {
			return
		}
		if i.event != nil && i.event.kind == deletedKind && s.single {
			s.finish(nil)
			return
		}
		s.ahead[0] = item{}
		s.ahead = s.ahead[1:]
	}
	s.began()
	if s.resync {
		s.begin()
		return
	}
	if s.doubted {
		s.doubted = false
		s.engine.hub.reconsider(s)
	}
	for len(s.queue) > 0 {
		if s.shape.costly && s.taken >= maxPrepared { // more may come all the time, and others wait
			s.await()
			return
		}
		p := s.queue[0]
		s.queue[0] = pending{}
		s.queue = s.queue[1:]
		if !s.going(s.tell(p, false)) {
			if s.state == blocked && !s.resync {
				s.queue = slices.Insert(s.queue, 0, p)
			}
			return
		}
	}
	s.queue = nil
	if s.resync { // since something was read
		s.begin()
	}
}

// proceed is pump for who does not read: what takes reading waits for its turn.
func (s *Stream) proceed() {
	if s.shape.costly {
		s.await()
		return
	}
	s.pump()
	s.flushLocked()
}

// await has the stream pumped when its turn comes.
func (s *Stream) await() {
	s.state = queued
	s.engine.hub.queue(s.who.ID, s.turn)
}

// going reports whether there is somebody to send more to, after an event was taken or not.
func (s *Stream) going(taken bool) bool {
	if s.state != closed && !taken {
		s.state = blocked
	}
	return s.state == live && !s.leaving.Load()
}

// maxPrepared is how many records are rendered at once.
const maxPrepared = 100

// coming returns the records that come next, to be rendered together, where each by itself would take reading.
func (s *Stream) coming(first *event) map[*Store][]Node {
	if _, ready := s.ready[first.record]; ready || s.chunk < 2 {
		return nil
	}
	nodes := map[*Store][]Node{}
	seen := map[Node]struct{}{}
	add := func(store *Store, n Node) (more bool) {
		if _, twice := seen[n]; !twice && n != nil {
			seen[n] = struct{}{}
			nodes[store] = append(nodes[store], n)
		}
		return len(seen) < s.chunk
	}
	add(first.store, first.record)
	wanted := func(p pending) bool { return !p.is || add(p.news.store, p.news.node) }
	for _, i := range s.ahead {
		if i.event != nil && !add(i.event.store, i.event.record) || i.event == nil && !wanted(i.change) {
			break
		}
	}
	for _, p := range s.queue {
		if len(s.ahead) > s.chunk || !wanted(p) {
			break
		}
	}
	return nodes
}

// answer renders an event. Where that takes reading nobody waits for it: mu is free meanwhile. It is nil where the stream was closed then.
func (s *Stream) answer(e *event) (a *Answer) {
	if !s.shape.costly || e.record == nil {
		return s.engine.answer(e, s, nil)
	}
	nodes := s.coming(e)
	s.state = aside
	func() {
		s.mu.Unlock()
		defer s.mu.Lock() // also where it panics: who has mu gives it back
		a = s.engine.answer(e, s, nodes)
	}()
	if s.state != aside {
		return nil
	}
	s.state = live
	return a
}

// send gives an event to the sink.
func (s *Stream) send(e *event) (taken bool) {
	a := s.answer(e)
	if a == nil {
		return false
	}
	if !s.sink.Next(a) {
		if s.shape.costly {
			s.engine.forget(e, s)
		}
		return false
	}
	s.dirty = true
	s.taken++
	s.engine.hub.stats.events.Add(1)
	return true
}

// push takes a change. It takes mu itself, and reports whether the sink has to be flushed since.
func (s *Stream) push(p pending) (dirty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.dirty
	switch {
	case s.state == closed || s.resync: // which will read later than this
		return false
	case s.state == live && p.is && s.shape.costly:
		s.hold(p)
		s.await()
	case s.state == live && s.tell(p, false):
	case s.state == live:
		s.state = blocked
		s.hold(p)
	case s.state == preparing && p.news.change.Op == 0:
		s.doubted = true // what is being read may be later than this was decided
	default:
		s.hold(p)
	}
	return s.dirty && !before
}

// turn sends what waits, at most maxPrepared changes and what the stream begins with. It takes mu itself.
func (s *Stream) turn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if v := recover(); v != nil { // there is nobody above who could
			s.finish(s.panicked(v))
		}
	}()
	if s.state == queued {
		s.pump()
		s.flushLocked()
	}
}

// errPanic is not tried again.
var errPanic = errors.New("panic")

func (s *Stream) panicked(v any) error {
	s.engine.log.Error("panic in a subscription", "error", v, "stack", string(debug.Stack()))
	return fmt.Errorf("%w: %v", errPanic, v)
}

// hold keeps a change until its turn comes.
func (s *Stream) hold(p pending) {
	if s.state != preparing && s.knows(p.news) {
		return
	}
	left := len(s.queue)
	if left >= maxPending {
		if s.queue = conflate(s.queue); s.state != preparing {
			s.sift()
		}
		s.engine.hub.stats.joined.Add(uint64(left - len(s.queue)))
		left = len(s.queue)
		for _, p := range s.queue {
			left += len(p.flips)
		}
	}
	if left >= maxPending {
		s.queue, s.resync = nil, true
		return
	}
	s.queue = append(s.queue, p)
}

// conflate joins the changes of each record, in the place of the last of them; those of one that has ended stay apart from those of the
// next that has its id, whose versions begin again. What is told between says of the first that it was told, so its cursors are of no use.
func conflate(queue []pending) []pending {
	at, ended := make(map[recordKey]int, len(queue)), map[recordKey]int{}
	join := func(first, i int) {
		queue[i] = queue[first].join(queue[i])
		queue[first].news = nil
		for k := first + 1; k < i; k++ {
			queue[k].nowhere = true
		}
	}
	for i, p := range queue {
		first, there := at[p.news.key]
		switch {
		case !there:
			at[p.news.key] = i
		case p.news.change.Op == 0: // what the viewer may read, which a deletion settles
			if queue[first].news.change.Op != changelog.OpDelete {
				// With the record as it was when that was found out: as it was before it may not be the viewer's.
				queue[first].news, queue[first].is = queue[first].news.with(p.news.node), p.is
			}
			queue[i].news = nil
		case queue[first].news.change.Op == changelog.OpDelete && p.news.change.Op != changelog.OpDelete:
			ended[p.news.key], at[p.news.key] = first, i
		default:
			join(first, i)
			if end, before := ended[p.news.key]; before && p.news.change.Op == changelog.OpDelete {
				join(end, i)
				delete(ended, p.news.key)
			}
			at[p.news.key] = i
		}
	}
	return slices.DeleteFunc(queue, func(p pending) bool { return p.news == nil })
}

// join returns what is left to tell of two changes of a record.
func (p pending) join(later pending) pending {
	was := p.was
	if len(p.flips) > 0 {
		was = p.flips[len(p.flips)-1].was
	}
	if later.was != was {
		p.flips = append(slices.Clip(p.flips), flip{p.news.change, later.was})
	}
	later.was, later.flips = p.was, slices.Concat(p.flips, later.flips)
	later.ended = p.ended || p.news.change.Op == changelog.OpDelete
	later.also = slices.Concat(p.also, p.news.change.Fields, later.also)
	slices.Sort(later.also)
	later.also = slices.Compact(later.also)
	return later
}

// tell makes the stream's event of a change and sends it. A replayed change is not in seen.
func (s *Stream) tell(p pending, replayed bool) (taken bool) {
	n, seen := p.news, s.seen
	switch {
	case replayed:
		seen = nil
	case s.knows(n):
		return true
	case seen != nil && n.before.Covers(seen.Base): // from here on it is as all others
		s.seen, seen = nil, nil
	}
	version, was := s.version(n.key), p.was
	if version != nil {
		if n.change.Op != 0 && *version > 0 && n.change.Version <= *version && !p.ended {
			return true // the client has got a later one
		}
		was = *version != unheld
	}
	var kind string
	switch {
	case !was && !p.is || was && p.is && n.change.Op == 0:
		return true
	case !was:
		kind = createdKind
	case p.is:
		kind = updatedKind
	default:
		kind = deletedKind
	}
	// How the deletion is numbered is for those to know who might have seen it.
	if !s.send(n.event(kind, seen, p)) {
		return false
	}
	if version != nil {
		*version = unheld
		if p.is {
			*version = n.change.Version
		}
	}
	if kind == deletedKind && s.single {
		s.finish(nil)
	}
	return true
}

// lost has the stream begin anew: changes may be missing. It takes mu itself.
func (s *Stream) lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case live, queued:
		s.begin()
	case preparing, aside, blocked:
		s.queue, s.resync = nil, true
	}
}

// begin has the stream begin anew, on a goroutine of its own.
func (s *Stream) begin() {
	s.state, s.resync, s.queue = preparing, false, nil
	s.began()
	s.engine.hub.stats.resyncs.Add(1)
	pause := time.Until(s.begun.Add(betweenRestarts))
	s.begun = time.Now().Add(max(pause, 0))
	go s.restart(pause)
}

// restart reads what the stream follows once more, after a pause, and tries again for a while. It takes mu itself.
func (s *Stream) restart(pause time.Duration) {
	var err error
	for try := range triesToRestart {
		if try > 0 {
			pause = firstPause << (try - 1)
		}
		if pause > 0 { // in nobody's way
			<-time.After(pause)
		}
		if s.shape.costly {
			err = s.engine.hub.inTurn(s.who.ID, s.anew)
		} else {
			err = s.engine.hub.withFew(s.anew)
		}
		if err == nil || final(err) {
			break
		}
		s.engine.log.Warn("read a stream's records anew", "error", err)
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.finish(err)
	}
}

// anew reads what the stream follows, and has it begin with that at once: what waits for others takes memory. It takes mu itself.
func (s *Stream) anew() (err error) {
	defer func() {
		if v := recover(); v != nil { // there is nobody above who could
			err = s.panicked(v)
		}
	}()
	if s.leaving.Load() {
		return nil
	}
	s.mu.Lock()
	s.resync, s.queue = false, nil // what is read has that
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	v, err := s.look(s.who.context(ctx))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == closed {
		return nil
	}
	if err := s.start(append([]item{{event: s.nowhere(resyncKind)}}, s.opening(v, nil)...)); err != nil {
		return err
	}
	s.sift()
	s.pump()
	s.flushLocked()
	return nil
}

// nowhere is an event that is about no change, and no place to go on from.
func (s *Stream) nowhere(kind string) *event {
	e := &event{kind: kind, cursor: s.engine.nowhere}
	if s.single {
		e.store, e.id = s.engine.stores[s.keys[0].entity], s.keys[0].id
	}
	return e
}
