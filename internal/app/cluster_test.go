package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/auth"
	"godstack/internal/dbtest"
	"godstack/internal/followtest"
	"godstack/internal/logtest"
	"godstack/internal/mail"
	"godstack/internal/ratelimit"
)

const (
	password    = "plover-xylem 42 Dunes"
	newPassword = "Quartz hovel 77 spinet"
	wrong       = "not the password 9"

	// publicURL is where a cluster's nodes are found by browsers, behind whatever is in front of them.
	publicURL = "https://example.com"
	// patience bounds what a test waits for.
	patience = 20 * time.Second
	// soon bounds what has to be known on all nodes within a second, on a busy machine.
	soon = 5 * time.Second
)

var (
	jwtKeys, secretKeys = auth.GenerateKey(), auth.GenerateSecret()
	cheap               = &auth.PasswordConfig{Memory: 64, Time: 1}
)

func TestMain(m *testing.M) {
	logtest.Secret(password, newPassword, wrong, SeedPassword, jwtKeys, jwtKeys[strings.LastIndexByte(jwtKeys, ':')+1:], secretKeys)
	dbtest.Main(logtest.Watch(m))
}

// settings is cfg with what every test has: a free port, keys, hashes that cost little, a log that is looked at.
func settings(cfg Config) Config {
	cfg.Addr = "127.0.0.1:0"
	if cfg.PublicURL == "" && !cfg.Development {
		cfg.PublicURL = publicURL
	}
	if cfg.SMTPURL == "" && !cfg.Development {
		cfg.SMTPURL, cfg.Outbox = NoMail, &mail.Recorder{}
	}
	if cfg.JWTKeys == "" {
		cfg.JWTKeys, cfg.SecretKeys = jwtKeys, secretKeys
	}
	if cfg.Passwords == nil {
		cfg.Passwords = cheap
	}
	if cfg.Logger == nil {
		cfg.Logger = logtest.Logger()
	}
	return cfg
}

// start starts a program for the test.
func start(t *testing.T, cfg Config) *App {
	t.Helper()
	a, err := Start(t.Context(), settings(cfg))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

// cluster is two programs over one database, with the same keys and public address.
type cluster struct {
	nodes [2]*App
	db    *pgxpool.Pool
	url   string // of the database
	cfg   Config
	http  *http.Client
}

// newCluster starts one. Nothing is limited but by what change says.
func newCluster(t *testing.T, change ...func(*Config)) *cluster {
	t.Helper()
	c := unstarted(t, change...)
	for i := range c.nodes {
		cfg := c.cfg
		if i > 0 { // so that mails are in one place
			cfg.Role = RoleServe
		}
		c.nodes[i] = start(t, cfg)
	}
	return c
}

// alone is a cluster of one program.
func alone(t *testing.T, change ...func(*Config)) *cluster {
	t.Helper()
	c := unstarted(t, change...)
	c.nodes[0] = start(t, c.cfg)
	c.nodes[1] = c.nodes[0]
	return c
}

// unstarted is a cluster whose programs are yet to be started.
func unstarted(t *testing.T, change ...func(*Config)) *cluster {
	t.Helper()
	c := &cluster{http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: time.Minute}}
	t.Cleanup(c.http.CloseIdleConnections)
	plenty := ratelimit.Limit{Quota: 100_000}
	c.cfg = Config{DatabaseURL: dbtest.URL(t), PublicURL: publicURL, RateLimit: -1, Auth: auth.Config{
		VerifyEmail: auth.VerifyOptional,
		Limits:      auth.Limits{Login: plenty, Register: plenty, Forgot: plenty, Reset: plenty, Verify: plenty, Resend: plenty, Refresh: plenty},
	}}
	for _, f := range change {
		f(&c.cfg)
	}
	c.url = c.cfg.DatabaseURL
	var err error
	c.db, err = pgxpool.New(context.Background(), c.url)
	require.NoError(t, err)
	t.Cleanup(c.db.Close)
	return c
}

// user makes an account whose address is confirmed, and returns its id.
func (c *cluster) user(t *testing.T, name, role string) (id string) {
	t.Helper()
	passwords, err := auth.NewPasswords(c.cfg.Passwords)
	if c.cfg.Passwords == nil {
		passwords, err = auth.NewPasswords(cheap)
	}
	require.NoError(t, err)
	hash, err := passwords.Hash(t.Context(), password)
	require.NoError(t, err)
	require.NoError(t, c.db.QueryRow(t.Context(), `INSERT INTO users (email, username, name, role, password_hash, email_verified_at)
		VALUES ($1 || '@example.com', $1, initcap($1), $2, $3, now()) RETURNING id`, name, role, hash).Scan(&id))
	return id
}

