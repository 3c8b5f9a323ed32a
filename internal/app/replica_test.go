package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/logtest"
	"godstack/internal/replica"
)

// replicated is a cluster whose database has a standby.
type replicated struct {
	*cluster
	server  *dbtest.Server
	standby *pgxpool.Pool
	metrics metricsAddresses // of the nodes
}

// metricsAddresses takes from the log where metrics are.
type metricsAddresses struct {
	slog.Handler
	found *[]string
}

func (m metricsAddresses) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "metrics" {
		r.Attrs(func(a slog.Attr) bool {
			*m.found = append(*m.found, a.Value.String())
			return true
		})
	}
	return m.Handler.Handle(ctx, r)
}

// newReplicated starts one, whose nodes read where at says, if it does; else at the standby.
func newReplicated(t *testing.T, at ...func(primary, standby *dbtest.Server) string) *replicated {
	t.Helper()
	primary := dbtest.NewServer(t)
	r := &replicated{server: primary.Standby("standby"), metrics: metricsAddresses{logtest.Logger().Handler(), new([]string)}}
	var err error
	r.standby, err = pgxpool.New(context.Background(), r.server.URL())
	require.NoError(t, err)
	t.Cleanup(r.standby.Close)
	reads := r.server.URL()
	for _, f := range at {
		reads = f(primary, r.server)
	}
	r.cluster = newCluster(t, func(c *Config) {
		c.DatabaseURL, c.ReadURL, c.MetricsAddr, c.Logger = primary.URL(), reads, "127.0.0.1:0", slog.New(r.metrics)
	})
	return r
}

// balance gives several servers an address, where a connection leads to the one that is chosen when it is made.
func balance(t *testing.T, chosen *atomic.Pointer[dbtest.Server]) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		all.Wait() // for who has connected, which ends first
	})
	all.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			u, err := url.Parse(chosen.Load().URL())
			require.NoError(t, err)
			to, err := net.Dial("unix", filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432"))
			if err != nil {
				_ = from.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
				all.Go(func() {
					_, _ = io.Copy(way[1], way[0])
					_, _ = from.Close(), to.Close()
				})
			}
		}
	})
	u, err := url.Parse(chosen.Load().URL())
	require.NoError(t, err)
	u.Host, u.RawQuery = ln.Addr().String(), "sslmode=disable"
	return u.String()
}

// metric is a number of a node's.
func (r *replicated) metric(t *testing.T, node int, name string) (value int) {
	t.Helper()
	_, body := get(t, "http://"+(*r.metrics.found)[node]+"/metrics")
	_, line, ok := strings.Cut(body, "\ngodstack_standby_"+name+" ")
	require.True(t, ok, body)
	_, err := fmt.Sscan(line, &value)
	require.NoError(t, err)
	return value
}

// reads is how many queries the standby has answered for a node.
func (r *replicated) reads(t *testing.T, node int) int {
	t.Helper()
	return r.metric(t, node, "reads_total")
}

// replay pauses or resumes.
func (r *replicated) replay(t *testing.T, on bool) {
	t.Helper()
	f, state := "pause", "paused"
	if on {
		f, state = "resume", "not paused"
	}
	_, err := r.standby.Exec(t.Context(), `SELECT pg_wal_replay_`+f+`()`)
	require.NoError(t, err)
	r.eventually(t, func() bool {
		var now string
		return r.standby.QueryRow(t.Context(), `SELECT pg_get_wal_replay_pause_state()`).Scan(&now) == nil && now == state
	})
}

func (r *replicated) eventually(t *testing.T, what func() bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		// A record of the log that ends with its page has a position that is reached with the next.
		_, err := r.db.Exec(t.Context(), `SELECT txid_current()`)
		return what() && err == nil
	}, patience, 5*time.Millisecond)
}

