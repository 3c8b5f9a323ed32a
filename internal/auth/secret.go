package auth

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	minKeyBytes = 32      // of every key
	maxKeyText  = 1 << 10 // of every key as it is written
)

// Secrets derives and encrypts with the keys of SECRET_KEYS. The first key is used and all are accepted, so that a
// key is replaced by putting a new one in front and dropping the old one when nothing made with it is left.
// It is safe for concurrent use.
type Secrets struct {
	keys [][]byte
}

// ParseSecrets reads keys: separated by commas, each of 32 bytes or more, in hexadecimal or as base64url with or
// without padding. A key that is short, repeats itself, counts, or reads like text is refused. The error says which
// key it is by its position, from 1, and never shows it.
func ParseSecrets(text string) (*Secrets, error) {
	s := &Secrets{}
	for i, item := range strings.Split(text, ",") {
		key, err := decodeKey(strings.TrimSpace(item))
		if err != nil {
			return nil, fmt.Errorf("key %d %w", i+1, err)
		}
		for j, k := range s.keys {
			if bytes.Equal(k, key) {
				return nil, fmt.Errorf("key %d is key %d again", i+1, j+1)
			}
		}
		s.keys = append(s.keys, key)
	}
	return s, nil
}

// Derive returns 32 bytes that the first key, the purpose and the parts of the message determine and that tell
// nothing of the key: HMAC-SHA256 with a subkey of the purpose. Parts are framed: ("ab", "c") is not ("a", "bc").
func (s *Secrets) Derive(purpose string, message ...[]byte) []byte {
	return derive(s.keys[0], purpose, message)
}

// DeriveAll is Derive with each key, in order.
func (s *Secrets) DeriveAll(purpose string, message ...[]byte) [][]byte {
	all := make([][]byte, len(s.keys))
	for i, key := range s.keys {
		all[i] = derive(key, purpose, message)
	}
	return all
}

func derive(key []byte, purpose string, message [][]byte) []byte {
	mac := hmac.New(sha256.New, subkey(key, "derive", purpose))
	for _, part := range message {
		_ = binary.Write(mac, binary.BigEndian, uint64(len(part))) // a hash takes everything
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// Seal encrypts plain for a purpose with the first key (XChaCha20-Poly1305, a random nonce in front). What it is
// bound to, such as the id of its row, is not in the result and must be the same at Open.
func (s *Secrets) Seal(purpose string, plain, bound []byte) []byte {
	aead := newAEAD(s.keys[0], purpose)
	nonce := randomBytes(aead.NonceSize())
	return aead.Seal(nonce, nonce, plain, bound)
}

// errSealed says no more, since there is nothing more to know.
var errSealed = errors.New("open: sealed with another key, for something else, or altered")

// Open decrypts what Seal made with any of the keys. It is an error where the purpose or what it is bound to
// differ, where it was altered, and where its key is gone.
func (s *Secrets) Open(purpose string, sealed, bound []byte) ([]byte, error) {
	if len(sealed) < chacha20poly1305.NonceSizeX {
		return nil, errSealed
	}
	nonce, sealed := sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:]
	for _, key := range s.keys {
		if plain, err := newAEAD(key, purpose).Open(nil, nonce, sealed, bound); err == nil {
			return plain, nil
		}
	}
	return nil, errSealed
}

func newAEAD(key []byte, purpose string) cipher.AEAD {
	aead, err := chacha20poly1305.NewX(subkey(key, "seal", purpose))
	if err != nil {
		panic(err) // the subkey has the cipher's size
	}
	return aead
}

// subkey returns the key of one use, so that no two uses share one.
func subkey(key []byte, use, purpose string) []byte {
	sub, err := hkdf.Key(sha256.New, key, nil, "godstack "+use+" "+purpose, chacha20poly1305.KeySize)
	if err != nil {
		panic(err) // SHA-256 gives up to 8,160 bytes
	}
	return sub
}

// GenerateSecret returns a new key for SECRET_KEYS: 32 random bytes as base64url.
func GenerateSecret() string {
	for {
		text := base64.RawURLEncoding.EncodeToString(randomBytes(minKeyBytes))
		if _, err := decodeKey(text); err == nil { // one in millions reads like a word
			return text
		}
	}
}

// decodeKey reads a key and refuses a weak one. Its errors continue a sentence that names the key, and do not
// show it.
func decodeKey(text string) ([]byte, error) {
	if text == "" {
		return nil, errors.New("is empty")
	}
	if len(text) > maxKeyText {
		return nil, fmt.Errorf("is longer than %d characters", maxKeyText)
	}
	key, err := hex.DecodeString(text)
	isHex := err == nil
	if !isHex {
		key, err = base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	}
	if err == nil && len(key) < minKeyBytes {
		return nil, fmt.Errorf("is shorter than %d bytes", minKeyBytes)
	}
	if reason := weakText(text, isHex); reason != "" { // says more than that it cannot be read
		return nil, errors.New(reason)
	}
	if err != nil {
		return nil, errors.New("is neither hexadecimal nor base64url")
	}
	if reason := weakBytes(key); reason != "" {
		return nil, errors.New(reason)
	}
	return key, nil
}

// knownWords are what placeholders and documentation say. Each has six letters or more: shorter ones occur in
// random text.
var knownWords = []string{
	"secret", "changeme", "change-me", "change_me", "password", "passwort", "default", "example", "insecure",
	"godstack", "development", "replace", "placeholder", "supersecret", "qwerty", "abcdef", "123456", "letmein",
	"deadbeef", "cafebabe", "yourkey", "your-key", "your_key",
}

// weakText says what is wrong with a key as it is written, "" if nothing is.
func weakText(text string, isHex bool) string {
	lower := strings.ToLower(text)
	for _, word := range knownWords {
		if isHex && strings.Trim(word, "0123456789abcdef") == "" && word != "deadbeef" && word != "cafebabe" {
			continue // random digits may well be these
		}
		if strings.Contains(lower, word) {
			return "contains a well-known word"
		}
	}
	switch {
	case repeats([]byte(text)):
		return "repeats itself"
	case counts([]byte(text)):
		return "is a sequence"
	case !isHex && (lower == text || strings.ToUpper(text) == text): // by chance once in 10^9
		return "is text, not random bytes"
	case !isHex && guesses(text) < 1e28: // random ones have 10^30 and more
		return "reads like words, not random bytes"
	}
	return ""
}

// weakBytes says what is wrong with a key, "" if nothing is.
func weakBytes(key []byte) string {
	distinct := map[byte]bool{}
	printable := true
	for _, b := range key {
		distinct[b] = true
		printable = printable && b >= ' ' && b <= '~'
	}
	switch {
	case repeats(key):
		return "repeats itself"
	case counts(key):
		return "is a sequence"
	case printable:
		return "is text, not random bytes"
	case len(distinct) < minKeyBytes/2: // 32 random bytes have 30 distinct ones
		return "has too few distinct bytes"
	}
	return ""
}

// repeats reports whether b is a shorter cycle, gone through twice or more.
func repeats(b []byte) bool {
	for n := 1; n <= len(b)/2; n++ {
		if bytes.Equal(b[n:], b[:len(b)-n]) {
			return true
		}
	}
	return false
}

// counts reports whether half of the steps from byte to byte are the same, as in 01 02 03.
func counts(b []byte) bool {
	steps := map[byte]int{}
	for i := 1; i < len(b); i++ {
		steps[b[i]-b[i-1]]++
	}
	for _, n := range steps {
		if n > 1 && n >= len(b)/2 {
			return true
		}
	}
	return false
}
