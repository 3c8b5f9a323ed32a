package mail

import (
	"errors"
	"fmt"
	"net/textproto"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"
)

func TestIsPermanent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		step string
		code int
		text string
		want bool
	}{
		// What servers say of a recipient.
		{stepRecipient, 550, "5.1.1 <ada@example.com>: Recipient address rejected: User unknown in virtual mailbox table", true},
		{stepRecipient, 550, "5.1.1 The email account that you tried to reach does not exist.\n5.1.1 Please try double-checking", true},
		{stepRecipient, 550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", true},
		{stepRecipient, 556, "5.1.10 Recipient address has null MX", true},
		{stepRecipient, 552, "5.2.2 The email account that you tried to reach is over quota", true},
		{stepRecipient, 550, "5.2.1 The email account that you tried to reach is disabled.", true},
		{stepRecipient, 550, "Unrouteable address", true},
		{stepRecipient, 550, "No such user here", true},
		{stepRecipient, 550, "5.1", true}, // no enhanced code
		{stepRecipient, 551, "User not local; please try elsewhere", true},
		{stepRecipient, 552, "Mailbox full", true},
		{stepRecipient, 553, "Mailbox name not allowed", true},
		{stepRecipient, 556, "Domain does not accept mail", true},
		{stepContent, 550, "5.1.1 User unknown", true},
		{stepData, 554, "5.1.1 no valid recipients", true},
		// Of a content.
		{stepContent, 554, "5.6.0 Message content rejected", true},
		{stepContent, 552, "5.3.4 Message size exceeds fixed limit", true},
		{stepContent, 554, "5.6.1 Media not supported", true},

		// Of us: somebody mends it.
		{stepRecipient, 553, "5.1.8 <noreply@example.com>: Sender address rejected: Domain not found", false},
		{stepRecipient, 550, "5.1.7 The sender's address was syntactically invalid.", false},
		{stepRecipient, 554, "5.7.1 <ada@example.com>: Relay access denied", false},
		{stepRecipient, 550, "5.7.1 Client host rejected: cannot find your hostname", false},
		{stepRecipient, 530, "5.7.0 Must issue a STARTTLS command first", false},
		{stepRecipient, 535, "5.7.8 Authentication failed", false},
		{stepRecipient, 550, "5.4.1 Recipient address rejected: Access denied", false},
		{stepRecipient, 554, "5.5.1 Error: no valid sender", false},
		{stepRecipient, 552, "5.3.4 too large", false},
		{stepRecipient, 550, "relay not permitted", false},
		{stepRecipient, 550, "Relaying denied", false},
		{stepRecipient, 553, "sorry, that domain isn't in my list of allowed rcpthosts", false},
		{stepRecipient, 550, "Sender verify failed", false},
		{stepRecipient, 550, "Administrative prohibition", false},
		{stepRecipient, 550, "authentication required", false},
		{stepRecipient, 554, "Transaction failed", false},
		{stepRecipient, 501, "Syntax error in parameters", false},
		{stepRecipient, 550, "4.1.1 no class of ours", false},
		{stepContent, 550, "5.7.1 Our system has detected that this message is likely unsolicited mail", false},
		{stepContent, 550, "5.7.26 Unauthenticated email from example.com is not accepted due to DMARC policy", false},
		{stepContent, 550, "Message rejected", false},
		{stepContent, 554, "5.3.2 System not accepting network messages", false},
		{stepData, 552, "5.3.4 too large", false},
		{stepSender, 550, "5.1.1 nobody", false},
		{stepSender, 552, "5.3.4 too large", false},
		{stepAuth, 535, "5.1.1 nobody", false},
		{stepGreeting, 554, "5.1.1 nobody", false},
		// Not now.
		{stepRecipient, 450, "4.2.0 Greylisted", false},
		{stepRecipient, 452, "5.2.2 of another class than its code", false},
	} {
		require.Equal(t, c.want, isPermanent(c.step, &textproto.Error{Code: c.code, Msg: c.text}), "%s: %d %s", c.step, c.code, c.text)
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	token := "got_" + strings.Repeat("Ab1-", 10) + "xyz"
	for text, want := range map[string]string{
		"5.7.1 Relay access denied": "5.7.1 Relay access denied",
		"Service unavailable; Client host [192.0.2.7] blocked using zen.example.net":  "Service unavailable; Client host [192.0.2.7] blocked using zen.example.net",
		"5.1.1 <Ada.Lovelace@example.com>: Recipient address rejected: User unknown":  "5.1.1 […] Recipient address rejected: User unknown",
		"5.1.1 ada.lovelace... User unknown":                                          "5.1.1 […] User unknown",
		"No such user (ADA.LOVELACE) at example.com":                                  "No such user […] at […]",
		"forbidden link https://example.com/reset-password?token=" + token + " in it": "forbidden link […] in it",
		"forbidden link\nhttps://example.com/reset-password?token=3D" + token:         "forbidden link […]",
		"example.com/x is listed, and token=" + token + " too":                        "[…] is listed, and […] too",
		"bad token " + token:                "bad token […]",
		"bad: " + strings.Repeat("Ab1", 14): "bad: […]",
		"one\n\ttwo\x00three":               "one two three",
		"":                                  "",
	} {
		require.Equal(t, want, redact(text, "Ada.Lovelace@example.com"), text)
	}
	require.Equal(t, "5.7.8 no ! to […]", redact("5.7.8 no ! to ada@example.com", ""), "where there is no recipient")
	long := redact(strings.Repeat("word ", 1000), "a@b.test")
	require.Len(t, []rune(long), longestReply)
}

func FuzzRedact(f *testing.F) {
	f.Add("5.1.1 <", ">: nobody", "\n")
	f.Add("see (", ")", " ")
	f.Fuzz(func(t *testing.T, before, after, space string) {
		const to, token = "ada.lovelace@example.com", "got_SgLn3vMGXyJr9mKx0CwTb5ZqFhUoDpAeYt71iRVcNs4"
		for _, secret := range []string{to, token, "https://example.com/x?token=" + token} {
			got := strings.ToLower(redact(before+" "+secret+space+after, to))
			require.NotContains(t, got, strings.ToLower(secret))
			require.NotContains(t, got, "\n")
			require.LessOrEqual(t, len([]rune(got)), longestReply)
		}
	})
}

// What a server quotes of a mail does not end in logs, nor in the table of jobs.
func TestSMTPErrorsQuoteNothing(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"RCPT", "content"} {
		s := newMailServer(t, false, func(s *mailServer) {
			s.refuse = func(at string) error {
				if at != step {
					return nil
				}
				return &gosmtp.SMTPError{
					Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 7, 1},
					Message: "<ada@example.com>: not with https://godstack.test/reset-password?token=got_abc in it, ada",
				}
			}
		})
		err := s.sender(t, "smtp://localhost:PORT").Send(t.Context(), letter())
		for e := err; e != nil; e = errors.Unwrap(e) {
			require.NotRegexp(t, `ada|example|got_|https|token`, fmt.Sprintf("%v %+v %#v", e, e, e))
		}
		require.ErrorContains(t, err, "550 5.7.1 […] not with […] in it, […]")
	}
}

