package auth

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"godstack/internal/viewer"
)

// forge has keys, what they are made of, and a token that others are forged from.
type forge struct {
	*Keys
	seed, shared    []byte
	now             time.Time
	claims          Claims
	header, payload map[string]any
}

func newForge(t testing.TB) *forge {
	t.Helper()
	f := &forge{seed: randomBytes(32), shared: randomBytes(32), now: time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)}
	b64 := base64.RawURLEncoding.EncodeToString
	keys, err := ParseKeys("ed:EdDSA:"+b64(f.seed)+",hs:HS256:"+b64(f.shared), "https://godstack.test", "godstack")
	require.NoError(t, err)
	f.Keys = keys.WithClock(func() time.Time { return f.now })
	f.claims = Claims{
		User: uuid.New(), Session: uuid.New(), ID: uuid.New(), Role: viewer.Moderator,
		IssuedAt: f.now, ExpiresAt: f.now.Add(15 * time.Minute),
	}
	f.header = map[string]any{"alg": "EdDSA", "kid": "ed", "typ": "at+jwt"}
	f.payload = map[string]any{
		"iss": "https://godstack.test", "aud": []string{"godstack"}, "sub": f.claims.User.String(),
		"sid": f.claims.Session.String(), "jti": f.claims.ID.String(), "role": f.claims.Role,
		"iat": f.now.Unix(), "exp": f.now.Add(15 * time.Minute).Unix(),
	}
	return f
}

