package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// What an Accounts says beside failures.
var (
	// ErrNoAccount reports an account that does not exist, any more or at all.
	ErrNoAccount = errors.New("no such account")
	// ErrTaken reports an e-mail address that another account has.
	ErrTaken = errors.New("the e-mail address is taken")
	// ErrRefused reports an account that cannot be made as it was asked for. It wraps a *mesh.ResponseError with the reason.
	ErrRefused = errors.New("the account was refused")
)

// An Account is what auth has to know of one.
type Account struct {
	ID          string   `json:"accountId"`
	Email       string   `json:"email,omitempty"`
	DisplayName string   `json:"displayName,omitempty"`
	Roles       []string `json:"roles,omitempty"`
	Version     int64    `json:"version,omitempty"` // grows with every change

	ExpectsCredentials bool `json:"expectsCredentials,omitempty"` // of a registration: the password is kept here
}

// Accounts are kept elsewhere. Implementations are safe for concurrent use.
type Accounts interface {
	// Create makes an account of the given id, address and name; once more, the same account. ErrTaken, ErrRefused.
	Create(ctx context.Context, a Account) (Account, error)
	// ByEmail finds the account of an address, also one that was made a moment ago. ErrNoAccount.
	ByEmail(ctx context.Context, email string) (Account, error)
	// Get reads an account as it is now. ErrNoAccount.
	Get(ctx context.Context, accountID string) (Account, error)
}

// MeshAccounts are those of the accounts service, wherever in the mesh it runs.
type MeshAccounts struct{ client *mesh.Client }

// NewMeshAccounts calls the accounts service with a client.
func NewMeshAccounts(client *mesh.Client) *MeshAccounts { return &MeshAccounts{client: client} }

// Create is POST /accounts/register.
func (m *MeshAccounts) Create(ctx context.Context, a Account) (Account, error) {
	a.ExpectsCredentials = true
	return m.call(ctx, "register", a)
}

// ByEmail is POST /accounts/by-email.
func (m *MeshAccounts) ByEmail(ctx context.Context, email string) (Account, error) {
	return m.call(ctx, "by-email", Account{Email: email})
}

// Get is POST /accounts/get.
func (m *MeshAccounts) Get(ctx context.Context, accountID string) (Account, error) {
	return m.call(ctx, "get", Account{ID: accountID})
}

func (m *MeshAccounts) call(ctx context.Context, operation string, request Account) (Account, error) {
	a, err := mesh.Invoke[Account, Account](ctx, m.client, "accounts", "accounts/"+operation, request)
	refusal, is := errors.AsType[*mesh.ResponseError](err)
	if !is {
		return a, err
	}
	switch {
	case refusal.StatusCode == http.StatusNotFound && refusal.Code == "not_found" && operation != "register":
		err = ErrNoAccount
	case refusal.StatusCode == http.StatusBadRequest && operation == "by-email": // what is no address is nobody's
		err = ErrNoAccount
	case refusal.StatusCode == http.StatusConflict && operation == "register":
		err = ErrTaken
	case refusal.StatusCode == http.StatusBadRequest:
		err = fmt.Errorf("%w: %w", ErrRefused, refusal)
	}
	return Account{}, err
}
