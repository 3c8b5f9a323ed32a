package app

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"godstack/internal/auth"
	"godstack/internal/dbtest"
	"godstack/internal/logtest"
	"godstack/internal/mail"
	"godstack/internal/record"
)

const register = `mutation($email: String!, $name: String!, $password: String!) {
	register(input: {email: $email, username: $name, name: $name, password: $password}) ` + payload + ` }`

func registering(name string) map[string]any {
	return map[string]any{"email": name + "@example.com", "name": name, "password": password}
}

// Where addresses have to be confirmed, registering tells nobody whether one is known.
func TestRegisterWithConfirmation(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) { cfg.Auth.VerifyEmail = "" }) // required by default
	c.user(t, "ada", "user")
	again := registering("countess")
	again["email"] = "ADA@example.com"
	nothing := map[string]any{"accessToken": nil, "refreshToken": nil, "expiresAt": nil, "user": nil}
	for i, vars := range []map[string]any{registering("grace"), again} {
		a := c.on(i).query(t, register, vars)
		require.Empty(t, a.Errors)
		require.Equal(t, map[string]any{"register": nothing}, a.Data)
		require.Empty(t, a.header["Set-Cookie"])
	}
	c.mailed(t, mail.AccountExists, "ada@example.com") // whose address it is hears of it
	require.Equal(t, 2, c.count(t, `users`))
	require.Equal(t, nothing, c.on(0).must(t, "login", login, map[string]any{"login": "grace", "password": password}), "not yet")

	const verify = `mutation($token: String!) { verifyEmail(token: $token) ` + payload + ` }`
	token := c.mailedToken(t, mail.VerifyEmail, "grace@example.com")
	s := tokensOf(c.on(1).must(t, "verifyEmail", verify, map[string]any{"token": token}))
	id, _, err := c.on(0).as(s.access).me()
	require.NoError(t, err)
	require.Equal(t, s.user, id)
	require.Equal(t, "BAD_USER_INPUT", c.on(0).query(t, verify, map[string]any{"token": token}).code(), "once")
	c.on(0).login(t, "grace")

	a := c.on(0).query(t, register, registering("grace"))
	require.Equal(t, "ALREADY_EXISTS", a.code(), "a user name is public")
	require.Equal(t, []any{"username"}, a.Errors[0].Extensions["fields"])
}

func TestRegisterWithoutConfirmation(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s := tokensOf(c.on(0).must(t, "register", register, registering("grace")))
	id, _, err := c.on(1).as(s.access).me()
	require.NoError(t, err)
	require.Equal(t, s.user, id)
	c.mailedToken(t, mail.VerifyEmail, "grace@example.com")
	again := registering("hopper")
	again["email"] = "grace@example.com"
	a := c.on(1).query(t, register, again)
	require.Equal(t, "ALREADY_EXISTS", a.code())
	require.Equal(t, []any{"email"}, a.Errors[0].Extensions["fields"])
	for _, weak := range []string{"short 1", "password", "grace-hopper", "1234567890", strings.Repeat("ab", 40)} {
		again := registering("hopper")
		again["password"] = weak
		a := c.on(0).query(t, register, again)
		require.Equal(t, "BAD_USER_INPUT", a.code(), weak)
		require.Equal(t, []any{"password"}, a.Errors[0].Extensions["fields"])
	}
}

