package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/internal/changelog"
	"godstack/internal/viewer"
)

// narrowSink takes as many answers as it has room for.
type narrowSink struct {
	room  int
	got   []string
	ended bool
}

func (s *narrowSink) Next(a *Answer) bool {
	if s.room == 0 {
		return false
	}
	s.room--
	var event struct {
		Data struct {
			X struct {
				Kind    string
				Version int
				Fields  []string
			}
		}
	}
	if err := json.Unmarshal(a.Body, &event); err != nil {
		panic(err)
	}
	s.got = append(s.got, fmt.Sprint(event.Data.X.Kind, " ", event.Data.X.Version, " ", event.Data.X.Fields))
	return true
}

func (*narrowSink) Flush()      {}
func (s *narrowSink) End(error) { s.ended = true }

// held is a store of an entity that no database is asked about, and changes of its records.
func held(t *testing.T) (*Engine, *Store, func(id uuid.UUID, version int64, field string) *news) {
	e := &Entity{Name: "Thing", Prefix: "thing", column: map[string]*Field{}, types: []string{"Thing"}}
	for _, name := range []string{"title", "body"} {
		e.column[name] = &Field{Name: name, Column: name, Use: InType}
	}
	g, err := NewEngine(nil, nil, nil)
	require.NoError(t, err)
	s := NewStore(e, Model{})
	s.engine, g.stores["thing"] = g, s
	return g, s, func(id uuid.UUID, version int64, field string) *news {
		n := &news{engine: g, store: s, key: recordKey{"thing", id}}
		n.change = changelog.Change{Seq: version, Entity: "thing", ID: id, Version: version, Op: changelog.OpUpdate, Fields: []string{field}}
		return n
	}
}

// shapeOfThings selects kind, version and fields.
func shapeOfThings() *shape {
	set := ast.SelectionSet{}
	for _, name := range []string{"kind", "version", "fields"} {
		set = append(set, &ast.Field{Name: name, Alias: name, ObjectDefinition: &ast.Definition{Name: "ThingChange"}})
	}
	return &shape{typ: "ThingChange", alias: "x", op: &graphql.OperationContext{Doc: &ast.QueryDocument{}}, sel: set, personal: map[personalKey]bool{}}
}

// A subscriber that does not keep up gets the newest version of each record, and loses no field that changed.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	g, _, change := held(t)
	one, two := uuid.UUID{1}, uuid.UUID{2}
	sink := &narrowSink{room: 1}
	s := &Stream{engine: g, sink: sink, shape: shapeOfThings(), keys: []recordKey{{"thing", one}, {"thing", two}}, versions: []int64{0, 0}}
	g.hub.subscribe(s)
	s.Start()
	push := func(id uuid.UUID, version int64, field string) {
		s.push(pending{news: change(id, version, field), is: true})
	}
	push(one, 1, "title") // goes out
	push(one, 2, "body")  // waits, as all that follows
	s.Resume()
	require.Equal(t, 1, s.chunk, "of what is read for it, no more than what it may take")
	push(two, 1, "title")
	for v := range int64(maxPending) {
		push(one, v+3, "title")
	}
	require.LessOrEqual(t, len(s.queue), maxPending)
	sink.room = 1
	s.Resume()
	require.Equal(t, 2, s.chunk, "of what is read for it, no more than twice as much as it took")
	sink.room = 1000
	s.Resume()
	require.Equal(t, "UPDATED 1 [title]", sink.got[0])
	require.Equal(t, "UPDATED 1 [title]", sink.got[1], "of the other record, which keeps its own")
	require.Contains(t, sink.got[2], "[body title]", "with the fields of all that were joined")
	require.Equal(t, fmt.Sprintf("UPDATED %d [title]", maxPending+2), sink.got[len(sink.got)-1])
	require.Less(t, len(sink.got), maxPending)
	sorted := slices.Clone(sink.got[3:])
	require.Len(t, slices.Compact(sorted), len(sink.got)-3, "each version once")

	// More records than may wait: the stream begins anew, and nothing is kept until then.
	sink.room = 0
	push(one, 10_000, "title")
	for i := range maxPending + 1 {
		s.push(pending{news: change(uuid.UUID{3, byte(i), byte(i >> 8)}, 1, "title"), is: true})
	}
	require.True(t, s.resync)
	require.Empty(t, s.queue)
	s.Close()
	s.Close()
	s.Resume()
	require.Zero(t, g.hub.streams)
	require.Empty(t, g.hub.records)
	require.Empty(t, g.hub.shapes)
	require.False(t, sink.ended)
}

