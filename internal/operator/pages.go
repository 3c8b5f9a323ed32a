package operator

import (
	"bytes"
	"context"
	_ "embed" // the pages
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"godstack/internal/auth"
	"godstack/internal/job"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// Where the pages are.
const (
	home     = "/admin"
	jobs     = "/jobs"
	signIn   = home + "/sign-in"
	signOut  = home + "/sign-out"
	pageSize = 50
)

// What browsers may do with the pages.
const (
	// pagePolicy has no script at all.
	pagePolicy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	// jobsPolicy is for River's pages, which make style sheets by script. Their check whether they may evaluate text is refused.
	jobsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
		"connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

const (
	maxForm = 16 << 10 // bytes
	maxJobs = 64 << 10 // bytes: names of a thousand jobs
)

//go:embed pages.html
var pagesText string

//go:embed style.css
var style []byte

var templates = template.Must(template.New("").Funcs(template.FuncMap{"time": inUTC, "ago": ago}).Parse(pagesText))

// inUTC is how times are shown.
func inUTC(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// ago is how long something took, or is since, in one unit.
func ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// Deps are the parts that the pages stand on.
type Deps struct {
	Accounts *auth.Service
	Pool     *pgxpool.Pool
	// Found is told whom a request is of.
	Found func(ctx context.Context, v viewer.Viewer)
	// Explain says what may be told of an error, and by which status.
	Explain func(ctx context.Context, err error) (status int, e *record.Error)
	// Logger takes what goes wrong. Nil: none.
	Logger *slog.Logger
}

// Config adjusts the pages. The zero value is the default.
type Config struct {
	// App is the application's name. Default Godstack.
	App string
	// Origin is where browsers find the program, for those that do not say themselves that a request is of the same site. Default: the host
	// that they ask for.
	Origin string
}

// Pages are the operators' pages.
type Pages struct {
	deps   Deps
	app    string
	csrf   *http.CrossOriginProtection
	jobs   *job.Pages
	export http.Handler
	mux    *http.ServeMux // for administrators
}

// New returns the pages. An error says what is wrong with the configuration.
func New(deps Deps, cfg *Config) (*Pages, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	deps.Accounts = deps.Accounts.ForPages()
	p := &Pages{deps: deps, app: cfg.App, csrf: http.NewCrossOriginProtection(), mux: http.NewServeMux()}
	if p.app == "" {
		p.app = "Godstack"
	}
	if cfg.Origin != "" {
		if err := p.csrf.AddTrustedOrigin(cfg.Origin); err != nil {
			return nil, fmt.Errorf("operator: Origin: %w", err)
		}
	}
	var err error
	if p.jobs, err = job.NewPages(deps.Pool, jobs, deps.Logger); err != nil {
		return nil, err
	}
	p.export = http.StripPrefix(home, deps.Accounts.ExportHandler())
	p.routes()
	return p, nil
}

// Handlers returns the pages by the pattern to mount each at. The context of a request says what client sent it.
func (p *Pages) Handlers() map[string]http.Handler {
	return map[string]http.Handler{home: p, home + "/": p, jobs: p, jobs + "/": p}
}

// ServeHTTP implements [http.Handler].
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin") // with none, a form's Origin is null
	for _, name := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers"} {
		h.Del(name) // who may use the API from elsewhere may not read these
	}
	if r.URL.Path == home+"/style.css" {
		h.Set("Content-Type", "text/css; charset=utf-8")
		h.Set("Cache-Control", "private, max-age=300")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(style))
		return
	}
	if err := p.csrf.Check(r); err != nil {
		p.refuse(w, r, http.StatusForbidden, "A page of another origin may not send this.")
		return
	}
	switch {
	case r.URL.Path == signIn && r.Method == http.MethodPost:
		p.login(w, r)
		return
	case r.URL.Path == signOut && r.Method == http.MethodPost:
		if _, err := p.deps.Accounts.Logout(r.Context()); err != nil {
			p.fail(w, r, err)
			return
		}
		http.Redirect(w, r, signIn, http.StatusSeeOther)
		return
	}
	v, ok, err := p.deps.Accounts.Visitor(r.Context(), r.Header.Get("Authorization"))
	switch {
	case err != nil:
		p.fail(w, r, err)
	case !ok && r.URL.Path == signIn:
		p.render(w, http.StatusOK, "sign-in", &signInPage{frame: p.frame("Sign in"), Next: next(r.URL.Query().Get("next"))})
	case !ok:
		p.ask(w, r)
	default:
		p.deps.Found(r.Context(), v)
		r = r.WithContext(viewer.NewContext(r.Context(), v))
		switch {
		case !v.Is(viewer.Admin):
			p.refuse(w, r, http.StatusForbidden, "You are signed in, but are no administrator.")
		case r.URL.Path == signIn:
			http.Redirect(w, r, next(r.URL.Query().Get("next")), http.StatusSeeOther)
		case r.URL.Path == jobs || strings.HasPrefix(r.URL.Path, jobs+"/"):
			p.serveJobs(w, r)
		default:
			p.mux.ServeHTTP(w, r)
		}
	}
}

