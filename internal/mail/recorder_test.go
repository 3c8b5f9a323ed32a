package mail

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func numbered(i int) Message {
	return Message{To: fmt.Sprintf("u%d@example.com", i), Subject: "Hi", Text: "Hello.\n", Kind: "test"}
}

func TestRecorderKeepsTheLast(t *testing.T) {
	t.Parallel()
	var r Recorder
	require.Empty(t, r.Messages())
	for i := range kept + 10 {
		require.NoError(t, r.Enqueue(t.Context(), nil, numbered(i)))
	}
	require.Error(t, r.Enqueue(t.Context(), nil, Message{To: "a@b.test\r\n", Subject: "x", Text: "x", Kind: "x"}))
	all := r.Messages()
	require.Len(t, all, kept)
	require.Equal(t, numbered(kept+9), all[0], "newest first")
	require.Equal(t, numbered(10), all[kept-1])
}

func TestRecorderWait(t *testing.T) {
	t.Parallel()
	var r Recorder
	to := func(i int) func(Message) bool {
		return func(m Message) bool { return m.To == numbered(i).To }
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Wait(ctx, to(1))
	require.ErrorIs(t, err, context.Canceled)

	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			m, err := r.Wait(t.Context(), to(i))
			if err != nil || m != numbered(i) {
				t.Errorf("waited for %d: %v, %v", i, m, err)
			}
		})
		wg.Go(func() {
			if err := r.Enqueue(t.Context(), nil, numbered(i)); err != nil {
				t.Error(err)
			}
			_ = r.Messages()
		})
	}
	wg.Wait()

	newer := numbered(7)
	newer.Subject = "Newer"
	require.NoError(t, r.Enqueue(t.Context(), nil, newer))
	m, err := r.Wait(ctx, to(7))
	require.NoError(t, err, "what is there is not waited for")
	require.Equal(t, newer, m)
}

// get asks the mailbox page.
func get(t *testing.T, r *Recorder, path, accept string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	req.Header.Set("Accept", accept)
	r.Handler("").ServeHTTP(w, req)
	return w
}

func TestMailboxPage(t *testing.T) {
	t.Parallel()
	var r Recorder
	require.Contains(t, get(t, &r, "/mailbox", "text/html").Body.String(), "No mail yet.")
	nasty := Message{
		HTML: `<p title="</iframe>">Hi</p><script>alert("h")</script><img src=x onerror=alert(1)>"></iframe>`,
		To:   "ada@example.com", Subject: `<script>alert("s")</script>`, Kind: "<b>kind</b>",
		Text: "</pre><script>alert('t')</script>\n\nhttps://godstack.test/verify?token=got_1&x='2\n\n" +
			"javascript:alert(1) <img src=x onerror=alert(1)> http://x\"onmouseover=alert(1)\n",
	}
	require.NoError(t, r.Enqueue(t.Context(), nil, nasty))
	require.NoError(t, r.Enqueue(t.Context(), nil, numbered(2)))

	list := get(t, &r, "/mailbox", "text/html,*/*")
	one := get(t, &r, "/mailbox/1", "text/html,*/*")
	for _, w := range []*httptest.ResponseRecorder{list, one} {
		require.Equal(t, 200, w.Code)
		h := w.Header()
		require.Equal(t, "text/html; charset=utf-8", h.Get("Content-Type"))
		require.Regexp(t, `^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}=' 'sha256-[A-Za-z0-9+/]{43}='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'$`,
			h.Get("Content-Security-Policy"))
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		require.Equal(t, "no-referrer", h.Get("Referrer-Policy"))
		require.Equal(t, "no-store", h.Get("Cache-Control"))
		body := w.Body.String()
		require.Contains(t, body, "<style>"+style+"</style>", "the policy has the hash of exactly that")
		for _, s := range []string{"<script", "<img", "<b>", "</pre><", `href="javascript`, `x"onmouseover`} {
			require.NotContains(t, body, s)
		}
	}
	body := list.Body.String()
	require.Less(t, strings.Index(body, `<a href="/mailbox/2">Hi</a>`), strings.Index(body, `<a href="/mailbox/1">&lt;script&gt;`), "newest first")
	require.Contains(t, one.Body.String(),
		`<a href="https://godstack.test/verify?token=got_1&amp;x=%272" rel="noopener noreferrer">https://godstack.test/verify?token=got_1&amp;x=&#39;2</a>`)

	require.Contains(t, one.Body.String(), `<iframe title="The mail as HTML" sandbox="allow-popups allow-popups-to-escape-sandbox" srcdoc="`+
		html.EscapeString(nasty.HTML)+`"></iframe>`)
	require.NotContains(t, get(t, &r, "/mailbox/2", "text/html").Body.String(), "<iframe")

	for _, path := range []string{"/mailbox/9", "/mailbox/0", "/mailbox/-1", "/mailbox/x", "/mailbox/1/2", "/"} {
		require.Equal(t, 404, get(t, &r, path, "").Code, path)
	}
	w := httptest.NewRecorder()
	r.Handler("").ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/mailbox", nil))
	require.Equal(t, 405, w.Code)
}

