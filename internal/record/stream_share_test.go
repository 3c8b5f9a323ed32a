package record_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/internal/entity"
	"godstack/internal/record"
)

// keeper is a sink that keeps answers as they are.
type keeper struct {
	mu   sync.Mutex
	got  []*record.Answer // protected by mu
	more chan struct{}
}

func newKeeper() *keeper { return &keeper{more: make(chan struct{}, 1)} }

func (k *keeper) Next(a *record.Answer) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got = append(k.got, a)
	select {
	case k.more <- struct{}{}:
	default:
	}
	return true
}

func (*keeper) Flush()    {}
func (*keeper) End(error) {}

// next waits for an answer and takes it.
func (k *keeper) next(t testing.TB) *record.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		k.mu.Lock()
		if len(k.got) > 0 {
			a := k.got[0]
			k.got = k.got[1:]
			k.mu.Unlock()
			return a
		}
		k.mu.Unlock()
		select {
		case <-k.more:
		case <-ctx.Done():
			require.Fail(t, "no answer")
		}
	}
}

// keep subscribes at a station.
func (n *station) keep(t testing.TB, who uuid.UUID, document string, vars ...any) *keeper {
	t.Helper()
	k := newKeeper()
	s, cancel, err := n.attach(who, k, document, vars...)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close(); cancel() })
	s.Start()
	return k
}

// field is the answer's subscription field.
func field(t testing.TB, a *record.Answer) map[string]any {
	t.Helper()
	var data map[string]map[string]any
	require.NoError(t, json.Unmarshal(a.Data, &data), string(a.Data))
	for _, m := range data {
		return m
	}
	return nil
}

// node is a station over the bundle.
func (b *bundle) node(t testing.TB, rules bool) *station {
	t.Helper()
	return b.station(t, rules, []byte("0123456789abcdef0123456789abcdef"))
}

// another is a pool of its own.
func (b *bundle) another(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), b.Config().ConnString())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// All who may see the same are given one answer, which is read and written once.
func TestSubscribersShareAnAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t, withRules)
	n := b.node(t, true)
	bob := b.user(t, "bob")
	x := b.thread(t, "one", bob)
	const document = `subscription($id: ID!, $deep: Boolean = false, $n: Int) { c: threadChanged(id: $id) {
		__typename kind thread { ...T messages(first: $n) @include(if: $deep) { totalCount } } } }
		fragment T on Thread { subject owner { name } }`
	const each = 20
	var all, deep, short []*keeper
	for range each {
		all = append(all, n.keep(t, b.ada.UUID, document, "id", x), n.keep(t, bob.UUID, document, "id", x))
		deep = append(deep, n.keep(t, b.ada.UUID, document, "id", x, "deep", true, "n", 3))
		short = append(short, n.keep(t, b.ada.UUID, document, "id", x, "deep", true, "n", 4))
	}
	for _, k := range append(append(append([]*keeper{}, all...), deep...), short...) {
		require.Equal(t, "SNAPSHOT", field(t, k.next(t))["kind"])
	}
	n.quiet(t) // until when those who came last have cursors of their own
	b.trace.reset()
	b.sql(t, `UPDATE threads SET subject = 'two' WHERE id = $1`, x.UUID)
	same := func(list []*keeper) *record.Answer {
		first := list[0].next(t)
		for _, k := range list[1:] {
			require.Same(t, first, k.next(t))
		}
		return first
	}
	a := same(all)
	require.JSONEq(t, `{"c": {"__typename": "ThreadChange", "kind": "UPDATED", "thread": {"subject": "two", "owner": {"name": "ada"}}}}`, string(a.Data))
	require.JSONEq(t, `{"data":`+string(a.Data)+`}`, string(a.Body))
	d, s := same(deep), same(short)
	require.NotSame(t, d, s)
	require.Contains(t, string(d.Data), `"totalCount":0`)
	require.NotContains(t, string(a.Data), "totalCount")
	statements, _ := b.trace.statements()
	require.Less(t, len(statements), 16, "%v", statements)
}

