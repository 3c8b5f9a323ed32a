package codegen

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// schemaLines tie the client to ent's automatic migration, which cannot work here: tables come from migrations.
var schemaLines = regexp.MustCompile(`(?m)^.*(\bmigrate\.|/ent/migrate"|// Schema is the client for).*\n`)

// prune takes out of a file of ent's what no program here calls, since all of it is compiled whenever an entity
// changes: the variants that panic (SaveX), building many records at once (CreateBulk: use COPY), and grouping
// (GroupBy, Aggregate: write SQL). What is left is ent's API for records: create, query with edges,
// update, delete, hooks.
func prune(name string, src []byte) ([]byte, error) {
	src = schemaLines.ReplaceAll(src, nil)
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("prune %s: %w", name, err)
	}
	offset := func(p token.Pos) int { return fset.Position(p).Offset }
	var (
		cuts [][2]int
		kept []ast.Decl
	)
	for _, d := range file.Decls {
		if !unused(d) {
			kept = append(kept, d)
			continue
		}
		start := d.Pos()
		if doc := docOf(d); doc != nil {
			start = doc.Pos()
		}
		cuts = append(cuts, [2]int{offset(start), offset(d.End())})
	}
	if len(cuts) == 0 {
		return src, nil
	}
	for _, s := range file.Imports {
		if !imported(s, kept) {
			cuts = append(cuts, [2]int{offset(s.Pos()), offset(s.End())})
		}
	}
	slices.SortFunc(cuts, func(a, b [2]int) int { return a[0] - b[0] })
	var out bytes.Buffer
	at := 0
	for _, c := range cuts {
		out.Write(src[at:c[0]])
		at = c[1]
	}
	out.Write(src[at:])
	b, err := format.Source(out.Bytes())
	if err != nil {
		return nil, fmt.Errorf("prune %s: %w", name, err)
	}
	return b, nil
}

func docOf(d ast.Decl) *ast.CommentGroup {
	switch d := d.(type) {
	case *ast.FuncDecl:
		return d.Doc
	case *ast.GenDecl:
		return d.Doc
	}
	return nil
}

// unused reports whether a declaration is one to take out.
func unused(d ast.Decl) bool {
	switch d := d.(type) {
	case *ast.FuncDecl:
		name := d.Name.Name
		if d.Recv == nil {
			return false
		}
		recv := receiver(d)
		switch {
		case unusedType(recv):
			return true
		case builder(recv) && strings.HasSuffix(name, "X") && name != "X":
			return true
		case strings.HasSuffix(recv, "Query"):
			return slices.Contains([]string{"GroupBy", "Aggregate"}, name)
		case strings.HasSuffix(recv, "Client"):
			return slices.Contains([]string{"CreateBulk", "MapCreateBulk"}, name)
		}
	case *ast.GenDecl:
		if d.Tok != token.TYPE || len(d.Specs) != 1 {
			return false
		}
		spec := d.Specs[0].(*ast.TypeSpec)
		_, list := spec.Type.(*ast.ArrayType) // type Threads []*Thread, a name that it takes from us
		return list || unusedType(spec.Name.Name)
	}
	return false
}

// unusedType reports whether a type goes with all its methods.
func unusedType(name string) bool {
	return strings.HasSuffix(name, "GroupBy") || strings.HasSuffix(name, "CreateBulk")
}

// builder reports whether a type is a client or a builder of ent's.
func builder(name string) bool {
	for _, s := range []string{"Client", "Query", "Create", "Update", "UpdateOne", "Delete", "DeleteOne", "selector"} {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	return false
}

func receiver(d *ast.FuncDecl) string {
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// imported reports whether decls use an import.
func imported(s *ast.ImportSpec, decls []ast.Decl) bool {
	path, _ := strconv.Unquote(s.Path.Value)
	name := path[strings.LastIndexByte(path, '/')+1:]
	if s.Name != nil {
		name = s.Name.Name
	}
	if name == "_" {
		return true
	}
	found := false
	for _, d := range decls {
		ast.Inspect(d, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if id, ok := sel.X.(*ast.Ident); ok && id.Name == name {
					found = true
				}
			}
			return !found
		})
	}
	return found
}
