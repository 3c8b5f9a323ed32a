package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/99designs/gqlgen/graphql"
	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/ent"
	"godstack/graph"
	"godstack/internal/changelog"
	"godstack/internal/entpgx"
	"godstack/internal/record"
)

// core is what of the program knows the entities.
type core struct {
	schema     graphql.ExecutableSchema
	extensions []graphql.HandlerExtension
	services   []service // that deliver changes
	tailer     *changelog.Tailer
}

// newCore builds everything between the pool and the GraphQL schema.
func newCore(cfg Config, pool *pgxpool.Pool) (*core, error) {
	c := &core{}
	drv := entpgx.Open(pool)
	client := ent.NewClient(ent.Driver(drv))
	stores, err := ent.NewStores(client, drv, &record.Config{
		Committed: func() { c.tailer.Wake() },
		Watching:  func(n int) { c.tailer.Interest(n) },
		Logger:    cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("build stores: %w", err)
	}
	c.tailer, err = changelog.NewTailer(pool.Config().ConnConfig, stores.Deliver, &changelog.Config{Logger: cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("build tailer: %w", err)
	}
	c.schema = graph.NewExecutableSchema(graph.Config{Resolvers: &graph.Resolver{Stores: stores}})
	c.extensions = []graphql.HandlerExtension{record.Operation{Engine: stores.Engine}}
	c.services = []service{
		{"change log", c.tailer.Run},
		{"change log retention", func(ctx context.Context) error {
			return changelog.RunRetention(ctx, pool, 0, cfg.Logger)
		}},
	}
	return c, nil
}

// ready is the readiness check of what delivers changes: a node that does not read the log leaves its subscribers in
// the dark.
func (c *core) ready() error {
	if !c.tailer.Healthy() {
		return errors.New("the change log is not being read")
	}
	return nil
}
