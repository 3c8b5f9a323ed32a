package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
)

// readAfterHeader says in a request what its client has seen and written, and in an answer what it has by now. It is for requests that are
// answered with one result: queries over sockets and event streams are answered from the primary.
const readAfterHeader = "Read-After"

// Replica answers queries from a standby.
type Replica interface {
	// ReadAfter calls query, once or twice, with the context to read with, so that it sees all that token covers; what the last call did
	// counts. newer covers what was seen. An error says that the token is none; query is not called then.
	ReadAfter(ctx context.Context, token string, query func(context.Context)) (newer string, err error)
	// Token covers all that was written so far.
	Token(ctx context.Context) string
}

// executeFor is execute for a request of its own: where there is a replica, a query that says what it has to see may be answered there.
func (s *Server) executeFor(
	ctx context.Context, w http.ResponseWriter, r *http.Request, op *graphql.OperationContext,
) (resp *graphql.Response, err error) {
	seen, asks := r.Header[readAfterHeader]
	switch {
	case s.deps.Replica == nil:
		return s.execute(ctx, op)
	case op.Operation.Operation == ast.Mutation:
		resp, err = s.execute(ctx, op)
		w.Header().Set(readAfterHeader, s.deps.Replica.Token(ctx)) // whatever became of it
		return resp, err
	case !asks:
		return s.execute(ctx, op)
	}
	token, bad := s.deps.Replica.ReadAfter(ctx, strings.Join(seen, ", "), func(ctx context.Context) { resp, err = s.execute(ctx, op) })
	if bad != nil {
		return nil, bad
	}
	w.Header().Set(readAfterHeader, token)
	return resp, err
}
