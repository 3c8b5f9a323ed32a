package record_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/graph"
	"godstack/internal/changelog"
	"godstack/internal/entity"
	"godstack/internal/entpgx"
	"godstack/internal/logtest"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// station is a node: an engine and a tailer over the bundle's database.
type station struct {
	stores *ent.Stores
	exec   *executor.Executor
	tailer *changelog.Tailer
	late   atomic.Pointer[func()] // is called once, when changes have been read and before they are delivered
}

// station starts a node. Nodes of one key continue each other's streams.
func (b *bundle) station(t testing.TB, rules bool, key []byte) *station {
	t.Helper()
	n := &station{}
	log := slog.New(slog.NewTextHandler(io.MultiWriter(b.log, logtest.Writer()), nil))
	var err error
	n.stores, err = ent.NewStores(b.client, entpgx.Open(b.Pool), &record.Config{
		Logger: log, Unrestricted: !rules, CursorKeys: [][]byte{key}, Watching: func(i int) { n.tailer.Interest(i) },
	})
	require.NoError(t, err)
	db := b.Config().ConnConfig.Copy()
	db.Tracer = nil
	n.tailer, err = changelog.NewTailer(db, func(ctx context.Context, batch changelog.Batch) {
		if len(batch.Changes) > 0 {
			if late := n.late.Swap(nil); late != nil {
				(*late)()
			}
		}
		n.stores.Deliver(ctx, batch)
	}, &changelog.Config{Logger: log})
	require.NoError(t, err)
	background(t, n.tailer.Run)
	n.exec = executor.New(graph.NewExecutableSchema(graph.Config{Resolvers: &graph.Resolver{Stores: n.stores}}))
	return n
}

// attach subscribes; the error is the refusal.
func (n *station) attach(who uuid.UUID, sink record.Sink, document string, vars ...any) (*record.Stream, context.CancelFunc, error) {
	var params graphql.RawParams
	d := json.NewDecoder(strings.NewReader(encode(document, vars)))
	d.UseNumber()
	if err := d.Decode(&params); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(graphql.StartOperationTrace(context.Background()))
	ctx = viewer.NewContext(ctx, viewer.Viewer{ID: who, Role: viewer.User})
	ctx, slot := record.WithSink(ctx, sink)
	op, errs := n.exec.CreateOperationContext(ctx, &params)
	if len(errs) > 0 {
		cancel()
		return nil, nil, errs
	}
	next, ctx := n.exec.DispatchOperation(ctx, op)
	if s := slot.Stream(); s != nil {
		return s, cancel, nil
	}
	defer cancel()
	if list := next(ctx).Errors; len(list) > 0 {
		return nil, nil, list[0].Err
	}
	return nil, nil, errors.New("neither a stream nor an error")
}

// valve is a sink that takes as many events as it has room for, any number if that is negative.
type valve struct {
	sink
	lock sync.Mutex
	room int // protected by lock
}

func (v *valve) Next(a *record.Answer) bool {
	v.lock.Lock()
	defer v.lock.Unlock()
	if v.room == 0 {
		return false
	}
	v.room--
	return v.sink.Next(a)
}

func (v *valve) open(room int) {
	v.lock.Lock()
	defer v.lock.Unlock()
	v.room = room
}

// take removes up to n of the events that came.
func (v *valve) take(n int) []event {
	v.mu.Lock()
	defer v.mu.Unlock()
	n = min(n, len(v.got))
	list := v.got[:n]
	v.got = v.got[n:]
	return list
}

// held is what a client has of a record.
type held struct {
	version int
	made    string // when; a record that has the id of an earlier one is told from it so
	text    string
}

func (h *held) set(fields map[string]any) {
	h.version, _ = strconv.Atoi(fmt.Sprint(fields["version"]))
	h.made = fmt.Sprint(fields["createdAt"])
	for _, name := range []string{"subject", "body", "name"} {
		if s, ok := fields[name].(string); ok {
			h.text = s
		}
	}
}

