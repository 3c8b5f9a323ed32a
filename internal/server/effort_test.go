package server

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/validator"
)

// nested is an expression in n others.
func nested(n int, before, inner, after string) string {
	return strings.Repeat(before, n) + inner + strings.Repeat(after, n)
}

// chain is n fragments each of which spreads the next, from F0 to the one after the last.
func chain(n int, fields string) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, `fragment F%d on Query { ...F%d %s } `, i, i+1, fields)
	}
	return s.String()
}

// costly are documents of few tokens and selections that take gqlparser long, or much memory: seconds to minutes, or gigabytes.
func costly() map[string]string {
	bigValue := `{and: [` + strings.Repeat(`{title: "x"} `, 700) + `]}`
	return map[string]string{
		"inline fragments in each other":            `{ thread(id: 1) { ` + nested(450, `... { `, strings.Repeat(`id `, 450), `}`) + ` } }`,
		"operations that spread fields of one name": `fragment F on Thread { ` + strings.Repeat(`id `, 400) + `} ` + repeat(200, `query Q%d { thread(id: 1) { ...F } } `),
		"a chain of fragments":                      `{ ...F0 } ` + chain(190, `ok a: ok b: ok c: ok`) + `fragment F190 on Query { ok }`,
		"a long value in a chain of fragments":      `{ ...F0 } ` + chain(300, ``) + `fragment F300 on Query { threads(where: ` + bigValue + `) { totalCount } }`,
		"values in values":                          `{ threads(where: ` + nested(450, `{and: [`, `{version: 99999999999999999999, title: "`+strings.Repeat("x", 100_000)+`"}`, `]}`) + `) { totalCount } }`,
		"lists in lists":                            `{ threads(where: {and: ` + nested(900, `[`, ``, `]`) + `}) { totalCount } }`,
		"a default that is deep":                    `query($w: Where = ` + nested(450, `{and: [`, `{}`, `]}`) + `) { threads(where: $w) { totalCount } }`,
		"a name that messages repeat":               `query ` + strings.Repeat("n", 200_000) + ` { ` + repeat(300, `a%d: nodes(ids: [$a, $b, $c]) { id } `) + `}`,
		"a cycle of fragments with names":           `{ ...` + strings.Repeat("n", 5_000) + ` } fragment ` + strings.Repeat("n", 5_000) + ` on Query { ...` + strings.Repeat("n", 5_000) + ` }`,
		"directives":                                `{ ok ` + strings.Repeat(`@skip(if: false) `, 251) + `}`,
		"directives of fields":                      `{ thread(id: 1) { ` + strings.Repeat(`id @include(if: true) `, 251) + `} }`,
	}
}

// TestCostlyDocumentsAreNotValidated: they are refused by their measure, which takes no more memory than they are long.
func TestCostlyDocumentsAreNotValidated(t *testing.T) {
	t.Parallel()
	for name, document := range costly() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			e := b.failure(t, document, nil)
			require.Equal(t, "TOO_COMPLEX", e.code(), e.Message)
			require.Contains(t, e.Message, "the document")
			require.Less(t, len(e.Message), 200)
			require.Zero(t, b.docs.sent.held())
		})
	}
}

// Documents of the kind that applications send are far from the limit.
func TestOrdinaryDocumentsCostLittle(t *testing.T) {
	t.Parallel()
	var app strings.Builder // 50 fragments of a dozen fields, as components have them, with three more in each
	app.WriteString(`query App($id: ID!) { thread(id: $id) { ...F0 ...F1 ...F2 } } `)
	for i := range 50 {
		fmt.Fprintf(&app, `fragment F%d on Thread { `, i)
		for child := 3*i + 3; child < min(3*i+6, 50); child++ {
			fmt.Fprintf(&app, `...F%d `, child)
		}
		app.WriteString(`id title author { id name } members { id name tags } messages(first: 10) { edges { node { id text thread { id } } } } } `)
	}
	for name, document := range map[string]string{"introspection": introspection, "an application": app.String()} {
		doc, err := parse(document, Limits{Tokens: 10_000})
		require.NoError(t, err)
		e := effortOf(doc, 1_000_000)
		require.Less(t, e.cost, 250_000, name)
		t.Logf("%s: %d", name, e.cost)
	}
	require.Empty(t, setup(t, func(_ *Deps, c *Config) { c.Limits.Complexity = 1 << 30 }).query(t, app.String(), map[string]any{"id": "1"}).Errors)
}