func segmentOf(v any) string {
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// ed signs with the Ed25519 key, whatever is in the header.
func (f *forge) ed(header, payload any) string {
	text := segmentOf(header) + "." + segmentOf(payload)
	return text + "." + segmentOf(ed25519.Sign(ed25519.NewKeyFromSeed(f.seed), []byte(text)))
}

// hs signs with HMAC-SHA256 and any key.
func (f *forge) hs(key []byte, header, payload any) string {
	text := segmentOf(header) + "." + segmentOf(payload)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return text + "." + segmentOf(mac.Sum(nil))
}

// with returns m with more members; nil takes one away.
func with(m map[string]any, more map[string]any) map[string]any {
	m = maps.Clone(m)
	for name, v := range more {
		if v == nil {
			delete(m, name)
		} else {
			m[name] = v
		}
	}
	return m
}

func TestTokens(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	token, err := f.Sign(f.claims)
	require.NoError(t, err)
	got, err := f.Verify(token)
	require.NoError(t, err)
	require.Equal(t, f.claims, got)

	// What the attacks below start from is good.
	for _, token := range []string{
		f.ed(f.header, f.payload),
		f.hs(f.shared, with(f.header, map[string]any{"alg": "HS256", "kid": "hs"}), f.payload),
		f.ed(f.header, with(f.payload, map[string]any{"aud": "godstack"})),
		f.ed(f.header, with(f.payload, map[string]any{"aud": []string{"other", "godstack"}})),
		f.ed(f.header, with(f.payload, map[string]any{"later": "a claim that a newer node writes"})),
		f.ed(f.header, with(f.payload, map[string]any{"later": map[string]any{"role": []any{"role", map[string]any{"role": "\"role"}}}})),
		f.ed(f.header, with(f.payload, map[string]any{"iat": f.now.Add(29 * time.Second).Unix()})),
	} {
		got, err := f.Verify(token)
		require.NoError(t, err)
		require.Equal(t, f.claims.User, got.User)
	}

	f.now = f.claims.ExpiresAt
	_, err = f.Verify(token)
	require.ErrorIs(t, err, ErrTokenExpired)
	require.ErrorIs(t, err, ErrToken)
}

func TestSignDrawsAnID(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	f.claims.ID = uuid.Nil
	token, err := f.Sign(f.claims)
	require.NoError(t, err)
	got, err := f.Verify(token)
	require.NoError(t, err)
	require.NotEqual(t, uuid.Nil, got.ID)
}

func TestSignRefusesWhatNobodyCouldUse(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	for _, change := range []func(*Claims){
		func(c *Claims) { c.User = uuid.Nil },
		func(c *Claims) { c.Session = uuid.Nil },
		func(c *Claims) { c.Role = "" },
		func(c *Claims) { c.Role = "root" },
		func(c *Claims) { c.ExpiresAt = c.IssuedAt },
		func(c *Claims) { c.ExpiresAt = time.Time{} },
	} {
		c := f.claims
		change(&c)
		_, err := f.Sign(c)
		require.ErrorContains(t, err, "sign access token: ")
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	good := f.ed(f.header, f.payload)
	parts := strings.Split(good, ".")
	public := ed25519.NewKeyFromSeed(f.seed).Public().(ed25519.PublicKey)
	other := ed25519.NewKeyFromSeed(randomBytes(32))
	header := func(more map[string]any) string { return f.ed(with(f.header, more), f.payload) }
	payload := func(more map[string]any) string { return f.ed(f.header, with(f.payload, more)) }
	raw := func(object string) string { return f.ed(f.header, []byte(object)) }
	object, err := json.Marshal(f.payload)
	require.NoError(t, err)
	jwk := map[string]any{"kty": "OKP", "crv": "Ed25519", "x": segmentOf([]byte(other.Public().(ed25519.PublicKey)))}

	cases := map[string]string{
		"nothing":               "",
		"dots":                  "..",
		"no signature":          parts[0] + "." + parts[1],
		"an empty signature":    parts[0] + "." + parts[1] + ".",
		"an empty payload":      parts[0] + ".." + parts[2],
		"a fourth part":         good + "." + parts[2],
		"cut":                   good[:len(good)-1],
		"longer":                good + "A",
		"padded":                good + "==",
		"in spaces":             " " + good + "\n",
		"other characters":      strings.Replace(good, ".", ".*", 1),
		"another payload":       parts[0] + "." + segmentOf(with(f.payload, map[string]any{"role": "admin"})) + "." + parts[2],
		"another signature":     parts[0] + "." + parts[1] + "." + strings.Split(payload(map[string]any{"role": "admin"}), ".")[2],
		"huge":                  payload(map[string]any{"x": strings.Repeat("x", maxTokenBytes)}),
		"huge, nothing in it":   strings.Repeat(".", 1<<20),
		"a payload of null":     raw("null"),
		"a payload of a list":   raw("[]"),
		"a payload cut":         raw(string(object[:len(object)-1])),
		"a payload and another": raw(string(object) + "{}"),

		"HS256 with the public key":        f.hs(public, with(f.header, map[string]any{"alg": "HS256"}), f.payload),
		"HS256 with it, as HS256's key":    f.hs(public, with(f.header, map[string]any{"alg": "HS256", "kid": "hs"}), f.payload),
		"HS256 under EdDSA's header":       f.hs(public, f.header, f.payload),
		"HS256 with nothing":               f.hs(nil, with(f.header, map[string]any{"alg": "HS256", "kid": "hs"}), f.payload),
		"EdDSA under HS256's header":       header(map[string]any{"alg": "HS256", "kid": "hs"}),
		"EdDSA with HS256's kid":           header(map[string]any{"kid": "hs"}),
		"HS384":                            header(map[string]any{"alg": "HS384"}),
		"ES256":                            header(map[string]any{"alg": "ES256"}),
		"another key of the same kid":      strings.Join(parts[:2], ".") + "." + segmentOf(ed25519.Sign(other, []byte(strings.Join(parts[:2], ".")))),
		"RS256":                            rs256(t, with(f.header, map[string]any{"alg": "RS256"}), f.payload),
		"RS256 as the key's":               rs256(t, f.header, f.payload),
		"no alg":                           header(map[string]any{"alg": nil}),
		"an alg of another type":           header(map[string]any{"alg": []string{"EdDSA"}}),
		"no kid":                           header(map[string]any{"kid": nil}),
		"an unknown kid":                   header(map[string]any{"kid": "k9"}),
		"a kid of another type":            header(map[string]any{"kid": 1}),
		"an empty kid":                     header(map[string]any{"kid": ""}),
		"a kid that is a path":             header(map[string]any{"kid": "../../../../dev/null"}),
		"a kid that is a path to ours":     header(map[string]any{"kid": "./ed"}),
		"a kid that is SQL":                header(map[string]any{"kid": "x' UNION SELECT 'a"}),
		"a kid with a NUL":                 header(map[string]any{"kid": "ed\x00"}),
		"a kid in upper case":              header(map[string]any{"kid": "ED"}),
		"jku":                              header(map[string]any{"jku": "https://evil.test/keys.json"}),
		"jwk":                              header(map[string]any{"jwk": jwk}),
		"x5u":                              header(map[string]any{"x5u": "https://evil.test/cert.pem"}),
		"x5c":                              header(map[string]any{"x5c": []string{"MIIB"}}),
		"crit":                             header(map[string]any{"crit": []string{"exp"}}),
		"b64":                              header(map[string]any{"b64": false, "crit": []string{"b64"}}),
		"cty":                              header(map[string]any{"cty": "JWT"}),
		"zip":                              header(map[string]any{"zip": "DEF"}),
		"another typ":                      header(map[string]any{"typ": "JWT"}),
		"no typ":                           header(map[string]any{"typ": nil}),
		"typ in full":                      header(map[string]any{"typ": "application/at+jwt"}),
		"a header with two kids":           f.ed([]byte(`{"alg":"EdDSA","kid":"x","typ":"at+jwt","kid":"ed"}`), f.payload),
		"a header with spaces":             f.ed([]byte(`{"alg": "EdDSA","kid":"ed","typ":"at+jwt"}`), f.payload),
		"jwk, signed by its key":           "",
		"another issuer":                   payload(map[string]any{"iss": "https://evil.test"}),
		"an issuer in upper case":          payload(map[string]any{"iss": "HTTPS://GODSTACK.TEST"}),
		"no issuer":                        payload(map[string]any{"iss": nil}),
		"an issuer of another type":        payload(map[string]any{"iss": []string{"https://godstack.test"}}),
		"another audience":                 payload(map[string]any{"aud": []string{"other"}}),
		"no audience":                      payload(map[string]any{"aud": nil}),
		"an empty audience":                payload(map[string]any{"aud": []string{}}),
		"no exp":                           payload(map[string]any{"exp": nil}),
		"exp of null":                      raw(strings.Replace(string(object), `"exp":`, `"exp":null,"x":`, 1)),
		"exp as text":                      payload(map[string]any{"exp": "tomorrow"}),
		"exp beyond numbers":               raw(strings.Replace(string(object), `"exp":`, `"exp":1e999,"x":`, 1)),
		"exp before iat":                   payload(map[string]any{"iat": f.now.Add(20 * time.Second).Unix(), "exp": f.now.Add(10 * time.Second).Unix()}),
		"no iat":                           payload(map[string]any{"iat": nil}),
		"iat in the far future":            payload(map[string]any{"iat": f.now.Add(time.Hour).Unix(), "exp": f.now.Add(2 * time.Hour).Unix()}),
		"iat just beyond the leeway":       payload(map[string]any{"iat": f.now.Add(31 * time.Second).Unix()}),
		"nbf in the future":                payload(map[string]any{"nbf": f.now.Add(time.Minute).Unix()}),
		"no subject":                       payload(map[string]any{"sub": nil}),
		"a subject that is no id":          payload(map[string]any{"sub": "admin"}),
		"the nil subject":                  payload(map[string]any{"sub": uuid.Nil}),
		"no session":                       payload(map[string]any{"sid": nil}),
		"the nil session":                  payload(map[string]any{"sid": uuid.Nil}),
		"no id":                            payload(map[string]any{"jti": nil}),
		"no role":                          payload(map[string]any{"role": nil}),
		"an unknown role":                  payload(map[string]any{"role": "root"}),
		"a role of another type":           payload(map[string]any{"role": []string{"admin"}}),
		"a claim twice":                    raw(strings.Replace(string(object), `{`, `{"role":"admin",`, 1)),
		"a claim twice but for case":       raw(strings.Replace(string(object), `{`, `{"Role":"admin",`, 1)),
		"too many claims":                  raw("{" + strings.Repeat(`"x":1,`, 100) + string(object[1:])),
		"a claim twice, behind others":     raw(strings.Replace(string(object), `{`, `{"x":[{"role":"\"},"}],"y":"{","role":"admin",`, 1)),
		"a claim twice, one of it escaped": raw(strings.Replace(string(object), `{`, `{"\u0072ole":"admin",`, 1)),
	}
	text := segmentOf(with(f.header, map[string]any{"jwk": jwk})) + "." + segmentOf(f.payload)
	cases["jwk, signed by its key"] = text + "." + segmentOf(ed25519.Sign(other, []byte(text)))
	for _, none := range []string{"none", "None", "NONE", "nOnE", "noNe", "", " none", "none "} {
		head := segmentOf(with(f.header, map[string]any{"alg": none}))
		cases["alg "+none+" without a signature"] = head + "." + parts[1] + "."
		cases["alg "+none+" with one"] = head + "." + parts[1] + "." + parts[2]
		cases["alg "+none+", no kid"] = segmentOf(map[string]any{"alg": none, "typ": "JWT"}) + "." + parts[1] + "."
	}
	for name, token := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := f.Verify(token)
			require.ErrorIs(t, err, ErrToken)
			require.NotErrorIs(t, err, ErrTokenExpired)
			require.Zero(t, c)
		})
	}
	// Every bit of the signature counts, the unused ones at its end too.
	for i := len(parts[0]) + len(parts[1]) + 2; i < len(good); i++ {
		for _, c := range "AQgw_-9z" {
			if altered := good[:i] + string(c) + good[i+1:]; altered != good {
				_, err := f.Verify(altered)
				require.ErrorIs(t, err, ErrToken, altered)
			}
		}
	}
}

