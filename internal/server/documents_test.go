package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// persistedQuery is extensions.persistedQuery.
func persistedQuery(hash string) map[string]any {
	return map[string]any{"persistedQuery": map[string]any{"version": 1, "sha256Hash": hash}}
}

// body makes a request of members.
func body(t *testing.T, members map[string]any, header ...string) *http.Request {
	t.Helper()
	b, err := json.Marshal(members)
	require.NoError(t, err)
	return post(string(b), header...)
}

// ways are how a client asks over HTTP, by a socket, and by event streams: each answers with the payload of the answer.
func ways(t *testing.T, b *bundle) map[string]func(t *testing.T, members map[string]any) answer {
	t.Helper()
	base := listen(t, b).URL
	read := func(t *testing.T, text string) (a answer) {
		t.Helper()
		a.raw = text
		require.NoError(t, json.Unmarshal([]byte(text), &a), text)
		return a
	}
	return map[string]func(t *testing.T, members map[string]any) answer{
		"POST": func(t *testing.T, members map[string]any) answer {
			t.Helper()
			return b.do(t, body(t, members))
		},
		"GET": func(t *testing.T, members map[string]any) answer {
			t.Helper()
			q := url.Values{}
			for key, value := range members {
				text, isText := value.(string)
				if !isText {
					j, err := json.Marshal(value)
					require.NoError(t, err)
					text = string(j)
				}
				q.Set(key, text)
			}
			return b.do(t, get(t, q))
		},
		"socket": func(t *testing.T, members map[string]any) answer {
			t.Helper()
			s, _, err := dial(t, base, nil)
			require.NoError(t, err)
			s.send(message{Type: "connection_init"})
			require.Equal(t, "connection_ack", s.receive().Type)
			payload, err := json.Marshal(members)
			require.NoError(t, err)
			s.send(message{ID: "1", Type: "subscribe", Payload: payload})
			m := s.receive()
			require.NoError(t, s.conn.CloseNow())
			if m.Type == "error" {
				return read(t, `{"errors":`+string(m.Payload)+`}`)
			}
			require.Equal(t, "next", m.Type)
			return read(t, string(m.Payload))
		},
		"events": func(t *testing.T, members map[string]any) answer {
			t.Helper()
			payload, err := json.Marshal(members)
			require.NoError(t, err)
			resp := b.request(t, base, http.MethodPost, "/graphql", string(payload), "Accept", typeEvents)
			defer func() { _ = resp.Body.Close() }()
			if resp.StatusCode != http.StatusOK {
				text, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				return read(t, string(text))
			}
			c := &streamClient{t, resp, bufio.NewReader(resp.Body)}
			return read(t, c.next().data)
		},
		"a reserved stream": func(t *testing.T, members map[string]any) answer {
			t.Helper()
			token := b.reserve(t, base)
			c := b.events(t, base, http.MethodGet, "/graphql?token="+token, "")
			defer func() { _ = c.resp.Body.Close() }()
			with, extensions := maps.Clone(members), map[string]any{"operationId": "1"}
			given, _ := members["extensions"].(map[string]any)
			maps.Copy(extensions, given)
			with["extensions"] = extensions
			payload, err := json.Marshal(with)
			require.NoError(t, err)
			resp := b.request(t, base, http.MethodPost, "/graphql", string(payload), streamTokenHeader, token)
			if resp.StatusCode != http.StatusAccepted {
				text, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				return read(t, string(text))
			}
			var e struct{ Payload json.RawMessage }
			require.NoError(t, json.Unmarshal([]byte(c.next().data), &e))
			return read(t, string(e.Payload))
		},
	}
}

func code(t *testing.T, a answer) string {
	t.Helper()
	require.Len(t, a.Errors, 1, a.raw)
	require.Empty(t, a.Data)
	require.NotEmpty(t, a.Errors[0].Extensions["requestId"])
	return a.Errors[0].code()
}

