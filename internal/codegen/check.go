package codegen

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"entgo.io/contrib/entgql"
	"entgo.io/ent/entc/gen"
	"entgo.io/ent/schema/field"

	"godstack/internal/entity"
)

// reservedTypes are GraphQL types that are there without any entity.
var reservedTypes = []string{
	"Query", "Mutation", "Subscription", "Node", "Record", "RecordMap", "RecordRef", "Deleted", "PageInfo",
	"Cursor", "ChangeKind", "OrderDirection", "String", "Int", "Float", "Boolean", "ID", "Time", "Map",
}

// reservedSuffixes end the names of types that are made for an entity.
var reservedSuffixes = []string{"Connection", "Edge", "Change", "Input", "Order", "OrderField"}

var graphQLName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

// prepare checks the graph and gives every node the entgql annotations that follow from ours. The error names
// the schema file.
func prepare(g *gen.Graph) error {
	for _, n := range g.Nodes {
		if err := prepareNode(n); err != nil {
			return fmt.Errorf("%s: %w", fileOf(n), err)
		}
	}
	return nil
}

// fileOf returns the place of an entity's schema.
func fileOf(n *gen.Type) string {
	if pos := n.Pos(); pos != "" {
		return pos
	}
	return "ent/schema: " + n.Name
}

func prepareNode(n *gen.Type) error {
	a, err := entity.Decode(n.Annotations)
	if err != nil {
		return err
	}
	switch {
	case !a.Mixin:
		return fmt.Errorf("%s has no entity.Mixin{}: every table has an id, a version and timestamps", n.Name)
	case slices.Contains(reservedTypes, n.Name):
		return fmt.Errorf("%s is a reserved name: the GraphQL schema has a type of this name", n.Name)
	}
	for _, s := range reservedSuffixes {
		if strings.HasSuffix(n.Name, s) && n.Name != s {
			return fmt.Errorf("%s is a reserved name: types that end in %s are made for entities", n.Name, s)
		}
	}
	ant := entgql.Annotation{Skip: entgql.SkipAll}
	if !a.Internal {
		ant = entgql.Annotation{
			RelayConnection: true, MultiOrder: true, QueryField: &entgql.FieldConfig{}, Implements: []string{"Record"},
			Skip: skipInputs(a),
			MutationInputs: []entgql.MutationConfig{
				{IsCreate: true, Description: "What a new " + n.Name + " is made of."},
				{Description: "What to change of a " + n.Name + ". What is absent stays; null empties."},
			},
		}
	}
	annotate(&n.Annotations, ant)
	for _, f := range n.Fields {
		if err := prepareField(f); err != nil {
			return fmt.Errorf("field %s of %s: %w", f.Name, n.Name, err)
		}
	}
	annotate(&n.ID.Annotations, entgql.Annotation{})
	for _, e := range n.Edges {
		if err := prepareEdge(n, e); err != nil {
			return fmt.Errorf("edge %s of %s: %w", e.Name, n.Name, err)
		}
	}
	return nil
}

func annotate(to *gen.Annotations, a entgql.Annotation) {
	if *to == nil {
		*to = gen.Annotations{}
	}
	(*to)[a.Name()] = a
}

// skipInputs leaves the input types of absent mutations out.
func skipInputs(a entity.Annotation) (skip entgql.SkipMode) {
	if !a.Allows(entity.Create) {
		skip |= entgql.SkipMutationCreateInput
	}
	if !a.Allows(entity.Update) {
		skip |= entgql.SkipMutationUpdateInput
	}
	return skip
}

const skipWrites = entgql.SkipMutationCreateInput | entgql.SkipMutationUpdateInput

