package app

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/internal/auth"
	"godstack/internal/entity"
	"godstack/internal/viewer"
)

// How much demonstration data there is.
const (
	seedUsers    = 20
	seedThreads  = 200
	seedMessages = 2000
)

// Seed fills an empty database with demonstration data, after migrating it. It leaves one that has users alone, and is
// for development.
func Seed(ctx context.Context, cfg Config) (err error) {
	cfg.Seed = true
	cfg, err = cfg.withDefaults()
	if err != nil {
		return err
	}
	db, err := openDatabase(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close(ctx)) }()
	return seed(ctx, cfg, db.pool)
}

// SeedPassword is that of all users of the demonstration data. The first of them, ada, is an administrator.
const SeedPassword = "correct-horse-battery"

// seedHint tells whoever wants to sign in what the demonstration data has.
func seedHint(cfg Config) string {
	if !cfg.Seed {
		return ""
	}
	return "The demonstration data has " + strings.Join(seedNames[:3], ", ") + " and others, all with the password " + SeedPassword + "."
}

// seed writes the data in one transaction. It is the same each time, but for the ids and the times.
func seed(ctx context.Context, cfg Config, pool *pgxpool.Pool) error {
	passwords, err := auth.NewPasswords(cfg.Passwords)
	if err != nil {
		return err
	}
	// One for all: hashing is made to be slow.
	hash, err := passwords.Hash(ctx, SeedPassword)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		var there bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM users)`).Scan(&there); err != nil || there {
			return err
		}
		r := rand.New(rand.NewPCG(1, 2))
		users, err := copyRows(ctx, tx, "users", []string{"email", "username", "name", "role", "password_hash", "email_verified_at"}, seedUsers, func(i int) []any {
			name, role := seedNames[i], viewer.User
			switch i {
			case 0:
				role = viewer.Admin
			case 1:
				role = viewer.Moderator
			}
			return []any{name + "@example.com", name, string(name[0]-32) + name[1:], role, hash, entity.Now()}
		})
		if err != nil {
			return err
		}
		threads, err := copyRows(ctx, tx, "threads", []string{"subject", "owner_id"}, seedThreads, func(i int) []any {
			return []any{pick(r, seedVerbs) + " " + pick(r, seedThings), users[i%len(users)]}
		})
		if err != nil {
			return err
		}
		var links [][]any
		for _, t := range threads {
			for _, i := range r.Perm(len(users))[:2+r.IntN(4)] {
				links = append(links, []any{t, users[i]})
			}
		}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"thread_members"}, []string{"thread_id", "user_id"}, pgx.CopyFromRows(links)); err != nil {
			return fmt.Errorf("seed members: %w", err)
		}
		_, err = copyRows(ctx, tx, "messages", []string{"body", "thread_id", "author_id"}, seedMessages, func(i int) []any {
			return []any{pick(r, seedSayings), threads[i%len(threads)], users[r.IntN(len(users))]}
		})
		return err
	})
}

// copyRows inserts n rows with new ids, and returns those.
func copyRows(ctx context.Context, tx pgx.Tx, table string, columns []string, n int, row func(int) []any) ([]uuid.UUID, error) {
	ids := make([]uuid.UUID, n)
	_, err := tx.CopyFrom(ctx, pgx.Identifier{table}, append([]string{"id"}, columns...), pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		ids[i] = entity.NewID()
		return append([]any{ids[i]}, row(i)...), nil
	}))
	if err != nil {
		return nil, fmt.Errorf("seed %s: %w", table, err)
	}
	return ids, nil
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

var (
	seedNames = []string{"ada", "alan", "barbara", "claude", "dennis", "donald", "edsger", "frances", "grace", "guido",
		"hedy", "jean", "john", "katherine", "ken", "leslie", "linus", "margaret", "radia", "tim"}
	seedVerbs = []string{"Planning", "Reviewing", "Shipping", "Rethinking", "Measuring", "Celebrating", "Debugging",
		"Questions about"}
	seedThings = []string{"the release", "our search page", "the spring offsite", "onboarding", "the mobile app",
		"error budgets", "the new logo", "billing", "the reading group", "lunch"}
	seedSayings = []string{"Looks good to me.", "Can we talk about this tomorrow?", "I pushed a first version.",
		"Agreed, let's do it.", "What would make this twice as simple?", "The numbers are in: much better than before.",
		"I am not sure yet, give me a day.", "Thanks, that helped a lot!", "Let's measure before we change it.",
		"Done. Please have a look."}
)
