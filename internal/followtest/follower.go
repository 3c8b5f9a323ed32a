// Package followtest is a client of subscriptions for tests of whole programs: it holds what it was told, and notices what it should not
// have been told.
//
// Guarantees:
//   - A version that is left out or comes twice, a snapshot that nothing announces, and whatever else cannot have happened are among
//     [Follower.Wrong] (TestWhatIsWrong).
//   - It goes on from its last cursor on the next socket, as an application's client would (TestNodesComeAndGoInAStorm in cmd/godstack,
//     TestConnectionsAreLostInAStorm in app).
//
// It imports nothing of ours. Only _test files may import it.
package followtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// Thread, Threads and Records follow one thread (variable id), all of them, and records of any types (variable refs).
const (
	Thread  = `subscription($id: ID!, $since: Cursor) { change: threadChanged(id: $id, since: $since) ` + fields
	Threads = `subscription($since: Cursor) { change: threadsChanged(since: $since) ` + fields
	Records = `subscription($refs: [RecordRef!]!, $since: Cursor) { change: recordsChanged(refs: $refs, since: $since) ` + fields
	fields  = `{ kind recordId version cursor } }`
)

// ErrUnavailable says that the server has ended the subscription with UNAVAILABLE, for which a client comes back.
var ErrUnavailable = errors.New("unavailable")

// Message is one of graphql-transport-ws.
type Message struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// Event is what the subscriptions select.
type Event struct {
	Kind, RecordID, Cursor string
	Version                int
}

// ParseEvent reads the payload of a next message.
func ParseEvent(payload []byte) (Event, error) {
	var p struct {
		Data   struct{ Change Event }
		Errors json.RawMessage
	}
	err := json.Unmarshal(payload, &p)
	if err == nil && p.Errors != nil {
		err = fmt.Errorf("errors: %s", p.Errors)
	}
	return p.Data.Change, err
}

// Follower is a client with a subscription.
type Follower struct {
	// Node returns the host and port to open the n-th socket at, from 0.
	Node func(n int) string
	// Token signs it in.
	Token string
	// Dial connects; nil: as always.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Document is Thread, Threads or Records, with its Vars but since.
	Document string
	Vars     map[string]any
	// May says whether a socket may have ended so or, where it was not opened, may not have been. Nil: by ErrUnavailable alone.
	May func(opened bool, err error) bool

	mu       sync.Mutex     // protects what follows
	versions map[string]int // by id
	cursor   string
	opening  bool // snapshots come
	events   int
	resyncs  int
	returns  int
	wrong    []string
}

// single reports whether it follows one record, whose SNAPSHOT is a place.
func (f *Follower) single() bool { return f.Document == Thread }

// Held is what the client has, versions by id: nothing as long as it is incomplete.
func (f *Follower) Held() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opening {
		return nil
	}
	return maps.Clone(f.versions)
}

// Has reports whether the client has these versions of its records.
func (f *Follower) Has(versions map[string]int) bool {
	if f.single() {
		id := f.Vars["id"].(string)
		versions = map[string]int{id: versions[id]}
	}
	return maps.Equal(versions, f.Held())
}

// Beyond reports whether the client has n more versions of each record than before.
func (f *Follower) Beyond(before map[string]int, n int) bool {
	held := f.Held()
	for id, version := range held {
		if version < before[id]+n {
			return false
		}
	}
	return len(held) > 0
}

// Events is how many have come.
func (f *Follower) Events() int { f.mu.Lock(); defer f.mu.Unlock(); return f.events }

// Resyncs is how often it has begun anew.
func (f *Follower) Resyncs() int { f.mu.Lock(); defer f.mu.Unlock(); return f.resyncs }

// Returns is how often a socket has ended, or could not be opened.
func (f *Follower) Returns() int { f.mu.Lock(); defer f.mu.Unlock(); return f.returns }

