package mail

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// SendError says why a mail was not sent.
type SendError struct {
	// Kind is that of the mail.
	Kind string
	// Step is what was being done, such as "connect" or "RCPT"; empty where the mail itself is wrong.
	Step string
	// Code is the server's reply, such as 550; 0 where it gave none.
	Code int
	// Permanent is true where the same mail would be refused again: it is wrong, or the server answered 5xx to its recipient
	// or its content. What is the matter with the server, its certificate, the network, our credentials or our address is
	// not: once it is mended, the mail should go.
	Permanent bool
	// Err is the cause: a *textproto.Error where the server replied, and the context's error where there was no time left.
	Err error
}

func (e *SendError) Error() string {
	text := "send mail " + e.Kind
	if e.Step != "" {
		text += ": " + e.Step
	}
	if reply, ok := errors.AsType[*textproto.Error](e.Err); ok {
		return text + ": " + line(fmt.Sprintf("%d %s", reply.Code, reply.Msg), 500) // it can have lines
	}
	return text + ": " + e.Err.Error()
}

// Unwrap returns Err.
func (e *SendError) Unwrap() error { return e.Err }

// Permanent reports whether err is a [SendError] that is Permanent, so that sending the mail again is in vain.
func Permanent(err error) bool {
	e, ok := errors.AsType[*SendError](err)
	return ok && e.Permanent
}

// SMTPConfig tunes an [SMTP].
type SMTPConfig struct {
	// URL is the server, in the form of [ParseSMTPURL]. Required.
	URL string
	// From is who mails are from, in the form of [ParseFrom]. Required.
	From string
	// Timeout is for one mail, from the connection to the server's last reply. Default 30 s.
	Timeout time.Duration
	// TLS has the roots that certificates are checked by. Nil: those of the system. ServerName is set from the URL.
	TLS *tls.Config
}

// SMTP is a Sender that hands mails to a server, on a connection for each. It is safe for concurrent use.
type SMTP struct {
	server  Server
	from    mail.Address
	timeout time.Duration
	tls     *tls.Config
}

var _ Sender = (*SMTP)(nil)

// NewSMTP returns a sender. It does not connect. Errors are those of [ParseSMTPURL] and [ParseFrom], after the field's name.
func NewSMTP(cfg *SMTPConfig) (*SMTP, error) {
	server, err := ParseSMTPURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("mail: URL: %w", err)
	}
	from, err := ParseFrom(cfg.From)
	if err != nil {
		return nil, fmt.Errorf("mail: From: %w", err)
	}
	c := cfg.TLS.Clone()
	if c == nil {
		c = &tls.Config{}
	}
	c.ServerName, c.MinVersion = server.Host, max(c.MinVersion, tls.VersionTLS12)
	return &SMTP{server: server, from: from, timeout: cmp.Or(cfg.Timeout, 30*time.Second), tls: c}, nil
}

// Security is how a connection is encrypted.
type Security string

// The kinds of Security.
const (
	StartTLS    Security = "starttls" // by a command, before anything else is said
	ImplicitTLS Security = "tls"      // from the first byte
	NoTLS       Security = "none"     // not at all
)

// Server is where mails are handed to.
type Server struct {
	Host           string
	Port           int
	User, Password string // both or neither
	Security       Security
}

const smtpForm = "no address such as smtp://user:password@smtp.example.com:587 or smtps://…:465, with %40 for an @ in the user or the password"

