package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"godstack/internal/app"
)

const (
	roleUnrestricted = "unrestricted" // the argument that makes this program Godstack without access rules

	jwtKeys    = "JWT_KEYS"
	secretKeys = "SECRET_KEYS"
)

// godstackMain is the program in its role as Godstack: `godstack serve` in production, where the rules can be off. It says where it
// listens and serves until ctx is done.
func godstackMain(ctx context.Context, rules bool, stdout io.Writer) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(os.Getenv("LOG_LEVEL"))); err != nil {
		return fmt.Errorf("LOG_LEVEL: %w", err)
	}
	a, err := app.Start(ctx, app.Config{
		DatabaseURL: os.Getenv(databaseURL), Addr: os.Getenv("ADDR"), PublicURL: publicURL, JWTKeys: os.Getenv(jwtKeys), SecretKeys: os.Getenv(secretKeys),
		RateLimit: rateLimit, Unrestricted: !rules, Logger: slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, a.Addr())
	return a.Wait()
}
