package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/auth"
	"godstack/internal/dbtest"
	"godstack/internal/devdb"
	"godstack/internal/server"
	"godstack/migrations"
)

// diagnosis is what a doctor says, by the check's name.
type diagnosis map[string][]Check

func examine(t *testing.T, cfg Config, e Examination) diagnosis {
	t.Helper()
	d := diagnosis{}
	for _, c := range Examine(t.Context(), settings(cfg), e) {
		require.NotEmpty(t, c.Found, c.Name)
		require.NotContains(t, c.Found, "\n")
		require.Equal(t, c.Status == CheckOK, c.Do == "", "%v", c)
		d[c.Name] = append(d[c.Name], c)
	}
	return d
}

// require holds that a check came out so, and says this.
func (d diagnosis) require(t *testing.T, name string, status CheckStatus, says string) {
	t.Helper()
	for _, c := range d[name] {
		if c.Status == status && strings.Contains(c.Found, says) {
			return
		}
	}
	require.Failf(t, "no such check", "%s: %s: %q; but %v", name, status, says, d[name])
}

// names are the checks that came out so.
func (d diagnosis) names(status CheckStatus) (names []string) {
	for name, checks := range d {
		for _, c := range checks {
			if c.Status == status {
				names = append(names, name)
			}
		}
	}
	return names
}

// mailbox is a mail server of a test, which wants a user and a password.
type mailbox struct {
	url string

	mu   sync.Mutex // protects mails
	mail []string
}

func (m *mailbox) mails() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.mail...)
}

const mailPassword = "plover-mail"

func startMailServer(t *testing.T) *mailbox {
	t.Helper()
	m := &mailbox{}
	s := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) { return &mailSession{box: m}, nil }))
	s.Domain, s.AllowInsecureAuth, s.ErrorLog = "localhost", true, log.New(io.Discard, "", 0)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m.url = "smtp://ada:" + mailPassword + "@" + ln.Addr().String() + "?tls=none"
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return m
}

type mailSession struct {
	box      *mailbox
	signedIn bool
	to       string
}

var _ gosmtp.AuthSession = (*mailSession)(nil)

func (*mailSession) AuthMechanisms() []string { return []string{"PLAIN"} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "ada" || password != mailPassword {
			return gosmtp.ErrAuthFailed
		}
		s.signedIn = true
		return nil
	}), nil
}

func (s *mailSession) Mail(string, *gosmtp.MailOptions) error {
	if !s.signedIn {
		return gosmtp.ErrAuthRequired
	}
	return nil
}

func (s *mailSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &gosmtp.SMTPError{Code: 550, Message: "there is nobody of that name"}
	}
	s.to = to
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	s.box.mail = append(s.box.mail, s.to)
	return nil
}

func (s *mailSession) Reset()        {}
func (s *mailSession) Logout() error { return nil }

// newServer starts a server as production has one, that waits for its disk, and returns the address of a database with all migrations
// that a role owns which may do nothing else.
func newServer(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "doctor-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	cluster, err := devdb.Start(t.Context(), devdb.Config{Dir: filepath.Join(dir, "db"), Settings: map[string]string{
		"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "max_connections": "60", "superuser_reserved_connections": "3",
	}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Stop(context.Background())) })
	conn, err := pgx.Connect(t.Context(), cluster.URL("postgres"))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	for _, sql := range []string{`CREATE ROLE app LOGIN`, `CREATE DATABASE app OWNER app ENCODING 'UTF8' TEMPLATE template0`} {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	u, err := url.Parse(cluster.URL("app"))
	require.NoError(t, err)
	u.User = url.User("app")
	_, err = migrations.Up(t.Context(), u.String())
	require.NoError(t, err)
	return u.String()
}

