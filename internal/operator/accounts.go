package operator

import (
	"context"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"godstack/internal/auth"
	"godstack/internal/job"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

var roles = []string{viewer.User, viewer.Moderator, viewer.Admin}

// done is what is said after a form was sent.
var done = map[string]string{
	"locked": "The account is locked, and its sessions have ended.", "unlocked": "The account is unlocked.",
	"role": "The role is changed.", "factor": "The second factor is off.",
	"session": "The session has ended.", "sessions": "All sessions have ended.",
}

// routes are what administrators may ask for.
func (p *Pages) routes() {
	p.mux.HandleFunc("GET "+home+"/{$}", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, home, http.StatusSeeOther) })
	p.mux.HandleFunc("GET "+home, p.overview)
	p.mux.HandleFunc("GET "+home+"/users", p.users)
	p.mux.HandleFunc("GET "+home+"/users/{id}", p.user)
	p.mux.HandleFunc("GET "+home+"/events", p.events)
	p.mux.Handle("GET "+home+"/security-events.csv", p.export)
	p.mux.Handle("GET "+home+"/security-events.jsonl", p.export)

	accounts := p.deps.Accounts
	p.mux.HandleFunc("POST "+home+"/users/{id}/lock", p.act("locked", func(ctx context.Context, id record.ID, _ url.Values) error {
		_, err := accounts.LockUser(ctx, id)
		return err
	}))
	p.mux.HandleFunc("POST "+home+"/users/{id}/unlock", p.act("unlocked", func(ctx context.Context, id record.ID, _ url.Values) error {
		_, err := accounts.UnlockUser(ctx, id)
		return err
	}))
	p.mux.HandleFunc("POST "+home+"/users/{id}/role", p.act("role", func(ctx context.Context, id record.ID, form url.Values) error {
		role := form.Get("role")
		if !slices.Contains(roles, role) {
			return &record.Error{Code: record.BadUserInput, Message: "there is no such role", Fields: []string{"role"}}
		}
		_, err := accounts.SetRole(ctx, id, role)
		return err
	}))
	p.mux.HandleFunc("POST "+home+"/users/{id}/second-factor", p.act("factor", func(ctx context.Context, id record.ID, _ url.Values) error {
		_, err := accounts.ResetTwoFactor(ctx, id)
		return err
	}))
	p.mux.HandleFunc("POST "+home+"/users/{id}/sessions", p.act("sessions", func(ctx context.Context, id record.ID, _ url.Values) error {
		_, err := accounts.RevokeSessionsOf(ctx, id)
		return err
	}))
	p.mux.HandleFunc("POST "+home+"/users/{id}/session", p.act("session", func(ctx context.Context, _ record.ID, form url.Values) error {
		session, err := record.ParseID(form.Get("session"))
		if err != nil {
			return &record.Error{Code: record.BadUserInput, Message: "this is not the id of a session", Fields: []string{"session"}}
		}
		_, err = accounts.RevokeSession(ctx, session)
		return err
	}))
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.refuse(w, r, http.StatusNotFound, "There is no such page.")
	})
}

// link is an address of ours with a query, which a template would take for one value.
func link(to string, q url.Values) template.URL {
	return template.URL(home + to + "?" + q.Encode()) // which is encoded
}

// account is the id in the address.
func account(r *http.Request) (record.ID, error) {
	id, err := record.ParseID(r.PathValue("id"))
	if err != nil {
		return id, &record.Error{Code: record.NotFound, Message: "no such user"}
	}
	return id, nil
}

// act answers a form about an account, and leads back to its page, which says what was done.
func (p *Pages) act(what string, f func(ctx context.Context, id record.ID, form url.Values) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			p.refuse(w, r, http.StatusBadRequest, "This is no form of ours.")
			return
		}
		id, err := account(r)
		if err == nil {
			err = f(r.Context(), id, r.PostForm)
		}
		if err != nil {
			p.fail(w, r, err)
			return
		}
		http.Redirect(w, r, home+"/users/"+id.String()+"?done="+what, http.StatusSeeOther)
	}
}

type overviewPage struct {
	frame
	Nodes  []*Node
	Total  Report // of those that are not silent
	Jobs   job.States
	Waits  time.Duration
	Events []*auth.Event
}

