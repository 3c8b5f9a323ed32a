package server

import (
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/record"
)

// longestName is how many bytes a name in a document may have: messages of validation repeat names, that of an operation for each of its
// variables.
const longestName = 500

// What the parts of a document cost to validate, in units of some 0.1 us.
const (
	costOfSelection = 10
	costOfDirective = 10
	costOfValue     = 5  // at each level that it is below
	bytesOfValue    = 64 // of a literal's text for one more
)

// effort is what a document has, and what validating it is estimated to cost. gqlparser walks each operation, and each fragment, with all
// that they spread; compares the fields of one name in a set with each other, again for each inline fragment around them; and reads a value
// once more at each of its levels. So a document of a few kilobytes can take minutes.
type effort struct {
	limit int // beyond which nobody wants to know the cost

	cost       int // stops somewhat above limit
	selections int
	directives int
	arguments  int // and fields of literals; a variable is two
	values     int
	levels     int // of the deepest literal
	longest    int // bytes of a name
	variables  int // most of an operation
	parts      []*part
	named      map[string]sized // all fields by their name in the answer; selections and values are sums of their own
}

// part is an operation or a fragment.
type part struct {
	own     int // what it costs to walk, without what it spreads
	spreads []string
	seen    *part // the last from which it was reached
}

// sized is a field with what is below it.
type sized struct {
	name               string
	selections, values int
}

// effortOf measures a document, in time linear in its length and in limit.
func effortOf(doc *ast.QueryDocument, limit int) *effort {
	e := &effort{limit: limit, named: map[string]sized{}}
	for _, op := range doc.Operations {
		e.variables = max(e.variables, len(op.VariableDefinitions))
	}
	for _, op := range doc.Operations {
		p := e.part(op.Name)
		for _, def := range op.VariableDefinitions {
			e.name(def.Variable, def.Type.Name())
			p.own += costOfSelection
			e.arguments += 2
			if def.DefaultValue != nil {
				e.value(p, def.DefaultValue, 1)
			}
			e.apply(p, def.Directives)
		}
		e.apply(p, op.Directives)
		e.set(p, op.SelectionSet)
	}
	fragments := make(map[string]*part, len(doc.Fragments))
	for _, f := range doc.Fragments {
		p := e.part(f.Name)
		e.name(f.TypeCondition)
		e.apply(p, f.Directives)
		e.set(p, f.SelectionSet)
		if fragments[f.Name] == nil { // of one name, the first is spread
			fragments[f.Name] = p
		}
	}
	if len(fragments) > 0 { // whatever is in one may be held against what is in another, once
		for _, f := range e.named {
			e.cost += f.selections*(f.selections-1)/2 + (f.selections-1)*f.values
		}
	}
	for _, p := range e.parts {
		if e.walk(p, p, fragments); e.cost > limit {
			break
		}
	}
	return e
}

func (e *effort) part(name string) *part {
	e.name(name)
	p := &part{own: costOfSelection}
	e.parts = append(e.parts, p)
	return p
}

// walk adds what p costs, and what it spreads, where that was not reached from the same root.
func (e *effort) walk(root, p *part, fragments map[string]*part) {
	p.seen = root
	e.cost += p.own
	for _, name := range p.spreads {
		if e.cost > e.limit {
			return
		}
		if f := fragments[name]; f != nil && f.seen != root {
			e.walk(root, f, fragments)
		}
	}
}

// set returns the fields of a set, those in inline fragments included, and how much there is on all levels.
func (e *effort) set(p *part, set ast.SelectionSet) (fields []sized, selections, values int) {
	for _, sel := range set {
		e.selections++
		selections++
		p.own += costOfSelection
		switch sel := sel.(type) {
		case *ast.Field:
			e.name(sel.Alias, sel.Name)
			n := e.pass(p, sel.Arguments) + e.apply(p, sel.Directives)
			_, below, within := e.set(p, sel.SelectionSet)
			fields = append(fields, sized{sel.Alias, 1 + below, n + within})
			all := e.named[sel.Alias]
			e.named[sel.Alias] = sized{sel.Alias, all.selections + 1, all.values + n}
			selections, values = selections+below, values+n+within
		case *ast.InlineFragment:
			e.name(sel.TypeCondition)
			n := e.apply(p, sel.Directives)
			inner, below, within := e.set(p, sel.SelectionSet)
			if p.own <= e.limit { // else there is no end to what nested ones hand on
				fields = append(fields, inner...)
			}
			selections, values = selections+below, values+n+within
		case *ast.FragmentSpread:
			e.name(sel.Name)
			p.spreads = append(p.spreads, sel.Name)
			values += e.apply(p, sel.Directives)
		}
	}
	p.own += len(fields) + comparisons(fields)
	return fields, selections, values
}

