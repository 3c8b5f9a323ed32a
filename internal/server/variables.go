package server

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/record"
)

// checkVariables refuses what gqlparser lets pass against the specification: "1" for an Int or a Float, 1 for a
// String, and an Int of more than 32 bits. Values have been validated by gqlparser in everything else.
func checkVariables(schema *ast.Schema, op *ast.OperationDefinition, vars map[string]any) *gqlerror.Error {
	for _, def := range op.VariableDefinitions {
		if err := checkScalars(schema, def.Type, vars[def.Variable], def.Variable, def.Variable); err != nil {
			return err
		}
	}
	return nil
}

// checkScalars checks one value; path is for the message, and name is its last part.
func checkScalars(schema *ast.Schema, t *ast.Type, value any, path, name string) *gqlerror.Error {
	switch v := value.(type) {
	case []any:
		if t.Elem == nil {
			return nil // of a custom scalar
		}
		for i, elem := range v {
			if err := checkScalars(schema, t.Elem, elem, fmt.Sprintf("%s[%d]", path, i), name); err != nil {
				return err
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
			if err := checkScalars(schema, f.Type, part, path+"."+f.Name, f.Name); err != nil {
				return err
			}
		}
	case string:
		if t.NamedType == "Int" || t.NamedType == "Float" {
			return wrongType(path, name, "a string", t)
		}
	case json.Number:
		if t.NamedType == "String" {
			return wrongType(path, name, "a number", t)
		}
		if _, err := strconv.ParseInt(v.String(), 10, 32); t.NamedType == "Int" && err != nil {
			return wrongType(path, name, v.String(), t)
		}
	case int64:
		if t.NamedType == "Int" && int64(int32(v)) != v {
			return wrongType(path, name, strconv.FormatInt(v, 10), t)
		}
	}
	return nil
}

func wrongType(path, name, is string, t *ast.Type) *gqlerror.Error {
	e := record.Error{
		Code:    record.BadUserInput,
		Message: fmt.Sprintf("variable %s: %s is no %s", path, is, t.NamedType),
		Fields:  []string{name},
	}
	return &gqlerror.Error{Message: e.Message, Extensions: e.Extensions()}
}
