package record

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"godstack/internal/entpgx"
)

// How a mutation is given its idempotency key.
const (
	keyHeader    = "Idempotency-Key"
	keyExtension = "idempotencyKey" // of the request's extensions
	longestKey   = 255              // characters
)

// retryWithKey is when to try an operation with a key again of which nobody knows what became.
const retryWithKey = time.Second

// The statements of idempotency keys. A day is by the database's clock.
const (
	// claimKey gives a row where the key is free, or was used more than a day ago. While another transaction has it and has not ended, it
	// waits. Where it gives none, the row is locked, and so stays.
	claimKey = `INSERT INTO idempotency_keys AS k (user_id, key, request) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, key) DO UPDATE SET request = EXCLUDED.request, data = NULL, beside = NULL, shown = NULL, created_at = now()
		WHERE k.created_at <= now() - interval '24 hours' RETURNING true`
	readKey  = `SELECT request, data, beside, shown FROM idempotency_keys WHERE user_id = $1 AND key = $2`
	storeKey = `UPDATE idempotency_keys SET data = $3, beside = $4, shown = $5 WHERE user_id = $1 AND key = $2`
	purgeKey = `DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
		SELECT ctid FROM idempotency_keys WHERE created_at <= now() - interval '24 hours' LIMIT $1 FOR UPDATE SKIP LOCKED))`
	purgeBatch = 5000 // rows of a statement
)

// keyOf returns an operation's idempotency key, "" where it has none.
func keyOf(op *graphql.OperationContext) (string, *Error) {
	keys, fromClient := op.Headers[keyHeader], op.Extensions[keyExtension]
	if len(keys) == 0 && fromClient == nil {
		return "", nil
	}
	if fromClient != nil {
		text, ok := fromClient.(string)
		if !ok {
			return "", badInput(keyExtension, "extensions.%s is not a string", keyExtension)
		}
		keys = append(slices.Clip(keys), text)
	}
	for _, key := range keys {
		if len(key) < 1 || len(key) > longestKey || slices.ContainsFunc([]byte(key), func(c byte) bool { return c <= ' ' || c > '~' }) {
			return "", badInput(keyExtension, "an idempotency key has 1 to %d visible ASCII characters", longestKey)
		}
		if key != keys[0] {
			return "", badInput(keyExtension, "the operation has several idempotency keys, by the header %s or extensions.%s, and they differ",
				keyHeader, keyExtension)
		}
	}
	return keys[0], nil
}

// MutateOperationContext refuses an idempotency key that is none, or that comes with what takes none, before anything is executed.
func (o Operation) MutateOperationContext(_ context.Context, op *graphql.OperationContext) *gqlerror.Error {
	key, wrong := keyOf(op)
	switch {
	case wrong != nil:
	case key == "":
		return nil
	case op.Operation.Operation != ast.Mutation:
		wrong = badInput(keyExtension, "an idempotency key is for mutations, and this is a %s", op.Operation.Operation)
	default:
		if n, _ := o.countAlone(op); n == 0 {
			return nil
		}
		wrong = badInput(keyExtension, "an idempotency key is for mutations of records: fields that sign in or manage an account take none")
	}
	return &gqlerror.Error{Message: wrong.Message, Extensions: wrong.Extensions()}
}

// keyed is what is kept of a mutation with an idempotency key.
type keyed struct {
	user    uuid.UUID
	key     string
	request []byte // what tells one request from another
	shown   shown
	written []recordKey // what the root fields answer with
}

