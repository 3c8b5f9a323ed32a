package graphqlws

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Types of messages of graphql-transport-ws.
const (
	typeInit      = "connection_init"
	typeAck       = "connection_ack"
	typePing      = "ping"
	typePong      = "pong"
	typeSubscribe = "subscribe"
	typeNext      = "next"
	typeError     = "error"
	typeComplete  = "complete"
)

// maxID is how many bytes an operation's id may have: it comes with every event.
const maxID = 256

// message is what a client sends.
type message struct {
	kind    string
	id      string
	rawID   string          // as the client wrote it, JSON: sent back so
	payload json.RawMessage // an object; nil where there is none
}

// members are those of an object. Unlike a struct's, their names have to match exactly.
type members map[string]json.RawMessage

// parse reads a message, and refuses what the protocol does not specify for clients.
func parse(text []byte) (m message, err error) {
	var all members
	if json.Unmarshal(text, &all) != nil || all == nil {
		return m, errors.New("not a JSON object")
	}
	if m.kind, err = all.text("type"); err != nil {
		return m, err
	}
	switch m.kind {
	case typeInit, typePing, typePong:
	case typeSubscribe, typeComplete:
		if m.id, err = all.text("id"); err != nil {
			return m, fmt.Errorf("%s: %w", m.kind, err)
		}
		if m.id == "" || len(all["id"]) > maxID {
			return m, fmt.Errorf("%s: id is empty or too long", m.kind)
		}
		m.rawID = string(all["id"])
	default:
		return m, errors.New("unknown type")
	}
	if m.kind == typeComplete {
		return m, nil
	}
	if m.payload, err = all.object("payload"); err != nil {
		return m, fmt.Errorf("%s: %w", m.kind, err)
	}
	if m.kind == typeSubscribe && m.payload == nil {
		return m, errors.New("subscribe: payload is missing")
	}
	return m, nil
}

// operation fills in what a subscribe's payload asks for.
func (m message) operation(o *Operation) (err error) {
	o.ID, o.key = m.id, m.rawID
	var all members
	if err := json.Unmarshal(m.payload, &all); err != nil {
		return err
	}
	if o.DocumentID, err = all.document(); err != nil {
		return err
	}
	if named := o.DocumentID != "" || !all.missing("extensions"); !named || !all.missing("query") {
		if o.Query, err = all.text("query"); err != nil {
			return err
		}
	}
	if !all.missing("operationName") {
		if o.OperationName, err = all.text("operationName"); err != nil {
			return err
		}
	}
	if o.Variables, err = all.object("variables"); err != nil {
		return err
	}
	o.Extensions, err = all.object("extensions")
	return err
}

// document is the name of a persisted document: documentId of GraphQL over HTTP, else id or doc_id, as Relay's clients have it; "" where
// there is none, and where the latter are no strings, which may be somebody's own.
func (m members) document() (name string, err error) {
	if !m.missing("documentId") {
		return m.text("documentId")
	}
	for _, key := range []string{"id", "doc_id"} {
		if name, err := m.text(key); err == nil && name != "" {
			return name, nil
		}
	}
	return "", nil
}

// missing says that there is no such member, or that it is null.
func (m members) missing(name string) bool { return m[name] == nil || string(m[name]) == "null" }

// text is a member that has to be a string.
func (m members) text(name string) (s string, err error) {
	if m.missing(name) || json.Unmarshal(m[name], &s) != nil {
		return "", fmt.Errorf("%s is not a string", name)
	}
	return s, nil
}

// object is a member that has to be an object; nil where it is missing.
func (m members) object(name string) (json.RawMessage, error) {
	switch {
	case m.missing(name):
		return nil, nil
	case m[name][0] != '{':
		return nil, fmt.Errorf("%s is not an object", name)
	default:
		return m[name], nil
	}
}

// compose writes a message of the server but `next`, whose parts item.append puts together. key is an id as JSON, "" for none; a nil
// payload is left out.
func compose(kind, key string, payload json.RawMessage) []byte {
	b := make([]byte, 0, len(`{"id":,"type":"","payload":}`)+len(key)+len(kind)+len(payload))
	b = append(b, '{')
	if key != "" {
		b = append(append(append(b, `"id":`...), key...), ',')
	}
	b = append(append(append(b, `"type":"`...), kind...), '"')
	if payload != nil {
		b = append(append(b, `,"payload":`...), payload...)
	}
	return append(b, '}')
}
