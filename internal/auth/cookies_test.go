package auth

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

// answered are the cookies that an answer sets.
func answered(h http.Header) map[string]*http.Cookie {
	set := map[string]*http.Cookie{}
	for _, c := range (&http.Response{Header: h}).Cookies() {
		set[c.Name] = c
	}
	return set
}

func TestCookies(t *testing.T) {
	t.Parallel()
	b := setup(t, inCookies)
	b.user(t, "ada")
	ctx, h := request()
	p, err := b.Login(ctx, LoginInput{Login: "ada", Password: password})
	require.NoError(t, err)
	require.Nil(t, p.AccessToken)
	require.Nil(t, p.RefreshToken)
	require.NotNil(t, p.ExpiresAt)
	set := answered(h)
	require.Len(t, set, 2)
	for _, c := range set {
		require.True(t, c.HttpOnly)
		require.True(t, c.Secure)
		require.Equal(t, http.SameSiteLaxMode, c.SameSite)
		require.Equal(t, "/", c.Path)
		require.Empty(t, c.Domain)
		require.Equal(t, 7*24*3600, c.MaxAge)
	}
	access, refresh := set["__Host-gs_access"], set["__Host-gs_refresh"]
	ctx, _ = request(access, refresh)
	v, ok, err := b.Viewer(ctx, "")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, *p.Viewer, v)

	// With the refresh token alone one is to refresh.
	ctx, h = request(refresh)
	_, _, err = b.Viewer(ctx, "")
	refused(t, err, record.Unauthenticated)
	p, err = b.Refresh(ctx, nil)
	require.NoError(t, err)
	require.Nil(t, p.RefreshToken)
	next := answered(h)
	require.NotEqual(t, refresh.Value, next["__Host-gs_refresh"].Value)

	// What is not valid any more is removed.
	b.age(t, "1 min")
	ctx, h = request(refresh)
	_, err = b.Refresh(ctx, nil)
	refused(t, err, record.Unauthenticated)
	require.Equal(t, -1, answered(h)["__Host-gs_refresh"].MaxAge)

	ctx, h = request()
	_, err = b.Login(ctx, LoginInput{Login: "ada", Password: password})
	require.NoError(t, err)
	set = answered(h)
	ctx, h = request(set["__Host-gs_refresh"]) // the access token may have expired
	ok, err = b.Logout(ctx)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, -1, answered(h)["__Host-gs_access"].MaxAge)
	require.Equal(t, -1, answered(h)["__Host-gs_refresh"].MaxAge)
	ctx, _ = request(set["__Host-gs_access"])
	_, _, err = b.Viewer(ctx, "")
	refused(t, err, record.Unauthenticated)
	require.Equal(t, 0, b.count(t, `sessions WHERE revoked_at IS NULL`))
}

func TestCookiesOverASocket(t *testing.T) {
	t.Parallel()
	b := setup(t, inCookies)
	b.user(t, "ada")
	ctx := context.Background() // of a socket, as ClientOf says
	token := "x"
	for name, f := range map[string]func() error{
		"login":            func() error { _, err := b.Login(ctx, LoginInput{Login: "ada", Password: password}); return err },
		"register":         func() error { _, err := b.Register(ctx, newcomer("bob")); return err },
		"refresh":          func() error { _, err := b.Refresh(ctx, &token); return err },
		"logout":           func() error { _, err := b.Logout(ctx); return err },
		"verifyEmail":      func() error { _, err := b.VerifyEmail(ctx, token); return err },
		"changePassword":   func() error { _, err := b.ChangePassword(ctx, password, newPassword); return err },
		"logoutEverywhere": func() error { _, err := b.LogoutEverywhere(viewer.NewContext(ctx, viewer.Viewer{})); return err },
	} {
		t.Run(name, func(t *testing.T) { refused(t, f(), record.BadUserInput) })
	}
	b.conf.Storage = InBoth
	both := b.node(t)
	p, err := both.Login(ctx, LoginInput{Login: "ada", Password: password})
	require.NoError(t, err)

	// The cookie of the upgrade is as old as the socket: what it has may have been used up since.
	ctx = viewer.WithClient(ctx, &viewer.Client{Socket: true, Cookies: []*http.Cookie{{Name: "__Host-gs_refresh", Value: *p.RefreshToken}}})
	_, err = both.Refresh(ctx, nil)
	refused(t, err, record.Unauthenticated)
	require.Equal(t, 0, b.count(t, `refresh_tokens WHERE rotated_at IS NOT NULL`))
	_, err = both.Refresh(ctx, p.RefreshToken)
	require.NoError(t, err)
}

func TestStorages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	ctx, h := request()
	p, err := b.Login(ctx, LoginInput{Login: "ada", Password: password})
	require.NoError(t, err)
	require.Empty(t, h)
	// In header mode cookies are ignored.
	ctx, _ = request(&http.Cookie{Name: "__Host-gs_access", Value: *p.AccessToken}, &http.Cookie{Name: "__Host-gs_refresh", Value: *p.RefreshToken})
	_, ok, err := b.Viewer(ctx, "")
	require.NoError(t, err)
	require.False(t, ok)
	_, err = b.Refresh(ctx, nil)
	refused(t, err, record.Unauthenticated)

	b.conf.Storage = InBoth
	both := b.node(t)
	ctx, h = request()
	p, err = both.Login(ctx, LoginInput{Login: "ada", Password: password})
	require.NoError(t, err)
	require.Equal(t, *p.AccessToken, answered(h)["__Host-gs_access"].Value)
	require.Equal(t, *p.RefreshToken, answered(h)["__Host-gs_refresh"].Value)
	require.NoError(t, asks(both, p))
}

func TestCookieNames(t *testing.T) {
	t.Parallel()
	for url, secure := range map[string]bool{
		"https://example.com": true, "https://localhost:8080": true, "http://example.com": true, "http://localhost.evil.com": true,
		"http://localhost:8080": false, "http://127.0.0.1:8080/": false,
	} {
		c := newCookies(&Config{PublicURL: url})
		require.Equal(t, secure, c.secure, url)
		require.Equal(t, secure, c.access == "__Host-gs_access", url)
	}
}
