package record_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/record"
)

// An answer has what is selected, in that order: aliases, fragments on every type that fits, fields named twice.
func TestSelections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bob := b.user(t, "bob")
	x := b.thread(t, "<x> \"y\"\n\u2028é", bob)
	m := b.message(t, x, "hello")
	for _, c := range []struct{ document, want string }{
		{`query($id: ID!) { t: thread(id: $id) { __typename s: subject version subject v: version } }`,
			`{"t":{"__typename":"Thread","s":"<x> \"y\"\n` + "\u2028" + `é","version":1,"subject":"<x> \"y\"\n` + "\u2028" + `é","v":1}}`},
		{`query($id: ID!) { node(id: $id) { ...A ... on Record { version } ... on User { email } ... on Node { __typename } ... { id } } }
		  fragment A on Thread { owner { ...B name } owner { username } } fragment B on User { name role }`,
			`{"node":{"owner":{"name":"ada","role":"user","username":"ada"},"version":1,"__typename":"Thread","id":"` + x.String() + `"}}`},
		{`query($id: ID!, $yes: Boolean = true) { thread(id: $id) { version @skip(if: $yes) id @include(if: $yes) owner @skip(if: true) { id } ... @include(if: false) { subject } } }`,
			`{"thread":{"id":"` + x.String() + `"}}`},
		{`query($id: ID!) { thread(id: $id) { messages { __typename edges { __typename node { __typename body thread { messages { totalCount n: totalCount } } } }
		  pageInfo { __typename next: hasNextPage hasPreviousPage } } none: messages(where: {body: "x"}) { edges { node { id } } pageInfo { startCursor endCursor } } } }`,
			`{"thread":{"messages":{"__typename":"MessageConnection","edges":[{"__typename":"MessageEdge","node":{"__typename":"Message","body":"hello",` +
				`"thread":{"messages":{"totalCount":1,"n":1}}}}],"pageInfo":{"__typename":"PageInfo","next":false,"hasPreviousPage":false}},` +
				`"none":{"edges":[],"pageInfo":{"startCursor":null,"endCursor":null}}}}`},
		{`query($id: ID!) { a: thread(id: $id) { version } b: thread(id: $id) { id } threads { totalCount } users { edges { node { username } } } none: thread(id: "` + bob.UUID.String() + `") { id } }`,
			`{"a":{"version":1},"b":{"id":"` + x.String() + `"},"threads":{"totalCount":1},"users":{"edges":[{"node":{"username":"ada"}},{"node":{"username":"bob"}}]},"none":null}`},
		{`query($id: ID!) { records(refs: [{id: $id}, {id: "` + m.String() + `"}]) { __typename m: messages { body thread { id } } gone: missing unchanged users { id } t: threads { version } } }`,
			`{"records":{"__typename":"RecordMap","m":[{"body":"hello","thread":{"id":"` + x.String() + `"}}],"gone":[],"unchanged":[],"users":[],"t":[{"version":1}]}}`},
		{`mutation($id: ID!) { u: updateThread(id: $id, expectedVersion: 1, input: {subject: "new"}) { __typename s: subject ...A } } fragment A on Thread { members { edges { node { username } } } }`,
			`{"u":{"__typename":"Thread","s":"new","members":{"edges":[{"node":{"username":"bob"}}]}}}`},
	} {
		require.Equal(t, c.want, string(b.ok(t, c.document, "id", x).Data), c.document)
	}
}

// An error has the place where it happened, once for each, and makes null of that edge alone.
func TestErrorsHavePlaces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	x, y := b.thread(t, "x"), b.thread(t, "y")
	b.message(t, x, "hello")
	const wrong = `members(first: -1) { totalCount }`
	for _, c := range []struct {
		document, data string
		paths          []string
	}{
		{`{ threads { edges { node { subject ` + wrong + ` } } totalCount } }`, `{"threads":{"edges":[{"node":{"subject":"x","members":null}},{"node":{"subject":"y","members":null}}],"totalCount":2}}`,
			[]string{"threads.edges.0.node.members", "threads.edges.1.node.members"}},
		{`query($x: ID!) { t: thread(id: $x) { m: ` + wrong + ` } users { totalCount } }`, `{"t":{"m":null},"users":{"totalCount":1}}`, []string{"t.m"}},
		{`query($x: ID!) { thread(id: $x) { subject messages { edges { node { thread { ` + wrong + ` } body } } } } }`,
			`{"thread":{"subject":"x","messages":{"edges":[{"node":{"thread":{"members":null},"body":"hello"}}]}}}`, []string{"thread.messages.edges.0.node.thread.members"}},
		{`query($x: ID!, $y: ID!) { nodes(ids: [$x, "` + b.ada.String() + `", $y]) { id ... on Thread { ` + wrong + ` } } }`,
			`{"nodes":[{"id":"` + x.String() + `","members":null},{"id":"` + b.ada.String() + `"},{"id":"` + y.String() + `","members":null}]}`, []string{"nodes.0.members", "nodes.2.members"}},
		{`query($x: ID!, $y: ID!) { records(refs: [{id: $x}, {id: $y}]) { threads { ` + wrong + ` } } }`, `{"records":{"threads":[{"members":null},{"members":null}]}}`,
			[]string{"records.threads.0.members", "records.threads.1.members"}},
	} {
		a := b.do(t, c.document, "x", x, "y", y)
		require.Equal(t, c.data, string(a.Data), c.document)
		paths := []string{}
		for _, e := range a.Errors {
			require.Equal(t, "BAD_USER_INPUT", e.code())
			require.Equal(t, []any{"first"}, e.Extensions["fields"])
			require.NotEmpty(t, e.Extensions["requestId"])
			paths = append(paths, e.path())
		}
		require.ElementsMatch(t, c.paths, paths, a.raw)
	}
}

