package logtest

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLeaks(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("aB3_", 11)
	for _, c := range []struct {
		name, text string
		leaks      bool
	}{
		{"nothing", "signed in", false},
		{"a short code", "code 12345", false},
		{"a code", "code 285386.", true},
		{"a code by itself", "285386", true},
		{"a code in JSON", `{"code":"285386"}`, true},
		{"a time like a code", "31.285386ms", false},
		{"a longer number", "1285386", false},
		{"a code behind a letter", "code285386", true},
		{"a code behind an underscore", "code_285386", true},
		{"a code behind a point", "code.285386", true},
		{"a code in a URL", "/?code%3D285386%26", true},
		{"a code in a short word", "a285386b", true},
		{"a UUID like a code", "7a285386-b285-4386-8c28-285386285386", false},
		{"a hash like a code", "7a285386b28538c0", false},
		{"an id of a request like a code", "AB235326CDEFGHIJKLMNOPQRST", false},
		{"a position like a code", "16/3B285386", false},
		{"a password", "for plover-xylem 42", true},
		{"a password within", `{"password":"plover-xylem 42"}`, true},
		{"one to be quoted", `say "quoted" once`, true},
		{"a refresh token", "gst_" + long, true},
		{"a one-time token", "?token=got_" + long, true},
		{"what begins like one", "gst_ and got_x", false},
		{"a JWT", "Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.sig", true},
		{"a hash", "$argon2id$v=19$m=64,t=1,p=1$c2FsdA$aGFzaA", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log collector
			log.secret("12345", "285386", "235326", "plover-xylem 42", `"quoted"`)
			for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
				l := slog.New(h)
				l.Info("before")
				l.Info("line", "value", c.text)
			}
			if c.leaks {
				require.Len(t, log.leaks(), 2)
			} else {
				require.Empty(t, log.leaks())
			}
		})
	}
}

type run int

func (r run) Run() int { return int(r) }

func TestWatchKeepsTheCode(t *testing.T) {
	t.Parallel()
	require.Equal(t, 3, Watch(run(3)).Run())
	require.Zero(t, Watch(run(0)).Run())
}
