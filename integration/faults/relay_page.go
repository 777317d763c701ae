package faults

import (
	"fmt"
	"time"
)

// RelayTotals are what became of the events of a log that is published to a bus, whose receiver has an inbox.
type RelayTotals struct {
	Appended     int // acknowledged
	Arrived      int // deliveries to the handler
	Again        int // of them, of an event that was delivered before
	Handled      int // events that had their effect
	HandledTwice int // that had it more than once
	Disordered   int // effects before that of the event before in its stream
	Lost         int // events without an effect
	Left         int // events before the relay in the end
}

// A RelayRow is what the page says of one fault between a log and a handler.
type RelayRow struct {
	Fault string
	Times int
	RelayTotals
	Drained time.Duration // the longest time from the end of a harm until all that was appended by then was handled
	Seed    uint64
	Failed  bool
}

// String is the row in Markdown.
func (r RelayRow) String() string {
	name := r.Fault
	if r.Failed {
		name += " (FAILED)"
	}
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %.1f s | %d |", name, r.Times, r.Appended, r.Arrived, r.Again, r.Handled,
		r.HandledTwice, r.Disordered, r.Lost, r.Left, r.Drained.Seconds(), r.Seed)
}

const relayTitle = "\n## Outbox and inbox\n\n"

const relayHeading = `Each line is a log of events in MariaDB that two processes publish to RabbitMQ, one of which leads, while four writers append to 40
streams. A handler writes what arrives into a table of the same MariaDB, with an inbox. In the end log and table are compared. The run fails when
anything is lost, handled twice, handled before the event before it in its stream, or left unpublished. *drained* is from the end of a harm until all that was
appended by then is handled.

` + relayColumns

const outageTitle = "\n## Outbox and inbox, without the broker for long\n\n"

const outageHeading = `As above, with a twentieth of the load. *drained* is what gathered meanwhile.

` + relayColumns

const relayColumns = `| fault | times | appended | delivered | of them again | handled | twice | out of order | lost | left in the log | drained after at most | seed |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`