// ask leads to where one signs in, and back; what is no page is answered 401.
func (p *Pages) ask(w http.ResponseWriter, r *http.Request) {
	if !isPage(r) {
		http.Error(w, "sign in first", http.StatusUnauthorized)
		return
	}
	to := home
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		to = r.URL.RequestURI()
	}
	http.Redirect(w, r, signIn+"?next="+url.QueryEscape(to), http.StatusSeeOther)
}

// isPage reports whether a person waits for the answer to r, rather than a script.
func isPage(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html") && !strings.HasPrefix(r.URL.Path, jobs+"/api/")
}

// next is where to go after a sign-in: to one of these pages, whatever an address says.
func next(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" || path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") {
		return home
	}
	for _, root := range []string{home, jobs} {
		if u.Path == root || strings.HasPrefix(u.Path, root+"/") {
			return u.RequestURI()
		}
	}
	return home
}

// frame is what every page shows.
type frame struct {
	App, Title string
	Here       string // of the menu; "" shows none
	Done       string // what was done a moment ago
}

func (p *Pages) frame(title string) frame { return frame{App: p.app, Title: title} }

type signInPage struct {
	frame
	Next, Login, Problem string
}

type refusalPage struct {
	frame
	Message  string
	SignedIn bool
}

// render writes a page that is complete, or that there is none.
func (p *Pages) render(w http.ResponseWriter, status int, name string, data any) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		p.deps.Logger.Error("operators' page", "page", name, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client may have gone
}

// refuse says why there is nothing to see.
func (p *Pages) refuse(w http.ResponseWriter, r *http.Request, status int, message string) {
	if !isPage(r) {
		http.Error(w, message, status)
		return
	}
	_, signedIn := viewer.FromContext(r.Context())
	p.render(w, status, "refusal", &refusalPage{frame: p.frame(http.StatusText(status)), Message: message, SignedIn: signedIn})
}

// fail tells an error, as far as it may be told.
func (p *Pages) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, message := p.explain(w, r, err)
	p.refuse(w, r, status, message)
}

// explain returns what may be told of an error, and logs what may not.
func (p *Pages) explain(w http.ResponseWriter, r *http.Request, err error) (status int, message string) {
	status, e := p.deps.Explain(r.Context(), err)
	if status >= http.StatusInternalServerError && r.Context().Err() == nil {
		p.deps.Logger.ErrorContext(r.Context(), "operators' page", "requestId", viewer.ClientOf(r.Context()).RequestID, "path", r.URL.Path, "error", err)
	}
	message = strings.ToUpper(e.Message[:1]) + e.Message[1:] + "."
	if e.RetryAfter > 0 {
		after := int(max(e.RetryAfter.Round(time.Second), time.Second).Seconds())
		w.Header().Set("Retry-After", fmt.Sprint(after))
		message += fmt.Sprintf(" Try again in %d seconds.", after)
	}
	return status, message
}

// login signs in, by the form.
func (p *Pages) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		p.refuse(w, r, http.StatusBadRequest, "This is no form of ours.")
		return
	}
	page := &signInPage{frame: p.frame("Sign in"), Next: next(r.PostForm.Get("next")), Login: r.PostForm.Get("login")}
	in := auth.LoginInput{Login: page.Login, Password: r.PostForm.Get("password")}
	if code := strings.TrimSpace(r.PostForm.Get("code")); code != "" {
		in.Code = &code
	}
	answer, err := p.deps.Accounts.Login(r.Context(), in)
	switch e, _ := errors.AsType[*record.Error](err); {
	case err == nil && answer.Viewer == nil:
		page.Problem = "Confirm your mail address first: the link is in the mail that you got."
		p.render(w, http.StatusForbidden, "sign-in", page)
	case err == nil:
		http.Redirect(w, r, page.Next, http.StatusSeeOther)
	case e != nil && slices.Contains(e.Fields, "code") && in.Code == nil:
		page.Problem = "This account has a second factor: fill in a code as well."
		p.render(w, http.StatusUnauthorized, "sign-in", page)
	default:
		var status int
		status, page.Problem = p.explain(w, r, err)
		p.render(w, status, "sign-in", page)
	}
}
