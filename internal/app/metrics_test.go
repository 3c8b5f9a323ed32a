package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"godstack/internal/dbtest"
)

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, free.Close()) }()
	return free.Addr().String()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	addr := freeAddress(t)
	a, err := Start(t.Context(), settings(Config{DatabaseURL: dbtest.URL(t), MetricsAddr: addr}))
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	_, body := get(t, "http://"+addr+"/metrics")
	for _, name := range []string{
		"sockets", "socket_messages_sent_total", "streams", "stream_events_total", "changelog_lag_seconds", "changelog_reads_total",
		"pubsub_connected", "pubsub_connections_total",
	} {
		require.Contains(t, body, "\ngodstack_"+name+" ")
	}
	require.Contains(t, body, "\ngo_goroutines ")
	require.Contains(t, body, "\ngodstack_ready 1\n")
	require.Contains(t, body, "\ngodstack_graphql_errors_total{code=\"INTERNAL\"} 0\n", "a first error is an increase")
	// Whoever uses the API does not see them, nor profiles.
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap"} {
		status, _ := get(t, local(a)+path)
		require.Equal(t, http.StatusNotFound, status, path)
	}

	_, err = Start(t.Context(), settings(Config{DatabaseURL: dbtest.URL(t), MetricsAddr: addr}))
	require.ErrorContains(t, err, "METRICS_ADDR")
}

func TestProfiles(t *testing.T) {
	t.Parallel()
	addr := freeAddress(t)
	start(t, Config{DatabaseURL: dbtest.URL(t), MetricsAddr: addr})
	for path, want := range map[string]string{
		"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile: total", "/debug/pprof/heap": "\x1f\x8b",
		"/debug/pprof/profile?seconds=1": "\x1f\x8b", "/debug/pprof/trace?seconds=0.1": "trace", "/debug/pprof/symbol": "num_symbols",
		"/debug/pprof/cmdline": os.Args[0],
	} {
		status, body := get(t, "http://"+addr+path)
		require.Equal(t, http.StatusOK, status, path)
		require.Contains(t, body, want, path)
	}
}

// node is what a program that was used has to say: its metrics, and the labels of each.
type node map[string]map[string]bool

// used starts a program with all its parts, and uses it until there is something to count of each kind.
func used(t *testing.T) (n node, text string) {
	t.Helper()
	addr, database := freeAddress(t), dbtest.URL(t)
	c := open(t, start(t, Config{
		DatabaseURL: database, ReadURL: database, Development: true, Seed: true, PublicURL: publicURL, MetricsAddr: addr,
	}))
	c = c.as(tokensOf(c.must(t, "login", login, map[string]any{"login": "ada", "password": SeedPassword})).access)
	id := c.must(t, "createThread", createThread, nil).(map[string]any)["id"].(string)
	s := c.subscribe(t, id)
	s.expect(`{"kind": "SNAPSHOT", "version": 1, "thread": {"subject": "one"}}`)
	c.must(t, "updateThread", updateThread, map[string]any{"id": id, "v": 1})
	s.expect(`{"kind": "UPDATED", "version": 2, "thread": {"subject": "two"}}`)
	require.Equal(t, "CONFLICT", c.query(t, updateThread, map[string]any{"id": id, "v": 1}).code())

	_, text = get(t, "http://"+addr+"/metrics")
	n = node{"up": {}} // which Prometheus adds
	sample := regexp.MustCompile(`^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$`)
	label := regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		m := sample.FindStringSubmatch(strings.TrimSpace(line))
		require.NotNil(t, m, line)
		if n[m[1]] == nil {
			n[m[1]] = map[string]bool{}
		}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			n[m[1]][l[1]] = true
		}
	}
	return n, text
}

