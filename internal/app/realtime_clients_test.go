package app

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"godstack/internal/auth"
	"godstack/internal/dbtest"
	"godstack/internal/ratelimit"
)

// TestRealtimeClients runs the packages that applications use for subscriptions, with the set-ups of docs/clients.md, against two
// nodes whose access tokens live for a few seconds. One of the nodes shuts down when it is asked to.
func TestRealtimeClients(t *testing.T) {
	t.Parallel()
	for _, storage := range []auth.TokenStorage{auth.InHeader, auth.InCookie} {
		t.Run(string(storage), func(t *testing.T) {
			t.Parallel()
			cfg := Config{DatabaseURL: dbtest.URL(t), PublicURL: "http://localhost", Development: true, Seed: true, RateLimit: -1}
			cfg.Auth = auth.Config{Storage: storage, AccessTTL: 8 * time.Second}
			cfg.Auth.Limits.Login = ratelimit.Limit{Quota: 10_000}
			cfg.Auth.Limits.Refresh = ratelimit.Limit{Quota: 10_000}
			stays, leaves := start(t, cfg), start(t, cfg)
			control := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				if err := leaves.Close(); err != nil {
					t.Error(err)
				}
			}))
			t.Cleanup(control.Close)
			runNode(t, "realtime.test.mjs",
				"BASE_URL="+local(stays), "LEAVING_URL="+local(leaves), "LEAVE_URL="+control.URL, "TOKEN_STORAGE="+string(storage))
			requireNoForks(t, cfg.DatabaseURL)
		})
	}
}
