package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/record"
)

// The media types of answers.
const (
	typeJSON     = "application/json"
	typeResponse = "application/graphql-response+json"
	typeEvents   = "text/event-stream"
)

// mostErrors is how many errors of validation are told: each wrong token can make one, forty times its length.
const mostErrors = 20

// longestLoggedName is how much of an operation's name the access log has, in bytes.
const longestLoggedName = 100

// serveGraphQL is GraphQL over HTTP, sockets and server-sent events. Of gqlgen's own transports it has neither the unbounded body nor its
// echo in errors, nor the `data: null` beside an error that came before execution.
func (s *Server) serveGraphQL(w http.ResponseWriter, r *http.Request) {
	if isSocket(r) {
		s.openSocket(w, r)
		return
	}
	w.Header().Set("Content-Type", typeJSON)
	w.Header()["Cache-Control"] = noStore
	switch r.Method {
	case http.MethodGet, http.MethodPost:
	case http.MethodPut:
		s.reserve(w, r)
		return
	case http.MethodDelete:
		s.cancelStreamed(w, r)
		return
	default:
		w.Header().Set("Allow", "GET, POST, PUT, DELETE")
		s.refuse(w, r, http.StatusMethodNotAllowed, badRequest("the method is GET or POST, or, for event streams, PUT or DELETE"))
		return
	}
	contentType, ok := negotiate(r.Header.Get("Accept"))
	if !ok {
		s.refuse(w, r, http.StatusNotAcceptable, badRequest("answers are %s, %s or %s", typeResponse, typeJSON, typeEvents))
		return
	}
	w.Header().Add("Vary", "Accept")
	reserved := streamToken(r) != ""
	switch {
	case reserved && contentType == typeEvents:
		s.openReservation(w, r)
	case reserved:
		s.performReserved(w, r)
	case contentType == typeEvents:
		s.answerEvents(w, r)
	default:
		s.answer(w, r, contentType)
	}
}

// answer answers with one result.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, contentType string) {
	w.Header().Set("Content-Type", contentType)
	params, status, bad := s.params(w, r)
	if bad != nil {
		s.refuse(w, r, status, bad)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.OperationTimeout)
	defer cancel()
	ctx, _, signedIn, unknown := s.signIn(ctx, r.Header.Get("Authorization"))
	if unknown != nil && translate(ctx, unknown).Code != record.Unauthenticated {
		s.refuse(w, r, statusOf(translate(ctx, unknown).Code), unknown)
		return
	}
	if r.Method == http.MethodGet {
		// Nobody's answers are public, and a cache tells them from somebody's.
		w.Header().Add("Vary", "Authorization, Cookie")
		if s.deps.Replica != nil {
			w.Header().Add("Vary", readAfterHeader)
		}
		switch {
		case s.deps.Replica != nil && r.Header[readAfterHeader] != nil: // the answer's is for this client
		case signedIn:
			w.Header()["Cache-Control"] = privateNoStore
		case unknown == nil:
			w.Header().Del("Cache-Control")
		}
	}

	op, refused := s.prepare(ctx, params)
	if refused != nil {
		status := http.StatusOK // as the specification wants it of application/json
		if contentType == typeResponse {
			status = http.StatusBadRequest
		}
		s.write(w, status, refused, false)
		return
	}
	if unknown != nil && !s.public(op) {
		s.refuse(w, r, http.StatusUnauthorized, unknown)
		return
	}
	if !s.allowed(w, r, op) {
		return
	}
	if op.Operation.Operation == ast.Subscription {
		s.refuse(w, r, http.StatusBadRequest, badRequest("subscriptions need a WebSocket, or Accept: %s", typeEvents))
		return
	}
	ctx, o := s.observe(ctx, op)
	defer o.end(true) // where the executor panics
	resp, err := s.executeFor(ctx, w, r, op)
	o.end(failed(resp, err))
	if err != nil {
		s.refuse(w, r, statusOf(translate(ctx, err).Code), err)
		return
	}
	s.write(w, http.StatusOK, resp, true)
}

// allowed refuses what GET must not do, and has the access log name the operation.
func (s *Server) allowed(w http.ResponseWriter, r *http.Request, op *graphql.OperationContext) bool {
	requestFrom(r.Context()).operation = operationName(op)
	if r.Method == http.MethodGet && op.Operation.Operation == ast.Mutation {
		w.Header().Set("Allow", http.MethodPost)
		s.refuse(w, r, http.StatusMethodNotAllowed, badRequest("GET is for queries; use POST"))
		return false
	}
	return true
}

// public reports whether an operation has fields of Deps.Public alone.
func (s *Server) public(op *graphql.OperationContext) bool {
	if op.Operation.Operation != ast.Mutation {
		return false
	}
	fields := graphql.CollectFields(op, op.Operation.SelectionSet, []string{"Mutation"})
	return len(fields) > 0 && !slices.ContainsFunc(fields, func(f graphql.CollectedField) bool {
		return !slices.Contains(s.deps.Public, f.Name)
	})
}

