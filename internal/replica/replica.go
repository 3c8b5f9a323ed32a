package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config tunes a [Replica]. The zero value holds the defaults.
type Config struct {
	// Interval is the time between looks at the standby, give or take a quarter. 50 ms by default.
	Interval time.Duration
	// Timeout bounds a look, and so how long what reads there may wait for a standby that is silent. 1 s by default.
	Timeout time.Duration
	// Retry is the pause after a look that failed, give or take a quarter. 500 ms by default.
	Retry time.Duration
	// MaxLag bounds how old what is read may be, whatever its client has seen: a standby is not used that lacks what the primary had so
	// long ago. It is noticed within the same time again. 10 s by default.
	MaxLag time.Duration
	// Logger is told when the standby goes and comes. Default: slog.Default().
	Logger *slog.Logger
}

const (
	// primaryEvery is how many intervals there are between looks at the primary.
	primaryEvery = 20
	// tokenTimeout bounds how long an answer waits for the primary's position: what it has written, it has written.
	tokenTimeout = 5 * time.Second
)

// ErrDown is the cause that the contexts of [Replica.Use] are cancelled with.
var ErrDown = errors.New("the standby is down")

// Replica is a standby, or several at one address, of which each connection may lead to another.
type Replica struct {
	primary, standby *pgxpool.Pool
	cfg              Config

	mu      sync.Mutex // protects what follows
	cluster int64      // the primary's; zero before it was looked at
	at      Position   // of the standby, when it was last looked at or read
	newest  Position   // of the primary, likewise
	floor   Position   // that the standby needs to have for MaxLag
	next    Position   // the floor at the time of rise
	rise    time.Time
	status  Status
	up      context.Context // done when the standby goes; nil while it is away
	down    context.CancelCauseFunc
	told    bool // it is logged that the standby is away
}

// Status is how a [Replica] is.
type Status struct {
	Connected bool
	Since     time.Time // of Connected
	Err       error     // why it is not connected; nil before the first look
	Primary   bool      // the address leads to the primary, or one of its servers does
	Lag       uint64    // bytes of the log between the primary and the standby, as far as is known
	Reads     uint64    // operations that the standby answered
	Behind    uint64    // operations that the primary answered, as the standby was away or not that far
	Failed    uint64    // operations that began on the standby, and were begun again on the primary
}

// New returns a replica of primary, which is not used before [Replica.Run] has looked at it. standby says how to connect: each server has a
// second for that, and for who is silent in the pool, if it does not say how long. The caller calls Close.
func New(ctx context.Context, primary *pgxpool.Pool, standby *pgxpool.Config, cfg *Config) (*Replica, error) {
	r := &Replica{primary: primary, status: Status{Since: time.Now()}}
	if cfg != nil {
		r.cfg = *cfg
	}
	r.cfg.Interval = cmp.Or(r.cfg.Interval, 50*time.Millisecond)
	r.cfg.Timeout = cmp.Or(r.cfg.Timeout, time.Second)
	r.cfg.Retry = cmp.Or(r.cfg.Retry, 500*time.Millisecond)
	r.cfg.MaxLag = cmp.Or(r.cfg.MaxLag, 10*time.Second)
	r.cfg.Logger = cmp.Or(r.cfg.Logger, slog.Default())

	standby = standby.Copy()
	standby.ConnConfig.ConnectTimeout = cmp.Or(standby.ConnConfig.ConnectTimeout, r.cfg.Timeout)
	standby.PingTimeout = cmp.Or(standby.PingTimeout, r.cfg.Timeout)
	prepare := standby.AfterConnect
	standby.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		s, err := ask(ctx, conn, r.cfg.Timeout)
		if err == nil {
			err = r.admit(s)
		}
		if err != nil || prepare == nil {
			return err
		}
		return prepare(ctx, conn)
	}
	var err error
	r.standby, err = pgxpool.NewWithConfig(ctx, standby) // which connects when it is used
	return r, err
}

// Close closes the standby's pool. Run has to have ended.
func (r *Replica) Close() { r.standby.Close() }

// Pool is that of the standby.
func (r *Replica) Pool() *pgxpool.Pool { return r.standby }

// Status says how the replica is.
func (r *Replica) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	if r.at.LSN < r.newest.LSN {
		s.Lag = r.newest.LSN - r.at.LSN
	}
	return s
}

// Use returns a context to read the standby with, which is cancelled when the standby goes, and the least position that has to be found
// there, which is not before after: statements have to see that it is covered. stop has to be called. ok is false where the standby is known
// to be away or not that far.
func (r *Replica) Use(ctx context.Context, after Position) (_ context.Context, least Position, stop context.CancelCauseFunc, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// One that has not followed a promotion stands still, and nobody would notice.
	least = after.Later(r.floor).Later(Position{Timeline: r.newest.Timeline})
	if r.up == nil || !r.at.Covers(least) {
		r.status.Behind++
		return ctx, least, nil, false
	}
	ctx, cancel := context.WithCancelCause(ctx)
	up := r.up
	unhook := context.AfterFunc(up, func() { cancel(context.Cause(up)) })
	return ctx, least, func(cause error) {
		unhook()
		cancel(cause)
	}, true
}

