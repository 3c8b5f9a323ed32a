package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/server"
)

// loaded is one program under load, with people, and a table that tests lock: what reads it takes as long as they like.
type loaded struct {
	*cluster
	metrics string // where
	people  []client
}

func newLoaded(t *testing.T, people int, change ...func(*Config)) *loaded {
	t.Helper()
	l := &loaded{metrics: freeAddress(t)}
	l.cluster = alone(t, append(change, func(cfg *Config) {
		cfg.MetricsAddr = l.metrics
		cfg.Server.Sockets.PerUser, cfg.Server.Sockets.PerAddress = -1, -1
	})...)
	for i := range people {
		name := fmt.Sprintf("person%d", i)
		l.user(t, name, "user")
		l.people = append(l.people, l.on(0).as(l.on(0).login(t, name).access))
	}
	return l
}

// lock has everybody wait who reads messages, until release is called.
func (l *loaded) lock(t *testing.T) (release func()) {
	t.Helper()
	tx, err := l.db.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `LOCK TABLE messages IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	release = func() { _ = tx.Rollback(context.Background()) }
	t.Cleanup(release)
	return release
}

// waiting waits until so many statements wait for the lock.
func (l *loaded) waiting(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return l.count(t, `pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == n
	}, patience, 5*time.Millisecond, "%d statements wait for the lock", n)
}

// figure is what /metrics says.
func (l *loaded) figure(t *testing.T, name string) int {
	t.Helper()
	_, text := get(t, "http://"+l.metrics+"/metrics")
	m := regexp.MustCompile(`(?m)^godstack_` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(text)
	require.NotNil(t, m, name)
	n, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	return n
}

// idle holds that nothing is left of a load: no turn is taken, nobody waits, and everybody is answered.
func (l *loaded) idle(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return l.figure(t, "turns_taken") == 0 && l.figure(t, "turns_waiting") == 0 }, patience, 10*time.Millisecond)
	for i, she := range l.people {
		require.Empty(t, she.query(t, slow(i), nil).Errors)
	}
}

// slow is a query of messages, each another document.
func slow(i int) string { return fmt.Sprintf(`{ slow%d: messages(first: 1) { totalCount } }`, i) }

const quick = `{ threads(first: 1) { totalCount } }`

// refusal holds that an answer says to come again, since nothing was done.
func refusal(t *testing.T, a answer) {
	t.Helper()
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Equal(t, "UNAVAILABLE", a.code())
	require.Positive(t, a.Errors[0].Extensions["retryAfter"])
	require.NotEmpty(t, a.header.Get("Retry-After"))
}

// TestTenTimesTheLoad: of ten times what a node can take at a time, the rest is refused while nothing moves, by whatever way it comes; what
// was accepted is answered when things move again; and afterwards everything is as before. What has to go on goes on.
func TestTenTimesTheLoad(t *testing.T) {
	t.Parallel()
	const waits, people = 6, 12
	l := newLoaded(t, people, func(cfg *Config) { cfg.Server.Load = server.Load{Waiting: waits, Patience: 25 * time.Second} })
	const turns = 6
	require.Equal(t, turns+3+1, l.figure(t, "turns_limit"), "and three for passwords, and one for signing out: "+
		"of ten connections two are reserved, one listens for jobs, one delivers changes")
	can := turns + waits
	s := l.people[0].connect(t)
	leaving := l.on(0).as(l.on(0).login(t, "person1").access)

	release := l.lock(t)
	answers := make(chan answer, 10*can)
	for i := range cap(answers) {
		go func() {
			a, err := l.people[i%people].ask(slow(i), nil)
			if err != nil {
				a.status = -1
			}
			answers <- a
		}()
	}
	for range 9 * can {
		select {
		case a := <-answers:
			refusal(t, a)
		case <-time.After(patience):
			t.Fatal("some are neither answered nor refused")
		}
	}
	l.waiting(t, turns)
	require.Equal(t, waits, l.figure(t, "turns_waiting"))

	// By other ways.
	refusal(t, l.people[3].query(t, `mutation { createThread(input: {subject: "lost"}) { id } }`, nil))
	for _, document := range []string{quick, `subscription { threadsChanged { kind } }`} {
		s.operate("1", document, nil)
		f := s.receive()
		require.Equal(t, "error", f.Type)
		require.Contains(t, string(f.Payload), `"code":"UNAVAILABLE"`)
		require.Contains(t, string(f.Payload), `"retryAfter":`)
	}
	require.EqualValues(t, 1013, l.arrives(t))
	// What has to go on.
	l.on(0).login(t, "person2")
	require.Equal(t, true, leaving.must(t, "logout", `mutation { logout }`, nil))
	status, _ := get(t, l.on(0).url+"/readyz")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "Query", l.people[0].must(t, "__typename", `{ __typename }`, nil))

	release()
	for range can {
		a := <-answers
		require.Equal(t, http.StatusOK, a.status)
		require.Empty(t, a.Errors)
	}
	l.idle(t)
	require.Zero(t, l.count(t, `threads WHERE subject = 'lost'`), "what is refused is not done")
	s.operate("1", quick, nil)
	require.Equal(t, "next", s.receive().Type)
	require.Equal(t, 10*can-can+4, l.figure(t, `operations_refused_total{reason="full"}`)+l.figure(t, `operations_refused_total{reason="crowded"}`))
}

