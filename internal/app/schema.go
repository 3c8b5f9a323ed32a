package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/ent"
	"godstack/graph"
	"godstack/internal/auth"
	"godstack/internal/changelog"
	"godstack/internal/entpgx"
	"godstack/internal/job"
	"godstack/internal/pubsub"
	"godstack/internal/record"
	"godstack/internal/replica"
)

// core is what of the program knows the entities.
type core struct {
	schema     graphql.ExecutableSchema
	extensions []graphql.HandlerExtension
	services   []service // that deliver changes
	engine     *record.Engine
	tailer     *changelog.Tailer
	pubsub     *pubsub.Node
	replica    *replica.Replica // nil for none
	accounts   *accounts
	jobs       *job.Runner // nil where the node works none
}

// newCore builds everything between the pools and the GraphQL schema.
func newCore(ctx context.Context, cfg Config, pool, reserve *pgxpool.Pool) (_ *core, err error) {
	c := &core{}
	drv := entpgx.Open(pool)
	client := ent.NewClient(ent.Driver(drv))
	secrets, err := auth.ParseSecrets(cfg.SecretKeys)
	if err != nil {
		return nil, fmt.Errorf("SECRET_KEYS: %w", err)
	}
	committed := func() {
		c.tailer.Wake()
		c.pubsub.Notify()
	}
	if c.replica, err = newReplica(ctx, cfg, pool); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.closeReplica()
		}
	}()
	stores, err := ent.NewStores(client, drv, &record.Config{
		Committed:    committed,
		Watching:     func(n int) { c.tailer.Interest(n) },
		CursorKeys:   secrets.DeriveAll("cursor"),
		Replica:      c.replica,
		Rules:        customRules,
		Unrestricted: cfg.Unrestricted,
		Logger:       cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("build stores: %w", err)
	}
	c.engine = stores.Engine
	deliver := func(ctx context.Context, b changelog.Batch) {
		c.accounts.Deliver(ctx, b) // first: who is signed out is not sent what follows
		stores.Deliver(ctx, b)
	}
	listen, err := listenConfig(cfg.ListenURL, pool)
	if err != nil {
		return nil, err
	}
	if c.pubsub, err = newPubsub(ctx, cfg.Pubsub, cfg, listen, pool); err != nil {
		return nil, err
	}
	c.tailer, err = changelog.NewTailer(purposed(listen, "tailer"), deliver, &changelog.Config{
		ActiveInterval: activeInterval(cfg.Pubsub), Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("build tailer: %w", err)
	}
	c.accounts, err = newAccounts(cfg, secrets, pool, reserve, c.tailer.Lag, committed)
	if err != nil {
		return nil, err
	}
	c.schema = graph.NewExecutableSchema(graph.Config{Resolvers: &graph.Resolver{Stores: stores, Auth: c.accounts.Service}})
	c.extensions = []graphql.HandlerExtension{record.Operation{Engine: stores.Engine, Alone: auth.MutationFields}}
	c.services = []service{
		{name: "change log", run: c.tailer.Run},
		{name: "wake-ups", run: func(ctx context.Context) error { return c.pubsub.Run(ctx, c.tailer.Wake) }},
	}
	if cfg.Role != RoleServe {
		soft, hard := cfg.jobsEnd()
		c.jobs, err = job.NewRunner(pool, job.Deps{Records: client, Sender: c.accounts.sender, Sealer: secrets, Accounts: c.accounts}, &job.Config{
			StopTimeout: soft, EndTimeout: hard, Leases: reserve, Workers: cfg.JobWorkers, PollOnly: cfg.ListenURL != "", Logger: cfg.Logger,
		})
		if err != nil {
			return nil, errors.Join(err, c.accounts.close())
		}
		c.services = append(c.services, service{name: "jobs", run: c.jobs.Run, early: true})
	}
	if c.replica != nil {
		c.services = append(c.services, service{name: "standby", run: c.replica.Run})
	}
	return c, nil
}

func (c *core) close() error {
	c.closeReplica()
	return c.accounts.close()
}

// ready is the readiness check of what delivers changes: a node that does not read the log leaves its subscribers in
// the dark.
func (c *core) ready() error {
	if !c.tailer.Healthy() {
		return errors.New("the change log is not being read")
	}
	return nil
}

// working is the readiness check of a node that works jobs and nothing else.
func (c *core) working(ctx context.Context) error {
	if err := c.ready(); err != nil {
		return err
	}
	return c.jobs.Ready(ctx)
}

// notes are what operators should know although the node serves: without wake-ups, changes of other nodes come with the next read.
func (c *core) notes() (lines []string) {
	if s := c.pubsub.Status(); !s.Connected {
		lines = append(lines, fmt.Sprintf("wake-ups by %s: not connected since %s", s.Backend, s.Since.UTC().Format(time.RFC3339)))
	}
	if c.replica != nil {
		switch s := c.replica.Status(); {
		case !s.Connected:
			lines = append(lines, "standby: not used since "+s.Since.UTC().Format(time.RFC3339))
		case s.Primary:
			lines = append(lines, "standby: READ_DATABASE_URL leads to the primary")
		}
	}
	return lines
}
