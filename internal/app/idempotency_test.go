package app

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"
)

// once is an answer to an operation with an idempotency key.
type once struct {
	Data       json.RawMessage
	Errors     []struct{ Extensions map[string]any }
	Extensions struct{ Replayed bool }

	status int
}

// once posts an operation with a key, in the header or in the body, and reads the answer, which events may carry. Its errors are fit for
// goroutines.
func (c client) once(key, document string, inBody, events bool) (a once, err error) {
	m := map[string]any{"query": document}
	if inBody {
		m["extensions"] = map[string]any{"idempotencyKey": key}
	}
	body, err := json.Marshal(m)
	if err != nil {
		return a, err
	}
	req, err := http.NewRequest(http.MethodPost, c.url+"/graphql", bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.token)
	if !inBody {
		req.Header.Set("Idempotency-Key", key)
	}
	if events {
		req.Header.Set("Accept", "text/event-stream")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	a.status = resp.StatusCode
	if !events {
		return a, json.NewDecoder(resp.Body).Decode(&a)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: {"); ok {
			return a, json.Unmarshal([]byte("{"+data), &a)
		}
	}
	return a, lines.Err()
}

// Fifty who send one key at the same time to two nodes are given one answer, and there is one effect.
func TestAKeyOnTwoNodesAtOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	user := c.user(t, "ada", "user")
	token := c.on(0).login(t, "ada").access
	const n = 50
	answers, failed := make([]once, n), make([]error, n)
	atOnce(n, func(i int) {
		answers[i], failed[i] = c.on(i%2).as(token).once("order-7", createThread, i%3 == 0, i%10 == 9)
	})
	replayed := 0
	for i, a := range answers {
		require.NoError(t, failed[i])
		require.Empty(t, a.Errors)
		require.Equal(t, string(answers[0].Data), string(a.Data))
		if a.Extensions.Replayed {
			replayed++
		}
	}
	require.Contains(t, string(answers[0].Data), `"username":"ada"`)
	require.Equal(t, n-1, replayed)
	require.Equal(t, 1, c.count(t, `threads WHERE owner_id = $1`, user))
	require.Equal(t, 1, c.count(t, `changes WHERE entity = 'thread'`))
	require.Equal(t, 1, c.count(t, `idempotency_keys`))
}

// A key is one whether it comes over a socket, in a body or in a header, on whatever node, and in whatever session of its user.
func TestAKeyOverASocket(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "ada", "user")
	s := c.on(0).as(c.on(0).login(t, "ada").access).connect(t)
	over := func(s *socket) (a once) {
		t.Helper()
		payload, err := json.Marshal(map[string]any{"query": createThread, "extensions": map[string]any{"idempotencyKey": "k"}})
		require.NoError(t, err)
		require.NoError(t, wsjson.Write(s.ctx, s.conn, frame{ID: "1", Type: "subscribe", Payload: payload}))
		f := s.receive()
		require.Equal(t, "next", f.Type, string(f.Payload))
		require.NoError(t, json.Unmarshal(f.Payload, &a))
		require.Equal(t, "complete", s.receive().Type)
		return a
	}
	first := over(s)
	require.Empty(t, first.Errors)
	require.False(t, first.Extensions.Replayed)
	me := c.on(1).as(c.on(1).login(t, "ada").access)
	for _, again := range []func() (once, error){
		func() (once, error) { return over(s), nil },
		func() (once, error) { return over(me.connect(t)), nil },
		func() (once, error) { return me.once("k", createThread, true, false) },
		func() (once, error) { return me.once("k", createThread, false, false) },
		func() (once, error) { return me.once("k", createThread, true, true) },
		func() (once, error) { return me.once("k", createThread, false, true) },
	} {
		a, err := again()
		require.NoError(t, err)
		require.Empty(t, a.Errors)
		require.True(t, a.Extensions.Replayed)
		require.JSONEq(t, string(first.Data), string(a.Data))
	}
	require.Equal(t, 1, c.count(t, `threads`))
}

// Fields of accounts take no key, and are not executed with one. Whose access token is no longer good is told so, and not that nobody is
// signed in.
func TestKeysAndAccounts(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "ada", "user")
	me := c.on(0).as(c.on(0).login(t, "ada").access)
	a, err := me.once("k", `mutation { logout }`, false, false)
	require.NoError(t, err)
	require.Equal(t, "BAD_USER_INPUT", a.Errors[0].Extensions["code"])
	require.Equal(t, 1, c.count(t, `sessions WHERE revoked_at IS NULL`))
	me.must(t, "logout", `mutation { logout }`, nil)
	a, err = me.once("k", createThread, false, false)
	require.NoError(t, err)
	require.Equal(t, "UNAUTHENTICATED", a.Errors[0].Extensions["code"])
	require.Equal(t, http.StatusUnauthorized, a.status)
	require.Zero(t, c.count(t, `threads`))
}

// Nodes remove what is older than a day.
func TestNodesPurgeKeys(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.exec(t, `INSERT INTO idempotency_keys (user_id, key, request, created_at) VALUES
		(gen_random_uuid(), 'old', '', now() - interval '2 days'), (gen_random_uuid(), 'new', '', now())`)
	start(t, c.cfg)
	require.Eventually(t, func() bool { return c.count(t, `idempotency_keys WHERE key = 'old'`) == 0 }, patience, 5*time.Millisecond)
	require.Equal(t, 1, c.count(t, `idempotency_keys`))
}

// TestKeysByClients runs what applications use.
func TestKeysByClients(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.user(t, "ada", "user")
	runNode(t, "once.test.mjs", "BASE_URL="+c.on(0).url, "TOKEN="+c.on(0).login(t, "ada").access)
}
