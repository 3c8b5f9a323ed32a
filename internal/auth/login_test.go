package auth

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/mail"
	"godstack/internal/record"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	for _, login := range []string{"ada", "ADA", " ada@example.com ", "Ada@Example.COM"} {
		p, err := b.Login(plain(), LoginInput{Login: login, Password: password})
		require.NoError(t, err)
		require.Equal(t, id, p.Viewer.ID)
		require.WithinDuration(t, b.clock().Add(15*time.Minute), *p.ExpiresAt, time.Second)
		require.Regexp(t, `^gst_[A-Za-z0-9_-]{43}$`, *p.RefreshToken)
	}
	require.Equal(t, 4, b.count(t, `login_attempts WHERE outcome = 'success' AND user_id = $1 AND address = '192.0.2.7'
		AND user_agent = 'Browser/1.0 (test)'`, id))
	require.Equal(t, 4, b.count(t, `security_events WHERE name = 'login_succeeded' AND actor = $1 AND request_id = 'r1'`, globalID(id).String()))
	require.Equal(t, []string{id.String()}, texts(t, b.pool, `SELECT DISTINCT actor FROM changes WHERE entity = 'session'`))
}

// TestLoginSaysNothing holds that an unknown login is answered and counted as a wrong password is.
func TestLoginSaysNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	b.exec(t, `INSERT INTO users (email, username, name) VALUES ('none@example.com', 'none', 'No password')`)
	var said []string
	for _, login := range []string{"ada", "ada@example.com", "nobody", "nobody@example.com", "none", "", "\x00\xff", "ada\x00"} {
		err := b.wrong(login)
		said = append(said, fmt.Sprintf("%#v", *refusal(t, err, record.Unauthenticated)))
	}
	require.Len(t, slices.Compact(said), 1)
	require.Equal(t, 4, b.count(t, `login_attempts WHERE outcome = 'unknown_login' AND user_id IS NULL AND account LIKE 'unknown:%'`))
	require.Equal(t, 0, b.count(t, `login_attempts WHERE account LIKE '%nobody%'`))
}

// TestRehash holds that a hash made with less work is replaced at the next sign-in.
func TestRehash(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	before := texts(t, b.pool, `SELECT password_hash FROM users`)
	b.login(t, "ada")
	require.Equal(t, before, texts(t, b.pool, `SELECT password_hash FROM users`))

	more, err := NewPasswords(&PasswordConfig{Memory: 128, Time: 2})
	require.NoError(t, err)
	b.deps.Passwords = more
	s := b.node(t)
	_, err = s.Login(plain(), LoginInput{Login: "ada", Password: "wrong"})
	refused(t, err, record.Unauthenticated)
	require.Equal(t, before, texts(t, b.pool, `SELECT password_hash FROM users`))
	_, err = s.Login(plain(), LoginInput{Login: "ada", Password: password})
	require.NoError(t, err)
	require.Contains(t, texts(t, b.pool, `SELECT password_hash FROM users`)[0], "$m=128,t=2,p=1$")
	b.login(t, "ada")
}

// TestLoginOutlivesNoReset holds that a sign-in with the old password does not end after a change of it, nor one without
// a second factor after that was turned on.
func TestLoginOutlivesNoReset(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	u, err := findUser(t.Context(), b.pool, "id = $1", id)
	require.NoError(t, err)
	p := b.login(t, "ada")
	end := func() error {
		return b.inTx(t.Context(), id, func(ctx context.Context, t tx) error {
			_, err := b.startSession(ctx, t, u)
			return err
		})
	}
	require.NoError(t, end())
	b.exec(t, `UPDATE users SET totp_confirmed_at = now()`)
	require.ErrorIs(t, end(), errLogin)
	b.exec(t, `UPDATE users SET totp_confirmed_at = NULL`)
	_, err = b.ChangePassword(as(*p.Viewer), password, newPassword)
	require.NoError(t, err)
	require.ErrorIs(t, end(), errLogin)
}

func TestNewDevice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	in := LoginInput{Login: "ada", Password: password}
	for _, agent := range []string{"Mozilla/5.0 (X11) Firefox/120.0", "Mozilla/5.0 (X11) Firefox/121.0.1"} {
		_, err := b.Login(from(agent), in) // the first device, and a newer version of it
		require.NoError(t, err)
	}
	require.NotContains(t, b.events(t, id), NewDeviceLogin)
	for range 2 {
		_, err := b.Login(from("Mozilla/5.0 (iPhone) Safari/17"), in)
		require.NoError(t, err)
	}
	require.Equal(t, 1, b.count(t, `security_events WHERE name = 'new_device_login' AND address = '198.51.100.9'`))
	require.Equal(t, []string{mail.NewDeviceLogin}, b.mails("ada@example.com"))
}

