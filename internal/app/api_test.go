package app

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
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
