package auth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"godstack/internal/viewer"
)

const (
	// tokenType is an access token's `typ` (RFC 9068), so that no other JWT passes for one.
	tokenType = "at+jwt"
	// maxTokenBytes is what Verify looks at.
	maxTokenBytes = 4 << 10
	// clockLeeway is how far a node's clock may be behind that of the node that signed.
	clockLeeway = 30 * time.Second
)

var (
	// ErrToken is why every token is refused; what is wrong with it is for the log alone.
	ErrToken = errors.New("access token is not valid")
	// ErrTokenExpired is an ErrToken: it was valid once, and its client should refresh.
	ErrTokenExpired = fmt.Errorf("%w: expired", ErrToken)
)

// Claims are what an access token says.
type Claims struct {
	User, Session uuid.UUID
	Role          string    // viewer.User, viewer.Moderator or viewer.Admin
	IssuedAt      time.Time // in whole seconds
	ExpiresAt     time.Time // in whole seconds
	ID            uuid.UUID // of the token; Sign draws one where it is uuid.Nil
}

// Keys signs and verifies access tokens: JWTs of one issuer for one audience. The first key signs and all verify,
// so that keys are replaced without logging anybody out. It is safe for concurrent use.
type Keys struct {
	issuer, audience string
	signer           *jwtKey
	byHeader         map[string]*jwtKey // by the header of the tokens that the key signs
	parser           *jwt.Parser
	now              func() time.Time
	verified         *verified
}

type jwtKey struct {
	id      string
	method  jwt.SigningMethod
	private any
	public  any
}

// ParseKeys reads keys, `kid:alg:material` separated by commas: alg is EdDSA, the material then the 32 bytes of an
// Ed25519 seed, or HS256 with 32 bytes or more, in hexadecimal or base64url. A weak key is refused as by
// [ParseSecrets]. The error says which key it is by its kid, which every token shows, or by its position, from 1,
// and never shows the key.
func ParseKeys(text, issuer, audience string) (*Keys, error) {
	if issuer == "" || audience == "" {
		return nil, errors.New("an issuer and an audience are needed")
	}
	k := (&Keys{issuer: issuer, audience: audience, byHeader: map[string]*jwtKey{}}).WithClock(time.Now)
	kids, materials := map[string]bool{}, map[string]string{}
	for i, item := range strings.Split(text, ",") {
		parts := strings.Split(strings.TrimSpace(item), ":")
		if len(parts) != 3 {
			return nil, fmt.Errorf("key %d is not kid:alg:material", i+1)
		}
		kid, alg := parts[0], parts[1]
		if !isKID.MatchString(kid) {
			return nil, fmt.Errorf("key %d: a kid is 1 to 32 letters, digits, - and _", i+1)
		}
		if kids[kid] {
			return nil, fmt.Errorf("key %q is there twice", kid)
		}
		kids[kid] = true
		material, err := decodeKey(parts[2])
		if err != nil {
			return nil, fmt.Errorf("key %q %w", kid, err)
		}
		if other, ok := materials[string(material)]; ok {
			return nil, fmt.Errorf("key %q is key %q again", kid, other)
		}
		materials[string(material)] = kid
		key := &jwtKey{id: kid}
		switch alg {
		case jwt.SigningMethodEdDSA.Alg():
			if len(material) != ed25519.SeedSize {
				return nil, fmt.Errorf("key %q is not a seed of %d bytes", kid, ed25519.SeedSize)
			}
			private := ed25519.NewKeyFromSeed(material)
			key.method, key.private, key.public = jwt.SigningMethodEdDSA, private, private.Public()
		case jwt.SigningMethodHS256.Alg():
			key.method, key.private, key.public = jwt.SigningMethodHS256, material, material
		default:
			return nil, fmt.Errorf("key %q: alg must be EdDSA or HS256", kid)
		}
		header, err := key.header()
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", kid, err)
		}
		k.byHeader[header] = key
		if k.signer == nil {
			k.signer = key
		}
	}
	return k, nil
}

var isKID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// WithClock returns the same keys with another clock, for tests.
func (k *Keys) WithClock(now func() time.Time) *Keys {
	c := *k
	c.now, c.verified = now, newVerified()
	c.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg(), jwt.SigningMethodHS256.Alg()}),
		jwt.WithIssuer(k.issuer), jwt.WithAudience(k.audience), jwt.WithExpirationRequired(),
		jwt.WithStrictDecoding(), jwt.WithTimeFunc(now),
	)
	return &c
}

// GenerateKey returns a new key for JWT_KEYS: EdDSA, its kid the begin of its public key's SHA-256.
func GenerateKey() string {
	secret := GenerateSecret()
	seed, err := decodeKey(secret)
	if err != nil {
		panic(err) // GenerateSecret returns what decodeKey takes
	}
	sum := sha256.Sum256(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	return hex.EncodeToString(sum[:4]) + ":EdDSA:" + secret
}

// jwtClaims is a token's payload.
type jwtClaims struct {
	jwt.RegisteredClaims
	Session string `json:"sid"`
	Role    string `json:"role"`
}

// Sign returns a token with the first key. It is an error where the user, the session or the role is missing, or
// where it would expire before it is issued.
func (k *Keys) Sign(c Claims) (string, error) {
	if c.ID == uuid.Nil {
		c.ID = uuid.New()
	}
	if err := c.validate(); err != nil {
		return "", fmt.Errorf("sign access token: %w", err)
	}
	token := jwt.NewWithClaims(k.signer.method, jwtClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: k.issuer, Audience: jwt.ClaimStrings{k.audience}, Subject: c.User.String(), ID: c.ID.String(),
			IssuedAt: jwt.NewNumericDate(c.IssuedAt), ExpiresAt: jwt.NewNumericDate(c.ExpiresAt),
		},
		Session: c.Session.String(),
		Role:    c.Role,
	})
	token.Header["kid"], token.Header["typ"] = k.signer.id, tokenType
	text, err := token.SignedString(k.signer.private)
	if err != nil {
		return "", fmt.Errorf("sign access token: %w", err)
	}
	return text, nil
}