// with adds parameters to an address.
func with(t *testing.T, address string, pairs ...string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	q := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// TestDoctorOfAGoodDeployment examines one in which nothing is wrong: a server that keeps what it is given, a role with no more rights than
// it needs, a node that works, Redis, and mail.
func TestDoctorOfAGoodDeployment(t *testing.T) {
	t.Parallel()
	box := startMailServer(t)
	cfg := Config{
		DatabaseURL: with(t, newServer(t), "pool_max_conns", "8"), RedisURL: startRedis(t), Pubsub: PubsubPostgres, SMTPURL: box.url, MailFrom: "noreply@example.com",
		JWTKeys: time.Now().Format("20060102") + jwtKeys[strings.IndexByte(jwtKeys, ':'):], SecretKeys: secretKeys,
		Server: server.Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Origins: []string{"https://app.example.com"}},
		Auth:   auth.Config{Storage: auth.InCookie},
	}
	start(t, cfg)
	d := examine(t, cfg, Examination{MailTo: "ada@example.com"})
	require.Empty(t, d.names(CheckFail), "%v", d)
	require.Empty(t, d.names(CheckWarn), "%v", d)
	require.ElementsMatch(t, []string{
		"environment", "public_url", "origins", "proxies", "keys.jwt", "keys.secret", "keys.stored", "trusted_documents", "database", "database.version",
		"database.primary", "database.encoding", "database.synchronous_commit", "database.wal", "database.timeouts", "database.transactions",
		"database.role", "database.clock", "database.pooler", "database.connections", "listen", "migrations", "schema", "change_log", "jobs",
		"redis", "redis.limits", "redis.pubsub", "mail", "mail.sent",
	}, d.names(CheckOK))
	d.require(t, "database.connections", CheckOK, "1 nodes take 11 each (pool_max_conns 8), others have 0, and there are 57")
	d.require(t, "jobs", CheckOK, "1 nodes work, 0 jobs wait")
	require.Equal(t, []string{"ada@example.com"}, box.mails())

	d = examine(t, cfg, Examination{Nodes: 5})
	d.require(t, "database.connections", CheckWarn, "5 nodes take 11 each")
	d = examine(t, cfg, Examination{Nodes: 6})
	d.require(t, "database.connections", CheckFail, "6 nodes take 11 each")
	require.Equal(t, []string{"database.connections"}, d.names(CheckFail))
	require.Len(t, box.mails(), 1, "no mail is sent unless it is asked for")
}

