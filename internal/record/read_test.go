package record_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/entity"
	"godstack/internal/record"
)

func TestNode(t *testing.T) {
	t.Parallel()
	b := setup(t)
	x := b.thread(t, "x")
	m := b.message(t, x, "hello")
	gone := record.ID{Prefix: "thread", UUID: entity.NewID()}
	const node = `query($id: ID!) { node(id: $id) { __typename id ... on Thread { subject } ... on Message { body } ... on User { username } } }`
	for id, want := range map[record.ID]string{
		x:                                `{"node": {"__typename": "Thread", "id": "` + x.String() + `", "subject": "x"}}`,
		m:                                `{"node": {"__typename": "Message", "id": "` + m.String() + `", "body": "hello"}}`,
		b.ada:                            `{"node": {"__typename": "User", "id": "` + b.ada.String() + `", "username": "ada"}}`,
		gone:                             `{"node": null}`,
		{Prefix: "thread", UUID: m.UUID}: `{"node": null}`,
	} {
		require.JSONEq(t, want, string(b.ok(t, node, "id", id).Data))
	}

	a := b.ok(t, `query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }`,
		"ids", []string{m.String(), gone.String(), x.String(), b.ada.String(), m.String()})
	require.JSONEq(t, fmt.Sprintf(`{"nodes": [{"__typename": "Message", "id": %[1]q}, null, {"__typename": "Thread", "id": %[2]q},
		{"__typename": "User", "id": %[3]q}, {"__typename": "Message", "id": %[1]q}]}`, m, x, b.ada), string(a.Data))
	require.JSONEq(t, `{"nodes": []}`, string(b.ok(t, `{ nodes(ids: []) { id } }`).Data))

	// Where the type is known, a plain UUID will do.
	a = b.ok(t, `query($id: ID!) { thread(id: $id) { id } }`, "id", x.UUID)
	require.Equal(t, x.String(), a.text(t, "thread.id"))
	require.JSONEq(t, `{"thread": null}`, string(b.ok(t, `query($id: ID!) { thread(id: $id) { id } }`, "id", gone).Data))
}

func TestRecords(t *testing.T) {
	t.Parallel()
	b := setup(t, oneConnection)
	x, y, z := b.thread(t, "x"), b.thread(t, "y"), b.thread(t, "z")
	m := b.message(t, x, "hello")
	b.sql(t, `UPDATE threads SET subject = 'newer' WHERE id = $1`, y.UUID)
	gone := record.ID{Prefix: "message", UUID: entity.NewID()}
	ref := func(id record.ID, version ...int) object {
		r := object{"id": id.String()}
		if len(version) > 0 {
			r["knownVersion"] = version[0]
		}
		return r
	}
	const records = `query($refs: [RecordRef!]!) { records(refs: $refs) { threads { id } messages { id } users { id } unchanged missing } }`
	for _, c := range []struct {
		name                                        string
		refs                                        []object
		threads, messages, users, unchanged, missed []record.ID
		statements                                  int
	}{
		{name: "nothing"},
		{"all kinds", []object{ref(m), ref(x), ref(b.ada), ref(y)}, []record.ID{x, y}, []record.ID{m}, []record.ID{b.ada}, nil, nil, 3},
		{"current", []object{ref(x, 1), ref(y, 2)}, nil, nil, nil, []record.ID{x, y}, nil, 1},
		{"older", []object{ref(y, 1)}, []record.ID{y}, nil, nil, nil, nil, 1},
		{"newer", []object{ref(y, 3)}, []record.ID{y}, nil, nil, nil, nil, 1},
		{"zero", []object{ref(y, 0), ref(x, -1)}, []record.ID{y, x}, nil, nil, nil, nil, 1},
		{"missing", []object{ref(gone), ref(x, 1)}, nil, nil, nil, []record.ID{x}, []record.ID{gone}, 2},
		{"missing, and known", []object{ref(gone, 1)}, nil, nil, nil, nil, []record.ID{gone}, 1},
		{"twice", []object{ref(z), ref(x, 1), ref(z), ref(x, 1)}, []record.ID{z}, nil, nil, []record.ID{x}, nil, 1},
		{"twice, once without it", []object{ref(x, 1), ref(x)}, []record.ID{x}, nil, nil, nil, nil, 1},
		{"twice, once with it", []object{ref(x), ref(x, 1)}, []record.ID{x}, nil, nil, nil, nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			refs := c.refs
			if refs == nil {
				refs = []object{}
			}
			b.trace.reset()
			a := b.ok(t, records, "refs", refs)
			statements, _ := b.trace.statements()
			require.Len(t, statements, c.statements)
			list := func(ids []record.ID, format string) string {
				s := []string{}
				for _, id := range ids {
					s = append(s, fmt.Sprintf(format, id))
				}
				return "[" + strings.Join(s, ",") + "]"
			}
			require.JSONEq(t, `{"records": {"threads": `+list(c.threads, `{"id": %q}`)+`, "messages": `+list(c.messages, `{"id": %q}`)+
				`, "users": `+list(c.users, `{"id": %q}`)+`, "unchanged": `+list(c.unchanged, `%q`)+`, "missing": `+list(c.missed, `%q`)+`}}`, string(a.Data))
		})
	}
}

