package codegen

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"entgo.io/ent/entc/gen"
)

// places says where entities ("Task"), their fields and edges ("Task.title") and their rules ("Task.entity.Access.read") are
// declared, as "ent/schema/task.go:12".
type places map[string]string

// accessPlace is where the rules of an entity are; with an operation, the rule for it.
const accessPlace = "entity.Access"

// findPlaces reads the schema files, also those that do not compile.
func findPlaces() places {
	p := places{}
	names, _ := filepath.Glob(filepath.Join(schemaDir, "*.go"))
	for _, name := range names {
		fset := token.NewFileSet()
		file, _ := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if file == nil {
			continue
		}
		for _, d := range file.Decls {
			p.read(fset, d)
		}
	}
	return p
}

func (p places) read(fset *token.FileSet, d ast.Decl) {
	note := func(name string, at token.Pos) {
		if pos := fset.Position(at); p[name] == "" {
			p[name] = filepath.ToSlash(pos.Filename) + ":" + strconv.Itoa(pos.Line)
		}
	}
	switch d := d.(type) {
	case *ast.GenDecl:
		for _, s := range d.Specs {
			if t, ok := s.(*ast.TypeSpec); ok {
				note(t.Name.Name, t.Pos())
			}
		}
	case *ast.FuncDecl:
		if d.Recv == nil {
			return
		}
		entity := receiver(d)
		ast.Inspect(d, func(n ast.Node) bool { // field.String("title"), edge.To("owner", User.Type), ....From("parent")
			if lit, ok := n.(*ast.CompositeLit); ok {
				p.readAccess(entity, lit, note)
			}
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "From" && !isIdent(sel.X, "field") && !isIdent(sel.X, "edge") {
				return true
			}
			if lit, ok := call.Args[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if name, err := strconv.Unquote(lit.Value); err == nil {
					note(entity+"."+name, lit.Pos())
				}
			}
			return true
		})
	}
}

// readAccess notes where entity.Access{Read: ...} is, and the rules in it.
func (p places) readAccess(entity string, lit *ast.CompositeLit, note func(name string, at token.Pos)) {
	sel, ok := lit.Type.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "Access" || !isIdent(sel.X, "entity") {
		return
	}
	note(entity+"."+accessPlace, lit.Pos())
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if key, ok := kv.Key.(*ast.Ident); ok {
				note(entity+"."+accessPlace+"."+strings.ToLower(key.Name), kv.Pos())
			}
		}
	}
}

// of returns the place of an entity, or of its field, edge or rule member; the folder if neither is known.
func (p places) of(entity, member string) string {
	for _, name := range []string{entity + "." + member, entity} {
		if at := p[name]; at != "" {
			return at
		}
	}
	return schemaDir
}

var word = regexp.MustCompile(`\w+`)

// explain makes an error of ent's name the schema file: as ent says what it is about in words only, by the first
// entity in them, and the first of its members.
func explain(err error) error {
	msg := err.Error()
	if root, err := os.Getwd(); err == nil {
		msg = strings.ReplaceAll(msg, root+string(filepath.Separator), "")
	}
	msg = filepath.ToSlash(msg)
	if i := strings.Index(msg, schemaDir+"/"); i >= 0 { // the compiler's, after a heading
		return errors.New(strings.TrimSpace(msg[i:]))
	}
	p := findPlaces()
	words := word.FindAllString(msg, -1)
	for _, entity := range words {
		if p[entity] == "" {
			continue
		}
		for _, member := range words {
			if at := p[entity+"."+member]; at != "" {
				return errors.New(at + ": " + msg)
			}
		}
		return errors.New(p[entity] + ": " + msg)
	}
	return errors.New(schemaDir + ": " + msg)
}

// columnPlace names the field of a column, with its place.
func columnPlace(g *gen.Graph, table, column string) string {
	for _, n := range g.Nodes {
		if n.Table() == table {
			return fmt.Sprintf("%s: field %s of %s", findPlaces().of(n.Name, column), column, n.Name)
		}
	}
	return "column " + table + "." + column
}