// TestDoctorChangesNothing counts what is in the tables, before and after.
func TestDoctorChangesNothing(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	cfg := Config{DatabaseURL: pool.Config().ConnString(), DataDir: t.TempDir()}
	rows := func() (n string) {
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT json_agg((relname, n_tup_ins, n_tup_upd, n_tup_del) ORDER BY relname)::text
			FROM pg_stat_user_tables`).Scan(&n))
		return n
	}
	before := rows()
	examine(t, cfg, Examination{})
	_, err := pool.Exec(t.Context(), `SELECT pg_stat_clear_snapshot()`)
	require.NoError(t, err)
	require.Equal(t, before, rows())
	files, err := os.ReadDir(cfg.DataDir)
	require.NoError(t, err)
	require.Empty(t, files)
}

// TestDoctorOfADatabase has one setting after the other be wrong.
func TestDoctorOfADatabase(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, sql, check string
		status           CheckStatus
		says             string
	}{
		{"synchronous_commit", `ALTER DATABASE %s SET synchronous_commit = off`, "database.synchronous_commit", CheckFail, "can be lost"},
		{"fsync, as tests have it", `SELECT 1`, "database.fsync", CheckFail, "can be ruined"},
		{"statement_timeout", `ALTER DATABASE %s SET statement_timeout = '5s'`, "database.timeouts", CheckWarn, "statement_timeout is 5s"},
		{"read only", `ALTER DATABASE %s SET default_transaction_read_only = on`, "database.transactions", CheckFail, "nothing can be written"},
		{"isolation", `ALTER DATABASE %s SET default_transaction_isolation = serializable`, "database.transactions", CheckWarn, "serializable by default"},
		{"superuser", `SELECT 1`, "database.role", CheckWarn, "is a superuser"},
		{"no node", `SELECT 1`, "jobs", CheckWarn, "no node works jobs"},
		{"an older schema", `DELETE FROM goose_db_version WHERE id = (SELECT max(id) FROM goose_db_version)`, "migrations", CheckFail, "and the program needs"},
		{"a newer schema", `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999999999999, true)`, "migrations", CheckWarn, "of a newer release"},
		{"a column", `ALTER TABLE threads DROP COLUMN subject`, "schema", CheckFail, "threads has no column subject"},
		{"a join table", `DROP TABLE thread_members`, "schema", CheckFail, "thread_members has no column"},
		{"a trigger", `ALTER TABLE threads DISABLE TRIGGER changelog_row`, "schema", CheckFail, "threads has no trigger changelog_row that is enabled"},
		{"a partition", `DROP TABLE changes_3`, "change_log", CheckFail, "partitions [3] are missing"},
		{"old changes", `INSERT INTO changes (entity, op, at) VALUES ('thread', 'R', now() - interval '10 days')`, "change_log", CheckWarn, "nobody empties"},
		{"a job that waits", `INSERT INTO river_job (kind, args, max_attempts, scheduled_at, state) VALUES ('x', '{}', 1, now() - interval '2 minutes', 'available')`,
			"jobs", CheckFail, "no node works jobs, and 1 wait, the first for 2m"},
		{"a job that waits for workers", `WITH w AS (INSERT INTO job_workers (id) VALUES ('a'))
			INSERT INTO river_job (kind, args, max_attempts, scheduled_at, state) VALUES ('x', '{}', 1, now() - interval '2 minutes', 'available')`,
			"jobs", CheckWarn, "1 nodes work, and 1 jobs wait, the first for 2m"},
		{"a worker that is gone", `INSERT INTO job_workers (id, seen_at) VALUES ('a', now() - interval '1 minute')`, "jobs", CheckWarn, "no node works jobs"},
		{"a job that was given up", `INSERT INTO river_job (kind, args, max_attempts, finalized_at, state) VALUES ('remind', '{}', 1, now(), 'discarded')`,
			"jobs.discarded", CheckWarn, "remind"},
		{"a queue that rests", `INSERT INTO river_queue (name, paused_at) VALUES ('mail', now())`, "jobs.paused", CheckWarn, "mail"},
		{"a mail under another key", `INSERT INTO river_job (kind, args, max_attempts, state) VALUES ('send_mail', '{"mail": "welcome", "sealed": "YWJj"}', 1, 'available')`,
			"keys.stored", CheckFail, "1 of the 1 mails"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			name := pgx.Identifier{pool.Config().ConnConfig.Database}.Sanitize()
			_, err := pool.Exec(t.Context(), strings.ReplaceAll(c.sql, "%s", name))
			require.NoError(t, err)
			pool.Reset()
			examine(t, Config{DatabaseURL: pool.Config().ConnString()}, Examination{}).require(t, c.check, c.status, c.says)
		})
	}
	t.Run("nothing in it", func(t *testing.T) {
		t.Parallel()
		d := examine(t, Config{DatabaseURL: dbtest.Empty(t)}, Examination{})
		d.require(t, "migrations", CheckFail, "the database is empty")
		require.NotContains(t, d, "schema", "there are no tables to ask")
	})
	t.Run("no database", func(t *testing.T) {
		t.Parallel()
		d := examine(t, Config{DatabaseURL: "postgres://ada:s3cret@127.0.0.1:1/app"}, Examination{})
		d.require(t, "database", CheckFail, "127.0.0.1")
		require.NotContains(t, d["database"][0].Found, "s3cret")
		examine(t, Config{}, Examination{}).require(t, "database", CheckFail, "DATABASE_URL: required in production")
	})
}

// TestDoctorOfRights examines a role that owns nothing and may do a little, as whoever sets one up by hand.
func TestDoctorOfRights(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	role := "doctor_" + strings.TrimPrefix(pool.Config().ConnConfig.Database, "godstack_test_")
	for _, sql := range []string{`CREATE ROLE %s LOGIN`, `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO %s`} {
		_, err := pool.Exec(t.Context(), strings.ReplaceAll(sql, "%s", role))
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		_, err := pool.Exec(context.Background(), `DROP OWNED BY `+role)
		require.NoError(t, err)
		_, err = pool.Exec(context.Background(), `DROP ROLE `+role)
		require.NoError(t, err)
	})
	u, err := url.Parse(pool.Config().ConnString())
	require.NoError(t, err)
	u.User = url.User(role)
	cfg := Config{DatabaseURL: u.String()}
	examine(t, cfg, Examination{}).require(t, "database.role", CheckFail, "may not read and write changes, changes_0")
	_, err = pool.Exec(t.Context(), `GRANT TRUNCATE ON ALL TABLES IN SCHEMA public TO `+role)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `REVOKE CREATE ON SCHEMA public FROM PUBLIC`) // as it is from version 15 on
	require.NoError(t, err)
	examine(t, cfg, Examination{}).require(t, "database.role", CheckWarn, "may make no tables")
}

// TestDoctorOfSettings examines what can be told without asking anybody.
func TestDoctorOfSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	manifest := filepath.Join(dir, "manifest.json")
	require.NoError(t, os.WriteFile(manifest, []byte(`{"a": "query A { me { id } }", "b": "query B { nothing }"}`), 0o600))
	good := filepath.Join(dir, "good.json")
	require.NoError(t, os.WriteFile(good, []byte(`{"a": "query A { me { id } }"}`), 0o600))
	developed := secrets{JWTKeys: auth.GenerateKey(), SecretKeys: auth.GenerateSecret()}
	b, err := json.Marshal(developed)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, secretsFile), b, 0o600))
	key := jwtKeys[strings.IndexByte(jwtKeys, ':'):]
	material := key[strings.LastIndexByte(key, ':')+1:]

	for _, c := range []struct {
		name, check string
		cfg         Config
		status      CheckStatus
		says        string
	}{
		{"development", "environment", Config{Development: true}, CheckWarn, "development"},
		{"http", "public_url", Config{PublicURL: "http://example.com"}, CheckFail, "is not https"},
		{"http on this machine", "public_url", Config{PublicURL: "http://localhost"}, CheckWarn, "on this machine alone"},
		{"an origin by http", "origins", Config{Server: server.Config{Origins: []string{"http://app.example.com"}}}, CheckWarn, "http://app.example.com"},
		{
			"cookies across sites", "origins", Config{Auth: auth.Config{Storage: auth.InCookie}, Server: server.Config{Origins: []string{"https://example.org"}}},
			CheckFail, "pages of https://example.org cannot sign in",
		},
		{
			"sites below co.uk", "origins", Config{PublicURL: "https://a.co.uk", Auth: auth.Config{Storage: auth.InCookie}, Server: server.Config{Origins: []string{"https://b.co.uk"}}},
			CheckFail, "another site",
		},
		{"no proxy", "proxies", Config{}, CheckWarn, "all clients have its address"},
		{"everybody is a proxy", "proxies", Config{Server: server.Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}, CheckFail, "trusts everybody"},
		{"a weak key", "keys.jwt", Config{JWTKeys: "a:HS256:abc", SecretKeys: secretKeys}, CheckFail, `JWT_KEYS: key "a"`},
		{"an old key", "keys.jwt", Config{JWTKeys: "20240229" + key, SecretKeys: secretKeys}, CheckWarn, `key "20240229" signs, and is of 2024-02-29`},
		{"one key for all", "keys.jwt", Config{JWTKeys: "a" + key, SecretKeys: material}, CheckFail, `key "a" is in SECRET_KEYS too`},
		{"development's key", "keys.jwt", Config{JWTKeys: developed.JWTKeys, SecretKeys: secretKeys, DataDir: dir}, CheckFail, "that development made"},
		{"development's secret", "keys.secret", Config{JWTKeys: jwtKeys, SecretKeys: secretKeys + "," + developed.SecretKeys, DataDir: dir}, CheckFail, "that development made"},
		{"a weak secret", "keys.secret", Config{JWTKeys: jwtKeys, SecretKeys: "abc"}, CheckFail, "SECRET_KEYS: key 1 is shorter"},
		{"Redis that is not named", "configuration", Config{DatabaseURL: "postgres://127.0.0.1:1/app", Pubsub: PubsubRedis}, CheckFail, "REDIS_URL: required"},
		{"a document that is wrong", "trusted_documents", Config{Server: server.Config{Trusted: server.TrustedDocuments{Files: manifest}}}, CheckFail, "manifest.json: b: "},
		{"documents that are not there", "trusted_documents", Config{Server: server.Config{Trusted: server.TrustedDocuments{Files: dir + "/x*.json"}}}, CheckFail, "there is no file"},
		{"documents", "trusted_documents", Config{Server: server.Config{Trusted: server.TrustedDocuments{Files: good, Only: true}}}, CheckOK, ", and no others"},
		{"no mail", "mail", Config{}, CheckWarn, "no mail is sent"},
		{"no sender", "mail", Config{SMTPURL: "smtp://localhost"}, CheckFail, "MAIL_FROM: required"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := examine(t, c.cfg, Examination{})
			d.require(t, c.check, c.status, c.says)
			for _, checks := range d {
				for _, check := range checks {
					require.NotContains(t, check.Found+check.Do, material)
				}
			}
		})
	}
	missing := Config{PublicURL: publicURL, SMTPURL: NoMail}
	d := diagnosis{}
	for _, c := range Examine(t.Context(), missing, Examination{}) {
		d[c.Name] = append(d[c.Name], c)
	}
	d.require(t, "keys.jwt", CheckFail, "JWT_KEYS: required in production")
	d.require(t, "keys.secret", CheckFail, "SECRET_KEYS: required in production")
}

// TestDoctorOfMail asks a mail server, and has it refuse.
func TestDoctorOfMail(t *testing.T) {
	t.Parallel()
	box := startMailServer(t)
	const from = "noreply@example.com"
	examine(t, Config{SMTPURL: box.url, MailFrom: from}, Examination{}).require(t, "mail", CheckOK, "without TLS, signed in; as "+from)
	d := examine(t, Config{SMTPURL: box.url, MailFrom: from}, Examination{MailTo: "nobody@example.com"})
	d.require(t, "mail", CheckOK, "signed in")
	d.require(t, "mail.sent", CheckFail, "RCPT: ")
	d = examine(t, Config{SMTPURL: strings.Replace(box.url, mailPassword, "s3cret", 1), MailFrom: from}, Examination{MailTo: "ada@example.com"})
	d.require(t, "mail", CheckFail, "AUTH: ")
	require.NotContains(t, d["mail"][0].Found, "s3cret")
	require.Contains(t, d["mail"][0].Do, "the user and the password")
	d = examine(t, Config{SMTPURL: strings.Replace(box.url, "?tls=none", "", 1), MailFrom: from}, Examination{})
	d.require(t, "mail", CheckFail, "STARTTLS: the server does not offer it")
	examine(t, Config{SMTPURL: "smtp://127.0.0.1:1", MailFrom: from}, Examination{}).require(t, "mail", CheckFail, "127.0.0.1:1: connect: ")
	examine(t, Config{}, Examination{MailTo: "ada@example.com"}).require(t, "mail", CheckFail, "none to ada@example.com")
	require.Empty(t, box.mails())
}

// TestDoctorOfRedis asks a Redis that is away, and one whose user may not do what nodes do.
func TestDoctorOfRedis(t *testing.T) {
	t.Parallel()
	examine(t, Config{RedisURL: "redis://127.0.0.1:1"}, Examination{}).require(t, "redis", CheckFail, "connect to redis")
	address := startRedis(t)
	examine(t, Config{RedisURL: address}, Examination{}).require(t, "redis", CheckOK, "answers")
	client, err := openRedis(address)
	require.NoError(t, err)
	defer client.Close()
	for _, denied := range []string{"-publish", "-evalsha -eval"} {
		acl := append([]string{"SETUSER", "default", "on", "nopass", "~*", "&*", "+@all"}, strings.Fields(denied)...)
		require.NoError(t, client.Do(t.Context(), client.B().Arbitrary("ACL").Args(acl...).Build()).Error())
		check := map[string]string{"-publish": "redis.pubsub", "-evalsha -eval": "redis.limits"}[denied]
		d := examine(t, Config{RedisURL: address}, Examination{})
		d.require(t, check, CheckFail, "NOPERM")
		require.Len(t, d["redis.pubsub"], 1)
	}
}

// TestDoctorOfAStandby looks at one that follows, at the primary in its place, and at the standby of another.
func TestDoctorOfAStandby(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t)
	standby := primary.Standby("standby")
	cfg := Config{DatabaseURL: primary.URL(), ReadURL: standby.URL()}
	examine(t, cfg, Examination{}).require(t, "standby", CheckOK, "used; ")
	cfg.ReadURL = primary.URL()
	examine(t, cfg, Examination{}).require(t, "standby", CheckWarn, "leads to the primary")
	cfg.ReadURL = dbtest.URL(t)
	examine(t, cfg, Examination{}).require(t, "standby", CheckWarn, "not used: ")
	cfg.DatabaseURL, cfg.ReadURL = standby.URL(), ""
	examine(t, cfg, Examination{}).require(t, "database.primary", CheckFail, "it is a standby")
}

// TestDoctorOfSecondFactors has one that was stored under a key which is gone.
func TestDoctorOfSecondFactors(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	s, err := auth.ParseSecrets(secretKeys)
	require.NoError(t, err)
	cfg := Config{DatabaseURL: pool.Config().ConnString()}
	id, err := CreateUser(t.Context(), settings(cfg), NewUser{Email: "ada@example.com", Username: "ada", Password: password})
	require.NoError(t, err)
	require.NotEmpty(t, id)
	var user [16]byte
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT id FROM users`).Scan(&user))
	_, err = pool.Exec(t.Context(), `INSERT INTO authenticators (id, user_id, secret, confirmed_at, created_at, updated_at, last_step, version)
		VALUES (gen_random_uuid(), $1, $2, now(), now(), now(), 0, 1)`, user, s.Seal("totp", []byte("a secret of twenty"), user[:]))
	require.NoError(t, err)
	examine(t, cfg, Examination{}).require(t, "keys.stored", CheckOK, "1 second factors")
	cfg.JWTKeys, cfg.SecretKeys = jwtKeys, auth.GenerateSecret()
	examine(t, cfg, Examination{}).require(t, "keys.stored", CheckFail, "1 of the last 1 second factors")
}

// TestDoctorGoesOn holds that an examination which is given up ends.
func TestDoctorGoesOn(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	checks := Examine(ctx, settings(Config{DatabaseURL: dbtest.URL(t)}), Examination{})
	require.Equal(t, "environment", checks[0].Name)
	require.Equal(t, "mail", checks[len(checks)-1].Name)
}
