package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/internal/entpgx"
	"godstack/internal/mail"
	"godstack/internal/ratelimit"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// TokenStorage is where clients keep their tokens.
type TokenStorage string

// The storages.
const (
	// InHeader gives tokens in the body, for the header Authorization. Cookies are ignored.
	InHeader TokenStorage = "header"
	// InCookie gives tokens in cookies that no script reads, never in the body.
	InCookie TokenStorage = "cookie"
	// InBoth gives tokens in both, and takes either.
	InBoth TokenStorage = "both"
)

// Verification says whether an address has to be confirmed before its account can be used.
type Verification string

// The verifications.
const (
	// VerifyRequired answers a registration alike whether the address is known or not, and mails the rest.
	VerifyRequired Verification = "required"
	// VerifyOptional signs in at once. It tells who registers whether an address is known: that cannot be hidden then.
	VerifyOptional Verification = "optional"
)

// Config adjusts a Service. The zero value of each field is its default.
type Config struct {
	// PublicURL is where browsers find the application, such as https://example.com. Links in mails begin with it, and
	// cookies are secure unless it is http on localhost or 127.0.0.1. Required.
	PublicURL string
	// App is the application's name, in mails and authenticators. Default Godstack.
	App string
	// Storage is where clients keep their tokens. Default InHeader.
	Storage TokenStorage
	// VerifyEmail is VerifyRequired by default.
	VerifyEmail Verification

	// AccessTTL is how long an access token is valid. Default 15 min.
	AccessTTL time.Duration
	// RefreshTTL is how long a refresh token is valid, and a session that is not used. Default 7 days.
	RefreshTTL time.Duration
	// SessionTTL is how long a session lasts, however often it is used. Default 30 days.
	SessionTTL time.Duration
	// Grace is how long a refresh token that was used already gives the same answer again. Default 30 s.
	Grace time.Duration
	// MaxSessions is how many sessions a user has at most: the one that was not used for the longest time gives way.
	// Default 10.
	MaxSessions int

	// MaxFailures of signing in within FailureWindow lock an account for Lockout. Defaults 10, 30 min, 30 min.
	MaxFailures            int
	FailureWindow, Lockout time.Duration

	// TokenTTL is how long the links in mails are valid. Default 24 h.
	TokenTTL time.Duration
	// RevertTTL is how long a change of address can be taken back by mail. Default 7 days.
	RevertTTL time.Duration

	// Limits of operations.
	Limits Limits
}

// Limits are the operations' limits, for each client address but for Sensitive. The zero value of each is its default.
type Limits struct {
	Login     ratelimit.Limit // 5 a minute
	Register  ratelimit.Limit // 3 an hour
	Forgot    ratelimit.Limit // 3 an hour
	Reset     ratelimit.Limit // 5 an hour
	Verify    ratelimit.Limit // 5 an hour
	Resend    ratelimit.Limit // 3 an hour
	Refresh   ratelimit.Limit // 30 a minute
	Sensitive ratelimit.Limit // 10 a minute, for each user: what takes the password of who is signed in
}

func (l *Limits) withDefaults() {
	for _, d := range []struct {
		limit  *ratelimit.Limit
		name   string
		quota  int
		window time.Duration
	}{
		{&l.Login, "login", 5, time.Minute},
		{&l.Register, "register", 3, time.Hour},
		{&l.Forgot, "forgot", 3, time.Hour},
		{&l.Reset, "reset", 5, time.Hour},
		{&l.Verify, "verify", 5, time.Hour},
		{&l.Resend, "resend", 3, time.Hour},
		{&l.Refresh, "refresh", 30, time.Minute},
		{&l.Sensitive, "sensitive", 10, time.Minute},
	} {
		d.limit.Name = cmp.Or(d.limit.Name, d.name)
		d.limit.Quota = cmp.Or(d.limit.Quota, d.quota)
		d.limit.Window = cmp.Or(d.limit.Window, d.window)
	}
}

