package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Limit is how often something may happen.
type Limit struct {
	// Name tells limits apart, in the store and in RateLimit headers: letters, digits, "-" and "_". Required.
	Name string
	// Quota is how much is granted at once, and within one Window in the long run. At least 1.
	Quota int
	// Window is the time in which a Quota that was used up comes back, evenly. At least 1 µs for each unit of Quota.
	Window time.Duration
}

// Result is the answer to a take.
type Result struct {
	// Limit is the one that was asked for.
	Limit Limit
	// OK is whether it was granted.
	OK bool
	// Remaining is how much more would be granted now.
	Remaining int
	// ResetAfter is when all of the Quota is there again.
	ResetAfter time.Duration
	// RetryAfter is when to ask again; 0 where OK.
	RetryAfter time.Duration
}

// Store grants or refuses one unit of a key. Keys of limits with different names are different. It returns an error,
// and grants nothing, where it cannot tell.
type Store interface {
	Take(ctx context.Context, key string, l Limit) (Result, error)
}

// WriteHeaders calls add with the headers that tell a client of r: RateLimit-Policy and RateLimit (as of the IETF's
// draft "RateLimit header fields for HTTP"), and Retry-After where it was refused. Of several limits each adds a line.
func (r Result) WriteHeaders(add func(name, value string)) {
	name := `"` + r.Limit.Name + `"`
	add("RateLimit-Policy", name+";q="+strconv.Itoa(r.Limit.Quota)+";w="+seconds(r.Limit.Window))
	add("RateLimit", name+";r="+strconv.Itoa(r.Remaining)+";t="+seconds(r.ResetAfter))
	if !r.OK {
		add("Retry-After", seconds(r.RetryAfter))
	}
}

// seconds rounds up: whoever waits so long has waited enough.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// Address returns what stands for a client's address in keys: the address, or the network of 64 bits that one
// customer has of IPv6. It is "" where a is not valid.
func Address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return network(a).String()
}

// Plain is a in the form that prefixes contain: IPv4 as such, and without a zone, which is a name of this machine's.
func Plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func network(a netip.Addr) netip.Addr {
	a = Plain(a)
	if a.Is6() {
		p, _ := a.Prefix(64) // 64 bits there are
		a = p.Addr()
	}
	return a
}

// cell is a limit in GCRA's terms, in microseconds: a take moves a key's time on by interval, and may move it no
// further than burst ahead of the clock.
type cell struct{ interval, burst time.Duration }

func (l Limit) cell() (cell, error) {
	if l.Name == "" || l.Quota < 1 || l.Window/time.Microsecond < time.Duration(l.Quota) {
		return cell{}, fmt.Errorf("ratelimit: limit %q of %d in %s: Name, Quota and Window are required", l.Name, l.Quota, l.Window)
	}
	interval := (l.Window / time.Duration(l.Quota)).Truncate(time.Microsecond)
	return cell{interval, interval * time.Duration(l.Quota)}, nil // a multiple, so that rounding grants no more at once
}

// result is the answer where the key's time is ahead of the clock: after the take, or where it was refused.
func (l Limit) result(c cell, ok bool, ahead time.Duration) Result {
	r := Result{Limit: l, OK: ok, ResetAfter: max(ahead, 0), Remaining: max(int((c.burst-ahead)/c.interval), 0)}
	if !ok {
		r.Remaining = 0
		r.RetryAfter = max(ahead+c.interval-c.burst, time.Microsecond)
	}
	return r
}

// longestKey is the longest that is stored as it is, in bytes.
const longestKey = 128

// storeKey is the name of a key in a store. What is long, or more than printable ASCII, is hashed: a key may come from
// a client.
func storeKey(l Limit, key string) string {
	plain := len(key) <= longestKey
	for i := 0; plain && i < len(key); i++ {
		plain = ' ' <= key[i] && key[i] <= '~'
	}
	if !plain {
		sum := sha256.Sum256([]byte(key))
		key = "#" + hex.EncodeToString(sum[:])
	}
	return l.Name + ":" + key
}
