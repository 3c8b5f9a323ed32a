// Package graph is the GraphQL schema and its resolvers. ent.graphql, generated.go and the files that end in _gen.go
// are generated from ent/schema; what else is here is written by hand.
//
// It may import record, ent, viewer and auth; server imports it through graphql.ExecutableSchema only.
package graph

import (
	"godstack/ent"
	"godstack/internal/auth"
)

// Resolver is the root of all resolvers: what they need is here.
type Resolver struct {
	Stores *ent.Stores
	Auth   *auth.Service
}
