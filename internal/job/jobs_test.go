package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/auth"
	"godstack/internal/mail"
)

var message = mail.Message{To: "ada@example.com", Subject: "Confirm", Text: "Open https://example.com/verify-email?token=gst_secret", Kind: mail.VerifyEmail}

// sender answers for each mail what it is told.
type sender struct {
	sent    chan mail.Message
	answers chan error
}

func (s *sender) Send(_ context.Context, m mail.Message) error {
	s.sent <- m
	return <-s.answers
}

func secrets(t *testing.T) *auth.Secrets {
	t.Helper()
	s, err := auth.ParseSecrets(auth.GenerateSecret())
	require.NoError(t, err)
	return s
}

// mail queues the message.
func (b *bundle) mail(t *testing.T, q MailQueue) (e Enqueued) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), b, func(tx pgx.Tx) error { return q.Enqueue(t.Context(), tx, message) }))
	e.ID = one[int64](t, b, `SELECT max(id) FROM river_job`)
	return e
}

func mailKinds() []Kind {
	return slices.DeleteFunc(All(), func(k Kind) bool { return k.name != sendMail{}.Kind() })
}

func TestMail(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := secrets(t)
	s := &sender{sent: make(chan mail.Message, 10), answers: make(chan error, 10)}
	b.start(t, Deps{Sender: s, Sealer: keys}, Config{Kinds: mailKinds()})
	q := MailQueue{Sealer: keys}

	s.answers <- errors.New("the server does not answer")
	s.answers <- nil
	e := b.mail(t, q)
	want := message
	want.ID = fmt.Sprintf("job-%d", e.ID)
	require.Equal(t, want, receive(t, s.sent))
	require.Equal(t, want, receive(t, s.sent), "again")
	b.becomes(t, e, "completed")

	s.answers <- &mail.SendError{Kind: message.Kind, Permanent: true, Err: errors.New("no such mailbox")}
	e = b.mail(t, q)
	want.ID = fmt.Sprintf("job-%d", e.ID)
	require.Equal(t, want, receive(t, s.sent))
	b.becomes(t, e, "cancelled")

	// A key that this node does not have, another may.
	e = b.mail(t, MailQueue{Sealer: secrets(t)})
	b.becomes(t, e, "retryable")
	require.Empty(t, s.sent)
	require.Error(t, pgx.BeginFunc(t.Context(), b, func(tx pgx.Tx) error { return q.Enqueue(t.Context(), tx, mail.Message{To: "nobody"}) }))
}

// A mail's own time ends before the job's: an attempt that the job cut short would not say what it waited for.
func TestMailHasTime(t *testing.T) {
	t.Parallel()
	require.Greater(t, sendMail{}.Defaults().Timeout, mail.DefaultTimeout+mail.DefaultReplyTimeout+10*time.Second)
	b := setup(t)
	e := b.mail(t, MailQueue{Sealer: secrets(t)})
	require.Equal(t, fmt.Sprint(sendMail{}.Defaults().Timeout.Milliseconds()), one[string](t, b, `SELECT metadata ->> 'timeout_ms' FROM river_job WHERE id = $1`, e.ID))
}

func TestMailIsSealed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.mail(t, MailQueue{Sealer: secrets(t)})
	row := one[string](t, b, `SELECT j::text FROM river_job j WHERE id = $1`, e.ID)
	require.NotContains(t, row, "gst_")
	require.NotContains(t, row, "ada@")
	require.Contains(t, row, mail.VerifyEmail, "operators see what kind it is")

	// What is sealed as one kind is not taken for another.
	s := &sender{sent: make(chan mail.Message, 10), answers: make(chan error, 10)}
	b.exec(t, `UPDATE river_job SET args = jsonb_set(args, '{mail}', '"reset_password"'), max_attempts = 1`)
	b.start(t, Deps{Sender: s, Sealer: secrets(t)}, Config{Kinds: mailKinds()})
	b.becomes(t, e, "discarded")
	require.Empty(t, s.sent)
}

// accounts count what they are asked for.
type accounts struct {
	cleaned  atomic.Int64
	followed chan uuid.UUID // nil: nobody is to be
}

func (a *accounts) Cleanup(context.Context) (int64, error) {
	return a.cleaned.Add(1) * 10, nil
}

func (a *accounts) FollowUp(_ context.Context, user uuid.UUID) error {
	a.followed <- user
	return nil
}

// The periodic jobs of the application run on their own.
func TestCleanUps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, `INSERT INTO changes (slot, at, entity, op) SELECT changelog_slot(at), at, 'old', 'R' FROM (SELECT now() - interval '8 days' AS at) s`)
	b.exec(t, `INSERT INTO idempotency_keys (user_id, key, request, created_at) VALUES
		(gen_random_uuid(), 'old', '', now() - interval '25 hours'), (gen_random_uuid(), 'new', '', now())`)
	a := &accounts{}
	n := b.start(t, Deps{Accounts: a, Sealer: secrets(t), Sender: &mail.Recorder{}}, Config{})
	removed := map[string]uint64{"clean_up_accounts": 10, "expire_changes": 1, "purge_idempotency_keys": 1}
	for kind, rows := range removed {
		eventually(t, func() bool {
			return one[bool](t, b, `SELECT EXISTS (SELECT FROM river_job WHERE kind = $1 AND state = 'completed')`, kind)
		}, kind)
		require.Equal(t, fmt.Sprint(rows), one[string](t, b, `SELECT metadata -> 'output' ->> 'removed' FROM river_job WHERE kind = $1`, kind))
		require.Equal(t, KindStats{Worked: 1, Removed: rows}, n.Stats().Kinds[kind])
	}
	require.EqualValues(t, 1, a.cleaned.Load())
	require.Zero(t, one[int](t, b, `SELECT count(*) FROM changes WHERE entity = 'old'`))
	require.Equal(t, "new", one[string](t, b, `SELECT string_agg(key, ' ') FROM idempotency_keys`))
}
