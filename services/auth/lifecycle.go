package auth

import (
	"context"
	"errors"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/auth/authapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// confirmAccount is POST /auth/accounts/confirm: the registration's last step where who registered did not come so far. Nothing is
// believed of who asks: that the account is there is asked of the accounts service.
func (s *Service) confirmAccount(ctx context.Context, _ caller, r *authapi.ConfirmAccountRequest) (*authapi.ConfirmAccountResponse, error) {
	if err := problem.RequireUUID("accountId", r.AccountID); err != nil {
		return nil, err
	}
	if _, err := s.cfg.Accounts.Get(ctx, r.AccountID); errors.Is(err, ErrNoAccount) {
		return nil, problem.New(problem.NotFound, "member accountId: there is no such account").At("accountId").Because(err)
	} else if err != nil {
		return nil, err
	}
	err := state.RetryOnConflict(ctx, func() error { // its holder may log in, or have another password, meanwhile
		v, etag, err := s.credentials.get(ctx, r.AccountID)
		if err != nil {
			return err
		}
		if v.Hash == "" {
			return problem.New(problem.Conflict, "the account has no password: it was kept for an hour, and not confirmed in that time").At("accountId")
		}
		if !v.Pending {
			return nil
		}
		v.Pending = false
		_, err = s.credentials.save(ctx, r.AccountID, v, etag)
		return err
	})
	if err != nil {
		return nil, tryAgain(err)
	}
	return &authapi.ConfirmAccountResponse{Confirmed: true}, nil
}

// endAccount is POST /auth/accounts/end. What account.deleted does, it does too, and waits for it.
func (s *Service) endAccount(ctx context.Context, _ caller, r *authapi.EndAccountRequest) (*authapi.EndAccountResponse, error) {
	if err := problem.RequireUUID("accountId", r.AccountID); err != nil {
		return nil, err
	}
	ended, err := s.endAll(ctx, r.AccountID)
	if errors.Is(err, errLives) {
		return nil, problem.New(problem.Conflict, "member accountId: the account lives; delete it first").At("accountId").Because(err)
	}
	if err != nil {
		return nil, tryAgain(err)
	}
	if ended == nil {
		ended = []string{}
	}
	return &authapi.EndAccountResponse{SessionIds: ended}, nil
}

// tryAgain is a lost race for a saga, to which a conflict would be the last word.
func tryAgain(err error) error {
	if errors.Is(err, state.ErrConflict) {
		return problem.New(problem.Unavailable, "others change the same at the same time; try again").Because(err)
	}
	return err
}