func (p *Pages) overview(w http.ResponseWriter, r *http.Request) {
	page := &overviewPage{frame: p.frame("Overview")}
	page.Here = "overview"
	var err error
	if page.Nodes, err = ReadNodes(r.Context(), p.deps.Pool); err != nil {
		p.fail(w, r, err)
		return
	}
	for _, n := range page.Nodes {
		if n.Silent {
			continue
		}
		t := &page.Total
		t.Sockets += n.Sockets
		t.EventStreams += n.EventStreams
		t.Operations += n.Operations
		t.Subscriptions += n.Subscriptions
		t.JobsRunning += n.JobsRunning
	}
	if page.Jobs, err = job.ReadStates(r.Context(), p.deps.Pool); err != nil {
		p.fail(w, r, err)
		return
	}
	page.Waits = time.Duration(page.Jobs.Waits * float64(time.Second))
	if page.Events, err = p.deps.Accounts.Events(r.Context(), auth.ExportFilter{Severity: auth.Critical}, record.ID{}, 10); err != nil {
		p.fail(w, r, err)
		return
	}
	p.render(w, http.StatusOK, "overview", page)
}

type usersPage struct {
	frame
	Filter   auth.AccountFilter
	Roles    []string
	Accounts []*auth.Account
	Next     template.URL // the next page; "" where there is none
}

func (p *Pages) users(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	page := &usersPage{frame: p.frame("Users"), Roles: roles, Filter: auth.AccountFilter{
		Search: strings.TrimSpace(q.Get("q")), Role: q.Get("role"), Locked: q.Get("locked") != "", After: q.Get("after"),
	}}
	page.Here = "users"
	list, err := p.deps.Accounts.Accounts(r.Context(), page.Filter, pageSize+1)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	if len(list) > pageSize {
		list = list[:pageSize]
		q.Set("after", list[pageSize-1].Username)
		page.Next = link("/users", q)
	}
	page.Accounts = list
	p.render(w, http.StatusOK, "users", page)
}

type userPage struct {
	frame
	Account  *auth.Account
	Self     bool // it is who asks
	Roles    []string
	Sessions []*auth.Session
	Events   []*auth.Event
}

func (p *Pages) user(w http.ResponseWriter, r *http.Request) {
	id, err := account(r)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	page := &userPage{Roles: roles}
	if page.Account, err = p.deps.Accounts.Account(r.Context(), id); err != nil {
		p.fail(w, r, err)
		return
	}
	page.frame = p.frame(page.Account.Username)
	page.Here, page.Done = "users", done[r.URL.Query().Get("done")]
	v, _ := viewer.FromContext(r.Context())
	page.Self = v.ID == page.Account.ID.UUID
	if page.Sessions, err = p.deps.Accounts.SessionsOf(r.Context(), page.Account.ID); err != nil {
		p.fail(w, r, err)
		return
	}
	page.Events, err = p.deps.Accounts.Events(r.Context(), auth.ExportFilter{User: page.Account.ID.UUID}, record.ID{}, 20)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	p.render(w, http.StatusOK, "user", page)
}

type eventsPage struct {
	frame
	User, Name, Severity string // what was asked for
	Names, Severities    []string
	Problem              string
	Events               []*auth.Event
	CSV, JSON            template.URL // exports of all of them
	Next                 template.URL // as in usersPage
}

func (p *Pages) events(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	page := &eventsPage{frame: p.frame("Security events"), User: strings.TrimSpace(q.Get("user")), Name: q.Get("name"), Severity: q.Get("severity"),
		Severities: []string{auth.Info, auth.Warning, auth.Critical}}
	page.Here = "events"
	for name := range auth.Severities {
		page.Names = append(page.Names, name)
	}
	slices.Sort(page.Names)
	filter, export := auth.ExportFilter{Name: page.Name, Severity: page.Severity}, url.Values{"name": {page.Name}, "severity": {page.Severity}}
	if page.User != "" {
		a, err := p.deps.Accounts.FindAccount(r.Context(), page.User)
		if status, _ := p.deps.Explain(r.Context(), err); err != nil && status != http.StatusNotFound && status != http.StatusBadRequest {
			p.fail(w, r, err)
			return
		}
		if err != nil {
			page.Problem = "There is no user with this id, user name or mail address."
			p.render(w, http.StatusOK, "events", page)
			return
		}
		filter.User = a.ID.UUID
		export.Set("user", a.ID.String())
	}
	page.CSV, page.JSON = link("/security-events.csv", export), link("/security-events.jsonl", export)
	before, _ := record.ParseID(q.Get("before")) // what is none is the beginning
	list, err := p.deps.Accounts.Events(r.Context(), filter, before, pageSize+1)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	if len(list) > pageSize {
		list = list[:pageSize]
		q.Set("before", list[pageSize-1].ID.String())
		page.Next = link("/events", q)
	}
	page.Events = list
	p.render(w, http.StatusOK, "events", page)
}
