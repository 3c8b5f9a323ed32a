package codegen

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"entgo.io/ent/entc/gen"

	"godstack/internal/entity"
)

// roles are those that a rule may name, as package viewer has them.
var roles = []string{"user", "moderator", "admin"}

const read entity.Operation = "read"

// operations are what an entity has rules for, in the order of entity.Access.
var operations = []entity.Operation{read, entity.Create, entity.Update, entity.Delete}

// ruleFor returns an entity's rule for an operation.
func ruleFor(a entity.Access, op entity.Operation) entity.Rule {
	switch op {
	case entity.Create:
		return a.Create
	case entity.Update:
		return a.Update
	case entity.Delete:
		return a.Delete
	}
	return a.Read
}

// words returns a rule and all that it is made of.
func words(r entity.Rule) []entity.Rule {
	all := []entity.Rule{r}
	for _, part := range r.Rules {
		all = append(all, words(part)...)
	}
	return all
}

// ruleEdge returns the edge that a rule of an entity names, as the schema file or as the API does; nil if there is none.
func ruleEdge(n *gen.Type, name string) *gen.Edge {
	for _, d := range n.Edges {
		if d.Name == name || camel(d.Name) == name {
			return d
		}
	}
	return nil
}

// ruleExpr returns the Go expression of an entity's rule. Edges have their GraphQL names in it.
func ruleExpr(n *gen.Type, r entity.Rule) string {
	var args []string
	switch r.Kind {
	case entity.KindIs, entity.KindHas, entity.KindThrough:
		args = append(args, strconv.Quote(camel(ruleEdge(n, r.Name).Name)))
	case entity.KindRole, entity.KindCustom:
		args = append(args, strconv.Quote(r.Name))
	}
	if r.Op != "" {
		args = append(args, "entity."+capital(string(r.Op)))
	}
	for _, part := range r.Rules {
		args = append(args, ruleExpr(n, part))
	}
	return fmt.Sprintf("entity.%s(%s)", capital(string(r.Kind)), strings.Join(args, ", "))
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// access checks an entity's rules.
func (c *checker) access(n *gen.Type, of entity.Annotation) {
	a, ok, err := entity.DecodeAccess(n.Annotations)
	switch {
	case err != nil:
		c.fail(n, "", err)
		return
	case of.ReadableBy != nil:
		c.fail(n, "", fmt.Errorf("%s has entity.ReadableBy, which is for fields: use entity.Access", n.Name))
	}
	if of.Internal {
		if ok {
			c.fail(n, accessPlace, fmt.Errorf("%s has entity.Access and is internal: the API shows it to nobody", n.Name))
		}
		return
	}
	if of.Restore != nil {
		for _, w := range words(*of.Restore) {
			if err := checkWord(n, w); err != nil {
				c.fail(n, "", fmt.Errorf("who restores a %s: %w", n.Name, err))
			}
		}
	}
	for _, op := range operations {
		if r := ruleFor(a, op); r.Kind != "" {
			for _, w := range words(r) {
				if err := checkWord(n, w); err != nil {
					c.fail(n, accessPlace+"."+string(op), fmt.Errorf("%s rule of %s: %w", op, n.Name, err))
				}
			}
		}
	}
}

// checkWord returns what is wrong with one word of an entity's rule.
func checkWord(n *gen.Type, r entity.Rule) error {
	switch r.Kind {
	case entity.KindAnyone, entity.KindSignedIn:
		return nil
	case entity.KindRole:
		if !slices.Contains(roles, r.Name) {
			return fmt.Errorf("Role(%q): there is no such role: use one of %s", r.Name, strings.Join(roles, ", "))
		}
		return nil
	case entity.KindSelf:
		if n.Name != "User" {
			return fmt.Errorf("Self(): is for User alone: a record of %s is nobody; use Is with an edge to User", n.Name)
		}
		return nil
	case entity.KindCustom:
		if r.Name == "" {
			return errors.New(`Custom(""): has no name, under which the program could supply it`)
		}
		return nil
	case entity.KindAny, entity.KindAll:
		if len(r.Rules) == 0 {
			return fmt.Errorf("%s(): has no rule in it", capital(string(r.Kind)))
		}
		return nil
	case entity.KindIs, entity.KindHas, entity.KindThrough:
		if err := checkEdgeWord(n, r); err != nil {
			return fmt.Errorf("%s(%q): %w", capital(string(r.Kind)), r.Name, err)
		}
		return nil
	}
	return fmt.Errorf("there is no rule %q: make rules with the functions of package entity; administrators alone are Role(\"admin\")", r.Kind)
}

// checkEdgeWord returns what is wrong with a word that names an edge.
func checkEdgeWord(n *gen.Type, r entity.Rule) error {
	d := ruleEdge(n, r.Name)
	if d == nil {
		if len(n.Edges) == 0 {
			return fmt.Errorf("%s has no edges", n.Name)
		}
		var names []string
		for _, d := range n.Edges {
			names = append(names, d.Name)
		}
		return fmt.Errorf("there is no such edge; %s has %s", n.Name, strings.Join(names, ", "))
	}
	toUser := d.Type.Name == "User"
	other, err := entity.Decode(d.Type.Annotations)
	switch {
	case err != nil:
		return err
	case r.Kind == entity.KindIs && (!toUser || !ownsColumn(d)):
		return errors.New("is not a to-one edge to User with a field of its own")
	case r.Kind == entity.KindHas && (!toUser || d.Unique):
		return errors.New("is not a to-many edge to User")
	case r.Kind == entity.KindThrough && !ownsColumn(d):
		return errors.New("is not a to-one edge with a field of its own")
	case other.Internal:
		return fmt.Errorf("leads to %s, which is internal", d.Type.Name)
	case r.Op != "" && !slices.Contains(operations[1:], r.Op):
		return fmt.Errorf("there is no operation %q: use entity.Create, entity.Update or entity.Delete, or none to read", r.Op)
	}
	return nil
}

// checkReadableBy returns what is wrong with who reads a field of an entity.
func checkReadableBy(n *gen.Type, f *gen.Field, of entity.Annotation) error {
	a, err := entity.Decode(f.Annotations)
	if err != nil || a.ReadableBy == nil {
		return err
	}
	switch {
	case slices.Contains([]string{"id", "version", "created_at", "updated_at"}, f.Name):
		return errors.New("has entity.ReadableBy: whoever reads a record reads this as well")
	case f.IsEdgeField():
		return errors.New("has entity.ReadableBy and is the field of an edge: the rules of the other entity say who reads that")
	case of.Internal || hidden(f):
		return errors.New("has entity.ReadableBy and is not in the API: leave it out")
	}
	for _, w := range words(*a.ReadableBy) {
		switch w.Kind {
		case entity.KindHas, entity.KindThrough, entity.KindCustom:
			return fmt.Errorf("readable by %s(%q): a row alone decides it: use Anyone, SignedIn, Role, Self, Is, Any and All",
				capital(string(w.Kind)), w.Name)
		}
		if err := checkWord(n, w); err != nil {
			return fmt.Errorf("readable by %w", err)
		}
	}
	return nil
}

// ruleStep is an entity's rule on the way of a viewer's question.
type ruleStep struct {
	of *gen.Type
	op entity.Operation
}

func (s ruleStep) String() string { return fmt.Sprintf("%s.%s", s.of.Name, s.op) }

// circles reports rules that ask for themselves by Through: no statement could answer them.
func (c *checker) circles(g *gen.Graph) {
	var path []ruleStep
	done := map[ruleStep]bool{}
	var visit func(s ruleStep)
	visit = func(s ruleStep) {
		if i := slices.Index(path, s); i >= 0 {
			var text strings.Builder
			for _, on := range path[i:] {
				text.WriteString(on.String() + " -> ")
			}
			c.fail(s.of, accessPlace+"."+string(s.op), fmt.Errorf("rules go in a circle: %s%s", &text, s))
			return
		}
		if done[s] {
			return
		}
		path = append(path, s)
		for _, next := range s.next() {
			visit(next)
		}
		path = path[:len(path)-1]
		done[s] = true
	}
	for _, n := range g.Nodes {
		for _, op := range operations {
			visit(ruleStep{n, op})
		}
	}
}

// next returns the rules that a rule asks. What may not be read may not be written.
func (s ruleStep) next() (steps []ruleStep) {
	if s.op != read {
		steps = append(steps, ruleStep{s.of, read})
	}
	a, _, err := entity.DecodeAccess(s.of.Annotations)
	if err != nil {
		return nil
	}
	for _, w := range words(ruleFor(a, s.op)) {
		if w.Kind != entity.KindThrough {
			continue
		}
		if d := ruleEdge(s.of, w.Name); d != nil {
			op := w.Op
			if op == "" {
				op = read
			}
			steps = append(steps, ruleStep{d.Type, op})
		}
	}
	return steps
}

// RuleModel is a rule in stores.tmpl.
type RuleModel struct{ Op, Expr string }

// Rules returns who may do what with the entity.
func (e *Entity) Rules() []RuleModel {
	var out []RuleModel
	for _, op := range operations {
		if r := ruleFor(e.access, op); r.Kind != "" {
			out = append(out, RuleModel{capital(string(op)), ruleExpr(e.Node, r)})
		}
	}
	return out
}
