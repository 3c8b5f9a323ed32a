package main

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"godstack/internal/auth"
	"godstack/internal/viewer"
)

// keys are those that Godstack is given, in the forms of its configuration. Each run has its own.
type keys struct{ jwt, secret string }

func newKeys() keys { return keys{auth.GenerateKey(), auth.GenerateSecret()} }

// session is a sign-in of a user.
type session struct{ user, id uuid.UUID }

// audience is who the program's access tokens are for.
const audience = "godstack"

// publicURL is where Godstack is told that it is found, and so who issues its access tokens.
const publicURL = "http://localhost:8080"

// signIn returns an access token of each user, in order. They outlast the run.
func (d *data) signIn() ([]string, error) {
	keys, err := auth.ParseKeys(d.keys.jwt, publicURL, audience)
	if err != nil {
		return nil, fmt.Errorf("sign in: %w", err)
	}
	tokens := make([]string, len(d.sessions))
	now := time.Now()
	for i, s := range d.sessions {
		tokens[i], err = keys.Sign(auth.Claims{User: s.user, Session: s.id, Role: viewer.User, IssuedAt: now, ExpiresAt: now.Add(24 * time.Hour)})
		if err != nil {
			return nil, err
		}
	}
	return tokens, nil
}