// requestOf is a hash of what a request asks for.
func requestOf(op *graphql.OperationContext) ([]byte, error) {
	variables, err := json.Marshal(op.Variables) // whose keys it sorts
	if err != nil {
		return nil, fmt.Errorf("hash variables: %w", err)
	}
	h := sha256.New()
	for _, part := range []string{op.RawQuery, op.Operation.Name, string(variables)} {
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return h.Sum(nil), nil
}

// once runs the operation if nobody has sent its key before, and else answers what was answered then. Whatever fails with UNAVAILABLE may
// be tried again, and says so: if it was committed after all, it is answered and not done again.
func (w *work) once(ctx context.Context, key string, next graphql.ResponseHandler) *graphql.Response {
	resp, settled := w.claimed(ctx, key, next)
	if resp == nil || settled {
		return resp
	}
	for _, err := range resp.Errors {
		if _, told := err.Extensions["retryAfter"]; err.Extensions["code"] == string(Unavailable) && !told {
			err.Extensions["retryAfter"] = retryWithKey.Seconds()
		}
	}
	return resp
}

// claimed is once; settled says that the operation was committed, now or before.
func (w *work) claimed(ctx context.Context, key string, next graphql.ResponseHandler) (resp *graphql.Response, settled bool) {
	who := askerOf(ctx)
	if !who.signedIn {
		return refuse(ctx, badInput(keyExtension, "an idempotency key is of who is signed in, and nobody is")), false
	}
	request, err := requestOf(graphql.GetOperationContext(ctx))
	if err != nil {
		return refuse(ctx, err), false
	}
	k := &keyed{user: who.ID, key: key, request: request, shown: shown{}}
	w.tx = w.engine.begin(ctx)
	var mine bool
	switch err := w.tx.PGX().QueryRow(ctx, claimKey, k.user, k.key, k.request).Scan(&mine); {
	case errors.Is(err, pgx.ErrNoRows):
		return w.replay(ctx, k)
	case err != nil:
		return refuse(ctx, fmt.Errorf("claim idempotency key: %w", err)), false
	}
	w.key = k
	resp = w.run(ctx, next)
	return resp, resp != nil && w.tx == nil
}

// beside is what an answer has besides its data.
type beside struct {
	Errors     gqlerror.List              `json:"errors,omitempty"`
	Extensions map[string]json.RawMessage `json:"extensions,omitempty"`
}

// store keeps an answer, in the transaction that it tells of.
func (w *work) store(ctx context.Context, resp *graphql.Response) error {
	k := w.key
	if err := w.settle(context.WithValue(ctx, workKey{}, w)); err != nil {
		return err
	}
	var more []byte
	if len(resp.Errors) > 0 || len(resp.Extensions) > 0 {
		b := beside{resp.Errors, map[string]json.RawMessage{}}
		var err error
		for name, v := range resp.Extensions {
			if b.Extensions[name], err = json.Marshal(v); err != nil {
				return fmt.Errorf("store idempotency key: %w", err)
			}
		}
		if more, err = json.Marshal(b); err != nil {
			return fmt.Errorf("store idempotency key: %w", err)
		}
	}
	records, err := json.Marshal(k.shown)
	if err != nil {
		return fmt.Errorf("store idempotency key: %w", err)
	}
	if _, err := w.tx.PGX().Exec(ctx, storeKey, k.user, k.key, []byte(resp.Data), more, records); err != nil {
		return fmt.Errorf("store idempotency key: %w", err)
	}
	return nil
}

// settle forgets of what the answer shows the records that who asks has written and may not read afterwards: they were answered because
// of that, and so they will be.
func (w *work) settle(ctx context.Context) error {
	for _, r := range w.key.written {
		s := w.engine.stores[r.entity]
		found, err := s.byID(ctx, []uuid.UUID{r.id})
		if err != nil {
			return err
		}
		if found[r.id] == nil {
			delete(w.key.shown[r.entity], r.id)
		}
	}
	return nil
}

// replay answers what was answered to the key before. Where who asks may not read something of it any more, or it is not there any more,
// the answer is NOT_FOUND, which says that the operation was executed.
func (w *work) replay(ctx context.Context, k *keyed) (resp *graphql.Response, settled bool) {
	var request, data, more, records []byte
	err := w.tx.PGX().QueryRow(ctx, readKey, k.user, k.key).Scan(&request, &data, &more, &records)
	w.end(ctx)
	w.tx = nil // what follows reads outside
	if err != nil {
		return refuse(ctx, fmt.Errorf("read idempotency key: %w", err)), false
	}
	if !bytes.Equal(request, k.request) {
		return refuse(ctx, badInput(keyExtension, "this idempotency key was sent before with another document, operation name or variables")), false
	}
	var (
		b  beside
		of shown
	)
	if err := errors.Join(json.Unmarshal(records, &of), unmarshal(more, &b)); err != nil {
		return refuse(ctx, fmt.Errorf("read idempotency key: %w", err)), false
	}
	readable, err := w.engine.readable(ctx, of)
	if err != nil {
		return refuse(ctx, err), false
	}
	if !readable {
		resp = refuse(ctx, &Error{Code: NotFound, Message: "this was executed before, and something of its answer does not exist any more, or you may not read it"})
		resp.Extensions = map[string]any{"replayed": true}
		return resp, true
	}
	resp = &graphql.Response{Data: data, Extensions: map[string]any{"replayed": true}}
	for name, v := range b.Extensions {
		resp.Extensions[name] = v
	}
	for _, err := range b.Errors {
		graphql.AddError(ctx, err) // which gives it this request's id
	}
	resp.Errors = graphql.GetErrors(ctx)
	return resp, true
}

// unmarshal reads JSON, or nothing.
func unmarshal(text []byte, into any) error {
	if text == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// shown are the records that an answer shows, by prefix, and of each the fields in it that not everybody reads.
type shown map[string]map[uuid.UUID][]string

// add notes a record. It does nothing where m is nil.
func (m shown) add(s *Store, n Node, fields ...string) {
	if m == nil {
		return
	}
	of := m[s.Prefix]
	if of == nil {
		of = map[uuid.UUID][]string{}
		m[s.Prefix] = of
	}
	id, _ := s.key(n)
	have, ok := of[id]
	if !ok {
		have = []string{}
	}
	for _, name := range fields {
		if !slices.Contains(have, name) {
			have = append(have, name)
		}
	}
	of[id] = have
}

// readable reports whether who asks may read all of what is shown: a statement an entity.
func (g *Engine) readable(ctx context.Context, of shown) (bool, error) {
	who := askerOf(ctx)
	for prefix, records := range of {
		s := g.stores[prefix]
		if s == nil {
			return false, nil // there is no such entity any more
		}
		ids := make([]uuid.UUID, 0, len(records))
		for id := range records {
			ids = append(ids, id)
		}
		found, err := s.byID(ctx, ids)
		if err != nil {
			return false, err
		}
		for id, fields := range records {
			n := found[id]
			if n == nil {
				return false, nil
			}
			for _, name := range fields {
				if f := s.fields[name]; f == nil || !who.reads(s.Entity, f, n) {
					return false, nil
				}
			}
		}
	}
	return true, nil
}

// PurgeKeys removes idempotency keys, and the answers to them, that are older than 24 hours by the database's clock, and returns how many
// those were. Any number of nodes may do it at once. An error leaves what it has not come to.
func PurgeKeys(ctx context.Context, db entpgx.Querier) (removed int, err error) {
	for {
		tag, err := db.Exec(ctx, purgeKey, purgeBatch)
		if err != nil {
			return removed, fmt.Errorf("purge idempotency keys: %w", err)
		}
		n := int(tag.RowsAffected())
		if removed += n; n < purgeBatch {
			return removed, nil
		}
	}
}
