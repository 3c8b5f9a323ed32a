package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"runtime"
	"slices"

	"godstack/internal/app"
)

// counts are what one request takes, apart from time. Statements and round trips are medians, so that what goes on in the background now
// and then is not in them; allocations are means.
type counts struct {
	statements, trips int64
	allocs, bytes     uint64
}

// The number of requests that are counted, after others that fill caches.
const (
	counted = 200
	warming = 50
)

// countAll counts for each operation, by its name, and for each target. The servers run in this process for that, one at a time, and
// reach the Postgres at rawURL through a wire whose socket is in folder dir.
func countAll(ctx context.Context, d *data, rules bool, rawURL, dir string) (_ map[string][2]counts, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	w, err := listenWire(dir, q.Get("host"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	q.Set("host", dir)
	u.RawQuery = q.Encode()

	all := map[string][2]counts{}
	for target := range targetNames {
		addr, stop, err := startHere(ctx, d, target, rules, u.String())
		if err != nil {
			return nil, err
		}
		for i := range operations {
			op := &operations[i]
			c, err := countOne(d, w, op, target, addr)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("%s of %s: %w", op.name, targetNames[target], err), stop())
			}
			both := all[op.name]
			both[target] = c
			all[op.name] = both
		}
		if err := stop(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// startHere starts a server in this process.
func startHere(ctx context.Context, d *data, target int, rules bool, url string) (addr string, stop func() error, err error) {
	if target == baseline {
		return startBaseline(ctx, url)
	}
	a, err := app.Start(ctx, appConfig(url, d.keys, rules))
	if err != nil {
		return "", nil, err
	}
	return a.Addr().String(), a.Close, nil
}

func countOne(d *data, w *wire, op *operation, target int, addr string) (counts, error) {
	c, err := dial(addr)
	if err != nil {
		return counts{}, err
	}
	defer c.close()
	tokens, err := d.signIn()
	if err != nil {
		return counts{}, err
	}
	// Requests are made beforehand, since what that allocates is not the server's.
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // no secrets
	requests := make([][]byte, warming+counted)
	for i := range requests {
		in, thread := op.input(d, random, target, 0, 1)
		requests[i] = op.appendRequest(nil, target, tokens, in)
		if op.writes {
			d.versions[target][thread]++
		}
	}
	for _, r := range requests[:warming] {
		if _, err := c.do(r); err != nil {
			return counts{}, err
		}
	}
	var before, after runtime.MemStats
	statements, trips := make([]int64, counted), make([]int64, counted)
	runtime.ReadMemStats(&before)
	for i, r := range requests[warming:] {
		statements[i], trips[i] = -w.statements.Load(), -w.trips.Load()
		if _, err := c.do(r); err != nil {
			return counts{}, err
		}
		statements[i] += w.statements.Load()
		trips[i] += w.trips.Load()
	}
	runtime.ReadMemStats(&after)
	return counts{
		statements: median(statements), trips: median(trips),
		allocs: (after.Mallocs - before.Mallocs) / counted, bytes: (after.TotalAlloc - before.TotalAlloc) / counted,
	}, nil
}

// median is the value in the middle of some, which it sorts.
func median[T cmp.Ordered](values []T) T { return quantile(values, 0.5) }

// quantile is the value that the share q of some values is below. It sorts them.
func quantile[T cmp.Ordered](values []T, q float64) T {
	slices.Sort(values)
	return values[min(int(q*float64(len(values))), len(values)-1)]
}
