package graphqlws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lasting is a handler whose operations go on until they are ended, and tell when they begin and end.
func lasting() (h *handler, begun, ended chan string) {
	begun, ended = make(chan string, 1000), make(chan string, 1000)
	return &handler{subscribe: func(op *Operation) {
		id := op.ID
		begun <- id
		<-op.Context().Done()
		ended <- id
	}}, begun, ended
}

// TestInvalidMessage: what the protocol does not specify for clients closes the socket with 4400, whether it is signed in or not.
func TestInvalidMessage(t *testing.T) {
	t.Parallel()
	h, _, _ := lasting()
	b := setup(t, h, nil)
	for name, c := range map[string]struct{ text, reason string }{
		"empty":                       {``, "not a JSON object"},
		"no JSON":                     {`connection_init`, "not a JSON object"},
		"cut off":                     {`{"type":"ping"`, "not a JSON object"},
		"more behind it":              {`{"type":"ping"} {}`, "not a JSON object"},
		"array":                       {`[{"type":"ping"}]`, "not a JSON object"},
		"null":                        {`null`, "not a JSON object"},
		"string":                      {`"ping"`, "not a JSON object"},
		"no type":                     {`{}`, "type is not a string"},
		"type null":                   {`{"type":null}`, "type is not a string"},
		"type a number":               {`{"type":1}`, "type is not a string"},
		"type of another case":        {`{"Type":"ping"}`, "type is not a string"},
		"unknown type":                {`{"type":"Ping"}`, "unknown type"},
		"type of the former protocol": {`{"id":"1","type":"start","payload":{"query":"{x}"}}`, "unknown type"},
		"its end of an operation":     {`{"id":"1","type":"stop"}`, "unknown type"},
		"its end":                     {`{"type":"connection_terminate"}`, "unknown type"},
		"the server's ack":            {`{"type":"connection_ack"}`, "unknown type"},
		"the server's next":           {`{"id":"1","type":"next","payload":{}}`, "unknown type"},
		"the server's error":          {`{"id":"1","type":"error","payload":[]}`, "unknown type"},
		"init with a text":            {`{"type":"connection_init","payload":"a"}`, "connection_init: payload is not an object"},
		"init with an array":          {`{"type":"connection_init","payload":[]}`, "connection_init: payload is not an object"},
		"ping with a number":          {`{"type":"ping","payload":1}`, "ping: payload is not an object"},
		"pong with false":             {`{"type":"pong","payload":false}`, "pong: payload is not an object"},
		"complete without id":         {`{"type":"complete"}`, "complete: id is not a string"},
		"complete with id a number":   {`{"id":1,"type":"complete"}`, "complete: id is not a string"},
		"complete with id empty":      {`{"id":"","type":"complete"}`, "complete: id is empty or too long"},
		"subscribe without id":        {`{"type":"subscribe","payload":{"query":"{x}"}}`, "subscribe: id is not a string"},
		"subscribe with id null":      {`{"id":null,"type":"subscribe","payload":{"query":"{x}"}}`, "subscribe: id is not a string"},
		"subscribe with id empty":     {`{"id":"","type":"subscribe","payload":{"query":"{x}"}}`, "subscribe: id is empty or too long"},
		"subscribe with a long id": {
			`{"id":"` + strings.Repeat("i", maxID) + `","type":"subscribe","payload":{"query":"{x}"}}`, "subscribe: id is empty or too long",
		},
		"subscribe without payload":     {`{"id":"1","type":"subscribe"}`, "subscribe: payload is missing"},
		"subscribe with payload null":   {`{"id":"1","type":"subscribe","payload":null}`, "subscribe: payload is missing"},
		"subscribe with payload a text": {`{"id":"1","type":"subscribe","payload":"{x}"}`, "subscribe: payload is not an object"},
		"no query":                      {`{"id":"1","type":"subscribe","payload":{}}`, "query is not a string"},
		"query null":                    {`{"id":"1","type":"subscribe","payload":{"query":null}}`, "query is not a string"},
		"query an object":               {`{"id":"1","type":"subscribe","payload":{"query":{}}}`, "query is not a string"},
		"operationName a number": {
			`{"id":"1","type":"subscribe","payload":{"query":"{x}","operationName":1}}`, "operationName is not a string",
		},
		"variables an array": {`{"id":"1","type":"subscribe","payload":{"query":"{x}","variables":[]}}`, "variables is not an object"},
		"extensions a text": {
			`{"id":"1","type":"subscribe","payload":{"query":"{x}","extensions":"a"}}`, "extensions is not an object",
		},
	} {
		for _, when := range []string{"before init", "after init"} {
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				s := b.open(t)
				if when == "after init" {
					s.send(`{"type":"connection_init"}`)
					s.expect(`{"type":"connection_ack"}`)
				}
				s.send(c.text)
				s.expectClose(4400, "Invalid message: "+c.reason)
			})
		}
	}
	t.Run("binary", func(t *testing.T) {
		t.Parallel()
		s := b.signedIn(t)
		s.write(frame(finBit|opBinary, `{"type":"ping"}`))
		s.expectClose(4400, "Invalid message: not a text")
	})
}