// withThread makes ada and a thread of hers, which the standby has, and returns both.
func (r *replicated) withThread(t *testing.T) (ada client, id string) {
	t.Helper()
	r.user(t, "ada", "user")
	token := r.on(0).login(t, "ada").access
	ada = r.on(0).as(token)
	a := ada.query(t, createThread, nil)
	require.Empty(t, a.Errors)
	r.caughtUp(t, token, a.header.Get("Read-After"))
	return ada, a.Data["createThread"].(map[string]any)["id"].(string)
}

// caughtUp waits until the standby answers who has seen that, on all nodes.
func (r *replicated) caughtUp(t *testing.T, token, seen string) {
	t.Helper()
	for i := range r.nodes {
		r.eventually(t, func() bool {
			before := r.reads(t, i)
			_, err := r.on(i).as(token).having(seen).ask(`{ me { id } }`, nil)
			return err == nil && r.reads(t, i) > before
		})
	}
}

// subject asks for a thread's, and returns what its client has seen then.
func subject(t *testing.T, c client, id string) (subject, seen string) {
	t.Helper()
	a := c.query(t, fmt.Sprintf(`{ thread(id: %q) { subject } }`, id), nil)
	require.Empty(t, a.Errors)
	thread, _ := a.Data["thread"].(map[string]any)
	subject, _ = thread["subject"].(string)
	return subject, a.header.Get("Read-After")
}

func rename(t *testing.T, c client, id string, version int, to string) (seen string) {
	t.Helper()
	a := c.query(t, `mutation($id: ID!, $v: Int!, $s: String!) {
		updateThread(id: $id, expectedVersion: $v, input: {subject: $s}) { version }
	}`, map[string]any{"id": id, "v": version, "s": to})
	require.Empty(t, a.Errors)
	seen = a.header.Get("Read-After")
	require.Len(t, seen, 24)
	return seen
}

// TestReadReplica follows what clients see of a standby that lags, is away and comes back, on two nodes.
func TestReadReplica(t *testing.T) {
	t.Parallel()
	c := newReplicated(t)
	c.user(t, "ada", "user")
	c.user(t, "bob", "user")
	tokens := c.on(0).login(t, "ada")
	nodes := []client{c.on(0).as(tokens.access), c.on(1).as(tokens.access)}
	ada := nodes[0]
	a := ada.query(t, createThread, nil)
	require.Empty(t, a.Errors)
	id, created := a.Data["createThread"].(map[string]any)["id"].(string), a.header.Get("Read-After")

	c.caughtUp(t, tokens.access, created)
	c.replay(t, false)
	renamed := rename(t, ada, id, 1, "two")
	require.Less(t, created, renamed)
	for _, n := range nodes {
		for _, stale := range []string{"", "0", created} {
			got, seen := subject(t, n.having(stale), id)
			require.Equal(t, "one", got, "the standby has answered")
			require.GreaterOrEqual(t, seen, stale)
			require.Less(t, seen, renamed)
		}
		got, seen := subject(t, n.having(renamed), id)
		require.Equal(t, "two", got, "the primary has answered")
		require.GreaterOrEqual(t, seen, renamed)
		got, seen = subject(t, n, id)
		require.Equal(t, "two", got, "nobody is sent there who does not ask")
		require.Empty(t, seen)
		// Nobody else than ada may read the thread, there either.
		bob := c.on(0).login(t, "bob")
		got, _ = subject(t, n.as(bob.access).having("0"), id)
		require.Empty(t, got)
		got, _ = subject(t, n.as("").having("0"), id)
		require.Empty(t, got)
		for _, bad := range []string{"x", "0, 0", renamed + "0"} {
			require.Equal(t, "BAD_USER_INPUT", n.having(bad).query(t, `{ me { id } }`, nil).code())
		}
	}
	require.NotZero(t, c.metric(t, 0, "lag_bytes"))
	require.NotZero(t, c.metric(t, 0, "behind_total"))
	// A query answered by the primary counts what it saw: others have written since.
	c.exec(t, `UPDATE threads SET subject = 'three', version = version + 1`)
	got, seen := subject(t, ada.having(renamed), id)
	require.Equal(t, "three", got)
	require.Less(t, renamed, seen)
	for _, n := range nodes {
		got, _ = subject(t, n.having(seen), id)
		require.Equal(t, "three", got)
	}
	// Who holds what no server reaches is told where the primary is.
	for _, future := range []string{replica.Unreached.String(), "000000ff" + renamed[8:], renamed[:8] + "00ff" + renamed[12:]} {
		got, back := subject(t, ada.having(future), id)
		require.Equal(t, "three", got)
		require.Less(t, back, future)
		require.GreaterOrEqual(t, back, seen)
	}

	c.replay(t, true)
	c.caughtUp(t, tokens.access, seen)
	got, again := subject(t, nodes[1].having(seen), id)
	require.Equal(t, "three", got)
	require.GreaterOrEqual(t, again, seen)

	c.server.Stop()
	for i, n := range nodes {
		got, _ = subject(t, n.having("0"), id)
		require.Equal(t, "three", got)
		c.eventually(t, func() bool {
			status, body := get(t, local(c.nodes[i])+"/readyz")
			return status == http.StatusOK && strings.Contains(body, "\nstandby: not used since ")
		})
		got, _ = subject(t, n.having("0"), id)
		require.Equal(t, "three", got)
	}
	last := rename(t, nodes[1], id, 3, "four")
	c.server.Start()
	c.caughtUp(t, tokens.access, last)
	for i, n := range nodes {
		got, _ = subject(t, n.having(last), id)
		require.Equal(t, "four", got)
		_, body := get(t, local(c.nodes[i])+"/readyz")
		require.Equal(t, "ready\n", body)
	}
}

