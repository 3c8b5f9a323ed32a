package auth

import (
	"context"
	"time"

	"github.com/google/uuid"

	"godstack/internal/mail"
)

// followUpAfter is how long after signing up somebody is asked how it goes.
const followUpAfter = 2 * 24 * time.Hour

// FollowUp mails a user who signed up how it goes. Nobody gets one who is gone, whose account is locked, or who has not proved the address
// to be theirs. The mail of a second call has the same ID, so that who gets it twice can tell.
func (s *Service) FollowUp(ctx context.Context, user uuid.UUID) error {
	return s.inTx(ctx, uuid.Nil, func(ctx context.Context, t tx) error {
		u, err := findUser(ctx, t, `id = $1 AND email_verified_at IS NOT NULL AND locked_at IS NULL
			AND NOT EXISTS (SELECT FROM login_guards WHERE account = $2 AND locked_until > now()) FOR KEY SHARE`, user, user.String())
		if err != nil || u.ID == uuid.Nil {
			return err
		}
		m, err := s.compose(ctx, mail.FollowUp, u.Email, mail.Data{Name: u.Name, Link: s.home()})
		if err != nil {
			return err
		}
		m.ID = "follow-up-" + user.String()
		return s.enqueue(ctx, t, m)
	})
}