// arrives opens a socket, and returns the code that it is closed with.
func (l *loaded) arrives(t *testing.T) websocket.StatusCode {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	conn, _, err := websocket.Dial(ctx, strings.Replace(l.on(0).url, "http", "ws", 1)+"/graphql",
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"graphql-transport-ws"}})
	require.NoError(t, err)
	defer func() { _ = conn.CloseNow() }()
	require.NoError(t, wsjson.Write(ctx, conn, frame{Type: "connection_init"}))
	_, _, err = conn.Read(ctx)
	return websocket.CloseStatus(err)
}

// TestSlowQueriesStopNobodyElse: neither a slow query that many ask, nor what one asks again and again, nor a query that asks many slow
// things at once keeps others from theirs.
func TestSlowQueriesStopNobodyElse(t *testing.T) {
	t.Parallel()
	many := "{"
	for i := range 20 {
		many += fmt.Sprintf(` a%d: messages(first: 1) { totalCount }`, i)
	}
	many += " }"
	for name, ask := range map[string]func(l *loaded, i int) (answer, error){
		"a slow query of many": func(l *loaded, i int) (answer, error) { return l.people[1+i%10].ask(slow(0), nil) },
		"many of one":          func(l *loaded, i int) (answer, error) { return l.people[1].ask(slow(i), nil) },
		"many in one":          func(l *loaded, _ int) (answer, error) { return l.people[1].ask(many, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLoaded(t, 11, func(cfg *Config) { cfg.Server.Load = server.Load{Waiting: 20, Patience: 25 * time.Second} })
			release := l.lock(t)
			const all = 40
			answers := make(chan answer, all)
			for i := range all {
				go func() {
					a, err := ask(l, i)
					if err != nil {
						a.status = -1
					}
					answers <- a
				}()
			}
			// Some wait for the lock, half of the places for a turn are taken, and all others are refused.
			require.Eventually(t, func() bool {
				return l.figure(t, "turns_waiting") == 10 && l.figure(t, "turns_taken")+10+len(answers) >= all-4
			}, patience, 10*time.Millisecond)
			for range 20 {
				require.Empty(t, l.people[0].query(t, quick, nil).Errors)
				require.NotEmpty(t, l.people[0].newThread(t))
			}
			release()
			for range all {
				if a := <-answers; a.status != http.StatusOK {
					refusal(t, a)
				}
			}
			l.idle(t)
		})
	}
}

