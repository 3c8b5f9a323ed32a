package codegen

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/99designs/gqlgen/api"
	"github.com/99designs/gqlgen/codegen"
	"github.com/99designs/gqlgen/codegen/config"
	"github.com/99designs/gqlgen/codegen/templates"
	"github.com/99designs/gqlgen/plugin"
	"github.com/vektah/gqlparser/v2/ast"
)

// resolvers is the gqlgen plugin in resolvergen's place: it writes the one-line resolvers of entities, and nothing
// else. A hand-written field without its method is a compile error, as it should be.
type resolvers struct {
	entities []*Entity
	module   string
}

var _ interface {
	plugin.CodeGenerator
	plugin.SchemaMutator
} = resolvers{}

// Name takes resolvergen's place.
func (resolvers) Name() string { return "resolvergen" }

// generateGraphQL runs gqlgen with the plugin. What is there already goes first, so that nobody loads or compiles it;
// it comes back if gqlgen fails.
func generateGraphQL(cfg *config.Config, r resolvers) (err error) {
	old := map[string][]byte{}
	names, err := filepath.Glob(filepath.Join(graphDir, "*.go"))
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if !generated(b) {
			continue
		}
		old[name] = b
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	defer func() {
		if err == nil {
			return
		}
		for name, b := range old {
			err = errors.Join(err, os.WriteFile(name, b, 0o644))
		}
	}()
	r.bind(cfg)
	return api.Generate(cfg, api.ReplacePlugin(r))
}

// bind says which Go types the generated GraphQL types are.
func (r resolvers) bind(cfg *config.Config) {
	record := r.module + "/internal/record."
	model := func(goType string, names ...string) {
		for _, name := range names {
			cfg.Models[name] = config.TypeMapEntry{Model: config.StringList{goType}}
		}
	}
	model("github.com/99designs/gqlgen/graphql.Time", "Time")
	model(record+"ID", "ID")
	model(record+"Cursor", "Cursor")
	model(record+"Ref", "RecordRef")
	model(record+"Raw", "Node", "Record", "RecordMap", "HistoryConnection")
	model(record+"Event", "RecordChange")
	model(record+"OnConflict", "OnConflict")
	model(record+"ShowDeleted", "ShowDeleted")
	cfg.Models["Deleted"] = config.TypeMapEntry{
		Model: config.StringList{record + "Deleted"}, Fields: map[string]config.TypeMapField{"deletedId": {FieldName: "DeletedID"}},
	}
	for _, e := range r.entities {
		model(record+"Raw", e.Name, e.Name+"Connection")
		model(record+"Event", e.Name+"Change")
		model(record+"Input", e.Name+"WhereInput", "Create"+e.Name+"Input", "Update"+e.Name+"Input")
		model(record+"Order", e.Name+"Order")
	}
}

// MutateSchema makes scalars of the generated types, for gqlgen alone: package record reads and writes them by the
// entity's description, where gqlgen would write code for each field. The schema that requests are validated against
// is the whole one.
func (r resolvers) MutateSchema(s *ast.Schema) error {
	opaque := []string{"Node", "Record", "RecordMap", "RecordChange", "PageInfo", "ChangeKind", "OrderDirection",
		"HistoryConnection", "HistoryEdge", "HistoryEntry", "HistoryKind", "OldValue", "JSON"}
	for _, e := range r.entities {
		for _, suffix := range []string{"", "Connection", "Edge", "Change", "WhereInput", "Order", "OrderField"} {
			opaque = append(opaque, e.Name+suffix)
		}
		opaque = append(opaque, "Create"+e.Name+"Input", "Update"+e.Name+"Input")
		for _, f := range e.Node.Fields {
			if f.IsEnum() {
				opaque = append(opaque, e.Name+pascal(f.Name))
			}
		}
	}
	for _, name := range opaque {
		if d := s.Types[name]; d != nil {
			*d = ast.Definition{Kind: ast.Scalar, Name: d.Name, Position: d.Position}
		}
	}
	return nil
}

// method is a generated resolver.
type method struct {
	*codegen.Field
	Body string
}