// Of joined changes of a record in a list, what counts is where they began and where they end.
func TestConflate(t *testing.T) {
	t.Parallel()
	_, _, change := held(t)
	a, b, c := uuid.UUID{1}, uuid.UUID{2}, uuid.UUID{3}
	got := conflate([]pending{
		{news: change(a, 1, "title"), was: false, is: true},
		{news: change(b, 1, "title"), was: true, is: false},
		{news: change(a, 2, "body"), was: true, is: true},
		{news: change(c, 7, "body"), was: true, is: true},
		{news: change(b, 2, "body"), was: false, is: true},
		{news: change(a, 3, "body"), was: true, is: false},
	})
	require.Len(t, got, 3)
	for i, want := range []struct {
		id      uuid.UUID
		version int64
		was, is bool
		also    []string
	}{{c, 7, true, true, nil}, {b, 2, true, true, []string{"title"}}, {a, 3, false, false, []string{"body", "title"}}} {
		require.Equal(t, want.id, got[i].news.key.id)
		require.Equal(t, want.version, got[i].news.change.Version)
		require.Equal(t, want.was, got[i].was)
		require.Equal(t, want.is, got[i].is)
		require.Equal(t, want.also, got[i].also)
		require.Equal(t, i < 2, got[i].nowhere, "the last one's beginning came before the others")
	}

	// Whether the viewer may read it goes along with a change that waits, which is not lost by that.
	doubt := change(a, 3, "")
	doubt.change.Op = 0
	got = conflate([]pending{{news: change(a, 2, "body"), was: true, is: true}, {news: change(b, 9, "title")}, {news: doubt, is: false}})
	require.Len(t, got, 2)
	require.EqualValues(t, 2, got[0].news.change.Version)
	require.False(t, got[0].is)
	require.False(t, got[1].nowhere)

	// A right that is won goes with the record as it was then, not as it was before.
	secret, now := change(a, 2, "body"), change(a, 3, "")
	secret.node, now.node, now.change.Op = &ofModel{1}, &ofModel{2}, 0
	got = conflate([]pending{{news: secret, is: false}, {news: now, is: true}})
	require.Len(t, got, 1)
	require.True(t, got[0].is)
	require.Same(t, now.node, got[0].news.node)
}

// Changes that are joined while a stream reads what it begins with, which has some of them already, are told from what it has.
func TestConflateBeforeTheStart(t *testing.T) {
	t.Parallel()
	a, b, c := uuid.UUID{1}, uuid.UUID{2}, uuid.UUID{3}
	g, _, change := held(t)
	sink := &narrowSink{room: 1000}
	s := &Stream{engine: g, sink: sink, shape: shapeOfThings()}
	g.hub.subscribe(s)
	push := func(xid uint64, id uuid.UUID, version int64, was, is bool) {
		n := change(id, version, "title")
		n.change.Xid = xid
		s.push(pending{news: n, was: was, is: is})
	}
	push(5, a, 1, false, true) // enters the list
	push(5, b, 1, true, false) // leaves it
	push(5, c, 1, false, true)
	push(6, c, 2, true, false)
	for v := range int64(maxPending) {
		push(5, uuid.UUID{9}, v+1, true, true)
	}
	push(15, a, 2, true, false)
	push(15, b, 2, false, true)
	push(15, c, 3, false, true)
	for v := range int64(maxPending) {
		push(15, uuid.UUID{8}, v+1, true, true)
	}
	require.Equal(t, preparing, s.state)
	require.False(t, s.resync)
	snapshot, err := changelog.ParseSnapshot("10:10:")
	require.NoError(t, err)
	s.mu.Lock()
	s.seen = &changelog.Seen{Base: snapshot} // with a, without b and c
	s.mu.Unlock()
	s.Start()
	require.Equal(t, []string{"DELETED 0 []", "CREATED 2 [title]", "CREATED 3 [title]"}, sink.got[:3])
	require.NotContains(t, sink.got[3:], "CREATED 1 [title]")
	s.Close()
}

