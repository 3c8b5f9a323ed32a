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
