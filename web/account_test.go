package web

import (
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var accountPages = []string{"/verify-email", "/reset-password", "/revert-email"}

// account returns a function that asks for a target of the pages of an application.
func account(app string) func(method, target string, header ...string) *http.Response {
	mux := http.NewServeMux()
	for pattern, h := range Account(app) {
		mux.Handle(pattern, h)
	}
	return func(method, target string, header ...string) *http.Response {
		r := httptest.NewRequest(method, target, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Result()
	}
}

// AccountDocuments are all that account.js sends.
func TestAccountDocuments(t *testing.T) {
	t.Parallel()
	script, err := accountFiles.ReadFile("account/account.js")
	require.NoError(t, err)
	var sent []string
	for _, m := range regexp.MustCompile(`'((?:query|mutation)\b[^']*)'`).FindAllSubmatch(script, -1) {
		sent = append(sent, string(m[1]))
	}
	require.ElementsMatch(t, sent, AccountDocuments)
}

func TestAccountPages(t *testing.T) {
	t.Parallel()
	ask := account("")
	for _, target := range accountPages {
		res := ask(http.MethodGet, target+"?token=got_secret")
		page := body(t, res.Body)
		require.Equal(t, http.StatusOK, res.StatusCode, target)
		require.Equal(t, "text/html; charset=utf-8", res.Header.Get("Content-Type"))
		require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
		require.Equal(t, "no-referrer", res.Header.Get("Referrer-Policy"))
		require.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))
		require.Equal(t, "same-origin", res.Header.Get("Cross-Origin-Opener-Policy"))
		require.Equal(t, "same-origin", res.Header.Get("Cross-Origin-Resource-Policy"))
		require.Empty(t, res.Header.Values("Set-Cookie"))

		policy := res.Header.Get("Content-Security-Policy")
		for _, directive := range []string{
			"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "form-action 'none'", "base-uri 'none'",
			"frame-ancestors 'none'", "require-trusted-types-for 'script'",
		} {
			require.Contains(t, strings.Split(policy, "; "), directive)
		}
		require.NotContains(t, policy, "unsafe")

		require.Contains(t, page, `<body data-page="`+target[1:]+`">`)
		require.NotContains(t, page, "got_secret", "nothing of the address is in the page")
		require.NotContains(t, page, "{{")
		require.NotRegexp(t, `(?i)<style|\sstyle=|\son\w+=|javascript:`, page, "no style or script within the page")
		for _, script := range regexp.MustCompile(`(?s)<script[^>]*>.*?</script>`).FindAllString(page, -1) {
			require.Equal(t, `<script type="module" src="account/account.js"></script>`, script)
		}
		require.Equal(t, http.StatusOK, ask(http.MethodHead, target).StatusCode)
		require.Equal(t, http.StatusMethodNotAllowed, ask(http.MethodPost, target).StatusCode)
	}
}

func TestAccountPagesNameTheApplication(t *testing.T) {
	t.Parallel()
	require.Contains(t, body(t, account("")(http.MethodGet, "/verify-email").Body), "<title>Confirm your mail address · Godstack</title>")
	page := body(t, account(`A & "B"<script>`)(http.MethodGet, "/verify-email").Body)
	require.Contains(t, page, "<title>Confirm your mail address · A &amp; &#34;B&#34;&lt;script&gt;</title>")
	require.NotContains(t, page, "<script>")
}

