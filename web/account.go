package web

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"time"
)

//go:embed account playground/icon.svg
var accountFiles embed.FS

// accountPolicy allows what the pages have and no more: no script or style within the page, and no form that is sent
// without the script, which would put a password into an address.
const accountPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// accountPage is what a page of links in mails is made of.
type accountPage struct{ Page, Title, App string }

// Account answers the pages that links in mails lead to, /verify-email, /reset-password and /revert-email, and what they
// load, by the pattern to mount each at. They send mutations to /graphql of their own origin, by POST, and need nobody to
// be signed in. app is the application's name; "" is Godstack.
func Account(app string) map[string]http.Handler {
	app = cmp.Or(app, "Godstack")
	// Names are relative, and escaped as their place in the page needs it.
	page := template.Must(template.ParseFS(accountFiles, "account/account.html"))
	handlers := map[string]http.Handler{}
	for _, p := range []accountPage{
		{"verify-email", "Confirm your mail address", app},
		{"reset-password", "Set a new password", app},
		{"revert-email", "Take the change of address back", app},
	} {
		var b bytes.Buffer
		if err := page.Execute(&b, p); err != nil {
			panic(fmt.Errorf("page %s: %w", p.Page, err)) // it is embedded
		}
		handlers["GET /"+p.Page] = mailed(b.Bytes())
	}
	for _, name := range []string{"account/account.css", "account/account.js", "playground/icon.svg"} {
		body, err := accountFiles.ReadFile(name)
		if err != nil {
			panic(err) // the name is a constant
		}
		a := newAsset(name, contentTypes[path.Ext(name)], body)
		handlers["GET /account/"+path.Base(name)] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			private(w.Header())
			a.serve(w, r)
		})
	}
	return handlers
}

// AccountDocuments are the GraphQL documents that those pages send, as they send them.
var AccountDocuments = []string{
	"mutation ($token: String!) { verifyEmail(token: $token) { accessToken user { name } } }",
	"mutation ($token: String!, $password: String!) { resetPassword(token: $token, password: $password) }",
	"mutation ($token: String!) { revertEmail(token: $token) }",
	"mutation ($email: String) { requestEmailVerification(email: $email) }",
	"mutation ($email: String!) { requestPasswordReset(email: $email) }",
	"mutation { logout }",
}

// mailed is a page whose address has a token in it: it is neither stored nor named to anybody.
type mailed []byte

// ServeHTTP implements [http.Handler].
func (m mailed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	private(h)
	h.Set("Content-Type", contentTypes[".html"])
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", accountPolicy)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m))
}

// private are the headers of all that belongs to these pages.
func private(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}