// A viewer with many streams to render waits for one of each other's, not they for all of theirs. Nobody is many.
func TestViewersTakeTurns(t *testing.T) {
	t.Parallel()
	g, _, _ := held(t)
	h := g.hub
	h.turns.running = maxTurns // so that nobody takes them
	var had []string
	queue := func(who byte, names ...string) {
		for _, name := range names {
			h.queue(uuid.UUID{who}, func() { had = append(had, name) })
		}
	}
	next := func(names ...string) {
		t.Helper()
		had = nil
		for range names {
			_, f := h.next()
			require.NotNil(t, f, "after %v", had)
			f()
		}
		require.Equal(t, names, had)
	}
	nothing := func() {
		t.Helper()
		_, f := h.next()
		require.Nil(t, f)
		require.Equal(t, maxTurns-1, h.turns.running)
		h.turns.running = maxTurns
	}
	over := func(list ...byte) {
		for _, who := range list {
			h.had(uuid.UUID{who})
		}
	}
	queue(1, "1a", "1b", "1c")
	queue(2, "2")
	queue(3, "3")
	next("1a", "2", "3")
	nothing() // while somebody has a turn, theirs is not the next
	over(2, 1, 3)
	queue(4, "4")
	next("1b")
	queue(1, "1d")
	over(1)
	next("4", "1c")
	over(1)
	next("1d")
	over(1, 4)

	queue(0, "0a", "0b", "0c", "0d")
	queue(1, "1e")
	next("0a", "1e", "0b", "0c")
	nothing() // nobody may have all turns
	over(0)
	next("0d")
	over(0, 0, 0, 1)
	require.Empty(t, h.turns.waiting)
	require.Empty(t, h.turns.having)
	require.Empty(t, h.turns.order)
}

// A stream of which there is always more to render has no turn without end.
func TestTurnsEnd(t *testing.T) {
	t.Parallel()
	g, store, change := held(t)
	h := g.hub
	h.turns.running = maxTurns // so that nobody takes them
	sink := &narrowSink{room: 1000}
	stream := func(who byte) *Stream {
		s := &Stream{engine: g, sink: sink, shape: shapeOfThings(), who: asker{Viewer: viewer.Viewer{ID: uuid.UUID{who}}}, state: live}
		s.shape.costly, s.shape.personal[personalKey{store: store}] = true, false
		h.subscribe(s)
		return s
	}
	push := func(s *Stream, many int) {
		for i := range many {
			n := change(uuid.UUID{1, byte(i)}, 1, "title")
			n.node = &ofModel{i}
			s.push(pending{news: n, is: true})
		}
	}
	busy, other := stream(1), stream(2)
	push(busy, 2*maxPrepared)
	push(other, 1)
	for i, want := range []struct {
		stream *Stream
		got    int
	}{{busy, maxPrepared}, {other, maxPrepared + 1}, {busy, 2*maxPrepared + 1}} {
		who, turn := h.next()
		require.Equal(t, want.stream.who.ID, who, i)
		turn()
		h.had(who)
		require.Len(t, sink.got, want.got)
	}
	_, turn := h.next()
	require.Nil(t, turn)
	require.Equal(t, live, busy.state)
}

// One that panics while nobody waits for it ends, and nothing else does.
func TestPanicAside(t *testing.T) {
	t.Parallel()
	g, _, change := held(t)
	sink := &narrowSink{room: 1}
	s := &Stream{engine: g, sink: sink, shape: shapeOfThings(), state: live}
	s.shape.costly = true // and who may see what cannot be found out: it selects what is not defined
	g.hub.subscribe(s)
	n := change(uuid.UUID{1}, 1, "title")
	n.node = &ofModel{}
	s.push(pending{news: n, is: true})
	s.ends(t)
	require.True(t, sink.ended)
	require.Zero(t, g.Stats().Streams)
}

// Who leaves much of what streams begin with untaken gets no more of them, until there is room again. Others do.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	g, store, _ := held(t)
	m := &g.hub.memory
	who := func(n byte) asker { return asker{Viewer: viewer.Viewer{ID: uuid.UUID{n}}, signedIn: true} }
	full := func(n byte) string {
		err := m.room(who(n).ID)
		if err == nil {
			return ""
		}
		e, _ := errors.AsType[*Error](err)
		require.Equal(t, Unavailable, e.Code)
		require.Positive(t, e.RetryAfter)
		return e.Message
	}
	sink := &narrowSink{}
	shape := shapeOfThings()
	shape.personal[personalKey{store, true, ""}] = false
	s := &Stream{engine: g, sink: sink, shape: shape, who: who(1), keys: []recordKey{{"thing", uuid.UUID{1}}}, versions: []int64{0}}
	g.hub.subscribe(s)
	require.Equal(t, itemSize, m.total, "of the record that it names")
	text := &struct {
		ofModel
		Text string
	}{Text: strings.Repeat("x", maxMemoryOfOne)}
	require.GreaterOrEqual(t, sizeOf(text), maxMemoryOfOne)
	require.NoError(t, s.start([]item{{event: &event{kind: snapshotKind, store: store, record: text}}}))
	s.Start()
	require.Contains(t, full(1), "your subscriptions")
	require.Empty(t, full(2))
	_, err := s.look(t.Context())
	require.ErrorContains(t, err, "your subscriptions", "nor does it begin anew")
	sink.room = 10
	s.Resume()
	require.Len(t, sink.got, 1)
	require.Empty(t, full(1))
	require.Equal(t, itemSize, m.total)
	s.Close()
	require.Zero(t, m.total)
	require.Empty(t, m.of)

	for n := range byte(maxMemory/maxMemoryOfOne + 1) {
		require.Empty(t, full(n+10))
		m.charge(uuid.UUID{n + 10}, maxMemoryOfOne-1)
		if full(2) != "" {
			require.Contains(t, full(2), "no room for more")
			return
		}
	}
	require.Fail(t, "there is no end of it")
}

