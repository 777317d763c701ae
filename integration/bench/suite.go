package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A suite is one benchmark whose parts come in pairs.
type suite struct {
	title     string
	benchmark string
	note      string // what a reader has to know of the raw side; may be empty

	rounds int // 0: as many as are asked for; a suite whose preparation takes long has fewer

	bars map[string]float64 // the ratio that work is to reach, by its name on the page

	limits map[string]limit // of work that has no raw side, by its name on the page
}

// A limit is how long work may take. Its measurements are of the median, and have a 99th percentile.
type limit struct {
	p50, p99 time.Duration
}

// pairs is the compiled package of the benchmarks: no compiler runs between measurements.
type pairs struct {
	source string // the package's folder, from which it has to run
	folder string // temporary
}

func compile(ctx context.Context, root string) (*pairs, error) {
	folder, err := os.MkdirTemp("", "bannou-bench-")
	if err != nil {
		return nil, err
	}
	p := &pairs{source: filepath.Join(root, "integration", "bench", "pairs"), folder: folder}
	if _, err := output(ctx, p.source, "go", "test", "-c", "-o", p.binary(), "."); err != nil {
		p.remove()
		return nil, err
	}
	return p, nil
}

func (p *pairs) binary() string { return filepath.Join(p.folder, "pairs.test") }
func (p *pairs) remove()        { _ = os.RemoveAll(p.folder) } // in the system's temporary folder

// A result is one benchmark in both variants.
type result struct {
	name   string
	bannou []measurement
	raw    []measurement
}

// A measurement is one line of `go test -bench`.
type measurement struct {
	nanoseconds, bytes, allocations float64

	processor, p99 float64 // nanoseconds; 0: not measured
	heap           float64 // MiB, the most that it was; 0: not measured
}

// line matches BenchmarkGet/redis/64/bannou-2   1234   5678 ns/op   90 B/op   1 allocs/op.
var line = regexp.MustCompile(`^Benchmark(\S+)/(bannou|raw)(?:-\d+)?\s+\d+\s+(.*)$`)

// run takes one measurement of every part in each round, so that a change in the machine's speed meets both variants.
func (s suite) run(ctx context.Context, p *pairs, rounds int, length time.Duration) ([]*result, error) {
	var results []*result
	for round := range rounds {
		fmt.Fprintf(os.Stderr, "bench: %s, round %d of %d\n", s.title, round+1, rounds)
		out, err := output(ctx, p.source, p.binary(), "-test.run=^$", "-test.bench=^"+s.benchmark+"$", "-test.benchmem",
			"-test.timeout=10m", "-test.benchtime="+length.String())
		if err != nil {
			return nil, err
		}
		results = collect(results, out)
	}
	for _, r := range results {
		raw := rounds
		if _, ok := s.limits[r.work()]; ok {
			raw = 0
		}
		if len(r.bannou) != rounds || len(r.raw) != raw {
			return nil, fmt.Errorf("%s: %s was measured %d times raw and %d times as bannou, not %d times each", s.title, r.name, len(r.raw), len(r.bannou), rounds)
		}
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("%s: nothing was measured: is its server installed? run `make deps`", s.title)
	}
	for _, work := range slices.Concat(slices.Collect(maps.Keys(s.bars)), slices.Collect(maps.Keys(s.limits))) {
		if !slices.ContainsFunc(results, func(r *result) bool { return r.work() == work }) {
			return nil, fmt.Errorf("%s: %q has a bar, or a limit, and was not measured", s.title, work)
		}
	}
	return results, nil
}

// missed says of each work that does not reach its bar how far it comes.
func (s suite) missed(results []*result) (missed []string) {
	for _, r := range results {
		if bar, ok := s.bars[r.work()]; ok && r.ratio() < bar {
			missed = append(missed, fmt.Sprintf("%s: %s: %.2f of %.2f", s.title, r.work(), r.ratio(), bar))
		}
		if most, ok := s.limits[r.work()]; ok && !most.kept(r) {
			missed = append(missed, fmt.Sprintf("%s: %s: %s and %s of %s and %s", s.title, r.work(), perOperation(median(r.bannou, nanoseconds)),
				perOperation(median(r.bannou, p99)), most.p50, most.p99))
		}
	}
	return missed
}

// collect adds the measurements that `go test` printed.
func collect(results []*result, printed string) []*result {
	for lines := bufio.NewScanner(strings.NewReader(printed)); lines.Scan(); {
		match := line.FindStringSubmatch(lines.Text())
		if match == nil {
			continue
		}
		i := slices.IndexFunc(results, func(r *result) bool { return r.name == match[1] })
		if i < 0 {
			i = len(results)
			results = append(results, &result{name: match[1]})
		}
		m := parse(match[3])
		if match[2] == "raw" {
			results[i].raw = append(results[i].raw, m)
		} else {
			results[i].bannou = append(results[i].bannou, m)
		}
	}
	return results
}

func parse(figures string) (m measurement) {
	fields := strings.Fields(figures)
	for i := 0; i+1 < len(fields); i += 2 {
		value, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			continue
		}
		switch fields[i+1] {
		case "ns/op":
			m.nanoseconds = value
		case "B/op":
			m.bytes = value
		case "allocs/op":
			m.allocations = value
		case "cpu-ns/op":
			m.processor = value
		case "p99-ns/op":
			m.p99 = value
		case "heap-MiB":
			m.heap = value
		}
	}
	return m
}

