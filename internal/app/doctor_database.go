package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/ent"
	"godstack/internal/auth"
	"godstack/internal/entpgx"
	"godstack/internal/job"
	"godstack/internal/record"
	"godstack/internal/replica"
	"godstack/migrations"
)

const (
	// leastPostgres is the version of Postgres that is needed, as server_version_num has it.
	leastPostgres = 13_00_00
	// skewOK and skewBad are by how much clocks may differ. Tokens are taken that were issued up to 30 s ahead of here.
	skewOK, skewBad = time.Second, 30 * time.Second
	// shortStatement is what a migration may need at least.
	shortStatement = time.Minute
	// waitsLong is how long a job may wait where enough nodes work.
	waitsLong = time.Minute
)

// examined is a database that is being looked at.
type examined struct {
	*doctor
	pool   *pgxpool.Pool
	mode   pgx.QueryExecMode // of the configuration; here statements have no names, so that any pooler will do
	listen *pgx.ConnConfig
	pooled bool // there is a pooler between
}

func (d *doctor) database(ctx context.Context) {
	const name = "database"
	if d.cfg.DatabaseURL == "" {
		if d.cfg.Development {
			d.warn(name, "set DATABASE_URL", "development starts a Postgres of its own, which is not looked at")
		} else {
			d.fail(name, "set DATABASE_URL", "DATABASE_URL: required in production")
		}
		return
	}
	cfg, err := poolConfig(d.cfg.DatabaseURL)
	if err != nil {
		d.fail(name, "write DATABASE_URL as postgres://user:password@host:5432/database?sslmode=verify-full", "DATABASE_URL: %v", err)
		return
	}
	x := &examined{doctor: d, mode: cfg.ConnConfig.DefaultQueryExecMode}
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.ConnConfig.ConnectTimeout = cmp.Or(cfg.ConnConfig.ConnectTimeout, partTimeout)
	if x.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		d.fail(name, "see that DATABASE_URL is right", "%v", err)
		return
	}
	defer x.pool.Close()
	if x.connection(ctx) {
		x.look(ctx)
	}
}

// look is what is asked of a database that answers. Each part may fail and the next is asked.
func (x *examined) look(ctx context.Context) {
	for _, part := range []struct {
		name string
		run  func(context.Context, string) error
	}{
		{"database.version", x.version},
		{"database.settings", x.settings},
		{"database.role", x.role},
		{"database.clock", x.clock},
		{"database.pooler", x.pooler},
		{"database.connections", x.connections},
		{"listen", x.listening},
		{"migrations", x.migrations},
	} {
		x.part(ctx, part.name, part.run)
	}
	for _, c := range x.checks {
		if c.Name == "migrations" && c.Status == CheckFail {
			return // there are no tables to ask
		}
	}
	x.part(ctx, "schema", x.schema)
	x.part(ctx, "change_log", x.changeLog)
	x.part(ctx, "jobs", x.jobs)
	x.part(ctx, "standby", x.standby)
}

func (x *examined) part(ctx context.Context, name string, run func(context.Context, string) error) {
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	if err := run(ctx, name); err != nil {
		x.fail(name, "see that the role may ask, and the server's log", "%v", err)
	}
}

func (x *examined) connection(ctx context.Context) (connected bool) {
	const name = "database"
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	conn, err := x.pool.Acquire(ctx)
	if err != nil {
		x.fail(name, "see that Postgres runs, that this machine reaches it, and that DATABASE_URL has the role's password", "%v", err)
		return false
	}
	defer conn.Release()
	pg := conn.Conn()
	where := fmt.Sprintf("%s on %s", pg.Config().Database, pg.Config().Host)
	_, encrypted := pg.PgConn().Conn().(*tls.Conn)
	t := pg.Config().TLSConfig
	switch {
	case strings.HasPrefix(pg.Config().Host, "/") || Loopback(pg.Config().Host):
		x.ok(name, "%s answers", where)
	case !encrypted:
		x.warn(name, "where the network is not yours alone: sslmode=verify-full in DATABASE_URL", "%s answers without TLS", where)
	case t != nil && t.InsecureSkipVerify && t.VerifyPeerCertificate == nil:
		x.warn(name, "sslmode=verify-full in DATABASE_URL, and sslrootcert", "%s answers by TLS, and nobody looks at its certificate", where)
	default:
		x.ok(name, "%s answers by TLS", where)
	}
	return true
}

