package changelog

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHistory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.here()
	history := func(spans ...Span) []string {
		t.Helper()
		changes, err := History(t.Context(), b, spans)
		require.NoError(t, err)
		return short(changes)
	}
	b.exec(`INSERT INTO thread (id) VALUES (#1), (#2); INSERT INTO person (id) VALUES (#1);
		UPDATE thread SET title = 'a'; UPDATE thread SET title = 'b' WHERE id = #1; DELETE FROM thread WHERE id = #2`)
	one, two := Span{Entity: "Thread", ID: id(1)}, Span{Entity: "Thread", ID: id(2)}
	require.Empty(t, history())
	require.Empty(t, history(Span{Entity: "Thread", ID: id(3)}, Span{Entity: "Thread", ID: id(1), After: 3}))
	require.Equal(t, []string{"T1 v1 I", "T1 v2 U", "T1 v3 U"}, history(one))
	require.Equal(t, []string{"T1 v2 U", "T1 v3 U"}, history(Span{one.Entity, one.ID, 1, 3}))
	require.Equal(t, []string{"T1 v2 U"}, history(Span{one.Entity, one.ID, 1, 2}))
	require.Equal(t, []string{"T1 v1 I", "T2 v1 I", "T1 v2 U", "T2 v2 U", "T1 v3 U", "T2 v3 D"}, history(one, two), "in order of seq")
	require.Equal(t, []string{"T1 v2 U", "T1 v2 U", "T1 v3 U"}, history(Span{one.Entity, one.ID, 1, 2}, Span{one.Entity, one.ID, 1, 3}),
		"spans know nothing of each other")

	changes, err := History(t.Context(), b, []Span{{one.Entity, one.ID, 2, 0}})
	require.NoError(t, err)
	require.Equal(t, []string{"title"}, changes[0].Fields)
	require.JSONEq(t, `{"title": "a"}`, string(changes[0].Old))

	// Versions 2 and 3 of another record with the id are in the log as well.
	b.exec(`INSERT INTO thread (id) VALUES (#2); UPDATE thread SET title = 'c' WHERE id = #2`)
	second := []string{"T2 v1 I", "T2 v2 U"}
	require.Equal(t, second[:1], history(Span{two.Entity, two.ID, 0, 1}))
	require.Equal(t, second[1:], history(Span{two.Entity, two.ID, 1, 2}))
	require.Equal(t, second, history(two))
	require.Equal(t, second, history(Span{two.Entity, two.ID, 0, 3}))

	b.exec(`DELETE FROM changes WHERE id = #1 AND version = 2`) // as retention does
	require.Equal(t, []string{"T1 v3 U"}, history(one), "nothing before a gap")
}

func TestLater(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.here()
	b.exec(`INSERT INTO thread (id) VALUES (#1), (#2); INSERT INTO person (id) VALUES (#1);
		UPDATE thread SET title = 'a'; UPDATE thread SET title = 'b' WHERE id = #1; DELETE FROM thread WHERE id = #2;
		INSERT INTO thread (id) VALUES (#2); UPDATE thread SET title = 'c' WHERE id = #2; UPDATE thread SET title = 'd' WHERE id = #2`)
	lives, err := History(t.Context(), b, []Span{{Entity: "Thread", ID: id(1)}, {Entity: "Thread", ID: id(2)}})
	require.NoError(t, err)
	place := func(text string) Place {
		t.Helper()
		for _, c := range lives {
			if short([]Change{c})[0] == text {
				return Place{c.Entity, c.ID, c.Version, c.Seq}
			}
		}
		t.Fatal(text)
		return Place{}
	}
	later := func(places ...Place) []string {
		t.Helper()
		changes, err := Later(t.Context(), b, places)
		require.NoError(t, err)
		return short(changes)
	}
	require.Empty(t, later())
	require.Equal(t, []string{"T1 v2 U", "T1 v3 U"}, later(place("T1 v1 I")))
	require.Empty(t, later(place("T1 v3 U")))
	require.Equal(t, []string{"T1 v3 U", "T2 v2 U", "T2 v3 U"}, later(place("T2 v1 I"), place("T1 v2 U")), "in order of seq")
	require.Empty(t, later(place("T2 v3 U")))

	first := place("T1 v1 I")
	first.ID = id(2) // beside it, in the statement that made the first
	require.Equal(t, []string{"T2 v2 U", "T2 v3 D", "T2 v2 U", "T2 v3 U"}, later(first), "the end, then another record")
	first.Version = 2
	require.Equal(t, []string{"T2 v3 D", "T2 v3 U"}, later(first))
}