// ParseSMTPURL reads smtp://user:password@host:587, where TLS begins by STARTTLS, or smtps://user:password@host:465, where
// it is there from the beginning; the ports are the defaults. A server without TLS has to be said to be one, by
// smtp://host:25?tls=none, and is given a password on this machine alone. Errors have nothing of the text, in which there
// may be a password.
func ParseSMTPURL(text string) (Server, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "smtp" && u.Scheme != "smtps" || !isHost(u.Hostname()) || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return Server{}, errors.New(smtpForm)
	}
	s := Server{Host: u.Hostname(), Port: 587, Security: StartTLS}
	if u.Scheme == "smtps" {
		s.Port, s.Security = 465, ImplicitTLS
	}
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Server{}, errors.New(smtpForm)
		}
		s.Port = int(n)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Server{}, errors.New(smtpForm)
	}
	for name, values := range query {
		switch {
		case name != "tls":
			return Server{}, errors.New("after ? there is something else than tls")
		case u.Scheme != "smtp" || len(values) != 1 || !slices.Contains([]Security{StartTLS, NoTLS}, Security(values[0])):
			return Server{}, errors.New("tls is neither starttls nor none, which smtp:// may have, and smtps:// may not")
		}
		s.Security = Security(values[0])
	}
	if u.User != nil {
		s.User = u.User.Username()
		s.Password, _ = u.User.Password()
		if s.User == "" || s.Password == "" {
			return Server{}, errors.New("a user has a password, and a password a user")
		}
		if strings.ContainsAny(s.User+s.Password, "\x00\r\n") {
			return Server{}, errors.New(smtpForm)
		}
	}
	if s.Security == NoTLS && s.User != "" && !loopback(s.Host) {
		return Server{}, errors.New("with tls=none a password would be readable on its way; it is sent to this machine alone, such as localhost")
	}
	return s, nil
}

// isHost reports whether s can be a name or an address.
func isHost(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._:%", r)
	})
}