// count runs SELECT count(*) FROM.
func (c *cluster) count(t *testing.T, from string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, c.db.QueryRow(t.Context(), `SELECT count(*) FROM `+from, args...).Scan(&n))
	return n
}

func (c *cluster) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := c.db.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// events counts security events.
func (c *cluster) events(t *testing.T, name, user string) int {
	t.Helper()
	return c.count(t, `security_events WHERE name = $1 AND user_id = $2`, name, user)
}

// mailed returns the newest mail of a kind to an address, whichever node queued it, when all that are queued have been sent.
func (c *cluster) mailed(t *testing.T, kind, to string) mail.Message {
	t.Helper()
	require.Eventually(t, func() bool {
		return c.count(t, `river_job WHERE kind = 'send_mail' AND state <> 'completed'`) == 0
	}, patience, 10*time.Millisecond, "all mails are sent")
	for _, a := range c.nodes {
		for _, m := range a.Mail().Messages() {
			if m.Kind == kind && m.To == to {
				return m
			}
		}
	}
	require.Failf(t, "no mail", "%s to %s", kind, to)
	return mail.Message{}
}

// mailedToken returns the token in the link of such a mail.
func (c *cluster) mailedToken(t *testing.T, kind, to string) string {
	t.Helper()
	m := c.mailed(t, kind, to)
	links := m.Links()
	require.NotEmpty(t, links)
	require.True(t, strings.HasPrefix(links[0], c.cfg.PublicURL+"/"), links[0])
	u, err := url.Parse(links[0])
	require.NoError(t, err)
	return u.Query().Get("token")
}

// on is a client of a node that is not signed in.
func (c *cluster) on(node int) client { return clientOf(c.nodes[node], c.http) }

// client is somebody who talks to a program.
type client struct {
	http  *http.Client
	url   string   // of the program
	token string   // its access token, if any
	from  string   // its address, as a proxy says it
	after []string // what it says to have seen, if it does
}

func clientOf(a *App, h *http.Client) client {
	return client{http: h, url: local(a)}
}

// local is where the tests find a program, whatever browsers are told.
func local(a *App) string { return "http://" + a.Addr().String() }

// open is a client of a program alone.
func open(t *testing.T, a *App) client {
	t.Helper()
	h := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	t.Cleanup(h.CloseIdleConnections)
	return clientOf(a, h)
}

// as is the client with an access token.
func (c client) as(token string) client {
	c.token = token
	return c
}

// at is the client at another address.
func (c client) at(address string) client {
	c.from = address
	return c
}

// having is the client that says what it has seen.
func (c client) having(seen string) client {
	c.after = []string{seen}
	return c
}

// answer is what the API answered.
type answer struct {
	Data   map[string]any
	Errors []struct {
		Message    string
		Path       []any
		Extensions map[string]any
	}

	status int
	header http.Header
}

// code is the first error's, "" for none.
func (a answer) code() string {
	if len(a.Errors) == 0 {
		return ""
	}
	code, _ := a.Errors[0].Extensions["code"].(string)
	return code
}

// ask posts an operation.
func (c client) ask(document string, vars map[string]any) (a answer, err error) {
	body, err := json.Marshal(map[string]any{"query": document, "variables": vars})
	if err != nil {
		return a, err
	}
	resp, err := c.request(http.MethodPost, "/graphql", string(body))
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	a.status, a.header = resp.StatusCode, resp.Header
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return a, fmt.Errorf("answer %d: %w", resp.StatusCode, err)
	}
	return a, nil
}

func (c client) request(method, path, body string) (*http.Response, error) {
	req, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.after != nil {
		req.Header["Read-After"] = c.after
	}
	if c.from != "" {
		req.Header.Set("X-Forwarded-For", c.from)
	}
	return c.http.Do(req)
}

// query is ask, where there has to be an answer.
func (c client) query(t *testing.T, document string, vars map[string]any) answer {
	t.Helper()
	a, err := c.ask(document, vars)
	require.NoError(t, err)
	return a
}

// must is query, where there has to be no error, and returns the field.
func (c client) must(t *testing.T, field, document string, vars map[string]any) any {
	t.Helper()
	a := c.query(t, document, vars)
	require.Empty(t, a.Errors)
	return a.Data[field]
}

