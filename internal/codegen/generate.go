package codegen

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"entgo.io/ent/entc"
	"entgo.io/ent/entc/gen"
	"github.com/99designs/gqlgen/codegen/config"
)

// Where things are, from the module's root.
const (
	schemaDir     = "ent/schema"
	entDir        = "ent"
	graphDir      = "graph"
	migrationsDir = "migrations"
	gqlgenFile    = "gqlgen.yml"
)

// Generate makes everything that follows from the schema files, if anything has changed. The working
// directory is the module's root. What there is to tell, as the name of a new migration or that an
// entity has no rules, goes to out.
func Generate(module string, out io.Writer) error {
	// The tools allocate much and live shortly.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	if ok, err := current(); ok || err != nil {
		return err
	}
	x := &extension{module: module}
	gql, err := x.entgql()
	if err != nil {
		return err
	}
	fresh, err := os.MkdirTemp("", "godstack-generate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	err = entc.Generate("./"+schemaDir, &gen.Config{Package: module + "/" + entDir, Target: fresh}, entc.Extensions(x, gql))
	if err != nil {
		return explain(err)
	}
	if err := syncEnt(fresh, entDir); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(graphDir, "ent.graphql"), x.sdl); err != nil {
		return err
	}
	g, err := config.LoadConfig(gqlgenFile)
	if err != nil {
		return fmt.Errorf("%s: %w", gqlgenFile, err)
	}
	g.Model = config.PackageConfig{} // every type is bound: there are no models to write
	if err := generateGraphQL(g, resolvers{x.entities, module}); err != nil {
		return err
	}
	m, err := migration(x.graph, migrationsDir, time.Now())
	if err != nil {
		return err
	}
	if m != nil {
		fmt.Fprintln(out, "wrote", m.File)
		for _, l := range m.Losses {
			fmt.Fprintln(out, "ATTENTION: it loses the data of", l)
		}
	}
	for _, e := range x.entities {
		if !e.declared {
			file, _, _ := strings.Cut(findPlaces().of(e.Name, ""), ":")
			fmt.Fprintf(out, "%s has no rules: administrators alone see it (entity.Access in %s)\n", e.Name, file)
		}
	}
	return stamp()
}

// writeFile writes a file if that changes it.
func writeFile(name string, b []byte) error {
	if old, err := os.ReadFile(name); err == nil && string(old) == string(b) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o644)
}