// What is related is read for all records of a level, and each gets its own.
func TestRelatedRecordsAreTheirOwn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	want := map[string][]string{}
	for i := range 12 {
		name := "u" + string(rune('a'+i))
		u := b.user(t, name)
		id := b.thread(t, name, u, b.ada)
		for j := range i % 4 {
			body := fmt.Sprintf("%s.%d", name, j)
			b.message(t, id, body)
			want[name] = append(want[name], body)
		}
	}
	a := b.ok(t, `{ threads(first: 100, orderBy: [{field: SUBJECT, direction: DESC}]) { edges { node { subject
		members(orderBy: [{field: USERNAME}]) { totalCount edges { node { username threads { totalCount } } } }
		messages(last: 2, orderBy: [{field: BODY}]) { totalCount edges { node { body thread { subject } } } } } } } }`)
	subjects := a.texts(t, "threads", "subject")
	require.Len(t, subjects, 12)
	for i, s := range subjects {
		node := fmt.Sprintf("threads.edges.%d.node.", i)
		require.Equal(t, []string{"ada", s}, a.texts(t, node+"members", "username"))
		require.Equal(t, 12, a.number(t, node+"members.edges.0.node.threads.totalCount"))
		require.Equal(t, 1, a.number(t, node+"members.edges.1.node.threads.totalCount"))
		bodies := want[s]
		require.Equal(t, len(bodies), a.number(t, node+"messages.totalCount"))
		require.Equal(t, strings.Join(bodies[max(0, len(bodies)-2):], " "), strings.Join(a.texts(t, node+"messages", "body"), " "))
		for j := range a.texts(t, node+"messages", "body") {
			require.Equal(t, s, a.text(t, fmt.Sprintf("%smessages.edges.%d.node.thread.subject", node, j)))
		}
	}
}

// An error below the record of an event is that event's, and ends no stream.
func TestErrorsInEvents(t *testing.T) {
	t.Parallel()
	b := setup(t, withTailer)
	x := b.thread(t, "x")
	s := b.connect(t)
	require.NoError(t, s.subscribe("1", `subscription($id: ID!) { c: threadChanged(id: $id) { kind t: thread { m: members(first: -1) { totalCount } } version } }`, "id", x))
	for i, kind := range []string{"SNAPSHOT", "UPDATED"} {
		m, err := s.receive()
		require.NoError(t, err)
		require.Equal(t, "next", m.Type)
		a := decodeAnswer(t, m.Payload)
		require.JSONEq(t, fmt.Sprintf(`{"c": {"kind": %q, "t": {"m": null}, "version": %d}}`, kind, i+1), string(a.Data))
		require.Len(t, a.Errors, 1, string(m.Payload))
		require.Equal(t, "c.t.m", a.Errors[0].path())
		require.Equal(t, "BAD_USER_INPUT", a.Errors[0].code())
		b.sql(t, `UPDATE threads SET subject = 'new' WHERE id = $1`, x.UUID)
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"thread_01h455vb4pex5vsknk084sn02q", "01890a5d-ac96-774b-bcce-b302099a8057", "a_b_00000000000000000000000000", "", "_", "x_8zzzzzzzzzzzzzzzzzzzzzzzzz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := record.ParseID(s)
		if err != nil {
			require.Zero(t, id)
			return
		}
		if id.Prefix == "" {
			require.True(t, strings.EqualFold(s, id.String()))
		} else {
			require.Equal(t, s, id.String(), "an id has one spelling")
		}
	})
}

func TestIDs(t *testing.T) {
	t.Parallel()
	// From TypeID's specification.
	for text, uuid := range map[string]string{
		"prefix_01h455vb4pex5vsknk084sn02q":    "01890a5d-ac96-774b-bcce-b302099a8057",
		"a_00000000000000000000000000":         "00000000-0000-0000-0000-000000000000",
		"a_00000000000000000000000001":         "00000000-0000-0000-0000-000000000001",
		"a_0000000000000000000000000z":         "00000000-0000-0000-0000-00000000001f",
		"pre_fix_0123456789abcdefghjkmnpqrs":   "0110c853-1d09-52d8-d73e-1194e95b5f19",
		"a_7zzzzzzzzzzzzzzzzzzzzzzzzz":         "ffffffff-ffff-ffff-ffff-ffffffffffff",
		"01890a5d-ac96-774b-bcce-b302099a8057": "01890a5d-ac96-774b-bcce-b302099a8057",
	} {
		id, err := record.ParseID(text)
		require.NoError(t, err, text)
		require.Equal(t, uuid, id.UUID.String(), text)
		require.Equal(t, text, id.String())
	}
	for _, text := range []string{"PREFIX_00000000000000000000000000", "12345_00000000000000000000000000", "pre.fix_00000000000000000000000000",
		"préfix_00000000000000000000000000", "  prefix_00000000000000000000000000", strings.Repeat("a", 64) + "_00000000000000000000000000",
		"_00000000000000000000000000", "_prefix_00000000000000000000000000", "prefix__00000000000000000000000000", "prefix_",
		"prefix_1234567890123456789012345", "prefix_123456789012345678901234567", "prefix_1234567890123456789012345 ",
		"prefix_0123456789ABCDEFGHJKMNPQRS", "prefix_123456789-123456789-123456", "prefix_ooooooooooooooooooooooooooo",
		"prefix_i23456789ol23456789oi23456", "prefix_8zzzzzzzzzzzzzzzzzzzzzzzzz", "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057"} {
		_, err := record.ParseID(text)
		require.Error(t, err, text)
	}
}
