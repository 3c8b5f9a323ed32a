package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/vektah/gqlparser/v2/ast"

	"godstack/internal/graphqlws"
	"godstack/internal/ratelimit"
	"godstack/internal/telemetry"
	"godstack/internal/viewer"
)

// ViewerFunc tells who asks. authorization is the header of that name, or, over a socket, the key of connection_init's
// payload, then the header of the upgrade; "" where there is none. Cookies are in [viewer.ClientOf]. ok is false where
// nobody is signed in, which is no error; an error refuses the request or the connection.
type ViewerFunc func(ctx context.Context, authorization string) (v viewer.Viewer, ok bool, err error)

// WatchFunc has w told what becomes of a viewer's rights, on behalf of a socket or an event stream: before it returns where they have ended
// since the viewer was asked for. The caller calls stop when the socket is closed.
type WatchFunc func(v viewer.Viewer, w viewer.Watcher) (stop func())

// LimitFunc counts a request, or an operation over a socket, of an address. Where it returns an error, the request passes.
type LimitFunc func(ctx context.Context, address netip.Addr) (ratelimit.Result, error)

// Deps are the parts that a server stands on.
type Deps struct {
	// Schema executes operations. Required.
	Schema graphql.ExecutableSchema
	// Extensions run in this order, after the limits were checked.
	Extensions []graphql.HandlerExtension
	// Viewer is asked once a request, and over a socket when it is initialised, and for each new access token. Nil: nobody is signed in.
	Viewer ViewerFunc
	// Public names the mutation fields that ask nobody who they are, as signing in. An operation of these alone goes on without a
	// viewer where Viewer answers UNAUTHENTICATED: a browser sends the cookie of a session that has ended with it.
	Public []string
	// Slow names the mutation fields that take long for their own work and little of the database, as signing in. Their operations have half as
	// many turns of their own, so that they hold up nobody else, and wait for half of Config.OperationTimeout.
	Slow []string
	// Parting names the mutation fields whose operations wait for nobody else's, as signing out.
	Parting []string
	// Watch ends the sockets and event streams of sessions that end, and lengthens those of cookies whose session is refreshed. Nil: they
	// last as long as the access token.
	Watch WatchFunc
	// Check is asked before each operation over a socket of somebody who is signed in. Where it answers UNAUTHENTICATED the
	// viewer's rights have ended, and the socket is closed; another error refuses the operation. Nil: they have not.
	Check func(ctx context.Context, v viewer.Viewer) error
	// Limit counts requests to GraphQL, to Routes and to Guarded, upgrades to sockets, and operations and new access tokens over these. Nil: there is
	// no limit.
	Limit LimitFunc
	// Replica answers queries whose clients ask for it, by the header Read-After. Nil: they are answered as others are.
	Replica Replica
	// Routes are handlers besides GraphQL, by the pattern to mount them at. They run with the client and, where
	// somebody is signed in, the viewer in the context; answers are not stored by caches unless they say so. New
	// panics where a pattern is wrong or taken, as [http.ServeMux] does.
	Routes map[string]http.Handler
	// Guarded are handlers that find out for themselves who asks, as pages do for people who navigate to them. They are limited as Routes
	// are, and tell by [Identify] whom they found.
	Guarded map[string]http.Handler
	// Pages are handlers for anybody, mounted as Routes are. Nobody is asked who they are: the cookie of a session that has
	// ended, which is refused elsewhere, does not keep a browser from them.
	Pages map[string]http.Handler
	// Ready returns what keeps the program from serving. Its text is answered to whoever asks /readyz, so it
	// names the part and no secret. Nil: always ready.
	Ready func(ctx context.Context) error
	// Notes are lines for /readyz about what does not keep the program from serving. Nil: there are none.
	Notes func() []string
	// Playground is mounted at /playground/, with the prefix stripped; / leads there. Nil: neither route exists.
	Playground http.Handler
	// Metrics counts requests, operations and errors. Nil: nobody does.
	Metrics *telemetry.Metrics
	// Tracer makes a span of each request, but for probes, and of each operation. Nil: nothing is traced.
	Tracer *telemetry.Tracer
	// Logger takes the access log and the causes of errors. Nil: no log.
	Logger *slog.Logger
}

