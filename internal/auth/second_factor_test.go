package auth

import (
	"encoding/base32"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"godstack/internal/mail"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// authenticatorOf enrolls one, confirms it, and returns what makes its codes, and the backup codes.
func (b *bundle) authenticatorOf(t testing.TB, p *Payload) (now func() string, backup []string) {
	t.Helper()
	e, err := b.EnrollTotp(as(*p.Viewer), password)
	require.NoError(t, err)
	require.Contains(t, e.URI, "otpauth://totp/Godstack:")
	_, err = base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(e.Secret)
	require.NoError(t, err)
	now = func() string {
		c, err := totp.GenerateCode(e.Secret, b.clock())
		require.NoError(t, err)
		return c
	}
	backup, err = b.ConfirmTotp(as(*p.Viewer), now())
	require.NoError(t, err)
	require.Len(t, backup, 10)
	return now, backup
}

func (b *bundle) loginWith(code string) (*Payload, error) {
	return b.Login(plain(), LoginInput{Login: "ada", Password: password, Code: &code})
}

// Who took a session over cannot turn a second factor on, and lock its owner out.
func TestEnrollingTakesThePassword(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	_, err := b.EnrollTotp(as(*p.Viewer), "not the password")
	refused(t, err, record.BadUserInput, "password")
	require.Equal(t, 0, b.count(t, `authenticators`))
	require.Equal(t, 1, b.count(t, `login_attempts WHERE outcome = 'wrong_password'`))
}

func TestSecondFactor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	p := b.login(t, "ada")
	_, err := b.ConfirmTotp(as(*p.Viewer), "000000")
	refused(t, err, record.BadUserInput, "code")
	_, err = b.EnrollTotp(as(*p.Viewer), password) // the next one replaces it
	require.NoError(t, err)
	_, err = b.ConfirmTotp(as(*p.Viewer), "x")
	refused(t, err, record.BadUserInput, "code")
	require.NotNil(t, b.login(t, "ada").AccessToken, "not before it is confirmed")
	current, backup := b.authenticatorOf(t, p)
	_, err = b.EnrollTotp(as(*p.Viewer), password)
	refused(t, err, record.AlreadyExists)
	require.Equal(t, 0, b.count(t, `authenticators WHERE length(secret) <= 20`), "encrypted")

	// The password alone is not enough, and is no failure; a wrong password does not tell of the code.
	for range 5 {
		_, err = b.Login(plain(), LoginInput{Login: "ada", Password: password})
		e := refusal(t, err, record.Unauthenticated, "code")
		require.Equal(t, "a second factor is needed", e.Message)
	}
	_, err = b.Login(plain(), LoginInput{Login: "ada", Password: "wrong"})
	require.ErrorIs(t, err, errLogin)

	_, err = b.loginWith(current())
	refused(t, err, record.Unauthenticated, "code") // it confirmed already, and works once
	b.advance(30 * time.Second)
	_, err = b.loginWith(current())
	require.NoError(t, err)
	_, err = b.loginWith(current())
	refused(t, err, record.Unauthenticated, "code")
	_, err = b.loginWith(backup[0])
	require.NoError(t, err)
	_, err = b.loginWith(backup[0])
	refused(t, err, record.Unauthenticated, "code")
	b.has(t, id, TwoFactorEnabled, BackupCodeUsed)
	require.Contains(t, b.mails("ada@example.com"), mail.TwoFactorChanged)
	require.Equal(t, 1, b.count(t, `users WHERE totp_confirmed_at IS NOT NULL`))

	// A reset of the password leaves it in force.
	_, err = b.RequestPasswordReset(plain(), "ada@example.com")
	require.NoError(t, err)
	_, err = b.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, "ada@example.com"), newPassword)
	require.NoError(t, err)
	_, err = b.Login(plain(), LoginInput{Login: "ada", Password: newPassword})
	refused(t, err, record.Unauthenticated, "code")
}

