package record

import "godstack/internal/changelog"

// Before is before, for tests with generated entities.
func (s *Store) Before(n Node, c changelog.Change) (Node, map[string]linkChange, error) {
	return s.before(n, c)
}
