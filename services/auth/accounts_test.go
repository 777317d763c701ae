package auth_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/auth"
	"github.com/bannou-mesh/bannou/services/problem"
)

// Only the accounts service says that there is no account. The 404 of whoever a wrong mapping leads to would end sessions and take
// passwords away.
func TestOnlyTheAccountsServiceSaysThatThereIsNoAccount(t *testing.T) {
	var answer error
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { problem.Write(w, answer) }))
	t.Cleanup(server.Close)
	feed := new(meshtest.Feed)
	registry, err := mesh.NewRegistry(meshtest.NewTable(), feed, mesh.RegistryConfig{})
	require.NoError(t, err)
	require.NoError(t, registry.Register(t.Context(), mesh.Endpoint{AppID: mesh.DefaultAppID, InstanceID: "a", Host: "127.0.0.1",
		Port: server.Listener.Addr().(*net.TCPAddr).Port, Status: mesh.StatusHealthy, Services: []string{"accounts"}}))
	directory := mesh.NewDirectory(registry, feed, mesh.DirectoryConfig{})
	require.NoError(t, directory.Refresh(t.Context()))
	client, err := mesh.NewClient(mesh.ClientConfig{Directory: directory})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	accounts := auth.NewMeshAccounts(client)
	get := func() error { _, err := accounts.Get(t.Context(), "x"); return err }
	byEmail := func() error { _, err := accounts.ByEmail(t.Context(), "x"); return err }
	create := func() error { _, err := accounts.Create(t.Context(), auth.Account{ID: "x"}); return err }
	for name, c := range map[string]struct {
		answer error
		ask    func() error
		is     error
	}{
		"no account":              {problem.New(problem.NotFound, "member accountId: there is none").At("accountId"), get, auth.ErrNoAccount},
		"nobody's address":        {problem.New(problem.NotFound, "member email: nobody's").At("email"), byEmail, auth.ErrNoAccount},
		"no address":              {problem.Invalid("email", "is none"), byEmail, auth.ErrNoAccount},
		"nothing at the path":     {problem.New(problem.NotFound, "there is nothing at /accounts/get"), get, state.ErrUnavailable},
		"another one's not found": {problem.New(problem.NotFound, "member key: there is none").At("key"), get, state.ErrUnavailable},
		"not found when making":   {problem.New(problem.NotFound, "member accountId: what?").At("accountId"), create, state.ErrUnavailable},
		"taken":                   {problem.New(problem.Conflict, "member email: taken").At("email"), create, auth.ErrTaken},
		"another one's conflict":  {problem.New(problem.Conflict, "member etag: changed").At("etag"), create, state.ErrUnavailable},
		"refused":                 {problem.Invalid("displayName", "is none"), create, auth.ErrRefused},
	} {
		answer = c.answer
		err := c.ask()
		require.ErrorIs(t, err, c.is, name)
		require.Equal(t, errors.Is(c.is, auth.ErrNoAccount), errors.Is(err, auth.ErrNoAccount), name)
	}
}
