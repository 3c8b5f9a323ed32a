package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket/wsjson"
	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"godstack/internal/auth"
	"godstack/internal/dbtest"
	"godstack/internal/logtest"
)

// visitor is a browser, as far as pages without a script need one.
type visitor struct {
	t       *testing.T
	url     string
	cookies map[string]string
}

// visit is a visitor of a node for the first time.
func visit(t *testing.T, a *App) *visitor { return &visitor{t, local(a), map[string]string{}} }

// page is what a visitor got.
type page struct {
	status int
	header http.Header
	text   string
}

// send sends a request as a browser does, and keeps cookies. It follows nothing.
func (v *visitor) send(method, path, body string, header ...string) page {
	v.t.Helper()
	p, set := v.try(method, path, body, header...)
	for _, k := range set {
		if k.MaxAge < 0 {
			delete(v.cookies, k.Name)
			continue
		}
		require.True(v.t, k.HttpOnly && k.Secure, "%s", k.Name)
		require.Equal(v.t, http.SameSiteLaxMode, k.SameSite)
		v.cookies[k.Name] = k.Value
	}
	return p
}

// try is send without keeping cookies, which may run many times at once.
func (v *visitor) try(method, path, body string, header ...string) (page, []*http.Cookie) {
	r, err := http.NewRequestWithContext(context.Background(), method, v.url+path, strings.NewReader(body))
	require.NoError(v.t, err)
	r.Header.Set("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
	r.Header.Set("User-Agent", "Browser/1.0")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	for name, value := range v.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	require.NoError(v.t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(v.t, err)
	return page{resp.StatusCode, resp.Header, string(text)}, resp.Cookies()
}

func (v *visitor) get(path string) page {
	v.t.Helper()
	return v.send(http.MethodGet, path, "")
}

// post sends a form, of names and values in turn.
func (v *visitor) post(path string, form ...string) page {
	v.t.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Add(form[i], form[i+1])
	}
	return v.send(http.MethodPost, path, values.Encode())
}

// signIn signs in with the password that users of the tests have.
func (v *visitor) signIn(name string) *visitor {
	v.t.Helper()
	p := v.post("/admin/sign-in", "login", name, "password", password, "next", "/admin/users")
	require.Equal(v.t, http.StatusSeeOther, p.status, p.text)
	require.Equal(v.t, "/admin/users", p.header.Get("Location"))
	require.Len(v.t, v.cookies, 2)
	return v
}

// on is a visitor of the same browser at another node.
func (v *visitor) on(a *App) *visitor { return &visitor{v.t, local(a), v.cookies} }

// operatorPages are all kinds of them.
var operatorPages = []string{
	"/admin", "/admin/users", "/admin/users?q=ada&role=admin&locked=1", "/admin/events", "/admin/events?user=ada&name=login_succeeded&severity=info",
	"/admin/security-events.csv", "/admin/security-events.jsonl", "/jobs/", "/jobs/jobs?state=completed", "/jobs/api/states", "/jobs/api/jobs?limit=5&state=completed",
	"/jobs/api/queues?limit=5", "/jobs/favicon.ico",
}

var storages = []auth.TokenStorage{auth.InHeader, auth.InCookie, auth.InBoth}

// Administrators alone see the pages, wherever clients of the API keep their tokens, also on a node that works no jobs.
func TestOperatorPagesAreForAdministrators(t *testing.T) {
	t.Parallel()
	for _, storage := range storages {
		t.Run(string(storage), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, func(cfg *Config) { cfg.Auth.Storage = storage })
			root := c.user(t, "root", "admin")
			for name, role := range map[string]string{"ada": "user", "mary": "moderator", "kay": "admin"} {
				c.user(t, name, role)
			}
			pages := append([]string{"/admin/users/" + root}, operatorPages...)
			for i, node := range c.nodes {
				nobody, kay := visit(t, node), visit(t, node).signIn("kay")
				require.Contains(t, kay.get("/admin").text, "Overview")
				visit(t, c.nodes[1-i]).signIn("root").post("/admin/users/" + idOf(t, c, "kay") + "/lock")
				for _, path := range pages {
					p := nobody.get(path)
					if strings.HasPrefix(path, "/jobs/api") {
						require.Equal(t, http.StatusUnauthorized, p.status, path)
						require.Equal(t, "sign in first\n", p.text)
					} else {
						require.Equal(t, http.StatusSeeOther, p.status, path)
						require.Equal(t, "/admin/sign-in?next="+url.QueryEscape(path), p.header.Get("Location"))
					}
				}
				require.Eventually(t, func() bool { return kay.get("/admin").status == http.StatusSeeOther }, soon, time.Millisecond)
				require.Empty(t, kay.cookies, "those of a session that has ended go")
				p := kay.post("/admin/sign-in", "login", "kay", "password", password)
				require.Equal(t, http.StatusForbidden, p.status)
				require.Contains(t, p.text, "An administrator has locked this account.")

				for _, name := range []string{"ada", "mary"} {
					v := visit(t, node).signIn(name)
					for _, path := range pages {
						p := v.get(path)
						require.Equal(t, http.StatusForbidden, p.status, path)
						require.Contains(t, p.text, "You are signed in, but are no administrator.")
					}
					require.Equal(t, http.StatusForbidden, v.post("/admin/users/"+root+"/lock").status)
					require.Equal(t, http.StatusForbidden, v.send(http.MethodPut, "/jobs/api/queues/default/pause", "").status)
					require.Equal(t, http.StatusSeeOther, v.post("/admin/sign-out").status)
					require.Empty(t, v.cookies)
					require.Equal(t, http.StatusSeeOther, v.get("/admin").status)
				}
				admin := visit(t, node).signIn("root")
				for _, path := range pages {
					require.Equal(t, http.StatusOK, admin.get(path).status, path)
				}
				require.Equal(t, http.StatusNotFound, admin.get("/admin/nothing").status)
				require.Equal(t, http.StatusNotFound, admin.get("/admin/users/user_01m8317xp8es5r3ewc17gk5bkh").status)
				require.Equal(t, http.StatusSeeOther, admin.get("/admin/sign-in").status)
				require.Equal(t, http.StatusSeeOther, admin.post("/admin/users/"+idOf(t, c, "kay")+"/unlock").status)
			}
			require.Zero(t, c.count(t, `river_queue WHERE paused_at IS NOT NULL`))
			require.Equal(t, 1, c.count(t, `users WHERE username = 'root' AND locked_at IS NULL`))
		})
	}
}

