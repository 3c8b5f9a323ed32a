package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"godstack/internal/record"
)

// crowd is a number of sockets with a subscription each, what happens to the records that they watch, and what that took.
type crowd struct {
	name, what string
	sockets    int
	records    int
	rate       int  // writes a second; 0: the next once all sockets have heard of the last
	idle       bool // nothing is written

	ratio, kib float64       // goals: CPU time as a ratio, memory of a socket; 0 for none
	p50, p99   time.Duration // goals; 0 for none

	left   string    // why it is left out; empty where it is not
	result [2]result // by target
}

// result is what a crowd gave for one server.
type result struct {
	writes, deliveries int
	joined             int // versions of which a socket has heard with a later one
	took               time.Duration
	server, postgres   time.Duration   // CPU time
	delays             []time.Duration // from commit to socket
	bytes, goroutines  float64         // of a socket
}

// crowds are all of them, n sockets being the usual number.
func crowds(n int) []*crowd {
	idle := func(n int) *crowd {
		return &crowd{name: "idle", what: "sockets that nothing happens to", sockets: n, records: max(n/5, 1), idle: true, kib: 10}
	}
	return []*crowd{
		{name: "S1", what: "all watch one record; the next update once all have heard of the last", sockets: n, records: 1, ratio: 1.3},
		{name: "S2", what: "5 sockets a record, 500 updates a second", sockets: n, records: max(n/5, 1), rate: 500},
		{
			name: "S3", what: "50 sockets a record, 500 updates a second", sockets: n, records: max(n/50, 1), rate: 500,
			p50: 10 * time.Millisecond, p99: 100 * time.Millisecond,
		},
		idle(max(2*n/5, 1)), idle(2 * n),
	}
}

const (
	// subscription is what a socket asks for.
	subscription = "subscription ($id: ID!) { threadChanged(id: $id) { kind recordId version fields cursor thread { " + threadFields + " } } }"
	// watchers is how many users the sockets belong to.
	watchers = 5
	// writers is how many connections write at the same time.
	writers = 4
	// heating is how many updates, and how many idle sockets, come before those that are measured.
	heating = 10
	// minSpell has room for a few updates.
	minSpell = 10 * time.Millisecond
	// spareFiles is how many files a process opens beside its sockets, and more.
	spareFiles = 200
)

// measureCrowds measures all crowds, each with fresh servers, one after the other.
func (r *report) measureCrowds(ctx context.Context, url string) error {
	files, err := openFiles()
	if err != nil {
		return err
	}
	if err := r.data.admit(ctx); err != nil {
		return err
	}
	tokens, err := r.data.signIn()
	if err != nil {
		return err
	}
	for _, c := range r.crowds {
		if need := c.sockets + spareFiles; need > files {
			c.left = fmt.Sprintf("a process may open %d files here, and this takes %d (ulimit -Hn)", files, need)
			continue
		}
		if len(r.data.threads) < c.records {
			c.left = fmt.Sprintf("there are %d threads, and this takes %d", len(r.data.threads), c.records)
			continue
		}
		var sample []byte // of what Godstack sends, for the broadcast server to send the same
		for target := range c.result {
			st := &stage{crowd: c, data: r.data, spell: r.cfg.spell, tokens: tokens, target: target, sample: sample}
			if c.result[target], err = st.run(ctx, r.cfg, url); err != nil {
				return fmt.Errorf("%s of %s: %w", c.name, crowdTargets[target], err)
			}
			sample = st.sample
		}
	}
	return nil
}

// crowdTargets are the servers that sockets are compared between, by target.
var crowdTargets = [2]string{"godstack", "bare"}

// admit has the watchers read all threads.
func (d *data) admit(ctx context.Context) error {
	_, err := d.conn.Exec(ctx, `SET session_replication_role = replica;
		INSERT INTO thread_members (thread_id, user_id)
			SELECT t.id, u.id FROM threads t, (SELECT id FROM users ORDER BY id DESC LIMIT `+strconv.Itoa(watchers)+`) u ON CONFLICT DO NOTHING;
		SET session_replication_role = origin;
		ANALYZE thread_members`)
	return err
}

// stage is one server before one crowd.
type stage struct {
	*crowd
	data   *data
	spell  time.Duration
	tokens []string
	target int
	sample []byte
	server *process
	all    *listeners
	conns  []*pgx.Conn // of the writers
	writes [][]write   // by record
}

// write is an update of a record.
type write struct {
	version int64
	after   time.Duration // when it was committed, since the listeners' beginning
}

func (s *stage) run(ctx context.Context, cfg config, url string) (res result, err error) {
	self, err := os.Executable()
	if err != nil {
		return res, err
	}
	role, app := roleBroadcast, roleBroadcast
	if s.target == godstack {
		if role, app = roleGodstack, "godstack"; !cfg.rules {
			role = roleUnrestricted
		}
		for range writers {
			conn, err := pgx.Connect(ctx, url)
			if err != nil {
				return res, err
			}
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			s.conns = append(s.conns, conn)
		}
	}
	if s.server, err = launch(self, role, app, cfg.environ(s.data, url)...); err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, s.server.stop()) }()
	s.all = newListeners(s.server.addr)
	defer s.all.close()
	s.writes = make([][]write, s.records)
	if s.idle {
		return s.rest(ctx)
	}
	return s.busy(ctx)
}

