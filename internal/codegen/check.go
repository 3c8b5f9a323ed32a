package codegen

import (
	"errors"
	"fmt"
	"strings"

	"entgo.io/contrib/entgql"
	"entgo.io/ent/entc/gen"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"

	"godstack/internal/entity"
)

// prepare checks the graph and gives every node the entgql annotations that follow from ours. Its error has a line
// for each thing that is wrong, which begins with the place in the schema files.
func prepare(g *gen.Graph) error {
	c := &checker{places: findPlaces(), claims: newClaims()}
	for _, n := range g.Nodes {
		c.node(n)
	}
	c.circles(g)
	return errors.Join(c.errs...)
}

// checker goes over a graph and collects what is wrong.
type checker struct {
	places places
	claims claims
	errs   []error
}

// fail notes what is wrong with an entity, or with its field or edge member.
func (c *checker) fail(n *gen.Type, member string, err error) {
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("%s: %w", c.places.of(n.Name, member), err))
	}
}

func (c *checker) node(n *gen.Type) {
	a, err := entity.Decode(n.Annotations)
	if err != nil {
		c.fail(n, "", err)
		return
	}
	if !a.Mixin {
		c.fail(n, "", fmt.Errorf("%s has no entity.Mixin{}: every table has an id, a version and timestamps", n.Name))
		return
	}
	if n.ID.Position == nil || !n.ID.Position.MixedIn {
		c.fail(n, "id", fmt.Errorf("field id of %s: is there already, from entity.Mixin{}", n.Name))
	}
	if err := checkReadableBy(n, n.ID, a); err != nil {
		c.fail(n, "id", fmt.Errorf("field id of %s: %w", n.Name, err))
	}
	c.fail(n, "", checkSoftDelete(n, a))
	err = checkName(n)
	if err == nil {
		err = c.claims.entity(n, a)
	}
	c.fail(n, "", err)
	ant := entgql.Annotation{Skip: entgql.SkipAll}
	if !a.Internal {
		ant = entgql.Annotation{
			RelayConnection: true, MultiOrder: true, QueryField: &entgql.FieldConfig{Name: listName(n.Name)},
			Implements: []string{"Record"}, Skip: skipInputs(a),
			MutationInputs: []entgql.MutationConfig{
				{IsCreate: true, Description: "What a new " + n.Name + " is made of."},
				{Description: "What to change of a " + n.Name + ". What is absent stays; null empties."},
			},
		}
	}
	annotate(&n.Annotations, ant)
	c.access(n, a)
	annotate(&n.ID.Annotations, entgql.Annotation{})
	members := memberClaims()
	for _, f := range n.Fields {
		err := prepareField(f, a)
		if err == nil {
			err = members.field(f)
		}
		if err == nil {
			err = checkReadableBy(n, f, a)
		}
		if err != nil {
			c.fail(n, f.Name, fmt.Errorf("field %s of %s: %w", f.Name, n.Name, err))
		}
	}
	for _, d := range n.Edges {
		err := prepareEdge(n, d, a)
		if err == nil {
			err = members.edge(d)
		}
		if err != nil {
			c.fail(n, d.Name, fmt.Errorf("edge %s of %s: %w", d.Name, n.Name, err))
		}
	}
}

