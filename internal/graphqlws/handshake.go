package graphqlws

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// upgraded is a connection that speaks WebSocket from now on.
type upgraded struct {
	conn   net.Conn
	ahead  []byte // what the client sent before it was answered
	spoken bool   // the client speaks Subprotocol
}

// upgrade is the server's part of the opening handshake, RFC 6455, section 4.2. An error has been answered. The answer goes through w, so
// that it has the headers, and tells the status, to whatever is around it.
func upgrade(w http.ResponseWriter, r *http.Request) (up upgraded, err error) {
	if r.ProtoMajor != 1 || !has(r.Header, "Connection", "upgrade") || !has(r.Header, "Upgrade", "websocket") {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		return up, refuse(w, http.StatusUpgradeRequired, "this is for WebSockets alone")
	}
	if r.Header.Get("Sec-WebSocket-Version") != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13")
		return up, refuse(w, http.StatusUpgradeRequired, "the WebSocket's version must be 13")
	}
	if r.Method != http.MethodGet {
		return up, refuse(w, http.StatusBadRequest, "a WebSocket is opened by GET")
	}
	key := r.Header.Get("Sec-WebSocket-Key")
	if nonce, err := base64.StdEncoding.DecodeString(key); err != nil || len(nonce) != 16 {
		return up, refuse(w, http.StatusBadRequest, "Sec-WebSocket-Key must be 16 bytes as base64")
	}
	if !canHijack(w) {
		return up, refuse(w, http.StatusNotImplemented, "this connection cannot become a WebSocket")
	}
	up.spoken = has(r.Header, "Sec-WebSocket-Protocol", Subprotocol)
	h := w.Header()
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	accept := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	h.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(accept[:]))
	if up.spoken {
		h.Set("Sec-WebSocket-Protocol", Subprotocol)
	}
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, rw, err := http.NewResponseController(w).Hijack() // sends the header
	if err != nil {
		return up, fmt.Errorf("take over the connection: %w", err)
	}
	if ahead, err := rw.Peek(rw.Reader.Buffered()); err == nil && len(ahead) > 0 {
		up.ahead = bytes.Clone(ahead)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil { // net/http's timeouts
		return up, errors.Join(err, conn.Close())
	}
	up.conn = conn
	return up, nil
}

func refuse(w http.ResponseWriter, status int, message string) error {
	http.Error(w, message, status)
	return errors.New(message)
}

// canHijack is known before a status is sent that could not be taken back.
func canHijack(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

// has says whether a header has a token in one of its lists.
func has(h http.Header, name, token string) bool {
	return slices.ContainsFunc(h.Values(name), func(line string) bool {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
		return false
	})
}