func (c *Config) withDefaults() (Config, error) {
	var cfg Config
	if c != nil {
		cfg = *c
	}
	u, err := url.Parse(cfg.PublicURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return cfg, errors.New("auth: PublicURL is not a URL such as https://example.com")
	}
	cfg.PublicURL = strings.TrimSuffix(cfg.PublicURL, "/")
	cfg.App = cmp.Or(cfg.App, "Godstack")
	cfg.Storage = cmp.Or(cfg.Storage, InHeader)
	cfg.VerifyEmail = cmp.Or(cfg.VerifyEmail, VerifyRequired)
	switch cfg.Storage {
	case InHeader, InCookie, InBoth:
	default:
		return cfg, fmt.Errorf("auth: Storage is header, cookie or both, not %q", cfg.Storage)
	}
	switch cfg.VerifyEmail {
	case VerifyRequired, VerifyOptional:
	default:
		return cfg, fmt.Errorf("auth: VerifyEmail is required or optional, not %q", cfg.VerifyEmail)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		or    time.Duration
	}{
		{"AccessTTL", &cfg.AccessTTL, 15 * time.Minute},
		{"RefreshTTL", &cfg.RefreshTTL, 7 * 24 * time.Hour},
		{"SessionTTL", &cfg.SessionTTL, 30 * 24 * time.Hour},
		{"Grace", &cfg.Grace, 30 * time.Second},
		{"FailureWindow", &cfg.FailureWindow, 30 * time.Minute},
		{"Lockout", &cfg.Lockout, 30 * time.Minute},
		{"TokenTTL", &cfg.TokenTTL, 24 * time.Hour},
		{"RevertTTL", &cfg.RevertTTL, 7 * 24 * time.Hour},
	} {
		*d.value = cmp.Or(*d.value, d.or)
		if *d.value < time.Second {
			return cfg, fmt.Errorf("auth: %s is less than a second", d.name)
		}
	}
	cfg.MaxSessions = cmp.Or(cfg.MaxSessions, 10)
	cfg.MaxFailures = cmp.Or(cfg.MaxFailures, 10)
	if cfg.MaxSessions < 1 || cfg.MaxFailures < 1 {
		return cfg, errors.New("auth: MaxSessions and MaxFailures must be positive")
	}
	cfg.Limits.withDefaults()
	return cfg, nil
}

// Limiter counts what clients do. Package ratelimit has two.
type Limiter interface {
	Take(ctx context.Context, key string, l ratelimit.Limit) (ratelimit.Result, error)
}

// FollowUps remembers who has signed up.
type FollowUps interface {
	// FollowUp has [Service.FollowUp] called for a user at a time, if the transaction commits.
	FollowUp(ctx context.Context, tx pgx.Tx, user uuid.UUID, at time.Time) error
}

// Deps are the parts that a Service stands on.
type Deps struct {
	Pool *pgxpool.Pool
	// Reserve has connections for what has to go on when all of Pool are taken: signing out, and who has. Nil: Pool.
	Reserve   *pgxpool.Pool
	Passwords *Passwords
	Secrets   *Secrets
	Keys      *Keys
	Mail      mail.Queue
	// FollowUps asks those who signed up how it goes. Nil: nobody is asked.
	FollowUps FollowUps

	// Limits counts operations by address. Nil: nothing is limited.
	Limits Limiter
	// Lag says how far Deliver may be behind what is committed. Nil, or over a second: each access token is checked
	// against the row of its session.
	Lag func() time.Duration
	// Committed is called after each commit, to wake whoever delivers changes. It must not block. Nil: nobody.
	Committed func()
	// Logger gets what goes wrong and no client is told of. Default: slog.Default().
	Logger *slog.Logger
	// Clock says what time it is for access tokens and codes of the second factor, and when a follow-up is due; all else goes by the database's
	// clock. Default: time.Now.
	Clock func() time.Time
}

// Service is the accounts. It is safe for concurrent use.
type Service struct {
	deps    Deps
	cfg     Config
	driver  *entpgx.Driver
	parting *entpgx.Driver // on the reserve
	log     *slog.Logger
	cookies cookies
	revoked *revocations
}