func (x *examined) version(ctx context.Context, name string) error {
	var number int
	var text, encoding string
	var recovers bool
	err := x.pool.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version'),
		current_setting('server_encoding'), pg_is_in_recovery()`).Scan(&number, &text, &encoding, &recovers)
	if err != nil {
		return err
	}
	if number < leastPostgres {
		x.fail(name, "take version 13 or newer", "PostgreSQL %s", text)
	} else {
		x.ok(name, "PostgreSQL %s", text)
	}
	if recovers {
		x.fail("database.primary", "have DATABASE_URL lead to the primary; target_session_attrs=read-write with several hosts", "it is a standby, which takes no writes")
	} else {
		x.ok("database.primary", "it takes writes")
	}
	if encoding != "UTF8" {
		x.fail("database.encoding", "CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8', and move the data there", "%s: not every text can be stored", encoding)
	} else {
		x.ok("database.encoding", "UTF8")
	}
	return nil
}

// settings are those that decide what an answer is worth, as they hold for the role in the database.
func (x *examined) settings(ctx context.Context, _ string) error {
	rows, err := x.pool.Query(ctx, `SELECT name, setting FROM pg_settings WHERE name = ANY($1)`, []string{
		"synchronous_commit", "fsync", "full_page_writes", "wal_level", "max_wal_senders", "archive_mode", "statement_timeout",
		"idle_in_transaction_session_timeout", "default_transaction_isolation", "default_transaction_read_only",
	})
	if err != nil {
		return err
	}
	s := map[string]string{}
	var name, setting string
	if _, err := pgx.ForEachRow(rows, []any{&name, &setting}, func() error {
		s[name] = setting
		return nil
	}); err != nil {
		return err
	}
	off := false
	for _, w := range []struct{ name, loses, do string }{
		{"synchronous_commit", "what was answered can be lost when the server crashes", "ALTER DATABASE … SET synchronous_commit = on, or RESET it"},
		{"fsync", "the database can be ruined when the machine crashes", "fsync = on in postgresql.conf"},
		{"full_page_writes", "the database can be ruined when the machine crashes", "full_page_writes = on in postgresql.conf"},
	} {
		if s[w.name] == "off" {
			x.fail("database."+w.name, w.do, "off: %s", w.loses)
			off = true
		}
	}
	if !off {
		x.ok("database.synchronous_commit", "%s, with fsync and full_page_writes", s["synchronous_commit"])
	}
	switch {
	case s["wal_level"] == "minimal":
		x.warn("database.wal", "wal_level = replica in postgresql.conf", "wal_level is minimal: neither a standby nor a recovery to a point in time")
	case x.cfg.ReadURL != "" && s["max_wal_senders"] == "0":
		x.fail("database.wal", "max_wal_senders = 10 in postgresql.conf", "max_wal_senders is 0, and READ_DATABASE_URL names a standby")
	default:
		x.ok("database.wal", "wal_level %s, archive_mode %s", s["wal_level"], s["archive_mode"])
	}
	statement, _ := strconv.Atoi(s["statement_timeout"])
	idle, _ := strconv.Atoi(s["idle_in_transaction_session_timeout"])
	if limit := time.Duration(statement) * time.Millisecond; limit > 0 && limit < shortStatement {
		x.warn("database.timeouts", "let godstack migrate connect with statement_timeout=0 in its DATABASE_URL", "statement_timeout is %s, which ends a longer migration", limit)
	} else {
		x.ok("database.timeouts", "statement_timeout %s, idle_in_transaction_session_timeout %s", orNone(statement), orNone(idle))
	}
	switch {
	case s["default_transaction_read_only"] == "on":
		x.fail("database.transactions", "ALTER ROLE … RESET default_transaction_read_only", "they are read only by default: nothing can be written")
	case s["default_transaction_isolation"] != "read committed":
		x.warn("database.transactions", "ALTER ROLE … RESET default_transaction_isolation", "%s by default: writers of one record are refused with UNAVAILABLE in place of waiting",
			s["default_transaction_isolation"])
	default:
		x.ok("database.transactions", "read committed")
	}
	return nil
}

func orNone(milliseconds int) string {
	if milliseconds == 0 {
		return "none"
	}
	return (time.Duration(milliseconds) * time.Millisecond).String()
}

// role is what the role may do. TRUNCATE is for the change log, which forgets by it.
func (x *examined) role(ctx context.Context, name string) error {
	var role string
	var super, mayMigrate, mayIdentify bool
	var lacks []string
	err := x.pool.QueryRow(ctx, `SELECT current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
		coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), has_function_privilege('pg_control_system()', 'EXECUTE'),
		ARRAY(SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT (
			has_table_privilege(c.oid, 'SELECT') AND (c.relname = 'goose_db_version' OR
			has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
			AND (c.relname !~ '^changes' OR has_table_privilege(c.oid, 'TRUNCATE')))) ORDER BY 1)`).
		Scan(&role, &super, &mayMigrate, &mayIdentify, &lacks)
	if err != nil {
		return err
	}
	switch {
	case len(lacks) > 0:
		x.fail(name, "have the role of DATABASE_URL own the tables", "%s may not read and write %s", role, strings.Join(lacks, ", "))
	case !mayIdentify:
		x.fail(name, "GRANT EXECUTE ON FUNCTION pg_control_system() TO "+role, "%s may not ask which server this is, which the change log depends on", role)
	case super:
		x.warn(name, "a role that owns the database is enough", "%s is a superuser", role)
	case !mayMigrate:
		x.warn(name, "give godstack migrate a DATABASE_URL with the owner's role", "%s may make no tables, so it cannot migrate", role)
	default:
		x.ok(name, "%s has the rights that it needs", role)
	}
	return nil
}

// clock compares this machine's with the database's, as far as the way there lets that be told.
func (x *examined) clock(ctx context.Context, name string) error {
	conn, err := x.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var there time.Time
	began := time.Now()
	if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&there); err != nil {
		return err
	}
	trip := time.Since(began)
	skew := max(there.Sub(began.Add(trip/2)).Abs()-trip/2, 0).Round(time.Millisecond)
	const do = "have both machines keep the time by NTP"
	switch {
	case skew > skewBad:
		x.fail(name, do, "the database's is %s away: tokens of one node are not valid on another", skew)
	case skew > skewOK:
		x.warn(name, do, "the database's is %s away", skew)
	default:
		x.ok(name, "that of the database, within %s", (skew + trip).Round(time.Millisecond))
	}
	return nil
}

// behindPooler reports whether a connection leads to something else than Postgres: a pooler makes up process numbers of its own.
func behindPooler(ctx context.Context, conn *pgx.Conn) (pid uint32, pooled bool, err error) {
	err = conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid)
	return pid, pid != conn.PgConn().PID(), err
}

// poolerTries is how often it is tried to be given the server that another has just used.
const poolerTries = 5

// pooler finds out how a pooler gives its servers away, by what two clients see: where one is given the server that the other has used
// and not left, it is for a transaction. That server has no named statement of the first, unless the pooler sees to it.
func (x *examined) pooler(ctx context.Context, name string) error {
	first, err := x.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer first.Release()
	if _, x.pooled, err = behindPooler(ctx, first.Conn()); err != nil {
		return err
	}
	if !x.pooled {
		x.ok(name, "none: connections lead to Postgres itself")
		return nil
	}
	second, err := x.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer second.Release()
	const statement = "godstack_doctor"
	for range poolerTries {
		used, _, err := behindPooler(ctx, first.Conn())
		if err != nil {
			return err
		}
		_, prepareErr := first.Conn().Prepare(ctx, statement, `SELECT 1`)
		tx, err := second.Begin(ctx)
		if err != nil {
			x.fail(name, "pool_mode = transaction, or session", "a pooler that has no transactions: %v", err)
			return nil
		}
		var given uint32
		err = tx.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&given)
		if err == nil && given == used {
			_, useErr := first.Exec(ctx, statement)
			err = tx.Rollback(ctx)
			x.transactionMode(name, errors.Join(prepareErr, useErr))
			return err
		}
		if err := errors.Join(err, tx.Rollback(ctx), first.Conn().Deallocate(ctx, statement)); err != nil {
			return err
		}
	}
	x.ok(name, "one that keeps sessions together, as far as can be told")
	return nil
}

func (x *examined) transactionMode(name string, named error) {
	switch {
	case named == nil:
		x.ok(name, "one that gives a server for a transaction, and keeps named statements")
	case x.mode == pgx.QueryExecModeCacheStatement:
		x.fail(name, "default_query_exec_mode=cache_describe in DATABASE_URL, or max_prepared_statements above 0 in PgBouncer from 1.21 on",
			"one that gives a server for a transaction and loses named statements: %v", named)
	default:
		x.ok(name, "one that gives a server for a transaction; no statement has a name")
	}
}

// connections counts what the nodes take, against what there is.
func (x *examined) connections(ctx context.Context, name string) error {
	listen, err := listenConfig(x.cfg.ListenURL, x.pool)
	if err != nil {
		x.fail("listen", "write LISTEN_DATABASE_URL as DATABASE_URL is written", "%v", err)
		return nil
	}
	x.listen = listen
	var limit, others, connected int
	err = x.pool.QueryRow(ctx, `SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
			- coalesce(current_setting('reserved_connections', true)::int, 0),
		count(*) FILTER (WHERE datname IS DISTINCT FROM current_database() OR usename IS DISTINCT FROM current_user),
		count(*) FILTER (WHERE datname = current_database() AND application_name = $1)
		FROM pg_stat_activity WHERE backend_type = 'client backend'`,
		purposed(listen, "tailer").RuntimeParams["application_name"]).Scan(&limit, &others, &connected)
	if err != nil {
		return err
	}
	nodes := cmp.Or(x.Nodes, max(connected, 1))
	each := 1 // the tailer's
	if x.cfg.Pubsub == PubsubPostgres {
		each++
	}
	if x.cfg.ListenURL == "" {
		each++ // by which it hears of jobs
	}
	where := "a pooler's pool not counted"
	if !x.pooled {
		each += int(x.pool.Config().MaxConns)
		where = fmt.Sprintf("pool_max_conns %d", x.pool.Config().MaxConns)
	}
	const do = "lower pool_max_conns in DATABASE_URL, raise max_connections, or put PgBouncer between: docs/scaling.md"
	found := fmt.Sprintf("%d nodes take %d each (%s), others have %d, and there are %d", nodes, each, where, others, limit)
	switch {
	case nodes*each+others > limit:
		x.fail(name, do, "%s", found)
	case (nodes+1)*each+others > limit:
		x.warn(name, do, "%s: too few for one more node while a release is rolled out", found)
	default:
		x.ok(name, "%s", found)
	}
	return nil
}

// listening has a notification sent by the way of writes and waits for it by the way of readers.
func (x *examined) listening(ctx context.Context, name string) (err error) {
	if x.listen == nil {
		return nil // connections has said why
	}
	through, do := "DATABASE_URL", "have LISTEN_DATABASE_URL lead to Postgres itself, or to a pool in session mode"
	if x.cfg.ListenURL != "" {
		through = "LISTEN_DATABASE_URL"
	}
	cfg := purposed(x.listen, "doctor")
	cfg.ConnectTimeout, cfg.DefaultQueryExecMode = cmp.Or(cfg.ConnectTimeout, partTimeout), pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		x.fail(name, do, "%s: %v", through, err)
		return nil
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	channel := "godstack_doctor_" + strings.ToLower(rand.Text())
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	began := time.Now()
	if _, err := x.pool.Exec(ctx, `SELECT pg_notify($1, '')`, channel); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err = conn.WaitForNotification(wait)
	switch {
	case err == nil:
		x.ok(name, "through %s a notification arrives, after %s", through, time.Since(began).Round(100*time.Microsecond))
	case ctx.Err() == nil && wait.Err() != nil:
		x.fail(name, do, "through %s no notification arrives: nodes and workers do not wake each other", through)
	default:
		return err
	}
	return nil
}

func (x *examined) migrations(ctx context.Context, name string) error {
	current, latest, err := migrations.Status(ctx, cmp.Or(x.cfg.ListenURL, x.cfg.DatabaseURL))
	if err != nil {
		return err
	}
	switch {
	case current == 0:
		x.fail(name, "godstack migrate", "the database is empty")
	case current < latest:
		x.fail(name, "godstack migrate", "the schema is at version %d, and the program needs %d", current, latest)
	case current > latest:
		x.warn(name, "bring out the release that it is of, unless this is a step back", "the schema is at version %d, of a newer release than the program, which needs %d", current, latest)
	default:
		x.ok(name, "all are applied, up to %d", current)
	}
	return nil
}

func (x *examined) schema(ctx context.Context, name string) error {
	drv := entpgx.Open(x.pool)
	stores, err := ent.NewStores(ent.NewClient(ent.Driver(drv)), drv, &record.Config{Rules: customRules, Logger: x.cfg.Logger})
	if err != nil {
		return err
	}
	lines, err := stores.Drift(ctx, x.pool)
	switch {
	case err != nil:
		return err
	case len(lines) > 0:
		x.fail(name, "somebody has changed the schema by hand: write a migration that mends it", "%s", strings.Join(lines, "; "))
	default:
		x.ok(name, "tables, columns and triggers are as the program knows them")
	}
	return nil
}

// changeLog asks for the partitions of today and of the next days, and whether those of days that are over are emptied.
func (x *examined) changeLog(ctx context.Context, name string) error {
	var missing []int
	var oldest *time.Time
	var here bool
	err := x.pool.QueryRow(ctx, `SELECT
		ARRAY(SELECT n FROM generate_series(0, 8) n WHERE NOT EXISTS (SELECT FROM pg_inherits i
			WHERE i.inhparent = 'changes'::regclass AND i.inhrelid = to_regclass('changes_' || n)) ORDER BY 1),
		(SELECT min(at) FROM changes),
		EXISTS (SELECT FROM changelog_state s JOIN changelog_alive a ON a.epoch = s.epoch)`).Scan(&missing, &oldest, &here)
	if err != nil {
		return err
	}
	switch {
	case len(missing) > 0:
		x.fail(name, "CREATE TABLE changes_N PARTITION OF changes FOR VALUES IN (N)", "partitions %v are missing, in which days to come are written", missing)
	case oldest != nil && time.Since(*oldest) > 9*24*time.Hour:
		x.warn(name, "see that a node works jobs: expire_changes", "the oldest change is of %s: nobody empties the days before the last seven", oldest.UTC().Format(time.DateOnly))
	case !here:
		x.ok(name, "the next node to start begins a new one: the server has crashed, or the database is a copy")
	default:
		x.ok(name, "all nine partitions are there")
	}
	return nil
}

func (x *examined) jobs(ctx context.Context, name string) error {
	if x.secrets == nil {
		return nil // keys.secret has said why
	}
	q, err := job.Look(ctx, x.pool, x.secrets)
	if err != nil {
		return err
	}
	switch {
	case q.Workers == 0 && q.Due > 0:
		x.fail(name, "start godstack work, or godstack serve without --no-work", "no node works jobs, and %d wait, the first for %s", q.Due, q.Oldest.Round(time.Second))
	case q.Workers == 0:
		x.warn(name, "start godstack work, or godstack serve without --no-work", "no node works jobs: no mail is sent")
	case q.Oldest > waitsLong:
		x.warn(name, "start more workers, or raise JOB_WORKERS", "%d nodes work, and %d jobs wait, the first for %s", q.Workers, q.Due, q.Oldest.Round(time.Second))
	default:
		x.ok(name, "%d nodes work, %d jobs wait", q.Workers, q.Due)
	}
	if len(q.Paused) > 0 {
		x.warn("jobs.paused", "resume them: UPDATE river_queue SET paused_at = NULL", "%s", strings.Join(q.Paused, ", "))
	}
	if len(q.Discarded) > 0 {
		x.warn("jobs.discarded", "see why, and have them done again: docs/jobs.md", "given up within a week: %s", strings.Join(q.Discarded, ", "))
	}
	all, unreadable, err := auth.CheckSecrets(ctx, x.pool, x.secrets)
	if err != nil {
		return err
	}
	if unreadable+q.Unreadable > 0 {
		x.fail("keys.stored", "put the key of before behind the first of SECRET_KEYS, or those people enroll again and those mails are never sent",
			"no key of SECRET_KEYS opens %d of the last %d second factors and %d of the %d mails that wait", unreadable, min(all, 100), q.Unreadable, q.Sealed)
	} else {
		x.ok("keys.stored", "they open what is stored: %d second factors, %d mails that wait", all, q.Sealed)
	}
	return nil
}

// standby is looked at as a node does, which says why one is not used.
func (x *examined) standby(ctx context.Context, name string) error {
	if x.cfg.ReadURL == "" {
		return nil
	}
	r, err := newReplica(ctx, x.cfg, x.pool)
	if err != nil {
		x.fail(name, "write READ_DATABASE_URL as DATABASE_URL is written", "%v", err)
		return nil
	}
	defer r.Close()
	look, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.Run(look)
	}()
	s := settled(ctx, r)
	stop()
	<-ended
	switch {
	case !s.Connected && s.Err != nil:
		x.warn(name, "see that READ_DATABASE_URL leads to a standby of this primary; the primary answers meanwhile", "not used: %v", s.Err)
	case !s.Connected:
		x.warn(name, "see that READ_DATABASE_URL leads to a standby of this primary; the primary answers meanwhile", "it does not answer")
	case s.Primary:
		x.warn(name, "have READ_DATABASE_URL lead to a standby", "the address leads to the primary")
	default:
		x.ok(name, "used; %d bytes behind", s.Lag)
	}
	return nil
}

// settled waits until a node would know how the standby is, for half of the part's time.
func settled(ctx context.Context, r *replica.Replica) (s replica.Status) {
	ctx, cancel := context.WithTimeout(ctx, partTimeout/2)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if s = r.Status(); s.Connected {
			return s
		}
		select {
		case <-ctx.Done():
			return s
		case <-tick.C:
		}
	}
}
