// Package eventstoretest is what every engine of the event store must keep, as tests.
package eventstoretest

import (
	"fmt"
	"iter"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// Open returns an empty log, which ends with the test.
type Open func(t *testing.T, cfg eventstore.Config) *eventstore.Store

// Run checks that an engine keeps the promises of package eventstore.
func Run(t *testing.T, open Open) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) { c.run(t, open) })
	}
}

type testCase struct {
	name string
	run  func(t *testing.T, open Open)
}

// cases in the order in which a reader would want to see them fail.
func cases() []testCase {
	return []testCase{
		{"append, read", appendRead},
		{"bad arguments", badArguments},
		{"callers own their bytes", callersOwnTheirBytes},
		{"names are bytes", namesAreBytes},
		{"expected versions", expectedVersions},
		{"expected versions, in turn", expectedInTurn},
		{"several streams are one append", severalStreams},
		{"streams of a category", streamsOfCategory},
		{"followed", followed},
		{"forward, backward, from, to", readingRanges},
		{"more than a page", morePages},
		{"dense categories", denseCategories},
		{"a large event", largeEvent},
		{"repeated appends", repeatedAppends},
		{"taken ids", takenIDs},
		{"ended contexts", endedContexts},
		{"random appends beside a model", besideModel},
		{"one version, many writers", oneVersionManyWriters},
		{"many writers, no gap", manyWritersNoGap},
		{"told of appends", toldOfAppends},

		{"decisions", decisions},
		{"decisions at the same time", decisionsTogether},
		{"decisions end with their context", decisionsEnd},
		{"snapshots", snapshots},
		{"snapshots with what is behind them", restored},

		{"state at a version, at an instant", stateThen},
		{"closed streams", closedStreams},
		{"closed, while others append", closedWhileAppending},
		{"archived streams", archivedStreams},
		{"archived behind a snapshot", archivedBehindSnapshot},
		{"archived before a subscription", archivedBeforeSubscription},

		{"personal members are encrypted", personalEncrypted},
		{"erased: reads, aggregates, subscriptions", erased},
		{"erased: in another process", erasedElsewhere},
		{"erased: while it is read", erasedWhileReading},
		{"erased: snapshots", erasedSnapshots},
		{"erased: before a snapshot", erasedBeforeSnapshot},
		{"personal members: one key for many writers", oneKeyManyWriters},
		{"personal members: bound to their place", boundToTheirPlace},
		{"personal members: bad arguments", badPersonal},
		{"master keys", masterKeys},

		{"leases are fenced", leasesAreFenced},
		{"subscription: those there are, then those that come", catchUpThenLive},
		{"subscription: goes on where it was", goesOn},
		{"subscription: of a category, of a stream", partsOfTheLog},
		{"subscription: bad arguments", badSubscriptions},
		{"subscription: shared by stream", sharedByStream},
		{"subscription: taken over", takenOver},
		{"subscription: a poison event parks its stream", poisonParks},
		{"subscription: a parked stream released ahead of the position", releasedAhead},
		{"subscription: a stream that is released while nobody follows is late", releasedWhileNobodyFollows},
		{"subscription: what is away does not park", awayDoesNotPark},
		{"subscription: figures", figures},
		{"subscription: many events under way", manyUnderWay},
		{"subscription: as many as are allowed", fewUnderWay},
		{"subscription: begun in order, however they end", beginsInOrder},
		{"subscription: nothing begun late", beginsNothingLate},
	}
}

func stream(id string) eventstore.StreamID { return eventstore.StreamID{Category: "test", ID: id} }

func event(kind string) eventstore.Event {
	return eventstore.Event{Type: kind, Data: jsontext.Value(fmt.Sprintf(`{"kind":%q}`, kind))}
}

func withID(e eventstore.Event) eventstore.Event {
	e.ID = uuid.NewString()
	return e
}

// collect reads to the end.
func collect(t testing.TB, events iter.Seq2[eventstore.Recorded, error]) []eventstore.Recorded {
	t.Helper()
	var all []eventstore.Recorded
	for e, err := range events {
		require.NoError(t, err)
		all = append(all, e)
	}
	return all
}

func positions(events []eventstore.Recorded) []int64 {
	list := make([]int64, len(events))
	for i := range events {
		list[i] = events[i].Position
	}
	return list
}

func mustAppend(t testing.TB, s *eventstore.Store, id eventstore.StreamID, expected eventstore.Expected, events ...eventstore.Event) eventstore.Appended {
	t.Helper()
	appended, err := s.Append(t.Context(), id, expected, events...)
	require.NoError(t, err)
	return appended
}

// CheckOrder reads the whole log and requires that positions, and the versions of each stream, are 1, 2, 3 and so on. It returns the events.
func CheckOrder(t testing.TB, s *eventstore.Store) []eventstore.Recorded {
	t.Helper()
	all := collect(t, s.ReadAll(t.Context(), eventstore.ReadOptions{}))
	versions := map[eventstore.StreamID]int64{}
	ids := map[string]bool{}
	for i, e := range all {
		require.EqualValues(t, i+1, e.Position, "positions have a gap")
		versions[e.Stream]++
		require.Equal(t, versions[e.Stream], e.Version, "versions of stream %s have a gap", e.Stream)
		require.False(t, ids[e.ID], "event %s is there twice", e.ID)
		ids[e.ID] = true
	}
	return all
}
