package mail

import (
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/url"
	"regexp"
	"strings"
	texttemplate "text/template"
	"time"
	"unicode"
)

// The kinds of mail, each with its template.
const (
	VerifyEmail      = "verify_email"       // Link confirms the address
	AccountExists    = "account_exists"     // somebody registered with it again; Link, if any, resets the password
	ResetPassword    = "reset_password"     // Link sets a new password
	PasswordChanged  = "password_changed"   // Link, if any, resets it
	ChangeEmail      = "change_email"       // to the new address; Link confirms it
	EmailChanged     = "email_changed"      // to the old address; Email is the new one, Link takes it back
	TokenReuse       = "token_reuse"        // a session was ended since its token was used twice
	AccountLocked    = "account_locked"     // too many failures to sign in; Link, if any, resets the password
	NewDeviceLogin   = "new_device_login"   // signed in from where one never did
	TwoFactorChanged = "two_factor_changed" // the second factor was turned on or off
	Welcome          = "welcome"            // to whom an address was confirmed for; Link, if any, is where to begin
	FollowUp         = "follow_up"          // two days after signing up; Link, if any, is where to go on
)

// kinds are all of them, as previews list them.
var kinds = []string{
	VerifyEmail, Welcome, FollowUp, AccountExists, ResetPassword, PasswordChanged, ChangeEmail, EmailChanged, NewDeviceLogin,
	AccountLocked, TokenReuse, TwoFactorChanged,
}

// Data is what the templates say. What a kind does not mention is ignored, and what it may mention can be missing.
type Data struct {
	App       string    // the application's name; required
	Name      string    // the user's
	Link      string    // an absolute http or https URL; required where a mail is of no use without
	Email     string    // the new address
	Address   string    // the IP address of who did it
	UserAgent string    // the program of who did it
	When      time.Time // shown in UTC
	Change    string    // TwoFactorChanged: what was done, "turned on" or the like; "changed" by default
}

//go:embed templates
var files embed.FS

// texts are one a kind. Each begins with its subject and an empty line.
var texts = texttemplate.Must(texttemplate.New("").Option("missingkey=error").ParseFS(files, "templates/*.txt", "templates/partials.tmpl"))

// pages are the same as HTML, one a kind.
var pages = template.Must(template.New("").Option("missingkey=error").Funcs(template.FuncMap{"button": newButton}).
	ParseFS(files, "templates/*.html", "templates/layout.gohtml"))

// mailStyle is the one style sheet of all mails.
//
//go:embed templates/mail.css
var mailStyle string

// pageData is what a template of pages says.
type pageData struct {
	Data
	Subject string
	Style   template.CSS
}

// button is a link with its label.
type button struct{ Link, Label string }

func newButton(link, label string) button { return button{link, label} }

// needsLink are the kinds that are of no use without a link.
var needsLink = map[string]bool{VerifyEmail: true, ResetPassword: true, ChangeEmail: true, EmailChanged: true}

// Compose writes the mail of a kind to an address, with an ID of its own. What users choose (Name, UserAgent) is cut, put on one line and
// left out where it has a link in it, so that nobody can have us mail their text to others. Errors: an unknown
// kind, a Link that is missing or not an absolute http or https URL, no App, and those of [Message.Validate].
func Compose(kind string, to string, data Data) (Message, error) {
	t, asHTML := texts.Lookup(kind+".txt"), pages.Lookup(kind+".html")
	if t == nil || asHTML == nil {
		return Message{}, fmt.Errorf("compose mail: no kind %q", kind)
	}
	if data.App == "" {
		return Message{}, fmt.Errorf("compose mail %s: no App", kind)
	}
	if err := checkLink(data.Link, needsLink[kind]); err != nil {
		return Message{}, fmt.Errorf("compose mail %s: %w", kind, err)
	}
	data.Name, data.UserAgent = quotable(data.Name, 60), quotable(data.UserAgent, 160)
	data.Address, data.Email, data.Change = line(data.Address, 60), line(data.Email, maxAddress), line(data.Change, 60)

	var text strings.Builder
	if err := t.Execute(&text, data); err != nil {
		return Message{}, fmt.Errorf("compose mail %s: %w", kind, err)
	}
	subject, body, _ := strings.Cut(text.String(), "\n\n")
	var html strings.Builder
	if err := asHTML.Execute(&html, pageData{data, subject, template.CSS(mailStyle)}); err != nil {
		return Message{}, fmt.Errorf("compose mail %s as HTML: %w", kind, err)
	}
	m := Message{ID: rand.Text(), To: to, Subject: subject, Text: body, HTML: html.String(), Kind: kind}
	if err := m.Validate(); err != nil {
		return Message{}, fmt.Errorf("compose mail %s: %w", kind, err)
	}
	return m, nil
}

// checkLink refuses what a mail program would not show as one link to where it goes.
func checkLink(s string, needed bool) error {
	if s == "" {
		if needed {
			return errors.New("no Link")
		}
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || link.FindString(s) != s {
		return errors.New("the Link is not an absolute http or https URL") // it may hold a token: not shown
	}
	return nil
}

// linkLike is what a mail program may make a link of.
var linkLike = regexp.MustCompile(`://|@|[^\s.]\.\pL{2,}`)

// quotable returns s on one line of at most n characters, or "" where it has what looks like a link.
func quotable(s string, n int) string {
	if s = line(s, n); linkLike.MatchString(s) {
		return ""
	}
	return s
}

// line returns s on one line of at most n characters.
func line(s string, n int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if r := []rune(s); len(r) > n {
		s = string(r[:n-1]) + "…"
	}
	return s
}
