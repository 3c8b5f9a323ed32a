package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"godstack/internal/server"
)

// metrics answers /metrics on an address of its own.
type metrics struct {
	ln      net.Listener
	handler http.Handler
}

// newMetrics listens, and registers what the parts count. srv is nil where the node has no API; ready is then what /readyz asks.
func newMetrics(ctx context.Context, addr string, c *core, srv *server.Server, ready func(context.Context) error) (*metrics, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("METRICS_ADDR: listen on %s: %w", addr, err)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge := func(name, help string, f func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "godstack", Name: name, Help: help}, f))
	}
	count := func(name, help string, f func() uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "godstack", Name: name, Help: help},
			func() float64 { return float64(f()) }))
	}
	if srv != nil {
		gauge("sockets", "WebSockets that are open.", func() float64 { return float64(srv.Sockets().Sockets) })
		gauge("socket_operations", "Operations that run over WebSockets.", func() float64 { return float64(srv.Sockets().Operations) })
		count("socket_messages_received_total", "Messages and control frames of WebSockets.", func() uint64 { return uint64(srv.Sockets().In) })
		count("socket_messages_sent_total", "Messages and control frames to WebSockets.", func() uint64 { return uint64(srv.Sockets().Out) })
		count("socket_pauses_total", "Events that a WebSocket had no room for.", func() uint64 { return uint64(srv.Sockets().Refused) })
		count("socket_slow_total", "WebSockets closed because their client took nothing.", func() uint64 { return uint64(srv.Sockets().Slow) })
	}

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

	gauge("pubsub_connected", "Whether other nodes wake this one.", func() float64 {
		if c.pubsub.Status().Connected {
			return 1
		}
		return 0
	})
	count("pubsub_sent_total", "Hints sent to other nodes.", func() uint64 { return c.pubsub.Status().Sent })
	count("pubsub_received_total", "Hints of other nodes.", func() uint64 { return c.pubsub.Status().Received })
	count("pubsub_connections_total", "Connections made to the backend.", func() uint64 { return c.pubsub.Status().Connections })

	if c.replica != nil {
		gauge("standby_connected", "Whether the standby is used.", func() float64 {
			if c.replica.Status().Connected {
				return 1
			}
			return 0
		})
		gauge("standby_lag_bytes", "Bytes of the log that the standby has not replayed.", func() float64 { return float64(c.replica.Status().Lag) })
		count("standby_reads_total", "Queries answered from the standby.", func() uint64 { return c.replica.Status().Reads })
		count("standby_behind_total", "Queries for the standby that the primary answered: it was away, or not that far.",
			func() uint64 { return c.replica.Status().Behind })
		count("standby_failures_total", "Queries begun on the standby and again on the primary.", func() uint64 { return c.replica.Status().Failed })
	}

	if c.jobs != nil {
		gauge("jobs_running", "Jobs that run on this node.", func() float64 { return float64(c.jobs.Stats().Running) })
		count("jobs_worked_total", "Attempts at jobs that succeeded.", func() uint64 { return c.jobs.Stats().Worked })
		count("jobs_failed_total", "Attempts at jobs that failed.", func() uint64 { return c.jobs.Stats().Failed })
		count("jobs_returned_total", "Attempts at jobs that a stop cut short.", func() uint64 { return c.jobs.Stats().Returned })
		count("jobs_rescued_total", "Jobs of nodes that are gone, given to others.", func() uint64 { return c.jobs.Stats().Rescued })
	}

	mux := http.NewServeMux()
	if ready != nil {
		health(mux, ready)
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	return &metrics{ln: ln, handler: mux}, nil
}

// serve answers until ctx is done.
func (m *metrics) serve(ctx context.Context) error {
	s := &http.Server{Handler: m.handler, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(m.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