// idOf is the id of a user as the API has it.
func idOf(t *testing.T, c *cluster, name string) (id string) {
	t.Helper()
	require.NoError(t, c.db.QueryRow(t.Context(), `SELECT id FROM users WHERE username = $1`, name).Scan(&id))
	return id
}

// What is left out is not there, and a node that serves nothing has no pages.
func TestOperatorPagesAreLeftOut(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	for _, a := range []*App{
		start(t, Config{DatabaseURL: url, WithoutOperatorPages: true}),
		start(t, Config{DatabaseURL: url, Role: RoleWork, MetricsAddr: "127.0.0.1:0"}),
	} {
		for _, path := range append([]string{"/admin/sign-in", "/jobs"}, operatorPages...) {
			require.Equal(t, http.StatusNotFound, visit(t, a).get(path).status, path)
		}
	}
}

// In cookie mode the application's sign-in is the pages', and in header mode nothing but the pages reads their cookies.
func TestOperatorsSignIn(t *testing.T) {
	t.Parallel()
	for _, storage := range storages {
		t.Run(string(storage), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, func(cfg *Config) { cfg.Auth.Storage = storage })
			c.user(t, "root", "admin")
			v := visit(t, c.nodes[0]).signIn("root")
			me := v.send(http.MethodPost, "/graphql", `{"query":"{ me { username } }"}`, "Content-Type", "application/json")
			if storage == auth.InHeader {
				require.JSONEq(t, `{"data":{"me":null}}`, me.text)
			} else {
				require.JSONEq(t, `{"data":{"me":{"username":"root"}}}`, me.text)
			}

			app := visit(t, c.nodes[0])
			app.send(http.MethodPost, "/graphql", `{"query":"mutation { login(input: {login: \"root\", password: \"`+password+`\"}) { expiresAt } }"}`,
				"Content-Type", "application/json")
			if storage == auth.InHeader {
				require.Empty(t, app.cookies)
			} else {
				require.Equal(t, http.StatusOK, app.get("/admin").status)
			}
			require.Equal(t, http.StatusSeeOther, v.post("/admin/sign-out").status)
			require.Equal(t, 1, c.count(t, `sessions WHERE revoked_because = 'logged_out'`))
		})
	}
}