func rs256(t *testing.T, header, payload any) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	text := segmentOf(header) + "." + segmentOf(payload)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	require.NoError(t, err)
	return text + "." + segmentOf(signature)
}

func TestKeysRotate(t *testing.T) {
	t.Parallel()
	first, second := GenerateKey(), "2026-11:HS256:"+GenerateSecret()
	parse := func(text string) *Keys {
		k, err := ParseKeys(text, "i", "a")
		require.NoError(t, err)
		return k
	}
	now := time.Now().Truncate(time.Second).UTC()
	c := Claims{User: uuid.New(), Session: uuid.New(), ID: uuid.New(), Role: viewer.User, IssuedAt: now, ExpiresAt: now.Add(time.Hour)}
	old, err := parse(first).Sign(c)
	require.NoError(t, err)

	both := parse(second + ", " + first)
	got, err := both.Verify(old)
	require.NoError(t, err, "the key before still verifies")
	require.Equal(t, c, got)
	young, err := both.Sign(c)
	require.NoError(t, err)
	got, err = parse(second).Verify(young)
	require.NoError(t, err, "the first key signs")
	require.Equal(t, c, got)
	_, err = parse(first + "," + second).Verify(young)
	require.NoError(t, err, "a node that does not sign with it yet")

	_, err = parse(second).Verify(old)
	require.ErrorIs(t, err, ErrToken, "the key is gone")
	replaced := strings.Split(first, ":")[0] + ":EdDSA:" + GenerateSecret()
	_, err = parse(replaced).Verify(old)
	require.ErrorIs(t, err, ErrToken, "the kid was given to another key")
}

