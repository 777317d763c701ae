package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// A chance is what of a package is run once more.
type chance struct {
	pkg   string
	tests []string // what must pass: the outermost tests that failed. There is more than one only of a whole package
	whole bool     // with all other tests of the package
}

// chances are what of a run that failed may be run once more: each test that failed, by itself, and of a package that ran out of time all,
// since some of its tests have not run. They are all or none. When none, why is the reason, which is one of these:
//   - More than so many failed: that is not one missed deadline.
//   - One never has a second chance: of those that find what no second run takes back, such as a value that was lost.
//   - A data race was seen, or a fuzz target's case failed.
//   - A package failed without a test: it could not be built, or left something behind.
//   - A package's tests did not come to their end: it panicked or was killed.
func (r *report) chances(most int, never *regexp.Regexp) (list []chance, why string) {
	count := 0
	for _, failed := range r.failed {
		if failed.test != "" {
			continue
		}
		p, tests := r.packages[failed.pkg], r.outermost(failed.pkg)
		count += len(tests)
		switch {
		case len(tests) == 0:
			return nil, failed.pkg + " failed without a test"
		case p.raced:
			return nil, "a data race was seen in " + failed.pkg
		case p.late:
			list = append(list, chance{pkg: failed.pkg, tests: tests, whole: true})
		case !p.ended:
			return nil, failed.pkg + " ended in the middle of its tests"
		default:
			for _, test := range tests {
				list = append(list, chance{pkg: failed.pkg, tests: []string{test}})
			}
		}
	}
	for _, n := range r.failed {
		if strings.HasPrefix(n.test, "Fuzz") || never != nil && (never.MatchString(n.pkg+" "+n.test) || never.MatchString(r.text(n))) {
			return nil, fmt.Sprintf("%s %s never has one", n.pkg, n.test)
		}
	}
	switch {
	case count > most:
		return nil, fmt.Sprintf("%d tests failed, and no more than %d may have one", count, most)
	case count == 0:
		return nil, "no test failed"
	}
	return list, ""
}

// outermost are the tests of a package that failed, without their subtests.
func (r *report) outermost(pkg string) (list []string) {
	for _, n := range r.failed {
		if test, _, _ := strings.Cut(n.test, "/"); n.pkg == pkg && test != "" && !slices.Contains(list, test) {
			list = append(list, test)
		}
	}
	return list
}

// secondChance runs what may be run once more, one after another, and reports whether all of it passed. It tells what came of it.
func (o options) secondChance(ctx context.Context, command []string, r *report, told *bytes.Buffer, stdout, stderr io.Writer) (bool, error) {
	list, why := r.chances(o.again, o.never)
	if why != "" {
		fmt.Fprintf(told, "=== NO SECOND CHANCE: %s\n", why)
		return false, nil
	}
	all := true
	for _, c := range list {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		_, _ = fmt.Fprintf(stdout, "=== AGAIN, ALONE: %s %s\n", c.pkg, strings.Join(c.tests, " "))
		again, status, err := execute(ctx, c.command(command), stdout, stderr)
		if err != nil {
			return false, err
		}
		if status != 0 || !again.havePassed(c) {
			all = false
			again.failures(told)
			fmt.Fprintf(told, "=== FAILED ALONE TOO: %s %s\n", c.pkg, strings.Join(c.tests, " "))
			continue
		}
		var lines bytes.Buffer
		for _, test := range c.tests {
			fmt.Fprintf(&lines, "=== PASSED ONLY ALONE: %s %s\n", c.pkg, test)
		}
		told.Write(lines.Bytes())
		if o.alone != "" {
			if err := tell(lines.Bytes(), o.alone, nil); err != nil {
				return false, err
			}
		}
	}
	return all, nil
}

// havePassed reports whether each of the tests has run and passed. One that was skipped has not.
func (r *report) havePassed(c chance) bool {
	return !slices.ContainsFunc(c.tests, func(test string) bool { return !r.passes[name{c.pkg, test}] })
}

// command is the one that runs the chance, made of the one that has failed. Of two flags of one name the last one counts.
func (c chance) command(failed []string) []string {
	flags := slices.Clone(failed[:len(failed)-len(packages(failed))])
	if !c.whole {
		flags = append(flags, "-run=^("+strings.Join(c.tests, "|")+")$")
	}
	return append(flags, "-count=1", c.pkg)
}

// packages are those that a command names: its last arguments, which are not flags.
func packages(command []string) []string {
	first := len(command)
	for first > 0 && !strings.HasPrefix(command[first-1], "-") && command[first-1] != "test" {
		first--
	}
	return command[first:]
}

// misplaced is an argument of go test before its flags that is not a flag, and could be the value of one, or else empty.
func misplaced(command []string) string {
	flags := command[slices.Index(command, "test")+1 : len(command)-len(packages(command))]
	for _, argument := range flags {
		if !strings.HasPrefix(argument, "-") {
			return argument
		}
	}
	return ""
}
