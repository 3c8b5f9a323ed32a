package app

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/mail"
)

// One node serves and works nothing; another works, and serves nothing but its health.
func TestServingAndWorkingApart(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	serving := start(t, Config{DatabaseURL: url, Role: RoleServe})
	c := open(t, serving)
	require.Empty(t, c.query(t, register, registering("grace")).Errors)

	working := start(t, Config{DatabaseURL: url, Role: RoleWork, MetricsAddr: "127.0.0.1:0"})
	m := mailArrives(t, working)
	require.Equal(t, mail.VerifyEmail, m.Kind)
	require.Equal(t, "grace@example.com", m.To)
	require.Contains(t, m.Links()[0], publicURL)
	require.Empty(t, serving.Mail().Messages())

	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/graphql": 404, "/": 404} {
		resp, err := http.Get(local(working) + path)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, want, resp.StatusCode, path)
	}
	require.NoError(t, working.Close())
	_, err := http.Get(local(working) + "/healthz")
	require.Error(t, err)
}

// Who signs up is welcomed once the address is confirmed, and asked two days later how it goes, unless they have gone.
func TestNewcomersAreWelcomedAndFollowedUp(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	join := func(name string) {
		require.Empty(t, c.on(0).query(t, register, registering(name)).Errors)
		token := c.mailedToken(t, mail.VerifyEmail, name+"@example.com")
		c.on(0).must(t, "verifyEmail", `mutation($t: String!) { verifyEmail(token: $t) { expiresAt } }`, map[string]any{"t": token})
		require.Equal(t, []string{publicURL + "/"}, new(c.mailed(t, mail.Welcome, name+"@example.com")).Links())
	}
	join("grace")
	join("edsger")
	const due = `river_job WHERE kind = 'follow_up' AND state = 'scheduled' AND scheduled_at BETWEEN created_at + interval '47 h' AND created_at + interval '49 h'`
	require.Equal(t, 2, c.count(t, due))
	c.exec(t, `DELETE FROM users WHERE username = 'edsger'`)
	c.exec(t, `UPDATE river_job SET scheduled_at = now(), state = 'available' WHERE kind = 'follow_up'`)
	require.Eventually(t, func() bool { return c.count(t, `river_job WHERE kind = 'follow_up' AND state = 'completed'`) == 2 }, patience, 10*time.Millisecond)
	m := c.mailed(t, mail.FollowUp, "grace@example.com")
	require.Equal(t, []string{publicURL + "/"}, m.Links())
	require.Zero(t, c.count(t, `river_job WHERE args ->> 'mail' = 'follow_up' AND id NOT IN (SELECT min(id) FROM river_job WHERE args ->> 'mail' = 'follow_up')`), "one mail")
}

// What an operator may see in the table of jobs, and in its metadata, has nothing that signs people in.
func TestJobsTellNoSecrets(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) { cfg.Role = RoleServe })
	require.Empty(t, c.on(0).query(t, register, registering("grace")).Errors)
	var row string
	require.NoError(t, c.db.QueryRow(t.Context(), `SELECT json_agg(j)::text FROM river_job j WHERE kind = 'send_mail'`).Scan(&row))
	require.True(t, json.Valid([]byte(row)))
	require.NotContains(t, row, "grace@")
	require.NotContains(t, row, "gst_")
	require.NotContains(t, row, "token=")
}

// Who asks for a link for an address that is nobody's has the same statements done, and no job is left of them.
func TestNobodyIsMailed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) { cfg.Role = RoleServe })
	c.user(t, "ada", "user")
	forgot := func(name string) {
		const document = `mutation($e: String!) { requestPasswordReset(email: $e) }`
		require.Equal(t, true, c.on(0).must(t, "requestPasswordReset", document, map[string]any{"e": name + "@example.com"}))
	}
	drawn := func() (n int) {
		require.NoError(t, c.db.QueryRow(t.Context(), `SELECT last_value FROM river_job_id_seq`).Scan(&n))
		return n
	}
	forgot("ada")
	require.Equal(t, 1, c.count(t, `river_job`))
	before := drawn()
	forgot("nobody")
	require.Equal(t, before+1, drawn(), "one was made, and taken back")
	require.Equal(t, 1, c.count(t, `river_job`))
}
