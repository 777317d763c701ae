package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// An event is one of `go test -json`: see `go doc test2json` and `go help buildjson`.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of what is built
	Test        string // empty: it is of the package
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string
}

// A report is what the tests have said, of those that have not passed.
type report struct {
	said     map[name]*strings.Builder
	built    map[string]*strings.Builder // what compilers have said, by what they compiled
	failed   []name
	passes   map[name]bool // the tests that have passed
	waits    map[name]bool // the parallel tests that wait for their turn
	packages map[string]process
}

// A process is how that of a package's tests ended.
type process struct {
	ended bool // when all of its tests had
	late  bool // it ran out of time
	raced bool // the race detector found something, whichever test it says it of
}

// A name is a test's; without a test, a package's.
type name struct{ pkg, test string }

// follow reads events to their end, and prints a line for each package.
func follow(events io.Reader, out io.Writer) (*report, error) {
	r := &report{
		said: map[name]*strings.Builder{}, built: map[string]*strings.Builder{}, passes: map[name]bool{}, waits: map[name]bool{}, packages: map[string]process{},
	}
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil { // go itself says some things in another form
				_, _ = out.Write(line)
			} else {
				r.enter(e, out)
			}
		}
		if err == io.EOF {
			return r, nil
		}
		if err != nil {
			return r, err
		}
	}
}

func (r *report) enter(e event, out io.Writer) {
	n := name{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		_, _ = io.WriteString(out, e.Output)
		write(r.built, e.ImportPath, e.Output)
	case "output":
		write(r.said, n, e.Output)
		r.watch(e)
	case "pause", "cont":
		r.waits[n] = e.Action == "pause"
	case "pass", "skip":
		r.passes[n] = e.Action == "pass"
		if e.Test == "" {
			r.passed(n, out)
		}
		delete(r.said, n)
	case "fail":
		if e.Test == "" {
			r.failed = append(r.failed, r.unfinished(e.Package)...)
		}
		r.failed = append(r.failed, n)
		if built := r.built[e.FailedBuild]; built != nil {
			write(r.said, n, built.String())
		}
		if e.Test == "" {
			_, _ = fmt.Fprintf(out, "FAIL\t%s\t%.3fs\n", e.Package, e.Elapsed)
		}
	}
}

// watch learns from what is said how the process of a package fares.
func (r *report) watch(e event) {
	p := r.packages[e.Package]
	switch {
	case e.Test == "" && e.Output == "FAIL\n": // the testing package says so last
		p.ended = true
	case strings.HasPrefix(e.Output, "panic: test timed out after "):
		p.late = true
	case strings.Contains(e.Output, "DATA RACE"), strings.Contains(e.Output, "race detected during execution"):
		p.raced = true
	default:
		return
	}
	r.packages[e.Package] = p
}

// unfinished are the tests of a package that neither passed nor failed: they ran when its process ended.
func (r *report) unfinished(pkg string) (list []name) {
	for n := range r.said {
		if n.pkg == pkg && n.test != "" && !r.waits[n] && !slices.Contains(r.failed, n) {
			list = append(list, n)
		}
	}
	slices.SortFunc(list, func(a, b name) int { return strings.Compare(a.test, b.test) })
	return list
}

func write[K comparable](texts map[K]*strings.Builder, of K, text string) {
	if texts[of] == nil {
		texts[of] = new(strings.Builder)
	}
	texts[of].WriteString(text)
}

// passed prints the line that go test has for a package.
func (r *report) passed(n name, out io.Writer) {
	if r.said[n] == nil {
		return
	}
	for line := range strings.Lines(r.said[n].String()) {
		if strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "? ") || strings.Contains(line, "[no test files]") {
			_, _ = io.WriteString(out, line)
		}
	}
}

// failures prints what the failed have said. Of a test whose subtests failed it is theirs, with what the test says of itself.
func (r *report) failures(out *bytes.Buffer) {
	for _, n := range r.failed {
		if n.test == "" && r.within(n) { // it says no more than that they failed, if it has not ended in the middle
			if said := r.text(n); !strings.Contains(said, "panic: ") && !strings.Contains(said, "DATA RACE") {
				continue
			}
		}
		fmt.Fprintf(out, "\n=== FAILED: %s %s\n%s", n.pkg, n.test, r.text(n))
	}
	for _, n := range r.failed {
		if n.test == "" || !r.within(n) {
			fmt.Fprintf(out, "=== FAILED: %s %s\n", n.pkg, n.test)
		}
	}
}

// within reports whether something has failed within a test, or a package.
func (r *report) within(n name) bool {
	return slices.ContainsFunc(r.failed, func(other name) bool {
		return other.pkg == n.pkg && other != n && (n.test == "" || strings.HasPrefix(other.test, n.test+"/"))
	})
}

// text is what a test has said, without the lines by which go test tells when it ran.
func (r *report) text(n name) string {
	if r.said[n] == nil {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(r.said[n].String()) {
		if start := strings.TrimLeft(line, " "); !strings.HasPrefix(start, "=== ") {
			b.WriteString(line)
		}
	}
	return b.String()
}
