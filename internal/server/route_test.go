package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/ratelimit"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

func TestEveryAnswerHasSecurityHeaders(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"X-Content-Type-Options":       "nosniff",
		"Referrer-Policy":              "no-referrer",
		"Content-Security-Policy":      "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"X-Frame-Options":              "DENY",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Permissions-Policy":           "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
		"Strict-Transport-Security":    "max-age=63072000; includeSubDomains",
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/crash":
			panic("secret")
		case "/page":
			w.Header().Set("Content-Security-Policy", "default-src 'self'")
		}
		w.Header().Add("Referrer-Policy", "origin") // Add must not write into what all answers share
	})
	b := setup(t, func(d *Deps, c *Config) {
		d.Playground = page
		d.Routes = map[string]http.Handler{"GET /events": page}
		c.Secure = true
	})
	for _, path := range []string{"/", "/nothing", "/graphql", "/healthz", "/readyz", "/events", "/playground/crash", "/playground/page", "/graphql?query={ok}"} {
		for range 2 {
			w := httptest.NewRecorder()
			b.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			for name, value := range want {
				switch {
				case path == "/playground/page" && name == "Content-Security-Policy":
					require.Equal(t, []string{"default-src 'self'"}, w.Header()[name], "a page has its own")
				case (path == "/events" || path == "/playground/page") && name == "Referrer-Policy":
					require.Equal(t, []string{"no-referrer", "origin"}, w.Header()[name])
				default:
					require.Equal(t, []string{value}, w.Header()[name], "%s %s", path, name)
				}
			}
		}
	}
	w := httptest.NewRecorder()
	setup(t).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	require.Empty(t, w.Header().Get("Strict-Transport-Security"), "without https there is nothing to keep to")
}

func TestAnswersAreNotStored(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) { d.Viewer = byHeader })
	query := url.Values{"query": {`{ ok }`}}
	require.Equal(t, "no-store", b.query(t, `{ ok }`, nil).Header.Get("Cache-Control"))
	require.Equal(t, "no-store", b.query(t, `{`, nil).Header.Get("Cache-Control"))
	require.Equal(t, "no-store", b.query(t, `{ ok }`, nil, "Authorization", "mallory").Header.Get("Cache-Control"))
	require.Equal(t, "private, no-store", b.do(t, get(t, query, "Authorization", "alice")).Header.Get("Cache-Control"))
	require.Equal(t, "no-store", b.do(t, get(t, query, "Authorization", "mallory")).Header.Get("Cache-Control"))
	require.Equal(t, "no-store", b.do(t, get(t, nil)).Header.Get("Cache-Control"))
	a := b.do(t, get(t, query))
	require.Empty(t, a.Header.Get("Cache-Control"))
	require.Equal(t, []string{"Accept", "Authorization, Cookie"}, a.Header["Vary"])
}

func TestRoutesHaveAViewer(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) {
		d.Viewer = byHeader
		d.Routes = map[string]http.Handler{"GET /events": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v, ok := viewer.FromContext(r.Context())
			_, _ = io.WriteString(w, viewer.ClientOf(r.Context()).Address.String()+" ")
			if ok {
				_, _ = io.WriteString(w, v.ID.String())
			}
		})}
	})
	for _, c := range []struct {
		authorization string
		status        int
		answer        string
	}{
		{"", 200, "192.0.2.1 "},
		{"alice", 200, "192.0.2.1 " + alice.String()},
		{"mallory", 401, `{"errors":[{"message":"sign in again","extensions":{"code":"UNAUTHENTICATED","requestId":"r"}}]}` + "\n"},
		{"broken", 500, `{"errors":[{"message":"internal error","extensions":{"code":"INTERNAL","requestId":"r"}}]}` + "\n"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/events", nil)
		r.Header.Set("Authorization", c.authorization)
		r.Header.Set("X-Request-Id", "r")
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		require.Equal(t, c.status, w.Code)
		require.Equal(t, c.answer, w.Body.String())
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	}
}