func TestParseKeysRefuses(t *testing.T) {
	t.Parallel()
	good, material := GenerateKey(), GenerateSecret()
	for text, want := range map[string]string{
		"":                                     "key 1 is not kid:alg:material",
		good + ",":                             "key 2 is not kid:alg:material",
		material:                               "key 1 is not kid:alg:material",
		"k1:EdDSA":                             "key 1 is not kid:alg:material",
		"k1:EdDSA:" + material + ":x":          "key 1 is not kid:alg:material",
		":EdDSA:" + material:                   "key 1: a kid is 1 to 32 letters, digits, - and _",
		"../k1:EdDSA:" + material:              "key 1: a kid is 1 to 32 letters, digits, - and _",
		material + ":EdDSA:k1":                 "key 1: a kid is 1 to 32 letters, digits, - and _",
		"k1:none:" + material:                  `key "k1": alg must be EdDSA or HS256`,
		"k1:RS256:" + material:                 `key "k1": alg must be EdDSA or HS256`,
		"k1:eddsa:" + material:                 `key "k1": alg must be EdDSA or HS256`,
		"k1::" + material:                      `key "k1": alg must be EdDSA or HS256`,
		"k1:EdDSA:":                            `key "k1" is empty`,
		"k1:HS256:c2hvcnQ":                     `key "k1" is shorter than 32 bytes`,
		"k1:HS256:change-me-change-me-change":  `key "k1" contains a well-known word`,
		"k1:EdDSA:" + strings.Repeat("0f", 32): `key "k1" repeats itself`,
		"k1:EdDSA:" + hex.EncodeToString(randomBytes(33)):   `key "k1" is not a seed of 32 bytes`,
		"k1:EdDSA:" + material + ",k1:HS256:" + material:    `key "k1" is there twice`,
		"k1:EdDSA:" + material + ",k2:HS256:" + material:    `key "k2" is key "k1" again`,
		good + ",k2:HS256:" + strings.Repeat("changeme", 6): `key "k2" contains a well-known word`,
		good + ",k2:HS256:" + material + "+/":               `key "k2" is neither hexadecimal nor base64url`,
	} {
		_, err := ParseKeys(text, "issuer", "audience")
		require.EqualError(t, err, want)
	}
	_, err := ParseKeys(good, "", "audience")
	require.Error(t, err)
	_, err = ParseKeys(good, "issuer", "")
	require.Error(t, err)
}

