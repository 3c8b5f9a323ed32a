package auth

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/changelog"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// following is a node that follows the log, as nodes of the program do.
func (b *bundle) following(t testing.TB) *Service {
	t.Helper()
	var s *Service
	tailer, err := changelog.NewTailer(b.pool.Config().ConnConfig, func(ctx context.Context, batch changelog.Batch) { s.Deliver(ctx, batch) },
		&changelog.Config{Logger: b.deps.Logger})
	require.NoError(t, err)
	deps := b.deps
	deps.Lag = tailer.Lag
	s, err = New(deps, &b.conf)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tailer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	require.Eventually(t, func() bool {
		_, complete := s.revoked.judge(viewer.Viewer{})
		return complete
	}, 10*time.Second, time.Millisecond)
	return s
}

// unhelped keeps a node from asking the database: what it knows then, it has from the log.
func unhelped(s *Service) { s.deps.Lag = func() time.Duration { return 0 } }

// watching is somebody who watches a viewer.
type watching struct {
	ended   chan struct{}
	renewed chan time.Time
}

func newWatching() watching { return watching{make(chan struct{}), make(chan time.Time, 10)} }

func (w watching) Ended()                  { close(w.ended) }
func (w watching) Renewed(until time.Time) { w.renewed <- until }

// within a second, the promise; a test machine may be slower.
const soon = 5 * time.Second

func TestRevocationReachesOtherNodes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	root := viewer.Viewer{ID: b.user(t, "root", viewer.Admin), Role: viewer.Admin}
	other := b.following(t)
	for name, revoke := range map[string]func(p *Payload) error{
		"logout": func(p *Payload) error {
			_, err := b.Logout(as(*p.Viewer))
			return err
		},
		"everywhere": func(p *Payload) error {
			_, err := b.LogoutEverywhere(as(*p.Viewer))
			return err
		},
		"session": func(p *Payload) error {
			_, err := b.RevokeSession(as(root), record.ID{Prefix: "session", UUID: p.Viewer.Session})
			return err
		},
		"role": func(p *Payload) error {
			_, err := b.SetRole(as(root), globalID(p.Viewer.ID), viewer.Moderator)
			return err
		},
		"typed": func(p *Payload) error {
			_, err := b.pool.Exec(context.Background(), `UPDATE users SET role = 'moderator' WHERE id = $1`, p.Viewer.ID)
			return err
		},
		"deleted": func(p *Payload) error {
			_, err := b.pool.Exec(context.Background(), `DELETE FROM users WHERE id = $1`, p.Viewer.ID)
			return err
		},
	} {
		b.user(t, "u_"+name[:4])
		p := b.login(t, "u_"+name[:4])
		bystander := b.login(t, "root")
		require.NoError(t, asks(other, p))
		watcher, untouched := newWatching(), newWatching()
		stop := other.Watch(*p.Viewer, watcher)
		stopToo := other.Watch(*bystander.Viewer, untouched)

		began := time.Now()
		require.NoError(t, revoke(p), name)
		select {
		case <-watcher.ended:
			t.Logf("%s: after %s", name, time.Since(began).Round(time.Millisecond))
		case <-time.After(soon):
			require.Fail(t, "not within a second", name)
		}
		refused(t, asks(other, p), record.Unauthenticated)
		require.NoError(t, asks(other, bystander))
		select {
		case <-untouched.ended:
			require.Fail(t, "another session ended", name)
		default:
		}
		stop()
		stopToo()

		late := newWatching() // is told at once
		stop = other.Watch(*p.Viewer, late)
		<-late.ended
		stop()
	}
	require.Empty(t, other.revoked.bySession)
	require.Empty(t, other.revoked.byUser)
}

