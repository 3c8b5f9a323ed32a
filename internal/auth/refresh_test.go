package auth

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/mail"
	"godstack/internal/record"
)

// age makes all rotations older.
func (b *bundle) age(t testing.TB, by string) {
	t.Helper()
	b.exec(t, `UPDATE refresh_tokens SET rotated_at = rotated_at - $1::text::interval`, by)
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	b.exec(t, `UPDATE sessions SET expires_at = now() + interval '1 hour'`)
	for range 3 {
		next, err := b.Refresh(plain(), p.RefreshToken)
		require.NoError(t, err)
		require.NotEqual(t, *p.RefreshToken, *next.RefreshToken)
		require.NoError(t, asks(b.Service, next))
		require.Equal(t, p.Viewer, next.Viewer)
		p = next
	}
	require.Equal(t, []string{"168"}, texts(t, b.pool, `SELECT round(extract(epoch FROM expires_at - now()) / 3600)::text FROM sessions`))
	require.Equal(t, 4, b.count(t, `refresh_tokens`))
	require.Equal(t, 1, b.count(t, `refresh_tokens WHERE rotated_at IS NULL`))
	require.Equal(t, []string{p.Viewer.ID.String()}, texts(t, b.pool, `SELECT DISTINCT coalesce(actor, '') FROM changes WHERE entity = 'session' AND op = 'U' AND 'last_used_at' = ANY(fields) AND actor IS NOT NULL`))
	// Nothing of a token is stored.
	require.Equal(t, 0, b.count(t, `refresh_tokens WHERE hash = convert_to($1, 'UTF8')`, *p.RefreshToken))

	for _, unknown := range []string{"", "gst_x", *p.AccessToken, newToken(refreshTokenPrefix)} {
		_, err := b.Refresh(plain(), &unknown)
		refused(t, err, record.Unauthenticated)
	}
	require.NotContains(t, b.events(t, p.Viewer.ID), TokenReuseDetected)
}

// TestRefreshEnds holds that a session has an absolute end, and that its last access token does not outlive it.
func TestRefreshEnds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	var ends time.Time
	require.NoError(t, b.pool.QueryRow(t.Context(),
		`UPDATE sessions SET ends_at = now() + interval '5 min', expires_at = now() + interval '5 min' RETURNING ends_at`).Scan(&ends))
	p, err := b.Refresh(plain(), p.RefreshToken)
	require.NoError(t, err)
	require.True(t, ends.Truncate(time.Second).Equal(*p.ExpiresAt), "in whole seconds")
	b.exec(t, `UPDATE sessions SET ends_at = now(), expires_at = now()`)
	_, err = b.Refresh(plain(), p.RefreshToken)
	refused(t, err, record.Unauthenticated)
	require.NotContains(t, b.events(t, p.Viewer.ID), TokenReuseDetected)
}

// TestSameChild holds that a token gives the same child again within the grace, also after a key was added, and that the
// chain goes on.
func TestSameChild(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	child, err := b.Refresh(plain(), p.RefreshToken)
	require.NoError(t, err)
	b.deps.Secrets = &Secrets{keys: append(b.mustSecrets(t).keys, b.deps.Secrets.keys...)}
	for _, s := range []*Service{b.Service, b.node(t)} {
		again, err := s.Refresh(plain(), p.RefreshToken)
		require.NoError(t, err)
		require.Equal(t, *child.RefreshToken, *again.RefreshToken)
		require.NoError(t, asks(s, again))
	}
	require.Equal(t, 2, b.count(t, `refresh_tokens`))

	// Without the key nobody can tell the child; it is no reuse either.
	b.deps.Secrets = b.mustSecrets(t)
	_, err = b.node(t).Refresh(plain(), p.RefreshToken)
	refused(t, err, record.Unauthenticated)
	_, err = b.Refresh(plain(), child.RefreshToken)
	require.NoError(t, err)
	require.Equal(t, []string{UserRegistered, LoginSucceeded}, b.events(t, p.Viewer.ID))
}

func (b *bundle) mustSecrets(t testing.TB) *Secrets {
	t.Helper()
	s, err := ParseSecrets(GenerateSecret())
	require.NoError(t, err)
	return s
}

