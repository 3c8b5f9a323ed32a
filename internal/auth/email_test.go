package auth

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/mail"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

func TestResetPassword(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	p := b.login(t, "ada")
	for range 10 {
		b.patient(t)
		refused(t, b.wrong("ada"), record.Unauthenticated)
	}
	b.exec(t, `UPDATE users SET email_verified_at = NULL`)
	for range 2 {
		ok, err := b.RequestPasswordReset(plain(), "ADA@example.com")
		require.NoError(t, err)
		require.True(t, ok)
	}
	require.Equal(t, 2, b.count(t, `security_events WHERE name = 'password_reset_requested' AND user_id = $1`, id))
	var first string
	for _, m := range b.mail.Messages() {
		if m.Kind == mail.ResetPassword {
			_, first, _ = strings.Cut(m.Links()[0], "token=") // the last of the list is the oldest
		}
	}
	token := b.mailed(t, mail.ResetPassword, "ada@example.com")
	require.Regexp(t, `^got_[A-Za-z0-9_-]{43}$`, token)
	for _, bad := range []string{"", "x", first, *p.RefreshToken} {
		_, err := b.ResetPassword(plain(), bad, newPassword)
		refused(t, err, record.BadUserInput, "token")
	}
	_, err := b.ResetPassword(plain(), token, "ada12345")
	refused(t, err, record.BadUserInput, "password") // and the token is still good
	_, err = b.VerifyEmail(plain(), token)
	refused(t, err, record.BadUserInput, "token") // for another purpose

	ok, err := b.ResetPassword(plain(), token, newPassword)
	require.NoError(t, err)
	require.True(t, ok)
	_, err = b.ResetPassword(plain(), token, newPassword)
	refused(t, err, record.BadUserInput, "token")
	refused(t, asks(b.Service, p), record.Unauthenticated)
	_, err = b.Refresh(plain(), p.RefreshToken)
	refused(t, err, record.Unauthenticated)
	_, err = b.Login(plain(), LoginInput{Login: "ada", Password: newPassword}) // unlocked, and the address is proved
	require.NoError(t, err)
	b.has(t, id, PasswordReset)
	require.Contains(t, b.mails("ada@example.com"), mail.PasswordChanged)
	require.Equal(t, 0, b.count(t, `one_time_tokens WHERE hash = convert_to($1, 'UTF8')`, token))
}

func TestTokenExpires(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	_, err := b.RequestPasswordReset(plain(), "ada@example.com")
	require.NoError(t, err)
	b.exec(t, `UPDATE one_time_tokens SET expires_at = expires_at - interval '24 h'`)
	_, err = b.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, "ada@example.com"), newPassword)
	refused(t, err, record.BadUserInput, "token")
}

// TestTokenOnce holds that of 20 who use a token at once, over two nodes, one succeeds.
func TestTokenOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.Register(plain(), newcomer("ada"))
	require.NoError(t, err)
	verify := b.mailed(t, mail.VerifyEmail, "ada@example.com")
	nodes := []*Service{b.Service, b.node(t)}
	for name, use := range map[string]func(s *Service) error{
		"verify": func(s *Service) error { _, err := s.VerifyEmail(plain(), verify); return err },
		"reset": func(s *Service) error {
			_, err := s.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, "ada@example.com"), newPassword)
			return err
		},
	} {
		if name == "reset" {
			_, err := b.RequestPasswordReset(plain(), "ada@example.com")
			require.NoError(t, err)
			// The reset voids the other link: verify first.
			b.exec(t, `UPDATE one_time_tokens SET used_at = NULL WHERE purpose = 'verify_email'`)
		}
		var won atomic.Int32
		atOnce(20, func(i int) {
			if err := use(nodes[i%2]); err == nil {
				won.Add(1)
			} else if code(t, err) != record.BadUserInput {
				t.Error(err)
			}
		})
		require.EqualValues(t, 1, won.Load(), name)
		b.exec(t, `UPDATE one_time_tokens SET used_at = NULL WHERE purpose = 'verify_email'`)
	}
}

