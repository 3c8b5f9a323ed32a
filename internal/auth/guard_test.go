package auth

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/mail"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// wrong tries a wrong password.
func (b *bundle) wrong(login string) error {
	_, err := b.Login(plain(), LoginInput{Login: login, Password: "wrong"})
	return err
}

// patient lets the delays of a guard pass.
func (b *bundle) patient(t testing.TB) {
	t.Helper()
	b.exec(t, `UPDATE login_guards SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL`)
}

func TestDelay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	for _, login := range []string{"ada", "nobody"} {
		for range freeFailures {
			refused(t, b.wrong(login), record.Unauthenticated)
		}
		e := refusal(t, b.wrong(login), record.RateLimited)
		require.Equal(t, time.Second, e.RetryAfter)
	}
	_, err := b.Login(plain(), LoginInput{Login: "ada", Password: password})
	refused(t, err, record.RateLimited) // not looked at
	for _, want := range []time.Duration{2, 4, 8, 16, 30, 30} {
		b.patient(t)
		refused(t, b.wrong("ada"), record.Unauthenticated)
		e := refusal(t, b.wrong("ada"), record.RateLimited)
		require.InDelta(t, want, e.RetryAfter.Seconds(), 1)
	}
	require.Equal(t, 0, b.count(t, `login_guards WHERE locked_until IS NOT NULL`))
	require.Equal(t, 9, b.count(t, `login_attempts WHERE outcome = 'wrong_password'`))
	b.patient(t)
	b.login(t, "ada") // which resets it
	for range freeFailures {
		refused(t, b.wrong("ada"), record.Unauthenticated)
	}
}

func TestLockout(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ada := b.user(t, "ada")
	for _, login := range []string{"ada@example.com", "nobody@example.com"} {
		for range 10 {
			b.patient(t)
			refused(t, b.wrong(login), record.Unauthenticated)
		}
		b.patient(t)
		e := refusal(t, b.wrong(login), record.AccountLocked)
		require.InDelta(t, 30*60, e.RetryAfter.Seconds(), 5)
		require.Equal(t, "too many failures to sign in: this account is locked for a while", e.Message)
	}
	// The right password is not looked at either, and the lock does not get longer.
	until := texts(t, b.pool, `SELECT locked_until::text FROM login_guards ORDER BY account`)
	for range 3 {
		_, err := b.Login(plain(), LoginInput{Login: "ada", Password: password})
		refused(t, err, record.AccountLocked)
	}
	require.Equal(t, until, texts(t, b.pool, `SELECT locked_until::text FROM login_guards ORDER BY account`))
	require.Equal(t, 4, b.count(t, `login_attempts WHERE outcome = 'locked' AND user_id = $1`, ada))
	require.Equal(t, 1, b.count(t, `security_events WHERE name = 'account_locked' AND user_id = $1`, ada))
	require.Equal(t, []string{mail.AccountLocked}, b.mails("ada@example.com"))

	// It opens by itself, with all tries anew.
	b.exec(t, `UPDATE login_guards SET locked_until = now() - interval '1 ms'`)
	refused(t, b.wrong("ada"), record.Unauthenticated)
	b.login(t, "ada")
	require.Equal(t, 0, b.count(t, `login_guards WHERE account = $1`, ada.String()))
}

func TestUnlockUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ada, root := b.user(t, "ada"), viewer.Viewer{ID: b.user(t, "root", viewer.Admin), Role: viewer.Admin}
	for range 10 {
		b.patient(t)
		refused(t, b.wrong("ada"), record.Unauthenticated)
	}
	_, err := b.UnlockUser(as(viewer.Viewer{ID: ada, Role: viewer.Moderator}), globalID(ada))
	refused(t, err, record.Forbidden)
	id, err := b.UnlockUser(as(root), globalID(ada))
	require.NoError(t, err)
	require.Equal(t, globalID(ada), id)
	b.login(t, "ada")
	b.has(t, ada, AccountLocked, AccountUnlocked)
}

// TestWindow holds that failures are forgotten after the window.
func TestWindow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	for range 9 {
		b.patient(t)
		refused(t, b.wrong("ada"), record.Unauthenticated)
	}
	b.patient(t)
	b.exec(t, `UPDATE login_guards SET window_started_at = now() - interval '31 min'`)
	for range freeFailures {
		refused(t, b.wrong("ada"), record.Unauthenticated)
	}
	require.Equal(t, []string{"3"}, texts(t, b.pool, `SELECT failures::text FROM login_guards`))
}

// TestParallelGuesses holds that of 200 guesses at once, over two nodes, no more than the threshold are evaluated.
func TestParallelGuesses(t *testing.T) {
	t.Parallel()
	for _, login := range []string{"ada", "nobody"} {
		t.Run(login, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.user(t, "ada")
			nodes := []*Service{b.Service, b.node(t)}
			var evaluated, locked, delayed atomic.Int32
			atOnce(200, func(i int) {
				_, err := nodes[i%2].Login(plain(), LoginInput{Login: login, Password: "wrong"})
				switch code(t, err) {
				case record.Unauthenticated:
					evaluated.Add(1)
				case record.AccountLocked:
					locked.Add(1)
				case record.RateLimited:
					delayed.Add(1)
				default:
					t.Error(err)
				}
			})
			t.Logf("evaluated %d, locked %d, delayed %d", evaluated.Load(), locked.Load(), delayed.Load())
			require.LessOrEqual(t, evaluated.Load(), int32(10))
			require.Positive(t, evaluated.Load())
			require.Equal(t, int(evaluated.Load()), b.count(t, `login_attempts WHERE outcome IN ('wrong_password', 'unknown_login')`))
			require.LessOrEqual(t, b.count(t, `security_events WHERE name = 'account_locked'`), 1)
		})
	}
}

