// Package mail says what a mail is and how one is queued, writes the mails of accounts, and keeps them for the
// development mailbox.
//
// Guarantees:
//   - A [Message] that [Message.Validate] accepts has one recipient and no line break in a header.
//   - [Compose] lets no name or user agent bring a link or a line of its own into a mail.
//   - The mailbox page runs no script and escapes everything.
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

// Message is a mail in plain text.
type Message struct {
	To      string `json:"to"` // an address alone, without a name
	Subject string `json:"subject"`
	Text    string `json:"text"`
	Kind    string `json:"kind"` // why it is sent, such as VerifyEmail
}

// Queue takes mails to be sent.
type Queue interface {
	// Enqueue queues a mail within the transaction of what causes it: it is sent if that commits, and only then.
	Enqueue(ctx context.Context, tx pgx.Tx, m Message) error
}

const (
	maxAddress = 254     // bytes, as RFC 5321 has it
	maxSubject = 200     // bytes
	maxText    = 1 << 16 // bytes
)

// Validate returns an error unless m has one plain address, one line of subject, and a text.
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
