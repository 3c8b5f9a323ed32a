package mail

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"mime"
	"mime/multipart"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"
)

const (
	smtpUser     = "godstack@example.com"
	smtpPassword = "plover xylem/42@"
	smtpLogin    = "godstack%40example.com:plover%20xylem%2F42%40@"
)

// mailServer is an SMTP server of a test.
type mailServer struct {
	*gosmtp.Server
	port  string
	roots *x509.CertPool // that its certificate is of

	mechanisms []string                // of signing in, which is required where there are any
	refuse     func(step string) error // what is answered to EHLO, MAIL, RCPT and the content; nil: all is taken

	mu       sync.Mutex // protects what follows
	received []received
	wire     bytes.Buffer // what was said, outside of TLS or within
}

// received is a mail that was handed over, whatever was answered in the end.
type received struct {
	from, to, user string
	tls, utf8      bool
	content        string
}

// Write keeps what is said.
func (s *mailServer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wire.Write(p)
}

func (s *mailServer) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wire.String()
}

func (s *mailServer) mails() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.received...)
}

// sender returns one that sends to the server and trusts its certificate.
func (s *mailServer) sender(t *testing.T, url string, change ...func(*SMTPConfig)) *SMTP {
	t.Helper()
	cfg := SMTPConfig{URL: strings.ReplaceAll(url, "PORT", s.port), From: "Gödstack <noreply@godstack.test>", TLS: &tls.Config{RootCAs: s.roots}}
	for _, f := range change {
		f(&cfg)
	}
	sender, err := NewSMTP(&cfg)
	require.NoError(t, err)
	return sender
}

// newMailServer starts a server, as change has it, with a certificate of localhost. implicit: it speaks TLS from the first byte.
func newMailServer(t *testing.T, implicit bool, change ...func(*mailServer)) *mailServer {
	t.Helper()
	s := &mailServer{refuse: func(string) error { return nil }}
	s.Server = gosmtp.NewServer(gosmtp.BackendFunc(func(c *gosmtp.Conn) (gosmtp.Session, error) {
		if err := s.refuse("EHLO"); err != nil {
			return nil, err
		}
		_, encrypted := c.TLSConnectionState()
		return &mailSession{server: s, tls: encrypted}, nil
	}))
	s.Domain, s.Debug, s.ErrorLog = "localhost", s, log.New(io.Discard, "", 0)
	s.TLSConfig, s.roots = certificate(t, "localhost", time.Now().Add(time.Hour))
	for _, f := range change {
		f(s)
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, s.port, err = net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	if implicit {
		ln = tls.NewListener(ln, s.TLSConfig)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return s
}

// certificate makes one for a name, of a root of its own.
func certificate(t *testing.T, name string, until time.Time) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour * 24), NotAfter: until, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}, roots
}

// mailSession is a connection of a mailServer.
type mailSession struct {
	server *mailServer
	tls    bool
	user   string
	mail   received
}

var _ gosmtp.AuthSession = (*mailSession)(nil)

func (s *mailSession) AuthMechanisms() []string { return s.server.mechanisms }

func (s *mailSession) Auth(mechanism string) (sasl.Server, error) {
	check := func(user, password string) error {
		if user != smtpUser || password != smtpPassword {
			return gosmtp.ErrAuthFailed
		}
		s.user = user
		return nil
	}
	if mechanism == "LOGIN" {
		return &loginServer{check: check}, nil
	}
	return sasl.NewPlainServer(func(_, user, password string) error { return check(user, password) }), nil
}

func (s *mailSession) Mail(from string, options *gosmtp.MailOptions) error {
	if len(s.server.mechanisms) > 0 && s.user == "" {
		return gosmtp.ErrAuthRequired
	}
	s.mail = received{from: from, user: s.user, tls: s.tls, utf8: options.UTF8}
	return s.server.refuse("MAIL")
}

func (s *mailSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	s.mail.to += to
	return s.server.refuse("RCPT")
}

