package sagas

import (
	"fmt"
	"time"
)

// A SuiteRow is what the page says of one saga of the suite and one service that is killed in it.
type SuiteRow struct {
	Saga    string // and what becomes of it without a kill
	Service string // that is killed
	Kills   int

	Completed, Compensated, Parked, Open int // instances, of which a kill may have made the caller begin two

	Untouched int // kills after which there was nothing of what was asked for, which was asked for again
	Half      int // of what the saga is about, things that are neither whole nor gone
	Twice     int // things that were told, or undone, under two ids
	Slowest   time.Duration
}

// Failed reports that something is not as it was promised.
func (r SuiteRow) Failed() bool { return r.Open+r.Parked+r.Half+r.Twice > 0 }

// String is the row in Markdown.
func (r SuiteRow) String() string {
	name := r.Saga
	if r.Failed() {
		name += " (FAILED)"
	}
	return fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %d | %d | %d | %d | %.1f s |", name, r.Service, r.Kills, r.Completed, r.Compensated, r.Parked, r.Open,
		r.Untouched, r.Half, r.Twice, r.Slowest.Seconds())
}

const suiteHeading = `
The sagas of the suite, on RabbitMQ, Redis and MariaDB: one service after another runs in a process of its own, which is killed with SIGKILL before and after each
append, publishing, acknowledgement, call, change of a store and answer to a request that it makes for an instance; the others live. A next process takes its
place, and the caller asks again, as a player does. The run fails when an instance does not end, when an account is half made, an address is
taken by nobody, a session or a trace of a deleted account is left, a seat is held by nobody or given twice, or when something is told or undone under two ids.
There are more instances than kills: of each operation one is tried that does not happen any more.

| saga | killed | kills | completed | compensated | parked | left open | nothing begun | half done | twice | slowest end |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`