// New returns a Service. It returns an error where a part is missing or the configuration is wrong.
func New(deps Deps, cfg *Config) (*Service, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if deps.Pool == nil || deps.Passwords == nil || deps.Secrets == nil || deps.Keys == nil || deps.Mail == nil {
		return nil, errors.New("auth: Pool, Passwords, Secrets, Keys and Mail are required")
	}
	if deps.Reserve == nil {
		deps.Reserve = deps.Pool
	}
	if deps.Committed == nil {
		deps.Committed = func() {}
	}
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	if deps.Logger == nil {
		deps.Logger = slog.Default()
	}
	return &Service{
		deps: deps, cfg: c, driver: entpgx.Open(deps.Pool), parting: entpgx.Open(deps.Reserve), log: deps.Logger, cookies: newCookies(&c),
		revoked: newRevocations(c.AccessTTL + clockLeeway),
	}, nil
}

// tx is a transaction.
type tx struct {
	pgx.Tx
	ent   *entpgx.Tx
	after *[]func()
}

// onCommit has f called after the commit.
func (t tx) onCommit(f func()) { *t.after = append(*t.after, f) }

// kept is an error that is answered although the transaction is committed: the attempt, the event and the mail stay.
type kept struct{ error }

// patience bounds what must be written even where the client has gone.
const patience = 10 * time.Second

// inTx runs f in a transaction, in which the change log names actor; uuid.Nil is nobody. It commits where f returns
// nil or a kept error, even if the client went away meanwhile.
func (s *Service) inTx(ctx context.Context, actor uuid.UUID, f func(context.Context, tx) error) error {
	return s.inTxOf(ctx, s.driver, actor, f)
}

// inTxOf is inTx with a driver.
func (s *Service) inTxOf(ctx context.Context, driver *entpgx.Driver, actor uuid.UUID, f func(context.Context, tx) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if actor != uuid.Nil {
		ctx = entpgx.WithSetting(ctx, record.ActorSetting, actor.String())
	}
	t := driver.Begin(ctx, pgx.TxOptions{})
	var after []func()
	err := f(ctx, tx{Tx: t.PGX(), ent: t, after: &after})
	k, keep := errors.AsType[kept](err)
	if err != nil && !keep {
		if e := t.Rollback(); e != nil {
			s.log.WarnContext(ctx, "roll back", "error", e)
		}
		return err
	}
	if err := t.CommitContext(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	for _, f := range after {
		f()
	}
	s.deps.Committed()
	if keep {
		return k.error
	}
	return nil
}

// newID returns an id for a row.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// signedIn returns who asks, or UNAUTHENTICATED.
func signedIn(ctx context.Context) (viewer.Viewer, error) {
	v, ok := viewer.FromContext(ctx)
	if !ok {
		return v, unauthenticated("sign in first")
	}
	return v, nil
}

// administrator returns who asks, or FORBIDDEN where that is no administrator.
func administrator(ctx context.Context) (viewer.Viewer, error) {
	v, err := signedIn(ctx)
	if err == nil && !v.Is(viewer.Admin) {
		err = &record.Error{Code: record.Forbidden, Message: "this is for administrators"}
	}
	return v, err
}

func unauthenticated(message string, fields ...string) *record.Error {
	return &record.Error{Code: record.Unauthenticated, Message: message, Fields: fields}
}

// isUnauthenticated reports whether somebody has to sign in.
func isUnauthenticated(err error) bool {
	e, ok := errors.AsType[*record.Error](err)
	return ok && e.Code == record.Unauthenticated
}

func badInput(field, message string) *record.Error {
	return &record.Error{Code: record.BadUserInput, Message: message, Fields: []string{field}}
}

// userID returns the UUID of a user's id.
func userID(id record.ID) (uuid.UUID, error) {
	if id.Prefix != "" && id.Prefix != userPrefix {
		return uuid.UUID{}, badInput("id", "id: "+id.String()+" is not the id of a User")
	}
	return id.UUID, nil
}

// The prefixes of ids.
const (
	userPrefix    = "user"
	sessionPrefix = "session"
)

func globalID(user uuid.UUID) record.ID { return record.ID{Prefix: userPrefix, UUID: user} }