// TestStatementsAreCancelled: what is asked of the database ends when the client goes, and when the time is over.
func TestStatementsAreCancelled(t *testing.T) {
	t.Parallel()
	l := newLoaded(t, 1, func(cfg *Config) { cfg.Server.OperationTimeout = time.Second })
	me := l.people[0]
	release := l.lock(t)

	ctx, cancel := context.WithCancel(t.Context())
	body, err := json.Marshal(map[string]string{"query": slow(1)})
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, me.url+"/graphql", strings.NewReader(string(body)))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+me.token)
	gone := make(chan error, 1)
	go func() {
		resp, err := me.http.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		gone <- err
	}()
	l.waiting(t, 1)
	cancel()
	require.ErrorIs(t, <-gone, context.Canceled)
	l.waiting(t, 0)

	s := me.connect(t)
	s.operate("1", slow(2), nil)
	l.waiting(t, 1)
	require.NoError(t, wsjson.Write(s.ctx, s.conn, frame{ID: "1", Type: "complete"}))
	l.waiting(t, 0)

	a := me.query(t, slow(3), nil)
	require.Equal(t, "UNAVAILABLE", a.code())
	l.waiting(t, 0)
	release()
	l.idle(t)
}

// TestTheDatabaseGoes: while it is away all is refused with UNAVAILABLE, and when it is back all is as before.
func TestTheDatabaseGoes(t *testing.T) {
	t.Parallel()
	var (
		p   *postgresProxy
		url string
	)
	l := newLoaded(t, 3, func(cfg *Config) {
		cfg.Role = RoleServe
		url = cfg.DatabaseURL
		p = newPostgresProxy(t, url)
		cfg.DatabaseURL = p.url
	})
	l.idle(t)
	direct, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = direct.Close(context.Background()) }()
	p.refuse(true)
	_, err = direct.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		status, _ := get(t, l.on(0).url+"/readyz")
		return status == http.StatusServiceUnavailable
	}, patience, 10*time.Millisecond)
	var unavailable atomic.Int64
	atOnce(30, func(i int) {
		if a, err := l.people[i%3].ask(slow(i), nil); err == nil && a.code() == "UNAVAILABLE" {
			unavailable.Add(1)
		}
	})
	require.EqualValues(t, 30, unavailable.Load())
	p.refuse(false)
	require.Eventually(t, func() bool {
		status, _ := get(t, l.on(0).url+"/readyz")
		return status == http.StatusOK
	}, patience, 10*time.Millisecond)
	l.idle(t)
}