func TestSuspiciousLogin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	fail := func(n int) {
		for range n {
			b.patient(t)
			refused(t, b.wrong("ada"), record.Unauthenticated)
		}
		b.patient(t)
	}
	fail(suspicious - 1)
	b.login(t, "ada")
	fail(1)
	b.login(t, "ada") // only those since the last success count
	require.NotContains(t, b.events(t, id), SuspiciousLogin)
	fail(suspicious)
	b.login(t, "ada")
	b.login(t, "ada")
	fail(10) // locked, and it opens
	b.exec(t, `UPDATE login_guards SET locked_until = now()`)
	b.login(t, "ada")
	require.Equal(t, 2, b.count(t, `security_events WHERE name = 'suspicious_login' AND user_id = $1`, id))
	require.Contains(t, b.mails("ada@example.com"), mail.NewDeviceLogin)
}

func TestSessions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ada, eve := b.user(t, "ada"), b.user(t, "eve")
	var all []*Payload
	for range 12 {
		all = append(all, b.login(t, "ada"))
	}
	last := all[11]
	list, err := b.Sessions(as(*last.Viewer))
	require.NoError(t, err)
	require.Len(t, list, 10)
	require.True(t, list[0].Current)
	require.Equal(t, "192.0.2.7", list[0].Address)
	for i, p := range all {
		if i < 2 {
			refused(t, asks(b.Service, p), record.Unauthenticated)
		} else {
			require.NoError(t, asks(b.Service, p))
		}
	}
	require.Equal(t, 2, b.count(t, `security_events WHERE name = 'session_revoked'`))

	theirs := b.login(t, "eve")
	_, err = b.RevokeSession(as(*last.Viewer), record.ID{Prefix: "session", UUID: theirs.Viewer.Session})
	refused(t, err, record.NotFound)
	_, err = b.RevokeSession(as(*last.Viewer), record.ID{Prefix: "user", UUID: theirs.Viewer.Session})
	refused(t, err, record.BadUserInput, "id")
	ok, err := b.RevokeSession(as(*last.Viewer), list[3].ID)
	require.NoError(t, err)
	require.True(t, ok)
	_, err = b.RevokeSession(as(*last.Viewer), list[3].ID)
	refused(t, err, record.NotFound)
	refused(t, asks(b.Service, all[8]), record.Unauthenticated)

	n, err := b.LogoutEverywhere(as(*last.Viewer))
	require.NoError(t, err)
	require.Equal(t, 9, n)
	refused(t, asks(b.Service, last), record.Unauthenticated)
	require.NoError(t, asks(b.Service, theirs))
	b.has(t, ada, SessionRevoked, LoggedOutEverywhere)
	require.Equal(t, []string{UserRegistered, LoginSucceeded}, b.events(t, eve))
	for _, f := range []func() error{
		func() error { _, err := b.Sessions(plain()); return err },
		func() error { _, err := b.LogoutEverywhere(plain()); return err },
		func() error { _, err := b.RevokeSession(plain(), list[0].ID); return err },
	} {
		refused(t, f(), record.Unauthenticated)
	}
	ok, err = b.Logout(plain())
	require.NoError(t, err)
	require.True(t, ok)
}

// TestManyLogins holds that 200 people who sign in at once are all answered.
func TestManyLogins(t *testing.T) {
	t.Parallel()
	b := setup(t)
	phc, err := b.deps.Passwords.Hash(t.Context(), password)
	require.NoError(t, err)
	b.exec(t, `INSERT INTO users (email, username, name, password_hash, email_verified_at)
		SELECT 'u' || n || '@example.com', 'u' || n, 'U', $1, now() FROM generate_series(1, 200) n`, phc)
	var in atomic.Int32
	atOnce(200, func(i int) {
		p, err := b.Login(plain(), LoginInput{Login: fmt.Sprintf("u%d", i+1), Password: password})
		if err != nil {
			t.Error(err)
			return
		}
		require.NotEqual(t, uuid.Nil, p.Viewer.ID)
		in.Add(1)
	})
	require.EqualValues(t, 200, in.Load())
}