func prepareField(f *gen.Field) error {
	a, err := entity.Decode(f.Annotations)
	if err != nil {
		return err
	}
	if a.Hidden || f.Sensitive() {
		if !f.Optional && !f.Default {
			return fmt.Errorf("is not in the API and has no default: no record could be created; make it Optional or give it a Default")
		}
		annotate(&f.Annotations, entgql.Annotation{Skip: entgql.SkipAll})
		return nil
	}
	if !graphQLName.MatchString(f.Name) || strings.HasPrefix(f.Name, "__") {
		return fmt.Errorf("is not a GraphQL name")
	}
	if f.Optional && !f.Nillable && f.Type.Type != field.TypeJSON {
		return fmt.Errorf("is Optional and not Nillable: add Nillable(), so that null and the empty value differ")
	}
	kind, err := kindOf(f)
	if err != nil {
		return err
	}
	var ant entgql.Annotation
	switch {
	case f.IsEdgeField():
		ant.Skip = entgql.SkipType | entgql.SkipOrderField
	case kind == "JSON":
		ant.Skip = entgql.SkipWhereInput
	default:
		ant.OrderField = strings.ToUpper(f.Name)
	}
	for _, v := range f.Enums {
		if !graphQLName.MatchString(v.Value) {
			return fmt.Errorf("its value %q is not a GraphQL name", v.Value)
		}
	}
	if a.ReadOnly {
		ant.Skip |= skipWrites
	}
	if f.StorageKey() != f.Name {
		return fmt.Errorf("has the storage key %s: a field and its column have one name", f.StorageKey())
	}
	annotate(&f.Annotations, ant)
	return nil
}

// kindOf returns the record.Kind of a field, by its Go name.
func kindOf(f *gen.Field) (string, error) {
	t := f.Type.Type
	switch {
	case f.HasValueScanner():
		return "", fmt.Errorf("has a ValueScanner, which the API cannot show; annotate it with entity.Hidden()")
	case f.IsEnum():
		return "Enum", nil
	case f.HasGoType() && t != field.TypeJSON && t != field.TypeUUID:
		return "", fmt.Errorf("has the Go type %s, which the API cannot show; annotate it with entity.Hidden()", f.Type)
	case t == field.TypeString:
		return "String", nil
	case t == field.TypeInt:
		return "Int", nil
	case t == field.TypeFloat64:
		return "Float", nil
	case t == field.TypeBool:
		return "Bool", nil
	case t == field.TypeTime:
		return "Time", nil
	case t == field.TypeUUID && f.IsEdgeField():
		return "UUID", nil
	case t == field.TypeJSON:
		switch f.Type.String() {
		case "[]string", "[]int", "[]float64", "map[string]interface {}":
			return "JSON", nil
		}
	}
	return "", fmt.Errorf("has the unsupported type %s: use one of string, text, int, float, bool, time, enum, []string, "+
		"[]int, []float64, map[string]any, or annotate it with entity.Hidden()", f.Type)
}

func prepareEdge(n *gen.Type, e *gen.Edge) error {
	a, err := entity.Decode(e.Annotations)
	if err != nil {
		return err
	}
	other, err := entity.Decode(e.Type.Annotations)
	if err != nil {
		return err
	}
	switch {
	case e.Through != nil:
		return fmt.Errorf("goes Through an edge schema: give %s a table of its own and two edges to it", e.Type.Name)
	case ownsColumn(e) && e.Field() == nil:
		return fmt.Errorf("needs a field: add field.UUID(%q, uuid.UUID{}) and .Field(%[1]q), so that the record carries "+
			"the id", e.Name+"_id")
	case e.O2M() && e.Ref == nil && !a.Hidden:
		return fmt.Errorf("has no inverse: add edge.From(..., %s.Type).Ref(%q).Unique().Field(...) to %s", n.Name,
			e.Name, e.Type.Name)
	case e.O2O() && !e.IsInverse() && !a.Hidden:
		return fmt.Errorf("is one to one, seen from the side without the foreign key: annotate it with entity.Hidden()")
	case a.Viewer && (!ownsColumn(e) || e.Type.Name != "User"):
		return fmt.Errorf("is annotated with entity.Viewer() and is not a to-one edge to User")
	}
	ant := entgql.Annotation{RelayConnection: !e.Unique}
	switch {
	case a.Hidden, other.Internal:
		ant.Skip = entgql.SkipAll
	case a.ReadOnly, a.Viewer, !written(e):
		// An edge is written from the side that has it: the foreign key's, or, many to many, the one that
		// declares it. Its version is the one that is raised.
		ant.Skip = skipWrites
	}
	if !written(e) {
		e.Immutable = true // in Go likewise; it also spares ent's update builders the code for it
	}
	annotate(&e.Annotations, ant)
	return nil
}

// ownsColumn reports whether the entity has the edge's foreign key.
func ownsColumn(e *gen.Edge) bool { return e.M2O() || e.O2O() && e.IsInverse() }

// written reports whether an input of the entity may have the edge.
func written(e *gen.Edge) bool { return ownsColumn(e) || e.M2M() && !e.IsInverse() }