func TestManyRefs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	many := func(n int) (ids []string, refs []object) {
		for range n {
			id := record.ID{Prefix: "thread", UUID: entity.NewID()}.String()
			ids, refs = append(ids, id), append(refs, object{"id": id})
		}
		return ids, refs
	}
	ids, refs := many(1000)
	require.Len(t, b.ok(t, `query($refs: [RecordRef!]!) { records(refs: $refs) { missing } }`, "refs", refs).at(t, "records.missing"), 1000)
	require.Len(t, b.ok(t, `query($ids: [ID!]!) { nodes(ids: $ids) { id } }`, "ids", ids).at(t, "nodes"), 1000)
	ids, refs = many(1001)
	err := b.fails(t, `query($refs: [RecordRef!]!) { records(refs: $refs) { missing } }`, "refs", refs)
	require.Equal(t, "TOO_COMPLEX", err.code())
	require.Equal(t, []any{"refs"}, err.Extensions["fields"])
	err = b.fails(t, `query($ids: [ID!]!) { nodes(ids: $ids) { id } }`, "ids", ids)
	require.Equal(t, "TOO_COMPLEX", err.code())
	require.Equal(t, []any{"ids"}, err.Extensions["fields"])
}

func TestConnections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 25 {
		b.thread(t, fmt.Sprintf("%02d", i))
	}
	const threads = `query($first: Int, $after: Cursor, $last: Int, $before: Cursor, $where: ThreadWhereInput) {
		threads(first: $first, after: $after, last: $last, before: $before, orderBy: [{field: SUBJECT}], where: $where) {
			totalCount edges { cursor node { subject } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }`
	all := b.ok(t, threads, "first", 100)
	cursor := func(i int) string { return all.text(t, fmt.Sprintf("threads.edges.%d.cursor", i)) }
	for _, c := range []struct {
		name           string
		args           []any
		first, n       int // which are answered
		next, previous bool
		total          int
	}{
		{"all", []any{"first", 100}, 0, 25, false, false, 25},
		{"default", nil, 0, 20, true, false, 25},
		{"first", []any{"first", 3}, 0, 3, true, false, 25},
		{"first of none", []any{"first", 0}, 0, 0, true, false, 25},
		{"after", []any{"first", 3, "after", cursor(2)}, 3, 3, true, true, 25},
		{"up to the end", []any{"first", 3, "after", cursor(21)}, 22, 3, false, true, 25},
		{"after the end", []any{"first", 3, "after", cursor(24)}, 0, 0, false, true, 25},
		{"last", []any{"last", 3}, 22, 3, false, true, 25},
		{"before", []any{"last", 3, "before", cursor(22)}, 19, 3, true, true, 25},
		{"back to the start", []any{"last", 3, "before", cursor(3)}, 0, 3, true, false, 25},
		{"last of none", []any{"last", 0}, 0, 0, false, true, 25},
		{"between", []any{"first", 10, "after", cursor(3), "before", cursor(6)}, 4, 2, false, true, 25},
		{"between, from the end", []any{"last", 1, "after", cursor(3), "before", cursor(6)}, 5, 1, true, true, 25},
		{"first before", []any{"first", 2, "before", cursor(6)}, 0, 2, true, false, 25},
		{"where", []any{"first", 2, "where", object{"subjectGTE": "20"}}, 20, 2, true, false, 5},
		{"nulls are absent", []any{"first", nil, "after", nil, "last", nil, "before", nil, "where", nil}, 0, 20, true, false, 25},
	} {
		a := b.ok(t, threads, c.args...)
		want := []string{}
		for i := range c.n {
			want = append(want, fmt.Sprintf("%02d", c.first+i))
		}
		require.Equal(t, want, a.texts(t, "threads", "subject"), c.name)
		require.Equal(t, c.next, a.at(t, "threads.pageInfo.hasNextPage"), c.name)
		require.Equal(t, c.previous, a.at(t, "threads.pageInfo.hasPreviousPage"), c.name)
		require.Equal(t, c.total, a.number(t, "threads.totalCount"), c.name)
		if c.n > 0 {
			require.Equal(t, cursor(c.first), a.at(t, "threads.pageInfo.startCursor"), c.name)
			require.Equal(t, cursor(c.first+c.n-1), a.at(t, "threads.pageInfo.endCursor"), c.name)
		} else {
			require.Nil(t, a.at(t, "threads.pageInfo.startCursor"), c.name)
		}
	}
}

