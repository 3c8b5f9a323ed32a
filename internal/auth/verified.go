package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// verified remembers tokens that were found valid, until they expire: a client shows the same one for minutes, and to check it takes
// longer than all else that the program does for a small request. Whether its session goes on is asked each time, elsewhere.
type verified struct {
	mu         sync.RWMutex // protects the maps, not what is in them
	young, old map[tokenHash]Claims
}

// tokenHash stands for a token, so that none is kept.
type tokenHash [sha256.Size]byte

// mostVerified is how many tokens there are before those that were checked longest ago are forgotten; twice as many at most, of about
// 200 bytes each.
const mostVerified = 1 << 14

func newVerified() *verified { return &verified{young: map[tokenHash]Claims{}} }

// find returns what a token says, where it was found valid and has not expired since.
func (v *verified) find(h tokenHash, now time.Time) (c Claims, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if c, ok = v.young[h]; !ok {
		c, ok = v.old[h]
	}
	return c, ok && now.Before(c.ExpiresAt)
}

func (v *verified) add(h tokenHash, c Claims) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.young) >= mostVerified {
		v.old, v.young = v.young, map[tokenHash]Claims{}
	}
	v.young[h] = c
}