// follower is a client.
type follower struct {
	name     string
	who      string // its viewer, as secrets say who must not see them
	viewer   record.ID
	document string
	vars     []any
	single   bool
	mixed    bool // named records, of which one may be told that is newer than the place to go on from
	again    bool // ids are used again
	stations []*station
	rnd      *rand.Rand

	records map[string]held
	last    map[string]int // version of the last event, by id
	gaps    map[string]string
	newest  map[string]int // version of the newest record, by id and time of creation
	cursor  string
	ended   bool
	valve   *valve
	stream  *record.Stream
	cancel  context.CancelFunc

	log           []string
	failures      []string
	first         int // line of the first failure in log
	resyncs, cuts int
}

func (f *follower) fail(format string, args ...any) {
	f.note("WRONG "+format, args...)
	if f.first == 0 {
		f.first = len(f.log)
	}
	f.failures = append(f.failures, f.name+": "+fmt.Sprintf(format, args...))
}

func (f *follower) note(format string, args ...any) {
	f.log = append(f.log, time.Now().Format("05.000000 ")+fmt.Sprintf(format, args...))
}

// forget begins with nothing.
func (f *follower) forget() {
	clear(f.records)
	clear(f.last)
	clear(f.gaps)
}

// connect begins, or goes on where the client was.
func (f *follower) connect() {
	f.valve = &valve{sink: sink{more: make(chan struct{}, 1)}, room: -1}
	if f.rnd.IntN(3) == 0 {
		f.valve.room = f.rnd.IntN(6)
	}
	vars := slices.Clip(f.vars)
	switch {
	case f.cursor != "":
		vars = append(vars, "since", f.cursor)
	case f.single && len(f.records) == 1 && f.rnd.IntN(2) == 0:
		for _, h := range f.records {
			vars = append(vars, "known", h.version)
		}
	default:
		f.forget()
	}
	at := f.rnd.IntN(len(f.stations))
	var err error
	f.stream, f.cancel, err = f.stations[at].attach(f.viewer.UUID, f.valve, f.document, vars...)
	f.note("connect to %d with %v, room %d: %v", at, vars[len(f.vars):], f.valve.room, err)
	e, _ := errors.AsType[*record.Error](err)
	switch {
	case err == nil:
		f.stream.Start()
	case e != nil && e.Code == record.NotFound && f.single && f.cursor == "":
		f.forget()
	case e != nil && e.Code == record.Unavailable:
	default:
		f.fail("refused: %v", err)
	}
}

// cut loses the connection, and some of what was on its way.
func (f *follower) cut() {
	f.take(f.rnd.IntN(4))
	f.stream.Close()
	f.cancel()
	f.stream = nil
	if f.rnd.IntN(8) == 0 {
		f.cursor = ""
	}
	f.cuts++
	f.note("cut")
}

// take reads up to n events.
func (f *follower) take(n int) {
	for _, e := range f.valve.take(n) {
		f.apply(e)
	}
}

// apply does what an event says, and holds it against what it must not say.
func (f *follower) apply(e event) {
	var h held
	if e.Record != nil {
		h.set(e.Record)
	} else {
		h.text = "null"
	}
	f.note("%s record v%d %q", e, h.version, h.text)
	if e.errs > 0 {
		f.fail("errors in %s", e)
	}
	f.cursor = e.Cursor
	id := e.RecordID
	switch e.Kind {
	case "RESYNC":
		f.forget()
		f.resyncs++
		return
	case "READY":
		if e.Version != nil { // it is the known one
			f.last[id] = *e.Version
		}
		return
	case "DELETED":
		delete(f.records, id)
		delete(f.last, id)
		delete(f.gaps, id)
		f.ended = f.single
		return
	}
	last, there := f.last[id]
	switch {
	case e.Kind == "SNAPSHOT", !there: // it begins
	case e.Record == nil || h.version < *e.Version: // another one has the id by now, or none: what becomes of this one comes next
		if !f.again && e.Record != nil {
			f.fail("%s has the record of version %d", e, h.version)
		}
	case *e.Version <= last && f.mixed: // once more, since it was cut
	case *e.Version <= last:
		f.fail("%s after version %d", e, last)
	case *e.Version != last+1 && !f.joins():
		// The viewer has lost the record meanwhile, and has won it again, which is told next; or the change is missing.
		f.gaps[id] = fmt.Sprintf("%s after version %d: a gap", e, last)
	}
	f.last[id] = *e.Version
	if e.Record != nil {
		if h.version < *e.Version {
			delete(f.last, id)
		}
		if strings.Contains(h.text, "no-"+f.who) {
			f.fail("%s is secret: %q", e, h.text)
		}
		life := id + h.made
		if h.version < f.newest[life] {
			f.fail("%s has the record of version %d, after that of %d", e, h.version, f.newest[life])
		}
		f.newest[life] = max(f.newest[life], h.version)
	}
	f.records[id] = h
}