// How long answers take for known and unknown addresses. It is measured and told, not judged: the machine may be busy.
func TestKnownAndUnknownTakeTheSameTime(t *testing.T) {
	t.Parallel()
	const samples = 200
	c := newCluster(t, func(cfg *Config) { cfg.Auth.VerifyEmail = auth.VerifyRequired })
	me := c.on(0)
	c.user(t, "ada", "user")
	c.exec(t, `INSERT INTO users (email, username, name, password_hash, email_verified_at)
		SELECT 'user' || i || '@example.com', 'user' || i, 'User', (SELECT password_hash FROM users), CASE WHEN i < $1 THEN now() END
		FROM generate_series(0, 2 * $1 - 1) i`, samples)
	for _, m := range []struct {
		name     string
		document string
		vars     func(i int, known bool) map[string]any
		code     string
	}{
		{"register", register, func(i int, known bool) map[string]any {
			vars := registering(fmt.Sprintf("new%d%t", i, known))
			if known {
				vars["email"] = fmt.Sprintf("user%d@example.com", i)
			}
			return vars
		}, ""},
		{"login", login, func(i int, known bool) map[string]any {
			name := fmt.Sprintf("user%d", i)
			if !known {
				name = fmt.Sprintf("none%d", i)
			}
			return map[string]any{"login": name, "password": wrong}
		}, "UNAUTHENTICATED"},
		{"requestPasswordReset", `mutation($email: String!) { requestPasswordReset(email: $email) }`, func(i int, known bool) map[string]any {
			return map[string]any{"email": fmt.Sprintf("%s%d@example.com", map[bool]string{true: "user", false: "none"}[known], i)}
		}, ""},
		{"requestEmailVerification", `mutation($email: String!) { requestEmailVerification(email: $email) }`, func(i int, known bool) map[string]any {
			return map[string]any{"email": fmt.Sprintf("%s%d@example.com", map[bool]string{true: "user", false: "none"}[known], samples+i)}
		}, ""},
	} {
		took := map[bool][]time.Duration{}
		texts := map[string]bool{}
		for i := range 2 * samples {
			known := i%2 == i/2%2 // neither is always the first
			began := time.Now()
			a := me.query(t, m.document, m.vars(i/2, known))
			took[known] = append(took[known], time.Since(began))
			require.Equal(t, m.code, a.code())
			for _, e := range a.Errors {
				texts[e.Message] = true
			}
			data, err := json.Marshal(a.Data)
			require.NoError(t, err)
			texts[string(data)] = true
		}
		require.LessOrEqual(t, len(texts), 2, "one answer, and one message where there is one: %v", texts)
		for _, d := range took {
			slices.Sort(d)
		}
		t.Logf("%-25s median known %7s, unknown %7s; 90%% known %7s, unknown %7s", m.name,
			took[true][samples/2].Round(time.Microsecond), took[false][samples/2].Round(time.Microsecond),
			took[true][samples*9/10].Round(time.Microsecond), took[false][samples*9/10].Round(time.Microsecond))
	}
}

// What signs in or manages an account commits by itself, and so is not mixed with what does not.
func TestAccountFieldsStandAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "ada", "user")
	s := c.on(0).login(t, "ada")
	me := c.on(0).as(s.access)
	for _, document := range []string{
		`mutation($p: String!) { createThread(input: {subject: "one"}) { id } login(input: {login: "ada", password: $p}) { accessToken } }`,
		`mutation($p: String!) { login(input: {login: "ada", password: $p}) { accessToken } ...more } fragment more on Mutation { createThread(input: {subject: "one"}) { id } }`,
	} {
		a := me.query(t, document, map[string]any{"p": password})
		require.Equal(t, "BAD_USER_INPUT", a.code())
		require.Len(t, a.Errors, 1)
	}
	require.Equal(t, "BAD_USER_INPUT", me.query(t, `mutation { logout createThread(input: {subject: "one"}) { id } }`, nil).code())
	require.Zero(t, c.count(t, `threads`))
	require.Equal(t, 1, c.count(t, `sessions WHERE revoked_at IS NULL`))
	require.Equal(t, 1, c.count(t, `login_attempts`))

	// Several of them commit each, whatever becomes of the next.
	a := me.query(t, `mutation($p: String!, $w: String!) {
		requestPasswordReset(email: "ada@example.com")
		wrong: login(input: {login: "ada", password: $w}) { accessToken }
		right: login(input: {login: "ada", password: $p}) { accessToken }
	}`, map[string]any{"p": password, "w": wrong})
	require.Equal(t, map[string]int{"UNAUTHENTICATED": 1}, a.codes())
	c.mailedToken(t, mail.ResetPassword, "ada@example.com")
	require.Equal(t, 1, c.count(t, `one_time_tokens WHERE purpose = 'reset_password'`))
	require.Equal(t, 1, c.count(t, `login_attempts WHERE outcome = 'wrong_password'`))
}

// The change log says who did it.
func TestTheChangeLogNamesTheActor(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	id := c.user(t, "ada", "user")
	root := c.user(t, "root", "admin")
	actors := func(entity, op, row string) (list []string) {
		t.Helper()
		rows, err := c.db.Query(t.Context(), `SELECT coalesce(actor, '') FROM changes WHERE entity = $1 AND op = $2 AND ($3 = '' OR id::text = $3) ORDER BY seq`, entity, op, row)
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var actor string
			require.NoError(t, rows.Scan(&actor))
			list = append(list, actor)
		}
		require.NoError(t, rows.Err())
		return list
	}
	require.Equal(t, []string{"", ""}, actors("user", "I", ""), "nobody, of what no API wrote")

	s := c.on(0).login(t, "ada")
	require.Equal(t, []string{id}, actors("session", "I", ""))
	s, _, err := c.on(1).refresh(s.refresh)
	require.NoError(t, err)
	require.Equal(t, []string{id}, actors("session", "U", ""))
	me := c.on(0).as(s.access)
	v := me.must(t, "me", `{ me { version } }`, nil).(map[string]any)["version"]
	me.must(t, "updateUser", `mutation($id: ID!, $v: Int!) { updateUser(id: $id, expectedVersion: $v, input: {name: "Countess"}) { version } }`,
		map[string]any{"id": s.user, "v": v})
	require.Equal(t, []string{id}, actors("user", "U", id))
	me.must(t, "createThread", createThread, nil)
	require.Equal(t, []string{id}, actors("thread", "I", ""))

	c.on(0).as(c.on(0).login(t, "root").access).must(t, "setRole", `mutation($id: ID!) { setRole(id: $id, role: moderator) { id } }`, map[string]any{"id": s.user})
	require.Equal(t, []string{id, root}, actors("user", "U", id))
	s, _, err = c.on(1).refresh(s.refresh)
	require.NoError(t, err)
	changed := tokensOf(c.on(1).as(s.access).must(t, "changePassword", `mutation($old: String!, $new: String!) { changePassword(current: $old, password: $new) `+payload+` }`,
		map[string]any{"old": password, "new": newPassword}))
	require.Equal(t, []string{id, root, id}, actors("user", "U", id))
	c.on(0).as(changed.access).must(t, "logoutEverywhere", `mutation { logoutEverywhere }`, nil)
	for _, actor := range actors("session", "U", "") {
		require.Equal(t, id, actor)
	}
}