// Read says that an operation read the standby, and up to where.
func (r *Replica) Read(at Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Reads++
	r.at = r.at.Later(at)
}

// Failed says that an operation could not read the standby.
func (r *Replica) Failed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Failed++
}

// Primary returns a position that is not before anything that the primary has shown so far: where it is, or, where it does not answer,
// [Unreached].
func (r *Replica) Primary(ctx context.Context) Position {
	p, err := r.look(ctx, tokenTimeout)
	if err != nil {
		r.cfg.Logger.DebugContext(ctx, "position of the primary", "error", err)
		return Unreached
	}
	return p
}

// look asks the primary.
func (r *Replica) look(ctx context.Context, timeout time.Duration) (Position, error) {
	s, err := ask(ctx, r.primary, timeout)
	if err != nil {
		return Position{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.cluster != r.cluster {
		r.cluster, r.newest, r.rise = s.cluster, Position{}, time.Time{}
	}
	r.newest = r.newest.Later(s.at)
	now := time.Now()
	if now.Sub(r.rise) > r.cfg.MaxLag { // nobody has looked: who knows how long the standby has lagged
		r.next = r.newest
	}
	if now.After(r.rise) {
		r.floor, r.next, r.rise = r.next, r.newest, now.Add(r.cfg.MaxLag)
	}
	return s.at, nil
}

// state is what a server says of itself.
type state struct {
	at        Position
	recovers  bool
	cluster   int64
	isolation string
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// ask asks a server.
func ask(ctx context.Context, db querier, timeout time.Duration) (s state, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = db.QueryRow(ctx, `SELECT here.*, pg_is_in_recovery(), system_identifier, current_setting('transaction_isolation')
		FROM (`+Here+`) here, pg_control_system()`).Scan(append(s.at.Columns(), &s.recovers, &s.cluster, &s.isolation)...)
	return s, err
}

// Run looks at the standby until ctx is done. It returns nil.
func (r *Replica) Run(ctx context.Context) error {
	var conn *pgx.Conn
	disconnect := func() {
		if conn != nil {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.Timeout)
			defer cancel()
			_ = conn.Close(closing)
			conn = nil
		}
	}
	defer disconnect()
	defer r.lost(ctx, context.Canceled)
	for n := 0; ctx.Err() == nil; n++ {
		if n%primaryEvery == 0 {
			_, _ = r.look(ctx, r.cfg.Timeout) // if the primary is away, others say so
			if r.Status().Primary {
				disconnect() // there may be a standby by now
			}
		}
		pause := r.cfg.Interval
		if err := r.visit(ctx, &conn); err != nil {
			disconnect()
			r.lost(ctx, err)
			pause = r.cfg.Retry
			n = -1 // there may be another primary
		}
		select {
		case <-time.After(pause*3/4 + rand.N(pause/2)):
		case <-ctx.Done():
		}
	}
	return nil
}

// visit looks at the standby, over a connection of its own: those of the pool may all be in use.
func (r *Replica) visit(ctx context.Context, conn **pgx.Conn) (err error) {
	if *conn == nil {
		if *conn, err = pgx.ConnectConfig(ctx, r.standby.Config().ConnConfig); err != nil {
			return err
		}
	}
	s, err := ask(ctx, *conn, r.cfg.Timeout)
	if err == nil {
		err = r.admit(s)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.at.Timeline != r.newest.Timeline {
		return fmt.Errorf("it is on timeline %d, the primary on %d", s.at.Timeline, r.newest.Timeline)
	}
	if s.at.Before(r.floor) { // of several, the next connection may lead to another
		return fmt.Errorf("it lacks what the primary had %s ago", r.cfg.MaxLag)
	}
	r.at = s.at
	if r.up == nil {
		r.up, r.down = context.WithCancelCause(context.Background())
		r.told = false
		r.status.Connected, r.status.Since, r.status.Err = true, time.Now(), nil
		r.cfg.Logger.InfoContext(ctx, "standby is used")
	}
	if was := r.status.Primary; was == s.recovers {
		r.status.Primary = !was
		if was {
			r.standby.Reset() // back from the primary
		} else {
			r.cfg.Logger.WarnContext(ctx, "the address of the standby leads to the primary")
		}
	}
	return nil
}

// admit refuses a server whose positions say nothing about the primary's, or about what its statements see.
func (r *Replica) admit(s state) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.cluster == 0:
		return errors.New("the primary has not answered yet")
	case s.cluster != r.cluster:
		return errors.New("it is not a standby of the primary, but of another cluster")
	case s.isolation != "read committed": // one snapshot for all statements, which is from before the position that the first finds
		return fmt.Errorf("its transactions are %s by default, in place of read committed", s.isolation)
	}
	return nil
}

// lost notes that the standby is away.
func (r *Replica) lost(ctx context.Context, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Err = why
	if r.up != nil {
		r.down(ErrDown)
		r.standby.Reset() // what connections there are lead nowhere
		r.up, r.down = nil, nil
		r.status.Connected, r.status.Primary, r.status.Since = false, false, time.Now()
	}
	if ctx.Err() == nil && !r.told {
		r.told = true
		r.cfg.Logger.WarnContext(ctx, "standby is not used", "error", why)
	}
}
