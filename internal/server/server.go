package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/99designs/gqlgen/graphql/handler/lru"
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
	// Watch ends the sockets and event streams of sessions that end, and lengthens those of cookies whose session is refreshed. Nil: they
	// last as long as the access token.
	Watch WatchFunc
	// Check is asked before each operation over a socket of somebody who is signed in. Where it answers UNAUTHENTICATED the
	// viewer's rights have ended, and the socket is closed; another error refuses the operation. Nil: they have not.
	Check func(ctx context.Context, v viewer.Viewer) error
	// Limit counts requests to GraphQL and to Routes, upgrades to sockets, and operations and new access tokens over these. Nil: there is
	// no limit.
	Limit LimitFunc
	// Replica answers queries whose clients ask for it, by the header Read-After. Nil: they are answered as others are.
	Replica Replica
	// Routes are handlers besides GraphQL, by the pattern to mount them at. They run with the client and, where
	// somebody is signed in, the viewer in the context; answers are not stored by caches unless they say so. New
	// panics where a pattern is wrong or taken, as [http.ServeMux] does.
	Routes map[string]http.Handler
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
	// Sockets bounds WebSockets and event streams.
	Sockets Sockets
	// OperationTimeout bounds a query, a mutation, the beginning of a subscription, and how long it takes to know who asks. Default 30 s.
	OperationTimeout time.Duration
	// ShutdownTimeout bounds how long running requests and sockets may take to end. Default 10 s.
	ShutdownTimeout time.Duration
}

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
	if cfg.OperationTimeout < 0 || cfg.ShutdownTimeout < 0 {
		return cfg, errors.New("server: OperationTimeout and ShutdownTimeout must not be negative")
	}
	if cfg.OperationTimeout == 0 {
		cfg.OperationTimeout = 30 * time.Second
	}
	if cfg.ShutdownTimeout == 0 {
		cfg.ShutdownTimeout = 10 * time.Second
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

	headers []headerLine                // of every answer
	origins map[string]bool             // Config.Origins
	csrf    *http.CrossOriginProtection // nil without cookies

	writeTimeout time.Duration // of an answer; on a route, of a piece of it

	sockets   *graphqlws.Server
	readiness readiness
	streams   atomic.Int64    // event streams that are open
	streaming sync.WaitGroup  // operations of reserved event streams; others end with their requests
	draining  context.Context // done when event streams are to end
	drain     context.CancelFunc

	mu           sync.Mutex         // protects what follows
	holders      map[holder]int     // how many sockets and event streams each has
	reservations map[string]*events // by token
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
	}
	s.readiness.check = deps.Ready
	if err := s.setOrigins(); err != nil {
		return nil, err
	}
	s.exec = s.executor()
	if s.sockets, err = s.newSockets(); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	s.draining, s.drain = context.WithCancel(context.Background())

	s.mux.Handle("/graphql", s.limited(http.HandlerFunc(s.serveGraphQL)))
	for pattern, h := range deps.Routes {
		s.mux.Handle(pattern, s.limited(s.route(h)))
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

// executor is gqlgen's, without its transports.
func (s *Server) executor() *executor.Executor {
	g := executor.New(s.deps.Schema)
	g.SetErrorPresenter(s.present)
	g.SetRecoverFunc(s.recovered)
	g.SetParserTokenLimit(s.cfg.Limits.Tokens)
	g.SetDisableSuggestion(!s.cfg.Introspection)
	cache := documents{lru.New[*ast.QueryDocument](1000)}
	g.SetQueryCache(cache)
	g.Use(guard{schema: s.deps.Schema.Schema(), validated: cache, limits: s.cfg.Limits, introspection: s.cfg.Introspection})
	for _, e := range s.deps.Extensions {
		g.Use(e)
	}
	return g
}

// documents caches parsed documents. Long ones are left out: a thousand of them would be the memory of the
// machine, and a client that sends them makes them up each time.
type documents struct{ *lru.LRU[*ast.QueryDocument] }

const longestCachedDocument = 8 << 10

func (d documents) Add(ctx context.Context, query string, doc *ast.QueryDocument) {
	if len(query) <= longestCachedDocument {
		d.LRU.Add(ctx, query, doc)
	}
}

// Sockets says what WebSockets there are, and counts what went through them.
func (s *Server) Sockets() graphqlws.Stats { return s.sockets.Stats() }

// EventStreams is how many event streams are open.
func (s *Server) EventStreams() int { return int(s.streams.Load()) }

// Serve answers on ln, which it closes, until ctx is done. Then it accepts nothing new, closes sockets and event streams
// and lets running requests finish. It returns an error where the listener failed, or where something still
// ran when ShutdownTimeout was over.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	// Requests outlive ctx: they end by themselves, or when time is up.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	hs := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      s.writeTimeout, // a hijacked connection has none
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(ln) }()
	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}

	limit, cancel := context.WithTimeout(base, s.cfg.ShutdownTimeout)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- s.shutdown(limit) }()
	late := errors.Join(hs.Shutdown(limit), <-closed)
	if late != nil {
		cut()
		_ = hs.Close()
		late = fmt.Errorf("shut down http: requests still run after %s: %w", s.cfg.ShutdownTimeout, late)
	}
	return errors.Join(err, late)
}

// shutdown ends sockets and event streams.
func (s *Server) shutdown(ctx context.Context) error {
	s.drain()
	s.mu.Lock()
	reservations := slices.Collect(maps.Values(s.reservations))
	s.mu.Unlock()
	for _, e := range reservations { // also those that nobody writes
		e.end()
	}
	err := s.sockets.Shutdown(ctx)
	ended := make(chan struct{})
	go func() {
		s.streaming.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}
