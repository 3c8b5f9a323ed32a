package mail

import (
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

//go:embed mailbox.html
var pageText string

//go:embed mailbox.css
var style string

var page = template.Must(template.New("mailbox").Funcs(template.FuncMap{"split": split}).Parse(pageText))

// Handler returns the development mailbox, to be mounted at /mailbox and /mailbox/: a list, newest first, and the
// mail /mailbox/{id}. Both are JSON for who accepts application/json: an array of mails, or one of
// { id, at, to, subject, text, kind, links }. Whoever can open it can read every mail.
func (r *Recorder) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /mailbox", func(w http.ResponseWriter, req *http.Request) {
		all, _ := r.snapshot()
		answer(w, req, all)
	})
	mux.HandleFunc("GET /mailbox/{id}", func(w http.ResponseWriter, req *http.Request) {
		all, _ := r.snapshot()
		id, _ := strconv.Atoi(req.PathValue("id"))
		i := slices.IndexFunc(all, func(m recorded) bool { return m.ID == id })
		if i < 0 {
			http.Error(w, "no such mail", http.StatusNotFound)
			return
		}
		answer(w, req, all[i])
	})
	sum := sha256.Sum256([]byte(style))
	policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer") // ids of mails are nobody's business
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, req)
	})
}

// answer writes a mail or a list of them.
func answer(w http.ResponseWriter, req *http.Request, what any) {
	w.Header().Set("Vary", "Accept")
	if strings.Contains(req.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(what) // the client went away
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	data := struct {
		Style template.CSS
		Mails []recorded
		Mail  *recorded
	}{Style: template.CSS(style)}
	switch what := what.(type) {
	case []recorded:
		data.Mails = what
	case recorded:
		data.Mail = &what
	}
	_ = page.Execute(w, data) // the client went away
}

// segment is a piece of a mail's text.
type segment struct {
	Text   string
	IsLink bool
}

// split cuts a text at its links.
func split(text string) (segments []segment) {
	done := 0
	for _, at := range link.FindAllStringIndex(text, -1) {
		segments = append(segments, segment{Text: text[done:at[0]]}, segment{Text: text[at[0]:at[1]], IsLink: true})
		done = at[1]
	}
	return append(segments, segment{Text: text[done:]})
}
