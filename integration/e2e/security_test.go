package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/guard/guardtest"
)

const meshToken = "secret-of-mesh-0123456789"

// secured is a client with what it shows.
type secured struct {
	*http.Client
	header http.Header
}

// ask posts JSON to a URL, and sees to it that no secret is in the answer.
func (c secured) ask(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	for name, values := range c.header {
		request.Header[name] = values
	}
	response, err := c.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NotContains(t, string(answer), "secret-of")
	if response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden {
		require.Equal(t, "application/problem+json", response.Header.Get("Content-Type"))
	}
	return response.StatusCode, string(answer)
}

func bearer(token string) secured {
	return secured{http.DefaultClient, http.Header{"Authorization": {"Bearer " + token}}}
}

// Every endpoint of a node with the mesh's token asks for one; the probes do not. Rules refuse who is not named.
func TestEveryEndpointAsksForAToken(t *testing.T) {
	config := write(t, "bannou.yaml", fmt.Sprintf("apps:\n  game: {tokenFile: %s}\n  web: {tokenFile: %s}\nmesh:\n  tokenFile: %s\n  access: {bannou: [game], mesh: ['*'], orchestrator: ['*'],\n    accounts: ['*'], permissions: ['*'], sagas: ['*'], migration: ['*'], messaging/dead-letters: ['*'], messaging/outbox: ['*'],\n    events/erase: ['*'], events/rewrap: ['*'], events/projections: ['*'], auth/accounts: ['*'],\n    game-session/reserve: ['*'], game-session/invite: ['*'], game-session/seat: ['*'], game-session/release: ['*'], game-session/players: ['*']}\n",
		write(t, "game", gameToken), write(t, "web", webToken), write(t, "mesh", meshToken+"\n")))
	n := startNode(t, "--log-level", "debug", "--config", config)
	status, document := bearer(gameToken).ask(t, http.MethodGet, n.url+"/openapi.yaml", "")
	require.Equal(t, 200, status)
	paths := regexp.MustCompile(`(?m)^  "?(/[a-z][^ :"]*)"?:$`).FindAllStringSubmatch(document, -1)
	require.Greater(t, len(paths), 30)
	wrong := secured{http.DefaultClient, http.Header{guard.TokenHeader: {"wrong-0123456789abcdef"}}}
	nameless := secured{http.DefaultClient, http.Header{guard.TokenHeader: {meshToken}}}
	named := secured{http.DefaultClient, http.Header{guard.TokenHeader: {meshToken}, guard.AppHeader: {"game"}}}
	for _, match := range paths {
		path := strings.NewReplacer("{appId}", "bannou", "{method}", "mesh/mappings").Replace(match[1])
		if strings.Contains(path, "tail") || path == "/events/subscribe" { // a stream, once one is let in
			continue
		}
		if path == "/connect" { // open to players, who show the token of a session
			upgrade := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
			status, answer := secured{http.DefaultClient, upgrade}.ask(t, http.MethodGet, n.url+path, "")
			require.Equal(t, 401, status, answer)
			require.Contains(t, answer, "access token")
			continue
		}
		method := http.MethodPost
		if path == "/healthz" || path == "/readyz" || path == "/metrics" || path == "/openapi.yaml" || path == "/auth/jwks" {
			method = http.MethodGet
		}
		probe := method == http.MethodGet && path != "/openapi.yaml" && path != "/auth/jwks"
		for name, c := range map[string]struct {
			of     secured
			status int // 0: whatever the endpoint answers
		}{
			"no token": {secured{http.DefaultClient, nil}, 401}, "a wrong token": {wrong, 401}, "a wrong bearer": {bearer("wrong-0123456789abcdef"), 401},
			"another's token": {bearer(webToken), 403}, "no name": {nameless, 403}, "its token": {bearer(gameToken), 0}, "the mesh's token": {named, 0},
		} {
			status, answer := c.of.ask(t, method, n.url+path, "{}")
			if c.status == 0 && status == 401 && strings.Contains(answer, "the access token") {
				continue // it was let in, and is no session's
			}
			if c.status == 0 || probe {
				require.NotContains(t, []int{401, 403}, status, "%s with %s: %s", path, name, answer)
				continue
			}
			if c.status == 403 && path == "/openapi.yaml" {
				continue // it is no part of the app
			}
			require.Equal(t, c.status, status, "%s with %s: %s", path, name, answer)
			if c.status == 403 {
				require.Contains(t, answer, "mesh.access.bannou", path)
			}
			if name == "another's token" {
				require.Contains(t, answer, `\"web\"`, path)
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		status, _ := secured{http.DefaultClient, nil}.ask(t, http.MethodGet, n.url+path, "")
		require.Equal(t, 200, status)
	}
	_, errs, code := run(t, "endpoints", "--node", n.url)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "unauthorized, status 401")
	for _, command := range [][]string{{"endpoints"}, {"topics"}, {"stores"}, {"publish", "a.b"}, {"invoke", "bannou", "mesh/mappings"}, {"health"}} {
		_, errs, code := run(t, append(command, "--node", n.url, "--token-file", write(t, "token", gameToken))...)
		require.Zero(t, code, errs)
	}
	require.Zero(t, n.stop(t))
	require.NotContains(t, n.log.String(), "secret-of")
}

// The token of an app takes nothing over: neither by the mesh's services, nor by what the mesh hears on the bus, nor through calls
// that the node passes on as its own.
func TestAnAppsTokenDoesNotRuleTheMesh(t *testing.T) {
	config := write(t, "bannou.yaml", fmt.Sprintf("apps:\n  web: {tokenFile: %s}\nmesh:\n  tokenFile: %s\n  access: {state: [game]}\n",
		write(t, "web", webToken), write(t, "mesh", meshToken+"\n")))
	n := startNode(t, "--config", config)
	const heartbeat = `{"topic":"bannou-service-heartbeats","payload":{}}`
	const hidden = `{"topic":"a.b","payload":{},"options":{"routingKey":"mesh.endpoint.registered"}}`
	invoke := "/v1.0/invoke/bannou/method"
	const roles = `{"topic":"session.updated","payload":{"sessionId":"s","accountId":"a","roles":["admin"],"version":9,"reason":"roles_changed"}}`
	node := secured{http.DefaultClient, http.Header{guard.TokenHeader: {meshToken}, guard.AppHeader: {"accounts"}}}
	for _, c := range []struct {
		of         secured
		path, body string
		status     int
	}{
		{bearer(webToken), "/state/save", "{}", 403},
		{bearer(webToken), invoke + invoke + "/state/save", "{}", 403},
		{bearer(webToken), "/mesh/register", "{}", 403},
		{bearer(webToken), invoke + "/mesh/register", "{}", 403},
		{bearer(webToken), "/orchestrator/service-mappings/set", "{}", 403},
		{bearer(webToken), "/messaging/publish", heartbeat, 403},
		{bearer(webToken), "/messaging/publish", hidden, 403},
		{bearer(webToken), invoke + "/messaging/publish", heartbeat, 403},
		{bearer(webToken), invoke + invoke + "/messaging/publish", hidden, 403},
		{secured{http.DefaultClient, http.Header{"Authorization": {"Bearer " + webToken}, "Connection": {"keep-alive, bannou-on-behalf-of"}}},
			invoke + "/messaging/publish", heartbeat, 403}, // it asks the node to take the header off on the way
		{bearer(webToken), invoke + "/messaging/publish", `{"topic":"a.b","payload":{}}`, 200},

		// Nor can it make an administrator.
		{bearer(webToken), "/accounts/set-roles", "{}", 403},
		{bearer(webToken), invoke + invoke + "/accounts/set-roles", "{}", 403},
		{bearer(webToken), "/permissions/services/register", "{}", 403},
		{bearer(webToken), "/messaging/publish", roles, 403},
		{bearer(webToken), invoke + "/messaging/publish", roles, 403},
		{bearer(webToken), "/messaging/subscribe", `{"topic":"#","callbackUrl":"http://127.0.0.1:1/"}`, 403}, // it would hear how to set passwords
		{bearer(webToken), "/messaging/tail", `{"topic":"password.*"}`, 403},
		{bearer(webToken), "/messaging/tap/create", `{"topic":"*.reset-requested","exchange":"own"}`, 403},
		{bearer(webToken), "/messaging/dead-letters/replay", "{}", 403},
		{bearer(webToken), "/auth/login", "{}", 400},

		// Nor take a step of a saga in its place.
		{bearer(webToken), "/auth/accounts/end", "{}", 403},
		{bearer(webToken), "/permissions/sessions/end", "{}", 403},
		{bearer(webToken), "/game-session/reserve", "{}", 403},
		{bearer(webToken), invoke + "/game-session/release", "{}", 403},
		{bearer(webToken), invoke + "/game-session/players/remove", "{}", 403},
		{bearer(webToken), "/game-session/join", "{}", 400},
		{node, "/game-session/reserve", "{}", 400},
		{node, "/accounts/get", "{}", 400},
		{node, "/events/append", `{"streams":[{"category":"accounts.account","id":"a","events":[{"type":"x","data":1}]}]}`, 403},
		{node, "/events/append", `{"streams":[{"category":"saga.order","id":"a","events":[{"type":"x","data":1}]}]}`, 403},
		{node, "/mesh/mappings", "{}", 200},
		{node, "/messaging/publish", hidden, 200},
		{node, invoke + "/messaging/publish", hidden, 200},
	} {
		status, answer := c.of.ask(t, http.MethodPost, n.url+c.path, c.body)
		require.Equal(t, c.status, status, "%s %s: %s", c.path, c.body, answer)
		if status == 403 && !strings.Contains(c.path, "append") {
			require.Contains(t, answer, `\"web\"`, c.path)
		}
	}
	require.Zero(t, n.stop(t))
}

// A node says of what is for another app-id that it is, to those who are let in, before its own rules are asked. Probes are for whoever
// gets them.
func TestWhatIsForAnotherAppID(t *testing.T) {
	config := write(t, "bannou.yaml", fmt.Sprintf("mesh:\n  tokenFile: %s\n  access: {state: [game]}\n", write(t, "mesh", meshToken+"\n")))
	n := startNode(t, "--config", config)
	called := func(app string, more http.Header) secured {
		header := http.Header{"Bannou-Called-App-Id": {app}}
		maps.Copy(header, more)
		return secured{http.DefaultClient, header}
	}
	node := http.Header{guard.TokenHeader: {meshToken}, guard.AppHeader: {"accounts"}}
	for _, c := range []struct {
		of           secured
		method, path string
		status       int
	}{
		{called("other", nil), http.MethodGet, "/healthz", 200},
		{called("other", nil), http.MethodGet, "/readyz", 200},
		{called("other", nil), http.MethodGet, "/metrics", 200},
		{called("other", nil), http.MethodPost, "/mesh/mappings", 401},
		{called("other", node), http.MethodPost, "/mesh/mappings", 421},
		{called("other", node), http.MethodPost, "/nothing", 421},
		{called("other", node), http.MethodPost, "/state/list-stores", 421},
		{called("bannou", node), http.MethodPost, "/state/list-stores", 403},
		{called("bannou", node), http.MethodPost, "/mesh/mappings", 200},
	} {
		status, answer := c.of.ask(t, c.method, n.url+c.path, "{}")
		require.Equal(t, c.status, status, "%s for %s: %s", c.path, c.of.header, answer)
		if status == 421 {
			require.Contains(t, answer, `"misdirected"`)
		}
	}
	require.Zero(t, n.stop(t))
}

// twoNodes starts a node that offers the mesh and one that keeps state, on one registry.
func twoNodes(t *testing.T, start func(appID string, args ...string) *node) (front, back *node) {
	t.Helper()
	shared := []string{"--state-redis-url", servers.Redis(t).URL, "--messaging-backend", "redis", "--log-level", "debug"}
	return start("front", append(shared, "--services", "mesh")...), start("back", append(shared, "--services", "state")...)
}

// A call leads from one node to the other with the mesh's token, in place of its caller's. A token that is replaced in the file is
// taken without a restart.
func TestTwoNodesWithTheMeshsToken(t *testing.T) {
	token := write(t, "mesh", meshToken+"\n")
	game := write(t, "game", gameToken)
	front, back := twoNodes(t, func(appID string, args ...string) *node {
		config := write(t, "bannou.yaml", fmt.Sprintf("apps:\n  game: {tokenFile: %s}\nmesh:\n  tokenFile: %s\n  access: {state: [game, %s]}\n", game, token, "front"))
		return startNode(t, append(args, "--app-id", appID, "--config", config)...)
	})
	url := front.url + "/v1.0/invoke/back/method/state/list-stores"
	calls := func(c secured, want int) func() bool {
		return func() bool {
			status, _ := c.ask(t, http.MethodPost, url, "{}")
			return status == want
		}
	}
	require.Eventually(t, calls(bearer(gameToken), 200), patience, 50*time.Millisecond, "once the registry is known")
	require.True(t, calls(secured{http.DefaultClient, nil}, 401)())
	require.True(t, calls(secured{http.DefaultClient, http.Header{guard.TokenHeader: {meshToken}, guard.AppHeader: {"other"}}}, 403)())
	require.True(t, calls(secured{http.DefaultClient, http.Header{guard.TokenHeader: {meshToken}, guard.AppHeader: {"game"}, "Authorization": {"Bearer of somebody else"}}}, 200)(),
		"what is for the target is not looked at here")
	status, _ := bearer("wrong-0123456789abcdef").ask(t, http.MethodPost, back.url+"/state/list-stores", "{}")
	require.Equal(t, 401, status)

	const next = "secret-of-mesh-which-comes-next"
	require.NoError(t, os.WriteFile(token, []byte(next+"\n"), 0o600))
	shown := secured{http.DefaultClient, http.Header{guard.TokenHeader: {next}, guard.AppHeader: {"game"}}}
	require.Eventually(t, calls(shown, 200), patience, 50*time.Millisecond)
	require.Eventually(t, calls(secured{http.DefaultClient, http.Header{guard.TokenHeader: {meshToken}, guard.AppHeader: {"game"}}}, 401), patience, 50*time.Millisecond)
	for _, n := range []*node{front, back} {
		require.Zero(t, n.stop(t))
		require.NotContains(t, n.log.String(), "secret-of")
	}
}

// The same over TLS: nodes know each other by their certificates, which are replaced while calls are made.
func TestTwoNodesWithCertificates(t *testing.T) {
	authority := guardtest.NewAuthority(t)
	files := map[string]guardtest.Files{"front": authority.Node(t, "front"), "back": authority.Node(t, "back"), "game": authority.Node(t, "game")}
	config := write(t, "bannou.yaml", "mesh:\n  access: {state: [game, front]}\n")
	client := func(f guardtest.Files) secured {
		pool, err := guard.ReadAuthority(f.Authority)
		require.NoError(t, err)
		tls := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		if f.Cert != "" {
			tls.GetClientCertificate = certificateOf(f)
		}
		transport := &http.Transport{TLSClientConfig: tls, DisableKeepAlives: true}
		return secured{&http.Client{Transport: transport}, nil}
	}
	outside := client(guardtest.Files{Authority: files["front"].Authority})
	front, back := twoNodes(t, func(appID string, args ...string) *node {
		f := files[appID]
		n := launch(t, freeAddress(t), append(args, "--app-id", appID, "--config", config, "--log-level", "debug",
			"--mesh-probe-interval", "1s", "--mesh-probe-failures", "1", "--mesh-tls-cert-file", f.Cert, "--mesh-tls-key-file", f.Key, "--mesh-tls-ca-file", f.Authority)...)
		n.url = strings.Replace(n.url, "http://", "https://", 1)
		require.Eventually(t, func() bool {
			response, err := outside.Get(n.url + "/readyz")
			if err != nil {
				return false
			}
			defer response.Body.Close()
			return response.StatusCode == http.StatusOK
		}, patience, 10*time.Millisecond)
		return n
	})
	url := front.url + "/v1.0/invoke/back/method/state/list-stores"
	game := client(files["game"])
	require.Eventually(t, func() bool {
		status, _ := game.ask(t, http.MethodPost, url, "{}")
		return status == 200
	}, patience, 50*time.Millisecond)
	for _, n := range []*node{front, back} {
		status, _ := outside.ask(t, http.MethodPost, n.url+"/state/list-stores", "{}")
		require.Equal(t, 401, status)
	}
	status, answer := client(authority.Node(t, "web")).ask(t, http.MethodPost, url, "{}")
	require.Equal(t, 403, status)
	require.Contains(t, answer, `\"web\"`)
	_, err := client(guardtest.NewAuthority(t).Node(t, "game")).Get(front.url + "/readyz")
	require.Error(t, err)

	for _, f := range files {
		authority.Issue(t, f.Cert, f.Key, time.Hour, strings.TrimSuffix(appOf(t, f), "\n"), "localhost")
	}
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for again := 0; again < 2 && ctx.Err() == nil; again = strings.Count(front.log.String()+back.log.String(), "were read again") {
		status, answer := game.ask(t, http.MethodPost, url, "{}")
		require.Equal(t, 200, status, answer)
		status, answer = game.ask(t, http.MethodPost, back.url+"/state/list-stores", "{}")
		require.Equal(t, 200, status, answer)
	}
	require.NoError(t, ctx.Err(), "both have read them again")

	f := files["game"]
	_, errs, code := run(t, "endpoints", "--node", strings.Replace(front.url, "127.0.0.1", "localhost", 1), "--ca-file", f.Authority, "--cert-file", f.Cert, "--key-file", f.Key)
	require.Zero(t, code, errs)
	_, errs, code = run(t, "endpoints", "--node", front.url, "--ca-file", f.Authority)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "status 401")
	for _, n := range []*node{front, back} {
		require.Zero(t, n.stop(t))
		for _, trouble := range []string{"HTTP request to an HTTPS server", "does not answer probes"} {
			if strings.Contains(n.log.String(), trouble) { // without the whole log
				t.Errorf("probes are not made over TLS: %s", trouble)
			}
		}
	}
}

func certificateOf(f guardtest.Files) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		return &pair, err
	}
}

// appOf is the app-id that files were issued for.
func appOf(t *testing.T, f guardtest.Files) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(t, err)
	return guard.AppOf(pair.Leaf)
}

// With --insecure a node beyond loopback asks nobody, and says so.
func TestInsecureIsSaidAtStart(t *testing.T) {
	n := launch(t, strings.Replace(freeAddress(t), "127.0.0.1", "0.0.0.0", 1), "--insecure")
	n.url = strings.Replace(n.url, "0.0.0.0", "127.0.0.1", 1)
	n.waitReady(t)
	require.Contains(t, n.log.String(), "level=WARN")
	require.Contains(t, n.log.String(), "asks nobody who they are")
	require.Zero(t, n.stop(t))
	guarded := launch(t, strings.Replace(freeAddress(t), "127.0.0.1", "0.0.0.0", 1), "--mesh-token-file", filepath.Clean(write(t, "t", meshToken)))
	guarded.url = strings.Replace(guarded.url, "0.0.0.0", "127.0.0.1", 1)
	guarded.waitReady(t)
	require.NotContains(t, guarded.log.String(), "asks nobody")
	require.Zero(t, guarded.stop(t))
}
