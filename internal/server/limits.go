package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/errcode"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/record"
)

// Limits bound what one client may ask for at once. Zero is the default. A fragment counts as often as it is
// spread, and @skip and @include are taken as selecting.
type Limits struct {
	// Body is the most bytes of an HTTP body. Default 1 MiB.
	Body int64
	// Tokens is the most tokens of a document. Default 10,000.
	Tokens int
	// Depth is how deep selections may nest; introspection has a limit of its own, gqlparser's. Default 15.
	Depth int
	// RootFields is the most fields of the operation's root. Default 100.
	RootFields int
	// Aliases is the most renamed fields. Default 250.
	Aliases int
	// Fields is the most selected fields, and the most selections as they are written in a document. Default 1,000.
	Fields int
	// Directives is the most directives that apply, and the most that are written in a document. Default 250.
	Directives int
	// Values is the most values in variables, lists and objects included. Default 10,000.
	Values int
	// ValueDepth is on how many levels a value may stand, in variables and in documents. Default 32.
	ValueDepth int
	// Validation is what validating a document may be estimated to cost, in units of some 0.1 us. Default 1,000,000.
	Validation int
	// Complexity is the most values that the answer may be estimated to hold. Default 100,000.
	Complexity int
	// PageSize is what the estimate takes for a list whose length the document does not say. Default 20.
	PageSize int
	// Documents is how many bytes of parsed documents are kept. Default 32 MiB.
	Documents int
	// Persisted is how many bytes of documents are kept that clients name by their hash. Default 8 MiB.
	Persisted int
}

func (l Limits) withDefaults() (Limits, error) {
	if l.Body < 0 {
		return l, fmt.Errorf("server: Limits.Body is %d, and must not be negative", l.Body)
	}
	if l.Body == 0 {
		l.Body = 1 << 20
	}
	for _, f := range []struct {
		name    string
		value   *int
		initial int
	}{
		{"Tokens", &l.Tokens, 10_000},
		{"Depth", &l.Depth, 15},
		{"RootFields", &l.RootFields, 100},
		{"Aliases", &l.Aliases, 250},
		{"Fields", &l.Fields, 1_000},
		{"Directives", &l.Directives, 250},
		{"Values", &l.Values, 10_000},
		{"ValueDepth", &l.ValueDepth, 32},
		{"Validation", &l.Validation, 1_000_000},
		{"Complexity", &l.Complexity, 100_000},
		{"PageSize", &l.PageSize, 20},
		{"Documents", &l.Documents, 32 << 20},
		{"Persisted", &l.Persisted, 8 << 20},
	} {
		if *f.value < 0 {
			return l, fmt.Errorf("server: Limits.%s is %d, and must not be negative", f.name, *f.value)
		}
		if *f.value == 0 {
			*f.value = f.initial
		}
	}
	return l, nil
}

// Sockets bound WebSockets and event streams. Zero is the default.
type Sockets struct {
	// InitTimeout is how long a client may take to sign its socket in, or to open the event stream that it reserved. Default 10 s.
	InitTimeout time.Duration
	// DrainTimeout is how long a client may take nothing of what waits for it; then its socket or event stream is closed. It is also how
	// long a socket may take to send a whole message. Default 30 s.
	DrainTimeout time.Duration
	// PingInterval is the time between the server's pings; a socket of which nothing came after two of them is closed. The clients of
	// web/clients take one for lost on which nothing came for 45 s. Default 20 s.
	PingInterval time.Duration
	// MessageSize is the most bytes of a message. Default 64 KiB.
	MessageSize int
	// MessageRate is the most messages a second of a socket, and how many may come at once. Default 100.
	MessageRate int
	// Operations is the most at the same time on a socket or an event stream. Default 100.
	Operations int
	// WriteBuffer is how many bytes may wait for one client. Streams that are pushed pause beyond that, and go on with a state instead of
	// what was left out. Default 256 KiB.
	WriteBuffer int
	// PerUser is the most sockets and event streams of a user on this node. Default 100; negative: any number.
	PerUser int
	// PerAddress is the most sockets and event streams of nobody on this node, of an address, or of its network of 64 bits (IPv6). Those
	// of who is signed in are not among them. Default 100; negative: any number.
	PerAddress int
}

