package auth

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/record"
)

// TestTiming prints, with -v, how long known and unknown addresses take: the medians and quartiles of 200 samples each, taken
// in random order: in turn, the garbage of one would be collected in the time of the other. It asserts nothing of them, as machines differ.
func TestTiming(t *testing.T) { //nolint:paralleltest // it measures
	if !testing.Verbose() || testing.Short() {
		t.Skip("it prints: use -v")
	}
	const samples = 200
	b := setup(t)
	phc, err := b.deps.Passwords.Hash(t.Context(), password)
	require.NoError(t, err)
	b.exec(t, `INSERT INTO users (email, username, name, password_hash, email_verified_at) SELECT 'u' || n || '@example.com', 'u' || n, 'U', $1,
		CASE WHEN n <= $2 THEN now() END FROM generate_series(1, 2 * $2) n`, phc, samples)
	ctx := context.WithoutCancel(plain())
	for _, c := range []struct {
		name string
		call func(email string) error
	}{
		{"register", func(email string) error {
			_, err := b.Register(ctx, RegisterInput{Email: email, Username: fmt.Sprintf("x%d", time.Now().UnixNano()%1e15), Name: "Somebody", Password: password})
			return err
		}},
		{"login", func(email string) error {
			_, err := b.Login(ctx, LoginInput{Login: email, Password: "wrong"})
			return err
		}},
		{"forgot", func(email string) error {
			_, err := b.RequestPasswordReset(ctx, email)
			return err
		}},
		{"resend", func(email string) error {
			_, err := b.RequestEmailVerification(ctx, &email)
			return err
		}},
	} {
		times := map[bool][]time.Duration{}
		order := rand.Perm(2 * samples)
		for i, at := range append(order[:20:20], order...) { // a few to get warm
			known := at%2 == 0
			n := at/2 + 1
			email := fmt.Sprintf("%s%d@example.org", c.name, i)
			if known {
				if c.name == "resend" {
					n += samples // not confirmed
				}
				email = fmt.Sprintf("u%d@example.com", n)
			}
			began := time.Now()
			err := c.call(email)
			took := time.Since(began)
			if err != nil {
				require.Contains(t, []record.Code{record.Unauthenticated}, code(t, err))
			}
			if i >= 20 {
				times[known] = append(times[known], took)
			}
		}
		for _, known := range []bool{true, false} {
			d := times[known]
			slices.Sort(d)
			t.Logf("%-8s known=%-5t n=%d median %7s  quartiles %s to %s", c.name, known, len(d), short(d[len(d)/2]), short(d[len(d)/4]), short(d[3*len(d)/4]))
		}
	}
}

func short(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