// What guards itself is asked also where the API refuses, says in the log whom it found, and is limited as the rest.
func TestGuarded(t *testing.T) {
	t.Parallel()
	alice := uuid.MustParse("01a20bd0-afc3-7625-87a3-d985f4422976")
	left := 1
	b := setup(t, func(d *Deps, _ *Config) {
		d.Viewer = func(context.Context, string) (viewer.Viewer, bool, error) {
			return viewer.Viewer{}, false, errors.New("asked")
		}
		d.Limit = func(context.Context, netip.Addr) (ratelimit.Result, error) {
			left--
			return ratelimit.Result{Limit: ratelimit.Limit{Name: "global", Quota: 1, Window: time.Minute}, OK: left >= 0, RetryAfter: time.Second}, nil
		}
		d.Guarded = map[string]http.Handler{"/admin": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Identify(r.Context(), viewer.Viewer{ID: alice})
			status, e := Explain(r.Context(), &record.Error{Code: record.NotFound, Message: "no such page"})
			http.Error(w, e.Message, status)
		})}
	})
	w := httptest.NewRecorder()
	b.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/admin", nil))
	require.Equal(t, 404, w.Code)
	require.Equal(t, "no such page\n", w.Body.String())
	require.Equal(t, alice.String(), b.log.entries(t, "request")[0]["user"])
	w = httptest.NewRecorder()
	b.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/admin", nil))
	require.Equal(t, 429, w.Code)

	status, e := Explain(t.Context(), errors.New("secret"))
	require.Equal(t, 500, status)
	require.Equal(t, "internal error", e.Message)
}

func TestTheLimitOfAnAddress(t *testing.T) {
	t.Parallel()
	limit := ratelimit.Limit{Name: "global", Quota: 2, Window: time.Minute}
	left := map[netip.Addr]int{}
	b := setup(t, withCookies, func(d *Deps, _ *Config) {
		d.Limit = func(_ context.Context, a netip.Addr) (ratelimit.Result, error) {
			left[a]++
			r := ratelimit.Result{Limit: limit, OK: left[a] <= 2, Remaining: max(2-left[a], 0), ResetAfter: time.Minute}
			if !r.OK {
				r.RetryAfter = 29500 * time.Millisecond
			}
			return r, nil
		}
		d.Routes = map[string]http.Handler{"GET /events": http.NotFoundHandler()}
	})
	a := b.query(t, `{ ok }`, nil)
	require.Equal(t, 200, a.Status)
	require.Equal(t, `"global";q=2;w=60`, a.Header.Get("RateLimit-Policy"))
	require.Equal(t, `"global";r=1;t=60`, a.Header.Get("RateLimit"))
	require.Empty(t, a.Header.Get("Retry-After"))
	require.Equal(t, 200, b.do(t, get(t, url.Values{"query": {"{ok}"}})).Status)

	b.resolvers["ok"] = func(context.Context) (any, error) { panic("executed") }
	upgrade := httptest.NewRequest(http.MethodGet, "/graphql", nil)
	upgrade.Header.Set("Upgrade", "websocket")
	for _, r := range []*http.Request{
		post(`{"query": "{ ok }"}`), post(`nonsense`), get(t, url.Values{"query": {"{ok}"}}), upgrade,
		httptest.NewRequest(http.MethodGet, "/events", nil),
	} {
		r.Header.Set("Origin", "https://app.example")
		a := b.do(t, r)
		require.Equal(t, 429, a.Status)
		require.Equal(t, "RATE_LIMITED", a.Errors[0].code())
		require.InDelta(t, 29.5, a.Errors[0].Extensions["retryAfter"], 0)
		require.Equal(t, "30", a.Header.Get("Retry-After"))
		require.Equal(t, `"global";r=0;t=60`, a.Header.Get("RateLimit"))
		require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
		require.Equal(t, "https://app.example", a.Header.Get("Access-Control-Allow-Origin"), "a page can read why")
	}
	before := left[netip.MustParseAddr("192.0.2.1")]
	for _, r := range []*http.Request{
		httptest.NewRequest(http.MethodGet, "/healthz", nil), httptest.NewRequest(http.MethodGet, "/readyz", nil),
		preflight("/graphql", "https://app.example"), post(`{}`, "Sec-Fetch-Site", "cross-site"),
	} {
		require.NotEqual(t, 429, b.do(t, r).Status)
	}
	require.Equal(t, before, left[netip.MustParseAddr("192.0.2.1")], "probes, and what other pages send in a visitor's name, do not count")

	other := post(`{"query": "{ whoami }"}`)
	other.RemoteAddr = "192.0.2.2:1"
	require.Equal(t, 200, b.do(t, other).Status)
	unknown := post(`{"query": "{ whoami }"}`)
	unknown.RemoteAddr = "@"
	for range 5 {
		require.Equal(t, 200, b.do(t, unknown.Clone(t.Context())).Status)
		unknown.Body = io.NopCloser(strings.NewReader(`{"query": "{ whoami }"}`))
	}
}

