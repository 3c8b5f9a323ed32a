package app

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"godstack/internal/auth"
	"godstack/internal/dbtest"
	"godstack/internal/mail"
)

// 50 refreshes at once with one token, over two nodes, all get the same child.
func TestRefreshesAtOnceGetOneChild(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "ada", "user")
	parent := c.on(0).login(t, "ada").refresh

	const n = 50
	var got [n]tokens
	began := time.Now()
	atOnce(n, func(i int) {
		s, a, err := c.on(i % 2).refresh(parent)
		if err != nil || a.code() != "" {
			t.Errorf("refresh %d: %v, %v", i, a.Errors, err)
		}
		got[i] = s
	})
	t.Logf("%d refreshes at once over two nodes: %s", n, time.Since(began).Round(time.Millisecond))
	child := got[0].refresh
	require.NotEmpty(t, child)
	require.NotEqual(t, parent, child)
	for _, s := range got {
		require.Equal(t, child, s.refresh)
		require.NotEmpty(t, s.access)
	}
	require.Equal(t, 2, c.count(t, `refresh_tokens`))
	require.Equal(t, 1, c.count(t, `refresh_tokens WHERE rotated_at IS NULL`))
	hash := sha256.Sum256([]byte(child))
	require.Equal(t, 1, c.count(t, `refresh_tokens WHERE rotated_at IS NULL AND hash = $1`, hash[:]))
	require.Zero(t, c.count(t, `security_events WHERE name = $1`, auth.TokenReuseDetected))
}

// A token whose child was used is a stolen one: whoever has the family is signed out on both nodes, and hears of it.
func TestReuseRevokesTheFamilyOnAllNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	id := c.user(t, "ada", "user")
	parent := c.on(0).login(t, "ada")
	other := c.on(1).login(t, "ada") // of another family
	child, _, err := c.on(1).refresh(parent.refresh)
	require.NoError(t, err)
	leaf, _, err := c.on(0).refresh(child.refresh)
	require.NoError(t, err)
	require.NotEmpty(t, leaf.refresh)
	ended := c.on(1).as(leaf.access).connect(t).watch()

	_, a, err := c.on(0).refresh(parent.refresh)
	began := time.Now()
	require.NoError(t, err)
	require.Equal(t, "UNAUTHENTICATED", a.code())
	took := c.refused(t, 1, leaf.access, began)
	end := c.ends(t, ended)
	t.Logf("after reuse the other node refused the access token in %s and closed the socket in %s", took, end.at.Sub(began).Round(time.Millisecond))
	for _, token := range []string{parent.access, child.access, leaf.access} {
		for node := range c.nodes {
			_, code, err := c.on(node).as(token).me()
			require.NoError(t, err)
			require.Equal(t, "UNAUTHENTICATED", code)
		}
	}
	for i, token := range []string{leaf.refresh, child.refresh, parent.refresh} {
		_, a, err := c.on(i % 2).refresh(token)
		require.NoError(t, err)
		require.Equal(t, "UNAUTHENTICATED", a.code())
	}
	for _, name := range []string{auth.TokenReuseDetected, auth.TokenFamilyRevoked} {
		require.Equal(t, 1, c.events(t, name, id), name)
	}
	require.Equal(t, mail.TokenReuse, c.mailed(t, mail.TokenReuse, "ada@example.com").Kind)

	me, _, err := c.on(0).as(other.access).me()
	require.NoError(t, err)
	require.NotEmpty(t, me, "the other device stays signed in")
	s, _, err := c.on(0).refresh(other.refresh)
	require.NoError(t, err)
	require.NotEmpty(t, s.refresh)
}

// refused waits until a node refuses an access token, and returns how long that took.
func (c *cluster) refused(t *testing.T, node int, token string, began time.Time) time.Duration {
	t.Helper()
	for time.Since(began) < soon {
		_, code, err := c.on(node).as(token).me()
		require.NoError(t, err)
		if code != "" {
			require.Equal(t, "UNAUTHENTICATED", code)
			return time.Since(began).Round(time.Millisecond)
		}
	}
	require.Fail(t, "the access token is still good")
	return 0
}

