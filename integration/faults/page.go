package faults

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A Row is what the page says of one fault.
type Row struct {
	Fault, Driver, Kind string
	Times               int // how often it was done
	Totals
	Before   float64  // events a second
	Recovery Recovery // the slowest
	Leaked   int      // goroutines left after everything was closed
	Seed     uint64
	Failed   bool
}

// A StateRow is what the page says of one fault of an engine.
type StateRow struct {
	Fault, Engine string
	Times         int
	StateTotals
	Before   float64  // acknowledged writes a second
	Recovery Recovery // the slowest
	Leaked   int
	Seed     uint64
	Failed   bool
}

// String is the row in Markdown.
func (r StateRow) String() string {
	name := r.Fault
	if r.Failed {
		name += " (FAILED)"
	}
	return fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %d (%d made) | %d | %d | %d | %d | %.0f | %s | %d | %d | %d |", name, r.Engine, r.Times, r.Sent,
		r.Acknowledged, r.Refused, r.Unknown, r.Made, r.Lost, r.Untrue, r.Half, r.Twice, r.Before, r.Recovery, r.Late, r.Leaked, r.Seed)
}

// An EventRow is what the page says of one fault of a log of events.
type EventRow struct {
	Fault, Engine string
	Times         int
	EventTotals
	Seed   uint64
	Failed bool
}

// String is the row in Markdown.
func (r EventRow) String() string {
	name := r.Fault
	if r.Failed {
		name += " (FAILED)"
	}
	return fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %d | %d (%d made) | %d | %d | %d | %d | %d | %d | %d | %d | %d |", name, r.Engine, r.Times, r.Sent, r.Acknowledged,
		r.Refused, r.Conflicts, r.Unknown, r.Made, r.Lost, r.Untrue, r.Gaps, r.Seen, r.Unmade, r.Twice, r.Missed, r.Disordered, r.Seed)
}

// Rows are what a run has come to, a kind of rows for each part of the page.
type Rows struct {
	Bus      []Row
	State    []StateRow
	Events   []EventRow
	Rebuilds []RebuildRow
	Relays   []RelayRow
	Outages  []RelayRow // of a run beside the one of Relays
	Mesh     []MeshRow
}

// Add adds the rows of others behind its own.
func (r *Rows) Add(others Rows) {
	r.Bus, r.State = append(r.Bus, others.Bus...), append(r.State, others.State...)
	r.Events, r.Rebuilds = append(r.Events, others.Events...), append(r.Rebuilds, others.Rebuilds...)
	r.Relays, r.Outages = append(r.Relays, others.Relays...), append(r.Outages, others.Outages...)
	r.Mesh = append(r.Mesh, others.Mesh...)
}

// String is all rows in Markdown, each on a line.
func (r *Rows) String() string {
	return lines(r.Bus) + lines(r.State) + lines(r.Events) + lines(r.Rebuilds) + lines(r.Relays) + lines(r.Outages) + lines(r.Mesh)
}

func lines[R fmt.Stringer](rows []R) string {
	var text strings.Builder
	for _, r := range rows {
		fmt.Fprintln(&text, r)
	}
	return text.String()
}

// WritePage writes the rows as a page in Markdown. A part of the page of which there are no rows stays as it is: the run was of other
// faults.
func WritePage(path string, rows *Rows) error {
	return Rewrite(path, func(rest string) string {
		var page strings.Builder
		for _, p := range rows.parts() {
			its := ""
			if strings.HasPrefix(rest, p.title) {
				its = rest
				if next := strings.Index(rest[len(p.title):], "\n## "); next >= 0 {
					its = rest[:len(p.title)+next]
				}
			}
			rest = rest[len(its):]
			if p.text != "" {
				its = p.title + p.text
			}
			page.WriteString(its)
		}
		return page.String() + rest
	})
}

