package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/99designs/gqlgen/graphql/errcode"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"godstack/internal/record"
	"godstack/internal/server"
	"godstack/internal/telemetry"
)

// metrics answers /metrics and /debug/pprof on an address of its own. Nil: nobody counts.
type metrics struct {
	registry *prometheus.Registry
	requests *telemetry.Metrics
	ln       net.Listener
}

// newMetrics returns what the server counts in; nil where cfg says that nobody asks.
func newMetrics(cfg Config) *metrics {
	if cfg.MetricsAddr == "" {
		return nil
	}
	r := prometheus.NewRegistry()
	codes := []string{errcode.ParseFailed, errcode.ValidationFailed}
	for _, c := range record.Codes() {
		codes = append(codes, string(c))
	}
	return &metrics{registry: r, requests: telemetry.NewMetrics(r, codes...)}
}

// counts is for the server.
func (m *metrics) counts() *telemetry.Metrics {
	if m == nil {
		return nil
	}
	return m.requests
}

// listen begins to listen, and registers what the other parts count.
func (m *metrics) listen(ctx context.Context, cfg Config, db *database, c *core, srv *server.Server) (err error) {
	m.ln, err = new(net.ListenConfig).Listen(ctx, "tcp", cfg.MetricsAddr)
	if err != nil {
		return fmt.Errorf("METRICS_ADDR: listen on %s: %w", cfg.MetricsAddr, err)
	}
	r := m.registry
	r.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector(),
		telemetry.NewPoolCollector(db.pool.Stat),
	)
	gauge := func(name, help string, f func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "godstack", Name: name, Help: help}, f))
	}
	count := func(name, help string, f func() uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "godstack", Name: name, Help: help},
			func() float64 { return float64(f()) }))
	}
	gauge("ready", "Whether the node serves, as /readyz says.", func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
		defer cancel()
		return truth(srv.Ready(ctx) == nil)
	})
	gauge("event_streams", "Event streams that are open.", func() float64 { return float64(srv.EventStreams()) })
	count("trace_export_failures_total", "Batches of spans that the collector did not take.", cfg.tracer.Failures)

	gauge("sockets", "WebSockets that are open.", func() float64 { return float64(srv.Sockets().Sockets) })
	gauge("socket_operations", "Operations that run over WebSockets.", func() float64 { return float64(srv.Sockets().Operations) })
	count("socket_messages_received_total", "Messages and control frames of WebSockets.", func() uint64 { return uint64(srv.Sockets().In) })
	count("socket_messages_sent_total", "Messages and control frames to WebSockets.", func() uint64 { return uint64(srv.Sockets().Out) })
	count("socket_pauses_total", "Events that a WebSocket had no room for.", func() uint64 { return uint64(srv.Sockets().Refused) })
	count("socket_slow_total", "WebSockets closed because their client took nothing.", func() uint64 { return uint64(srv.Sockets().Slow) })

	gauge("streams", "Subscriptions to records.", func() float64 { return float64(c.engine.Stats().Streams) })
	count("stream_events_total", "Events that were sent.", func() uint64 { return c.engine.Stats().Events })
	count("stream_answers_total", "Events that were rendered; subscribers share them.", func() uint64 { return c.engine.Stats().Answers })
	count("stream_joined_total", "Changes joined with later ones for subscribers who did not keep up.", func() uint64 { return c.engine.Stats().Joined })
	count("stream_resyncs_total", "Subscriptions that began anew.", func() uint64 { return c.engine.Stats().Resyncs })

	gauge("changelog_lag_seconds", "Age of the last read of the change log.", func() float64 { return c.tailer.Lag().Seconds() })
	count("changelog_reads_total", "Reads of the change log.", func() uint64 { return c.tailer.Stats().Reads })
	count("changelog_changes_total", "Changes that were read.", func() uint64 { return c.tailer.Stats().Changes })
	count("changelog_resyncs_total", "Reads that could not tell what has changed.", func() uint64 { return c.tailer.Stats().Resyncs })
	count("changelog_failures_total", "Reads that failed.", func() uint64 { return c.tailer.Stats().Failures })

	gauge("pubsub_connected", "Whether other nodes wake this one.", func() float64 { return truth(c.pubsub.Status().Connected) })
	count("pubsub_sent_total", "Hints sent to other nodes.", func() uint64 { return c.pubsub.Status().Sent })
	count("pubsub_received_total", "Hints of other nodes.", func() uint64 { return c.pubsub.Status().Received })
	count("pubsub_connections_total", "Connections made to the backend.", func() uint64 { return c.pubsub.Status().Connections })

	if c.replica != nil {
		gauge("standby_connected", "Whether the standby is used.", func() float64 { return truth(c.replica.Status().Connected) })
		gauge("standby_lag_bytes", "Bytes of the log that the standby has not replayed.", func() float64 { return float64(c.replica.Status().Lag) })
		count("standby_reads_total", "Queries answered from the standby.", func() uint64 { return c.replica.Status().Reads })
		count("standby_behind_total", "Queries for the standby that the primary answered: it was away, or not that far.",
			func() uint64 { return c.replica.Status().Behind })
		count("standby_failures_total", "Queries begun on the standby and again on the primary.", func() uint64 { return c.replica.Status().Failed })
	}
	return nil
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// readyTimeout bounds how long a scrape waits for what it asks.
const readyTimeout = 2 * time.Second

// handler has profiles beside the metrics: they are for the same people.
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// serve answers until ctx is done.
func (m *metrics) serve(ctx context.Context) error {
	s := &http.Server{Handler: m.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second} // profiles lengthen it
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(m.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