func TestNestedConnections(t *testing.T) {
	t.Parallel()
	b := setup(t, oneConnection)
	bob, eve := b.user(t, "bob"), b.user(t, "eve")
	for i := range 5 {
		id := b.thread(t, fmt.Sprint(i), []record.ID{bob, eve}[:i%3]...)
		for j := range i {
			b.message(t, id, fmt.Sprintf("%d.%d", i, j))
		}
	}
	b.trace.reset()
	a := b.ok(t, `{ threads(orderBy: [{field: SUBJECT}]) { edges { node {
		owner { username }
		members(orderBy: [{field: USERNAME, direction: DESC}]) { totalCount edges { node { username } } }
		first: messages(first: 2, orderBy: [{field: BODY}]) { totalCount pageInfo { hasNextPage } edges { cursor node { body author { username } thread { subject } } } }
		last: messages(last: 1, orderBy: [{field: BODY}]) { pageInfo { hasPreviousPage } edges { node { body } } }
		some: messages(where: {bodyHasSuffix: ".1"}) { totalCount edges { node { body } } }
	} } } }`)
	// threads, owners, members with their number, first with its number, authors and threads, last, some with its number.
	statements, _ := b.trace.statements()
	require.Len(t, statements, 11, "%q", statements)
	for i := range 5 {
		node := fmt.Sprintf("threads.edges.%d.node.", i)
		require.Equal(t, "ada", a.text(t, node+"owner.username"))
		require.Equal(t, [][]string{{}, {"bob"}, {"eve", "bob"}}[i%3], a.texts(t, node+"members", "username"))
		require.Equal(t, i%3, a.number(t, node+"members.totalCount"))
		want := []string{}
		for j := range min(i, 2) {
			want = append(want, fmt.Sprintf("%d.%d", i, j))
		}
		require.Equal(t, want, a.texts(t, node+"first", "body"))
		require.Equal(t, i, a.number(t, node+"first.totalCount"))
		require.Equal(t, i > 2, a.at(t, node+"first.pageInfo.hasNextPage"))
		require.Equal(t, i > 1, a.at(t, node+"last.pageInfo.hasPreviousPage"))
		if i > 0 {
			require.Equal(t, []string{fmt.Sprintf("%d.%d", i, i-1)}, a.texts(t, node+"last", "body"))
			require.Equal(t, fmt.Sprint(i), a.text(t, node+"first.edges.0.node.thread.subject"))
		}
		if i > 1 {
			require.Equal(t, []string{fmt.Sprintf("%d.1", i)}, a.texts(t, node+"some", "body"))
			require.Equal(t, 1, a.number(t, node+"some.totalCount"))
		}
	}

	// A cursor of a nested list works there, and in the list of all.
	cursor := a.text(t, "threads.edges.4.node.first.edges.1.cursor")
	a = b.ok(t, `query($after: Cursor) {
		threads(where: {subject: "4"}) { edges { node { messages(after: $after, orderBy: [{field: BODY}]) { edges { node { body } } } } } }
		messages(after: $after, orderBy: [{field: BODY}]) { edges { node { body } } } }`, "after", cursor)
	require.Equal(t, []string{"4.2", "4.3"}, a.texts(t, "threads.edges.0.node.messages", "body"))
	require.Equal(t, []string{"4.2", "4.3"}, a.texts(t, "messages", "body"))
}

