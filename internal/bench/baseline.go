package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	roleBaseline = "baseline" // the argument that makes this program the baseline
	databaseURL  = "DATABASE_URL"
)

// What a good programmer would write by hand for the operations: one statement each, which gives the answer.
const (
	threadJSON = `'id', t.id, 'version', t.version, 'createdAt', t.created_at, 'updatedAt', t.updated_at, 'subject', t.subject`
	ownerJSON  = `json_build_object('id', u.id, 'username', u.username, 'name', u.name)`

	oneThread = `SELECT json_build_object('data', json_build_object('thread', json_build_object(` + threadJSON + `, 'owner', ` + ownerJSON + `)))
		FROM threads t JOIN users u ON u.id = t.owner_id WHERE t.id = $1`

	someThreads = `SELECT json_build_object('data', json_build_object('threads', json_build_object('edges', coalesce(json_agg(
			json_build_object('node', json_build_object(` + threadJSON + `, 'owner', ` + ownerJSON + `,
				'messages', json_build_object('edges', m.edges))) ORDER BY t.id), '[]'))))
		FROM (SELECT * FROM threads WHERE id > $1 ORDER BY id LIMIT 20) t
		JOIN users u ON u.id = t.owner_id
		CROSS JOIN LATERAL (
			SELECT coalesce(json_agg(json_build_object('node', json_build_object('id', m.id, 'version', m.version, 'createdAt', m.created_at,
				'body', m.body, 'author', ` + ownerJSON + `)) ORDER BY m.id), '[]') edges
			FROM (SELECT * FROM messages WHERE thread_id = t.id ORDER BY id LIMIT 5) m
			JOIN users u ON u.id = m.author_id) m`

	threadRecords = `SELECT json_build_object('data', json_build_object('records', json_build_object('threads',
			coalesce(json_agg(json_build_object(` + threadJSON + `) ORDER BY i.n), '[]'))))
		FROM unnest($1::uuid[]) WITH ORDINALITY i (id, n) JOIN threads t ON t.id = i.id`

	threadNodes = `SELECT json_build_object('data', json_build_object('nodes',
			coalesce(json_agg(CASE WHEN t.id IS NOT NULL THEN json_build_object(` + threadJSON + `) END ORDER BY i.n), '[]')))
		FROM unnest($1::uuid[]) WITH ORDINALITY i (id, n) LEFT JOIN threads t ON t.id = i.id`

	updateThread = `UPDATE threads_plain t SET subject = $3, version = version + 1, updated_at = now() WHERE id = $1 AND version = $2
		RETURNING json_build_object('data', json_build_object('updateThread', json_build_object(` + threadJSON + `)))`
)

// byHand is the baseline.
type byHand struct{ pool *pgxpool.Pool }

func (h byHand) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /thread/{id}", func(w http.ResponseWriter, r *http.Request) {
		h.answer(w, r, http.StatusNotFound, oneThread, r.PathValue("id"))
	})
	mux.HandleFunc("GET /threads/after/{id}", func(w http.ResponseWriter, r *http.Request) {
		h.answer(w, r, http.StatusNotFound, someThreads, r.PathValue("id"))
	})
	mux.HandleFunc("POST /records", func(w http.ResponseWriter, r *http.Request) { h.byIDs(w, r, threadRecords) })
	mux.HandleFunc("POST /nodes", func(w http.ResponseWriter, r *http.Request) { h.byIDs(w, r, threadNodes) })
	mux.HandleFunc("POST /thread/{id}", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Version int64
			Subject string
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		h.answer(w, r, http.StatusConflict, updateThread, r.PathValue("id"), in.Version, in.Subject)
	})
	return mux
}

func (h byHand) byIDs(w http.ResponseWriter, r *http.Request, query string) {
	var ids []pgtype.UUID
	if err := json.NewDecoder(r.Body).Decode(&ids); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.answer(w, r, http.StatusNotFound, query, ids)
}

// answer answers with the one value that query gives, or with a status where it gives none.
func (h byHand) answer(w http.ResponseWriter, r *http.Request, none int, query string, args ...any) {
	var body []byte
	switch err := h.pool.QueryRow(r.Context(), query, args...).Scan(&body); {
	case errors.Is(err, pgx.ErrNoRows):
		http.Error(w, "no such thread", none)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}
}

// startBaseline serves the baseline on a free port until stop is called.
func startBaseline(ctx context.Context, url string) (addr string, stop func() error, err error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return "", nil, err
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = roleBaseline
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return "", nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		pool.Close()
		return "", nil, err
	}
	hs := &http.Server{Handler: byHand{pool}.routes(), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(ln) }()
	return ln.Addr().String(), func() error {
		err := hs.Close()
		if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
			err = errors.Join(err, serr)
		}
		pool.Close()
		return err
	}, nil
}

// baselineMain is the program in its role as the baseline: it says where it listens and serves until ctx is done.
func baselineMain(ctx context.Context, stdout io.Writer) error {
	addr, stop, err := startBaseline(ctx, os.Getenv(databaseURL))
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "http://%s\n", addr)
	<-ctx.Done()
	return stop()
}