// joins reports whether changes were told as one to somebody who did not keep up.
func (f *follower) joins() bool {
	return slices.ContainsFunc(f.stations, func(s *station) bool { return s.stores.Stats().Joined > 0 })
}

// live is a client's life until stop is closed.
func (f *follower) live(stop <-chan struct{}) {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		if f.stream == nil && !f.ended {
			f.connect()
		}
		var more chan struct{}
		if f.stream != nil {
			more = f.valve.more
		}
		select {
		case <-stop:
			return
		case <-more:
		case <-tick.C:
		}
		if f.stream == nil {
			if f.ended && f.rnd.IntN(10) == 0 {
				f.ended, f.cursor = false, ""
			}
			continue
		}
		switch n := f.rnd.IntN(60); {
		case n == 0:
			f.cut()
			continue
		case n == 1:
			f.valve.open(0)
		case n < 8:
			f.valve.open(f.rnd.IntN(8) - 1)
			f.stream.Resume()
		}
		f.take(1000)
		f.over()
	}
}

// over lets go of a stream that has ended.
func (f *follower) over() {
	f.valve.mu.Lock()
	ended, err, rest := f.valve.ended, f.valve.err, len(f.valve.got)
	f.valve.mu.Unlock()
	if !ended || rest > 0 {
		return
	}
	if err != nil || !f.ended {
		f.fail("ended: %v", err)
	}
	f.stream.Close()
	f.cancel()
	f.stream, f.ended = nil, true
}

// settle connects for good.
func (f *follower) settle() {
	if f.stream == nil && !f.ended {
		f.connect()
	}
	if f.stream != nil {
		f.valve.open(-1)
		f.stream.Resume()
	}
}

// writers change everything.
type writers struct {
	*bundle
	users    []record.ID
	names    []string // of users
	threads  []record.ID
	messages []record.ID
	members  []sync.Mutex // by thread: who changes who may read it
	rules    bool
	rare     bool // there is TRUNCATE
	again    bool // ids are used again
	storms   bool // there are more changes at once than may wait
}

// tolerable reports whether an error is one that writers bring upon each other.
func tolerable(err error) bool {
	var pg *pgconn.PgError
	return err == nil || errors.As(err, &pg) && slices.Contains([]string{"40P01", "55P03", "23503", "23505", "25P02"}, pg.Code)
}

func (w *writers) run(rnd *rand.Rand, steps int) error {
	ctx := context.WithValue(context.Background(), byHand{}, true)
	for step := range steps {
		if err := w.step(ctx, rnd, step); !tolerable(err) {
			return err
		}
	}
	return nil
}

