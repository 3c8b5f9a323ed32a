package ratelimit

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// AddressConfig tunes a [PerAddress]. The zero value is the default.
type AddressConfig struct {
	// Chunk is how much a node takes from the store at once. A node asks the store once in so many requests, and all
	// nodes together may grant one Chunk each beyond the Quota. Default a twentieth of the Quota, at least 1.
	Chunk int
	// Timeout bounds how long a request waits for the store. Default 250 ms.
	Timeout time.Duration
	// Logger is told when the store fails and when it answers again. Nil: no log.
	Logger *slog.Logger
}

const (
	// mostAddresses is how many addresses a node remembers before it forgets those that it saw least recently; at
	// about 200 bytes each, and twice as many at most.
	mostAddresses = 1 << 15
	// outage is for how long everything is granted before a store that failed is asked again.
	outage = time.Second
)

// PerAddress limits what each client's address may do on all nodes, without a round trip in most requests: a node
// takes a chunk from the store and spends it by itself. Where the store fails, everything is granted.
type PerAddress struct {
	store   Store
	limit   Limit
	shared  Limit // of chunks, in the store
	chunk   int
	timeout time.Duration
	log     *slog.Logger

	mu         sync.Mutex // protects the fields below, and those of leases
	young, old map[netip.Addr]*lease
	turned     time.Time // when young was made
	failed     bool      // the store, when it was asked last
	pardon     time.Time // until when everything is granted
}

// lease is what a node knows of an address, until a time: how much is left of the chunk, or that it is refused.
type lease struct {
	until   time.Time
	refused bool
	left    int
	beyond  int       // how much more the store had
	reset   time.Time // when the store has all of it again
	filling chan struct{}
}

// NewPerAddress returns a limiter that takes from store.
func NewPerAddress(store Store, l Limit, cfg *AddressConfig) (*PerAddress, error) {
	if _, err := l.cell(); err != nil {
		return nil, err
	}
	if cfg == nil {
		cfg = &AddressConfig{}
	}
	p := &PerAddress{
		store: store, limit: l, timeout: cfg.Timeout, log: cfg.Logger, turned: time.Now(),
		chunk: cfg.Chunk, young: map[netip.Addr]*lease{},
	}
	if p.chunk == 0 {
		p.chunk = l.Quota / 20
	}
	p.chunk = min(max(p.chunk, 1), l.Quota)
	if p.timeout == 0 {
		p.timeout = 250 * time.Millisecond
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	// As many chunks as there are in the quota, each worth so many takes: the same rate.
	p.shared = Limit{Name: l.Name, Quota: l.Quota / p.chunk, Window: l.Window}
	return p, nil
}

// Take grants or refuses one request of an address, or of its network of 64 bits (IPv6). It returns an error only
// where ctx is done while another request of the address asks the store.
func (p *PerAddress) Take(ctx context.Context, a netip.Addr) (Result, error) {
	a = network(a)
	for {
		r, l, wait := p.spend(a)
		switch {
		case l == nil:
			return r, nil
		case wait == nil:
			p.fill(ctx, a, l)
		default:
			select {
			case <-wait:
			case <-ctx.Done():
				return Result{}, ctx.Err()
			}
		}
	}
}

// spend answers from what the node knows. Else it returns the address's lease, and what to wait for, or nil where the
// caller is the one to fill it.
func (p *PerAddress) spend(a netip.Addr) (r Result, empty *lease, wait <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Before(p.pardon) {
		return Result{Limit: p.limit, OK: true, Remaining: p.limit.Quota}, nil, nil
	}
	l := p.find(a, now)
	r = Result{Limit: p.limit, ResetAfter: max(l.reset.Sub(now), 0)}
	switch {
	case now.Before(l.until) && l.refused:
		r.RetryAfter = l.until.Sub(now)
		return r, nil, nil
	case now.Before(l.until) && l.left > 0:
		l.left--
		r.OK, r.Remaining = true, l.left+l.beyond
		return r, nil, nil
	case l.filling != nil:
		return Result{}, l, l.filling
	}
	l.filling = make(chan struct{})
	return Result{}, l, nil
}

// find returns the lease of an address, and forgets addresses that were not seen for a Window, or where there are too
// many. p.mu is held.
func (p *PerAddress) find(a netip.Addr, now time.Time) *lease {
	if len(p.young) >= mostAddresses || now.Sub(p.turned) >= p.limit.Window {
		p.old, p.young, p.turned = p.young, map[netip.Addr]*lease{}, now
	}
	l := p.young[a]
	if l == nil {
		if l = p.old[a]; l == nil {
			l = &lease{}
		}
		p.young[a] = l
	}
	return l
}

// fill takes a chunk for an address. It does not end with the request that happened to need it first.
func (p *PerAddress) fill(ctx context.Context, a netip.Addr, l *lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.timeout)
	defer cancel()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		close(l.filling)
		l.filling = nil
	}()
	r, err := p.store.Take(ctx, a.String(), p.shared)

	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if failed := err != nil; failed != p.failed {
		p.failed = failed
		if failed {
			p.log.WarnContext(ctx, "rate limit is not enforced", "limit", p.limit.Name, "error", err)
		} else {
			p.log.InfoContext(ctx, "rate limit is enforced again", "limit", p.limit.Name)
		}
	}
	switch {
	case err != nil:
		p.pardon = now.Add(outage)
	case r.OK:
		l.refused, l.left, l.beyond = false, p.chunk, r.Remaining*p.chunk
		l.until, l.reset = now.Add(p.limit.Window), now.Add(r.ResetAfter)
	default:
		l.refused, l.until, l.reset = true, now.Add(r.RetryAfter), now.Add(r.ResetAfter)
	}
}
