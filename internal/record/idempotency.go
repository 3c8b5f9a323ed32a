package record

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

// lockNotAvailable is Postgres's code for a wait that lock_timeout has ended.
const lockNotAvailable = "55P03"

// The statements of idempotency keys. A day is by the database's clock.
const (
	// claimKey gives a row where the key is free, or was used more than a day ago. While another transaction has it and has not ended, it
	// waits, for $4 at most. Where it gives none, the row is locked, and so stays.
	//
	// Postgres ends the transaction when it stands idle for $5: nobody else would where its node has vanished, and the key stay locked.
	// What the database's settings end sooner, they do. The first two parts are carried out before the row is inserted, which comes of
	// them; only the wait for the key is shortened, not what the operation waits for.
	claimKey = `WITH was AS MATERIALIZED (
			SELECT current_setting('lock_timeout') AS wait, current_setting('idle_in_transaction_session_timeout') AS idle
		), bound AS MATERIALIZED (
			SELECT set_config('lock_timeout', CASE WHEN wait::interval BETWEEN '1 ms' AND $4::text::interval THEN wait ELSE $4 END, true),
				set_config('idle_in_transaction_session_timeout', CASE WHEN idle::interval BETWEEN '1 ms' AND $5::text::interval THEN idle ELSE $5 END, true)
			FROM was
		) INSERT INTO idempotency_keys AS k (user_id, key, request) SELECT $1::uuid, $2::text, $3::bytea FROM bound
		ON CONFLICT (user_id, key) DO UPDATE SET request = EXCLUDED.request, data = NULL, beside = NULL, shown = NULL, created_at = now()
		WHERE k.created_at <= now() - interval '24 hours' RETURNING set_config('lock_timeout', (SELECT wait FROM was), true) IS NOT NULL`
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
}

// keyHolder is whose key, and which.
type keyHolder struct {
	user uuid.UUID
	key  string
}

// errKeyInUse is the answer to who has waited for a key in vain.
func errKeyInUse(cause error) *Error {
	return &Error{
		Code: Unavailable, Message: "another request with this idempotency key is still under way", RetryAfter: retryWithKey, Err: cause,
	}
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
	// Those who wait hold no connection, but for one on each node.
	leave, err := w.engine.keys.take(ctx, keyHolder{who.ID, key}, w.engine.keyWait)
	if err != nil {
		return refuse(ctx, err), false
	}
	defer leave()
	defer func() {
		w.end(ctx) // before the next gets its turn
		w.tx = nil
	}()
	k := &keyed{user: who.ID, key: key, request: request}
	w.tx = w.engine.begin(ctx)
	var mine bool
	err = w.tx.PGX().QueryRow(ctx, claimKey, k.user, k.key, k.request, milliseconds(w.engine.keyWait), milliseconds(w.engine.keyIdle)).Scan(&mine)
	pg, _ := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return w.replay(ctx, k)
	case pg != nil && pg.Code == lockNotAvailable:
		return refuse(ctx, errKeyInUse(err)), false
	case err != nil:
		return refuse(ctx, fmt.Errorf("claim idempotency key: %w", err)), false
	}
	w.key = k
	resp = w.run(ctx, next)
	return resp, resp != nil && w.tx == nil
}

// milliseconds is a duration as Postgres's settings have it.
func milliseconds(d time.Duration) string { return fmt.Sprintf("%dms", max(d.Milliseconds(), 1)) }

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
	seen, err := json.Marshal(&k.shown)
	if err != nil {
		return fmt.Errorf("store idempotency key: %w", err)
	}
	if n := len(resp.Data) + len(more) + len(seen); n > w.engine.keyAnswer {
		return tooComplex(keyExtension, "the answer would take %d bytes to keep for its idempotency key, of at most %d: nothing was done, select less",
			n, w.engine.keyAnswer)
	}
	if _, err := w.tx.PGX().Exec(ctx, storeKey, k.user, k.key, []byte(resp.Data), more, seen); err != nil {
		return fmt.Errorf("store idempotency key: %w", err)
	}
	return nil
}

// settle notes of what the answer shows which records who asks has written and may not read afterwards: they were answered because of that,
// and so they will be, but for what the rules of their fields say then.
func (w *work) settle(ctx context.Context) error {
	k := &w.key.shown
	for prefix, ids := range k.written {
		found, err := w.engine.stores[prefix].byID(ctx, ids)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if fields, there := k.Read[prefix][id]; there && found[id] == nil {
				delete(k.Read[prefix], id)
				k.Written.of(prefix)[id] = fields
			}
		}
	}
	return nil
}

