package server

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"time"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

// What graphql-sse calls single connection mode: a client reserves an event stream, opens it, and has the answers of operations that it
// sends by other requests in it. All of them go to one node, which has the reservation in memory.

// longestOperationID is how many bytes an operation's id may have: it comes with every event.
const longestOperationID = 256

// streamTokenHeader has a reservation's token; the parameter "token" is for EventSource, which sends no headers.
const streamTokenHeader = "X-GraphQL-Event-Stream-Token"

func streamToken(r *http.Request) string {
	if token := r.Header.Get(streamTokenHeader); token != "" {
		return token
	}
	return r.URL.Query().Get("token")
}

// errNoStream hides whether somebody else has a stream of this token.
var errNoStream = &record.Error{Code: record.NotFound, Message: "there is no such event stream: reserve one by PUT"}

// reserve answers with the token of a new event stream.
func (s *Server) reserve(w http.ResponseWriter, r *http.Request) {
	presented := r.Header.Get("Authorization")
	ctx, v, _, err := s.signIn(r.Context(), presented)
	var e *events
	if err == nil {
		e, err = s.newEvents(ctx, rand.Text(), v, presented == "")
	}
	if err != nil {
		s.refuse(w, r, statusOf(translate(ctx, err).Code), err)
		return
	}
	s.mu.Lock()
	s.reservations[e.token] = e
	s.mu.Unlock()
	e.mu.Lock()
	e.unopened = time.AfterFunc(s.cfg.Sockets.InitTimeout, e.end)
	over := e.over
	e.mu.Unlock()
	if over || s.draining.Err() != nil { // meanwhile
		e.end()
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, e.token)
}

// forget removes a reservation.
func (s *Server) forget(e *events) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.reservations, e.token)
}

// reserved returns the event stream whose token r has, and the context in which its operations run: that of who sent r, who is who made
// the reservation, and whose newer access token lengthens it. As a ticket the stream's token is enough: EventSource sends no other.
func (s *Server) reserved(r *http.Request, ticket bool) (e *events, ctx context.Context, err error) {
	presented := r.Header.Get("Authorization")
	ctx, v, signedIn, err := s.signIn(r.Context(), presented)
	if err != nil {
		return nil, ctx, err
	}
	s.mu.Lock()
	e = s.reservations[streamToken(r)]
	s.mu.Unlock()
	if e == nil || !e.belongs(v, signedIn, presented == "") && (signedIn || !ticket) {
		return nil, ctx, errNoStream
	}
	own := &request{}
	own.detach(viewer.ClientOf(ctx))
	ctx = viewer.WithClient(context.WithValue(context.Background(), requestKey{}, own), &own.client)
	if signedIn {
		ctx = viewer.NewContext(ctx, v)
	}
	return e, ctx, nil
}

// belongs reports whether v made the reservation, or nobody did.
func (e *events) belongs(v viewer.Viewer, signedIn, byCookie bool) bool {
	if signedIn {
		_, ok := e.rights.renew(v, byCookie)
		return ok
	}
	return !e.owned
}

// claim reports whether nobody has opened the stream before.
func (e *events) claim() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unopened.Stop()
	before := e.open
	e.open = true
	return !before
}

// openReservation writes the stream. There is one connection to it, once.
func (s *Server) openReservation(w http.ResponseWriter, r *http.Request) {
	e, ctx, err := s.reserved(r, true)
	if err == nil && !e.claim() {
		err = &record.Error{Code: record.AlreadyExists, Message: "this event stream is open already"}
	}
	if err != nil {
		s.refuse(w, r, statusOf(translate(ctx, err).Code), err)
		return
	}
	e.write(w, r)
}

// performReserved runs an operation whose answers go into the stream.
func (s *Server) performReserved(w http.ResponseWriter, r *http.Request) {
	asked, status, err := s.asked(w, r)
	if err != nil {
		s.refuse(w, r, status, err)
		return
	}
	e, ctx, err := s.reserved(r, false)
	id, _ := asked.Extensions["operationId"].(string)
	if err == nil && (id == "" || len(id) > longestOperationID) {
		err = badRequest("extensions.operationId is missing, or longer than %d bytes", longestOperationID)
	}
	if err != nil {
		s.refuse(w, r, statusOf(translate(ctx, err).Code), err)
		return
	}
	prepared, refused := s.prepare(ctx, asked)
	if refused != nil {
		s.write(w, http.StatusBadRequest, refused, false)
		return
	}
	if !s.allowed(w, r, prepared) {
		return
	}
	op, err := e.begin(ctx, id)
	if err != nil {
		s.refuse(w, r, statusOf(translate(ctx, err).Code), err)
		return
	}
	go func() {
		defer s.streaming.Done() // begin has added it
		s.run(op, prepared)
	}()
	w.Header().Del("Content-Type")
	w.WriteHeader(http.StatusAccepted)
}

// cancelStreamed ends an operation of a stream. One that has ended already is as good.
func (s *Server) cancelStreamed(w http.ResponseWriter, r *http.Request) {
	e, ctx, err := s.reserved(r, false)
	id := r.URL.Query().Get("operationId")
	if err == nil && id == "" {
		err = badRequest("operationId is missing")
	}
	if err != nil {
		s.refuse(w, r, statusOf(translate(ctx, err).Code), err)
		return
	}
	e.abort(id)
	w.Header().Del("Content-Type")
	w.WriteHeader(http.StatusOK)
}
