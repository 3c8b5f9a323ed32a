package telemetry

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// poolCollector tells of a pool what it is when it is asked.
type poolCollector struct {
	stat func() *pgxpool.Stat

	connections, limit, acquires, waited, waits, canceled, opened, closed *prometheus.Desc
}

var _ prometheus.Collector = (*poolCollector)(nil)

// NewPoolCollector returns the metrics of a pool of connections to Postgres, as [pgxpool.Pool.Stat] has them.
func NewPoolCollector(stat func() *pgxpool.Stat) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("godstack", "pool", name), help, labels, nil)
	}
	return &poolCollector{
		stat:        stat,
		connections: desc("connections", "Connections to Postgres.", "state"),
		limit:       desc("connections_limit", "Connections that there may be."),
		acquires:    desc("acquires_total", "Connections taken from the pool."),
		waited:      desc("acquire_seconds_total", "Time that taking them took."),
		waits:       desc("acquire_waits_total", "Those that waited, since no connection was free."),
		canceled:    desc("acquires_canceled_total", "Those that were given up."),
		opened:      desc("connections_opened_total", "Connections that were opened."),
		closed:      desc("connections_closed_total", "Connections closed since they were old, or idle.", "reason"),
	}
}

// Describe is for Prometheus.
func (c *poolCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.limit, c.acquires, c.waited, c.waits, c.canceled, c.opened, c.closed} {
		out <- d
	}
}

// Collect is for Prometheus.
func (c *poolCollector) Collect(out chan<- prometheus.Metric) {
	s := c.stat()
	gauge := func(d *prometheus.Desc, v int32, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(c.connections, s.AcquiredConns(), "acquired")
	gauge(c.connections, s.IdleConns(), "idle")
	gauge(c.connections, s.ConstructingConns(), "constructing")
	gauge(c.limit, s.MaxConns())
	count(c.acquires, float64(s.AcquireCount()))
	count(c.waited, s.AcquireDuration().Seconds())
	count(c.waits, float64(s.EmptyAcquireCount()))
	count(c.canceled, float64(s.CanceledAcquireCount()))
	count(c.opened, float64(s.NewConnsCount()))
	count(c.closed, float64(s.MaxLifetimeDestroyCount()), "lifetime")
	count(c.closed, float64(s.MaxIdleDestroyCount()), "idle")
}
