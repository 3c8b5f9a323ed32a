package record

import "github.com/google/uuid"

// AtKey is how many go with an idempotency key here, or wait for it.
func (g *Engine) AtKey(user uuid.UUID, key string) int {
	g.keys.mu.Lock()
	defer g.keys.mu.Unlock()
	if t := g.keys.of[keyHolder{user, key}]; t != nil {
		return t.n
	}
	return 0
}