// Config tunes a server. The zero value is the default.
type Config struct {
	// Introspection allows __schema and __type, and suggestions in the messages of validation.
	Introspection bool
	// Origins, such as https://example.com, are those whose pages may send requests, read the answers and open
	// sockets, besides the page's own host. PUBLIC_URL belongs here where a proxy changes the Host header.
	Origins []string
	// Cookies says that a cookie can sign in: a browser then sends it whatever page makes the request, so that
	// requests of other origins that may change something are refused, and those of Origins may carry it.
	Cookies bool
	// Secure says that browsers reach the server by https alone. They are told to keep to it for two years.
	Secure bool
	// TrustedProxies are the networks of the proxies whose X-Forwarded-For is believed. Where there are any, the peers
	// of a Unix socket are proxies too.
	TrustedProxies []netip.Prefix
	// Limits of documents and bodies.
	Limits Limits
	// Trusted are documents that clients name rather than send.
	Trusted TrustedDocuments
	// Sockets bounds WebSockets and event streams.
	Sockets Sockets
	// Load bounds how many operations run at the same time.
	Load Load
	// OperationTimeout bounds a query, a mutation, the beginning of a subscription, and how long it takes to know who asks. Default 30 s.
	OperationTimeout time.Duration
	// ShutdownDelay is how long the server goes on as ever when it is to end, but for saying so to whoever asks whether it is ready. Default
	// none.
	ShutdownDelay time.Duration
	// ShutdownSpread is over what time sockets and event streams are closed, so that their clients do not all come to the other nodes at
	// once; a few are closed sooner. Default [DefaultShutdownSpread].
	ShutdownSpread time.Duration
	// ShutdownTimeout bounds all of it: ShutdownDelay, and how long running requests and sockets may take to end. Default
	// [DefaultShutdownTimeout].
	ShutdownTimeout time.Duration
}

// What is taken where nobody says.
const (
	DefaultOperationTimeout = 30 * time.Second
	DefaultShutdownSpread   = 2 * time.Second
	DefaultShutdownTimeout  = 20 * time.Second
)

func (c *Config) withDefaults() (Config, error) {
	var cfg Config
	if c != nil {
		cfg = *c
	}
	for _, p := range cfg.TrustedProxies {
		if !p.IsValid() {
			return cfg, errors.New("server: TrustedProxies: a prefix is not valid")
		}
	}
	if min(cfg.OperationTimeout, cfg.ShutdownDelay, cfg.ShutdownSpread, cfg.ShutdownTimeout) < 0 {
		return cfg, errors.New("server: OperationTimeout, ShutdownDelay, ShutdownSpread and ShutdownTimeout must not be negative")
	}
	if cfg.OperationTimeout == 0 {
		cfg.OperationTimeout = DefaultOperationTimeout
	}
	cfg.ShutdownSpread = cmp.Or(cfg.ShutdownSpread, DefaultShutdownSpread)
	cfg.ShutdownTimeout = cmp.Or(cfg.ShutdownTimeout, DefaultShutdownTimeout)
	if cfg.ShutdownDelay >= cfg.ShutdownTimeout {
		return cfg, errors.New("server: ShutdownDelay must be less than ShutdownTimeout, of which it is a part")
	}
	var err error
	if cfg.Limits, err = cfg.Limits.withDefaults(); err != nil {
		return cfg, err
	}
	cfg.Sockets, err = cfg.Sockets.withDefaults()
	return cfg, err
}

