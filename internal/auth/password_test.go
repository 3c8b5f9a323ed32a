package auth

import (
	"context"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"

	"godstack/internal/record"
)

// cheap is a configuration for tests.
var cheap = PasswordConfig{Memory: 64, Time: 1}

func mustPasswords(t testing.TB, cfg PasswordConfig) *Passwords {
	t.Helper()
	p, err := NewPasswords(&cfg)
	require.NoError(t, err)
	return p
}

func TestPasswordsDefault(t *testing.T) {
	t.Parallel()
	p, err := NewPasswords(nil)
	require.NoError(t, err)
	phc, err := p.Hash(t.Context(), "correct horse")
	require.NoError(t, err)
	require.Regexp(t, `^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`, phc)
	require.Equal(t, runtime.GOMAXPROCS(0), p.Load().Turns)

	again, err := p.Hash(t.Context(), "correct horse")
	require.NoError(t, err)
	require.NotEqual(t, phc, again, "salted")

	ok, outdated, err := p.Verify(t.Context(), phc, "correct horse")
	require.NoError(t, err)
	require.True(t, ok)
	require.False(t, outdated)
	ok, outdated, err = p.Verify(t.Context(), phc, "correct horse ")
	require.NoError(t, err)
	require.False(t, ok)
	require.False(t, outdated)
}

// The reference implementation's answer (its own test of version 0x13): what is stored elsewhere is understood here.
func TestVerifyReference(t *testing.T) {
	t.Parallel()
	p := mustPasswords(t, cheap)
	ok, outdated, err := p.Verify(t.Context(),
		"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password")
	require.NoError(t, err)
	require.True(t, ok)
	require.True(t, outdated, "a salt of 8 bytes")
}

func TestVerifyNormalises(t *testing.T) {
	t.Parallel()
	p := mustPasswords(t, cheap)
	composed, decomposed, wide := "Zo\u00eb likes caf\u00e9 \ufb01lm 2", "Zoe\u0308 likes cafe\u0301 film 2", "Ｚoë likes café film ２"
	phc, err := p.Hash(t.Context(), composed)
	require.NoError(t, err)
	for _, password := range []string{composed, decomposed, wide} {
		ok, _, err := p.Verify(t.Context(), phc, password)
		require.NoError(t, err)
		require.True(t, ok, password)
	}
	ok, _, err := p.Verify(t.Context(), phc, strings.ToLower(composed))
	require.NoError(t, err)
	require.False(t, ok)
}

func TestVerifyOutdated(t *testing.T) {
	t.Parallel()
	now := PasswordConfig{Memory: 128, Time: 2, Threads: 2}
	p := mustPasswords(t, now)
	for _, c := range []struct {
		then     PasswordConfig
		outdated bool
	}{
		{now, false},
		{PasswordConfig{Memory: 256, Time: 3, Threads: 2}, false},
		{PasswordConfig{Memory: 127, Time: 2, Threads: 2}, true},
		{PasswordConfig{Memory: 256, Time: 1, Threads: 2}, true},
		{PasswordConfig{Memory: 128, Time: 2, Threads: 1}, true},
	} {
		phc, err := mustPasswords(t, c.then).Hash(t.Context(), "secret")
		require.NoError(t, err)
		ok, outdated, err := p.Verify(t.Context(), phc, "secret")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, c.outdated, outdated, phc)
		ok, outdated, err = p.Verify(t.Context(), phc, "wrong")
		require.NoError(t, err)
		require.False(t, ok || outdated, "a wrong password's hash is nobody's to replace")
	}
}

func TestPasswordConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []PasswordConfig{
		{Memory: 7}, {Memory: 16, Threads: 4}, {Memory: maxMemory + 1}, {Time: maxTime + 1}, {Threads: maxThreads + 1}, {MaxConcurrent: -1},
	} {
		_, err := NewPasswords(&c)
		require.ErrorContains(t, err, "password configuration: ")
	}
}

func TestHashRefusesLength(t *testing.T) {
	t.Parallel()
	p := mustPasswords(t, cheap)
	_, err := p.Hash(t.Context(), strings.Repeat("x", maxPasswordBytes+1))
	require.Error(t, err)
}

