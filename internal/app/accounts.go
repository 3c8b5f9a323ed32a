package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"

	"godstack/internal/auth"
	"godstack/internal/job"
	"godstack/internal/mail"
	"godstack/internal/ratelimit"
	"godstack/internal/record"
	"godstack/internal/server"
	"godstack/internal/viewer"
)

// tokenAudience is who access tokens are for.
const tokenAudience = "godstack"

// accounts is what signs people in, with the parts that it stands on.
type accounts struct {
	*auth.Service
	mail      *mail.Recorder
	passwords *auth.Passwords
	sender    mail.Sender // what the queue's mails are sent by
	counts    ratelimit.Store
	limit     server.LimitFunc // nil where there is no limit
	redis     rueidis.Client   // nil without a RedisURL
}

// newAccounts builds the accounts. cfg is complete, with its PublicURL.
func newAccounts(cfg Config, secrets *auth.Secrets, pool, reserve *pgxpool.Pool, lag func() time.Duration, committed func()) (_ *accounts, err error) {
	a := &accounts{mail: cmp.Or(cfg.Outbox, &mail.Recorder{}), counts: ratelimit.NewPostgres(pool)}
	if a.sender, err = newSender(cfg, a.mail); err != nil {
		return nil, err
	}
	keys, err := auth.ParseKeys(cfg.JWTKeys, cfg.PublicURL, tokenAudience)
	if err != nil {
		return nil, fmt.Errorf("JWT_KEYS: %w", err)
	}
	passwords, err := auth.NewPasswords(cfg.Passwords)
	if err != nil {
		return nil, err
	}
	a.passwords = passwords
	if cfg.RedisURL != "" {
		if a.redis, err = openRedis(cfg.RedisURL); err != nil {
			return nil, err
		}
		a.counts = ratelimit.NewRedis(a.redis, "godstack:limit:")
	}
	if cfg.RateLimit > 0 {
		l := ratelimit.Limit{Name: "address", Quota: cfg.RateLimit, Window: time.Minute}
		limit, err := ratelimit.NewPerAddress(a.counts, l, &ratelimit.AddressConfig{Logger: cfg.Logger})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("RATE_LIMIT: %w", err), a.close())
		}
		a.limit = limit.Take
	}
	settings := cfg.Auth
	settings.PublicURL = cfg.PublicURL
	if settings.VerifyEmail == "" && cfg.Development {
		settings.VerifyEmail = auth.VerifyOptional
	}
	a.Service, err = auth.New(auth.Deps{
		Pool: pool, Reserve: reserve, Passwords: passwords, Secrets: secrets, Keys: keys, Mail: job.MailQueue{Sealer: secrets},
		FollowUps: job.FollowUps{}, Limits: a.counts,
		Lag: lag, Committed: committed, Logger: cfg.Logger,
	}, &settings)
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// ParseRedisURL reads a RedisURL. Its error has nothing of the text, in which there may be a password.
func ParseRedisURL(text string) (rueidis.ClientOption, error) {
	option, err := rueidis.ParseURL(text)
	if err != nil {
		return rueidis.ClientOption{}, errors.New("no address such as redis://user:password@localhost:6379/0, with %40 for an @ in the password")
	}
	return option, nil
}

func openRedis(text string) (rueidis.Client, error) {
	option, err := ParseRedisURL(text)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	option.DisableCache = true
	client, err := rueidis.NewClient(option)
	if err != nil {
		return nil, fmt.Errorf("connect to redis: %w", err)
	}
	return client, nil
}

// routes are the pages beside GraphQL.
func (a *accounts) routes(cfg Config) map[string]http.Handler {
	routes := map[string]http.Handler{
		"GET /security-events.jsonl": a.ExportHandler(),
		"GET /security-events.csv":   a.ExportHandler(),
	}
	if cfg.Development {
		routes["/mailbox"] = private(a.mail.Handler(cfg.elsewhere()))
		routes["/mailbox/"] = routes["/mailbox"]
	}
	return routes
}

// private hides a page from all but this machine. The Host header is looked at since a page of another host may have its
// name resolve to this machine, and is then of the same origin to a browser.
func private(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := (&url.URL{Host: r.Host}).Hostname()
		if !viewer.ClientOf(r.Context()).Address.IsLoopback() || !Loopback(host) {
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *accounts) close() error {
	if a.redis != nil {
		a.redis.Close()
	}
	return nil
}

// NewUser is an account that the command line makes.
type NewUser = auth.NewUser

// CreateUser makes an account whose address needs no confirmation, as that of the first administrator, and returns its id as
// the API has it. The database must have its schema.
func CreateUser(ctx context.Context, cfg Config, u NewUser) (id string, err error) {
	cfg, err = cfg.complete()
	if err != nil {
		return "", err
	}
	db, err := openDatabase(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.close(ctx)) }()
	if cfg.PublicURL == "" {
		cfg.PublicURL = "http://" + cfg.Addr
	}
	secrets, err := auth.ParseSecrets(cfg.SecretKeys)
	if err != nil {
		return "", fmt.Errorf("SECRET_KEYS: %w", err)
	}
	a, err := newAccounts(cfg, secrets, db.pool, db.reserve, nil, nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	made, err := a.CreateUser(ctx, u)
	return record.ID{Prefix: "user", UUID: made}.String(), err
}
