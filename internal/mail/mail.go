// Package mail says what a mail is and how one is queued, writes the mails of accounts, sends them by SMTP, and keeps them
// for the development mailbox.
//
// Guarantees:
//   - A [Message] that [Message.Validate] accepts has one recipient and no line break in a header (FuzzValidate).
//   - [Compose] lets no name or user agent bring a link or a line of its own into a mail, nor markup into its HTML
//     (FuzzCompose).
//   - [SMTP] sends nothing, and no password, before TLS with a certificate of the server's name, unless the address says
//     tls=none (TestSMTPWantsTLS, TestSMTPRefusesCertificates).
//   - A mail that is sent once more has the same Message-ID (TestSMTPSendsTheSameMailAgain).
//   - The mailbox page runs no script and escapes everything (TestMailboxPage).
//
// It is a leaf: it imports nothing of ours, and everybody may import it.
package mail

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// Message is a mail in plain text, and as HTML besides where there is some.
type Message struct {
	// ID tells it from others, and stays as it is where the mail is sent again: up to 64 letters, digits, - and _. Empty: it is
	// made of the rest.
	ID      string `json:"messageId,omitempty"`
	To      string `json:"to"` // an address alone, without a name
	Subject string `json:"subject"`
	Text    string `json:"text"`
	HTML    string `json:"html,omitempty"`
	Kind    string `json:"kind"` // why it is sent, such as VerifyEmail
}

// Sender sends mails.
type Sender interface {
	// Send returns when m is somebody else's to deliver. After an error that is not [Permanent] it is worth sending the
	// same m again later; now and then it arrives twice then, with one Message-ID.
	Send(ctx context.Context, m Message) error
}

// Discard is a Sender that throws mails away.
type Discard struct{}

var _ Sender = Discard{}

// Send returns nil.
func (Discard) Send(context.Context, Message) error { return nil }

// Queue takes mails to be sent.
type Queue interface {
	// Enqueue queues a mail within the transaction of what causes it: it is sent if that commits, and only then.
	Enqueue(ctx context.Context, tx pgx.Tx, m Message) error
}

const (
	maxAddress = 254     // bytes, as RFC 5321 has it
	maxSubject = 200     // bytes
	maxText    = 1 << 16 // bytes, likewise of HTML
)

var idForm = regexp.MustCompile(`^[A-Za-z0-9_-]{0,64}$`)

// Validate returns an error unless m has one plain address, one line of subject, a text, and an ID and HTML as they may be.
func (m *Message) Validate() error {
	a, err := mail.ParseAddress(m.To)
	switch {
	case err != nil || a.Address != m.To || len(m.To) > maxAddress || strings.ContainsFunc(m.To, unicode.IsControl):
		return errors.New("mail: To is not one address")
	case m.Subject == "" || len(m.Subject) > maxSubject || !isLine(m.Subject):
		return fmt.Errorf("mail: Subject is not one line of 1 to %d bytes", maxSubject)
	case m.Kind == "" || !isLine(m.Kind):
		return errors.New("mail: Kind is not one line")
	case m.Text == "" || len(m.Text) > maxText || !utf8.ValidString(m.Text):
		return fmt.Errorf("mail: Text is not 1 to %d bytes of UTF-8", maxText)
	case len(m.HTML) > maxText || !utf8.ValidString(m.HTML):
		return fmt.Errorf("mail: HTML is not %d bytes of UTF-8 at most", maxText)
	case !idForm.MatchString(m.ID):
		return errors.New("mail: ID is not up to 64 letters, digits, - and _")
	}
	return nil
}

// isLine reports whether s has nothing that ends a header or hides in one.
func isLine(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
	})
}

var link = regexp.MustCompile(`https?://[^\s<>"]+`)

// Links returns the links in the text, in order.
func (m *Message) Links() []string { return link.FindAllString(m.Text, -1) }
