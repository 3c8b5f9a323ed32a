package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// report is what a run found out.
type report struct {
	cfg          config
	data         *data
	starts       []time.Duration
	idle, loaded [2]int64 // resident bytes, by target
	counts       map[string][2]counts
	series       []*series
	crowds       []*crowd
}

func (r *report) print(out io.Writer) error {
	p := &printer{w: tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)}
	n := r.data.size
	p.line("%d users, %d threads, %d messages; %s, %d CPUs; durable commits: %t; access rules: %t\n",
		n.users, n.threads, n.messages, runtime.Version(), runtime.NumCPU(), r.cfg.durable, r.cfg.rules)
	if len(r.series) > 0 {
		r.printRequests(p)
	}
	if len(r.crowds) > 0 {
		r.printCrowds(p)
	}
	return errors.Join(append(p.errs, p.w.Flush())...)
}

// printer prints tables, and keeps what goes wrong.
type printer struct {
	w    *tabwriter.Writer
	errs []error
}

func (p *printer) line(format string, args ...any) {
	_, err := fmt.Fprintf(p.w, format, args...)
	p.errs = append(p.errs, err)
}

func (r *report) printRequests(p *printer) {
	p.line("%d rounds of %s; L is a hand-written handler\n\n", len(r.series[0].slices[0]), r.cfg.slice)
	p.line("CPU us a request (medians)\tclients\tratio\tfrom\tto\tserver\tPostgres\tL server\tL Postgres\tp50 ms\tL p50 ms\t\n")
	for _, s := range r.series {
		ratios := s.ratios()
		g, l := s.medians(godstack), s.medians(baseline)
		p.line("%s\t%d\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t\n", s.op.name, s.clients,
			median(ratios), quantile(ratios, 0.25), quantile(ratios, 0.75),
			g.server, g.postgres, l.server, l.postgres, g.latency*1e3, l.latency*1e3)
	}
	p.line("\na request\tstatements\tround trips\tallocations\tKiB\tL statements\tL round trips\tL allocations\tL KiB\t\n")
	for _, op := range operations {
		g, l := r.counts[op.name][godstack], r.counts[op.name][baseline]
		p.line("%s\t%d\t%d\t%d\t%.1f\t%d\t%d\t%d\t%.1f\t\n", op.name, g.statements, g.trips, g.allocs, kib(g.bytes),
			l.statements, l.trips, l.allocs, kib(l.bytes))
	}
	p.line("\nmemory in MiB\tidle\tafter the load\t\n")
	for target, name := range targetNames {
		p.line("%s\t%.1f\t%.1f\t\n", name, kib(r.idle[target])/1024, kib(r.loaded[target])/1024)
	}
	p.line("\nfrom start to ready: %s (the median of %d)\n\n", median(slices.Clone(r.starts)).Round(100*time.Microsecond), len(r.starts))
	for _, op := range operations {
		p.line("%s: %s\n", op.name, op.what)
	}
	p.line("from, to: the quarters of the ratio's slices. p50: of an answer's wall time, at the client.\n")
}

