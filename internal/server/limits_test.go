package server

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/99designs/gqlgen/graphql/handler/extension"
	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/internal/record"
)

// repeat joins n strings made with a number from 0.
func repeat(n int, format string) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, format, i)
	}
	return s.String()
}

func TestLimits(t *testing.T) {
	t.Parallel()
	// bomb selects 10 to the 9th fields in 900 tokens.
	bomb := `{ threads { edges { node { author { ...F0 } } } } } ` +
		repeat(9, "fragment F%[1]d on User { "+strings.Repeat("...G%[1]d ", 10)+"} ")
	for i := range 9 {
		bomb = strings.ReplaceAll(bomb, fmt.Sprintf("...G%d ", i), fmt.Sprintf("...F%d ", i+1))
	}
	bomb += `fragment F9 on User { name }`

	deep := func(n int) string {
		return `{ users ` + strings.Repeat(`{ friends `, n-2) + `{ id }` + strings.Repeat(`}`, n-2) + `}`
	}
	for _, c := range []struct {
		name, document string
		variables      map[string]any
		refused        string // what there is too much of; empty: allowed
	}{
		{"small", `{ ok }`, nil, ""},
		{"1,000 aliases", `{ ` + repeat(1000, `a%d: ok `) + `}`, nil, "1000 root fields"},
		{"100 root fields", `{ ` + repeat(100, `a%d: ok `) + `}`, nil, ""},
		{"101 root fields", `{ ` + repeat(101, `a%d: ok `) + `}`, nil, "101 root fields"},
		{"250 aliases below", `{ thread(id: 1) { ` + repeat(250, `a%d: id `) + `} }`, nil, ""},
		{"251 aliases below", `{ thread(id: 1) { ` + repeat(251, `a%d: id `) + `} }`, nil, "251 aliases"},
		{"the same field 1,001 times", `{ thread(id: 1) { ` + strings.Repeat(`id `, 1001) + `} }`, nil, "1002 selections"},
		{"the same field 1,001 times in a fragment", `{ ...F } fragment F on Query { ` + strings.Repeat(`... { ok } `, 501) + `}`, nil, "1003 selections"},
		{"fragments count as often as they are spread", `{ thread(id: 1) { ` + strings.Repeat(`...F `, 100) + `} } fragment F on Thread { ` + strings.Repeat(`id `, 10) + `}`, nil, "1001 fields"},
		{"root fields through fragments", `{ ...F ... on Query { b: ok } } fragment F on Query { ` + repeat(100, `a%d: ok `) + `}`, nil, "101 root fields"},
		{"fragment bomb", bomb, nil, "1000000004 fields"},
		{"nested conditions", `{ thread(id: 1) ` + strings.Repeat(`{ ... `, 20) + `{ id }` + strings.Repeat(`}`, 20) + `}`, nil, ""},
		{"too deep", deep(16), nil, "16 levels"},
		{"too deep by fragments", `{ users { ...F } } fragment F on User { friends { friends { friends { friends { friends { friends { friends { ...G } } } } } } } } ` +
			`fragment G on User { friends { friends { friends { friends { friends { friends { friends { id } } } } } } } }`, nil, "16 levels"},
		{"@skip does not hide", `{ ok ` + repeat(101, `a%d: ok @skip(if: true) `) + `}`, nil, "102 root fields"},
		{"tokens", `{ ok(` + strings.Repeat(`a: 1 `, 4000) + `) }`, nil, "exceeded token limit"},

		{"three levels of pages", `{ threads { edges { node { messages(first: 20) { edges { node { thread { members { id } } } } } } } } }`, nil, ""},
		{"a page of everything", `{ threads(first: 1000) { edges { node { messages(first: 1000) { edges { node { id } } } } } } }`, nil, "estimated values"},
		{"by a variable", `query($n: Int) { threads(first: $n) { edges { node { messages(last: $n) { edges { node { id } } } } } } }`, map[string]any{"n": 1000}, "estimated values"},
		{"by a variable's default", `query($n: Int = 1000) { threads(first: $n) { edges { node { messages(last: $n) { edges { node { id } } } } } } }`, nil, "estimated values"},
		{"beyond all numbers", `{ threads(first: 9223372036854775807) { edges { node { messages(last: 9223372036854775807) { edges { node { id } } } } } } }`, nil, "2147483647 estimated values"},
		{"lists of lists", `{ users { friends { friends { friends { friends { id } } } } } }`, nil, "estimated values"},
		{"lists of scalars", `{ users { tags } }`, nil, ""},
		{"ids", `query($ids: [ID!]!) { nodes(ids: $ids) { ... on Thread { members { friends { id name } } } } }`, map[string]any{"ids": strings.Split(strings.Repeat("i", 130), "")}, "estimated values"},
		{"snapshots of a list", `subscription { threadsChanged { thread { members { friends { id } } } } }`, nil, "estimated values"},
		{"few ids", `{ nodes(ids: [1, 2]) { ... on Thread { members { friends { id name } } } } }`, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			a := b.query(t, c.document, c.variables)
			if c.refused == "" {
				require.Empty(t, a.Errors)
				return
			}
			require.Len(t, a.Errors, 1)
			require.Equal(t, "TOO_COMPLEX", a.Errors[0].code(), a.Errors[0].Message)
			require.Contains(t, a.Errors[0].Message, c.refused)
			require.Empty(t, a.Data)
		})
	}
}