// Apollo's protocol, by all ways: a hash that nobody knows, the document with its hash, the hash.
func TestAutomaticPersistedQueries(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"POST", "GET", "socket", "events", "a reserved stream"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			ask := ways(t, b)[way]
			const document = `query Hello { ok }`
			hash := hashOf(document)

			a := ask(t, map[string]any{"extensions": persistedQuery(hash)})
			require.Equal(t, "PERSISTED_QUERY_NOT_FOUND", code(t, a))
			require.Equal(t, "PersistedQueryNotFound", a.Errors[0].Message)
			require.JSONEq(t, `{"ok": "fine"}`, string(ask(t, map[string]any{"query": document, "extensions": persistedQuery(hash)}).Data))
			for _, named := range []map[string]any{
				{"extensions": persistedQuery(hash)}, {"documentId": "sha256:" + hash}, {"documentId": hash}, {"id": hash}, {"doc_id": hash},
				{"extensions": persistedQuery(strings.ToUpper(hash))}, {"documentId": "sha256:" + strings.ToUpper(hash)},
				{"documentId": hash, "operationName": "Hello", "variables": map[string]any{}},
			} {
				require.JSONEq(t, `{"ok": "fine"}`, string(ask(t, named).Data), named)
			}
			require.Equal(t, "PERSISTED_QUERY_NOT_FOUND", code(t, ask(t, map[string]any{"documentId": "of nothing"})))

			a = ask(t, map[string]any{"query": `{ whoami }`, "extensions": persistedQuery(hash)})
			require.Equal(t, "BAD_USER_INPUT", code(t, a))
			require.Equal(t, "provided sha does not match query", a.Errors[0].Message)
			require.JSONEq(t, `{"ok": "fine"}`, string(ask(t, map[string]any{"extensions": persistedQuery(hash)}).Data), "nobody has changed it")
		})
	}
}

func TestPersistedSubscriptions(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"socket", "events", "a reserved stream"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			ask := ways(t, b)[way]
			const document = `subscription { ticks }`
			require.JSONEq(t, `{"ticks": "fine"}`, string(ask(t, map[string]any{"query": document, "extensions": persistedQuery(hashOf(document))}).Data))
			require.JSONEq(t, `{"ticks": "fine"}`, string(ask(t, map[string]any{"documentId": hashOf(document)}).Data))
		})
	}
}

func TestPersistedMutationsAreNotForGet(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const document = `mutation { rename(id: 1, expectedVersion: 1) }`
	require.Empty(t, b.do(t, body(t, map[string]any{"query": document, "extensions": persistedQuery(hashOf(document))})).Errors)
	a := b.do(t, get(t, url.Values{"documentId": {hashOf(document)}}))
	require.Equal(t, 405, a.Status)
}

// An answer that says "send the document" is not for caches: the next may be another.
func TestPersistedQueriesAndCaches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const document = `{ ok }`
	q := url.Values{"extensions": {`{"persistedQuery":{"version":1,"sha256Hash":"` + hashOf(document) + `"}}`}}
	a := b.do(t, get(t, q))
	require.Equal(t, 200, a.Status)
	require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
	require.Equal(t, 400, b.do(t, get(t, q, "Accept", typeResponse)).Status)
	require.Empty(t, b.do(t, body(t, map[string]any{"query": document, "extensions": persistedQuery(hashOf(document))})).Errors)
	require.Empty(t, b.do(t, get(t, q)).Header.Get("Cache-Control"))
}

