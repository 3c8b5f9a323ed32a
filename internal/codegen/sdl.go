package codegen

import (
	"bytes"
	"fmt"
	"slices"

	"entgo.io/ent/entc/gen"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/formatter"

	"godstack/internal/entity"
)

// extendSDL completes the SDL that entgql made of the graph: records, root fields, events, and the nulls of the
// contract.
func extendSDL(es []*Entity, s *ast.Schema) {
	s.Directives = nil // gqlgen's bindings are configuration, not contract
	for _, t := range s.Types {
		t.Directives = nil
	}
	s.AddTypes(
		&ast.Definition{Kind: ast.Scalar, Name: "Time", Description: "A moment, as RFC 3339 writes it, in UTC."},
		&ast.Definition{Kind: ast.Interface, Name: "Record", Interfaces: []string{"Node"},
			Description: "A record that has a version: 1 when it is created, one more at each change.",
			Fields: ast.FieldList{sdlField("id", "ID!"), sdlField("version", "Int!"), sdlField("createdAt", "Time!"),
				sdlField("updatedAt", "Time!")}},
		&ast.Definition{Kind: ast.InputObject, Name: "RecordRef",
			Description: "Names a record. With knownVersion, it is sent only if that is not its version.",
			Fields:      ast.FieldList{sdlField("id", "ID!"), sdlField("knownVersion", "Int")}},
		&ast.Definition{Kind: ast.Object, Name: "Deleted", Description: "The receipt of a delete. The version is the deletion's own.",
			Fields: ast.FieldList{sdlField("deletedId", "ID!"), sdlField("version", "Int!")}},
	)
	recordMap := &ast.Definition{Kind: ast.Object, Name: "RecordMap", Description: "Records of many types, normalized: a list an entity."}
	query := s.Types["Query"]
	query.Fields = slices.DeleteFunc(query.Fields, func(f *ast.FieldDefinition) bool {
		return !slices.Contains([]string{"node", "nodes"}, f.Name) && !slices.ContainsFunc(es, func(e *Entity) bool { return e.List == f.Name })
	})
	query.Fields = append(query.Fields, sdlField("records", "RecordMap!", "refs", "[RecordRef!]!"),
		sdlField("history", "HistoryConnection", "id", "ID!", "first", "Int", "after", "Cursor"))
	addHistory(es, s)
	mutation := &ast.Definition{Kind: ast.Object, Name: "Mutation"}
	subscription := &ast.Definition{Kind: ast.Object, Name: "Subscription"}
	for _, e := range es {
		e.completeType(s.Types[e.Name])
		if e.SoftDelete() {
			s.Types["ShowDeleted"] = showDeleted()
			query.Fields.ForName(e.List).Arguments = append(query.Fields.ForName(e.List).Arguments, deletedArgument())
		}
		query.Fields = append(query.Fields, sdlField(e.Single, e.Name, "id", "ID!"))
		recordMap.Fields = append(recordMap.Fields, sdlField(e.List, "["+e.Name+"!]!"))
		for _, in := range []string{"Create" + e.Name + "Input", "Update" + e.Name + "Input"} {
			e.completeInput(s, in)
		}
		if e.Can(entity.Create) {
			mutation.Fields = append(mutation.Fields, sdlField("create"+e.Name, e.Name+"!", "input", "Create"+e.Name+"Input!"))
		}
		if e.Can(entity.Update) {
			update := sdlField("update"+e.Name, e.Name+"!", "id", "ID!", "expectedVersion", "Int!", "input", "Update"+e.Name+"Input!",
				"onConflict", "OnConflict")
			update.Arguments.ForName("onConflict").DefaultValue = &ast.Value{Kind: ast.EnumValue, Raw: "FAIL"}
			mutation.Fields = append(mutation.Fields, update)
			s.Types["OnConflict"] = onConflict()
		}
		if e.Can(entity.Delete) {
			mutation.Fields = append(mutation.Fields, sdlField("delete"+e.Name, "Deleted!", "id", "ID!", "expectedVersion", "Int!"))
		}
		if e.SoftDelete() {
			restore := sdlField("restore"+e.Name, e.Name+"!", "id", "ID!", "expectedVersion", "Int!")
			restore.Description = "Brings a deleted record back, at the version that its deletion has."
			mutation.Fields = append(mutation.Fields, restore)
		}
		if e.Live() {
			s.AddTypes(change(e.Name+"Change", "An event of a stream of "+e.List+".", e.Single, e.Name))
			list := []string{"where", e.Name + "WhereInput", "since", "Cursor"}
			if s.Types[list[1]] == nil { // nothing to filter by
				list = list[2:]
			}
			changed := sdlField(e.List+"Changed", e.Name+"Change!", list...)
			if e.SoftDelete() {
				changed.Arguments = append(changed.Arguments, deletedArgument())
			}
			subscription.Fields = append(subscription.Fields,
				sdlField(e.Single+"Changed", e.Name+"Change!", "id", "ID!", "knownVersion", "Int", "since", "Cursor"), changed)
		}
	}
	recordMap.Fields = append(recordMap.Fields, sdlField("unchanged", "[ID!]!"), sdlField("missing", "[ID!]!"))
	s.AddTypes(recordMap)
	if len(mutation.Fields) > 0 {
		s.AddTypes(mutation)
	}
	if len(subscription.Fields) > 0 {
		subscription.Fields = append(subscription.Fields,
			sdlField("recordsChanged", "RecordChange!", "refs", "[RecordRef!]!", "since", "Cursor"))
		s.AddTypes(changeKind(), change("RecordChange", "An event of a stream of records of any type.", "record", "Record"), subscription)
	}
	s.Types["Cursor"].Description = "A place in a list, or in a stream of changes: opaque, and of use where it came from.\n" +
		"A list goes on from it in the same order; a stream on any server, for as long as the change log reaches back."
	slices.SortStableFunc(query.Fields, func(a, b *ast.FieldDefinition) int { return rootRank(a) - rootRank(b) })
}

