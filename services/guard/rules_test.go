package guard_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/guard"
)

func TestRules(t *testing.T) {
	const invoke = "/v1.0/invoke/{appId}/method/{method...}"
	g := newGuard(t, guard.Config{
		Token: meshToken,
		Rules: map[string][]string{"state": {"game"}, "mesh": {guard.Everyone}, "accounts-app": {"game"}, "secret": {}, "echo": {"web"}},
		Resolve: func(target string) string {
			if target == "accounts" {
				return "accounts-app"
			}
			if target == "accounts-app" || target == "echo" {
				return target
			}
			return "bannou"
		},
	})
	for _, c := range []struct {
		path, pattern, caller string
		rule                  string // that refuses; "" for none
	}{
		{"/state/get", "POST /state/get", "game", ""},
		{"/state/get", "POST /state/get", "web", "state"},
		{"/state/get", "POST /state/get", "", "state"},
		{"/state/get", "POST /state/get", "bannou", ""}, // an app-id may call itself
		{"/%73tate/get", "POST /state/get", "web", "state"},
		{"/messaging/publish", "POST /messaging/publish", "web", ""},
		{"/messaging/publish", "POST /messaging/publish", "", ""},
		{"/mesh/route", "POST /mesh/route", "", ""},
		{"/secret/x", "/secret/{x}", "game", "secret"},
		{"/openapi.yaml", "GET /openapi.yaml", "web", ""},
		{"/nothing", "", "web", ""},

		{"/v1.0/invoke/bannou/method/state/get", invoke, "game", ""},
		{"/v1.0/invoke/bannou/method/state/get", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method//state/get", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method/x/../state/get", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method/x/%2e%2e/state/get", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method/%73tate%2Fget", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method/messaging/publish", invoke, "web", ""},
		{"/v1.0/invoke/state/method/get", invoke, "web", "state"},
		{"/v1.0/invoke/accounts-app/method/x", invoke, "game", ""},
		{"/v1.0/invoke/accounts-app/method/x", invoke, "web", "accounts-app"},
		{"/v1.0/invoke/accounts-app/method/x", invoke, "bannou", "accounts-app"},
		{"/v1.0/invoke/accounts-app/method/x", invoke, "accounts-app", ""},
		{"/v1.0/invoke/accounts/method/x", invoke, "web", "accounts-app"},
		{"/v1.0/invoke/accounts/method/x", invoke, "", "accounts-app"},
		{"/v1.0/invoke/echo/method/method/state", invoke, "game", "echo"},
		{"/v1.0/invoke/echo/method/method/state", invoke, "web", ""},

		// What is passed on is asked too, since it is passed on as the node's own.
		{"/v1.0/invoke/bannou/method/v1.0/invoke/bannou/method/state/save", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method/v1.0/invoke/bannou/method/state/save", invoke, "game", ""},
		{"/v1.0/invoke/bannou/method/v1.0/invoke/bannou/method/state/save", invoke, "bannou", ""},
		{"/v1.0/invoke/web/method/v1.0/invoke/bannou/method/state/save", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method/v1.0/invoke/bannou/method/messaging/publish", invoke, "web", ""},
		{"/v1.0/invoke/bannou/method/v1.0/invoke/accounts/method/x", invoke, "web", "accounts-app"},
		{"/v1.0/invoke/bannou/method/v1.0/invoke/bannou/method/v1.0/invoke/bannou/method/state/save", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method//v1.0/invoke/bannou/method/state/save", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method/x/../v1.0/invoke/bannou/method/state/save", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method/%76%31.0/invoke/bannou/method/state/save", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method/v1.0%2Finvoke%2Fbannou%2Fmethod%2Fstate%2Fsave", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method/v1.0/invoke/bannou/method/%73tate/save", invoke, "web", "state"},
		{"/v1.0/invoke/bannou/method/v1.0/invoke/bannou/method/%2573tate/save", invoke, "web", "state"},
	} {
		_, err := admit(t, g, c.path, c.pattern, guard.TokenHeader, meshToken, guard.AppHeader, c.caller)
		if c.rule == "" {
			require.NoError(t, err, "%s by %q", c.path, c.caller)
			continue
		}
		require.Equal(t, 403, statusOf(t, err), "%s by %q", c.path, c.caller)
		require.ErrorContains(t, err, "mesh.access."+c.rule)
		if c.caller != "" {
			require.ErrorContains(t, err, `"`+c.caller+`"`)
		}
	}
}

// Whoever registers an endpoint is called with the mesh's token: the token of an app does not do for that without a rule.
func TestTheMeshIsClosedToAppsUnlessARuleNamesThem(t *testing.T) {
	const invoke = "/v1.0/invoke/{appId}/method/{method...}"
	open := newGuard(t, guard.Config{Token: meshToken})
	ruled := newGuard(t, guard.Config{Token: meshToken, Rules: map[string][]string{"mesh": {"game"}, "orchestrator": {guard.Everyone}}})
	game, web, node := []string{guard.TokenHeader, gameToken}, []string{"Authorization", "Bearer " + webToken},
		[]string{guard.TokenHeader, meshToken, guard.AppHeader, "web"}
	for _, c := range []struct {
		g             *guard.Guard
		path, pattern string
		by            []string
		refused       bool
	}{
		{open, "/mesh/register", "POST /mesh/register", game, true},
		{open, "/mesh/endpoints/list", "POST /mesh/endpoints/list", web, true},
		{open, "/orchestrator/service-mappings/set", "POST /orchestrator/service-mappings/set", game, true},
		{open, "/v1.0/invoke/bannou/method/mesh/register", invoke, game, true},
		{open, "/v1.0/invoke/mesh/method/register", invoke, game, true},
		{open, "/v1.0/invoke/game/method/mesh/register", invoke, game, true},
		{open, "/v1.0/invoke/x/method/v1.0/invoke/bannou/method/mesh/register", invoke, game, true},
		{open, "/state/get", "POST /state/get", game, false},
		{open, "/v1.0/invoke/bannou/method/state/get", invoke, game, false},
		{open, "/mesh/register", "POST /mesh/register", node, false},
		{open, "/v1.0/invoke/bannou/method/mesh/register", invoke, node, false},
		{ruled, "/mesh/register", "POST /mesh/register", game, false},
		{ruled, "/mesh/register", "POST /mesh/register", web, true},
		{ruled, "/mesh/register", "POST /mesh/register", node, true},
		{ruled, "/orchestrator/service-endpoints", "POST /orchestrator/service-endpoints", web, false},
	} {
		_, err := admit(t, c.g, c.path, c.pattern, c.by...)
		if !c.refused {
			require.NoError(t, err, "%s by %s", c.path, c.by)
			continue
		}
		require.Equal(t, 403, statusOf(t, err), "%s by %s", c.path, c.by)
		require.ErrorContains(t, err, "mesh.access.")
	}
}

// What decides who may do what is closed to the tokens of apps too, part by part of a service where the rest is open.
func TestWhatIsClosedToAppsUnlessARuleNamesThem(t *testing.T) {
	const invoke = "/v1.0/invoke/{appId}/method/{method...}"
	open := newGuard(t, guard.Config{Token: meshToken})
	ruled := newGuard(t, guard.Config{Token: meshToken, Rules: map[string][]string{
		"accounts": {"game"}, "messaging/dead-letters": {"game"}, "events": {"game", "web"}, "messaging/dead-letters/discard": {"web"}}})
	game, node := []string{guard.TokenHeader, gameToken}, []string{guard.TokenHeader, meshToken, guard.AppHeader, "auth"}
	passed := append([]string{guard.BehalfHeader, "game"}, node...)
	for _, c := range []struct {
		g       *guard.Guard
		path    string
		by      []string
		refused string // the name in the rule
	}{
		{open, "/accounts/set-roles", game, "accounts"},
		{open, "/permissions/services/register", game, "permissions"},
		{open, "/sagas/cancel", game, "sagas"},
		{open, "/messaging/dead-letters/replay", game, "messaging/dead-letters"},
		{open, "/messaging/dead-letters/get", game, "messaging/dead-letters"},
		{open, "/messaging/outbox/list", game, "messaging/outbox"},
		{open, "/events/erase", game, "events/erase"},
		{open, "/events/projections/drop", game, "events/projections"},
		{open, "/v1.0/invoke/bannou/method/accounts/set-roles", game, "accounts"},
		{open, "/v1.0/invoke/accounts/method/accounts/set-roles", game, "accounts"},
		{open, "/v1.0/invoke/bannou/method/x/..%2Fevents/erase", game, "events/erase"},
		{open, "/v1.0/invoke/x/method/v1.0/invoke/bannou/method/messaging/dead-letters/replay", game, "messaging/dead-letters"},
		{open, "/accounts/set-roles", passed, "accounts"}, // the node before this one should have refused it
		{open, "/auth/accounts/confirm", game, "auth/accounts"},
		{open, "/auth/accounts/end", game, "auth/accounts"},
		{open, "/permissions/sessions/end", game, "permissions"},
		{open, "/game-session/reserve", game, "game-session/reserve"},
		{open, "/game-session/invite", game, "game-session/invite"},
		{open, "/game-session/seat", game, "game-session/seat"},
		{open, "/game-session/release", game, "game-session/release"},
		{open, "/game-session/players/remove", game, "game-session/players"},
		{open, "/v1.0/invoke/game-session/method/game-session/reserve", game, "game-session/reserve"},
		{open, "/game-session/reserve", passed, "game-session/reserve"},
		{open, "/game-session/reserve", node, ""}, // a saga's engine is a node's
		{open, "/auth/accounts/end", node, ""},
		{open, "/game-session/join", game, ""},
		{open, "/game-session/answer-join", game, ""},
		{open, "/auth/login", game, ""},
		{open, "/events/append", game, ""},
		{open, "/messaging/publish", game, ""},
		{open, "/accounts/get", node, ""},
		{open, "/sagas/list", node, ""},
		{ruled, "/accounts/set-roles", game, ""},
		{ruled, "/messaging/dead-letters/list", game, ""},
		{ruled, "/messaging/dead-letters/discard", game, "messaging/dead-letters/discard"},
		{ruled, "/events/read", game, ""},
		{ruled, "/events/erase", game, "events/erase"}, // the rule is of the service, and not of this part
		{ruled, "/v1.0/invoke/bannou/method/accounts/set-roles", game, ""},
		{ruled, "/accounts/set-roles", node, "accounts"},
		{ruled, "/messaging/publish", node, ""},
	} {
		pattern := "POST " + c.path
		if strings.HasPrefix(c.path, "/v1.0/") {
			pattern = invoke
		}
		_, err := admit(t, c.g, c.path, pattern, c.by...)
		if c.refused == "" {
			require.NoError(t, err, "%s by %s", c.path, c.by)
			continue
		}
		require.Equal(t, 403, statusOf(t, err), "%s by %s", c.path, c.by)
		require.ErrorContains(t, err, "mesh.access."+c.refused)
	}
	// A node passes on within the process, and to another of its app-id, what its rule lets an app do.
	own := []string{guard.TokenHeader, meshToken, guard.AppHeader, "bannou", guard.BehalfHeader, "game"}
	_, err := admit(t, ruled, "/accounts/set-roles", "POST /accounts/set-roles", own...)
	require.NoError(t, err)
	_, err = guard.New(guard.Config{Token: meshToken, Rules: map[string][]string{"messaging//x": {"game"}}})
	require.ErrorContains(t, err, "a part of a service's paths")
}

// On topics that are a service's own, and of those that tell secrets, apps need a rule.
func TestTopicsOfServices(t *testing.T) {
	cfg := func(rules map[string][]string) guard.Config {
		return guard.Config{Token: meshToken, Rules: rules, Owned: func(topic string) bool { return strings.HasPrefix(topic, "session.") },
			Secret: []string{"password.reset-requested"}}
	}
	game, web := []string{guard.TokenHeader, gameToken}, []string{guard.TokenHeader, webToken}
	node := []string{guard.TokenHeader, meshToken, guard.AppHeader, "auth"}
	passed := []string{guard.TokenHeader, meshToken, guard.AppHeader, "auth", guard.BehalfHeader, "game"}
	all := map[string][]string{"messaging/publish/session": {"game"}, "messaging/subscribe/password.reset-requested": {"game"}}
	one := map[string][]string{"messaging/publish/session.updated": {"web"}, "messaging/publish/quest": {"web"}}
	for _, c := range []struct {
		rules   map[string][]string
		by      []string
		topic   string
		may     bool
		hearing bool
	}{
		{rules: nil, by: game, topic: "quest.done", may: true},
		{rules: nil, by: game, topic: "session.updated"},
		{rules: nil, by: passed, topic: "session.updated"},
		{rules: nil, by: node, topic: "session.updated", may: true},
		{rules: all, by: game, topic: "session.updated", may: true},
		{rules: all, by: passed, topic: "session.updated", may: true},
		{rules: all, by: web, topic: "session.updated"},
		{rules: all, by: node, topic: "session.updated"},
		{rules: all, by: []string{guard.TokenHeader, meshToken, guard.AppHeader, "bannou"}, topic: "session.updated", may: true},
		{rules: one, by: web, topic: "session.updated", may: true},
		{rules: one, by: web, topic: "session.invalidated"},
		{rules: one, by: game, topic: "quest.done"},
		{rules: one, by: web, topic: "quest.done", may: true},
		{rules: nil, by: game, topic: "password.reset-requested", hearing: true},
		{rules: nil, by: game, topic: "#", hearing: true},
		{rules: nil, by: game, topic: "*.reset-requested", hearing: true},
		{rules: nil, by: game, topic: "password.#", hearing: true},
		{rules: nil, by: game, topic: "#.password.*.#", hearing: true},
		{rules: nil, by: game, topic: "*", may: true, hearing: true},
		{rules: nil, by: game, topic: "session.#", may: true, hearing: true},
		{rules: nil, by: node, topic: "#", may: true, hearing: true},
		{rules: all, by: game, topic: "#", may: true, hearing: true},
		{rules: all, by: web, topic: "password.*", hearing: true},
	} {
		g := newGuard(t, cfg(c.rules))
		r, err := admit(t, g, "/messaging/publish", "POST /messaging/publish", c.by...)
		require.NoError(t, err)
		if c.hearing {
			err = g.MaySubscribe(r.Context(), c.topic)
		} else {
			err = g.MayPublish(r.Context(), c.topic)
		}
		require.Equal(t, !c.may, statusOf(t, err) == 403, "%v by %s on %s: %v", c.rules, c.by, c.topic, err)
	}
	var none *guard.Guard
	require.NoError(t, none.MayPublish(t.Context(), "session.updated"))
	require.NoError(t, none.MaySubscribe(t.Context(), "#"))
	require.Error(t, newGuard(t, cfg(nil)).MayPublish(t.Context(), "session.updated"), "of no request")
}

// What the mesh hears on the bus does the same as calls of its services, and takes more: the credentials of a node.
func TestWhoMayAnnounce(t *testing.T) {
	for name, c := range map[string]struct {
		rules   map[string][]string
		headers []string
		missing string // "" when it may
	}{
		"a node":                 {nil, []string{guard.TokenHeader, meshToken, guard.AppHeader, "accounts"}, ""},
		"without a name":         {nil, []string{guard.TokenHeader, meshToken}, ""},
		"an app":                 {nil, []string{guard.TokenHeader, gameToken}, `"game" may not publish on "mesh.endpoint.registered"`},
		"an app that may call":   {map[string][]string{"mesh": {"game"}}, []string{guard.TokenHeader, gameToken}, "the mesh's token or a certificate"},
		"an app, as if a node's": {nil, []string{guard.TokenHeader, gameToken, guard.BehalfHeader, ""}, `"game"`},
		"an app, through a node": {nil, []string{guard.TokenHeader, meshToken, guard.AppHeader, "accounts", guard.BehalfHeader, "game"}, `"game"`},
		"nobody, through a node": {nil, []string{guard.TokenHeader, meshToken, guard.BehalfHeader, ""}, "the token of an app"},
		"a rule for it":          {map[string][]string{"mesh": {"accounts"}}, []string{guard.TokenHeader, meshToken, guard.AppHeader, "accounts"}, ""},
		"a rule for others":      {map[string][]string{"mesh": {"accounts"}, "orchestrator": {"deploy"}}, []string{guard.TokenHeader, meshToken, guard.AppHeader, "accounts"}, "mesh.access.orchestrator"},
		"a rule, and no name":    {map[string][]string{"mesh": {"accounts"}}, []string{guard.TokenHeader, meshToken}, "mesh.access.mesh"},
		"the node's own app-id":  {map[string][]string{"mesh": {"accounts"}}, []string{guard.TokenHeader, meshToken, guard.AppHeader, "bannou"}, ""},
	} {
		g := newGuard(t, guard.Config{Token: meshToken, Rules: c.rules})
		r, err := admit(t, g, "/messaging/publish", "POST /messaging/publish", c.headers...)
		require.NoError(t, err, name)
		err = g.MayAnnounce(r.Context(), "mesh.endpoint.registered")
		if c.missing == "" {
			require.NoError(t, err, name)
			continue
		}
		require.Equal(t, 403, statusOf(t, err), name)
		require.ErrorContains(t, err, c.missing, name)
	}
	var none *guard.Guard
	require.NoError(t, none.MayAnnounce(t.Context(), "mesh.endpoint.registered"))
	require.Error(t, newGuard(t, guard.Config{Token: meshToken}).MayAnnounce(t.Context(), "mesh.endpoint.registered"), "of no request")
}

// A request that an app's token let in is known for it behind the node that passes it on, in this process and elsewhere.
func TestOnWhoseBehalfIsCarriedOn(t *testing.T) {
	g := newGuard(t, guard.Config{Token: meshToken})
	r, err := admit(t, g, "/v1.0/invoke/bannou/method/messaging/publish", "/v1.0/invoke/", guard.TokenHeader, gameToken,
		"Connection", "X-Hop, bannou-on-behalf-of", "Connection", "Bannou-On-Behalf-Of")
	require.NoError(t, err)
	require.Equal(t, []string{"X-Hop"}, r.Header["Connection"], "the header is not for this hop alone")
	on := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/messaging/publish", http.NoBody)
	on.Header = r.Header.Clone()
	var within error
	g.Local(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		r, err = g.Admit(r, "POST /messaging/publish")
		within = g.MayAnnounce(r.Context(), "mesh.endpoint.registered")
	})).ServeHTTP(httptest.NewRecorder(), on)
	require.NoError(t, err)
	require.Equal(t, 403, statusOf(t, within))

	on.Header = r.Header.Clone()
	g.Authorize(on.Header)
	on, err = newGuard(t, guard.Config{Token: meshToken, AppID: "back"}).Admit(on, "POST /messaging/publish")
	require.NoError(t, err)
	require.Equal(t, "bannou", guard.Caller(on.Context()))
	require.Equal(t, 403, statusOf(t, g.MayAnnounce(on.Context(), "mesh.endpoint.registered")))
}

// More calls within one another than nodes pass on are not looked through, and are refused.
func TestRulesRefuseWhatIsTooDeep(t *testing.T) {
	g := newGuard(t, guard.Config{Token: meshToken, Rules: map[string][]string{"state": {"game"}}})
	for calls, refused := range map[int]bool{1: false, 4: false, 5: true, 500: true} {
		path := strings.Repeat("/v1.0/invoke/bannou/method", calls) + "/messaging/publish"
		_, err := admit(t, g, path, "/v1.0/invoke/", guard.TokenHeader, webToken)
		require.Equal(t, refused, statusOf(t, err) == 403, calls)
	}
}

// What is for players is open to who shows nothing of the mesh, and nothing else is; what says for which player a node calls is believed
// of nodes.
func TestOpenPatterns(t *testing.T) {
	g := newGuard(t, guard.Config{Token: meshToken, Open: []string{"GET /connect"}, OfNodes: []string{"Bannou-Session-Id"}})
	r, err := admit(t, g, "/connect", "GET /connect", "Authorization", "Bearer of a player", guard.BehalfHeader, "game", "Bannou-Session-Id", "x")
	require.NoError(t, err)
	require.Equal(t, "Bearer of a player", r.Header.Get("Authorization"), "it is for the gateway")
	require.Empty(t, r.Header.Get(guard.BehalfHeader))
	require.Empty(t, r.Header.Get("Bannou-Session-Id"))
	require.Empty(t, guard.Caller(r.Context()))
	for _, pattern := range []string{"POST /connect", "GET /connect/more", "", "/v1.0/invoke/"} {
		_, err = admit(t, g, "/connect", pattern)
		require.Equal(t, 401, statusOf(t, err), pattern)
	}

	r, err = admit(t, g, "/state/get", "POST /state/get", guard.TokenHeader, gameToken, "Bannou-Session-Id", "x")
	require.NoError(t, err)
	require.Empty(t, r.Header.Get("Bannou-Session-Id"), "of an app")
	r, err = admit(t, g, "/state/get", "POST /state/get", guard.TokenHeader, meshToken, guard.AppHeader, "bannou", "Bannou-Session-Id", "x")
	require.NoError(t, err)
	require.Equal(t, "x", r.Header.Get("Bannou-Session-Id"), "of a node")
}