func TestWrongPersistedQueries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for text, message := range map[string]string{
		`{"extensions": {"persistedQuery": 5}}`:                                                    "extensions.persistedQuery is no object",
		`{"extensions": {"persistedQuery": {"version": 2, "sha256Hash": "a"}}}`:                    "extensions.persistedQuery: unsupported version, it has to be 1",
		`{"extensions": {"persistedQuery": {"version": "1", "sha256Hash": "a"}}, "query": "{ok}"}`: "extensions.persistedQuery: unsupported version, it has to be 1",
		`{"extensions": {"persistedQuery": {"sha256Hash": "a"}}}`:                                  "extensions.persistedQuery: unsupported version, it has to be 1",
		`{"extensions": {"persistedQuery": {"version": 1, "sha256Hash": 5}}}`:                      "extensions.persistedQuery: sha256Hash is missing",
		`{"extensions": {"persistedQuery": {"version": 1}}, "query": "{ok}"}`:                      "extensions.persistedQuery: sha256Hash is missing",
		`{"extensions": {"persistedQuery": null}}`:                                                 "query is missing",
		`{"documentId": 5}`: "the body: documentId has the wrong type",
		`{"id": 5}`:         "query is missing",
		`{"id": "", "doc_id": null, "documentId": ""}`: "query is missing",
	} {
		a := b.do(t, post(text))
		require.Equal(t, 400, a.Status, text)
		require.Equal(t, "BAD_USER_INPUT", code(t, a))
		require.Equal(t, message, a.Errors[0].Message, text)
	}
	require.Empty(t, b.do(t, post(`{"id": 5, "query": "{ ok }"}`)).Errors, "what is not ours")
}

// What is refused, for whatever reason, is neither remembered by its hash nor kept parsed.
func TestRefusedDocumentsAreNotKept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, document := range []string{
		`{`, `{ nope }`, `{ ` + repeat(101, `a%d: ok `) + `}`, `{ __schema { types { name } } }`,
		`{ threads(first: 1000) { edges { node { messages(first: 1000) { edges { node { id } } } } } } }`,
		`query($n: Int!) { threads(first: $n) { totalCount } }`,
		`subscription { ticks @skip(if: true) }`,
	} {
		a := b.do(t, body(t, map[string]any{"query": document, "extensions": persistedQuery(hashOf(document))}))
		require.NotEmpty(t, a.Errors)
		require.Zero(t, b.docs.sent.held()+b.persisted.held(), document)
		require.Equal(t, "PERSISTED_QUERY_NOT_FOUND", code(t, b.do(t, body(t, map[string]any{"documentId": hashOf(document)}))))
	}
	require.Empty(t, b.query(t, `{ ok }`, nil).Errors)
	require.Positive(t, b.docs.sent.held())
	require.Zero(t, b.persisted.held(), "nobody asked to have it remembered")
}

// However many documents come, no more bytes of them are kept than there may be, and what is used stays.
func TestDocumentsAreKeptByBytes(t *testing.T) {
	t.Parallel()
	b := setup(t, func(_ *Deps, c *Config) { c.Limits.Documents, c.Limits.Persisted = 200_000, 20_000 })
	const used = `{ used: ok }`
	send := func(document string) {
		t.Helper()
		require.Empty(t, b.do(t, body(t, map[string]any{"query": document, "extensions": persistedQuery(hashOf(document))})).Errors)
	}
	send(used)
	for i := range 300 {
		send(fmt.Sprintf(`{ a%d: ok %s }`, i, strings.Repeat("#x\n", i%40)))
		require.LessOrEqual(t, b.docs.sent.held(), 200_000)
		require.LessOrEqual(t, b.persisted.held(), 20_000)
		require.Empty(t, b.do(t, body(t, map[string]any{"documentId": hashOf(used)})).Errors)
	}
	require.Greater(t, b.docs.sent.held(), 150_000)
	require.Greater(t, b.persisted.held(), 15_000)
	require.Equal(t, "PERSISTED_QUERY_NOT_FOUND", code(t, b.do(t, body(t, map[string]any{"documentId": hashOf(`{ a1: ok #x` + "\n" + ` }`)}))))
	before := b.docs.sent.held()
	send(`{ thread(id: 1) { ` + strings.Repeat(`id `, 500) + `} }`)
	require.Equal(t, before, b.docs.sent.held(), "one that would take all the room is not kept")
}

