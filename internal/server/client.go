package server

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"godstack/internal/ratelimit"
	"godstack/internal/viewer"
)

// longestUserAgent is how much of a User-Agent is kept, in bytes.
const longestUserAgent = 512

// describe fills c with what is known about who sent r.
func (s *Server) describe(c *viewer.Client, r *http.Request) {
	c.Address = s.address(r)
	// What is kept of it may be stored, as UTF-8.
	agent := r.UserAgent()
	c.UserAgent = strings.ToValidUTF8(agent[:min(len(agent), longestUserAgent)], "")
	if r.Header.Get("Cookie") != "" {
		c.Cookies = r.Cookies()
	}
}

// address is where r comes from: the peer, or, where that is a trusted proxy, the last hop of X-Forwarded-For that is
// not one. Each hop was written by the one after it, so nothing before a hop that is not trusted is believed. Where a
// hop cannot be read, it is the one that wrote it; where all are trusted, the first.
func (s *Server) address(r *http.Request) netip.Addr {
	peer, trusted := s.peer(r)
	if !trusted {
		return peer
	}
	for _, rest := range slices.Backward(r.Header["X-Forwarded-For"]) {
		for more := true; more; {
			var hop string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, hop = rest[:comma], rest[comma+1:]
			} else {
				rest, hop, more = "", rest, false
			}
			a, ok := parseHop(strings.TrimSpace(hop))
			if !ok {
				return peer
			}
			if peer = a; !s.trusts(a) {
				return peer
			}
		}
	}
	return peer
}

// peer is the other side of the connection. One of a Unix socket has no address; it is a proxy on this machine, and
// trusted where any is.
func (s *Server) peer(r *http.Request) (a netip.Addr, trusted bool) {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && local.Network() == "unix" {
		return netip.Addr{}, len(s.cfg.TrustedProxies) > 0
	}
	p, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false
	}
	a = ratelimit.Plain(p.Addr())
	return a, s.trusts(a)
}

func (s *Server) trusts(a netip.Addr) bool {
	for _, p := range s.cfg.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// parseHop reads an address as proxies write it: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1] or
// [2001:db8::1]:80.
func parseHop(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return ratelimit.Plain(a), true
	}
	if p, err := netip.ParseAddrPort(s); err == nil {
		return ratelimit.Plain(p.Addr()), true
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			a, err := netip.ParseAddr(inner)
			return ratelimit.Plain(a), err == nil && a.Is6()
		}
	}
	return netip.Addr{}, false
}

// signIn asks who presents this authorization, and returns the context in which that viewer asks.
func (s *Server) signIn(ctx context.Context, authorization string) (_ context.Context, v viewer.Viewer, signedIn bool, err error) {
	v, signedIn, err = s.viewer(ctx, authorization)
	if err != nil || !signedIn {
		return ctx, viewer.Viewer{}, false, err
	}
	requestFrom(ctx).user = v.ID
	return viewer.NewContext(ctx, v), v, true, nil
}

// viewer asks who presents this authorization, for OperationTimeout at most: nothing else bounds a socket that is signed in.
func (s *Server) viewer(ctx context.Context, authorization string) (v viewer.Viewer, signedIn bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.OperationTimeout)
	defer cancel()
	return s.deps.Viewer(ctx, authorization)
}