// TestParallelSuccesses holds that who signs in many times at once with the right password is never locked.
func TestParallelSuccesses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	var in atomic.Int32
	atOnce(50, func(int) {
		_, err := b.Login(plain(), LoginInput{Login: "ada", Password: password})
		switch code(t, err) {
		case "":
			in.Add(1)
		case record.RateLimited: // come back in a second
		default:
			t.Error(err)
		}
	})
	require.GreaterOrEqual(t, in.Load(), int32(10))
	require.LessOrEqual(t, b.count(t, `sessions WHERE revoked_at IS NULL`), 10)
	require.Equal(t, 0, b.count(t, `security_events WHERE name = 'account_locked'`))
	b.login(t, "ada")
}

// TestGiveBack holds that a try that was not evaluated is not counted.
func TestGiveBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	ctx, cancel := context.WithCancel(plain())
	for range b.deps.Passwords.Load().Turns { // nobody gets a turn
		require.NoError(t, b.deps.Passwords.turns.Take(t.Context(), 1, [2]struct{}{}))
	}
	done := make(chan error)
	go func() {
		_, err := b.Login(ctx, LoginInput{Login: "ada", Password: password})
		done <- err
	}()
	require.Eventually(t, func() bool { return b.count(t, `login_guards WHERE failures = 1`) == 1 }, 5*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Equal(t, 1, b.count(t, `login_guards WHERE failures = 0`))
}

// TestALockedAccountHashesNothing holds that a session of a locked account is no way to keep others waiting.
func TestALockedAccountHashesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	me := as(*b.login(t, "ada").Viewer)
	for range 10 {
		b.patient(t)
		refused(t, b.wrong("ada"), record.Unauthenticated)
	}
	var hashed atomic.Int32
	b.hashing(func() { hashed.Add(1) })
	atOnce(50, func(int) {
		_, err := b.ChangePassword(me, password, newPassword)
		if code(t, err) != record.AccountLocked {
			t.Error(err)
		}
	})
	require.Zero(t, hashed.Load())
}

// hashing has f called after each hash.
func (b *bundle) hashing(f func()) {
	key := b.deps.Passwords.key
	b.deps.Passwords.key = func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte {
		defer f()
		return key(password, salt, time, memory, threads, keyLen)
	}
}

// TestThePasswordIsConfirmedAsItIs holds that a password which was changed while it was looked at confirms nothing.
func TestThePasswordIsConfirmedAsItIs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	me := as(*b.login(t, "ada").Viewer)
	b.hashing(func() { b.exec(t, `UPDATE users SET password_hash = NULL`) })
	hash := texts(t, b.pool, `SELECT password_hash FROM users`)[0]
	for field, f := range map[string]func() error{
		"password": func() error { _, err := b.EnrollTotp(me, password); return err },
		"current":  func() error { _, err := b.ChangePassword(me, password, newPassword); return err },
	} {
		b.exec(t, `UPDATE users SET password_hash = $1`, hash)
		refused(t, f(), record.BadUserInput, field)
	}
	require.Equal(t, 0, b.count(t, `authenticators`))
	require.Equal(t, 0, b.count(t, `login_guards WHERE failures > 0`))
}

// failing is a queue that takes no mail of a kind.
type failing struct {
	mail.Queue
	kind string
}

func (f failing) Enqueue(ctx context.Context, tx pgx.Tx, m mail.Message) error {
	if m.Kind == f.kind {
		_, err := tx.Exec(ctx, `SELECT 1 / 0`) // as a queue of the database fails
		return err
	}
	return f.Queue.Enqueue(ctx, tx, m)
}

// TestLockWithoutMail holds that an account is locked although its owner cannot be told.
func TestLockWithoutMail(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) { d.Mail = failing{d.Mail, mail.AccountLocked} })
	ada := b.user(t, "ada")
	for range 10 {
		b.patient(t)
		refused(t, b.wrong("ada"), record.Unauthenticated)
	}
	refused(t, b.wrong("ada"), record.AccountLocked)
	b.has(t, ada, AccountLocked)
	require.Contains(t, b.log.String(), "queue mail account_locked")
}

// TestAWrongPasswordIsCounted holds that a wrong password stays a failure although it cannot be written down as one.
func TestAWrongPasswordIsCounted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	b.exec(t, `ALTER TABLE login_attempts ADD CHECK (outcome <> 'wrong_password')`)
	for range 10 {
		require.ErrorContains(t, b.wrong("ada"), "check constraint")
	}
	refused(t, b.wrong("ada"), record.RateLimited)
}
