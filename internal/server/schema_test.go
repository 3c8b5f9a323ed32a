package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sdl is the API's shape in small.
const sdl = `
scalar Time
interface Node { id: ID! }
type User implements Node { id: ID! name: String friends: [User!] tags: [String!] }
type Thread implements Node { id: ID! title: String author: User members: [User!] messages(first: Int = 5, last: Int): MessageConnection }
type ThreadEdge { node: Thread }
type ThreadConnection { edges: [ThreadEdge!]! totalCount: Int! }
type Message implements Node { id: ID! text: String thread: Thread }
type MessageEdge { node: Message }
type MessageConnection { edges: [MessageEdge!]! }
type RecordMap { threads: [Thread!]! messages: [Message!]! }
input Where { title: String version: Int in: [Float!] and: [Where!] }
enum Order { TITLE }
type Query {
  ok: String
  fail: String
  crash: String
  whoami: String
  at(time: Time): String
  thread(id: ID!): Thread
  threads(first: Int, last: Int, where: Where, orderBy: [Order!]): ThreadConnection
  nodes(ids: [ID!]!): [Node]!
  records(refs: [ID!]!): RecordMap!
  users: [User!]!
}
type Mutation { rename(id: ID!, expectedVersion: Int!, where: Where): String }
type ThreadChange { kind: String fields: [String!] thread: Thread }
type Subscription { ticks: String whoami: String threadChanged(id: ID!): ThreadChange threadsChanged(where: Where): ThreadChange }
`

// resolver answers a root field with a string, or with null.
type resolver func(ctx context.Context) (any, error)

// bundle is a server over a schema whose root fields are functions. It executes them as generated code does,
// but for nested selections: a string stands for those.
type bundle struct {
	*Server
	schema    *ast.Schema
	resolvers map[string]resolver
	begin     func(context.Context) error // what subscriptions begin with
	log       *logBuffer
}

func setup(t *testing.T, configure ...func(*Deps, *Config)) *bundle {
	t.Helper()
	b := &bundle{
		schema:    gqlparser.MustLoadSchema(&ast.Source{Input: sdl}),
		resolvers: map[string]resolver{},
		log:       &logBuffer{},
	}
	b.resolvers["crash"] = func(context.Context) (any, error) { panic("secret state") }
	deps := Deps{Schema: b.executable(), Logger: slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	var cfg Config
	for _, f := range configure {
		f(&deps, &cfg)
	}
	s, err := New(deps, &cfg)
	require.NoError(t, err)
	b.Server = s
	return b
}

func (b *bundle) executable() graphql.ExecutableSchema {
	return &graphql.ExecutableSchemaMock{
		SchemaFunc: func() *ast.Schema { return b.schema },
		ExecFunc: func(ctx context.Context) graphql.ResponseHandler {
			op := graphql.GetOperationContext(ctx)
			root := map[ast.Operation]string{ast.Query: "Query", ast.Mutation: "Mutation", ast.Subscription: "Subscription"}[op.Operation.Operation]
			fields := graphql.CollectFields(op, op.Operation.SelectionSet, []string{root})
			once := op.Operation.Operation != ast.Subscription
			if b.begin != nil && op.Operation.Operation == ast.Subscription {
				if err := b.begin(ctx); err != nil {
					graphql.AddError(ctx, err)
					return nil
				}
			}
			done := false
			return func(ctx context.Context) *graphql.Response {
				if done {
					return nil
				}
				done = once
				data := map[string]any{}
				for _, f := range fields {
					v, stop := b.resolve(ctx, op, root, f)
					if stop {
						return nil
					}
					data[f.Alias] = v
				}
				out, _ := json.Marshal(data)
				return &graphql.Response{Data: out}
			}
		},
	}
}

// errStreamEnds is what a subscription's resolver ends its stream with.
var errStreamEnds = errors.New("the stream ends")

func (b *bundle) resolve(ctx context.Context, op *graphql.OperationContext, object string, f graphql.CollectedField) (v any, stop bool) {
	fc := &graphql.FieldContext{Object: object, Field: f}
	ctx = graphql.WithFieldContext(ctx, fc)
	defer func() {
		if r := recover(); r != nil {
			op.Error(ctx, op.Recover(ctx, r))
		}
	}()
	args, err := decodeArguments(ctx, f.ArgumentMap(op.Variables))
	if err != nil {
		op.Error(ctx, err)
		return nil, false
	}
	fc.Args = args
	resolve := b.resolvers[f.Name]
	if resolve == nil {
		resolve = func(context.Context) (any, error) { return "fine", nil }
	}
	v, err = resolve(ctx)
	if errors.Is(err, errStreamEnds) {
		return nil, true
	}
	if err != nil {
		op.Error(ctx, graphql.AddFieldLocationToError(ctx, err))
		return nil, false
	}
	return v, false
}

// decodeArguments does for the one argument of a custom scalar what generated code does for all.
func decodeArguments(ctx context.Context, raw map[string]any) (map[string]any, error) {
	if v, ok := raw["time"]; ok {
		ctx = graphql.WithPathContext(ctx, graphql.NewPathWithField("time"))
		if _, err := graphql.UnmarshalTime(v); err != nil {
			return nil, graphql.ErrorOnPath(ctx, err)
		}
	}
	return raw, nil
}

// answer is a response of the server.
type answer struct {
	Status     int
	Header     http.Header
	Data       json.RawMessage
	Errors     []apiError
	Extensions map[string]any
	raw        string
}

type apiError struct {
	Message    string
	Path       []any
	Extensions map[string]any
}

func (e apiError) code() string {
	code, _ := e.Extensions["code"].(string)
	return code
}

// do sends a request and decodes the answer, where it is JSON.
func (b *bundle) do(t *testing.T, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	a := answer{Status: w.Code, Header: w.Header(), raw: w.Body.String()}
	if strings.Contains(w.Header().Get("Content-Type"), "json") {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a), a.raw)
	}
	return a
}

// query posts an operation.
func (b *bundle) query(t *testing.T, document string, variables map[string]any, header ...string) answer {
	t.Helper()
	body, err := json.Marshal(map[string]any{"query": document, "variables": variables})
	require.NoError(t, err)
	return b.do(t, post(string(body), header...))
}

// failure is query where one error is expected.
func (b *bundle) failure(t *testing.T, document string, variables map[string]any) apiError {
	t.Helper()
	a := b.query(t, document, variables)
	require.Len(t, a.Errors, 1, a.raw)
	return a.Errors[0]
}

// post makes a request; header holds names and values in turn.
func post(body string, header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/graphql", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// logBuffer is a log that tests read while it is written.
type logBuffer struct {
	mu  sync.Mutex // protects buf
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// entries are the records with this message.
func (l *logBuffer) entries(t *testing.T, message string) []map[string]any {
	t.Helper()
	var found []map[string]any
	for line := range strings.Lines(l.String()) {
		var e map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		if e["msg"] == message {
			found = append(found, e)
		}
	}
	return found
}

// partial are the errors of an answer, of field a.
func partial(message string) gqlerror.List {
	return gqlerror.List{gqlerror.WrapPath(ast.Path{ast.PathName("a")}, errors.New(message))}
}