// Administrators read, filter and export the audit trail; users read what is about them.
func TestSecurityEvents(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	id := c.user(t, "ada", "user")
	c.user(t, "bob", "moderator")
	c.user(t, "root", "admin")
	ada, bob, root := c.on(0).as(c.on(0).login(t, "ada").access), c.on(0).as(c.on(0).login(t, "bob").access), c.on(0).as(c.on(0).login(t, "root").access)
	require.Equal(t, "UNAUTHENTICATED", c.on(0).query(t, login, map[string]any{"login": "ada", "password": wrong}).code())
	ada.must(t, "logoutEverywhere", `mutation { logoutEverywhere }`, nil)
	ada = c.on(1).as(c.on(1).login(t, "ada").access)

	const list = `query($where: SecurityEventWhereInput) { securityEvents(first: 50, where: $where, orderBy: [{field: CREATED_AT}]) {
		totalCount edges { node { name severity address userAgent actor user { username } } } } }`
	events := func(c client, where map[string]any) (names []string) {
		t.Helper()
		connection := c.must(t, "securityEvents", list, map[string]any{"where": where}).(map[string]any)
		for _, e := range connection["edges"].([]any) {
			n := e.(map[string]any)["node"].(map[string]any)
			names = append(names, n["user"].(map[string]any)["username"].(string)+" "+n["name"].(string))
			require.Equal(t, "127.0.0.1", n["address"])
		}
		require.EqualValues(t, len(names), connection["totalCount"])
		return names
	}
	require.Equal(t, []string{"ada login_succeeded", "ada logged_out_everywhere", "ada login_succeeded"}, events(ada, nil))
	require.Equal(t, []string{"bob login_succeeded"}, events(bob, nil))
	require.Empty(t, events(bob, map[string]any{"name": auth.LoggedOutEverywhere}))
	require.Len(t, events(root, nil), 5)
	require.Equal(t, []string{"ada logged_out_everywhere"}, events(root, map[string]any{"severity": "warning"}))
	require.Len(t, events(root, map[string]any{"name": auth.LoginSucceeded}), 4)
	require.Empty(t, c.on(0).must(t, "securityEvents", list, nil).(map[string]any)["edges"])

	export := func(c client, path string) (int, http.Header, string) {
		t.Helper()
		resp, err := c.request(http.MethodGet, path, "")
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, resp.Header, string(body)
	}
	for _, path := range []string{"/security-events.jsonl", "/security-events.csv"} {
		for want, who := range map[int]client{401: c.on(0), 403: bob, 200: root} {
			status, header, body := export(who, path)
			require.Equal(t, want, status, path)
			require.Equal(t, want == 200, strings.Contains(body, auth.LoginSucceeded))
			require.Contains(t, header.Get("Cache-Control"), "no-store")
		}
	}
	status, _, _ := export(c.on(0).as("nonsense"), "/security-events.csv")
	require.Equal(t, 401, status)
	status, _, _ = export(root, "/security-events.csv?from=yesterday")
	require.Equal(t, 400, status)

	_, header, body := export(root, "/security-events.jsonl?severity=warning&user="+record.ID{Prefix: "user", UUID: uuid.MustParse(id)}.String())
	require.Equal(t, "application/jsonl", header.Get("Content-Type"))
	var lines []map[string]any
	for s := bufio.NewScanner(strings.NewReader(body)); s.Scan(); {
		var line map[string]any
		require.NoError(t, json.Unmarshal(s.Bytes(), &line))
		lines = append(lines, line)
	}
	require.Len(t, lines, 1)
	require.Equal(t, auth.LoggedOutEverywhere, lines[0]["name"])
	_, _, body = export(root, "/security-events.csv")
	table, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	require.NoError(t, err)
	require.Len(t, table, 1+5)
	require.Equal(t, "name", table[0][2])
}

