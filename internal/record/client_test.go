package record_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/entity"
	"godstack/internal/record"
)

// answer is a response of the API.
type answer struct {
	Status int
	Data   json.RawMessage
	Errors []apiError
	raw    string
}

type apiError struct {
	Message    string
	Path       []any
	Extensions map[string]any
}

func (e apiError) code() string { return fmt.Sprint(e.Extensions["code"]) }

// path is the error's path with dots.
func (e apiError) path() string {
	parts := make([]string, len(e.Path))
	for i, p := range e.Path {
		parts[i] = fmt.Sprint(p)
	}
	return strings.Join(parts, ".")
}

// post sends a body of JSON as a viewer, "" for ada; a role may follow the viewer's id.
func (b *bundle) post(ctx context.Context, as, body string) (a answer, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	r.Header.Set("Content-Type", "application/json")
	if as != "" {
		r.Header.Set(viewerHeader, as)
	}
	resp, err := b.http.Do(r)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // numbers as they are written
	err = d.Decode(&a)
	a.Status, a.raw = resp.StatusCode, string(raw)
	return a, err
}

// decodeAnswer reads the answer in a socket's message.
func decodeAnswer(t testing.TB, payload json.RawMessage) (a answer) {
	t.Helper()
	require.NoError(t, json.Unmarshal(payload, &a), string(payload))
	return a
}

// encode makes a request's body; vars are names and values in turn.
func encode(document string, vars []any) string {
	m := map[string]any{}
	for i := 0; i < len(vars); i += 2 {
		v := vars[i+1]
		if id, ok := v.(record.ID); ok {
			v = id.String()
		}
		m[vars[i].(string)] = v
	}
	body, err := json.Marshal(map[string]any{"query": document, "variables": m})
	if err != nil {
		panic(err)
	}
	return string(body)
}

// do runs an operation as ada.
func (b *bundle) do(t testing.TB, document string, vars ...any) answer {
	t.Helper()
	a, err := b.post(t.Context(), "", encode(document, vars))
	require.NoError(t, err)
	return a
}

// as runs an operation as another viewer.
func (b *bundle) as(t testing.TB, who, document string, vars ...any) answer {
	t.Helper()
	a, err := b.post(t.Context(), who, encode(document, vars))
	require.NoError(t, err)
	return a
}

// ok is do where no error is expected.
func (b *bundle) ok(t testing.TB, document string, vars ...any) answer {
	t.Helper()
	a := b.do(t, document, vars...)
	require.Empty(t, a.Errors, a.raw)
	return a
}

// fails is do where one error is expected, and no data.
func (b *bundle) fails(t testing.TB, document string, vars ...any) apiError {
	t.Helper()
	a := b.do(t, document, vars...)
	require.Len(t, a.Errors, 1, a.raw)
	require.Contains(t, []string{"", "null"}, string(a.Data))
	return a.Errors[0]
}

// at returns the value at a path such as "threads.edges.0.node.id"; numbers as they are written.
func (a answer) at(t testing.TB, path string) any {
	t.Helper()
	var v any
	d := json.NewDecoder(bytes.NewReader(a.Data))
	d.UseNumber()
	require.NoError(t, d.Decode(&v))
	for part := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			require.Contains(t, x, part, "%s of %s", path, a.raw)
			v = x[part]
		case []any:
			i, err := strconv.Atoi(part)
			require.NoError(t, err)
			require.Less(t, i, len(x), "%s of %s", path, a.raw)
			v = x[i]
		default:
			require.Fail(t, "no "+path, a.raw)
		}
	}
	return v
}

func (a answer) text(t testing.TB, path string) string {
	t.Helper()
	return fmt.Sprint(a.at(t, path))
}

func (a answer) number(t testing.TB, path string) int {
	t.Helper()
	n, err := a.at(t, path).(json.Number).Int64()
	require.NoError(t, err)
	return int(n)
}

// texts are the values of a field of a list's nodes.
func (a answer) texts(t testing.TB, list, field string) []string {
	t.Helper()
	texts := []string{}
	for _, e := range a.at(t, list+".edges").([]any) {
		texts = append(texts, fmt.Sprint(e.(map[string]any)["node"].(map[string]any)[field]))
	}
	return texts
}

