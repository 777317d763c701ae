package sagas

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// A Row is what the page says of one operation that a process was killed at.
type Row struct {
	Killed      string // where
	Compensated bool   // the saga was one that is compensated; otherwise it completes
	Kills       int
	Ended       int // instances that ended as they should
	Parked      int
	Open        int // instances that are neither
	Twice       int // steps that were done, or undone, under two ids
	Disordered  int // instances whose steps were not undone in reverse order
	Missing     int // steps that were not done, or not undone, of instances that ended
	Repeated    int // commands that came again, under the id that receivers know
	Slowest     time.Duration
}

// Failed reports that something is not as it was promised.
func (r Row) Failed() bool { return r.Open+r.Parked+r.Twice+r.Disordered+r.Missing > 0 }

// String is the row in Markdown.
func (r Row) String() string {
	name, outcome := r.Killed, "completed"
	if r.Failed() {
		name += " (FAILED)"
	}
	if r.Compensated {
		outcome = "compensated"
	}
	return fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %d | %d | %d | %d | %.1f s |", name, outcome, r.Kills, r.Ended, r.Parked, r.Open, r.Twice, r.Missing, r.Disordered,
		r.Repeated, r.Slowest.Seconds())
}

const title = "\n## Sagas\n\n"

const heading = `Written on %s. Each line is a saga of three steps on MariaDB and RabbitMQ, a step each by events with and without a confirmed undo, and by calls,
whose process is killed with SIGKILL at one kind of operation, at each occurrence of it in the life of an instance, one after another. The next
process goes on with what it left, and is killed at the next. Services note the commands that they were given. The run fails when an
instance does not end as it would have without a kill, when a step is done or undone under two ids, is left out, or is undone out of order.

| killed | outcome | kills | ended so | parked | left open | steps twice | steps missing | out of order | commands repeated | slowest end |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`

const footnotes = `
*commands repeated* came again with the id of the first time, by which receivers know them. *slowest end* is from the kill until the instance ended, with
the start of the next process and the lease of the killed one, 400 ms.
`

// WritePage puts the rows at the end of a page in Markdown, in place of those that are there.
func WritePage(path string, rows []Row, suite []SuiteRow) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before, _, _ := strings.Cut(string(old), title)
	var text strings.Builder
	text.WriteString(before + title)
	fmt.Fprintf(&text, heading, time.Now().UTC().Format(time.DateOnly))
	for _, r := range rows {
		fmt.Fprintln(&text, r)
	}
	text.WriteString(footnotes)
	text.WriteString(suiteHeading)
	for _, r := range suite {
		fmt.Fprintln(&text, r)
	}
	return os.WriteFile(path, []byte(text.String()), 0o644) //nolint:gosec // a page for everyone
}
