package auth

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

// cookies writes and reads tokens as cookies.
type cookies struct {
	storage         TokenStorage
	access, refresh string // names
	secure          bool
}

func newCookies(cfg *Config) cookies {
	c := cookies{storage: cfg.Storage, access: "__Host-gs_access", refresh: "__Host-gs_refresh", secure: true}
	// A browser takes neither Secure nor __Host- over http from these in every version.
	u, _ := url.Parse(cfg.PublicURL) // withDefaults has parsed it
	if h := u.Hostname(); u.Scheme == "http" && (h == "localhost" || h == "127.0.0.1") {
		c.access, c.refresh, c.secure = "gs_access", "gs_refresh", false
	}
	return c
}

// settable returns BAD_USER_INPUT where the answer has to set cookies and goes over a socket or as an event, which have no headers.
func (c *cookies) settable(ctx context.Context) error {
	if c.storage == InCookie && viewer.ClientOf(ctx).Socket {
		return &record.Error{Code: record.BadUserInput, Message: "this sets cookies, which neither a socket nor an event can: send it over HTTP"}
	}
	return nil
}

// set has the answer set both tokens. The access token's cookie outlives the token, so that its expiry is noticed and
// answered, instead of nobody being signed in.
func (c *cookies) set(ctx context.Context, access, refresh string, expires time.Duration) {
	if c.storage != InHeader {
		c.write(ctx, c.access, access, expires)
		c.write(ctx, c.refresh, refresh, expires)
	}
}

// clear has the answer remove both.
func (c *cookies) clear(ctx context.Context) {
	if c.storage != InHeader {
		c.write(ctx, c.access, "", -1)
		c.write(ctx, c.refresh, "", -1)
	}
}

func (c *cookies) write(ctx context.Context, name, value string, age time.Duration) {
	maxAge := int(age.Seconds())
	if value == "" {
		maxAge = -1
	}
	viewer.ClientOf(ctx).SetCookie(&http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: c.secure, SameSite: http.SameSiteLaxMode,
	})
}

// accessToken returns the access token of the request's cookies, "" where there is none or cookies are ignored.
func (c *cookies) accessToken(ctx context.Context) string { return c.read(ctx, c.access) }

// refreshToken is likewise.
func (c *cookies) refreshToken(ctx context.Context) string { return c.read(ctx, c.refresh) }

func (c *cookies) read(ctx context.Context, name string) string {
	if c.storage == InHeader {
		return ""
	}
	return viewer.ClientOf(ctx).Cookie(name)
}
