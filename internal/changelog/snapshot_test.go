package changelog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

func TestSnapshotText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"1:1:", "10:20:", "10:20:10", "10:20:10,14,19", "18446744073709551614:18446744073709551615:18446744073709551614"} {
		s, err := ParseSnapshot(text)
		require.NoError(t, err)
		require.Equal(t, text, s.String())
	}
	for _, text := range []string{
		"", "1", "1:2", ":", "::", "0:1:", "2:1:", "1:2:,", "1:3:2,", "1:3:2,1", "1:4:2,2", "1:3:3", "2:3:1", "01:2:", "+1:2:", "1:2: ", "-1:2:",
		"1:18446744073709551616:",
	} {
		_, err := ParseSnapshot(text)
		require.ErrorContains(t, err, "parse snapshot", text)
	}
}

func TestVisible(t *testing.T) {
	t.Parallel()
	const text = "10:20:10,14,19"
	s, err := ParseSnapshot(text)
	require.NoError(t, err)
	require.Equal(t, uint64(10), s.Xmin())
	require.Equal(t, uint64(20), s.Xmax())
	for xid, visible := range map[uint64]bool{
		0: true, 9: true, 10: false, 11: true, 13: true, 14: false, 15: true, 18: true, 19: false, 20: false, 21: false,
	} {
		require.Equal(t, visible, s.Visible(xid), xid)
	}
	require.False(t, Snapshot{}.Visible(1))

	var same bool
	err = dbtest.New(t).QueryRow(t.Context(), `SELECT bool_and(pg_visible_in_snapshot(x::text::xid8, $1::text::pg_snapshot) = (x = ANY ($2)))
		FROM generate_series(1, 30) x`, text, visible(s, 30)).Scan(&same)
	require.NoError(t, err)
	require.True(t, same, "Postgres sees the same")
}

func visible(s Snapshot, below uint64) (xids []int64) {
	for x := range below {
		if s.Visible(x) {
			xids = append(xids, int64(x))
		}
	}
	return xids
}

func FuzzParseSnapshot(f *testing.F) {
	for _, text := range []string{"1:1:", "10:20:10,14,19", "0:0:", "1:2:x", "10:20:10,,14"} {
		f.Add(text, uint64(14))
	}
	f.Fuzz(func(t *testing.T, text string, xid uint64) {
		s, err := ParseSnapshot(text)
		if err != nil {
			return
		}
		require.Equal(t, text, s.String())
		require.False(t, s.Visible(s.Xmax()))
		require.True(t, s.Visible(s.Xmin()-1))
		if s.Visible(xid) {
			require.Less(t, xid, s.Xmax())
		} else {
			require.GreaterOrEqual(t, xid, s.Xmin())
		}
	})
}
