package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
	"github.com/vektah/gqlparser/v2/validator/rules"

	"godstack/internal/record"
)

// documents are those that were parsed and validated: the trusted ones, and what clients sent and was within the limits.
type documents struct {
	trusted map[string]*ast.QueryDocument // by text
	sent    *cache[*ast.QueryDocument]    // likewise
}

var _ graphql.Cache[*ast.QueryDocument] = (*documents)(nil)

// Get returns a document by its text.
func (d *documents) Get(_ context.Context, text string) (*ast.QueryDocument, bool) {
	if doc, ok := d.trusted[text]; ok {
		return doc, true
	}
	return d.sent.get(text)
}

// Add does nothing: gqlgen calls it before the operation is measured.
func (d *documents) Add(context.Context, string, *ast.QueryDocument) {}

// keep adds a document whose operation was found to be good.
func (d *documents) keep(text string, doc *ast.QueryDocument) {
	if _, ok := d.Get(context.Background(), text); !ok {
		d.sent.add(text, doc, effortOf(doc, 0).weight(text))
	}
}

// parse parses a document as the executor does.
func parse(text string, limits Limits) (*ast.QueryDocument, error) {
	return parser.ParseQueryWithTokenLimit(&ast.Source{Input: text}, limits.Tokens)
}

// quiet are the rules of validation with messages that suggest nothing of the schema. Two more are gqlgen's to replace.
func quiet() *rules.Rules {
	r := rules.NewDefaultRules()
	r.RemoveRule(rules.KnownArgumentNamesRule.Name)
	r.AddRule(rules.KnownArgumentNamesRuleWithoutSuggestions.Name, rules.KnownArgumentNamesRuleWithoutSuggestions.RuleFunc)
	r.RemoveRule(rules.KnownTypeNamesRule.Name)
	r.AddRule(rules.KnownTypeNamesRuleWithoutSuggestions.Name, rules.KnownTypeNamesRuleWithoutSuggestions.RuleFunc)
	r.RemoveRule(rules.ValuesOfCorrectTypeRule.Name)
	r.AddRule(rules.ValuesOfCorrectTypeRuleWithoutSuggestions.Name, rules.ValuesOfCorrectTypeRuleWithoutSuggestions.RuleFunc)
	return r
}

// ask is what a client asks for.
type ask struct {
	graphql.RawParams

	// document names a document where Query is empty: documentId of GraphQL over HTTP, or id or doc_id of Relay.
	document string
	// hash is that of extensions.persistedQuery.
	hash string
}

// posted is the body of a request.
type posted struct {
	Query         string         `json:"query"`
	OperationName string         `json:"operationName"`
	Variables     map[string]any `json:"variables"`
	Extensions    map[string]any `json:"extensions"`
	DocumentID    string         `json:"documentId"`
	ID            any            `json:"id"` // what is no text is for others
	DocID         any            `json:"doc_id"`
}

var (
	errUntrusted = &record.Error{
		Code:    record.UntrustedDocument,
		Message: "only trusted documents are executed here, and this is none of them",
	}
	// errNotPersisted has the message that Apollo Client and urql know: they send the document along then.
	errNotPersisted = &record.Error{Code: record.PersistedQueryNotFound, Message: "PersistedQueryNotFound"}
)

// check reads extensions.persistedQuery, and refuses what neither has a document nor names one.
func (a *ask) check() error {
	if value, ok := a.Extensions["persistedQuery"]; ok && value != nil {
		persisted, ok := value.(map[string]any)
		if !ok {
			return badRequest("extensions.persistedQuery is no object")
		}
		if version, ok := persisted["version"].(json.Number); !ok || version != "1" {
			return badRequest("extensions.persistedQuery: unsupported version, it has to be 1")
		}
		if a.hash, ok = persisted["sha256Hash"].(string); !ok || a.hash == "" {
			return badRequest("extensions.persistedQuery: sha256Hash is missing")
		}
	}
	if a.Query == "" && a.document == "" && a.hash == "" {
		return badRequest("query is missing")
	}
	return nil
}

// find finds the document that a names, and refuses what is not to be executed.
func (s *Server) find(a *ask) error {
	if a.Query == "" {
		id := a.document
		if id == "" {
			id = a.hash
		}
		var ok bool
		if a.Query, ok = s.trusted.texts[id]; ok {
			return nil
		}
		if s.trusted.only {
			return errUntrusted
		}
		if a.Query, ok = s.persisted.get(strings.ToLower(strings.TrimPrefix(id, hashPrefix))); !ok {
			return errNotPersisted
		}
		return nil
	}
	if s.trusted.only {
		if _, ok := s.trusted.documents[a.Query]; !ok {
			return errUntrusted
		}
	}
	if a.hash != "" && !strings.EqualFold(a.hash, hashOf(a.Query)) {
		if s.trusted.texts[a.hash] != a.Query { // those have names that their tools chose
			return badRequest("provided sha does not match query")
		}
	}
	return nil
}

// remember keeps the text of a document that was found to be good, for those who name it by its hash.
func (s *Server) remember(a *ask) {
	if a.hash == "" || s.trusted.only {
		return
	}
	if _, ok := s.trusted.documents[a.Query]; !ok {
		s.persisted.add(strings.ToLower(a.hash), a.Query, len(a.Query))
	}
}

// hashPrefix stands before a hash in a documentId.
const hashPrefix = "sha256:"

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
