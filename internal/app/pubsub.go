package app

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/internal/pubsub"
)

// Pubsub says by what nodes wake each other's readers of the change log.
type Pubsub string

// Memory is for one node, or for several that may find changes of the others by reading at intervals.
const (
	PubsubMemory   Pubsub = "memory"
	PubsubPostgres Pubsub = "postgres"
	PubsubRedis    Pubsub = "redis"
)

// defaultPubsub needs nothing but the database where there may be several nodes.
func defaultPubsub(development bool) Pubsub {
	if development {
		return PubsubMemory
	}
	return PubsubPostgres
}

// listenConfig is how to connect for what needs a session, listening and the change log's tailer: as listenURL says where that is not
// empty, else as the pool does. It has the pool's name unless it has one of its own.
func listenConfig(listenURL string, pool *pgxpool.Pool) (*pgx.ConnConfig, error) {
	like := pool.Config().ConnConfig
	if listenURL == "" {
		return like, nil
	}
	cfg, err := ParseDatabaseURL(listenURL)
	if err != nil {
		return nil, fmt.Errorf("LISTEN_DATABASE_URL: %w", err)
	}
	identify(cfg.ConnConfig, like.RuntimeParams["application_name"])
	return cfg.ConnConfig, nil
}

// newPubsub builds this node's part. It connects when it runs, but asks the database who it is where a Redis may be shared with others.
func newPubsub(ctx context.Context, by Pubsub, cfg Config, listen *pgx.ConnConfig, pool *pgxpool.Pool) (*pubsub.Node, error) {
	settings := &pubsub.Config{Logger: cfg.Logger}
	switch by {
	case PubsubMemory:
		return pubsub.NewMemory(&pubsub.Bus{}, settings)
	case PubsubPostgres:
		return pubsub.NewPostgres(purposed(listen, "listen"), settings)
	case PubsubRedis:
		option, err := ParseRedisURL(cfg.RedisURL)
		if err != nil {
			return nil, fmt.Errorf("REDIS_URL: %w", err)
		}
		channel, err := redisChannel(ctx, pool)
		if err != nil {
			return nil, err
		}
		return pubsub.NewRedis(option, channel, settings)
	default:
		return nil, fmt.Errorf("PUBSUB: %q is none of memory, postgres and redis", by)
	}
}

// redisChannel is the same for all nodes on a database, by whatever address they know it, and for no others. A standby that is promoted
// keeps it.
func redisChannel(ctx context.Context, pool *pgxpool.Pool) (channel string, err error) {
	err = pool.QueryRow(ctx, `SELECT concat_ws(':', 'godstack', 'changes', c.system_identifier, d.oid)
		FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()`).Scan(&channel)
	if err != nil {
		return "", fmt.Errorf("identify the database: %w", err)
	}
	return channel, nil
}

// activeInterval is the time between reads of the change log while somebody listens: what finds the writes of those who wake nobody,
// as of a statement typed by hand, and all of the other nodes' where there is nothing to be woken by.
func activeInterval(by Pubsub) time.Duration {
	if by == PubsubMemory {
		return 5 * time.Millisecond
	}
	return 50 * time.Millisecond
}