// Server is the program's HTTP side. It is an [http.Handler], so that tests need no listener.
type Server struct {
	deps Deps
	cfg  Config
	log  *slog.Logger
	mux  *http.ServeMux
	exec *executor.Executor

	docs      *documents
	trusted   *trusted
	persisted *cache[string] // texts of documents by their hash, as clients said it

	headers []headerLine                // of every answer
	origins map[string]bool             // Config.Origins
	csrf    *http.CrossOriginProtection // nil without cookies

	writeTimeout time.Duration // of an answer; on a route, of a piece of it

	turns     turns
	sockets   *graphqlws.Server
	readiness readiness
	streams   atomic.Int64    // event streams that are open
	streaming sync.WaitGroup  // operations of reserved event streams; others end with their requests
	leaving   atomic.Bool     // it is to end, and is not ready
	draining  context.Context // done when event streams are to end
	drain     context.CancelFunc

	mu           sync.Mutex           // protects what follows
	holders      map[holder]int       // how many sockets and event streams each has
	reservations map[string]*events   // by token
	written      map[*events]struct{} // event streams that somebody writes
}

// New returns a server that is ready to be served or called. It returns an error where deps or cfg are wrong.
func New(deps Deps, cfg *Config) (*Server, error) {
	if deps.Schema == nil {
		return nil, errors.New("server: Schema is missing")
	}
	if deps.Viewer == nil {
		deps.Viewer = func(context.Context, string) (viewer.Viewer, bool, error) { return viewer.Viewer{}, false, nil }
	}
	if deps.Ready == nil {
		deps.Ready = func(context.Context) error { return nil }
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	full, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		deps: deps, cfg: full, log: deps.Logger, mux: http.NewServeMux(), headers: securityHeaders(full.Secure),
		writeTimeout: full.OperationTimeout + 30*time.Second, holders: map[holder]int{}, reservations: map[string]*events{},
		written: map[*events]struct{}{},
	}
	s.readiness.check = deps.Ready
	if err := s.setOrigins(); err != nil {
		return nil, err
	}
	if err := s.setExecutor(); err != nil {
		return nil, err
	}
	if err := s.setTurns(); err != nil {
		return nil, err
	}
	if s.sockets, err = s.newSockets(); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	s.draining, s.drain = context.WithCancel(context.Background())

	s.mux.Handle("/graphql", s.limited(http.HandlerFunc(s.serveGraphQL)))
	for pattern, h := range deps.Routes {
		s.mux.Handle(pattern, s.limited(s.route(h)))
	}
	for pattern, h := range deps.Guarded {
		s.mux.Handle(pattern, s.limited(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(s.flow(w), r) })))
	}
	for pattern, h := range deps.Pages {
		s.mux.Handle(pattern, h)
	}
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	s.mux.HandleFunc("GET /readyz", s.readyz)
	if deps.Playground != nil {
		s.mux.Handle("/playground/", http.StripPrefix("/playground", deps.Playground))
		s.mux.Handle("GET /{$}", http.RedirectHandler("/playground/", http.StatusFound))
	}
	return s, nil
}

// setExecutor makes gqlgen's, which has its transports elsewhere, and reads what is trusted.
func (s *Server) setExecutor() (err error) {
	docs := &documents{sent: newCache[*ast.QueryDocument](s.cfg.Limits.Documents)}
	limits := guard{schema: s.deps.Schema.Schema(), documents: docs, limits: s.cfg.Limits, introspection: s.cfg.Introspection}
	if s.trusted, err = readTrusted(s.cfg.Trusted, limits); err != nil {
		return err
	}
	docs.trusted, s.docs = s.trusted.documents, docs
	s.persisted = newCache[string](s.cfg.Limits.Persisted)

	g := executor.New(s.deps.Schema)
	g.SetErrorPresenter(s.present)
	g.SetRecoverFunc(s.recovered)
	g.SetParserTokenLimit(s.cfg.Limits.Tokens)
	if !s.cfg.Introspection {
		g.SetDisableSuggestion(true)
		g.SetDefaultRulesFn(quiet)
	}
	g.SetQueryCache(docs)
	g.Use(limits)
	g.AroundRootFields(inTurn)
	for _, e := range s.deps.Extensions {
		g.Use(e)
	}
	s.exec = g
	return nil
}

// Sockets says what WebSockets there are, and counts what went through them.
func (s *Server) Sockets() graphqlws.Stats { return s.sockets.Stats() }

// EventStreams is how many event streams are open.
func (s *Server) EventStreams() int { return int(s.streams.Load()) }
