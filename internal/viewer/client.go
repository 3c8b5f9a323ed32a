package viewer

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
)

// Client is the program that sent a request, as the transport knows it.
type Client struct {
	Address   netip.Addr // behind trusted proxies, the one that they name; invalid where it is not known
	UserAgent string
	RequestID string
	Socket    bool           // what is asked comes over a WebSocket, or is answered by events: there is no answer's header to write
	Cookies   []*http.Cookie // of the request; over a WebSocket there are those of the upgrade until it is signed in, and none from then on

	mu     sync.Mutex
	header http.Header // of the answer; nil where Socket; protected by mu
}

// SetAnswer says which header AddHeader writes.
func (c *Client) SetAnswer(h http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.header = h
}

// Cookie returns the value of a cookie of the request, "" where there is none.
func (c *Client) Cookie(name string) string {
	for _, k := range c.Cookies {
		if k.Name == name {
			return k.Value
		}
	}
	return ""
}

// SetCookie has the answer set a cookie. Over a socket it does nothing.
func (c *Client) SetCookie(k *http.Cookie) { c.AddHeader("Set-Cookie", k.String()) }

// AddHeader adds a line to the header of the answer. Over a socket it does nothing.
func (c *Client) AddHeader(name, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.header != nil {
		c.header.Add(name, value)
	}
}

type clientKey struct{}

// WithClient returns a context of a request that c sent.
func WithClient(ctx context.Context, c *Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// ClientOf returns who sent the request; an empty Client, without an address, outside of requests.
func ClientOf(ctx context.Context) *Client {
	if c, ok := ctx.Value(clientKey{}).(*Client); ok {
		return c
	}
	return &Client{Socket: true}
}
