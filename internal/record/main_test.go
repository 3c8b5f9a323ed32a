package record_test

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"godstack/ent"
	"godstack/graph"
	"godstack/internal/changelog"
	"godstack/internal/dbtest"
	"godstack/internal/entpgx"
	"godstack/internal/logtest"
	"godstack/internal/record"
	"godstack/internal/server"
	"godstack/internal/viewer"
)

func TestMain(m *testing.M) {
	// What is answered is in UTC, wherever the program runs.
	time.Local = time.FixedZone("elsewhere", int((5*time.Hour + 30*time.Minute).Seconds()))
	dbtest.Main(logtest.Watch(m))
}

// bundle is the API over a database of its own, answering over HTTP.
type bundle struct {
	*pgxpool.Pool
	client   *ent.Client
	stores   *ent.Stores
	url      string // of the server
	http     *http.Client
	trace    *trace
	log      *logBuffer
	watching atomic.Int64 // subscriptions there are
	ada      record.ID    // a user, who asks where a test does not say otherwise
}

// options of setup.
type options struct {
	conns  int32 // in the pool
	tailer bool  // changes are delivered
	rules  bool  // access rules hold

	change func(*ent.Stores) // of what the schema says
	custom map[string]record.CustomRule
	alone  []string // mutation fields that commit on their own

	beside *bundle              // which has the database already
	engine func(*record.Config) // tunes it
}

func oneConnection(o *options) { o.conns = 1 }
func withTailer(o *options)    { o.tailer = true }
func withRules(o *options)     { o.rules = true }

func setup(t testing.TB, change ...func(*options)) *bundle {
	t.Helper()
	o := options{conns: 10}
	for _, f := range change {
		f(&o)
	}
	b := &bundle{trace: &trace{}, log: &logBuffer{}}
	var url string
	if o.beside != nil {
		url = o.beside.Config().ConnString()
	} else {
		url = dbtest.URL(t)
	}
	cfg, err := pgxpool.ParseConfig(url)
	require.NoError(t, err)
	plain := cfg.ConnConfig.Copy()
	cfg.MaxConns = o.conns
	cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false } // it would be counted
	cfg.ConnConfig.Tracer = b.trace
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return &countedConn{c, &b.trace.sent}, err
	}
	b.Pool, err = pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(b.Close)
	if o.beside == nil {
		_, err = b.Exec(t.Context(), `SELECT changelog_epoch()`) // which empties the log of a copy: what is written from here on stays in it
		require.NoError(t, err)
	}

	drv := entpgx.Open(b.Pool)
	logger := slog.New(slog.NewTextHandler(io.MultiWriter(b.log, logtest.Writer()), nil))
	b.client = ent.NewClient(ent.Driver(drv))
	rc := &record.Config{Logger: logger, Unrestricted: !o.rules, Rules: o.custom}
	if o.engine != nil {
		o.engine(rc)
	}
	var tailer *changelog.Tailer
	if o.tailer {
		rc.Committed = func() { tailer.Wake() }
		rc.Watching = func(n int) { b.watching.Store(int64(n)); tailer.Interest(n) }
	}
	b.stores, err = ent.NewStores(b.client, drv, rc)
	require.NoError(t, err)
	if o.change != nil {
		o.change(b.stores)
		b.stores.Engine, err = record.NewEngine(drv, []*record.Store{b.stores.Message, b.stores.SecurityEvent, b.stores.Thread, b.stores.User}, rc)
		require.NoError(t, err)
	}
	if o.tailer {
		tailer, err = changelog.NewTailer(plain, b.stores.Deliver, &changelog.Config{Logger: logger})
		require.NoError(t, err)
		background(t, tailer.Run)
	}
	s, err := server.New(server.Deps{
		Schema:     graph.NewExecutableSchema(graph.Config{Resolvers: &graph.Resolver{Stores: b.stores}}),
		Extensions: []graphql.HandlerExtension{record.Operation{Engine: b.stores.Engine, Alone: o.alone}},
		Viewer:     b.whoAsks,
		Logger:     logger,
	}, &server.Config{Introspection: true})
	require.NoError(t, err)
	b.serve(t, s)
	if o.beside != nil {
		b.ada = o.beside.ada
	} else {
		b.ada = b.user(t, "ada")
	}
	return b
}

// beside is another node over the bundle's database.
func (b *bundle) beside(t testing.TB, change ...func(*options)) *bundle {
	t.Helper()
	return setup(t, append(change, func(o *options) { o.beside = b })...)
}

// background runs f until the test ends.
func background(t testing.TB, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

// serve serves s as the program does, sockets included.
func (b *bundle) serve(t testing.TB, s *server.Server) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	background(t, func(ctx context.Context) error { return s.Serve(ctx, ln) })
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	b.url, b.http = "http://"+ln.Addr().String()+"/graphql", &http.Client{Transport: transport}
}

// viewerHeader says who asks, as a UUID and, after a space, a role, a user's by default; "-" is nobody.
const viewerHeader = "Authorization"

func (b *bundle) whoAsks(_ context.Context, who string) (viewer.Viewer, bool, error) {
	who, role, _ := strings.Cut(who, " ")
	role = cmp.Or(role, viewer.User)
	switch who {
	case "-":
		return viewer.Viewer{}, false, nil
	case "":
		return viewer.Viewer{ID: b.ada.UUID, Role: role}, true, nil
	default:
		id, err := uuid.Parse(who)
		return viewer.Viewer{ID: id, Role: role}, err == nil, err
	}
}
