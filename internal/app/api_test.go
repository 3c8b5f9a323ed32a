package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// result is an answer of the API.
type result struct {
	Data   map[string]any
	Errors []struct {
		Message    string
		Extensions map[string]any
	}
}

// query posts an operation to a program.
func query(t *testing.T, a *App, document string, vars map[string]any) result {
	t.Helper()
	body, err := json.Marshal(map[string]any{"query": document, "variables": vars})
	require.NoError(t, err)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post(a.URL()+"/graphql", "application/json", strings.NewReader(string(body)))
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var r result
	require.NoError(t, json.Unmarshal(raw, &r), string(raw))
	return r
}

// frame is a message of graphql-transport-ws.
type frame struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// stream is a subscription to a thread.
type stream struct {
	t    *testing.T
	conn *websocket.Conn
	ctx  context.Context
}

func subscribe(t *testing.T, a *App, id string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	conn, _, err := websocket.Dial(ctx, strings.Replace(a.URL(), "http", "ws", 1)+"/graphql",
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"graphql-transport-ws"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	s := &stream{t, conn, ctx}
	require.NoError(t, wsjson.Write(ctx, conn, frame{Type: "connection_init"}))
	require.Equal(t, "connection_ack", s.receive().Type)
	payload, err := json.Marshal(map[string]any{
		"query":     `subscription($id: ID!) { threadChanged(id: $id) { kind version thread { subject } } }`,
		"variables": map[string]any{"id": id},
	})
	require.NoError(t, err)
	require.NoError(t, wsjson.Write(ctx, conn, frame{ID: "1", Type: "subscribe", Payload: payload}))
	return s
}

func (s *stream) receive() (f frame) {
	s.t.Helper()
	for f.Type == "" || f.Type == "ping" {
		f = frame{}
		require.NoError(s.t, wsjson.Read(s.ctx, s.conn, &f))
	}
	return f
}

// expect compares the next event.
func (s *stream) expect(want string) {
	s.t.Helper()
	f := s.receive()
	require.Equal(s.t, "next", f.Type)
	require.JSONEq(s.t, `{"data": {"threadChanged": `+want+`}}`, string(f.Payload))
}

const (
	createThread = `mutation { createThread(input: {subject: "one"}) { id version owner { username } } }`
	updateThread = `mutation($id: ID!, $v: Int!) { updateThread(id: $id, expectedVersion: $v, input: {subject: "two"}) { version } }`
	deleteThread = `mutation($id: ID!, $v: Int!) { deleteThread(id: $id, expectedVersion: $v) { version } }`
)

// What is written by one program is delivered by all on the same database, and refused by all where it comes late.
func TestProgramsShareADatabase(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	one := start(t, Config{DatabaseURL: url, Development: true})
	two := start(t, Config{DatabaseURL: url, Development: true})
	r := query(t, one, `mutation { createUser(input: {email: "ada@example.com", username: "ada", name: "Ada"}) { id } }`, nil)
	require.Empty(t, r.Errors)

	r = query(t, one, createThread, nil)
	require.Empty(t, r.Errors)
	thread := r.Data["createThread"].(map[string]any)
	require.Equal(t, map[string]any{"username": "ada"}, thread["owner"])
	id := thread["id"].(string)
	near, far := subscribe(t, one, id), subscribe(t, two, id)
	for _, s := range []*stream{near, far} {
		s.expect(`{"kind": "SNAPSHOT", "version": 1, "thread": {"subject": "one"}}`)
	}

	require.Empty(t, query(t, one, updateThread, map[string]any{"id": id, "v": 1}).Errors)
	for _, s := range []*stream{near, far} {
		s.expect(`{"kind": "UPDATED", "version": 2, "thread": {"subject": "two"}}`)
	}
	r = query(t, two, updateThread, map[string]any{"id": id, "v": 1})
	require.Len(t, r.Errors, 1)
	require.Equal(t, "CONFLICT", r.Errors[0].Extensions["code"])
	require.EqualValues(t, 2, r.Errors[0].Extensions["currentVersion"])

	require.Empty(t, query(t, two, deleteThread, map[string]any{"id": id, "v": 2}).Errors)
	for _, s := range []*stream{near, far} {
		s.expect(`{"kind": "DELETED", "version": 3, "thread": null}`)
		require.Equal(t, "complete", s.receive().Type)
	}
}

// A program that stops closes its sockets, and what it acknowledged is there for the next.
func TestAProgramStopsWithSubscribers(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	a := start(t, Config{DatabaseURL: url, Development: true})
	require.Empty(t, query(t, a, `mutation { createUser(input: {email: "ada@example.com", username: "ada", name: "Ada"}) { id } }`, nil).Errors)
	id := query(t, a, createThread, nil).Data["createThread"].(map[string]any)["id"].(string)
	s := subscribe(t, a, id)
	s.expect(`{"kind": "SNAPSHOT", "version": 1, "thread": {"subject": "one"}}`)
	require.NoError(t, a.Close())
	for {
		if _, _, err := s.conn.Read(s.ctx); err != nil {
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			break
		}
	}
	a = start(t, Config{DatabaseURL: url})
	r := query(t, a, fmt.Sprintf(`{ thread(id: %q) { subject version } }`, id), nil)
	require.Equal(t, map[string]any{"subject": "one", "version": 1.0}, r.Data["thread"])
}
