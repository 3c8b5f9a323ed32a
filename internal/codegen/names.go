package codegen

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"entgo.io/ent/entc/gen"

	"godstack/internal/entity"
)

var (
	entityName = regexp.MustCompile(`^[A-Z][A-Za-z0-9]+$`)
	columnName = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	enumValue  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)
)

// reservedEntities are the names, in lower case, of variables and packages in generated code, and of what an event of
// a stream has beside its record.
var reservedEntities = strings.Fields(`
	columns ctx drv ent entity entpgx enttest err graphql hook hooks id inters internal may migrate ok predicate reflect resolver
	runtime selector sql sqlgraph stores tx uuid values where
	cursor fields kind version`)

// reservedEndings end the names of ent's types that are pruned with all that belongs to them.
var reservedEndings = []string{"Update", "CreateBulk", "GroupBy"}

// reservedTypes are GraphQL types that are there without any entity.
var reservedTypes = strings.Fields(`
	Query Mutation Subscription Node Record RecordMap RecordRef RecordChange Deleted PageInfo Cursor ChangeKind
	OnConflict OrderDirection ShowDeleted HistoryConnection HistoryEdge HistoryEntry HistoryKind OldValue JSON String Int Float Boolean ID Time Map`)

// reservedTables matches the tables of the change log, of migrations and of jobs.
var reservedTables = regexp.MustCompile(`^(changes(_\d)?|(changelog|goose|river|pg)_.*)$`)

// entTypes end the names of the types that ent makes for an entity.
var entTypes = []string{"", "Client", "Create", "Delete", "DeleteOne", "Edges", "Mutation", "Query", "Select", "UpdateOne"}

// filterSuffixes end the names of a field's conditions, in where inputs and in Go.
var filterSuffixes = []string{
	"", "NEQ", "In", "NotIn", "GT", "GTE", "LT", "LTE", "IsNil", "NotNil", "Contains", "HasPrefix", "HasSuffix", "EqualFold",
	"ContainsFold",
}

// claims are the names that generation makes, each under the kind of thing it is a name of, with who needs it.
type claims map[string]string

// claim takes a name for owner; the error says who has it already.
func (c claims) claim(kind, name, owner string) error {
	key := kind + " " + name
	if other, ok := c[key]; ok && other != owner {
		return fmt.Errorf("%s and %s both need the %s", owner, other, key)
	}
	c[key] = owner
	return nil
}

// newClaims holds what is there without any entity.
func newClaims() claims {
	c := claims{}
	for _, name := range reservedTypes {
		c["GraphQL type "+name] = "every schema"
	}
	for _, name := range []string{"node", "nodes", "records", "history", "recordsChanged", "stores", "unchanged", "missing"} {
		c["root field "+name] = "every schema"
	}
	return c
}

// entity takes the names that follow from an entity's. The error is about the first that is taken.
func (c claims) entity(n *gen.Type, a entity.Annotation) (err error) {
	claim := func(kind, name, owner string) { err = cmp.Or(err, c.claim(kind, name, owner)) }
	claim("package", strings.ToLower(n.Name), n.Name)
	claim("table", n.Table(), n.Name)
	for _, d := range n.Edges {
		if d.M2M() && !d.IsInverse() {
			claim("table", d.Rel.Table, "edge "+d.Name+" of "+n.Name)
		}
	}
	for _, suffix := range entTypes {
		claim("Go type", n.Name+suffix, n.Name)
	}
	if a.Internal {
		return err
	}
	single, list := camel(snake(n.Name)), listName(n.Name)
	claim("root field", single, n.Name)
	claim("root field", list, n.Name)
	types := []string{n.Name, n.Name + "Connection", n.Name + "Edge", n.Name + "WhereInput", n.Name + "Order", n.Name + "OrderField",
		"Create" + n.Name + "Input", "Update" + n.Name + "Input"}
	if !a.Quiet {
		claim("root field", single+"Changed", n.Name)
		claim("root field", list+"Changed", n.Name)
		types = append(types, n.Name+"Change")
	}
	for _, t := range types {
		claim("GraphQL type", t, n.Name)
	}
	for _, f := range n.Fields {
		if f.IsEnum() && !hidden(f) {
			claim("GraphQL type", n.Name+pascal(f.Name), "field "+f.Name+" of "+n.Name)
		}
	}
	return err
}

