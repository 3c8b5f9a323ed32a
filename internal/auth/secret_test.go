package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func mustSecrets(t testing.TB, text string) *Secrets {
	t.Helper()
	s, err := ParseSecrets(text)
	require.NoError(t, err)
	return s
}

func TestParseSecretsForms(t *testing.T) {
	t.Parallel()
	key := randomBytes(40)
	want := mustSecrets(t, hex.EncodeToString(key)).Derive("x")
	for _, text := range []string{
		strings.ToUpper(hex.EncodeToString(key)),
		base64.RawURLEncoding.EncodeToString(key),
		base64.URLEncoding.EncodeToString(key),
		" " + base64.URLEncoding.EncodeToString(key) + " \n",
		base64.URLEncoding.EncodeToString(key) + ", " + GenerateSecret(),
	} {
		require.Equal(t, want, mustSecrets(t, text).Derive("x"))
	}
}

func TestParseSecretsRefusesWeakKeys(t *testing.T) {
	t.Parallel()
	good := GenerateSecret()
	b64 := base64.RawURLEncoding.EncodeToString
	sequence := func(step byte) []byte {
		b := make([]byte, 48)
		for i := range b {
			b[i] = 7 + byte(i)*step
		}
		return b
	}
	for name, c := range map[string]struct{ key, reason string }{
		"empty":                    {"", "is empty"},
		"short":                    {b64(randomBytes(31)), "is shorter than 32 bytes"},
		"short hex":                {hex.EncodeToString(randomBytes(16)), "is shorter than 32 bytes"},
		"zeros":                    {hex.EncodeToString(make([]byte, 32)), "repeats itself"},
		"one byte":                 {b64(bytes.Repeat([]byte{0xa7}, 63)), "repeats itself"},
		"a cycle":                  {b64(bytes.Repeat([]byte{1, 90, 33}, 16)), "repeats itself"},
		"a good half, twice":       {b64(bytes.Repeat(randomBytes(16), 2)), "repeats itself"},
		"a cycle and a bit":        {b64(append(bytes.Repeat([]byte("\x01\xf3\x77\x12\x99"), 8), 1, 0xf3)), "repeats itself"},
		"counting up":              {hex.EncodeToString(sequence(1)), "is a sequence"},
		"counting down":            {b64(sequence(0xff)), "is a sequence"},
		"counting by threes":       {b64(sequence(3)), "is a sequence"},
		"written alphabet":         {"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghijkl", "contains a well-known word"},
		"change me":                {"change-me-change-me-change-me-change-me-change-me", "contains a well-known word"},
		"CHANGEME and more":        {"CHANGEME" + b64(randomBytes(32)), "contains a well-known word"},
		"text of a template":       {"replace_this_with_something_of_your_own_please", "contains a well-known word"},
		"an encoded default":       {b64([]byte("this is the secret of our development")), "is text, not random bytes"},
		"any encoded text":         {b64([]byte("Lorem ipsum dolor sit amet, consectetur")), "is text, not random bytes"},
		"dead beef":                {strings.Repeat("deadbeef", 8), "contains a well-known word"},
		"words":                    {"CorrectHorseBatteryStapleCorrectHorseAgainA", "reads like words, not random bytes"},
		"words in small letters":   {"correcthorsebatterystapleandsomemorewordsin", "is text, not random bytes"},
		"few distinct bytes":       {b64([]byte("\x01\x02\x01\x01\x09\x02\x01\x02\x02\x01\x01\x09\x01\x02\x09\x09\x09\x01\x02\x01\x01\x02\x02\x01\x09\x01\x09\x01\x02\x02\x02\x01\x09")), "has too few distinct bytes"},
		"neither of the alphabets": {b64(randomBytes(40)) + "/+/+", "is neither hexadecimal nor base64url"},
		"a quoted key":             {`"` + good + `"`, "is neither hexadecimal nor base64url"},
		"very long":                {b64(randomBytes(1000)), "is longer than 1024 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseSecrets(good + "," + c.key)
			require.EqualError(t, err, "key 2 "+c.reason)
			_, err = ParseSecrets(c.key + "," + good)
			require.EqualError(t, err, "key 1 "+c.reason)
		})
	}
	_, err := ParseSecrets(good + "," + GenerateSecret() + "," + good)
	require.EqualError(t, err, "key 3 is key 1 again")
}

