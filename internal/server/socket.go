package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/coder/websocket"

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
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(t.draining, cancel)()

	transport.Websocket{
		Implementation: upgrade{},
		InitFunc: func(ctx context.Context, payload transport.InitPayload) (context.Context, *transport.InitPayload, error) {
			return t.connect(ctx, presented{payload, r.Header})
		},
		InitTimeout:      10 * time.Second,
		PingPongInterval: 30 * time.Second,
		PayloadReadLimit: &t.cfg.Limits.Body,
		ErrorFunc: func(ctx context.Context, err error) {
			t.log.DebugContext(ctx, "socket", "requestId", RequestID(ctx), "error", err)
		},
	}.Do(w, r.WithContext(ctx), exec)
}

// connect signs a socket in.
func (t socketTransport) connect(ctx context.Context, c Credentials) (context.Context, *transport.InitPayload, error) {
	v, signedIn, err := t.deps.Viewer(ctx, c)
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
		ctx = viewer.NewContext(ctx, v)
		requestFrom(ctx).user = v.ID
	}
	return ctx, nil, nil
}

// presented are a socket's credentials: connection_init's payload, then the headers of the upgrade.
type presented struct {
	payload transport.InitPayload
	header  http.Header
}

func (p presented) Get(name string) string {
	for key := range p.payload {
		if strings.EqualFold(key, name) {
			return p.payload.GetString(key)
		}
	}
	return p.header.Get(name)
}

// upgrade accepts graphql-transport-ws alone; gqlgen would take its predecessor as well.
type upgrade struct{}

func (upgrade) Accept(w http.ResponseWriter, r *http.Request, o transport.WebsocketAcceptOptions) (transport.WebsocketConn, error) {
	o.Subprotocols = []string{subprotocol}
	coder := transport.CoderWebsocketImplementation{
		AcceptOptions: websocket.AcceptOptions{InsecureSkipVerify: true}, // sameOrigin was asked, which knows more hosts
	}
	return coder.Accept(w, r, o)
}

func offers(r *http.Request, subprotocol string) bool {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		if slices.ContainsFunc(strings.Split(line, ","), func(p string) bool { return strings.TrimSpace(p) == subprotocol }) {
			return true
		}
	}
	return false
}
