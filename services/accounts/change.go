package accounts

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/problem"
)

const (
	tries   = 10 // of a change where others change the same
	repeats = 3  // of an append whose answer does not come
)

type (
	loaded    = eventstore.Loaded[account]
	appending = eventstore.Append
)

// appending is an append of one event, which has an id, so that the append may be repeated.
func (s *Service) appending(stream eventstore.StreamID, version int64, events ...any) (appending, error) {
	a := appending{Stream: stream, Expected: eventstore.Expected(version)}
	for _, value := range events {
		e, err := s.types.Event(value)
		if err != nil {
			return appending{}, err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return appending{}, fmt.Errorf("accounts: making the id of an event: %w", err)
		}
		e.ID = id.String()
		a.Events = append(a.Events, e)
	}
	return a, nil
}

// A decision is what is to happen: to the account, and in the same step to addresses. No event: nothing.
type decision struct {
	event     any
	addresses []appending
}

// change loads an account and makes what is decided happen, if neither it nor the addresses have changed meanwhile; if they
// have, it is decided again.
func (s *Service) change(ctx context.Context, accountID string, decide func(ctx context.Context, a loaded) (decision, error)) (loaded, error) {
	for try := 1; ; try++ {
		a, err := s.accounts.Load(ctx, accountID)
		if err != nil {
			return loaded{}, err
		}
		d, err := decide(ctx, a)
		if err != nil || d.event == nil {
			return a, err
		}
		own, err := s.appending(stream(accountID), a.Version, d.event)
		if err != nil {
			return loaded{}, err
		}
		if err = s.append(ctx, append([]appending{own}, d.addresses...)); err == nil {
			a.Version++
			return a, a.State.apply(d.event)
		}
		if !errors.Is(err, state.ErrConflict) || try == tries {
			return loaded{}, err
		}
		select {
		case <-time.After(rand.N(time.Millisecond << min(try, 6))): //nolint:gosec // spreads those who compete, guards nothing
		case <-ctx.Done():
			return loaded{}, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// append makes all of it or nothing.
func (s *Service) append(ctx context.Context, parts []appending) error {
	var unknown error // of a try that may have been made: that a later one is refused says nothing of it
	for range repeats {
		_, err := s.cfg.Log.AppendAll(ctx, parts...)
		switch {
		case err == nil, errors.Is(err, state.ErrConflict):
			return err
		case errors.Is(err, state.ErrOutcomeUnknown):
			unknown = err
		case unknown == nil:
			return err
		}
	}
	return unknown
}

// living refuses an account that is not there, and one that has changed since the caller read it.
func living(accountID string, version int64, a loaded) error {
	switch {
	case !lives(a):
		return problem.New(problem.NotFound, "member accountId: there is no account %s; it was never made, or it was deleted", accountID).
			At("accountId")
	case version != 0 && version != a.Version:
		return problem.New(problem.Conflict, "member version: the account is at version %d by now; read it again, then decide", a.Version).
			At("version")
	default:
		return nil
	}
}