// params reads the request. Where it is wrong, it returns the status to refuse it with and why.
func (s *Server) params(w http.ResponseWriter, r *http.Request) (*graphql.RawParams, int, error) {
	start := graphql.Now()
	var params *graphql.RawParams
	var status int
	var err error
	if r.Method == http.MethodGet {
		params, status, err = s.fromURL(r)
	} else {
		params, status, err = s.fromBody(w, r)
	}
	if err != nil {
		return nil, status, err
	}
	if params.Query == "" {
		return nil, http.StatusBadRequest, badRequest("query is missing")
	}
	params.Headers = r.Header
	params.ReadTime = graphql.TraceTiming{Start: start, End: graphql.Now()}
	return params, 0, nil
}

func (s *Server) fromURL(r *http.Request) (*graphql.RawParams, int, error) {
	q := r.URL.Query()
	params := &graphql.RawParams{Query: q.Get("query"), OperationName: q.Get("operationName")}
	if !utf8.ValidString(params.Query) || !utf8.ValidString(params.OperationName) {
		return nil, http.StatusBadRequest, badRequest("the URL is not UTF-8")
	}
	for _, p := range []struct {
		name string
		into *map[string]any
	}{{"variables", &params.Variables}, {"extensions", &params.Extensions}} {
		if text := q.Get(p.name); text != "" {
			if err := decode([]byte(text), p.into); err != nil {
				return nil, http.StatusBadRequest, badRequest("%s: %s", p.name, err)
			}
		}
	}
	return params, 0, nil
}

func (s *Server) fromBody(w http.ResponseWriter, r *http.Request) (*graphql.RawParams, int, error) {
	mediaType, p, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset := p["charset"]; err != nil || mediaType != typeJSON || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return nil, http.StatusUnsupportedMediaType, badRequest("the body must be %s in UTF-8", typeJSON)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.Limits.Body))
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		return nil, http.StatusRequestEntityTooLarge, &record.Error{
			Code:    record.TooComplex,
			Message: fmt.Sprintf("the body is longer than %d bytes", s.cfg.Limits.Body),
		}
	}
	if err != nil {
		return nil, http.StatusBadRequest, &record.Error{Code: record.BadUserInput, Message: "the body ended early", Err: err}
	}
	var params *graphql.RawParams
	if err := decode(body, &params); err != nil {
		return nil, http.StatusBadRequest, badRequest("the body: %s", err)
	}
	if params == nil {
		params = &graphql.RawParams{}
	}
	return params, 0, nil
}

// decode reads one JSON value. Its errors tell a place and quote nothing.
func decode(data []byte, into any) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8") // encoding/json would put replacement characters in its place
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err := d.Decode(into)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return errors.New("not a JSON object")
		}
		return fmt.Errorf("%s has the wrong type", wrong.Field)
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("not JSON, at byte %d", syntax.Offset)
	}
	if err != nil {
		return errors.New("not JSON, it ends too early")
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}

func badRequest(format string, args ...any) *record.Error {
	return &record.Error{Code: record.BadUserInput, Message: fmt.Sprintf(format, args...)}
}

// refuse answers a request that did not get as far as GraphQL, in GraphQL's shape.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, status int, err error) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", typeJSON)
	}
	resp := &graphql.Response{Errors: gqlerror.List{s.present(r.Context(), err)}}
	s.write(w, status, resp, false)
}

// write sends resp; data is part of it only if the operation was executed.
func (s *Server) write(w http.ResponseWriter, status int, resp *graphql.Response, executed bool) {
	b := append(encode(resp, executed), '\n')
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// encode makes JSON of a response.
func encode(resp *graphql.Response, executed bool) []byte {
	if executed && len(resp.Data) > 0 && len(resp.Errors) == 0 && len(resp.Extensions) == 0 {
		// The data is JSON already: encoding/json would scan it once more.
		b := make([]byte, 0, len(resp.Data)+10)
		return append(append(append(b, `{"data":`...), resp.Data...), '}')
	}
	body := struct {
		Errors     gqlerror.List   `json:"errors,omitempty"`
		Data       json.RawMessage `json:"data,omitempty"`
		Extensions map[string]any  `json:"extensions,omitempty"`
	}{resp.Errors, nil, resp.Extensions}
	if executed {
		body.Data = resp.Data
		if len(body.Data) == 0 {
			body.Data = json.RawMessage("null")
		}
	}
	return marshal(body)
}

// marshal makes JSON as it is: nobody puts it into HTML.
func marshal(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Errorf("encode the answer: %w", err)) // a scalar wrote what is not JSON
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

// negotiate chooses the type of the answer from an Accept header: what has the greatest weight, then what
// comes first. Whoever names none of the types gets application/json, as old clients expect.
func negotiate(accept string) (contentType string, ok bool) {
	if accept == "" {
		return typeJSON, true
	}
	best := 0.0
	for part := range strings.SplitSeq(accept, ",") {
		mediaType, p, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		weight := 1.0
		if q, given := p["q"]; given {
			if weight, err = strconv.ParseFloat(q, 64); err != nil {
				continue
			}
		}
		switch mediaType {
		case typeJSON, typeResponse, typeEvents:
		case "*/*", "application/*":
			mediaType = typeJSON
		default:
			continue
		}
		if weight > best {
			best, contentType = weight, mediaType
		}
	}
	return contentType, best > 0
}