// me returns the id of who is signed in, "" for nobody, and the code of an error.
func (c client) me() (id, code string, err error) {
	a, err := c.ask(`{ me { id } }`, nil)
	if me, ok := a.Data["me"].(map[string]any); ok {
		id, _ = me["id"].(string)
	}
	return id, a.code(), err
}

const (
	payload = `{ accessToken refreshToken expiresAt user { id username role } }`

	login = `mutation($login: String!, $password: String!) { login(input: {login: $login, password: $password}) ` + payload + ` }`

	refresh = `mutation($token: String) { refresh(refreshToken: $token) ` + payload + ` }`
)

// tokens are what a sign-in gives.
type tokens struct{ access, refresh, user string }

func tokensOf(payload any) (s tokens) {
	p, _ := payload.(map[string]any)
	s.access, _ = p["accessToken"].(string)
	s.refresh, _ = p["refreshToken"].(string)
	u, _ := p["user"].(map[string]any)
	s.user, _ = u["id"].(string)
	return s
}

// login signs in with the password that users of the tests have.
func (c client) login(t *testing.T, name string) tokens {
	t.Helper()
	s := tokensOf(c.must(t, "login", login, map[string]any{"login": name, "password": password}))
	require.NotEmpty(t, s.access)
	require.NotEmpty(t, s.refresh)
	return s
}

// refresh asks for new tokens.
func (c client) refresh(token string) (tokens, answer, error) {
	a, err := c.ask(refresh, map[string]any{"token": token})
	return tokensOf(a.Data["refresh"]), a, err
}

type frame = followtest.Message

// socket is a client's connection to a program.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
	ctx  context.Context
}

// connect opens a socket and signs in over it.
func (c client) connect(t *testing.T) *socket {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	conn, _, err := websocket.Dial(ctx, strings.Replace(c.url, "http", "ws", 1)+"/graphql",
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"graphql-transport-ws"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	s := &socket{t, conn, ctx}
	hello := frame{Type: "connection_init"}
	if c.token != "" {
		hello.Payload, err = json.Marshal(map[string]string{"Authorization": "Bearer " + c.token})
		require.NoError(t, err)
	}
	require.NoError(t, wsjson.Write(ctx, conn, hello))
	require.Equal(t, "connection_ack", s.receive().Type)
	return s
}

// subscribe opens a socket with a subscription to a thread.
func (c client) subscribe(t *testing.T, id string) *socket {
	t.Helper()
	s := c.connect(t)
	payload, err := json.Marshal(map[string]any{
		"query":     `subscription($id: ID!) { threadChanged(id: $id) { kind version thread { subject } } }`,
		"variables": map[string]any{"id": id},
	})
	require.NoError(t, err)
	require.NoError(t, wsjson.Write(s.ctx, s.conn, frame{ID: "1", Type: "subscribe", Payload: payload}))
	return s
}

func (s *socket) receive() (f frame) {
	s.t.Helper()
	for f.Type == "" || f.Type == "ping" {
		f = frame{}
		require.NoError(s.t, wsjson.Read(s.ctx, s.conn, &f))
	}
	return f
}

// expect compares the next event.
func (s *socket) expect(want string) {
	s.t.Helper()
	f := s.receive()
	require.Equal(s.t, "next", f.Type)
	require.JSONEq(s.t, `{"data": {"threadChanged": `+want+`}}`, string(f.Payload))
}

// ask sends an operation, and tells when the socket is closed.
func (s *socket) ask(document string) <-chan closed {
	s.t.Helper()
	payload, err := json.Marshal(map[string]any{"query": document})
	require.NoError(s.t, err)
	require.NoError(s.t, wsjson.Write(s.ctx, s.conn, frame{ID: "1", Type: "subscribe", Payload: payload}))
	return s.watch()
}

// closed is how a socket ended.
type closed struct {
	code websocket.StatusCode
	at   time.Time
}

// watch reads until the socket is closed.
func (s *socket) watch() <-chan closed {
	ended := make(chan closed, 1)
	go func() {
		for {
			if _, _, err := s.conn.Read(s.ctx); err != nil {
				ended <- closed{websocket.CloseStatus(err), time.Now()}
				return
			}
		}
	}()
	return ended
}

// atOnce runs f n times at the same time.
func atOnce(n int, f func(i int)) {
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	all.Wait()
}