// ends waits for the end of a socket whose session has ended.
func (c *cluster) ends(t *testing.T, ended <-chan closed) closed {
	t.Helper()
	select {
	case end := <-ended:
		require.Equal(t, websocket.StatusCode(4403), end.code)
		return end
	case <-time.After(soon):
		require.Fail(t, "the socket is still open")
		return closed{}
	}
}

// Whatever ends a session on one node ends its access tokens and sockets on the other.
func TestRevocationReachesAllNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "root", "admin")
	root := c.on(0).as(c.on(0).login(t, "root").access)

	for i, revocation := range []struct {
		name string
		do   func(t *testing.T, c client, user tokens)
	}{
		{"logout", func(t *testing.T, me client, _ tokens) {
			require.Equal(t, true, me.must(t, "logout", `mutation { logout }`, nil))
		}},
		{"logoutEverywhere", func(t *testing.T, me client, _ tokens) {
			require.EqualValues(t, 1, me.must(t, "logoutEverywhere", `mutation { logoutEverywhere }`, nil))
		}},
		{"changePassword", func(t *testing.T, me client, _ tokens) {
			s := tokensOf(me.must(t, "changePassword", `mutation($old: String!, $new: String!) { changePassword(current: $old, password: $new) `+payload+` }`,
				map[string]any{"old": password, "new": newPassword}))
			got, _, err := c.on(1).as(s.access).me()
			require.NoError(t, err)
			require.NotEmpty(t, got, "the new session is good on the other node")
		}},
		{"resetPassword", func(t *testing.T, me client, _ tokens) {
			const address = "user3@example.com"
			me.must(t, "requestPasswordReset", `mutation { requestPasswordReset(email: "`+address+`") }`, nil)
			require.Equal(t, true, me.as("").must(t, "resetPassword", `mutation($token: String!, $new: String!) { resetPassword(token: $token, password: $new) }`,
				map[string]any{"token": c.mailedToken(t, mail.ResetPassword, address), "new": newPassword}))
		}},
		{"revokeSession", func(t *testing.T, me client, _ tokens) {
			sessions := me.must(t, "sessions", `{ sessions { id current } }`, nil).([]any)
			require.Len(t, sessions, 1)
			require.Equal(t, true, sessions[0].(map[string]any)["current"])
			me.must(t, "revokeSession", `mutation($id: ID!) { revokeSession(id: $id) }`, map[string]any{"id": sessions[0].(map[string]any)["id"]})
		}},
		{"revokeSession by an administrator", func(t *testing.T, me client, _ tokens) {
			sessions := me.must(t, "sessions", `{ sessions { id } }`, nil).([]any)
			root.must(t, "revokeSession", `mutation($id: ID!) { revokeSession(id: $id) }`, map[string]any{"id": sessions[0].(map[string]any)["id"]})
		}},
		{"setRole", func(t *testing.T, _ client, user tokens) {
			root.must(t, "setRole", `mutation($id: ID!) { setRole(id: $id, role: moderator) { id } }`, map[string]any{"id": user.user})
		}},
		{"deleteUser", func(t *testing.T, _ client, user tokens) {
			v := root.must(t, "user", `query($id: ID!) { user(id: $id) { version } }`, map[string]any{"id": user.user}).(map[string]any)["version"]
			root.must(t, "deleteUser", `mutation($id: ID!, $v: Int!) { deleteUser(id: $id, expectedVersion: $v) { version } }`, map[string]any{"id": user.user, "v": v})
		}},
	} {
		name := fmt.Sprintf("user%d", i)
		c.user(t, name, "user")
		s := c.on(0).login(t, name)
		here, there := c.on(0).as(s.access), c.on(1).as(s.access)
		for _, node := range []client{here, there} {
			id, _, err := node.me()
			require.NoError(t, err)
			require.Equal(t, s.user, id, revocation.name)
		}
		ended := there.connect(t).watch()

		revocation.do(t, here, s)
		began := time.Now()
		_, code, err := here.me()
		require.NoError(t, err)
		if revocation.name != "deleteUser" { // which is no part of the accounts: this node too reads it in the log
			require.Equal(t, "UNAUTHENTICATED", code, "%s: the node that does it knows at once", revocation.name)
		}
		took := c.refused(t, 1, s.access, began)
		end := c.ends(t, ended)
		t.Logf("%-34s refused on the other node after %5s, socket closed after %5s", revocation.name, took, end.at.Sub(began).Round(time.Millisecond))

		fresh, a, err := c.on(1).refresh(s.refresh)
		require.NoError(t, err)
		if revocation.name == "setRole" {
			require.Equal(t, "moderator", a.Data["refresh"].(map[string]any)["user"].(map[string]any)["role"])
			id, _, err := c.on(0).as(fresh.access).me()
			require.NoError(t, err)
			require.Equal(t, s.user, id, "who has another role goes on after a refresh")
		} else {
			require.Equal(t, "UNAUTHENTICATED", a.code(), "the refresh token has ended as well: %s", revocation.name)
		}
	}
}

