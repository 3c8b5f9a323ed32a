package codegen

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// schemaSource is a schema file with the fields of name in line 21, and the edges in line 26.
func schemaSource(name, fields, edges string) string { return ruledSource(name, "", fields, edges) }

// ruledSource is a schema file with annotations of name as well, in line 17.
func ruledSource(name, annotations, fields, edges string) string {
	return fmt.Sprintf(`package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
	"github.com/google/uuid"

	"godstack/internal/entity"
)

type %[1]s struct{ ent.Schema }

func (%[1]s) Mixin() []ent.Mixin { return []ent.Mixin{entity.Mixin{}} }

func (%[1]s) Annotations() []schema.Annotation { return []schema.Annotation{ %[2]s } }

func (%[1]s) Fields() []ent.Field {
	return []ent.Field{
		%[3]s
	}
}

func (%[1]s) Edges() []ent.Edge {
	return []ent.Edge{ %[4]s }
}

var _ = []any{schema.Comment, edge.To, field.Int, uuid.New}
`, name, annotations, fields, edges)
}

// TestErrors holds the errors that a schema gets: each names the file, the line and what is wrong, and all that our
// checks find come at once.
func TestErrors(t *testing.T) {
	t.Parallel()
	generator := buildGenerator(t)
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		m := copyModule(t, "internal/entity")
		var want []string
		for i, c := range []struct{ name, fields, edges, want string }{
			// Entities.
			{"PageInfo", "", "", "13: PageInfo is a reserved name: the GraphQL schema has a type of this name"},
			{"Version", "", "", "13: Version is a reserved name: generated code has something of this name"},
			{"Context", "", "", "13: Context is a reserved name: generated code has something of this name"},
			{"StatusUpdate", "", "", "13: StatusUpdate is a reserved name: types that end in Update are made for entities"},
			{"Change", "", "", "13: Change is a reserved name: its table changes would be one of the machinery's"},
			{"Bad_Name", "", "", `13: "Bad_Name" is no name for an entity: use two or more letters and digits, a capital first, as in OrderItem`},
			{"Store", "", "", "13: Store and every schema both need the root field stores"},
			{"Record", "", "", "13: Record is a reserved name: the GraphQL schema has a type of this name"},
			{"Records", "", "", "13: Records and every schema both need the root field records"},
			{"OnConflict", "", "", "13: OnConflict is a reserved name: the GraphQL schema has a type of this name"},
			{"Cursor", "", "", "13: Cursor is a reserved name: the GraphQL schema has a type of this name"},
			{"RecordsChanged", "", "", "13: RecordsChanged and every schema both need the root field recordsChanged"},
			{"Mouse", "", "", ""},
			{"Mouses", "", "", "13: Mouses and Mouse both need the table mouses"},
			{"APIKey", "", "", ""},
			{"ApiKey", "", "", "13: ApiKey and APIKey both need the package apikey"},
			{"Purchase", "", "", ""},
			{"PurchaseOrder", "", "", "13: PurchaseOrder and Purchase both need the GraphQL type PurchaseOrder"},
			{"TaskState", "", "", "13: TaskState and field state of Task both need the GraphQL type TaskState"},
			{"TaskQuery", "", "", "13: TaskQuery and Task both need the Go type TaskQuery"},
			{"TeamMember", "", "", "13: TeamMember and edge members of Team both need the table team_members"},
			{"User", "", `edge.From("teams", Team.Type).Ref("members")`, ""},
			{"Team", "", `edge.To("members", User.Type)`, ""},

			// Fields.
			{"Bytes", `field.Bytes("data"),`, "", "21: field data of Bytes: has the unsupported type []byte: use one of string, text, int, float, bool, " +
				"time, enum, []string, []int, []float64, map[string]any, or annotate it with entity.Hidden()"},
			{"BigNumber", `field.Int64("n"),`, "", "21: field n of BigNumber: has the unsupported type int64"},
			{"Typed", `field.String("d").GoType(entity.Operation("")),`, "", "21: field d of Typed: has the Go type entity.Operation"},
			{"Structured", `field.JSON("j", struct{ A int }{}),`, "", "21: field j of Structured: has the unsupported type struct"},
			{"Guide", `field.UUID("other", uuid.UUID{}),`, "", "21: field other of Guide: has the unsupported type uuid.UUID"},
			{"Half", `field.String("a").Optional(),`, "", "21: field a of Half: is Optional and not Nillable: add Nillable(), so that null and the empty value differ"},
			{"Camel", `field.String("dueAt"),`, "", "21: field dueAt of Camel: is no name for a column: use lower-case letters and digits, with _ between words, as in due_at"},
			{"Keyed", `field.String("a").StorageKey("b"),`, "", "21: field a of Keyed: has the storage key b: a field and its column have one name"},
			{"Doubled", `field.String("id"),`, "", "21: field id of Doubled: is there already, from entity.Mixin{}"},
			{"Logic", `field.Bool("not"),`, "", "21: field not of Logic: not and every entity both need the condition not"},
			{"Filtered", `field.Int("n"), field.Int("n_in"),`, "", "21: field n_in of Filtered: n_in and n both need the condition nIn"},
			{"Methods", `field.String("update"),`, "", "21: field update of Methods: update and every entity both need the Go name Update"},
			{"Setters", `field.String("a"), field.String("set_a"),`, "", "21: field set_a of Setters: set_a and a both need the Go method SetA"},
			{"Secretive", `field.String("a").Sensitive(),`, "", "21: field a of Secretive: is required and in no input, so that no record could be created"},
			{"Shy", `field.Int("a").Annotations(entity.ReadOnly()),`, "", "21: field a of Shy: is required and in no input"},
			{"Spaced", `field.Enum("a").Values("in progress"),`, "", `21: field a of Spaced: has the value "in progress", which is no GraphQL name`},
			{"Truth", `field.Enum("a").Values("true", "maybe"),`, "", `21: field a of Truth: has the value "true", which is no GraphQL name`},
			{"Task", `field.Enum("state").Values("a"),`, "", ""},

			// Edges.
			{"Parent", "", `edge.To("kids", User.Type)`, "26: edge kids of Parent: has no inverse: add edge.From(..., Parent.Type).Ref(\"kids\").Unique().Field(...) to User, " +
				"or the same without Unique and Field if it is many to many"},
			{"Fieldless", "", `edge.To("user", User.Type).Unique()`, "26: edge user of Fieldless: needs a field: add field.UUID(\"user_id\", uuid.UUID{}) and " +
				`.Field("user_id"), so that the record carries the id`},
			{"Spouse", "", `edge.To("spouse", Spouse.Type).Unique()`, "26: edge spouse of Spouse: is one to one with itself: name both sides"},
			{"Writer", "", `edge.To("user", User.Type).Annotations(entity.Viewer()), edge.From("x", Reader.Type).Ref("writers")`,
				"26: edge user of Writer: has no inverse"},
			{"Reader", `field.UUID("team_id", uuid.UUID{}),`, `edge.To("writers", Writer.Type).Annotations(entity.Viewer()), ` +
				`edge.To("team", Team.Type).Unique().Required().Field("team_id").Annotations(entity.Viewer())`,
				"26: edge writers of Reader: is annotated with entity.Viewer() and is not a to-one edge to User\n" +
					"26: edge team of Reader: is annotated with entity.Viewer() and is not a to-one edge to User"},
			{"Card", `field.UUID("holder_id", uuid.UUID{}),`, `edge.From("holder", Holder.Type).Ref("card").Unique().Required().Field("holder_id")`, ""},
			{"Holder", "", `edge.To("card", Card.Type).Unique()`, "26: edge card of Holder: is one to one, seen from the side without the foreign key: annotate it with entity.Hidden()"},
			{"Closed", `field.UUID("user_id", uuid.UUID{}),`, `edge.To("user", User.Type).Unique().Required().Field("user_id").Annotations(entity.ReadOnly())`,
				"26: edge user of Closed: is required and in no input"},
			{"Has", `field.Bool("has_user"), field.UUID("user_id", uuid.UUID{}),`, `edge.To("user", User.Type).Unique().Required().Field("user_id")`,
				"26: edge user of Has: user and has_user both need the Go function HasUser"},
		} {
			file := fmt.Sprintf("ent/schema/s%02d.go", i)
			m.write(file, []byte(schemaSource(c.name, c.fields, c.edges)))
			for line := range strings.Lines(c.want) {
				want = append(want, file+":"+strings.TrimSpace(line))
			}
		}
		m.write("ent/schema/bare.go", []byte("package schema\n\nimport \"entgo.io/ent\"\n\ntype Bare struct{ ent.Schema }\n"))
		want = append(want, "ent/schema/bare.go:5: Bare has no entity.Mixin{}: every table has an id, a version and timestamps")
		m.refuses(generator, want)
	})

	t.Run("rules", func(t *testing.T) {
		t.Parallel()
		const owner, ownerID = `edge.To("owner", User.Type).Unique().Field("owner_id")`, `field.UUID("owner_id", uuid.UUID{}).Optional().Nillable(),`
		m := copyModule(t, "internal/entity")
		var want []string
		for i, c := range []struct{ name, annotations, fields, edges, want string }{
			{"User", "", "", `edge.From("teams", Team.Type).Ref("members"), edge.From("many", Many.Type).Ref("members"), edge.From("ups", Up.Type).Ref("members")`, ""},
			{"Team", "", "", `edge.To("members", User.Type), edge.From("games", Game.Type).Ref("team")`, ""},
			{"Game", "", `field.UUID("team_id", uuid.UUID{}),`, `edge.To("team", Team.Type).Unique().Required().Field("team_id")`, ""},
			{"Secret", "entity.Internal(), entity.Access{}", "", "", "17: Secret has entity.Access and is internal: the API shows it to nobody"},

			// Words, each in the line of its rule.
			{"Lost", "entity.Access{\nRead: entity.SignedIn(),\nUpdate: entity.Any(\nentity.Is(`ownr`)),\nDelete: entity.Has(`x`)}", ownerID, owner,
				"19: update rule of Lost: Is(\"ownr\"): there is no such edge; Lost has owner\n" +
					"21: delete rule of Lost: Has(\"x\"): there is no such edge; Lost has owner"},
			{"Lone", "entity.Access{Create: entity.Through(`x`)}", "", "", `17: create rule of Lone: Through("x"): Lone has no edges`},
			{"Many", "entity.Access{Read: entity.Is(`members`)}", "", `edge.To("members", User.Type), edge.From("crowds", Crowd.Type).Ref("others")`,
				`17: read rule of Many: Is("members"): is not a to-one edge to User with a field of its own`},
			{"Other", "entity.Access{Read: entity.Is(`team`)}", `field.UUID("team_id", uuid.UUID{}),`, `edge.To("team", Team.Type).Unique().Required().Field("team_id")`,
				`17: read rule of Other: Is("team"): is not a to-one edge to User with a field of its own`},
			{"One", "entity.Access{Read: entity.Has(`owner`)}", ownerID, owner, `17: read rule of One: Has("owner"): is not a to-many edge to User`},
			{"Crowd", "entity.Access{Read: entity.Has(`others`)}", "", `edge.To("others", Many.Type)`, `17: read rule of Crowd: Has("others"): is not a to-many edge to User`},
			{"Up", "entity.Access{Read: entity.Through(`members`)}", "", `edge.To("members", User.Type)`,
				`17: read rule of Up: Through("members"): is not a to-one edge with a field of its own`},
			{"Inward", "entity.Access{Read: entity.Through(`secret`)}", `field.UUID("secret_id", uuid.UUID{}).Optional().Nillable(),`,
				`edge.To("secret", Secret.Type).Unique().Field("secret_id")`, `17: read rule of Inward: Through("secret"): leads to Secret, which is internal`},
			{"Sideways", "entity.Access{Read: entity.Through(`owner`, `watch`)}", ownerID, owner,
				`17: read rule of Sideways: Through("owner"): there is no operation "watch": use entity.Create, entity.Update or entity.Delete, or none to read`},
			{"Me", "entity.Access{Read: entity.Self()}", "", "", "17: read rule of Me: Self(): is for User alone: a record of Me is nobody; use Is with an edge to User"},
			{"Ruled", "entity.Access{Read: entity.All(entity.Role(`root`), entity.Any(), entity.All(), entity.Custom(``), entity.Any(entity.Rule{}))}", "", "",
				"17: read rule of Ruled: Role(\"root\"): there is no such role: use one of user, moderator, admin\n" +
					"17: read rule of Ruled: Any(): has no rule in it\n" +
					"17: read rule of Ruled: All(): has no rule in it\n" +
					"17: read rule of Ruled: Custom(\"\"): has no name, under which the program could supply it\n" +
					"17: read rule of Ruled: there is no rule \"\""},

			// Circles.
			{"Chicken", "entity.Access{Read: entity.Through(`egg`, entity.Delete)}", `field.UUID("egg_id", uuid.UUID{}).Optional().Nillable(),`,
				`edge.To("egg", Egg.Type).Unique().Field("egg_id")`, "17: rules go in a circle: Chicken.read -> Egg.delete -> Egg.read -> Chicken.read"},
			{"Egg", "entity.Access{Read: entity.Any(entity.Is(`owner`), entity.Through(`hen`)), Delete: entity.Is(`owner`)}", ownerID + `field.UUID("hen_id", uuid.UUID{}).Optional().Nillable(),`,
				owner + `, edge.To("hen", Chicken.Type).Unique().Field("hen_id")`, ""},
			{"Folder", "entity.Access{Read: entity.Through(`parent`)}", `field.UUID("parent_id", uuid.UUID{}).Optional().Nillable(),`,
				`edge.To("children", Folder.Type).From("parent").Unique().Field("parent_id")`, "17: rules go in a circle: Folder.read -> Folder.read"},

			// Fields.
			{"Wide", "entity.ReadableBy(entity.SignedIn())", "", "", "13: Wide has entity.ReadableBy, which is for fields: use entity.Access"},
			{"Linked", "", `field.UUID("owner_id", uuid.UUID{}).Optional().Nillable().Annotations(entity.ReadableBy(entity.SignedIn())),`,
				owner + `.Annotations(entity.ReadableBy(entity.SignedIn()))`,
				"21: field owner_id of Linked: has entity.ReadableBy and is the field of an edge: the rules of the other entity say who reads that\n" +
					"26: edge owner of Linked: has entity.ReadableBy, which is for fields: the rules of User say who reads what it leads to"},
			{"Deep", "", `field.Int("a").Annotations(entity.ReadableBy(entity.All(entity.SignedIn(), entity.Has("members")))),` + "\n" +
				`field.Int("b").Annotations(entity.ReadableBy(entity.Through("owner"))),` + "\n" +
				`field.Int("c").Annotations(entity.ReadableBy(entity.Custom("mine"))),` + "\n" +
				`field.Int("d").Annotations(entity.ReadableBy(entity.Is("members"))),` + "\n" +
				`field.Int("e").Annotations(entity.ReadableBy(entity.Rule{})),` + "\n" +
				`field.Int("f").Default(1).Annotations(entity.Hidden(), entity.ReadableBy(entity.SignedIn())),` + "\n" +
				`field.Int("g").Annotations(entity.Access{}),`, `edge.To("members", User.Type).Annotations(entity.Access{})`,
				"21: field a of Deep: readable by Has(\"members\"): a row alone decides it: use Anyone, SignedIn, Role, Self, Is, Any and All\n" +
					"22: field b of Deep: readable by Through(\"owner\"): a row alone decides it\n" +
					"23: field c of Deep: readable by Custom(\"mine\"): a row alone decides it\n" +
					"24: field d of Deep: readable by Is(\"members\"): is not a to-one edge to User with a field of its own\n" +
					"25: field e of Deep: readable by there is no rule\n" +
					"26: field f of Deep: has entity.ReadableBy and is not in the API: leave it out\n" +
					"27: field g of Deep: has entity.Access, which is for entities: a field takes entity.ReadableBy\n" +
					"32: edge members of Deep: has entity.Access, which is for entities"},
		} {
			file := fmt.Sprintf("ent/schema/s%02d.go", i)
			m.write(file, []byte(ruledSource(c.name, c.annotations, c.fields, c.edges)))
			for line := range strings.Lines(c.want) {
				want = append(want, file+":"+strings.TrimSpace(line))
			}
		}
		m.write("ent/schema/mixed.go", []byte("package schema\n\nimport (\n\t\"entgo.io/ent\"\n\t\"entgo.io/ent/schema/mixin\"\n\n\t\"godstack/internal/entity\"\n)\n\n"+
			"type Mixed struct{ ent.Schema }\n\nfunc (Mixed) Mixin() []ent.Mixin {\n"+
			"\treturn []ent.Mixin{mixin.AnnotateFields(entity.Mixin{}, entity.ReadableBy(entity.SignedIn()))}\n}\n"))
		for i, c := range []struct{ name, mixin, annotations, want string }{
			{"Hushed", "entity.SoftDelete{}", "entity.Internal()", "13: Hushed has entity.SoftDelete{} and is internal: nothing would hide what is deleted"},
			{"Fixed", "entity.SoftDelete{}", "entity.ReadOnly()", "13: Fixed has entity.SoftDelete{} and no mutation that deletes: add entity.Delete to its operations"},
			{"Kept", "entity.SoftDelete{}", "entity.Operations(entity.Create)", "13: Kept has entity.SoftDelete{} and no mutation that deletes"},
			{"Unruly", "entity.SoftDelete{Restore: entity.Any(entity.Role(`root`), entity.Is(`owner`))}", "",
				"13: who restores a Unruly: Role(\"root\"): there is no such role: use one of user, moderator, admin\n" +
					"13: who restores a Unruly: Is(\"owner\"): Unruly has no edges"},
		} {
			file := fmt.Sprintf("ent/schema/d%02d.go", i)
			m.write(file, []byte(strings.Replace(ruledSource(c.name, c.annotations, "", ""), "entity.Mixin{}}", "entity.Mixin{}, "+c.mixin+"}", 1)))
			for line := range strings.Lines(c.want) {
				want = append(want, file+":"+strings.TrimSpace(line))
			}
		}
		for _, field := range []string{"id", "version", "created_at", "updated_at"} {
			want = append(want, "ent/schema/mixed.go:10: field "+field+" of Mixed: has entity.ReadableBy: whoever reads a record reads this as well")
		}
		m.refuses(generator, want)
	})

	// What ent finds ends generation at once.
	for _, c := range []struct{ name, source, want string }{
		{"syntax", "package schema\n\ntype Task struct{ ent.Schema\n", "ent/schema/task.go:4:1: syntax error"},
		{"unknown entity", schemaSource("Task", "", `edge.To("owner", Nobody.Type)`), "ent/schema/task.go:26:38: undefined: Nobody"},
		{"unknown function", schemaSource("Task", `field.Money("a"),`, ""), "ent/schema/task.go:21:9: undefined: field.Money"},
		{"no schema", schemaSource("Task", "", `edge.To("owner", base.Type)`) + "\ntype base struct{ ent.Schema }\n", `ent/schema/task.go:31: entc/gen: type "base" does not exist for edge`},
		{"no ref", schemaSource("Task", "", `edge.From("owner", Task.Type).Ref("tasks")`), `ent/schema/task.go:26: entc/gen: resolve "Task" relations: edge "tasks" is missing for inverse edge: Task.owner`},
		{"redeclared", schemaSource("Task", `field.Int("version"),`, ""), `ent/schema/task.go:21: entc/gen: create type Task: field "version" redeclared for type "Task"`},
		{"keyword", schemaSource("Type", "", ""), `ent/schema/task.go:13: entc/gen: create type Type: schema lowercase name conflicts with Go keyword "type"`},
		{"wrong field", schemaSource("Task", `field.Int("owner_id").Optional(),`, `edge.To("owner", Task.Type).Unique().Field("owner_id")`), `ent/schema/task.go:`},
		{"panic", schemaSource("Task", `field.Strings("a").Default(nil), func() ent.Field { panic("oh") }(),`, ""), `ent/schema/task.go:13: `},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := copyModule(t, "internal/entity")
			m.write("ent/schema/task.go", []byte(c.source))
			out, err := m.try(generator)
			require.Error(t, err)
			require.True(t, strings.HasPrefix(out, c.want), out)
		})
	}
}

// refuses runs the generator, which must say these things in any order, each at least as far as it is given here.
func (m module) refuses(generator string, want []string) {
	m.t.Helper()
	out, err := m.try(generator)
	require.Error(m.t, err)
	var rest []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		i := slices.IndexFunc(want, func(w string) bool { return strings.HasPrefix(line, w) })
		if i < 0 {
			rest = append(rest, line)
			continue
		}
		want = slices.Delete(want, i, i+1)
	}
	require.Empty(m.t, want, "not said: %s", rest)
	require.Empty(m.t, rest, "not expected")
}
