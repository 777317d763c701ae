package auth_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/auth"
)

// A registration that died before its end is brought to its end, once or twice; what there is nothing of is refused.
func TestARegistrationIsConfirmed(t *testing.T) {
	n := start(t, auth.Config{})
	n.accounts.lost = context.DeadlineExceeded
	n.refused(504, "outcome_unknown", "/auth/register", loginBody("ada@example.org", password))
	n.accounts.lost = nil
	account, err := n.accounts.ByEmail(t.Context(), "ada@example.org")
	require.NoError(t, err)
	kept := func() object {
		store, err := state.Open[object](t.Context(), n.factory, auth.CredentialStore)
		require.NoError(t, err)
		v, err := store.Get(t.Context(), account.ID)
		require.NoError(t, err)
		return v
	}
	require.Equal(t, true, kept()["pending"])
	for range 2 {
		require.Equal(t, object{"confirmed": true}, n.must("/auth/accounts/confirm", `{"accountId":"`+account.ID+`"}`))
		require.Equal(t, false, kept()["pending"])
	}
	n.login("ada@example.org")

	without := newID()
	n.refused(404, "not_found", "/auth/accounts/confirm", `{"accountId":"`+without+`"}`)
	n.accounts.mu.Lock()
	n.accounts.byID[without] = auth.Account{ID: without}
	n.accounts.mu.Unlock()
	n.refused(409, "conflict", "/auth/accounts/confirm", `{"accountId":"`+without+`"}`)
}

// What is asked for of a deleted account is done before it is answered, again where it is asked again; of one that lives, nothing is.
func TestAnAccountEndsOnRequest(t *testing.T) {
	n := start(t, auth.Config{})
	own := n.register("ada@example.org")
	for _, path := range []string{"/auth/accounts/confirm", "/auth/accounts/end"} {
		n.refused(400, "missing_member", path, `{}`)
		n.refused(400, "invalid_member", path, `{"accountId":"x"}`)
	}
	n.refused(409, "conflict", "/auth/accounts/end", `{"accountId":"`+own.account+`"}`)
	require.True(t, n.valid(own.access))
	n.accounts.mu.Lock()
	delete(n.accounts.byID, own.account) // account.deleted is late
	n.accounts.mu.Unlock()
	for range 2 {
		require.Equal(t, object{"sessionIds": []any{own.session}}, n.must("/auth/accounts/end", `{"accountId":"`+own.account+`"}`))
		n.dead(own)
	}
}
