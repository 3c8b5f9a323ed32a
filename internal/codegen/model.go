package codegen

import (
	"fmt"
	"slices"
	"strings"

	"entgo.io/contrib/entgql"
	"entgo.io/ent/entc/gen"

	"godstack/internal/entity"
)

// Entity is what the templates know of an entity that the API shows.
type Entity struct {
	Node   *gen.Type
	Name   string // "Thread"
	Single string // "thread"
	List   string // "threads"
	Prefix string // "thread"

	annotation entity.Annotation
	access     entity.Access
	declared   bool // access is in the schema file
	graph      *gen.Graph
}

// exposed returns the entities of a prepared graph that the API shows.
func exposed(g *gen.Graph) ([]*Entity, error) {
	var es []*Entity
	for _, n := range g.Nodes {
		a, err := entity.Decode(n.Annotations)
		if err != nil {
			return nil, err
		}
		if a.Internal {
			continue
		}
		access, declared, err := entity.DecodeAccess(n.Annotations)
		if err != nil {
			return nil, err
		}
		es = append(es, &Entity{Node: n, Name: n.Name, Single: camel(snake(n.Name)), List: listName(n.Name),
			Prefix: snake(n.Name), annotation: a, access: access, declared: declared, graph: g})
	}
	return es, nil
}

// Can reports whether the entity has a generated mutation.
func (e *Entity) Can(op entity.Operation) bool { return e.annotation.Allows(op) }

// Live reports whether the entity has subscriptions.
func (e *Entity) Live() bool { return !e.annotation.Quiet }

// edge returns the edge of a GraphQL field.
func (e *Entity) edge(name string) *gen.Edge {
	for _, d := range e.Node.Edges {
		if camel(d.Name) == name {
			return d
		}
	}
	return nil
}

// SoftDelete reports whether what is deleted can be restored.
func (e *Entity) SoftDelete() bool { return e.annotation.SoftDelete }

// Restore returns the expression of the rule that says who restores, "" for the rule of delete.
func (e *Entity) Restore() string {
	if e.annotation.Restore == nil {
		return ""
	}
	return ruleExpr(e.Node, *e.annotation.Restore)
}

// softList reports whether a GraphQL field leads to a list of records that can be restored.
func (e *Entity) softList(name string) bool {
	d := e.edge(name)
	if d == nil || d.Unique {
		return false
	}
	a, err := entity.Decode(d.Type.Annotations)
	return err == nil && a.SoftDelete
}

// limited reports whether not everybody who reads a record reads a GraphQL field of it.
func (e *Entity) limited(name string) bool {
	return slices.ContainsFunc(e.Node.Fields, func(f *gen.Field) bool {
		a, err := entity.Decode(f.Annotations)
		return err == nil && a.ReadableBy != nil && camel(f.Name) == name
	})
}

// FieldModel is the description of a field in stores.tmpl.
type FieldModel struct {
	Name, Column, Go, Kind, Type, Order, Use string
	ReadableBy                               string // the expression of a rule
	Nullable                                 bool
}

// Fields returns the entity's columns, in the order of its table.
func (e *Entity) Fields() ([]FieldModel, error) {
	var out []FieldModel
	for _, f := range append([]*gen.Field{e.Node.ID}, e.Node.Fields...) {
		m := FieldModel{Name: camel(f.Name), Column: f.StorageKey(), Go: f.StructField(), Nullable: f.Optional}
		a, err := entity.Decode(f.Annotations)
		if err != nil {
			return nil, err
		}
		if a.ReadableBy != nil {
			m.ReadableBy = ruleExpr(e.Node, *a.ReadableBy)
		}
		hidden := a.Hidden || f.Sensitive()
		switch {
		case f == e.Node.ID:
			m.Kind, m.Use = "UUID", "InType | record.InFilter"
		case hidden:
			m.Kind = "String"
		default:
			if m.Kind, err = kindOf(f); err != nil {
				return nil, err
			}
			ant := f.Annotations[entgql.Annotation{}.Name()].(entgql.Annotation)
			m.Order = ant.OrderField
			m.Use = e.use(f, ant)
		}
		switch m.Kind {
		case "Enum":
			m.Type = f.Type.String()
		case "JSON":
			m.Type = f.Type.String()
		}
		out = append(out, m)
	}
	return out, nil
}

func (e *Entity) use(f *gen.Field, ant entgql.Annotation) string {
	var uses []string
	if !ant.Skip.Is(entgql.SkipType) {
		uses = append(uses, "InType")
	}
	if !ant.Skip.Is(entgql.SkipWhereInput) && f.Type.Comparable() {
		uses = append(uses, "InFilter")
	}
	if !f.IsEdgeField() {
		if e.Can(entity.Create) && !ant.Skip.Is(entgql.SkipMutationCreateInput) {
			uses = append(uses, "InCreate")
		}
		if e.Can(entity.Update) && !ant.Skip.Is(entgql.SkipMutationUpdateInput) && !f.Immutable {
			uses = append(uses, "InUpdate")
		}
	}
	if len(uses) == 0 {
		return ""
	}
	return strings.Join(uses, " | record.")
}