// TestCodesAreGuarded holds that wrong codes lock as wrong passwords do.
func TestCodesAreGuarded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	current, _ := b.authenticatorOf(t, b.login(t, "ada"))
	for range 10 {
		b.patient(t)
		_, err := b.Login(plain(), LoginInput{Login: "ada", Password: password}) // does not reset
		refused(t, err, record.Unauthenticated, "code")
		_, err = b.loginWith("abcdef")
		refused(t, err, record.Unauthenticated, "code")
	}
	b.advance(time.Minute)
	_, err := b.loginWith(current())
	refused(t, err, record.AccountLocked)
	require.Equal(t, 10, b.count(t, `login_attempts WHERE outcome = 'wrong_code'`))
	require.Equal(t, 10, b.count(t, `login_attempts WHERE outcome = 'code_required'`))
}

// TestCodeOnce holds that a code, and a backup code, works once of many at once.
func TestCodeOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	current, backup := b.authenticatorOf(t, b.login(t, "ada"))
	b.advance(time.Minute)
	for _, c := range []string{current(), backup[3]} {
		var won atomic.Int32
		atOnce(5, func(int) {
			if _, err := b.loginWith(c); err == nil {
				won.Add(1)
			}
		})
		require.EqualValues(t, 1, won.Load())
		b.exec(t, `DELETE FROM login_guards`)
	}
}

func TestDisableTotp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	p := b.login(t, "ada")
	me := as(*p.Viewer)
	_, err := b.DisableTotp(me, password, "1")
	refused(t, err, record.BadUserInput, "code")
	_, backup := b.authenticatorOf(t, p)
	_, err = b.DisableTotp(me, "wrong", backup[0])
	refused(t, err, record.BadUserInput, "password")
	_, err = b.DisableTotp(me, password, "wrong")
	refused(t, err, record.BadUserInput, "code")
	require.Equal(t, []string{"2"}, texts(t, b.pool, `SELECT failures::text FROM login_guards`))
	ok, err := b.DisableTotp(me, password, backup[0])
	require.NoError(t, err)
	require.True(t, ok)
	b.login(t, "ada")
	require.Equal(t, 0, b.count(t, `authenticators`)+b.count(t, `backup_codes`)+b.count(t, `users WHERE totp_confirmed_at IS NOT NULL`))
	b.has(t, id, TwoFactorDisabled)
}

// TestVerifyEmailIsNoSecondFactor holds that the link in a mail does not sign in who has a second factor.
func TestVerifyEmailIsNoSecondFactor(t *testing.T) {
	t.Parallel()
	b := setup(t, optional)
	p, err := b.Register(plain(), newcomer("ada"))
	require.NoError(t, err)
	b.authenticatorOf(t, p)
	p, err = b.VerifyEmail(plain(), b.mailed(t, mail.VerifyEmail, "ada@example.com"))
	require.NoError(t, err)
	require.Equal(t, &Payload{}, p)
}

// TestParallelCodes holds that of wrong codes at once no more than the threshold are looked at, with the password too.
func TestParallelCodes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	b.authenticatorOf(t, p)
	atOnce(50, func(int) {
		_, err := b.DisableTotp(as(*p.Viewer), password, "000000")
		require.Error(t, err)
	})
	n := b.count(t, `login_attempts WHERE outcome = 'wrong_code'`)
	require.Positive(t, n)
	require.LessOrEqual(t, n, 10)
}

// TestARightPasswordIsNoFailure holds that whatever else is wrong with a request, its right password counts for nothing.
func TestARightPasswordIsNoFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	me := as(*b.login(t, "ada").Viewer)
	for range 15 {
		_, err := b.DisableTotp(me, password, "000000")
		refused(t, err, record.BadUserInput, "code")
		_, err = b.ChangePassword(me, password, "password")
		refused(t, err, record.BadUserInput, "password")
	}
	require.Equal(t, 0, b.count(t, `login_guards WHERE failures > 0`))
}