// Neither what a stream begins with, nor a change of many records, takes a statement for each of them: not for who may read them, nor for
// what they lead to.
func TestNoStatementForEachRecordOfAStream(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	n := c.node(t, true)
	const many = 60
	few, lot := c.share(t), c.share(t)
	c.say(t, few, "author", "one")
	for i := range many {
		c.say(t, lot, "author", fmt.Sprint(i))
	}
	document := `subscription($where: MessageWhereInput!) { messagesChanged(where: $where) { kind message {
		body author { name } thread { subject owner { name } members(first: 3) { edges { node { name } } } } } } }`
	count := func(f func()) int {
		n.quiet(t)
		c.trace.reset()
		f()
		n.quiet(t)
		statements, _ := c.trace.statements()
		return len(statements)
	}
	follow := func(thread record.ID, records int) (statements int, changed func() int) {
		var list []*keeper
		statements = count(func() {
			for _, name := range []string{"member", "ada"} {
				list = append(list, n.keep(t, c.ids[name].UUID, document, "where", object{"threadID": thread.String()}))
			}
		})
		expect := func(kind string) {
			for _, k := range list {
				for range records {
					a := k.next(t)
					require.Empty(t, a.Errors)
					f := field(t, a)
					require.Equal(t, kind, f["kind"])
					require.Len(t, f["message"].(map[string]any)["thread"].(map[string]any)["members"].(map[string]any)["edges"], 2)
				}
			}
		}
		expect("SNAPSHOT")
		for _, k := range list {
			require.Equal(t, "READY", field(t, k.next(t))["kind"])
		}
		return statements, func() int {
			return count(func() {
				c.sql(t, `UPDATE messages SET body = body || '.' WHERE thread_id = $1`, thread.UUID)
				expect("UPDATED")
			})
		}
	}
	one, changeOne := follow(few, 1)
	all, changeAll := follow(lot, many)
	require.Equal(t, one, all)
	require.Less(t, changeAll(), 4*changeOne(), "as many as it takes turns to render them")
}