// TestRequestsSayNothing holds that forgot and resend answer alike for known and unknown addresses, and leave nothing behind
// for the latter.
func TestRequestsSayNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada") // confirmed
	_, err := b.Register(plain(), newcomer("bob"))
	require.NoError(t, err)
	tokens, mails := b.count(t, `one_time_tokens WHERE used_at IS NULL`), len(b.mail.Messages())
	for _, email := range []string{"nobody@example.com", "", "\x00", "no address"} {
		ok, err := b.RequestPasswordReset(plain(), email)
		require.NoError(t, err)
		require.True(t, ok)
		ok, err = b.RequestEmailVerification(plain(), &email)
		require.NoError(t, err)
		require.True(t, ok)
	}
	known := "ada@example.com"
	ok, err := b.RequestEmailVerification(plain(), &known)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, tokens, b.count(t, `one_time_tokens WHERE used_at IS NULL`))
	require.Len(t, b.mail.Messages(), mails)
	require.Equal(t, []string{UserRegistered, UserRegistered}, b.events(t, [16]byte{}))

	// Who is not confirmed gets another link, which voids the first.
	first := b.mailed(t, mail.VerifyEmail, "bob@example.com")
	bob := "BOB@example.com"
	_, err = b.RequestEmailVerification(plain(), &bob)
	require.NoError(t, err)
	_, err = b.VerifyEmail(plain(), first)
	refused(t, err, record.BadUserInput, "token")
	p, err := b.VerifyEmail(plain(), b.mailed(t, mail.VerifyEmail, "bob@example.com"))
	require.NoError(t, err)
	require.NotNil(t, p.AccessToken)
	b.has(t, p.Viewer.ID, EmailVerificationRequested)

	// Without an argument it is about who asks.
	_, err = b.RequestEmailVerification(plain(), nil)
	refused(t, err, record.Unauthenticated)
	ok, err = b.RequestEmailVerification(as(*p.Viewer), nil)
	require.NoError(t, err)
	require.True(t, ok)
}

func TestChangeEmail(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	b.user(t, "bob")
	p := b.login(t, "ada")
	me := as(*p.Viewer)
	_, err := b.ChangeEmail(plain(), password, "new@example.com")
	refused(t, err, record.Unauthenticated)
	_, err = b.ChangeEmail(me, "wrong", "new@example.com")
	refused(t, err, record.BadUserInput, "password")
	for _, bad := range []string{"", "new", "ada@example.com", "Ada <new@example.com>"} {
		_, err = b.ChangeEmail(me, password, bad)
		refused(t, err, record.BadUserInput, "email")
	}
	ok, err := b.ChangeEmail(me, password, "BOB@example.com") // says nothing
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, []string{mail.AccountExists}, b.mails("bob@example.com"))

	_, err = b.ChangeEmail(me, password, " New@Example.com")
	require.NoError(t, err)
	require.Empty(t, b.mails("ada@example.com"))
	_, err = b.RequestPasswordReset(plain(), "ada@example.com")
	require.NoError(t, err)
	stale := b.mailed(t, mail.ResetPassword, "ada@example.com")
	confirmed, err := b.VerifyEmail(plain(), b.mailed(t, mail.ChangeEmail, "new@example.com"))
	require.NoError(t, err)
	require.Equal(t, &Payload{}, confirmed, "who reads the new mailbox is not signed in by that")
	require.Equal(t, []string{"new@example.com"}, texts(t, b.pool, `SELECT email FROM users WHERE id = $1`, id))
	_, err = b.ResetPassword(plain(), stale, newPassword)
	refused(t, err, record.BadUserInput, "token")
	require.NoError(t, asks(b.Service, p))
	b.login(t, "new@example.com")

	// Changed once more, the first owner still takes it back.
	first := b.mailed(t, mail.EmailChanged, "ada@example.com")
	_, err = b.ChangeEmail(me, password, "newer@example.com")
	require.NoError(t, err)
	_, err = b.VerifyEmail(plain(), b.mailed(t, mail.ChangeEmail, "newer@example.com"))
	require.NoError(t, err)
	second := b.mailed(t, mail.EmailChanged, "new@example.com")
	_, err = b.ChangeEmail(me, password, "newest@example.com")
	require.NoError(t, err)

	ok, err = b.RevertEmail(plain(), first)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, []string{"ada@example.com"}, texts(t, b.pool, `SELECT email FROM users WHERE id = $1`, id))
	refused(t, asks(b.Service, p), record.Unauthenticated)
	for _, void := range []string{first, second} {
		_, err = b.RevertEmail(plain(), void)
		refused(t, err, record.BadUserInput, "token")
	}
	_, err = b.VerifyEmail(plain(), b.mailed(t, mail.ChangeEmail, "newest@example.com"))
	refused(t, err, record.BadUserInput, "token")
	refused(t, b.wrong("ada"), record.Unauthenticated)
	_, err = b.Login(plain(), LoginInput{Login: "ada", Password: password})
	refused(t, err, record.Unauthenticated) // whoever changed it knew this one
	_, err = b.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, "ada@example.com"), newPassword)
	require.NoError(t, err)
	_, err = b.Login(plain(), LoginInput{Login: "ada", Password: newPassword})
	require.NoError(t, err)
	b.has(t, id, EmailChangeRequested, EmailChanged, EmailReverted, PasswordReset)
}

