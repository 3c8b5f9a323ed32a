// Package viewer says who asks: the [Viewer], a signed-in user, and the [Client], the program on the other side.
//
// The transport puts both into a request's context once, before GraphQL begins; everything behind it
// reads them from there. It is a leaf: it imports nothing of ours, and everybody may import it.
package viewer

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
)

// The roles. Each implies those before it.
const (
	User      = "user"
	Moderator = "moderator"
	Admin     = "admin"
)

var roles = []string{User, Moderator, Admin}

// Viewer is the user on whose behalf a request runs.
type Viewer struct {
	ID      uuid.UUID // of the user record
	Role    string    // User, Moderator or Admin
	Session uuid.UUID // of the session; uuid.Nil where there is none, as on the command line
	Until   time.Time // when the access token expires; zero where it does not
}

// Is reports whether the viewer has a role, or one that implies it. Nobody has an unknown one.
func (v Viewer) Is(role string) bool {
	i := slices.Index(roles, role)
	return i >= 0 && slices.Index(roles, v.Role) >= i
}

// Watcher is told what becomes of a viewer's rights, on a goroutine that has other things to do: its methods must not block.
type Watcher interface {
	// Ended says that they have ended. Nothing is told after it.
	Ended()
	// Renewed says until when the session's newest access token is good. A session that began before says so whenever it is refreshed.
	Renewed(until time.Time)
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
