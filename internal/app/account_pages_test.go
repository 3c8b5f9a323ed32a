package app

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/graph"
	"godstack/internal/auth"
	"godstack/internal/dbtest"
	"godstack/internal/ratelimit"
)

// TestAccountPagesInABrowser goes through the pages that mails lead to, from the registration to the next sign-in.
func TestAccountPagesInABrowser(t *testing.T) {
	t.Parallel()
	many := ratelimit.Limit{Quota: 10_000, Window: time.Minute}
	for _, storage := range []auth.TokenStorage{auth.InHeader, auth.InCookie, auth.InBoth} {
		t.Run(string(storage), func(t *testing.T) {
			a := start(t, Config{
				DatabaseURL: dbtest.URL(t), Development: true, DataDir: t.TempDir(),
				Passwords: &auth.PasswordConfig{Memory: 64, Time: 1},
				Auth: auth.Config{
					Storage: storage, VerifyEmail: auth.VerifyRequired,
					Limits: auth.Limits{Login: many, Register: many, Forgot: many, Reset: many, Verify: many, Resend: many},
				},
			})
			runNode(t, "account.test.mjs", "BASE_URL="+a.URL(), "TOKEN_STORAGE="+string(storage))
		})
	}
}

// The pages are there in production, also for a browser that was signed in once.
func TestAccountPagesAreForAnybody(t *testing.T) {
	t.Parallel()
	a := start(t, Config{
		DatabaseURL: dbtest.URL(t), JWTKeys: auth.GenerateKey(), SecretKeys: auth.GenerateSecret(),
		Auth: auth.Config{Storage: auth.InCookie, App: "Lovelace & Sons"},
	})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, path := range []string{"/verify-email", "/reset-password", "/revert-email", "/account/account.js", "/account/account.css"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, local(a)+path+"?token=got_x", nil)
		require.NoError(t, err)
		r.Header.Set("Cookie", "gs_access=over; gs_refresh=over")
		resp, err := client.Do(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode, path)
		require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'")
		require.Equal(t, []string{"no-referrer"}, resp.Header.Values("Referrer-Policy"))
	}
	_, page := get(t, local(a)+"/verify-email")
	require.Contains(t, page, "Lovelace &amp; Sons</title>")
}

// TestAccountsPage holds docs/accounts.md to the API: each of its documents is valid, each of its values is JSON, and it
// has every mutation and query of accounts.
func TestAccountsPage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/accounts.md")
	require.NoError(t, err)
	schema := graph.NewExecutableSchema(graph.Config{}).Schema()
	used := map[string]bool{}
	for _, block := range regexp.MustCompile("(?ms)^ *```(\\w+)\n(.*?)^ *```$").FindAllStringSubmatch(string(text), -1) {
		switch block[1] {
		case "graphql":
			doc, errs := gqlparser.LoadQueryWithRules(schema, block[2], nil)
			require.Empty(t, errs, block[2])
			require.Len(t, doc.Operations, 1, block[2])
			for _, s := range doc.Operations[0].SelectionSet {
				used[s.(*ast.Field).Name] = true
			}
		case "json":
			require.True(t, json.Valid([]byte(block[2])), block[2])
		}
	}
	for _, name := range append([]string{"me", "sessions"}, auth.MutationFields...) {
		require.True(t, used[name], "%s has no example", name)
	}
}