// TestTimeouts: each connection has Postgres end what takes too long, of both pools, unless the address says something else.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	ends := func(cfg Config) (shown [][2]string) {
		db, err := connect(t.Context(), settings(cfg))
		require.NoError(t, err)
		defer func() { require.NoError(t, db.close(t.Context())) }()
		for _, p := range []*pgxpool.Pool{db.pool, db.reserve} {
			var statement, idle string
			require.NoError(t, p.QueryRow(t.Context(), `SELECT current_setting('statement_timeout'),
				current_setting('idle_in_transaction_session_timeout')`).Scan(&statement, &idle))
			shown = append(shown, [2]string{statement, idle})
		}
		return shown
	}
	both := func(statement, idle string) [][2]string { return [][2]string{{statement, idle}, {statement, idle}} }
	require.Equal(t, both("1min", "1min"), ends(Config{DatabaseURL: url}))
	require.Equal(t, both("0", "0"), ends(Config{DatabaseURL: url, Timeouts: Timeouts{Statement: -1}}))
	require.Equal(t, both("5s", "1min"), ends(Config{DatabaseURL: url + "&statement_timeout=5s"}))
	require.Equal(t, both("1min", "7s"), ends(Config{DatabaseURL: url + "&options=-cidle_in_transaction_session_timeout%3D7s"}))

	db, err := connect(t.Context(), settings(Config{DatabaseURL: url, Timeouts: Timeouts{Statement: 50 * time.Millisecond}}))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.close(t.Context())) }()
	_, err = db.pool.Exec(t.Context(), `SELECT pg_sleep(60)`)
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg)
	require.Equal(t, "57014", pg.Code)
	tx, err := db.pool.Begin(t.Context())
	require.NoError(t, err)
	var pid int
	require.NoError(t, tx.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid))
	require.Eventually(t, func() bool {
		var there bool
		return db.reserve.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)`, pid).Scan(&there) == nil && !there
	}, patience, 10*time.Millisecond, "it is not left waiting for its next statement")
	require.Error(t, tx.Commit(t.Context()))

	for text, want := range map[string]int{"17.2 (Debian 17.2-1)": 17, "18beta1": 18, "15": 15, "x": 0, "": 0} {
		require.Equal(t, want, majorVersion(text))
	}
}

// TestConnectionsAreSplit: the reserve is part of what the address says.
func TestConnectionsAreSplit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		said          string
		own, reserved int32
		turns, jobs   int
	}{
		{"", 8, 2, 7, 6}, {"pool_max_conns=1", 1, 1, 1, 1}, {"pool_max_conns=2", 1, 1, 1, 1}, {"pool_max_conns=4", 3, 1, 2, 1},
		{"pool_max_conns=6", 4, 2, 3, 2}, {"pool_max_conns=30&pool_min_conns=30", 28, 2, 27, 26},
	} {
		url := "postgres://localhost/godstack?" + c.said
		cfg, err := poolConfig(url)
		require.NoError(t, err)
		if c.said == "" {
			require.EqualValues(t, max(10, runtime.NumCPU()), cfg.MaxConns)
			cfg.MaxConns = 10 // as on a machine with few processors
		}
		own, reserved := split(cfg)
		require.Equal(t, []int32{c.own, c.reserved}, []int32{own.MaxConns, reserved.MaxConns}, c.said)
		require.LessOrEqual(t, own.MinConns, own.MaxConns)
		require.Zero(t, reserved.MinConns)
		pool, err := pgxpool.NewWithConfig(t.Context(), own)
		require.NoError(t, err)
		require.Equal(t, c.turns, Config{Role: RoleServe}.turns(pool), c.said)
		require.Equal(t, c.jobs, Config{}.turns(pool), c.said)
		pool.Close()
	}
}

// TestTheEndIsBounded: whatever does not end, the program does.
func TestTheEndIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		forever := make(chan struct{})
		start := time.Now()
		time.AfterFunc(time.Hour, cancel)
		require.ErrorIs(t, bounded(ctx, time.Second, func() error { <-forever; return nil }), errStillRuns)
		require.Equal(t, time.Hour+time.Second, time.Since(start))
		close(forever)
		require.NoError(t, bounded(ctx, time.Second, func() error { return nil }))
		require.ErrorIs(t, bounded(ctx, time.Second, func() error { return context.Canceled }), context.Canceled)
	})
	soft, hard := Config{}.jobsEnd()
	require.Equal(t, 19*time.Second, soft+2*hard, "jobs, and taking leave, are within the shutdown's time")
}

// TestClientsArePatient runs what applications use against a program that refuses them at first.
func TestClientsArePatient(t *testing.T) {
	t.Parallel()
	l := newLoaded(t, 2, func(cfg *Config) { cfg.Server.Load = server.Load{Turns: 1, Waiting: 1, Patience: 25 * time.Second} })
	l.user(t, "ada", "user")
	token := l.on(0).login(t, "ada").access
	release := l.lock(t)
	var slowly sync.WaitGroup
	for i, she := range l.people {
		slowly.Go(func() {
			if a, err := she.ask(slow(i), nil); err != nil || a.status != http.StatusOK {
				t.Errorf("%v %v", a, err)
			}
		})
	}
	l.waiting(t, 1)
	require.Eventually(t, func() bool { return l.figure(t, "turns_waiting") == 1 }, patience, 5*time.Millisecond)
	idle := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		release()
		slowly.Wait()
	}))
	t.Cleanup(idle.Close)
	runNode(t, "patience.test.mjs", "BASE_URL="+l.on(0).url, "IDLE_URL="+idle.URL, "TOKEN="+token, "PASSWORD="+password)
}