// A sign-in that is wrong says what the API says, asks for the second factor, and leads to no other site.
func TestOperatorsSignInBySecondFactor(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "root", "admin")
	me := c.on(0).as(c.on(0).login(t, "root").access)
	e := me.must(t, "enrollTotp", `mutation($p: String!) { enrollTotp(password: $p) { secret } }`, map[string]any{"p": password}).(map[string]any)
	code, err := totp.GenerateCode(e["secret"].(string), time.Now())
	require.NoError(t, err)
	logtest.Secret(e["secret"].(string), code)
	backup := me.must(t, "confirmTotp", `mutation($code: String!) { confirmTotp(code: $code) }`, map[string]any{"code": code}).([]any)
	for _, code := range backup {
		logtest.Secret(code.(string))
	}

	v := visit(t, c.nodes[0])
	for _, r := range []struct {
		password, code string
		status         int
		says           string
	}{
		{wrong, "", http.StatusUnauthorized, "The login or the password is wrong."},
		{password, "", http.StatusUnauthorized, "This account has a second factor: fill in a code as well."},
		{password, "000000", http.StatusUnauthorized, "The second factor is wrong."},
	} {
		p := v.post("/admin/sign-in", "login", "root", "password", r.password, "code", r.code, "next", "/jobs/")
		require.Equal(t, r.status, p.status)
		require.Contains(t, p.text, r.says)
		require.Contains(t, p.text, `name="next" value="/jobs/"`)
		require.NotContains(t, p.text, r.password)
		require.Empty(t, v.cookies)
	}
	for i, to := range []string{"https://example.org/admin", "//example.org/admin", "/admin/../graphql", "/playground/", `/admin\..\x`, "javascript:alert(1)"} {
		p := v.post("/admin/sign-in", "login", "root", "password", password, "code", backup[i].(string), "next", to)
		require.Equal(t, http.StatusSeeOther, p.status, p.text)
		require.Equal(t, "/admin", p.header.Get("Location"), to)
	}
	require.Equal(t, http.StatusOK, v.get("/admin").status)
	for range 10 {
		v.post("/admin/sign-in", "login", "root", "password", wrong)
		c.exec(t, `UPDATE login_guards SET next_attempt_at = NULL`)
	}
	p := v.post("/admin/sign-in", "login", "root", "password", password)
	require.Equal(t, http.StatusForbidden, p.status)
	require.Contains(t, p.text, "this account is locked for a while")
	require.NotEmpty(t, p.header.Get("Retry-After"))
}

// Whoever is demoted, signed out or deleted on one node sees no page of another within a second.
func TestOperatorsAccessEnds(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "root", "admin")
	root := visit(t, c.nodes[0]).signIn("root")
	for i, end := range []struct {
		name   string
		do     func(id string)
		status int
	}{
		{"role", func(id string) { root.post("/admin/users/"+id+"/role", "role", "moderator") }, http.StatusForbidden},
		{"sessions", func(id string) { root.post("/admin/users/" + id + "/sessions") }, http.StatusSeeOther},
		{"lock", func(id string) { root.post("/admin/users/" + id + "/lock") }, http.StatusSeeOther},
		{"lock in psql", func(id string) {
			c.exec(t, `UPDATE sessions SET revoked_at = now() WHERE user_id = $1`, id)
		}, http.StatusSeeOther},
		{"role in psql", func(id string) { c.exec(t, `UPDATE users SET role = 'user' WHERE id = $1`, id) }, http.StatusForbidden},
		{"deleted in psql", func(id string) { c.exec(t, `DELETE FROM users WHERE id = $1`, id) }, http.StatusSeeOther},
	} {
		name := fmt.Sprintf("admin%d", i)
		id := c.user(t, name, "admin")
		v := visit(t, c.nodes[1]).signIn(name)
		require.Equal(t, http.StatusOK, v.get("/admin").status)
		require.Equal(t, http.StatusOK, v.get("/jobs/api/states").status)
		end.do(id)
		require.Eventually(t, func() bool { return v.get("/admin").status == end.status }, soon, time.Millisecond, end.name)
		require.NotEqual(t, http.StatusOK, v.get("/jobs/api/states").status, end.name)
	}
}

