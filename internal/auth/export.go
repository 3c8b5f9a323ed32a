package auth

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

// ExportFilter says which security events to export. Zero fields are no condition.
type ExportFilter struct {
	From, To time.Time // From inclusive, To exclusive
	Severity string
	Name     string
	User     uuid.UUID // whom they are about
}

// exported is a security event in an export.
type exported struct {
	ID        string          `json:"id"`
	At        time.Time       `json:"at"`
	Name      string          `json:"name"`
	Severity  string          `json:"severity"`
	User      string          `json:"user,omitempty"`
	Actor     string          `json:"actor,omitempty"`
	Address   string          `json:"address,omitempty"`
	UserAgent string          `json:"userAgent,omitempty"`
	RequestID string          `json:"requestId,omitempty"`
	Detail    json.RawMessage `json:"detail,omitempty"`
}

var exportColumns = []string{"id", "at", "name", "severity", "user", "actor", "address", "userAgent", "requestId", "detail"}

func (e *exported) row() []string {
	row := []string{e.ID, e.At.Format(time.RFC3339Nano), e.Name, e.Severity, e.User, e.Actor, e.Address, e.UserAgent, e.RequestID, string(e.Detail)}
	for i, cell := range row {
		row[i] = harmless(cell)
	}
	return row
}

// harmless keeps a spreadsheet from taking a cell for a formula: what clients send is in there.
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r\n|%", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

// Export writes the security events, oldest first, in a format: "jsonl", an object a line, or "csv", where cells that a
// spreadsheet may take for a formula begin with an apostrophe. It is for administrators; UNAUTHENTICATED, FORBIDDEN and
// BAD_USER_INPUT come before anything is written. Rows are written as they are read, however many there are.
func (s *Service) Export(ctx context.Context, w io.Writer, format string, f ExportFilter) error {
	if _, err := administrator(ctx); err != nil {
		return err
	}
	var write func(*exported) error
	flush := func() error { return nil }
	switch format {
	case "jsonl":
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		write = func(e *exported) error { return enc.Encode(e) }
	case "csv":
		c := csv.NewWriter(w)
		if err := c.Write(exportColumns); err != nil {
			return err
		}
		write = func(e *exported) error { return c.Write(e.row()) }
		flush = func() error {
			c.Flush()
			return c.Error()
		}
	default:
		return badInput("format", "the format is jsonl or csv")
	}
	rows, err := s.deps.Pool.Query(ctx, `
		SELECT id, created_at, name, severity, user_id, coalesce(actor, ''), coalesce(address, ''), coalesce(user_agent, ''),
		       coalesce(request_id, ''), detail
		  FROM security_events
		 WHERE ($1::timestamptz IS NULL OR created_at >= $1) AND ($2::timestamptz IS NULL OR created_at < $2)
		   AND ($3 = '' OR severity = $3) AND ($4 = '' OR name = $4) AND ($5::uuid IS NULL OR user_id = $5)
		 ORDER BY created_at, id`,
		nullTime(f.From), nullTime(f.To), f.Severity, f.Name, nullable(f.User))
	if err != nil {
		return fmt.Errorf("export events: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var e exported
		var id uuid.UUID
		var user *uuid.UUID
		if err := rows.Scan(&id, &e.At, &e.Name, &e.Severity, &user, &e.Actor, &e.Address, &e.UserAgent, &e.RequestID, &e.Detail); err != nil {
			return fmt.Errorf("export events: %w", err)
		}
		e.ID, e.At = record.ID{Prefix: eventPrefix, UUID: id}.String(), e.At.UTC()
		if user != nil {
			e.User = globalID(*user).String()
		}
		if err := write(&e); err != nil {
			return fmt.Errorf("export events: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("export events: %w", err)
	}
	return flush()
}

func nullTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// ExportHandler serves GET /security-events.jsonl and /security-events.csv?from=&to=&severity=&name=&user=, with times
// as RFC 3339 has them, to administrators: the context says who asks. It is mounted below authentication.
func (s *Service) ExportHandler() http.Handler {
	mux := http.NewServeMux()
	for format, contentType := range map[string]string{"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8"} {
		mux.HandleFunc("GET /security-events."+format, func(w http.ResponseWriter, r *http.Request) {
			if status := mayExport(r.Context()); status != http.StatusOK {
				http.Error(w, http.StatusText(status), status)
				return
			}
			f, err := exportFilter(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			h := w.Header()
			h.Set("Content-Type", contentType)
			h.Set("Content-Disposition", `attachment; filename="security-events.`+format+`"`)
			h.Set("Cache-Control", "no-store")
			h.Set("X-Content-Type-Options", "nosniff")
			if err := s.Export(r.Context(), w, format, f); err != nil {
				s.log.ErrorContext(r.Context(), "export events", "error", err)
				panic(http.ErrAbortHandler) // so that nobody takes a part for the whole
			}
		})
	}
	return mux
}

// mayExport returns the status for who asks.
func mayExport(ctx context.Context) int {
	switch v, ok := viewer.FromContext(ctx); {
	case !ok:
		return http.StatusUnauthorized
	case !v.Is(viewer.Admin):
		return http.StatusForbidden
	}
	return http.StatusOK
}

func exportFilter(r *http.Request) (f ExportFilter, err error) {
	q := r.URL.Query()
	f.Severity, f.Name = storable(q.Get("severity"), 100), storable(q.Get("name"), 100)
	for name, into := range map[string]*time.Time{"from": &f.From, "to": &f.To} {
		if text := q.Get(name); text != "" {
			if *into, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return f, errors.New(name + " is not a time as 2006-01-02T15:04:05Z")
			}
		}
	}
	if text := q.Get("user"); text != "" {
		id, err := record.ParseID(text)
		if err == nil {
			f.User, err = userID(id)
		}
		if err != nil {
			return f, errors.New("user is not the id of a User")
		}
	}
	return f, nil
}