// TestRightsOnTheStandby: one that was taken away holds where that has not arrived, but for nobody who has seen it.
func TestRightsOnTheStandby(t *testing.T) {
	t.Parallel()
	c := newReplicated(t)
	c.user(t, "ada", "user")
	c.user(t, "bob", "user")
	tokens := c.on(0).login(t, "ada")
	ada, bob := c.on(0).as(tokens.access), c.on(1).as(c.on(1).login(t, "bob").access)
	bobID := bob.query(t, `{ me { id } }`, nil).Data["me"].(map[string]any)["id"]
	id := ada.must(t, "createThread", createThread, nil).(map[string]any)["id"].(string)
	share := func(input string, version int) (seen string) {
		a := ada.query(t, fmt.Sprintf(`mutation { updateThread(id: %q, expectedVersion: %d, input: {%s: [%q]}) { version } }`,
			id, version, input, bobID), nil)
		require.Empty(t, a.Errors)
		return a.header.Get("Read-After")
	}
	c.caughtUp(t, tokens.access, share("addMemberIDs", 1))
	c.replay(t, false)
	taken := share("removeMemberIDs", 2)
	got, _ := subject(t, bob.having("0"), id)
	require.Equal(t, "one", got, "at most for the time of replica.TestLag")
	got, _ = subject(t, bob.having(taken), id)
	require.Empty(t, got)
	got, _ = subject(t, bob, id)
	require.Empty(t, got)
	for _, seen := range []string{"0", taken} { // who writes is asked on the primary, whatever is sent
		a := bob.having(seen).query(t, `mutation($id: ID!) { updateThread(id: $id, expectedVersion: 3, input: {subject: "x"}) { version } }`,
			map[string]any{"id": id})
		require.Equal(t, "NOT_FOUND", a.code())
	}
	c.replay(t, true)
	c.caughtUp(t, tokens.access, taken)
	got, _ = subject(t, bob.having("0"), id)
	require.Empty(t, got)
}

