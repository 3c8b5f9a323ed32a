package record

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"godstack/internal/entity"
)

// Kind is how a column's values look in Go and in GraphQL.
type Kind uint8

// The kinds of columns.
const (
	String Kind = iota
	Int
	Float
	Bool
	Time
	UUID // a foreign key, or the record's own id: an ID in GraphQL
	Enum
	JSON
)

// Use says where the API shows a field.
type Use uint8

// The uses of a field.
const (
	InType   Use = 1 << iota // in the type
	InFilter                 // in where
	InCreate                 // in the create input
	InUpdate                 // in the update input
)

// Field describes a column. Generated code makes it.
type Field struct {
	Name     string       // in GraphQL; of a foreign key the name it has in filters, as "ownerID"
	Column   string       // in SQL, and ent's name
	Go       string       // the name in the ent struct
	Kind     Kind         // how it is written
	Type     reflect.Type // of a value; set where Kind is Enum or JSON
	Nullable bool
	Order    string // its value of the order enum; empty if records cannot be ordered by it
	Use      Use

	ReadableBy *entity.Rule // who reads it, of those who may read the record; nil for all of them

	index int     // in the struct
	of    *Entity // of a UUID: whose id it is
	edge  *Edge   // whose foreign key it is
	rule  *rule   // ReadableBy
}

// Edge describes a relation. Generated code makes it.
type Edge struct {
	Name      string    // in GraphQL and in the change log
	To        string    // the other entity's Name
	Field     string    // to-one: the Name of the foreign key in Fields
	Through   string    // many to many: the join table
	From, Ref string    // to-many: the column that refers to this record, and (many to many) to the other
	Viewer    bool      // to-one: set to the viewer on create
	Hidden    bool      // not in the API
	Input     string    // its name in the create input: "threadID", "memberIDs"; empty if it cannot be written
	Inputs    [3]string // many to many, in the update input: add, remove, clear

	field *Field
	to    *Entity
}

// ToOne reports whether the edge leads to at most one record.
func (d *Edge) ToOne() bool { return d.Field != "" }

// Entity describes an entity to this package. Generated code makes it; NewEngine completes it.
type Entity struct {
	Name        string // the GraphQL type, as "Thread"
	Prefix      string // of global ids, and the name in the change log, as "thread"
	List        string // the list's name in GraphQL, as "threads"
	Table       string
	Fields      []Field
	Edges       []Edge
	Constraints map[string]string // name of a unique index or foreign key -> input field it is about
	Access      entity.Access
	SoftDelete  bool         // what is deleted has deleted_at set, and can be restored
	Restore     *entity.Rule // with SoftDelete: who restores; nil for whoever may delete

	columns string            // the select list, for a table alias t: what the API shows, and the ids of edges
	names   []string          // of the columns, in that order
	types   []string          // the GraphQL types that a record is of
	id      *Field            // the column id
	version *Field            // the column version
	fields  map[string]*Field // by GraphQL name
	column  map[string]*Field // by column
	orders  map[string]*Field // by enum value
	filters map[string]condition
	edges   map[string]*Edge
	rules   map[entity.Operation]*rule
	needs   map[entity.Operation]*rule // the same, with the rule of reading
	deleted *Field                     // with SoftDelete: the column deleted_at
	seeing  map[ShowDeleted]*rule      // the rules of reading
	reaches map[ShowDeleted][]string   // the entities of other records that decide who reads one
	limited []*Field                   // the fields that not everybody reads who may read the record
	decides map[string]bool            // the columns and edges, as the change log names them, that rules look at, of any entity
}

// complete builds the look-up tables. model is the entity's ent struct.
func (e *Entity) complete(all map[string]*Entity, model reflect.Type) error {
	e.fields, e.column = map[string]*Field{}, map[string]*Field{}
	e.orders, e.edges, e.names = map[string]*Field{}, map[string]*Edge{}, nil
	for i := range e.Fields {
		f := &e.Fields[i]
		sf, ok := model.FieldByName(f.Go)
		if !ok {
			return fmt.Errorf("record: %s has no field %s", model, f.Go)
		}
		f.index = sf.Index[0]
		e.fields[f.Name], e.column[f.Column] = f, f
		if f.Order != "" {
			e.orders[f.Order] = f
		}
		if f.Column == "id" {
			e.id, f.of = f, e
		}
		if f.Column == "version" {
			e.version = f
		}
		if f.Column == deletedColumn && e.SoftDelete {
			e.deleted = f
		}
	}
	if e.SoftDelete && e.deleted == nil {
		return fmt.Errorf("record: %s has no column %s, and is to keep what is deleted", e.Name, deletedColumn)
	}
	e.types = []string{e.Name, "Node", "Record"}
	for i := range e.Edges {
		d := &e.Edges[i]
		if d.to = all[d.To]; d.to == nil {
			return fmt.Errorf("record: edge %s.%s leads to unknown entity %s", e.Name, d.Name, d.To)
		}
		if d.ToOne() {
			d.field = e.fields[d.Field]
			d.field.of, d.field.edge = d.to, d
		}
		e.edges[d.Name] = d
	}
	e.filters, e.decides = conditions(e), map[string]bool{}
	// What nobody may see stays in the database.
	var list []string
	for i := range e.Fields {
		if f := &e.Fields[i]; f.Use != 0 || f.edge != nil || f == e.id || f == e.version {
			list = append(list, `t."`+f.Column+`"`)
			e.names = append(e.names, f.Column)
		}
	}
	e.columns = strings.Join(list, ", ")
	return nil
}

// publicName returns the name that clients know a column, or a join edge, of the change log by.
func (e *Entity) publicName(column string) (name string, readable bool) {
	for i := range e.Edges {
		d := &e.Edges[i]
		if d.Name == column || d.field != nil && d.field.Column == column {
			return d.Name, !d.Hidden
		}
	}
	f := e.column[column]
	if f == nil {
		return "", false
	}
	return f.Name, f.Use&InType != 0
}

// publicNames returns the names of those that who asks may read of a record, in order; nil stays nil. Without the record,
// fields that not everybody reads are left out.
func (e *Entity) publicNames(who asker, n Node, columns []string) []string {
	if columns == nil {
		return nil
	}
	names := make([]string, 0, len(columns))
	for _, c := range columns {
		name, readable := e.publicName(c)
		if f := e.column[c]; f != nil && f.rule != nil {
			readable = readable && n != nil && who.reads(e, f, n)
		}
		if readable {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// value returns a field of a record, nil where the column is null.
func (f *Field) value(record reflect.Value) any {
	v := record.Elem().Field(f.index)
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	case reflect.Slice, reflect.Map:
		if v.IsNil() {
			return nil
		}
	}
	return v.Interface()
}
