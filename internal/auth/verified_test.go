package auth

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/viewer"
)

func TestVerifyRemembersUntilExpiry(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	keys, err := ParseKeys(GenerateKey(), "https://example.com", "godstack")
	require.NoError(t, err)
	keys = keys.WithClock(func() time.Time { return now })
	want := Claims{
		ID: uuid.New(), User: uuid.New(), Session: uuid.New(), Role: viewer.User, IssuedAt: now.UTC(), ExpiresAt: now.Add(time.Minute).UTC(),
	}
	token, err := keys.Sign(want)
	require.NoError(t, err)
	for range 2 {
		got, err := keys.Verify(token)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Len(t, keys.verified.young, 1)
	}
	// Another token with the same claims is another token, and one that is refused is not remembered.
	last := strings.LastIndexByte(token, '.')
	for _, forged := range []string{token[:last], token[:last+1] + strings.Repeat("A", len(token)-last-1), token + "A", " " + token} {
		_, err = keys.Verify(forged)
		require.ErrorIs(t, err, ErrToken)
		require.Len(t, keys.verified.young, 1)
	}
	now = now.Add(time.Minute)
	_, err = keys.Verify(token)
	require.ErrorIs(t, err, ErrTokenExpired)
}

func TestVerifiedIsBounded(t *testing.T) {
	t.Parallel()
	v, now := newVerified(), time.Now()
	hash := func(i int) (h tokenHash) {
		binary.BigEndian.PutUint64(h[sha256.Size-8:], uint64(i)) //nolint:gosec // not negative
		return h
	}
	var all sync.WaitGroup
	for g := range 2 {
		all.Go(func() {
			for i := range 2 * mostVerified {
				v.add(hash(2*i+g), Claims{ExpiresAt: now.Add(time.Minute)})
				v.find(hash(i), now)
			}
		})
	}
	all.Wait()
	require.Len(t, v.young, mostVerified)
	require.Len(t, v.old, mostVerified)
	_, ok := v.find(hash(4*mostVerified-1), now)
	require.True(t, ok)
	_, ok = v.find(hash(0), now)
	require.False(t, ok)
}
