package auth

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/mail"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

func newcomer(name string) RegisterInput {
	return RegisterInput{Email: name + "@example.com", Username: name, Name: "Somebody New", Password: password}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	b := setup(t, optional)
	p, err := b.Register(plain(), RegisterInput{Email: " Ada@Example.com ", Username: "ADA", Name: " Ada ", Password: password})
	require.NoError(t, err)
	require.NoError(t, asks(b.Service, p))
	v, ok, err := b.Viewer(plain(), "bearer "+*p.AccessToken)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, *p.Viewer, v)
	require.Equal(t, viewer.User, v.Role)
	require.Equal(t, []string{"ada@example.com ada Ada false"},
		texts(t, b.pool, `SELECT concat_ws(' ', email, username, name, (email_verified_at IS NOT NULL)::text) FROM users`))
	b.has(t, v.ID, UserRegistered)
	require.Equal(t, []string{mail.VerifyEmail}, b.mails("ada@example.com"))
	require.Equal(t, []string{v.ID.String()}, texts(t, b.pool, `SELECT DISTINCT actor FROM changes WHERE entity IN ('user', 'session')`))

	// A known address is said to be: this cannot be hidden where who registers is signed in at once.
	in := newcomer("bob")
	in.Email = "ADA@example.com"
	_, err = b.Register(plain(), in)
	refused(t, err, record.AlreadyExists, "email")
}

func TestRegisterUnverified(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p, err := b.Register(plain(), newcomer("ada"))
	require.NoError(t, err)
	require.Equal(t, &Payload{}, p)
	require.Equal(t, 0, b.count(t, `sessions`))

	// Until the address is confirmed, the right password answers as registering did.
	p, err = b.Login(plain(), LoginInput{Login: "ada", Password: password})
	require.NoError(t, err)
	require.Equal(t, &Payload{}, p)
	require.Equal(t, []string{outcomeUnverified}, texts(t, b.pool, `SELECT outcome FROM login_attempts`))

	p, err = b.VerifyEmail(plain(), b.mailed(t, mail.VerifyEmail, "ada@example.com"))
	require.NoError(t, err)
	require.NoError(t, asks(b.Service, p))
	b.has(t, p.Viewer.ID, UserRegistered, EmailVerified)
	b.login(t, "ada")
}

// TestRegisterKnownAddress holds that a known address answers like a new one, writes nothing, and that its owner is told.
func TestRegisterKnownAddress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	in := newcomer("mallory")
	in.Email = "Ada@example.com"
	p, err := b.Register(plain(), in)
	require.NoError(t, err)
	require.Equal(t, &Payload{}, p)
	require.Equal(t, 1, b.count(t, `users`))
	require.Equal(t, 0, b.count(t, `one_time_tokens`))
	require.Equal(t, 1, b.count(t, `changes WHERE entity = 'user'`))
	require.Equal(t, []string{mail.AccountExists}, b.mails("ada@example.com"))

	// What is wrong is wrong in both cases.
	for _, email := range []string{"ada@example.com", "new@example.com"} {
		in := newcomer("ada")
		in.Email = email
		_, err = b.Register(plain(), in)
		refused(t, err, record.AlreadyExists, "username")
		in.Username = "1"
		_, err = b.Register(plain(), in)
		refused(t, err, record.BadUserInput, "username")
		in.Username, in.Name = "mallory", " "
		_, err = b.Register(plain(), in)
		refused(t, err, record.BadUserInput, "name")
		in.Name, in.Password = "M", "password"
		_, err = b.Register(plain(), in)
		refused(t, err, record.BadUserInput, "password")
	}
	in = newcomer("mallory")
	in.Email = "nobody"
	_, err = b.Register(plain(), in)
	refused(t, err, record.BadUserInput, "email")
	require.Equal(t, 1, b.count(t, `users`))
}

func TestRegisterRace(t *testing.T) {
	t.Parallel()
	for _, verification := range []Verification{VerifyOptional, VerifyRequired} {
		t.Run(string(verification), func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(_ *Deps, c *Config) { c.VerifyEmail = verification })
			var won atomic.Int32
			atOnce(10, func(i int) { // one name
				in := newcomer("ada")
				in.Email = fmt.Sprintf("ada%d@example.com", i)
				if _, err := b.Register(plain(), in); err == nil {
					won.Add(1)
				} else if code(t, err) != record.AlreadyExists {
					t.Error(err)
				}
			})
			require.EqualValues(t, 1, won.Load())
			won.Store(0)
			atOnce(10, func(i int) { // one address
				in := newcomer(fmt.Sprintf("bob%d", i))
				in.Email = "bob@example.com"
				if _, err := b.Register(plain(), in); err == nil {
					won.Add(1)
				} else if code(t, err) != record.AlreadyExists {
					t.Error(err)
				}
			})
			require.Equal(t, 2, b.count(t, `users`))
			if verification == VerifyRequired {
				require.EqualValues(t, 10, won.Load())
				kinds := b.mails("bob@example.com")
				require.Len(t, kinds, 10)
				require.Contains(t, kinds, mail.VerifyEmail)
				require.Contains(t, kinds, mail.AccountExists)
			} else {
				require.EqualValues(t, 1, won.Load())
			}
		})
	}
}

func TestCreateUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "root", viewer.Admin)
	require.Equal(t, viewer.Admin, b.login(t, "root").Viewer.Role)
	b.has(t, id, UserRegistered)
	_, err := b.CreateUser(context.Background(), NewUser{Email: "other@example.com", Username: "root", Name: "R", Password: password})
	refused(t, err, record.AlreadyExists, "username")
	_, err = b.CreateUser(context.Background(), NewUser{Email: "root@example.com", Username: "other", Name: "R", Password: password})
	refused(t, err, record.AlreadyExists, "email")
	_, err = b.CreateUser(context.Background(), NewUser{Email: "o@example.com", Username: "o2", Name: "O", Password: password, Role: "king"})
	refused(t, err, record.BadUserInput, "role")
}

func TestSetRole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	root := viewer.Viewer{ID: b.user(t, "root", viewer.Admin), Role: viewer.Admin}
	ada := b.user(t, "ada")
	p := b.login(t, "ada")

	_, err := b.SetRole(as(*p.Viewer), globalID(ada), viewer.Admin)
	refused(t, err, record.Forbidden)
	_, err = b.SetRole(plain(), globalID(ada), viewer.Admin)
	refused(t, err, record.Unauthenticated)
	_, err = b.SetRole(as(root), globalID(root.ID), viewer.User)
	refused(t, err, record.Forbidden)
	_, err = b.SetRole(as(root), globalID(uuid.New()), viewer.User)
	refused(t, err, record.NotFound)
	_, err = b.SetRole(as(root), record.ID{Prefix: "thread", UUID: ada}, viewer.User)
	refused(t, err, record.BadUserInput, "id")

	id, err := b.SetRole(as(root), globalID(ada), viewer.Admin)
	require.NoError(t, err)
	require.Equal(t, globalID(ada), id)
	require.Equal(t, []string{root.ID.String()}, texts(t, b.pool, `SELECT actor FROM changes WHERE entity = 'user' AND 'role' = ANY(fields)`))
	b.has(t, ada, RoleChanged)

	// The access token ends, the session goes on with the new role.
	refused(t, asks(b.Service, p), record.Unauthenticated)
	refused(t, asks(b.node(t), p), record.Unauthenticated)
	p, err = b.Refresh(plain(), p.RefreshToken)
	require.NoError(t, err)
	require.Equal(t, viewer.Admin, p.Viewer.Role)
	require.NoError(t, asks(b.Service, p))

	// Of two administrators who depose each other at once, one stays.
	atOnce(2, func(i int) {
		if i == 0 {
			_, _ = b.SetRole(as(root), globalID(ada), viewer.User)
		} else {
			_, _ = b.SetRole(as(viewer.Viewer{ID: ada, Role: viewer.Admin}), globalID(root.ID), viewer.User)
		}
	})
	require.Equal(t, 1, b.count(t, `users WHERE role = 'admin'`))
}

func TestChangePassword(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.user(t, "ada")
	one, two := b.login(t, "ada"), b.login(t, "ada")
	_, err := b.RequestPasswordReset(plain(), "ada@example.com")
	require.NoError(t, err)

	_, err = b.ChangePassword(as(*one.Viewer), "wrong", newPassword)
	refused(t, err, record.BadUserInput, "current")
	require.Equal(t, 1, b.count(t, `login_attempts WHERE outcome = 'wrong_password'`), "it counts as a failure")
	_, err = b.ChangePassword(as(*one.Viewer), password, "12345678")
	refused(t, err, record.BadUserInput, "password")
	_, err = b.ChangePassword(plain(), password, newPassword)
	refused(t, err, record.Unauthenticated)

	p, err := b.ChangePassword(as(*one.Viewer), password, newPassword)
	require.NoError(t, err)
	require.NoError(t, asks(b.Service, p))
	for _, old := range []*Payload{one, two} {
		refused(t, asks(b.Service, old), record.Unauthenticated)
		_, err = b.Refresh(plain(), old.RefreshToken)
		refused(t, err, record.Unauthenticated)
	}
	_, err = b.Login(plain(), LoginInput{Login: "ada", Password: password})
	refused(t, err, record.Unauthenticated)
	_, err = b.ResetPassword(plain(), b.mailed(t, mail.ResetPassword, "ada@example.com"), password)
	refused(t, err, record.BadUserInput, "token")
	b.has(t, id, PasswordChanged)
	require.Contains(t, b.mails("ada@example.com"), mail.PasswordChanged)
}
