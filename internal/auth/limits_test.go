package auth

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/mail"
	"godstack/internal/ratelimit"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

func limited(d *Deps, _ *Config) { d.Limits = &counter{} }

func TestLimits(t *testing.T) {
	t.Parallel()
	b := setup(t, limited)
	email, token := "nobody@example.com", "x"
	for _, c := range []struct {
		name  string
		quota int
		retry time.Duration
		field func(ctx context.Context) error
	}{
		{"login", 5, time.Minute, func(ctx context.Context) error { _, err := b.Login(ctx, LoginInput{}); return err }},
		{"register", 3, time.Hour, func(ctx context.Context) error { _, err := b.Register(ctx, RegisterInput{}); return err }},
		{"forgot", 3, time.Hour, func(ctx context.Context) error { _, err := b.RequestPasswordReset(ctx, email); return err }},
		{"reset", 5, time.Hour, func(ctx context.Context) error { _, err := b.ResetPassword(ctx, token, password); return err }},
		{"verify", 5, time.Hour, func(ctx context.Context) error { _, err := b.VerifyEmail(ctx, token); return err }},
		{"resend", 3, time.Hour, func(ctx context.Context) error { _, err := b.RequestEmailVerification(ctx, &email); return err }},
		{"refresh", 30, time.Minute, func(ctx context.Context) error { _, err := b.Refresh(ctx, &token); return err }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h http.Header
			for range c.quota {
				b.exec(t, `DELETE FROM login_guards`)
				var ctx context.Context
				ctx, h = request()
				if err := c.field(ctx); err != nil {
					require.NotEqual(t, record.RateLimited, code(t, err))
				}
			}
			require.Regexp(t, `"`+c.name+`";r=0;t=`, h.Get("RateLimit"))
			require.Regexp(t, `"`+c.name+`";q=\d+;w=\d+`, h.Get("RateLimit-Policy"))
			require.Empty(t, h.Get("Retry-After"))
			ctx, h := request()
			e := refusal(t, c.field(ctx), record.RateLimited)
			require.Equal(t, c.retry, e.RetryAfter)
			require.NotEmpty(t, h.Get("Retry-After"))

			// Another address is not concerned, nor who has none.
			other := viewer.WithClient(context.Background(), &viewer.Client{Address: netip.MustParseAddr("192.0.2.8")})
			for _, ctx := range []context.Context{other, context.Background()} {
				if err := c.field(ctx); err != nil {
					require.NotEqual(t, record.RateLimited, code(t, err))
				}
			}
		})
	}
}

// TestSensitiveIsLimited holds that what takes the password of who is signed in is limited for each user, in all, from
// wherever they ask.
func TestSensitiveIsLimited(t *testing.T) {
	t.Parallel()
	b := setup(t, limited)
	b.user(t, "ada")
	b.user(t, "bob")
	ada, bob := b.login(t, "ada"), b.login(t, "bob")
	fields := []func(ctx context.Context) error{
		func(ctx context.Context) error { _, err := b.ChangePassword(ctx, "wrong", newPassword); return err },
		func(ctx context.Context) error { _, err := b.ChangeEmail(ctx, "wrong", "new@example.com"); return err },
		func(ctx context.Context) error { _, err := b.EnrollTotp(ctx, "wrong"); return err },
		func(ctx context.Context) error { _, err := b.DisableTotp(ctx, "wrong", "000000"); return err },
	}
	for i := range 11 {
		b.exec(t, `DELETE FROM login_guards`)
		c, h := &viewer.Client{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}, http.Header{}
		c.SetAnswer(h)
		err := fields[i%len(fields)](viewer.NewContext(viewer.WithClient(context.Background(), c), *ada.Viewer))
		if i < 10 {
			refused(t, err, record.BadUserInput)
			continue
		}
		require.Equal(t, time.Minute, refusal(t, err, record.RateLimited).RetryAfter)
		require.NotEmpty(t, h.Get("Retry-After"))
		require.Contains(t, h.Values("RateLimit-Policy"), `"sensitive";q=10;w=60`)
	}
	refused(t, fields[0](as(*bob.Viewer)), record.BadUserInput, "current")
}

// TestMailsAreLimited holds that nobody's mailbox is filled from many addresses.
func TestMailsAreLimited(t *testing.T) {
	t.Parallel()
	b := setup(t, limited)
	b.user(t, "ada")
	for i := range 6 {
		c := &viewer.Client{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}
		ok, err := b.RequestPasswordReset(viewer.WithClient(context.Background(), c), "ada@example.com")
		require.NoError(t, err)
		require.True(t, ok)
	}
	require.Equal(t, []string{mail.ResetPassword, mail.ResetPassword, mail.ResetPassword}, b.mails("ada@example.com"))
}

type broken struct{}

func (broken) Take(context.Context, string, ratelimit.Limit) (ratelimit.Result, error) {
	return ratelimit.Result{}, errors.New("no connection")
}

// TestBrokenLimiter holds that people can sign in although nobody counts.
func TestBrokenLimiter(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) { d.Limits = broken{} })
	b.user(t, "ada")
	b.login(t, "ada")
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, bad := range []Config{
		{}, {PublicURL: "example.com"}, {PublicURL: "https://example.com?x"}, {PublicURL: "https://x", Storage: "pocket"},
		{PublicURL: "https://x", VerifyEmail: "maybe"}, {PublicURL: "https://x", AccessTTL: time.Millisecond},
		{PublicURL: "https://x", MaxSessions: -1}, {PublicURL: "https://x", Grace: -time.Second},
	} {
		_, err := bad.withDefaults()
		require.ErrorContains(t, err, "auth: ")
	}
	_, err := New(Deps{}, &Config{PublicURL: "https://example.com"})
	require.ErrorContains(t, err, "required")
}
