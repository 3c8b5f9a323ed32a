package record

import (
	"context"
	"sync"
	"time"
)

// turns has those who want the same go one after another, in the order in which they came. The zero value is one where nobody waits.
type turns[K comparable] struct {
	mu sync.Mutex // protects of, and the number in each
	of map[K]*turn
}

// turn is whoever goes, and who waits.
type turn struct {
	taken chan struct{} // full while somebody goes
	n     int           // how many go or wait
}

// take waits until all have left who came before for the same, for so long at most: then it fails with what errKeyInUse says. It also
// fails when ctx ends. Whoever gets their turn calls leave.
func (t *turns[K]) take(ctx context.Context, k K, atMost time.Duration) (leave func(), err error) {
	mine := t.come(k)
	select {
	case mine.taken <- struct{}{}: // without a timer, as for most
	default:
		if err := mine.wait(ctx, atMost); err != nil {
			t.gone(k, mine)
			return nil, err
		}
	}
	return func() {
		<-mine.taken
		t.gone(k, mine)
	}, nil
}

func (t *turns[K]) come(k K) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[K]*turn{}
	}
	mine := t.of[k]
	if mine == nil {
		mine = &turn{taken: make(chan struct{}, 1)}
		t.of[k] = mine
	}
	mine.n++
	return mine
}

// gone forgets one, and the turn with the last.
func (t *turns[K]) gone(k K, mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine.n--; mine.n == 0 {
		delete(t.of, k)
	}
}

func (m *turn) wait(ctx context.Context, atMost time.Duration) error {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case m.taken <- struct{}{}:
		return nil
	case <-timer.C:
		return errKeyInUse(nil)
	case <-ctx.Done():
		return ctx.Err()
	}
}