// rootRank puts what serves all entities before what serves one.
func rootRank(f *ast.FieldDefinition) int {
	return map[string]int{"node": -3, "nodes": -2, "records": -1}[f.Name]
}

// change makes the type of a stream's events, with the field that has the record.
func change(name, description, field, typ string) *ast.Definition {
	d := &ast.Definition{Kind: ast.Object, Name: name, Description: description}
	for _, f := range [][3]string{
		{"kind", "ChangeKind!", ""},
		{"recordId", "ID", "Of which record; null in READY and RESYNC of a list."},
		{"version", "Int", "The change's, or the snapshot's. What " + field + " has, read as it is delivered, may be newer."},
		{"cursor", "Cursor!", "Connect again with it as since, and the stream goes on after this event."},
		{"fields", "[String!]!", "What an update changed, as far as you may read it."},
		{field, typ, ""},
	} {
		x := sdlField(f[0], f[1])
		x.Description = f[2]
		d.Fields = append(d.Fields, x)
	}
	return d
}

func changeKind() *ast.Definition {
	return enum("ChangeKind", "What an event of a stream is.", [][2]string{
		{"SNAPSHOT", "A record as it is when the stream begins."},
		{"READY", "Nothing is missing up to here: all snapshots are sent, or what you hold is current. From here on there are changes."},
		{"CREATED", "A record is new, or has entered the list."},
		{"UPDATED", "A record has changed."},
		{"DELETED", "A record is gone, has left the list, or may not be read any more."},
		{"RESYNC", "Drop what you hold: snapshots follow."},
	})
}

func onConflict() *ast.Definition {
	return enum("OnConflict", "What becomes of an update whose expectedVersion is not the current one any more.", [][2]string{
		{"FAIL", "It is refused with CONFLICT."},
		{"MERGE", "It is applied to the current version if none of its fields has been changed to something else since; else it is refused.\n" +
			"extensions.merged of the answer says what was merged."},
	})
}

// showDeleted says which records of a list are asked for.
func showDeleted() *ast.Definition {
	return enum("ShowDeleted", "Which records a list has: of those that were deleted, whoever may restore them sees them by asking.", [][2]string{
		{"EXCLUDE", "Those that are not deleted."},
		{"INCLUDE", "Those that are not deleted, and those that you may restore."},
		{"ONLY", "Those that are deleted, and that you may restore."},
	})
}

func deletedArgument() *ast.ArgumentDefinition {
	return &ast.ArgumentDefinition{Name: "deleted", Type: parseType("ShowDeleted"), DefaultValue: &ast.Value{Kind: ast.EnumValue, Raw: "EXCLUDE"}}
}