func (w *writers) step(ctx context.Context, rnd *rand.Rand, step int) error {
	i := rnd.IntN(len(w.threads))
	switch n := rnd.IntN(100); {
	case n < 30:
		return w.transaction(ctx, rnd, step)
	case n < 55:
		return w.statement(ctx, w.Pool, rnd, step)
	case n < 68:
		return w.mutate(ctx, rnd, i, step)
	case n < 80:
		return w.secret(ctx, rnd, i, step)
	case n < 90:
		return w.rejoin(ctx, rnd, i)
	case n < 95 && (w.again && !w.rules || step > 40): // the thread goes, with its messages, and may come again
		w.members[i].Lock()
		defer w.members[i].Unlock()
		if _, err := w.Exec(ctx, `DELETE FROM threads WHERE id = $1`, w.threads[i].UUID); err != nil || !w.again || w.rules {
			return err
		}
		_, err := w.Exec(ctx, `INSERT INTO threads (id, subject, owner_id, created_at) VALUES ($1, $2, $3, clock_timestamp())`,
			w.threads[i].UUID, text(rnd, step), w.users[i%len(w.users)].UUID)
		return err
	case n < 98 && w.storms:
		_, err := w.Exec(ctx, `DO $$ BEGIN SET LOCAL lock_timeout = '300ms'; FOR i IN 1..12 LOOP
			UPDATE messages SET body = body || i WHERE body NOT LIKE 'no-%';
			UPDATE threads SET subject = left(subject || i, 150) WHERE subject NOT LIKE 'no-%'; END LOOP; END $$`)
		return err
	case w.rare:
		_, err := w.Exec(ctx, `DO $$ BEGIN SET LOCAL lock_timeout = '300ms'; TRUNCATE messages; END $$`)
		return err
	default:
		_, err := w.Exec(ctx, `UPDATE users SET name = $2 WHERE id = $1`, w.users[rnd.IntN(len(w.users))].UUID, text(rnd, step))
		return err
	}
}

func text(rnd *rand.Rand, step int) string {
	return fmt.Sprintf("%c%d.%d", 'a'+rune(rnd.IntN(2)), step, rnd.IntN(1000))
}

