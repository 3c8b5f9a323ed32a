package app

import (
	"testing"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
	"godstack/internal/mail"
)

// Nobody finds out by waiting for a mail that none is sent.
func TestProductionSaysHowMailIsSent(t *testing.T) {
	t.Parallel()
	const server, from = "smtp://ada:plover@smtp.example.com", "noreply@example.com"
	for _, c := range []struct {
		name, url, from string
		development     bool
		says            string // empty: it is right
	}{
		{"nothing", "", "", false, "SMTP_URL: required in production; none, where no mail is to be sent"},
		{"nothing but a sender", "", from, false, "SMTP_URL: required in production; none, where no mail is to be sent"},
		{"none", NoMail, "", false, ""},
		{"a server", server, from, false, ""},
		{"no sender", server, "", false, "MAIL_FROM: required where SMTP_URL is a server's"},
		{"a wrong sender", server, "ada", false, `MAIL_FROM: "ada" is no address such as noreply@example.com or Name <noreply@example.com>`},
		{
			"a password without TLS", server + "?tls=none", "", false,
			"SMTP_URL: with tls=none a password would be readable on its way; it is sent to this machine alone, such as localhost\n" +
				"MAIL_FROM: required where SMTP_URL is a server's",
		},
		{"nothing in development", "", "", true, ""},
		{"none in development", NoMail, "", true, ""},
		{"a server in development", server, from, true, ""},
		{"no sender in development", server, "", true, "MAIL_FROM: required where SMTP_URL is a server's"},
	} {
		err := Config{SMTPURL: c.url, MailFrom: c.from, Development: c.development}.checkMail()
		if c.says == "" {
			require.NoError(t, err, c.name)
			continue
		}
		require.EqualError(t, err, c.says, c.name)
		require.NotContains(t, err.Error(), "plover")
	}
	cfg := settings(Config{DatabaseURL: dbtest.URL(t)})
	cfg.SMTPURL = ""
	for _, role := range []Role{RoleAll, RoleServe, RoleWork} {
		cfg.Role = role
		_, err := Start(t.Context(), cfg)
		require.EqualError(t, err, "SMTP_URL: required in production; none, where no mail is to be sent", role)
	}
	_, err := CreateUser(t.Context(), cfg, NewUser{})
	require.EqualError(t, err, "SMTP_URL: required in production; none, where no mail is to be sent")
	start(t, Config{DatabaseURL: cfg.DatabaseURL, SMTPURL: server, MailFrom: from})
}

func TestWhatMailsAreSentBy(t *testing.T) {
	t.Parallel()
	var box mail.Recorder
	for _, c := range []struct {
		url string
		is  mail.Sender
	}{
		{"", &box},
		{NoMail, mail.Discard{}},
		{"smtps://smtp.example.com", &mail.SMTP{}},
	} {
		s, err := newSender(Config{SMTPURL: c.url, MailFrom: "noreply@example.com", Development: c.url == ""}, &box)
		require.NoError(t, err)
		require.IsType(t, c.is, s)
	}
	require.NoError(t, mail.Discard{}.Send(t.Context(), mail.Message{}))
	for _, wrong := range []Config{{}, {SMTPURL: "smtp://localhost"}, {SMTPURL: "localhost", MailFrom: "noreply@example.com"}} {
		_, err := newSender(wrong, &box)
		require.Equal(t, wrong.checkMail(), err)
		require.Error(t, err)
	}
}

// The mailbox says where mails are that do not come to it.
func TestTheMailboxSaysWhereMailsGo(t *testing.T) {
	t.Parallel()
	for url, says := range map[string]string{
		"":                                     "What would have been sent; kept in memory, newest first.",
		NoMail:                                 "Nothing is kept here: SMTP_URL is none, and mails are thrown away.",
		"smtp://ada:plover@localhost?tls=none": "Nothing is kept here: mails go to the server of SMTP_URL.",
	} {
		a := start(t, Config{DatabaseURL: dbtest.URL(t), Development: true, Role: RoleServe, SMTPURL: url, MailFrom: "noreply@example.com"})
		_, body := get(t, local(a)+"/mailbox")
		require.Contains(t, body, "<p>"+says+" <a href")
		require.NotContains(t, body, "plover")
	}
}
