package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"github.com/caarlos0/env/v11"

	"godstack/internal/app"
	"godstack/internal/auth"
	"godstack/internal/server"
)

// config is the environment. Each variable is documented in .env.example.
type config struct {
	DatabaseURL database    `env:"DATABASE_URL"`
	Addr        address     `env:"ADDR"         envDefault:"127.0.0.1:8080"`
	PublicURL   origin      `env:"PUBLIC_URL"`
	Env         environment `env:"ENV"          envDefault:"development"`
	LogLevel    level       `env:"LOG_LEVEL"    envDefault:"info"`

	JWTKeys        jwtKeys    `env:"JWT_KEYS"`
	SecretKeys     secretKeys `env:"SECRET_KEYS"`
	TokenStorage   storage    `env:"AUTH_TOKEN_STORAGE" envDefault:"header"`
	VerifyEmail    verify     `env:"AUTH_VERIFY_EMAIL"`
	AllowedOrigins []origin   `env:"ALLOWED_ORIGINS"`
	TrustedProxies []network  `env:"TRUSTED_PROXIES"`
	RedisURL       redis      `env:"REDIS_URL"`
	Pubsub         pubsub     `env:"PUBSUB"`
	ListenURL      database   `env:"LISTEN_DATABASE_URL"`
	ReadURL        database   `env:"READ_DATABASE_URL"`
	MetricsAddr    address    `env:"METRICS_ADDR"`
	RateLimit      limit      `env:"RATE_LIMIT"         envDefault:"1200"`

	SocketsPerUser     limit `env:"SOCKETS_PER_USER"`
	SocketsPerAddress  limit `env:"SOCKETS_PER_ADDRESS"`
	SocketOperations   bound `env:"SOCKET_OPERATIONS"`
	SocketMessageRate  bound `env:"SOCKET_MESSAGE_RATE"`
	SocketMessageBytes bound `env:"SOCKET_MESSAGE_BYTES"`
	SocketWriteBuffer  bound `env:"SOCKET_WRITE_BUFFER"`

	// What OpenTelemetry calls them.
	TracesExporter     tracesExporter `env:"OTEL_TRACES_EXPORTER"`
	OTLPEndpoint       endpoint       `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	OTLPTracesEndpoint endpoint       `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"`
	OTLPProtocol       otlpProtocol   `env:"OTEL_EXPORTER_OTLP_PROTOCOL"`
	OTLPHeaders        pairs          `env:"OTEL_EXPORTER_OTLP_HEADERS"`
	ServiceName        string         `env:"OTEL_SERVICE_NAME"`
	ResourceAttributes pairs          `env:"OTEL_RESOURCE_ATTRIBUTES"`
	TracesSampler      sampler        `env:"OTEL_TRACES_SAMPLER"`
	TracesSamplerArg   ratio          `env:"OTEL_TRACES_SAMPLER_ARG"`
}

// loadConfig reads environ, which is in os.Environ's form. Its error names every variable that is wrong.
func loadConfig(environ []string) (config, error) {
	values := env.ToMap(environ)
	cfg, err := env.ParseAsWithOptions[config](env.Options{Environment: values})
	if err != nil {
		return config{}, explain(err)
	}
	if values["ENV"] == "" {
		if err := cfg.private(); err != nil {
			return config{}, fmt.Errorf("ENV: required where others reach the program, and %w: say production, or development, "+
				"which has keys of its own and shows the API's schema", err)
		}
	}
	if cfg.Env == production && cfg.DatabaseURL == "" {
		return config{}, errors.New("DATABASE_URL: required where ENV is production")
	}
	return cfg, nil
}

// private says what lets others than this machine's users reach the program.
func (c config) private() error {
	if host, _, _ := net.SplitHostPort(string(c.Addr)); !app.Loopback(host) {
		return fmt.Errorf("ADDR is %s", c.Addr)
	}
	if u, err := url.Parse(string(c.PublicURL)); err != nil || c.PublicURL != "" && !app.Loopback(u.Hostname()) {
		return fmt.Errorf("PUBLIC_URL is %s", c.PublicURL)
	}
	return nil
}

// explain names the variables where the library names the struct's fields.
func explain(err error) error {
	all, ok := errors.AsType[env.AggregateError](err)
	if !ok {
		return err
	}
	var lines []error
	for _, err := range all.Errors {
		parse, ok := errors.AsType[env.ParseError](err)
		if !ok {
			lines = append(lines, err)
			continue
		}
		field, _ := reflect.TypeFor[config]().FieldByName(parse.Name)
		lines = append(lines, fmt.Errorf("%s: %w", field.Tag.Get("env"), parse.Err))
	}
	return errors.Join(lines...)
}

func (c config) app(log *slog.Logger) app.Config {
	var (
		origins []string
		proxies []netip.Prefix
	)
	for _, o := range c.AllowedOrigins {
		origins = append(origins, string(o))
	}
	for _, p := range c.TrustedProxies {
		proxies = append(proxies, netip.Prefix(p))
	}
	return app.Config{
		DatabaseURL: string(c.DatabaseURL),
		Addr:        string(c.Addr),
		PublicURL:   string(c.PublicURL),
		Development: c.Env == development,
		JWTKeys:     string(c.JWTKeys),
		SecretKeys:  string(c.SecretKeys),
		Auth:        auth.Config{Storage: auth.TokenStorage(c.TokenStorage), VerifyEmail: auth.Verification(c.VerifyEmail)},
		RedisURL:    string(c.RedisURL),
		Pubsub:      app.Pubsub(c.Pubsub),
		ListenURL:   string(c.ListenURL),
		ReadURL:     string(c.ReadURL),
		MetricsAddr: string(c.MetricsAddr),
		Tracing:     c.tracing(),
		RateLimit:   int(c.RateLimit),
		Server: server.Config{Origins: origins, TrustedProxies: proxies, Sockets: server.Sockets{
			PerUser: int(c.SocketsPerUser), PerAddress: int(c.SocketsPerAddress), Operations: int(c.SocketOperations), MessageRate: int(c.SocketMessageRate),
			MessageSize: int(c.SocketMessageBytes), WriteBuffer: int(c.SocketWriteBuffer),
		}},
		Logger: log,
	}
}