func TestReuse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		reuse func(t *testing.T, b *bundle, first, second, third *Payload) *Payload // which one is used again
	}{
		{"late", func(t *testing.T, b *bundle, _, second, _ *Payload) *Payload {
			b.age(t, "31 s")
			return second
		}},
		{"grandparent within the grace", func(_ *testing.T, _ *bundle, first, _, _ *Payload) *Payload { return first }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			ada := b.user(t, "ada")
			first := b.login(t, "ada")
			other := b.login(t, "ada")
			second, err := b.Refresh(plain(), first.RefreshToken)
			require.NoError(t, err)
			third, err := b.Refresh(plain(), second.RefreshToken)
			require.NoError(t, err)

			again := c.reuse(t, b, first, second, third)
			for range 3 {
				_, err = b.Refresh(plain(), again.RefreshToken)
				refused(t, err, record.Unauthenticated)
			}
			_, err = b.Refresh(plain(), third.RefreshToken)
			refused(t, err, record.Unauthenticated)
			refused(t, asks(b.Service, third), record.Unauthenticated)
			_, err = b.Refresh(plain(), other.RefreshToken) // another family
			require.NoError(t, err)

			require.Equal(t, 1, b.count(t, `security_events WHERE name = 'token_reuse_detected' AND user_id = $1 AND severity = 'critical'`, ada))
			require.Equal(t, 1, b.count(t, `security_events WHERE name = 'token_family_revoked' AND user_id = $1`, ada))
			require.Equal(t, []string{mail.TokenReuse}, b.mails("ada@example.com"))
			require.Equal(t, []string{TokenReuseDetected}, texts(t, b.pool, `SELECT revoked_because FROM sessions WHERE revoked_at IS NOT NULL`))
		})
	}
}

// TestRefreshRace holds that of 50 refreshes with one token over two nodes all answer the same child, and that there is one.
func TestRefreshRace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	nodes := []*Service{b.Service, b.node(t)}
	var mu sync.Mutex
	children := map[string]int{}
	for round := range 3 {
		clear(children)
		atOnce(50, func(i int) {
			child, err := nodes[i%2].Refresh(plain(), p.RefreshToken)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			children[*child.RefreshToken]++
		})
		require.Len(t, children, 1)
		require.Equal(t, round+2, b.count(t, `refresh_tokens`))
		require.Equal(t, 1, b.count(t, `refresh_tokens WHERE rotated_at IS NULL`))
		for child := range children {
			p = &Payload{RefreshToken: &child}
		}
	}
	require.Equal(t, 0, b.count(t, `security_events WHERE name = 'token_reuse_detected'`))
}

// TestRefreshStorm walks a chain from many clients that hold whatever they were answered last: there is never a second
// leaf, and never an answer that is not the leaf or its parent.
func TestRefreshStorm(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	atOnce(8, func(int) {
		token := p.RefreshToken
		for range 5 {
			next, err := b.Refresh(plain(), token)
			if err != nil {
				return // another has gone two steps on meanwhile: reuse
			}
			token = next.RefreshToken
		}
	})
	require.LessOrEqual(t, b.count(t, `refresh_tokens WHERE rotated_at IS NULL`), 1)
	require.Equal(t, b.count(t, `refresh_tokens`), b.count(t, `refresh_tokens WHERE parent_id IS NOT NULL`)+1)
}

// TestNoFork holds that the database refuses a second child.
func TestNoFork(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	_, err := b.Refresh(plain(), p.RefreshToken)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `INSERT INTO refresh_tokens (session_id, parent_id, hash, expires_at)
		SELECT session_id, parent_id, 'x', expires_at FROM refresh_tokens WHERE parent_id IS NOT NULL`)
	require.ErrorContains(t, err, "refresh_tokens_parent_id_key")
}

// TestRefreshAfterRevocation holds that a token of a revoked session is no reuse.
func TestRefreshAfterRevocation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ada := b.user(t, "ada")
	p := b.login(t, "ada")
	child, err := b.Refresh(plain(), p.RefreshToken)
	require.NoError(t, err)
	_, err = b.Logout(as(*p.Viewer))
	require.NoError(t, err)
	for _, token := range []*string{p.RefreshToken, child.RefreshToken} {
		_, err = b.Refresh(plain(), token)
		refused(t, err, record.Unauthenticated)
	}
	require.NotContains(t, b.events(t, ada), TokenReuseDetected)
}

// TestRefreshRacesRevocation holds that no leaf is alive after a session was revoked, whoever was first.
func TestRefreshRacesRevocation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	for i := range 10 {
		p := b.login(t, "ada")
		var next *Payload
		atOnce(2, func(i int) {
			if i == 0 {
				next, _ = b.Refresh(plain(), p.RefreshToken)
			} else {
				_, _ = b.Logout(as(*p.Viewer))
			}
		})
		if next == nil {
			next = p
		}
		_, err := b.Refresh(plain(), next.RefreshToken)
		refused(t, err, record.Unauthenticated)
		refused(t, asks(b.Service, next), record.Unauthenticated)
		require.Equal(t, 0, b.count(t, `sessions WHERE revoked_at IS NULL`), fmt.Sprint(i))
	}
}
