// Package turn has those take turns who would otherwise do something all at once: a bounded number at a time, a bounded number who wait,
// and who waits too long is refused, as is who comes when too many do.
//
// Guarantees:
//   - No more turns are taken at a time than there are, and none is lost, whoever gives up when (TestTurnsAreBounded, TestEverybodyAtOnce).
//   - Who is refused is so at once, or after Config.Patience (TestRefusals), and is told to come again after a time of chance, so that
//     those who are refused together do not come together (TestRefused).
//   - One share, such as of one user, has at most half of the turns, or more as long as a quarter stays free, and half of the places to
//     wait: somebody else always finds one (TestOneShareIsNotAll). One may always be had (TestAShareHasATurn).
//   - Who came first goes first among those whose shares allow it; who wants several turns is not passed by those who want few
//     (TestOrder).
//   - Where a turn is free, taking and giving it allocates nothing (BenchmarkTake).
//
// It is a leaf: it imports the standard library alone.
package turn

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config bounds a Queue.
type Config struct {
	// Turns is how many may be taken at a time. Required.
	Turns int
	// Waiting is how many may wait for one. Default 256 for each turn.
	Waiting int
	// Patience is how long one may wait. Default 2 s.
	Patience time.Duration
}

// Reason says why somebody is refused.
type Reason string

// The reasons.
const (
	Full    Reason = "full"    // as many wait as may
	Crowded Reason = "crowded" // as many of the same share
	Late    Reason = "late"    // patience was over
)

// Reasons are all of them.
func Reasons() []Reason { return []Reason{Full, Crowded, Late} }

// Refused is who gets no turn.
type Refused struct {
	Reason Reason
	// After is when to come again: between one second and five.
	After time.Duration
}

func (r *Refused) Error() string { return "no turn: " + string(r.Reason) }

// refuse returns a refusal.
func refuse(why Reason) *Refused {
	return &Refused{Reason: why, After: time.Second + rand.N(4*time.Second).Truncate(time.Millisecond)}
}

// Stats say how it stands, and whom a Queue has refused since it was made.
type Stats struct {
	Turns   int // that there are
	Taken   int // now
	Waiting int // now
	Refused map[Reason]uint64
}

// Queue gives turns. K names shares: what should not have all of them. Its zero value stands for none.
type Queue[K comparable] struct {
	cfg   Config
	half  int // of the turns
	spare int // what is left to others by who has half

	refused [3]atomic.Uint64 // in the order of Reasons

	mu      sync.Mutex // protects what follows
	free    int
	having  map[K]int // turns, by share
	waiting map[K]int // those who wait, by share
	line    []*waiter[K]
}

// waiter is somebody who waits.
type waiter[K comparable] struct {
	turns  int
	shares [2]K
	called chan struct{} // closed when it has its turns
}

// New returns a queue. The error names what is wrong with cfg.
func New[K comparable](cfg Config) (*Queue[K], error) {
	switch {
	case cfg.Turns < 1:
		return nil, errors.New("turn: Turns must be positive")
	case cfg.Waiting < 0:
		return nil, errors.New("turn: Waiting is negative")
	case cfg.Patience < 0:
		return nil, errors.New("turn: Patience is negative")
	}
	cfg.Waiting = cmp.Or(cfg.Waiting, 256*cfg.Turns)
	cfg.Patience = cmp.Or(cfg.Patience, 2*time.Second)
	return &Queue[K]{
		cfg: cfg, half: max(1, cfg.Turns/2), spare: max(1, cfg.Turns/4), free: cfg.Turns, having: map[K]int{}, waiting: map[K]int{},
	}, nil
}

// Take returns when the caller has its turns, as many as it asks for, from 1 to half of them. Who took them gives them back, the same.
// The error is a *Refused, or that of ctx.
func (q *Queue[K]) Take(ctx context.Context, turns int, shares [2]K) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	turns = q.Most(turns)
	q.mu.Lock()
	if q.free >= turns && !q.crowded(turns, shares) && q.first() < 0 {
		q.grant(turns, shares)
		q.mu.Unlock()
		return nil
	}
	w, why := q.lineUp(turns, shares)
	q.mu.Unlock()
	if why != "" {
		return q.count(why)
	}
	return q.await(ctx, w)
}

