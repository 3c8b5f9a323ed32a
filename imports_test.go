package godstack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// module is the path that all of our packages begin with.
const module = "godstack/"

// mayImport is the import table of docs/architecture.md: what of ours a package may import. A name with a slash at its
// end stands for the package and all below it. Test files may import more. depguard (.golangci.yml) has the same table.
var mayImport = map[string][]string{
	"internal/entity":    {},
	"internal/viewer":    {},
	"internal/ratelimit": {},
	"internal/changelog": {},
	"internal/entpgx":    {},
	"internal/devdb":     {},
	"internal/graphqlws": {},
	"internal/pubsub":    {},
	"internal/replica":   {},
	"internal/telemetry": {},
	"migrations":         {},
	"web":                {},

	"internal/record": {"internal/viewer", "internal/entity", "internal/entpgx", "internal/changelog", "internal/replica"},
	"ent/schema":      {"internal/entity"},
	"ent/":            {"ent/", "internal/entity", "internal/entpgx", "internal/record"},
	"internal/mail":   {},
	"internal/auth": {
		"ent/", "internal/changelog", "internal/entpgx", "internal/mail", "internal/ratelimit", "internal/record", "internal/viewer",
	},
	"graph":           {"ent/", "internal/auth", "internal/record", "internal/viewer"},
	"internal/server": {"internal/graphqlws", "internal/viewer", "internal/record", "internal/ratelimit", "internal/telemetry"},
	"internal/app": {
		"ent", "graph", "internal/auth", "internal/changelog", "internal/devdb", "internal/entity", "internal/entpgx", "internal/mail",
		"internal/pubsub", "internal/ratelimit", "internal/record", "internal/replica", "internal/server", "internal/telemetry", "internal/viewer", "migrations", "web",
	},
	"cmd/godstack": {"internal/app", "internal/auth", "internal/server", "internal/viewer"},

	"internal/codegen": {"internal/entity"},
	"cmd/generate":     {"internal/codegen"},

	"internal/dbtest":     {"internal/devdb", "migrations"},
	"internal/logtest":    {},
	"internal/followtest": {},
	"internal/bench": {
		"internal/app", "internal/auth", "internal/devdb", "internal/entity", "internal/record", "internal/viewer", "migrations",
	},
}

func TestImports(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == strings.TrimSuffix(module, "/") || strings.Contains(name, "/testdata/") {
			continue // this test; the generator's cases
		}
		allowed, ok := mayImport[name]
		if !ok && strings.HasPrefix(name, "ent") {
			allowed, ok = mayImport["ent/"]
		}
		if !ok {
			t.Errorf("%s is not in the import table: say what it may import", name)
			continue
		}
		for _, path := range p.Imports {
			if i, ours := strings.CutPrefix(path, module); ours && !slices.ContainsFunc(allowed, func(a string) bool { return covers(a, i) }) {
				t.Errorf("%s imports %s, which the import table does not allow", name, i)
			}
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if strings.HasPrefix(path, module+"cmd/") || path == module+"internal/codegen" && name != "internal/codegen" {
				t.Errorf("tests of %s import %s", name, path)
			}
		}
	}
}

func covers(pattern, name string) bool {
	return pattern == name || strings.HasSuffix(pattern, "/") && strings.HasPrefix(name+"/", pattern)
}

// TestWhatTheProgramLinks keeps generators and test helpers out of what is deployed.
func TestWhatTheProgramLinks(t *testing.T) {
	t.Parallel()
	var linked []string
	for _, p := range list(t, "-deps", "./cmd/godstack") {
		linked = append(linked, p.ImportPath)
	}
	require.Contains(t, linked, module+"internal/record")
	for _, path := range []string{
		module + "internal/codegen", module + "internal/dbtest", module + "internal/logtest", module + "internal/followtest",
		"entgo.io/contrib/entgql", "entgo.io/ent/entc", "ariga.io/atlas", "github.com/99designs/gqlgen/codegen",
		"github.com/99designs/gqlgen/api", "golang.org/x/tools", "github.com/stretchr/testify",
	} {
		for _, l := range linked {
			if l == path || strings.HasPrefix(l, path+"/") {
				t.Errorf("the program links %s", l)
			}
		}
	}
}

type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// list is go list -json.
func list(t *testing.T, args ...string) (packages []goPackage) {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports"}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		require.NoError(t, err)
		packages = append(packages, p)
	}
}
