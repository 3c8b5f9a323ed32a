package auth

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/mail"
	"godstack/internal/record"
)

// remembered are the follow-ups that were asked for, by user. It writes within the transaction, which may be taken back.
type remembered struct {
	mu    sync.Mutex
	asked map[uuid.UUID]time.Time // protected by mu
}

func (r *remembered) FollowUp(ctx context.Context, tx pgx.Tx, user uuid.UUID, at time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == nil {
		r.asked = map[uuid.UUID]time.Time{}
	}
	r.asked[user] = at
	_, err := tx.Exec(ctx, `INSERT INTO follow_ups VALUES ($1)`, user)
	return err
}

// following has a service remember follow-ups.
func following(t *testing.T, change ...func(*Deps, *Config)) (*bundle, *remembered) {
	t.Helper()
	r := &remembered{}
	b := setup(t, append(change, func(d *Deps, _ *Config) { d.FollowUps = r })...)
	b.exec(t, `CREATE TABLE follow_ups (id uuid PRIMARY KEY)`)
	return b, r
}

// Who signs up is asked two days later, by the clock; nobody is who was there before, or is made by an administrator.
func TestFollowUpIsTwoDaysLater(t *testing.T) {
	t.Parallel()
	for _, verification := range []Verification{VerifyRequired, VerifyOptional} {
		b, r := following(t, func(_ *Deps, c *Config) { c.VerifyEmail = verification })
		b.user(t, "root")
		require.Empty(t, r.asked)
		b.advance(5 * time.Hour)
		_, err := b.Register(plain(), newcomer("ada"))
		require.NoError(t, err)
		ids := texts(t, b.pool, `SELECT id::text FROM users WHERE username = 'ada'`)
		require.Equal(t, ids, texts(t, b.pool, `SELECT id::text FROM follow_ups`))
		require.Equal(t, map[uuid.UUID]time.Time{uuid.MustParse(ids[0]): b.clock().Add(48 * time.Hour)}, r.asked)

		// An address that is known costs the same statements, and leaves nothing.
		in := newcomer("bob")
		in.Email = "ada@example.com"
		_, err = b.Register(plain(), in)
		if verification == VerifyRequired {
			require.NoError(t, err)
			require.Len(t, r.asked, 2)
		}
		require.Equal(t, ids, texts(t, b.pool, `SELECT id::text FROM follow_ups`))
	}
}

func TestFollowUp(t *testing.T) {
	t.Parallel()
	b, _ := following(t)
	mails := func() int { return len(b.mail.Messages()) }
	_, err := b.Register(plain(), newcomer("ada"))
	require.NoError(t, err)
	id := uuid.MustParse(texts(t, b.pool, `SELECT id::text FROM users`)[0])
	before := mails()
	require.NoError(t, b.FollowUp(t.Context(), id))
	require.Equal(t, before, mails(), "the address may be somebody else's")

	_, err = b.VerifyEmail(plain(), b.mailed(t, mail.VerifyEmail, "ada@example.com"))
	require.NoError(t, err)
	for range 10 {
		b.patient(t)
		refused(t, b.wrong("ada"), record.Unauthenticated)
	}
	require.Contains(t, b.mails("ada@example.com"), mail.AccountLocked)
	before = mails()
	require.NoError(t, b.FollowUp(t.Context(), id))
	require.Equal(t, before, mails(), "it is locked")

	b.exec(t, `UPDATE login_guards SET locked_until = now()`)
	b.exec(t, `UPDATE users SET locked_at = now()`)
	require.NoError(t, b.FollowUp(t.Context(), id))
	require.Equal(t, before, mails(), "an administrator locked it")

	b.exec(t, `UPDATE users SET locked_at = NULL`)
	b.exec(t, `UPDATE users SET email = 'new@example.com'`)
	require.NoError(t, b.FollowUp(t.Context(), id))
	require.Equal(t, []string{mail.FollowUp}, b.mails("new@example.com"))
	m := b.mail.Messages()[0]
	require.Contains(t, m.Text, "Hello Somebody New,")
	require.Equal(t, []string{"https://example.com/"}, m.Links())
	require.NotEmpty(t, m.HTML)
	require.NoError(t, b.FollowUp(t.Context(), id))
	require.Equal(t, m.ID, b.mail.Messages()[0].ID, "a second one can be told to be the same")
	require.Contains(t, m.ID, id.String())

	before = mails()
	b.exec(t, `DELETE FROM users`)
	require.NoError(t, b.FollowUp(t.Context(), id))
	require.Equal(t, before, mails(), "the user is gone")
}

// Whoever proves an address for the first time is welcomed there, whichever way, and once.
func TestWelcome(t *testing.T) {
	t.Parallel()
	const address = "ada@example.com"
	welcomes := func(b *bundle) (to []string) {
		for _, m := range b.mail.Messages() {
			if m.Kind == mail.Welcome {
				to = append(to, m.To)
				require.Equal(t, []string{"https://example.com/"}, m.Links())
			}
		}
		return to
	}
	reset := func(t *testing.T, b *bundle, to string) {
		_, err := b.RequestPasswordReset(plain(), to)
		require.NoError(t, err)
		_, err = b.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, to), newPassword)
		require.NoError(t, err)
	}
	for name, c := range map[string]struct {
		prove func(t *testing.T, b *bundle, p *Payload)
		to    string
	}{
		"the link": {func(t *testing.T, b *bundle, _ *Payload) {
			_, err := b.VerifyEmail(plain(), b.mailed(t, mail.VerifyEmail, address))
			require.NoError(t, err)
		}, address},
		"a reset":  {func(t *testing.T, b *bundle, _ *Payload) { reset(t, b, address) }, address},
		"a change": {func(t *testing.T, b *bundle, p *Payload) { b.moveTo(t, p, "new@example.com") }, "new@example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, optional)
			p, err := b.Register(plain(), newcomer("ada"))
			require.NoError(t, err)
			require.Empty(t, welcomes(b))
			c.prove(t, b, p)
			require.Equal(t, []string{c.to}, welcomes(b))

			reset(t, b, c.to)
			_, err = b.Login(plain(), LoginInput{Login: "ada", Password: newPassword})
			require.NoError(t, err)
			require.Equal(t, []string{c.to}, welcomes(b), "once")
		})
	}

	// It is of the transaction: where the link is refused there is none.
	b := setup(t)
	_, err := b.Register(plain(), newcomer("ada"))
	require.NoError(t, err)
	token := b.mailed(t, mail.VerifyEmail, address)
	b.exec(t, `UPDATE users SET email = 'other@example.com'`)
	_, err = b.VerifyEmail(plain(), token)
	refused(t, err, record.BadUserInput, "token")
	require.Empty(t, welcomes(b))
	b.user(t, "root")
	require.Empty(t, b.mails("root@example.com"), "an administrator has made it, and tells them")
}

// The mail that there is an account already leads to where one has a link sent, and holds none that is good for anything.
func TestAccountExistsLeadsOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	in := newcomer("bob")
	in.Email = "ada@example.com"
	_, err := b.Register(plain(), in)
	require.NoError(t, err)
	b.user(t, "eve")
	_, err = b.ChangeEmail(as(*b.login(t, "eve").Viewer), password, "ada@example.com")
	require.NoError(t, err)
	require.Equal(t, []string{mail.AccountExists, mail.AccountExists}, b.mails("ada@example.com"))
	for _, m := range b.mail.Messages() {
		require.Equal(t, []string{"https://example.com/reset-password"}, m.Links())
	}
	require.Zero(t, b.count(t, `one_time_tokens WHERE purpose = 'reset_password'`))
}
