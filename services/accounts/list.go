package accounts

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/accounts/accountsapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// ListStore has one value for each account that is not erased. It lasts, and can be queried.
const ListStore = "accounts-list"

// ListIndexes are the members that it is searched by.
func ListIndexes() []string { return []string{"deletedAt"} }

// An entry is what the list has of an account.
type entry struct {
	Email       string     `json:"email,omitempty"`
	DisplayName string     `json:"displayName,omitempty"`
	Roles       []string   `json:"roles"`
	CreatedAt   time.Time  `json:"createdAt"`
	UpdatedAt   time.Time  `json:"updatedAt"`
	DeletedAt   *time.Time `json:"deletedAt,omitempty"`
	Search      string     `json:"search"`  // address and name in lower case
	Version     int64      `json:"version"` // of the last event in it
}

// keepList brings the list to after an event. One that comes again changes nothing.
func (s *Service) keepList(ctx context.Context, e eventstore.Recorded) error {
	event, err := s.types.Decode(e)
	if err != nil {
		return err
	}
	list, err := s.list(ctx)
	if err != nil {
		return err
	}
	if _, gone := event.(erased); gone {
		_, err := list.Delete(ctx, e.Stream.ID)
		return err
	}
	kept, err := list.GetWithETag(ctx, e.Stream.ID)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	if kept.Value.Version >= e.Version {
		return nil
	}
	// Who lost the subscription to another consumer in the middle must not write over what that one made.
	_, err = list.TrySave(ctx, e.Stream.ID, kept.Value.after(event, e.Version), kept.ETag)
	return err
}

// after is the entry as an event leaves it.
func (v entry) after(event any, version int64) entry {
	a := account{Email: v.Email, DisplayName: v.DisplayName, Roles: v.Roles, CreatedAt: v.CreatedAt, UpdatedAt: v.UpdatedAt}
	if v.DeletedAt != nil {
		a.DeletedAt = *v.DeletedAt
	}
	_ = a.apply(event) // refuses nothing
	n := entry{Email: a.Email, DisplayName: a.DisplayName, Roles: a.Roles, CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt,
		Search: strings.ToLower(a.Email + "\n" + a.DisplayName), Version: version}
	if !a.DeletedAt.IsZero() {
		n.DeletedAt = &a.DeletedAt
	}
	return n
}

// list opens the store, which may have been away before.
func (s *Service) list(ctx context.Context) (*state.QueryableStore[entry], error) {
	return state.OpenQueryable[entry](ctx, s.cfg.Factory, ListStore)
}

// listAccounts is POST /accounts/list.
func (s *Service) listAccounts(ctx context.Context, r *accountsapi.ListAccountsRequest) (*accountsapi.ListAccountsResponse, error) {
	if r.PageSize < 0 || r.PageSize > state.MaxPageSize {
		return nil, problem.Invalid("pageSize", "is %d, and has to be 1 to %d", r.PageSize, state.MaxPageSize)
	}
	if err := checkText("search", r.Search, maxEmailBytes); err != nil {
		return nil, err
	}
	if err := checkText("role", r.Role, maxRoleBytes); err != nil {
		return nil, err
	}
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	filter := state.Where("deletedAt").Missing()
	if r.Search != "" {
		filter = filter.And(state.Where("search").Contains(strings.ToLower(r.Search)))
	}
	if r.Role != "" {
		filter = filter.And(state.Where("roles").Eq(r.Role))
	}
	page, err := list.QueryAfter(ctx, state.Query{Filter: filter}, r.Cursor, r.PageSize)
	if errors.Is(err, state.ErrCursor) {
		return nil, problem.Invalid("cursor", "is damaged, or of another search").Because(err)
	}
	if err != nil {
		return nil, err
	}
	answer := &accountsapi.ListAccountsResponse{Accounts: make([]accountsapi.Account, 0, len(page.Items)), Next: page.Next}
	for _, item := range page.Items {
		answer.Accounts = append(answer.Accounts, accountsapi.Account{
			AccountID: item.Key, Email: item.Value.Email, DisplayName: item.Value.DisplayName, Roles: item.Value.Roles,
			Version: item.Value.Version, CreatedAt: item.Value.CreatedAt, UpdatedAt: item.Value.UpdatedAt,
		})
	}
	return answer, nil
}
