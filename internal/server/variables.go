package server

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/record"
)

// checkVariables refuses what gqlparser lets pass against the specification: "1" for an Int or a Float, 1 for a
// String, and an Int of more than 32 bits. Values have been validated by gqlparser in everything else.
func checkVariables(schema *ast.Schema, op *ast.OperationDefinition, vars map[string]any) *gqlerror.Error {
	for _, def := range op.VariableDefinitions {
		if m := checkScalars(schema, def.Type, vars[def.Variable]); m != nil {
			e := record.Error{
				Code:    record.BadUserInput,
				Message: fmt.Sprintf("variable %s%s: %s is no %s", def.Variable, m.where(), m.is, m.not),
				Fields:  []string{cmp.Or(m.field, def.Variable)},
			}
			return &gqlerror.Error{Message: e.Message, Extensions: e.Extensions()}
		}
	}
	return nil
}

// misfit is a value of a wrong type.
type misfit struct {
	path    []string // to it, from the end: it is put together once, as values may nest as deep as the body is long
	field   string   // of an input, the innermost
	is, not string
}

func (m *misfit) where() string {
	slices.Reverse(m.path)
	return strings.Join(m.path, "")
}

// checkScalars checks one value.
func checkScalars(schema *ast.Schema, t *ast.Type, value any) *misfit {
	switch v := value.(type) {
	case []any:
		if t.Elem == nil {
			return nil // of a custom scalar
		}
		for i, elem := range v {
			if m := checkScalars(schema, t.Elem, elem); m != nil {
				m.path = append(m.path, fmt.Sprintf("[%d]", i))
				return m
			}
		}
	case map[string]any:
		for t.Elem != nil {
			t = t.Elem // one value stands for a list of one
		}
		for _, f := range schema.Types[t.NamedType].Fields {
			part, given := v[f.Name]
			if !given {
				continue
			}
			if m := checkScalars(schema, f.Type, part); m != nil {
				m.path, m.field = append(m.path, "."+f.Name), cmp.Or(m.field, f.Name)
				return m
			}
		}
	case string:
		if t.NamedType == "Int" || t.NamedType == "Float" {
			return &misfit{is: "a string", not: t.NamedType}
		}
	case json.Number:
		switch t.NamedType {
		case "String":
			return &misfit{is: "a number", not: t.NamedType}
		case "Int":
			if _, err := strconv.ParseInt(v.String(), 10, 32); err != nil {
				return &misfit{is: v.String(), not: t.NamedType}
			}
		}
	case int64:
		if t.NamedType == "Int" && int64(int32(v)) != v {
			return &misfit{is: strconv.FormatInt(v, 10), not: t.NamedType}
		}
	}
	return nil
}