// What a page loads is there, by an address relative to it.
func TestAccountFiles(t *testing.T) {
	t.Parallel()
	ask := account("")
	loaded := map[string]bool{}
	for _, target := range accountPages {
		for _, ref := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(body(t, ask(http.MethodGet, target).Body), -1) {
			if ref[1] != "./" { // a link
				loaded[ref[1]] = true
			}
		}
	}
	require.Equal(t, map[string]bool{"account/account.css": true, "account/account.js": true, "account/icon.svg": true}, loaded)
	for name, contentType := range map[string]string{
		"account.css": "text/css; charset=utf-8", "account.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		res := ask(http.MethodGet, "/account/"+name)
		require.Equal(t, http.StatusOK, res.StatusCode, name)
		require.Equal(t, contentType, res.Header.Get("Content-Type"))
		require.Equal(t, "no-cache", res.Header.Get("Cache-Control"))
		require.Equal(t, "no-referrer", res.Header.Get("Referrer-Policy"))
		require.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))
		require.Contains(t, res.Header.Get("Content-Security-Policy"), "default-src 'none'")
		file := strings.ReplaceAll(body(t, res.Body), `xmlns="http://www.w3.org/2000/svg"`, "")
		require.NotContains(t, file, "://", "nothing from elsewhere")
		again := ask(http.MethodGet, "/account/"+name, "If-None-Match", res.Header.Get("ETag"))
		require.Equal(t, http.StatusNotModified, again.StatusCode)
	}
	for _, target := range []string{"/account/", "/account/account.html", "/account/none.js", "/verify-email/", "/"} {
		require.Equal(t, http.StatusNotFound, ask(http.MethodGet, target).StatusCode, target)
	}
}

// Each field has a label, and what is said of it, by ids that are there once.
func TestAccountFields(t *testing.T) {
	t.Parallel()
	ask := account("")
	for _, target := range accountPages {
		page := body(t, ask(http.MethodGet, target).Body)
		ids := map[string]int{}
		for _, id := range regexp.MustCompile(`\sid="([^"]*)"`).FindAllStringSubmatch(page, -1) {
			ids[id[1]]++
			require.Equal(t, 1, ids[id[1]], "%s: %s", target, id[1])
		}
		inputs := regexp.MustCompile(`<input [^>]*>`).FindAllString(page, -1)
		require.NotEmpty(t, inputs)
		for _, input := range inputs {
			id := regexp.MustCompile(` id="([^"]*)"`).FindStringSubmatch(input)
			require.NotNil(t, id, input)
			require.True(t, strings.Contains(page, `<label for="`+id[1]+`">`) || strings.Contains(page, `<label class="choice">`+input), input)
			if described := regexp.MustCompile(`aria-describedby="([^"]*)"`).FindStringSubmatch(input); described != nil {
				for name := range strings.FieldsSeq(described[1]) {
					require.Contains(t, ids, name, input)
				}
			}
		}
		require.Regexp(t, `<p id="progress" role="status"></p>`, page)
		require.Equal(t, 2, strings.Count(page, `<p class="failure" role="alert"></p>`), "each form says what went wrong")
		require.Contains(t, page, `<html lang="en">`)
		require.Contains(t, page, `<main>`)
		require.NotRegexp(t, `user-scalable|maximum-scale|tabindex="[1-9]`, page)
	}
}

// Text stands out from what is behind it by 4.5 to 1, and the edge of a field by 3 to 1, as of WCAG 2.2 AA, in light and
// dark.
func TestAccountContrast(t *testing.T) {
	t.Parallel()
	css, err := fs.ReadFile(accountFiles, "account/account.css")
	require.NoError(t, err)
	roots := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(css), -1)
	require.Len(t, roots, 2, "light and dark")
	for i, root := range roots {
		colours := map[string]float64{}
		for _, c := range regexp.MustCompile(`--([\w-]+): #([0-9a-f]+);`).FindAllStringSubmatch(root[1], -1) {
			colours[c[1]] = luminance(t, c[2])
		}
		require.Len(t, colours, 9)
		for pair, least := range map[string]float64{
			"text on page": 4.5, "text on card": 4.5, "faint on card": 4.5, "accent on card": 4.5, "on-accent on accent": 4.5,
			"wrong on card": 4.5, "wrong on wrong-page": 4.5, "line on card": 3,
		} {
			over, under, _ := strings.Cut(pair, " on ")
			a, b := colours[over]+0.05, colours[under]+0.05
			require.GreaterOrEqual(t, math.Max(a, b)/math.Min(a, b), least, fmt.Sprint(pair, " of ", i))
		}
	}
}

// luminance is the relative luminance of a colour, as of WCAG.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	require.Len(t, hex, 6)
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		require.NoError(t, err)
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
