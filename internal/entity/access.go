package entity

import (
	"encoding/json"
	"fmt"

	"entgo.io/ent/schema"
)

// Access says who may do what with the records of an entity. It is an annotation:
//
//	func (Message) Annotations() []schema.Annotation {
//		return []schema.Annotation{entity.Access{
//			Read:   entity.Through("thread"),
//			Create: entity.Through("thread"),
//			Update: entity.Is("author"),
//			Delete: entity.Any(entity.Is("author"), entity.Through("thread", entity.Delete)),
//		}}
//	}
//
// What has no rule is for administrators alone, and so is an entity without Access. Whoever may not read a record may
// not update or delete it either, whatever those rules say. Where both a mixin and the entity have one, the entity's is taken,
// whole. The generator refuses rules that do not fit the schema, or that ask for themselves by Through.
type Access struct {
	Read   Rule `json:"read,omitzero"`   // holds for the record, wherever it could show
	Create Rule `json:"create,omitzero"` // holds for the new record, after it was written
	Update Rule `json:"update,omitzero"` // holds for the record before the change
	Delete Rule `json:"delete,omitzero"` // holds for the record
}

// Name is the key under which ent keeps the annotation.
func (Access) Name() string { return "GodstackAccess" }

// Merge takes the later annotation: rules are never joined by accident.
func (a Access) Merge(other schema.Annotation) schema.Annotation {
	if b, ok := other.(Access); ok {
		return b
	}
	return a
}

// DecodeAccess reads the rules from a loaded schema; ok is false where it has none.
func DecodeAccess(annotations map[string]any) (a Access, ok bool, err error) {
	v, ok := annotations[a.Name()]
	if !ok {
		return a, false, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return a, false, fmt.Errorf("encode access: %w", err)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, false, fmt.Errorf("decode access: %w", err)
	}
	return a, true, nil
}

// RuleKind is a word of the vocabulary of rules.
type RuleKind string

// The words. The zero value is no rule.
const (
	KindAnyone   RuleKind = "anyone"
	KindSignedIn RuleKind = "signedIn"
	KindRole     RuleKind = "role"
	KindSelf     RuleKind = "self"
	KindIs       RuleKind = "is"
	KindHas      RuleKind = "has"
	KindThrough  RuleKind = "through"
	KindCustom   RuleKind = "custom"
	KindAny      RuleKind = "any"
	KindAll      RuleKind = "all"
)

// Rule says who: it holds, or does not, for a viewer and a record. The functions of this package make it; edges are named as the
// schema file or as the API has them, and may be Hidden. The zero Rule, in Access, is for administrators.
type Rule struct {
	Kind  RuleKind  `json:"kind,omitempty"`
	Name  string    `json:"name,omitempty"`  // of an edge (is, has, through), a role, or a custom rule
	Op    Operation `json:"op,omitempty"`    // through: whose rule; empty for read
	Rules []Rule    `json:"rules,omitempty"` // any, all
}

// Anyone is everybody, signed in or not.
func Anyone() Rule { return Rule{Kind: KindAnyone} }

// SignedIn is every user.
func SignedIn() Rule { return Rule{Kind: KindSignedIn} }

// Role is who has the role: "user", "moderator" or "admin". Each implies those before it. Administrators meet no other rule by
// their role.
func Role(role string) Rule { return Rule{Kind: KindRole, Name: role} }

// Self is the user that the record is. It is for the entity User alone.
func Self() Rule { return Rule{Kind: KindSelf} }

// Is is the user to whom the to-one edge leads: Is("author"). The edge has a field.
func Is(edge string) Rule { return Rule{Kind: KindIs, Name: edge} }

// Has is each of the users to whom the to-many edge leads, from whichever side it is declared: Has("members").
func Has(edge string) Rule { return Rule{Kind: KindHas, Name: edge} }

// Through is whoever may read the record to which the to-one edge leads: Through("thread"). With an operation it is
// whoever may do that with it, and read it: Through("thread", entity.Delete). It holds for nobody where the edge is empty. The edge
// has a field.
func Through(edge string, op ...Operation) Rule {
	r := Rule{Kind: KindThrough, Name: edge}
	if len(op) > 0 {
		r.Op = op[0]
	}
	return r
}

// Custom is a rule written in Go, which the composition root supplies under this name (record.Config's Rules).
func Custom(name string) Rule { return Rule{Kind: KindCustom, Name: name} }

// Any holds where one of the rules does.
func Any(rules ...Rule) Rule { return Rule{Kind: KindAny, Rules: rules} }

// All holds where each of the rules does.
func All(rules ...Rule) Rule { return Rule{Kind: KindAll, Rules: rules} }

// ReadableBy limits who reads a field, beyond the entity's own rule: to everybody else it is null, in filters and orders
// as well, and so it is nullable in the API. Nor do they overwrite it. The rule may be made of Anyone, SignedIn, Role, Self, Is, Any
// and All: what a row alone decides.
func ReadableBy(rule Rule) Annotation { return Annotation{ReadableBy: &rule} }
