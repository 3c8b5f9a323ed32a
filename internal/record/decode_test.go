package record

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A time is taken as Postgres keeps it, so that a create answers what a later read gives.
func TestTimesHaveMicroseconds(t *testing.T) {
	t.Parallel()
	v, err := (&Field{Kind: Time}).decode("2026-01-02T03:04:05.123456789+01:00")
	require.NoError(t, err)
	require.Equal(t, time.Date(2026, 1, 2, 2, 4, 5, 123456000, time.UTC), v)
}
