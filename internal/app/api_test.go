package app

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/followtest"
)

const (
	createThread = `mutation { createThread(input: {subject: "one"}) { id version owner { username } } }`
	updateThread = `mutation($id: ID!, $v: Int!) { updateThread(id: $id, expectedVersion: $v, input: {subject: "two"}) { version } }`
	deleteThread = `mutation($id: ID!, $v: Int!) { deleteThread(id: $id, expectedVersion: $v) { version } }`
)

// What is written by one program is delivered by all on the same database, and refused by all where it comes late.
func TestProgramsShareADatabase(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "ada", "user")
	token := c.on(0).login(t, "ada").access
	one, two := c.on(0).as(token), c.on(1).as(token)

	thread := one.must(t, "createThread", createThread, nil).(map[string]any)
	require.Equal(t, map[string]any{"username": "ada"}, thread["owner"])
	id := thread["id"].(string)
	near, far := one.subscribe(t, id), two.subscribe(t, id)
	for _, s := range []*socket{near, far} {
		s.expect(`{"kind": "SNAPSHOT", "version": 1, "thread": {"subject": "one"}}`)
	}

	one.must(t, "updateThread", updateThread, map[string]any{"id": id, "v": 1})
	for _, s := range []*socket{near, far} {
		s.expect(`{"kind": "UPDATED", "version": 2, "thread": {"subject": "two"}}`)
	}
	a := two.query(t, updateThread, map[string]any{"id": id, "v": 1})
	require.Equal(t, "CONFLICT", a.code())
	require.EqualValues(t, 2, a.Errors[0].Extensions["currentVersion"])

	two.must(t, "deleteThread", deleteThread, map[string]any{"id": id, "v": 2})
	for _, s := range []*socket{near, far} {
		s.expect(`{"kind": "DELETED", "version": 3, "thread": null}`)
		require.Equal(t, "complete", s.receive().Type)
	}
}

// A deleted record is restored on one node, in the history that the other tells, and all who follow hear of it.
func TestProgramsDeleteAndRestore(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "ada", "user")
	token := c.on(0).login(t, "ada").access
	one, two := c.on(0).as(token), c.on(1).as(token)
	id := one.newThread(t)
	s := two.connect(t)
	s.operate("threads", followtest.Threads, nil)
	for f := s.change(); f.kind != "READY"; f = s.change() {
		require.Equal(t, "SNAPSHOT", f.kind)
	}
	s.operate("trash", `subscription { change: threadsChanged(deleted: ONLY) { kind recordId version cursor } }`, nil)
	s.expectChanges(change{op: "trash", kind: "READY"})
	s.operate("thread", followtest.Thread, map[string]any{"id": id})
	s.expectChanges(change{"thread", "SNAPSHOT", id, 1})

	one.must(t, "updateThread", updateThread, map[string]any{"id": id, "v": 1})
	s.expectChanges(change{"threads", "UPDATED", id, 2}, change{"thread", "UPDATED", id, 2})
	one.must(t, "deleteThread", deleteThread, map[string]any{"id": id, "v": 2})
	s.expectChanges(change{"threads", "DELETED", id, 3}, change{"trash", "CREATED", id, 3}, change{"thread", "DELETED", id, 3})
	list := `query($deleted: ShowDeleted) { threads(deleted: $deleted, where: {subject: "two"}) { totalCount } }`
	for deleted, n := range map[string]float64{"EXCLUDE": 0, "ONLY": 1, "INCLUDE": 1} {
		require.Equal(t, map[string]any{"totalCount": n}, two.must(t, "threads", list, map[string]any{"deleted": deleted}), deleted)
	}
	restore := `mutation($id: ID!, $v: Int!) { restoreThread(id: $id, expectedVersion: $v) { version subject } }`
	require.Equal(t, "CONFLICT", two.query(t, restore, map[string]any{"id": id, "v": 2}).code())
	require.Equal(t, map[string]any{"version": 4.0, "subject": "two"}, two.must(t, "restoreThread", restore, map[string]any{"id": id, "v": 3}))
	s.expectChanges(change{"threads", "CREATED", id, 4}, change{op: "trash", kind: "DELETED", id: id})

	history := one.must(t, "history", `query($id: ID!) { history(id: $id) { complete edges { node { version kind actor { username } old { field value } } } } }`,
		map[string]any{"id": id}).(map[string]any)
	require.Equal(t, true, history["complete"])
	var told []string
	for _, e := range history["edges"].([]any) {
		n := e.(map[string]any)["node"].(map[string]any)
		require.Equal(t, map[string]any{"username": "ada"}, n["actor"])
		told = append(told, fmt.Sprint(n["version"], " ", n["kind"], " ", len(n["old"].([]any))))
	}
	require.Equal(t, []string{"4 RESTORED 1", "3 DELETED 1", "2 UPDATED 1", "1 CREATED 0"}, told)
}

// A program that stops closes its sockets, and what it acknowledged is there for the next.
func TestAProgramStopsWithSubscribers(t *testing.T) {
	t.Parallel()
	cfg := Config{DatabaseURL: dbtest.URL(t), Development: true, Seed: true, PublicURL: publicURL}
	a := start(t, cfg)
	c := open(t, a)
	token := tokensOf(c.must(t, "login", login, map[string]any{"login": "ada", "password": SeedPassword})).access
	c = c.as(token)
	id := c.must(t, "createThread", createThread, nil).(map[string]any)["id"].(string)
	s := c.subscribe(t, id)
	s.expect(`{"kind": "SNAPSHOT", "version": 1, "thread": {"subject": "one"}}`)
	require.NoError(t, a.Close())
	for {
		if _, _, err := s.conn.Read(s.ctx); err != nil {
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			break
		}
	}
	// Who was signed in still is: the keys are the same.
	c = open(t, start(t, Config{DatabaseURL: cfg.DatabaseURL, PublicURL: publicURL})).as(token)
	require.Equal(t, map[string]any{"subject": "one", "version": 1.0}, c.must(t, "thread", fmt.Sprintf(`{ thread(id: %q) { subject version } }`, id), nil))
}