// TestChangeToATakenAddress holds that an address that was taken before the link was opened is not had twice.
func TestChangeToATakenAddress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	_, err := b.ChangeEmail(as(*p.Viewer), password, "bob@example.com")
	require.NoError(t, err)
	b.user(t, "bob")
	_, err = b.VerifyEmail(plain(), b.mailed(t, mail.ChangeEmail, "bob@example.com"))
	refused(t, err, record.AlreadyExists, "email")
}

// TestEvents holds that every event has a severity, and that the list of them in the code is whole.
func TestEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	for name, severity := range Severities {
		require.Contains(t, []string{Info, Warning, Critical}, severity, name)
	}
	err := b.inTx(t.Context(), id, func(_ context.Context, t2 tx) error {
		return t2.happened(as(viewer.Viewer{ID: id}), SuspiciousLogin, id, id, nil)
	})
	require.NoError(t, err)
	require.Equal(t, []string{"suspicious_login critical r1"}, texts(t, b.pool,
		`SELECT name || ' ' || severity || ' ' || request_id FROM security_events ORDER BY id DESC LIMIT 1`))
	for _, sql := range []string{`DELETE FROM security_events`, `UPDATE security_events SET name = 'x'`, `TRUNCATE security_events`} {
		_, err := b.pool.Exec(t.Context(), sql)
		require.ErrorContains(t, err, "append-only", sql)
	}
	names := []string{
		UserRegistered, LoginSucceeded, NewDeviceLogin, SuspiciousLogin, LoggedOut, LoggedOutEverywhere, SessionRevoked, TokenReuseDetected,
		TokenFamilyRevoked, AccountLocked, AccountUnlocked, PasswordChanged, PasswordResetRequested, PasswordReset, EmailVerified,
		EmailVerificationRequested, EmailChangeRequested, EmailChanged, EmailReverted, EmailReleased, TwoFactorEnabled, TwoFactorDisabled, BackupCodeUsed, RoleChanged,
		JobsRetried, JobsCancelled, JobsDeleted, QueuePaused, QueueResumed, QueueChanged,
	}
	for name := range Severities {
		require.Contains(t, names, name)
	}
	require.Len(t, Severities, len(names))
}

// moveTo changes the address of who asks.
func (b *bundle) moveTo(t testing.TB, p *Payload, email string) {
	t.Helper()
	_, err := b.ChangeEmail(as(*p.Viewer), password, email)
	require.NoError(t, err)
	_, err = b.VerifyEmail(plain(), b.mailed(t, mail.ChangeEmail, email))
	require.NoError(t, err)
}

// TestTheOldestOwnerWins holds that who took an address over cannot void the link of its owner by taking a later change
// back.
func TestTheOldestOwnerWins(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	p := b.login(t, "ada")
	b.moveTo(t, p, "thief@example.com")
	b.moveTo(t, p, "other@example.com")
	owners, thiefs := b.mailed(t, mail.EmailChanged, "ada@example.com"), b.mailed(t, mail.EmailChanged, "thief@example.com")

	_, err := b.RevertEmail(plain(), thiefs)
	require.NoError(t, err)
	require.Equal(t, []string{"thief@example.com"}, texts(t, b.pool, `SELECT email FROM users WHERE id = $1`, id))
	_, err = b.RevertEmail(plain(), owners)
	require.NoError(t, err)
	require.Equal(t, []string{"ada@example.com"}, texts(t, b.pool, `SELECT email FROM users WHERE id = $1`, id))
	_, err = b.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, "thief@example.com"), newPassword)
	refused(t, err, record.BadUserInput, "token")
	_, err = b.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, "ada@example.com"), newPassword)
	require.NoError(t, err)
}