func TestWhereOverEdges(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob, eve := b.user(t, "bob"), b.user(t, "eve")
	alone := b.thread(t, "alone")
	two := b.thread(t, "two", bob, eve)
	said := b.thread(t, "said", bob)
	b.message(t, said, "hello")
	b.message(t, said, "bye")
	b.sql(t, `UPDATE threads SET owner_id = $1 WHERE id = $2`, eve.UUID, said.UUID)
	for _, c := range []struct {
		where string
		want  []string
	}{
		{`{}`, []string{"alone", "said", "two"}},
		{`{hasMembers: true}`, []string{"said", "two"}},
		{`{hasMembers: false}`, []string{"alone"}},
		{`{hasMessages: true}`, []string{"said"}},
		{`{hasOwner: true}`, []string{"alone", "said", "two"}},
		{`{hasOwner: false}`, []string{}},
		{`{hasMembersWith: [{username: "eve"}]}`, []string{"two"}},
		{`{hasMembersWith: [{usernameIn: ["bob", "eve"]}]}`, []string{"said", "two"}},
		{`{hasMembersWith: [{username: "bob"}, {name: "bob"}]}`, []string{"said", "two"}},
		{`{hasMembersWith: [{username: "bob"}, {name: "eve"}]}`, []string{}},
		{`{hasMembersWith: []}`, []string{"said", "two"}},
		{`{hasMembersWith: [{}]}`, []string{"said", "two"}},
		{`{hasMembersWith: null, hasMembers: null, subject: null, and: null, or: null, not: null, subjectIn: null}`, []string{"alone", "said", "two"}},
		{`{hasOwnerWith: [{username: "eve"}]}`, []string{"said"}},
		{`{hasMessagesWith: [{body: "bye"}]}`, []string{"said"}},
		{`{hasMessagesWith: [{hasAuthorWith: [{hasOwnedThreadsWith: [{subject: "alone"}]}]}]}`, []string{"said"}},
		{`{hasMembersWith: [{hasThreadsWith: [{subject: "two", hasMembersWith: [{username: "eve"}]}]}]}`, []string{"said", "two"}},
		{`{not: {hasMembersWith: [{username: "eve"}]}}`, []string{"alone", "said"}},
		{`{or: [{hasMembers: false}, {hasMessages: true}]}`, []string{"alone", "said"}},
		{`{or: []}`, []string{"alone", "said", "two"}},
		{`{or: {subject: "two"}, and: {subject: "two"}}`, []string{"two"}},
		{`{and: [{hasMembers: true}, {hasMessages: false}]}`, []string{"two"}},
		{`{and: [{or: [{subject: "two"}, {subject: "said"}]}, {not: {subject: "said"}}], subjectContains: "w"}`, []string{"two"}},
		{`{ownerID: "` + eve.String() + `"}`, []string{"said"}},
		{`{ownerID: "` + eve.UUID.String() + `"}`, []string{"said"}},
		{`{ownerIDNEQ: "` + eve.String() + `"}`, []string{"alone", "two"}},
		{`{id: "` + alone.String() + `"}`, []string{"alone"}},
		{`{idIn: ["` + alone.String() + `", "` + two.String() + `"]}`, []string{"alone", "two"}},
		{`{idNotIn: ["` + alone.String() + `", "` + two.String() + `"]}`, []string{"said"}},
		{`{idIn: []}`, []string{}},
		{`{idNotIn: []}`, []string{"alone", "said", "two"}},
		{`{version: 2}`, []string{"said"}},
	} {
		a := b.ok(t, `{ threads(where: `+c.where+`, orderBy: [{field: SUBJECT}]) { totalCount edges { node { subject } } } }`)
		require.Equal(t, c.want, a.texts(t, "threads", "subject"), c.where)
		require.Equal(t, len(c.want), a.number(t, "threads.totalCount"), c.where)
	}
	a := b.ok(t, `{ users(where: {role: user, roleIn: [user, admin], roleNEQ: moderator, hasThreads: true}) { edges { node { username } } } }`)
	require.ElementsMatch(t, []string{"bob", "eve"}, a.texts(t, "users", "username"))
}