func (s *mailSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mail.content = string(b)
	s.server.mu.Lock()
	s.server.received = append(s.server.received, s.mail)
	s.server.mu.Unlock()
	return s.server.refuse("content")
}

func (s *mailSession) Reset()        {}
func (s *mailSession) Logout() error { return nil }

// loginServer asks for the user, and then for the password.
type loginServer struct {
	check func(user, password string) error
	asked int
	user  string
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	l.asked++
	switch l.asked {
	case 1:
		return []byte("Username:"), false, nil
	case 2:
		l.user = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.user, string(response))
}

// letter has what is changed on its way if nobody sees to it.
func letter() Message {
	return Message{
		ID: "stable-1", To: "ada@example.com", Subject: "Grüße aus Köln, " + strings.Repeat("schöne ", 15) + "李小龙", Kind: "test",
		Text: "Grüße,\n\n.\n..\nFrom here on, a=b \n" + strings.Repeat("x", 2000) + "\nhttps://godstack.test/?a=1&b=2\n",
		HTML: "<p>Grüße &amp; Küsse</p>\n.\n<a href=\"https://godstack.test/?a=1&amp;b=2\">" + strings.Repeat("x", 2000) + "</a>\n",
	}
}

// parts reads a mail.
func parts(t *testing.T, content string) (netmail.Header, []string) {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(content))
	require.NoError(t, err)
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	require.NoError(t, err)
	require.Equal(t, "multipart/alternative", kind)
	var texts []string
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return m.Header, texts
		}
		require.NoError(t, err)
		b, err := io.ReadAll(p) // quoted-printable is undone
		require.NoError(t, err)
		texts = append(texts, p.Header.Get("Content-Type"), strings.ReplaceAll(string(b), "\r\n", "\n"))
	}
}

func TestSMTPDelivers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, url  string
		mechanisms []string
		implicit   bool
		tls        bool
	}{
		{"STARTTLS", "smtp://localhost:PORT", nil, false, true},
		{"STARTTLS by name", "smtp://localhost:PORT/?tls=starttls", nil, false, true},
		{"STARTTLS and PLAIN", "smtp://" + smtpLogin + "localhost:PORT", []string{"LOGIN", "PLAIN"}, false, true},
		{"STARTTLS and LOGIN", "smtp://" + smtpLogin + "localhost:PORT", []string{"LOGIN"}, false, true},
		{"implicit TLS", "smtps://localhost:PORT", nil, true, true},
		{"implicit TLS and PLAIN", "smtps://" + smtpLogin + "localhost:PORT", []string{"PLAIN"}, true, true},
		{"implicit TLS and LOGIN", "smtps://" + smtpLogin + "localhost:PORT", []string{"LOGIN"}, true, true},
		{"no TLS", "smtp://localhost:PORT?tls=none", nil, false, false},
		{"no TLS and PLAIN", "smtp://" + smtpLogin + "127.0.0.1:PORT?tls=none", []string{"PLAIN"}, false, false},
		{"no TLS and LOGIN", "smtp://" + smtpLogin + "127.0.0.1:PORT?tls=none", []string{"LOGIN"}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newMailServer(t, c.implicit, func(s *mailServer) { s.mechanisms, s.AllowInsecureAuth = c.mechanisms, !c.tls })
			m := letter()
			began := time.Now().Add(-time.Second)
			require.NoError(t, s.sender(t, c.url).Send(t.Context(), m))
			require.Len(t, s.mails(), 1)
			got := s.mails()[0]
			require.Equal(t, "noreply@godstack.test", got.from)
			require.Equal(t, m.To, got.to)
			require.Equal(t, c.tls, got.tls)
			if c.mechanisms != nil {
				require.Equal(t, smtpUser, got.user)
			}
			require.Contains(t, s.said(), "EHLO godstack.test\r\n")
			require.Contains(t, s.said(), "QUIT\r\n")

			header, texts := parts(t, got.content)
			require.Equal(t, []string{"text/plain; charset=UTF-8", m.Text, "text/html; charset=UTF-8", m.HTML}, texts)
			subject, err := new(mime.WordDecoder).DecodeHeader(header.Get("Subject"))
			require.NoError(t, err)
			require.Equal(t, m.Subject, subject)
			from, err := header.AddressList("From")
			require.NoError(t, err)
			require.Equal(t, []*netmail.Address{{Name: "Gödstack", Address: "noreply@godstack.test"}}, from)
			to, err := header.AddressList("To")
			require.NoError(t, err)
			require.Equal(t, []*netmail.Address{{Address: "ada@example.com"}}, to)
			date, err := header.Date()
			require.NoError(t, err)
			require.WithinRange(t, date, began.Truncate(time.Second), time.Now())
			require.Equal(t, "<stable-1@godstack.test>", header.Get("Message-ID"))
			require.Equal(t, "auto-generated", header.Get("Auto-Submitted"))
			require.Equal(t, "All", header.Get("X-Auto-Response-Suppress"))
			require.Len(t, header, 9, "and with MIME-Version and Content-Type that is all: %v", header)
			for line := range strings.SplitSeq(got.content, "\r\n") {
				require.LessOrEqual(t, len(line), 998)
				require.True(t, isASCII(line))
			}
		})
	}
}

