package projection

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// A State is what becomes of a version.
type State string

// The states of a version.
const (
	Live     State = "live"     // readers are given it
	Building State = "building" // it is being rebuilt
	Ready    State = "ready"    // it was rebuilt, and waits for Swap
	Standby  State = "standby"  // it was live, and is still followed
	Paused   State = "paused"   // nothing is applied, whatever it is
	Dropping State = "dropping" // its data is being removed
)

// A Status tells of one version.
type Status struct {
	Version
	Revision int    // of its definition
	Category string // of its events; empty: all
	State    State
	Live     bool // it is the one that readers are given, also when it is paused
	Inline   bool // it is changed in the appends of those who have its definition

	Position int64         // up to which events are in it
	Total    int64         // the position of the last event that there is for it
	Lag      int64         // positions between the two
	Age      time.Duration // of the event that is next; 0: there is none
	Parked   int           // streams that are set aside in it
	Erased   int64         // subjects of the log that were erased since it was begun: what it has of them goes with it, when it was rebuilt
	Follower bool          // a process has its lease, or it needs none

	Begun     time.Time     // when it was
	Rate      float64       // of a version being built: positions a second since then
	Remaining time.Duration // of a version being built: until it has caught up, if it and those who append go on as since then; 0: unknown, or done
}

// Live returns the version that readers are given. It costs a query of one row; to know it from one request to the next is safe until the version
// is dropped. state.ErrNotFound: nobody has defined the projection yet.
func (s *Set) Live(ctx context.Context, name string) (Version, error) {
	e, err := read(ctx, s.engine, name)
	if err != nil {
		return Version{}, fmt.Errorf("projection %q: %w", name, err)
	}
	return Version{name, e.Live}, nil
}

// Await returns the live version when the event at a position is in it, or has been set aside in it. So a program that has appended reads what
// it has written. The event is one of the projection's.
func (s *Set) Await(ctx context.Context, name string, position int64) (Version, error) {
	pause := time.Millisecond
	for {
		v, err := s.Live(ctx, name)
		if err != nil {
			return v, err
		}
		reached, err := s.position(ctx, v)
		if err != nil || reached >= position {
			return v, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return v, fmt.Errorf("projection %q is at position %d, and not yet at %d: %w", name, reached, position, context.Cause(ctx))
		}
		pause = min(2*pause, s.cfg.Poll)
	}
}

// List tells of all versions of the projection of that name, or with none of all, in the order of names and numbers.
func (s *Set) List(ctx context.Context, name string) ([]Status, error) {
	entries, err := s.engine.Projections(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("projection: list: %w", err)
	}
	if name != "" && len(entries) == 0 {
		return nil, fmt.Errorf("projection %q: %w", name, errNone)
	}
	var all []Status
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		e, err := decode(entries[name])
		if err != nil {
			return nil, fmt.Errorf("projection %q: %w", name, err)
		}
		for _, v := range e.Versions {
			status, err := s.status(ctx, name, e, v)
			if err != nil {
				return nil, fmt.Errorf("projection %s: %w", Version{name, v.Number}, err)
			}
			all = append(all, status)
		}
	}
	return all, nil
}

func (s *Set) status(ctx context.Context, name string, e *entry, v version) (Status, error) {
	r := Status{Version: Version{name, v.Number}, Revision: v.Shape.Revision, Category: v.Shape.Category, State: v.Phase, Live: v.Number == e.Live, Inline: v.Attached,
		Follower: v.Attached, Begun: v.Begun}
	marks, err := s.engine.Marks(ctx, r.Subscription())
	if err != nil {
		return r, err
	}
	if len(marks) > 0 {
		r.Position = marks[0].Position
		r.Follower = r.Follower || marks[0].Consumer != "" && marks[0].Until.After(time.Now())
	}
	parked, err := s.engine.Parked(ctx, r.Subscription())
	if err != nil {
		return r, err
	}
	r.Parked = len(parked)
	destroyed, err := s.engine.Destroyed(ctx)
	if err != nil {
		return r, err
	}
	r.Erased = max(destroyed-v.Erased, 0)
	last, _, err := s.engine.Read(ctx, eventstore.Range{Category: v.Shape.Category, Backward: true, Limit: 1})
	if err != nil {
		return r, err
	}
	if len(last) > 0 {
		r.Total = last[0].Position
	}
	if r.Lag = max(r.Total-r.Position, 0); r.Lag > 0 {
		next, _, err := s.engine.Read(ctx, eventstore.Range{Category: v.Shape.Category, From: r.Position + 1, Limit: 1})
		if err != nil {
			return r, err
		}
		if len(next) > 0 {
			r.Age = max(time.Since(next[0].RecordedAt), 0)
		}
	}
	r.progress(v.Head, time.Since(v.Begun))
	switch {
	case v.Phase == Dropping:
	case e.Paused:
		r.State = Paused
	}
	return r, nil
}

// progress estimates. The log grows while it is caught up with; by how much is not known of a rebuild without a head.
func (r *Status) progress(head int64, since time.Duration) {
	if r.State != Building || since <= 0 || r.Position == 0 {
		return
	}
	r.Rate = float64(r.Position) / since.Seconds()
	gained := r.Rate
	if head > 0 {
		gained -= float64(r.Total-head) / since.Seconds()
	}
	if gained > 0 {
		r.Remaining = time.Duration(float64(r.Lag) / gained * float64(time.Second))
	}
}

// Unpark has a version go on with a stream that was set aside: see Store.Unpark.
func (s *Set) Unpark(ctx context.Context, v Version, stream eventstore.StreamID, skip bool) error {
	e, err := read(ctx, s.engine, v.Projection)
	if err == nil && e.find(v.Number) == nil {
		err = noVersion(v.Number)
	}
	if err != nil {
		return fmt.Errorf("projection %s: %w", v, err)
	}
	return s.log.Unpark(ctx, v.Subscription(), stream, skip)
}
