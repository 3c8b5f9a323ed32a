package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"godstack/internal/mail"
)

// Sealer encrypts and decrypts for a purpose.
type Sealer interface {
	Seal(purpose string, plain, bound []byte) []byte
	Open(purpose string, sealed, bound []byte) ([]byte, error)
}

// mailPurpose is what mails are sealed for.
const mailPurpose = "mail job"

// sendMail sends a mail. The kind stays readable for operators; the rest is sealed, since links in it sign people in.
type sendMail struct {
	Mail   string `json:"mail"`
	Sealed []byte `json:"sealed"`
}

var _ = define[sendMail]()

func (sendMail) Kind() string { return "send_mail" }

// Defaults: a mail is tried for half a day; by then the links in it are over. An attempt ends by itself, as a server may take its time to
// answer, and only then by the timeout.
func (sendMail) Defaults() Options {
	return Options{Queue: QueueMail, MaxAttempts: 12, Timeout: mail.DefaultTimeout + mail.DefaultReplyTimeout + time.Minute}
}

func (s sendMail) Work(ctx context.Context, d *Deps) error {
	plain, err := d.Sealer.Open(mailPurpose, s.Sealed, []byte(s.Mail))
	if err != nil {
		return fmt.Errorf("open mail: %w", err) // a node with a newer key may have made it: again
	}
	var m mail.Message
	if err := json.Unmarshal(plain, &m); err != nil {
		return Cancel(errors.New("read mail: it is no message")) // what the decoder says may quote it
	}
	if a, ok := Current(ctx); ok && m.ID == "" {
		m.ID = "job-" + strconv.FormatInt(a.ID, 10) // the same where it is sent again
	}
	if err = d.Sender.Send(ctx, m); mail.Permanent(err) {
		return Cancel(err)
	}
	return err
}

// MailQueue queues mails as jobs.
type MailQueue struct{ Sealer Sealer }

var _ mail.Queue = MailQueue{}

// Rehearse is Enqueue in a part of a transaction that the caller takes back: it takes as long, so that nobody learns from the time whether
// somebody got a mail.
func (q MailQueue) Rehearse(ctx context.Context, tx pgx.Tx, m mail.Message) error {
	return q.Enqueue(ctx, tx, m)
}

// Enqueue queues a mail within a transaction. Errors: those of [mail.Message.Validate], and the database's.
func (q MailQueue) Enqueue(ctx context.Context, tx pgx.Tx, m mail.Message) error {
	if err := m.Validate(); err != nil {
		return err
	}
	plain, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("queue mail: %w", err)
	}
	_, err = EnqueueTx(ctx, tx, sendMail{Mail: m.Kind, Sealed: q.Sealer.Seal(mailPurpose, plain, []byte(m.Kind))}, nil)
	return err
}
