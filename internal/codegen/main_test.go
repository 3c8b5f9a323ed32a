package codegen

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// root is the repository's.
const root = "../.."

// module is a copy of the repository in a folder of its own.
type module struct {
	t   *testing.T
	dir string
}

// copyModule copies files and folders of the repository, without tests.
func copyModule(t *testing.T, names ...string) module {
	t.Helper()
	m := module{t, t.TempDir()}
	for _, name := range append(names, "go.mod", "go.sum", gqlgenFile) {
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules"):
				return fs.SkipDir
			case d.IsDir(), strings.HasSuffix(path, "_test.go"):
				return nil
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			m.write(rel, b)
			return err
		})
		require.NoError(t, err)
	}
	return m
}

func (m module) path(name string) string { return filepath.Join(m.dir, filepath.FromSlash(name)) }

func (m module) write(name string, b []byte) {
	m.t.Helper()
	require.NoError(m.t, os.MkdirAll(filepath.Dir(m.path(name)), 0o755))
	require.NoError(m.t, os.WriteFile(m.path(name), b, 0o644))
}

func (m module) remove(name string) {
	m.t.Helper()
	require.NoError(m.t, os.RemoveAll(m.path(name)))
}

// files returns the contents of the files below a folder by their paths in the module.
func (m module) files(dir string) map[string]string {
	m.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(m.path(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(m.dir, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		files[filepath.ToSlash(rel)] = string(b)
		return err
	})
	require.NoError(m.t, err)
	return files
}

// try runs a command in the module and returns what it prints.
func (m module) try(name string, args ...string) (string, error) {
	cmd := exec.CommandContext(m.t.Context(), name, args...)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "PWD="+m.dir, "GOFLAGS="+os.Getenv("GOFLAGS")+" -buildvcs=false")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// run runs a command that must succeed.
func (m module) run(name string, args ...string) string {
	m.t.Helper()
	out, err := m.try(name, args...)
	require.NoError(m.t, err, "%s %s: %s", name, strings.Join(args, " "), out)
	return out
}

// buildGenerator builds the command for tests that run it often. It has no -race: most of its time is in tools.
func buildGenerator(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "generate")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", bin, root+"/cmd/generate").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
}

// bareModule is a module with package entity and what generated code imports, and no entity.
func bareModule(t *testing.T) module {
	t.Helper()
	m := copyModule(t, "internal")
	m.write("graph/resolver.go", []byte("package graph\n\nimport \"godstack/ent\"\n\n// Resolver is the root of all resolvers.\n"+
		"type Resolver struct {\n\tStores *ent.Stores\n}\n"))
	return m
}
