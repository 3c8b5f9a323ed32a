package app

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// startWorker is Start for a node that works jobs and serves no API. It reads and writes the change log's hints as other nodes do, since
// jobs write records. Its keys and PublicURL are those of the others.
func startWorker(ctx context.Context, cfg Config) (_ *App, err error) {
	db, err := openDatabase(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.close(ctx))
		}
	}()
	if cfg.PublicURL == "" {
		cfg.PublicURL = "http://" + cfg.Addr
	}
	core, err := newCore(ctx, cfg, db.pool, db.reserve)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, core.close())
		}
	}()
	services := slices.Concat(core.services, db.watch())
	ready := func(ctx context.Context) error {
		if err := db.ready(ctx); err != nil {
			return err
		}
		return core.working(ctx)
	}
	var addr net.Addr
	if counts := newMetrics(cfg); counts != nil {
		if err := counts.listen(ctx, cfg, db, core, nil, ready); err != nil {
			return nil, err
		}
		services, addr = append(services, service{name: "metrics", run: counts.serve}), counts.ln.Addr()
		cfg.Logger.InfoContext(ctx, "metrics", "address", addr.String())
	}
	services = append(services, core.report(cfg, db.pool, addr, nil, ready)...)
	a := &App{url: cfg.PublicURL, addr: addr, mail: core.accounts.mail, done: make(chan struct{})}
	ctx, a.stop = context.WithCancel(ctx)
	cfg.warnOfNoMail(ctx)
	cfg.Logger.InfoContext(ctx, "working jobs")
	go func() {
		defer close(a.done)
		defer a.stop()
		a.err = bounded(ctx, cfg.shutdown(), func() error {
			err := runServices(ctx, services, func(ctx context.Context) error {
				<-ctx.Done()
				return nil
			})
			err = errors.Join(err, core.close())
			db.closePools()
			return err
		})
		a.err = errors.Join(a.err, db.stop(ctx))
	}()
	return a, nil
}

// readyTimeout bounds what /readyz asks of the database.
const readyTimeout = 2 * time.Second

// health adds the checks of a node that has no API to answer them.
func health(mux *http.ServeMux, ready func(context.Context) error) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := ready(ctx); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
}