func (s suite) write(page *strings.Builder, results []*result) {
	fmt.Fprintf(page, "## %s\n\n", s.title)
	if s.note != "" {
		fmt.Fprintf(page, "%s\n\n", s.note)
	}
	costs := slices.ContainsFunc(results, func(r *result) bool { return median(r.raw, processor) > 0 })
	head, rule := "| work | raw | bannou | ratio | bar | allocations raw / bannou |", "| --- | ---: | ---: | ---: | ---: | ---: |"
	if costs {
		head, rule = head+" CPU of 1000 raw / bannou | p99 raw / bannou |", rule+" ---: | ---: |"
	}
	sized := slices.ContainsFunc(results, func(r *result) bool { return median(r.bannou, heap) > 0 })
	if sized {
		head, rule = head+" most heap raw / bannou |", rule+" ---: |"
	}
	fmt.Fprintf(page, "%s\n%s\n", head, rule)
	for _, r := range results {
		if _, ok := s.limits[r.work()]; ok {
			continue
		}
		low, high := r.spread()
		fmt.Fprintf(page, "| %s | %s | %s | %.2f (%.2f–%.2f) | %s | %.0f / %.0f |", r.work(), perOperation(median(r.raw, nanoseconds)),
			perOperation(median(r.bannou, nanoseconds)), r.ratio(), low, high, s.bar(r), median(r.raw, allocations), median(r.bannou, allocations))
		if costs {
			fmt.Fprintf(page, " %s | %s |", both(r, processor, func(ns float64) string { return fmt.Sprintf("%.0f ms", ns/1000) }), both(r, p99, perOperation))
		}
		if sized {
			fmt.Fprintf(page, " %s |", both(r, heap, func(mib float64) string { return fmt.Sprintf("%.0f MiB", mib) }))
		}
		fmt.Fprintln(page)
	}
	fmt.Fprintln(page)
	s.writeLimits(page, results)
}

// kept reports whether both medians are within the limit.
func (l limit) kept(r *result) bool {
	return median(r.bannou, nanoseconds) <= float64(l.p50) && median(r.bannou, p99) <= float64(l.p99)
}

// writeLimits is for what has no raw side.
func (s suite) writeLimits(page *strings.Builder, results []*result) {
	if len(s.limits) == 0 {
		return
	}
	fmt.Fprint(page, "| work | p50 | limit | p99 | limit |\n| --- | ---: | ---: | ---: | ---: |\n")
	for _, r := range results {
		most, ok := s.limits[r.work()]
		if !ok {
			continue
		}
		verdict := ""
		if !most.kept(r) {
			verdict = ", missed"
		}
		fmt.Fprintf(page, "| %s | %s | %s | %s | %s%s |\n", r.work(), perOperation(median(r.bannou, nanoseconds)), most.p50, perOperation(median(r.bannou, p99)), most.p99, verdict)
	}
	fmt.Fprintln(page)
}

// both is a figure of the raw side and of ours, if it was measured.
func both(r *result, of func(measurement) float64, text func(float64) string) string {
	raw, bannou := median(r.raw, of), median(r.bannou, of)
	if raw == 0 || bannou == 0 {
		return ""
	}
	return text(raw) + " / " + text(bannou)
}

// bar is what the page says of the ratio that is to be reached.
func (s suite) bar(r *result) string {
	bar, ok := s.bars[r.work()]
	switch {
	case !ok:
		return ""
	case r.ratio() < bar:
		return fmt.Sprintf("%.2f, missed", bar)
	default:
		return fmt.Sprintf("%.2f", bar)
	}
}

// work is the name without the suite's, for people.
func (r *result) work() string {
	_, part, _ := strings.Cut(r.name, "/")
	return strings.NewReplacer("_", " ", "/", ", ").Replace(part)
}

// ratio is how many times as fast as raw ours is.
func (r *result) ratio() float64 { return median(r.raw, nanoseconds) / median(r.bannou, nanoseconds) }

// spread is the lowest and the highest ratio of one round.
func (r *result) spread() (low, high float64) {
	ratios := make([]float64, len(r.raw))
	for i := range ratios {
		ratios[i] = r.raw[i].nanoseconds / r.bannou[i].nanoseconds
	}
	return slices.Min(ratios), slices.Max(ratios)
}

func nanoseconds(m measurement) float64 { return m.nanoseconds }
func allocations(m measurement) float64 { return m.allocations }
func processor(m measurement) float64   { return m.processor }
func p99(m measurement) float64         { return m.p99 }
func heap(m measurement) float64        { return m.heap }

func median[T any, V cmp.Ordered](of []T, value func(T) V) V {
	values := make([]V, len(of))
	for i, m := range of {
		values[i] = value(m)
	}
	if len(values) == 0 { // there is no raw side
		var none V
		return none
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func perOperation(nanoseconds float64) string {
	if nanoseconds < 1000 {
		return fmt.Sprintf("%.0f ns", nanoseconds)
	}
	return fmt.Sprintf("%.1f µs", nanoseconds/1000)
}