// TestRenewalReachesOtherNodes holds that who watches a session of cookies learns until when its newest access token is good, on every
// node, and no longer than the session lasts.
func TestRenewalReachesOtherNodes(t *testing.T) {
	t.Parallel()
	for _, storage := range []TokenStorage{InHeader, InCookie, InBoth} {
		b := setup(t, func(_ *Deps, c *Config) { c.Storage = storage })
		b.user(t, "ada")
		ctx, answer := request()
		p, err := b.Login(ctx, LoginInput{Login: "ada", Password: password})
		require.NoError(t, err)
		other, w, bystander := b.following(t), newWatching(), newWatching()
		defer other.Watch(*p.Viewer, w)()
		defer other.Watch(*b.login(t, "ada").Viewer, bystander)()

		refresh := func() *Payload {
			if storage == InHeader {
				p, err = b.Refresh(plain(), p.RefreshToken)
			} else {
				ctx, answer = request((&http.Response{Header: answer}).Cookies()...)
				p, err = b.Refresh(ctx, nil)
			}
			require.NoError(t, err)
			return p
		}
		// The row's times are the database's, not those of the test's clock.
		at := func(expression string) (at time.Time) {
			require.NoError(t, b.pool.QueryRow(t.Context(), `SELECT `+expression+` FROM sessions WHERE id = $1`, p.Viewer.Session).Scan(&at))
			return at
		}
		before := at("now()")
		refresh()
		if storage != InHeader {
			until := <-w.renewed
			require.False(t, until.Before(before.Add(15*time.Minute)), until)
			require.False(t, until.After(at("now()").Add(15*time.Minute)), until)
			require.True(t, b.clock().Truncate(time.Second).Add(15*time.Minute).Equal(*p.ExpiresAt), "as long as the token, by the test's clock")
		}

		// Near the end of the session the token ends with it, and so it is told.
		b.exec(t, `UPDATE sessions SET ends_at = now() + interval '1 minute' WHERE id = $1`, p.Viewer.Session)
		refresh()
		if storage != InHeader {
			ends := at("ends_at")
			require.True(t, ends.Equal(<-w.renewed))
			require.True(t, ends.Truncate(time.Second).Equal(*p.ExpiresAt), "in whole seconds")
		}

		_, err = b.Logout(as(*p.Viewer))
		require.NoError(t, err)
		<-w.ended
		require.Empty(t, w.renewed, "in header mode a client shows the token that it got")
		require.Empty(t, bystander.renewed)
	}
}

// TestWatchersAreCalledOutsideTheLock holds that who is told may watch and stop watching.
func TestWatchersAreCalledOutsideTheLock(t *testing.T) {
	t.Parallel()
	s := &Service{revoked: newRevocations(time.Minute)}
	v := viewer.Viewer{ID: uuid.New(), Role: viewer.User, Session: uuid.New()}
	w := &restless{s: s, v: v}
	w.stop = s.Watch(v, w)
	s.revoked.renew(v.Session, time.Now())
	require.Equal(t, 1, w.calls)
	s.revoked.sessions(v.Session, v.Session)
	require.Equal(t, 2, w.calls, "the end is told once")
	require.Empty(t, s.revoked.bySession)
	require.Empty(t, s.revoked.byUser)
}

// restless is a watcher that watches anew whenever it is told something.
type restless struct {
	s     *Service
	v     viewer.Viewer
	calls int
	stop  func()
}

func (w *restless) Renewed(time.Time) {
	w.calls++
	w.stop()
	w.stop = w.s.Watch(w.v, w)
}

func (w *restless) Ended() {
	w.calls++
	w.stop()
}

// TestLoad holds that a node that starts knows what was revoked before, without asking the database.
func TestLoad(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, name := range []string{"ada", "bob", "eve", "joe"} {
		b.user(t, name)
	}
	ada, bob, eve, joe := b.login(t, "ada"), b.login(t, "bob"), b.login(t, "eve"), b.login(t, "joe")
	_, err := b.Logout(as(*ada.Viewer))
	require.NoError(t, err)
	b.exec(t, `UPDATE users SET role = 'moderator' WHERE id = $1`, bob.Viewer.ID)
	b.exec(t, `DELETE FROM users WHERE id = $1`, eve.Viewer.ID)

	s := b.node(t)
	unhelped(s)
	s.Deliver(t.Context(), changelog.Batch{}) // as the tailer begins
	for _, p := range []*Payload{ada, bob, eve} {
		refused(t, asks(s, p), record.Unauthenticated)
	}
	require.NoError(t, asks(s, joe))

	// What happened while changes were missed is loaded as well.
	_, err = b.Logout(as(*joe.Viewer))
	require.NoError(t, err)
	require.NoError(t, asks(s, joe))
	s.Deliver(t.Context(), changelog.Batch{Resync: true})
	refused(t, asks(s, joe), record.Unauthenticated)
}

