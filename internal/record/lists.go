package record

import (
	"iter"
	"reflect"

	"github.com/google/uuid"
)

// group is the streams that list what one filter describes.
type group struct {
	store   *Store
	key     groupKey
	where   Input
	match   *match
	pin     *pin                 // what all records of the list have, if the filter names it
	streams map[*Stream]struct{} // protected by the hub's mu
}

type groupKey struct {
	filter string
	who    asker // where the filter does not mean the same for everybody
}

// pin is where an edge leads.
type pin struct {
	field *Field
	id    uuid.UUID
}

// lists is the groups of one entity, under the hub's mu. A change of a record is held against those that are about where it leads, and
// those that are about no such thing; not against each.
type lists struct {
	groups map[groupKey]*group
	pinned map[pin]map[*group]struct{}
	loose  map[*group]struct{}
	edges  map[*Field]int // how many groups are pinned by each
}

func newLists() *lists {
	return &lists{map[groupKey]*group{}, map[pin]map[*group]struct{}{}, map[*group]struct{}{}, map[*Field]int{}}
}

// newGroup makes the group of a filter.
func newGroup(s *Store, who asker, where Input) (*group, error) {
	m, err := s.compile(who, where)
	if err != nil {
		return nil, err
	}
	g := &group{store: s, key: groupKey{filter: m.key()}, where: where, match: m, streams: map[*Stream]struct{}{}}
	if m.personal() {
		g.key.who = who
	}
	for i := range s.Edges {
		if f := s.Edges[i].field; f != nil && g.pin == nil {
			if id, pinned := m.pinned(f); pinned {
				g.pin = &pin{f, id}
			}
		}
	}
	return g, nil
}

// join adds a group. One that is there already takes the place.
func (l *lists) join(g *group) *group {
	if there := l.groups[g.key]; there != nil {
		return there
	}
	l.groups[g.key] = g
	if g.pin == nil {
		l.loose[g] = struct{}{}
		return g
	}
	if l.pinned[*g.pin] == nil {
		l.pinned[*g.pin] = map[*group]struct{}{}
	}
	l.pinned[*g.pin][g] = struct{}{}
	l.edges[g.pin.field]++
	return g
}

// leave undoes join.
func (l *lists) leave(g *group) {
	delete(l.groups, g.key)
	if g.pin == nil {
		delete(l.loose, g)
		return
	}
	if delete(l.pinned[*g.pin], g); len(l.pinned[*g.pin]) == 0 {
		delete(l.pinned, *g.pin)
	}
	if l.edges[g.pin.field]--; l.edges[g.pin.field] == 0 {
		delete(l.edges, g.pin.field)
	}
}

// among returns the groups that may have a record as it was, or as it is; either may be nil.
func (l *lists) among(was, is Node) iter.Seq[*group] {
	return func(yield func(*group) bool) {
		for g := range l.loose {
			if !yield(g) {
				return
			}
		}
		for f := range l.edges {
			var before any
			for _, n := range []Node{was, is} {
				if n == nil {
					continue
				}
				id, leads := f.value(reflect.ValueOf(n)).(uuid.UUID)
				if !leads || before == any(id) {
					continue
				}
				before = id
				for g := range l.pinned[pin{f, id}] {
					if !yield(g) {
						return
					}
				}
			}
		}
	}
}

// streams returns those of all groups; of no lists, none.
func (l *lists) streams() iter.Seq[*Stream] {
	return func(yield func(*Stream) bool) {
		if l == nil {
			return
		}
		for _, g := range l.groups {
			for s := range g.streams {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// listed says whether the list has a record before a change, and after it.
func (g *group) listed(was, is Node) listed {
	return listed{was: was != nil && g.match.holds(was), is: is != nil && g.match.holds(is)}
}