// What looks at metrics knows them: names and units are as Prometheus would have them, each is documented, and each that the dashboard and
// the alerts ask for exists, with its labels.
func TestMetricsAreKnown(t *testing.T) {
	t.Parallel()
	n, text := used(t)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(t, err)
	for _, p := range problems {
		require.NotContains(t, p.Metric, "godstack_", p.Text)
	}
	require.Contains(t, text, "\ngodstack_conflicts_total{type=\"Thread\"} 1\n")
	require.Contains(t, text, "\ngodstack_graphql_operation_duration_seconds_count{name=\"(anonymous)\",type=\"subscription\"} 1\n")

	page, err := os.ReadFile("../../docs/observability.md")
	require.NoError(t, err)
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(godstack_\\w+)` \\| (counter|gauge|histogram) \\|").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = m[2]
	}
	told := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (godstack_\w+) (\w+)$`).FindAllStringSubmatch(text, -1) {
		told[m[1]] = m[2]
	}
	require.Equal(t, told, documented)

	asked := 0
	for where, expressions := range map[string][]string{"the dashboard": dashboard(t), "the alerts": alerts(t, string(page))} {
		for _, e := range expressions {
			require.NoError(t, n.check(e), "%s: %s", where, e)
			asked++
		}
	}
	require.Greater(t, asked, 50)
}

// What check holds of expressions it does hold.
func TestExpressionsAreChecked(t *testing.T) {
	t.Parallel()
	n := node{"godstack_x_total": {"code": true}, "godstack_y_bucket": {"le": true}}
	for _, good := range []string{
		`sum by (code, instance) (rate(godstack_x_total{code="A, b{c}", job=~"x"}[5m])) > 0.5e-1`,
		`histogram_quantile(0.9, sum by (le) (rate(godstack_y_bucket[$__rate_interval])))`,
		`godstack_x_total / on (instance) godstack_x_total offset 5m and godstack_x_total unless godstack_x_total`,
	} {
		require.NoError(t, n.check(good), good)
	}
	for _, bad := range []string{
		``, `1`, `godstack_z`, `rate(godstack_x[5m])`, `rate(godstack_x_total[5m]`, `rate(godstack_x_total[5m]))`, `rate(godstack_x_total[5)m]`,
		`ratio(godstack_x_total[5m])`, `godstack_x_total{kind="A"}`, `sum by (kind) (godstack_x_total)`, `godstack_x_total{code="A}`,
		`godstack_x_total{code=A}`, `godstack_x_total code`, `godstack_x_total godstack_x_total`,
		`godstack_x_total (godstack_x_total)`, `rate godstack_x_total`,
	} {
		require.Error(t, n.check(bad), bad)
	}
}