func TestInit(t *testing.T) {
	t.Parallel()
	closed := make(chan *Conn, 10)
	b := setup(t, &handler{closed: closed, init: func(c *Conn, payload json.RawMessage) (json.RawMessage, error) {
		switch string(payload) {
		case `{"say":"no"}`:
			return nil, &CloseError{4403, "Forbidden"}
		case `{"say":"error"}`:
			return nil, errors.New("a secret")
		case `{"say":"panic"}`:
			panic("a secret")
		}
		c.SetValue(string(payload))
		return payload, nil
	}}, nil)
	for payload, ack := range map[string]string{
		``:                         `{"type":"connection_ack"}`,
		`,"payload":null`:          `{"type":"connection_ack"}`,
		`,"payload":{}`:            `{"type":"connection_ack","payload":{}}`,
		`,"payload":{"a":[1,"ä"]}`: `{"type":"connection_ack","payload":{"a":[1,"ä"]}}`,
	} {
		s := b.open(t)
		s.send(`{"type":"connection_init"` + payload + `}`)
		s.expect(ack)
		require.NoError(t, s.nc.Close())
		require.NotNil(t, wait(t, closed).Value())
	}
	for say, want := range map[string]CloseError{
		"no": {4403, "Forbidden"}, "error": {4500, "Internal server error"}, "panic": {4500, "Internal server error"},
	} {
		s := b.open(t)
		s.send(`{"type":"connection_init","payload":{"say":"` + say + `"}}`)
		s.expectClose(want.Code, want.Reason)
		require.Nil(t, wait(t, closed).Value())
	}
}

// TestInitTwice: 4429, while the first is being answered and after it.
func TestInitTwice(t *testing.T) {
	t.Parallel()
	asked, ended := make(chan struct{}, 1), make(chan error, 1)
	b := setup(t, &handler{init: func(c *Conn, payload json.RawMessage) (json.RawMessage, error) {
		if payload != nil {
			asked <- struct{}{}
			<-c.Context().Done()
			ended <- c.Context().Err()
		}
		return nil, nil
	}}, nil)
	s := b.signedIn(t)
	s.send(`{"type":"connection_init"}`)
	s.expectClose(4429, "Too many initialisation requests")

	s = b.open(t)
	s.send(`{"type":"connection_init","payload":{"wait":true}}`)
	wait(t, asked)
	s.send(`{"type":"ping"}`)
	s.expect(`{"type":"pong"}`)
	s.send(`{"type":"connection_init"}`)
	s.expectClose(4429, "Too many initialisation requests")
	require.ErrorIs(t, wait(t, ended), context.Canceled)
}

// TestSubscribeBeforeAck: 4401, before connection_init and while it is being answered.
func TestSubscribeBeforeAck(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	b := setup(t, &handler{
		init: func(c *Conn, _ json.RawMessage) (json.RawMessage, error) {
			close(asked)
			<-c.Context().Done()
			return nil, nil
		},
		subscribe: func(*Operation) { t.Error("an operation ran") },
	}, nil)
	s := b.open(t)
	s.send(subscribe("1"))
	s.expectClose(4401, "Unauthorized")

	s = b.open(t)
	s.send(`{"type":"connection_init"}`)
	wait(t, asked)
	s.send(subscribe("1"))
	s.expectClose(4401, "Unauthorized")
}

