package codegen

import (
	"errors"
	"fmt"
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
	record, ent, generic := r.module+"/internal/record.", r.module+"/ent.", r.module+"/graph/internal/model."
	model := func(name, goType string, fields ...string) {
		m := config.TypeMapEntry{Model: config.StringList{goType}, Fields: map[string]config.TypeMapField{}}
		for i := 0; i < len(fields); i += 2 {
			f := config.TypeMapField{FieldName: fields[i+1]}
			if f.FieldName == "" {
				f = config.TypeMapField{Resolver: true}
			}
			m.Fields[fields[i]] = f
		}
		cfg.Models[name] = m
	}
	model("ID", record+"ID")
	model("Time", "github.com/99designs/gqlgen/graphql.Time")
	model("Cursor", record+"Cursor")
	model("Node", record+"Node")
	model("Record", record+"Node")
	model("PageInfo", record+"PageInfo")
	model("RecordRef", record+"Ref")
	model("RecordMap", "map[string]interface{}")
	model("Deleted", record+"Deleted", "deletedId", "DeletedID")
	model("ChangeKind", record+"ChangeKind")
	for _, e := range r.entities {
		fields := []string{"id", "GlobalID"}
		for _, d := range e.Node.Edges {
			fields = append(fields, camel(d.Name), "")
		}
		model(e.Name, ent+e.Name, fields...)
		model(e.Name+"Connection", generic+e.Name+"Connection")
		model(e.Name+"Edge", generic+e.Name+"Edge")
		model(e.Name+"Change", generic+e.Name+"Change", "recordId", "RecordID", e.Single, "Record")
		model(e.Name+"WhereInput", record+"Input")
		model("Create"+e.Name+"Input", record+"Input")
		model("Update"+e.Name+"Input", record+"Input")
		model(e.Name+"Order", record+"Order")
		for _, f := range e.Node.Fields {
			if f.IsEnum() {
				model(e.Name+pascal(f.Name), r.module+"/ent/"+e.Node.PackageDir()+"."+pascal(f.Name))
			}
		}
	}
}

// MutateSchema hides the fields of generated inputs from gqlgen: it would write a decoder for each, where one Go
// type decodes all. The schema that requests are validated against has them.
func (r resolvers) MutateSchema(s *ast.Schema) error {
	for _, e := range r.entities {
		for _, name := range []string{e.Name + "WhereInput", "Create" + e.Name + "Input", "Update" + e.Name + "Input", e.Name + "Order"} {
			if d := s.Types[name]; d != nil {
				d.Kind, d.Fields = ast.Scalar, nil
			}
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
		return "nodes, err := record.Fetch(ctx, r.Stores.Engine, []*record.ID{&id})\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\treturn nodes[0], nil"
	case "Query.nodes":
		return "return record.Fetch(ctx, r.Stores.Engine, ids)"
	case "Query.records":
		return "return record.Records(ctx, r.Stores.Engine, refs)"
	}
	return ""
}

const pageArgs = "record.Page{After: after, Before: before, First: first, Last: last, OrderBy: orderBy, Where: where}"

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
		return "return record.Update(ctx, " + store + ", id, expectedVersion, input)"
	case "Mutation.delete" + e.Name:
		return "return record.Delete(ctx, " + store + ", id, expectedVersion)"
	case "Subscription." + e.Single + "Changed":
		return "return record.Watch(ctx, " + store + ", id, knownVersion)"
	}
	if f.Object.Name != e.Name {
		return ""
	}
	d := e.edge(f.Name)
	switch {
	case d == nil:
		return ""
	case !d.Unique:
		return fmt.Sprintf("return record.Children(ctx, %s, r.Stores.%s, %q, obj, %s)", store, d.Type.Name, f.Name, page(f))
	case d.Field().Optional:
		return fmt.Sprintf("return record.One(ctx, r.Stores.%s, obj.%s)", d.Type.Name, d.Field().StructField())
	}
	return fmt.Sprintf("return record.One(ctx, r.Stores.%s, &obj.%s)", d.Type.Name, d.Field().StructField())
}

// page returns the page that a list field's arguments make.
func page(f *codegen.Field) string {
	args := pageArgs
	for _, name := range []string{"orderBy", "where"} {
		if !slices.ContainsFunc(f.Args, func(a *codegen.FieldArgument) bool { return a.Name == name }) {
			args = strings.Replace(args, ", "+strings.ToUpper(name[:1])+name[1:]+": "+name, "", 1)
		}
	}
	return args
}