// Check goes as far as a mail would, and sends none.
func TestSMTPCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, url, step string
		code            int
		implicit        bool
		says            string
	}{
		{"STARTTLS and PLAIN", "smtp://" + smtpLogin + "localhost:PORT", "", 0, false, ""},
		{"implicit TLS", "smtps://" + smtpLogin + "localhost:PORT", "", 0, true, ""},
		{"a wrong password", "smtp://ada:plover@localhost:PORT", "AUTH", 535, false, "AUTH: 535"},
		{"no TLS where there should be", "smtps://localhost:PORT", "connect", 0, false, "connect: "},
		{"another name", "smtp://127.0.0.1:PORT", "STARTTLS", 0, false, "certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newMailServer(t, c.implicit, func(s *mailServer) { s.mechanisms = []string{"PLAIN"} })
			err := s.sender(t, c.url).Check(t.Context())
			require.Empty(t, s.mails())
			require.NotContains(t, s.said(), "MAIL FROM")
			if c.step == "" {
				require.NoError(t, err)
				require.Contains(t, s.said(), "QUIT\r\n")
				return
			}
			failed, ok := errors.AsType[*SendError](err)
			require.True(t, ok)
			require.Equal(t, c.step, failed.Step)
			require.Equal(t, c.code, failed.Code)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "plover")
		})
	}
}

func TestSMTPDeliversEveryKind(t *testing.T) {
	t.Parallel()
	s := newMailServer(t, false)
	sender := s.sender(t, "smtp://localhost:PORT")
	for i, kind := range kinds {
		m, err := Compose(kind, "ada@example.com", data())
		require.NoError(t, err)
		require.NoError(t, sender.Send(t.Context(), m))
		_, texts := parts(t, s.mails()[i].content)
		require.Equal(t, []string{"text/plain; charset=UTF-8", m.Text, "text/html; charset=UTF-8", m.HTML}, texts)
	}
	plain := numbered(1)
	require.NoError(t, sender.Send(t.Context(), plain))
	m, err := netmail.ReadMessage(strings.NewReader(s.mails()[len(kinds)].content))
	require.NoError(t, err)
	require.Equal(t, "text/plain; charset=UTF-8", m.Header.Get("Content-Type"))
}

// Receivers know a mail that comes twice by its Message-ID.
func TestSMTPSendsTheSameMailAgain(t *testing.T) {
	t.Parallel()
	tries := 0
	s := newMailServer(t, false, func(s *mailServer) {
		s.refuse = func(step string) error {
			if step != "content" {
				return nil
			}
			if tries++; tries%2 == 1 { // it has it all, and says that it has not
				return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "try again"}
			}
			return nil
		}
	})
	sender := s.sender(t, "smtp://localhost:PORT")
	composed, err := Compose(ResetPassword, "ada@example.com", data())
	require.NoError(t, err)
	other, err := Compose(ResetPassword, "ada@example.com", data())
	require.NoError(t, err)
	without := letter()
	without.ID = ""
	another := without
	another.Text += "."
	ids := map[string]bool{}
	for _, m := range []Message{composed, other, without, another} {
		err := sender.Send(t.Context(), m)
		require.Error(t, err)
		require.False(t, Permanent(err))
		require.NoError(t, sender.Send(t.Context(), m))
		mails := s.mails()
		first, _ := parts(t, mails[len(mails)-2].content)
		second, _ := parts(t, mails[len(mails)-1].content)
		require.Equal(t, first.Get("Message-ID"), second.Get("Message-ID"))
		require.Regexp(t, `^<[\w-]+@godstack\.test>$`, first.Get("Message-ID"))
		ids[first.Get("Message-ID")] = true
	}
	require.Len(t, ids, 4, "different mails have different ones")
}

// Who sits in between and takes STARTTLS away gets neither the mail nor the password.
func TestSMTPWantsTLS(t *testing.T) {
	t.Parallel()
	s := newMailServer(t, false, func(s *mailServer) {
		s.TLSConfig, s.mechanisms, s.AllowInsecureAuth = nil, []string{"PLAIN"}, true
	})
	err := s.sender(t, "smtp://"+smtpLogin+"localhost:PORT").Send(t.Context(), letter())
	require.EqualError(t, err, "send mail test: STARTTLS: the server does not offer it; tls=none in the address would do without")
	require.False(t, Permanent(err))
	require.NotContains(t, s.said(), "AUTH PLAIN ")
	require.NotContains(t, s.said(), "MAIL")

	err = s.sender(t, "smtps://"+smtpLogin+"localhost:PORT").Send(t.Context(), letter())
	require.ErrorContains(t, err, "send mail test: connect: tls: first record does not look like a TLS handshake")
	require.False(t, Permanent(err))
	require.Empty(t, s.mails())
}

func TestSMTPRefusesCertificates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		server func(*testing.T, *mailServer)
		says   string
	}{
		{"unknown root", func(_ *testing.T, s *mailServer) { s.roots = x509.NewCertPool() }, "certificate signed by unknown authority"},
		{"another name", func(t *testing.T, s *mailServer) {
			s.TLSConfig, s.roots = certificate(t, "other.test", time.Now().Add(time.Hour))
		}, "certificate is valid for other.test, not localhost"},
		{"expired", func(t *testing.T, s *mailServer) {
			s.TLSConfig, s.roots = certificate(t, "localhost", time.Now().Add(-time.Hour))
		}, "certificate has expired"},
		{"TLS 1.1", func(_ *testing.T, s *mailServer) {
			s.TLSConfig.MinVersion, s.TLSConfig.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		}, "protocol version not supported"},
	} {
		for _, implicit := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, implicit %v", c.name, implicit), func(t *testing.T) {
				t.Parallel()
				s := newMailServer(t, implicit, func(s *mailServer) {
					s.mechanisms = []string{"PLAIN"}
					c.server(t, s)
				})
				url := "smtp://" + smtpLogin + "localhost:PORT"
				if implicit {
					url = "smtps" + strings.TrimPrefix(url, "smtp")
				}
				err := s.sender(t, url).Send(t.Context(), letter())
				require.ErrorContains(t, err, c.says)
				require.False(t, Permanent(err), "it can be mended")
				require.NotContains(t, s.said(), "AUTH PLAIN ")
				require.Empty(t, s.mails())
			})
		}
	}
}

func TestSMTPErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		step      string // of the server
		code      int
		permanent bool
		says      string
	}{
		{"EHLO", 421, false, "greeting: 421"},
		{"EHLO", 554, false, "greeting: 554"},
		{"MAIL", 451, false, "MAIL: 451"},
		{"MAIL", 530, false, "MAIL: 530"},
		{"MAIL", 553, false, "MAIL: 553"},
		{"RCPT", 450, false, "RCPT: 450"},
		{"RCPT", 452, false, "RCPT: 452"},
		{"RCPT", 530, false, "RCPT: 530"},
		{"RCPT", 550, true, "RCPT: 550"},
		{"RCPT", 553, true, "RCPT: 553"},
		{"content", 421, false, "end of DATA: 421"},
		{"content", 452, false, "end of DATA: 452"},
		{"content", 552, true, "end of DATA: 552"},
		{"content", 554, true, "end of DATA: 554"},
	} {
		t.Run(fmt.Sprint(c.step, c.code), func(t *testing.T) {
			t.Parallel()
			s := newMailServer(t, false, func(s *mailServer) {
				s.refuse = func(step string) error {
					if step != c.step {
						return nil
					}
					return &gosmtp.SMTPError{Code: c.code, EnhancedCode: gosmtp.NoEnhancedCode, Message: "not now"}
				}
			})
			err := s.sender(t, "smtp://localhost:PORT").Send(t.Context(), letter())
			require.EqualError(t, err, "send mail test: "+c.says+" not now")
			require.Equal(t, c.permanent, Permanent(err))
			e, ok := errors.AsType[*SendError](err)
			require.True(t, ok)
			require.Equal(t, c.code, e.Code)
			require.Equal(t, "test", e.Kind)
		})
	}
}

func TestPermanent(t *testing.T) {
	t.Parallel()
	permanent := &SendError{Kind: "test", Permanent: true, Err: io.EOF}
	require.True(t, Permanent(permanent))
	require.True(t, Permanent(fmt.Errorf("work: %w", permanent)))
	require.ErrorIs(t, permanent, io.EOF)
	require.False(t, Permanent(nil))
	require.False(t, Permanent(io.EOF))
	require.False(t, Permanent(&SendError{Kind: "test", Err: io.EOF}))
}

func TestSMTPAuthentication(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, login string
		mechanisms  []string
		says        string
	}{
		{"wrong password", "godstack%40example.com:plover@", []string{"PLAIN"}, "AUTH: 535 5.7.8 Authentication failed"},
		{"wrong password by LOGIN", "godstack%40example.com:plover@", []string{"LOGIN"}, "AUTH: 535 5.7.8 Authentication failed"},
		{"unknown mechanism", smtpLogin, []string{"GSSAPI"}, "AUTH: the server offers neither PLAIN nor LOGIN"},
		{"none", smtpLogin, nil, "AUTH: the server offers neither PLAIN nor LOGIN"},
		{"no user", "", []string{"PLAIN"}, "MAIL: 502 5.7.0 Please authenticate first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newMailServer(t, false, func(s *mailServer) { s.mechanisms = c.mechanisms })
			err := s.sender(t, "smtp://"+c.login+"localhost:PORT").Send(t.Context(), letter())
			require.EqualError(t, err, "send mail test: "+c.says)
			require.False(t, Permanent(err), "a new password can be given to us")
			require.NotRegexp(t, "plover|xylem", err.Error())
			require.NotContains(t, err.Error(), base64.StdEncoding.EncodeToString([]byte(smtpPassword)))
			require.Empty(t, s.mails())
		})
	}
}

// A server that hangs, wherever it does, costs no more than the time there is.
func TestSMTPTimeouts(t *testing.T) {
	t.Parallel()
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // connections wait in the backlog
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	_, port, err := net.SplitHostPort(silent.Addr().String())
	require.NoError(t, err)
	// It has to be enough for what comes before, on a busy machine too.
	soon := func(c *SMTPConfig) { c.Timeout = 2 * time.Second }
	for step, url := range map[string]string{"greeting": "smtp://127.0.0.1:PORT", "connect": "smtps://127.0.0.1:PORT"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			nobody := &mailServer{port: port}
			err := nobody.sender(t, url, soon).Send(t.Context(), letter())
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.EqualError(t, err, "send mail test: "+step+": context deadline exceeded")
			require.False(t, Permanent(err))
		})
	}
	for where, step := range map[string]string{"EHLO": "greeting", "MAIL": "MAIL", "RCPT": "RCPT", "content": "end of DATA"} {
		t.Run("at "+where, func(t *testing.T) {
			t.Parallel()
			reached := make(chan struct{}, 2)
			s := newMailServer(t, false, func(s *mailServer) {
				s.refuse = func(at string) error {
					if at == where {
						reached <- struct{}{}
						<-t.Context().Done()
					}
					return nil
				}
			})
			err := s.sender(t, "smtp://localhost:PORT", soon).Send(t.Context(), letter())
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.EqualError(t, err, "send mail test: "+step+": context deadline exceeded")
			require.False(t, Permanent(err))
			<-reached

			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-reached
				cancel()
			}()
			err = s.sender(t, "smtp://localhost:PORT").Send(ctx, letter())
			require.ErrorIs(t, err, context.Canceled)
			require.False(t, Permanent(err))
		})
	}
}

func TestSMTPWhereNobodyListens(t *testing.T) {
	t.Parallel()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	nobody := mailServer{port: port}
	err = nobody.sender(t, "smtp://127.0.0.1:PORT").Send(t.Context(), letter())
	require.ErrorContains(t, err, "send mail test: connect: dial tcp 127.0.0.1:"+port)
	require.False(t, Permanent(err))
}

// scripted is a server that answers what it is told to, and says nothing where that is empty; "hang up" has it do so.
func scripted(t *testing.T, answer func(line string) string) *mailServer {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "220 hello\r\n")
		content := false
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			line := lines.Text()
			if content && line != "." {
				continue
			}
			reply := answer(line)
			if content = strings.HasPrefix(reply, "354"); reply == "hang up" {
				return
			}
			if reply != "" {
				_, _ = io.WriteString(conn, reply+"\r\n")
			}
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return &mailServer{port: port}
}

func TestSMTPAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, line, reply string
		permanent         bool
		says              string // empty: it is sent
	}{
		{"as it should be", "", "", false, ""},
		{"no goodbye", "QUIT", "", false, ""},
		{"a rude goodbye", "QUIT", "500 what?", false, ""},
		{"none at all", "QUIT", "hang up", false, ""},
		{"DATA refused", "DATA", "554 no valid recipients", true, "DATA: 554 no valid recipients"},
		{"DATA later", "DATA", "451 later", false, "DATA: 451 later"},
		{"lines", ".", "550-one\r\n550 two", true, "end of DATA: 550 one two"},
		{"it may have arrived", ".", "hang up", false, "end of DATA: EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := scripted(t, func(line string) string {
				switch line {
				case c.line:
					return c.reply
				case "DATA":
					return "354 go on"
				case "QUIT":
					return "221 bye"
				}
				return "250 ok"
			})
			err := s.sender(t, "smtp://127.0.0.1:PORT?tls=none").Send(t.Context(), letter())
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, "send mail test: "+c.says)
			require.Equal(t, c.permanent, Permanent(err))
		})
	}
}

// What is no mail is not sent, and not worth a second try.
func TestSMTPRefusesHeaders(t *testing.T) {
	t.Parallel()
	s := newMailServer(t, false)
	sender := s.sender(t, "smtp://localhost:PORT")
	for name, change := range map[string]func(*Message){
		"To":             func(m *Message) { m.To += "\r\nBcc: eve@example.com" },
		"To with a name": func(m *Message) { m.To = "Eve <eve@example.com>" },
		"a command":      func(m *Message) { m.To = "ada@example.com>\r\nRCPT TO:<eve@example.com" },
		"Subject":        func(m *Message) { m.Subject += "\r\nBcc: eve@example.com" },
		"a line feed":    func(m *Message) { m.Subject += "\nBcc: eve@example.com" },
		"ID":             func(m *Message) { m.ID += ">\r\nBcc: <eve@example.com" },
	} {
		m := letter()
		change(&m)
		require.True(t, Permanent(sender.Send(t.Context(), m)), name)
	}
	require.Empty(t, s.said(), "nobody was asked")

	m := letter()
	m.Subject, m.Text = "Bcc: eve@example.com", "\r\n.\r\nMAIL FROM:<eve@example.com>\r\n"
	require.NoError(t, sender.Send(t.Context(), m))
	require.Len(t, s.mails(), 1)
	require.Equal(t, m.To, s.mails()[0].to)
	header, _ := parts(t, s.mails()[0].content)
	require.Empty(t, header.Get("Bcc"))
	require.Equal(t, m.Subject, header.Get("Subject"))
}

// Addresses that are not ASCII are for servers that know them.
func TestSMTPUTF8(t *testing.T) {
	t.Parallel()
	m := letter()
	m.To = "grüße@bücher.example"
	s := newMailServer(t, false, func(s *mailServer) { s.EnableSMTPUTF8 = true })
	require.NoError(t, s.sender(t, "smtp://localhost:PORT").Send(t.Context(), m))
	require.Len(t, s.mails(), 1)
	require.Equal(t, m.To, s.mails()[0].to)
	require.True(t, s.mails()[0].utf8)

	s = newMailServer(t, false)
	err := s.sender(t, "smtp://localhost:PORT").Send(t.Context(), m)
	require.EqualError(t, err, "send mail test: RCPT: the address is not ASCII, and the server has no SMTPUTF8")
	require.True(t, Permanent(err))
	require.NotContains(t, s.said(), "MAIL")
}

func TestSMTPIsForMany(t *testing.T) {
	t.Parallel()
	s := newMailServer(t, false)
	sender := s.sender(t, "smtp://localhost:PORT")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := sender.Send(t.Context(), numbered(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	to := map[string]bool{}
	for _, m := range s.mails() {
		to[m.to] = true
	}
	require.Len(t, to, 20)
}

func TestParseSMTPURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Server{
		"smtp://mail.example.com":                  {"mail.example.com", 587, "", "", StartTLS},
		"smtp://mail.example.com/":                 {"mail.example.com", 587, "", "", StartTLS},
		"smtp://mail.example.com:25?tls=starttls":  {"mail.example.com", 25, "", "", StartTLS},
		"smtps://mail.example.com":                 {"mail.example.com", 465, "", "", ImplicitTLS},
		"smtps://a%40b:c%2Fd%3Ae%40@mail.test:466": {"mail.test", 466, "a@b", "c/d:e@", ImplicitTLS},
		"smtp://a:b@localhost?tls=none":            {"localhost", 587, "a", "b", NoTLS},
		"smtp://a:b@127.0.0.1:25?tls=none":         {"127.0.0.1", 25, "a", "b", NoTLS},
		"smtp://a:b@[::1]:25?tls=none":             {"::1", 25, "a", "b", NoTLS},
		"smtp://mailpit:1025?tls=none":             {"mailpit", 1025, "", "", NoTLS},
	} {
		got, err := ParseSMTPURL(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, says := range map[string]string{
		"":                                   smtpForm,
		"mail.example.com:587":               smtpForm,
		"http://plover@mail.test":            smtpForm,
		"smtp://":                            smtpForm,
		"smtp://:587":                        smtpForm,
		"smtp://a:plover%zz@mail.test":       smtpForm,
		"smtp://a:plover/xylem@mail.test":    smtpForm,
		"smtp://a:42/xylem@mail.test":        smtpForm,
		"smtp://a:42#xylem@mail.test":        smtpForm,
		"smtp://a:plover%0d%0a@mail.test":    smtpForm,
		"smtp://a:b@mail.test:0":             smtpForm,
		"smtp://a:b@mail.test:70000":         smtpForm,
		"smtp://a:b@mail.test:x":             smtpForm,
		"smtp://mail.test/inbox":             smtpForm,
		"smtp://mail test":                   smtpForm,
		"smtp://mail.test?tls=%zz":           smtpForm,
		"smtp://plover@mail.test":            "a user has a password, and a password a user",
		"smtp://plover:@mail.test":           "a user has a password, and a password a user",
		"smtp://:plover@mail.test":           "a user has a password, and a password a user",
		"smtp://a:42?xylem@mail.test":        "after ? there is something else than tls",
		"smtp://mail.test?timeout=5s":        "after ? there is something else than tls",
		"smtp://mail.test?tls=":              "tls is neither starttls nor none, which smtp:// may have, and smtps:// may not",
		"smtp://mail.test?tls=maybe":         "tls is neither starttls nor none, which smtp:// may have, and smtps:// may not",
		"smtp://mail.test?tls=none&tls=none": "tls is neither starttls nor none, which smtp:// may have, and smtps:// may not",
		"smtps://mail.test?tls=none":         "tls is neither starttls nor none, which smtp:// may have, and smtps:// may not",
		"smtp://a:plover@mail.test?tls=none": "with tls=none a password would be readable on its way; it is sent to this machine alone, such as localhost",
		"smtp://a:b@127.0.0.1.test?tls=none": "with tls=none a password would be readable on its way; it is sent to this machine alone, such as localhost",
	} {
		_, err := ParseSMTPURL(text)
		require.EqualError(t, err, says, text)
	}
	_, err := NewSMTP(&SMTPConfig{URL: "x", From: "a@b.test"})
	require.EqualError(t, err, "mail: URL: "+smtpForm)
}

func TestParseFrom(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]netmail.Address{
		"noreply@example.com":               {Address: "noreply@example.com"},
		"Godstack <noreply@example.com>":    {Name: "Godstack", Address: "noreply@example.com"},
		`"Söhne, Inc." <noreply@a.example>`: {Name: "Söhne, Inc.", Address: "noreply@a.example"},
		"Ursula Söhne <a+b@example.com>":    {Name: "Ursula Söhne", Address: "a+b@example.com"},
	} {
		got, err := ParseFrom(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{
		"", "Godstack", "Godstack <>", "a@b.test, c@d.test", "a@b.test\r\nBcc: eve@example.com", "a\n <a@b.test>", "grüße@example.com", "a@bücher.example",
		`"a b"@example.com`, strings.Repeat("a", 250) + "@example.com",
	} {
		_, err := ParseFrom(text)
		require.EqualError(t, err, fmt.Sprintf("%q is no address such as noreply@example.com or Name <noreply@example.com>", text))
	}
	_, err := NewSMTP(&SMTPConfig{URL: "smtp://localhost", From: "x"})
	require.ErrorContains(t, err, `mail: From: "x" is no address`)
}

func FuzzParseSMTPURL(f *testing.F) {
	f.Add("smtp://a:b@localhost:25?tls=none")
	f.Add("smtps://a%40b:c@mail.example.com")
	f.Add("smtp://[::1%25lo]:587/#x")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSMTPURL(text)
		if err != nil {
			return
		}
		require.NotEmpty(t, s.Host)
		require.False(t, strings.ContainsAny(s.Host+s.User+s.Password, "\r\n\x00"))
		require.True(t, s.Port > 0 && s.Port < 1<<16)
		require.Equal(t, s.User == "", s.Password == "")
		require.False(t, s.Security == NoTLS && s.User != "" && !loopback(s.Host))
	})
}

func ExampleSMTP() {
	sender, err := NewSMTP(&SMTPConfig{URL: "smtps://user:password@smtp.example.com", From: "Godstack <noreply@example.com>"})
	if err != nil {
		panic(err)
	}
	send := func(ctx context.Context, m Message) error {
		err := sender.Send(ctx, m)
		if Permanent(err) {
			return nil // and tell somebody: it would be refused again
		}
		return err // try again later
	}
	fmt.Println(send(context.Background(), Message{To: "nobody"}))
	// Output: <nil>
}
