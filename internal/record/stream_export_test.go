package record

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
		"lists": 0,
	}
	for _, groups := range h.lists {
		m["lists"] += len(groups)
	}
	return m
}
