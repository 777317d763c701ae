package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// EventWriters is how many goroutines append, over all processes.
const EventWriters = 32

// sharedStreams is how many streams all writers append to, each on condition of the version that it knows of.
const sharedStreams = 8

// An EventLoad appends to one log.
type EventLoad struct {
	Store   *eventstore.Store
	Run     string // names its streams: no two loads on a log have the same
	Writers int
	Seed    uint64
	Said    func(n EventNews) // what it reports to: a ledger, or the pipe of the process that has one
}

// Write appends from several goroutines, and returns when ctx has ended and the last call has come back.
func (l *EventLoad) Write(ctx context.Context) {
	var all sync.WaitGroup
	for n := range l.Writers {
		w := &eventWriter{load: l, number: n, random: rand.New(rand.NewPCG(l.Seed, uint64(n))), versions: map[eventstore.StreamID]eventstore.Expected{}} //nolint:gosec // a schedule to be repeated
		all.Go(func() {
			for ctx.Err() == nil {
				w.write(context.WithoutCancel(ctx))                             // the end of the load ends no append
				_ = Pause(ctx, time.Duration(w.random.IntN(int(2*eventPause)))) // the loop looks at ctx itself
			}
		})
	}
	all.Wait()
}

// eventPause is how long a writer rests on average, so that handlers come along with 32 of them.
const eventPause = 40 * time.Millisecond

// An eventWriter is one of a load's goroutines.
type eventWriter struct {
	load     *EventLoad
	number   int
	random   *rand.Rand
	versions map[eventstore.StreamID]eventstore.Expected // as it knows them; Any: it does not
}

// write makes one append, of one to three events: to a stream of its own, to one that all share, or to both. One of twenty is given up after milliseconds.
func (w *eventWriter) write(ctx context.Context) {
	own := eventstore.StreamID{Category: "own", ID: fmt.Sprintf("%s-%d", w.load.Run, w.number)}
	shared := eventstore.StreamID{Category: "shared", ID: fmt.Sprint(w.random.IntN(sharedStreams))}
	appends := [][]eventstore.StreamID{{own}, {own}, {own}, {shared}, {own, shared}}[w.random.IntN(5)]
	var asked []eventstore.Append
	begun := EventNews{}
	for _, stream := range appends {
		a := eventstore.Append{Stream: stream, Expected: w.versions[stream], Events: make([]eventstore.Event, 1+w.random.IntN(3))}
		for i := range a.Events {
			a.Events[i] = eventstore.Event{ID: uuid.NewString(), Type: "written", Data: jsontext.Value("{}")}
			begun.Events = append(begun.Events, EventPlace{ID: a.Events[i].ID, Stream: stream})
		}
		asked = append(asked, a)
	}
	deadline := 2 * time.Second
	if w.random.IntN(20) == 0 {
		deadline = time.Duration(1+w.random.IntN(20)) * time.Millisecond
	}
	w.load.Said(begun)
	ended := begun
	var appended []eventstore.Appended
	var err error
	maybe := false // it was made by an earlier try, or not
	for range 4 {
		appended, err = w.try(ctx, deadline, asked)
		if err == nil || !errors.Is(err, state.ErrOutcomeUnknown) && !maybe {
			break
		}
		maybe = true
		deadline = 2 * time.Second
	}
	ended.Verdict = verdictOf(err)
	var conflict *eventstore.VersionError
	switch {
	case err == nil:
		ended.Events = w.placed(asked, appended)
	case maybe: // a later refusal says nothing of the first try
		ended.Verdict = Unknown
	case errors.As(err, &conflict):
		ended.Verdict, ended.Conflict = Refused, true
	case ended.Verdict == Wrong:
		ended.Failure = err.Error()
	}
	w.learn(asked, appended, conflict)
	w.load.Said(ended)
}

func (w *eventWriter) try(ctx context.Context, deadline time.Duration, asked []eventstore.Append) ([]eventstore.Appended, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	return w.load.Store.AppendAll(ctx, asked...)
}

// placed are the events in the places that an answer gives them.
func (w *eventWriter) placed(asked []eventstore.Append, appended []eventstore.Appended) (events []EventPlace) {
	for i, a := range asked {
		n := int64(len(a.Events))
		for j := range a.Events {
			behind := n - 1 - int64(j)
			events = append(events, EventPlace{a.Events[j].ID, a.Stream, appended[i].Version - behind, appended[i].Position - behind})
		}
	}
	return events
}

// learn notes the versions that streams have by now.
func (w *eventWriter) learn(asked []eventstore.Append, appended []eventstore.Appended, conflict *eventstore.VersionError) {
	for _, a := range appended {
		w.versions[a.Stream] = eventstore.Expected(a.Version)
	}
	if len(appended) > 0 {
		return
	}
	for _, a := range asked {
		if conflict == nil {
			w.versions[a.Stream] = eventstore.Any
		} else if a.Stream == conflict.Stream {
			w.versions[a.Stream] = eventstore.Expected(conflict.Actual)
		}
	}
}
