package accounts

import (
	"context"

	"github.com/bannou-mesh/bannou/services/accounts/accountsapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// eraseAccount is POST /accounts/erase.
func (s *Service) eraseAccount(ctx context.Context, r *accountsapi.EraseAccountRequest) (*accountsapi.EraseAccountResponse, error) {
	if err := problem.RequireUUID("accountId", r.AccountID); err != nil {
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
	// The key first: who dies before the event is entered is followed by the saga of the deletion, which asks again.
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
