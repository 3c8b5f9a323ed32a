package web

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var playground = Playground(`Sign in as "ada" & friends`)

func get(t *testing.T, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	playground.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(b)
}

func TestIndex(t *testing.T) {
	t.Parallel()
	res := get(t, "/")
	page := body(t, res.Body)

	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "text/html; charset=utf-8", res.Header.Get("Content-Type"))
	require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	require.Contains(t, page, "<title>Godstack playground</title>")
	require.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))
	require.Equal(t, "no-referrer", res.Header.Get("Referrer-Policy"))

	policy := res.Header.Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'")
	require.Contains(t, policy, "script-src 'self';")
	require.Contains(t, policy, "frame-ancestors 'none'")
	require.NotContains(t, policy, "unsafe-eval")
	require.NotContains(t, policy, "blob:")
	require.NotContains(t, strings.ReplaceAll(policy, "style-src-attr 'unsafe-inline'", ""), "unsafe-inline")

	nonce := regexp.MustCompile(`'nonce-(\w{26})'`).FindStringSubmatch(policy)
	require.NotNil(t, nonce, policy)
	require.Contains(t, page, `<meta property="csp-nonce" nonce="`+nonce[1]+`">`)
	require.Contains(t, page, `<meta name="sign-in-hint" content="Sign in as &#34;ada&#34; &amp; friends">`)
	require.NotContains(t, page, noncePlaceholder)
	require.NotContains(t, page, hintPlaceholder)
	require.NotEqual(t, policy, get(t, "/").Header.Get("Content-Security-Policy"), "a nonce is for one answer")
}

func TestAssetsOfIndex(t *testing.T) {
	t.Parallel()
	refs := regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(body(t, get(t, "/").Body), -1)
	require.NotEmpty(t, refs)
	for _, ref := range refs {
		name, relative := strings.CutPrefix(ref[1], "./")
		require.True(t, relative, "%s is not relative", ref[1])
		res := get(t, "/"+name)
		require.Equal(t, http.StatusOK, res.StatusCode, name)
		require.Equal(t, contentTypes[filepath.Ext(name)], res.Header.Get("Content-Type"))
		require.Equal(t, "public, max-age=31536000, immutable", res.Header.Get("Cache-Control"))
	}
}

func TestAssetAnswers(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(dist, "dist/playground/assets/graphql.worker-*.js")
	require.NoError(t, err)
	require.Len(t, names, 1)
	want, err := fs.ReadFile(dist, names[0])
	require.NoError(t, err)
	target := strings.TrimPrefix(names[0], "dist/playground")

	plain := get(t, target)
	require.Equal(t, string(want), body(t, plain.Body))
	require.Equal(t, "Accept-Encoding", plain.Header.Get("Vary"))
	require.Equal(t, http.StatusNotModified, get(t, target, "If-None-Match", plain.Header.Get("ETag")).StatusCode)

	zipped := get(t, target, "Accept-Encoding", "br, gzip")
	require.Equal(t, "gzip", zipped.Header.Get("Content-Encoding"))
	require.NotEqual(t, plain.Header.Get("ETag"), zipped.Header.Get("ETag"))
	z, err := gzip.NewReader(zipped.Body)
	require.NoError(t, err)
	require.Equal(t, string(want), body(t, z))

	require.Empty(t, get(t, target, "Accept-Encoding", "gzip;q=0").Header.Get("Content-Encoding"))
}

func TestEveryAssetIsServed(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(dist, "dist/playground/assets/*")
	require.NoError(t, err)
	require.Greater(t, len(names), 10)
	for _, name := range names {
		require.Contains(t, contentTypes, filepath.Ext(name))
		info, err := fs.Stat(dist, name)
		require.NoError(t, err)
		require.Less(t, info.Size(), int64(4<<20), "%s is too large to be committed", name)
	}
	require.Equal(t, http.StatusOK, get(t, "/licenses.md").StatusCode)
}

