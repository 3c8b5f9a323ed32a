// Package app is the composition root: a [Config] goes in, a running program comes out.
//
// Guarantees:
//   - Nothing here reads flags or the environment; commands and tests say everything in Config.
//   - [Start] returns a program that answers, or an error after which nothing is left running.
//   - Parts end in the reverse of the order they began in: HTTP, background services, the pool, the private
//     database. Where one part fails, all end, and [App.Wait] says which.
//   - In production introspection is off, keys must be given and strong, browsers find the program by https, and a
//     database whose schema is older than the program is refused.
//   - Mail is shown in development alone, and to this machine alone.
//
// It may import everything but cmd, codegen, dbtest and bench; only cmd, bench and end-to-end tests import it.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"godstack/internal/auth"
	"godstack/internal/mail"
	"godstack/internal/server"
	"godstack/internal/telemetry"
	"godstack/web"
)

// Config says what to run. The zero value is a production server without a database, which [Start] refuses.
type Config struct {
	// DatabaseURL is a connection string of Postgres, with pgxpool's parameters such as pool_max_conns. Empty,
	// which is for development alone: a private cluster below DataDir.
	DatabaseURL string
	// DataDir holds what the program keeps on disk in development. Default ".data".
	DataDir string
	// Addr is the address to listen on. Default 127.0.0.1:8080; port 0 takes a free one.
	Addr string
	// PublicURL is where browsers find the program, such as https://example.com. Required in production, where it is https
	// unless it is on this machine. Default in development: Addr by http.
	PublicURL string
	// Development migrates at the start, allows introspection, makes keys of its own and shows all mail at /mailbox.
	Development bool
	// JWTKeys sign access tokens, SecretKeys are for all other secrets, in the forms of [auth.ParseKeys] and
	// [auth.ParseSecrets]. All nodes have the same. Required in production.
	JWTKeys, SecretKeys string
	// Auth tunes the accounts. Its PublicURL is set from the field above; VerifyEmail is optional by default in development.
	Auth auth.Config
	// Passwords tunes how passwords are hashed. Nil: the defaults.
	Passwords *auth.PasswordConfig
	// RedisURL is where nodes count what clients do, as redis://localhost:6379/0. Empty: in Postgres.
	RedisURL string
	// Pubsub is by what nodes wake each other. Default: memory in development, else postgres.
	Pubsub Pubsub
	// MetricsAddr is an address to listen on for whoever collects metrics and profiles, apart from Addr since they are for operators
	// alone. Empty: nowhere, and requests are not counted.
	MetricsAddr string
	// Tracing says where traces go. Nil: nowhere, and nothing is traced.
	Tracing *Tracing
	// ListenURL is a connection string for what needs a session of its own, which a pooler between does not give: the change log's reader
	// and its wake-ups. Empty: DatabaseURL.
	ListenURL string
	// ReadURL is a connection string for a standby, or several, where queries are answered whose clients ask for it. Empty: none.
	ReadURL string
	// RateLimit is how many requests a minute an address may make, to all nodes together. Default 1200; negative: any number.
	RateLimit int
	// Unrestricted has everybody meet every access rule. It is for measuring what rules cost.
	Unrestricted bool
	// Seed fills a database without users with demonstration data before [Start] returns. In development only.
	Seed bool
	// Logger takes all logs. Nil: none.
	Logger *slog.Logger
	// Server tunes limits and timeouts. Introspection, Cookies and Secure are set from the fields above, and PublicURL joins
	// Origins.
	Server server.Config

	tracer *telemetry.Tracer // made of Tracing
}

// Tracing says where traces go, and which.
type Tracing = telemetry.TraceConfig