func TestCache(t *testing.T) {
	t.Parallel()
	c := newCache[int](10 * (entryOverhead + 10))
	for i := range 12 {
		c.add(fmt.Sprint("key", i), i, 10-len(fmt.Sprint("key", i)))
		if v, ok := c.get("key0"); ok {
			require.Zero(t, v)
		}
	}
	for i := range 12 {
		v, ok := c.get(fmt.Sprint("key", i))
		require.Equal(t, i != 1 && i != 2, ok, i)
		if ok {
			require.Equal(t, i, v)
		}
	}
	require.Equal(t, c.most, c.held())
	c.add("key0", 5, 0)
	v, _ := c.get("key0")
	require.Zero(t, v, "what is there stays")
	c.add("large", 1, c.most/8)
	_, ok := c.get("large")
	require.False(t, ok)
}

// manifests writes files into a folder, and returns a pattern of them all.
func manifests(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return filepath.Join(dir, "*.json")
}

// applications are the manifests of three, by the tools that make them.
var applications = map[string]string{
	"persisted-documents.json": `{"2f3c0a1e": "query Hello { ok }", "ticks": "subscription Ticks { ticks }"}`,
	"relay.json":               `{"5d41402abc4b2a76b9719d911017c592": "query RelayQuery(\n  $id: ID!\n) {\n  thread(id: $id) {\n    id\n  }\n}\n"}`,
	"apollo.json": `{"format": "apollo-persisted-query-manifest", "version": 1, "operations": [
		{"id": "apollo-1", "name": "Who", "type": "query", "body": "query Who { whoami }", "clientName": null},
		{"id": "apollo-2", "name": "Rename", "type": "mutation", "body": "mutation Rename { rename(id: 1, expectedVersion: 1) }"}]}`,
	"readme.txt": `no manifest`,
}

func TestTrustedDocuments(t *testing.T) {
	t.Parallel()
	files := manifests(t, applications)
	for _, only := range []bool{false, true} {
		b := setup(t, func(_ *Deps, c *Config) { c.Trusted = TrustedDocuments{Files: files, Only: only} })
		for name, ask := range ways(t, b) {
			for _, c := range []struct {
				members map[string]any
				want    string
			}{
				{map[string]any{"documentId": "2f3c0a1e"}, `{"ok": "fine"}`},
				{map[string]any{"documentId": "sha256:2f3c0a1e"}, `{"ok": "fine"}`},
				{map[string]any{"documentId": hashOf("query Hello { ok }")}, `{"ok": "fine"}`},
				{map[string]any{"extensions": persistedQuery("2f3c0a1e")}, `{"ok": "fine"}`},
				{map[string]any{"extensions": persistedQuery(hashOf("query Hello { ok }"))}, `{"ok": "fine"}`},
				{map[string]any{"extensions": persistedQuery("2f3c0a1e"), "query": "query Hello { ok }"}, `{"ok": "fine"}`},
				{map[string]any{"id": "5d41402abc4b2a76b9719d911017c592", "variables": map[string]any{"id": "1"}}, `{"thread": "fine"}`},
				{map[string]any{"doc_id": "5d41402abc4b2a76b9719d911017c592", "variables": map[string]any{"id": "1"}}, `{"thread": "fine"}`},
				{map[string]any{"documentId": "apollo-1", "operationName": "Who"}, `{"whoami": "fine"}`},
				{map[string]any{"query": "query Who { whoami }"}, `{"whoami": "fine"}`},
			} {
				a := ask(t, c.members)
				require.Empty(t, a.Errors, "%s: %v", name, c.members)
				require.JSONEq(t, c.want, string(a.Data), "%s: %v", name, c.members)
			}
			if name != "GET" {
				require.JSONEq(t, `{"rename": "fine"}`, string(ask(t, map[string]any{"documentId": "apollo-2"}).Data))
			}
			if name != "GET" && name != "POST" {
				require.JSONEq(t, `{"ticks": "fine"}`, string(ask(t, map[string]any{"documentId": "ticks"}).Data), name)
			}
		}
		require.Zero(t, b.docs.sent.held()+b.persisted.held(), "they need no cache")
	}
}

