package pubsub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// channel is what nodes listen to. Each database has channels of its own.
const channel = "godstack_changes"

// NewPostgres returns a node that wakes, and is woken by, those on the same database, by LISTEN and NOTIFY over one connection of its
// own to the primary: of several hosts in db it takes the one that is. db has to lead to Postgres itself, or to a pooler that keeps a
// session together: through one that does so for a transaction only, hints go out and none comes in, of which the log has a warning.
func NewPostgres(db *pgx.ConnConfig, cfg *Config) (*Node, error) {
	n, err := newNode("postgres", cfg)
	if err != nil {
		return nil, err
	}
	db = db.Copy()
	if db.ValidateConnect == nil {
		db.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
	if db.RuntimeParams["application_name"] == "" {
		db.RuntimeParams["application_name"] = "pubsub"
	}
	n.session = (&postgres{&db.Config, &n.cfg, n.id}).session
	return n, nil
}

type postgres struct {
	db  *pgconn.Config
	cfg *Config
	id  string // of the node
}

func (p *postgres) session(ctx context.Context, ready func(func(context.Context) error), got func(string)) error {
	conn, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	// What is sent is written to the connection as it is, while receive reads answers and hints alike: the protocol lets a client send
	// before it has read.
	hint := query("NOTIFY " + channel + ", '" + p.id + "'")
	ready(func(context.Context) error { return p.write(conn.Conn(), hint) })
	return p.receive(ctx, conn, got)
}

// open connects and listens.
func (p *postgres) open(ctx context.Context) (_ *pgconn.PgConn, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, p.db)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	results, err := conn.Exec(ctx, "SELECT pg_backend_pid(); LISTEN "+channel).ReadAll()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), conn.Close(ctx))
	}
	// A pooler makes up numbers of its own.
	if pid := string(results[0].Rows[0][0]); pid != strconv.FormatUint(uint64(conn.PID()), 10) {
		p.cfg.Logger.WarnContext(ctx, "pubsub: this is a pooler and not Postgres; unless it keeps sessions together, no hint is heard")
	}
	return conn, nil
}

// receive calls got for what comes, and probes the connection when nothing does.
func (p *postgres) receive(ctx context.Context, conn *pgconn.PgConn, got func(string)) error {
	// The connection's own deadline, not a context for each message: one that ends would end a write as well.
	socket := conn.Conn()
	defer context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Unix(0, 1)) })()
	probe := query("")
	for wait := p.cfg.Probe; ; {
		if err := socket.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return fmt.Errorf("wait for a hint: %w", err)
		}
		if ctx.Err() != nil { // which may have been before the deadline was set
			return ctx.Err()
		}
		message, err := conn.ReceiveMessage(context.Background())
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded) && wait == p.cfg.Probe:
			if err := p.write(socket, probe); err != nil {
				return fmt.Errorf("probe: %w", err)
			}
			wait = p.cfg.Timeout
			continue
		case err != nil:
			return fmt.Errorf("wait for a hint: %w", err)
		}
		wait = p.cfg.Probe
		switch m := message.(type) {
		case *pgproto3.NotificationResponse:
			got(m.Payload)
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("wait for a hint: %w", pgconn.ErrorResponseToPgError(m))
		}
	}
}

func (p *postgres) write(socket net.Conn, message []byte) error {
	if err := socket.SetWriteDeadline(time.Now().Add(p.cfg.Timeout)); err != nil {
		return err
	}
	_, err := socket.Write(message)
	return err
}

// query is a statement as the protocol has it.
func query(sql string) []byte {
	b, _ := (&pgproto3.Query{String: sql}).Encode(nil) // an error is a message of more than a gigabyte
	return b
}
