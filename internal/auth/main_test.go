package auth

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/mail"
	"godstack/internal/ratelimit"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

const (
	password    = "plover-xylem 42 Dunes"
	newPassword = "Quartz/hovel 77 spinet"
)

// bundle is a service over a database of its own.
type bundle struct {
	*Service
	pool *pgxpool.Pool
	mail *mail.Recorder
	deps Deps
	conf Config
	log  logBuffer

	mu  sync.Mutex
	now time.Time // of the service's clock; protected by mu
}

func (b *bundle) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bundle) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// logBuffer is what was logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // protected by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// cheapPasswords are passwords that cost little.
func cheapPasswords(t testing.TB) *Passwords {
	t.Helper()
	p, err := NewPasswords(&PasswordConfig{Memory: 64, Time: 1})
	require.NoError(t, err)
	return p
}

func optional(_ *Deps, c *Config) { c.VerifyEmail = VerifyOptional }

func inCookies(_ *Deps, c *Config) { c.Storage = InCookie }

func setup(t testing.TB, change ...func(*Deps, *Config)) *bundle {
	t.Helper()
	b := &bundle{pool: dbtest.New(t), mail: &mail.Recorder{}, now: time.Now()}
	secrets, err := ParseSecrets(GenerateSecret())
	require.NoError(t, err)
	keys, err := ParseKeys(GenerateKey(), "https://example.com", "api")
	require.NoError(t, err)
	b.deps = Deps{
		Pool: b.pool, Passwords: cheapPasswords(t), Secrets: secrets, Keys: keys.WithClock(b.clock), Mail: b.mail,
		Logger: slog.New(slog.NewTextHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Clock: b.clock,
	}
	t.Cleanup(func() { require.NotRegexp(t, `gst_|got_|eyJ|plover|Quartz`, b.log.String(), "a secret was logged") })
	b.conf = Config{PublicURL: "https://example.com"}
	for _, f := range change {
		f(&b.deps, &b.conf)
	}
	b.Service = b.node(t)
	return b
}

// node is another instance over the same database.
func (b *bundle) node(t testing.TB) *Service {
	t.Helper()
	s, err := New(b.deps, &b.conf)
	require.NoError(t, err)
	return s
}

// request is a request of a browser, and its answer's header.
func request(cookies ...*http.Cookie) (context.Context, http.Header) {
	c := &viewer.Client{Address: netip.MustParseAddr("192.0.2.7"), UserAgent: "Browser/1.0 (test)", RequestID: "r1", Cookies: cookies}
	h := http.Header{}
	c.SetAnswer(h)
	return viewer.WithClient(context.Background(), c), h
}

// from is a request with another user agent.
func from(userAgent string) context.Context {
	c := &viewer.Client{Address: netip.MustParseAddr("198.51.100.9"), UserAgent: userAgent}
	c.SetAnswer(http.Header{})
	return viewer.WithClient(context.Background(), c)
}

func plain() context.Context {
	ctx, _ := request()
	return ctx
}

// as is a request of a signed-in user.
func as(v viewer.Viewer) context.Context { return viewer.NewContext(plain(), v) }

// user makes an account whose address is confirmed.
func (b *bundle) user(t testing.TB, name string, role ...string) uuid.UUID {
	t.Helper()
	n := NewUser{Email: name + "@example.com", Username: name, Name: strings.ToUpper(name[:1]) + name[1:], Password: password}
	if len(role) > 0 {
		n.Role = role[0]
	}
	id, err := b.CreateUser(context.Background(), n)
	require.NoError(t, err)
	return id
}

// login signs in and must succeed.
func (b *bundle) login(t testing.TB, login string) *Payload {
	t.Helper()
	p, err := b.Login(plain(), LoginInput{Login: login, Password: password})
	require.NoError(t, err)
	return p
}

// asks says whether an access token is taken.
func asks(s *Service, p *Payload) error {
	_, _, err := s.Viewer(plain(), "Bearer "+*p.AccessToken)
	return err
}

// code is an error's code, "" for none.
func code(t testing.TB, err error) record.Code {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *record.Error
	require.ErrorAs(t, err, &e)
	return e.Code
}

// refused wants an error that a client may see.
func refused(t testing.TB, err error, want record.Code, fields ...string) {
	t.Helper()
	require.NotNil(t, refusal(t, err, want, fields...))
}

// refusal is refused, and returns the error.
func refusal(t testing.TB, err error, want record.Code, fields ...string) *record.Error {
	t.Helper()
	var e *record.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, want, e.Code, err)
	if len(fields) > 0 {
		require.Equal(t, fields, e.Fields)
	}
	return e
}

// events are the names of a user's events, in order; of all for uuid.Nil.
func (b *bundle) events(t testing.TB, user uuid.UUID) []string {
	t.Helper()
	return texts(t, b.pool, `SELECT name FROM security_events WHERE $1::uuid IS NULL OR user_id = $1 ORDER BY id`, nullable(user))
}

func (b *bundle) has(t testing.TB, user uuid.UUID, names ...string) {
	t.Helper()
	all := b.events(t, user)
	for _, n := range names {
		require.Contains(t, all, n)
	}
}

func texts(t testing.TB, q querier, sql string, args ...any) (list []string) {
	t.Helper()
	rows, err := q.Query(context.Background(), sql, args...)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var s string
		require.NoError(t, rows.Scan(&s))
		list = append(list, s)
	}
	require.NoError(t, rows.Err())
	return list
}

func (b *bundle) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	_, err := b.pool.Exec(context.Background(), sql, args...)
	require.NoError(t, err)
}

func (b *bundle) count(t testing.TB, sql string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, b.pool.QueryRow(context.Background(), `SELECT count(*) FROM `+sql, args...).Scan(&n))
	return n
}

// mails are the kinds of the mails to an address, newest first.
func (b *bundle) mails(to string) (kinds []string) {
	for _, m := range b.mail.Messages() {
		if m.To == to {
			kinds = append(kinds, m.Kind)
		}
	}
	return kinds
}

// mailed is the token in the newest mail of a kind to an address.
func (b *bundle) mailed(t testing.TB, kind, to string) string {
	t.Helper()
	for _, m := range b.mail.Messages() {
		if m.Kind == kind && m.To == to {
			links := m.Links()
			require.NotEmpty(t, links)
			u, err := url.Parse(links[0])
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(links[0], b.cfg.PublicURL+"/"))
			return u.Query().Get("token")
		}
	}
	require.Failf(t, "no mail", "%s to %s", kind, to)
	return ""
}

// atOnce runs f n times at the same time.
func atOnce(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// counter is a Limiter that never forgets.
type counter struct {
	mu     sync.Mutex
	counts map[string]int // protected by mu
}

func (c *counter) Take(_ context.Context, key string, l ratelimit.Limit) (ratelimit.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	c.counts[l.Name+key]++
	n := c.counts[l.Name+key]
	r := ratelimit.Result{Limit: l, OK: n <= l.Quota, Remaining: max(l.Quota-n, 0), ResetAfter: l.Window}
	if !r.OK {
		r.RetryAfter = l.Window
	}
	return r, nil
}
