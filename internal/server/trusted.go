package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/validator"
)

// TrustedDocuments are those that an application was built with. Clients name them by id, or by the SHA-256 of their text. The zero value
// is none.
type TrustedDocuments struct {
	// Files is a path, or a pattern as [filepath.Match] has them, of manifests: JSON objects from id to document, as GraphQL Code
	// Generator and Relay's compiler write them, or Apollo's manifests. Each document has to be valid and within the limits.
	Files string
	// Only has every other document refused, introspection among them. It needs Files.
	Only bool
	// Pages are documents of the program's own pages, which send them as they are.
	Pages []string
}

// trusted are those that were read. It does not change.
type trusted struct {
	only      bool
	texts     map[string]string             // by id, and by hash, "sha256:" in front or not
	documents map[string]*ast.QueryDocument // by text
}

// manifest is a file: what is trusted, by id.
type manifest map[string]manifestEntry

// manifestEntry is a document. An operation's name and type are "" where the file does not say them.
type manifestEntry struct{ name, kind, body string }

// apolloManifest is what Apollo's tools call theirs.
const apolloManifest = "apollo-persisted-query-manifest"

// readManifest reads a file.
func readManifest(text []byte) (manifest, error) {
	var head struct {
		Format  any
		Version json.Number
	}
	_ = json.Unmarshal(text, &head) // it may be another's
	format, isText := head.Format.(string)
	m := manifest{}
	if !isText || format != apolloManifest {
		var all map[string]string
		if err := decode(text, &all); err != nil {
			return nil, fmt.Errorf("neither an object from id to document nor Apollo's manifest: %w", err)
		}
		for id, body := range all {
			m[id] = manifestEntry{body: body}
		}
		return m, nil
	}
	if head.Version != "1" {
		return nil, fmt.Errorf("a manifest of version %s, and 1 is known", head.Version)
	}
	var all struct {
		Operations []struct{ ID, Name, Type, Body string }
	}
	if err := decode(text, &all); err != nil {
		return nil, err
	}
	for _, op := range all.Operations {
		if before, ok := m[op.ID]; ok && before.body != op.Body {
			return nil, fmt.Errorf("%s: two documents have this id", op.ID)
		}
		m[op.ID] = manifestEntry{name: op.Name, kind: op.Type, body: op.Body}
	}
	return m, nil
}

// readTrusted reads what is trusted. Its error names the file and the id of what is wrong, and goes on to the next, for a while.
func readTrusted(cfg TrustedDocuments, g guard) (*trusted, error) {
	t := &trusted{only: cfg.Only, texts: map[string]string{}, documents: map[string]*ast.QueryDocument{}}
	if cfg.Files == "" {
		if cfg.Only {
			return nil, errors.New("TRUSTED_DOCUMENTS_ONLY: required are TRUSTED_DOCUMENTS, or nothing would be executed")
		}
		return t, nil
	}
	for _, text := range cfg.Pages {
		if err := t.add(g, hashOf(text), manifestEntry{body: text}); err != nil {
			return nil, fmt.Errorf("a document of the program's pages: %w", err)
		}
	}
	files, err := filepath.Glob(cfg.Files)
	if err != nil {
		return nil, fmt.Errorf("TRUSTED_DOCUMENTS: %q is no pattern: %w", cfg.Files, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("TRUSTED_DOCUMENTS: there is no file %s", cfg.Files)
	}
	var wrong []error
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("TRUSTED_DOCUMENTS: %w", err)
		}
		m, err := readManifest(text)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("TRUSTED_DOCUMENTS: %s: %w", file, err))
		}
		for _, id := range slices.Sorted(maps.Keys(m)) {
			if err := t.add(g, id, m[id]); err != nil {
				wrong = append(wrong, fmt.Errorf("TRUSTED_DOCUMENTS: %s: %s: %w", file, id, err))
			}
		}
	}
	if len(wrong) > mostErrors {
		wrong = append(wrong[:mostErrors], fmt.Errorf("TRUSTED_DOCUMENTS: and %d more", len(wrong)-mostErrors))
	}
	return t, errors.Join(wrong...)
}

// CheckTrusted reads the documents that cfg has trusted as [New] does, and returns how many texts that are, those of the pages among them.
func CheckTrusted(schema *ast.Schema, cfg Config) (texts int, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return 0, err
	}
	docs := &documents{sent: newCache[*ast.QueryDocument](cfg.Limits.Documents)}
	t, err := readTrusted(cfg.Trusted, guard{schema: schema, documents: docs, limits: cfg.Limits, introspection: cfg.Introspection})
	if err != nil {
		return 0, err
	}
	return len(t.documents), nil
}

// add adds a document, if it is good.
func (t *trusted) add(g guard, id string, entry manifestEntry) error {
	if id == "" {
		return errors.New("a document has no id")
	}
	if before, ok := t.texts[id]; ok && before != entry.body {
		return errors.New("another document has this id")
	}
	doc, err := parse(entry.body, g.limits)
	if err != nil {
		return err
	}
	if err := effortOf(doc, g.limits.Validation).beyond(g.limits); err != nil {
		return errors.New(err.Message)
	}
	if len(doc.Operations) == 0 {
		return errors.New("there is no operation in it")
	}
	if errs := validator.ValidateWithRules(g.schema, doc, nil); len(errs) > 0 {
		return errs[0]
	}
	if entry.name != "" || entry.kind != "" {
		op := doc.Operations.ForName(entry.name)
		if op == nil || string(op.Operation) != entry.kind {
			return fmt.Errorf("there is no %s %s in it", entry.kind, entry.name)
		}
	}
	for _, op := range doc.Operations {
		if err := g.beyond(g.measure(op, nil)); err != nil {
			return errors.New(err.Message)
		}
	}
	t.documents[entry.body] = doc
	hash := hashOf(entry.body)
	for _, name := range []string{id, hashPrefix + id, hash, hashPrefix + hash} {
		if _, ok := t.texts[name]; !ok {
			t.texts[name] = entry.body
		}
	}
	return nil
}
