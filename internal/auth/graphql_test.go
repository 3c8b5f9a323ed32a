package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/graph"
	"godstack/internal/auth"
	"godstack/internal/dbtest"
	"godstack/internal/entpgx"
	"godstack/internal/mail"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// api is the whole schema over a database of its own, without a transport.
type api struct {
	t    testing.TB
	exec *executor.Executor
	pool *pgxpool.Pool
	auth *auth.Service
}

func newAPI(t testing.TB) *api {
	t.Helper()
	pool := dbtest.New(t)
	drv := entpgx.Open(pool)
	stores, err := ent.NewStores(ent.NewClient(ent.Driver(drv)), drv, nil)
	require.NoError(t, err)
	s := service(t, pool)
	schema := graph.NewExecutableSchema(graph.Config{Resolvers: &graph.Resolver{Stores: stores, Auth: s}})
	return &api{t, executor.New(schema), pool, s}
}

func service(t testing.TB, pool *pgxpool.Pool) *auth.Service {
	t.Helper()
	secrets, err := auth.ParseSecrets(auth.GenerateSecret())
	require.NoError(t, err)
	keys, err := auth.ParseKeys(auth.GenerateKey(), "https://example.com", "api")
	require.NoError(t, err)
	passwords, err := auth.NewPasswords(&auth.PasswordConfig{Memory: 64, Time: 1})
	require.NoError(t, err)
	s, err := auth.New(auth.Deps{Pool: pool, Passwords: passwords, Secrets: secrets, Keys: keys, Mail: &mail.Recorder{}},
		&auth.Config{PublicURL: "https://example.com", VerifyEmail: auth.VerifyOptional})
	require.NoError(t, err)
	return s
}

// do runs a document as a viewer; nil is nobody. Data goes into out.
func (a *api) do(v *viewer.Viewer, document string, out any) []string {
	a.t.Helper()
	ctx := graphql.StartOperationTrace(context.Background())
	if v != nil {
		ctx = viewer.NewContext(ctx, *v)
	}
	op, errs := a.exec.CreateOperationContext(ctx, &graphql.RawParams{Query: document})
	require.Empty(a.t, errs)
	next, ctx := a.exec.DispatchOperation(ctx, op)
	resp := next(ctx)
	var messages []string
	for _, e := range resp.Errors {
		messages = append(messages, e.Message)
	}
	if out != nil && len(messages) == 0 {
		require.NoError(a.t, json.Unmarshal(resp.Data, out))
	}
	return messages
}

type payload struct {
	AccessToken, RefreshToken string
	User                      struct{ ID, Username, Role string }
}

func TestAPI(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	var in struct{ Register payload }
	require.Empty(t, a.do(nil, `mutation { register(input: {email: "ada@example.com", username: "ada", name: "Ada", password: "plover-xylem 42 Dunes"}) {
		accessToken refreshToken expiresAt user { id username role } } }`, &in))
	require.Equal(t, "ada", in.Register.User.Username)
	v, ok, err := a.auth.Viewer(context.Background(), "Bearer "+in.Register.AccessToken)
	require.NoError(t, err)
	require.True(t, ok)

	var me struct {
		Me       struct{ ID, Username string }
		Sessions []struct {
			ID      string
			Current bool
		}
	}
	require.Empty(t, a.do(&v, `{ me { id username } sessions { id createdAt lastUsedAt expiresAt address userAgent current } }`, &me))
	require.Equal(t, in.Register.User.ID, me.Me.ID)
	require.Len(t, me.Sessions, 1)
	require.True(t, me.Sessions[0].Current)
	require.Regexp(t, `^session_`, me.Sessions[0].ID)

	var nobody struct{ Me *struct{ ID string } }
	require.Empty(t, a.do(nil, `{ me { id } }`, &nobody))
	require.Nil(t, nobody.Me)
	require.Equal(t, []string{"sign in first"}, a.do(nil, `{ sessions { id } }`, nil))

	var next struct{ Refresh payload }
	require.Empty(t, a.do(nil, `mutation { refresh(refreshToken: "`+in.Register.RefreshToken+`") { accessToken refreshToken user { id } } }`, &next))
	require.Equal(t, in.Register.User.ID, next.Refresh.User.ID)

	root, err := a.auth.CreateUser(context.Background(), auth.NewUser{Email: "root@example.com", Username: "root", Name: "R", Password: "plover-xylem 42 Dunes", Role: viewer.Admin})
	require.NoError(t, err)
	admin := &viewer.Viewer{ID: root, Role: viewer.Admin}
	var set struct {
		SetRole struct{ Username, Role string }
	}
	require.Empty(t, a.do(admin, `mutation { setRole(id: "`+me.Me.ID+`", role: moderator) { username role } }`, &set))
	require.Equal(t, "moderator", set.SetRole.Role)
	require.Empty(t, a.do(admin, `mutation { unlockUser(id: "`+me.Me.ID+`") { id } }`, nil))
	require.Equal(t, []string{"this is for administrators"}, a.do(&v, `mutation { unlockUser(id: "`+me.Me.ID+`") { id } }`, nil))
	require.Empty(t, a.do(admin, `mutation { resetTwoFactor(id: "`+me.Me.ID+`") { id } }`, nil))
	require.Empty(t, a.do(&v, `mutation { logout }`, nil))
	_, _, err = a.auth.Viewer(context.Background(), "Bearer "+next.Refresh.AccessToken)
	require.Error(t, err)
}

