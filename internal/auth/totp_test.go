package auth

import (
	"encoding/base32"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// The vectors of RFC 6238, appendix B; six digits are the end of eight.
func TestTOTPVectors(t *testing.T) {
	t.Parallel()
	secret := []byte("12345678901234567890")
	for seconds, code := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		step, ok := CheckTOTP(secret, code, time.Unix(seconds, 0), 0)
		require.True(t, ok, code)
		require.EqualValues(t, seconds/30, step)
	}
}

func TestCheckTOTP(t *testing.T) {
	t.Parallel()
	secret := []byte("12345678901234567890")
	const code, step = "050471", 1111111111 / 30
	at := func(s int) time.Time { return time.Unix(1111111111, 0).Add(time.Duration(s) * time.Second) }
	for _, c := range []struct {
		name, code string
		at, after  int
		ok         bool
	}{
		{"now", code, 0, 0, true},
		{"in two groups", " 050 471 ", 0, 0, true},
		{"a step early", code, -30, 0, true},
		{"a step late", code, 30, 0, true},
		{"two steps early", code, -60, 0, false},
		{"two steps late", code, 60, 0, false},
		{"used before", code, 0, step, false},
		{"used before, a step late", code, 30, step, false},
		{"a later one was used", code, 0, step + 1, false},
		{"the one before was used", code, 0, step - 1, true},
		{"wrong", "050472", 0, 0, false},
		{"short", "05047", 0, 0, false},
		{"long", "0504711", 0, 0, false},
		{"empty", "", 0, 0, false},
		{"other digits", "０５０４７１", 0, 0, false},
		{"before time", code, -2_000_000_000, 0, false},
	} {
		got, ok := CheckTOTP(secret, c.code, at(c.at), c.after)
		require.Equal(t, c.ok, ok, c.name)
		if ok {
			require.Equal(t, step, got, c.name)
		} else {
			require.Zero(t, got, c.name)
		}
	}
}

func TestTOTPURI(t *testing.T) {
	t.Parallel()
	secret := NewTOTP()
	require.Len(t, secret, 20)
	require.NotEqual(t, secret, NewTOTP())
	u, err := url.Parse(TOTPURI(secret, "Godstack & Co", "ada@example.com"))
	require.NoError(t, err)
	require.Equal(t, "otpauth", u.Scheme)
	require.Equal(t, "totp", u.Host)
	require.Equal(t, "/Godstack & Co:ada@example.com", u.Path)
	require.NotContains(t, u.RawQuery, "+", "some applications show it")
	q := u.Query()
	require.Equal(t, url.Values{
		"secret": {base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)},
		"issuer": {"Godstack & Co"}, "algorithm": {"SHA1"}, "digits": {"6"}, "period": {"30"},
	}, q)
}

func TestBackupCodes(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 20 {
		codes := NewBackupCodes()
		require.Len(t, codes, 10)
		for _, code := range codes {
			require.Regexp(t, `^[0-9a-hjkmnp-tv-z]{4}-[0-9a-hjkmnp-tv-z]{4}-[0-9a-hjkmnp-tv-z]{4}$`, code)
			require.False(t, seen[code])
			seen[code] = true
		}
	}
}

func TestHashBackupCode(t *testing.T) {
	t.Parallel()
	before, after := GenerateSecret(), GenerateSecret()
	old, rotated := mustSecrets(t, before), mustSecrets(t, after+","+before)
	user := uuid.New()
	stored := HashBackupCode(old, user, "01ab-cdef-ghjk")
	for _, code := range []string{"01AB-CDEF-GHJK", " 01abcdef ghjk\t", "oiab cdef ghjk", "Olab–cdef—ghjk"} {
		require.Equal(t, stored, HashBackupCode(old, user, code), code)
		require.Contains(t, HashBackupCodeAll(rotated, user, code), stored)
	}
	require.NotEqual(t, stored, HashBackupCode(old, user, "01ab-cdef-ghjm"))
	require.NotEqual(t, stored, HashBackupCode(old, uuid.New(), "01ab-cdef-ghjk"))
	require.NotEqual(t, stored, HashBackupCode(rotated, user, "01ab-cdef-ghjk"))
	require.NotContains(t, string(stored), "cdef")
}
