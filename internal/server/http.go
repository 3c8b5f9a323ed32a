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
)

// mostErrors is how many errors of validation are told: each wrong token can make one, forty times its length.
const mostErrors = 20

// longestLoggedName is how much of an operation's name the access log has, in bytes.
const longestLoggedName = 100

// httpTransport is GraphQL over HTTP, by GET (queries alone) and POST. Of gqlgen's own transports this keeps
// neither the unbounded body nor its echo in errors, nor the `data: null` beside an error that came before
// execution.
type httpTransport struct{ *Server }

var _ graphql.Transport = httpTransport{}

func (httpTransport) Supports(r *http.Request) bool { return !isSocket(r) }

func (t httpTransport) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	w.Header().Set("Content-Type", typeJSON)
	w.Header()["Cache-Control"] = noStore
	contentType, ok := negotiate(r.Header.Get("Accept"))
	if !ok {
		t.refuse(w, r, http.StatusNotAcceptable, badRequest("answers are %s or %s", typeResponse, typeJSON))
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Add("Vary", "Accept")

	params, status, bad := t.params(w, r)
	if bad != nil {
		t.refuse(w, r, status, bad)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), t.cfg.OperationTimeout)
	defer cancel()
	ctx, _, signedIn, refused := t.signIn(ctx, r.Header.Get("Authorization"))
	if refused != nil && translate(ctx, refused).Code != record.Unauthenticated {
		t.refuse(w, r, statusOf(translate(ctx, refused).Code), refused)
		return
	}
	if r.Method == http.MethodGet {
		// Nobody's answers are public, and a cache tells them from somebody's.
		w.Header().Add("Vary", "Authorization, Cookie")
		switch {
		case signedIn:
			w.Header()["Cache-Control"] = privateNoStore
		case refused == nil:
			w.Header().Del("Cache-Control")
		}
	}

	op, errs := exec.CreateOperationContext(ctx, params)
	if errs != nil {
		status := http.StatusOK // as the specification wants it of application/json
		if contentType == typeResponse {
			status = http.StatusBadRequest
		}
		errs = errs[:min(len(errs), mostErrors)]
		t.write(w, status, exec.DispatchError(graphql.WithOperationContext(ctx, op), errs), false)
		return
	}
	if refused != nil && !t.public(op) {
		t.refuse(w, r, http.StatusUnauthorized, refused)
		return
	}
	name := op.Operation.Name // of ASCII alone
	requestFrom(ctx).operation = strings.TrimSpace(string(op.Operation.Operation) + " " + name[:min(len(name), longestLoggedName)])
	switch {
	case op.Operation.Operation == ast.Subscription:
		t.refuse(w, r, http.StatusBadRequest, badRequest("subscriptions need a WebSocket"))
		return
	case r.Method == http.MethodGet && op.Operation.Operation != ast.Query:
		w.Header().Set("Allow", http.MethodPost)
		t.refuse(w, r, http.StatusMethodNotAllowed, badRequest("GET is for queries; use POST"))
		return
	}
	next, ctx := exec.DispatchOperation(ctx, op)
	resp := next(ctx)
	if resp == nil { // gqlgen does not begin when the time is over
		err := context.Cause(ctx)
		if err == nil {
			err = errors.New("the schema gave no answer")
		}
		t.refuse(w, r, statusOf(translate(ctx, err).Code), err)
		return
	}
	t.write(w, http.StatusOK, resp, true)
}

// public reports whether an operation has fields of Deps.Public alone.
func (t httpTransport) public(op *graphql.OperationContext) bool {
	if op.Operation.Operation != ast.Mutation {
		return false
	}
	fields := graphql.CollectFields(op, op.Operation.SelectionSet, []string{"Mutation"})
	return len(fields) > 0 && !slices.ContainsFunc(fields, func(f graphql.CollectedField) bool {
		return !slices.Contains(t.deps.Public, f.Name)
	})
}

// params reads the request. Where it is wrong, it returns the status to refuse it with and why.
func (t httpTransport) params(w http.ResponseWriter, r *http.Request) (*graphql.RawParams, int, error) {
	start := graphql.Now()
	var params *graphql.RawParams
	var status int
	var err error
	switch r.Method {
	case http.MethodGet:
		params, status, err = t.fromURL(r)
	case http.MethodPost:
		params, status, err = t.fromBody(w, r)
	default:
		w.Header().Set("Allow", "GET, POST")
		return nil, http.StatusMethodNotAllowed, badRequest("the method is GET or POST")
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

func (t httpTransport) fromURL(r *http.Request) (*graphql.RawParams, int, error) {
	q := r.URL.Query()
	params := &graphql.RawParams{Query: q.Get("query"), OperationName: q.Get("operationName")}
	if !utf8.ValidString(params.Query) || !utf8.ValidString(params.OperationName) {
		return nil, http.StatusBadRequest, badRequest("the URL is not UTF-8")
	}
	for _, p := range []struct {
		name string
		into *map[string]any
	}{{"variables", &params.Variables}, {"extensions", &params.Extensions}} {
		if s := q.Get(p.name); s != "" {
			if err := decode([]byte(s), p.into); err != nil {
				return nil, http.StatusBadRequest, badRequest("%s: %s", p.name, err)
			}
		}
	}
	return params, 0, nil
}

func (t httpTransport) fromBody(w http.ResponseWriter, r *http.Request) (*graphql.RawParams, int, error) {
	mediaType, p, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset := p["charset"]; err != nil || mediaType != typeJSON || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return nil, http.StatusUnsupportedMediaType, badRequest("the body must be %s in UTF-8", typeJSON)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, t.cfg.Limits.Body))
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		return nil, http.StatusRequestEntityTooLarge, &record.Error{
			Code:    record.TooComplex,
			Message: fmt.Sprintf("the body is longer than %d bytes", t.cfg.Limits.Body),
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
	httpTransport{s}.write(w, status, resp, false)
}

// write sends resp; data is part of it only if the operation was executed.
func (t httpTransport) write(w http.ResponseWriter, status int, resp *graphql.Response, executed bool) {
	if executed && len(resp.Data) > 0 && len(resp.Errors) == 0 && len(resp.Extensions) == 0 {
		// The data is JSON already: encoding/json would scan it once more.
		b := make([]byte, 0, len(resp.Data)+10)
		b = append(append(append(b, `{"data":`...), resp.Data...), "}\n"...)
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.WriteHeader(status)
		_, _ = w.Write(b)
		return
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
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		panic(fmt.Errorf("encode the answer: %w", err)) // a scalar wrote what is not JSON
	}
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes())
}

// negotiate chooses the type of the answer from an Accept header: what has the greatest weight, then what
// comes first. Whoever names neither type gets application/json, as old clients expect.
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
		case typeJSON, typeResponse:
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
