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

// Statement is SQL with its arguments.
type Statement struct {
	SQL  string
	Args []any
	// Into is what the first row of its answer is scanned into. No row is an error, too late to undo anything. Nil: the answer is dropped.
	Into []any
}

// result reads the statement's result, which is the next of br.
func (s *Statement) result(br pgx.BatchResults) error {
	if s.Into == nil {
		_, err := br.Exec()
		return err
	}
	return br.QueryRow().Scan(s.Into...)
}

// around are the checks of a context.
type around struct{ before, after *Statement }

type aroundKey struct{}

// WithChecks returns a context in which every statement outside a transaction runs between two others, in one round trip and
// one transaction; each may be nil. Where one of the three fails, nothing was done, and its error is returned. What the second
// answers is there when the rows are closed. What UpdateOne sets for its statement, the first does not see. A Tx ignores them.
func WithChecks(ctx context.Context, before, after *Statement) context.Context {
	return context.WithValue(ctx, aroundKey{}, around{before, after})
}

func checks(ctx context.Context) around {
	a, _ := ctx.Value(aroundKey{}).(around)
	return a
}

func queueSettings(b *pgx.Batch, set []setting) {
	for _, s := range set {
		b.Queue("select set_config($1, $2, true)", s.name, s.value)
	}
}
