package auth

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"godstack/internal/mail"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// TestLockUser holds that who is locked by an administrator is out at once and stays out, whatever they prove, and that nobody else can
// tell.
func TestLockUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	root := viewer.Viewer{ID: b.user(t, "root", viewer.Admin), Role: viewer.Admin}
	ada := b.user(t, "ada")
	p := b.login(t, "ada")
	for range 2 { // there is nothing to do the second time
		id, err := b.LockUser(as(root), globalID(ada))
		require.NoError(t, err)
		require.Equal(t, globalID(ada), id)
	}
	refused(t, asks(b.Service, p), record.Unauthenticated)
	_, err := b.Refresh(plain(), p.RefreshToken)
	refused(t, err, record.Unauthenticated)
	require.Equal(t, []string{globalID(root.ID).String()}, texts(t, b.pool,
		`SELECT actor FROM security_events WHERE name = 'account_locked' AND user_id = $1`, ada))

	// The right password is told, a wrong one is not, and neither is a failure of the guard's.
	_, err = b.Login(plain(), LoginInput{Login: "ada", Password: password})
	e := refusal(t, err, record.AccountLocked)
	require.Equal(t, "an administrator has locked this account", e.Message)
	require.Zero(t, e.RetryAfter)
	require.Equal(t, 1, b.count(t, `login_attempts WHERE outcome = 'locked' AND user_id = $1`, ada))
	require.Equal(t, 0, b.count(t, `login_guards WHERE failures > 0`))
	refused(t, b.wrong("ada"), record.Unauthenticated)

	// A new password does not open it.
	_, err = b.RequestPasswordReset(plain(), "ada@example.com")
	require.NoError(t, err)
	_, err = b.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, "ada@example.com"), newPassword)
	require.NoError(t, err)
	_, err = b.Login(plain(), LoginInput{Login: "ada", Password: newPassword})
	refused(t, err, record.AccountLocked)
	require.Equal(t, 0, b.count(t, `sessions WHERE user_id = $1 AND revoked_at IS NULL`, ada))

	_, err = b.UnlockUser(as(root), globalID(ada))
	require.NoError(t, err)
	_, err = b.Login(plain(), LoginInput{Login: "ada", Password: newPassword})
	require.NoError(t, err)
	b.has(t, ada, AccountUnlocked)
}

// TestALockedUsersLinks holds that a link in a mail does not sign in who is locked.
func TestALockedUsersLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	root := viewer.Viewer{ID: b.user(t, "root", viewer.Admin), Role: viewer.Admin}
	_, err := b.Register(plain(), RegisterInput{Email: "ada@example.com", Username: "ada", Name: "Ada", Password: password})
	require.NoError(t, err)
	ada, err := b.FindAccount(as(root), "ada")
	require.NoError(t, err)
	_, err = b.LockUser(as(root), ada.ID)
	require.NoError(t, err)
	_, err = b.VerifyEmail(plain(), b.mailed(t, mail.VerifyEmail, "ada@example.com"))
	refused(t, err, record.AccountLocked)
	require.Equal(t, 0, b.count(t, `sessions`))
}

func TestLockUserRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	root := viewer.Viewer{ID: b.user(t, "root", viewer.Admin), Role: viewer.Admin}
	ada := b.user(t, "ada")
	for _, c := range []struct {
		ctx  context.Context
		id   record.ID
		code record.Code
	}{
		{plain(), globalID(ada), record.Unauthenticated},
		{as(viewer.Viewer{ID: ada, Role: viewer.Moderator}), globalID(root.ID), record.Forbidden},
		{as(root), globalID(root.ID), record.Forbidden},
		{as(root), globalID(uuid.New()), record.NotFound},
		{as(root), record.ID{Prefix: "thread", UUID: ada}, record.BadUserInput},
		{as(viewer.Viewer{ID: ada, Role: viewer.Admin}), globalID(root.ID), record.Forbidden}, // by a token of an administrator who is none any more
	} {
		_, err := b.LockUser(c.ctx, c.id)
		refused(t, err, c.code)
	}
	require.Equal(t, 0, b.count(t, `users WHERE locked_at IS NOT NULL`))
}

// TestAnAdministratorIsLeftUnlocked holds that of two who lock each other at once one stays, that a locked one does not count as the last,
// and that the database sees to it as well.
func TestAnAdministratorIsLeftUnlocked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := []uuid.UUID{b.user(t, "ada", viewer.Admin), b.user(t, "bob", viewer.Admin)}
	var no atomic.Int32
	atOnce(2, func(i int) {
		_, err := b.LockUser(as(viewer.Viewer{ID: ids[i], Role: viewer.Admin}), globalID(ids[1-i]))
		if err != nil {
			no.Add(1)
		}
	})
	require.EqualValues(t, 1, no.Load())
	require.Equal(t, 1, b.count(t, `users WHERE locked_at IS NULL`))

	left, gone := ids[0], ids[1]
	if b.count(t, `users WHERE id = $1 AND locked_at IS NULL`, left) == 0 {
		left, gone = gone, left
	}
	me := as(viewer.Viewer{ID: left, Role: viewer.Admin})
	_, err := b.SetRole(me, globalID(left), viewer.User)
	refused(t, err, record.Forbidden)
	for _, sql := range []string{
		`UPDATE users SET locked_at = now()`, `UPDATE users SET role = 'user' WHERE locked_at IS NULL`, `DELETE FROM users WHERE locked_at IS NULL`,
	} {
		_, err := b.pool.Exec(t.Context(), sql)
		pg, ok := errors.AsType[*pgconn.PgError](err)
		require.True(t, ok, sql)
		require.Equal(t, "GS409", pg.Code)
	}
	_, err = b.SetRole(me, globalID(gone), viewer.User)
	require.NoError(t, err, "the locked one may go")
	require.Equal(t, []string{viewer.Admin, viewer.User}, texts(t, b.pool, `SELECT role FROM users ORDER BY role`))
}