// A page goes on where the access token's cookie is over, also if a script asks for much at once.
func TestOperatorsSessionsGoOn(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "root", "admin")
	v := visit(t, c.nodes[0]).signIn("root")
	delete(v.cookies, "__Host-gs_access")
	first := v.cookies["__Host-gs_refresh"]
	var all sync.WaitGroup
	var mu sync.Mutex
	next := map[string]bool{}
	for range 10 {
		all.Go(func() {
			p, set := v.try(http.MethodGet, "/jobs/api/states", "")
			require.Equal(t, http.StatusOK, p.status, p.text)
			require.Len(t, set, 2)
			mu.Lock()
			defer mu.Unlock()
			next[set[1].Value] = true
		})
	}
	all.Wait()
	require.Len(t, next, 1, "all have the same")
	require.NotContains(t, next, first)
	require.Equal(t, http.StatusOK, v.get("/admin").status)
	requireNoForks(t, c.url)
}

// No page of another origin changes or reads anything, also where it may use the API, and nothing is changed by GET.
func TestOperatorPagesOfOtherOrigins(t *testing.T) {
	t.Parallel()
	const friend = "https://friend.example"
	for _, storage := range storages {
		t.Run(string(storage), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, func(cfg *Config) { cfg.Auth.Storage, cfg.Server.Origins = storage, []string{friend} })
			c.user(t, "root", "admin")
			ada := c.user(t, "ada", "user")
			root := visit(t, c.nodes[0]).signIn("root")
			for _, from := range [][]string{
				{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site", "Origin", friend},
				{"Sec-Fetch-Site", "same-site", "Origin", friend}, {"Sec-Fetch-Site", "", "Origin", friend}, {"Sec-Fetch-Site", "", "Origin", "null"},
			} {
				for _, r := range [][3]string{
					{"POST", "/admin/users/" + ada + "/lock", ""}, {"POST", "/admin/users/" + ada + "/role", "role=admin"}, {"POST", "/admin/sign-out", ""},
					{"POST", "/admin/sign-in", "login=ada&password=" + url.QueryEscape(password)}, {"PUT", "/jobs/api/queues/default/pause", ""},
					{"POST", "/jobs/api/jobs/delete", `{"ids":["1"]}`}, {"PATCH", "/jobs/api/queues/default", `{}`},
				} {
					p := root.send(r[0], r[1], r[2], from...)
					require.Equal(t, http.StatusForbidden, p.status, "%s %v", r, from)
				}
				p := root.send(http.MethodGet, "/jobs/api/jobs?limit=5&state=completed", "", from...)
				require.Empty(t, p.header.Get("Access-Control-Allow-Origin"))
				require.Empty(t, p.header.Get("Access-Control-Allow-Credentials"))
			}
			for _, path := range []string{"/admin/users/" + ada + "/lock", "/admin/sign-out", "/jobs/api/queues/default/pause", "/jobs/api/jobs/delete"} {
				root.get(path)
			}
			require.Zero(t, c.count(t, `users WHERE locked_at IS NOT NULL OR username = 'ada' AND role <> 'user'`))
			require.Zero(t, c.count(t, `river_queue WHERE paused_at IS NOT NULL`))
			require.Zero(t, c.count(t, `security_events WHERE name <> 'login_succeeded'`))
			require.Equal(t, http.StatusOK, root.get("/admin").status)

			// Browsers that do not say it by Sec-Fetch-Site say it by Origin.
			p := root.send(http.MethodPost, "/admin/users/"+ada+"/lock", "", "Sec-Fetch-Site", "", "Origin", publicURL)
			require.Equal(t, http.StatusSeeOther, p.status)
		})
	}
}

