package server

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
)

// discard is an answer that nobody reads; httptest's would copy the header.
type discard struct {
	header http.Header
	status int
}

func (w *discard) Header() http.Header         { return w.header }
func (w *discard) Write(p []byte) (int, error) { return len(p), nil }
func (w *discard) WriteHeader(status int)      { w.status = status }

// BenchmarkQuery measures what the server adds to an operation that costs nothing, where any number may run, and where it takes a turn.
func BenchmarkQuery(b *testing.B) {
	for name, turns := range map[string]int{"any number": 0, "in turn": 8} {
		b.Run(name, func(b *testing.B) { benchmarkQuery(b, &Config{Load: Load{Turns: turns}}) })
	}
}

func benchmarkQuery(b *testing.B, cfg *Config) {
	schema := gqlparser.MustLoadSchema(&ast.Source{Input: sdl})
	answer := []byte(`{"ok":"fine"}`)
	s, err := New(Deps{Schema: &graphql.ExecutableSchemaMock{
		SchemaFunc: func() *ast.Schema { return schema },
		ExecFunc: func(context.Context) graphql.ResponseHandler {
			return func(context.Context) *graphql.Response { return &graphql.Response{Data: answer} }
		},
	}}, cfg)
	require.NoError(b, err)
	body := strings.NewReader(`{"query": "{ ok }"}`)
	r := httptest.NewRequest(http.MethodPost, "/graphql", nil)
	r.Header.Set("Content-Type", "application/json")
	b.ReportAllocs()
	for b.Loop() {
		_, _ = body.Seek(0, io.SeekStart)
		r.Body = io.NopCloser(body)
		w := discard{header: http.Header{}}
		s.ServeHTTP(&w, r)
		if w.status != http.StatusOK {
			b.Fatal(w.status)
		}
	}
}