// TestUnprovedGivesWay holds that who has registered an address without confirming it keeps nobody from it whose it is.
func TestUnprovedGivesWay(t *testing.T) {
	t.Parallel()
	b := setup(t, optional)
	id := b.user(t, "ada")
	p := b.login(t, "ada")
	b.moveTo(t, p, "thief@example.com")
	in := newcomer("mallory")
	in.Email = "ada@example.com"
	squatter, err := b.Register(plain(), in)
	require.NoError(t, err)

	_, err = b.RevertEmail(plain(), b.mailed(t, mail.EmailChanged, "ada@example.com"))
	require.NoError(t, err)
	require.Equal(t, []string{"ada@example.com"}, texts(t, b.pool, `SELECT email FROM users WHERE id = $1`, id))
	require.Equal(t, 1, b.count(t, `users WHERE id = $1 AND email LIKE '%@example.invalid' AND email_verified_at IS NULL`, squatter.Viewer.ID))
	refused(t, asks(b.Service, squatter), record.Unauthenticated)
	_, err = b.VerifyEmail(plain(), b.mailed(t, mail.VerifyEmail, "ada@example.com"))
	refused(t, err, record.BadUserInput, "token")
	b.has(t, squatter.Viewer.ID, EmailReleased)

	// So does one to which somebody changes.
	b.user(t, "bob")
	in = newcomer("eve")
	in.Email = "bob2@example.com"
	_, err = b.Register(plain(), in)
	require.NoError(t, err)
	b.moveTo(t, b.login(t, "bob"), "bob2@example.com")
	b.login(t, "bob2@example.com")

	// Who has confirmed it keeps it, and the link stays good.
	eve := b.user(t, "eva")
	b.moveTo(t, b.login(t, "eva"), "eva2@example.com")
	in = newcomer("joe")
	in.Email = "eva@example.com"
	joe, err := b.Register(plain(), in)
	require.NoError(t, err)
	b.exec(t, `UPDATE users SET email_verified_at = now() WHERE id = $1`, joe.Viewer.ID)
	link := b.mailed(t, mail.EmailChanged, "eva@example.com")
	_, err = b.RevertEmail(plain(), link)
	refused(t, err, record.AlreadyExists, "email")
	b.exec(t, `UPDATE users SET email_verified_at = NULL WHERE id = $1`, joe.Viewer.ID)
	_, err = b.RevertEmail(plain(), link)
	require.NoError(t, err)
	require.Equal(t, []string{"eva@example.com"}, texts(t, b.pool, `SELECT email FROM users WHERE id = $1`, eve))
}

// TestLinksFollowTheAddress holds that a link which was mailed to an address is of no use once the account has another,
// and that none is mailed to one that the account had.
func TestLinksFollowTheAddress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	_, err := b.RequestPasswordReset(plain(), "ada@example.com")
	require.NoError(t, err)
	b.exec(t, `UPDATE users SET email = 'new@example.com'`)
	_, err = b.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, "ada@example.com"), newPassword)
	refused(t, err, record.BadUserInput, "token")

	u, err := b.recipient(plain(), b.cfg.Limits.Forgot, "new@example.com", func(*user) bool { return true })
	require.NoError(t, err)
	b.exec(t, `UPDATE users SET email = 'newer@example.com'`)
	err = b.inTx(plain(), uuid.Nil, func(ctx context.Context, t tx) error {
		return b.mailLink(ctx, t, u, resetPassword, PasswordResetRequested, func(u *user, _ string) (mail.Message, error) {
			return b.compose(ctx, mail.AccountExists, u.Email, mail.Data{})
		})
	})
	require.NoError(t, err)
	require.Equal(t, []string{mail.ResetPassword}, b.mails("ada@example.com"))
	require.Len(t, b.mail.Messages(), 1)
}

// TestAddresses holds that an account has an address that mail can be sent to.
func TestAddresses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []string{"\x01", "\x7f", "\t", "\u0085", "\u009f", "\r\n ", "\u2028", "a", "ä"} {
		address := "a" + c + "b@example.com"
		in := newcomer("ada")
		in.Email = address
		_, err := b.Register(plain(), in)
		m := mail.Message{To: address, Subject: "s", Text: "t", Kind: "k"}
		if err == nil {
			require.NoError(t, m.Validate(), "%q", address)
			b.exec(t, `DELETE FROM users`)
			continue
		}
		refused(t, err, record.BadUserInput, "email")
	}
}