// TestPing: pings and pongs may come at any time.
func TestPing(t *testing.T) {
	t.Parallel()
	b := setup(t, &handler{ping: func(_ *Conn, payload json.RawMessage) (json.RawMessage, error) {
		switch string(payload) {
		case `{"say":"no"}`:
			return nil, &CloseError{4403, "Forbidden"}
		case `{"say":"error"}`:
			return nil, errors.New("a secret")
		case `{"say":"panic"}`:
			panic("a secret")
		case `{"say":"nothing"}`:
			return nil, nil
		}
		return json.RawMessage(`{"asked":` + string(payload) + `}`), nil
	}}, nil)
	s := b.open(t)
	s.send(`{"type":"pong"}`, `{"type":"pong","payload":{"a":1}}`, `{"type":"pong","payload":null}`)
	s.send(`{"type":"ping"}`, `{"type":"ping","payload":{"a":1}}`)
	s.expect(`{"type":"pong"}`, `{"type":"pong"}`) // the handler knows nothing of the socket yet
	s.send(`{"type":"connection_init"}`)
	s.expect(`{"type":"connection_ack"}`)
	s.send(`{"type":"ping"}`, `{"type":"ping","payload":null}`, `{"type":"ping","payload":{}}`)
	s.send(`{"type":"ping","payload":{"say":"nothing"}}`, `{"type":"pong"}`)
	s.expect(`{"type":"pong"}`, `{"type":"pong"}`, `{"type":"pong","payload":{"asked":{}}}`, `{"type":"pong"}`)
	for say, want := range map[string]CloseError{
		"no": {4403, "Forbidden"}, "error": {4500, "Internal server error"}, "panic": {4500, "Internal server error"},
	} {
		s := b.signedIn(t)
		s.send(`{"type":"ping","payload":{"say":"`+say+`"}}`, `{"type":"ping"}`)
		s.expectClose(want.Code, want.Reason)
	}
}

// TestExists: 4409 for an id of which an operation goes on, whatever it is.
func TestExists(t *testing.T) {
	t.Parallel()
	h, begun, ended := lasting()
	b := setup(t, h, nil)
	for _, query := range []string{"query { x }", "mutation { x }", "subscription { x }"} {
		s := b.signedIn(t)
		s.send(`{"id":"a\u0062","type":"subscribe","payload":{"query":"` + query + `"}}`)
		wait(t, begun)
		s.send(`{"type":"subscribe","id":"ab","payload":{"query":"{ y }"}}`)
		s.expectClose(4409, "Subscriber for ab already exists")
		wait(t, ended)
	}
	long := strings.Repeat("ü", 120)
	s := b.signedIn(t)
	s.send(subscribe(long), subscribe(long))
	s.expectClose(4409, "Subscriber for "+strings.Repeat("ü", 54))
}

