package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"godstack/internal/record"
)

// preflightAge is how long a browser may remember what it was told about an origin, in seconds. Browsers cap it at two
// hours or less.
const preflightAge = "7200"

// What pages of other origins may send and read.
const (
	corsMethods = "GET, POST, PUT, DELETE"
	corsHeaders = "Accept, Authorization, Content-Type, Idempotency-Key, X-Request-Id, Traceparent, Tracestate, " +
		streamTokenHeader + ", " + readAfterHeader + ", Apollo-Require-Preflight, Apollographql-Client-Name, Apollographql-Client-Version"
	corsExposed = "X-Request-Id, RateLimit, RateLimit-Policy, Retry-After, " + readAfterHeader
)

// parseOrigin returns an origin as browsers write it: in lower case and without the port of its scheme.
func parseOrigin(o string) (string, error) {
	u, err := url.Parse(strings.ToLower(o))
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not an origin such as https://example.com", o)
	}
	host := u.Host
	switch u.Scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return u.Scheme + "://" + host, nil
}

// setOrigins makes what the checks of origins look at.
func (s *Server) setOrigins() error {
	s.origins = map[string]bool{}
	if s.cfg.Cookies {
		s.csrf = http.NewCrossOriginProtection()
	}
	for _, o := range s.cfg.Origins {
		origin, err := parseOrigin(o)
		if err != nil {
			return fmt.Errorf("server: Origins: %w", err)
		}
		s.origins[origin] = true
		if s.csrf != nil {
			if err := s.csrf.AddTrustedOrigin(origin); err != nil {
				return fmt.Errorf("server: Origins: %w", err)
			}
		}
	}
	return nil
}

// crossOrigin tells browsers which other origins may read the answer, and refuses what a page may not have sent. It
// reports whether it has answered r.
func (s *Server) crossOrigin(w http.ResponseWriter, r *http.Request) (answered bool) {
	if len(s.origins) > 0 {
		h := w.Header()
		h.Add("Vary", "Origin")
		preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
		if origin := r.Header.Get("Origin"); s.origins[origin] {
			h.Set("Access-Control-Allow-Origin", origin)
			if s.cfg.Cookies {
				h.Set("Access-Control-Allow-Credentials", "true")
			}
			if preflight {
				h.Set("Access-Control-Allow-Methods", corsMethods)
				h.Set("Access-Control-Allow-Headers", corsHeaders)
				h.Set("Access-Control-Max-Age", preflightAge)
			} else {
				h.Set("Access-Control-Expose-Headers", corsExposed)
			}
		}
		if preflight {
			w.WriteHeader(http.StatusNoContent)
			return true
		}
	}
	if s.csrf == nil {
		return false
	}
	if err := s.csrf.Check(r); err != nil {
		s.refuse(w, r, http.StatusForbidden, &record.Error{
			Code: record.CSRFRejected, Message: "this page's origin may not send requests that change something", Err: err,
		})
		return true
	}
	return false
}

// sameOrigin reports whether the page that sent r, if it was one, is ours. A page on another port, or without TLS where
// we have it, is not.
func (s *Server) sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true // not a browser
	}
	if s.origins[strings.ToLower(origin)] {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) && (!s.cfg.Secure || strings.EqualFold(u.Scheme, "https"))
}
