package app

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/internal/replica"
	"godstack/internal/server"
)

// newReplica is the standby that cfg names, which need not be there yet; nil for none.
func newReplica(ctx context.Context, cfg Config, primary *pgxpool.Pool) (*replica.Replica, error) {
	if cfg.ReadURL == "" {
		return nil, nil
	}
	poolCfg, err := poolConfig(cfg.ReadURL)
	if err != nil {
		return nil, fmt.Errorf("READ_DATABASE_URL: %w", err)
	}
	poolCfg.ConnConfig.Tracer = cfg.tracer.Statements()
	r, err := replica.New(ctx, primary, poolCfg, &replica.Config{Logger: cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("READ_DATABASE_URL: %w", err)
	}
	return r, nil
}

// reads is what queries may be answered by besides the primary; nil for nothing.
func (c *core) reads() server.Replica {
	if c.replica == nil {
		return nil
	}
	return c.engine
}

func (c *core) closeReplica() {
	if c.replica != nil {
		c.replica.Close()
	}
}
