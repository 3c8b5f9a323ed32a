package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/server"
)

// TestGraphQLOverHTTP runs the audits of the package graphql-http. They introspect, so it is in development.
func TestGraphQLOverHTTP(t *testing.T) {
	t.Parallel()
	a := start(t, Config{DatabaseURL: dbtest.URL(t), Development: true, RateLimit: -1})
	runNode(t, "http.test.mjs", "BASE_URL="+local(a))
}

// TestPersistedDocumentsByClients runs Apollo Client's link for persisted queries, and Relay with ids in place of documents.
func TestPersistedDocumentsByClients(t *testing.T) {
	t.Parallel()
	manifest := filepath.Join(t.TempDir(), "persisted.json")
	require.NoError(t, os.WriteFile(manifest, []byte(`{
		"5f2b0c1d": "query MeQuery {\n  me {\n    id\n  }\n}\n",
		"77aa01de": "subscription ThreadsSubscription(\n  $since: Cursor\n) {\n  threadsChanged(since: $since) {\n    kind\n    cursor\n  }\n}\n"
	}`), 0o600))
	url := dbtest.URL(t)
	every := start(t, Config{DatabaseURL: url, RateLimit: -1})
	trusted := Config{DatabaseURL: url, RateLimit: -1}
	trusted.Server.Trusted = server.TrustedDocuments{Files: manifest, Only: true}
	runNode(t, "documents.test.mjs", "BASE_URL="+local(every), "TRUSTED_URL="+local(start(t, trusted)), "MANIFEST="+manifest)
}

// A manifest that the schema does not know keeps the program from starting.
func TestManifestsAreChecked(t *testing.T) {
	t.Parallel()
	manifest := filepath.Join(t.TempDir(), "persisted.json")
	require.NoError(t, os.WriteFile(manifest, []byte(`{"a1": "{ nothing }"}`), 0o600))
	cfg := settings(Config{DatabaseURL: dbtest.URL(t)})
	cfg.Server.Trusted.Files = manifest
	_, err := Start(t.Context(), cfg)
	require.EqualError(t, err, "TRUSTED_DOCUMENTS: "+manifest+`: a1: input:1:3: Cannot query field "nothing" on type "Query".`)
}
