package app

import (
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

// newSender returns what mails are sent by: the server that the configuration names, or box, which keeps them.
func newSender(cfg Config, box *mail.Recorder) (mail.Sender, error) {
	if !cfg.sends() {
		return box, nil
	}
	return mail.NewSMTP(&mail.SMTPConfig{URL: cfg.SMTPURL, From: cfg.MailFrom})
}