// checkSoftDelete returns what is wrong with an entity's being restorable.
func checkSoftDelete(n *gen.Type, a entity.Annotation) error {
	switch {
	case !a.SoftDelete:
		return nil
	case a.Internal:
		return fmt.Errorf("%s has entity.SoftDelete{} and is internal: nothing would hide what is deleted", n.Name)
	case !a.Allows(entity.Delete):
		return fmt.Errorf("%s has entity.SoftDelete{} and no mutation that deletes: add entity.Delete to its operations, or leave the mixin out", n.Name)
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

// errUnset is the answer to a required field or edge that no input has.
var errUnset = errors.New("is required and in no input, so that no record could be created: make it Optional, give it a Default, " +
	"or leave create out with entity.Operations(...)")

// errNotEntity is the answer to rules in the wrong place, where nobody would be asked for them.
var errNotEntity = errors.New("has entity.Access, which is for entities: a field takes entity.ReadableBy")

func has(annotations gen.Annotations, a schema.Annotation) bool {
	_, ok := annotations[a.Name()]
	return ok
}

// hidden reports whether the API does not show a field: it is annotated so, or Sensitive, or the foreign key of an
// edge that the API does not show.
func hidden(f *gen.Field) bool {
	a, err := entity.Decode(f.Annotations)
	if err != nil || a.Hidden || f.Sensitive() {
		return true
	}
	if !f.IsEdgeField() {
		return false
	}
	d, err := f.Edge()
	if err != nil || d == nil {
		return true
	}
	return hiddenEdge(d)
}

// hiddenEdge reports whether the API does not show an edge: it is annotated so, or leads to an internal entity.
func hiddenEdge(d *gen.Edge) bool {
	a, err := entity.Decode(d.Annotations)
	other, err2 := entity.Decode(d.Type.Annotations)
	return err != nil || err2 != nil || a.Hidden || other.Internal
}

func prepareField(f *gen.Field, of entity.Annotation) error {
	a, err := entity.Decode(f.Annotations)
	if err != nil {
		return err
	}
	switch {
	case !columnName.MatchString(f.Name):
		return fmt.Errorf("is no name for a column: use lower-case letters and digits, with _ between words, as in due_at")
	case has(f.Annotations, entity.Access{}):
		return errNotEntity
	case f.StorageKey() != f.Name:
		return fmt.Errorf("has the storage key %s: a field and its column have one name", f.StorageKey())
	}
	if (hidden(f) || a.ReadOnly) && !f.IsEdgeField() && !f.Optional && !f.Default && !of.Internal && of.Allows(entity.Create) {
		return errUnset
	}
	if of.Internal || hidden(f) {
		annotate(&f.Annotations, entgql.Annotation{Skip: entgql.SkipAll})
		return nil
	}
	if f.Optional && !f.Nillable && f.Type.Type != field.TypeJSON {
		return fmt.Errorf("is Optional and not Nillable: add Nillable(), so that null and the empty value differ")
	}
	kind, err := kindOf(f)
	if err != nil {
		return err
	}
	for _, v := range f.Enums {
		if err := checkEnum(v.Value); err != nil {
			return err
		}
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
	if a.ReadOnly {
		ant.Skip |= skipWrites
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

func prepareEdge(n *gen.Type, d *gen.Edge, of entity.Annotation) error {
	a, err := entity.Decode(d.Annotations)
	if err != nil {
		return err
	}
	shown := !of.Internal && !hiddenEdge(d)
	switch {
	case !columnName.MatchString(d.Name):
		return fmt.Errorf("is no name for an edge: use lower-case letters and digits, with _ between words, as in order_items")
	case camel(d.Name) == "stores":
		return fmt.Errorf("is a reserved name: generated code has something of this name")
	case has(d.Annotations, entity.Access{}):
		return errNotEntity
	case a.ReadableBy != nil:
		return fmt.Errorf("has entity.ReadableBy, which is for fields: the rules of %s say who reads what it leads to", d.Type.Name)
	case d.Through != nil:
		return fmt.Errorf("goes Through an edge schema: give %s a table of its own and two edges to it", d.Type.Name)
	case d.Bidi && d.Unique:
		return fmt.Errorf("is one to one with itself: name both sides, as in edge.To(\"next\", %s.Type).Unique().From(\"previous\").Unique()", n.Name)
	case d.O2M() && !d.IsInverse() && d.Ref == nil:
		return fmt.Errorf("has no inverse: add edge.From(..., %s.Type).Ref(%q).Unique().Field(...) to %s, or the same without "+
			"Unique and Field if it is many to many", n.Name, d.Name, d.Type.Name)
	case d.O2O() && !d.IsInverse() && d.Ref == nil:
		return fmt.Errorf("has no inverse, which is the side that keeps the id: add edge.From(..., %s.Type).Ref(%q).Unique().Field(...) "+
			"to %s and annotate this one with entity.Hidden()", n.Name, d.Name, d.Type.Name)
	case ownsColumn(d) && d.Field() == nil:
		return fmt.Errorf("needs a field: add field.UUID(%q, uuid.UUID{}) and .Field(%[1]q), so that the record carries "+
			"the id", d.Name+"_id")
	case d.O2O() && !d.IsInverse() && shown:
		return fmt.Errorf("is one to one, seen from the side without the foreign key: annotate it with entity.Hidden()")
	case a.Viewer && (!ownsColumn(d) || d.Type.Name != "User"):
		return fmt.Errorf("is annotated with entity.Viewer() and is not a to-one edge to User")
	case ownsColumn(d) && !d.Optional && !a.Viewer && (a.ReadOnly || !shown) && !of.Internal && of.Allows(entity.Create):
		return errUnset
	}
	ant := entgql.Annotation{RelayConnection: !d.Unique}
	switch {
	case !shown:
		ant.Skip = entgql.SkipAll
	case a.ReadOnly, a.Viewer, !written(d):
		// An edge is written from the side that has it: the foreign key's, or, many to many, the one that
		// declares it. Its version is the one that is raised.
		ant.Skip = skipWrites
	}
	annotate(&d.Annotations, ant)
	return nil
}

// ownsColumn reports whether the entity has the edge's foreign key.
func ownsColumn(d *gen.Edge) bool { return d.M2O() || d.O2O() && d.IsInverse() }

// written reports whether an input of the entity may have the edge.
func written(d *gen.Edge) bool { return ownsColumn(d) || d.M2M() && !d.IsInverse() }
