package codegen

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// program is what the program is made of.
var program = []string{"cmd", "ent", "graph", "internal", "migrations", "web/web.go", "web/account.go", "web/account", "web/playground/icon.svg", "web/dist"}

// TestRegenerate deletes all generated code and generates again, with the command as it stands in the repository: the
// same tree.
func TestRegenerate(t *testing.T) {
	t.Parallel()
	m := copyModule(t, program...)
	var removed int
	for _, dir := range []string{entDir, graphDir} {
		for name, text := range m.files(dir) {
			if generated([]byte(text)) || name == "graph/ent.graphql" {
				m.remove(name)
				removed++
			}
		}
	}
	require.Greater(t, removed, 20)
	m.run("go", "run", "./cmd/generate")
	for _, dir := range []string{entDir, graphDir, migrationsDir} {
		want := copied(t, dir)
		got := m.files(dir)
		require.Equal(t, names(want), names(got), "run make generate")
		for name := range want {
			require.Equal(t, want[name], got[name], "%s: run make generate", name)
		}
	}
}

// TestNothingToDo holds that a second run without a change writes nothing, and that a change of any side is seen.
func TestNothingToDo(t *testing.T) {
	t.Parallel()
	generator := buildGenerator(t)
	m := bareModule(t)
	schema, err := os.ReadFile("testdata/plain/schema/note.go")
	require.NoError(t, err)
	m.write("ent/schema/note.go", schema)
	const rules = `Note has no rules: administrators alone see it \(entity\.Access in ent/schema/note\.go\)\n`
	require.Regexp(t, `^wrote migrations/\d{14}_init.sql\n`+rules+`$`, m.run(generator))
	want, times := m.files("."), m.times()

	require.Empty(t, m.run(generator))
	require.Equal(t, want, m.files("."))
	require.Equal(t, times, m.times())

	m.write("graph/note_gen.go", []byte(want["graph/note_gen.go"]+"\n// Edited.\n"))
	m.remove("ent/note.go")
	require.Regexp(t, `^`+rules+`$`, m.run(generator))
	require.Equal(t, want, m.files("."))

	m.write("ent/schema/note.go", bytes.Replace(schema, []byte(`"body"`), []byte(`"text"`), 1))
	require.Regexp(t, `^wrote migrations/\d{14}_alter_notes.sql\nATTENTION: it loses the data of column notes.body\n`+rules+`$`, m.run(generator))
	require.Contains(t, m.read("graph/ent.graphql"), "text: String!")
}

// times returns when each file of the module was written.
func (m module) times() map[string]time.Time {
	m.t.Helper()
	times := map[string]time.Time{}
	for name := range m.files(".") {
		info, err := os.Stat(m.path(name))
		require.NoError(m.t, err)
		times[name] = info.ModTime()
	}
	return times
}

// copied returns the repository's own files in a folder.
func copied(t *testing.T, dir string) map[string]string {
	t.Helper()
	return copyModule(t, dir).files(dir)
}