// TestOwnWritesAreRead has clients write on one node and read on the other, at once.
func TestOwnWritesAreRead(t *testing.T) {
	t.Parallel()
	c := newReplicated(t)
	c.user(t, "ada", "user")
	tokens := c.on(0).login(t, "ada")
	const clients, writes = 4, 50
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			thread := c.on(0).as(tokens.access).must(t, "createThread", createThread, nil).(map[string]any)
			id := thread["id"].(string)
			for i := range writes {
				want := fmt.Sprint("subject ", i)
				seen := rename(t, c.on(i%2).as(tokens.access), id, i+1, want)
				// On the one node and on the other, until the standby has it: never anything older.
				for n := range 8 {
					got, newer := subject(t, c.on((i+n+1)%2).as(tokens.access).having(seen), id)
					require.Equal(t, want, got)
					require.GreaterOrEqual(t, newer, seen)
					if n%4 == 3 { // who is answered by the primary has seen what others write, and the standby would never have it
						seen = newer
					}
				}
			}
		})
	}
	all.Wait()
	c.caughtUp(t, tokens.access, "0")
}

// TestStandbysAtOneAddress: the nodes look at one standby, and their statements come to another, which stands still.
func TestStandbysAtOneAddress(t *testing.T) {
	t.Parallel()
	var chosen atomic.Pointer[dbtest.Server]
	c := newReplicated(t, func(primary, _ *dbtest.Server) string {
		chosen.Store(primary.Standby("another"))
		return balance(t, &chosen)
	})
	another, err := pgxpool.New(context.Background(), chosen.Load().URL())
	require.NoError(t, err)
	defer another.Close()
	ada, id := c.withThread(t)

	c.replay(t, false)
	chosen.Store(c.server)
	_, err = another.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = 'godstack' AND query NOT LIKE 'SELECT here.%'`) // with which they look
	require.NoError(t, err)
	version, reads := 0, c.reads(t, 0)
	c.eventually(t, func() bool {
		version++
		want := fmt.Sprint("subject ", version)
		seen := rename(t, ada, id, version, want)
		for range 50 {
			got, _ := subject(t, ada.having(seen), id)
			require.Equal(t, want, got)
		}
		return c.metric(t, 0, "failures_total") > 20 // more than there were connections
	})
	require.Equal(t, reads, c.reads(t, 0))
}

// TestStandbyThatIsThePrimary: READ_DATABASE_URL is DATABASE_URL, which works, and is said.
func TestStandbyThatIsThePrimary(t *testing.T) {
	t.Parallel()
	c := newReplicated(t, func(primary, _ *dbtest.Server) string { return primary.URL() })
	c.user(t, "ada", "user")
	tokens := c.on(0).login(t, "ada")
	ada := c.on(0).as(tokens.access)
	id := ada.must(t, "createThread", createThread, nil).(map[string]any)["id"].(string)
	c.caughtUp(t, tokens.access, rename(t, ada, id, 1, "two"))
	got, seen := subject(t, ada.having(rename(t, ada, id, 2, "three")), id)
	require.Equal(t, "three", got)
	require.Len(t, seen, 24)
	status, body := get(t, local(c.nodes[0])+"/readyz")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "ready\nstandby: READ_DATABASE_URL leads to the primary\n", body)
}

// TestStandbyThatIsPromotedAlone: it takes over while the primary, and what writes there, goes on. Own writes are read all the same.
func TestStandbyThatIsPromotedAlone(t *testing.T) {
	t.Parallel()
	c := newReplicated(t)
	c.user(t, "ada", "user")
	tokens := c.on(0).login(t, "ada")
	ada := c.on(0).as(tokens.access)
	a := ada.query(t, createThread, nil)
	require.Empty(t, a.Errors)
	id := a.Data["createThread"].(map[string]any)["id"].(string)
	c.caughtUp(t, tokens.access, a.header.Get("Read-After"))
	_, err := c.standby.Exec(t.Context(), `SELECT pg_promote()`)
	require.NoError(t, err)
	for i := range 50 {
		want := fmt.Sprint("subject ", i)
		got, _ := subject(t, c.on(i%2).as(tokens.access).having(rename(t, ada, id, i+1, want)), id)
		require.Equal(t, want, got)
	}
	c.eventually(t, func() bool {
		_, body := get(t, local(c.nodes[0])+"/readyz")
		return strings.Contains(body, "\nstandby: not used since ")
	})
}

// TestQueryThatFailsOnTheStandby: the primary is asked, and nobody notices.
func TestQueryThatFailsOnTheStandby(t *testing.T) {
	t.Parallel()
	c := newReplicated(t, func(_, standby *dbtest.Server) string { return standby.URL() + "&search_path=nowhere" })
	c.user(t, "ada", "user")
	tokens := c.on(0).login(t, "ada")
	ada := c.on(0).as(tokens.access)
	id := ada.must(t, "createThread", createThread, nil).(map[string]any)["id"].(string)
	c.eventually(t, func() bool { return c.metric(t, 0, "connected") == 1 })
	for _, query := range []string{
		`{ thread(id: %[1]q) { subject } }`,
		`{ thread(id: %[1]q) { subject } me { username } threads { totalCount edges { node { owner { username } } } } }`,
	} {
		before := c.metric(t, 0, "failures_total")
		a := ada.having("0").query(t, fmt.Sprintf(query, id), nil)
		require.Empty(t, a.Errors)
		require.Equal(t, "one", a.Data["thread"].(map[string]any)["subject"])
		require.Len(t, a.header.Get("Read-After"), 24)
		require.Equal(t, before+1, c.metric(t, 0, "failures_total"))
	}
	require.Zero(t, c.reads(t, 0))
}

// TestQueryThatIsEndedOnTheStandby: a statement is cancelled there, as for the sake of replaying, or its connection ended.
func TestQueryThatIsEndedOnTheStandby(t *testing.T) {
	t.Parallel()
	c := newReplicated(t)
	ada, id := c.withThread(t)
	for _, end := range []string{"cancel", "terminate"} {
		failures := c.metric(t, 0, "failures_total")
		// The standby locks what the primary does: the query waits there, and then here.
		tx, err := c.db.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `LOCK TABLE threads`)
		require.NoError(t, err)
		on := func(db *pgxpool.Pool, sql string) func() bool {
			return func() (yes bool) { return db.QueryRow(t.Context(), sql).Scan(&yes) == nil && yes }
		}
		c.eventually(t, on(c.standby, `SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'threads'::regclass AND mode LIKE 'AccessE%')`))
		answer := make(chan answer, 1)
		go func() {
			a, err := ada.having("0").ask(fmt.Sprintf(`{ thread(id: %q) { subject } }`, id), nil)
			if err == nil {
				answer <- a
			}
			close(answer)
		}()
		c.eventually(t, on(c.standby, `SELECT pg_`+end+`_backend(pid) FROM pg_locks WHERE relation = 'threads'::regclass AND NOT granted`))
		c.eventually(t, on(c.db, `SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'threads'::regclass AND NOT granted)`))
		require.NoError(t, tx.Rollback(t.Context()))
		a, ok := <-answer
		require.True(t, ok)
		require.Empty(t, a.Errors)
		require.Equal(t, map[string]any{"subject": "one"}, a.Data["thread"])
		require.Equal(t, failures+1, c.metric(t, 0, "failures_total"))
	}
}

// TestReadReplicaByClients runs what applications use.
func TestReadReplicaByClients(t *testing.T) {
	t.Parallel()
	c := newReplicated(t)
	c.user(t, "ada", "user")
	token := c.on(0).login(t, "ada").access
	a := c.on(0).as(token).query(t, createThread, nil)
	require.Empty(t, a.Errors)
	id := a.Data["createThread"].(map[string]any)["id"].(string)
	c.caughtUp(t, token, a.header.Get("Read-After"))
	c.replay(t, false)
	runNode(t, "standby.test.mjs", "BASE_URL="+local(c.nodes[0]), "OTHER_URL="+local(c.nodes[1]), "TOKEN="+token, "THREAD="+id)
}
