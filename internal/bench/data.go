package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// size is how many rows there are.
type size struct{ users, threads, messages int }

// data is what the load knows of the database.
type data struct {
	conn     *pgx.Conn // for asking about Postgres; belongs to neither server
	size     size
	keys     keys
	sessions []session   // of all users, in order
	threads  []uuid.UUID // in order
	versions [2][]int    // of threads, by target: each writes a table of its own. A slot is used by one client at a time
}

// reader is the user who asks for what is read: the last one, who owns nothing, and may read each thread as a member of it.
func (d *data) reader() int { return d.size.users - 1 }

// owner is the user who owns a thread.
func (d *data) owner(thread int) int { return thread * 7 % (d.size.users - 1) }

// fillSQL makes $1 users with a session each, $2 threads and $3 messages: ids of version 7 in the order of creation, owners and authors
// spread evenly over all users but the last, who is a member of all threads. Without triggers, which would log every row.
var fillSQL = []string{
	`SET session_replication_role = replica`,
	`CREATE FUNCTION pg_temp.made(kind int, n int) RETURNS timestamptz LANGUAGE sql AS
		$$ SELECT timestamptz '2026-01-01 00:00:00+00' + n * interval '1 s' + kind * interval '1 d' $$`,
	`CREATE FUNCTION pg_temp.v7(kind int, n int) RETURNS uuid LANGUAGE sql AS
		$$ SELECT overlay(overlay(lpad(to_hex((extract(epoch FROM pg_temp.made(kind, n)) * 1000)::bigint), 12, '0') || md5(kind || '/' || n)
			PLACING '7' FROM 13 FOR 1) PLACING '8' FROM 17 FOR 1)::varchar(32)::uuid $$`,
	`INSERT INTO users (id, created_at, updated_at, email, username, name)
		SELECT pg_temp.v7(0, n), pg_temp.made(0, n), pg_temp.made(0, n), 'user' || n || '@example.com', 'user' || n, 'User number ' || n
		FROM generate_series(0, $1 - 1) n`,
	`INSERT INTO threads (id, created_at, updated_at, subject, owner_id)
		SELECT pg_temp.v7(1, n), pg_temp.made(1, n), pg_temp.made(1, n), 'What we know about the number ' || n, pg_temp.v7(0, n * 7 % ($1 - 1))
		FROM generate_series(0, $2 - 1) n`,
	`INSERT INTO messages (id, created_at, updated_at, body, thread_id, author_id)
		SELECT pg_temp.v7(2, n), pg_temp.made(2, n), pg_temp.made(2, n), 'The number ' || n || repeat(' is followed by another', 4),
			pg_temp.v7(1, n % $2), pg_temp.v7(0, n * 11 % ($1 - 1))
		FROM generate_series(0, $3 - 1) n`,
	`INSERT INTO thread_members (thread_id, user_id) SELECT t.id, u.id FROM threads t, (SELECT id FROM users ORDER BY id DESC LIMIT 1) u`,
	`INSERT INTO sessions (id, user_id, address, user_agent, last_used_at, expires_at, ends_at)
		SELECT gen_random_uuid(), id, '127.0.0.1', 'bench', now(), now() + interval '1 day', now() + interval '1 day' FROM users`,
	`SET session_replication_role = origin`,
	`CREATE TABLE threads_plain (LIKE threads INCLUDING ALL)`,
	`INSERT INTO threads_plain SELECT * FROM threads`,
	`VACUUM ANALYZE users, threads, threads_plain, messages, thread_members, sessions`,
}

// fill fills an empty, migrated database, to which url's role is a superuser.
func fill(ctx context.Context, url string, n size) (*data, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	d := &data{conn: conn, size: n, keys: newKeys()}
	sizes := []any{n.users, n.threads, n.messages}
	for i, statement := range fillSQL {
		args := []any{pgx.QueryExecModeSimpleProtocol} // statements have different numbers of $
		if i >= 3 && i <= 5 {
			args = append(args, sizes[:i-2]...)
		}
		if _, err := conn.Exec(ctx, statement, args...); err != nil {
			d.close()
			return nil, fmt.Errorf("fill the database: %w", err)
		}
	}
	rows, err := conn.Query(ctx, `SELECT id FROM threads ORDER BY id`)
	if err == nil {
		d.threads, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (id uuid.UUID, err error) {
			return id, r.Scan((*[16]byte)(&id))
		})
	}
	if err == nil {
		rows, err = conn.Query(ctx, `SELECT user_id, id FROM sessions ORDER BY user_id`)
	}
	if err == nil {
		d.sessions, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (s session, err error) {
			return s, r.Scan((*[16]byte)(&s.user), (*[16]byte)(&s.id))
		})
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("read the threads and sessions: %w", err)
	}
	for t := range d.versions {
		d.versions[t] = make([]int, len(d.threads))
		for i := range d.versions[t] {
			d.versions[t][i] = 1
		}
	}
	return d, nil
}

func (d *data) close() { _ = d.conn.Close(context.Background()) }

// backends are the process ids of the Postgres backends that serve a program.
func (d *data) backends(ctx context.Context, applicationName string) ([]int, error) {
	rows, err := d.conn.Query(ctx, `SELECT pid FROM pg_stat_activity
		WHERE application_name = $1 OR starts_with(application_name, $1 || ' ')`, applicationName) // with its tailer
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int])
}

// pick chooses n threads: distinct ones, all over the table. Of several clients that pick one at a time, each has threads of its own.
func (d *data) pick(r *rand.Rand, n, client, clients int) []int {
	all := len(d.threads)
	first := r.IntN(all/clients)*clients + client
	out := make([]int, n)
	for i := range out {
		out[i] = (first + i*(all/n)) % all
	}
	return out
}