// TestOperation: what is asked for arrives, and what is answered, in order; an id may be used again after the end.
func TestOperation(t *testing.T) {
	t.Parallel()
	b := setup(t, &handler{
		init: func(c *Conn, _ json.RawMessage) (json.RawMessage, error) {
			c.SetContext(context.WithValue(c.Context(), t, "viewer"))
			return nil, nil
		},
		subscribe: func(op *Operation) {
			asked, err := json.Marshal([]any{op.ID, op.Query, op.OperationName, op.Variables, op.Extensions, op.Context().Value(t)})
			if err != nil || op.Context().Err() != nil {
				t.Error(err, op.Context().Err())
			}
			if op.OperationName == "fail" {
				op.Fail(json.RawMessage(`[{"message":"no"}]`))
				op.Fail(json.RawMessage(`[{"message":"again"}]`))
			}
			for range 3 {
				if err := op.Send(asked); (err != nil) != (op.OperationName == "fail") {
					t.Error(err)
				}
				copy(asked, `[12`) // Send does not keep it
			}
			op.Complete()
			op.Complete()
			if op.Context().Err() == nil || !errors.Is(op.Send(asked), ErrDone) || !op.Offer(asked) {
				t.Error("it goes on")
			}
		},
	}, nil)
	s := b.signedIn(t)
	for range 2 {
		s.send(`{"type":"subscribe","id":"\ud800 \"\u003c","more":1,"payload":` +
			`{"query":"{x}","variables":{"v":[1]},"extensions":{"e":{}},"operationName":"n","m":2}}`)
		_, text, err := s.next()
		require.NoError(t, err)
		require.Contains(t, text, `{"id":"\ud800 \"\u003c","type":"next","payload":["�`, "as the client wrote it")
		require.Contains(t, text, `,"{x}","n",{"v":[1]},{"e":{}},"viewer"]}`)
		_, text, err = s.next()
		require.NoError(t, err)
		require.Contains(t, text, `"payload":[12`)
		_, _, err = s.next()
		require.NoError(t, err)
		_, text, err = s.next()
		require.NoError(t, err)
		require.Contains(t, text, `{"id":"\ud800 \"\u003c","type":"complete"}`)
	}
	s.send(`{"type":"subscribe","id":"n","payload":{"query":"","variables":null,"extensions":null,"operationName":null}}`)
	s.expect(`{"id":"n","type":"next","payload":["n","","",null,null,"viewer"]}`)
	for range 2 {
		_, _, err := s.next()
		require.NoError(t, err)
	}
	s.expect(`{"id":"n","type":"complete"}`)
	s.send(`{"type":"subscribe","id":"f","payload":{"query":"{x}","operationName":"fail"}}`, `{"type":"ping"}`)
	got := map[string]bool{}
	for range 2 {
		_, text, err := s.next()
		require.NoError(t, err)
		got[text] = true
	}
	require.Equal(t, map[string]bool{`{"id":"f","type":"error","payload":[{"message":"no"}]}`: true, `{"type":"pong"}`: true}, got)
	s.send(`{"type":"ping"}`)
	s.expect(`{"type":"pong"}`) // no complete after the error
}

// TestClientCompletes: its context ends, nothing is sent for it any more, and its id is free; unknown ids are ignored.
func TestClientCompletes(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	tried := make(chan error)
	b := setup(t, &handler{subscribe: func(op *Operation) {
		<-op.Context().Done()
		<-release
		op.Offer([]byte(`{}`))
		op.Flush()
		err := op.Send([]byte(`{}`))
		op.Complete()
		op.Fail(json.RawMessage(`[]`))
		tried <- err
	}}, nil)
	s := b.signedIn(t)
	s.send(`{"id":"never","type":"complete"}`, subscribe("1"), `{"id":"1","type":"complete","payload":3}`, `{"id":"1","type":"complete"}`)
	s.send(subscribe("1"), `{"id":"1","type":"complete"}`)
	close(release)
	require.ErrorIs(t, wait(t, tried), ErrDone)
	require.ErrorIs(t, wait(t, tried), ErrDone)
	s.send(`{"type":"ping"}`)
	s.expect(`{"type":"pong"}`)

	// What was offered and is not yet sent is not sent either.
	h, ops := pushing()
	b = setup(t, h, nil)
	s = b.signedIn(t)
	s.send(subscribe("1"), subscribe("2"))
	one, two := wait(t, ops), wait(t, ops)
	if one.ID == "2" {
		one, two = two, one
	}
	require.True(t, one.Offer([]byte(`1`)))
	require.True(t, two.Offer([]byte(`2`)))
	require.True(t, one.Offer([]byte(`3`)))
	s.send(`{"id":"1","type":"complete"}`)
	wait(t, one.done)
	require.ErrorIs(t, one.Context().Err(), context.Canceled)
	two.Flush()
	s.expect(`{"id":"2","type":"next","payload":2}`)
	require.Zero(t, one.Conn().waiting)
	two.Complete()
	s.expect(`{"id":"2","type":"complete"}`)
	require.NoError(t, s.nc.Close())
	require.Eventually(t, func() bool { return b.Stats().Sockets == 0 }, patience, time.Millisecond)
	require.Empty(t, one.done, "once")
	require.Empty(t, two.done, "Complete is no reason")
}

