package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

// replayable is an answer to an operation with an idempotency key.
type replayable struct {
	Data       json.RawMessage
	Errors     []struct{ Message string }
	Extensions struct{ Replayed bool }
}

// once posts an operation with an idempotency key.
func (c client) once(key, document string, vars map[string]any) (a replayable, err error) {
	body, err := json.Marshal(map[string]any{"query": document, "variables": vars})
	if err != nil {
		return a, err
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+c.addr+"/graphql", bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Idempotency-Key", key)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// A program is killed in the midst of mutations with a key: between commit and answer, and wherever it happens to be. Its client sends the
// same again to another, and each has one effect. What was committed is answered as it was then.
func TestKilledBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	const create = `mutation($s: String!) { createThread(input: {subject: $s}) { id version subject } }`
	url := dbtest.URL(t)
	_, stderr, err := createUser(t, url, "ada", password)
	require.NoError(t, err, stderr)
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = db.Close(context.Background()) }()
	environ := inProduction(url)

	var lost atomic.Pointer[func()] // what to do with an answer instead of passing it on
	p := newProxy(t, func() (pass bool) {
		kill := lost.Load()
		if kill != nil {
			(*kill)() // the answer is here: it was committed
		}
		return kill == nil
	})
	_, other := serve(t, environ...)
	c := client{addr: other}
	c.token = c.must(t, "login", login, map[string]any{"login": "ada", "password": password})["accessToken"].(string)
	before := 0
	for i, delay := range []time.Duration{time.Minute, 0, time.Millisecond, 3 * time.Millisecond, 6 * time.Millisecond, time.Minute} {
		cmd, addr := serve(t, environ...)
		p.lead(addr)
		through := client{addr: p.Addr().String(), token: c.token}
		through.must(t, "me", `{ me { id } }`, nil) // it is warm
		kill := sync.OnceFunc(func() { _ = cmd.Process.Kill() })
		lost.Store(&kill)
		early := time.AfterFunc(delay, kill)
		key, vars := fmt.Sprint("key-", i), map[string]any{"s": fmt.Sprint("thread ", i)}
		_, err := through.once(key, create, vars)
		require.Error(t, err, "the answer is lost")
		early.Stop()
		kill()
		require.Error(t, cmd.Wait())
		require.Equal(t, syscall.SIGKILL, cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
		lost.Store(nil)

		// At once: what Postgres still does for the one that was killed is waited for.
		a, err := c.once(key, create, vars)
		require.NoError(t, err)
		require.Empty(t, a.Errors)
		var id, subject string
		var version, n int
		require.NoError(t, db.QueryRow(t.Context(), `SELECT count(*) FROM threads`).Scan(&n))
		require.Equal(t, i+1, n, "killed after %s", delay)
		var data struct {
			CreateThread struct {
				ID, Subject string
				Version     int
			}
		}
		require.NoError(t, json.Unmarshal(a.Data, &data))
		require.NoError(t, db.QueryRow(t.Context(), `SELECT subject, version FROM threads ORDER BY created_at DESC LIMIT 1`).Scan(&subject, &version))
		id = data.CreateThread.ID
		require.NotEmpty(t, id)
		require.Equal(t, []any{subject, version}, []any{data.CreateThread.Subject, data.CreateThread.Version})
		if a.Extensions.Replayed {
			before++
		}
		if delay == time.Minute {
			require.True(t, a.Extensions.Replayed, "it was committed")
		}
		again, err := c.once(key, create, vars)
		require.NoError(t, err)
		require.True(t, again.Extensions.Replayed)
		require.Equal(t, string(a.Data), string(again.Data))
	}
	t.Logf("killed 6 times, %d of them after the commit", before)
}
