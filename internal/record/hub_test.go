package record

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/changelog"
)

// A subscriber that does not keep up loses no field that changed, and gets the newest version.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	g, err := NewEngine(nil, nil, nil)
	require.NoError(t, err)
	id := uuid.New()
	s := g.hub.subscribe(recordKey{"thread", id}, asker{})
	var b changelog.Batch
	for v := range int64(2 * maxPending) {
		field := "subject"
		if v == maxPending+1 {
			field = "members"
		}
		b.Changes = append(b.Changes, changelog.Change{Entity: "thread", ID: id, Version: v + 1, Op: changelog.OpUpdate, Fields: []string{field}})
	}
	g.Deliver(t.Context(), b)
	n, err := s.take(t.Context())
	events, resync := n.events, n.resync
	require.NoError(t, err)
	require.False(t, resync)
	require.Len(t, events, maxPending)
	for i, e := range events[:maxPending-1] {
		require.EqualValues(t, i+1, e.change.Version)
	}
	last := events[maxPending-1].change
	require.EqualValues(t, 2*maxPending, last.Version)
	require.Equal(t, []string{"members", "subject"}, last.Fields)

	// What came before a resync is void, what comes after it is not.
	g.Deliver(t.Context(), b)
	g.Deliver(t.Context(), changelog.Batch{Resync: true})
	g.Deliver(t.Context(), changelog.Batch{Changes: b.Changes[:1]})
	n, err = s.take(t.Context())
	events, resync = n.events, n.resync
	require.NoError(t, err)
	require.True(t, resync)
	require.Len(t, events, 1)
}
