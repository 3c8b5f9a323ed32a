package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"godstack/internal/record"
	"godstack/internal/turn"
)

// PasswordConfig says how much work a password's hash is. The zero value is OWASP's choice.
type PasswordConfig struct {
	// Memory of one hash in KiB; 19,456 by default, 131,072 at most. Tests use less.
	Memory uint32
	// Time is how often the memory is gone over; 2 by default, 16 at most.
	Time uint32
	// Threads that one hash runs on; 1 by default, 16 at most.
	Threads uint8
	// MaxConcurrent is how many hashes are computed at once, GOMAXPROCS by default. Others wait, so that memory is
	// bounded by MaxConcurrent times Memory, whoever asks for how many: 256 for each, for 15 s at most. The rest is refused.
	MaxConcurrent int
}

// Bounds of what is computed, whatever a configuration or a stored hash says.
const (
	maxMemory  = 128 << 10 // KiB
	maxTime    = 16
	maxThreads = 16

	saltBytes = 16
	hashBytes = 32

	// hashPatience is how long somebody waits for a hash to begin.
	hashPatience = 15 * time.Second

	// maxPasswordBytes bounds the work of normalisation; 64 characters of any script are less.
	maxPasswordBytes = 1 << 10
)

func (c *PasswordConfig) validate() error {
	switch {
	case c.Time < 1 || c.Time > maxTime:
		return fmt.Errorf("Time must be 1 to %d", maxTime)
	case c.Threads < 1 || c.Threads > maxThreads:
		return fmt.Errorf("Threads must be 1 to %d", maxThreads)
	case c.Memory < 8*uint32(c.Threads) || c.Memory > maxMemory:
		return fmt.Errorf("Memory must be 8 KiB a thread to %d KiB", maxMemory)
	case c.MaxConcurrent < 1:
		return errors.New("MaxConcurrent must be positive")
	}
	return nil
}

// Passwords hashes and verifies passwords with Argon2id. A password is normalised first (NFKC, as NIST SP 800-63B
// says), so that it is the same from every keyboard. It is safe for concurrent use.
type Passwords struct {
	cost  argon2Cost
	turns *turn.Queue[struct{}] // one for each hash at work
	dummy string                // what a password is compared with where there is no hash

	key func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte // argon2.IDKey
}

// NewPasswords returns a Passwords; nil is the default configuration.
func NewPasswords(cfg *PasswordConfig) (*Passwords, error) {
	var c PasswordConfig
	if cfg != nil {
		c = *cfg
	}
	if c.Memory == 0 {
		c.Memory = 19 << 10
	}
	if c.Time == 0 {
		c.Time = 2
	}
	if c.Threads == 0 {
		c.Threads = 1
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = runtime.GOMAXPROCS(0)
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("password configuration: %w", err)
	}
	p := &Passwords{
		cost: argon2Cost{memory: c.Memory, time: c.Time, threads: c.Threads},
		key:  argon2.IDKey,
	}
	var err error
	if p.turns, err = turn.New[struct{}](turn.Config{Turns: c.MaxConcurrent, Patience: hashPatience}); err != nil {
		return nil, fmt.Errorf("password configuration: %w", err)
	}
	// No password has it: its hash is random.
	p.dummy = argon2Hash{argon2Cost: p.cost, salt: randomBytes(saltBytes), key: randomBytes(hashBytes)}.String()
	return p, nil
}

// Hash returns the password's hash as a PHC string, `$argon2id$v=19$m=...,t=...,p=...$salt$hash`. It waits for its
// turn and gives up with the context's error, or is refused with UNAVAILABLE. It checks no rules: see [CheckPassword].
func (p *Passwords) Hash(ctx context.Context, password string) (phc string, err error) {
	if len(password) > maxPasswordBytes {
		return "", fmt.Errorf("hash password: longer than %d bytes", maxPasswordBytes)
	}
	h := argon2Hash{argon2Cost: p.cost, salt: randomBytes(saltBytes)}
	if h.key, err = p.compute(ctx, password, h.argon2Cost, h.salt, hashBytes); err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return h.String(), nil
}

// Verify reports whether phc is the password's hash, and if so whether it is outdated: made with less work than
// is configured, so that the caller should store a new one. Where phc is "" it does the same work and says false.
// Errors are the context's, and that phc is not what Hash returns or asks for more work than is bearable.
func (p *Passwords) Verify(ctx context.Context, phc, password string) (ok, outdated bool, err error) {
	known := phc != ""
	if !known {
		phc = p.dummy
	}
	h, err := parseArgon2(phc)
	if err != nil {
		return false, false, fmt.Errorf("verify password: %w", err)
	}
	if len(password) > maxPasswordBytes {
		password, known = "", false
	}
	key, err := p.compute(ctx, password, h.argon2Cost, h.salt, uint32(len(h.key)))
	if err != nil {
		return false, false, fmt.Errorf("verify password: %w", err)
	}
	ok = subtle.ConstantTimeCompare(key, h.key) == 1 && known
	return ok, ok && h.outdated(p.cost), nil
}

// Load says how many hashes are computed, and wait to be, and how many were refused for want of a turn.
func (p *Passwords) Load() turn.Stats { return p.turns.Stats() }

// compute waits for a turn and hashes.
func (p *Passwords) compute(ctx context.Context, password string, c argon2Cost, salt []byte, size uint32) ([]byte, error) {
	var none [2]struct{}
	err := p.turns.Take(ctx, 1, none)
	if refused, ok := errors.AsType[*turn.Refused](err); ok {
		return nil, &record.Error{
			Code: record.Unavailable, Message: "too many passwords to look at at the moment: nothing was done", RetryAfter: refused.After, Err: err,
		}
	}
	if err != nil {
		return nil, err
	}
	defer p.turns.Give(1, none)
	return p.key([]byte(norm.NFKC.String(password)), salt, c.time, c.memory, c.threads, size), nil
}

// argon2Cost is the work of a hash.
type argon2Cost struct {
	memory, time uint32
	threads      uint8
}

// argon2Hash is a hash as it is stored.
type argon2Hash struct {
	argon2Cost
	salt, key []byte
}

var errPHC = errors.New("not an Argon2id hash of ours")

// parseArgon2 reads a PHC string. There is one way to write each hash, and every number is bounded, so that a
// string from elsewhere can exhaust nothing.
func parseArgon2(phc string) (argon2Hash, error) {
	var h argon2Hash
	parts := strings.Split(phc, "$")
	if len(phc) > 256 || len(parts) != 6 {
		return argon2Hash{}, errPHC
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil {
		return argon2Hash{}, errPHC
	}
	h.salt, _ = base64.RawStdEncoding.DecodeString(parts[4])
	h.key, _ = base64.RawStdEncoding.DecodeString(parts[5])
	if h.String() != phc || len(h.salt) < 8 || len(h.key) < 16 || len(h.key) > 64 {
		return argon2Hash{}, errPHC
	}
	if h.time < 1 || h.time > maxTime || h.threads < 1 || h.threads > maxThreads ||
		h.memory < 8*uint32(h.threads) || h.memory > maxMemory {
		return argon2Hash{}, errPHC
	}
	return h, nil
}

func (h argon2Hash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

// outdated reports whether h was less work than now.
func (h argon2Hash) outdated(now argon2Cost) bool {
	return h.memory < now.memory || h.time < now.time || h.threads < now.threads ||
		len(h.salt) < saltBytes || len(h.key) < hashBytes
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it crashes the program instead
	return b
}
