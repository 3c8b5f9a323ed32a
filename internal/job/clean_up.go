package job

import (
	"context"
	"time"
)

// cleanUpAccounts removes what accounts leave behind.
type cleanUpAccounts struct{}

var _ = define[cleanUpAccounts]()

func (cleanUpAccounts) Kind() string { return "clean_up_accounts" }

// Every is how often it runs.
func (cleanUpAccounts) Every() time.Duration { return time.Hour }

// Defaults: the next one is an hour away.
func (cleanUpAccounts) Defaults() Options { return Options{Timeout: 30 * time.Minute, MaxAttempts: 5} }

func (cleanUpAccounts) Work(ctx context.Context, d *Deps) error { return d.Accounts.Cleanup(ctx) }