// header returns the first segment of the tokens that the key signs.
func (key *jwtKey) header() (string, error) {
	b, err := json.Marshal(map[string]any{"alg": key.method.Alg(), "kid": key.id, "typ": tokenType})
	return base64.RawURLEncoding.EncodeToString(b), err
}

// Verify returns what a token says. Its header must be, byte for byte, what one of the keys writes: so a token
// cannot choose its algorithm, bring a key, or name one that is not there, and nothing of it is read before. Issuer,
// audience, expiry and issue are checked, the last with 30 s for clocks that differ. A token that was valid is remembered until it
// expires. Every error is an [ErrToken].
func (k *Keys) Verify(token string) (Claims, error) {
	if len(token) > maxTokenBytes {
		return Claims{}, fmt.Errorf("%w: longer than %d bytes", ErrToken, maxTokenBytes)
	}
	hash := tokenHash(sha256.Sum256([]byte(token)))
	if c, ok := k.verified.find(hash, k.now()); ok {
		return c, nil
	}
	c, err := k.verify(token)
	if err == nil {
		k.verified.add(hash, c)
	}
	return c, err
}

func (k *Keys) verify(token string) (Claims, error) {
	header, _, _ := strings.Cut(token, ".")
	key := k.byHeader[header]
	if key == nil {
		return Claims{}, fmt.Errorf("%w: no key of ours writes its header", ErrToken)
	}
	var claims jwtClaims
	_, err := k.parser.ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
		if t.Method != key.method { // so it is, by the header
			return nil, errors.New("another algorithm")
		}
		return key.public, nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenExpired): // the signature has been checked
		return Claims{}, ErrTokenExpired
	case err != nil:
		return Claims{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	c, err := k.claims(token, &claims)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	return c, nil
}

// claims checks what the library does not.
func (k *Keys) claims(token string, from *jwtClaims) (c Claims, err error) {
	_, rest, _ := strings.Cut(token, ".")
	segment, _, _ := strings.Cut(rest, ".")
	payload, err := base64.RawURLEncoding.DecodeString(segment)
	if err != nil {
		return c, fmt.Errorf("payload: %w", err)
	}
	if err := uniqueNames(payload); err != nil {
		return c, err
	}
	if c.User, err = uuid.Parse(from.Subject); err != nil {
		return c, fmt.Errorf("sub: %w", err)
	}
	if c.Session, err = uuid.Parse(from.Session); err != nil {
		return c, fmt.Errorf("sid: %w", err)
	}
	if c.ID, err = uuid.Parse(from.ID); err != nil {
		return c, fmt.Errorf("jti: %w", err)
	}
	if from.IssuedAt == nil {
		return c, errors.New("iat is missing")
	}
	c.Role, c.IssuedAt, c.ExpiresAt = from.Role, from.IssuedAt.UTC(), from.ExpiresAt.UTC()
	if c.IssuedAt.After(k.now().Add(clockLeeway)) {
		return c, errors.New("iat is in the future")
	}
	return c, c.validate()
}

func (c *Claims) validate() error {
	switch {
	case c.User == uuid.Nil:
		return errors.New("no user")
	case c.Session == uuid.Nil:
		return errors.New("no session")
	case !(viewer.Viewer{Role: c.Role}).Is(viewer.User):
		return errors.New("no role")
	case !c.ExpiresAt.After(c.IssuedAt):
		return errors.New("expires before it is issued")
	}
	return nil
}

// maxClaims is more than a token of ours has.
const maxClaims = 32

// uniqueNames refuses a JSON object with a name twice, or twice but for case: decoders differ in which they take. A
// name that is escaped is refused, since ours need it not. The object is known to be well formed.
func uniqueNames(object []byte) error {
	var names [maxClaims][]byte
	n, depth, isName := 0, 0, false
	for i := 0; i < len(object); i++ {
		switch object[i] {
		case '{', '[':
			depth++
			isName = depth == 1
		case '}', ']':
			depth--
		case ',':
			isName = depth == 1
		case '"':
			start := i + 1
			for i = start; object[i] != '"'; i++ {
				if object[i] == '\\' {
					i++
				}
			}
			if !isName {
				continue
			}
			isName = false
			name := object[start:i]
			if n == maxClaims || bytes.IndexByte(name, '\\') >= 0 {
				return errors.New("claims are not ours")
			}
			for _, other := range names[:n] {
				if bytes.EqualFold(name, other) {
					return errors.New("a claim is there twice")
				}
			}
			names[n] = name
			n++
		}
	}
	return nil
}