var (
	promString  = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	promMatcher = regexp.MustCompile(`^\s*(\w+)\s*(?:=|!=|=~|!~)\s*""\s*$`)
	promGroup   = regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([\w\s,]*)\)`)
	promSet     = regexp.MustCompile(`\{([^{}]*)\}`)
	promRange   = regexp.MustCompile(`\[(?:\d+[smhd]|\$__rate_interval)\]`)
	promOffset  = regexp.MustCompile(`\boffset\s+\d+[smhd]\b`)
	promWord    = regexp.MustCompile(`[a-zA-Z_:][\w:]*\s*\(?`)
	promNumber  = regexp.MustCompile(`\b\d+(?:\.\d+)?(?:e[+-]?\d+)?\b`)
	promRest    = regexp.MustCompile(`^[\sM()+\-*/%^<>=!,]*$`)
	promSide    = regexp.MustCompile(`[M)]\s*[M(]`)
)

// check returns what is wrong with an expression of PromQL: brackets, functions, metrics that there are not, labels that they have not.
func (n node) check(expression string) error {
	text := promString.ReplaceAllString(expression, `""`)
	labels := map[string]bool{}
	for _, m := range promSet.FindAllStringSubmatch(text, -1) {
		for matcher := range strings.SplitSeq(m[1], ",") {
			l := promMatcher.FindStringSubmatch(matcher)
			if l == nil {
				return fmt.Errorf("%q is no matcher", matcher)
			}
			labels[l[1]] = true
		}
	}
	for _, m := range promGroup.FindAllStringSubmatch(text, -1) {
		for l := range strings.SplitSeq(m[1], ",") {
			labels[strings.TrimSpace(l)] = true
		}
	}
	for _, re := range []*regexp.Regexp{promSet, promGroup, promRange, promOffset, promNumber} {
		text = re.ReplaceAllString(text, " ")
	}
	var unknown error
	metrics := map[string]bool{}
	rest := promWord.ReplaceAllStringFunc(text, func(w string) string { // of words, brackets and operators are left, and M for a metric
		name := strings.TrimRight(w, " \t\n(")
		switch {
		case slices.Contains([]string{"and", "or", "unless"}, name):
			return "+" + w[len(name):]
		case slices.Contains([]string{"sum", "min", "max", "avg", "topk", "rate", "increase", "histogram_quantile", "scalar"}, name) &&
			strings.HasSuffix(w, "("):
			return "("
		case n[name] == nil:
			unknown = fmt.Errorf("there is neither a metric nor a function %s", name)
		}
		metrics[name] = true
		return "M" + w[len(name):]
	})
	switch {
	case unknown != nil:
		return unknown
	case len(metrics) == 0:
		return errors.New("no metric is asked for")
	case promSide.MatchString(rest):
		return errors.New("there is no operator between")
	}
	for l := range labels {
		known := l == "instance" || l == "job" // of Prometheus
		for m := range metrics {
			known = known || n[m][l]
		}
		if !known {
			return fmt.Errorf("none of %s has a label %s", slices.Sorted(maps.Keys(metrics)), l)
		}
	}
	if !promRest.MatchString(rest) {
		return fmt.Errorf("%q is left", strings.TrimSpace(rest))
	}
	depth := 0
	for _, r := range rest {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth < 0 {
			break
		}
	}
	if depth != 0 {
		return errors.New("the brackets do not match")
	}
	return nil
}

// dashboard returns the expressions of deploy/grafana/godstack.json, whose panels have all that Grafana needs.
func dashboard(t *testing.T) (expressions []string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/grafana/godstack.json")
	require.NoError(t, err)
	var d struct {
		UID, Title    string
		SchemaVersion int
		Templating    struct {
			List []struct{ Name, Type string }
		}
		Panels []struct {
			ID          int
			Type, Title string
			GridPos     struct{ H, W, X, Y int }
			Datasource  struct{ UID string }
			FieldConfig struct{ Defaults struct{ Unit string } }
			Targets     []struct{ RefID, Expr, LegendFormat string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &d))
	require.NotEmpty(t, d.UID)
	require.NotEmpty(t, d.Title)
	require.NotZero(t, d.SchemaVersion)
	require.Len(t, d.Templating.List, 2)
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				require.Empty(t, taken[at], "%s lies over it", p.Title)
				taken[at] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		require.Equal(t, "${datasource}", p.Datasource.UID, p.Title)
		require.NotEmpty(t, p.FieldConfig.Defaults.Unit, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		for _, e := range p.Targets {
			require.NotEmpty(t, e.LegendFormat, p.Title)
			require.Contains(t, e.Expr, `instance=~"$node"`, p.Title)
			expressions = append(expressions, e.Expr)
		}
	}
	return expressions
}

// alerts returns the expressions of deploy/prometheus/alerts.yaml, each of which page says what to do about.
func alerts(t *testing.T, page string) (expressions []string) {
	t.Helper()
	f, err := os.Open("../../deploy/prometheus/alerts.yaml")
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr         string
				For                 time.Duration
				Labels, Annotations map[string]string
			}
		}
	}
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	require.NoError(t, d.Decode(&rules))
	require.ErrorIs(t, d.Decode(new(any)), io.EOF)
	var names, documented []string
	for _, g := range rules.Groups {
		require.NotEmpty(t, g.Name)
		for _, r := range g.Rules {
			require.Regexp(t, `^Godstack[A-Za-z]+$`, r.Alert)
			require.Contains(t, []string{"page", "ticket"}, r.Labels["severity"], r.Alert)
			require.NotEmpty(t, r.Annotations["summary"], r.Alert)
			require.Regexp(t, `[<>]|==`, r.Expr, r.Alert)
			names, expressions = append(names, r.Alert), append(expressions, r.Expr)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(Godstack\\w+)` \\|").FindAllStringSubmatch(page, -1) {
		documented = append(documented, m[1])
	}
	require.Equal(t, names, documented)
	return expressions
}