// memberClaims holds what an entity has without any field or edge.
func memberClaims() claims {
	c := claims{}
	for _, name := range []string{"and", "or", "not"} {
		c["condition "+name] = "every entity"
	}
	for _, suffix := range filterSuffixes {
		c["condition id"+suffix] = "id"
	}
	c["GraphQL field id"] = "id"
	for _, name := range []string{"AssignRow", "Edges", "ID", "IsNode", "ScanTargets", "Unwrap", "Update"} {
		c["Go name "+name] = "every entity"
	}
	for _, name := range []string{"And", "Columns", "FieldID", "ForeignKeys", "Hooks", "ID", "Not", "Or", "OrderOption", "ValidColumn"} {
		c["Go function "+name] = "every entity"
	}
	return c
}

// field takes the names that follow from a field's. The error is about the first that is taken.
func (c claims) field(f *gen.Field) (err error) {
	claim := func(kind, name string) { err = cmp.Or(err, c.claim(kind, name, f.Name)) }
	if !hidden(f) {
		for _, suffix := range filterSuffixes {
			claim("condition", camel(f.Name)+suffix)
		}
		if !f.IsEdgeField() {
			claim("GraphQL field", camel(f.Name))
			claim("input field", camel(f.Name))
		}
	}
	claim("Go name", f.StructField())
	for _, name := range []string{f.MutationGet(), f.MutationSet(), f.MutationReset()} {
		claim("Go method", name)
	}
	if f.Optional {
		claim("Go method", f.MutationClear())
		claim("Go method", f.MutationCleared())
		claim("input field", "clear"+f.StructField())
	}
	claim("Go function", f.Constant())
	claim("Go function", f.StructField())
	for _, v := range f.Enums {
		claim("Go function", v.Name)
	}
	if f.Default {
		claim("Go function", f.DefaultName())
	}
	return err
}

// edge takes the names that follow from an edge's. The error is about the first that is taken.
func (c claims) edge(d *gen.Edge) (err error) {
	claim := func(kind, name string) { err = cmp.Or(err, c.claim(kind, name, d.Name)) }
	claim("Go name", "Query"+d.StructField())
	claim("Go function", "Has"+d.StructField())
	claim("Go function", "Has"+d.StructField()+"With")
	claim("GraphQL field", camel(d.Name))
	claim("condition", "has"+d.StructField())
	claim("condition", "has"+d.StructField()+"With")
	if !written(d) {
		return err
	}
	one := singular(d.Name)
	if d.Unique {
		claim("input field", camel(d.Name)+"ID")
		return err
	}
	for _, name := range []string{camel(one) + "IDs", "add" + pascal(one) + "IDs", "remove" + pascal(one) + "IDs", "clear" + d.StructField()} {
		claim("input field", name)
	}
	return err
}

// checkEnum returns what is wrong with a value of an enum.
func checkEnum(value string) error {
	if !enumValue.MatchString(value) || value == "true" || value == "false" || value == "null" {
		return fmt.Errorf("has the value %q, which is no GraphQL name: use letters, digits and _, a letter first; not true, false or null", value)
	}
	return nil
}

// checkName returns what is wrong with an entity's name by itself.
func checkName(n *gen.Type) error {
	switch lower := strings.ToLower(n.Name); {
	case !entityName.MatchString(n.Name):
		return fmt.Errorf("%q is no name for an entity: use two or more letters and digits, a capital first, as in OrderItem", n.Name)
	case slices.Contains(reservedTypes, n.Name):
		return fmt.Errorf("%s is a reserved name: the GraphQL schema has a type of this name", n.Name)
	case slices.Contains(reservedEntities, lower), n.PackageAlias() != "":
		return fmt.Errorf("%s is a reserved name: generated code has something of this name", n.Name)
	case reservedTables.MatchString(n.Table()):
		return fmt.Errorf("%s is a reserved name: its table %s would be one of the machinery's", n.Name, n.Table())
	}
	for _, ending := range reservedEndings {
		if strings.HasSuffix(n.Name, ending) {
			return fmt.Errorf("%s is a reserved name: types that end in %s are made for entities", n.Name, ending)
		}
	}
	return nil
}

// listName returns the name of an entity's list in the API: the plural, or "newsList" for a word that has none.
func listName(entity string) string {
	name := snake(entity)
	p := plural(name)
	if base, ok := strings.CutSuffix(strings.ToLower(p), "slice"); ok && base == name {
		return camel(name) + "List"
	}
	return camel(p)
}
