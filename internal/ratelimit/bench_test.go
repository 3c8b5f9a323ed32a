package ratelimit

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// BenchmarkPostgres measures a take that is granted and one that is refused, beside 100,000 other keys.
func BenchmarkPostgres(b *testing.B) {
	pool := dbtest.New(b)
	_, err := pool.Exec(b.Context(), `INSERT INTO rate_limits SELECT 'x:' || i, now() + interval '1 hour' FROM generate_series(1, 100000) i`)
	require.NoError(b, err)
	s := NewPostgres(pool)
	b.Run("granted", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			_, err := s.Take(b.Context(), strconv.Itoa(i), Limit{"granted", 5, time.Minute})
			require.NoError(b, err)
		}
	})
	b.Run("refused", func(b *testing.B) {
		for b.Loop() {
			_, err := s.Take(b.Context(), "k", Limit{"refused", 1, time.Hour})
			require.NoError(b, err)
		}
	})
}
