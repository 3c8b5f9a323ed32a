package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/graphqlws"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// Close codes. Clients by the package graphql-ws open a socket again after the first two, and give up after the last.
const (
	closeForbidden     = 4403
	closeTryAgainLater = 1013
	closeInternalError = 4500
)

// errForbidden closes a socket whose viewer's rights have ended.
var errForbidden = &graphqlws.CloseError{Code: closeForbidden, Reason: "Forbidden"}

// socket is what is kept of a WebSocket: nothing of its request but who sent it.
type socket struct {
	request
	rights        rights
	authorization string // the upgrade's, until the socket is signed in
	opened        time.Time
	conn          *graphqlws.Conn // once it is initialised, and so is ctx
	ctx           context.Context // its operations', but for the viewer
}

// end closes the socket when the rights have ended that it was opened with.
func (k *socket) end() { k.conn.Close(errForbidden.Code, errForbidden.Reason) }

// sockets are what package graphqlws asks.
type sockets struct{ *Server }

var _ graphqlws.Handler = sockets{}

func (s *Server) newSockets() (*graphqlws.Server, error) {
	c := s.cfg.Sockets
	return graphqlws.New(sockets{s}, &graphqlws.Config{
		InitTimeout: c.InitTimeout, DrainTimeout: c.DrainTimeout, PingInterval: c.PingInterval,
		CloseSpread: s.cfg.ShutdownSpread, MessageSize: c.MessageSize, MessageRate: c.MessageRate, Operations: c.Operations, WriteBuffer: c.WriteBuffer,
		TooMany: func(c *graphqlws.Conn) json.RawMessage {
			return marshal(gqlerror.List{s.present(c.Context(), errTooManyOperations)})
		},
		Logger: s.log,
	})
}

// errTooManyOperations refuses one.
var errTooManyOperations = &record.Error{Code: record.RateLimited, Message: "too many operations at the same time"}