func TestVariablesAreFewAndShallow(t *testing.T) {
	t.Parallel()
	const document = `query($w: Where) { threads(where: $w) { totalCount } }`
	empty := func(n int) map[string]any {
		all := make([]any, n)
		for i := range all {
			all[i] = map[string]any{}
		}
		return map[string]any{"w": map[string]any{"and": all}}
	}
	deep := func(n int) map[string]any {
		var v any = map[string]any{}
		for range n {
			v = []any{v}
		}
		return map[string]any{"w": v}
	}
	b := setup(t)
	require.Empty(t, b.query(t, document, empty(9_998)).Errors)
	for _, c := range []struct {
		variables map[string]any
		message   string
	}{
		{empty(9_999), "the variables have 10001 values, and 10000 are allowed"},
		{empty(300_000), "the variables have 300002 values, and 10000 are allowed"},
		{deep(32), "the variables have 33 levels, and 32 are allowed"},
		{deep(9_000), "the variables have 9001 levels, and 32 are allowed"},
	} {
		e := b.failure(t, document, c.variables)
		require.Equal(t, "TOO_COMPLEX", e.code())
		require.Equal(t, c.message, e.Message)
	}
}

// What nothing else bounds is not many elements: each of a list in an argument counts.
func TestElementsOfListsCount(t *testing.T) {
	t.Parallel()
	schema := gqlparser.MustLoadSchema(&ast.Source{Input: sdl})
	ten := make([]any, 10)
	for _, c := range []struct {
		document string
		want     int
	}{
		{`{ threads(where: {in: [1, 2, 3]}) { totalCount } }`, 1 + 20 + 3},
		{`{ threads(where: {and: [{in: [1, 2]}, {in: [1]}]}) { totalCount } }`, 1 + 20 + 5},
		{`query($w: Where) { a: threads(where: $w) { totalCount } b: threads(where: $w) { totalCount } }`, 2 * (1 + 20 + 12)},
		{`query($n: [Float!]) { threads(where: {in: $n}) { totalCount } }`, 1 + 20 + 10},
		{`mutation($n: [Float!]) { rename(id: 1, expectedVersion: 1, where: {in: $n}) }`, 1 + 10},
		{`query($ids: [ID!]!) { nodes(ids: $ids) { id } }`, 1 + 10},
		{`{ nodes(ids: []) { id } }`, 1 + 1},
	} {
		doc := gqlparser.MustLoadQueryWithRules(schema, c.document, nil)
		m := meter{pageSize: 20, fragments: map[spread]cost{}, vars: map[string]any{
			"n": ten, "ids": ten, "w": map[string]any{"and": []any{map[string]any{"in": ten}, map[string]any{}}},
		}}
		require.Equal(t, c.want, m.selections(doc.Operations[0].SelectionSet, false).complexity, c.document)
	}
}

func TestDirectivesAreFew(t *testing.T) {
	t.Parallel()
	document := func(n int) string {
		return `query($yes: Boolean!) { thread(id: 1) { ` + strings.Repeat(`...F `, n) + `} } fragment F on Thread { ... @include(if: $yes) { id @skip(if: false) } ...G @skip(if: $yes) } fragment G on Thread { title @include(if: $yes) }`
	}
	require.Empty(t, setup(t).query(t, document(62), map[string]any{"yes": true}).Errors)
	e := setup(t).failure(t, document(63), map[string]any{"yes": true})
	require.Equal(t, "the operation has 252 directives, and 250 are allowed", e.Message)
	require.Equal(t, "TOO_COMPLEX", e.code())
}

