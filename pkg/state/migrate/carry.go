package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// probation is how long a key stays that was created by somebody who may not be entitled to any more: long enough for one who is
// to read the key anew and write it for good.
const probation = 10 * time.Second

// A carrier brings keys of one engine to what another has, which decides. Many may do so at once, in many processes.
type carrier struct {
	from, to state.Engine

	// always writes keys that are equal too, so that their ETags change and nobody who has read an older value can write it.
	always bool

	// entitled returns why keys must not be carried any more. It is asked between the two reads. Nil: they always may.
	entitled func() error
}

// A KeyError tells of a key that the other place does not take.
type KeyError struct {
	Key string
	Err error
}

// Error names the key.
func (e KeyError) Error() string { return fmt.Sprintf("key %q: %s", e.Key, e.Err) }

// Unwrap returns the cause.
func (e KeyError) Unwrap() error { return e.Err }

// Carry makes keys in one engine as they are in another, which decides, and returns those that the first refuses for good. It is right however
// many do so at once, in whatever processes, and keys that are equal are not written. After an error it may be called again.
func Carry(ctx context.Context, from, to state.Engine, keys []string) ([]KeyError, error) {
	return carrier{from: from, to: to}.carry(ctx, keys)
}

// carry makes the keys in to as they are in from, and returns the keys that to refuses for good. After an error it may be called again
// with the same keys. Each key is in to what it was in from at a moment after the call began, or something newer.
//
// A key that is absent in to has no ETag to write on condition of, and may have been there in the meantime. So one that was created
// is looked at again; and where somebody must be entitled, it is created for a moment only, and written for good, on condition of
// its ETag, by one who was entitled after that.
func (c carrier) carry(ctx context.Context, keys []string) ([]KeyError, error) {
	var refused []KeyError
	for left := keys; len(left) > 0; {
		if err := ctx.Err(); err != nil {
			return refused, context.Cause(ctx)
		}
		changes, bad, err := c.changes(ctx, left)
		refused = append(refused, bad...)
		if err != nil {
			return refused, err
		}
		if len(changes) == 0 {
			return refused, nil
		}
		outcomes, err := apply(ctx, c.to, changes)
		if err != nil {
			return refused, err
		}
		left = left[:0:0]
		for i, o := range outcomes {
			switch change := &changes[i]; {
			case o.Err != nil && permanent(o.Err):
				refused = append(refused, KeyError{Key: change.Key, Err: o.Err})
			case o.Err != nil:
				return refused, o.Err
			case o.Conflict || change.When == state.IfAbsent:
				left = append(left, change.Key)
			}
		}
	}
	return refused, nil
}

// changes are what is to be done to bring keys of to in line. First their ETags are read, then what there should be.
func (c carrier) changes(ctx context.Context, keys []string) (changes []state.Change, refused []KeyError, err error) {
	there, refused, err := get(ctx, c.to, keys)
	if err != nil {
		return nil, refused, err
	}
	if c.entitled != nil {
		if err := c.entitled(); err != nil {
			return nil, refused, err
		}
	}
	wanted, bad, err := get(ctx, c.from, keys)
	if refused = append(refused, bad...); err != nil {
		return nil, refused, err
	}
	now := time.Now()
	for _, key := range keys {
		is, readable := there[key]
		should, known := wanted[key]
		if !readable || !known {
			continue // refused
		}
		if should.Found && !jsontext.Value(should.Value).IsValid() {
			refused = append(refused, KeyError{key, fmt.Errorf("%w: it is not JSON", state.ErrCorrupt)})
			continue
		}
		if change, needed := c.change(key, is, should, now); needed {
			changes = append(changes, change)
		}
	}
	return changes, refused, nil
}

func (c carrier) change(key string, is, should state.Record, now time.Time) (state.Change, bool) {
	change := state.Change{Key: key, When: state.IfETag, ETag: is.ETag}
	switch {
	case !is.Found && !should.Found:
		return change, false
	case !should.Found:
		change.Delete = true
		return change, true
	case is.Found && !c.always && difference(should, is) == "":
		return change, false
	}
	change.Value, change.Expiry = should.Value, expiry(should, now)
	if !is.Found {
		change.When, change.ETag = state.IfAbsent, ""
		if short := state.After(probation); c.entitled != nil && (change.Expiry == state.Never || change.Expiry > short) {
			change.Expiry = short
		}
	}
	return change, true
}

// expiry is what a record has left of its own.
func expiry(r state.Record, now time.Time) state.Expiry {
	if r.ExpiresAt.IsZero() {
		return state.Never
	}
	return state.After(max(r.ExpiresAt.Sub(now), time.Millisecond))
}

// permanent reports an error that is the key's or the value's: it comes again however often it is tried.
func permanent(err error) bool {
	return errors.Is(err, state.ErrInvalid) || errors.Is(err, state.ErrTooLarge) || errors.Is(err, state.ErrCorrupt)
}

// get reads keys. Those that cannot be read, as they are corrupt, are missing and told.
func get(ctx context.Context, e state.Engine, keys []string) (map[string]state.Record, []KeyError, error) {
	found := make(map[string]state.Record, len(keys))
	records, err := e.Get(ctx, keys)
	if err == nil {
		for _, r := range records {
			found[r.Key] = r
		}
		return found, nil, nil
	}
	if !permanent(err) {
		return nil, nil, err
	}
	var refused []KeyError
	for _, key := range keys { // one of them has spoiled it for all
		records, err := e.Get(ctx, []string{key})
		switch {
		case err == nil:
			found[key] = records[0]
		case permanent(err):
			refused = append(refused, KeyError{key, err})
		default:
			return nil, refused, err
		}
	}
	return found, refused, nil
}

// apply makes changes each on its own, also where the engine makes them together and one spoils it for all.
func apply(ctx context.Context, e state.Engine, changes []state.Change) ([]state.Outcome, error) {
	outcomes, err := e.Apply(ctx, changes)
	if err == nil || !permanent(err) {
		return outcomes, err
	}
	outcomes = make([]state.Outcome, len(changes))
	for i := range changes {
		one, err := e.Apply(ctx, changes[i:i+1])
		switch {
		case err == nil:
			outcomes[i] = one[0]
		case permanent(err):
			outcomes[i].Err = err
		default:
			return nil, err
		}
	}
	return outcomes, nil
}