// Others may cause that a stream begins anew; not all the time.
func TestRestartsAreApart(t *testing.T) {
	t.Parallel()
	g, _, _ := held(t)
	sink := &narrowSink{room: 10}
	s := &Stream{engine: g, sink: sink, shape: shapeOfThings(), state: live} // of no records: there is nothing to read them from
	g.hub.subscribe(s)
	defer s.Close()
	var first time.Time // when it first began anew
	for i := range 3 {
		s.lost()
		require.Eventually(t, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(sink.got) == 2*(i+1) && s.state == live // RESYNC and READY
		}, 10*time.Second, time.Millisecond)
		if i == 0 {
			s.mu.Lock()
			first = s.begun
			s.mu.Unlock()
		}
	}
	require.GreaterOrEqual(t, time.Since(first), 2*betweenRestarts)
}

// ends waits until the stream is closed.
func (s *Stream) ends(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.state == closed
	}, 10*time.Second, time.Millisecond)
}

// A change is held against the lists that are about where its record leads, or led, and those that are about no such thing.
func TestListsThatAChangeConcerns(t *testing.T) {
	t.Parallel()
	type row struct {
		ofModel
		Owner, Other uuid.UUID
	}
	owner, other := &Field{index: 1}, &Field{index: 2}
	l := newLists()
	add := func(name string, p *pin) *group {
		return l.join(&group{key: groupKey{filter: name}, pin: p, streams: map[*Stream]struct{}{}})
	}
	a, b := uuid.UUID{1}, uuid.UUID{2}
	groups := []*group{
		add("all", nil), add("a", &pin{owner, a}), add("a, more", &pin{owner, a}), add("b", &pin{owner, b}), add("other a", &pin{other, a}),
	}
	require.Same(t, groups[1], add("a", &pin{owner, a}))
	for _, c := range []struct {
		was, is Node
		want    string
	}{
		{nil, &row{Owner: a, Other: b}, "[a a, more all]"},
		{&row{Owner: a}, &row{Owner: a}, "[a a, more all]"},
		{&row{Owner: a}, &row{Owner: b}, "[a a, more all b]"},
		{&row{Owner: b, Other: a}, nil, "[all b other a]"},
		{&row{}, &row{}, "[all]"},
	} {
		var got []string
		for g := range l.among(c.was, c.is) {
			got = append(got, g.key.filter)
		}
		slices.Sort(got)
		require.Equal(t, c.want, fmt.Sprint(got))
	}
	for _, g := range groups {
		l.leave(g)
	}
	require.Equal(t, newLists(), l)
}

// A record that comes and goes, while a stream reads what it begins with, takes no more than others.
func TestFlipsAreBounded(t *testing.T) {
	t.Parallel()
	g, _, change := held(t)
	s := &Stream{engine: g, sink: &narrowSink{room: 1}, shape: shapeOfThings()}
	g.hub.subscribe(s)
	for v := range int64(3_000) {
		n := change(uuid.UUID{1}, v+1, "title")
		n.change.Xid = 5
		s.push(pending{news: n, was: v%2 == 1, is: v%2 == 0})
	}
	flips := 0
	for _, p := range s.queue {
		flips += len(p.flips)
	}
	require.LessOrEqual(t, flips, 2*maxPending)
}

