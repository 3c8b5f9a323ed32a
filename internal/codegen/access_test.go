package codegen

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"entgo.io/ent/entc/gen"
	"entgo.io/ent/entc/load"
	"github.com/stretchr/testify/require"

	"godstack/internal/entity"
	"godstack/internal/viewer"
)

func TestRuleExpr(t *testing.T) {
	t.Parallel()
	g, err := gen.NewGraph(&gen.Config{Package: "ent"},
		&load.Schema{Name: "User"},
		&load.Schema{Name: "Task", Edges: []*load.Edge{{Name: "lead_author", Type: "User", Unique: true}, {Name: "members", Type: "User"}}})
	require.NoError(t, err)
	task := g.Nodes[1]
	for _, c := range []struct {
		rule entity.Rule
		want string
	}{
		{entity.Anyone(), `entity.Anyone()`},
		{entity.SignedIn(), `entity.SignedIn()`},
		{entity.Role("moderator"), `entity.Role("moderator")`},
		{entity.Self(), `entity.Self()`},
		{entity.Is("lead_author"), `entity.Is("leadAuthor")`},
		{entity.Is("leadAuthor"), `entity.Is("leadAuthor")`},
		{entity.Has("members"), `entity.Has("members")`},
		{entity.Through("lead_author"), `entity.Through("leadAuthor")`},
		{entity.Through("lead_author", entity.Delete), `entity.Through("leadAuthor", entity.Delete)`},
		{entity.Custom(`in "hours"`), `entity.Custom("in \"hours\"")`},
		{
			entity.Any(entity.Self(), entity.All(entity.Role("user"), entity.Any(entity.Has("members")))),
			`entity.Any(entity.Self(), entity.All(entity.Role("user"), entity.Any(entity.Has("members"))))`,
		},
	} {
		require.Equal(t, c.want, ruleExpr(task, c.rule))

		// What ent's loader hands on is the rule that the file has.
		b, err := json.Marshal(map[string]any{entity.Access{}.Name(): entity.Access{Update: c.rule}})
		require.NoError(t, err)
		var loaded map[string]any
		require.NoError(t, json.Unmarshal(b, &loaded))
		a, ok, err := entity.DecodeAccess(loaded)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, entity.Access{Update: c.rule}, a)
	}
}

// The roles that rules may name are those that viewers have.
func TestRoles(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{viewer.User, viewer.Moderator, viewer.Admin}, roles)
}

// The worked example of docs/access.md is a case of the corpus, so it generates and compiles.
func TestAccessPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "docs/access.md"))
	require.NoError(t, err)
	for name, want := range map[string]string{"project": "Annotations|Fields|Edges", "task": "Annotations"} {
		source, err := os.ReadFile("testdata/project/schema/" + name + ".go")
		require.NoError(t, err)
		methods := regexp.MustCompile(`(?ms)^// (`+want+`) of .*?^}`).FindAllString(string(source), -1)
		require.Len(t, methods, strings.Count(want, "|")+1)
		for _, m := range methods {
			require.Contains(t, string(page), m)
		}
	}
}