// Whatever the order, turning pages shows what one page does, in both directions.
func TestPagesAddUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sql(t, `INSERT INTO threads (subject, owner_id, created_at, updated_at)
		SELECT (n % 7)::text, $1, now() + n % 5 * interval '1 microsecond', now() - n % 3 * interval '1 second' FROM generate_series(1, 60) n`, b.ada.UUID)
	b.sql(t, `UPDATE threads SET subject = 'x' WHERE subject = '3'`)
	const threads = `query($first: Int, $after: Cursor, $last: Int, $before: Cursor, $orderBy: [ThreadOrder!]) {
		threads(first: $first, after: $after, last: $last, before: $before, orderBy: $orderBy) {
			edges { node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }`
	orders := [][]object{nil}
	for _, f := range []string{"SUBJECT", "CREATED_AT", "UPDATED_AT", "VERSION"} {
		for _, g := range []string{"VERSION", "SUBJECT"} {
			orders = append(orders,
				[]object{{"field": f, "direction": "DESC"}, {"field": g, "direction": "ASC"}},
				[]object{{"field": f}, {"field": g, "direction": "DESC"}, {"field": "CREATED_AT"}})
		}
	}
	for i, order := range orders {
		whole := b.ok(t, threads, "first", 100, "orderBy", order).texts(t, "threads", "id")
		require.Len(t, whole, 60)
		var sql []string
		desc := ""
		for i, o := range order {
			if slices.ContainsFunc(order[:i], func(p object) bool { return p["field"] == o["field"] }) {
				continue // it says nothing more
			}
			desc = ""
			if o["direction"] == "DESC" {
				desc = " DESC"
			}
			sql = append(sql, strings.ToLower(fmt.Sprint(o["field"]))+desc)
		}
		want := one[[][16]byte](t, b, `SELECT array_agg(id ORDER BY `+strings.Join(append(sql, "id"+desc), ", ")+`) FROM threads`)
		for j, id := range want {
			require.Equal(t, record.ID{Prefix: "thread", UUID: id}.String(), whole[j], "%v", order)
		}

		size := []int{1, 7, 20, 59, 60}[i%5]
		for _, c := range []struct{ count, cursor, more, end string }{
			{"first", "after", "hasNextPage", "endCursor"},
			{"last", "before", "hasPreviousPage", "startCursor"},
		} {
			var got []string
			var cursor any
			for turns := 0; ; turns++ {
				require.LessOrEqual(t, turns, 60)
				a := b.ok(t, threads, c.count, size, c.cursor, cursor, "orderBy", order)
				ids := a.texts(t, "threads", "id")
				if c.count == "last" {
					got = append(ids, got...)
				} else {
					got = append(got, ids...)
				}
				cursor = a.at(t, "threads.pageInfo."+c.end)
				if a.at(t, "threads.pageInfo."+c.more) == false {
					break
				}
			}
			require.True(t, slices.Equal(whole, got), "%s %d of %v", c.count, size, order)
		}
	}
}
