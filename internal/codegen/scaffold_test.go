package codegen

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// schemaFolder is a folder with the entity User.
func schemaFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "user.go"), []byte("package schema\n\nimport \"entgo.io/ent\"\n\n"+
		"type User struct{ ent.Schema }\n\ntype helper struct{ ent.Schema }\n\ntype Other struct{}\n"), 0o644))
	return dir
}

func TestScaffold(t *testing.T) {
	t.Parallel()
	dir := schemaFolder(t)
	got := map[string]string{}
	for _, c := range []struct{ name, fields, file string }{
		{"Empty", "", "empty.go"},
		{"Task", "title:string done:bool owner:User", "task.go"},
		{"OrderItem", "code:string? note:text about:text? count:int rank:int? price:float rebate:float? paid:bool? due_at:time\n" +
			"sent_at:time? state:enum(open, done) kind:enum(a,b)? tags:string[] marks:string[]?", "order_item.go"},
		{"Page", "owner:User? parent:Page? draft:Page? task:Task", "page.go"},
	} {
		file, err := newEntity(dir, "godstack", c.name, c.fields)
		require.NoError(t, err)
		require.Equal(t, filepath.Join(dir, c.file), file)
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		got[c.file] = string(b)
	}
	compare(t, "testdata/scaffold", got)
}

func TestScaffoldRefuses(t *testing.T) {
	t.Parallel()
	dir := schemaFolder(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "note.go"), []byte("package schema\n"), 0o644))
	before, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, c := range []struct{ name, fields, want string }{
		{"User", "", "there is an entity User already"},
		{"Note", "", filepath.Join(dir, "note.go") + " is there already"},
		{"", "", `"" is no name for an entity: use two or more letters and digits, a capital first, as in OrderItem`},
		{"task", "", `"task" is no name for an entity`},
		{"Order-Item", "", `"Order-Item" is no name for an entity`},
		{"Query", "", "Query is a reserved name: the GraphQL schema has a type of this name"},
		{"Client", "", `Client is a reserved name: entc/gen: create type Client: schema name conflicts with ent predeclared identifier "Client"`},
		{"Type", "", "Type is a reserved name: "},
		{"Field", "", "Field is a reserved name: generated code has something of this name"},
		{"Users", "", "Users and User both need the table users"},
		{"USER", "", "USER and User both need the package user"},
		{"Task", "title", `field title: unknown type ""; known are string, text, int, float, bool, time, enum(a,b), string[], or the name of an entity`},
		{"Task", "title:strin", `field title: unknown type "strin"; known are string`},
		{"Task", "owner:Person?", "field owner: there is no entity Person; there are User, Task"},
		{"Task", "owner:Other", "field owner: there is no entity Other"},
		{"Task", "Title:string", `"Title:string" is no field: write name:type`},
		{"Task", ":string", `":string" is no field`},
		{"Task", "a:int a:bool", "field a: is there twice"},
		{"Task", "owner:User owner_id:int", "field owner_id: is there twice"},
		{"Task", "owner_id:int owner:User", "field owner_id: is there twice, as edge owner needs it"},
		{"Task", "version:int", "field version: every entity has it from entity.Mixin{}"},
		{"Task", "id:string", "field id: every entity has it from entity.Mixin{}"},
		{"Task", "state:enum()", `field state: has the value ""`},
		{"Task", "state:enum(a,true)", `field state: has the value "true"`},
		{"Task", "state:enum(a,a)", `field state: has the value "a" twice`},
		{"Task", "parent:Task", "field parent: must be optional, as Task?: the first Task has none to lead to"},
	} {
		_, err := newEntity(dir, "godstack", c.name, c.fields)
		require.ErrorContains(t, err, c.want, "%s %s", c.name, c.fields)
	}
	after, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, after, len(before))
}

func TestNewMigration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	file, err := newMigration(dir, "add_search", now)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "20260102020405_add_search.sql"), file)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Regexp(t, `^-- \+goose Up\n\n-- Write statements here`, string(b))

	file, err = newMigration(dir, "second", now)
	require.NoError(t, err)
	require.Equal(t, "20260102020406_second.sql", filepath.Base(file), "after what is there, also within a second")
	file, err = newMigration(dir, "third", now.AddDate(-1, 0, 0))
	require.NoError(t, err)
	require.Equal(t, "20260102020407_third.sql", filepath.Base(file), "and if a clock was wrong")

	for _, name := range []string{"", "Add", "a b", "../x", "a-b"} {
		_, err := newMigration(dir, name, now)
		require.ErrorContains(t, err, "is no name for a migration")
	}
}

func TestListName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Thread": "threads", "OrderItem": "orderItems", "APIKey": "apiKeys", "URL": "urls", "Person": "people", "SalesPerson": "salesPeople",
		"Category": "categories", "Status": "statuses", "Address": "addresses", "Bus": "buses", "News": "newsList", "Data": "dataList",
		"Series": "seriesList", "Sheep": "sheepList", "Equipment": "equipmentList",
	} {
		require.Equal(t, want, listName(name), name)
		require.NotEqual(t, camel(snake(name)), listName(name))
	}
}
