package app

import (
	"context"
	"errors"
	"fmt"

	"godstack/internal/mail"
)

// NoMail is the SMTPURL of a program that sends no mail.
const NoMail = "none"

// ParseSMTPURL holds that an SMTPURL is one. Its error has nothing of the text, in which there may be a password.
func ParseSMTPURL(text string) error {
	if text == NoMail {
		return nil
	}
	_, err := mail.ParseSMTPURL(text)
	return err
}

// ParseMailFrom holds that a MailFrom is one.
func ParseMailFrom(text string) error {
	_, err := mail.ParseFrom(text)
	return err
}

// sends reports whether a server is named.
func (c Config) sends() bool { return c.SMTPURL != "" && c.SMTPURL != NoMail }

// checkMail sees to it that in production nobody waits for a mail that is not sent because nobody thought of it.
func (c Config) checkMail() error {
	if c.SMTPURL == "" && !c.Development {
		return errors.New("SMTP_URL: required in production; none, where no mail is to be sent")
	}
	if !c.sends() {
		return nil
	}
	var wrong []error
	if err := ParseSMTPURL(c.SMTPURL); err != nil {
		wrong = append(wrong, fmt.Errorf("SMTP_URL: %w", err))
	}
	if c.MailFrom == "" {
		wrong = append(wrong, errors.New("MAIL_FROM: required where SMTP_URL is a server's"))
	} else if err := ParseMailFrom(c.MailFrom); err != nil {
		wrong = append(wrong, fmt.Errorf("MAIL_FROM: %w", err))
	}
	return errors.Join(wrong...)
}

// warnOfNoMail says so where no mail is sent.
func (c Config) warnOfNoMail(ctx context.Context) {
	if c.SMTPURL == NoMail {
		c.Logger.WarnContext(ctx, "no mail is sent", "SMTP_URL", NoMail)
	}
}

// elsewhere says where mails go that do not come to the mailbox; "" where they do.
func (c Config) elsewhere() string {
	switch {
	case c.sends():
		return "Nothing is kept here: mails go to the server of SMTP_URL."
	case c.SMTPURL == NoMail:
		return "Nothing is kept here: SMTP_URL is none, and mails are thrown away."
	}
	return ""
}

// newSender returns what mails are sent by: the server that the configuration names; box, which keeps them, where it names none in
// development; or nothing. Whatever process sends mails has one, and so checks what is needed for it.
func newSender(cfg Config, box *mail.Recorder) (mail.Sender, error) {
	if err := cfg.checkMail(); err != nil {
		return nil, err
	}
	switch {
	case cfg.Outbox != nil:
		return cfg.Outbox, nil
	case cfg.SMTPURL == NoMail:
		return mail.Discard{}, nil
	case cfg.SMTPURL == "":
		return box, nil
	}
	return mail.NewSMTP(&mail.SMTPConfig{URL: cfg.SMTPURL, From: cfg.MailFrom})
}
