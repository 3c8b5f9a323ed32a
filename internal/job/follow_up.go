package job

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// followUp asks somebody who signed up how it goes.
type followUp struct {
	User uuid.UUID `json:"user"`
}

var _ = define[followUp]()

func (followUp) Kind() string { return "follow_up" }

func (f followUp) Work(ctx context.Context, d *Deps) error { return d.Accounts.FollowUp(ctx, f.User) }

// FollowUps are follow-ups as jobs.
type FollowUps struct{}

// FollowUp has Accounts' FollowUp called for a user at a time, once, if the transaction commits.
func (FollowUps) FollowUp(ctx context.Context, tx pgx.Tx, user uuid.UUID, at time.Time) error {
	_, err := EnqueueTx(ctx, tx, followUp{User: user}, &Options{At: at, Key: user.String()})
	return err
}
