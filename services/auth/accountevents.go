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

// accountDeleted ends all that the account had here. The record says so for a while, so that no login that is under way
// brings a session back. It reads the account first: whoever may publish could otherwise take somebody's password away.
func (s *Service) accountDeleted(ctx context.Context, e *events.AccountDeletedEvent) error {
	switch _, err := s.cfg.Accounts.Get(ctx, e.AccountID); {
	case err == nil:
		s.cfg.Logger.WarnContext(ctx, "an event says that an account was deleted, and the account lives: nothing is done", slog.String("account", e.AccountID))
		return nil
	case !errors.Is(err, ErrNoAccount):
		return err
	}
	if err := s.sessions.change(ctx, e.AccountID, func(r *record) (bool, error) {
		r.Deleted = true
		r.end(events.SessionInvalidatedReasonAccountDeleted, all)
		return true, nil
	}); err != nil {
		return err
	}
	if err := s.credentials.remove(ctx, e.AccountID); err != nil {
		return err
	}
	return s.tell(ctx, e.AccountID)
}
