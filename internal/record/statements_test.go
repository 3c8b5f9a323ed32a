package record_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/entity"
	"godstack/internal/record"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestStatements compares the SQL of typical documents with testdata/statements.golden, pipeline by pipeline: what
// costs a statement more, or one for each record, shows in the diff.
func TestStatements(t *testing.T) {
	t.Parallel()
	b := setup(t, oneConnection)
	bob, eve := b.user(t, "bob"), b.user(t, "eve")

	// Each document runs twice, on a thread of its own each time: what the first run prepares is not counted.
	type fixture struct{ thread, message, other record.ID }
	fresh := func() fixture {
		f := fixture{thread: b.thread(t, "x", bob, eve), other: b.thread(t, "y", bob)}
		f.message = b.message(t, f.thread, "one")
		b.message(t, f.thread, "two")
		b.message(t, f.other, "three")
		return f
	}
	cursor := b.ok(t, `{ users(first: 1, orderBy: [{field: NAME, direction: DESC}]) { pageInfo { endCursor } } }`).text(t, "users.pageInfo.endCursor")
	gone := record.ID{Prefix: "thread", UUID: entity.NewID()}

	var out strings.Builder
	for _, c := range []struct {
		name, document string
		vars           func(f fixture) []any
	}{
		{"a record", `query($id: ID!) { thread(id: $id) { subject version } }`, func(f fixture) []any { return []any{"id", f.thread} }},
		{"a record with its owner", `query($id: ID!) { thread(id: $id) { subject owner { name } } }`, func(f fixture) []any { return []any{"id", f.thread} }},
		{"a node", `query($id: ID!) { node(id: $id) { id ... on Message { body thread { subject } author { name } } } }`, func(f fixture) []any { return []any{"id", f.message} }},
		{"nodes of two types", `query($ids: [ID!]!) { nodes(ids: $ids) { id } }`, func(f fixture) []any {
			return []any{"ids", []string{f.thread.String(), bob.String(), f.other.String(), gone.String()}}
		}},
		{"a record map", `query($refs: [RecordRef!]!) { records(refs: $refs) { threads { subject owner { name } } users { name } messages { body } unchanged missing } }`, func(f fixture) []any {
			return []any{"refs", []object{{"id": f.thread.String(), "knownVersion": 1}, {"id": bob.String()}, {"id": f.message.String()}, {"id": gone.String()}}}
		}},
		{"a list", `{ threads(first: 3) { edges { node { subject } } } }`, nil},
		{"a list that is counted", `{ threads(first: 3) { totalCount pageInfo { hasNextPage } edges { node { subject } } } }`, nil},
		{"the next page of an ordered list", `query($after: Cursor) { users(first: 3, after: $after, orderBy: [{field: NAME, direction: DESC}]) { edges { node { name } } } }`, func(fixture) []any { return []any{"after", cursor} }},
		{"the last page", `query($before: Cursor) { users(last: 3, before: $before, orderBy: [{field: NAME, direction: DESC}]) { edges { node { name } } } }`, func(fixture) []any { return []any{"before", cursor} }},
		{"a filtered list", `{ threads(where: {subjectContainsFold: "x", or: [{versionGT: 1}, {not: {hasMessages: true}}], hasMembersWith: [{nameIn: ["bob", "eve"], hasOwnedThreads: false}]}) { edges { node { subject } } } }`, nil},
		{"a list with its records' owners", `{ threads(first: 3) { edges { node { subject owner { name } } } } }`, nil},
		{"a list of lists", `{ threads(first: 3) { edges { node { subject messages(last: 2) { edges { node { body } } } } } } }`, nil},
		{"a list over a join table", `{ threads(first: 3) { edges { node { members(first: 2, orderBy: [{field: NAME}], where: {role: user}) { totalCount edges { node { name } } } } } } }`, nil},
		{"three levels", `{ threads(first: 20) { edges { node { subject owner { name } messages(first: 5) { edges { node { body author { name } } } } } } } }`, nil},
		{"create", `mutation { createThread(input: {subject: "new"}) { id version } }`, nil},
		{"create with links", `mutation($ids: [ID!]) { createThread(input: {subject: "new", memberIDs: $ids}) { id version } }`, func(fixture) []any {
			return []any{"ids", []string{bob.String(), eve.String()}}
		}},
		{"update", `mutation($id: ID!) { updateThread(id: $id, expectedVersion: 1, input: {subject: "new"}) { id version } }`, func(f fixture) []any { return []any{"id", f.thread} }},
		{"update and read", `mutation($id: ID!) { updateThread(id: $id, expectedVersion: 1, input: {subject: "new"}) { version owner { name } } }`, func(f fixture) []any { return []any{"id", f.thread} }},
		{"update links", `mutation($id: ID!, $in: [ID!], $out: [ID!]) { updateThread(id: $id, expectedVersion: 1, input: {addMemberIDs: $in, removeMemberIDs: $out}) { id version } }`, func(f fixture) []any {
			return []any{"id", f.other, "in", []string{eve.String()}, "out", []string{bob.String()}}
		}},
		{"update two", `mutation($a: ID!, $b: ID!) { a: updateThread(id: $a, expectedVersion: 1, input: {subject: "a"}) { version } b: updateThread(id: $b, expectedVersion: 1, input: {subject: "b"}) { version } }`, func(f fixture) []any { return []any{"a", f.thread, "b", f.other} }},
		{"conflict", `mutation($id: ID!) { updateThread(id: $id, expectedVersion: 7, input: {subject: "new"}) { id } }`, func(f fixture) []any { return []any{"id", f.thread} }},
		{"conflict with an earlier version", `mutation($id: ID!) { updateMessage(id: $id, expectedVersion: 1, input: {body: "new"}) { id } }`, func(f fixture) []any {
			b.sql(t, `UPDATE messages SET body = 'changed' WHERE id = $1`, f.message.UUID)
			return []any{"id", f.message}
		}},
		{"delete", `mutation($id: ID!) { deleteThread(id: $id, expectedVersion: 1) { version } }`, func(f fixture) []any { return []any{"id", f.thread} }},
	} {
		var pipelines [][]string
		var trips int
		for range 2 {
			f := fresh()
			var vars []any
			if c.vars != nil {
				vars = c.vars(f)
			}
			b.trace.reset()
			a := b.do(t, c.document, vars...)
			require.Equal(t, strings.HasPrefix(c.name, "conflict"), len(a.Errors) > 0, "%s: %s", c.name, a.raw)
			pipelines, trips = b.trace.statements()
		}
		require.Len(t, pipelines, trips, "%s: a pipeline is a round trip", c.name)
		fmt.Fprintf(&out, "# %s\n%s\n", c.name, c.document)
		for i, p := range pipelines {
			fmt.Fprintf(&out, "-- round trip %d of %d\n", i+1, trips)
			for _, sql := range p {
				fmt.Fprintln(&out, strings.ReplaceAll(sql, `"`, ""))
			}
		}
		out.WriteByte('\n')
	}

	golden := filepath.Join("testdata", "statements.golden")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(out.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), out.String(), "if this is meant: go test ./internal/record -run TestStatements -update")
}

// The number of statements does not depend on the number of records.
func TestNoStatementForEachRecord(t *testing.T) {
	t.Parallel()
	b := setup(t, oneConnection)
	count := func() int {
		b.trace.reset()
		b.ok(t, `{ threads(first: 100) { edges { node { owner { name } members { edges { node { name } } } messages(first: 3) { edges { node { author { name } } } } } } } }`)
		pipelines, _ := b.trace.statements()
		return len(pipelines)
	}
	var counts []int
	for _, n := range []int{1, 10, 100} {
		b.sql(t, `DELETE FROM threads`)
		for i := range n {
			user := b.user(t, fmt.Sprintf("u%dx%d", n, i))
			b.message(t, b.thread(t, fmt.Sprint(i), user), "hello")
		}
		counts = append(counts, count())
	}
	require.Equal(t, []int{5, 5, 5}, counts)
}