// environment is where the program runs.
type environment string

const (
	development environment = "development"
	production  environment = "production"
)

func (e *environment) UnmarshalText(text []byte) error {
	switch *e = environment(text); *e {
	case development, production:
		return nil
	}
	return fmt.Errorf("%q is neither %s nor %s", text, development, production)
}

// database is where data are kept.
type database string

func (d *database) UnmarshalText(text []byte) error {
	*d = database(text)
	_, err := app.ParseDatabaseURL(string(text))
	return err
}

// redis is where nodes count.
type redis string

func (r *redis) UnmarshalText(text []byte) error {
	*r = redis(text)
	_, err := app.ParseRedisURL(string(text))
	return err
}

// pubsub is by what nodes wake each other.
type pubsub app.Pubsub

func (p *pubsub) UnmarshalText(text []byte) error {
	switch *p = pubsub(text); app.Pubsub(*p) {
	case app.PubsubMemory, app.PubsubPostgres, app.PubsubRedis:
		return nil
	}
	return fmt.Errorf("%q is none of memory, postgres and redis", text)
}

// storage is where clients keep their tokens.
type storage auth.TokenStorage

func (s *storage) UnmarshalText(text []byte) error {
	switch *s = storage(text); auth.TokenStorage(*s) {
	case auth.InHeader, auth.InCookie, auth.InBoth:
		return nil
	}
	return fmt.Errorf("%q is none of header, cookie and both", text)
}

// verify says whether an address has to be confirmed.
type verify auth.Verification

func (v *verify) UnmarshalText(text []byte) error {
	switch *v = verify(text); auth.Verification(*v) {
	case auth.VerifyRequired, auth.VerifyOptional:
		return nil
	}
	return fmt.Errorf("%q is neither required nor optional", text)
}

// jwtKeys are what signs access tokens.
type jwtKeys string

func (k *jwtKeys) UnmarshalText(text []byte) error {
	*k = jwtKeys(text)
	_, err := auth.ParseKeys(string(text), "issuer", "audience")
	return err
}

// secretKeys are for all other secrets.
type secretKeys string

func (k *secretKeys) UnmarshalText(text []byte) error {
	*k = secretKeys(text)
	_, err := auth.ParseSecrets(string(text))
	return err
}

// network is a range of addresses, or one address.
type network netip.Prefix

func (n *network) UnmarshalText(text []byte) error {
	text = bytes.TrimSpace(text) // after a comma
	p, err := netip.ParsePrefix(string(text))
	if a, err2 := netip.ParseAddr(string(text)); err2 == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil || p.Addr().Is4In6() { // which would contain nobody: peers of IPv4 are known as such
		return fmt.Errorf("%q is no network such as 10.0.0.0/8", text)
	}
	*n = network(p.Masked())
	return nil
}

// mostOf is the greatest number there may be of anything.
const mostOf = 50_000_000

// number reads a whole number from least on.
func number(text []byte, least uint64) (n int, ok bool) {
	u, err := strconv.ParseUint(string(text), 10, 32)
	return int(u), err == nil && u >= least && u <= mostOf
}

// limit is a number that may be any: 0 in the environment, and negative here, where 0 stands for what is not said.
type limit int

func (l *limit) UnmarshalText(text []byte) error {
	n, ok := number(text, 0)
	switch {
	case !ok:
		return fmt.Errorf("%q is no whole number from 0, which is no limit, to %d", text, mostOf)
	case n == 0:
		n = -1
	}
	*l = limit(n)
	return nil
}

// bound is a number without which a client could have all the memory there is, or all the time.
type bound int

func (b *bound) UnmarshalText(text []byte) error {
	n, ok := number(text, 1)
	if !ok {
		return fmt.Errorf("%q is no whole number from 1 to %d; there is always a limit", text, mostOf)
	}
	*b = bound(n)
	return nil
}

// level is the least severity that is logged.
type level slog.Level

func (l *level) UnmarshalText(text []byte) error {
	for name, value := range map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	} {
		if strings.EqualFold(name, string(text)) {
			*l = level(value)
			return nil
		}
	}
	return fmt.Errorf("%q is none of debug, info, warn and error", text)
}

// address is a host and a port to listen on.
type address string

func (a *address) UnmarshalText(text []byte) error {
	*a = address(text)
	_, port, err := net.SplitHostPort(string(text))
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is no address such as 127.0.0.1:8080", text)
	}
	return nil
}

// origin is a scheme and a host; a slash at the end is dropped.
type origin string

func (o *origin) UnmarshalText(text []byte) error {
	s := strings.TrimSuffix(strings.TrimSpace(string(text)), "/")
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || s != u.Scheme+"://"+u.Host {
		return fmt.Errorf("%q is no address such as https://example.com", text)
	}
	*o = origin(s)
	return nil
}