func TestMailboxPreviews(t *testing.T) {
	t.Parallel()
	var r Recorder
	list := get(t, &r, "/mailbox/previews", "text/html,*/*")
	require.Equal(t, 200, list.Code)
	for _, kind := range kinds {
		path := "/mailbox/previews/" + kind
		var p preview
		require.NoError(t, json.Unmarshal(get(t, &r, path, "application/json").Body.Bytes(), &p))
		require.Equal(t, kind, p.Kind)
		require.NotEmpty(t, p.Text)
		require.NotEmpty(t, p.HTML)
		require.NoError(t, p.Validate())
		require.Contains(t, list.Body.String(), `<a href="`+path+`">`+html.EscapeString(p.Subject)+`</a>`)
		body := get(t, &r, path, "text/html,*/*").Body.String()
		require.Contains(t, body, "<h1>"+html.EscapeString(p.Subject)+"</h1>")
		require.Contains(t, body, `srcdoc="&lt;!DOCTYPE html&gt;`)
		require.NotContains(t, body, "<dt>At</dt>", "it was not sent")
	}
	var all []preview
	require.NoError(t, json.Unmarshal(get(t, &r, "/mailbox/previews", "application/json").Body.Bytes(), &all))
	require.Len(t, all, len(kinds))
	require.Equal(t, 404, get(t, &r, "/mailbox/previews/nothing", "").Code)
	require.Empty(t, r.Messages(), "nothing was sent")
}

func TestRecorderSends(t *testing.T) {
	t.Parallel()
	var r Recorder
	require.NoError(t, r.Send(t.Context(), numbered(1)))
	require.Equal(t, []Message{numbered(1)}, r.Messages())
	wrong := numbered(2)
	wrong.To = ""
	require.True(t, Permanent(r.Send(t.Context(), wrong)))
	require.Len(t, r.Messages(), 1)
}

func TestMailboxJSON(t *testing.T) {
	t.Parallel()
	var r Recorder
	list := func() (mails []recorded) {
		w := get(t, &r, "/mailbox", "application/json")
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &mails))
		return mails
	}
	require.Equal(t, "[]\n", get(t, &r, "/mailbox", "application/json").Body.String())
	m := numbered(1)
	m.Text = "https://godstack.test/?token=got_1&x=2"
	require.NoError(t, r.Enqueue(t.Context(), nil, m))
	require.NoError(t, r.Enqueue(t.Context(), nil, numbered(2)))
	mails := list()
	require.Len(t, mails, 2)
	require.Equal(t, 2, mails[0].ID)
	require.Equal(t, []string{}, mails[0].Links)
	require.Equal(t, []string{m.Text}, mails[1].Links)

	var one map[string]any
	require.NoError(t, json.Unmarshal(get(t, &r, "/mailbox/1", "application/json").Body.Bytes(), &one))
	require.Equal(t, m.Text, one["text"])
	require.Equal(t, m.To, one["to"])
	require.Equal(t, m.Subject, one["subject"])
	require.Equal(t, m.Kind, one["kind"])
	require.EqualValues(t, 1, one["id"])
	require.Contains(t, one, "at")
}
