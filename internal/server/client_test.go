package server

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"godstack/internal/viewer"
)

var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ff::/48"), netip.MustParsePrefix("fe80::/10")}

func TestTheClientsAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"no proxy", "192.0.2.1:1000", nil, "192.0.2.1"},
		{"a peer that is not trusted says nothing", "192.0.2.1:1000", []string{"198.51.100.1"}, "192.0.2.1"},
		{"a proxy", "10.0.0.1:1000", []string{"198.51.100.1"}, "198.51.100.1"},
		{"a proxy that says nothing", "10.0.0.1:1000", nil, "10.0.0.1"},
		{"a proxy that says nothing, in a line", "10.0.0.1:1000", []string{""}, "10.0.0.1"},
		{"what the client made up comes first", "10.0.0.1:1000", []string{"203.0.113.9, 198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "10.0.0.1:1000", []string{"203.0.113.9, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"two lines", "10.0.0.1:1000", []string{"203.0.113.9,198.51.100.1", " 10.0.0.2 "}, "198.51.100.1"},
		{"an address of ours, made up", "10.0.0.1:1000", []string{"10.9.9.9, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"proxies alone", "10.0.0.1:1000", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"a hop that is no address", "10.0.0.1:1000", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{"a hop that is no address, later", "10.0.0.1:1000", []string{"198.51.100.1, _hidden, 10.0.0.2"}, "10.0.0.2"},
		{"an empty hop", "10.0.0.1:1000", []string{"198.51.100.1,, 10.0.0.2"}, "10.0.0.2"},
		{"a name", "10.0.0.1:1000", []string{"localhost"}, "10.0.0.1"},
		{"ports", "10.0.0.1:1000", []string{"198.51.100.1:4711, 10.0.0.2:80"}, "198.51.100.1"},
		{"IPv6", "[2001:db8:ff::1]:1000", []string{"2001:db8::7"}, "2001:db8::7"},
		{"IPv6 in brackets", "10.0.0.1:1000", []string{"[2001:db8::7]"}, "2001:db8::7"},
		{"IPv6 with a port", "10.0.0.1:1000", []string{"[2001:db8::7]:443"}, "2001:db8::7"},
		{"IPv4 in brackets", "10.0.0.1:1000", []string{"[198.51.100.1]"}, "10.0.0.1"},
		{"half a bracket", "10.0.0.1:1000", []string{"[2001:db8::7"}, "10.0.0.1"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:1000", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"a peer with a zone", "[fe80::1%eth0]:1000", nil, "fe80::1"},
		{"a proxy with a zone", "[fe80::1%eth0]:1000", []string{"198.51.100.1, fe80::2%eth1"}, "198.51.100.1"},
		{"no peer", "", []string{"198.51.100.1"}, "invalid IP"},
		{"nonsense for a peer", "@", []string{"198.51.100.1"}, "invalid IP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(_ *Deps, cfg *Config) { cfg.TrustedProxies = proxies })
			r := httptest.NewRequest(http.MethodPost, "/graphql", nil)
			r.RemoteAddr = c.peer
			r.Header["X-Forwarded-For"] = c.forwarded
			require.Equal(t, c.want, b.address(r).String())

			r.Header["X-Forwarded-For"] = nil
			alone := setup(t).address(r)
			r.Header["X-Forwarded-For"] = c.forwarded
			require.Equal(t, alone, setup(t).address(r), "without trusted proxies the header is nothing")
		})
	}
}

func TestTheAddressBehindAUnixSocket(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodPost, "/graphql", nil)
	r.RemoteAddr = "@"
	r.Header.Set("X-Forwarded-For", "203.0.113.9, 198.51.100.1")
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.UnixAddr{Name: "/run/s", Net: "unix"}))
	b := setup(t, func(_ *Deps, cfg *Config) { cfg.TrustedProxies = proxies })
	require.Equal(t, "198.51.100.1", b.address(r).String())
	require.False(t, setup(t).address(r).IsValid(), "where no proxy is trusted, nobody is")
	r.Header.Del("X-Forwarded-For")
	require.False(t, b.address(r).IsValid())
}