// What is different for two viewers is never given from one to the other, whoever asks first and however it is selected.
func TestNoAnswerIsAnothers(t *testing.T) {
	t.Parallel()
	b := setup(t, withRules)
	n := b.node(t, true)
	bob, eve := b.user(t, "bob"), b.user(t, "eve")
	x := b.thread(t, "one", bob, eve)
	hidden := record.ID{Prefix: "thread", UUID: entity.NewID()} // eve's own, which bob is in as well
	b.sql(t, `INSERT INTO threads (id, subject, owner_id) VALUES ($1, 'hidden', $2)`, hidden.UUID, eve.UUID)
	b.sql(t, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2)`, hidden.UUID, bob.UUID)
	b.message(t, x, "of ada")
	b.sql(t, `INSERT INTO messages (id, body, thread_id, author_id) VALUES ($1, 'of bob', $2, $3)`, uuid.New(), x.UUID, bob.UUID)
	viewers := []record.ID{b.ada, bob, eve}
	for name, selection := range map[string]string{
		"a field":                  `owner { email }`,
		"a field in a list":        `members { edges { node { email role } } }`,
		"an alias":                 `a: owner { b: email }`,
		"a fragment":               `...T`,
		"below":                    `messages { edges { node { author { email } } } }`,
		"an edge":                  `members { edges { node { ownedThreads { totalCount } threads { totalCount edges { node { subject } } } } } }`,
		"a count":                  `members(where: {email: "bob@example.com"}) { totalCount }`,
		"not":                      `members(where: {not: {email: "bob@example.com"}}) { totalCount }`,
		"an order":                 `members(orderBy: [{field: EMAIL, direction: DESC}]) { edges { node { name } } }`,
		"a filter by another's":    `messages(where: {hasAuthorWith: {email: "bob@example.com"}}) { totalCount }`,
		"a filter by what one has": `messages(where: {hasAuthorWith: {hasThreadsWith: {subject: "hidden"}}}) { totalCount }`,
		"a filter by what is":      `messages(where: {hasThreadWith: {hasOwnerWith: {email: "ada@example.com"}}}) { totalCount }`,
		"a filter, deep":           `messages(where: {or: [{not: {hasAuthorWith: {email: "bob@example.com"}}}]}) { edges { node { body } } }`,
		"a filter in a variable":   `messages(where: $where) { totalCount }`,
	} {
		t.Run(name, func(t *testing.T) {
			document := `subscription($id: ID!, $refs: [RecordRef!]!, $where: MessageWhereInput) { recordsChanged(refs: $refs) {
				kind record { id ... on Thread { ` + selection + ` } } } } fragment T on Thread { owner { ...U } } fragment U on User { email }`
			document = strings.Replace(document, "$id: ID!, ", "", 1)
			if !strings.Contains(selection, "$where") {
				document = strings.Replace(document, ", $where: MessageWhereInput", "", 1)
			}
			if !strings.Contains(selection, "...T") {
				document, _, _ = strings.Cut(document, " fragment T")
			}
			vars := []any{"refs", refs(x)}
			query := `query($id: ID!, $where: MessageWhereInput) { node(id: $id) { id ... on Thread { ` + selection + ` } } }` +
				` fragment T on Thread { owner { ...U } } fragment U on User { email }`
			if !strings.Contains(selection, "$where") {
				query = strings.Replace(query, ", $where: MessageWhereInput", "", 1)
			} else {
				vars = append(vars, "where", object{"hasAuthorWith": object{"email": "bob@example.com"}})
			}
			if !strings.Contains(selection, "...T") {
				query, _, _ = strings.Cut(query, " fragment T")
			}
			var keepers []*keeper
			for _, v := range viewers {
				k := n.keep(t, v.UUID, document, vars...)
				require.Equal(t, "SNAPSHOT", field(t, k.next(t))["kind"])
				require.Equal(t, "READY", field(t, k.next(t))["kind"])
				keepers = append(keepers, k)
			}
			for round := range 3 { // who is first is random
				b.sql(t, `UPDATE threads SET subject = $2 WHERE id = $1`, x.UUID, fmt.Sprint(name, round))
				for i, k := range keepers {
					got := field(t, k.next(t))
					require.Equal(t, "UPDATED", got["kind"])
					vars := append([]any{"id", x}, vars[2:]...)
					want := b.as(t, viewers[i].UUID.String(), query, vars...)
					require.Empty(t, want.Errors)
					record, err := json.Marshal(got["record"])
					require.NoError(t, err)
					expected, err := json.Marshal(want.at(t, "node"))
					require.NoError(t, err)
					require.JSONEq(t, string(expected), string(record), "viewer %d", i)
				}
			}
		})
	}
}

// A filter may look at what not everybody reads also where it starts from records that everybody reads, and is not personal by itself.
func TestNoFilteredAnswerIsAnothers(t *testing.T) {
	t.Parallel()
	open := func(o *options) {
		o.change = func(s *ent.Stores) {
			s.Thread.Access.Read, s.Message.Access.Read = entity.SignedIn(), entity.SignedIn()
		}
	}
	b := setup(t, withTailer, withRules, open)
	bob := b.user(t, "bob")
	x := b.thread(t, "one")
	b.message(t, x, "of ada")
	const document = `subscription($id: ID!) { threadChanged(id: $id) { kind recordId version cursor fields
		thread { id messages(where: {hasAuthorWith: {email: "ada@example.com"}}) { totalCount } } } }`
	count := func(s *sink) any {
		e, ok := s.next(t.Context())
		require.True(t, ok)
		return e.Record["messages"].(map[string]any)["totalCount"]
	}
	ada, other := b.tail(t, document, "id", x), b.tailAs(t, bob.UUID, document, "id", x)
	for i := range 4 { // the first is a snapshot, of one's own; who is first then is random
		require.EqualValues(t, 1, count(ada), i)
		require.EqualValues(t, 0, count(other), "who may not read the address counts none")
		b.sql(t, `UPDATE threads SET subject = $2 WHERE id = $1`, x.UUID, fmt.Sprint(i))
	}
}

// While records change, clients subscribe: none misses a version, and none sees an older one.
func TestManySubscribeInAStorm(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.node(t, false)
	x, y := b.thread(t, "one"), b.thread(t, "two")
	const clients, changes = 100, 150
	stop := make(chan error, 1)
	go func() {
		for i := range changes {
			id := []uuid.UUID{x.UUID, y.UUID}[i%2]
			if _, err := b.Exec(context.Background(), `UPDATE threads SET subject = $2 WHERE id = $1`, id, fmt.Sprint(i)); err != nil {
				stop <- err
				return
			}
		}
		stop <- nil
	}()
	var sinks []*valve
	for i := range clients {
		v := &valve{sink: sink{more: make(chan struct{}, 1)}, room: -1}
		document, vars := followThreads, []any{}
		switch i % 3 {
		case 1:
			document, vars = followThread, []any{"id", x}
		case 2:
			document, vars = followRecords, []any{"refs", refs(x, y)}
		}
		s, cancel, err := n.attach(b.ada.UUID, v, document, vars...)
		require.NoError(t, err)
		t.Cleanup(func() { s.Close(); cancel() })
		s.Start()
		sinks = append(sinks, v)
	}
	require.NoError(t, <-stop)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	last := map[string]int{x.String(): b.version(t, x), y.String(): b.version(t, y)}
	for i, v := range sinks {
		has := map[string]int{}
		for has[x.String()] < last[x.String()] || i%3 != 1 && has[y.String()] < last[y.String()] {
			e, ok := v.next(ctx)
			require.True(t, ok, "%s after %v", e, has)
			switch e.Kind {
			case "SNAPSHOT":
				has[e.RecordID] = *e.Version
			case "UPDATED":
				require.Equal(t, has[e.RecordID]+1, *e.Version, e.String())
				has[e.RecordID]++
			default:
				require.Equal(t, "READY", e.Kind)
			}
		}
	}
}

// Connections that are killed cost no change: a client goes on completely, is told RESYNC, or the stream ends with an error.
func TestConnectionsKilledWhileDelivering(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string]bool{"rules": true, "no rules": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(o *options) { o.conns, o.rules = 4, rules })
			killer := b.another(t)
			n := b.node(t, rules)
			bob := b.user(t, "bob")
			var threads []record.ID
			for i := range 3 {
				threads = append(threads, b.thread(t, fmt.Sprint(i), bob))
			}
			m := b.message(t, threads[0], "hello")
			var clients []*follower
			for i := range 4 {
				for _, f := range []*follower{
					{name: "list", document: modelThreads},
					{name: "messages", document: modelMessages},
					{name: "set", document: modelSet, vars: []any{"refs", refs(append(threads, m)...)}, mixed: true},
				} {
					f.who, f.viewer, f.stations = "nobody", []record.ID{b.ada, bob}[i%2], []*station{n}
					f.begin(uint64(i))
					f.connect()
					require.NotNil(t, f.stream, f.failures)
					f.settle()
					clients = append(clients, f)
				}
			}
			ctx := t.Context()
			for i := range 40 {
				for _, s := range []string{
					`UPDATE threads SET subject = 's` + fmt.Sprint(i) + `'`, `UPDATE messages SET body = 's` + fmt.Sprint(i) + `'`,
					`INSERT INTO messages (id, body, thread_id, author_id) SELECT gen_random_uuid(), 'new', id, owner_id FROM threads LIMIT 1`,
					`DELETE FROM messages WHERE body = 'new' AND random() < 0.5`,
				} {
					_, err := killer.Exec(ctx, s)
					require.NoError(t, err)
				}
				if i%3 == 0 {
					_, err := killer.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
						WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`)
					require.NoError(t, err)
				}
			}
			n.quiet(t)
			resyncs := 0
			for _, f := range clients {
				f.take(1 << 30)
				f.valve.mu.Lock()
				ended, err := f.valve.ended, f.valve.err
				f.valve.mu.Unlock()
				if ended {
					require.Error(t, err)
					continue
				}
				require.Equal(t, f.truth(t, b), f.records, strings.Join(f.log, "\n"))
				require.Empty(t, f.failures)
				resyncs += f.resyncs
				f.stream.Close()
				f.cancel()
			}
			t.Logf("%d resyncs", resyncs)
			n.forgotten(t)
		})
	}
}

