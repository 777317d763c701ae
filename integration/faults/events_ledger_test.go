package faults_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// A ledger of events finds each wrong that it is there to find.
func TestEventLedger(t *testing.T) {
	a, b := eventstore.StreamID{Category: "x", ID: "a"}, eventstore.StreamID{Category: "x", ID: "b"}
	recorded := func(id string, stream eventstore.StreamID, version, position int64) eventstore.Recorded {
		return eventstore.Recorded{Event: eventstore.Event{ID: id}, Stream: stream, Version: version, Position: position}
	}
	log := []eventstore.Recorded{recorded("1", a, 1, 1), recorded("2", b, 1, 2), recorded("3", a, 2, 3), recorded("4", a, 4, 5)}
	l := faults.NewEventLedger()
	say := func(v faults.Verdict, e faults.EventPlace) {
		l.Enter(faults.EventNews{Verdict: v, Events: []faults.EventPlace{e}})
	}
	say("", faults.EventPlace{ID: "1", Stream: a})
	say(faults.Acknowledged, faults.EventPlace{ID: "1", Stream: a, Version: 1, Position: 1})
	say(faults.Acknowledged, faults.EventPlace{ID: "2", Stream: b, Version: 2, Position: 2}) // has another version
	say(faults.Acknowledged, faults.EventPlace{ID: "9", Stream: b, Version: 1, Position: 2}) // is not there
	say(faults.Refused, faults.EventPlace{ID: "3", Stream: a})
	say("", faults.EventPlace{ID: "4", Stream: a})
	say(faults.Unknown, faults.EventPlace{ID: "8", Stream: a})
	totals := l.Totals(log)
	require.Equal(t, faults.EventTotals{Sent: 6, Acknowledged: 3, Lost: 2, Refused: 1, Untrue: 1, Unknown: 2, Made: 1, Gaps: 1}, totals)

	totals = faults.EventTotals{}
	totals.Handle(log, []faults.HandledEvent{{1, "1"}, {3, "3"}, {2, "2"}, {3, "3"}}, func(*eventstore.Recorded) string { return "" })
	require.Equal(t, faults.EventTotals{Seen: 4, Disordered: 1, Twice: 1, Missed: 1}, totals)
	totals = faults.EventTotals{}
	totals.Handle(log, []faults.HandledEvent{{1, "1"}, {3, "3"}, {2, "2"}, {4, "4"}}, func(e *eventstore.Recorded) string { return e.Stream.ID })
	require.Equal(t, faults.EventTotals{Seen: 4}, totals)
	totals = faults.EventTotals{}
	totals.Handle(log, []faults.HandledEvent{{1, "1"}, {2, "9"}, {3, "3"}, {4, "4"}, {5, "5"}}, func(*eventstore.Recorded) string { return "" })
	require.Equal(t, faults.EventTotals{Seen: 5, Unmade: 2, Missed: 1}, totals)
}