func (c Sockets) withDefaults() (Sockets, error) {
	if c.InitTimeout < 0 || c.DrainTimeout < 0 || c.PingInterval < 0 {
		return c, errors.New("server: Sockets.InitTimeout, Sockets.DrainTimeout and Sockets.PingInterval must not be negative")
	}
	c.InitTimeout = cmp.Or(c.InitTimeout, 10*time.Second)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 30*time.Second)
	c.PingInterval = cmp.Or(c.PingInterval, 20*time.Second)
	for _, f := range []struct {
		name    string
		value   *int
		initial int
	}{
		{"MessageSize", &c.MessageSize, 64 << 10},
		{"MessageRate", &c.MessageRate, 100},
		{"Operations", &c.Operations, 100},
		{"WriteBuffer", &c.WriteBuffer, 256 << 10},
	} {
		if *f.value < 0 {
			return c, fmt.Errorf("server: Sockets.%s is %d, and must not be negative", f.name, *f.value)
		}
		*f.value = cmp.Or(*f.value, f.initial)
	}
	c.PerUser, c.PerAddress = cmp.Or(c.PerUser, 100), cmp.Or(c.PerAddress, 100)
	return c, nil
}

// guard refuses an operation that is beyond the limits, before it runs.
type guard struct {
	schema        *ast.Schema
	documents     *documents
	limits        Limits
	introspection bool
}

var (
	_ graphql.OperationParameterMutator = guard{}
	_ graphql.OperationContextMutator   = guard{}
)

func (guard) ExtensionName() string                   { return "Limits" }
func (guard) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationParameters refuses what would take too long to validate: variables, which gqlparser looks through field by field of
// their types, and documents.
func (g guard) MutateOperationParameters(ctx context.Context, params *graphql.RawParams) *gqlerror.Error {
	values, levels := extent(params.Variables)
	values, levels = values-1, levels-1 // without the object that they are in
	for _, l := range []struct {
		what     string
		got, max int
	}{{"values", values, g.limits.Values}, {"levels", levels, g.limits.ValueDepth}} {
		if l.got > l.max {
			return refusal(string(record.TooComplex), "the variables have %d %s, and %d are allowed", l.got, l.what, l.max)
		}
	}
	if _, ok := g.documents.Get(ctx, params.Query); ok {
		return nil
	}
	doc, err := parse(params.Query, g.limits)
	if err != nil {
		return nil // the executor parses again, and says so
	}
	return effortOf(doc, g.limits.Validation).beyond(g.limits)
}

// MutateOperationContext refuses an operation that would take too long to execute. The document of another is kept.
func (g guard) MutateOperationContext(_ context.Context, op *graphql.OperationContext) *gqlerror.Error {
	op.DisableIntrospection = !g.introspection

	if err := checkVariables(g.schema, op.Operation, op.Variables); err != nil {
		return err
	}
	c := g.measure(op.Operation, op.Variables)
	if err := g.beyond(c); err != nil {
		return err
	}
	if c.complexity > g.limits.Complexity {
		return refusal(string(record.TooComplex), "the operation has %d estimated values, and %d are allowed", c.complexity, g.limits.Complexity)
	}
	if op.Operation.Operation == ast.Subscription {
		// Validation counts fields that @skip and @include leave out.
		if n := len(graphql.CollectFields(op, op.Operation.SelectionSet, []string{"Subscription"})); n != 1 {
			return refusal(string(record.BadUserInput), "a subscription selects one root field, and this selects %d", n)
		}
	}
	g.documents.keep(op.RawQuery, op.Doc)
	return nil
}

func (g guard) measure(op *ast.OperationDefinition, variables map[string]any) cost {
	m := meter{pageSize: g.limits.PageSize, vars: variables, fragments: map[spread]cost{}}
	c := m.selections(op.SelectionSet, false)
	c.directives = min(c.directives+len(op.Directives), most)
	return c
}

// beyond refuses what is beyond the limits whatever the variables are.
func (g guard) beyond(c cost) *gqlerror.Error {
	for _, l := range []struct {
		what     string
		got, max int
	}{
		{"levels", c.depth, g.limits.Depth},
		{"root fields", c.width, g.limits.RootFields},
		{"aliases", c.aliases, g.limits.Aliases},
		{"directives", c.directives, g.limits.Directives},
		{"fields", c.fields, g.limits.Fields},
	} {
		if l.got > l.max {
			return refusal(string(record.TooComplex), "the operation has %d %s, and %d are allowed", l.got, l.what, l.max)
		}
	}
	if c.introspects && !g.introspection {
		return refusal(errcode.ValidationFailed, "introspection is disabled")
	}
	return nil
}

func refusal(code, format string, args ...any) *gqlerror.Error {
	err := gqlerror.Errorf(format, args...)
	errcode.Set(err, code)
	return err
}

// cost is what a selection asks for. Sums and products stop at most.
type cost struct {
	width       int // fields of this level
	fields      int // fields of all levels
	aliases     int
	directives  int
	depth       int
	complexity  int
	introspects bool
}

const most = math.MaxInt32

func (c *cost) add(d cost) {
	c.width = min(c.width+d.width, most)
	c.fields = min(c.fields+d.fields, most)
	c.aliases = min(c.aliases+d.aliases, most)
	c.directives = min(c.directives+d.directives, most)
	c.depth = max(c.depth, d.depth)
	c.complexity = min(c.complexity+d.complexity, most)
	c.introspects = c.introspects || d.introspects
}