// mailArrives waits for a program's first mail.
func mailArrives(t *testing.T, a *App) mail.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := a.Mail().Wait(ctx, func(mail.Message) bool { return true })
	require.NoError(t, err)
	return m
}

// Mail is shown in development, and nowhere else.
func TestTheMailboxIsForDevelopment(t *testing.T) {
	t.Parallel()
	for _, development := range []bool{true, false} {
		a := start(t, Config{DatabaseURL: dbtest.URL(t), Development: development})
		c := open(t, a)
		require.Empty(t, c.query(t, register, registering("grace")).Errors)
		mailArrives(t, a)
		for _, path := range []string{"/mailbox", "/mailbox/1"} {
			status, body := get(t, local(a)+path)
			require.Equal(t, map[bool]int{true: 200, false: 404}[development], status, path)
			require.Equal(t, development, strings.Contains(body, "grace@example.com"))
		}
	}
}

// The mailbox is for this machine alone: neither for others, nor for a page whose name leads here.
func TestTheMailboxIsPrivate(t *testing.T) {
	t.Parallel()
	cfg := Config{DatabaseURL: dbtest.URL(t), Development: true}
	cfg.Server.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	a := start(t, cfg)
	c := open(t, a)
	require.Empty(t, c.query(t, register, registering("grace")).Errors)
	mailArrives(t, a)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(c.url, "http://"))
	require.NoError(t, err)
	for _, r := range []struct {
		host, from string
		status     int
	}{
		{"127.0.0.1:" + port, "", 200},
		{"127.0.0.1", "", 200},
		{"localhost:" + port, "", 200},
		{"[::1]:" + port, "127.0.0.2", 200},
		{"127.0.0.1:" + port, "::1", 200},
		{"127.0.0.1:" + port, "192.0.2.1", 404},
		{"localhost", "fd00::1", 404},
		{"evil.example:" + port, "", 404},
		{"127.0.0.1.evil.example", "", 404},
		{"localhost.evil.example", "", 404},
		{"192.168.0.1:" + port, "", 404},
		{"0.0.0.0:" + port, "", 404},
		{"[::]:" + port, "", 404},
	} {
		for _, path := range []string{"/mailbox", "/mailbox/1"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+path, nil)
			require.NoError(t, err)
			req.Host = r.host
			if r.from != "" {
				req.Header.Set("X-Forwarded-For", r.from)
			}
			resp, err := c.http.Do(req)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, r.status, resp.StatusCode, "%s for %s from %s", path, r.host, r.from)
			require.Equal(t, r.status == 200, strings.Contains(string(body), "grace@example.com"))
		}
	}
}

// A second factor is turned on, asked for on both nodes, and turned off. Its codes are no more logged than passwords.
func TestSecondFactorOverTheAPI(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "ada", "user")
	me := c.on(0).as(c.on(0).login(t, "ada").access)
	e := me.must(t, "enrollTotp", `mutation($p: String!) { enrollTotp(password: $p) { secret uri } }`, map[string]any{"p": password}).(map[string]any)
	code, err := totp.GenerateCode(e["secret"].(string), time.Now())
	require.NoError(t, err)
	logtest.Secret(e["secret"].(string), code)
	backup := me.must(t, "confirmTotp", `mutation($code: String!) { confirmTotp(code: $code) }`, map[string]any{"code": code}).([]any)
	require.Len(t, backup, 10)
	for _, code := range backup {
		logtest.Secret(code.(string))
	}

	const withCode = `mutation($code: String) { login(input: {login: "ada", password: "` + password + `", code: $code}) ` + payload + ` }`
	for i, wrong := range []any{nil, "000000", code} { // the last one has been used
		a := c.on(i%2).query(t, withCode, map[string]any{"code": wrong})
		require.Equal(t, "UNAUTHENTICATED", a.code(), wrong)
		require.Equal(t, []any{"code"}, a.Errors[0].Extensions["fields"])
	}
	s := tokensOf(c.on(1).must(t, "login", withCode, map[string]any{"code": backup[3]}))
	require.NotEmpty(t, s.access)
	require.Equal(t, "UNAUTHENTICATED", c.on(0).query(t, withCode, map[string]any{"code": backup[3]}).code(), "once")
	c.on(0).as(s.access).must(t, "disableTotp", `mutation($p: String!, $code: String!) { disableTotp(password: $p, code: $code) }`,
		map[string]any{"p": password, "code": backup[7]})
	c.on(1).login(t, "ada")
}