// rest measures what sockets hold that nothing happens to.
func (s *stage) rest(ctx context.Context) (res result, err error) {
	if err := s.open(ctx, heating); err != nil { // what is there once is no socket's
		return res, err
	}
	bytes, goroutines, err := s.server.collect()
	if err != nil {
		return res, err
	}
	if err := s.open(ctx, s.sockets); err != nil {
		return res, err
	}
	moreBytes, moreGoroutines, err := s.server.collect()
	if err != nil {
		return res, err
	}
	res.bytes = float64(moreBytes-bytes) / float64(s.sockets)
	res.goroutines = float64(moreGoroutines-goroutines) / float64(s.sockets)
	return res, s.all.settle(ctx) // all are there still
}

// busy measures what updates cost.
func (s *stage) busy(ctx context.Context) (res result, err error) {
	if err := s.open(ctx, s.sockets); err != nil {
		return res, err
	}
	for i := range heating {
		record := i % s.records
		if err := errors.Join(s.write(ctx, record%s.writers(), record), s.all.settle(ctx)); err != nil {
			return res, err
		}
	}
	heated := time.Since(s.all.began)
	before, err := s.data.cpuTimes(ctx, s.server)
	if err != nil {
		return res, err
	}
	if s.rate == 0 {
		err = s.inTurn(ctx)
	} else {
		err = s.paced(ctx)
	}
	if err := errors.Join(err, s.all.settle(ctx)); err != nil {
		return res, err
	}
	res.took = time.Since(s.all.began) - heated
	if res.server, res.postgres, err = s.data.cpuSince(ctx, s.server, before); err != nil {
		return res, err
	}
	s.sample = s.all.sample
	return s.count(res, heated), nil
}

// count adds what has come of the writes after a moment.
func (s *stage) count(res result, heated time.Duration) result {
	due := 0
	for i, ws := range s.writes {
		for _, w := range ws {
			if w.after > heated {
				res.writes++
				due += s.watching(i)
			}
		}
	}
	for _, socket := range s.all.sockets {
		ws := s.writes[socket.record]
		for _, a := range socket.heard {
			if w := ws[a.version-ws[0].version]; w.after > heated {
				res.deliveries++
				res.delays = append(res.delays, a.after-w.after)
			}
		}
	}
	res.joined = due - res.deliveries
	return res
}

// open adds n sockets. They watch the records in turn, and belong to the watchers in turn.
func (s *stage) open(ctx context.Context, n int) error {
	entries := make([]entry, n)
	for i := range entries {
		e := entry{record: i % s.records, path: "/" + strconv.Itoa(i%s.records)}
		if s.target == godstack {
			user := len(s.tokens) - 1 - i/s.records%watchers
			e.path = "/graphql"
			e.init = fmt.Appendf(nil, `{"type":"connection_init","payload":{"Authorization":"Bearer %s"}}`, s.tokens[user])
			document, err := json.Marshal(subscription)
			if err != nil {
				return err
			}
			id := record.ID{Prefix: "thread", UUID: s.data.threads[e.record]}
			e.subscribe = fmt.Appendf(nil, `{"id":"1","type":"subscribe","payload":{"query":%s,"variables":{"id":"%s"}}}`, document, id)
		}
		entries[i] = e
	}
	return s.all.open(ctx, entries)
}

// watching is how many sockets watch a record.
func (s *stage) watching(record int) int { return (s.sockets - record + s.records - 1) / s.records }

func (s *stage) writers() int { return min(writers, s.records) }

// write updates a record, which one writer does at a time.
func (s *stage) write(ctx context.Context, writer, record int) error {
	s.all.due.Add(int64(s.watching(record)))
	var w write
	var err error
	if s.target == godstack {
		err = s.conns[writer].QueryRow(ctx, `UPDATE threads SET subject = $2 WHERE id = $1 RETURNING version`, s.data.threads[record][:],
			"What changed at "+time.Now().Format(time.RFC3339Nano)).Scan(&w.version)
	} else {
		head, _, _ := cutVersion(s.sample)
		w.version = int64(len(s.writes[record])) + 1
		line := strconv.AppendInt(fmt.Appendf(nil, "%d %s", record, head), w.version, 10)
		tail := s.sample[len(head):]
		for len(tail) > 0 && '0' <= tail[0] && tail[0] <= '9' {
			tail = tail[1:]
		}
		_, err = s.server.orders.Write(append(append(line, tail...), '\n'))
	}
	w.after = time.Since(s.all.began)
	s.writes[record] = append(s.writes[record], w)
	return err
}

// inTurn writes to the first record, and waits each time until all have heard of it.
func (s *stage) inTurn(ctx context.Context) error {
	for end := time.Now().Add(s.spell); time.Now().Before(end); {
		if err := errors.Join(s.write(ctx, 0, 0), s.all.settle(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// paced writes at a rate, whatever has come of what was written before. Each writer has records of its own, all alike.
func (s *stage) paced(ctx context.Context) error {
	began, n := time.Now(), s.writers()
	pause := time.Second / time.Duration(s.rate)
	g, ctx := errgroup.WithContext(ctx)
	for writer := range n {
		g.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(writer), 7)) //nolint:gosec // no secrets
			for i := writer; i < int(s.spell/pause); i += n {
				select {
				case <-time.After(time.Until(began.Add(time.Duration(i) * pause))):
				case <-ctx.Done():
					return ctx.Err()
				}
				if err := s.write(ctx, writer, random.IntN((s.records-writer+n-1)/n)*n+writer); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