// A node that is over a second behind asks the database whether a session has ended.
func TestANodeThatIsBehindAsksTheDatabase(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "ada", "user")
	p := newPostgresProxy(t, c.url)
	cfg := c.cfg
	cfg.DatabaseURL = p.url + "&pool_min_conns=3&application_name=behind"
	behind := open(t, start(t, cfg))
	kept := c.on(0).login(t, "ada")
	id, _, err := behind.as(kept.access).me()
	require.NoError(t, err)
	require.Equal(t, kept.user, id)

	over := c.on(0).login(t, "ada")
	old := behind.as(over.access).connect(t)

	// Its tailer loses its connection, and gets no other.
	p.refuse(true)
	var ended int
	require.Eventually(t, func() bool {
		require.NoError(t, c.db.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE application_name = 'behind tailer'`).Scan(&ended))
		return ended == 1
	}, patience, time.Millisecond)

	c.on(0).as(over.access).must(t, "logout", `mutation { logout }`, nil)
	// At first it does not know; when its last read is over a second ago it asks.
	began := time.Now()
	late := 0
	for {
		s := c.on(0).login(t, "ada")
		c.on(0).as(s.access).must(t, "logout", `mutation { logout }`, nil)
		_, code, err := behind.as(s.access).me()
		require.NoError(t, err)
		if code != "" {
			require.Equal(t, "UNAUTHENTICATED", code)
			break
		}
		late++
		require.Less(t, time.Since(began), soon)
	}
	c.ends(t, old.ask(`{ me { id } }`)) // likewise over a socket that it had before
	t.Logf("without the log, a node asks the database after %s; %d sessions that had ended were taken before", time.Since(began).Round(time.Millisecond), late)
	id, _, err = behind.as(kept.access).me()
	require.NoError(t, err)
	require.Equal(t, kept.user, id, "and who is signed in stays so")
	status, _ := get(t, behind.url+"/healthz")
	require.Equal(t, 200, status)

	// When it is back it reads on where it was, and takes no stock of what it missed but from the log.
	p.refuse(false)
	s := c.on(0).login(t, "ada")
	ws := behind.as(s.access).connect(t).watch()
	c.on(0).as(s.access).must(t, "logout", `mutation { logout }`, nil)
	require.Equal(t, websocket.StatusCode(4403), (<-ws).code)
}

// A socket is good for as long as the access token that it was opened with.
func TestASocketEndsWithItsAccessToken(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second
	c := newCluster(t, func(cfg *Config) { cfg.Auth.AccessTTL = ttl })
	c.user(t, "ada", "user")
	began := time.Now()
	s := c.on(0).login(t, "ada")
	me := c.on(1).as(s.access)
	id := me.must(t, "createThread", createThread, nil).(map[string]any)["id"].(string)
	ws := me.subscribe(t, id)
	ws.expect(`{"kind": "SNAPSHOT", "version": 1, "thread": {"subject": "one"}}`)
	end := c.ends(t, ws.watch())
	require.Greater(t, end.at, began.Add(ttl-time.Second)) // tokens say it in seconds
	require.Less(t, end.at, began.Add(ttl+soon))
	_, code, err := me.me()
	require.NoError(t, err)
	require.Equal(t, "UNAUTHENTICATED", code)

	next, _, err := c.on(0).refresh(s.refresh)
	require.NoError(t, err)
	c.on(1).as(next.access).subscribe(t, id).expect(`{"kind": "SNAPSHOT", "version": 1, "thread": {"subject": "one"}}`)
}

// postgresProxy passes connections on to the database, unless it refuses new ones.
type postgresProxy struct {
	url string

	mu      sync.Mutex // protects refusing
	refused bool
}

func newPostgresProxy(t *testing.T, database string) *postgresProxy {
	t.Helper()
	cfg, err := pgx.ParseConfig(database)
	require.NoError(t, err)
	network, address := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u, err := url.Parse(database)
	require.NoError(t, err)
	u.Host, u.RawQuery = ln.Addr().String(), "sslmode=disable"
	p := &postgresProxy{url: u.String()}
	var all sync.WaitGroup
	pass := func(c net.Conn) {
		defer func() { _ = c.Close() }()
		s, err := net.Dial(network, address)
		if err != nil {
			return
		}
		all.Go(func() {
			defer func() { _ = s.Close() }()
			_, _ = io.Copy(s, c)
		})
		_, _ = io.Copy(c, s)
	}
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			refused := p.refused
			p.mu.Unlock()
			if refused {
				_ = c.Close()
				continue
			}
			all.Go(func() { pass(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		all.Wait()
	})
	return p
}

func (p *postgresProxy) refuse(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = yes
}

// A restart signs nobody out, nor does a key that was replaced.
func TestKeysAreReplaced(t *testing.T) {
	t.Parallel()
	cfg := Config{DatabaseURL: dbtest.URL(t), Development: true, Seed: true, PublicURL: publicURL}
	a := start(t, cfg)
	s := tokensOf(open(t, a).must(t, "login", login, map[string]any{"login": "ada", "password": SeedPassword}))
	require.NoError(t, a.Close())

	cfg.JWTKeys, cfg.SecretKeys = auth.GenerateKey()+","+jwtKeys, auth.GenerateSecret()+","+secretKeys
	a = start(t, cfg)
	id, _, err := open(t, a).as(s.access).me()
	require.NoError(t, err)
	require.Equal(t, s.user, id)
	next, _, err := open(t, a).refresh(s.refresh)
	require.NoError(t, err)
	require.NotEmpty(t, next.access)
	require.NoError(t, a.Close())

	// Without the old key its tokens are refused, and what was made since is good.
	newKey, _, _ := strings.Cut(cfg.JWTKeys, ",")
	newSecret, _, _ := strings.Cut(cfg.SecretKeys, ",")
	cfg.JWTKeys, cfg.SecretKeys = newKey, newSecret
	c := open(t, start(t, cfg))
	_, code, err := c.as(s.access).me()
	require.NoError(t, err)
	require.Equal(t, "UNAUTHENTICATED", code)
	id, _, err = c.as(next.access).me()
	require.NoError(t, err)
	require.Equal(t, s.user, id)
	again, _, err := c.refresh(next.refresh)
	require.NoError(t, err)
	require.NotEmpty(t, again.access)
}
