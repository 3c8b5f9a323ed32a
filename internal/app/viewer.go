package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/internal/record"
	"godstack/internal/server"
	"godstack/internal/viewer"
)

// devUserHeader names a user in development: a header, or a key of connection_init's payload.
const devUserHeader = "Authorization"

// viewers says who asks. In development that is whom Authorization names, else the first user there is; in
// production it is nobody.
func viewers(cfg Config, pool *pgxpool.Pool) server.ViewerFunc {
	if !cfg.Development {
		return nil
	}
	return func(ctx context.Context, name string) (viewer.Viewer, bool, error) {
		if name == "" {
			v, err := findUser(ctx, pool, `SELECT id, role FROM users ORDER BY created_at, id LIMIT 1`)
			if errors.Is(err, pgx.ErrNoRows) {
				return viewer.Viewer{}, false, nil // nothing is seeded
			}
			return v, err == nil, err
		}
		id, err := record.ParseID(name)
		if err != nil || id.Prefix != "" && id.Prefix != "user" {
			return viewer.Viewer{}, false, &record.Error{Code: record.Unauthenticated, Message: devUserHeader + " is not the id of a user"}
		}
		v, err := findUser(ctx, pool, `SELECT id, role FROM users WHERE id = $1`, id.UUID)
		if errors.Is(err, pgx.ErrNoRows) {
			return viewer.Viewer{}, false, &record.Error{Code: record.Unauthenticated, Message: devUserHeader + " names no user"}
		}
		return v, err == nil, err
	}
}

func findUser(ctx context.Context, pool *pgxpool.Pool, query string, args ...any) (viewer.Viewer, error) {
	var id [16]byte
	var v viewer.Viewer
	if err := pool.QueryRow(ctx, query, args...).Scan(&id, &v.Role); err != nil {
		return viewer.Viewer{}, fmt.Errorf("find viewer: %w", err)
	}
	v.ID = uuid.UUID(id)
	return v, nil
}