func TestGenerated(t *testing.T) {
	t.Parallel()
	for range 20 {
		_, err := ParseSecrets(GenerateSecret())
		require.NoError(t, err)
		_, err = ParseSecrets(hex.EncodeToString(randomBytes(32)))
		require.NoError(t, err)
		_, err = ParseKeys(GenerateKey(), "i", "a")
		require.NoError(t, err)
	}
}

func TestDerive(t *testing.T) {
	t.Parallel()
	first, second := GenerateSecret(), GenerateSecret()
	s := mustSecrets(t, first+","+second)
	seen := map[string]bool{}
	for _, d := range [][]byte{
		s.Derive("a"), s.Derive("b"), s.Derive("a", nil), s.Derive("a", []byte("xy")),
		s.Derive("a", []byte("x"), []byte("y")), s.Derive("a", []byte("xy"), nil), s.Derive("a", nil, []byte("xy")),
		mustSecrets(t, second).Derive("a"),
	} {
		require.Len(t, d, 32)
		require.False(t, seen[string(d)])
		seen[string(d)] = true
	}
	require.Equal(t, s.Derive("a", []byte("x")), mustSecrets(t, first).Derive("a", []byte("x")))
	require.Equal(t, [][]byte{s.Derive("a"), mustSecrets(t, second).Derive("a")}, s.DeriveAll("a"))
}

func TestSeal(t *testing.T) {
	t.Parallel()
	before, after := GenerateSecret(), GenerateSecret()
	old, rotated, gone := mustSecrets(t, before), mustSecrets(t, after+","+before), mustSecrets(t, after)
	plain, bound := []byte("the second factor's secret"), []byte("row 1")

	sealed := old.Seal("totp", plain, bound)
	require.NotContains(t, string(sealed), "factor")
	require.NotEqual(t, sealed, old.Seal("totp", plain, bound), "nonces differ")
	for _, s := range []*Secrets{old, rotated} {
		got, err := s.Open("totp", sealed, bound)
		require.NoError(t, err)
		require.Equal(t, plain, got)
	}
	fails := func(s *Secrets, purpose string, sealed, bound []byte) {
		t.Helper()
		got, err := s.Open(purpose, sealed, bound)
		require.ErrorIs(t, err, errSealed)
		require.Nil(t, got)
	}
	fails(gone, "totp", sealed, bound)
	fails(old, "cursor", sealed, bound)
	fails(old, "totp", sealed, []byte("row 2"))
	fails(old, "totp", nil, bound)
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 1
		fails(old, "totp", altered, bound)
		fails(old, "totp", sealed[:i], bound)
	}
	empty, err := old.Open("totp", old.Seal("totp", nil, nil), nil)
	require.NoError(t, err)
	require.Empty(t, empty)
}

// showsNone fails where an error has a piece of the text that holds keys.
func showsNone(t *testing.T, err error, text string) {
	t.Helper()
	for i := 0; i+12 <= len(text); i++ {
		if strings.Contains(err.Error(), text[i:i+12]) {
			t.Errorf("%q shows %q", err, text[i:i+12])
		}
	}
}

func FuzzParseSecrets(f *testing.F) {
	for _, s := range []string{"", ",", GenerateSecret(), GenerateSecret() + "," + GenerateSecret(), "changeme", strings.Repeat("00", 32)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSecrets(text)
		if err != nil {
			require.Nil(t, s)
			if !strings.ContainsAny(text, " ") { // our own words have spaces
				showsNone(t, err, text)
			}
			return
		}
		sealed := s.Seal("p", []byte(text), nil)
		plain, err := s.Open("p", sealed, nil)
		require.NoError(t, err)
		require.Equal(t, text, string(plain))
	})
}