// spread is a fragment in a place. Directly below an object whose field said how long its lists are, a
// connection or a record map, a list is not counted again.
type spread struct {
	fragment *ast.FragmentDefinition
	counted  bool
}

// meter measures one operation. Each fragment is measured once a place and remembered, since ten fragments
// that spread one another ten times select ten thousand million fields.
type meter struct {
	pageSize  int
	vars      map[string]any
	fragments map[spread]cost
	passed    map[string]int // elements of lists in a variable, once it was looked at
}

func (m *meter) selections(set ast.SelectionSet, counted bool) cost {
	var c cost
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			c.add(m.field(sel, counted))
		case *ast.InlineFragment:
			c.add(m.selections(sel.SelectionSet, counted))
			c.directives = min(c.directives+len(sel.Directives), most)
		case *ast.FragmentSpread:
			key := spread{sel.Definition, counted}
			d, ok := m.fragments[key]
			if !ok {
				d = m.selections(sel.Definition.SelectionSet, counted)
				d.directives = min(d.directives+len(sel.Definition.Directives), most)
				m.fragments[key] = d
			}
			c.add(d)
			c.directives = min(c.directives+len(sel.Directives), most)
		}
	}
	return c
}

func (m *meter) field(f *ast.Field, counted bool) cost {
	n, byList, known := m.length(f)
	list := f.Definition.Type.Elem != nil
	if list && !known && !counted {
		n = m.pageSize
	}
	c := m.selections(f.SelectionSet, known && !list)
	c.width = 1
	c.fields = min(c.fields+1, most)
	if f.Alias != f.Name {
		c.aliases = min(c.aliases+1, most)
	}
	c.directives = min(c.directives+len(f.Directives), most)
	c.depth++
	c.complexity = min(1+n*c.complexity, most)
	given := 0
	for _, arg := range f.Arguments {
		given = min(given+m.elements(arg.Value), most)
	}
	if byList && len(f.SelectionSet) > 0 {
		given = max(given-n, 0) // the selection is answered for each of them
	}
	c.complexity = min(c.complexity+given, most)
	if f.Name == "__schema" || f.Name == "__type" {
		c.depth, c.complexity, c.introspects = 1, 1, true
	}
	return c
}

// length is how often the selection of f is answered: as many times as `first` or `last` say, or as many as
// there are values in a list argument, which byList reports. A subscription to a list, which takes a filter, begins with a snapshot of each
// record. known is false where the arguments say nothing; length is 1 then.
func (m *meter) length(f *ast.Field) (n int, byList, known bool) {
	if f.ObjectDefinition.Name == "Subscription" && f.Definition.Arguments.ForName("where") != nil {
		return record.MaxRefs, false, true
	}
	paged := false
	for _, def := range f.Definition.Arguments {
		if def.Name != "first" && def.Name != "last" {
			continue
		}
		paged = true
		if v, ok := m.value(f, def).(int64); ok {
			n = max(n, int(min(v, most)))
		}
	}
	if paged {
		if n <= 0 {
			n = m.pageSize
		}
		return n, false, true
	}
	for _, def := range f.Definition.Arguments {
		if def.Type.Elem == nil {
			continue
		}
		if list, ok := m.value(f, def).([]any); ok {
			n, byList = max(n, min(len(list), most)), true
		}
	}
	return max(n, 1), byList && n > 0, byList
}

// value is an argument's value, or nil where it has none that can be read. A wrong one is refused later.
func (m *meter) value(f *ast.Field, def *ast.ArgumentDefinition) any {
	v := def.DefaultValue
	if arg := f.Arguments.ForName(def.Name); arg != nil {
		v = arg.Value
	}
	if v == nil {
		return nil
	}
	got, err := v.Value(m.vars)
	if err != nil {
		return nil
	}
	return got
}

// elements is how many there are in the lists of a literal, and of the variables in it: each is looked at, or looked up, or written.
func (m *meter) elements(v *ast.Value) (n int) {
	if v.Kind == ast.Variable {
		n, ok := m.passed[v.Raw]
		if !ok {
			n = elements(m.vars[v.Raw])
			if m.passed == nil {
				m.passed = map[string]int{}
			}
			m.passed[v.Raw] = n
		}
		return n
	}
	if v.Kind == ast.ListValue {
		n = len(v.Children)
	}
	for _, child := range v.Children {
		n = min(n+m.elements(child.Value), most)
	}
	return n
}

func elements(value any) (n int) {
	switch value := value.(type) {
	case []any:
		n = len(value)
		for _, v := range value {
			n += elements(v)
		}
	case map[string]any:
		for _, v := range value {
			n += elements(v)
		}
	}
	return n
}
