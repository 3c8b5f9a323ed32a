package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/stretchr/testify/require"

	"godstack/internal/viewer"
)

// beginning is an operation of an event stream that is about to be run.
func (b *bundle) beginning(t *testing.T, text string) (*streamed, *graphql.OperationContext) {
	t.Helper()
	e, err := b.newEvents(t.Context(), "", viewer.Viewer{}, false)
	require.NoError(t, err)
	t.Cleanup(e.end)
	op, err := e.begin(t.Context(), "")
	require.NoError(t, err)
	prepared, refused := b.prepare(op.Context(), &ask{RawParams: graphql.RawParams{Query: text}})
	require.Nil(t, refused)
	return op, prepared
}

// What a subscription begins with has the time of an operation. It goes on for any.
func TestSubscriptionsOutliveTheirBeginning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.begin = func(ctx context.Context) error {
			select {
			case <-time.After(b.cfg.OperationTimeout - time.Nanosecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		ticks := 0
		b.resolvers["ticks"] = func(ctx context.Context) (any, error) {
			select {
			case <-time.After(10 * b.cfg.OperationTimeout):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			if ticks++; ticks > 2 {
				return nil, errStreamEnds
			}
			return "late", nil
		}
		op, prepared := b.beginning(t, `subscription { ticks }`)
		b.run(op, prepared)
		parts, last := op.events.take()
		require.True(t, last)
		next := "event: next\ndata: {\"data\":{\"ticks\":\"late\"}}\n\n"
		require.Equal(t, next+next+"event: complete\ndata: \n\n", join(parts))
	})
}

// left is a stream that is pushed.
type left struct {
	calls []string
	start func()
}

func (l *left) Start() {
	l.calls = append(l.calls, "start")
	l.start()
}
func (l *left) Resume() { l.calls = append(l.calls, "resume") }
func (l *left) Close()  { l.calls = append(l.calls, "close") }

// A stream is closed where its beginning fails, in whatever way.
func TestStreamsThatDoNotBegin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		begin func(ctx context.Context) error
		start func()
		code  string // "" where nothing fails
		calls []string
	}{
		"a panic of what dispatches": {func(context.Context) error { panic("secret") }, nil, "INTERNAL", []string{"close"}},
		"a panic of the stream":      {nil, func() { panic("secret") }, "INTERNAL", []string{"start", "close"}},
		"time": {func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		}, nil, "UNAVAILABLE", []string{"close"}},
		"nothing": {nil, func() {}, "", []string{"start"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t)
				b.begin = c.begin
				op, prepared := b.beginning(t, `subscription { ticks }`)
				l := &left{start: c.start}
				func() {
					defer b.rescue(op.Context(), op)
					b.open(op.Context(), op, prepared, func() pushed { return l })
				}()
				parts, last := op.events.take()
				if c.code == "" {
					require.Empty(t, parts)
				} else {
					require.True(t, last)
					require.Contains(t, join(parts), `"code":"`+c.code+`"`)
					require.NotContains(t, join(parts), "secret")
				}
				require.Equal(t, c.calls, l.calls)
			})
		})
	}
}
