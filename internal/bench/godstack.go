package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"godstack/internal/app"
)

// The arguments that make this program Godstack: `godstack serve` in production, where the rules can be off, and which does what it is
// told on its standard input.
const (
	roleGodstack     = "serve"
	roleUnrestricted = "unrestricted"

	jwtKeys    = "JWT_KEYS"
	secretKeys = "SECRET_KEYS"
)

// godstackMain is the program in its role as Godstack. It says where it listens and serves until ctx is done.
func godstackMain(ctx context.Context, rules bool, stdin io.Reader, stdout io.Writer) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(os.Getenv("LOG_LEVEL"))); err != nil {
		return fmt.Errorf("LOG_LEVEL: %w", err)
	}
	cfg := appConfig(os.Getenv(databaseURL), keys{os.Getenv(jwtKeys), os.Getenv(secretKeys)}, rules)
	cfg.Logger = slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	a, err := app.Start(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, a.Addr())
	go obey(stdin, stdout, nil)
	return a.Wait()
}

// appConfig is Godstack in production, on a free port, with limits that no load reaches.
func appConfig(url string, k keys, rules bool) app.Config {
	cfg := app.Config{
		DatabaseURL: url, Addr: "127.0.0.1:0", PublicURL: publicURL, JWTKeys: k.jwt, SecretKeys: k.secret, RateLimit: rateLimit, Unrestricted: !rules,
		SMTPURL: app.NoMail,
	}
	cfg.Pubsub = app.PubsubMemory // it is one node; the writers, who are not it, are found by reading
	cfg.Server.Sockets.PerUser = rateLimit
	return cfg
}