// The estimate, in figures.
func TestComplexity(t *testing.T) {
	t.Parallel()
	schema := gqlparser.MustLoadSchema(&ast.Source{Input: sdl})
	for _, c := range []struct {
		document string
		want     int
	}{
		{`{ ok }`, 1},
		{`{ thread(id: 1) { id title } }`, 3},
		{`{ threads { totalCount } }`, 1 + 20},
		{`{ threads(first: 3) { edges { node { id } } } }`, 1 + 3*3},
		{`{ threads(first: 3, last: 5) { edges { node { id } } } }`, 1 + 5*3},
		{`{ threads(first: 0) { edges { node { id } } } }`, 1 + 20*3},
		{`{ threads(first: 3) { edges { node { messages { edges { node { id } } } } } } }`, 1 + 3*(2+1+5*3)},
		{`{ users { id } }`, 1 + 20},
		{`{ thread(id: 1) { members { id } } }`, 1 + 1 + 20},
		{`{ nodes(ids: [1, 2, 3]) { id } }`, 1 + 3},
		{`{ records(refs: [1, 2, 3]) { threads { id } messages { id } } }`, 1 + 3*4},
		{`{ a: users { ...F } b: nodes(ids: [1, 2]) { ...G } } fragment F on User { friends { id } } fragment G on Node { ... on User { ...F } }`, 1 + 20*21 + 1 + 2*21},
		{`subscription { threadChanged(id: 1) { kind fields thread { id title } } }`, 6},
		{`subscription { threadsChanged { kind fields thread { id title } } }`, 1 + record.MaxRefs*5},
		{`subscription { ...F } fragment F on Subscription { threadsChanged(where: {title: "x"}) { thread { id } } }`, 1 + record.MaxRefs*2},
		{`{ __schema { types { fields { args { name } } } } }`, 1},
	} {
		doc := gqlparser.MustLoadQueryWithRules(schema, c.document, nil)
		m := meter{pageSize: 20, fragments: map[spread]cost{}}
		require.Equal(t, c.want, m.selections(doc.Operations[0].SelectionSet, false).complexity, c.document)
	}
}

// introspection is what playgrounds and code generators send.
const introspection = `query IntrospectionQuery { __schema {
  queryType { name } mutationType { name } subscriptionType { name } types { ...FullType }
  directives { name description locations args { ...InputValue } } } }
fragment FullType on __Type { kind name description
  fields(includeDeprecated: true) { name description args { ...InputValue } type { ...TypeRef } isDeprecated deprecationReason }
  inputFields { ...InputValue } interfaces { ...TypeRef } enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason }
  possibleTypes { ...TypeRef } }
fragment InputValue on __InputValue { name description type { ...TypeRef } defaultValue }
fragment TypeRef on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name
  ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } } } } }`