// TestBehind holds that a node whose log is over a second behind asks the database.
func TestBehind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	s := b.node(t)
	lag := 900 * time.Millisecond
	s.deps.Lag = func() time.Duration { return lag }
	refusedUntil := func() error { return asks(s, p) }
	s.Deliver(t.Context(), changelog.Batch{})
	b.exec(t, `UPDATE sessions SET revoked_at = now()`)
	require.NoError(t, refusedUntil())
	lag = 1100 * time.Millisecond
	refused(t, refusedUntil(), record.Unauthenticated)

	// So does one that has read nothing yet, and one that could not load.
	lag = 0
	refused(t, asks(b.node(t), p), record.Unauthenticated)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Deliver(ctx, changelog.Batch{Resync: true})
	refused(t, refusedUntil(), record.Unauthenticated)
}

// TestRolesThatCannotBeRead holds that a change of a role that cannot be read ends what is watched of its user, who is judged by the row
// from then on.
func TestRolesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	b.user(t, "bob")
	ada, bob := b.login(t, "ada"), b.login(t, "bob")
	s := b.node(t)
	unhelped(s)
	s.Deliver(t.Context(), changelog.Batch{})
	watcher, bystander := newWatching(), newWatching()
	defer s.Watch(*ada.Viewer, watcher)()
	defer s.Watch(*bob.Viewer, bystander)()
	b.exec(t, `UPDATE users SET role = 'moderator' WHERE id = $1`, ada.Viewer.ID)
	require.NoError(t, s.Check(plain(), *ada.Viewer), "it has not heard")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	change := changelog.Change{Entity: "user", ID: ada.Viewer.ID, Op: changelog.OpUpdate, Fields: []string{"role"}}
	s.Deliver(ctx, changelog.Batch{Changes: []changelog.Change{change}})
	<-watcher.ended
	refused(t, s.Check(plain(), *ada.Viewer), record.Unauthenticated)
	require.NoError(t, s.Check(plain(), *bob.Viewer))
	select {
	case <-bystander.ended:
		require.Fail(t, "another user's rights ended")
	default:
	}

	s.Deliver(t.Context(), changelog.Batch{})
	ended, complete := s.revoked.judge(*ada.Viewer)
	require.True(t, ended)
	require.True(t, complete, "it knows again without asking")
}

// TestWhatWasMissedCannotBeRead holds that all who watch ask again then.
func TestWhatWasMissedCannotBeRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	s := b.node(t)
	unhelped(s)
	s.Deliver(t.Context(), changelog.Batch{})
	watcher := newWatching()
	defer s.Watch(*p.Viewer, watcher)()
	_, err := b.Logout(as(*p.Viewer))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Deliver(ctx, changelog.Batch{Resync: true})
	<-watcher.ended
	refused(t, s.Check(plain(), *p.Viewer), record.Unauthenticated)
}

