package auth

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
)

// masked stands where a secret was.
const masked = "[redacted]"

// Redact is a slog.HandlerOptions.ReplaceAttr that keeps secrets out of a log. It masks the whole value of an
// attribute whose name, or group's name, speaks of a password, token, cookie, secret or code, numbers and times
// apart; and in all other text, messages and errors too, what looks like a token of ours, a header's or URL's
// credentials, a password's hash, and `password=...` and its like.
//
// It is the second line: what is secret is not logged in the first place.
func Redact(groups []string, a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString, slog.KindAny:
	default: // no secret of ours is a number
		return a
	}
	isErrorCode := codeName.MatchString(a.Key) && errorCode.MatchString(v.String())
	if slices.ContainsFunc(groups, isSecretName) || isSecretName(a.Key) && !isErrorCode {
		return slog.String(a.Key, masked)
	}
	if v.Kind() == slog.KindString {
		if clean := redactText(v.String()); clean != v.String() {
			return slog.String(a.Key, clean)
		}
		return a
	}
	if text, dirty := redactAny(v.Any()); dirty {
		return slog.String(a.Key, text)
	}
	return a
}

// redactAny looks at a value as handlers write it: an error's text, JSON, and what %+v prints.
func redactAny(v any) (text string, dirty bool) {
	switch v := v.(type) {
	case nil, *slog.Source:
		return "", false
	case error:
		text = v.Error()
	case []byte:
		text = string(v)
	default:
		text = fmt.Sprintf("%+v", v)
		if b, err := json.Marshal(v); err == nil { // sees through pointers
			if clean := redactText(string(b)); clean != string(b) {
				return clean, true
			}
		}
	}
	clean := redactText(text)
	return clean, clean != text
}

const secretNames = `pass(?:word|wd|phrase)|token|secret|authorization|cookie|credential|api_?key|private_?key|otp`

var (
	secretName = regexp.MustCompile(`(?i)` + secretNames + `|(?:jwt|secret)_?keys?$`)
	codeName   = regexp.MustCompile(`(?i)^(?:backup_?|totp_?)?codes?$`)
	// errorCode is what `extensions.code` has.
	errorCode = regexp.MustCompile(`^[A-Z][A-Z_]+$`)
)

func isSecretName(name string) bool {
	return secretName.MatchString(name) || codeName.MatchString(name)
}

// secretText is what is a secret wherever it stands, and what stands there instead. "hash password: no memory" tells
// no secret: a name in text needs more than a colon and a space behind it.
var secretText = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?`), masked},                                         // a JWT
	{regexp.MustCompile(`\bg[so]t_[\w-]+`), masked},                                                          // refresh and one-time tokens
	{regexp.MustCompile(`\$argon2id?\$[^\s"']+`), masked},                                                    // a password's hash
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}`), "$1 " + masked},                            // a header's credentials
	{regexp.MustCompile(`(?i)\b((?:set-)?cookie|authorization): [^\r\n]+`), "$1: " + masked},                 // a header
	{regexp.MustCompile(`(://[^\s/:@]*:)[^\s/@]+@`), "$1" + masked + "@"},                                    // a URL's password
	{regexp.MustCompile(`(?i)(otpauth://[^\s?]*\?)[^\s"]+`), "$1" + masked},                                  // an authenticator's secret
	{regexp.MustCompile(named + `("?\s*[:=]\s*")(?:[^"\\]|\\.)*"`), "$1$2" + masked + `"`},                   // name: "value", JSON
	{regexp.MustCompile(named + `(\\"\s*:\s*\\")(?:[^"\\]|\\\\.)*\\"`), "$1$2" + masked + `\"`},              // JSON in a JSON string
	{regexp.MustCompile(named + `("?[:=])(?:\[[^\]]*\]|[^\s"\\\[{&,;)}\]][^\s"&,;)}\]]*)`), "$1$2" + masked}, // name=value, name:value, name:[values]
}

const named = `(?i)\b([\w-]*(?:` + secretNames + `)[\w-]*)`

// redactText masks secrets in text.
func redactText(text string) string {
	for _, s := range secretText {
		text = s.pattern.ReplaceAllString(text, s.with)
	}
	return text
}
