package telemetry

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// MostNames is how many names of operations a node tells apart; the first that come count.
	MostNames = 100
	// longestName is how many bytes a name may have that is told apart.
	longestName = 100
	// mostValues bounds labels whose values are the program's own.
	mostValues = 100
)

// What stands in a label for what has no name, or one too many. No operation can have such a name.
const (
	anonymous = "(anonymous)"
	other     = "(other)"
)

// buckets are the upper bounds of durations, in seconds.
var buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}

// Metrics counts requests and operations. Nil counts nothing. Its methods may be called by many at once.
type Metrics struct {
	requestDuration   *prometheus.HistogramVec
	inFlight          prometheus.Gauge
	operationDuration *prometheus.HistogramVec
	operationFailures *prometheus.CounterVec
	errorsTotal       *prometheus.CounterVec
	conflicts         *prometheus.CounterVec

	mu         sync.RWMutex // protects what follows: the labels' values so far, so that counting asks no hash of strings
	requests   map[request]prometheus.Observer
	operations map[operation]*counted
	names      int // of operations, without those of others
	codes      map[string]prometheus.Counter
	entities   map[string]prometheus.Counter
}

type request struct {
	route, method string
	status        int
}

type operation struct{ kind, name string }

// counted is what there is of an operation.
type counted struct {
	duration prometheus.Observer
	failures prometheus.Counter
}

// NewMetrics registers its metrics with r. Each of codes is there from the beginning, at 0, so that a first error is an increase. It panics
// where r has metrics of these names.
func NewMetrics(r prometheus.Registerer, codes ...string) *Metrics {
	m := &Metrics{
		requestDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "godstack", Subsystem: "http", Name: "request_duration_seconds", Buckets: buckets,
			Help: "How long requests took, by the route that answered.",
		}, []string{"route", "method", "status"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "godstack", Subsystem: "http", Name: "requests_in_flight", Help: "Requests that are being answered, event streams among them.",
		}),
		operationDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "godstack", Subsystem: "graphql", Name: "operation_duration_seconds", Buckets: buckets,
			Help: "How long operations took, by type and name; of a subscription, until it had begun.",
		}, []string{"type", "name"}),
		operationFailures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "godstack", Subsystem: "graphql", Name: "operation_failures_total", Help: "Operations whose answer has an error.",
		}, []string{"type", "name"}),
		errorsTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "godstack", Subsystem: "graphql", Name: "errors_total", Help: "Errors that clients were told, by code.",
		}, []string{"code"}),
		conflicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "godstack", Name: "conflicts_total", Help: "Writes refused since somebody else had written, by the record's type.",
		}, []string{"type"}),
		requests:   map[request]prometheus.Observer{},
		operations: map[operation]*counted{},
		codes:      map[string]prometheus.Counter{},
		entities:   map[string]prometheus.Counter{},
	}
	r.MustRegister(m.requestDuration, m.inFlight, m.operationDuration, m.operationFailures, m.errorsTotal, m.conflicts)
	for _, code := range codes {
		m.codes[code] = m.errorsTotal.WithLabelValues(code)
	}
	return m
}

// Begin counts a request that is being answered, until End.
func (m *Metrics) Begin() {
	if m != nil {
		m.inFlight.Inc()
	}
}

// End counts a request that was answered. route is the pattern that found who answers, "" for none: it is one of few, not the path.
func (m *Metrics) End(route, method string, status int, took time.Duration) {
	if m == nil {
		return
	}
	m.inFlight.Dec()
	of := request{route, knownMethod(method), status}
	m.mu.RLock()
	o := m.requests[of]
	m.mu.RUnlock()
	if o == nil {
		if of.route == "" {
			of.route = "(none)"
		}
		o = m.requestDuration.WithLabelValues(of.route, of.method, strconv.Itoa(status))
		of.route = route
		m.mu.Lock()
		m.requests[of] = o
		m.mu.Unlock()
	}
	o.Observe(took.Seconds())
}

// knownMethod is one of those that HTTP defines, since a client may send any word.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
		http.MethodConnect, http.MethodTrace:
		return m
	}
	return other
}

// Operation counts an operation of a document that is valid. kind is query, mutation or subscription.
func (m *Metrics) Operation(kind, name string, took time.Duration, failed bool) {
	if m == nil {
		return
	}
	c := m.operation(operation{kind, name})
	c.duration.Observe(took.Seconds())
	if failed {
		c.failures.Inc()
	}
}

func (m *Metrics) operation(of operation) *counted {
	switch {
	case of.name == "":
		of.name = anonymous
	case len(of.name) > longestName:
		of.name = other
	}
	m.mu.RLock()
	c, full := m.operations[of], m.names >= MostNames
	if c == nil && full && of.name != anonymous {
		of.name = other
		c = m.operations[of]
	}
	m.mu.RUnlock()
	if c != nil {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if of.name != other && of.name != anonymous && m.operations[of] == nil {
		if m.names >= MostNames { // by now
			of.name = other
		} else {
			m.names++
		}
	}
	if c = m.operations[of]; c == nil {
		c = &counted{m.operationDuration.WithLabelValues(of.kind, of.name), m.operationFailures.WithLabelValues(of.kind, of.name)}
		m.operations[of] = c
	}
	return c
}

// Error counts an error that a client is told.
func (m *Metrics) Error(code string) {
	if m != nil {
		m.few(m.codes, m.errorsTotal, code).Inc()
	}
}

// Conflict counts a write that was refused since somebody else had written a record of this type.
func (m *Metrics) Conflict(entity string) {
	if m != nil {
		m.few(m.entities, m.conflicts, entity).Inc()
	}
}

// few is the counter of a label's value; of all values beyond mostValues it is one.
func (m *Metrics) few(known map[string]prometheus.Counter, of *prometheus.CounterVec, value string) prometheus.Counter {
	m.mu.RLock()
	c := known[value]
	m.mu.RUnlock()
	if c != nil {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(known) >= mostValues {
		return of.WithLabelValues(other)
	}
	c = of.WithLabelValues(value)
	known[value] = c
	return c
}
