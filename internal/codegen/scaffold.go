package codegen

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	_ "embed"

	"entgo.io/ent/entc/gen"
	"entgo.io/ent/entc/load"

	"godstack/internal/entity"
)

// FieldTypes says which types a field of a new entity may have.
const FieldTypes = "string, text, int, float, bool, time, enum(a,b), string[], or the name of an entity; a ? after it for an optional one"

//go:embed templates/entity.gotpl
var entityTemplate string

// NewEntity writes the schema file of a new entity of the module and returns its path. fields are separated by
// spaces, each written name:type with a type of [FieldTypes]. The working directory is the module's root.
func NewEntity(module, name, fields string) (file string, err error) {
	return newEntity(schemaDir, module, name, fields)
}

// NewMigration writes a migration without statements and returns its path. The working directory is the module's
// root.
func NewMigration(name string) (file string, err error) {
	return newMigration(migrationsDir, name, time.Now())
}

func newMigration(dir, name string, now time.Time) (string, error) {
	if !columnName.MatchString(name) {
		return "", fmt.Errorf("%q is no name for a migration: use lower-case letters and digits, with _ between words, as in add_search", name)
	}
	version, err := nextVersion(dir, now)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, version+"_"+name+".sql")
	return file, writeNew(file, []byte("-- +goose Up\n\n"+
		"-- Write statements here. A function stands between \"-- +goose StatementBegin\" and \"-- +goose StatementEnd\".\n"))
}

// nextVersion returns the number of a migration made now: the time, or more where there is a later one, since
// migrations are applied in the order of their numbers.
func nextVersion(dir string, now time.Time) (string, error) {
	version, err := strconv.ParseInt(now.UTC().Format("20060102150405"), 10, 64)
	if err != nil {
		return "", err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.sql"))
	if err != nil {
		return "", err
	}
	for _, name := range names {
		number, _, _ := strings.Cut(filepath.Base(name), "_")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			version = max(version, n+1)
		}
	}
	return strconv.FormatInt(version, 10), nil
}

// scaffold is a new entity, as its template needs it.
type scaffold struct {
	Module, Name, Phrase string
	Fields, Edges        []string // Go expressions
	Indexes              []string // foreign keys
}

func newEntity(dir, module, name, fields string) (string, error) {
	entities, err := schemaEntities(dir)
	if err != nil {
		return "", err
	}
	if err := checkNew(name, entities); err != nil {
		return "", err
	}
	s := scaffold{Module: module, Name: name, Phrase: phrase(name)}
	taken := map[string]bool{"id": true, "version": true, "created_at": true, "updated_at": true}
	for _, word := range fieldWords(fields) {
		field, typ, _ := strings.Cut(word, ":")
		switch {
		case !columnName.MatchString(field):
			return "", fmt.Errorf("%q is no field: write name:type, the name in lower-case letters and digits with _ between words, as in due_at:time", word)
		case slices.Contains([]string{"id", "version", "created_at", "updated_at"}, field):
			return "", fmt.Errorf("field %s: every entity has it from entity.Mixin{}", field)
		case taken[field]:
			return "", fmt.Errorf("field %s: is there twice", field)
		}
		taken[field] = true
		base, optional := strings.CutSuffix(typ, "?")
		expr, err := plainField(field, base, optional)
		if err != nil {
			return "", fmt.Errorf("field %s: %w", field, err)
		}
		if expr != "" {
			s.Fields = append(s.Fields, expr)
			continue
		}
		if base == name && !optional {
			return "", fmt.Errorf("field %s: must be optional, as %s?: the first %s has none to lead to", field, typ, name)
		}
		if base != name && !slices.Contains(entities, base) {
			if entityName.MatchString(base) {
				return "", fmt.Errorf("field %s: there is no entity %s; there are %s", field, base, strings.Join(append(entities, name), ", "))
			}
			return "", fmt.Errorf("field %s: unknown type %q; known are %s", field, typ, FieldTypes)
		}
		if taken[field+"_id"] {
			return "", fmt.Errorf("field %s_id: is there twice, as edge %[1]s needs it", field)
		}
		taken[field+"_id"] = true
		s.edge(field, base, optional)
	}
	t, err := template.New("entity").Parse(entityTemplate)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, s); err != nil {
		return "", err
	}
	src, err := format.Source(b.Bytes())
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, snake(name)+".go")
	return file, writeNew(file, src)
}