// EdgeModel is the description of an edge in stores.tmpl.
type EdgeModel struct {
	Name, To, Field, Through, From, Ref string
	Viewer, Hidden                      bool
	Input                               string
	Inputs                              []string
	Go                                  string // ent's name: "Members"
	GoOne                               string // and of one: "Member"
	Unique                              bool
}

// Edges returns the entity's edges to entities that the API shows.
func (e *Entity) Edges() ([]EdgeModel, error) {
	var out []EdgeModel
	for _, d := range e.Node.Edges {
		a, err := entity.Decode(d.Annotations)
		if err != nil {
			return nil, err
		}
		other, err := entity.Decode(d.Type.Annotations)
		if err != nil {
			return nil, err
		}
		if other.Internal || d.O2O() && !d.IsInverse() {
			continue
		}
		ant := d.Annotations[entgql.Annotation{}.Name()].(entgql.Annotation)
		m := EdgeModel{Name: camel(d.Name), To: d.Type.Name, Viewer: a.Viewer, Hidden: a.Hidden, Unique: d.Unique,
			Go: d.StructField(), GoOne: pascal(singular(d.Name))}
		switch {
		case ownsColumn(d):
			m.Field = camel(d.Field().Name)
		case d.M2M():
			m.Through, m.From, m.Ref = d.Rel.Table, d.Rel.Columns[0], d.Rel.Columns[1]
			if d.IsInverse() {
				m.From, m.Ref = m.Ref, m.From
			}
		default:
			m.From = d.Rel.Column()
		}
		writes := ant.Skip&skipWrites == 0 && (e.Can(entity.Create) || e.Can(entity.Update))
		switch {
		case writes && d.Unique:
			m.Input = camel(d.Name) + "ID"
		case writes:
			one := singular(d.Name)
			m.Input = camel(one) + "IDs"
			m.Inputs = []string{"add" + pascal(one) + "IDs", "remove" + pascal(one) + "IDs", camel(snake(d.MutationClear()))}
		}
		out = append(out, m)
	}
	return out, nil
}

// Links returns the many-to-many edges that inputs may change.
func (e *Entity) Links() ([]EdgeModel, error) {
	edges, err := e.Edges()
	var links []EdgeModel
	for _, d := range edges {
		if len(d.Inputs) > 0 {
			links = append(links, d)
		}
	}
	return links, err
}

// Constraint says which input field a database constraint is about.
type Constraint struct{ Name, Field string }

// constraint names a constraint as Postgres does, which cuts names at 63 bytes.
func constraint(name, field string) Constraint { return Constraint{name[:min(len(name), 63)], field} }

// Constraints returns the unique indexes and foreign keys of the entity's table, and the foreign keys of the join
// tables that it declares.
func (e *Entity) Constraints() ([]Constraint, error) {
	tables, err := e.graph.Tables()
	if err != nil {
		return nil, err
	}
	byColumn := map[string]string{}
	for _, f := range e.Node.Fields {
		byColumn[f.StorageKey()] = camel(f.Name)
	}
	joins := map[string]map[string]string{} // join table -> column -> edge
	for _, d := range e.Node.Edges {
		if ownsColumn(d) {
			byColumn[d.Field().StorageKey()] = camel(d.Name)
		}
		if d.M2M() && !d.IsInverse() {
			joins[d.Rel.Table] = map[string]string{d.Rel.Columns[0]: camel(d.Name), d.Rel.Columns[1]: camel(d.Name)}
		}
	}
	var out []Constraint
	for _, t := range tables {
		columns := joins[t.Name]
		if t.Name == e.Node.Table() {
			columns = byColumn
			for _, c := range t.Columns {
				if c.Unique {
					out = append(out, constraint(fmt.Sprintf("%s_%s_key", t.Name, c.Name), byColumn[c.Name]))
				}
			}
			for _, idx := range t.Indexes {
				if idx.Unique {
					out = append(out, constraint(idx.Name, byColumn[idx.Columns[0].Name]))
				}
			}
		}
		for _, fk := range t.ForeignKeys {
			if name := columns[fk.Columns[0].Name]; name != "" {
				out = append(out, constraint(fk.Symbol, name))
			}
		}
	}
	return out, nil
}

// HasEnum reports whether the entity has a field of an enum type, which lives in the entity's package.
func (e *Entity) HasEnum() bool {
	for _, f := range e.Node.Fields {
		if f.IsEnum() && !f.HasGoType() {
			return true
		}
	}
	return false
}
