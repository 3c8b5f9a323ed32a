package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// The server of these tests is example.com, as httptest has it, and app.example is a page that may use it.
func withCookies(_ *Deps, c *Config) {
	c.Cookies = true
	c.Origins = []string{"https://app.example", "https://example.com"}
}

func TestCrossOriginRequestsWithCookies(t *testing.T) {
	t.Parallel()
	const mutation = `mutation { rename(id: 1, expectedVersion: 1) }`
	for _, c := range []struct {
		name, origin, site string
		allowed            bool
	}{
		{"not a browser", "", "", true},
		{"our page", "https://example.com", "same-origin", true},
		{"our page, in an old browser", "https://example.com", "", true},
		{"typed by the user", "", "none", true},
		{"a listed origin", "https://app.example", "cross-site", true},
		{"a listed origin, in an old browser", "https://app.example", "", true},
		{"another site", "https://evil.example", "cross-site", false},
		{"another site, in an old browser", "https://evil.example", "", false},
		{"another port of the site", "https://example.com:8443", "same-site", false},
		{"another port, in an old browser", "https://example.com:8443", "", false},
		{"a subdomain", "https://user.example.com", "same-site", false},
		{"a name that begins like ours", "https://app.example.evil.example", "cross-site", false},
		{"a listed origin without TLS", "http://app.example", "cross-site", false},
		{"a sandbox", "null", "cross-site", false},
		{"a sandbox, in an old browser", "null", "", false},
		{"no origin from another site", "", "cross-site", false},
		{"nonsense", "https://example.com", "nonsense", true}, // the origin is listed
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, withCookies)
			executed := false
			b.resolvers["rename"] = func(context.Context) (any, error) {
				executed = true
				return "done", nil
			}
			header := []string{"X-Request-Id", "r-1"}
			if c.origin != "" {
				header = append(header, "Origin", c.origin)
			}
			if c.site != "" {
				header = append(header, "Sec-Fetch-Site", c.site)
			}
			a := b.query(t, mutation, nil, header...)
			require.Equal(t, c.allowed, executed)
			if c.allowed {
				require.Equal(t, 200, a.Status)
			} else {
				require.Equal(t, 403, a.Status)
				require.Equal(t, "CSRF_REJECTED", a.Errors[0].code())
				require.Equal(t, "r-1", a.Errors[0].Extensions["requestId"])
				require.Equal(t, "application/json", a.Header.Get("Content-Type"))
				require.Empty(t, a.Data)
			}

			executed = false
			a = b.do(t, get(t, url.Values{"query": {`{ ok }`}}, header...))
			require.Equal(t, 200, a.Status, "queries by GET are for everybody; who may read the answer is for CORS")
			a = b.do(t, get(t, url.Values{"query": {mutation}}, header...))
			require.Equal(t, 405, a.Status)
			require.False(t, executed, "GET changes nothing")
		})
	}
}

