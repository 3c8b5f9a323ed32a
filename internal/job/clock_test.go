package job

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/mail"
)

// hands are a clock that a test moves.
type hands struct {
	mu  sync.Mutex
	now time.Time // protected by mu
}

func (h *hands) time() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hands) advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// A follow-up waits for its two days, is asked for once, and not at all where who registers is not there.
func TestFollowUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := &hands{now: time.Now()}
	a := &accounts{followed: make(chan uuid.UUID, 5)}
	ada, bob := uuid.New(), uuid.New()
	ask := func(user uuid.UUID, end func(pgx.Tx) error) {
		tx, err := b.Begin(t.Context())
		require.NoError(t, err)
		require.NoError(t, FollowUps{}.FollowUp(t.Context(), tx, user, h.time().Add(48*time.Hour)))
		require.NoError(t, end(tx))
	}
	commit := func(tx pgx.Tx) error { return tx.Commit(t.Context()) }
	ask(ada, commit)
	ask(ada, commit)
	ask(bob, func(tx pgx.Tx) error { return tx.Rollback(t.Context()) })
	require.Equal(t, 1, one[int](t, b, `SELECT count(*) FROM river_job`))
	e := Enqueued{ID: one[int64](t, b, `SELECT id FROM river_job`)}

	b.start(t, Deps{Accounts: a, Sealer: secrets(t), Sender: &mail.Recorder{}}, Config{Now: h.time})
	h.advance(47 * time.Hour)
	earlier := b.enqueue(t, cleanUpAccounts{}, &Options{At: h.time().Add(-time.Minute)})
	b.becomes(t, earlier, "completed")
	require.Equal(t, "scheduled", b.state(t, e))
	require.Empty(t, a.followed)

	h.advance(2 * time.Hour)
	require.Equal(t, ada, receive(t, a.followed))
	b.becomes(t, e, "completed")
	require.Empty(t, a.followed)
}

// minutely marks that periods have been looked at.
type minutely struct{}

func (minutely) Kind() string         { return "minutely" }
func (minutely) Every() time.Duration { return time.Minute }

// Each clean-up runs when a node begins, if it has not in this period, and again in the next one.
func TestCleanUpsArePeriodic(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := &hands{now: time.Now().Truncate(time.Hour).Add(5 * time.Minute)}
	a := &accounts{}
	count := func(kind string) int {
		return one[int](t, b, `SELECT count(*) FROM river_job WHERE kind = $1 AND state = 'completed'`, kind)
	}
	mark := make(chan struct{}, 10)
	kinds := append(All(), Func(func(context.Context, minutely) error {
		mark <- struct{}{}
		return nil
	}))
	run := func(want int) {
		n := b.start(t, Deps{Accounts: a, Sealer: secrets(t), Sender: &mail.Recorder{}}, Config{Kinds: kinds, Now: h.time})
		receive(t, mark) // all that are due are made in one transaction
		eventually(t, func() bool {
			return one[bool](t, b, `SELECT NOT EXISTS (SELECT FROM river_job WHERE state <> 'completed')`)
		}, "all have run")
		for _, kind := range []string{"clean_up_accounts", "expire_changes", "purge_idempotency_keys"} {
			require.Equal(t, want, count(kind), kind)
		}
		require.EqualValues(t, want, a.cleaned.Load())
		require.NoError(t, n.stop())
	}
	run(1)
	h.advance(50 * time.Minute)
	run(1)
	h.advance(10 * time.Minute)
	run(2)
	h.advance(23 * time.Hour)
	run(3)
}
