package main

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"

	"github.com/google/uuid"

	"godstack/internal/record"
)

// The two that are compared, as indexes.
const (
	godstack = iota
	baseline
)

var targetNames = [2]string{"godstack", "L"}

// operation is something that both can do.
type operation struct {
	name, what string
	document   string // GraphQL
	threads    int    // how many a request names
	variables  func(b []byte, in input) []byte
	request    func(b []byte, in input) []byte // to the baseline
	writes     bool
}

// input is what one request is about, and which user makes it.
type input struct {
	user    int
	ids     []uuid.UUID
	version int
	text    string
}

const (
	threadFields = "id version createdAt updatedAt subject"
	personFields = "id username name"
)

var operations = []operation{
	{
		name: "R1", what: "one record with its owner", threads: 1,
		document:  "query ($id: ID!) { thread(id: $id) { " + threadFields + " owner { " + personFields + " } } }",
		variables: func(b []byte, in input) []byte { return append(threadID(append(b, `"id":`...), in.ids[0]), '}') },
		request:   func(b []byte, in input) []byte { return get(b, "/thread/", in.ids[0]) },
	},
	{
		name: "R2", what: "20 threads with owner and first 5 messages with authors", threads: 1,
		document: "query ($after: ID!) { threads(first: 20, where: {idGT: $after}) { edges { node { " + threadFields + " owner { " + personFields +
			" } messages(first: 5) { edges { node { id version createdAt body author { " + personFields + " } } } } } } } }",
		variables: func(b []byte, in input) []byte { return append(threadID(append(b, `"after":`...), in.ids[0]), '}') },
		request:   func(b []byte, in input) []byte { return get(b, "/threads/after/", in.ids[0]) },
	},
	{
		name: "R3r", what: "100 records by id, through records", threads: 100,
		document: "query ($refs: [RecordRef!]!) { records(refs: $refs) { threads { " + threadFields + " } } }",
		variables: func(b []byte, in input) []byte {
			b = append(b, `"refs":[`...)
			for i, id := range in.ids {
				b = append(threadID(append(comma(b, i), `{"id":`...), id), '}')
			}
			return append(b, `]}`...)
		},
		request: func(b []byte, in input) []byte { return post(b, "/records", "", idList(nil, in)) },
	},
	{
		name: "R3n", what: "100 records by id, through nodes", threads: 100,
		document: "query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Thread { " + threadFields + " } } }",
		variables: func(b []byte, in input) []byte {
			b = append(b, `"ids":[`...)
			for i, id := range in.ids {
				b = threadID(comma(b, i), id)
			}
			return append(b, `]}`...)
		},
		request: func(b []byte, in input) []byte { return post(b, "/nodes", "", idList(nil, in)) },
	},
	{
		name: "W1", what: "versioned update by the thread's owner, logged by Godstack alone", threads: 1, writes: true,
		document: "mutation ($id: ID!, $version: Int!, $subject: String!) { updateThread(id: $id, expectedVersion: $version, input: {subject: $subject}) { " +
			threadFields + " } }",
		variables: func(b []byte, in input) []byte {
			return update(append(threadID(append(b, `"id":`...), in.ids[0]), ','), in)
		},
		request: func(b []byte, in input) []byte {
			return post(b, "/thread/"+in.ids[0].String(), "", update([]byte{'{'}, in))
		},
	},
}

// appendRequest appends the HTTP request that asks target for the operation. Godstack is shown the user's token; the baseline asks for
// none.
func (op *operation) appendRequest(b []byte, target int, tokens []string, in input) []byte {
	if target == baseline {
		return op.request(b, in)
	}
	document, _ := json.Marshal(op.document)
	body := append(append([]byte(`{"query":`), document...), `,"variables":{`...)
	return post(b, "/graphql", tokens[in.user], append(op.variables(body, in), '}'))
}

// input chooses what a client's next request to target is about. thread is the index of the first thread in it.
func (op *operation) input(d *data, r *rand.Rand, target, client, clients int) (in input, thread int) {
	picked := d.pick(r, op.threads, client, clients)
	in.ids = make([]uuid.UUID, len(picked))
	for i, n := range picked {
		in.ids[i] = d.threads[n]
	}
	in.user = d.reader()
	if op.writes {
		in.user = d.owner(picked[0])
		in.version = d.versions[target][picked[0]]
		in.text = "Subject " + strconv.FormatUint(r.Uint64(), 36)
	}
	return in, picked[0]
}

func threadID(b []byte, id uuid.UUID) []byte {
	return append(record.ID{Prefix: "thread", UUID: id}.Append(append(b, '"')), '"')
}

func comma(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return b
}

// update appends the rest of an object that says what to change.
func update(b []byte, in input) []byte {
	b = strconv.AppendInt(append(b, `"version":`...), int64(in.version), 10)
	return append(append(append(b, `,"subject":"`...), in.text...), `"}`...)
}

func idList(b []byte, in input) []byte {
	b = append(b, '[')
	for i, id := range in.ids {
		b = append(append(append(comma(b, i), '"'), id.String()...), '"')
	}
	return append(b, ']')
}

const head = " HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"

func get(b []byte, path string, id uuid.UUID) []byte {
	b = append(append(append(b, "GET "...), path...), id.String()...)
	return append(append(b, head...), "\r\n"...)
}

func post(b []byte, path, token string, body []byte) []byte {
	b = append(append(append(b, "POST "...), path...), head...)
	if token != "" {
		b = append(append(append(b, "Authorization: Bearer "...), token...), "\r\n"...)
	}
	b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
	b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n\r\n"...)
	return append(b, body...)
}
