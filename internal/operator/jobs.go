package operator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"

	"godstack/internal/auth"
	"godstack/internal/job"
)

// jobEvents are the security events of what is changed at /jobs.
var jobEvents = map[job.Action]string{
	job.RetryJobs: auth.JobsRetried, job.CancelJobs: auth.JobsCancelled, job.DeleteJobs: auth.JobsDeleted,
	job.PauseQueue: auth.QueuePaused, job.ResumeQueue: auth.QueueResumed, job.UpdateQueue: auth.QueueChanged,
}

// serveJobs has River answer an administrator.
func (p *Pages) serveJobs(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", jobsPolicy)
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		cached := "no-store"
		if strings.HasPrefix(r.URL.Path, jobs+"/assets/") { // their names have a hash of what is in them
			cached = "private, max-age=31536000, immutable"
		}
		p.jobs.ServeHTTP(&stored{ResponseWriter: w, cacheControl: cached}, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJobs))
	if err != nil {
		http.Error(w, "the body is too long, or did not come", http.StatusBadRequest)
		return
	}
	action, detail, ok := p.jobs.Action(r, body)
	if !ok {
		http.Error(w, "there is no such action", http.StatusNotFound)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := &held{header: http.Header{}}
	err = p.deps.Accounts.Administer(r.Context(), jobEvents[action], detail, func(ctx context.Context, tx pgx.Tx) error {
		if err := p.jobs.Change(tx, answer, r.WithContext(ctx)); err != nil {
			return err
		}
		if answer.status >= http.StatusBadRequest {
			return errRefused
		}
		return nil
	})
	if err != nil && !errors.Is(err, errRefused) {
		p.fail(w, r, err)
		return
	}
	answer.writeTo(w)
}

// stored says how long an answer may be kept, whatever its handler says: a file server takes that back where it has no such file.
type stored struct {
	http.ResponseWriter
	cacheControl string
	written      bool
}

func (w *stored) WriteHeader(status int) {
	h := w.Header()
	h.Set("Cache-Control", w.cacheControl)
	if strings.HasPrefix(h.Get("Content-Type"), "text/html") { // which River has for every name that it does not know
		h.Set("Cache-Control", "no-store")
	}
	w.written = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *stored) Write(b []byte) (int, error) {
	if !w.written {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// errRefused takes back what an answer says was not done.
var errRefused = errors.New("refused")

// held is an answer that is kept until what it says is committed.
type held struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *held) Header() http.Header { return a.header }

func (a *held) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *held) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

func (a *held) writeTo(w http.ResponseWriter) {
	if t := a.header.Get("Content-Type"); t != "" {
		w.Header().Set("Content-Type", t)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // the client may have gone
}
