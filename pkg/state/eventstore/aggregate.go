package eventstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// AggregateConfig describes a kind of aggregate with the state S.
type AggregateConfig[S any] struct {
	// Category is that of its streams. Required.
	Category string

	// Types are the types of its events. Required.
	Types *Types

	// Apply brings the state to after an event. It looks at nothing but the two, so that the same events lead to the same state each time, and
	// refuses nothing that has happened. Required.
	Apply func(current *S, event any) error

	// Snapshots says when the state is kept, so that not all events need be read the next time. Default: never. Then S need not be JSON.
	Snapshots SnapshotPolicy

	// Schema is the version of S, in the sense of snapshots: those of another one are not read. Raise it when S, or what Apply makes of an
	// event, changes. Default: 1.
	Schema int

	// Tries is how often a decision is made at most, where others append to the stream at the same time. Default: 10.
	Tries int
}

// An Aggregate decides what happens to one thing, by the state that its events so far lead to. It is safe for concurrent use and keeps no
// state between calls.
type Aggregate[S any] struct {
	store *Store
	cfg   AggregateConfig[S]
}

// Loaded is an aggregate at one version.
type Loaded[S any] struct {
	State   S     // the zero value at version 0
	Version int64 // 0: nothing has happened yet
}

// NewAggregate checks the configuration.
func NewAggregate[S any](store *Store, cfg AggregateConfig[S]) (*Aggregate[S], error) {
	if err := checkCategory(cfg.Category); err != nil {
		return nil, fmt.Errorf("eventstore: aggregate: %w", err)
	}
	if cfg.Types == nil || cfg.Apply == nil {
		return nil, fmt.Errorf("eventstore: %w: aggregate %q needs Types and Apply", state.ErrInvalid, cfg.Category)
	}
	if cfg.Schema == 0 {
		cfg.Schema = 1
	}
	if cfg.Tries <= 0 {
		cfg.Tries = 10
	}
	return &Aggregate[S]{store: store, cfg: cfg}, nil
}

// replayed is what replaying leads to, and what a snapshot of it would save.
type replayed[S any] struct {
	Loaded[S]
	events, bytes int // behind the last snapshot
	lastID        string
	about         subjects
}

// Load returns the aggregate as it is now.
func (a *Aggregate[S]) Load(ctx context.Context, id string) (Loaded[S], error) {
	r, err := a.load(ctx, StreamID{Category: a.cfg.Category, ID: id}, latest)
	return r.Loaded, err
}

// load replays the events that until lets in, and none behind the first that it does not.
func (a *Aggregate[S]) load(ctx context.Context, id StreamID, until func(Recorded) bool) (replayed[S], error) {
	r, restored, err := a.restore(ctx, id, until)
	if err != nil {
		return replayed[S]{}, err
	}
	if !restored { // the stream is not the one that the snapshot was taken of, or it is of later than is asked for
		r = replayed[S]{}
		err = a.replayFrom(ctx, id, &r, until)
	}
	return r, err
}

// replayFrom reads what is behind the version, as far as until lets it.
func (a *Aggregate[S]) replayFrom(ctx context.Context, id StreamID, r *replayed[S], until func(Recorded) bool) error {
	for e, err := range a.store.ReadStream(ctx, id, ReadOptions{From: r.Version + 1}) {
		if err != nil {
			return err
		}
		if !until(e) {
			break
		}
		if err := a.replay(r, e); err != nil {
			return err
		}
	}
	return nil
}

func (a *Aggregate[S]) replay(r *replayed[S], e Recorded) error {
	value, err := a.cfg.Types.Decode(e)
	if err != nil {
		return err
	}
	if e.Type == ClosedType {
		r.Version, r.lastID = e.Version, e.ID
		return nil
	}
	if err := a.cfg.Apply(&r.State, value); err != nil {
		return e.error(fmt.Errorf("%w: %q cannot be applied: %w", state.ErrCorrupt, e.Type, err))
	}
	r.Version, r.lastID = e.Version, e.ID
	r.about.add(e.openedWith)
	r.events++
	r.bytes += len(e.Data)
	return nil
}

// Decide loads the aggregate and appends the events that decide returns, if the stream has not changed meanwhile; if it has, it loads and
// decides again, up to Tries times, and then returns the *VersionError. So decide may be called several times, and does nothing but decide. Its
// error is returned as it is, and nothing is appended; nor is anything when it returns no events, or some that Apply refuses. It changes nothing
// of the state that it is given.
//
// The events are values of the aggregate's Types; their metadata is that of WithMetadata. The answer is the aggregate after them. A commit
// whose answer does not come is asked for again with the same ids, and is state.ErrOutcomeUnknown when that does not help.
func (a *Aggregate[S]) Decide(ctx context.Context, id string, decide func(current Loaded[S]) (events []any, err error)) (Loaded[S], error) {
	stream := StreamID{Category: a.cfg.Category, ID: id}
	for try := 1; ; try++ {
		r, err := a.load(ctx, stream, latest)
		if err != nil {
			return Loaded[S]{}, err
		}
		decided, err := decide(r.Loaded)
		if err != nil || len(decided) == 0 {
			return r.Loaded, err
		}
		if err = a.append(ctx, stream, &r, decided); err == nil {
			a.snapshot(ctx, stream, &r)
			return r.Loaded, nil
		}
		if !errors.Is(err, state.ErrConflict) || try == a.cfg.Tries {
			return Loaded[S]{}, err
		}
		if !wait(ctx, rand.N(time.Millisecond<<min(try, 6))) { //nolint:gosec // spreads deciders, guards nothing
			return Loaded[S]{}, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// append applies what was decided, so that nothing is appended that cannot be applied, and appends it.
func (a *Aggregate[S]) append(ctx context.Context, stream StreamID, r *replayed[S], decided []any) error {
	expected := Expected(r.Version)
	events := make([]Event, len(decided))
	for i, value := range decided {
		e, err := a.cfg.Types.Event(value)
		if err != nil {
			return err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("eventstore: making the id of an event: %w", err)
		}
		e.ID, e.Metadata = id.String(), metadataOf(ctx)
		if err := a.replay(r, Recorded{Event: e, Stream: stream, Version: r.Version + 1}); err != nil {
			return err
		}
		events[i] = e
	}
	return a.commit(ctx, Append{Stream: stream, Expected: expected, Events: events}, &r.about)
}

// commits is how often an append is asked for whose answer does not come.
const commits = 3

// commit appends, and adds to about whom that is about, by each try that may have been made.
func (a *Aggregate[S]) commit(ctx context.Context, events Append, about *subjects) error {
	var unknown error // of a try that may have been made: that a later one is refused says nothing of it
	for range commits {
		_, sealed, err := a.store.append(ctx, []Append{events}, false)
		for _, s := range sealed {
			for i := range s.Events {
				about.add(s.Events[i].Metadata.Key)
			}
		}
		switch {
		case err == nil, errors.Is(err, state.ErrConflict):
			return err
		case errors.Is(err, state.ErrOutcomeUnknown):
			unknown = err
		case unknown == nil:
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return unknown
}

// wait returns false when ctx ends before d has passed.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
