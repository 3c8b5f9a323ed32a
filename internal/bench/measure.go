package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
)

// concurrencies are the numbers of clients that ask at the same time, each on a connection of its own.
var concurrencies = []int{1, 8}

// slice is what one turn of one server gave.
type slice struct {
	requests  int
	server    time.Duration // CPU time
	postgres  time.Duration // CPU time
	latencies []time.Duration
}

// cpu is the CPU time of a request, both parts of it.
func (s slice) cpu() time.Duration { return (s.server + s.postgres) / time.Duration(s.requests) }

// series are the slices of one operation with one number of clients, by target; the two of one index were neighbours.
type series struct {
	op      *operation
	clients int
	slices  [2][]slice
}

// measure takes slices until the deadline, and one of each at least.
func measure(ctx context.Context, r *report, s servers, deadline time.Time) error {
	l := &load{data: r.data, servers: s}
	defer l.close()
	for _, se := range r.series { // connections, prepared statements, caches
		for target := range s {
			if _, err := l.turn(ctx, se.op, target, se.clients, r.cfg.slice); err != nil {
				return err
			}
		}
	}
	round := 2 * r.cfg.slice * time.Duration(len(r.series))
	for n := 0; n == 0 || time.Until(deadline) > round; n++ {
		for _, se := range r.series {
			for turn := range s {
				target := (turn + n) % 2 // neither is always the one whose caches the other has just filled
				sl, err := l.turn(ctx, se.op, target, se.clients, r.cfg.slice)
				if err != nil {
					return err
				}
				se.slices[target] = append(se.slices[target], sl)
			}
		}
	}
	return nil
}

// load makes requests.
type load struct {
	data    *data
	servers servers
	clients [2][]*client
}

func (l *load) close() {
	for _, cs := range l.clients {
		for _, c := range cs {
			c.close()
		}
	}
}

// turn has a number of clients ask one server, one request after the other, for about as long as told.
func (l *load) turn(ctx context.Context, op *operation, target, clients int, lasts time.Duration) (slice, error) {
	p := l.servers[target]
	for len(l.clients[target]) < clients {
		c, err := dial(p.addr)
		if err != nil {
			return slice{}, err
		}
		l.clients[target] = append(l.clients[target], c)
	}
	before, err := l.data.cpuTimes(ctx, p)
	if err != nil {
		return slice{}, err
	}
	latencies := make([][]time.Duration, clients)
	end := time.Now().Add(lasts)
	var g errgroup.Group
	for n := range clients {
		g.Go(func() error {
			c, random := l.clients[target][n], rand.New(rand.NewPCG(rand.Uint64(), 0)) //nolint:gosec // no secrets
			for began := time.Now(); began.Before(end) && ctx.Err() == nil; began = time.Now() {
				in, thread := op.input(l.data, random, target, n, clients)
				c.out = op.appendRequest(c.out[:0], target, p.tokens, in)
				sent := time.Now()
				if _, err := c.do(c.out); err != nil {
					return fmt.Errorf("%s of %s: %w", op.name, targetNames[target], err)
				}
				latencies[n] = append(latencies[n], time.Since(sent))
				if op.writes {
					l.data.versions[target][thread]++
				}
			}
			return nil
		})
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil {
		return slice{}, err
	}
	var s slice
	if s.server, s.postgres, err = l.data.cpuSince(ctx, p, before); err != nil {
		return slice{}, err
	}
	for _, ls := range latencies {
		s.requests += len(ls)
		s.latencies = append(s.latencies, ls...)
	}
	return s, nil
}

// cpuTimes are the CPU times of a server and of its backends, by process id.
func (d *data) cpuTimes(ctx context.Context, p *process) (map[int]time.Duration, error) {
	pids, err := d.backends(ctx, p.app)
	if err != nil {
		return nil, fmt.Errorf("find the backends of %s: %w", p.app, err)
	}
	times := map[int]time.Duration{}
	for _, pid := range append(pids, p.cmd.Process.Pid) {
		if times[pid], err = cpuTime(pid); err != nil {
			return nil, err
		}
	}
	return times, nil
}

// cpuSince is the CPU time that a server and its backends have used since before, which cpuTimes gave.
func (d *data) cpuSince(ctx context.Context, p *process, before map[int]time.Duration) (server, postgres time.Duration, err error) {
	after, err := d.cpuTimes(ctx, p)
	for pid, used := range after {
		if used -= before[pid]; pid == p.cmd.Process.Pid {
			server += used
		} else {
			postgres += used
		}
	}
	return server, postgres, err
}