// counted counts the hashes that p computes, and how much work each is.
func counted(p *Passwords) (work func() []string) {
	var mu sync.Mutex
	var all []string
	p.key = func(password, salt []byte, time, memory uint32, threads uint8, size uint32) []byte {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, fmt.Sprint(len(salt), time, memory, threads, size))
		return argon2.IDKey(password, salt, time, memory, threads, size)
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func TestVerifyWorksAsMuchForNobody(t *testing.T) {
	t.Parallel()
	p := mustPasswords(t, cheap)
	phc, err := p.Hash(t.Context(), "secret")
	require.NoError(t, err)
	work := counted(p)
	for _, c := range []struct{ phc, password string }{
		{phc, "secret"}, {phc, "wrong"}, {"", "secret"}, {"", ""}, {phc, ""},
		{phc, strings.Repeat("x", maxPasswordBytes+1)}, {"", strings.Repeat("x", 1<<20)},
	} {
		ok, outdated, err := p.Verify(t.Context(), c.phc, c.password)
		require.NoError(t, err)
		require.Equal(t, c == struct{ phc, password string }{phc, "secret"}, ok)
		require.False(t, outdated)
	}
	require.Len(t, work(), 7)
	for _, w := range work() {
		require.Equal(t, "16 1 64 1 32", w)
	}
}

// An empty password's hash is what a long password is compared with: it must not match it.
func TestVerifyLongIsNotEmpty(t *testing.T) {
	t.Parallel()
	p := mustPasswords(t, cheap)
	phc, err := p.Hash(t.Context(), "")
	require.NoError(t, err)
	ok, _, err := p.Verify(t.Context(), phc, strings.Repeat("x", maxPasswordBytes+1))
	require.NoError(t, err)
	require.False(t, ok)
}

func TestParseArgon2Refuses(t *testing.T) {
	t.Parallel()
	salt, key := base64.RawStdEncoding.EncodeToString(randomBytes(16)), base64.RawStdEncoding.EncodeToString(randomBytes(32))
	phc := func(params string) string { return "$argon2id$v=19$" + params + "$" + salt + "$" + key }
	_, err := parseArgon2(phc("m=19456,t=2,p=1"))
	require.NoError(t, err)
	good := strings.TrimSuffix(phc("m=19456,t=2,p=1"), key)

	p := mustPasswords(t, cheap)
	work := counted(p)
	for _, text := range []string{
		"$", "$$$$$", "secret", "$2a$10$abcdefghijklmnopqrstuu", good, good + key + "$", good + key + "=", good + key + " ", " " + good + key,
		good + "c2hvcnQ", good + key[:42] + "/", strings.Replace(good, salt, "c2FsdA", 1) + key, strings.Replace(good, salt, "", 1) + key,
		strings.Replace(good, "argon2id", "argon2i", 1) + key, strings.Replace(good, "argon2id", "argon2d", 1) + key,
		strings.Replace(good, "v=19", "v=16", 1) + key, strings.Replace(good, "$v=19", "", 1) + key,
		phc("m=19456,t=2"), phc("m=19456,t=2,p=1,x=1"), phc("t=2,m=19456,p=1"), phc("m=019456,t=2,p=1"), phc("m=+19456,t=2,p=1"),
		phc("m= 19456,t=2,p=1"), phc("m=0x4c00,t=2,p=1"), phc("m=-1,t=2,p=1"), phc("m=7,t=2,p=1"), phc("m=15,t=2,p=2"),
		phc("m=0,t=2,p=1"), phc("m=19456,t=0,p=1"), phc("m=19456,t=2,p=0"),
		phc("m=4294967295,t=1,p=1"), phc("m=4294967296,t=1,p=1"), phc("m=131073,t=1,p=1"), phc("m=19456,t=4294967295,p=1"),
		phc("m=19456,t=17,p=1"), phc("m=19456,t=2,p=17"), phc("m=19456,t=2,p=255"), phc("m=19456,t=2,p=256"),
		good + strings.Repeat("A", 300), good + base64.RawStdEncoding.EncodeToString(randomBytes(150)),
	} {
		ok, _, err := p.Verify(t.Context(), text, "secret")
		require.ErrorIs(t, err, errPHC, text)
		require.False(t, ok)
	}
	require.Empty(t, work(), "nothing is computed for them")
}

// 200 sign in at once: memory holds a few hashes at a time, and everybody is answered.
func TestPasswordsBounded(t *testing.T) {
	t.Parallel()
	const logins, slots = 200, 2
	p := mustPasswords(t, PasswordConfig{Memory: 1 << 10, Time: 1, MaxConcurrent: slots})
	phc, err := p.Hash(t.Context(), "secret")
	require.NoError(t, err)

	var running, peak, answered atomic.Int64
	p.key = func(password, salt []byte, time, memory uint32, threads uint8, size uint32) []byte {
		n := running.Add(1)
		defer running.Add(-1)
		for {
			if old := peak.Load(); n <= old || peak.CompareAndSwap(old, n) {
				break
			}
		}
		runtime.Gosched()
		return argon2.IDKey(password, salt, time, memory, threads, size)
	}
	var wg sync.WaitGroup
	for i := range logins {
		wg.Go(func() {
			password, hash := "secret", phc
			if i%2 == 1 {
				password, hash = "wrong", ""
			}
			if ok, _, err := p.Verify(t.Context(), hash, password); err == nil && ok == (i%2 == 0) {
				answered.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, logins, answered.Load())
	require.LessOrEqual(t, peak.Load(), int64(slots))
	require.Zero(t, running.Load())
	require.Zero(t, p.Load().Taken)
}

func TestPasswordsGiveUp(t *testing.T) {
	t.Parallel()
	p := mustPasswords(t, PasswordConfig{Memory: 64, Time: 1, MaxConcurrent: 1})
	started, release := make(chan struct{}), make(chan struct{})
	p.key = func([]byte, []byte, uint32, uint32, uint8, uint32) []byte {
		close(started)
		<-release
		return make([]byte, hashBytes)
	}
	done := make(chan error)
	go func() {
		_, err := p.Hash(context.Background(), "secret")
		done <- err
	}()
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := p.Hash(ctx, "secret")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, _, err = p.Verify(ctx, "", "secret")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	close(release)
	require.NoError(t, <-done)

	// A slot is free, and nobody waits for the answer any more.
	_, err = p.Hash(ctx, "secret")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Zero(t, p.Load().Taken)
}

// TestPasswordsAreRefused: who would wait for too long, or for too many, is told to come again.
func TestPasswordsAreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := mustPasswords(t, PasswordConfig{Memory: 64, Time: 1, MaxConcurrent: 1})
		require.NoError(t, p.turns.Take(t.Context(), 1, [2]struct{}{}))
		late := make(chan error, 256)
		for range cap(late) {
			go func() {
				_, err := p.Hash(t.Context(), "secret")
				late <- err
			}()
		}
		synctest.Wait()
		_, _, err := p.Verify(t.Context(), "", "secret")
		refused(t, err, record.Unavailable)
		start := time.Now()
		for range cap(late) {
			require.Positive(t, refusal(t, <-late, record.Unavailable).RetryAfter)
		}
		require.Equal(t, hashPatience, time.Since(start))
		p.turns.Give(1, [2]struct{}{})
		_, err = p.Hash(t.Context(), "secret")
		require.NoError(t, err, "nothing stays of them")
	})
}

func FuzzParseArgon2(f *testing.F) {
	p := mustPasswords(f, cheap)
	f.Add(p.dummy)
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2id$v=19$m=4294967295,t=4294967295,p=255$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Fuzz(func(t *testing.T, phc string) {
		h, err := parseArgon2(phc)
		if err != nil {
			require.Empty(t, h)
			return
		}
		require.Equal(t, phc, h.String())
		require.LessOrEqual(t, h.memory, uint32(maxMemory))
		require.GreaterOrEqual(t, h.memory, 8*uint32(h.threads))
		require.LessOrEqual(t, h.time, uint32(maxTime))
		require.LessOrEqual(t, h.threads, uint8(maxThreads))
	})
}

func BenchmarkHash(b *testing.B) {
	p, err := NewPasswords(nil)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Hash(b.Context(), "correct horse battery staple"); err != nil {
			b.Fatal(err)
		}
	}
}
