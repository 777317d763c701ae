package accounts

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/accounts/accountsapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// erasing is how many accounts are looked for at a time.
const erasing = 100

// eraseAccount is POST /accounts/erase.
func (s *Service) eraseAccount(ctx context.Context, r *accountsapi.EraseAccountRequest) (*accountsapi.EraseAccountResponse, error) {
	if err := checkID(r.AccountID); err != nil {
		return nil, err
	}
	did, err := s.erase(ctx, r.AccountID)
	if err != nil {
		return nil, err
	}
	return &accountsapi.EraseAccountResponse{Erased: did}, nil
}

// erase destroys the key of what the events say about a person, and has the list forget the account.
func (s *Service) erase(ctx context.Context, accountID string) (did bool, err error) {
	a, err := s.accounts.Load(ctx, accountID)
	switch {
	case err != nil:
		return false, err
	case a.Version == 0:
		return false, living(accountID, 0, a)
	case lives(a):
		return false, problem.New(problem.Conflict, "member accountId: the account lives; delete it first").At("accountId")
	}
	// The key first: who dies before the event is entered is followed by the sweep.
	if _, err := s.cfg.Log.Erase(ctx, stream(accountID).String()); err != nil {
		return false, err
	}
	_, err = s.change(ctx, accountID, func(_ context.Context, a loaded) (decision, error) {
		if did = !a.State.Erased; !did {
			return decision{}, nil
		}
		return decision{event: erased{At: now()}}, nil
	})
	return did, err
}

// sweep erases what was deleted long enough ago, until the context ends.
func (s *Service) sweep(ctx context.Context) {
	tick := time.NewTicker(s.cfg.SweepInterval)
	defer tick.Stop()
	for {
		if err := s.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "deleted accounts could not be erased; it is tried again", slog.Any("error", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweepOnce goes over all of them, page by page: an account that cannot be erased now keeps none of the others.
func (s *Service) sweepOnce(ctx context.Context) error {
	list, live, err := s.list(ctx)
	if err != nil {
		return err
	}
	before := time.Now().UTC().Add(-s.cfg.EraseAfter).Format(time.RFC3339Nano)
	due := state.Query{Filter: state.Where("of").Eq(live.String()).And(state.Where("value.erased").Missing(), state.Where("value.deletedAt").Lt(before))}
	var errs []error
	for cursor := ""; ; {
		page, err := list.QueryAfter(ctx, due, cursor, erasing)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for _, item := range page.Items {
			if _, err := s.erase(ctx, accountOf(item.Key, live)); err != nil {
				errs = append(errs, err)
			}
		}
		if cursor = page.Next; cursor == "" || ctx.Err() != nil {
			return errors.Join(errs...)
		}
	}
}
