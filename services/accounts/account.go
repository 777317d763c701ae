package accounts

import (
	"time"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// Categories of the streams. The log is shared with programs, whose own accounts are likely to be in one called account.
const (
	category        = "accounts.account"
	addressCategory = "accounts.email"
)

// Categories are those that nobody but the service appends to.
func Categories() []string { return []string{category, addressCategory} }

// What happens to an account. Each says when. What is about a person is encrypted with a key of the account, which its erasure destroys.
type (
	registered struct {
		Email       string    `json:"email,omitempty" personal:"data"`
		DisplayName string    `json:"displayName,omitempty" personal:"data"`
		Roles       []string  `json:"roles"`
		Expects     bool      `json:"expectsCredentials,omitempty"`
		At          time.Time `json:"at"`
	}
	renamed struct {
		DisplayName string    `json:"displayName" personal:"data"`
		At          time.Time `json:"at"`
	}
	emailChanged struct {
		Email string    `json:"email" personal:"data"`
		At    time.Time `json:"at"`
	}
	rolesChanged struct {
		Roles []string  `json:"roles"`
		At    time.Time `json:"at"`
	}
	deleted struct {
		Reason string    `json:"reason,omitempty" personal:"data"`
		At     time.Time `json:"at"`
	}
	erased struct {
		At time.Time `json:"at"`
	}
)

// What happens to an address.
type (
	reserved struct {
		AccountID string `json:"accountId"`
	}
	released struct{}
)

// newTypes are the events under the names that the log has. A name is for ever.
func newTypes() (*eventstore.Types, error) {
	return eventstore.NewTypes(
		eventstore.TypeOf[registered]("registered", 1), eventstore.TypeOf[renamed]("renamed", 1),
		eventstore.TypeOf[emailChanged]("email-changed", 1), eventstore.TypeOf[rolesChanged]("roles-changed", 1),
		eventstore.TypeOf[deleted]("deleted", 1), eventstore.TypeOf[erased]("erased", 1),
		eventstore.TypeOf[reserved]("reserved", 1), eventstore.TypeOf[released]("released", 1),
	)
}

// An account is what its events lead to.
type account struct {
	Email       string
	DisplayName string
	Roles       []string
	CreatedAt   time.Time
	UpdatedAt   time.Time
	DeletedAt   time.Time // zero: it lives
	Erased      bool
}

// apply brings the account to after an event.
func (a *account) apply(event any) error {
	switch e := event.(type) {
	case registered:
		*a = account{Email: e.Email, DisplayName: e.DisplayName, Roles: e.Roles, CreatedAt: e.At, UpdatedAt: e.At}
	case renamed:
		a.DisplayName, a.UpdatedAt = e.DisplayName, e.At
	case emailChanged:
		a.Email, a.UpdatedAt = e.Email, e.At
	case rolesChanged:
		a.Roles, a.UpdatedAt = e.Roles, e.At
	case deleted:
		a.DeletedAt, a.UpdatedAt = e.At, e.At
	case erased:
		a.Email, a.DisplayName, a.Erased, a.UpdatedAt = "", "", true, e.At
	}
	return nil
}

// stream is that of an account, and the subject of what its events say about a person.
func stream(accountID string) eventstore.StreamID {
	return eventstore.StreamID{Category: category, ID: accountID}
}

// lives reports whether there is such an account.
func lives(a eventstore.Loaded[account]) bool { return a.Version > 0 && a.State.DeletedAt.IsZero() }