func FuzzAddress(f *testing.F) {
	f.Add("192.0.2.1:1", "198.51.100.1")
	f.Add("10.0.0.1:1", "a, [::1]:5, 10.0.0.2")
	f.Fuzz(func(t *testing.T, peer, forwarded string) {
		s := &Server{cfg: Config{TrustedProxies: proxies}}
		r := &http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": {forwarded}}}
		from, trusted := s.peer(r)
		got := s.address(r)
		if !trusted && got != from {
			t.Errorf("%q was believed of %q", forwarded, peer)
		}
		// What stands before the last hop that is not trusted changes nothing.
		if !s.trusts(got) {
			r.Header["X-Forwarded-For"] = []string{"203.0.113.9, " + forwarded}
			if again := s.address(r); again != got {
				t.Errorf("%q: %s, and %s with a hop before it", forwarded, got, again)
			}
		}
	})
}

// asked is what the viewer's function and a resolver know of a client.
type asked struct {
	Address, UserAgent, RequestID, Cookie string
	Socket                                bool
}

func clientOf(ctx context.Context) asked {
	c := viewer.ClientOf(ctx)
	return asked{c.Address.String(), c.UserAgent, c.RequestID, c.Cookie("a"), c.Socket}
}

func TestTheClientIsInTheContext(t *testing.T) {
	t.Parallel()
	var viewed asked
	b := setup(t, func(d *Deps, _ *Config) {
		d.Viewer = func(ctx context.Context, _ string) (viewer.Viewer, bool, error) {
			viewed = clientOf(ctx)
			return viewer.Viewer{}, false, nil
		}
	})
	b.resolvers["ok"] = func(ctx context.Context) (any, error) {
		viewer.ClientOf(ctx).SetCookie(&http.Cookie{Name: "b", Value: "2"})
		viewer.ClientOf(ctx).AddHeader("X-Test", "yes")
		return clientOf(ctx), nil
	}
	a := b.query(t, `{ ok }`, nil, "User-Agent", "browser/1", "Cookie", "a=1; c=3", "X-Request-Id", "r-1")
	want := asked{"192.0.2.1", "browser/1", "r-1", "1", false}
	require.Equal(t, want, viewed)
	var data struct{ OK asked }
	require.NoError(t, json.Unmarshal(a.Data, &data))
	require.Equal(t, want, data.OK)
	require.Equal(t, "b=2", a.Header.Get("Set-Cookie"))
	require.Equal(t, "yes", a.Header.Get("X-Test"))

	a = b.query(t, `{ ok }`, nil, "User-Agent", strings.Repeat("ä\xff", 400))
	require.Equal(t, 200, a.Status)
	require.True(t, utf8.ValidString(viewed.UserAgent))
	require.LessOrEqual(t, len(viewed.UserAgent), longestUserAgent)
	require.Greater(t, len(viewed.UserAgent), longestUserAgent/2)
}

func TestTheClientOfASocket(t *testing.T) {
	t.Parallel()
	viewed := make(chan asked, 1)
	b := setup(t, func(d *Deps, _ *Config) {
		d.Viewer = func(ctx context.Context, _ string) (viewer.Viewer, bool, error) {
			viewed <- clientOf(ctx)
			return viewer.Viewer{}, false, nil
		}
	})
	b.resolvers["ok"] = func(ctx context.Context) (any, error) {
		viewer.ClientOf(ctx).SetCookie(&http.Cookie{Name: "b", Value: "2"})
		return clientOf(ctx), nil
	}
	s, resp, err := dial(t, listen(t, b).URL, http.Header{"Cookie": {"a=1"}, "User-Agent": {"phone/2"}, "X-Request-Id": {"r-2"}})
	require.NoError(t, err)
	require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
	s.send(message{Type: "connection_init"})
	require.Equal(t, "connection_ack", s.receive().Type)
	want := asked{"127.0.0.1", "phone/2", "r-2", "1", true}
	require.Equal(t, want, <-viewed)
	want.Cookie = "" // it may be used up by now
	s.send(subscribe("1", `{ ok }`))
	var payload struct{ Data struct{ OK asked } }
	require.NoError(t, json.Unmarshal(s.receive().Payload, &payload))
	require.Equal(t, want, payload.Data.OK)
}