// Give gives turns back that were taken so.
func (q *Queue[K]) Give(turns int, shares [2]K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.give(q.Most(turns), shares)
}

// Most is how many turns one gets who asks for so many.
func (q *Queue[K]) Most(turns int) int { return min(max(turns, 1), q.half) }

// lineUp has somebody wait, or says why not. It wants mu, as do those below that do not say otherwise.
func (q *Queue[K]) lineUp(turns int, shares [2]K) (w *waiter[K], why Reason) {
	if len(q.line) >= q.cfg.Waiting {
		return nil, Full
	}
	var none K
	for _, k := range shares {
		if k != none && q.waiting[k] >= max(1, q.cfg.Waiting/2) {
			return nil, Crowded
		}
	}
	w = &waiter[K]{turns, shares, make(chan struct{})}
	q.line = append(q.line, w)
	add(q.waiting, shares, 1)
	return w, ""
}

// await waits for w's turn. It takes mu itself.
func (q *Queue[K]) await(ctx context.Context, w *waiter[K]) error {
	patience := time.NewTimer(q.cfg.Patience)
	defer patience.Stop()
	select {
	case <-w.called:
		return nil
	case <-patience.C:
		if q.leave(w, false) {
			return q.count(Late)
		}
		return nil // it was called just now
	case <-ctx.Done():
		q.leave(w, true)
		return ctx.Err()
	}
}

// leave takes somebody out of the line who gives up. Who was called meanwhile keeps what they have, and leave says false, or gives it
// back. It takes mu itself.
func (q *Queue[K]) leave(w *waiter[K], back bool) (left bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.line, w)
	switch {
	case i >= 0:
		q.remove(i)
		q.call() // it may have wanted many, for which others waited
		return true
	case back:
		q.give(w.turns, w.shares)
	}
	return false
}

// give gives turns back.
func (q *Queue[K]) give(turns int, shares [2]K) {
	q.free += turns
	add(q.having, shares, -turns)
	q.call()
}

// call gives turns to those who wait, as long as there are any.
func (q *Queue[K]) call() {
	for q.free > 0 {
		i := q.first()
		if i < 0 || q.line[i].turns > q.free {
			return
		}
		w := q.line[i]
		q.remove(i)
		q.grant(w.turns, w.shares)
		close(w.called)
	}
}

// first is the place of who is next: the first whose shares allow it; -1 where nobody is.
func (q *Queue[K]) first() int {
	return slices.IndexFunc(q.line, func(w *waiter[K]) bool { return !q.crowded(w.turns, w.shares) })
}

// crowded reports whether one of the shares has what it may, and too little is free to let it have more.
func (q *Queue[K]) crowded(turns int, shares [2]K) bool {
	if q.free-turns >= q.spare {
		return false
	}
	var none K
	for _, k := range shares {
		if k == none {
			continue
		}
		if had := q.having[k]; had > 0 && had+turns > q.half {
			return true
		}
	}
	return false
}

func (q *Queue[K]) grant(turns int, shares [2]K) {
	q.free -= turns
	add(q.having, shares, turns)
}

func (q *Queue[K]) remove(i int) {
	add(q.waiting, q.line[i].shares, -1)
	q.line = slices.Delete(q.line, i, i+1)
}

// add changes the figures of shares, and forgets those that are nought.
func add[K comparable](m map[K]int, shares [2]K, n int) {
	var none K
	for i, k := range shares {
		if k == none || i == 1 && k == shares[0] {
			continue
		}
		if m[k] += n; m[k] == 0 {
			delete(m, k)
		}
	}
}

// count counts a refusal. It does not want mu.
func (q *Queue[K]) count(why Reason) *Refused {
	q.refused[slices.Index(Reasons(), why)].Add(1)
	return refuse(why)
}

// Stats returns the figures.
func (q *Queue[K]) Stats() Stats {
	q.mu.Lock()
	s := Stats{Turns: q.cfg.Turns, Taken: q.cfg.Turns - q.free, Waiting: len(q.line), Refused: map[Reason]uint64{}}
	q.mu.Unlock()
	for i, why := range Reasons() {
		s.Refused[why] = q.refused[i].Load()
	}
	return s
}