// printCrowds prints what sockets took. It has a line a server, and their ratio in Godstack's.
func (r *report) printCrowds(p *printer) {
	p.line("\nsockets\tserver\tsockets\trecords\twrites/s\tdeliveries\tjoined\tdeliveries/s\tCPU us a delivery\tratio\tgoal\t" +
		"Postgres us a write\tp50 ms\tgoal\tp99 ms\tgoal\t\n")
	for _, c := range r.crowds {
		if c.idle || c.left != "" {
			continue
		}
		for target, name := range crowdTargets {
			s := c.result[target]
			ratio, goals, postgres := goal(0), [3]string{goal(0), goal(0), goal(0)}, goal(0)
			if target == godstack {
				ratio = fmt.Sprintf("%.2f", s.perDelivery()/c.result[baseline].perDelivery())
				goals = [3]string{goal(c.ratio), goal(milliseconds(c.p50)), goal(milliseconds(c.p99))}
				postgres = fmt.Sprintf("%.0f", s.postgres.Seconds()*1e6/float64(s.writes))
			}
			p.line("%s\t%s\t%d\t%d\t%.1f\t%d\t%d\t%.0f\t%.2f\t%s\t%s\t%s\t%.2f\t%s\t%.2f\t%s\t\n", c.name, name, c.sockets, c.records,
				float64(s.writes)/s.took.Seconds(), s.deliveries, s.joined, float64(s.deliveries)/s.took.Seconds(), s.perDelivery(), ratio, goals[0],
				postgres, milliseconds(quantile(s.delays, 0.5)), goals[1], milliseconds(quantile(s.delays, 0.99)), goals[2])
		}
	}
	p.line("\nidle sockets\tsockets\tKiB a socket\tgoal\tbare KiB\tgoroutines a socket\tbare goroutines\t\n")
	for _, c := range r.crowds {
		if c.idle && c.left == "" {
			g, b := c.result[godstack], c.result[baseline]
			p.line("%s\t%d\t%.1f\t%s\t%.1f\t%.2f\t%.2f\t\n", c.name, c.sockets, g.bytes/1024, goal(c.kib), b.bytes/1024, g.goroutines, b.goroutines)
		}
	}
	p.line("\n")
	for _, c := range r.crowds {
		p.line("%s, %d sockets: %s\n", c.name, c.sockets, cmp.Or(c.left, c.what))
	}
	p.line("bare: a server that writes bytes it is given to each socket. joined: versions that came with a later one.\n" +
		"CPU: of the server's process. p50, p99: from the end of the writer's statement to the client's read.\n" +
		"KiB: resident, after a collection.\n")
}

// perDelivery is the server's CPU time in microseconds.
func (r result) perDelivery() float64 { return r.server.Seconds() * 1e6 / float64(r.deliveries) }

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// goal writes a goal; 0 is none.
func goal(v float64) string {
	if v == 0 {
		return "-"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

func kib[T int64 | uint64](bytes T) float64 { return float64(bytes) / 1024 }

// ratios are godstack's CPU time a request in each slice, divided by the baseline's in the slice beside it.
func (s *series) ratios() []float64 {
	ratios := make([]float64, len(s.slices[godstack]))
	for i, g := range s.slices[godstack] {
		ratios[i] = float64(g.cpu()) / float64(s.slices[baseline][i].cpu())
	}
	return ratios
}

// medians of a target's slices: CPU time in microseconds a request, and the seconds that half of all answers took at most.
type medians struct{ server, postgres, latency float64 }

func (s *series) medians(target int) medians {
	var server, postgres []float64
	var latencies []time.Duration
	for _, sl := range s.slices[target] {
		server = append(server, perRequest(sl.server, sl))
		postgres = append(postgres, perRequest(sl.postgres, sl))
		latencies = append(latencies, sl.latencies...)
	}
	return medians{median(server), median(postgres), median(latencies).Seconds()}
}

func perRequest(d time.Duration, s slice) float64 {
	return float64(d.Nanoseconds()) / 1e3 / float64(s.requests)
}

// writeBenchfmt writes the slices in the format of Go's benchmarks.
func (r *report) writeBenchfmt(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for _, s := range r.series {
		for i, ratio := range s.ratios() {
			for target, name := range targetNames {
				sl := s.slices[target][i]
				fmt.Fprintf(f, "BenchmarkRequest/%s/clients=%d/%s %d %.1f server-us/op %.1f postgres-us/op", s.op.name, s.clients, name,
					sl.requests, perRequest(sl.server, sl), perRequest(sl.postgres, sl))
				if target == godstack {
					fmt.Fprintf(f, " %.3f ratio", ratio)
				}
				fmt.Fprintln(f)
			}
		}
	}
	for _, c := range r.crowds {
		for target, name := range crowdTargets {
			switch res := c.result[target]; {
			case c.left != "":
			case c.idle:
				fmt.Fprintf(f, "BenchmarkSockets/%s/sockets=%d/%s %d %.0f resident-B/op %.3f goroutines/op\n", c.name, c.sockets, name, c.sockets,
					res.bytes, res.goroutines)
			default:
				fmt.Fprintf(f, "BenchmarkSockets/%s/sockets=%d/%s %d %.3f server-us/op %.3f p50-ms %.3f p99-ms\n", c.name, c.sockets, name,
					res.deliveries, res.perDelivery(), milliseconds(quantile(res.delays, 0.5)), milliseconds(quantile(res.delays, 0.99)))
			}
		}
	}
	return f.Close()
}