func TestTrustedDocumentsOnly(t *testing.T) {
	t.Parallel()
	files := manifests(t, applications)
	const page = `mutation { rename(id: 2, expectedVersion: 1) }`
	b := setup(t, func(_ *Deps, c *Config) {
		c.Introspection = true
		c.Trusted = TrustedDocuments{Files: files, Only: true, Pages: []string{page}}
	})
	b.resolvers["ok"] = func(context.Context) (any, error) { panic("executed") }
	for name, ask := range ways(t, b) {
		for _, members := range []map[string]any{
			{"query": `{ ok }`},
			{"query": `query Hello { ok } `},
			{"query": `{ ok }`, "documentId": "2f3c0a1e"},
			{"query": `{ ok }`, "extensions": persistedQuery(hashOf(`{ ok }`))},
			{"query": `subscription { ticks }`},
			{"query": introspection},
			{"query": `{`},
			{"documentId": "of nothing"},
			{"extensions": persistedQuery(hashOf(`{ ok }`))},
		} {
			a := ask(t, members)
			require.Equal(t, "UNTRUSTED_DOCUMENT", code(t, a), "%s: %v", name, members)
			require.Equal(t, "only trusted documents are executed here, and this is none of them", a.Errors[0].Message)
		}
		require.Equal(t, "BAD_USER_INPUT", code(t, ask(t, map[string]any{"extensions": map[string]any{}})))
	}
	require.Empty(t, b.query(t, page, nil).Errors)
	require.Zero(t, b.docs.sent.held()+b.persisted.held())
	require.Equal(t, 400, b.query(t, `{ ok }`, nil, "Accept", typeResponse).Status)
}

// What is wrong with a manifest is said at the start, by file and id.
func TestWrongManifests(t *testing.T) {
	t.Parallel()
	schema := setup(t).deps.Schema
	apollo := func(operation string) string {
		return `{"format": "apollo-persisted-query-manifest", "version": 1, "operations": [` + operation + `]}`
	}
	for name, c := range map[string]struct{ text, says string }{
		"no JSON":            {`{`, "a.json: neither an object from id to document nor Apollo's manifest: not JSON, it ends too early"},
		"an array":           {`["{ ok }"]`, "a.json: neither an object from id to document nor Apollo's manifest: not a JSON object"},
		"another format":     {`{"format": 5, "operations": []}`, "a.json: neither an object from id to document nor Apollo's manifest: "},
		"another version":    {`{"format": "apollo-persisted-query-manifest", "version": 2}`, "a.json: a manifest of version 2, and 1 is known"},
		"no id":              {`{"": "{ ok }"}`, "a.json: : a document has no id"},
		"no document":        {`{"a": ""}`, "a.json: a: there is no operation in it"},
		"fragments":          {`{"a": "fragment F on Query { ok }"}`, "a.json: a: there is no operation in it"},
		"syntax":             {`{"a": "{"}`, "a.json: a: input:1:2: Expected Name, found <EOF>"},
		"an unknown field":   {`{"b": "{ ok }", "a": "{ okk }"}`, `a.json: a: input:1:3: Cannot query field "okk" on type "Query". Did you mean "ok"?`},
		"too deep":           {`{"a": "{ users ` + nested(15, `{ friends `, `{ id }`, `}`) + ` }"}`, "a.json: a: the operation has 17 levels, and 15 are allowed"},
		"too long":           {`{"a": "{ thread(id: 1) { ` + strings.Repeat(`id `, 1000) + `} }"}`, "a.json: a: the document has 1001 selections, and 1000 are allowed"},
		"introspection":      {`{"a": "{ __schema { types { name } } }"}`, "a.json: a: introspection is disabled"},
		"another name":       {apollo(`{"id": "a", "name": "B", "type": "query", "body": "query A { ok }"}`), "a.json: a: there is no query B in it"},
		"another type":       {apollo(`{"id": "a", "name": "A", "type": "mutation", "body": "query A { ok }"}`), "a.json: a: there is no mutation A in it"},
		"one id for two":     {apollo(`{"id": "a", "name": "A", "type": "query", "body": "query A { ok }"}, {"id": "a", "name": "B", "type": "query", "body": "query B { ok }"}`), "a.json: a: two documents have this id"},
		"more than is shown": {`{` + strings.TrimSuffix(repeat(30, `"%02d": "{",`), ",") + `}`, "TRUSTED_DOCUMENTS: and 10 more"},
	} {
		files := manifests(t, map[string]string{"a.json": c.text})
		_, err := New(Deps{Schema: schema}, &Config{Trusted: TrustedDocuments{Files: files}})
		require.ErrorContains(t, err, c.says, name)
		require.ErrorContains(t, err, "TRUSTED_DOCUMENTS: "+filepath.Dir(files), name)
	}
	files := manifests(t, map[string]string{"a.json": `{"a": "{ ok }"}`, "b.json": `{"a": "{ whoami }", "b": "{ nope }"}`})
	_, err := New(Deps{Schema: schema}, &Config{Trusted: TrustedDocuments{Files: files}})
	require.ErrorContains(t, err, "b.json: a: another document has this id")
	require.ErrorContains(t, err, "b.json: b: input:1:3: Cannot query field")

	for _, c := range []struct {
		trusted TrustedDocuments
		says    string
	}{
		{TrustedDocuments{Files: filepath.Join(t.TempDir(), "*.json")}, "TRUSTED_DOCUMENTS: there is no file "},
		{TrustedDocuments{Files: "[.json"}, `TRUSTED_DOCUMENTS: "[.json" is no pattern: syntax error in pattern`},
		{TrustedDocuments{Only: true}, "TRUSTED_DOCUMENTS_ONLY: required are TRUSTED_DOCUMENTS, or nothing would be executed"},
		{TrustedDocuments{Files: t.TempDir()}, "TRUSTED_DOCUMENTS: read "},
		{TrustedDocuments{Files: files[:len(files)-6] + "a.json", Pages: []string{`{ nope }`}}, "a document of the program's pages: "},
	} {
		_, err := New(Deps{Schema: schema}, &Config{Trusted: c.trusted})
		require.ErrorContains(t, err, c.says)
	}
}

