package job_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/graph"
	"godstack/internal/dbtest"
	"godstack/internal/entity"
	"godstack/internal/entpgx"
	"godstack/internal/job"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// remark is what the tests enqueue.
type remark struct {
	Text string `json:"text"`
}

func (remark) Kind() string { return "remark" }

// api is the schema, with a resolver for logout that stands for any mutation written by hand.
type api struct {
	*graph.Resolver
	pool   *pgxpool.Pool
	client *ent.Client
	exec   *executor.Executor
	who    viewer.Viewer
	logout func(ctx context.Context, r *graph.Resolver) (bool, error)
}

type mutations struct {
	graph.MutationResolver
	api *api
}

func (m mutations) Logout(ctx context.Context) (bool, error) {
	return m.api.logout(ctx, m.api.Resolver)
}

func (a *api) Mutation() graph.MutationResolver { return mutations{a.Resolver.Mutation(), a} }

func newAPI(t *testing.T) *api {
	t.Helper()
	a := &api{pool: dbtest.New(t)}
	drv := entpgx.Open(a.pool)
	a.client = ent.NewClient(ent.Driver(drv))
	stores, err := ent.NewStores(a.client, drv, &record.Config{Unrestricted: true})
	require.NoError(t, err)
	a.Resolver = &graph.Resolver{Stores: stores}
	a.exec = executor.New(graph.NewExecutableSchema(graph.Config{Resolvers: a}))
	a.exec.Use(record.Operation{Engine: stores.Engine})
	require.NoError(t, a.pool.QueryRow(t.Context(), `INSERT INTO users (email, username, name) VALUES ('ada@example.com', 'ada', 'Ada') RETURNING id`).Scan(&a.who.ID))
	return a
}

// thread makes a thread.
func (a *api) thread(t *testing.T) record.ID {
	t.Helper()
	id := record.ID{Prefix: "thread", UUID: entity.NewID()}
	_, err := a.pool.Exec(t.Context(), `INSERT INTO threads (id, subject, owner_id) VALUES ($1, 'x', $2)`, id.UUID, a.who.ID)
	require.NoError(t, err)
	return id
}

// do runs a document and returns its errors.
func (a *api) do(t *testing.T, document string) []string {
	t.Helper()
	ctx := viewer.NewContext(graphql.StartOperationTrace(t.Context()), a.who)
	op, errs := a.exec.CreateOperationContext(ctx, &graphql.RawParams{Query: document})
	require.Empty(t, errs)
	next, ctx := a.exec.DispatchOperation(ctx, op)
	var messages []string
	for _, e := range next(ctx).Errors {
		messages = append(messages, e.Message)
	}
	return messages
}

func (a *api) jobs(t *testing.T) (n int) {
	t.Helper()
	require.NoError(t, a.pool.QueryRow(t.Context(), `SELECT count(*) FROM river_job`).Scan(&n))
	return n
}

func (a *api) exists(t *testing.T, id record.ID) (yes bool) {
	t.Helper()
	require.NoError(t, a.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM threads WHERE id = $1 AND deleted_at IS NULL)`, id.UUID).Scan(&yes))
	return yes
}

// A mutation written by hand: what it writes and what it enqueues are one, in either order, also where it is the only field.
func TestEnqueueInAResolver(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	wrong := errors.New("wrong")
	var id record.ID
	write := func(ctx context.Context, r *graph.Resolver) error {
		_, err := record.Delete(ctx, r.Stores.Thread, id, 1)
		return err
	}
	enqueue := func(ctx context.Context, _ *graph.Resolver) error {
		_, err := job.Enqueue(ctx, remark{"x"}, nil)
		return err
	}
	fail := func(context.Context, *graph.Resolver) error { return wrong }
	type step = func(context.Context, *graph.Resolver) error
	for _, c := range []struct {
		name  string
		steps []step
		fails bool
	}{
		{"write, enqueue", []step{write, enqueue}, false},
		{"enqueue, write", []step{enqueue, write}, false},
		{"write, enqueue, fail", []step{write, enqueue, fail}, true},
		{"enqueue, write, fail", []step{enqueue, write, fail}, true},
		{"write, fail", []step{write, fail}, true},
		{"enqueue, fail", []step{enqueue, fail}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			id = a.thread(t)
			a.logout = func(ctx context.Context, r *graph.Resolver) (bool, error) {
				for _, s := range c.steps {
					if err := s(ctx, r); err != nil {
						return false, err
					}
				}
				return true, nil
			}
			before := a.jobs(t)
			errs := a.do(t, `mutation { logout }`)
			if c.fails {
				require.Equal(t, []string{"wrong"}, errs)
				require.Equal(t, before, a.jobs(t))
				require.True(t, a.exists(t, id))
				return
			}
			require.Empty(t, errs)
			require.Equal(t, before+1, a.jobs(t))
			require.False(t, a.exists(t, id))
		})
	}
}

// Where a later field fails, what an earlier one has enqueued is gone.
func TestEnqueueAndALaterFieldThatFails(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.logout = func(ctx context.Context, _ *graph.Resolver) (bool, error) {
		_, err := job.Enqueue(ctx, remark{"x"}, nil)
		return err == nil, err
	}
	id := a.thread(t)
	remove := func(version int) string {
		return fmt.Sprintf(`mutation { logout deleteThread(id: "%s", expectedVersion: %d) { deletedId } }`, id, version)
	}
	require.Len(t, a.do(t, remove(7)), 1)
	require.Zero(t, a.jobs(t))
	require.Empty(t, a.do(t, remove(1)))
	require.Equal(t, 1, a.jobs(t))
}

// A hook of ent enqueues in the transaction of the write, which for its sake is one.
func TestEnqueueInAHook(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	var wrong error
	a.client.Thread.Use(func(next ent.Mutator) ent.Mutator {
		return ent.MutateFunc(func(ctx context.Context, m ent.Mutation) (ent.Value, error) {
			if _, err := job.Enqueue(ctx, remark{"x"}, &job.Options{Key: "once"}); err != nil {
				return nil, err
			}
			v, err := next.Mutate(ctx, m)
			return v, errors.Join(err, wrong)
		})
	})
	id := a.thread(t)
	remove := fmt.Sprintf(`mutation { deleteThread(id: "%s", expectedVersion: 1) { deletedId } }`, id)
	wrong = errors.New("wrong")
	require.Len(t, a.do(t, remove), 1)
	require.Zero(t, a.jobs(t))
	require.True(t, a.exists(t, id))
	wrong = nil
	require.Empty(t, a.do(t, remove))
	require.Equal(t, 1, a.jobs(t))
	require.False(t, a.exists(t, id))
}
