package changelog

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// days writes a change for each of the last ten days, and one of today.
func (b *bundle) days() {
	b.exec(`DO $$ BEGIN FOR n IN REVERSE 9..0 LOOP
			INSERT INTO changes (slot, at, entity, op) SELECT changelog_slot(at), at, n, 'R' FROM (SELECT now() - n * interval '1 day') s (at);
			COMMIT;
		END LOOP; END $$`)
}

func (b *bundle) left() string {
	b.t.Helper()
	return b.text(`SELECT coalesce(string_agg(entity, ' ' ORDER BY seq), '') FROM changes`)
}

func TestExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.days()
	emptied, err := Expire(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, 1, emptied)
	require.Equal(t, "9 7 6 5 4 3 2 1 0", b.left(), "that of nine days ago shares today's partition")
	require.Equal(t, "true", b.text(`SELECT expired > '0' AND expired < (SELECT xid FROM changes WHERE entity = '7') FROM changelog_state`))

	emptied, err = Expire(t.Context(), b)
	require.NoError(t, err)
	require.Zero(t, emptied)

	// Three days go by in which nothing is written.
	require.Equal(t, "3", b.text(`SELECT changelog_expire((now() AT TIME ZONE 'UTC')::date + 3)`))
	require.Equal(t, "9 4 3 2 1 0", b.left())
	require.Equal(t, "5", b.text(`SELECT changelog_expire((now() AT TIME ZONE 'UTC')::date + 30)`))
	require.Empty(t, b.left())
}

func TestExpireWaitsForNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.days()
	reader, err := b.Begin(t.Context())
	require.NoError(t, err)
	_, err = reader.Exec(t.Context(), `SELECT count(*) FROM changes WHERE entity IN ('8', '7')`)
	require.NoError(t, err)
	emptied, err := Expire(t.Context(), b)
	require.NoError(t, err)
	require.Zero(t, emptied)
	require.Equal(t, "0", b.text(`SELECT expired FROM changelog_state`))
	require.NoError(t, reader.Rollback(t.Context()))
	emptied, err = Expire(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, 1, emptied)
}

func TestExpireOnOneNode(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.days()
	one, err := b.Begin(t.Context())
	require.NoError(t, err)
	_, err = Expire(t.Context(), one)
	require.NoError(t, err)
	emptied, err := Expire(t.Context(), b)
	require.NoError(t, err)
	require.Zero(t, emptied, "the other has not ended")
	require.NoError(t, one.Rollback(t.Context()))
}

// TestExpiredWhileAway: a reader that was not there for so long that what it has not read is gone.
func TestExpiredWhileAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reader()
	away := r.position
	b.exec(`INSERT INTO thread (id) VALUES (#1)`)
	b.text(`SELECT changelog_expire('2100-01-01')`)
	b.exec(`INSERT INTO thread (id) VALUES (#2)`)
	batch, err := r.read(t.Context())
	require.NoError(t, err)
	require.True(t, batch.Resync)
	require.Empty(t, batch.Changes)
	batch, err = r.read(t.Context())
	require.NoError(t, err)
	require.False(t, batch.Resync)

	// Back on another connection, as a tailer does it.
	r = b.reader()
	r.position = away
	batch, err = r.read(t.Context())
	require.NoError(t, err)
	require.True(t, batch.Resync)
}
