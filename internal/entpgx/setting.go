package entpgx

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// setting is one of Postgres's configuration parameters with its value.
type setting struct{ name, value string }

// settingsKey is the context key of a []setting.
type settingsKey struct{}

// WithSetting returns a context in which every statement runs with the Postgres parameter name (such as "app.actor")
// set to value. Outside a transaction the setting is sent in the statement's own round trip and lasts for that
// statement; a Tx sends the settings of the context it was begun with once, with BEGIN, and ignores those of its
// statements' contexts. Settings stack; of two with one name the later holds. An invalid name or value fails the
// statement.
func WithSetting(ctx context.Context, name, value string) context.Context {
	set := settings(ctx)
	return context.WithValue(ctx, settingsKey{}, append(slices.Clip(set), setting{name, value}))
}

func settings(ctx context.Context) []setting {
	set, _ := ctx.Value(settingsKey{}).([]setting)
	return set
}

// check is a statement that follows another.
type check struct {
	sql  string
	args []any
}

type checkKey struct{}

// WithCheck returns a context in which every statement outside a transaction is followed by another, in the same round trip
// and the same transaction: where that one fails, the first is undone and its error returned. What it answers is dropped.
// A Tx ignores it.
func WithCheck(ctx context.Context, sql string, args ...any) context.Context {
	return context.WithValue(ctx, checkKey{}, &check{sql, args})
}

func checkOf(ctx context.Context) *check {
	c, _ := ctx.Value(checkKey{}).(*check)
	return c
}

func queueSettings(b *pgx.Batch, set []setting) {
	for _, s := range set {
		b.Queue("select set_config($1, $2, true)", s.name, s.value)
	}
}