// loopback reports whether a host is this machine to itself.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// ParseFrom reads who mails are from: noreply@example.com, or Name <noreply@example.com>. The address is ASCII.
func ParseFrom(text string) (mail.Address, error) {
	a, err := mail.ParseAddress(text)
	if err != nil || !isLine(text) || !isASCII(a.Address) || strings.ContainsAny(a.Address, ` "<>`) || len(a.Address) > maxAddress {
		return mail.Address{}, fmt.Errorf("%q is no address such as noreply@example.com or Name <noreply@example.com>", text)
	}
	return *a, nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// Send hands m to the server. Errors are of type [SendError].
func (s *SMTP) Send(ctx context.Context, m Message) error {
	content, err := s.content(m)
	if err != nil {
		return &SendError{Kind: m.Kind, Permanent: true, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	step, err := s.deliver(ctx, m.To, content)
	if err == nil {
		return nil
	}
	return s.failed(ctx, m.Kind, step, err)
}

// failed is the error of a step.
func (*SMTP) failed(ctx context.Context, kind, step string, err error) *SendError {
	e := &SendError{Kind: kind, Step: step, Err: err}
	if reply, ok := errors.AsType[*textproto.Error](err); ok {
		e.Code = reply.Code
		aboutTheMail := slices.Contains([]string{stepRecipient, stepData, stepContent}, step)
		e.Permanent = aboutTheMail && reply.Code/100 == 5 && reply.Code != needsCredentials
	} else if ctx.Err() != nil {
		e.Err = ctx.Err() // and not that the connection was closed because of it
	} else {
		e.Permanent = errors.Is(err, errNeedsUTF8)
	}
	return e
}

// content is m as it is sent.
func (s *SMTP) content(m Message) ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := errors.Join(msg.From(s.from.String()), msg.To(m.To)); err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	msg.Subject(m.Subject)
	msg.SetDate()
	msg.SetMessageIDWithValue(m.id() + "@" + domain(s.from.Address))
	msg.SetGenHeader("Auto-Submitted", "auto-generated")        // nobody's absence is to be told to us
	msg.SetGenHeader(gomail.HeaderXAutoResponseSuppress, "All") // the same for Exchange
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	}
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	return b.Bytes(), nil
}

// id is what tells m from other mails: its ID, or what is made of the rest.
func (m *Message) id() string {
	if m.ID != "" {
		return m.ID
	}
	h := sha256.New()
	for _, s := range []string{m.To, m.Subject, m.Text, m.HTML, m.Kind} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func domain(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// The steps of which [SendError] tells.
const (
	stepConnect   = "connect"
	stepGreeting  = "greeting"
	stepTLS       = "STARTTLS"
	stepAuth      = "AUTH"
	stepSender    = "MAIL"
	stepRecipient = "RCPT"
	stepData      = "DATA"
	stepContent   = "end of DATA"
)

// needsCredentials is the reply of a server that wants to know first who we are.
const needsCredentials = 530

// quitTimeout is how long a server may take to say goodbye, of which nothing depends.
const quitTimeout = time.Second

var errNeedsUTF8 = errors.New("the address is not ASCII, and the server has no SMTPUTF8")

// deliver connects, says who we are, and hands over a mail. It returns the step that failed.
func (s *SMTP) deliver(ctx context.Context, to string, content []byte) (step string, err error) {
	c, step, err := s.open(ctx)
	if err != nil {
		return step, err
	}
	defer c.hangUp()
	if ok, _ := c.Extension("SMTPUTF8"); !ok && !isASCII(to) {
		return stepRecipient, errNeedsUTF8
	}
	if err := c.Mail("<" + s.from.Address + ">"); err != nil {
		return stepSender, err
	}
	if err := c.Rcpt("<" + to + ">"); err != nil {
		return stepRecipient, err
	}
	w, err := c.Data()
	if err != nil {
		return stepData, err
	}
	if _, err := w.Write(content); err != nil {
		return stepContent, err // and no end, after which the server would take it for whole
	}
	if err := w.Close(); err != nil {
		return stepContent, err
	}
	c.goodbye() // the mail is the server's now, whatever comes
	return "", nil
}

// connection is one to a server that knows who we are.
type connection struct {
	*smtp.Client
	conn   net.Conn
	hangUp func() // closes it
}

// goodbye ends what was said. After a mail that was not handed over whole it is not said: the library would say the mail's end before it.
func (c *connection) goodbye() {
	_ = c.conn.SetDeadline(time.Now().Add(quitTimeout))
	_ = c.Quit()
}

// open connects and says who we are. After an error, step is what failed, and there is nothing to hang up.
func (s *SMTP) open(ctx context.Context) (c *connection, step string, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(s.server.Host, strconv.Itoa(s.server.Port)))
	if err != nil {
		return nil, stepConnect, err
	}
	// The library reads and writes without a context.
	unhook := context.AfterFunc(ctx, func() { _ = conn.Close() })
	hangUp := func() {
		unhook()
		_ = conn.Close()
	}
	client, step, err := s.introduce(ctx, conn)
	if err != nil {
		hangUp()
		return nil, step, err
	}
	return &connection{client, conn, hangUp}, "", nil
}

// introduce says who we are on a connection, over TLS where there is to be some.
func (s *SMTP) introduce(ctx context.Context, conn net.Conn) (c *smtp.Client, step string, err error) {
	stream := conn
	if s.server.Security == ImplicitTLS {
		encrypted := tls.Client(conn, s.tls)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			return nil, stepConnect, err
		}
		stream = encrypted
	}
	if c, err = smtp.NewClient(stream, s.server.Host); err != nil {
		return nil, stepGreeting, err
	}
	if err := c.Hello(domain(s.from.Address)); err != nil {
		return nil, stepGreeting, err
	}
	if s.server.Security == StartTLS {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return nil, stepTLS, errors.New("the server does not offer it; tls=none in the address would do without")
		}
		if err := c.StartTLS(s.tls); err != nil {
			return nil, stepTLS, err
		}
	}
	if s.server.User != "" {
		if err := s.authenticate(c); err != nil {
			return nil, stepAuth, err
		}
	}
	return c, "", nil
}

// Check connects to the server and says who we are, with TLS and signing in as for a mail, and sends none. Errors are of type [SendError].
func (s *SMTP) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	c, step, err := s.open(ctx)
	if err != nil {
		return s.failed(ctx, "check", step, err)
	}
	defer c.hangUp()
	c.goodbye()
	return nil
}

// authenticate says who we are by what the server knows of PLAIN and LOGIN, which are for TLS, and for this machine.
func (s *SMTP) authenticate(c *smtp.Client) error {
	_, offered := c.Extension("AUTH")
	mechanisms := strings.Fields(strings.ToUpper(offered))
	unencrypted := s.server.Security == NoTLS
	switch {
	case slices.Contains(mechanisms, "PLAIN"):
		return c.Auth(smtp.PlainAuth("", s.server.User, s.server.Password, s.server.Host, unencrypted))
	case slices.Contains(mechanisms, "LOGIN"):
		return c.Auth(smtp.LoginAuth(s.server.User, s.server.Password, s.server.Host, unencrypted))
	}
	return errors.New("the server offers neither PLAIN nor LOGIN")
}
