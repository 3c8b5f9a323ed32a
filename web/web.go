// Package web serves the pages that the program carries inside.
//
// Guarantees:
//   - Everything a page needs is embedded: it works without any other host, and asks none.
//   - Pages carry a Content-Security-Policy without inline or evaluated script; style elements need the nonce of the answer.
//   - Assets are named after their content and cached for good; index.html is never cached.
//   - The embedded build is the one of the sources beside it.
//
// It is a leaf: it imports the standard library only. See README.md for how the pages are built.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

//go:embed all:dist/playground
var dist embed.FS

// What stands in the built index.html where the nonce of an answer and the hint belong.
const (
	noncePlaceholder = "{{nonce}}"
	hintPlaceholder  = "{{hint}}"
)

// pagePolicy is the Content-Security-Policy of a page, with its nonce to fill in. The editor sets style attributes in HTML
// that it makes, hence style-src-attr, and images and fonts in style sheets as data.
const pagePolicy = "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; " +
	"style-src-elem 'self' 'nonce-%s'; style-src-attr 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// assetPolicy holds for an asset that is opened as a worker, which obeys the policy of its own script, or by itself.
const assetPolicy = "default-src 'none'; script-src 'self'; frame-ancestors 'none'"

// contentTypes is by extension, so that answers do not depend on the tables of the machine.
var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".md":   "text/plain; charset=utf-8",
	".svg":  "image/svg+xml",
	".ttf":  "font/ttf",
}

// Playground answers the GraphQL playground: index.html at its root, its assets below. Mount it under a path that ends in
// a slash, with the prefix stripped. The page sends operations to /graphql of its own origin, by POST and, for
// subscriptions, by graphql-transport-ws. hint is shown to who wants to sign in; "" says nothing.
func Playground(hint string) http.Handler {
	files, err := fs.Sub(dist, "dist/playground")
	if err != nil {
		panic(err) // the name is a constant
	}
	s := newSite(files)
	s.index = bytes.ReplaceAll(s.index, []byte(hintPlaceholder), []byte(html.EscapeString(hint)))
	return s
}

// site serves one built page.
type site struct {
	index  []byte
	assets map[string]*asset
}

type asset struct {
	contentType  string
	cacheControl string
	hash         string
	plain        []byte
	zipped       func() []byte // made when first asked for; nil where zipping gains nothing
}

func newSite(files fs.FS) *site {
	s := &site{assets: map[string]*asset{}}
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		contentType, ok := contentTypes[path.Ext(name)]
		if !ok {
			return nil // not for the browser
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if name == "index.html" {
			s.index = body
			return nil
		}
		s.assets[name] = newAsset(name, contentType, body)
		return nil
	})
	if err != nil {
		panic(fmt.Errorf("read embedded files: %w", err)) // nothing in memory can fail
	}
	return s
}

func newAsset(name, contentType string, body []byte) *asset {
	sum := sha256.Sum256(body)
	a := &asset{
		contentType:  contentType,
		cacheControl: "no-cache",
		hash:         hex.EncodeToString(sum[:16]),
		plain:        body,
	}
	if strings.HasPrefix(name, "assets/") { // their names have a hash of what is in them
		a.cacheControl = "public, max-age=31536000, immutable"
	}
	if len(body) > 1024 {
		a.zipped = sync.OnceValue(func() []byte {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = z.Write(body) // a buffer does not fail
			_ = z.Close()
			return b.Bytes()
		})
	}
	return a
}

// ServeHTTP implements [http.Handler].
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")

	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" || name == "index.html" {
		s.serveIndex(w)
		return
	}
	a, ok := s.assets[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	a.serve(w, r)
}

func (s *site) serveIndex(w http.ResponseWriter) {
	nonce := rand.Text()
	h := w.Header()
	h.Set("Content-Type", contentTypes[".html"])
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", fmt.Sprintf(pagePolicy, nonce))
	_, _ = w.Write(bytes.ReplaceAll(s.index, []byte(noncePlaceholder), []byte(nonce))) // the client may have gone
}

func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", a.cacheControl)
	h.Set("Content-Security-Policy", assetPolicy)
	body, etag := a.plain, a.hash
	if a.zipped != nil {
		h.Set("Vary", "Accept-Encoding")
		if acceptsGzip(r) {
			h.Set("Content-Encoding", "gzip")
			body, etag = a.zipped(), a.hash+"-gzip"
		}
	}
	h.Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// acceptsGzip understands what browsers send; whoever weighs encodings with q=0 gets plain bytes.
func acceptsGzip(r *http.Request) bool {
	for coding := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		if strings.TrimSpace(coding) == "gzip" {
			return true
		}
	}
	return false
}