// Pages have a strict policy, are kept nowhere, and name nothing of another host.
func TestOperatorPagesHeaders(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "root", "admin")
	v := visit(t, c.nodes[0])
	check := func(path string, v *visitor) page {
		p := v.get(path)
		policy := p.header.Get("Content-Security-Policy")
		for _, directive := range []string{"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} {
			require.Contains(t, policy, directive, path)
		}
		require.NotContains(t, policy, "unsafe-eval")
		require.NotContains(t, policy, "http")
		require.Equal(t, "no-store", p.header.Get("Cache-Control"), path)
		require.Equal(t, "same-origin", p.header.Get("Referrer-Policy"))
		require.Equal(t, "nosniff", p.header.Get("X-Content-Type-Options"))
		require.Equal(t, "DENY", p.header.Get("X-Frame-Options"))
		require.NotEmpty(t, p.header.Get("Strict-Transport-Security"))
		if strings.HasPrefix(path, "/admin") {
			require.NotContains(t, policy, "unsafe")
			require.NotContains(t, policy, "script-src")
		}
		require.NotRegexp(t, `(?:src|href|action)="?(?:https?:)?//[^l]`, p.text, path)
		return p
	}
	p := check("/admin/sign-in", v)
	require.NotRegexp(t, `(?i)<script|<style|\sstyle=|\son\w+=`, p.text)
	v.signIn("root")
	for _, path := range operatorPages {
		p := check(path, v)
		if strings.HasPrefix(path, "/admin") {
			require.NotRegexp(t, `(?i)<script|<style|\sstyle=|\son\w+=`, p.text)
		}
	}
	script := regexp.MustCompile(`src="(/jobs/assets/[^"]+)"`).FindStringSubmatch(v.get("/jobs/").text)
	require.NotNil(t, script)
	require.Equal(t, "private, max-age=31536000, immutable", v.get(script[1]).header.Get("Cache-Control"))
	require.Equal(t, "no-store", v.get("/jobs/assets/none.js").header.Get("Cache-Control"))
	require.Equal(t, http.StatusSeeOther, visit(t, c.nodes[0]).get(script[1]).status)
	require.Equal(t, "text/css; charset=utf-8", visit(t, c.nodes[0]).get("/admin/style.css").header.Get("Content-Type"))
}

// Whatever an administrator does to an account is a security event with who did it.
func TestOperatorsAreRecorded(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	root, ada := c.user(t, "root", "admin"), c.user(t, "ada", "user")
	by := c.on(0).login(t, "root").user
	v := visit(t, c.nodes[0]).signIn("root")
	at := "/admin/users/" + ada
	mine := visit(t, c.nodes[1]).signIn("ada")
	mine.on(c.nodes[0]).signIn("ada")
	session := func() string {
		m := regexp.MustCompile(`name="session" value="(session_\w+)"`).FindStringSubmatch(v.get(at).text)
		require.NotNil(t, m)
		return m[1]
	}
	for _, step := range []struct {
		path  string
		form  []string
		event string
		says  string
	}{
		{"/session", []string{"session", session()}, auth.SessionRevoked, "The session has ended."},
		{"/sessions", nil, auth.SessionRevoked, "All sessions have ended."},
		{"/role", []string{"role", "moderator"}, auth.RoleChanged, "The role is changed."},
		{"/lock", nil, auth.AccountLocked, "The account is locked"},
		{"/unlock", nil, auth.AccountUnlocked, "The account is unlocked."},
	} {
		before := c.count(t, `security_events`)
		p := v.post(at+step.path, step.form...)
		require.Equal(t, http.StatusSeeOther, p.status, "%s: %s", step.path, p.text)
		require.Contains(t, v.get(p.header.Get("Location")).text, step.says)
		require.Equal(t, before+1, c.count(t, `security_events`), step.path)
		var name, user, actor, address string
		require.NoError(t, c.db.QueryRow(t.Context(), `SELECT name, user_id, actor, address FROM security_events ORDER BY created_at DESC, id DESC LIMIT 1`).
			Scan(&name, &user, &actor, &address))
		require.Equal(t, []string{step.event, ada, by, "127.0.0.1"}, []string{name, user, actor, address})
	}
	require.Zero(t, c.count(t, `sessions WHERE user_id = $1 AND revoked_at IS NULL`, ada))

	before := c.count(t, `security_events`)
	for _, r := range []struct {
		path   string
		form   []string
		status int
		says   string
	}{
		{"/admin/users/" + root + "/lock", nil, http.StatusForbidden, "Nobody locks their own account."},
		{"/admin/users/" + root + "/role", []string{"role", "user"}, http.StatusForbidden, "The last administrator stays one."},
		{at + "/role", []string{"role", "king"}, http.StatusBadRequest, "There is no such role."},
		{at + "/session", []string{"session", "x"}, http.StatusBadRequest, "This is not the id of a session."},
		{at + "/session", []string{"session", session0}, http.StatusNotFound, "No such session."},
		{"/admin/users/nobody/lock", nil, http.StatusNotFound, "No such user."},
		{at + "/second-factor", nil, http.StatusSeeOther, ""}, // there is none to turn off
	} {
		p := v.post(r.path, r.form...)
		require.Equal(t, r.status, p.status, r.path)
		require.Contains(t, p.text, r.says)
	}
	require.Equal(t, before, c.count(t, `security_events`))

	events := v.get("/admin/events?user=ada&name=account_locked").text
	require.Contains(t, events, "account_locked</td>")
	require.NotContains(t, events, "role_changed</td>")
	require.Contains(t, v.get("/admin/events?user=nobody").text, "There is no user with this id")
	export := regexp.MustCompile(`href="(/admin/security-events.jsonl[^"]*)"`).FindStringSubmatch(events)
	require.NotNil(t, export)
	lines := strings.Split(strings.TrimSpace(v.get(strings.ReplaceAll(export[1], "&amp;", "&")).text), "\n")
	require.Len(t, lines, 1)
	require.Contains(t, lines[0], `"name":"account_locked"`)
}