// Rewrite changes a page, which is empty where there is none. Others who call it meanwhile, also in other processes, wait.
func Rewrite(path string, change func(old string) string) error {
	page, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644) //nolint:gosec // a page for everyone
	if err != nil {
		return err
	}
	defer func() { _ = page.Close() }() // also unlocks
	if err := syscall.Flock(int(page.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	old, err := io.ReadAll(page)
	if err != nil {
		return err
	}
	if err := page.Truncate(0); err != nil {
		return err
	}
	_, err = page.WriteAt([]byte(change(string(old))), 0)
	return err
}

// A pagePart is what stands under a title. No text: there are no rows of it.
type pagePart struct{ title, text string }

// parts are those of the page in their order. The page goes on behind the last one, with what others write.
func (r *Rows) parts() []pagePart {
	return []pagePart{
		{"", part(fmt.Sprintf(heading, today(), runtime.Version(), runtime.NumCPU(), publishers, mostSubscriptions, atWork, Slack, ClusterSlack, 100*Share, 100*ClusterShare), r.Bus, footnotes)},
		{stateTitle, part(fmt.Sprintf(stateHeading, stateWriters, StateSlack, 100*StateShare), r.State, stateFootnotes)},
		{eventTitle, part(fmt.Sprintf(eventHeading, EventWriters, sharedStreams), r.Events, eventFootnotes)},
		{rebuildTitle, part(rebuildHeading, r.Rebuilds, "")},
		{relayTitle, part(relayHeading, r.Relays, "")},
		{outageTitle, part(outageHeading, r.Outages, "")},
		{meshTitle, part(fmt.Sprintf(meshHeading, today(), callers, patientDeadline, AttemptTimeout, MeshSlack), r.Mesh, meshFootnotes)},
	}
}

func part[R fmt.Stringer](heading string, rows []R, footnotes string) string {
	if len(rows) == 0 {
		return ""
	}
	return heading + lines(rows) + footnotes
}

func today() string { return time.Now().UTC().Format(time.DateOnly) }

// String is the row in Markdown.
func (r Row) String() string {
	name := r.Fault
	if r.Failed {
		name += " (FAILED)"
	}
	lost := fmt.Sprint(r.Lost)
	if r.Excused > 0 {
		lost += fmt.Sprintf(" (%d removed)", r.Excused)
	}
	return fmt.Sprintf("| %s | %s | %s | %d | %d | %d | %d | %d | %s | %.0f | %s | %d | %d | %d |", name, r.Driver, r.Kind, r.Times, r.Sent, r.Confirmed,
		r.Handled, r.Duplicated, lost, r.Before, r.Recovery, r.Late, r.Leaked, r.Seed)
}

const heading = `# Faults

Written by ` + "`make faults`" + ` on %s with %s on %d cores, servers and clients sharing them. Each line is a bus under load
whose broker is harmed so many times: %d publishers, each waiting for its own confirmation, some with partition keys, some
with deadlines of milliseconds, and up to %d subscriptions, the first of which fails on every tenth event's first delivery; at
most %d events at work. The run fails when anything confirmed is lost, when a publish returns later than %s after its
deadline (on a cluster, whose nodes share the cores, %s), when a goroutine is left, or when %.0f %% of the rate before do not
come back (on a cluster %.0f %%: its queues have other leaders then). Where they do not in a minute, the machine may be slower than it was: then a
new bus with the same load is begun beside it, and both are measured in the same seconds ("beside a new one"). On a cluster a harm ends when the load has gone on without
the node and the node is back. Time in which the process that publishes did not run (it looks every 10 ms, and was late itself) is not
counted as late, here and below.

| fault | driver | queues | times | sent | confirmed | handled | duplicated | lost | events/s before | recovered to | late publishes | goroutines left | seed |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`

const footnotes = `
*sent* counts events; what a deadline or the broker's absence ended is sent and not confirmed, and may have been handled all
the same. *handled* and *duplicated* count over all subscriptions. *lost* is confirmed and never handled by some subscription;
what was removed with its queue is not. *recovered to* is the slowest time, from the end of the harm until a second began in
which events were settled at that share of the rate before.
`

const stateTitle = "\n## State\n\n"

const stateHeading = `Each line is a store under load whose server, or process, is harmed so many times: %d writers, each waiting for its own
acknowledgement, some with deadlines of milliseconds. Of six writes one is a transaction of two keys and one counts a key up on
condition of its ETag; the others make a key each. In the end every key is read and held against what the writers were told. The
run fails when anything acknowledged is lost, anything refused was made, a transaction was made by half, a count was made twice, a
call returned later than %s after its deadline (without the time in which its process did not run), a goroutine is left, or %.0f %% of the rate before do not come back. Redis flushes its
append-only file before each answer; MariaDB and SQLite flush each commit.

| fault | engine | times | sent | acknowledged | refused | unknown | lost | refused and made | half | twice | writes/s before | recovered to | late | goroutines left | seed |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`

const stateFootnotes = `
*refused* is ErrUnavailable: nothing was changed. *unknown* is ErrOutcomeUnknown, or a process that was killed before it heard:
some of them were made, and are found in the end; a count that another followed is not among those found.
`

const eventTitle = "\n## Events\n\n"

const eventHeading = `Each line is a log of events under load that is harmed so many times: %d writers in two processes, each waiting for its own
answer, appending one to three events to a stream of its own, to one of %d that all append to, or to both, on condition of the versions that they
know of; one of twenty appends is given up after milliseconds. An append whose outcome is unknown is repeated with its ids. Meanwhile others' transactions append several
rows to the same table, take their time, and are rolled back half of the time when they are slow, 5 %% of the time when they are not. Two processes share
two subscriptions that write each event into a table in the handler's transaction: one has all events in their order, the other has four
partitions and orders the events of a stream. In the end log and table are read and held against what the writers were told.
The run fails when any of the columns from *lost* on, but *seen*, is not 0.

| fault | engine | times | sent | acknowledged | refused | of them conflicts | unknown | lost | refused and made | gaps | seen | not in the log | twice | missed | out of order | seed |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`

const eventFootnotes = `
All figures are events. *lost* is acknowledged and not in the log, or not at the version and position of the answer: so of two appends that expect one version of a
stream, at most one was acknowledged. *gaps* are positions of the log and versions of streams that nothing has. *seen* and what follows are of both
subscriptions together; *not in the log* was handled, and the database has lost it since, with its kill. They see the other transactions' events too.
`
