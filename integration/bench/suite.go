package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A suite is a set of packages whose benchmarks come in pairs.
type suite struct {
	title    string
	module   string
	packages []string
}

// A result is one benchmark in both variants.
type result struct {
	name   string
	bannou []measurement
	raw    []measurement
}

// A measurement is one line of `go test -bench`.
type measurement struct{ nanoseconds, bytes, allocations float64 }

// line matches BenchmarkGet/redis/64/bannou-2   1234   5678 ns/op   90 B/op   1 allocs/op.
var line = regexp.MustCompile(`^Benchmark(\S+)/(bannou|raw)(?:-\d+)?\s+\d+\s+(.*)$`) //nolint:gochecknoglobals // a compiled constant

// run takes one measurement of every benchmark in each round, so that a change in the machine's speed meets both variants.
func (s suite) run(ctx context.Context, root string, rounds int, length time.Duration) ([]*result, error) {
	var results []*result
	for round := range rounds {
		fmt.Fprintf(os.Stderr, "bench: %s, round %d of %d\n", s.title, round+1, rounds)
		args := append([]string{"test", "-run=^$", "-bench=.", "-benchmem", "-count=1", "-timeout=20m", "-benchtime=" + length.String()}, s.packages...)
		out, err := output(ctx, filepath.Join(root, s.module), "go", args...)
		if err != nil {
			return nil, err
		}
		results = collect(results, out)
	}
	results = slices.DeleteFunc(results, func(r *result) bool { return len(r.bannou) == 0 || len(r.raw) == 0 })
	if len(results) == 0 {
		return nil, fmt.Errorf("%s: no benchmark has the variants bannou and raw", s.title)
	}
	return results, nil
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
		}
	}
	return m
}

func writeTable(w io.Writer, title string, results []*result) {
	fmt.Fprintf(w, "## %s\n\n| work | raw | bannou | ratio | allocations raw / bannou |\n| --- | ---: | ---: | ---: | ---: |\n", title)
	for _, r := range results {
		raw, ours := median(r.raw, nanoseconds), median(r.bannou, nanoseconds)
		fmt.Fprintf(w, "| %s | %s | %s | %.2f | %.0f / %.0f |\n", strings.ReplaceAll(r.name, "_", " "), perOperation(raw), perOperation(ours), raw/ours,
			median(r.raw, allocations), median(r.bannou, allocations))
	}
	fmt.Fprintln(w)
}

func nanoseconds(m measurement) float64 { return m.nanoseconds }
func allocations(m measurement) float64 { return m.allocations }

func median[T any, V cmp.Ordered](of []T, value func(T) V) V {
	values := make([]V, len(of))
	for i, m := range of {
		values[i] = value(m)
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