// TestAdministratorsAlone holds that what pages ask for is for administrators.
func TestAdministratorsAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ada := b.user(t, "ada")
	for _, c := range []struct {
		ctx  context.Context
		code record.Code
	}{
		{plain(), record.Unauthenticated}, {as(viewer.Viewer{ID: ada, Role: viewer.Moderator}), record.Forbidden},
	} {
		for name, f := range map[string]func(ctx context.Context) error{
			"accounts":      func(ctx context.Context) error { _, err := b.Accounts(ctx, AccountFilter{}, 1); return err },
			"account":       func(ctx context.Context) error { _, err := b.Account(ctx, globalID(ada)); return err },
			"find":          func(ctx context.Context) error { _, err := b.FindAccount(ctx, "ada"); return err },
			"find by id":    func(ctx context.Context) error { _, err := b.FindAccount(ctx, globalID(ada).String()); return err },
			"sessions":      func(ctx context.Context) error { _, err := b.SessionsOf(ctx, globalID(ada)); return err },
			"revoke":        func(ctx context.Context) error { _, err := b.RevokeSessionsOf(ctx, globalID(ada)); return err },
			"events":        func(ctx context.Context) error { _, err := b.Events(ctx, ExportFilter{}, record.ID{}, 1); return err },
			"anything else": func(ctx context.Context) error { return b.Administer(ctx, JobsDeleted, nil, nil) },
		} {
			t.Run(name, func(t *testing.T) { refused(t, f(c.ctx), c.code) })
		}
	}
}

// TestAdminister holds that what is done and its event are one.
func TestAdminister(t *testing.T) {
	t.Parallel()
	b := setup(t)
	root := viewer.Viewer{ID: b.user(t, "root", viewer.Admin), Role: viewer.Admin}
	failed := errors.New("failed")
	for _, want := range []error{failed, nil} {
		err := b.Administer(as(root), QueuePaused, map[string]any{"queue": "mail"}, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO river_queue (name) VALUES ('mail')`)
			require.NoError(t, err)
			return want
		})
		require.ErrorIs(t, err, want)
		n := 0
		if want == nil {
			n = 1
		}
		require.Equal(t, n, b.count(t, `river_queue`))
		require.Equal(t, n, b.count(t, `security_events WHERE name = 'queue_paused' AND user_id IS NULL AND actor = $1 AND detail = '{"queue": "mail"}'`,
			globalID(root.ID).String()))
	}
}

// TestVisitor holds that a page's session goes on by the refresh token's cookie, and ends as others do.
func TestVisitor(t *testing.T) {
	t.Parallel()
	for _, storage := range []TokenStorage{InHeader, InCookie, InBoth} {
		b := setup(t, func(_ *Deps, c *Config) { c.Storage = storage })
		ada := b.user(t, "ada")
		pages := b.ForPages()
		ctx, h := request()
		_, err := pages.Login(ctx, LoginInput{Login: "ada", Password: password})
		require.NoError(t, err)
		set := (&http.Response{Header: h}).Cookies()
		require.Len(t, set, 2)

		for _, cookies := range [][]*http.Cookie{set, set[1:], {{Name: set[0].Name, Value: "over"}, set[1]}} {
			ctx, h = request(cookies...)
			v, ok, err := pages.Visitor(ctx, "")
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, ada, v.ID)
			require.Equal(t, len(cookies) == 2 && cookies[0] == set[0], len(h.Values("Set-Cookie")) == 0, "the rest got new ones")
		}
		ctx, _ = request(set...)
		_, signedIn, err := b.Viewer(ctx, "")
		require.NoError(t, err)
		require.Equal(t, storage != InHeader, signedIn, "the API reads them where it reads cookies")

		b.exec(t, `UPDATE sessions SET revoked_at = now()`)
		ctx, h = request(set[1:]...)
		_, ok, err := pages.Visitor(ctx, "")
		require.NoError(t, err)
		require.False(t, ok)
		for _, k := range (&http.Response{Header: h}).Cookies() {
			require.Negative(t, k.MaxAge)
		}
		_, ok, err = pages.Visitor(plain(), "")
		require.NoError(t, err)
		require.False(t, ok)
		_, _, err = pages.Visitor(plain(), "Bearer over")
		refused(t, err, record.Unauthenticated)
	}
}
