package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// hidden is in every value below that must not be seen.
const hidden = "hUnTeR2"

type lazy struct{ v slog.Value }

func (l lazy) LogValue() slog.Value { return l.v }

func TestRedact(t *testing.T) {
	t.Parallel()
	type login struct {
		Login, Password string
		Next            *login
	}
	keys, err := ParseKeys(GenerateKey(), "i", "a")
	require.NoError(t, err)
	now := time.Now()
	jwt, err := keys.Sign(Claims{User: uuid.New(), Session: uuid.New(), Role: "user", IssuedAt: now, ExpiresAt: now.Add(time.Hour)})
	require.NoError(t, err)
	signature := jwt[strings.LastIndex(jwt, ".")+1:]

	secrets := []slog.Attr{
		slog.String("password", hidden),
		slog.String("newPassword", hidden),
		slog.String("PASSWORD_HASH", hidden),
		slog.String("passphrase", hidden),
		slog.String("token", hidden),
		slog.String("refresh_token", hidden),
		slog.String("authorization", hidden),
		slog.String("Authorization", "Bearer "+hidden),
		slog.String("Set-Cookie", "a="+hidden),
		slog.String("secret", hidden),
		slog.String("SECRET_KEYS", hidden),
		slog.String("JWT_KEYS", hidden),
		slog.String("apiKey", hidden),
		slog.String("code", hidden),
		slog.String("backup_codes", hidden),
		slog.Any("password", []byte(hidden)),
		slog.Any("token", errors.New(hidden)),
		slog.Any("secret", lazy{slog.StringValue(hidden)}),
		slog.Any("cookies", []string{hidden}),
		slog.Group("authorization", slog.String("scheme", hidden)),
		slog.Group("request", slog.Group("cookies", slog.String("a", hidden))),
		slog.Group("input", slog.String("password", hidden)),

		slog.String("line", "GET /verify?token="+hidden+"&x=1"),
		slog.String("line", "a jwt "+jwt+" "+signature[:0]),
		slog.String("line", "seen gst_"+hidden+" here"),
		slog.String("line", "got_"+hidden),
		slog.String("line", "(got_"+hidden+")"),
		slog.String("line", "Authorization: Bearer "+hidden+"xyz"),
		slog.String("line", "bearer "+hidden+"xyz"),
		slog.String("line", "Cookie: a=1; b="+hidden),
		slog.String("line", "postgres://godstack:"+hidden+"@db:5432/x"),
		slog.String("line", "redis://:"+hidden+"@localhost"),
		slog.String("line", "otpauth://totp/x?secret="+hidden),
		slog.String("line", "$argon2id$v=19$m=19456,t=2,p=1$"+hidden+"$"+hidden),
		slog.String("line", `{"password":"`+hidden+`"}`),
		slog.String("line", `{"password": "a \" `+hidden+`", "x": 1}`),
		slog.String("line", `{"body":"{\"password\":\"`+hidden+`\"}"}`),
		slog.String("line", `mutation { login(input: { login: "ada", password: "`+hidden+`" }) { accessToken } }`),
		slog.String("line", "password="+hidden),
		slog.String("line", "new-password='"+hidden+"'"),
		slog.Any("err", fmt.Errorf("open: %w", errors.New("bad url postgres://u:"+hidden+"@h"))),
		slog.Any("input", login{Login: "ada", Password: hidden}),
		slog.Any("input", &login{Next: &login{Password: hidden}}),
		slog.Any("variables", map[string]any{"input": map[string]any{"password": hidden}}),
		slog.Any("headers", http.Header{"Authorization": {"Bearer " + hidden}, "Cookie": {"a=1; b=" + hidden, hidden}}),
		slog.Any("bytes", []byte("token="+hidden)),
		slog.Any("list", []string{"x", "gst_" + hidden}),
		slog.Any("lazy", lazy{slog.StringValue("token=" + hidden)}),
		slog.Any("lazy", lazy{slog.GroupValue(slog.String("token", hidden))}),
	}
	kept := []slog.Attr{
		slog.String("user", "user_01jd"),
		slog.String("code", "BAD_USER_INPUT"),
		slog.Int("code", 404),
		slog.Int("tokens", 3),
		slog.Duration("token_age", time.Second),
		slog.Bool("password_changed", true),
		slog.Time("cookie_at", now),
		slog.String("keyboard", "qwerty"),
		slog.String("line", "hash password: context canceled"),
		slog.String("line", "a bearer of news, forgot_ten, begot_ and http://localhost:8080/x@y"),
		slog.String("line", "password is too easy to guess: add words or characters"),
		slog.Any("err", errors.New("verify token: expired")),
		slog.Any("list", []string{"a", "b"}),
		slog.Any("nothing", nil),
	}
	handlers := map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler {
			return slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: Redact, AddSource: true})
		},
		"json": func(b *bytes.Buffer) slog.Handler {
			return slog.NewJSONHandler(b, &slog.HandlerOptions{ReplaceAttr: Redact, AddSource: true})
		},
	}
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logged := func(message string, a ...slog.Attr) string {
				var b bytes.Buffer
				slog.New(handler(&b)).LogAttrs(context.Background(), slog.LevelInfo, message, a...)
				return b.String()
			}
			for _, a := range secrets {
				line := logged("something", a)
				require.NotContains(t, line, hidden)
				require.NotContains(t, line, signature)
				require.Contains(t, line, masked)
				require.Contains(t, line, "redact_test.go")
			}
			for _, a := range kept {
				require.NotContains(t, logged("something", a), masked)
			}
			require.NotContains(t, logged("signed in with gst_"+hidden), hidden, "a message")
			require.NotContains(t, logged("x", slog.Group("token", slog.Group("of", slog.String("x", hidden)))), hidden)

			var b bytes.Buffer
			slog.New(handler(&b)).With("token", hidden).WithGroup("cookie").Info("x", "y", hidden)
			require.NotContains(t, b.String(), hidden)
		})
	}
	require.Equal(t, "postgres://godstack:[redacted]@db:5432/x", redactText("postgres://godstack:"+hidden+"@db:5432/x"))
	require.Equal(t, "GET /verify?token=[redacted]&x=1", redactText("GET /verify?token="+hidden+"&x=1"))
	require.JSONEq(t, `{"password":"[redacted]","x":1}`, redactText(`{"password":"`+hidden+`","x":1}`))
}

func FuzzRedact(f *testing.F) {
	f.Add("line", "GET /verify?", "&x=1")
	f.Add("password", `{"a":"`, `"}`)
	f.Fuzz(func(t *testing.T, name, before, after string) {
		const token = "gst_0123456789abcdefhUnTeR2"
		a := Redact(nil, slog.String(name, before+" "+token+" "+after))
		require.NotContains(t, a.Value.String(), hidden)
		again := Redact(nil, a)
		require.Equal(t, a.Key, again.Key)
	})
}