// TestTheLastAdministratorStays holds that of two administrators who delete each other at once one is left, whatever way it is
// tried.
func TestTheLastAdministratorStays(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	var ids [2]record.ID
	for i, name := range []string{"ada", "bob"} {
		id, err := a.auth.CreateUser(context.Background(), auth.NewUser{Email: name + "@example.com", Username: name, Password: "plover-xylem 42 Dunes", Role: viewer.Admin})
		require.NoError(t, err)
		ids[i] = record.ID{Prefix: "user", UUID: id}
	}
	var refused atomic.Int32
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			errs := a.do(&viewer.Viewer{ID: ids[i].UUID, Role: viewer.Admin}, `mutation { deleteUser(id: "`+ids[1-i].String()+`", expectedVersion: 1) { version } }`, nil)
			if len(errs) > 0 {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, refused.Load())
	for _, sql := range []string{`DELETE FROM users`, `UPDATE users SET role = 'user'`, `UPDATE users SET role = 'moderator', name = 'x' WHERE role = 'admin'`} {
		_, err := a.pool.Exec(t.Context(), sql)
		pg, ok := errors.AsType[*pgconn.PgError](err)
		require.True(t, ok, sql)
		require.Equal(t, "GS409", pg.Code)
	}

	// One may pass it on, and where there is none nothing is kept.
	for _, sql := range []string{
		`INSERT INTO users (email, username, name) VALUES ('eve@example.com', 'eve', 'E')`,
		`UPDATE users SET role = CASE username WHEN 'eve' THEN 'admin' ELSE 'user' END`,
		`DELETE FROM users WHERE username <> 'eve'`,
		`ALTER TABLE users DISABLE TRIGGER users_last_administrator_demoted`, `UPDATE users SET role = 'user'`,
		`ALTER TABLE users ENABLE TRIGGER users_last_administrator_demoted`, `UPDATE users SET role = 'moderator'`, `DELETE FROM users`,
	} {
		_, err := a.pool.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
}

// TestMutationFields holds that the list of mutations that commit by themselves is whole: they are all but those of records.
func TestMutationFields(t *testing.T) {
	t.Parallel()
	schema := graph.NewExecutableSchema(graph.Config{Resolvers: &graph.Resolver{}}).Schema()
	var fields []string
	for _, f := range schema.Mutation.Fields {
		if f.Position != nil && path.Base(f.Position.Src.Name) == "auth.graphql" {
			fields = append(fields, f.Name)
		}
	}
	require.ElementsMatch(t, fields, auth.MutationFields)
	require.Subset(t, auth.MutationFields, auth.PublicFields)
	require.Subset(t, auth.MutationFields, auth.PartingFields)
	require.Subset(t, auth.MutationFields, auth.PasswordFields)
}
