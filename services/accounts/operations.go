package accounts

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/services/accounts/accountsapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// now is as the log keeps it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// registerAccount is POST /accounts/register.
func (s *Service) registerAccount(ctx context.Context, r *accountsapi.RegisterAccountRequest) (*accountsapi.Account, error) {
	if r.AccountID == "" {
		r.AccountID = uuid.NewString()
	}
	if err := checkRegistration(r); err != nil {
		return nil, err
	}
	roles := r.Roles
	if roles == nil {
		roles = []string{DefaultRole}
	}
	roles, err := orderedRoles(roles)
	if err != nil {
		return nil, err
	}
	a, err := s.change(ctx, r.AccountID, func(ctx context.Context, a loaded) (decision, error) {
		switch {
		case lives(a) && a.State.Email == r.Email:
			return decision{}, nil // this request once more
		case a.Version > 0:
			return decision{}, problem.New(problem.Conflict, "member accountId: there is, or was, another account of this id").At("accountId")
		}
		d := decision{event: registered{Email: r.Email, DisplayName: r.DisplayName, Roles: roles, Expects: r.ExpectsCredentials, At: now()}}
		if r.Email != "" {
			taken, err := s.take(ctx, r.Email, r.AccountID)
			if err != nil {
				return decision{}, err
			}
			d.addresses = []appending{taken}
		}
		return d, nil
	})
	return answerOf(r.AccountID, a, err)
}

// getAccount is POST /accounts/get.
func (s *Service) getAccount(ctx context.Context, r *accountsapi.GetAccountRequest) (*accountsapi.Account, error) {
	if err := problem.RequireUUID("accountId", r.AccountID); err != nil {
		return nil, err
	}
	a, err := s.accounts.Load(ctx, r.AccountID)
	if err == nil {
		err = living(r.AccountID, 0, a)
	}
	return answerOf(r.AccountID, a, err)
}

// getAccountByEmail is POST /accounts/by-email.
func (s *Service) getAccountByEmail(ctx context.Context, r *accountsapi.GetAccountByEmailRequest) (*accountsapi.Account, error) {
	if err := problem.Require("email", r.Email); err != nil {
		return nil, err
	}
	if err := checkEmail("email", r.Email); err != nil {
		return nil, err
	}
	address, err := s.address(ctx, r.Email)
	if err != nil {
		return nil, err
	}
	a, err := s.accounts.Load(ctx, cmp.Or(address.holder, uuid.Nil.String())) // nobody's takes as long as somebody's
	if err == nil && (address.holder == "" || !lives(a)) {
		err = problem.New(problem.NotFound, "member email: no account has this address").At("email")
	}
	return answerOf(address.holder, a, err)
}

// updateAccount is POST /accounts/update.
func (s *Service) updateAccount(ctx context.Context, r *accountsapi.UpdateAccountRequest) (*accountsapi.Account, error) {
	if err := problem.RequireUUID("accountId", r.AccountID); err != nil {
		return nil, err
	}
	if r.DisplayName != nil {
		if err := checkText("displayName", *r.DisplayName, maxNameBytes); err != nil {
			return nil, err
		}
	}
	a, err := s.change(ctx, r.AccountID, func(_ context.Context, a loaded) (decision, error) {
		if err := living(r.AccountID, r.Version, a); err != nil || r.DisplayName == nil || a.State.DisplayName == *r.DisplayName {
			return decision{}, err
		}
		return decision{event: renamed{DisplayName: *r.DisplayName, At: now()}}, nil
	})
	return answerOf(r.AccountID, a, err)
}

// changeAccountEmail is POST /accounts/change-email.
func (s *Service) changeAccountEmail(ctx context.Context, r *accountsapi.ChangeAccountEmailRequest) (*accountsapi.Account, error) {
	if err := problem.RequireUUID("accountId", r.AccountID); err != nil {
		return nil, err
	}
	if err := problem.Require("email", r.Email); err != nil {
		return nil, err
	}
	if err := checkEmail("email", r.Email); err != nil {
		return nil, err
	}
	a, err := s.change(ctx, r.AccountID, func(ctx context.Context, a loaded) (decision, error) {
		if err := living(r.AccountID, r.Version, a); err != nil || a.State.Email == r.Email {
			return decision{}, err
		}
		d := decision{event: emailChanged{Email: r.Email, At: now()}}
		if a.State.Email != "" && addressStream(a.State.Email) == addressStream(r.Email) {
			return d, nil // another spelling of what it has
		}
		freed, err := s.release(ctx, a.State.Email, r.AccountID)
		if err != nil {
			return decision{}, err
		}
		taken, err := s.take(ctx, r.Email, r.AccountID)
		if err != nil {
			return decision{}, err
		}
		d.addresses = append(freed, taken)
		return d, nil
	})
	return answerOf(r.AccountID, a, err)
}

// setAccountRoles is POST /accounts/set-roles.
func (s *Service) setAccountRoles(ctx context.Context, r *accountsapi.SetAccountRolesRequest) (*accountsapi.Account, error) {
	if err := problem.RequireUUID("accountId", r.AccountID); err != nil {
		return nil, err
	}
	if r.Roles == nil {
		return nil, problem.Missing("roles")
	}
	roles, err := orderedRoles(r.Roles)
	if err != nil {
		return nil, err
	}
	a, err := s.change(ctx, r.AccountID, func(_ context.Context, a loaded) (decision, error) {
		if err := living(r.AccountID, r.Version, a); err != nil || slices.Equal(a.State.Roles, roles) {
			return decision{}, err
		}
		return decision{event: rolesChanged{Roles: roles, At: now()}}, nil
	})
	return answerOf(r.AccountID, a, err)
}

// deleteAccount is POST /accounts/delete.
func (s *Service) deleteAccount(ctx context.Context, r *accountsapi.DeleteAccountRequest) (*accountsapi.DeleteAccountResponse, error) {
	if err := problem.RequireUUID("accountId", r.AccountID); err != nil {
		return nil, err
	}
	if err := checkText("reason", r.Reason, maxReasonBytes); err != nil {
		return nil, err
	}
	did := false
	_, err := s.change(ctx, r.AccountID, func(ctx context.Context, a loaded) (decision, error) {
		if did = lives(a); !did {
			return decision{}, nil
		}
		freed, err := s.release(ctx, a.State.Email, r.AccountID)
		return decision{event: deleted{Reason: r.Reason, At: now()}, addresses: freed}, err
	})
	if err != nil {
		return nil, err
	}
	return &accountsapi.DeleteAccountResponse{Deleted: did}, nil
}

// answerOf is an account as it is told.
func answerOf(accountID string, a loaded, err error) (*accountsapi.Account, error) {
	if err != nil {
		return nil, err
	}
	return &accountsapi.Account{
		AccountID: accountID, Email: a.State.Email, DisplayName: a.State.DisplayName, Roles: a.State.Roles, Version: a.Version,
		CreatedAt: a.State.CreatedAt, UpdatedAt: a.State.UpdatedAt,
	}, nil
}
