package gamesession

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/problem"
)

const (
	// maxTables is in how many game sessions a session may have seats.
	maxTables = 32
	// notePatience is how long a seat may take to be held after it was noted: longer than an operation.
	notePatience = time.Minute
	// endedFor is how long it is remembered that a session has ended: a saga that was held up gives it no seat any more.
	endedFor = time.Hour
)

// A whereabouts is where a session may have a seat. It is entered before a seat is held, and outlives each game session: those go when nothing
// changes in them, and a session that sits in one changes nothing here.
type whereabouts struct {
	Stays []stay `json:"stays"`
	Ended bool   `json:"ended,omitempty"` // the session has, and gets no seat any more
}

func errSessionEnded() error {
	return problem.New(problem.Conflict, "the session has ended").At("sessionId")
}

// A stay is a game session, and when a seat was last asked for.
type stay struct {
	GameSessionID string    `json:"gameSessionId"`
	At            time.Time `json:"at"`
}

// note enters that a session may have a seat somewhere.
func (s *Service) note(ctx context.Context, sessionID, gameSessionID string) error {
	store, err := state.Open[whereabouts](ctx, s.cfg.Factory, Store)
	if err != nil {
		return err
	}
	return state.RetryOnConflict(ctx, func() error {
		entry, err := store.GetWithETag(ctx, playerKey+sessionID)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		w, now := entry.Value, s.cfg.Now().UTC()
		if w.Ended {
			return errSessionEnded()
		}
		w.Stays = slices.DeleteFunc(w.Stays, func(at stay) bool { return at.GameSessionID == gameSessionID })
		if len(w.Stays) >= maxTables {
			if w.Stays, err = s.still(ctx, sessionID, w.Stays, now); err != nil {
				return err
			}
		}
		if len(w.Stays) >= maxTables {
			return problem.New(problem.Conflict, "the session has seats in %d game sessions, which is as many as it may have; leave one", len(w.Stays)).At("sessionId")
		}
		w.Stays = append(w.Stays, stay{gameSessionID, now})
		_, err = store.TrySaveWith(ctx, playerKey+sessionID, w, entry.ETag, state.SaveOptions{Expiry: state.After(s.cfg.PlayerTTL)})
		return err
	})
}

// still is where a session has something, or is about to: who asked a moment ago may not be held the seat yet.
func (s *Service) still(ctx context.Context, sessionID string, stays []stay, now time.Time) (left []stay, err error) {
	for _, at := range stays {
		if now.Sub(at.At) > notePatience {
			t, err := s.read(ctx, at.GameSessionID)
			if _, gone := errors.AsType[*problem.Problem](err); err != nil && !gone {
				return nil, err
			}
			if t.find(func(p player) bool { return p.SessionID == sessionID }) == nil {
				continue
			}
		}
		left = append(left, at)
	}
	return left, nil
}

// whereabouts returns where a session may have a seat.
func (s *Service) whereabouts(ctx context.Context, sessionID string) (whereabouts, error) {
	store, err := state.Open[whereabouts](ctx, s.cfg.Factory, Store)
	if err != nil {
		return whereabouts{}, err
	}
	where, err := store.Get(ctx, playerKey+sessionID)
	if errors.Is(err, state.ErrNotFound) {
		err = nil
	}
	return where, err
}

// sits reports whether a session has taken a seat anywhere, and has not left it.
func (s *Service) sits(ctx context.Context, sessionID string) (bool, error) {
	where, err := s.whereabouts(ctx, sessionID)
	if err != nil {
		return false, err
	}
	for _, at := range slices.Backward(where.Stays) { // who leaves all of them begins with the first
		t, err := s.read(ctx, at.GameSessionID)
		if _, gone := errors.AsType[*problem.Problem](err); err != nil && !gone {
			return false, err
		}
		if t.find(func(p player) bool { return p.SessionID == sessionID && p.Status == joined }) != nil {
			return true, nil
		}
	}
	return false, nil
}

// end frees all that a session has, for good: that it has ended is noted first, so that it gets no seat afterwards. One that it is held all the
// same, by who had looked before, cannot be taken.
func (s *Service) end(ctx context.Context, sessionID string) error {
	store, err := state.Open[whereabouts](ctx, s.cfg.Factory, Store)
	if err != nil {
		return err
	}
	var stays []stay
	if err := state.RetryOnConflict(ctx, func() error {
		where, err := store.GetWithETag(ctx, playerKey+sessionID)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		stays = where.Value.Stays
		if where.Value.Ended { // this is told once more
			return nil
		}
		_, err = store.TrySaveWith(ctx, playerKey+sessionID, whereabouts{stays, true}, where.ETag, state.SaveOptions{Expiry: state.After(endedFor)})
		return err
	}); err != nil {
		return err
	}
	var errs []error
	for _, at := range stays {
		_, err := s.leaveOne(ctx, at.GameSessionID, sessionID, time.Time{})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// leaveAll frees what a session has by a time, and forgets where that was. What it has got since is its own.
func (s *Service) leaveAll(ctx context.Context, sessionID string, by time.Time) error {
	store, err := state.Open[whereabouts](ctx, s.cfg.Factory, Store)
	if err != nil {
		return err
	}
	return state.RetryOnConflict(ctx, func() error {
		where, err := store.GetWithETag(ctx, playerKey+sessionID)
		if errors.Is(err, state.ErrNotFound) || err == nil && where.Value.Ended {
			return nil
		}
		if err != nil {
			return err
		}
		var errs []error
		var stays []stay
		for _, at := range where.Value.Stays {
			sits, err := s.leaveOne(ctx, at.GameSessionID, sessionID, by)
			if sits || at.At.After(by) {
				stays = append(stays, at)
			}
			errs = append(errs, err)
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		switch {
		case len(stays) == 0:
			err = store.TryDelete(ctx, playerKey+sessionID, where.ETag)
		case len(stays) < len(where.Value.Stays):
			_, err = store.TrySaveWith(ctx, playerKey+sessionID, whereabouts{Stays: stays}, where.ETag, state.SaveOptions{Expiry: state.After(s.cfg.PlayerTTL)})
		}
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		return err
	})
}

// leaveOne frees what a session has of a game session, if that is still there, and reports whether something is left to it.
func (s *Service) leaveOne(ctx context.Context, gameSessionID, sessionID string, by time.Time) (sits bool, err error) {
	_, err = s.leave(ctx, gameSessionID, sessionID, by)
	if err == nil && !by.IsZero() {
		var t table
		t, err = s.read(ctx, gameSessionID)
		sits = t.find(func(p player) bool { return p.SessionID == sessionID }) != nil
	}
	if _, gone := errors.AsType[*problem.Problem](err); gone {
		return false, nil
	}
	return sits, err
}
