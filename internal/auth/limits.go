package auth

import (
	"context"

	"godstack/internal/ratelimit"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// limit counts a field against its limit for the client's address. Who has no address, as the command line, is not
// limited.
func (s *Service) limit(ctx context.Context, l ratelimit.Limit) error {
	return s.limitKey(ctx, l, ratelimit.Address(viewer.ClientOf(ctx).Address))
}

// limitKey counts a field against its limit for a key, and tells the client how it stands. It returns RATE_LIMITED where
// there is nothing left.
func (s *Service) limitKey(ctx context.Context, l ratelimit.Limit, key string) error {
	r, counted := s.take(ctx, l, key)
	if !counted {
		return nil
	}
	r.WriteHeaders(viewer.ClientOf(ctx).AddHeader)
	if !r.OK {
		return &record.Error{Code: record.RateLimited, Message: "too many requests: try again later", RetryAfter: r.RetryAfter}
	}
	return nil
}

// take counts against a limit. A limiter that fails limits nothing: accounts have their guards as well.
func (s *Service) take(ctx context.Context, l ratelimit.Limit, key string) (r ratelimit.Result, counted bool) {
	if s.deps.Limits == nil || key == "" {
		return r, false
	}
	r, err := s.deps.Limits.Take(ctx, key, l)
	if err != nil {
		s.log.ErrorContext(ctx, "limiter", "limit", l.Name, "error", err)
		return r, false
	}
	return r, true
}
