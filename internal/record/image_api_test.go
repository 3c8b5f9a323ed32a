package record_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/internal/changelog"
	"godstack/internal/record"
)

// What the API's mutations, and statements beside it, did to generated entities is undone by the log.
func TestImagesOfGeneratedEntities(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := rand.New(rand.NewPCG(1, 1))
	users := []record.ID{b.ada, b.user(t, "bob"), b.user(t, "eve")}
	stores := map[string]*record.Store{"thread": b.stores.Thread, "message": b.stores.Message, "user": b.stores.User}
	type state struct {
		id      uuid.UUID
		version int64
	}
	was := map[state]record.Node{}
	members := map[state][]string{}
	var now map[uuid.UUID]record.Node
	remember := func() {
		now = map[uuid.UUID]record.Node{}
		for _, s := range stores {
			c, err := s.Find(t.Context(), record.Page{First: new(100), Deleted: new(record.IncludeDeleted)})
			require.NoError(t, err)
			for _, n := range c.Nodes {
				v := reflect.ValueOf(n).Elem()
				id := v.FieldByName("ID").Interface().(uuid.UUID)
				now[id] = n
				at := state{id, v.FieldByName("Version").Int()}
				was[at] = n
				if s == b.stores.Thread {
					members[at] = one[[]string](t, b,
						`SELECT array_agg(user_id::text ORDER BY user_id) FROM thread_members WHERE thread_id = $1`, id)
				}
			}
		}
	}
	for i := range 80 {
		var threads []record.ID
		for id := range now {
			if thread, ok := now[id].(*ent.Thread); ok && thread.DeletedAt == nil {
				threads = append(threads, record.ID{Prefix: "thread", UUID: id})
			}
		}
		slices.SortFunc(threads, func(a, b record.ID) int { return slices.Compare(a.UUID[:], b.UUID[:]) })
		some := users[r.IntN(len(users))]
		switch n := r.IntN(12); {
		case len(threads) == 0 || n == 0:
			b.thread(t, fmt.Sprint("thread ", i), some)
		default:
			x := threads[r.IntN(len(threads))]
			input := object{"subject": fmt.Sprint("subject ", i)}
			switch {
			case n == 1 && i%2 == 0:
				b.sql(t, `DELETE FROM threads WHERE id = $1`, x.UUID)
			case n == 1:
				b.ok(t, `mutation($id: ID!, $v: Int!) { deleteThread(id: $id, expectedVersion: $v) { version } }`,
					"id", x, "v", b.version(t, x))
			case n < 5:
				b.message(t, x, fmt.Sprint("message ", i))
			case n < 6:
				b.sql(t, `UPDATE users SET name = $2, password_hash = $2, role = 'admin',
					email_verified_at = CASE WHEN email_verified_at IS NULL THEN now() END WHERE id = $1`, some.UUID, fmt.Sprint("name ", i))
			case n < 7:
				b.sql(t, `UPDATE messages SET body = body || '!'`)
			case n < 9:
				input = object{"removeMemberIDs": []string{some.String()}}
				fallthrough
			case n < 10:
				input["addMemberIDs"] = []string{users[r.IntN(len(users))].String()}
				fallthrough
			default:
				b.ok(t, `mutation($id: ID!, $v: Int!, $in: UpdateThreadInput!) {
					updateThread(id: $id, expectedVersion: $v, input: $in) { version } }`,
					"id", x, "v", b.version(t, x), "in", input)
			}
		}
		remember()
	}

	rows, err := b.Query(t.Context(), `SELECT entity, id, version, op::text, fields, old FROM changes
		WHERE entity IN ('thread', 'message', 'user') ORDER BY seq DESC`)
	require.NoError(t, err)
	defer rows.Close()
	compared := map[string]int{}
	for rows.Next() {
		var c changelog.Change
		var op string
		require.NoError(t, rows.Scan(&c.Entity, &c.ID, &c.Version, &op, &c.Fields, (*[]byte)(&c.Old)))
		c.Op = changelog.Op(op[0])
		n, l, err := stores[c.Entity].Before(now[c.ID], c)
		require.NoError(t, err)
		before := state{c.ID, c.Version - 1}
		if want := was[before]; want != nil {
			compared[c.Entity+" "+op]++
			if c.Op == changelog.OpUpdate {
				reflect.ValueOf(n).Elem().FieldByName("UpdatedAt").Set(reflect.ValueOf(want).Elem().FieldByName("UpdatedAt"))
			}
			expected, err := json.Marshal(want)
			require.NoError(t, err)
			actual, err := json.Marshal(n)
			require.NoError(t, err)
			require.Equal(t, string(expected), string(actual), "%s %v %s", op, c.Fields, c.Old)
			for _, id := range l["members"].Removed {
				require.Contains(t, members[before], id.String())
			}
			for _, id := range l["members"].Added {
				require.NotContains(t, members[before], id.String())
			}
			require.Equal(t, slices.Contains(c.Fields, "members") || c.Op == changelog.OpDelete && len(members[before]) > 0, len(l) > 0)
		}
		now[c.ID] = n
	}
	require.NoError(t, rows.Err())
	for _, kind := range []string{"thread U", "thread D", "message U", "user U"} {
		require.NotZero(t, compared[kind], "%s of %v", kind, compared)
	}
	require.NotEqual(t, time.UTC, time.Local, "times are compared with their location")
}
