package auth

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

func TestExport(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ada, root := b.user(t, "ada"), viewer.Viewer{ID: b.user(t, "root", viewer.Admin), Role: viewer.Admin}
	_, err := b.Login(from(`=cmd|"/c calc"!A1`), LoginInput{Login: "ada", Password: password})
	require.NoError(t, err)
	_, err = b.SetRole(as(root), globalID(ada), viewer.Moderator)
	require.NoError(t, err)

	lines := func(f ExportFilter) (events []exported) {
		var out bytes.Buffer
		require.NoError(t, b.Export(as(root), &out, "jsonl", f))
		for d := json.NewDecoder(&out); d.More(); {
			var e exported
			require.NoError(t, d.Decode(&e))
			events = append(events, e)
		}
		return events
	}
	all := lines(ExportFilter{})
	require.Len(t, all, 4)
	last := all[3]
	require.Equal(t, RoleChanged, last.Name)
	require.Equal(t, Warning, last.Severity)
	require.Equal(t, globalID(ada).String(), last.User)
	require.Equal(t, globalID(root.ID).String(), last.Actor)
	require.Equal(t, "192.0.2.7", last.Address)
	require.JSONEq(t, `{"from": "user", "to": "moderator"}`, string(last.Detail))
	for n, f := range map[int]ExportFilter{
		3: {User: ada}, 1: {Severity: Warning}, 2: {Name: UserRegistered}, 4: {From: all[0].At}, 0: {To: all[0].At},
	} {
		require.Len(t, lines(f), n)
	}

	var out bytes.Buffer
	require.NoError(t, b.Export(as(root), &out, "csv", ExportFilter{}))
	rows, err := csv.NewReader(&out).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 5)
	require.Equal(t, exportColumns, rows[0])
	require.Equal(t, `'=cmd|"/c calc"!A1`, rows[3][7], "no formula")

	refused(t, b.Export(as(root), &out, "xls", ExportFilter{}), record.BadUserInput, "format")
	refused(t, b.Export(as(viewer.Viewer{ID: ada, Role: viewer.Moderator}), &out, "csv", ExportFilter{}), record.Forbidden)
	refused(t, b.Export(plain(), &out, "csv", ExportFilter{}), record.Unauthenticated)
}

func TestExportHandler(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ada, root := b.user(t, "ada"), viewer.Viewer{ID: b.user(t, "root", viewer.Admin), Role: viewer.Admin}
	get := func(path string, v *viewer.Viewer) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if v != nil {
			r = r.WithContext(as(*v))
		}
		w := httptest.NewRecorder()
		b.ExportHandler().ServeHTTP(w, r)
		return w
	}
	w := get("/security-events.jsonl?name=user_registered&severity=info&user="+globalID(ada).String()+"&from="+
		url.QueryEscape(time.Now().Add(-time.Hour).Format(time.RFC3339)), &root)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, 1, strings.Count(w.Body.String(), "\n"))
	require.Contains(t, w.Header().Get("Content-Disposition"), "attachment")
	w = get("/security-events.csv", &root)
	require.Equal(t, 3, strings.Count(w.Body.String(), "\n"))
	for path, want := range map[string]int{
		"/security-events.csv?from=yesterday": http.StatusBadRequest, "/security-events.csv?user=thread_x": http.StatusBadRequest,
		"/security-events.xml": http.StatusNotFound,
	} {
		require.Equal(t, want, get(path, &root).Code, path)
	}
	require.Equal(t, http.StatusUnauthorized, get("/security-events.csv", nil).Code)
	require.Equal(t, http.StatusForbidden, get("/security-events.csv", &viewer.Viewer{ID: ada, Role: viewer.User}).Code)
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user(t, "ada")
	p := b.login(t, "ada")
	for range 3 {
		b.login(t, "ada")
	}
	_, err := b.RequestPasswordReset(plain(), "ada@example.com")
	require.NoError(t, err)
	refused(t, b.wrong("ada"), record.Unauthenticated)
	refused(t, b.wrong("nobody"), record.Unauthenticated)
	state := func() []int {
		return []int{b.count(t, `login_attempts`), b.count(t, `one_time_tokens`), b.count(t, `sessions`), b.count(t, `refresh_tokens`), b.count(t, `login_guards`)}
	}
	n, err := b.Cleanup(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, []int{6, 1, 4, 4, 2}, state())
	b.exec(t, `UPDATE login_attempts SET created_at = now() - interval '91 days' WHERE outcome = 'success'`)
	b.exec(t, `UPDATE one_time_tokens SET expires_at = now() - interval '1 s'`)
	b.exec(t, `UPDATE sessions SET revoked_at = now() - interval '31 days' WHERE id = $1`, p.Viewer.Session)
	b.exec(t, `UPDATE refresh_tokens SET expires_at = now() - interval '1 s' WHERE id = (SELECT max(id::text)::uuid FROM refresh_tokens)`)
	b.exec(t, `UPDATE login_guards SET window_started_at = now() - interval '1 day'`)
	b.exec(t, `UPDATE login_guards SET locked_until = now() + interval '1 day' WHERE account LIKE 'unknown:%'`)
	events := b.count(t, `security_events`)
	n, err = b.Cleanup(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int{2, 0, 3, 2, 1}, state())
	require.EqualValues(t, 4+1+1+1+1, n, "but for what went with a session")
	require.Equal(t, events, b.count(t, `security_events`))
}
