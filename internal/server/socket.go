package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/coder/websocket"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

const subprotocol = "graphql-transport-ws"

// Close codes of graphql-transport-ws.
const (
	closeForbidden     = 4403
	closeInternalError = 4500
)

// socketTransport puts gqlgen's WebSocket transport behind a check of the origin, and ends its connections
// when the server drains.
type socketTransport struct{ *Server }

var _ graphql.Transport = socketTransport{}

func isSocket(r *http.Request) bool { return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") }

func (socketTransport) Supports(r *http.Request) bool { return isSocket(r) }

func (t socketTransport) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	if !t.sameOrigin(r) {
		t.refuse(w, r, http.StatusForbidden, &record.Error{Code: record.Forbidden, Message: "this origin may not open sockets"})
		return
	}
	if !offers(r, subprotocol) {
		t.refuse(w, r, http.StatusBadRequest, badRequest("the WebSocket's subprotocol must be %s", subprotocol))
		return
	}
	t.sockets.Add(1)
	defer t.sockets.Done()
	client := viewer.ClientOf(r.Context())
	client.Socket = true
	client.SetAnswer(nil)
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	defer context.AfterFunc(t.draining, func() { end(nil) })()

	transport.Websocket{
		Implementation: upgrade{ctx},
		InitFunc: func(ctx context.Context, payload transport.InitPayload) (context.Context, *transport.InitPayload, error) {
			return t.connect(ctx, end, presented(payload, r.Header))
		},
		InitTimeout:      10 * time.Second,
		PingPongInterval: 30 * time.Second,
		PayloadReadLimit: &t.cfg.Limits.Body,
		ErrorFunc: func(ctx context.Context, err error) {
			t.log.DebugContext(ctx, "socket", "requestId", RequestID(ctx), "error", err)
		},
	}.Do(w, r.WithContext(ctx), checked{exec, t.Server, end})
}

// connect signs a socket in, and has end called when it is to be closed.
func (t socketTransport) connect(ctx context.Context, end context.CancelCauseFunc, authorization string) (context.Context, *transport.InitPayload, error) {
	ctx, v, signedIn, err := t.signIn(ctx, authorization)
	if err != nil {
		code, reason := closeInternalError, "Internal server error"
		switch translate(ctx, err).Code {
		case record.Unauthenticated, record.Forbidden:
			code, reason = closeForbidden, "Forbidden"
		}
		message := t.present(ctx, err).Message
		ctx = transport.WithWebsocketCloseCode(transport.AppendCloseReason(ctx, reason), code)
		return ctx, nil, errors.New(message)
	}
	if signedIn {
		t.watch(ctx, end, v)
	}
	return ctx, nil, nil
}

// errRevoked is why a socket's context ends whose viewer's rights have: the session, or the access token.
var errRevoked = errors.New("the session or the access token has ended")

// watch ends a socket when its viewer's session ends or the access token expires, until ctx is done.
func (t socketTransport) watch(ctx context.Context, end context.CancelCauseFunc, v viewer.Viewer) {
	var revoked <-chan struct{}
	stop := func() {}
	if t.deps.Watch != nil {
		revoked, stop = t.deps.Watch(v)
	}
	var expired <-chan time.Time
	if !v.Until.IsZero() {
		expired = time.After(time.Until(v.Until))
	}
	go func() {
		defer stop()
		select {
		case <-revoked:
			end(errRevoked)
		case <-expired:
			end(errRevoked)
		case <-ctx.Done():
		}
	}()
}

// checked asks about the viewer of a socket before each operation, as is asked before each request: a node may not have
// heard yet that the session has ended.
type checked struct {
	graphql.GraphExecutor
	*Server
	end context.CancelCauseFunc
}

func (c checked) CreateOperationContext(ctx context.Context, params *graphql.RawParams) (*graphql.OperationContext, gqlerror.List) {
	v, signedIn := viewer.FromContext(ctx)
	if signedIn && c.deps.Check != nil {
		if err := c.deps.Check(ctx, v); err != nil {
			if translate(ctx, err).Code == record.Unauthenticated {
				c.end(errRevoked)
			}
			return &graphql.OperationContext{}, gqlerror.List{c.present(ctx, err)}
		}
	}
	return c.GraphExecutor.CreateOperationContext(ctx, params)
}

// presented is a socket's authorization: that of connection_init's payload, then of the upgrade.
func presented(payload transport.InitPayload, header http.Header) string {
	for key := range payload {
		if strings.EqualFold(key, "Authorization") && payload.GetString(key) != "" {
			return payload.GetString(key)
		}
	}
	return header.Get("Authorization")
}

// upgrade accepts graphql-transport-ws alone; gqlgen would take its predecessor as well. ctx is the socket's.
type upgrade struct{ ctx context.Context }

func (u upgrade) Accept(w http.ResponseWriter, r *http.Request, o transport.WebsocketAcceptOptions) (transport.WebsocketConn, error) {
	o.Subprotocols = []string{subprotocol}
	coder := transport.CoderWebsocketImplementation{
		AcceptOptions: websocket.AcceptOptions{InsecureSkipVerify: true}, // sameOrigin was asked, which knows more hosts
	}
	c, err := coder.Accept(w, r, o)
	if err != nil {
		return nil, err
	}
	full, ok := c.(socketConn)
	if !ok {
		return nil, fmt.Errorf("a connection of type %T has no limits", c)
	}
	return revocable{full, u.ctx}, nil
}

// socketConn is what gqlgen uses of a connection.
type socketConn interface {
	transport.WebsocketConn
	transport.WebsocketReadLimiter
	transport.WebsocketReadDeadliner
}

// revocable is a connection that says why it is closed where its viewer's rights have ended, and is deaf and mute from then on:
// gqlgen has one close code for all ends of a context, and a client may take its time to answer.
type revocable struct {
	socketConn
	ctx context.Context
}

func (c revocable) revoked() bool { return errors.Is(context.Cause(c.ctx), errRevoked) }

func (c revocable) WriteClose(code int, reason string) error {
	if c.revoked() {
		code, reason = closeForbidden, "Forbidden"
	}
	return c.socketConn.WriteClose(code, reason)
}

func (c revocable) WriteJSON(v any) error {
	if c.revoked() {
		return transport.ErrWebsocketClosed
	}
	return c.socketConn.WriteJSON(v)
}

func (c revocable) NextReader() (int, io.Reader, error) {
	kind, r, err := c.socketConn.NextReader()
	if c.revoked() {
		return kind, nil, transport.ErrWebsocketClosed
	}
	return kind, r, err
}

func offers(r *http.Request, subprotocol string) bool {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		if slices.ContainsFunc(strings.Split(line, ","), func(p string) bool { return strings.TrimSpace(p) == subprotocol }) {
			return true
		}
	}
	return false
}