func TestIntrospectionIsForDevelopment(t *testing.T) {
	t.Parallel()
	require.Empty(t, setup(t, func(_ *Deps, c *Config) { c.Introspection = true }).query(t, introspection, nil).Errors)

	for _, document := range []string{
		introspection,
		`{ __type(name: "User") { name } }`,
		`{ ok ...F } fragment F on Query { ... { s: __schema { queryType { name } } } }`,
	} {
		e := setup(t).failure(t, document, nil)
		require.Equal(t, "GRAPHQL_VALIDATION_FAILED", e.code())
		require.Equal(t, "introspection is disabled", e.Message)
	}
	require.Empty(t, setup(t).query(t, `{ __typename ok }`, nil).Errors)
	require.NotContains(t, setup(t).failure(t, `{ okk }`, nil).Message, "Did you mean")
}

func TestLimitsAreChecked(t *testing.T) {
	t.Parallel()
	schema := setup(t).deps.Schema
	_, err := New(Deps{Schema: schema}, &Config{Limits: Limits{Depth: -1}})
	require.EqualError(t, err, "server: Limits.Depth is -1, and must not be negative")
	_, err = New(Deps{Schema: schema}, &Config{Sockets: Sockets{Operations: -1}})
	require.EqualError(t, err, "server: Sockets.Operations is -1, and must not be negative")
	free, err := New(Deps{Schema: schema}, &Config{Sockets: Sockets{PerUser: -1, PerAddress: -1}})
	require.NoError(t, err)
	for range 1000 {
		require.True(t, free.admit(holder{user: alice}) && free.admit(holder{address: "192.0.2.1"}))
	}
	for _, wrong := range []Sockets{{InitTimeout: -1}, {DrainTimeout: -1}, {PingInterval: -1}} {
		_, err = New(Deps{Schema: schema}, &Config{Sockets: wrong})
		require.EqualError(t, err, "server: Sockets.InitTimeout, Sockets.DrainTimeout and Sockets.PingInterval must not be negative")
	}
	_, err = New(Deps{Schema: schema}, &Config{Origins: []string{"example.com"}})
	require.ErrorContains(t, err, "Origins")
	_, err = New(Deps{Schema: schema}, &Config{OperationTimeout: -1})
	require.Error(t, err)
	_, err = New(Deps{}, nil)
	require.ErrorContains(t, err, "Schema")
}

// Extensions of others run behind the limits.
func TestExtensionsRunAfterTheLimits(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *Deps, _ *Config) { d.Extensions = append(d.Extensions, extension.FixedComplexityLimit(0)) })
	e := b.failure(t, `{ `+repeat(101, `a%d: ok `)+`}`, nil)
	require.Equal(t, "TOO_COMPLEX", e.code())
}

// What is right is checked without a word: values nest as deep as a body is long, and a path to each would be the square of that.
//
//nolint:paralleltest // it counts what the process allocates
func TestCheckingVariablesAllocatesNothing(t *testing.T) {
	schema := gqlparser.MustLoadSchema(&ast.Source{Input: sdl})
	op := gqlparser.MustLoadQueryWithRules(schema, `query($w: Where) { threads(where: $w) { totalCount } }`, nil).Operations[0]
	var where any = map[string]any{"title": "x", "version": json.Number("1"), "in": []any{json.Number("1.5"), json.Number("2")}}
	for range 1000 {
		where = map[string]any{"and": []any{where}}
	}
	vars := map[string]any{"w": where}
	require.Nil(t, checkVariables(schema, op, vars))
	require.Zero(t, testing.AllocsPerRun(10, func() { _ = checkVariables(schema, op, vars) }))
}

// Nor does refusing them take more than their length.
func TestRefusingVariablesAllocatesLittle(t *testing.T) { //nolint:paralleltest // it counts all that is allocated
	schema := gqlparser.MustLoadSchema(&ast.Source{Input: sdl})
	op := gqlparser.MustLoadQueryWithRules(schema, `query($w: Where) { threads(where: $w) { totalCount } }`, nil).Operations[0]
	allocated := func(deep int) uint64 {
		var where any = map[string]any{"title": json.Number("1")}
		for range deep {
			where = map[string]any{"and": []any{where}}
		}
		vars := map[string]any{"w": where}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		require.NotNil(t, checkVariables(schema, op, vars))
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	once, eight := allocated(500), allocated(4000)
	require.Less(t, eight, 16*once, "eight times the length")
}