// session0 is the id of a session that there is none of.
const session0 = "session_01m8317ybbfw7sq6xbner80etv"

// Lists go on where a page ends, and searches take what is typed as it is.
func TestOperatorsLists(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "root", "admin")
	c.exec(t, `INSERT INTO users (email, username, name) SELECT 'u' || n || '@example.net', 'u_' || lpad(n::text, 3, '0'), 'Zoë ' || n FROM generate_series(1, 120) n`)
	v := visit(t, c.nodes[0]).signIn("root")
	all := func(path string, pattern string) (found []string) {
		for path != "" {
			text := v.get(path).text
			for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
				found = append(found, m[1])
			}
			next := regexp.MustCompile(`href="([^"]*)" rel="next"`).FindStringSubmatch(text)
			path = ""
			if next != nil {
				path = strings.ReplaceAll(next[1], "&amp;", "&")
			}
		}
		return found
	}
	const user = `<td><a href="/admin/users/user_\w+">([^<]*)</a></td>`
	require.Len(t, all("/admin/users", user), 121)
	for q, n := range map[string]int{"u_00": 9, "u__0": 0, "u%25": 0, "zoë 7": 11, "u7@": 1, "U_007": 1, "root@example.com": 1, "%5C": 0, "%00": 121, idOf(t, c, "root"): 1, "7": 11} {
		require.Len(t, all("/admin/users?q="+strings.ReplaceAll(q, " ", "+"), user), n, q)
	}
	require.Equal(t, []string{"root"}, all("/admin/users?role=admin", user))
	c.exec(t, `UPDATE users SET locked_at = now() WHERE username = 'u_005'`)
	c.exec(t, `INSERT INTO login_guards (account, failures, window_started_at, locked_until) SELECT id::text, 10, now(), now() + interval '1 hour'
		FROM users WHERE username = 'u_006'`)
	require.Equal(t, []string{"u_005", "u_006"}, all("/admin/users?locked=1", user))

	c.exec(t, `INSERT INTO security_events (name, severity, detail) SELECT 'login_succeeded', 'info', jsonb_build_object('n', n) FROM generate_series(1, 120) n`)
	require.Len(t, all("/admin/events?name=login_succeeded", `(<code>\{&#34;n&#34;)`), 120)
	text := v.get("/admin/users?q=" + url.QueryEscape(`"><script>alert(1)</script>`)).text
	require.NotContains(t, text, "<script>")
}

