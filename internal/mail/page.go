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
	"time"
)

//go:embed mailbox.html
var pageText string

//go:embed mailbox.css
var style string

var page = template.Must(template.New("mailbox").Funcs(template.FuncMap{"split": split, "elsewhere": func() string { return "" }}).Parse(pageText))

// Handler returns the development mailbox, to be mounted at /mailbox and /mailbox/: a list, newest first, the mail
// /mailbox/{id}, and what mails of each kind look like, with data that stand for others, /mailbox/previews and
// /mailbox/previews/{kind}. All are JSON for who accepts application/json: an array of mails, or one of
// { id, at, to, subject, text, html, kind, links }, where previews have no id and at. elsewhere says where mails go where they do not come
// here, as a sentence; "": they do. Whoever can open it can read every mail.
func (r *Recorder) Handler(elsewhere string) http.Handler {
	page := template.Must(page.Clone()).Funcs(template.FuncMap{"elsewhere": func() string { return elsewhere }})
	answer := func(w http.ResponseWriter, req *http.Request, what any) { answer(w, req, page, what) }
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
	mux.HandleFunc("GET /mailbox/previews", func(w http.ResponseWriter, req *http.Request) {
		previews := make([]preview, len(kinds))
		for i, kind := range kinds {
			var err error
			if previews[i], err = newPreview(kind); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		answer(w, req, previews)
	})
	mux.HandleFunc("GET /mailbox/previews/{kind}", func(w http.ResponseWriter, req *http.Request) {
		kind := req.PathValue("kind")
		if !slices.Contains(kinds, kind) {
			http.Error(w, "no such kind of mail", http.StatusNotFound)
			return
		}
		p, err := newPreview(kind)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, req, p)
	})
	// A mail's HTML is in a frame's srcdoc, to which the page's policy applies. So both styles are in it, and nothing else.
	policy := "default-src 'none'; style-src " + hashOf(style) + " " + hashOf(mailStyle) +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer") // ids of mails are nobody's business
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, req)
	})
}

// hashOf is a source of a Content-Security-Policy that allows a style alone.
func hashOf(style string) string {
	sum := sha256.Sum256([]byte(style))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// preview is what a mail of a kind looks like.
type preview struct {
	Message
	Links []string `json:"links"`
}

func newPreview(kind string) (preview, error) {
	m, err := Compose(kind, "ada@example.com", Data{
		App: "Godstack", Name: "Ada Lovelace", Link: "https://example.com/link?token=got_sample", Email: "ada@new.example.com",
		Address: "192.0.2.7", UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		When: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), Change: "turned on",
	})
	return preview{m, append([]string{}, m.Links()...)}, err
}

// answer writes a mail or a preview, or a list of them.
func answer(w http.ResponseWriter, req *http.Request, page *template.Template, what any) {
	w.Header().Set("Vary", "Accept")
	if strings.Contains(req.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(what) // the client went away
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	data := struct {
		Style    template.CSS
		Mails    []recorded
		Mail     *recorded
		Previews []preview
		Preview  bool // whether Mail is one
	}{Style: template.CSS(style)}
	switch what := what.(type) {
	case []recorded:
		data.Mails = what
	case recorded:
		data.Mail = &what
	case []preview:
		data.Previews = what
	case preview:
		data.Mail, data.Preview = &recorded{Message: what.Message}, true
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
