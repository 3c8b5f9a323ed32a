package auth

import (
	"encoding/base32"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/pquerna/otp/hotp"
)

const (
	totpPeriod  = 30 * time.Second
	backupCodes = 10
	// backupAlphabet is Crockford's: no i, l, o and u. 12 of its characters have 60 bits.
	backupAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
)

// NewTOTP returns a new secret for the second factor: 20 random bytes, as RFC 4226 recommends.
func NewTOTP() (secret []byte) { return randomBytes(20) }

// TOTPURI returns the otpauth URI that an authenticator reads, mostly as a QR code: SHA-1, 6 digits, 30 s, which is
// what all of them know. The issuer and the account are what it shows.
func TOTPURI(secret []byte, issuer, account string) string {
	query := url.Values{
		"secret": {base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)},
		"issuer": {issuer}, "algorithm": {"SHA1"}, "digits": {"6"}, "period": {"30"},
	}
	uri := url.URL{
		Scheme: "otpauth", Host: "totp", Path: "/" + issuer + ":" + account,
		RawQuery: strings.ReplaceAll(query.Encode(), "+", "%20"), // some applications show the plus
	}
	return uri.String()
}

// CheckTOTP reports whether a code is right at a time, or was in the step of 30 s before or will be in the one
// after, and in which step. Only steps after the last one that was used count: a code works once. Spaces in
// the code do not matter.
func CheckTOTP(secret []byte, code string, now time.Time, after int) (step int, ok bool) {
	code = strings.Join(strings.Fields(code), "")
	text := base32.StdEncoding.EncodeToString(secret)
	current := int(now.Unix() / int64(totpPeriod.Seconds()))
	for s := current - 1; s <= current+1; s++ { // all of them, so that time does not tell which
		if s > after && s >= 0 && hotp.Validate(code, uint64(s), text) {
			step, ok = s, true
		}
	}
	return step, ok
}

// NewBackupCodes returns 10 codes that each stand in for the second factor once, as k3f9-0xq2-m7rt: 60 random bits.
func NewBackupCodes() []string {
	codes := make([]string, backupCodes)
	for i := range codes {
		b := make([]byte, 0, 14)
		for j, r := range randomBytes(12) {
			if j > 0 && j%4 == 0 {
				b = append(b, '-')
			}
			b = append(b, backupAlphabet[int(r)%len(backupAlphabet)])
		}
		codes[i] = string(b)
	}
	return codes
}

// HashBackupCode returns what is stored of a user's backup code. Upper and lower case, spaces and dashes are the
// same, and so are characters that look alike (o and 0; i, l and 1).
func HashBackupCode(s *Secrets, user uuid.UUID, code string) []byte {
	return s.Derive("backup code", user[:], normalBackupCode(code))
}

// HashBackupCodeAll is HashBackupCode with each key, to find one that was stored before keys were replaced.
func HashBackupCodeAll(s *Secrets, user uuid.UUID, code string) [][]byte {
	return s.DeriveAll("backup code", user[:], normalBackupCode(code))
}

func normalBackupCode(code string) []byte {
	return []byte(strings.Map(func(r rune) rune {
		switch r = unicode.ToLower(r); {
		case unicode.IsSpace(r) || unicode.Is(unicode.Pd, r):
			return -1
		case r == 'o':
			return '0'
		case r == 'i' || r == 'l':
			return '1'
		}
		return r
	}, code))
}
