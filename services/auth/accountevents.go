package auth

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/bannou-mesh/bannou/events"
)

// accountUpdated gives the sessions of an account its new roles. It reads the account, so that an event that comes late, or
// twice, does no harm. The record is changed also where there are no sessions: a login that is under way with the old roles is
// told by it.
func (s *Service) accountUpdated(ctx context.Context, e *events.AccountUpdatedEvent) error {
	if !slices.Contains(e.ChangedFields, "roles") {
		return nil
	}
	a, err := s.cfg.Accounts.Get(ctx, e.AccountID)
	if errors.Is(err, ErrNoAccount) {
		return nil // account.deleted is on its way
	}
	if err != nil {
		return err
	}
	var seen record
	if err := s.sessions.change(ctx, e.AccountID, func(r *record) (bool, error) {
		r.see(a)
		seen = *r
		return true, nil
	}); err != nil {
		return err
	}
	var errs []error
	for _, session := range seen.Sessions {
		errs = append(errs, s.tellUpdated(ctx, e.AccountID, session.ID, seen.Roles, seen.Version, events.SessionUpdatedReasonRolesChanged))
	}
	return errors.Join(errs...)
}

// accountDeleted ends all that the account had here. It reads the account first: whoever may publish could otherwise take somebody's
// password away.
func (s *Service) accountDeleted(ctx context.Context, e *events.AccountDeletedEvent) error {
	_, err := s.endAll(ctx, e.AccountID)
	if errors.Is(err, errLives) {
		s.cfg.Logger.WarnContext(ctx, "an event says that an account was deleted, and the account lives: nothing is done", slog.String("account", e.AccountID))
		return nil
	}
	return err
}

// errLives reports an account that was not deleted.
var errLives = errors.New("the account lives")

// endAll ends the sessions of a deleted account, forgets its password, and tells of it; once more, the same. The record says for a while
// that the account is gone, so that no login that is under way brings a session back, and which sessions it had.
func (s *Service) endAll(ctx context.Context, accountID string) (sessionIDs []string, err error) {
	switch _, err := s.cfg.Accounts.Get(ctx, accountID); {
	case err == nil:
		return nil, errLives
	case !errors.Is(err, ErrNoAccount):
		return nil, err
	}
	if err := s.sessions.change(ctx, accountID, func(r *record) (bool, error) {
		r.Deleted = true
		for _, session := range r.Sessions {
			r.Ended = append(r.Ended, session.ID)
		}
		r.end(events.SessionInvalidatedReasonAccountDeleted, all)
		sessionIDs = r.Ended
		return true, nil
	}); err != nil {
		return nil, err
	}
	if err := s.credentials.remove(ctx, accountID); err != nil {
		return nil, err
	}
	return sessionIDs, s.tell(ctx, accountID)
}
