package codegen

import (
	"embed"
	"text/template"

	"entgo.io/contrib/entgql"
	"entgo.io/ent/entc"
	"entgo.io/ent/entc/gen"
	"github.com/vektah/gqlparser/v2/ast"
)

//go:embed templates/resolver.gotpl
var resolverTemplate string

//go:embed templates/*.tmpl
var entTemplates embed.FS

// extension is our part of ent's generation. It fills entities and sdl for the steps after it.
type extension struct {
	entc.DefaultExtension

	module   string
	entities []*Entity
	sdl      []byte
	graph    *gen.Graph
}

var _ entc.Extension = (*extension)(nil)

// Hooks checks the graph before anything is generated.
func (x *extension) Hooks() []gen.Hook {
	return []gen.Hook{func(next gen.Generator) gen.Generator {
		return gen.GenerateFunc(func(g *gen.Graph) (err error) {
			if err := prepare(g); err != nil {
				return err
			}
			if x.entities, err = exposed(g); err != nil {
				return err
			}
			x.graph = g
			return next.Generate(g)
		})
	}}
}

// Templates are those for stores and for updates of one statement.
func (x *extension) Templates() []*gen.Template {
	funcs := template.FuncMap{
		"exposed": func(*gen.Graph) []*Entity { return x.entities },
		"module":  func() string { return x.module },
	}
	var ts []*gen.Template
	for _, name := range []string{"stores", "update"} {
		text, err := entTemplates.ReadFile("templates/" + name + ".tmpl")
		if err != nil {
			panic(err) // embedded
		}
		ts = append(ts, gen.MustParse(gen.NewTemplate(name).Funcs(funcs).Parse(string(text))))
	}
	return ts
}

// sdlExtension is entgql without the ent features that it asks for, which no template here uses.
type sdlExtension struct{ *entgql.Extension }

// Options asks for nothing.
func (sdlExtension) Options() []entc.Option { return nil }

// entgql makes entgql's part, the SDL.
func (x *extension) entgql() (entc.Extension, error) {
	ext, err := entgql.NewExtension(
		entgql.WithSchemaGenerator(),
		entgql.WithWhereInputs(true),
		entgql.WithTemplates(), // none: package record reads and writes what they would be for
		entgql.WithSchemaHook(func(_ *gen.Graph, s *ast.Schema) error {
			extendSDL(x.entities, s)
			return nil
		}),
		entgql.WithOutputWriter(func(s *ast.Schema) error {
			x.sdl = formatSDL(s)
			return nil
		}),
	)
	return sdlExtension{ext}, err
}