// No message of production names what a client has not named.
func TestSuggestionsAreForDevelopment(t *testing.T) {
	t.Parallel()
	quiet, loud := setup(t), setup(t, func(_ *Deps, c *Config) { c.Introspection = true })
	for _, document := range []string{
		`{ okk }`,
		`{ thread }`,
		`{ thread(idd: 1) { id } }`,
		`{ ok @skip(iff: true) }`,
		`{ threads(where: {titel: "x"}) { totalCount } }`,
		`{ threads(orderBy: TITEL) { totalCount } }`,
		`{ threads(orderBy: "TITLE") { totalCount } }`,
		`{ ...F } fragment F on Querry { ok }`,
		`{ nodes(ids: [1]) { name } }`,
	} {
		messages := func(b *bundle) string {
			a := b.query(t, document, nil)
			require.NotEmpty(t, a.Errors, document)
			return a.raw
		}
		require.Contains(t, messages(loud), "Did you mean", document)
		require.NotContains(t, messages(quiet), "Did you mean", document)
	}
}

func TestTheCharsetOfBodies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.resolvers["rename"] = func(context.Context) (any, error) { return "Übergrößenträger 🚀", nil }
	for _, contentType := range []string{"application/json", "application/json; charset=utf-8", `application/json;charset="UTF-8"`, "Application/JSON"} {
		a := b.do(t, post(`{"query": "mutation { rename(id: \"Ü\", expectedVersion: 1) }"}`, "Content-Type", contentType))
		require.Equal(t, 200, a.Status, contentType)
		require.JSONEq(t, `{"rename": "Übergrößenträger 🚀"}`, string(a.Data))
	}
	for _, contentType := range []string{"application/json; charset=utf-16", "application/graphql", "text/plain", "multipart/form-data; boundary=x", "application/json; charset"} {
		a := b.do(t, post(`{"query": "{ ok }"}`, "Content-Type", contentType))
		require.Equal(t, 415, a.Status, contentType)
		require.Equal(t, "BAD_USER_INPUT", code(t, a))
	}
}