// replay answers what was answered to the key before. Where who asks may not read something of it any more, or it is not there any more,
// the answer is NOT_FOUND, which says that the operation was executed.
func (w *work) replay(ctx context.Context, k *keyed) (resp *graphql.Response, settled bool) {
	var request, data, more, seen []byte
	err := w.tx.PGX().QueryRow(ctx, readKey, k.user, k.key).Scan(&request, &data, &more, &seen)
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
	if err := errors.Join(of.read(seen), unmarshal(more, &b)); err != nil {
		return refuse(ctx, fmt.Errorf("read idempotency key: %w", err)), false
	}
	readable, err := w.engine.readable(ctx, &of)
	if err != nil {
		return refuse(ctx, err), false
	}
	resp = &graphql.Response{Extensions: map[string]any{"replayed": true}}
	if readable {
		resp.Data = data
		for name, v := range b.Extensions {
			resp.Extensions[name] = v
		}
		for _, err := range b.Errors {
			graphql.AddError(ctx, err) // which gives it this request's id
		}
		resp.Errors = graphql.GetErrors(ctx)
	} else {
		gone := refuse(ctx, &Error{Code: NotFound, Message: "this was executed before, and something of its answer does not exist any more, or you may not read it"})
		resp.Data, resp.Errors = gone.Data, gone.Errors
	}
	for _, err := range resp.Errors { // of an answer with errors many clients show these alone
		err.Extensions["replayed"] = true
	}
	return resp, true
}

// unmarshal reads JSON, or nothing.
func unmarshal(text []byte, into any) error {
	if text == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// shown is what an answer shows: it is kept beside it.
type shown struct {
	mu      sync.Mutex             // protects what follows: what payloads that are written by hand consist of is rendered at the same time
	written map[string][]uuid.UUID // what the root fields answer with, by prefix

	Read    records `json:"read,omitzero"`    // what who asks may read
	Deleted records `json:"deleted,omitzero"` // what they may see because they may restore it
	Written records `json:"written,omitzero"` // what they may not read, and have written
}

// read reads what was kept. What nobody here knows how to check is an error.
func (m *shown) read(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(m)
}

// records are some records by prefix, and of each the fields in the answer that not everybody reads.
type records map[string]map[uuid.UUID][]string

// of returns those of one entity.
func (r *records) of(prefix string) map[uuid.UUID][]string {
	if *r == nil {
		*r = records{}
	}
	if (*r)[prefix] == nil {
		(*r)[prefix] = map[uuid.UUID][]string{}
	}
	return (*r)[prefix]
}

// add notes a record, and fields of it that not everybody reads. It does nothing where m is nil.
func (m *shown) add(s *Store, n Node, fields ...string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	in := &m.Read
	if s.isDeleted(n) {
		in = &m.Deleted
	}
	id, _ := s.key(n)
	of := in.of(s.Prefix)
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

// wrote notes that a root field answers with a record. It does nothing where m is nil.
func (m *shown) wrote(s *Store, n Node) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.written == nil {
		m.written = map[string][]uuid.UUID{}
	}
	id, _ := s.key(n)
	if !slices.Contains(m.written[s.Prefix], id) {
		m.written[s.Prefix] = append(m.written[s.Prefix], id)
	}
}

// readable reports whether who asks may read all of what is shown: a statement an entity, and more only where it shows what few may see.
func (g *Engine) readable(ctx context.Context, m *shown) (bool, error) {
	for _, part := range []struct {
		records
		find  func(s *Store, ids []uuid.UUID) (map[uuid.UUID]Node, error)
		there bool // it has to be
	}{
		{m.Read, func(s *Store, ids []uuid.UUID) (map[uuid.UUID]Node, error) { return s.byID(ctx, ids) }, true},
		{m.Deleted, func(s *Store, ids []uuid.UUID) (map[uuid.UUID]Node, error) {
			q := newQuery(ctx)
			return s.among(ctx, q, ids, func() { q.meets(s.shows(IncludeDeleted), s.Entity, "t") })
		}, true},
		{m.Written, func(s *Store, ids []uuid.UUID) (map[uuid.UUID]Node, error) { return s.load(ctx, ids) }, false},
	} {
		for prefix, of := range part.records {
			s := g.stores[prefix]
			if s == nil {
				return false, nil // there is no such entity any more
			}
			ids := make([]uuid.UUID, 0, len(of))
			for id, fields := range of {
				if part.there || len(fields) > 0 {
					ids = append(ids, id)
				}
			}
			found, err := part.find(s, ids)
			if err != nil {
				return false, err
			}
			for _, id := range ids {
				if n := found[id]; n == nil && part.there || !s.readsAll(askerOf(ctx), of[id], n) {
					return false, nil
				}
			}
		}
	}
	return true, nil
}

// readsAll reports whether who asks may read these fields of a record, nil where it is not there any more.
func (s *Store) readsAll(who asker, fields []string, n Node) bool {
	for _, name := range fields {
		f := s.fields[name]
		switch {
		case f == nil:
			return false
		case f.rule == nil:
		case n == nil:
			if holds, known := who.known(f.rule); !known || !holds {
				return false
			}
		case !who.reads(s.Entity, f, n):
			return false
		}
	}
	return true
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
