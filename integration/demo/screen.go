package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// A screen is where a person reads. On a terminal it has a little colour, unless NO_COLOR is set.
type screen struct {
	w       io.Writer
	colours bool
}

func newScreen(f *os.File) *screen {
	info, err := f.Stat()
	return &screen{w: f, colours: err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""}
}

const (
	bold  = "1"
	red   = "31"
	green = "32"
)

func (s *screen) paint(colour, text string) string {
	if !s.colours {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (s *screen) line(text string) { _, _ = fmt.Fprintln(s.w, text) }

func (s *screen) title(text string) { s.line("\n" + s.paint(bold, text) + "\n") }

func (s *screen) fact(what, where, remark string) {
	s.line(fmt.Sprintf("  %-5s  %-21s  %s", what, where, remark))
}

func (s *screen) verdict(well bool, text string) {
	if well {
		s.line(s.paint(green, "  ✓ "+text))
		return
	}
	s.line(s.paint(red, "  ✗ "+text))
}

// A table shows a load as it goes: a line each half a second, with what each node answered in it.
type table struct {
	out   *screen
	names []string
	begun time.Time
	last  totals
	at    time.Time
}

func newTable(out *screen, names []string) *table {
	t := &table{out: out, names: names, begun: time.Now(), at: time.Now()}
	cells := []string{"   time", " calls/s"}
	for _, name := range names {
		cells = append(cells, fmt.Sprintf("%8s", name))
	}
	out.line(out.paint(bold, strings.Join(append(cells, "  retried", "  errors"), "")))
	return t
}

// follow prints lines for so long.
func (t *table) follow(ctx context.Context, l *load, nodes []*node, length time.Duration) error {
	const most = 500 * time.Millisecond
	for end := time.Now().Add(length); ; {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		if err := pause(ctx, min(most, left)); err != nil {
			return err
		}
		t.row(l.totals(), nodes)
	}
}

func (t *table) row(now totals, nodes []*node) {
	at := time.Now()
	cells := []string{fmt.Sprintf("%6.1fs", at.Sub(t.begun).Seconds()),
		fmt.Sprintf("%8s", grouped(int(float64(now.calls-t.last.calls)/at.Sub(t.at).Seconds())))}
	for i := range t.names {
		cell := "·"
		switch {
		case i >= len(nodes):
		case nodes[i].killed:
			cell = "dead"
		default:
			cell = grouped(now.answered[nodes[i].address] - t.last.answered[nodes[i].address])
		}
		cells = append(cells, strings.Repeat(" ", max(0, 8-len([]rune(cell))))+cell)
	}
	errors := fmt.Sprintf("%8s", grouped(now.failed))
	if now.failed > 0 {
		errors = t.out.paint(red, errors)
	}
	t.out.line(strings.Join(append(cells, fmt.Sprintf("%9s", grouped(now.retried)), errors), ""))
	t.last, t.at = now, at
}

// event tells what happens between two lines.
func (t *table) event(mark, text string) {
	colour := green
	if mark == "x" {
		colour = red
	}
	t.out.line(fmt.Sprintf("%6.1fs %s", time.Since(t.begun).Seconds(), t.out.paint(colour, " "+mark+" "+text)))
}

// grouped writes a number with a space between thousands.
func grouped(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + " " + digits[i:]
	}
	return digits
}

func share(part, of int) string {
	if of == 0 {
		return ""
	}
	return fmt.Sprintf("%4.0f %%", 100*float64(part)/float64(of))
}