// TestRevertRemovesTheirSecondFactor holds that who takes an address back is not locked out by whoever took it.
func TestRevertRemovesTheirSecondFactor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	p := b.login(t, "ada")
	revert := func() {
		_, err := b.RevertEmail(plain(), b.mailed(t, mail.EmailChanged, "ada@example.com"))
		require.NoError(t, err)
		_, err = b.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, "ada@example.com"), password)
		require.NoError(t, err)
	}
	b.moveTo(t, p, "thief@example.com")
	b.authenticatorOf(t, p)
	revert()
	p = b.login(t, "ada")
	require.NotNil(t, p.AccessToken)
	b.has(t, id, TwoFactorDisabled)
	require.Equal(t, 0, b.count(t, `authenticators`)+b.count(t, `backup_codes`))

	// One's own from before stays.
	b.authenticatorOf(t, p)
	b.moveTo(t, p, "thief2@example.com")
	revert()
	_, err := b.Login(plain(), LoginInput{Login: "ada", Password: password})
	refused(t, err, record.Unauthenticated, "code")
}

// TestResetRemovesTheirSecondFactor holds that who registers an address of somebody else cannot lock them out of it.
func TestResetRemovesTheirSecondFactor(t *testing.T) {
	t.Parallel()
	b := setup(t, optional)
	p, err := b.Register(plain(), newcomer("ada"))
	require.NoError(t, err)
	b.authenticatorOf(t, p)
	_, err = b.RequestPasswordReset(plain(), "ada@example.com")
	require.NoError(t, err)
	_, err = b.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, "ada@example.com"), newPassword)
	require.NoError(t, err)
	_, err = b.Login(plain(), LoginInput{Login: "ada", Password: newPassword})
	require.NoError(t, err)
	b.has(t, p.Viewer.ID, TwoFactorDisabled)
}

func TestResetTwoFactor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	root := viewer.Viewer{ID: b.user(t, "root", viewer.Admin), Role: viewer.Admin}
	ada := b.user(t, "ada")
	p := b.login(t, "ada")
	b.authenticatorOf(t, p)
	_, err := b.ResetTwoFactor(as(*p.Viewer), globalID(ada))
	refused(t, err, record.Forbidden)
	_, err = b.ResetTwoFactor(plain(), globalID(ada))
	refused(t, err, record.Unauthenticated)
	_, err = b.ResetTwoFactor(as(root), globalID(root.ID))
	refused(t, err, record.Forbidden)
	_, err = b.ResetTwoFactor(as(root), globalID(uuid.New()))
	refused(t, err, record.NotFound)
	_, err = b.ResetTwoFactor(as(root), record.ID{Prefix: "thread", UUID: ada})
	refused(t, err, record.BadUserInput, "id")
	require.NotContains(t, b.events(t, ada), TwoFactorDisabled)

	for range 2 { // there is nothing to do the second time
		id, err := b.ResetTwoFactor(as(root), globalID(ada))
		require.NoError(t, err)
		require.Equal(t, globalID(ada), id)
	}
	b.login(t, "ada")
	require.Equal(t, []string{globalID(root.ID).String()}, texts(t, b.pool,
		`SELECT actor FROM security_events WHERE name = 'two_factor_disabled' AND user_id = $1`, ada))
	require.Equal(t, []string{mail.TwoFactorChanged, mail.TwoFactorChanged}, b.mails("ada@example.com"))
}

// TestConfirmTotpIsGuarded holds that codes cannot be guessed to turn on an authenticator that one has not seen.
func TestConfirmTotpIsGuarded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	me := as(*b.login(t, "ada").Viewer)
	_, err := b.EnrollTotp(me, password)
	require.NoError(t, err)
	for range 10 {
		b.patient(t)
		_, err = b.ConfirmTotp(me, "000000")
		refused(t, err, record.BadUserInput, "code")
	}
	_, err = b.ConfirmTotp(me, "000000")
	refused(t, err, record.AccountLocked)

	b.exec(t, `DELETE FROM login_guards`)
	e, err := b.EnrollTotp(me, password)
	require.NoError(t, err)
	b.exec(t, `UPDATE authenticators SET updated_at = now() - interval '15 min'`)
	c, err := totp.GenerateCode(e.Secret, b.clock())
	require.NoError(t, err)
	_, err = b.ConfirmTotp(me, c)
	refused(t, err, record.BadUserInput, "code")
	require.Equal(t, 0, b.count(t, `login_guards WHERE failures > 0`))
}