// TestNewEntity goes the whole way: a schema file from the scaffold, generation, the program, its API.
func TestNewEntity(t *testing.T) {
	t.Parallel()
	m := copyModule(t, program...)
	before := m.migrations()
	m.run("go", "run", "./cmd/generate", "entity", "-name", "Task", "-fields", "title:string done:bool thread:Thread")
	m.run("go", "run", "./cmd/generate")
	require.Len(t, m.migrations(), len(before)+1)
	m.run("go", "build", "-o", "bin/godstack", "./cmd/godstack")
	s := m.serve(dbtest.Empty(t))

	var threads struct {
		Threads struct {
			Edges []struct{ Node struct{ ID string } }
		}
	}
	s.query(`{ threads(first: 2) { edges { node { id } } } }`, nil, &threads)
	thread, other := threads.Threads.Edges[0].Node.ID, threads.Threads.Edges[1].Node.ID

	type task struct {
		ID, Title string
		Version   int
		Done      bool
		Thread    struct{ ID string }
	}
	const fields = `{ id version title done thread { id } }`
	var created struct{ CreateTask task }
	s.query(`mutation($in: CreateTaskInput!) { createTask(input: $in) `+fields+` }`, vars{"in": vars{"title": "Write", "threadID": thread}}, &created)
	first := created.CreateTask
	require.Regexp(t, `^task_[0-9a-z]{26}$`, first.ID)
	first.ID = ""
	require.Equal(t, task{Title: "Write", Version: 1, Thread: struct{ ID string }{thread}}, first)
	id := created.CreateTask.ID

	stream := s.subscribe(`subscription($id: ID!) { taskChanged(id: $id) { kind version task { title done } } }`, vars{"id": id})
	type event struct {
		Kind    string
		Version int
		Task    struct {
			Title string
			Done  bool
		}
	}
	next := func() event {
		var data struct{ TaskChanged event }
		stream(&data)
		return data.TaskChanged
	}
	snapshot := next()
	require.Equal(t, "SNAPSHOT", snapshot.Kind)
	require.Equal(t, "Write", snapshot.Task.Title)

	const update = `mutation($id: ID!, $version: Int!, $in: UpdateTaskInput!) { updateTask(id: $id, expectedVersion: $version, input: $in) ` + fields + ` }`
	var updated struct{ UpdateTask task }
	s.query(update, vars{"id": id, "version": 1, "in": vars{"done": true}}, &updated)
	require.Equal(t, 2, updated.UpdateTask.Version)
	require.True(t, updated.UpdateTask.Done)
	change := next()
	require.Equal(t, "UPDATED", change.Kind)
	require.Equal(t, 2, change.Version)
	require.True(t, change.Task.Done)

	require.Equal(t, "CONFLICT", s.refused(update, vars{"id": id, "version": 1, "in": vars{"title": "Stale"}}))
	require.Equal(t, "BAD_USER_INPUT", s.refused(update, vars{"id": id, "version": 2, "in": vars{"title": strings.Repeat("x", 201)}}))

	var list struct {
		Mine, Others struct {
			TotalCount int
			Edges      []struct{ Node task }
		}
	}
	s.query(`query($thread: ID!, $other: ID!) {
		mine: tasks(where: { done: true, hasThreadWith: [{ id: $thread }] }) { totalCount edges { node `+fields+` } }
		others: tasks(where: { threadID: $other }) { totalCount edges { node `+fields+` } }
	}`, vars{"thread": thread, "other": other}, &list)
	require.Equal(t, 1, list.Mine.TotalCount)
	require.Equal(t, updated.UpdateTask, list.Mine.Edges[0].Node)
	require.Zero(t, list.Others.TotalCount)

	var records struct {
		Records struct {
			Tasks              []task
			Threads            []struct{ ID string }
			Unchanged, Missing []string
		}
	}
	const missing = "task_7zzzzzzzzzzzzzzzzzzzzzzzzz"
	refs := `query($refs: [RecordRef!]!) { records(refs: $refs) { tasks ` + fields + ` threads { id } unchanged missing } }`
	s.query(refs, vars{"refs": []vars{{"id": id, "knownVersion": 1}, {"id": thread, "knownVersion": 1}, {"id": missing}}}, &records)
	require.Equal(t, []task{updated.UpdateTask}, records.Records.Tasks)
	require.Equal(t, []string{thread}, records.Records.Unchanged)
	require.Equal(t, []string{missing}, records.Records.Missing)

	var deleted struct {
		DeleteTask struct {
			DeletedID string
			Version   int
		}
	}
	s.query(`mutation($id: ID!) { deleteTask(id: $id, expectedVersion: 2) { deletedId version } }`, vars{"id": id}, &deleted)
	require.Equal(t, id, deleted.DeleteTask.DeletedID)
	gone := next()
	require.Equal(t, "DELETED", gone.Kind)
	require.Equal(t, deleted.DeleteTask.Version, gone.Version)
	var task2 struct{ Task *task }
	s.query(`query($id: ID!) { task(id: $id) `+fields+` }`, vars{"id": id}, &task2)
	require.Nil(t, task2.Task)
}

type vars map[string]any

// server is the running program.
type server struct {
	t   *testing.T
	url string

	authorization string // of the demonstration data's administrator
}

