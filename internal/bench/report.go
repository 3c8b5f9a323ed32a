package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
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
}

func (r *report) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format, args...)
		errs = append(errs, err)
	}
	n := r.data.size
	line("%d users, %d threads, %d messages; %s, %d CPUs, %d rounds of %s; durable commits: %t; access rules: %t; L is a hand-written handler\n\n",
		n.users, n.threads, n.messages, runtime.Version(), runtime.NumCPU(), len(r.series[0].slices[0]), r.cfg.slice, r.cfg.durable, r.cfg.rules)

	line("CPU us a request (medians)\tclients\tratio\tfrom\tto\tserver\tPostgres\tL server\tL Postgres\tp50 ms\tL p50 ms\t\n")
	for _, s := range r.series {
		ratios := s.ratios()
		g, l := s.medians(godstack), s.medians(baseline)
		line("%s\t%d\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t\n", s.op.name, s.clients,
			median(ratios), quantile(ratios, 0.25), quantile(ratios, 0.75),
			g.server, g.postgres, l.server, l.postgres, g.latency*1e3, l.latency*1e3)
	}
	line("\na request\tstatements\tround trips\tallocations\tKiB\tL statements\tL round trips\tL allocations\tL KiB\t\n")
	for _, op := range operations {
		g, l := r.counts[op.name][godstack], r.counts[op.name][baseline]
		line("%s\t%d\t%d\t%d\t%.1f\t%d\t%d\t%d\t%.1f\t\n", op.name, g.statements, g.trips, g.allocs, kib(g.bytes),
			l.statements, l.trips, l.allocs, kib(l.bytes))
	}
	line("\nmemory in MiB\tidle\tafter the load\t\n")
	for target, name := range targetNames {
		line("%s\t%.1f\t%.1f\t\n", name, kib(r.idle[target])/1024, kib(r.loaded[target])/1024)
	}
	errs = append(errs, w.Flush())
	line("\nfrom start to ready: %s (the median of %d)\n\n", median(slices.Clone(r.starts)).Round(100*time.Microsecond), len(r.starts))
	for _, op := range operations {
		line("%s: %s\n", op.name, op.what)
	}
	line("from, to: the quarters of the ratio's slices. p50: of an answer's wall time, at the client.\n")
	return errors.Join(append(errs, w.Flush())...)
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
	return f.Close()
}
