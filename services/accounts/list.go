package accounts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/services/accounts/accountsapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// ListStore has one value for each account and version of the projection Listing. It lasts, and can be queried.
const ListStore = "accounts-list"

// Listing is the projection that the list is: `bannou projections rebuild accounts_list` makes it anew from the log.
const Listing = "accounts_list"

// listRevision is that of the form of the list, and of how it is made.
const listRevision = 1

// ListIndexes are the members that it is searched by.
func ListIndexes() []string { return []string{"of", "value.deletedAt"} }

type row = projection.Row[entry]

// An entry is what the list has of an account. One that is erased stays, with nothing in it about a person.
type entry struct {
	Email       string     `json:"email,omitempty"`
	DisplayName string     `json:"displayName,omitempty"`
	Roles       []string   `json:"roles"`
	CreatedAt   time.Time  `json:"createdAt"`
	UpdatedAt   time.Time  `json:"updatedAt"`
	DeletedAt   *time.Time `json:"deletedAt,omitempty"`
	Erased      bool       `json:"erased,omitzero"`
	Search      string     `json:"search"`  // address and name in lower case
	Version     int64      `json:"version"` // of the last event in it
}

// listing is how the list is made.
func (s *Service) listing(store *state.Store[row]) projection.Definition {
	return projection.Definition{Name: Listing, Revision: listRevision, Category: category, Into: projection.Into(projection.Keyed[entry]{
		Store: store,
		Keys:  func(e eventstore.Recorded) []string { return []string{e.Stream.ID} },
		Apply: func(current *entry, _ string, e eventstore.Recorded) error {
			event, err := s.types.Decode(e)
			if err == nil {
				*current = current.after(event, e.Version)
			}
			return err
		},
	})}
}

// keepList follows the log, as soon as the store can be opened.
func (s *Service) keepList(ctx context.Context) {
	const again = time.Second
	for {
		store, err := state.Open[row](ctx, s.cfg.Factory, ListStore)
		if err == nil {
			var set *projection.Set
			if set, err = projection.Open(ctx, s.cfg.Log, projection.Config{Definitions: []projection.Definition{s.listing(store)}, Lease: s.cfg.Lease, Logger: s.cfg.Logger}); err == nil {
				s.projections.Store(set)
				return
			}
		}
		if ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "the list of accounts cannot be kept; it is tried again", slog.Any("error", err))
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return
		}
	}
}

// after is the entry as an event leaves it.
func (v entry) after(event any, version int64) entry {
	a := account{Erased: v.Erased, Email: v.Email, DisplayName: v.DisplayName, Roles: v.Roles, CreatedAt: v.CreatedAt, UpdatedAt: v.UpdatedAt}
	if v.DeletedAt != nil {
		a.DeletedAt = *v.DeletedAt
	}
	_ = a.apply(event) // refuses nothing
	n := entry{Email: a.Email, DisplayName: a.DisplayName, Roles: a.Roles, CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt,
		Search: strings.ToLower(a.Email + "\n" + a.DisplayName), Version: version, Erased: a.Erased}
	if !a.DeletedAt.IsZero() {
		n.DeletedAt = &a.DeletedAt
	}
	return n
}

// list opens the store, which may have been away before, and tells which rows of it are the list.
func (s *Service) list(ctx context.Context) (*state.QueryableStore[row], projection.Version, error) {
	set := s.projections.Load()
	if set == nil {
		return nil, projection.Version{}, fmt.Errorf("%w: the list of accounts is not kept yet", state.ErrUnavailable)
	}
	live, err := set.Live(ctx, Listing)
	if errors.Is(err, state.ErrNotFound) { // the database was away when it was to be entered
		err = fmt.Errorf("%w: %w", state.ErrUnavailable, err)
	}
	if err != nil {
		return nil, live, err
	}
	store, err := state.OpenQueryable[row](ctx, s.cfg.Factory, ListStore)
	return store, live, err
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
	list, live, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	filter := state.Where("of").Eq(live.String()).And(state.Where("value.deletedAt").Missing())
	if r.Search != "" {
		filter = filter.And(state.Where("value.search").Contains(strings.ToLower(r.Search)))
	}
	if r.Role != "" {
		filter = filter.And(state.Where("value.roles").Eq(r.Role))
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
		v := item.Value.Value
		answer.Accounts = append(answer.Accounts, accountsapi.Account{
			AccountID: accountOf(item.Key, live), Email: v.Email, DisplayName: v.DisplayName, Roles: v.Roles,
			Version: v.Version, CreatedAt: v.CreatedAt, UpdatedAt: v.UpdatedAt,
		})
	}
	return answer, nil
}

// accountOf is the account that a row is of.
func accountOf(key string, v projection.Version) string { return strings.TrimPrefix(key, v.Key("")) }