// sql runs a statement by hand, which no test counts.
func (b *bundle) sql(t testing.TB, statement string, args ...any) {
	t.Helper()
	_, err := b.Exec(context.WithValue(t.Context(), byHand{}, true), statement, args...)
	require.NoError(t, err)
}

// one reads one value by hand.
func one[T any](t testing.TB, b *bundle, query string, args ...any) T {
	t.Helper()
	rows, _ := b.Query(context.WithValue(t.Context(), byHand{}, true), query, args...)
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	require.NoError(t, err)
	return v
}

// user, thread and message make records by hand.
func (b *bundle) user(t testing.TB, name string) record.ID {
	t.Helper()
	id := record.ID{Prefix: "user", UUID: entity.NewID()}
	b.sql(t, `INSERT INTO users (id, email, username, name) VALUES ($1, $2, $3, $4)`, id.UUID, name+"@example.com", name, name)
	return id
}

func (b *bundle) thread(t testing.TB, subject string, members ...record.ID) record.ID {
	t.Helper()
	id := record.ID{Prefix: "thread", UUID: entity.NewID()}
	ids := make([]uuid.UUID, len(members))
	for i, m := range members {
		ids[i] = m.UUID
	}
	b.sql(t, `WITH t AS (INSERT INTO threads (id, subject, owner_id) VALUES ($1, $2, $3))
		INSERT INTO thread_members (thread_id, user_id) SELECT $1, unnest($4::uuid[])`, id.UUID, subject, b.ada.UUID, ids)
	return id
}

func (b *bundle) message(t testing.TB, thread record.ID, body string) record.ID {
	t.Helper()
	id := record.ID{Prefix: "message", UUID: entity.NewID()}
	b.sql(t, `INSERT INTO messages (id, body, thread_id, author_id) VALUES ($1, $2, $3, $4)`, id.UUID, body, thread.UUID, b.ada.UUID)
	return id
}

// threadID is the row's id.
func threadID(t testing.TB, id string) uuid.UUID {
	t.Helper()
	parsed, err := record.ParseID(id)
	require.NoError(t, err)
	require.Equal(t, "thread", parsed.Prefix)
	return parsed.UUID
}

// version and subject are what the database has of a thread.
func (b *bundle) version(t testing.TB, thread record.ID) int {
	t.Helper()
	return one[int](t, b, `SELECT version FROM threads WHERE id = $1`, thread.UUID)
}

func (b *bundle) subject(t testing.TB, thread record.ID) string {
	t.Helper()
	return one[string](t, b, `SELECT subject FROM threads WHERE id = $1`, thread.UUID)
}

// byHand marks the context of a test's own statements.
type byHand struct{}

// trace records the statements of a pool, in the pipelines in which they travel.
type trace struct {
	sent atomic.Int64 // writes to the network: round trips, for what fits into one buffer and is prepared

	mu        sync.Mutex
	pipelines [][]string // protected by mu
}

var (
	_ pgx.QueryTracer = (*trace)(nil)
	_ pgx.BatchTracer = (*trace)(nil)
)

func (tr *trace) add(ctx context.Context, pipeline ...string) context.Context {
	if ctx.Value(byHand{}) == nil {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.pipelines = append(tr.pipelines, pipeline)
	}
	return ctx
}

func (tr *trace) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	return tr.add(ctx, d.SQL)
}

func (tr *trace) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (tr *trace) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	var pipeline []string
	for _, q := range d.Batch.QueuedQueries {
		pipeline = append(pipeline, q.SQL)
	}
	return tr.add(ctx, pipeline...)
}

func (tr *trace) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (tr *trace) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// reset forgets what was recorded.
func (tr *trace) reset() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.pipelines = nil
	tr.sent.Store(0)
}

// statements are those recorded since reset.
func (tr *trace) statements() (pipelines [][]string, roundTrips int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.pipelines, int(tr.sent.Load())
}

// countedConn counts what it sends.
type countedConn struct {
	net.Conn
	sent *atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.sent.Add(1)
	return c.Conn.Write(p)
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