// Wrong is what should not have come.
func (f *Follower) Wrong() []string { f.mu.Lock(); defer f.mu.Unlock(); return slices.Clone(f.wrong) }

// Run opens a socket and, as often as the subscription ends, another one, until ctx is done.
func (f *Follower) Run(ctx context.Context) {
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for n := 0; ; n++ {
		conn, err := f.Open(ctx, n)
		if err == nil {
			err = f.Follow(ctx, conn)
			_ = conn.CloseNow()
		}
		if ctx.Err() != nil {
			return
		}
		f.ended(conn != nil, err)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

func (f *Follower) ended(opened bool, err error) {
	right := errors.Is(err, ErrUnavailable)
	if f.May != nil {
		right = f.May(opened, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.returns++
	if !right {
		f.wrong = append(f.wrong, err.Error())
	}
}

// Open opens the n-th socket and signs in.
func (f *Follower) Open(ctx context.Context, n int) (*websocket.Conn, error) {
	transport := &http.Transport{DialContext: f.Dial, DisableKeepAlives: true}
	conn, _, err := websocket.Dial(ctx, "ws://"+f.Node(n)+"/graphql",
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"graphql-transport-ws"}})
	if err != nil {
		return nil, err
	}
	hello, err := json.Marshal(map[string]string{"authorization": "Bearer " + f.Token})
	if err == nil {
		err = wsjson.Write(ctx, conn, Message{Type: "connection_init", Payload: hello})
	}
	var ack Message
	if err == nil {
		err = wsjson.Read(ctx, conn, &ack)
	}
	if err != nil {
		_ = conn.CloseNow()
		return nil, err
	}
	return conn, nil
}

// Subscribe sends the subscription, since the last cursor.
func (f *Follower) Subscribe(ctx context.Context, conn *websocket.Conn) error {
	vars := maps.Clone(f.Vars)
	if vars == nil {
		vars = map[string]any{}
	}
	f.mu.Lock()
	if f.cursor != "" {
		vars["since"] = f.cursor
	} else {
		f.opening = true
	}
	f.mu.Unlock()
	payload, err := json.Marshal(map[string]any{"query": f.Document, "variables": vars})
	if err != nil {
		return err
	}
	return wsjson.Write(ctx, conn, Message{ID: "1", Type: "subscribe", Payload: payload})
}

// Follow subscribes on a socket and reads until that ends; it says why.
func (f *Follower) Follow(ctx context.Context, conn *websocket.Conn) error {
	err := f.Subscribe(ctx, conn)
	for err == nil {
		var m Message
		switch err = wsjson.Read(ctx, conn, &m); {
		case err != nil:
		case m.Type == "ping":
			err = wsjson.Write(ctx, conn, Message{Type: "pong"})
		case m.Type == "error" && bytes.Contains(m.Payload, []byte(`"UNAVAILABLE"`)):
			return ErrUnavailable
		case m.Type != "next":
			return fmt.Errorf("%s %s", m.Type, m.Payload)
		default:
			err = f.take(m.Payload)
		}
	}
	return err
}

// take takes an event.
func (f *Follower) take(payload []byte) error {
	e, err := ParseEvent(payload)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.versions == nil {
		f.versions = map[string]int{}
	}
	right, held := true, f.versions[e.RecordID]
	switch e.Kind {
	case "SNAPSHOT":
		right = f.opening
		f.versions[e.RecordID] = e.Version
		f.opening = !f.single()
	case "READY":
		f.opening = false
	case "UPDATED":
		right = !f.opening && e.Version == held+1
		f.versions[e.RecordID] = e.Version
	case "RESYNC":
		if !f.opening { // else the cursor that it came with was that of a snapshot
			f.resyncs++
		}
		f.opening = true
		clear(f.versions)
	default:
		right = false
	}
	if !right {
		f.wrong = append(f.wrong, fmt.Sprintf("%+v, holding %d", e, held))
	}
	f.events++
	f.cursor = cmp.Or(e.Cursor, f.cursor)
	return nil
}
