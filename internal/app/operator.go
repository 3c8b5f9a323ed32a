package app

import (
	"context"
	"net"
	"net/http"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/internal/operator"
	"godstack/internal/server"
)

// operatorPages are the pages at /admin and /jobs; none where the configuration leaves them out.
func (c *core) operatorPages(cfg Config, pool *pgxpool.Pool) (map[string]http.Handler, error) {
	if cfg.WithoutOperatorPages {
		return nil, nil
	}
	p, err := operator.New(operator.Deps{
		Accounts: c.accounts.Service, Pool: pool, Found: server.Identify, Explain: server.Explain, Logger: cfg.Logger,
	}, &operator.Config{App: cfg.Auth.App, Origin: cfg.PublicURL})
	if err != nil {
		return nil, err
	}
	return p.Handlers(), nil
}

// report is the service that tells operators how this node is. addr is nil where it listens on none, srv where it has no API.
func (c *core) report(cfg Config, pool *pgxpool.Pool, addr net.Addr, srv *server.Server, ready func(context.Context) error) []service {
	is := operator.Identity{Role: "all", Version: cfg.Version}
	if cfg.Role != RoleAll {
		is.Role = string(cfg.Role)
	}
	is.Host, _ = os.Hostname() // a name that nobody knows is left out
	if addr != nil {
		is.Host += " " + addr.String()
	}
	reporter := operator.NewReporter(pool, is, func(ctx context.Context) operator.Report {
		r := operator.Report{Subscriptions: c.engine.Stats().Streams, Lag: c.tailer.Lag()}
		if err := ready(ctx); err != nil {
			r.Problem = err.Error()
		}
		if srv != nil {
			s := srv.Sockets()
			r.Sockets, r.Operations, r.EventStreams = int(s.Sockets), int(s.Operations), srv.EventStreams()
		}
		if c.jobs != nil {
			r.JobsRunning = c.jobs.Stats().Running
		}
		return r
	}, cfg.Logger)
	return []service{{name: "report to operators", run: reporter.Run}}
}