func (c Config) withDefaults() (Config, error) {
	if c.DatabaseURL == "" && !c.Development {
		return c, errors.New("app: DatabaseURL is required in production")
	}
	if c.Seed && !c.Development {
		return c, errors.New("app: Seed is for development")
	}
	if c.DataDir == "" {
		c.DataDir = ".data"
	}
	if c.Addr == "" {
		c.Addr = "127.0.0.1:8080"
	}
	if c.RateLimit == 0 {
		c.RateLimit = 1200
	}
	if c.Pubsub == "" {
		c.Pubsub = defaultPubsub(c.Development)
	}
	if c.Pubsub == PubsubRedis && c.RedisURL == "" {
		return c, errors.New("REDIS_URL: required where PUBSUB is redis")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Server.Introspection = c.Development
	c.Server.Cookies = c.Auth.Storage == auth.InCookie || c.Auth.Storage == auth.InBoth
	c.Server.Secure = strings.HasPrefix(c.PublicURL, "https:")
	if c.PublicURL != "" {
		c.Server.Origins = append(slices.Clip(c.Server.Origins), c.PublicURL)
	}
	return c, nil
}

// complete is withDefaults for what serves: with the keys, and where it is found.
func (c Config) complete() (Config, error) {
	c, err := c.withDefaults()
	if err != nil {
		return c, err
	}
	c, err = c.withSecrets()
	return c, errors.Join(c.checkPublicURL(), err)
}

// checkPublicURL sees to it that in production cookies are for https alone, that links in mails lead here, and that all
// nodes sign and accept the same tokens.
func (c Config) checkPublicURL() error {
	if c.Development {
		return nil
	}
	if c.PublicURL == "" {
		return errors.New("PUBLIC_URL: required in production")
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Scheme != "https" && (u.Scheme != "http" || !Loopback(u.Hostname())) {
		return fmt.Errorf("PUBLIC_URL: %q is not https, which production requires but on localhost", c.PublicURL)
	}
	return nil
}

// Loopback reports whether a host is this machine to itself: localhost, or an address such as 127.0.0.1.
func Loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// App is a running program.
type App struct {
	url  string
	addr net.Addr
	mail *mail.Recorder
	stop context.CancelFunc
	done chan struct{} // closed when everything has ended
	err  error         // valid after done
}

// service is a part that runs in the background until ctx is done. Its name is for errors.
type service struct {
	name string
	run  func(ctx context.Context) error
}

// Start starts the program, which runs until ctx is done or [App.Close] is called. The caller must call Wait
// or Close.
func Start(ctx context.Context, cfg Config) (_ *App, err error) {
	cfg, err = cfg.complete()
	if err != nil {
		return nil, err
	}
	// First, since a port that is taken is the likeliest failure. Who connects now waits in the backlog.
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Addr, err)
	}
	defer func() {
		if err != nil {
			_ = ln.Close()
		}
	}()
	if cfg.tracer, err = telemetry.NewTracer(ctx, cfg.Tracing, cfg.Logger); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, cfg.tracer.Close(ctx))
		}
	}()
	db, err := openDatabase(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.close(ctx))
		}
	}()
	if cfg.Seed {
		if err := seed(ctx, cfg, db.pool); err != nil {
			return nil, err
		}
	}
	if cfg.PublicURL == "" {
		cfg.PublicURL = localURL(ln.Addr())
	}
	core, err := newCore(ctx, cfg, db.pool)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, core.close())
		}
	}()
	counts := newMetrics(cfg)
	srv, err := server.New(server.Deps{
		Schema:     core.schema,
		Extensions: core.extensions,
		Viewer:     core.accounts.Viewer,
		Public:     auth.PublicFields,
		Watch:      core.accounts.Watch,
		Check:      core.accounts.Check,
		Limit:      core.accounts.limit,
		Replica:    core.reads(),
		Routes:     core.accounts.routes(cfg),
		Pages:      web.Account(cfg.Auth.App),
		Ready: func(ctx context.Context) error {
			if err := db.ready(ctx); err != nil {
				return err
			}
			return core.ready()
		},
		Notes:      core.notes,
		Playground: web.Playground(seedHint(cfg)),
		Metrics:    counts.counts(),
		Tracer:     cfg.tracer,
		Logger:     cfg.Logger,
	}, &cfg.Server)
	if err != nil {
		return nil, err
	}

	services := slices.Concat(core.services, db.watch())
	if counts != nil {
		if err := counts.listen(ctx, cfg, db, core, srv); err != nil {
			return nil, err
		}
		services = append(services, service{"metrics", counts.serve})
		cfg.Logger.InfoContext(ctx, "metrics", "address", counts.ln.Addr().String())
	}

	a := &App{url: cfg.PublicURL, addr: ln.Addr(), mail: core.accounts.mail, done: make(chan struct{})}
	ctx, a.stop = context.WithCancel(ctx)
	cfg.Logger.InfoContext(ctx, "listening", "address", a.addr.String())
	go func() {
		defer close(a.done)
		defer a.stop()
		err := run(ctx, srv, ln, services)
		a.err = errors.Join(err, core.close(), db.close(ctx))
		if err := cfg.tracer.Close(ctx); err != nil { // a collector that is away is no failure of the program
			cfg.Logger.WarnContext(ctx, "the last traces are lost", "error", err)
		}
	}()
	return a, nil
}

// run serves until ctx is done or a service fails. Services outlast the server, whose last requests need them.
func run(ctx context.Context, srv *server.Server, ln net.Listener, services []service) error {
	background, stopServices := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServices()
	g, background := errgroup.WithContext(background)
	for _, s := range services {
		g.Go(func() error {
			if err := s.run(background); err != nil && background.Err() == nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	defer context.AfterFunc(background, stopServing)()
	g.Go(func() error {
		defer stopServices()
		return srv.Serve(serving, ln)
	})
	return g.Wait()
}

// Run is Start and Wait.
func Run(ctx context.Context, cfg Config) error {
	a, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	return a.Wait()
}

// URL is where the program is found, without a slash at the end.
func (a *App) URL() string { return a.url }

// Addr is the address that the program listens on.
func (a *App) Addr() net.Addr { return a.addr }

// Mail is what was mailed.
func (a *App) Mail() *mail.Recorder { return a.mail }

// Wait returns when everything has ended: nil after a stop that was asked for, else what failed.
func (a *App) Wait() error {
	<-a.done
	return a.err
}

// Close stops the program and waits for its end.
func (a *App) Close() error {
	a.stop()
	return a.Wait()
}

// localURL is the address to visit where the program listens on addr.
func localURL(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("http://localhost:%d", tcp.Port)
	}
	return "http://" + addr.String()
}
