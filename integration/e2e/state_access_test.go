package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	gameToken = "secret-of-game-0123456789"
	webToken  = "secret-of-web-0123456789"
)

// write makes a file of its own, and returns its name.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// reserved is a configuration with a store that game may read and write, and web read.
func reserved(t *testing.T, game, web, rule string) string {
	return write(t, "bannou.yaml", fmt.Sprintf("apps:\n  game: {tokenFile: %s}\n  web: {tokenFile: %s}\nstate:\n  stores:\n"+
		"    scores: {backend: sqlite, access: %s}\n", write(t, "game", game), write(t, "web", web), rule))
}

// A store that the file reserves for apps asks for their tokens: at the node, through the mesh, and of the command line.
// Tokens appear nowhere.
func TestStoresAreReservedForApps(t *testing.T) {
	n := startNode(t, "--log-level", "debug", "--config", reserved(t, gameToken+"\n", webToken, "{read: [game, web], write: [game]}"))
	ask := func(url, body, token string) (int, http.Header, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
		require.NoError(t, err)
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NotContains(t, string(answer), "secret-of")
		return response.StatusCode, response.Header, string(answer)
	}
	for _, base := range []string{n.url, n.url + "/v1.0/invoke/bannou/method"} {
		for _, c := range []struct{ path, rest, right string }{
			{"save", `"key":"k","value":1`, "write"}, {"get", `"key":"k"`, "read"}, {"bulk-get", `"keys":["k"]`, "read"},
			{"bulk-exists", `"keys":["k"]`, "read"}, {"query", `"filter":{}`, "read"}, {"bulk-save", `"items":[{"key":"k","value":1}]`, "write"},
			{"transact", `"operations":[{"operation":"save","key":"k","value":1}]`, "write"}, {"bulk-delete", `"keys":["l"]`, "write"}, {"delete", `"key":"l"`, "write"},
		} {
			for token, want := range map[string]int{"": 401, "a-wrong-token-0123456789": 401, gameToken: 200, webToken: map[string]int{"read": 200, "write": 403}[c.right]} {
				status, header, answer := ask(base+"/state/"+c.path, `{"storeName":"scores",`+c.rest+`}`, token)
				require.Equal(t, want, status, "%s %s: %s", base, c.path, answer)
				require.Equal(t, status == 401, header.Get("WWW-Authenticate") != "")
			}
		}
	}
	_, _, stores := ask(n.url+"/state/list-stores", `{}`, "")
	require.NotContains(t, stores, "scores")
	require.Contains(t, stores, "accounts")
	_, _, stores = ask(n.url+"/state/list-stores", `{}`, webToken)
	require.Contains(t, stores, "scores")
	status, _, _ := ask(n.url+"/state/get", `{"storeName":"accounts","key":"k"}`, "a-wrong-token-0123456789")
	require.Equal(t, 404, status, "a store without a rule looks at no token")

	_, errs, code := run(t, "state", "get", "scores", "k", "--node", n.url)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "unauthorized, status 401")
	_, errs, code = run(t, "state", "save", "scores", "k", "2", "--node", n.url, "--token-file", write(t, "token", webToken))
	require.Equal(t, 1, code)
	require.Contains(t, errs, `app "web" may not write store "scores"`)
	_, errs, code = run(t, "state", "save", "scores", "k", "2", "--node", n.url, "--token-file", write(t, "token", gameToken+"\n"))
	require.Equal(t, 0, code, errs)
	out, errs, code := run(t, "stores", "--node", n.url, "--token-file", write(t, "token", webToken))
	require.Equal(t, 0, code, errs)
	require.Contains(t, out, "scores")
	_, errs, code = run(t, "state", "get", "scores", "k", "--node", n.url, "--token-file", "nowhere")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "--token-file")

	fetch := func(path string) string {
		t.Helper()
		response, err := http.Get(n.url + path)
		require.NoError(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return string(text)
	}
	require.Contains(t, fetch("/openapi.yaml"), "appToken:\n")
	metrics := fetch("/metrics")
	require.Contains(t, metrics, `bannou_state_refusals_total{operation="write",reason="forbidden",store="scores"}`)
	require.NotContains(t, metrics, "secret-of")
	require.Equal(t, 0, n.stop(t))
	require.Contains(t, n.log.String(), "status=403", "refusals are logged")
	require.NotContains(t, n.log.String(), "secret-of")
	require.NotContains(t, n.log.String(), "a-wrong-token")
}

// What is wrong with rules and tokens is said at start, without the tokens.
func TestMistakesOfAccess(t *testing.T) {
	for _, c := range []struct{ game, web, rule, want string }{
		{gameToken, webToken, "{read: [game, shop]}", `state.stores.scores.access.read names the app "shop"`},
		{"secret-of-game", webToken, "{read: [game]}", `app "game" has a token of 14 bytes`},
		{"", webToken, "{read: [game]}", "holds no token"},
		{"secret-of-game with blanks", webToken, "{read: [game]}", `app "game" has a token with blanks`},
		{gameToken, gameToken, "{read: [game]}", `app "web" has a token that app "game" has too`},
		{gameToken, webToken, "", "state.stores.scores.access is empty"},
	} {
		_, errs, code := run(t, "serve", "--listen", "127.0.0.1:0", "--config", reserved(t, c.game, c.web, c.rule))
		require.Equal(t, 2, code, errs)
		require.Contains(t, errs, c.want)
		require.NotContains(t, errs, "secret-of")
	}
}