// comparisons is how often two fields, or values, are held against each other, since fields have the same name in the answer.
func comparisons(fields []sized) (n int) {
	if len(fields) < 2 {
		return 0
	}
	type group struct{ selections, squares, values int }
	groups := make(map[string]*group, len(fields))
	for _, f := range fields {
		g := groups[f.name]
		if g == nil {
			g = &group{}
			groups[f.name] = g
		}
		g.selections += f.selections
		g.squares += f.selections * f.selections
		g.values += f.values
	}
	for _, g := range groups {
		if pairs := (g.selections*g.selections - g.squares) / 2; pairs > 0 {
			n += pairs + g.selections*g.values
		}
	}
	return n
}

// apply measures directives, and returns how many values they have.
func (e *effort) apply(p *part, directives ast.DirectiveList) (values int) {
	for _, d := range directives {
		e.name(d.Name)
		e.directives++
		p.own += costOfDirective
		values += e.pass(p, d.Arguments)
	}
	return values
}

// pass measures arguments, and returns how many values they have.
func (e *effort) pass(p *part, arguments ast.ArgumentList) (values int) {
	for _, a := range arguments {
		e.name(a.Name)
		e.arguments++
		values += e.value(p, a.Value, 1)
	}
	return values
}

// value measures a literal, and returns of how many it consists.
func (e *effort) value(p *part, v *ast.Value, level int) (n int) {
	e.values++
	e.levels = max(e.levels, level)
	p.own += level * (costOfValue + len(v.Raw)/bytesOfValue)
	switch v.Kind {
	case ast.Variable:
		e.name(v.Raw)
		p.own += e.variables / costOfSelection // it is searched for
	case ast.EnumValue:
		e.name(v.Raw)
	}
	n = 1
	for _, child := range v.Children {
		e.name(child.Name)
		e.arguments++
		n += e.value(p, child.Value, level+1)
	}
	return n
}

func (e *effort) name(names ...string) {
	for _, name := range names {
		e.longest = max(e.longest, len(name))
	}
}

// beyond refuses a document that is beyond the limits, or would take too long to validate.
func (e *effort) beyond(limits Limits) *gqlerror.Error {
	for _, l := range []struct {
		format   string
		got, max int
	}{
		{"the document has %d selections, and %d are allowed", e.selections, limits.Fields},
		{"the document has %d directives, and %d are allowed", e.directives, limits.Directives},
		{"a value in the document has %d levels, and %d are allowed", e.levels, limits.ValueDepth},
		{"a name in the document has %d bytes, and %d are allowed", e.longest, longestName},
	} {
		if l.got > l.max {
			return refusal(string(record.TooComplex), l.format, l.got, l.max)
		}
	}
	if e.cost > limits.Validation {
		return refusal(string(record.TooComplex),
			"the document would take too long to validate: it has too many fields of one name, or fragments in fragments, or values in values")
	}
	return nil
}

// weight is how many bytes a document takes in memory, besides its text. Nodes have their tokens, for the place in the text, and comments.
func (e *effort) weight(text string) int {
	return 1024 + 512*len(e.parts) + 320*(e.selections+e.directives) + 192*e.arguments + 256*e.values + 128*strings.Count(text, "#")
}

// extent is how many values there are in JSON, and on how many levels.
func extent(value any) (values, levels int) {
	values = 1
	switch value := value.(type) {
	case map[string]any:
		for _, v := range value {
			n, l := extent(v)
			values, levels = values+n, max(levels, l)
		}
	case []any:
		for _, v := range value {
			n, l := extent(v)
			values, levels = values+n, max(levels, l)
		}
	}
	return values, levels + 1
}