// serve starts the program on a database with demonstration data, and ends it with the test.
func (m module) serve(database string) server {
	m.t.Helper()
	env := append(os.Environ(), "DATABASE_URL="+database, "ADDR=127.0.0.1:0", "ENV=development")
	seed := exec.CommandContext(m.t.Context(), m.path("bin/godstack"), "seed")
	seed.Dir, seed.Env = m.dir, env
	out, err := seed.CombinedOutput()
	require.NoError(m.t, err, "%s", out)

	cmd := exec.Command(m.path("bin/godstack"), "serve")
	cmd.Dir, cmd.Env = m.dir, env
	stdout, err := cmd.StdoutPipe()
	require.NoError(m.t, err)
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(m.t, cmd.Start())
	m.t.Cleanup(func() {
		require.NoError(m.t, cmd.Process.Signal(os.Interrupt))
		_, _ = io.Copy(io.Discard, stdout)
		require.NoError(m.t, cmd.Wait(), &log)
		if m.t.Failed() {
			m.t.Log(log.String())
		}
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if url := regexp.MustCompile(`http://\S+/graphql`).FindString(lines.Text()); url != "" {
			s := server{t: m.t, url: url}
			var data struct{ Login struct{ AccessToken string } }
			s.query(`mutation { login(input: { login: "ada", password: "correct-horse-battery" }) { accessToken } }`, nil, &data)
			s.authorization = "Bearer " + data.Login.AccessToken
			return s
		}
	}
	require.Fail(m.t, "the program did not start")
	return server{}
}

type response struct {
	Data   json.RawMessage
	Errors []struct {
		Message    string
		Extensions struct{ Code string }
	}
}

func (s server) post(query string, v vars) response {
	s.t.Helper()
	body, err := json.Marshal(vars{"query": query, "variables": v})
	require.NoError(s.t, err)
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url, bytes.NewReader(body))
	require.NoError(s.t, err)
	req.Header.Set("Content-Type", "application/json")
	if s.authorization != "" {
		req.Header.Set("Authorization", s.authorization)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, resp.Body.Close()) }()
	var r response
	require.NoError(s.t, json.NewDecoder(resp.Body).Decode(&r))
	return r
}

// query executes an operation that must succeed.
func (s server) query(query string, v vars, data any) {
	s.t.Helper()
	r := s.post(query, v)
	require.Empty(s.t, r.Errors, query)
	require.NoError(s.t, json.Unmarshal(r.Data, data))
}

// refused executes an operation that must not, and returns the code of its one error.
func (s server) refused(query string, v vars) string {
	s.t.Helper()
	r := s.post(query, v)
	require.Len(s.t, r.Errors, 1, query)
	return r.Errors[0].Extensions.Code
}

// subscribe opens a stream; the function it returns waits for the next event's data.
func (s server) subscribe(query string, v vars) func(data any) {
	s.t.Helper()
	ctx := s.t.Context()
	c, resp, err := websocket.Dial(ctx, s.url, &websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}})
	require.NoError(s.t, err)
	if resp.Body != nil {
		defer func() { _ = resp.Body.Close() }()
	}
	s.t.Cleanup(func() { _ = c.CloseNow() })
	type message struct {
		ID      string          `json:"id,omitempty"`
		Type    string          `json:"type"`
		Payload json.RawMessage `json:"payload,omitempty"`
	}
	receive := func() (m message) {
		for {
			require.NoError(s.t, wsjson.Read(ctx, c, &m))
			if m.Type != "ping" && m.Type != "pong" {
				return m
			}
		}
	}
	credentials, err := json.Marshal(map[string]string{"authorization": s.authorization})
	require.NoError(s.t, err)
	require.NoError(s.t, wsjson.Write(ctx, c, message{Type: "connection_init", Payload: credentials}))
	require.Equal(s.t, "connection_ack", receive().Type)
	payload, err := json.Marshal(vars{"query": query, "variables": v})
	require.NoError(s.t, err)
	require.NoError(s.t, wsjson.Write(ctx, c, message{ID: "1", Type: "subscribe", Payload: payload}))
	return func(data any) {
		m := receive()
		require.Equal(s.t, "next", m.Type, "%s", m.Payload)
		var r response
		require.NoError(s.t, json.Unmarshal(m.Payload, &r))
		require.Empty(s.t, r.Errors)
		require.NoError(s.t, json.Unmarshal(r.Data, data))
	}
}
