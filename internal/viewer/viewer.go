// Package viewer says who asks.
//
// The transport puts a [Viewer] into a request's context once, before GraphQL begins; everything behind it
// reads the viewer from there. It is a leaf: it imports nothing of ours, and everybody may import it.
package viewer

import (
	"context"

	"github.com/google/uuid"
)

// Viewer is the user on whose behalf a request runs.
type Viewer struct {
	ID   uuid.UUID // of the user record
	Role string    // "user", "moderator" or "admin"
}

type key struct{}

// NewContext returns a context in which v asks.
func NewContext(ctx context.Context, v Viewer) context.Context {
	return context.WithValue(ctx, key{}, v)
}

// FromContext returns who asks; ok is false where nobody is signed in.
func FromContext(ctx context.Context) (v Viewer, ok bool) {
	v, ok = ctx.Value(key{}).(Viewer)
	return v, ok
}