func isSocket(r *http.Request) bool { return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") }

func (s *Server) openSocket(w http.ResponseWriter, r *http.Request) {
	if !s.sameOrigin(r) {
		s.refuse(w, r, http.StatusForbidden, &record.Error{Code: record.Forbidden, Message: "this origin may not open sockets"})
		return
	}
	from := viewer.ClientOf(r.Context())
	k := &socket{authorization: r.Header.Get("Authorization"), opened: time.Now()}
	k.detach(from)
	k.client.Cookies = from.Cookies
	k.rights.server, k.rights.lapse = s, k.end
	base := context.WithValue(context.Background(), requestKey{}, k) // without what a connection has
	s.sockets.Serve(viewer.WithClient(base, &k.client), w, r)
}

// Init signs a socket in.
func (s sockets) Init(c *graphqlws.Conn, payload json.RawMessage) (ack json.RawMessage, err error) {
	k := c.Context().Value(requestKey{}).(*socket)
	k.conn, k.ctx = c, c.Context()
	c.SetValue(k)
	presented := cmp.Or(authorization(payload), k.authorization)
	turn, err := s.arrive(k.ctx)
	if err != nil {
		return nil, s.closing(k.ctx, err)
	}
	defer turn.give()
	ctx, v, signedIn, err := s.signIn(k.ctx, presented)
	k.authorization, k.client.Cookies = "", nil // they may be used up soon
	if err != nil {
		return nil, s.closing(ctx, err)
	}
	c.SetContext(ctx)
	if !k.rights.begin(v, presented == "", k.client.Address) {
		return nil, &graphqlws.CloseError{Code: closeTryAgainLater, Reason: "Too many sockets"}
	}
	if !signedIn {
		return nil, nil
	}
	return expiry(v.Until), nil
}

// Ping takes a new access token.
func (s sockets) Ping(c *graphqlws.Conn, payload json.RawMessage) (pong json.RawMessage, err error) {
	presented := authorization(payload)
	if presented == "" {
		return nil, nil
	}
	k := c.Value().(*socket)
	if result, ok := s.count(k.ctx); ok && !result.OK {
		return nil, s.closing(k.ctx, tooManyRequests(result))
	}
	v, signedIn, err := s.viewer(k.ctx, presented)
	if err != nil {
		return nil, s.closing(k.ctx, err)
	}
	until, ok := k.rights.renew(v, false)
	if !ok || !signedIn {
		return nil, &graphqlws.CloseError{Code: closeForbidden, Reason: "Forbidden: the token is of another user, or of another role"}
	}
	c.SetContext(viewer.NewContext(k.ctx, v))
	return expiry(until), nil
}

// Subscribe runs an operation.
func (s sockets) Subscribe(op *graphqlws.Operation) {
	ctx := op.Context()
	defer s.rescue(ctx, op)
	k := op.Conn().Value().(*socket)
	if result, ok := s.count(ctx); ok && !result.OK {
		s.fail(ctx, op, tooManyRequests(result))
		return
	}
	// As before each request: a node may not have heard yet that the session has ended.
	if err := k.rights.check(ctx); err != nil {
		if translate(ctx, err).Code == record.Unauthenticated {
			k.end()
			return
		}
		s.fail(ctx, op, err)
		return
	}
	a := &ask{RawParams: graphql.RawParams{Query: op.Query, OperationName: op.OperationName}, document: op.DocumentID}
	for _, p := range []struct {
		name string
		from json.RawMessage
		into *map[string]any
	}{{"variables", op.Variables, &a.Variables}, {"extensions", op.Extensions, &a.Extensions}} {
		if len(p.from) == 0 {
			continue
		}
		if err := decode(p.from, p.into); err != nil {
			s.fail(ctx, op, badRequest("%s: %s", p.name, err))
			return
		}
	}
	if err := a.check(); err != nil {
		s.fail(ctx, op, err)
		return
	}
	prepared, refused := s.prepare(ctx, a)
	if refused != nil {
		op.Fail(marshal(refused.Errors))
		return
	}
	s.perform(op, prepared)
}

// Closed forgets a socket.
func (s sockets) Closed(c *graphqlws.Conn) {
	k := c.Value().(*socket)
	k.rights.release()
	attrs := []slog.Attr{slog.String("requestId", k.client.RequestID), slog.Duration("duration", time.Since(k.opened))}
	if k.user != uuid.Nil {
		attrs = append(attrs, slog.String("user", k.user.String()))
	}
	s.log.LogAttrs(k.ctx, slog.LevelInfo, "socket", attrs...)
}

// closing says how a socket is closed whose viewer is refused.
func (s sockets) closing(ctx context.Context, err error) *graphqlws.CloseError {
	message := s.present(ctx, err).Message
	switch translate(ctx, err).Code {
	case record.Unauthenticated, record.Forbidden:
		return &graphqlws.CloseError{Code: closeForbidden, Reason: "Forbidden: " + message}
	case record.Unavailable, record.RateLimited:
		return &graphqlws.CloseError{Code: closeTryAgainLater, Reason: message}
	}
	return &graphqlws.CloseError{Code: closeInternalError, Reason: message}
}

// authorization is that of the payload of connection_init or ping, in upper or lower case; "" where it has none. Of several spellings
// the first counts that is not empty: "authorization", then in the order of bytes.
func authorization(payload json.RawMessage) string {
	var keys map[string]any
	if json.Unmarshal(payload, &keys) != nil {
		return ""
	}
	if text, _ := keys["authorization"].(string); text != "" {
		return text
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if text, _ := keys[key].(string); text != "" && strings.EqualFold(key, "authorization") {
			return text
		}
	}
	return ""
}

// expiry tells a client until when its socket is open, unless it presents a new access token; null where there is no end.
func expiry(until time.Time) json.RawMessage {
	if until.IsZero() {
		return json.RawMessage(`{"expiresAt":null}`)
	}
	return fmt.Appendf(nil, `{"expiresAt":%q}`, until.UTC().Format(time.RFC3339Nano))
}
