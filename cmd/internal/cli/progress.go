package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const (
	barWidth = 30
	// plainEvery is how often progress is told where it cannot be drawn.
	plainEvery = 2 * time.Second
)

// progress shows how far something is: a bar on a terminal, a line now and then elsewhere.
type progress struct {
	w     io.Writer
	drawn bool // a bar stands on the terminal's line
	last  time.Time
}

func newProgress(w io.Writer) *progress { return &progress{w: w, last: time.Now()} }

// show draws how much of a whole is done. Nothing can be done where it cannot be written.
func (p *progress) show(done, whole int64, note string) {
	if isTerminal(p.w) {
		p.drawn = true
		_, _ = fmt.Fprintf(p.w, "\r%s %s\x1b[K", bar(done, whole), note)
		return
	}
	if now := time.Now(); now.Sub(p.last) >= plainEvery {
		p.last = now
		_, _ = fmt.Fprintf(p.w, "%d of %d: %s\n", done, whole, note)
	}
}

// end takes the bar away.
func (p *progress) end() {
	if p.drawn {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

func bar(done, whole int64) string {
	full := barWidth
	if whole > 0 {
		full = int(min(done, whole) * barWidth / whole)
	}
	return fmt.Sprintf("[%s%s] %d/%d", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), done, whole)
}

// isTerminal reports whether somebody looks at what is written, or types what is read.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	nothing, err := os.Stat(os.DevNull) // a character device too
	return err != nil || !os.SameFile(info, nothing)
}

// confirm asks on the terminal. Without one nobody can answer.
func confirm(std *stdio, question string) error {
	if !isTerminal(std.in) {
		return usageError{fmt.Errorf("%s nobody is here to ask: give --yes", question)}
	}
	_, _ = fmt.Fprintf(std.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(std.in).ReadString('\n')
	if err != nil && answer == "" {
		return fmt.Errorf("no answer came, and nothing was done: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done")
}