func TestALimiterThatFailsLetsRequestsPass(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) {
		d.Limit = func(context.Context, netip.Addr) (ratelimit.Result, error) {
			return ratelimit.Result{}, errors.New("no answer")
		}
	})
	a := b.query(t, `{ ok }`, nil)
	require.Equal(t, 200, a.Status)
	require.Empty(t, a.Header.Get("RateLimit"))
	require.Len(t, b.log.entries(t, "limit of requests"), 1)
}

// A resolver's error has the code and the time, and no status: the operation was executed.
func TestLimitsOfOperations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for code, status := range map[record.Code]int{record.RateLimited: 429, record.AccountLocked: 403, record.CSRFRejected: 403} {
		b.resolvers["fail"] = func(ctx context.Context) (any, error) {
			viewer.ClientOf(ctx).AddHeader("Retry-After", "2")
			return nil, &record.Error{Code: code, Message: "later", RetryAfter: 1500 * time.Millisecond}
		}
		a := b.query(t, `{ fail }`, nil)
		require.Equal(t, 200, a.Status)
		require.Equal(t, string(code), a.Errors[0].code())
		require.InDelta(t, 1.5, a.Errors[0].Extensions["retryAfter"], 0)
		require.Equal(t, "2", a.Header.Get("Retry-After"))
		require.Equal(t, status, statusOf(code))
	}
}

func TestTheLogHasNoSecrets(t *testing.T) {
	t.Parallel()
	b := setup(t, withCookies, func(d *Deps, _ *Config) {
		d.Viewer = byHeader
		d.Routes = map[string]http.Handler{"/events": http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	})
	const secret = "s3cr3t"
	header := []string{
		"Authorization", "Bearer " + secret, "Cookie", "session=" + secret, "Origin", "https://" + secret + ".example",
		"X-Forwarded-For", secret, "Referer", "https://example.com/?token=" + secret, "User-Agent", secret, "Idempotency-Key", secret,
	}
	for _, r := range []*http.Request{
		post(`{"query": "{ ok }", "variables": {"password": "`+secret+`"}}`, header...),
		post(`{"query": "query($p: Int) { threads(first: $p) { totalCount } }", "variables": {"p": "` + secret + `"}}`),
		post(`{"query": "{ thread(id: \"` + secret + `\") { nope } }"}`),
		post(`{"query": "mutation { rename(id: \"` + secret + `\", expectedVersion: 1) }"}`),
		post(`{"query": "{ at(time: \"` + secret + `\") }"}`),
		post(secret),
		get(t, url.Values{"query": {`{ thread(id: "` + secret + `") { id } }`}, "token": {secret}}, header...),
		httptest.NewRequest(http.MethodGet, "/events?token="+secret, nil),
		httptest.NewRequest(http.MethodGet, "/nothing?token="+secret, nil),
		httptest.NewRequest(http.MethodGet, "/readyz?token="+secret, nil),
	} {
		b.do(t, r)
	}
	require.NotEmpty(t, b.log.entries(t, "request"))
	require.NotContains(t, b.log.String(), secret)
}

// An answer of any length is not cut as long as some of it goes out; one that does not go on is.
func TestALongAnswerIsNotCut(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond
	rows, stuck := 0, make(chan struct{})
	b := setup(t, func(d *Deps, _ *Config) {
		d.Routes = map[string]http.Handler{
			"GET /rows": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				tick := time.NewTicker(timeout / 20)
				defer tick.Stop()
				for began := time.Now(); time.Since(began) < 4*timeout; rows++ {
					select {
					case <-tick.C:
					case <-r.Context().Done():
						t.Error("given up after", time.Since(began))
						return
					}
					_, err := w.Write(bytes.Repeat([]byte("x"), 1000))
					if err != nil {
						t.Error(err)
						return
					}
				}
			}),
			"GET /stuck": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				defer close(stuck)
				for { // until nothing more fits between here and a client that does not read
					if _, err := w.Write(make([]byte, 64<<10)); err != nil {
						return
					}
				}
			}),
		}
	})
	b.writeTimeout = timeout
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, ln) }()
	client := &http.Client{Transport: &http.Transport{}}

	resp, err := client.Get("http://" + ln.Addr().String() + "/rows")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Len(t, body, rows*1000)

	resp, err = client.Get("http://" + ln.Addr().String() + "/stuck")
	require.NoError(t, err)
	<-stuck
	require.NoError(t, resp.Body.Close())
	client.CloseIdleConnections()
	stop()
	require.NoError(t, <-served)
}