func TestNotServed(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/assets/", "/assets/none.js", "/sources.sha256", "/../web.go"} {
		require.Equal(t, http.StatusNotFound, get(t, target).StatusCode, target)
	}
	w := httptest.NewRecorder()
	playground.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
}

// TestNothingFromElsewhere holds that no file makes the browser load something from another host: no page or style sheet by
// reference, no program by import. Addresses in messages and links stay: they are not loaded.
func TestNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	// What stands before an address that is loaded.
	loads := map[string]*regexp.Regexp{
		".css":  regexp.MustCompile(`(?:url\(|@import)\s*["']?$`),
		".html": regexp.MustCompile(`$`),
		".js":   regexp.MustCompile("(?:import|importScripts|fetch|Worker|WebSocket|EventSource|from)\\s*\\(?\\s*[\"'`]$"),
		".svg":  regexp.MustCompile(`(?:href|src)\s*=\s*["']$`),
	}
	address := regexp.MustCompile(`\b(?:http|https|ws|wss)://`)
	err := fs.WalkDir(dist, ".", func(name string, entry fs.DirEntry, err error) error {
		before, ok := loads[filepath.Ext(name)]
		if err != nil || entry.IsDir() || !ok {
			return err
		}
		b, err := fs.ReadFile(dist, name)
		require.NoError(t, err)
		for _, at := range address.FindAllIndex(b, -1) {
			lead := b[max(0, at[0]-40):at[0]]
			require.False(t, before.Match(lead), "%s loads %s", name, b[at[0]:min(len(b), at[1]+40)])
		}
		return nil
	})
	require.NoError(t, err)
}

// TestBuildIsCurrent compares the sums that the build noted with the sources in the tree.
func TestBuildIsCurrent(t *testing.T) {
	t.Parallel()
	stamp, err := fs.ReadFile(dist, "dist/playground/sources.sha256")
	require.NoError(t, err)

	sources := []string{"clients/session.js", "package-lock.json", "package.json", "vite.config.js"}
	err = filepath.WalkDir("playground", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			sources = append(sources, filepath.ToSlash(name))
		}
		return err
	})
	require.NoError(t, err)
	slices.Sort(sources)

	var now strings.Builder
	for _, name := range sources {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		sum := sha256.Sum256(b)
		now.WriteString(hex.EncodeToString(sum[:]) + "  " + name + "\n")
	}
	require.Equal(t, now.String(), string(stamp), "run `npm ci && npm run build` in web/ and commit dist/")
}

func TestLockNamesNoRegistry(t *testing.T) {
	t.Parallel()
	lock, err := os.ReadFile("package-lock.json")
	require.NoError(t, err)
	require.NotContains(t, string(lock), `"resolved"`, "install with --omit-lockfile-registry-resolved")
}

// TestClientsAreAsDocumented holds that every piece of JavaScript in docs/clients.md is in a file that web/e2e runs, but for
// how far it is indented.
func TestClientsAreAsDocumented(t *testing.T) {
	t.Parallel()
	indent := regexp.MustCompile(`(?m)^[ \t]+`)
	var tested strings.Builder
	names, err := filepath.Glob("clients/*.js")
	require.NoError(t, err)
	for _, name := range append(names, "e2e/clients/page.js", "e2e/clients/node.mjs", "e2e/realtime.test.mjs") {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		tested.WriteString(indent.ReplaceAllString(string(b), ""))
	}
	page, err := os.ReadFile("../docs/clients.md")
	require.NoError(t, err)
	snippets := regexp.MustCompile("(?s)```js\n(.*?)```").FindAllSubmatch(page, -1)
	require.NotEmpty(t, snippets)
	var untested []string
	for _, s := range snippets {
		if !strings.Contains(tested.String(), indent.ReplaceAllString(string(s[1]), "")) {
			untested = append(untested, string(s[1]))
		}
	}
	require.Empty(t, untested)
}