func FuzzParseKeys(f *testing.F) {
	for _, s := range []string{"", GenerateKey(), "k1:HS256:" + GenerateSecret() + "," + GenerateKey(), "k1:none:", "::"} {
		f.Add(s)
	}
	now := time.Now()
	c := Claims{User: uuid.New(), Session: uuid.New(), Role: viewer.User, IssuedAt: now, ExpiresAt: now.Add(time.Hour)}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKeys(text, "i", "a")
		if err != nil {
			require.Nil(t, k)
			return
		}
		token, err := k.Sign(c)
		require.NoError(t, err)
		got, err := k.Verify(token)
		require.NoError(t, err)
		require.Equal(t, c.User, got.User)
	})
}

func FuzzVerify(f *testing.F) {
	forge := newForge(f)
	good, err := forge.Sign(forge.claims)
	require.NoError(f, err)
	f.Add(good)
	f.Add(forge.hs(forge.shared, with(forge.header, map[string]any{"alg": "HS256", "kid": "hs"}), forge.payload))
	f.Add(strings.Repeat(".", 5))
	f.Add(strings.SplitAfter(good, ".")[0] + "e30.")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := forge.Verify(token)
		if err != nil {
			require.ErrorIs(t, err, ErrToken)
			require.Zero(t, c)
			return
		}
		require.Equal(t, forge.claims, c, "nobody else can sign")
	})
}

// FuzzVerifySigned is what a payload with a good signature may bring.
func FuzzVerifySigned(f *testing.F) {
	forge := newForge(f)
	object, err := json.Marshal(forge.payload)
	require.NoError(f, err)
	f.Add(object)
	f.Add([]byte(`{"exp":1e400}`))
	f.Add([]byte(`{"aud":[null]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := forge.Verify(forge.ed(forge.header, payload))
		if err != nil {
			require.ErrorIs(t, err, ErrToken)
			return
		}
		require.NoError(t, c.validate())
		require.True(t, c.ExpiresAt.After(forge.now))
	})
}

func BenchmarkVerify(b *testing.B) {
	f := newForge(b)
	for name, token := range map[string]string{
		"EdDSA": f.ed(f.header, f.payload),
		"HS256": f.hs(f.shared, with(f.header, map[string]any{"alg": "HS256", "kid": "hs"}), f.payload),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.verify(token); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/again", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Verify(token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
