package main

import (
	"cmp"
	"fmt"
	"time"

	"godstack/internal/app"
)

const (
	// longest is the longest time that may be said, and shortest the shortest but none.
	longest  = 24 * time.Hour
	shortest = time.Millisecond
	// productionDelay is SHUTDOWN_DELAY where nobody says, in production: what balancers that ask each second take to notice.
	productionDelay = 3 * time.Second
)

// period is a time there has to be.
type period time.Duration

func (p *period) UnmarshalText(text []byte) error {
	d, ok := duration(text)
	if !ok || d == 0 {
		return fmt.Errorf("%q is no time from %s to %s, such as 500ms, 30s or 1m30s", text, shortest, longest)
	}
	*p = period(d)
	return nil
}

// timeout is a time, or none: 0 in the environment, and negative here, where 0 stands for what is not said.
type timeout time.Duration

func (t *timeout) UnmarshalText(text []byte) error {
	d, ok := duration(text)
	switch {
	case !ok:
		return fmt.Errorf("%q is neither 0 nor a time from %s to %s, such as 500ms, 30s or 1m30s", text, shortest, longest)
	case d == 0:
		d = -1
	}
	*t = timeout(d)
	return nil
}

// duration reads a time within bounds, or 0.
func duration(text []byte) (d time.Duration, ok bool) {
	d, err := time.ParseDuration(string(text))
	return d, err == nil && (d == 0 || d >= shortest && d <= longest)
}

// bounded is a program's configuration with what bounds its load, and its end.
func (c config) bounded(a app.Config) app.Config {
	a.Timeouts = app.Timeouts{Statement: time.Duration(c.StatementTimeout), Transaction: time.Duration(c.TransactionTimeout)}
	a.Server.Load.Turns, a.Server.Load.Waiting = int(c.OperationTurns), int(c.OperationQueue)
	a.Server.Load.Patience = time.Duration(c.OperationWait)
	a.Server.OperationTimeout = time.Duration(c.RequestTimeout)
	a.Server.ShutdownTimeout = time.Duration(c.ShutdownTimeout)
	delay := time.Duration(c.ShutdownDelay)
	if c.Env == production {
		delay = cmp.Or(delay, productionDelay)
	}
	a.Server.ShutdownDelay = max(delay, 0)
	return a
}
