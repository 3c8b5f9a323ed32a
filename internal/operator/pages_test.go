package operator

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNext(t *testing.T) {
	t.Parallel()
	for to, want := range map[string]string{
		"/admin": "/admin", "/admin/": "/admin/", "/admin/users?q=a%20b&after=c": "/admin/users?q=a%20b&after=c", "/jobs": "/jobs", "/jobs/jobs/7": "/jobs/jobs/7",
		"": home, "/": home, "/administrator": home, "/graphql": home, "admin": home, "//example.org/admin": home, "///admin": home, "https://example.org/admin": home,
		"/admin/../graphql": home, "/admin/..": home, "/admin//example.org": home, "/admin/./x": home, "javascript:alert(1)": home, "\\\\example.org": home,
		"/\\example.org/admin": home, "/admin\x00": home, "/jobs/%2e%2e/graphql": home,
	} {
		require.Equal(t, want, next(to), "%q", to)
	}
}

func TestAgo(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0 ms", 999 * time.Millisecond: "999 ms", time.Second: "1 s", 119 * time.Second: "119 s", 2 * time.Minute: "2 min", 119 * time.Minute: "119 min",
		2 * time.Hour: "2 h", 48 * time.Hour: "2 days",
	} {
		require.Equal(t, want, ago(d))
	}
}