// TestWeights: what a document is said to take in memory, with its text, is what it takes.
//
//nolint:paralleltest // it measures the process
func TestWeights(t *testing.T) {
	schema := gqlparser.MustLoadSchema(&ast.Source{Input: sdl})
	limits := Limits{Tokens: 10_000}
	for name, document := range map[string]string{
		"fields":     `{ thread(id: 1) { ` + strings.Repeat(`id `, 900) + `} }`,
		"aliases":    `{ ` + repeat(900, `alias%d: ok `) + `}`,
		"arguments":  `{ ` + repeat(400, `a%d: threads(first: 1, last: 2) { totalCount } `) + `}`,
		"values":     `{ threads(where: {in: [` + strings.Repeat(`1 `, 9_000) + `]}) { totalCount } }`,
		"objects":    `{ threads(where: {and: [` + strings.Repeat(`{title: ""}`, 1_900) + `]}) { totalCount } }`,
		"fragments":  `{ ...F0 } ` + repeat(400, `fragment F%d on Query { ok } `),
		"directives": `{ thread(id: 1) { ` + strings.Repeat(`id @skip(if: true) `, 240) + `} }`,
		"variables":  `query(` + repeat(1_500, `$v%d: Int `) + `) { ok }`,
		"inline":     `{ thread(id: 1) { ` + strings.Repeat(`... { id } `, 450) + `} }`,
		"comments":   `{ ` + strings.Repeat("# x\n", 4_000) + ` ok }`,
	} {
		const copies = 20
		docs := make([]*ast.QueryDocument, copies)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		said := 0
		for i := range docs {
			text := strings.Clone(document)
			doc, err := parse(text, limits)
			require.NoError(t, err)
			_ = validator.ValidateWithRules(schema, doc, nil) // some are not valid; it fills in the nodes
			docs[i] = doc
			said += len(text) + effortOf(doc, 0).weight(text)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		taken := int(after.HeapAlloc) - int(before.HeapAlloc) // #nosec G115 -- bytes of a test
		runtime.KeepAlive(docs)
		t.Logf("%s: said %d, taken %d", name, said/copies, taken/copies)
		require.Less(t, taken, said+said/2, name)
		require.Greater(t, taken, said/20, name)
	}
}

// FuzzEffort: what the measure lets pass is validated in a moment.
func FuzzEffort(f *testing.F) {
	schema := gqlparser.MustLoadSchema(&ast.Source{Input: sdl})
	for _, document := range costly() {
		f.Add(document)
	}
	f.Add(introspection)
	f.Add(`query($w: Where = {title: "x"}) @skip(if: true) { threads(where: $w) { ...F } } fragment F on ThreadConnection { ...F totalCount }`)
	limits, err := Limits{}.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, document string) {
		doc, err := parse(document, limits)
		if err != nil {
			return
		}
		if effortOf(doc, limits.Validation).beyond(limits) != nil {
			return
		}
		began := time.Now()
		_ = validator.ValidateWithRules(schema, doc, quiet())
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("%s, said to be %d", took, effortOf(doc, limits.Validation).cost)
		}
	})
}

// BenchmarkValidation is what documents at the limit cost, to see that a unit is some 0.1 us.
func BenchmarkValidation(b *testing.B) {
	schema := gqlparser.MustLoadSchema(&ast.Source{Input: sdl})
	limits, err := Limits{}.withDefaults()
	if err != nil {
		b.Fatal(err)
	}
	for name, document := range map[string]string{
		"introspection":      introspection,
		"one name":           `{ thread(id: 1) { ` + strings.Repeat(`id `, 998) + `} }`,
		"names":              `{ ` + repeat(999, `a%d: ok `) + `}`,
		"inline fragments":   `{ thread(id: 1) { ` + nested(60, `... { `, strings.Repeat(`id `, 170), `}`) + ` } }`,
		"nested fields":      `{ users { ` + nested(240, `friends { id `, `id`, `} `) + nested(240, `friends { id `, `id`, `} `) + ` } }`,
		"chain":              `{ ...F0 } ` + chain(120, `ok a: ok`) + `fragment F120 on Query { ok }`,
		"overlap":            `{ ...F0 } ` + chain(30, strings.Repeat(`ok `, 30)) + `fragment F30 on Query { ok }`,
		"values":             `{ threads(where: {and: [` + strings.Repeat(`{in: [1 2]} `, 1_100) + `]}) { totalCount } }`,
		"deep values":        `{ threads(where: ` + nested(14, `{and: [`, `{in: [`+strings.Repeat(`1 `, 6_000)+`]}`, `]}`) + `) { totalCount } }`,
		"values of one name": `{ ` + strings.Repeat(`threads(where: {and: [{title: "x"} {title: "y"} {title: "z"}]}) { totalCount } `, 200) + `}`,
	} {
		b.Run(name, func(b *testing.B) {
			cost := 0
			for b.Loop() {
				doc, err := parse(document, limits)
				if err != nil {
					b.Fatal(err)
				}
				cost = effortOf(doc, 1<<40).cost
				_ = validator.ValidateWithRules(schema, doc, quiet())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(cost), "ns/unit")
			b.ReportMetric(float64(cost), "units")
		})
	}
}
