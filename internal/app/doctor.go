package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"godstack/graph"
	"godstack/internal/auth"
	"godstack/internal/mail"
	"godstack/internal/server"
)

// CheckStatus is how a [Check] came out.
type CheckStatus string

// The statuses.
const (
	CheckOK   CheckStatus = "ok"
	CheckWarn CheckStatus = "warn" // it serves, and somebody should look at it
	CheckFail CheckStatus = "fail" // it does not serve, or loses something
)

// Check is one thing that was looked at.
type Check struct {
	// Name tells it from others, as "database.version".
	Name   string      `json:"name"`
	Status CheckStatus `json:"status"`
	// Found is what was found, in one line without a password or a key.
	Found string `json:"found"`
	// Do is what to do about it; empty where Status is ok.
	Do string `json:"do,omitempty"`
}

// Examination says what [Examine] looks at besides the configuration. The zero value is the default.
type Examination struct {
	// Nodes is for how many nodes the database has to have connections. Default: those that are connected, and one at least.
	Nodes int
	// MailTo is an address that a mail is sent to. Empty: none is sent.
	MailTo string
}

// partTimeout bounds how long each part that is asked may take.
const partTimeout = 10 * time.Second

// Examine looks at a deployment as cfg has it, and at what it stands on: the database, what nodes wake each other by, Redis, mail, jobs. It
// starts nothing, writes nothing that stays, and goes on after what fails.
func Examine(ctx context.Context, cfg Config, e Examination) []Check {
	d := &doctor{cfg: cfg, Examination: e}
	d.configuration()
	d.database(ctx)
	d.redis(ctx)
	d.mail(ctx)
	return d.checks
}

// doctor collects checks.
type doctor struct {
	Examination
	cfg     Config
	secrets *auth.Secrets // nil where there are none that are any good
	checks  []Check
}

func (d *doctor) ok(name, format string, args ...any) { d.add(name, CheckOK, "", format, args...) }

func (d *doctor) warn(name, do, format string, args ...any) {
	d.add(name, CheckWarn, do, format, args...)
}

func (d *doctor) fail(name, do, format string, args ...any) {
	d.add(name, CheckFail, do, format, args...)
}

func (d *doctor) add(name string, status CheckStatus, do, format string, args ...any) {
	found := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ") // errors have lines
	d.checks = append(d.checks, Check{name, status, found, do})
}

// configuration is what can be told without asking anybody.
func (d *doctor) configuration() {
	if d.cfg.Development {
		d.warn("environment", "say ENV=production where others reach the program", "development: keys are made up, the API's schema can be asked for")
	} else {
		d.ok("environment", "production")
	}
	cfg, err := d.cfg.withDefaults()
	if err != nil && (d.cfg.DatabaseURL != "" || d.cfg.Development) { // else database says so
		d.fail("configuration", "set the variable: docs/configuration.md", "%v", err)
	}
	if err == nil {
		d.cfg = cfg
	}
	d.publicURL()
	d.origins()
	d.proxies()
	d.jwtKeys()
	d.secretKeys()
	d.documents()
}

func (d *doctor) publicURL() {
	const name = "public_url"
	u, _ := url.Parse(d.cfg.PublicURL)
	switch err := d.cfg.checkPublicURL(); {
	case err != nil:
		d.fail(name, "set PUBLIC_URL to where browsers find the program, by https", "%v", err)
	case d.cfg.PublicURL == "":
		d.ok(name, "that of ADDR, in development")
	case u.Scheme == "http" && !d.cfg.Development:
		d.warn(name, "for others than this machine, set PUBLIC_URL to an address by https", "%s is found on this machine alone", d.cfg.PublicURL)
	default:
		d.ok(name, "%s", d.cfg.PublicURL)
	}
}

// origins are those of other pages. The browser sends our cookies for pages of our own site alone, as they are SameSite=Lax.
func (d *doctor) origins() {
	const name = "origins"
	own, _ := url.Parse(d.cfg.PublicURL)
	if own == nil {
		own = &url.URL{}
	}
	var others []string
	for _, origin := range d.cfg.Server.Origins {
		u, err := url.Parse(origin)
		if err != nil || origin == d.cfg.PublicURL {
			continue
		}
		others = append(others, origin)
		if u.Scheme == "http" && own.Scheme == "https" {
			d.warn(name, "serve its pages by https", "whoever is between %s and a browser can change its pages, which may read what the API answers", origin)
		}
		if d.cfg.Auth.Storage == auth.InCookie && (u.Scheme != own.Scheme || site(u) != site(own)) {
			d.fail(name, "serve them from "+site(own)+", or have tokens in headers: AUTH_TOKEN_STORAGE=both",
				"pages of %s cannot sign in: it is another site than %s, and browsers send cookies within one", origin, d.cfg.PublicURL)
		}
	}
	switch {
	case len(others) > 0 && !d.has(name):
		d.ok(name, "pages of %s as well; tokens in %s", strings.Join(others, ", "), d.storage())
	case !d.has(name):
		d.ok(name, "pages of PUBLIC_URL alone; tokens in %s", d.storage())
	}
}