// Forms, and what else a page can send without asking first, have no JSON.
func TestSimpleRequestsWithCookies(t *testing.T) {
	t.Parallel()
	b := setup(t, withCookies)
	b.resolvers["rename"] = func(context.Context) (any, error) { panic("executed") }
	const body = `{"query": "mutation { rename(id: 1, expectedVersion: 1) }"}`
	for _, contentType := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""} {
		a := b.do(t, post(body, "Content-Type", contentType, "Sec-Fetch-Site", "same-origin"))
		require.Equal(t, 415, a.Status)
		a = b.do(t, post(body, "Content-Type", contentType, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"))
		require.Equal(t, "CSRF_REJECTED", a.Errors[0].code())
	}
}

func TestWithoutCookiesOriginsDoNotMatter(t *testing.T) {
	t.Parallel()
	a := setup(t).query(t, `mutation { rename(id: 1, expectedVersion: 1) }`, nil, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
	require.Equal(t, 200, a.Status, "nothing signs in that a page does not have")
	require.Empty(t, a.Header.Get("Access-Control-Allow-Origin"), "and the page cannot read the answer")
}

func preflight(path, origin string) *http.Request {
	r := httptest.NewRequest(http.MethodOptions, path, nil)
	r.Header.Set("Origin", origin)
	r.Header.Set("Access-Control-Request-Method", "POST")
	r.Header.Set("Access-Control-Request-Headers", "content-type,authorization")
	return r
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	for _, cookies := range []bool{true, false} {
		b := setup(t, withCookies, func(d *Deps, c *Config) {
			c.Cookies = cookies
			d.Routes = map[string]http.Handler{"GET /events": http.NotFoundHandler()}
		})
		for _, path := range []string{"/graphql", "/events"} {
			a := b.do(t, preflight(path, "https://app.example"))
			require.Equal(t, 204, a.Status)
			require.Empty(t, a.raw)
			require.Equal(t, "https://app.example", a.Header.Get("Access-Control-Allow-Origin"))
			require.Equal(t, "GET, POST, PUT, DELETE", a.Header.Get("Access-Control-Allow-Methods"))
			require.Contains(t, a.Header.Get("Access-Control-Allow-Headers"), "Authorization, Content-Type, Idempotency-Key")
			require.Equal(t, "7200", a.Header.Get("Access-Control-Max-Age"))
			require.Equal(t, cookies, a.Header.Get("Access-Control-Allow-Credentials") == "true")
			require.Equal(t, []string{"Origin"}, a.Header["Vary"])

			for _, origin := range []string{"https://evil.example", "http://app.example", "https://app.example:8443", "null", "*", "", "HTTPS://APP.EXAMPLE"} {
				a := b.do(t, preflight(path, origin))
				require.Equal(t, 204, a.Status)
				for name := range a.Header {
					require.NotContains(t, name, "Access-Control", origin)
				}
				require.Equal(t, []string{"Origin"}, a.Header["Vary"])
			}
		}
		r := preflight("/graphql", "https://app.example")
		r.Header.Del("Access-Control-Request-Method")
		require.Equal(t, 405, b.do(t, r).Status, "OPTIONS alone is no preflight")
	}
	a := setup(t).do(t, preflight("/graphql", "https://app.example"))
	require.Equal(t, 405, a.Status, "where there are no other origins, there is no CORS")
	require.Empty(t, a.Header.Get("Access-Control-Allow-Origin"))
}

func TestOtherOriginsReadAnswers(t *testing.T) {
	t.Parallel()
	b := setup(t, withCookies)
	for _, document := range []string{`{ ok }`, `{ nope }`, `{`} {
		a := b.query(t, document, nil, "Origin", "https://app.example", "Sec-Fetch-Site", "cross-site")
		require.Equal(t, "https://app.example", a.Header.Get("Access-Control-Allow-Origin"))
		require.Equal(t, "true", a.Header.Get("Access-Control-Allow-Credentials"))
		require.Equal(t, "X-Request-Id, RateLimit, RateLimit-Policy, Retry-After, Read-After", a.Header.Get("Access-Control-Expose-Headers"))
		require.Equal(t, []string{"Origin", "Accept"}, a.Header["Vary"])
		require.Empty(t, a.Header.Get("Access-Control-Allow-Methods"))
	}
	a := b.query(t, `{ ok }`, nil)
	require.Empty(t, a.Header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, []string{"Origin", "Accept"}, a.Header["Vary"], "whatever the origin, a cache has to ask for it")
	a = b.query(t, `{ ok }`, nil, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
	require.Equal(t, 403, a.Status)
	require.Empty(t, a.Header.Get("Access-Control-Allow-Origin"))
}

func TestOriginsAreChecked(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://App.Example": "https://app.example", "https://app.example:443": "https://app.example", "http://app.example:80": "http://app.example",
		"http://localhost:8080": "http://localhost:8080", "http://[::1]:80": "http://[::1]",
	} {
		got, err := parseOrigin(in)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, bad := range []string{"", "*", "null", "app.example", "https://", "https://app.example/", "https://app.example?x", "https://a@app.example", "https://app.example#x", "://"} {
		_, err := New(Deps{Schema: setup(t).executable()}, &Config{Origins: []string{bad}})
		require.ErrorContains(t, err, "server: Origins: ", bad)
	}
}

func TestSocketsOfOtherPortsAndWithoutTLS(t *testing.T) {
	t.Parallel()
	b := setup(t, withCookies, func(_ *Deps, c *Config) { c.Secure = true })
	for origin, want := range map[string]bool{
		"": true, "https://example.com": true, "https://app.example": true, "HTTPS://EXAMPLE.COM": true,
		"https://example.com:8443": false, "http://example.com": false, "https://user.example.com": false, "null": false, "https://evil.example": false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/graphql", nil)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		require.Equal(t, want, b.sameOrigin(r), origin)
	}
}