// addHistory adds the types of Query.history.
func addHistory(es []*Entity, s *ast.Schema) {
	described := func(name, typ, text string) *ast.FieldDefinition {
		f := sdlField(name, typ)
		f.Description = text
		return f
	}
	entry := &ast.Definition{Kind: ast.Object, Name: "HistoryEntry", Description: "A change of a record.", Fields: ast.FieldList{
		described("version", "Int!", "The record's, after the change."),
		sdlField("kind", "HistoryKind!"),
		sdlField("at", "Time!"),
	}}
	if slices.ContainsFunc(es, func(e *Entity) bool { return e.Name == "User" }) {
		entry.Fields = append(entry.Fields, described("actor", "User", "Who did it; null where nobody was signed in, and where you may not read who it was."))
	}
	entry.Fields = append(entry.Fields,
		described("fields", "[String!]!", "What it changed, as far as you may read it."),
		described("old", "[OldValue!]!", "What those were before, as far as you may read it."))
	s.AddTypes(
		&ast.Definition{Kind: ast.Scalar, Name: "JSON", Description: "Any value."},
		enum("HistoryKind", "What was done to a record.", [][2]string{
			{"CREATED", ""}, {"UPDATED", ""}, {"DELETED", "It was deleted, and can be restored."}, {"RESTORED", ""},
		}),
		&ast.Definition{Kind: ast.Object, Name: "OldValue", Description: "A field as it was before a change.", Fields: ast.FieldList{
			sdlField("field", "String!"),
			described("value", "JSON", "As a query would answer it; of an edge to one record its id, of an edge to many { added: [ID!]!, removed: [ID!]! }."),
		}},
		entry,
		&ast.Definition{Kind: ast.Object, Name: "HistoryEdge", Fields: ast.FieldList{sdlField("node", "HistoryEntry!"), sdlField("cursor", "Cursor!")}},
		&ast.Definition{Kind: ast.Object, Name: "HistoryConnection", Description: "The changes of a record, the latest first.", Fields: ast.FieldList{
			sdlField("edges", "[HistoryEdge!]!"),
			sdlField("pageInfo", "PageInfo!"),
			described("complete", "Boolean!", "Whether the change log has all of it, back to CREATED. It keeps seven days: false says that there were earlier changes."),
		}},
	)
}

// enum makes an enum; values are names and descriptions.
func enum(name, description string, values [][2]string) *ast.Definition {
	d := &ast.Definition{Kind: ast.Enum, Name: name, Description: description}
	for _, v := range values {
		d.EnumValues = append(d.EnumValues, &ast.EnumValueDefinition{Name: v[0], Description: v[1]})
	}
	return d
}

// completeType makes nullable what may be out of the viewer's sight: edges, since what goes wrong with one is no reason to
// withhold the record either, and fields that not everybody reads.
func (e *Entity) completeType(d *ast.Definition) {
	for _, f := range d.Fields {
		if e.edge(f.Name) != nil || e.limited(f.Name) {
			f.Type.NonNull = false
		}
		if e.softList(f.Name) {
			f.Arguments = append(f.Arguments, deletedArgument())
		}
	}
}

// completeInput drops what null and absence say already (clearX), and entgql's append.
func (e *Entity) completeInput(s *ast.Schema, name string) {
	d := s.Types[name]
	if d == nil {
		return
	}
	d.Fields = slices.DeleteFunc(d.Fields, func(f *ast.FieldDefinition) bool {
		for _, x := range e.Node.Fields {
			if f.Name == "clear"+x.StructField() || f.Name == "append"+x.StructField() {
				return true
			}
		}
		for _, x := range e.Node.Edges {
			if x.Unique && f.Name == "clear"+x.StructField() {
				return true
			}
		}
		return false
	})
	if len(d.Fields) == 0 { // GraphQL has no empty input
		d.Fields = ast.FieldList{{Name: "_", Type: ast.NamedType("Boolean", nil), Description: "There is nothing to set: leave this out."}}
	}
}

// sdlField makes a field; args are names and types in turn.
func sdlField(name, typ string, args ...string) *ast.FieldDefinition {
	f := &ast.FieldDefinition{Name: name, Type: parseType(typ)}
	for i := 0; i < len(args); i += 2 {
		f.Arguments = append(f.Arguments, &ast.ArgumentDefinition{Name: args[i], Type: parseType(args[i+1])})
	}
	return f
}

// parseType reads a type as SDL writes it.
func parseType(s string) *ast.Type {
	t := &ast.Type{}
	if s[len(s)-1] == '!' {
		t.NonNull = true
		s = s[:len(s)-1]
	}
	if s[0] == '[' {
		t.Elem = parseType(s[1 : len(s)-1])
	} else {
		t.NamedType = s
	}
	return t
}

// formatSDL writes the schema, its types in the order of their names.
func formatSDL(s *ast.Schema) []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, "# Code generated by godstack, DO NOT EDIT. It follows from ent/schema.")
	fmt.Fprintln(&b)
	formatter.NewFormatter(&b, formatter.WithIndent("  ")).FormatSchema(s)
	return b.Bytes()
}

// names of gen's functions that entgql uses as well.
var (
	camel    = gen.Funcs["camel"].(func(string) string)
	plural   = gen.Funcs["plural"].(func(string) string)
	singular = gen.Funcs["singular"].(func(string) string)
	snake    = gen.Funcs["snake"].(func(string) string)
	pascal   = gen.Funcs["pascal"].(func(string) string)
)