// A record that ended among joined changes of a list, and another that has its id.
func TestConflateAcrossLives(t *testing.T) {
	t.Parallel()
	g, _, change := held(t)
	sink := &narrowSink{room: 0}
	s := &Stream{engine: g, sink: sink, shape: shapeOfThings(), state: live}
	g.hub.subscribe(s)
	a := uuid.UUID{1}
	push := func(id uuid.UUID, op changelog.Op, version int64, was, is bool) {
		n := change(id, version, "title")
		n.change.Op = op
		s.push(pending{news: n, was: was, is: is})
	}
	push(a, changelog.OpUpdate, 6, true, true)
	push(a, changelog.OpDelete, 7, true, false)
	push(a, changelog.OpInsert, 1, false, true)
	for v := range int64(maxPending) {
		push(uuid.UUID{9}, changelog.OpUpdate, v+1, true, true)
	}
	sink.room = 1000
	s.Resume()
	require.Contains(t, sink.got[0]+"; "+sink.got[1], "DELETED")
}

// However a record comes, changes and goes in a list, in whatever lives, and how much of that the client has already: joined changes lead
// to what it is in the end.
func TestConflateFromAnywhere(t *testing.T) {
	t.Parallel()
	const absent, outside, inside = 0, 1, 2
	const length = 6
	g, _, change := held(t)
	snapshot, err := changelog.ParseSnapshot("10:10:")
	require.NoError(t, err)
	a := uuid.UUID{1}
	try := func(states []int, has int, often bool) string {
		sink := &narrowSink{room: length}
		s := &Stream{engine: g, sink: sink, shape: shapeOfThings(), seen: &changelog.Seen{Base: snapshot}}
		version := int64(1)
		for i := range len(states) - 1 {
			p := pending{was: states[i] == inside, is: states[i+1] == inside}
			op := changelog.OpUpdate
			version++
			switch {
			case states[i] == absent:
				op, version = changelog.OpInsert, 1
			case states[i+1] == absent:
				op = changelog.OpDelete
			}
			if !p.was && !p.is {
				continue
			}
			p.news = change(a, version, "title")
			if p.news.change.Op, p.news.change.Xid = op, 5; i >= has {
				p.news.change.Xid = 15
			}
			if s.queue = append(s.queue, p); often {
				s.queue = conflate(s.queue)
			}
		}
		s.queue = conflate(s.queue)
		s.Start()
		holds := states[has] == inside
		for _, e := range sink.got {
			switch kind, _, _ := strings.Cut(e, " "); {
			case kind == createdKind && !holds:
				holds = true
			case kind == deletedKind && holds:
				holds = false
			case kind != updatedKind || !holds:
				return "wrong: " + e
			}
		}
		if holds != (states[len(states)-1] == inside) {
			return "not told all"
		}
		return ""
	}
	var every func(states []int)
	every = func(states []int) {
		if len(states) > length {
			for has := range states {
				for _, often := range []bool{false, true} {
					require.Empty(t, try(states, has, often), "%v, of which it has %d, joined often: %v", states, has, often)
				}
			}
			return
		}
		for next := range 3 {
			if next != absent || len(states) == 0 || states[len(states)-1] != absent {
				every(append(slices.Clip(states), next))
			}
		}
	}
	every(nil)
}

// One whose account is full does not keep others from beginning anew.
func TestRestartsOfOneWhoHasNoRoom(t *testing.T) {
	t.Parallel()
	g, _, _ := held(t)
	log := &lineCounter{}
	g.log = slog.New(slog.NewTextHandler(log, nil))
	who := func(n byte) asker { return asker{Viewer: viewer.Viewer{ID: uuid.UUID{n}}, signedIn: true} }
	g.hub.memory.charge(uuid.UUID{1}, maxMemoryOfOne)
	var full []*Stream
	for range 2 * maxRestarts {
		s := &Stream{engine: g, who: who(1), sink: &narrowSink{}, shape: shapeOfThings(), state: live}
		g.hub.subscribe(s)
		s.lost()
		full = append(full, s)
	}
	require.Eventually(t, func() bool { return log.lines.Load() >= 2*maxRestarts }, 10*time.Second, time.Millisecond, "all have tried")
	for range maxRestarts {
		g.hub.restarts <- struct{}{}
	}
	for _, s := range full {
		s.mu.Lock()
		require.NotEqual(t, closed, s.state, "it has not tried for the last time yet")
		s.mu.Unlock()
	}
	for range maxRestarts {
		<-g.hub.restarts
	}
	for _, s := range full {
		s.ends(t)
	}
}

type lineCounter struct{ lines atomic.Int64 }

func (l *lineCounter) Write(p []byte) (int, error) {
	l.lines.Add(1)
	return len(p), nil
}

// ofModel is a record that no database has.
type ofModel struct{ n int }

func (*ofModel) ScanTargets([]string) ([]any, error) { return nil, nil }
func (*ofModel) AssignRow([]string, []any) error     { return nil }