// A client that was told that it lost two records, one through the other, is told that it has both again, although that happened while it
// was away.
func TestRightsWonWhileAway(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer, withRules)
	bob := b.user(t, "bob")
	x := b.thread(t, "one", bob)
	m := b.message(t, x, "hello")
	both := refs(m, x)
	s := b.tailAs(t, bob.UUID, followRecords, "refs", both)
	s.expect(t, "SNAPSHOT "+short(m)+" v1", "SNAPSHOT "+short(x)+" v1", "READY  v-")
	b.sql(t, `DELETE FROM thread_members WHERE user_id = $1`, bob.UUID)
	require.ElementsMatch(t, []string{"DELETED " + short(x) + " v-", "DELETED " + short(m) + " v-"}, two(t, s))
	s.mu.Lock()
	at := s.got[len(s.got)-1].Cursor
	s.mu.Unlock()
	s.close()
	b.sql(t, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2)`, x.UUID, bob.UUID)
	s = b.tailAs(t, bob.UUID, followRecords, "refs", both, "since", at)
	has := map[string]bool{}
	for {
		e, ok := s.next(t.Context())
		require.True(t, ok)
		if e.Kind == "READY" {
			break
		}
		if e.Kind != "RESYNC" {
			has[e.RecordID] = e.Record != nil
		}
	}
	require.Equal(t, map[string]bool{x.String(): true, m.String(): true}, has)
}

// The end of a list's records is told also to who was cut between the end of what the right goes through and theirs.
func TestCutInACascade(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer, withRules)
	x := b.thread(t, "one")
	for range 3 {
		b.message(t, x, "hello")
	}
	s := b.tail(t, followMessages)
	for range 3 {
		e, ok := s.next(t.Context())
		require.True(t, ok)
		require.Equal(t, "SNAPSHOT", e.Kind)
	}
	s.expect(t, "READY  v-")
	b.sql(t, `DELETE FROM threads WHERE id = $1`, x.UUID)
	e, ok := s.next(t.Context())
	require.True(t, ok)
	require.Equal(t, "DELETED", e.Kind)
	s.close()
	s = b.tail(t, followMessages, "since", e.Cursor)
	var kinds []string
	for len(kinds) == 0 || kinds[len(kinds)-1] != "READY" {
		e, ok := s.next(t.Context())
		require.True(t, ok)
		kinds = append(kinds, e.Kind)
	}
	require.Contains(t, [][]string{{"DELETED", "DELETED", "READY"}, {"RESYNC", "READY"}}, kinds)
}

// What a record held while a viewer had no right to it is not told to them, even if they have the right by the time that is asked.
func TestRightsAreOfWhatIsTold(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer, withRules)
	bob := b.user(t, "bob")
	x := b.thread(t, "one")
	s := b.tailAs(t, bob.UUID, followThreads)
	s.expect(t, "READY  v-")
	owner := b.tail(t, followThreads)
	owner.expect(t, "SNAPSHOT "+short(x)+" v1", "READY  v-")
	// Records are read, and who may read them has to wait.
	tx := b.other(t)
	ctx := context.WithValue(t.Context(), byHand{}, true)
	_, err := tx.Exec(ctx, `LOCK TABLE thread_members IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	b.trace.reset()
	b.sql(t, `UPDATE threads SET subject = 'secret' WHERE id = $1`, x.UUID)
	b.blocked(t)
	_, err = tx.Exec(ctx, `UPDATE threads SET subject = 'open' WHERE id = $1`, x.UUID)
	require.NoError(t, err)
	_, err = tx.Exec(ctx, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2)`, x.UUID, bob.UUID)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(ctx))
	for {
		e, ok := s.next(t.Context())
		require.True(t, ok)
		require.NotEqual(t, "secret", e.Record["subject"], e.String())
		if e.Record["subject"] == "open" && *e.Version >= 3 {
			break
		}
	}
}

// What is joined for a slow client does not hide that a record has ended and another has its id.
func TestSlowClientAndAnotherLife(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x, y := b.thread(t, "one"), b.thread(t, "two")
	b.sql(t, `UPDATE threads SET subject = 'again' WHERE id = $1`, x.UUID)
	s := b.tail(t, followRecords, "refs", refs(x, y))
	s.expect(t, "SNAPSHOT "+short(x)+" v2", "SNAPSHOT "+short(y)+" v1", "READY  v-")
	s.fill(true)
	b.sql(t, `DELETE FROM threads WHERE id = $1`, x.UUID)
	b.sql(t, `INSERT INTO threads (id, subject, owner_id) VALUES ($1, 'new', $2)`, x.UUID, b.ada.UUID)
	b.sql(t, `DO $$ BEGIN FOR i IN 1..300 LOOP UPDATE threads SET subject = i WHERE subject <> 'new'; END LOOP; END $$`)
	require.Eventually(t, func() bool { return b.stores.Stats().Joined > 0 }, 20*time.Second, time.Millisecond)
	s.fill(false)
	for {
		e, ok := s.next(t.Context())
		require.True(t, ok)
		if e.Record["subject"] == "new" {
			return
		}
		if e.RecordID == y.String() && *e.Version == 301 {
			require.Fail(t, "nothing of the new record")
		}
	}
}

// Nothing is kept of a stream that was closed while what it follows was looked up.
func TestNothingIsKeptOfClosedStreams(t *testing.T) {
	t.Parallel()
	b := setup(t, withRules)
	n := b.node(t, true)
	bob := b.user(t, "bob")
	x := b.thread(t, "one", bob)
	m := b.message(t, x, "hello")
	for i := range 30 {
		var closers []func()
		for range 4 {
			s, cancel, err := n.attach(bob.UUID, newKeeper(), followRecords, "refs", refs(m, x))
			require.NoError(t, err)
			s.Start()
			closers = append(closers, func() { s.Close(); cancel() })
		}
		if i%2 == 0 {
			b.sql(t, `DELETE FROM thread_members`)
		} else {
			b.sql(t, `INSERT INTO thread_members (thread_id, user_id) VALUES ($1, $2)`, x.UUID, bob.UUID)
		}
		b.sql(t, `UPDATE threads SET subject = $2 WHERE id = $1`, x.UUID, fmt.Sprint(i))
		for _, f := range closers {
			f()
		}
	}
	n.quiet(t)
	n.forgotten(t)
}
