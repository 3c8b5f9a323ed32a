package server

import "net/http"

// headerLine is a header that many answers share. Nobody changes a value in place: Set and Add replace the slice.
type headerLine struct {
	name  string // in canonical form
	value []string
}

// securityHeaders are in every answer, unless its handler has something else to say, as pages have of their policy.
func securityHeaders(secure bool) []headerLine {
	lines := []headerLine{
		{"X-Content-Type-Options", []string{"nosniff"}},
		{"Referrer-Policy", []string{"no-referrer"}}, // links in mails have tokens in them
		{"Content-Security-Policy", []string{"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}},
		{"X-Frame-Options", []string{"DENY"}}, // for what knows no frame-ancestors
		{"Cross-Origin-Opener-Policy", []string{"same-origin"}},
		// It holds for what a page embeds without CORS, such as an image or a script. Origins that are allowed to read
		// use CORS, so that nobody needs more.
		{"Cross-Origin-Resource-Policy", []string{"same-origin"}},
		{"Permissions-Policy", []string{"camera=(), geolocation=(), microphone=(), payment=(), usb=()"}},
	}
	if secure {
		lines = append(lines, headerLine{"Strict-Transport-Security", []string{"max-age=63072000; includeSubDomains"}}) // two years
	}
	return lines
}

func setHeaders(h http.Header, lines []headerLine) {
	for _, l := range lines {
		h[l.name] = l.value
	}
}

// The values of Cache-Control.
var (
	noStore        = []string{"no-store"}
	privateNoStore = []string{"private, no-store"}
)