// A server that looks long at a mail is waited for: it has it, and who gives up would send it again.
func TestSMTPWaitsForTheReply(t *testing.T) {
	t.Parallel()
	const short = 3 * time.Second // enough for what comes before, on a busy machine too
	var taken time.Time
	s := newMailServer(t, false, func(s *mailServer) {
		s.refuse = func(step string) error {
			if step == "content" {
				taken = time.Now()
				<-time.After(short + short/2)
			}
			return nil
		}
	})
	err := s.sender(t, "smtp://localhost:PORT", func(c *SMTPConfig) { c.Timeout = short }).Send(t.Context(), letter())
	require.NoError(t, err)
	require.Greater(t, time.Since(taken), short)
	require.Len(t, s.mails(), 1)

	sender := s.sender(t, "smtp://localhost:PORT")
	require.Equal(t, 10*time.Minute, sender.replyTimeout)
	require.Equal(t, 30*time.Second, sender.timeout)
}

// Who sits in between and has STARTTLS refused gets neither the mail nor the password.
func TestSMTPWhereSTARTTLSIsRefused(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"454 4.7.0 TLS not available", "502 what?", "250 ok"} {
		var said []string // by one connection, which has ended
		done := make(chan struct{})
		s := scripted(t, func(line string) string {
			said = append(said, line)
			switch {
			case strings.HasPrefix(line, "EHLO"):
				return "250-localhost\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS"
			case line == "STARTTLS":
				return reply
			}
			return "250 ok"
		}, func() { close(done) })
		err := s.sender(t, "smtp://"+smtpLogin+"localhost:PORT").Send(t.Context(), letter())
		require.EqualError(t, err, "send mail test: STARTTLS: "+reply)
		require.False(t, Permanent(err))
		<-done
		require.Equal(t, []string{"EHLO godstack.test", "STARTTLS"}, said)
	}
}
