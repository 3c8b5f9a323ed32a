package godstack_test

import (
	"bytes"
	"encoding/json"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/auth"
)

// A test in prose is TestName, or package.TestName.
var (
	testName = regexp.MustCompile(`\b(?:([a-z]+)\.)?((?:Test|Fuzz|Benchmark)[A-Z]\w*)\b`)
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(\w+ \*testing\.`)
)

// TestDocsNameTests holds that every test exists that pages and package docs name for what they promise.
func TestDocsNameTests(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{}       // Name and directory.Name
	prose := map[string]string{}     // pages, and comments of Go files
	directory := map[string]string{} // of a file of prose
	comment := regexp.MustCompile(`(?m)^\s*//.*$`)
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if name := d.Name(); name != "." && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "testdata" || name == "dist") {
				return fs.SkipDir
			}
			return nil
		}
		isGo, isTest := strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go")
		if !isGo && !strings.HasSuffix(path, ".md") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir := filepath.Base(filepath.Dir(path))
		switch {
		case isTest:
			for _, m := range testFunc.FindAllSubmatch(b, -1) {
				tests[string(m[1])], tests[dir+"."+string(m[1])] = true, true
			}
		case isGo:
			prose[path] = string(bytes.Join(comment.FindAll(b, -1), []byte("\n")))
			directory[path] = dir
		default:
			prose[path] = string(b)
		}
		return nil
	}))
	named := 0
	for path, text := range prose {
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			name := m[2]
			if m[1] != "" {
				name = m[1] + "." + name
			}
			own := directory[path] != "" && tests[directory[path]+"."+m[2]]
			if !own && !tests[name] {
				t.Errorf("%s names %s, which is no test", path, name)
			}
			named++
		}
	}
	require.Greater(t, named, 100)
}

// TestChecklist holds that each line of the table in docs/security.md has a test, or says that it is not met, or that there
// is nothing to test.
func TestChecklist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/security.md")
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(page), "| | asks for | here | test |\n")
	require.True(t, ok)
	lines := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 {
			break
		}
		if lines++; lines == 1 {
			continue // the rule below the head
		}
		here, test := cells[3], cells[4]
		if strings.Contains(here, "**not met**") || strings.Contains(here, "there are no") {
			continue
		}
		require.Regexp(t, "`[a-z]+\\.(Test|Fuzz)", test, line)
	}
	require.Greater(t, lines, 40)
}

// TestEventsPage holds that the table of security events in docs/security.md is that of the code.
func TestEventsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/security.md")
	require.NoError(t, err)
	events := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (info|warning|critical) \\|").FindAllStringSubmatch(string(page), -1) {
		events[m[1]] = m[2]
	}
	require.Equal(t, auth.Severities, events)
}

// TestReadmeExample holds that the schema file in the README is formatted, and compiles among ours.
func TestReadmeExample(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(page), "```go\n")
	require.True(t, ok)
	example, _, ok := strings.Cut(rest, "```\n")
	require.True(t, ok)
	formatted, err := format.Source([]byte(example))
	require.NoError(t, err)
	require.Equal(t, string(formatted), example)

	file := filepath.Join(t.TempDir(), "task.go")
	source := `package schema
import (
	"entgo.io/ent"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"
	"godstack/internal/entity"
)
` + example
	require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
	target, err := filepath.Abs("ent/schema/task.go")
	require.NoError(t, err)
	require.NoFileExists(t, target)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{target: file}})
	require.NoError(t, err)
	overlayFile := filepath.Join(t.TempDir(), "overlay.json")
	require.NoError(t, os.WriteFile(overlayFile, overlay, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlayFile, "./ent/schema").CombinedOutput()
	require.NoError(t, err, string(out))
}
