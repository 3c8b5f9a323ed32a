package record_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/entity"
	"godstack/internal/record"
)

func TestBadInput(t *testing.T) {
	t.Parallel()
	b := setup(t)
	x := b.thread(t, "x")
	u := b.user(t, "bob")
	all := b.ok(t, `{ threads(first: 1) { pageInfo { endCursor } } users(first: 1) { pageInfo { endCursor } }
		bySubject: threads(first: 1, orderBy: [{field: SUBJECT}]) { pageInfo { endCursor } }
		descending: threads(first: 1, orderBy: [{field: SUBJECT, direction: DESC}]) { pageInfo { endCursor } } }`)
	cursor := func(list string) string { return all.text(t, list+".pageInfo.endCursor") }
	forge := func(from string, parts ...string) string {
		raw, err := base64.RawURLEncoding.DecodeString(cursor(from))
		require.NoError(t, err)
		order, _, _ := strings.Cut(string(raw), ",")
		return base64.RawURLEncoding.EncodeToString([]byte(order + "," + strings.Join(parts, ",") + "]"))
	}
	const (
		bad     = "BAD_USER_INPUT"
		complex = "TOO_COMPLEX"
		invalid = "GRAPHQL_VALIDATION_FAILED"
		missing = "NOT_FOUND"
		fine    = "" // no error
	)
	const (
		get         = `query($id: ID!) { thread(id: $id) { id } }`
		node        = `query($id: ID!) { node(id: $id) { id } }`
		nodes       = `query($id: ID!) { nodes(ids: [$id]) { id } }`
		records     = `query($id: ID!) { records(refs: [{id: $id}]) { missing } }`
		update      = `mutation($id: ID!, $version: Int!) { updateThread(id: $id, expectedVersion: $version, input: {subject: "new"}) { id } }`
		remove      = `mutation($id: ID!) { deleteThread(id: $id, expectedVersion: 1) { version } }`
		rename      = `mutation($id: ID!, $input: UpdateThreadInput!) { updateThread(id: $id, expectedVersion: 1, input: $input) { id } }`
		create      = `mutation($input: CreateThreadInput!) { createThread(input: $input) { id } }`
		createUser  = `mutation($input: CreateUserInput!) { createUser(input: $input) { id } }`
		say         = `mutation($input: CreateMessageInput!) { createMessage(input: $input) { id } }`
		where       = `query($where: ThreadWhereInput) { threads(where: $where) { edges { node { id } } } }`
		count       = `query($where: ThreadWhereInput) { threads(where: $where) { totalCount } }`
		userWhere   = `query($where: UserWhereInput) { users(where: $where) { edges { node { id } } } }`
		page        = `query($first: Int, $last: Int, $after: Cursor, $before: Cursor) { threads(first: $first, last: $last, after: $after, before: $before) { edges { node { id } } } }`
		pageOrdered = `query($after: Cursor) { threads(after: $after, orderBy: [{field: SUBJECT}]) { edges { node { id } } } }`
		pageByTime  = `query($after: Cursor) { threads(after: $after, orderBy: [{field: CREATED_AT}]) { edges { node { id } } } }`
		nested      = `query($id: ID!, $first: Int, $where: UserWhereInput, $after: Cursor) { thread(id: $id) { members(first: $first, where: $where, after: $after) { edges { node { id } } } } }`
	)
	byTime := b.ok(t, `{ threads(first: 1, orderBy: [{field: CREATED_AT}]) { pageInfo { endCursor } } }`)
	forgeTime := func(value string) string {
		raw, err := base64.RawURLEncoding.DecodeString(byTime.text(t, "threads.pageInfo.endCursor"))
		require.NoError(t, err)
		order, _, _ := strings.Cut(string(raw), ",")
		return base64.RawURLEncoding.EncodeToString([]byte(order + "," + value + `,"` + x.UUID.String() + `"]`))
	}
	raw := func(s string) rawJSON { return rawJSON(s) }
	deep := func(levels int, key, open, end string) rawJSON {
		return rawJSON(strings.Repeat(`{"`+key+`":`+open, levels) + `{"subject":"x"}` + strings.Repeat(end+`}`, levels))
	}
	many := func(n int, s string) rawJSON {
		return rawJSON("[" + strings.TrimSuffix(strings.Repeat(s+",", n), ",") + "]")
	}
	long := strings.Repeat("a", 300_000)

	type vars = map[string]any
	for _, c := range []struct {
		name, document string
		vars           vars
		code           string
		fields         []any // nil: whatever
	}{
		// Ids.
		{"no id", get, vars{"id": ""}, bad, []any{"id"}},
		{"malformed", get, vars{"id": "nonsense"}, bad, []any{"id"}},
		{"malformed, by node", node, vars{"id": "nonsense"}, bad, []any{"id"}},
		{"malformed, by nodes", nodes, vars{"id": "nonsense"}, bad, nil},
		{"malformed, by records", records, vars{"id": "nonsense"}, bad, []any{"id"}},
		{"malformed suffix", get, vars{"id": "thread_01h455vb4pex5vsknk084sn02"}, bad, nil},
		{"too great a suffix", get, vars{"id": "thread_8zzzzzzzzzzzzzzzzzzzzzzzzz"}, bad, nil},
		{"bad letters", get, vars{"id": "thread_01h455vb4pex5vsknk084sn0u!"}, bad, nil},
		{"capitals", get, vars{"id": strings.ToUpper(x.String())}, bad, nil},
		{"odd prefix", node, vars{"id": `"` + x.String()}, bad, nil},
		{"a UUID in braces", get, vars{"id": "{" + x.UUID.String() + "}"}, bad, nil},
		{"a UUID without dashes", get, vars{"id": strings.ReplaceAll(x.UUID.String(), "-", "")}, bad, nil},
		{"of another type", get, vars{"id": u}, bad, []any{"id"}},
		{"of another type, to update", update, vars{"id": u, "version": 1}, bad, []any{"id"}},
		{"of another type, to delete", remove, vars{"id": u}, bad, []any{"id"}},
		{"of another type, as member", create, vars{"input": object{"subject": "x", "memberIDs": []string{x.String()}}}, bad, []any{"memberIDs"}},
		{"of another type, to link", rename, vars{"id": x, "input": object{"addMemberIDs": []string{x.String()}}}, bad, []any{"addMemberIDs"}},
		{"of another type, to unlink", rename, vars{"id": x, "input": object{"removeMemberIDs": []string{x.String()}}}, bad, []any{"removeMemberIDs"}},
		{"of another type, as thread", say, vars{"input": object{"body": "x", "threadID": u.String()}}, bad, []any{"threadID"}},
		{"of another type, in where", where, vars{"where": object{"ownerID": x.String()}}, bad, []any{"where"}},
		{"of another type, in a list", where, vars{"where": object{"idIn": []string{x.String(), u.String()}}}, bad, []any{"where"}},
		{"of no type", node, vars{"id": record.ID{Prefix: "house", UUID: x.UUID}}, bad, nil},
		{"of no type, by records", records, vars{"id": record.ID{Prefix: "house", UUID: x.UUID}}, bad, []any{"refs"}},
		{"a UUID of what", node, vars{"id": x.UUID}, bad, nil},
		{"a UUID of what, by records", records, vars{"id": x.UUID}, bad, []any{"refs"}},
		{"unknown", get, vars{"id": record.ID{Prefix: "thread", UUID: u.UUID}}, fine, nil},
		{"unknown, to update", update, vars{"id": record.ID{Prefix: "thread", UUID: u.UUID}, "version": 1}, missing, nil},
		{"unknown, to delete", remove, vars{"id": record.ID{Prefix: "thread", UUID: u.UUID}}, missing, nil},
		{"a number", get, vars{"id": 7}, bad, nil},
		{"a great number", get, vars{"id": raw("1e30")}, bad, nil},
		{"a great integer", get, vars{"id": raw("123456789012345678901234567890")}, bad, nil},
		{"a fraction", get, vars{"id": 1.5}, bad, nil},
		{"a literal number", `{ thread(id: 7) { id } }`, nil, bad, nil},
		{"a great literal number", `{ thread(id: 123456789012345678901234567890) { id } }`, nil, invalid, nil},
		{"a boolean", get, vars{"id": true}, bad, nil},
		{"a list", get, vars{"id": []string{x.String()}}, bad, nil},
		{"an object", get, vars{"id": object{"x": 1}}, bad, nil},
		{"null", get, vars{"id": nil}, bad, nil},
		{"absent", get, nil, bad, nil},
		{"long", get, vars{"id": long}, bad, nil},
		{"a long prefix", node, vars{"id": long + "_01h455vb4pex5vsknk084sn02q"}, bad, nil},
		{"NUL in an id", get, vars{"id": "thread_\x00"}, bad, nil},
		{"NUL in an id of where", where, vars{"where": object{"id": x.String() + "\x00"}}, bad, []any{"where"}},

		// Versions, and other integers.
		{"version 0", update, vars{"id": x, "version": 0}, bad, []any{"expectedVersion"}},
		{"version -1", update, vars{"id": x, "version": -1}, bad, []any{"expectedVersion"}},
		{"version 2^31-1", update, vars{"id": x, "version": raw("2147483647")}, "CONFLICT", nil},
		{"version 2^31", update, vars{"id": x, "version": raw("2147483648")}, bad, []any{"version"}},
		{"version 2^63", update, vars{"id": x, "version": raw("9223372036854775808")}, bad, nil},
		{"version -2^63-1", update, vars{"id": x, "version": raw("-9223372036854775809")}, bad, nil},
		{"version 1e30", update, vars{"id": x, "version": raw("1e30")}, bad, nil},
		{"version 1.5", update, vars{"id": x, "version": 1.5}, bad, nil},
		{"version as text", update, vars{"id": x, "version": "one"}, bad, nil},
		{"version true", update, vars{"id": x, "version": true}, bad, nil},
		{"version null", update, vars{"id": x, "version": nil}, bad, nil},
		{"no version", update, vars{"id": x}, bad, nil},
		{"no version, literally", `mutation { updateThread(id: "x", input: {}) { id } }`, nil, invalid, nil},
		{"a literal version 2^63", `mutation { deleteThread(id: "` + x.String() + `", expectedVersion: 9223372036854775808) { version } }`, nil, invalid, nil},
		{"known version 2^63", `query($v: Int) { records(refs: [{id: "` + x.String() + `", knownVersion: $v}]) { missing } }`, vars{"v": raw("9223372036854775808")}, bad, nil},
		{"version 2^63 in where", where, vars{"where": object{"version": raw("9223372036854775808")}}, bad, []any{"version"}},
		{"version 2^31-1 in where", where, vars{"where": object{"versionGT": raw("2147483647")}}, fine, nil},
		{"version 1e30 in a list", where, vars{"where": object{"versionIn": []any{1, raw("1e30")}}}, bad, nil},

		// Pages.
		{"first -1", page, vars{"first": -1}, bad, []any{"first"}},
		{"last -1", page, vars{"last": -1}, bad, []any{"last"}},
		{"first 101", page, vars{"first": 101}, bad, []any{"first"}},
		{"first 1,000,000", page, vars{"first": 1_000_000}, complex, nil},
		{"first 2^63", page, vars{"first": raw("9223372036854775808")}, bad, nil},
		{"first with last", page, vars{"first": 1, "last": 1}, bad, []any{"first", "last"}},
		{"nested first -1", nested, vars{"id": x, "first": -1}, bad, []any{"first"}},
		{"an odd cursor", page, vars{"after": "nonsense"}, bad, []any{"after"}},
		{"an empty cursor", page, vars{"before": ""}, bad, []any{"before"}},
		{"a cursor of another list", page, vars{"after": cursor("users")}, bad, []any{"after"}},
		{"a cursor of another order", page, vars{"after": cursor("bySubject")}, bad, []any{"after"}},
		{"a cursor of another direction", pageOrdered, vars{"after": cursor("descending")}, bad, []any{"after"}},
		{"a nested cursor of another list", nested, vars{"id": x, "after": cursor("threads")}, bad, []any{"after"}},
		{"a cursor with NUL", pageOrdered, vars{"after": forge("bySubject", `"\u0000"`, `"`+x.UUID.String()+`"`)}, bad, []any{"after"}},
		{"a cursor with a number", pageOrdered, vars{"after": forge("bySubject", `{}`, `"`+x.UUID.String()+`"`)}, bad, []any{"after"}},
		{"a cursor with null", pageOrdered, vars{"after": forge("bySubject", `null`, `"`+x.UUID.String()+`"`)}, bad, []any{"after"}},
		{"a cursor with a bad id", pageOrdered, vars{"after": forge("bySubject", `"x"`, `"x"`)}, bad, []any{"after"}},
		{"a short cursor", pageOrdered, vars{"after": forge("bySubject", `"x"`)}, bad, []any{"after"}},
		{"a cursor of no JSON", page, vars{"after": "e30x"}, bad, []any{"after"}},
		{"a cursor of a far time", pageByTime, vars{"after": forgeTime("9223372036854775807")}, fine, nil},
		{"a cursor of a great time", pageByTime, vars{"after": forgeTime("1e30")}, bad, []any{"after"}},
		{"a cursor as a number", page, vars{"after": 7}, bad, nil},
		{"a long cursor", page, vars{"after": long}, bad, []any{"after"}},

		// Text.
		{"NUL", create, vars{"input": object{"subject": "a\x00b"}}, bad, []any{"subject"}},
		{"NUL in an update", rename, vars{"id": x, "input": object{"subject": "\x00"}}, bad, []any{"subject"}},
		{"NUL literally", `mutation { createThread(input: {subject: "a\u0000b"}) { id } }`, nil, bad, []any{"subject"}},
		{"NUL in where", where, vars{"where": object{"subjectContains": "\x00"}}, bad, []any{"where"}},
		{"NUL in a list", where, vars{"where": object{"subjectIn": []string{"x", "\x00"}}}, bad, []any{"where"}},
		{"a lone surrogate", `mutation { createThread(input: {subject: "\uD800"}) { id } }`, nil, fine, nil},
		{"a lone surrogate in where", `{ threads(where: {subject: "\uD800"}) { totalCount } }`, nil, fine, nil},
		{"too long", create, vars{"input": object{"subject": long}}, bad, []any{"subject"}},
		{"a number for text", create, vars{"input": object{"subject": 7}}, bad, nil},
		{"a list for text", create, vars{"input": object{"subject": []string{"x"}}}, bad, nil},
		{"null for text", create, vars{"input": object{"subject": nil}}, bad, nil},

		// Where.
		{"100 conditions", where, vars{"where": raw(`{"and":` + string(many(99, `{"subject":"x"}`)) + `}`)}, fine, nil},
		{"200 conditions", where, vars{"where": raw(`{"and":` + string(many(199, `{"not":{"subject":"x"}}`)) + `}`)}, complex, []any{"where"}},
		{"200 edges", where, vars{"where": raw(`{"or":` + string(many(100, `{"hasMembersWith":[{"hasThreadsWith":[{"subject":"x"}]}]}`)) + `}`)}, complex, []any{"where"}},
		{"30 levels of not", where, vars{"where": deep(30, "not", "", "")}, fine, nil},
		{"200 levels of not", where, vars{"where": deep(200, "not", "", "")}, complex, nil},
		{"200 levels of and", where, vars{"where": deep(200, "and", "[", "]")}, complex, nil},
		{"200 levels of edges", where, vars{"where": deep(100, "hasMembersWith", `[{"hasThreadsWith":[`, "]}]")}, complex, nil},
		{"4,000 levels", where, vars{"where": deep(4000, "or", "[", "]")}, complex, nil},
		{"9,000 empty ones", where, vars{"where": raw(`{"or":` + string(many(9_000, "{}")) + `}`)}, complex, []any{"where"}},
		{"100,000 empty ones", where, vars{"where": raw(`{"or":` + string(many(100_000, "{}")) + `}`)}, complex, nil},
		{"10,000 empty ones below an edge", count, vars{"where": raw(`{"hasMembersWith":` + string(many(10_000, "{}")) + `}`)}, complex, nil},
		{"1,000 in a list", where, vars{"where": object{"idIn": many(1000, `"`+x.String()+`"`)}}, fine, nil},
		{"1,001 in a list", where, vars{"where": object{"idIn": many(1001, `"`+x.String()+`"`)}}, complex, []any{"where"}},
		{"100,000 in a list", count, vars{"where": object{"versionIn": many(100_000, "7")}}, complex, nil},
		{"an empty where", where, vars{"where": object{}}, fine, nil},
		{"an unknown condition", where, vars{"where": object{"nope": 1}}, bad, nil},
		{"where as a list", where, vars{"where": []any{}}, bad, nil},
		{"a time that is none", where, vars{"where": object{"createdAtGT": "yesterday"}}, bad, []any{"where"}},
		{"a time that cannot be", where, vars{"where": object{"createdAtGT": "2026-02-30T00:00:00Z"}}, bad, nil},
		{"the last time there is", where, vars{"where": object{"createdAtGT": "9999-12-31T23:59:59.999999999-23:59"}}, fine, nil},
		{"the first time there is", where, vars{"where": object{"createdAtGT": "0000-01-01T00:00:00+23:59"}}, fine, nil},
		{"no time", where, vars{"where": object{"createdAtGT": ""}}, bad, []any{"where"}},
		{"a time as a number", where, vars{"where": object{"createdAtGT": 7}}, bad, nil},
		{"an enum that is none", userWhere, vars{"where": object{"role": "god"}}, bad, nil},
		{"an enum in a list that is none", userWhere, vars{"where": object{"roleIn": []string{"user", "god"}}}, bad, nil},
		{"an enum as text", `{ users(where: {role: "user"}) { totalCount } }`, nil, invalid, nil},
		{"an enum that is none, literally", `{ users(where: {role: god}) { totalCount } }`, nil, invalid, nil},
		{"an order that is none", `{ users(orderBy: [{field: SIZE}]) { totalCount } }`, nil, invalid, nil},
		{"an order without a field", `{ users(orderBy: [{direction: DESC}]) { totalCount } }`, nil, invalid, nil},
		{"nested, of another type", nested, vars{"id": x, "where": object{"id": x.String()}}, bad, []any{"where"}},

		// Input objects and lists.
		{"an empty input to create", create, vars{"input": object{}}, bad, nil},
		{"an empty input to create, literally", `mutation { createThread(input: {}) { id } }`, nil, invalid, nil},
		{"null as input", create, vars{"input": nil}, bad, nil},
		{"text as input", create, vars{"input": "x"}, bad, nil},
		{"an unknown field", create, vars{"input": object{"subject": "x", "ownerID": u.String()}}, bad, nil},
		{"version as a field", rename, vars{"id": x, "input": object{"version": 7}}, bad, nil},
		{"a member twice", create, vars{"input": object{"subject": "twice", "memberIDs": []string{u.String(), u.UUID.String()}}}, fine, nil},
		{"one member, no list", create, vars{"input": object{"subject": "one", "memberIDs": u.String()}}, fine, nil},
		{"null as members", create, vars{"input": object{"subject": "null", "memberIDs": nil}}, fine, nil},
		{"null as a member", create, vars{"input": object{"subject": "x", "memberIDs": []any{nil}}}, bad, nil},
		{"a member who is not there", create, vars{"input": object{"subject": "x", "memberIDs": []string{entity.NewID().String()}}}, bad, []any{"memberIDs"}},
		{"9,000 members", create, vars{"input": object{"subject": "x", "memberIDs": many(9_000, `"`+u.String()+`"`)}}, complex, []any{"memberIDs"}},
		{"10,000 members", create, vars{"input": object{"subject": "x", "memberIDs": many(10_000, `"`+u.String()+`"`)}}, complex, nil},
		{"a user who owns threads", `mutation($id: ID!) { deleteUser(id: $id, expectedVersion: 1) { version } }`, vars{"id": b.ada}, bad, []any{"id"}},
		{"a role", createUser, vars{"input": object{"email": "a@example.com", "username": "abc", "name": "x", "role": "admin"}}, bad, nil},

		// Documents.
		{"1,000 aliases", "{ " + func() (s string) {
			for i := range 1000 {
				s += fmt.Sprintf("a%d: __typename ", i)
			}
			return s
		}() + "}", nil, complex, nil},
		{"an unknown field of a record", `{ threads { edges { node { secret } } } }`, nil, invalid, nil},
		{"no selection", `{ threads }`, nil, invalid, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var pairs []any
			for name, v := range c.vars {
				pairs = append(pairs, name, v)
			}
			a := b.do(t, c.document, pairs...)
			require.Less(t, len(a.raw), 20_000, "what was sent is not sent back")
			if c.code == fine {
				require.Empty(t, a.Errors, a.raw)
				return
			}
			require.NotEmpty(t, a.Errors, a.raw)
			e := a.Errors[0]
			require.Equal(t, c.code, e.code(), a.raw)
			require.NotEmpty(t, e.Extensions["requestId"])
			require.NotEmpty(t, e.Message)
			require.Less(t, len(e.Message), 1000)
			if c.fields != nil {
				require.Equal(t, c.fields, e.Extensions["fields"], a.raw)
			}
		})
	}
	t.Cleanup(func() { // after the parallel ones
		require.NotContains(t, b.log.String(), "level=ERROR")
	})
}

// Bodies that are no JSON, or too long for one.
func TestBadBodies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct {
		name, body string
		status     int
		code       string
	}{
		{"invalid UTF-8", `{"query": "mutation($s: String!) { createThread(input: {subject: $s}) { id } }", "variables": {"s": "` + "\xff\xfe" + `"}}`, http.StatusBadRequest, "BAD_USER_INPUT"},
		{"a raw NUL", "{\"query\": \"{ threads { totalCount } }\x00\"}", http.StatusBadRequest, "BAD_USER_INPUT"},
		{"a text of 10 MB", encode(`mutation($s: String!) { createThread(input: {subject: $s}) { id } }`, []any{"s", strings.Repeat("x", 10<<20)}),
			http.StatusRequestEntityTooLarge, "TOO_COMPLEX"},
	} {
		a, err := b.post(t.Context(), "", c.body)
		require.NoError(t, err, c.name)
		require.Equal(t, c.status, a.Status, c.name)
		require.Len(t, a.Errors, 1, c.name)
		require.Equal(t, c.code, a.Errors[0].code(), c.name)
	}
	require.Zero(t, one[int](t, b, `SELECT count(*) FROM threads`))
}

// rawJSON is a variable as it is written.
type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }
