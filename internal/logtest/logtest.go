// Package logtest collects what a test binary's programs log, and fails the run where a secret is in it.
//
//	func TestMain(m *testing.M) { dbtest.Main(logtest.Watch(m)) }
//
// Guarantees:
//   - What is logged is looked at whole, from debug on and before anything is redacted: a secret has no business in a log.
//   - Tokens, hashes of passwords and whatever [Secret] names are found, in text and in JSON (TestLeaks).
//
// It imports nothing of ours. Only _test files may import it.
package logtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
)

// log is this test binary's. It has no owner to be passed by: tests of a package meet only in their TestMain.
var log collector

// Logger returns a logger whose lines are looked at, from debug on.
func Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Writer takes the log of another process.
func Writer() io.Writer { return &log }

// Secret says what must not be logged: passwords, keys, codes. Tokens are known by their form. Texts of less than six
// characters are left out: they occur by chance. So do digits within a longer number, a fraction or an id, where they are not looked for.
func Secret(texts ...string) { log.secret(texts...) }

// Watch returns m, whose Run looks at the log when the tests have ended: a run that passed and has a secret in it gives 1.
func Watch(m interface{ Run() int }) interface{ Run() int } { return watched{m} }

type watched struct{ m interface{ Run() int } }

func (w watched) Run() int {
	code := w.m.Run()
	if leaks := log.leaks(); len(leaks) > 0 {
		fmt.Fprintf(os.Stderr, "logtest: %d lines of the log have secrets:\n%s\n", len(leaks), strings.Join(leaks[:min(len(leaks), 10)], "\n"))
		code = max(code, 1)
	}
	return code
}

// token is what a secret looks like: refresh and one-time tokens, JWTs, hashes of passwords, private keys.
var token = regexp.MustCompile(`\bg[so]t_[\w-]{20}|\beyJ[\w-]{10,}\.[\w-]+|\$argon2|PRIVATE KEY`)

// collector keeps what is written, in memory.
type collector struct {
	mu      sync.Mutex // protects what follows
	text    bytes.Buffer
	secrets map[string]bool
}

func (c *collector) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *collector) secret(texts ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.secrets == nil {
		c.secrets = map[string]bool{}
	}
	for _, s := range texts {
		if len(s) >= 6 {
			c.secrets[s] = true
			quoted, _ := json.Marshal(s) // a string always can be
			c.secrets[string(quoted[1:len(quoted)-1])] = true
		}
	}
}

// leaks returns the lines that have a secret.
func (c *collector) leaks() (lines []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.Lines(c.text.String()) {
		if token.MatchString(line) || c.names(line) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// chance is where six digits say nothing: a decimal fraction, a UUID, an id of at least 16 hexadecimal digits or 26 of base32, a position
// in the WAL. A character that a URL writes as %XX is one, and ends a number.
var chance = regexp.MustCompile(`\b\d+\.\d+` +
	`|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{16,}\b|\b[A-Z2-7]{26,}\b|\b[0-9A-F]{1,8}/[0-9A-F]{1,8}\b` +
	`|%[0-9A-Fa-f]{2}`)

var digits = regexp.MustCompile(`\d{6,}`)

// names reports whether a line has one of the secrets. c.mu is held.
func (c *collector) names(line string) bool {
	for _, number := range digits.FindAllString(chance.ReplaceAllString(line, " "), -1) {
		if c.secrets[number] {
			return true
		}
	}
	for s := range c.secrets {
		if strings.Trim(s, "0123456789") != "" && strings.Contains(line, s) {
			return true
		}
	}
	return false
}