// plainField returns the expression of a field, "" if its type is none that a column has.
func plainField(name, typ string, optional bool) (expr string, err error) {
	null := ".Optional().Nillable()"
	required := func(s string) string {
		if optional {
			return ""
		}
		return s
	}
	switch typ {
	case "string":
		expr = fmt.Sprintf("field.String(%q)%s.MaxLen(200)", name, required(".NotEmpty()"))
	case "text":
		expr = fmt.Sprintf("field.Text(%q)%s.MaxLen(10_000)", name, required(".NotEmpty()"))
	case "int", "float", "time":
		expr = fmt.Sprintf("field.%s(%q)", pascal(typ), name)
	case "bool":
		expr = fmt.Sprintf("field.Bool(%q)%s", name, required(".Default(false)"))
	case "string[]":
		expr, null = fmt.Sprintf("field.Strings(%q)%s", name, required(".Default([]string{})")), ".Optional()"
	default:
		m := enumType.FindStringSubmatch(typ)
		if m == nil {
			return "", nil
		}
		values := strings.Split(m[1], ",")
		for i, v := range values {
			v = strings.TrimSpace(v)
			if err := checkEnum(v); err != nil {
				return "", err
			}
			if values[i] = strconv.Quote(v); slices.Contains(values[:i], values[i]) {
				return "", fmt.Errorf("has the value %q twice", v)
			}
		}
		expr = fmt.Sprintf("field.Enum(%q).Values(%s)%s", name, strings.Join(values, ", "), required(".Default("+values[0]+")"))
	}
	if optional {
		expr += null
	}
	return expr, nil
}

var enumType = regexp.MustCompile(`^enum\((.*)\)$`)

// edge adds a to-one edge. Only an edge to the entity itself needs the other side: ent takes one without it for one
// to one.
func (s *scaffold) edge(name, to string, optional bool) {
	column, null, required := name+"_id", "", ".Required()"
	if optional {
		null, required = ".Optional().Nillable()", ""
	}
	s.Fields = append(s.Fields, fmt.Sprintf("field.UUID(%q, uuid.UUID{})%s", column, null))
	s.Indexes = append(s.Indexes, column)
	if to != s.Name {
		s.Edges = append(s.Edges, fmt.Sprintf("edge.To(%q, %s.Type).Field(%q).Unique()%s", name, to, column, required))
		return
	}
	back := name + "_of"
	if name == "parent" {
		back = "children"
	}
	s.Edges = append(s.Edges, fmt.Sprintf("edge.To(%q, %s.Type).Annotations(entity.ReadOnly()).\nFrom(%q).Field(%q).Unique()%s", back, to,
		name, column, required))
}

// checkNew returns what is wrong with the name of an entity beside those that there are.
func checkNew(name string, entities []string) error {
	if err := checkName(&gen.Type{Name: name}); err != nil {
		return err
	}
	if slices.Contains(entities, name) {
		return fmt.Errorf("there is an entity %s already", name)
	}
	var schemas []*load.Schema
	for _, e := range append(slices.Clip(entities), name) {
		schemas = append(schemas, &load.Schema{Name: e})
	}
	g, err := gen.NewGraph(&gen.Config{Package: "ent"}, schemas...)
	if err != nil {
		return fmt.Errorf("%s is a reserved name: %w", name, err)
	}
	c := newClaims()
	for _, n := range g.Nodes {
		err = cmp.Or(checkName(n), c.entity(n, entity.Annotation{})) // of the last, which is the new one
	}
	return err
}

// schemaEntities lists the entities of the schema files in dir.
func schemaEntities(dir string) (names []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok && spec.Name.IsExported() {
				for _, f := range s.Fields.List {
					if sel, ok := f.Type.(*ast.SelectorExpr); ok && f.Names == nil && isIdent(sel.X, "ent") && sel.Sel.Name == "Schema" {
						names = append(names, spec.Name.Name)
					}
				}
			}
			return false
		})
	}
	slices.Sort(names)
	return names, nil
}

// fieldWords splits at spaces outside of parentheses.
func fieldWords(s string) []string {
	depth := 0
	return strings.FieldsFunc(s, func(r rune) bool {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		}
		return depth == 0 && (r == ' ' || r == '\t' || r == '\n')
	})
}

// phrase turns OrderItem into "an order item".
func phrase(name string) string {
	words := strings.ReplaceAll(snake(name), "_", " ")
	if strings.IndexByte("aeio", words[0]) >= 0 {
		return "an " + words
	}
	return "a " + words
}

// writeNew writes a file that is not there yet.
func writeNew(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already", name)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
