package entpgx

import (
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"
)

func TestRegisterUUID(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]*bundle{"plain": setup(t), "registered": setup(t, registered)} {
		var (
			one, parsed, null   uuid.UUID
			pointer, nilPointer *uuid.UUID
			list                []uuid.UUID
			bytes               [16]byte
			pg                  pgtype.UUID
			text                string
		)
		err := b.pool.QueryRow(t.Context(), "select $1::uuid, $2::uuid, $3::uuid, $4::uuid[], $1::uuid, $1::uuid, $1::uuid::text, null::uuid",
			uid, &uid2, nilPointer, []uuid.UUID{uid, uid2}).Scan(&one, &pointer, &nilPointer, &list, &bytes, &pg, &text, &null)
		require.NoError(t, err, name)
		require.Equal(t, uid, one, name)
		require.Equal(t, &uid2, pointer, name)
		require.Nil(t, nilPointer, name)
		require.Equal(t, []uuid.UUID{uid, uid2}, list, name)
		require.Equal(t, [16]byte(uid), bytes, name)
		require.Equal(t, pgtype.UUID{Bytes: uid, Valid: true}, pg, name)
		require.Equal(t, uid.String(), text, name)
		require.Zero(t, null, name)

		n := 0
		err = b.pool.QueryRow(t.Context(), "select count(*) from unnest($1::uuid[]) id where id = any($2)",
			[]uuid.UUID{uid, uid2}, []uuid.UUID{uid2}).Scan(&n)
		require.NoError(t, err, name)
		require.Equal(t, 1, n, name)
		require.NoError(t, b.pool.QueryRow(t.Context(), "select $1::uuid", uid.String()).Scan(&parsed), name)
		require.Equal(t, uid, parsed, name)
	}
}