// What is changed at /jobs is one transaction with its event, and what River refuses is none.
func TestOperatorsJobs(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) { cfg.Role = RoleServe }) // nobody works them
	c.user(t, "root", "admin")
	by := c.on(0).login(t, "root").user
	v := visit(t, c.nodes[0]).signIn("root")
	c.exec(t, `INSERT INTO river_queue (name) VALUES ('default') ON CONFLICT DO NOTHING`)
	add := func(state string) (id string) {
		require.NoError(t, c.db.QueryRow(t.Context(), `INSERT INTO river_job (args, kind, state, finalized_at, max_attempts)
			VALUES ('{}', 'expire_changes', $1::text::river_job_state, CASE WHEN $1::text IN ('discarded', 'completed') THEN now() END, 25) RETURNING id::text`, state).Scan(&id))
		return id
	}
	discarded, waiting, completed, running := add("discarded"), add("available"), add("completed"), add("running")
	ids := func(ids ...string) string {
		b, err := json.Marshal(map[string][]string{"ids": ids})
		require.NoError(t, err)
		return string(b)
	}
	for _, step := range []struct {
		method, path, body string
		status             int
		event              string // "" for none
		done               string // a condition that holds then
	}{
		{"POST", "jobs/retry", ids(discarded), 200, auth.JobsRetried, `river_job WHERE state = 'available' AND id = ` + discarded},
		{"POST", "jobs/cancel", ids(waiting, discarded), 200, auth.JobsCancelled, `river_job WHERE state = 'cancelled' AND id = ` + waiting},
		{"POST", "jobs/delete", ids(completed, running), 400, "", `river_job WHERE state = 'completed' AND id = ` + completed},
		{"POST", "jobs/delete", ids(completed), 200, auth.JobsDeleted, `(SELECT 1 WHERE NOT EXISTS (SELECT FROM river_job WHERE id = ` + completed + `)) gone`},
		{"POST", "jobs/delete", ids("1000000"), 404, "", `river_job WHERE id = ` + running},
		{"POST", "jobs/delete", `{"ids": 7}`, 400, "", `river_job WHERE id = ` + running},
		{"POST", "jobs/delete", ids(strings.Repeat("9", 70_000)), 400, "", `river_job WHERE id = ` + running},
		{"PUT", "queues/default/pause", "", 200, auth.QueuePaused, `river_queue WHERE paused_at IS NOT NULL`},
		{"PUT", "queues/default/resume", "", 200, auth.QueueResumed, `river_queue WHERE paused_at IS NULL`},
		{"PUT", "queues/none/pause", "", 404, "", `river_queue WHERE paused_at IS NULL`},
		{"POST", "jobs/insert", `{}`, 404, "", `river_queue WHERE paused_at IS NULL`},
		{"DELETE", "jobs/" + running, "", 404, "", `river_job WHERE id = ` + running},
	} {
		before := c.count(t, `security_events`)
		p := v.send(step.method, "/jobs/api/"+step.path, step.body, "Content-Type", "application/json", "Sec-Fetch-Site", "same-origin", "Accept", "application/json")
		require.Equal(t, step.status, p.status, "%s: %s", step.path, p.text)
		require.Equal(t, 1, c.count(t, step.done), step.path)
		if step.event == "" {
			require.Equal(t, before, c.count(t, `security_events`), step.path)
			continue
		}
		require.Equal(t, before+1, c.count(t, `security_events`), step.path)
		var name, actor, detail string
		require.NoError(t, c.db.QueryRow(t.Context(), `SELECT name, actor, detail::text FROM security_events ORDER BY created_at DESC, id DESC LIMIT 1`).
			Scan(&name, &actor, &detail))
		require.Equal(t, []string{step.event, by}, []string{name, actor})
		if strings.HasPrefix(step.path, "queues") {
			require.JSONEq(t, `{"queue": "default"}`, detail)
		} else {
			require.JSONEq(t, strings.Replace(step.body, "ids", "jobs", 1), detail)
		}
	}
	require.Contains(t, v.get("/admin").text, "<b>1</b> waiting")
	require.Contains(t, v.get("/admin/events").text, "jobs_deleted")
}

// The overview has all nodes, with what each says of itself.
func TestOperatorsSeeNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	root := c.user(t, "root", "admin")
	c.on(1).as(c.on(1).login(t, "root").access).subscribeUser(t, root)
	v := visit(t, c.nodes[0]).signIn("root")
	row := func(a *App) string {
		m := regexp.MustCompile(`(?s)<td>[^<]*` + regexp.QuoteMeta(a.Addr().String()) + `</td>.*?</tr>`).FindString(v.get("/admin").text)
		return strings.Join(regexp.MustCompile(`>([^<>\n]+)<`).FindAllString(m, -1), " ")
	}
	require.Eventually(t, func() bool {
		return strings.Contains(row(c.nodes[0]), ">all< >ready< >0< >0< >0< >0<") && strings.Contains(row(c.nodes[1]), ">serve< >ready< >1< >0< >1< >1<")
	}, patience, 10*time.Millisecond)
	require.NoError(t, c.nodes[1].Close())
	require.Empty(t, row(c.nodes[1]), "it takes leave")
}

// subscribeUser opens a socket with a subscription to a user, by their UUID.
func (c client) subscribeUser(t *testing.T, id string) {
	t.Helper()
	s := c.connect(t)
	payload, err := json.Marshal(map[string]any{"query": `subscription($id: ID!) { userChanged(id: $id) { kind } }`, "variables": map[string]any{"id": id}})
	require.NoError(t, err)
	require.NoError(t, wsjson.Write(s.ctx, s.conn, frame{ID: "1", Type: "subscribe", Payload: payload}))
	require.Equal(t, "next", s.receive().Type)
}