// GenerateCode writes a file an entity, and one with the resolver types.
func (r resolvers) GenerateCode(data *codegen.Data) error {
	dir := data.Config.Exec.Dir()
	files := map[*Entity][]method{}
	var shared []method
	var types []*codegen.Object
	for _, o := range data.Objects {
		if o.HasResolvers() {
			types = append(types, o)
		}
		for _, f := range o.Fields {
			if !f.IsResolver {
				continue
			}
			if body := sharedBody(f); body != "" {
				shared = append(shared, method{f, body})
				continue
			}
			for _, e := range r.entities {
				if body := e.body(f); body != "" {
					files[e] = append(files[e], method{f, body})
				}
			}
		}
	}
	if err := r.render(data, filepath.Join(dir, "resolver_gen.go"), map[string]any{"Types": types, "Methods": shared}); err != nil {
		return err
	}
	for _, e := range r.entities {
		err := r.render(data, filepath.Join(dir, e.Prefix+"_gen.go"), map[string]any{"Methods": files[e]})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r resolvers) render(data *codegen.Data, file string, v map[string]any) error {
	v["Module"] = r.module
	return templates.Render(templates.Options{
		PackageName: data.Config.Exec.Package, Filename: file, Data: v, GeneratedHeader: true, Template: resolverTemplate,
		Packages: data.Config.Packages, PruneOptions: data.Config.GetPruneOptions(),
	})
}

// sharedBody returns the body of a root field that serves all entities.
func sharedBody(f *codegen.Field) string {
	switch f.Object.Name + "." + f.Name {
	case "Query.node":
		return "return record.Fetch(ctx, r.Stores.Engine, id)"
	case "Query.nodes":
		return "return record.FetchAll(ctx, r.Stores.Engine, ids)"
	case "Query.records":
		return "return record.Records(ctx, r.Stores.Engine, refs)"
	case "Query.history":
		return "return record.History(ctx, r.Stores.Engine, id, first, after)"
	case "Subscription.recordsChanged":
		return "return record.WatchRecords(ctx, r.Stores.Engine, refs, since)"
	}
	return ""
}

const pageArgs = "record.Page{After: after, Before: before, First: first, Last: last, OrderBy: orderBy, Where: where, Deleted: deleted}"

// body returns the body of a field's resolver, "" if the field is not the entity's.
func (e *Entity) body(f *codegen.Field) string {
	store := "r.Stores." + e.Name
	switch f.Object.Name + "." + f.Name {
	case "Query." + e.Single:
		return "return record.Get(ctx, " + store + ", id)"
	case "Query." + e.List:
		return "return record.List(ctx, " + store + ", " + page(f) + ")"
	case "Mutation.create" + e.Name:
		return "return record.Create(ctx, " + store + ", input)"
	case "Mutation.update" + e.Name:
		return "return record.Update(ctx, " + store + ", id, expectedVersion, input, onConflict)"
	case "Mutation.delete" + e.Name:
		return "return record.Delete(ctx, " + store + ", id, expectedVersion)"
	case "Mutation.restore" + e.Name:
		return "return record.Restore(ctx, " + store + ", id, expectedVersion)"
	case "Subscription." + e.Single + "Changed":
		return "return record.Watch(ctx, " + store + ", id, knownVersion, since)"
	case "Subscription." + e.List + "Changed":
		where := "where"
		if !takes(f, where) {
			where = "nil"
		}
		deleted := "deleted"
		if !takes(f, deleted) {
			deleted = "nil"
		}
		return "return record.WatchList(ctx, " + store + ", " + where + ", " + deleted + ", since)"
	}
	return ""
}

// page returns the page that a list field's arguments make.
func page(f *codegen.Field) string {
	args := pageArgs
	for _, name := range []string{"orderBy", "where", "deleted"} {
		if !takes(f, name) {
			args = strings.Replace(args, ", "+strings.ToUpper(name[:1])+name[1:]+": "+name, "", 1)
		}
	}
	return args
}

// takes reports whether a field has an argument.
func takes(f *codegen.Field, name string) bool {
	return slices.ContainsFunc(f.Args, func(a *codegen.FieldArgument) bool { return a.Name == name })
}
