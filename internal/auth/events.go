package auth

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"godstack/internal/mail"
	"godstack/internal/viewer"
)

// The names of security events.
const (
	UserRegistered             = "user_registered"
	LoginSucceeded             = "login_succeeded"
	NewDeviceLogin             = "new_device_login"
	SuspiciousLogin            = "suspicious_login"
	LoggedOut                  = "logged_out"
	LoggedOutEverywhere        = "logged_out_everywhere"
	SessionRevoked             = "session_revoked"
	TokenReuseDetected         = "token_reuse_detected"
	TokenFamilyRevoked         = "token_family_revoked"
	AccountLocked              = "account_locked"
	AccountUnlocked            = "account_unlocked"
	PasswordChanged            = "password_changed"
	PasswordResetRequested     = "password_reset_requested"
	PasswordReset              = "password_reset"
	EmailVerified              = "email_verified"
	EmailVerificationRequested = "email_verification_requested"
	EmailChangeRequested       = "email_change_requested"
	EmailChanged               = "email_changed"
	EmailReverted              = "email_reverted"
	EmailReleased              = "email_released"
	TwoFactorEnabled           = "two_factor_enabled"
	TwoFactorDisabled          = "two_factor_disabled"
	BackupCodeUsed             = "backup_code_used"
	RoleChanged                = "role_changed"
	JobsRetried                = "jobs_retried"
	JobsCancelled              = "jobs_cancelled"
	JobsDeleted                = "jobs_deleted"
	QueuePaused                = "queue_paused"
	QueueResumed               = "queue_resumed"
	QueueChanged               = "queue_changed"
)

// The severities of security events.
const (
	Info     = "info"     // what one expects
	Warning  = "warning"  // what its user should know of
	Critical = "critical" // somebody has what is not theirs
)

// Severities says how severe each event is.
var Severities = map[string]string{
	UserRegistered: Info, LoginSucceeded: Info, NewDeviceLogin: Warning, SuspiciousLogin: Critical,
	LoggedOut: Info, LoggedOutEverywhere: Warning, SessionRevoked: Info,
	TokenReuseDetected: Critical, TokenFamilyRevoked: Critical,
	AccountLocked: Warning, AccountUnlocked: Info,
	PasswordChanged: Warning, PasswordResetRequested: Info, PasswordReset: Warning,
	EmailVerified: Info, EmailVerificationRequested: Info, EmailChangeRequested: Info, EmailChanged: Warning, EmailReverted: Critical, EmailReleased: Warning,
	TwoFactorEnabled: Info, TwoFactorDisabled: Warning, BackupCodeUsed: Warning,
	RoleChanged: Warning,
	JobsRetried: Info, JobsCancelled: Warning, JobsDeleted: Warning, QueuePaused: Warning, QueueResumed: Info, QueueChanged: Info,
}

// happened writes a security event. user is whom it is about, actor who did it; uuid.Nil is nobody that is known.
func (t tx) happened(ctx context.Context, name string, user, actor uuid.UUID, detail map[string]any) error {
	c := clientOf(ctx)
	var who *string
	if actor != uuid.Nil {
		who = new(globalID(actor).String())
	}
	_, err := t.Exec(ctx, `INSERT INTO security_events (id, name, severity, user_id, actor, address, user_agent, request_id, detail)
		VALUES ($1, $2, $3, $4, $5, nullif($6, ''), nullif($7, ''), nullif($8, ''), $9)`,
		newID(), name, Severities[name], nullable(user), who, c.address, c.userAgent, c.requestID, detail)
	if err != nil {
		return fmt.Errorf("write event %s: %w", name, err)
	}
	return nil
}

// client is what is kept of the client.
type client struct{ address, userAgent, requestID string }

const maxUserAgent = 300 // bytes

func clientOf(ctx context.Context) client {
	c := viewer.ClientOf(ctx)
	out := client{userAgent: storable(c.UserAgent, maxUserAgent), requestID: storable(c.RequestID, maxUserAgent)}
	if c.Address.IsValid() {
		out.address = c.Address.String()
	}
	return out
}

// storable returns s as Postgres can store it, in at most n bytes.
func storable(s string, n int) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s[:min(len(s), n)], "\x00", ""), "")
}

// nullable returns null for uuid.Nil.
func nullable(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// compose writes a mail of a kind.
func (s *Service) compose(ctx context.Context, kind, to string, d mail.Data) (mail.Message, error) {
	c := clientOf(ctx)
	d.App, d.Address, d.UserAgent, d.When = s.cfg.App, c.address, c.userAgent, s.deps.Clock().UTC().Truncate(time.Second)
	return mail.Compose(kind, to, d)
}

// mail queues a mail of a kind.
func (s *Service) mail(ctx context.Context, t tx, kind, to string, d mail.Data) error {
	m, err := s.compose(ctx, kind, to, d)
	if err != nil {
		return err
	}
	return s.enqueue(ctx, t, m)
}

func (s *Service) enqueue(ctx context.Context, t tx, m mail.Message) error {
	if err := s.deps.Mail.Enqueue(ctx, t, m); err != nil {
		return fmt.Errorf("queue mail %s: %w", m.Kind, err)
	}
	return nil
}

// rehearser is a queue whose Enqueue takes time that tells that somebody gets a mail.
type rehearser interface {
	// Rehearse does the work of Enqueue, in a part of the transaction that is taken back.
	Rehearse(ctx context.Context, tx pgx.Tx, m mail.Message) error
}

// rehearse does the work of queueing a mail that nobody is to get. What it wrote has to be taken back.
func (s *Service) rehearse(ctx context.Context, t tx, m mail.Message) error {
	r, ok := s.deps.Mail.(rehearser)
	if !ok {
		return nil
	}
	if err := r.Rehearse(ctx, t, m); err != nil {
		return fmt.Errorf("queue mail %s: %w", m.Kind, err)
	}
	return nil
}

// tryToMail is mail for what must stand although nobody can be told: the mail's error is logged.
func (s *Service) tryToMail(ctx context.Context, t tx, kind, to string, d mail.Data) error {
	if _, err := t.Exec(ctx, `SAVEPOINT mail`); err != nil {
		return fmt.Errorf("queue mail %s: %w", kind, err)
	}
	end := `RELEASE SAVEPOINT mail`
	if err := s.mail(ctx, t, kind, to, d); err != nil {
		s.log.ErrorContext(ctx, "a mail is missing", "error", err)
		end = `ROLLBACK TO SAVEPOINT mail`
	}
	if _, err := t.Exec(ctx, end); err != nil {
		return fmt.Errorf("queue mail %s: %w", kind, err)
	}
	return nil
}
