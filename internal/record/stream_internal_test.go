package record

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// Quiet reports whether all that was delivered to the engine has reached its streams' sinks.
func (g *Engine) Quiet() bool {
	h := g.hub
	h.inbox.Lock()
	busy := h.inbox.busy
	h.inbox.Unlock()
	if busy {
		return false
	}
	for _, s := range h.all() {
		s.mu.Lock()
		waits := s.state != closed && (s.state != live || s.resync || len(s.ahead)+len(s.queue) > 0)
		s.mu.Unlock()
		if waits {
			return false
		}
	}
	return true
}

// Followed counts what the hub holds: streams, and the entries of its maps.
func (g *Engine) Followed() map[string]int {
	h := g.hub
	h.mu.RLock()
	defer h.mu.RUnlock()
	m := map[string]int{
		"streams": h.streams, "records": len(h.records), "through": len(h.through), "depends": len(h.depends), "shapes": len(h.shapes),
		"entities": len(h.lists),
	}
	for _, l := range h.lists {
		m["lists"] += len(l.groups) + len(l.pinned) + len(l.loose) + len(l.edges)
	}
	return m
}

// Held is how many bytes streams hold.
func (g *Engine) Held() int {
	m := &g.hub.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}

// MaxMemoryOfOne is how many those of a viewer may be.
const MaxMemoryOfOne = maxMemoryOfOne

// Waiting counts what waits for a turn.
func (g *Engine) Waiting() (n int) {
	t := &g.hub.turns
	t.Lock()
	defer t.Unlock()
	for _, list := range t.waiting {
		n += len(list)
	}
	return n
}

// MaxRound is how many changes are read together.
const MaxRound = maxRound

// MaxTurns is how many streams read what their records lead to at the same time.
const MaxTurns = maxTurns

// A stream that was closed while somebody looked up what it depends on follows nothing.
func TestClosedStreamsFollowNothing(t *testing.T) {
	t.Parallel()
	g, _, _ := held(t)
	s := &Stream{engine: g, sink: &narrowSink{}, shape: shapeOfThings(), keys: []recordKey{{"thing", uuid.UUID{1}}}, versions: []int64{unheld}}
	g.hub.subscribe(s)
	keys := map[recordKey]struct{}{{"thing", uuid.UUID{2}}: {}}
	require.True(t, g.hub.follow(s, keys))
	s.Close()
	require.False(t, g.hub.follow(s, keys))
	for name, n := range g.Followed() {
		require.Zero(t, n, name)
	}
}
