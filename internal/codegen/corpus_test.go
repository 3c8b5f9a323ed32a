package codegen

import (
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

var update = flag.Bool("update", false, "write what is generated to testdata, as what is expected")

// TestCorpus generates from each schema in testdata and compares with what is expected: the SDL, the resolvers, the
// descriptions of the entities and the migration. What is generated compiles, and the migrations can be applied.
//
// A case is a folder with a schema, or with several in numbered folders, of which each follows the one before in the
// same module. In place of expected there may be a file error: what generation says as it refuses the schema.
func TestCorpus(t *testing.T) {
	t.Parallel()
	generator := buildGenerator(t)
	schemas, err := filepath.Glob("testdata/*/schema")
	require.NoError(t, err)
	steps, err := filepath.Glob("testdata/*/*/schema")
	require.NoError(t, err)
	cases := map[string][]string{}
	for _, s := range schemas {
		name := filepath.Base(filepath.Dir(s))
		cases[name] = []string{filepath.Dir(s)}
	}
	for _, s := range steps { // in order: Glob sorts
		name := filepath.Base(filepath.Dir(filepath.Dir(s)))
		cases[name] = append(cases[name], filepath.Dir(s))
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := bareModule(t)
			var refused bool
			for _, step := range steps {
				refused = m.step(step, generator)
			}
			if !refused {
				m.run("go", "build", "./ent/...", "./graph/...")
			}
			m.migrate()
		})
	}
}

// step generates from one schema of the corpus.
func (m module) step(dir, generator string) (refused bool) {
	m.t.Helper()
	m.remove(schemaDir)
	sources, err := filepath.Glob(dir + "/schema/*.go")
	require.NoError(m.t, err)
	for _, source := range sources {
		b, err := os.ReadFile(source)
		require.NoError(m.t, err)
		m.write(schemaDir+"/"+filepath.Base(source), b)
	}
	before := m.migrations()
	out, err := m.try(generator)
	want, wantErr := os.ReadFile(dir + "/error")
	if wantErr == nil {
		require.Error(m.t, err, "%s: the schema is taken", dir)
		require.Equal(m.t, string(want), out, dir)
		return true
	}
	require.NoError(m.t, err, "%s: %s", dir, out)

	got := map[string]string{"ent.graphql": m.read("graph/ent.graphql"), "entities.txt": m.entities()}
	for name, text := range m.files(graphDir) {
		if strings.HasSuffix(name, "_gen.go") {
			got[path.Base(name)] = text
		}
	}
	for name, text := range m.migrations() {
		if _, old := before[name]; !old {
			_, what, _ := strings.Cut(path.Base(name), "_")
			got["migration_"+what] = text
		}
	}
	compare(m.t, dir+"/expected", got)
	return false
}

// entities returns the descriptions of the entities in the generated stores.
func (m module) entities() string {
	all := regexp.MustCompile(`(?s)record\.Entity\{\n.*?\n\t\}`).FindAllString(m.read("ent/stores.go"), -1)
	require.NotEmpty(m.t, all)
	return strings.Join(all, "\n") + "\n"
}

func (m module) read(name string) string {
	m.t.Helper()
	b, err := os.ReadFile(m.path(name))
	require.NoError(m.t, err)
	return string(b)
}

// migrations returns the module's migrations.
func (m module) migrations() map[string]string {
	m.t.Helper()
	require.NoError(m.t, os.MkdirAll(m.path(migrationsDir), 0o755))
	files := m.files(migrationsDir)
	for name := range files {
		if path.Ext(name) != ".sql" {
			delete(files, name)
		}
	}
	return files
}

// migrate applies the change log's migration and the module's to an empty database.
func (m module) migrate() {
	m.t.Helper()
	ctx := m.t.Context()
	conn, err := pgx.Connect(ctx, dbtest.Empty(m.t))
	require.NoError(m.t, err)
	defer func() { require.NoError(m.t, conn.Close(ctx)) }()
	log, err := os.ReadFile(filepath.Join(root, migrationsDir, "00001_changelog.sql"))
	require.NoError(m.t, err)
	files := m.migrations()
	texts := []string{string(log)}
	for _, name := range names(files) {
		texts = append(texts, files[name])
	}
	for _, text := range texts {
		_, err := conn.PgConn().Exec(ctx, text).ReadAll()
		require.NoError(m.t, err, text)
	}
}

// compare compares files with those in dir, or writes them there with -update.
func compare(t *testing.T, dir string, got map[string]string) {
	t.Helper()
	if *update {
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.MkdirAll(dir, 0o755))
		for name, text := range got {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
		return
	}
	want := map[string]string{}
	entries, err := os.ReadDir(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		want[e.Name()] = string(b)
	}
	require.Equal(t, names(want), names(got), "%s: the names of the files; go test -run TestCorpus -update writes them", dir)
	for name := range want {
		require.Equal(t, want[name], got[name], "%s/%s; go test -run TestCorpus -update writes it", dir, name)
	}
}

func names(files map[string]string) []string { return slices.Sorted(maps.Keys(files)) }