// TestMissedAsTheServerEnded holds that connections that ended with the log's keep nobody from reading what was missed.
func TestMissedAsTheServerEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	b.user(t, "bob")
	ada, bob := b.login(t, "ada"), b.login(t, "bob")
	s := b.node(t)
	cfg := b.pool.Config()
	cfg.ConnConfig.RuntimeParams["application_name"] = "reserve"
	var err error
	s.deps.Reserve, err = pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer s.deps.Reserve.Close()
	s.Deliver(t.Context(), changelog.Batch{})
	watcher, bystander := newWatching(), newWatching()
	defer s.Watch(*ada.Viewer, watcher)()
	defer s.Watch(*bob.Viewer, bystander)()
	_, err = b.Logout(as(*ada.Viewer))
	require.NoError(t, err)

	var ended int
	require.NoError(t, b.pool.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'reserve'`).Scan(&ended))
	require.Positive(t, ended)
	s.Deliver(t.Context(), changelog.Batch{Resync: true})
	<-watcher.ended
	select {
	case <-bystander.ended:
		require.Fail(t, "another user's rights ended")
	default:
	}
}

func TestViewer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	_, ok, err := b.Viewer(plain(), "")
	require.NoError(t, err)
	require.False(t, ok)
	for _, bad := range []string{"Bearer", "Bearer x", "Basic YTpi", *p.AccessToken, "Bearer " + *p.RefreshToken, "Bearer " + *p.AccessToken + "x"} {
		_, _, err = b.Viewer(plain(), bad)
		refused(t, err, record.Unauthenticated)
	}
	b.advance(14 * time.Minute)
	require.NoError(t, asks(b.Service, p))
	b.advance(2 * time.Minute)
	refused(t, asks(b.Service, p), record.Unauthenticated)

	// A token that says more than its user is.
	claims := Claims{User: p.Viewer.ID, Session: p.Viewer.Session, Role: viewer.Admin, IssuedAt: b.clock(), ExpiresAt: b.clock().Add(time.Minute)}
	token, err := b.deps.Keys.Sign(claims)
	require.NoError(t, err)
	refused(t, asks(b.Service, &Payload{AccessToken: &token}), record.Unauthenticated)
	claims.Role, claims.Session = viewer.User, uuid.New()
	token, err = b.deps.Keys.Sign(claims)
	require.NoError(t, err)
	refused(t, asks(b.Service, &Payload{AccessToken: &token}), record.Unauthenticated)
}

// TestCheck holds that who was let in is asked again, as a socket does, without the token.
func TestCheck(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	v, _, err := b.Viewer(plain(), "Bearer "+*p.AccessToken)
	require.NoError(t, err)
	require.Equal(t, *p.ExpiresAt, v.Until)
	lag := time.Duration(0)
	s := b.node(t)
	s.deps.Lag = func() time.Duration { return lag }
	s.Deliver(t.Context(), changelog.Batch{})
	b.advance(14 * time.Minute)
	require.NoError(t, s.Check(plain(), v))
	b.advance(v.Until.Sub(b.clock()))
	refused(t, s.Check(plain(), v), record.Unauthenticated)
	v.Until = time.Time{} // without an end
	require.NoError(t, s.Check(plain(), v))

	_, err = b.Logout(as(v))
	require.NoError(t, err)
	refused(t, b.Check(plain(), v), record.Unauthenticated)
	require.NoError(t, s.Check(plain(), v), "it goes by the log")
	lag = 2 * maxLag
	refused(t, s.Check(plain(), v), record.Unauthenticated)
}

// TestForget holds that what no access token can be about any more takes no memory.
func TestForget(t *testing.T) {
	t.Parallel()
	r := newRevocations(time.Minute)
	r.learn([]uuid.UUID{uuid.New()}, map[uuid.UUID]string{uuid.New(): viewer.User})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep(time.Now().Add(59 * time.Second))
	require.Len(t, r.ended, 1)
	r.sweep(time.Now().Add(61 * time.Second))
	require.Empty(t, r.ended)
	require.Empty(t, r.roles)
}

type nobody struct{}

func (nobody) Ended()            {}
func (nobody) Renewed(time.Time) {}

// BenchmarkWatch is what a watched socket takes.
func BenchmarkWatch(b *testing.B) {
	s := &Service{revoked: newRevocations(time.Minute)}
	b.ReportAllocs()
	for b.Loop() {
		s.Watch(viewer.Viewer{ID: uuid.New(), Role: viewer.User, Session: uuid.New()}, nobody{})
	}
}

// BenchmarkLearn is a session that ends while 100,000 others are watched.
func BenchmarkLearn(b *testing.B) {
	r := newRevocations(time.Minute)
	s := &Service{revoked: r}
	for range 100_000 {
		defer s.Watch(viewer.Viewer{ID: uuid.New(), Role: viewer.User, Session: uuid.New()}, nobody{})()
	}
	for b.Loop() {
		r.sessions(uuid.New())
	}
}

func BenchmarkViewer(b *testing.B) {
	s := setup(b)
	s.user(b, "ada")
	p := s.login(b, "ada")
	ctx := plain()
	run := func(b *testing.B) {
		for b.Loop() {
			if _, _, err := s.Viewer(ctx, "Bearer "+*p.AccessToken); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("row", run)
	unhelped(s.Service)
	s.Deliver(ctx, changelog.Batch{})
	b.Run("log", run)
}