// transaction is some statements together. It may be late, or in vain.
func (w *writers) transaction(ctx context.Context, rnd *rand.Rand, step int) error {
	tx, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '300ms'`); err != nil {
		return err
	}
	for range 1 + rnd.IntN(5) {
		if err := w.statement(ctx, tx, rnd, step); err != nil {
			return err
		}
	}
	if rnd.IntN(4) == 0 {
		if _, err := tx.Exec(ctx, `SELECT pg_sleep($1)`, rnd.Float64()/20); err != nil {
			return err
		}
	}
	if rnd.IntN(5) == 0 {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// statement changes something that is not a right, but for where a message is; no secret.
func (w *writers) statement(ctx context.Context, tx execer, rnd *rand.Rand, step int) error {
	thread := w.threads[rnd.IntN(len(w.threads))].UUID
	message := w.messages[rnd.IntN(len(w.messages))].UUID
	var err error
	switch n := rnd.IntN(10); {
	case n < 3:
		_, err = tx.Exec(ctx, `UPDATE threads SET subject = $2 WHERE id = $1 AND subject NOT LIKE 'no-%'`, thread, text(rnd, step))
	case n < 6:
		_, err = tx.Exec(ctx, `UPDATE messages SET body = $2 WHERE id = $1 AND body NOT LIKE 'no-%'`, message, text(rnd, step))
	case n < 8:
		if !w.again {
			message = entity.NewID()
		}
		_, err = tx.Exec(ctx, `INSERT INTO messages (id, body, thread_id, author_id, created_at)
			SELECT $1, $2, $3, $4, clock_timestamp() WHERE EXISTS (SELECT FROM threads WHERE id = $3) ON CONFLICT DO NOTHING`,
			message, text(rnd, step), thread, w.users[rnd.IntN(len(w.users))].UUID)
	case n < 9:
		_, err = tx.Exec(ctx, `DELETE FROM messages WHERE id = $1`, message)
	default:
		_, err = tx.Exec(ctx, `UPDATE messages SET thread_id = $2 WHERE id = $1 AND body NOT LIKE 'no-%'
			AND EXISTS (SELECT FROM threads WHERE id = $2)`,
			message, thread)
	}
	return err
}

// mutate uses the API, as the thread's owner.
func (w *writers) mutate(ctx context.Context, rnd *rand.Rand, i, step int) error {
	id, owner := w.threads[i], w.users[i%len(w.users)].UUID.String()
	if rnd.IntN(3) == 0 {
		_, err := w.post(ctx, owner, encode(`mutation($in: CreateMessageInput!) { createMessage(input: $in) { id } }`,
			[]any{"in", object{"threadID": id.String(), "body": text(rnd, step)}}))
		return err
	}
	var version int
	err := w.QueryRow(ctx, `SELECT version FROM threads WHERE id = $1 AND subject NOT LIKE 'no-%'`, id.UUID).Scan(&version)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	} else if err != nil {
		return err
	}
	_, err = w.post(ctx, owner, encode(`mutation($id: ID!, $v: Int!, $in: UpdateThreadInput!) {
		updateThread(id: $id, expectedVersion: $v, input: $in) { id } }`,
		[]any{"id", id, "v", version, "in", object{"subject": text(rnd, step)}}))
	return err
}

// other picks a user who does not own the thread.
func (w *writers) other(rnd *rand.Rand, i int) int {
	return (i + 1 + rnd.IntN(len(w.users)-1)) % len(w.users)
}

const join = `INSERT INTO thread_members (thread_id, user_id) SELECT $1, $2
	WHERE EXISTS (SELECT FROM threads WHERE id = $1) ON CONFLICT DO NOTHING`

// rejoin changes the members.
func (w *writers) rejoin(ctx context.Context, rnd *rand.Rand, i int) error {
	w.members[i].Lock()
	defer w.members[i].Unlock()
	thread, user := w.threads[i].UUID, w.users[w.other(rnd, i)].UUID
	_, err := w.Exec(ctx, join, thread, user)
	if rnd.IntN(2) == 0 && err == nil {
		_, err = w.Exec(ctx, `DELETE FROM thread_members WHERE thread_id = $1 AND user_id = $2`, thread, user)
	}
	return err
}

// secret takes the right from somebody, writes what they must not see, takes that back, and gives the right again: a transaction each.
func (w *writers) secret(ctx context.Context, rnd *rand.Rand, i, step int) error {
	w.members[i].Lock()
	defer w.members[i].Unlock()
	k := w.other(rnd, i)
	thread, user, secret := w.threads[i].UUID, w.users[k].UUID, "no-"+w.names[k]+strconv.Itoa(step)
	for _, s := range []struct {
		sql  string
		args []any
	}{
		{`DELETE FROM thread_members WHERE thread_id = $1 AND user_id = $2`, []any{thread, user}},
		{`UPDATE threads SET subject = $2 WHERE id = $1`, []any{thread, secret}},
		{`UPDATE messages SET body = $2 WHERE thread_id = $1`, []any{thread, secret}},
		{`UPDATE messages SET body = $2 WHERE body = $1`, []any{secret, text(rnd, step)}},
		{`UPDATE threads SET subject = $2 WHERE id = $1`, []any{thread, text(rnd, step)}},
		{join, []any{thread, user}},
	} {
		for {
			_, err := w.Exec(ctx, s.sql, s.args...)
			if err == nil {
				break
			}
			if !tolerable(err) {
				return err
			}
		}
	}
	return nil
}

const (
	head        = `kind recordId version cursor fields `
	ofThread    = head + `thread { id version createdAt subject } } }`
	ofMessage   = head + `message { id version createdAt body } } }`
	modelThread = `subscription($id: ID!, $known: Int, $since: Cursor) {
		threadChanged(id: $id, knownVersion: $known, since: $since) { ` + ofThread
	modelMessage = `subscription($id: ID!, $known: Int, $since: Cursor) {
		messageChanged(id: $id, knownVersion: $known, since: $since) { ` + ofMessage
	modelThreads  = `subscription($where: ThreadWhereInput, $since: Cursor) { threadsChanged(where: $where, since: $since) { ` + ofThread
	modelMessages = `subscription($where: MessageWhereInput, $since: Cursor) { messagesChanged(where: $where, since: $since) { ` + ofMessage
	modelUsers    = `subscription($since: Cursor) { usersChanged(since: $since) { ` + head + `user { id version createdAt name } } }`
	modelSet      = `subscription($refs: [RecordRef!]!, $since: Cursor) { recordsChanged(refs: $refs, since: $since) { ` + head +
		`record { id version ... on Thread { createdAt subject } ... on Message { createdAt body } ... on User { createdAt name } } } }`
)

// begin is a client's birth.
func (f *follower) begin(seed uint64) {
	f.rnd = rand.New(rand.NewPCG(seed, 0))
	f.records, f.last, f.newest, f.gaps = map[string]held{}, map[string]int{}, map[string]int{}, map[string]string{}
}

// quiet waits until all that was committed has reached the sinks.
func (n *station) quiet(t testing.TB) {
	t.Helper()
	now := time.Now()
	require.Eventually(t, func() bool { return n.tailer.Lag() < time.Since(now) && n.stores.Quiet() }, 30*time.Second, 5*time.Millisecond)
}

// forgotten requires that nothing is kept for streams that there are no more.
func (n *station) forgotten(t testing.TB) {
	t.Helper()
	require.Eventually(t, n.stores.Quiet, 10*time.Second, time.Millisecond)
	for name, count := range n.stores.Followed() {
		require.Zero(t, count, "%s that are followed by nobody", name)
	}
}

// clients are followers of all kinds.
func (w *writers) clients(stations []*station, rnd *rand.Rand) (list []*follower) {
	for i, user := range w.users {
		add := func(name, document string, vars ...any) {
			f := &follower{
				name: w.names[i] + " " + name, who: w.names[i], viewer: user, document: document, vars: vars,
				again: w.again, mixed: strings.HasPrefix(name, "set"),
				single:   vars != nil && vars[0] == "id",
				stations: stations,
			}
			f.begin(rnd.Uint64())
			list = append(list, f)
		}
		add("own thread", modelThread, "id", w.threads[i])
		add("thread", modelThread, "id", w.threads[(i+1)%len(w.users)])
		add("message", modelMessage, "id", w.messages[i])
		add("set", modelSet, "refs", refs(slices.Concat(w.threads, w.messages, w.users)...))
		add("set of messages", modelSet, "refs", refs(w.messages...))
		add("threads", modelThreads)
		add("threads a", modelThreads, "where", object{"subjectHasPrefix": "a"})
		add("threads of", modelThreads, "where", object{"ownerID": w.users[0].String(), "not": object{"subjectHasPrefix": "b"}})
		add("messages", modelMessages)
		add("messages a", modelMessages, "where", object{"bodyHasPrefix": "a"})
		add("messages in", modelMessages, "where", object{"threadID": w.threads[1].String()})
		add("messages by", modelMessages, "where", object{"authorID": w.users[1].String(), "bodyContains": "1"})
		add("users", modelUsers)
	}
	return list
}

// truth is what the follower's viewer is answered now.
func (f *follower) truth(t testing.TB, b *bundle) map[string]held {
	t.Helper()
	m := map[string]held{}
	keep := func(v any) {
		if n, ok := v.(map[string]any); ok {
			var h held
			h.set(n)
			m[n["id"].(string)] = h
		}
	}
	var ids []string
	if f.single {
		ids = []string{f.vars[1].(record.ID).String()}
	} else if f.vars != nil && f.vars[0] == "refs" {
		for _, r := range f.vars[1].([]object) {
			ids = append(ids, r["id"].(string))
		}
	}
	if ids != nil {
		a := b.as(t, f.viewer.UUID.String(), `query($ids: [ID!]!) { nodes(ids: $ids) { id ... on Thread { version createdAt subject }
			... on Message { version createdAt body } ... on User { version createdAt name } } }`, "ids", ids)
		for _, n := range a.at(t, "nodes").([]any) {
			keep(n)
		}
		return m
	}
	list, input, field := "threads", "ThreadWhereInput", "subject"
	if strings.Contains(f.document, "messagesChanged") {
		list, input, field = "messages", "MessageWhereInput", "body"
	} else if strings.Contains(f.document, "usersChanged") {
		list, input, field = "users", "UserWhereInput", "name"
	}
	vars := slices.Clip(f.vars)
	for {
		a := b.as(t, f.viewer.UUID.String(), fmt.Sprintf(`query($where: %s, $after: Cursor) { %s(first: 100, where: $where, after: $after) {
			pageInfo { hasNextPage endCursor } edges { node { id version createdAt %s } } } }`, input, list, field), vars...)
		require.Empty(t, a.Errors, a.raw)
		for _, e := range a.at(t, list+".edges").([]any) {
			keep(e.(map[string]any)["node"])
		}
		if a.text(t, list+".pageInfo.hasNextPage") != "true" {
			return m
		}
		vars = append(slices.Clip(f.vars), "after", a.text(t, list+".pageInfo.endCursor"))
	}
}

// Whatever is written, and however often a client is cut or slow, at the end it has what a query answers, and on the way it saw neither a
// gap nor an older version, nor anything that it might not read.
func TestClientsAreRight(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string]bool{"rules": true, "no rules": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			if s := os.Getenv("STREAM_SEED"); s != "" {
				var err error
				seed, err = strconv.ParseUint(s, 10, 64)
				require.NoError(t, err)
			}
			t.Logf("STREAM_SEED=%d", seed)
			testClients(t, rules, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func testClients(t *testing.T, rules bool, rnd *rand.Rand) {
	b := setup(t, func(o *options) { o.conns, o.rules = 20, rules })
	w := &writers{bundle: b, users: []record.ID{b.ada, b.user(t, "bob"), b.user(t, "eve")}, names: []string{"ada", "bob", "eve"},
		rules: rules, rare: rnd.IntN(3) == 0, again: rnd.IntN(2) == 0, storms: rnd.IntN(2) == 0}
	for i := range 6 {
		w.threads = append(w.threads, record.ID{Prefix: "thread", UUID: entity.NewID()})
		b.sql(t, `INSERT INTO threads (id, subject, owner_id) VALUES ($1, $2, $3)`, w.threads[i].UUID, text(rnd, 0), w.users[i%3].UUID)
	}
	w.members = make([]sync.Mutex, len(w.threads))
	for i := range 12 {
		w.messages = append(w.messages, b.message(t, w.threads[i%len(w.threads)], text(rnd, 0)))
	}
	key := []byte("the key of all nodes, all of them")
	stations := []*station{b.station(t, rules, key), b.station(t, rules, key)}
	clients := w.clients(stations, rnd)
	if !rules { // there are no secrets
		for _, f := range clients {
			f.who = "nobody"
		}
	}

	var living sync.WaitGroup
	stop := make(chan struct{})
	for _, f := range clients {
		living.Go(func() { f.live(stop) })
	}
	wrong := make(chan error)
	const writing, steps = 4, 60
	for range writing {
		r := rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64()))
		go func() { wrong <- w.run(r, steps) }()
	}
	var errs []error
	for range writing {
		errs = append(errs, <-wrong)
	}
	close(stop)
	living.Wait()
	require.NoError(t, errors.Join(errs...))

	for _, f := range clients {
		f.settle()
	}
	for _, n := range stations {
		n.quiet(t)
	}
	var (
		failures              []string
		resyncs, cuts, events int
	)
	for _, f := range clients {
		if f.stream != nil {
			f.take(1 << 30)
			f.over()
		}
		want := f.truth(t, b)
		if f.stream == nil { // it was gone at some time
			clear(want)
		}
		if !maps.Equal(want, f.records) {
			f.fail("there is\n%s\nit has\n%s", lines(want), lines(f.records))
		}
		for _, gap := range f.gaps {
			f.fail("%s", gap)
		}
		if f.failures != nil {
			failures = append(failures, strings.Join(f.failures, "\n")+"\n\t"+
				strings.Join(f.log[max(0, f.first-longest()):min(len(f.log), f.first+5)], "\n\t"))
		}
		resyncs, cuts, events = resyncs+f.resyncs, cuts+f.cuts, events+len(f.log)
	}
	for _, f := range clients {
		if f.stream != nil {
			f.stream.Close()
			f.cancel()
		}
	}
	t.Logf("again %v, rare %v, storms %v: %d changes, %d events, %d cuts, %d resyncs, joined %v",
		w.again, w.rare, w.storms, one[int](t, b, `SELECT count(*)::int FROM changes`), events, cuts, resyncs, clients[0].joins())
	for _, f := range failures {
		t.Error(f)
	}
	for _, n := range stations {
		n.forgotten(t)
	}
}

// longest is how many lines of a client's log a failure shows.
func longest() int {
	n, _ := strconv.Atoi(os.Getenv("STREAM_LOG"))
	return max(n, 25)
}

func lines(m map[string]held) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "\t%s v%d %q\n", id, m[id].version, m[id].text)
	}
	return b.String()
}