// TestPushAfterTheEnd: an operation that the client has ended is told so when it is prepared for Offer, once.
func TestPushAfterTheEnd(t *testing.T) {
	t.Parallel()
	done := make(chan string, 10)
	b := setup(t, &handler{closed: make(chan *Conn, 1), subscribe: func(op *Operation) {
		if op.Query == "complete" {
			op.Complete()
		}
		<-op.Context().Done()
		op.Push(func() {}, func() { done <- op.ID })
	}}, nil)
	s := b.signedIn(t)
	s.send(`{"type":"subscribe","id":"1","payload":{"query":"complete"}}`)
	s.expect(`{"id":"1","type":"complete"}`)
	s.send(subscribe("2"), `{"id":"2","type":"complete"}`)
	require.Equal(t, "2", wait(t, done))
	s.send(subscribe("3"))
	require.NoError(t, s.nc.Close())
	wait(t, b.handler.(*handler).closed)
	for len(done) > 0 {
		require.Equal(t, "3", <-done)
	}
}

// TestOperations: as many as are allowed go on at the same time; the one too many is refused, and nothing else ends.
func TestOperations(t *testing.T) {
	t.Parallel()
	h, begun, ended := lasting()
	h.init = func(c *Conn, _ json.RawMessage) (json.RawMessage, error) {
		c.SetValue("two")
		return nil, nil
	}
	b := setup(t, h, &Config{Operations: 2, TooMany: func(c *Conn) json.RawMessage {
		return fmt.Appendf(nil, `[{"message":%q}]`, c.Value())
	}})
	s := b.signedIn(t)
	s.send(subscribe("1"), subscribe("2"), subscribe("3"))
	s.expect(`{"id":"3","type":"error","payload":[{"message":"two"}]}`)
	wait(t, begun)
	wait(t, begun)
	require.EqualValues(t, 2, b.Stats().Operations)
	s.send(`{"id":"1","type":"complete"}`)
	require.Equal(t, "1", wait(t, ended))
	require.Eventually(t, func() bool { return b.Stats().Operations == 1 }, patience, time.Millisecond)
	s.send(subscribe("3"))
	require.Equal(t, "3", wait(t, begun))
}

// TestPanic: a panic ends the operation it happened in.
func TestPanic(t *testing.T) {
	t.Parallel()
	var said log
	b := setup(t, &handler{subscribe: func(op *Operation) {
		if op.ID == "bad" {
			panic("a secret")
		}
		op.Complete()
	}}, &Config{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	s := b.signedIn(t)
	s.send(subscribe("bad"))
	s.expect(`{"id":"bad","type":"error","payload":[{"message":"Internal server error"}]}`)
	s.send(subscribe("good"))
	s.expect(`{"id":"good","type":"complete"}`)
	require.Contains(t, said.String(), "a secret")
}

// TestClose: a socket that the server closes is deaf and mute at once.
func TestClose(t *testing.T) {
	t.Parallel()
	h, ops := pushing()
	h.closed = make(chan *Conn, 1)
	b := setup(t, h, nil)
	s := b.signedIn(t)
	s.send(subscribe("1"))
	op := wait(t, ops)
	require.True(t, op.Offer([]byte(`1`)))
	op.Conn().Close(4403, "Forbidden "+strings.Repeat("€", 100)+"\xff")
	require.ErrorIs(t, op.Context().Err(), context.Canceled)
	require.ErrorIs(t, op.Conn().Context().Err(), context.Canceled)
	require.ErrorIs(t, op.Send([]byte(`2`)), ErrDone)
	op.Complete()
	op.Conn().Close(4500, "again")
	wait(t, op.done)
	s.send(subscribe("2"), `{"type":"ping"}`, `nonsense`)
	s.expectClose(4403, "Forbidden "+strings.Repeat("€", 37))
	require.Same(t, op.Conn(), wait(t, h.closed))
	require.Empty(t, op.done)
	require.Empty(t, ops)
}
