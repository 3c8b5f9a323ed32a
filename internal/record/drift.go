package record

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Drift returns what the database lacks of the entities' tables, a line each: columns, join tables, and the triggers without which changes
// are neither numbered nor delivered. Nothing where the schema is as the program knows it. What a table has besides is not looked at.
func (g *Engine) Drift(ctx context.Context, db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
},
) ([]string, error) {
	var tables, of, columns []string
	for _, name := range slices.Sorted(maps.Keys(g.entities)) {
		e := g.entities[name]
		tables = append(tables, e.Table)
		for _, column := range slices.Sorted(maps.Keys(e.column)) {
			of, columns = append(of, e.Table), append(columns, column)
		}
		for _, d := range e.Edges {
			if d.Through != "" {
				of, columns = append(of, d.Through, d.Through), append(columns, d.From, d.Ref)
			}
		}
	}
	rows, err := db.Query(ctx, `
		SELECT DISTINCT w.tbl || ' has no column ' || w.col FROM unnest($1::text[], $2::text[]) w (tbl, col)
		WHERE NOT EXISTS (SELECT FROM pg_attribute a
			WHERE a.attrelid = to_regclass(w.tbl) AND a.attname = w.col AND a.attnum > 0 AND NOT a.attisdropped)
		UNION ALL
		SELECT w.tbl || ' has no trigger ' || w.trigger || ' that is enabled'
		FROM (SELECT * FROM unnest($3::text[]) t (tbl), unnest('{zz_changelog_version,changelog_row}'::text[]) n (trigger)) w
		WHERE to_regclass(w.tbl) IS NOT NULL AND NOT EXISTS (SELECT FROM pg_trigger g
			WHERE g.tgrelid = to_regclass(w.tbl) AND g.tgname = w.trigger AND g.tgenabled IN ('O', 'A'))
		ORDER BY 1`, of, columns, tables)
	if err != nil {
		return nil, fmt.Errorf("compare the schema: %w", err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("compare the schema: %w", err)
	}
	return lines, nil
}