func (d *doctor) storage() string {
	if d.cfg.Auth.Storage == "" {
		return string(auth.InHeader)
	}
	return string(d.cfg.Auth.Storage)
}

// has reports whether a check of that name was made.
func (d *doctor) has(name string) bool {
	for _, c := range d.checks {
		if c.Name == name {
			return true
		}
	}
	return false
}

// site is what cookies take for one owner's: example.com of app.example.com.
func site(u *url.URL) string {
	if s, err := publicsuffix.EffectiveTLDPlusOne(u.Hostname()); err == nil {
		return s
	}
	return u.Hostname()
}

func (d *doctor) proxies() {
	const name = "proxies"
	for _, p := range d.cfg.Server.TrustedProxies {
		if p.Bits() == 0 {
			d.fail(name, "name the load balancer's network in TRUSTED_PROXIES", "%s trusts everybody: clients can say that they are somebody else", p)
			return
		}
	}
	switch {
	case len(d.cfg.Server.TrustedProxies) > 0:
		d.ok(name, "%v", d.cfg.Server.TrustedProxies)
	case strings.HasPrefix(d.cfg.PublicURL, "https:"):
		d.warn(name, "name whoever speaks TLS for the program in TRUSTED_PROXIES",
			"PUBLIC_URL is https, which a proxy speaks, and none is trusted: all clients have its address, and share its limits")
	default:
		d.ok(name, "none: clients come as they are")
	}
}

// oldKey is from when on a key that signs is to be replaced.
const oldKey = 366 * 24 * time.Hour

func (d *doctor) jwtKeys() {
	const name = "keys.jwt"
	if d.cfg.JWTKeys == "" {
		d.missingKeys(name, "JWT_KEYS", `JWT_KEYS="$(date +%Y%m%d):EdDSA:$(openssl rand -hex 32)", the same on all nodes`)
		return
	}
	if _, err := auth.ParseKeys(d.cfg.JWTKeys, "issuer", tokenAudience); err != nil {
		d.fail(name, "make another, as docs/configuration.md says under Keys", "JWT_KEYS: %v", err)
		return
	}
	var kids []string
	for item := range strings.SplitSeq(d.cfg.JWTKeys, ",") {
		parts := strings.Split(strings.TrimSpace(item), ":")
		kids = append(kids, parts[0])
		for secret := range strings.SplitSeq(d.cfg.SecretKeys, ",") {
			if strings.TrimSpace(secret) == parts[2] {
				d.fail(name, "make another for one of them", "key %q is in SECRET_KEYS too: whoever has one has both", parts[0])
				return
			}
		}
	}
	if d.developmentKey(d.cfg.JWTKeys, func(s secrets) string { return s.JWTKeys }) {
		d.fail(name, "make others, in the environment of production alone", "JWT_KEYS has the key that development made in %s", d.cfg.DataDir)
		return
	}
	made, err := time.Parse("20060102", kids[0][:min(8, len(kids[0]))])
	switch {
	case err == nil && time.Since(made) > oldKey:
		d.warn(name, "put a new one in front, as docs/security.md says under Keys", "key %q signs, and is of %s", kids[0], made.Format(time.DateOnly))
	case len(kids) > 3:
		d.warn(name, "drop those that nobody has signed with for 15 minutes", "%d keys are accepted: %s", len(kids), strings.Join(kids, ", "))
	default:
		d.ok(name, "%q signs, of %d", kids[0], len(kids))
	}
}

func (d *doctor) secretKeys() {
	const name = "keys.secret"
	if d.cfg.SecretKeys == "" {
		d.missingKeys(name, "SECRET_KEYS", `SECRET_KEYS="$(openssl rand -hex 32)", the same on all nodes`)
		return
	}
	parsed, err := auth.ParseSecrets(d.cfg.SecretKeys)
	switch {
	case err != nil:
		d.fail(name, "make another, as docs/configuration.md says under Keys", "SECRET_KEYS: %v", err)
		return
	case d.developmentKey(d.cfg.SecretKeys, func(s secrets) string { return s.SecretKeys }):
		d.fail(name, "make others, in the environment of production alone", "SECRET_KEYS has the key that development made in %s", d.cfg.DataDir)
	default:
		d.ok(name, "the first seals, of %d", strings.Count(d.cfg.SecretKeys, ",")+1)
	}
	d.secrets = parsed
}

func (d *doctor) missingKeys(name, variable, do string) {
	if d.cfg.Development {
		d.ok(name, "development makes its own")
		return
	}
	d.fail(name, do, "%s: required in production", variable)
}

