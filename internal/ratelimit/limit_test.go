package ratelimit

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestAQuotaIsExactInSpiteOfRounding(t *testing.T) {
	t.Parallel()
	for _, l := range []Limit{
		{"a", 1, time.Microsecond}, {"a", 7, time.Minute}, {"a", 1500, time.Second}, {"a", 5, time.Hour}, {"a", 1_000_000, time.Second},
	} {
		c, err := l.cell()
		require.NoError(t, err)
		require.Equal(t, l.Quota, int(c.burst/c.interval))
		require.Zero(t, c.burst%c.interval)
		require.LessOrEqual(t, c.burst, l.Window)
		require.Equal(t, l.Quota-1, l.result(c, true, c.interval).Remaining)
		require.Equal(t, Result{Limit: l, ResetAfter: c.burst, RetryAfter: c.interval}, l.result(c, false, c.burst))
	}
}

func TestAnIncompleteLimitIsRefused(t *testing.T) {
	t.Parallel()
	for _, l := range []Limit{{}, {"", 1, time.Second}, {"a", 0, time.Second}, {"a", -1, time.Second}, {"a", 1, 0}, {"a", 2, time.Microsecond}} {
		_, err := NewPostgres(nil).Take(t.Context(), "k", l)
		require.ErrorContains(t, err, "Name, Quota and Window are required", l)
		_, err = NewRedis(nil, "").Take(t.Context(), "k", l)
		require.ErrorContains(t, err, "Name, Quota and Window are required", l)
		_, err = NewPerAddress(nil, l, nil)
		require.ErrorContains(t, err, "Name, Quota and Window are required", l)
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	h := http.Header{}
	login := Limit{"login", 5, time.Minute}
	Result{Limit: login, OK: true, Remaining: 4, ResetAfter: 11500 * time.Millisecond}.WriteHeaders(h.Add)
	require.Equal(t, http.Header{"Ratelimit-Policy": {`"login";q=5;w=60`}, "Ratelimit": {`"login";r=4;t=12`}}, h)
	Result{Limit: Limit{"all", 9, time.Second}, ResetAfter: time.Second, RetryAfter: time.Microsecond}.WriteHeaders(h.Add)
	require.Equal(t, []string{`"login";r=4;t=12`, `"all";r=0;t=1`}, h["Ratelimit"])
	require.Equal(t, []string{"1"}, h["Retry-After"])
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "2001:db8:1:2::": "2001:db8:1:2::", "fe80::1%eth0": "fe80::", "::1": "::",
	} {
		require.Equal(t, want, Address(netip.MustParseAddr(in)), in)
	}
	require.Empty(t, Address(netip.Addr{}))
}

func FuzzStoreKey(f *testing.F) {
	f.Add("192.0.2.1")
	f.Add("a\x00b")
	f.Add(strings.Repeat("ä", 1000))
	f.Fuzz(func(t *testing.T, key string) {
		k := storeKey(Limit{Name: "n"}, key)
		require.Regexp(t, `^n:[ -~]{0,128}$`, k)
		require.Equal(t, k, storeKey(Limit{Name: "n"}, key))
		require.NotEqual(t, k, storeKey(Limit{Name: "n"}, key+"x"))
	})
}