// developmentKey reports whether production has a key that development made here.
func (d *doctor) developmentKey(keys string, of func(secrets) string) bool {
	var made secrets
	b, err := os.ReadFile(filepath.Join(d.cfg.DataDir, secretsFile))
	if d.cfg.Development || err != nil || json.Unmarshal(b, &made) != nil || of(made) == "" {
		return false
	}
	for item := range strings.SplitSeq(keys, ",") {
		if strings.TrimSpace(item) == of(made) {
			return true
		}
	}
	return false
}

func (d *doctor) documents() {
	const name = "trusted_documents"
	if d.cfg.Server.Trusted.Files == "" && !d.cfg.Server.Trusted.Only {
		d.ok(name, "any document is executed that is within the limits")
		return
	}
	texts, err := server.CheckTrusted(graph.NewExecutableSchema(graph.Config{}).Schema(), d.cfg.Server)
	switch {
	case err != nil:
		d.fail(name, "give the manifest of the application as it is served: docs/api.md, under Trusted documents", "%v", err)
	case d.cfg.Server.Trusted.Only:
		d.ok(name, "%d, and no others", texts)
	default:
		d.ok(name, "%d, and others", texts)
	}
}

// mail asks the server that mails are handed to.
func (d *doctor) mail(ctx context.Context) {
	const name = "mail"
	if err := d.cfg.checkMail(); err != nil {
		d.fail(name, "set SMTP_URL and MAIL_FROM: docs/mail.md", "%v", err)
		return
	}
	switch {
	case !d.cfg.sends() && d.MailTo != "":
		d.fail(name, "set SMTP_URL and MAIL_FROM: docs/mail.md", "no mail is sent, so none to %s", d.MailTo)
		return
	case d.cfg.SMTPURL == NoMail:
		d.warn(name, "set SMTP_URL and MAIL_FROM: docs/mail.md", "no mail is sent: nobody can confirm an address, or set a forgotten password")
		return
	case !d.cfg.sends():
		d.ok(name, "shown at /mailbox, in development")
		return
	}
	server, _ := mail.ParseSMTPURL(d.cfg.SMTPURL) // checkMail has
	sender, err := mail.NewSMTP(&mail.SMTPConfig{URL: d.cfg.SMTPURL, From: d.cfg.MailFrom, Timeout: partTimeout})
	if err == nil {
		err = sender.Check(ctx)
	}
	if err != nil {
		d.fail(name, mailRemedy(err), "%s:%d: %s", server.Host, server.Port, mailReason(err))
		return
	}
	how := map[mail.Security]string{mail.StartTLS: "by STARTTLS", mail.ImplicitTLS: "by TLS", mail.NoTLS: "without TLS"}[server.Security]
	if server.User != "" {
		how += ", signed in"
	}
	if server.Security == mail.NoTLS && !Loopback(server.Host) {
		d.warn(name, "let it speak TLS, and drop tls=none: links in mails sign people in", "%s:%d answers %s", server.Host, server.Port, how)
	} else {
		d.ok(name, "%s:%d answers %s; as %s", server.Host, server.Port, how, d.cfg.MailFrom)
	}
	if d.MailTo == "" {
		return
	}
	err = sender.Send(ctx, mail.Message{
		To: d.MailTo, Subject: "A mail to see whether mail arrives", Kind: "doctor",
		Text: "Whoever runs " + d.cfg.PublicURL + " has asked for this mail. There is nothing to do.\n",
	})
	if err != nil {
		d.fail("mail.sent", mailRemedy(err), "to %s: %s", d.MailTo, mailReason(err))
		return
	}
	d.ok("mail.sent", "%s has taken it for %s; see that it arrives, and not as spam", server.Host, d.MailTo)
}

func mailReason(err error) string {
	if e, ok := errors.AsType[*mail.SendError](err); ok && e.Step != "" {
		return e.Step + ": " + e.Err.Error()
	}
	return err.Error()
}

// mailRemedy is what to do about an error of mail.
func mailRemedy(err error) string {
	e, ok := errors.AsType[*mail.SendError](err)
	if !ok {
		return "set SMTP_URL and MAIL_FROM: docs/mail.md"
	}
	switch e.Step {
	case "connect":
		return "see that this machine reaches the server of SMTP_URL, at that port, by TLS where it is smtps"
	case "STARTTLS":
		return "see that the server's certificate is of the name in SMTP_URL; tls=none for a server in the same network that has none"
	case "AUTH":
		return "put the user and the password of the mail server into SMTP_URL"
	case "MAIL":
		return "let the mail server take mails from MAIL_FROM"
	case "RCPT":
		return "see that the address is right, and that the server passes mails on"
	}
	return "see what the mail server's log says"
}
