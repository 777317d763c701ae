package dapr_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const ownBus = `[{"pubsubname":"bannou-pubsub","topic":"shop.sold","route":"/on/sold"}]`

// Who publishes and who subscribes, an app of Dapr or a native program, makes no difference to either: each gets the event in its own form.
func TestNativeAndDaprShareTheBus(t *testing.T) {
	a := newApp(t, ownBus)
	s := newFacade(t, nil, a)
	native := *s
	native.url = s.node
	heard := make(chan string, 10)
	callback := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		heard <- string(body)
	}))
	t.Cleanup(callback.Close)
	answer := native.call("POST", "/messaging/subscribe", `{"topic":"shop.sold","callbackUrl":"`+callback.URL+`"}`, "Content-Type", asJSON)
	require.True(t, strings.HasPrefix(answer, "200 "), answer)

	envelope := s.sent("bannou-pubsub/shop.sold", "/on/sold", "from-dapr", asJSON, `{"mark":"from-dapr","n":9007199254740993}`)
	require.Equal(t, `{"mark":"from-dapr","n":9007199254740993}`, member(envelope, "data"), "as it was published")
	event := <-heard
	require.Equal(t, `"from-dapr" 9007199254740993`, members(event, "mark", "n"), "a native subscriber has the data, flat")
	require.Equal(t, member(envelope, "id"), member(event, "eventId"))
	require.NotEmpty(t, member(event, "timestamp"))

	answer = native.call("POST", "/messaging/publish", `{"topic":"shop.sold","payload":{"mark":"from-native"}}`, "Content-Type", asJSON)
	require.True(t, strings.HasPrefix(answer, "200 "), answer)
	event = <-heard
	envelope = strings.Join(a.deliveries("/on/sold", "from-native", 1, wait), "")
	require.Equal(t, event, member(envelope, "data"), "the whole event is the data")
	require.Equal(t, member(event, "eventId"), member(envelope, "id"))
	require.Equal(t, `"1.0" "shop.sold" "bannou-pubsub" "bannou"`, members(envelope, "specversion", "topic", "pubsubname", "source"))
}

// What comes while the app is away waits for it, and is no failure.
func TestAppThatComesLater(t *testing.T) {
	a := newApp(t, ownBus)
	s := newFacade(t, nil, a)
	address := a.address()
	a.server.Close()
	require.Equal(t, "204", s.call("POST", publish+"bannou-pubsub/shop.sold", `{"mark":"while-away"}`, "Content-Type", asJSON))
	s.exchange("GET", "/v1.0/metadata", "") // the event is on its way by now, and meets nobody
	again := httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	require.NoError(t, again.Listener.Close())
	var err error
	again.Listener, err = listenAt(address)
	require.NoError(t, err)
	again.Start()
	t.Cleanup(again.Close)
	require.Len(t, a.deliveries("/on/sold", "while-away", 1, wait), 1)
}

func TestToken(t *testing.T) {
	a := newApp(t, "[]")
	s := newFacade(t, nil, a, "--dapr-api-token", "a-token-of-some-length")
	require.Equal(t, "401 invalid api token", s.call("GET", stateOf+"accounts/a", ""))
	require.Equal(t, "401 invalid api token", s.call("GET", stateOf+"accounts/a", "", "dapr-api-token", "another"))
	require.Equal(t, "204", s.call("GET", stateOf+"accounts/a", "", "dapr-api-token", "a-token-of-some-length"))
	require.Equal(t, "204", s.call("GET", "/v1.0/healthz", ""))
	require.Equal(t, "204", s.call("GET", "/v1.0/healthz/outbound", ""))
	require.Equal(t, "401 invalid api token", s.call("GET", "/teapot", "", "dapr-app-id", "app"))
	for _, path := range []string{"/v1.0/healthz/x", "/v1.0/healthz/%2e%2e/%2e%2e/teapot", "/v1.0/healthz%2foutbound", "/v1.0/healthzy"} {
		require.Equal(t, "401 invalid api token", s.call("GET", path, "", "dapr-app-id", "app"), "what begins like a probe is none: %s", path)
	}
	require.Equal(t, "401 invalid api token", s.call("POST", "/v1.0/healthz", "", "dapr-app-id", "app"), "nor is it with another verb")
}

// The app is in the mesh under its name, and others call it there without this node between them.
func TestAppIsInTheMesh(t *testing.T) {
	a := newApp(t, "[]")
	s := newFacade(t, nil, a)
	native := *s
	native.url = s.node
	require.Eventually(t, func() bool { return native.call("POST", "/v1.0/invoke/app/method/teapot", "hello") == "418 hello" }, wait, wait/1000)
	require.Equal(t, "204", s.call("POST", "/v1.0/shutdown", ""), "and it may end the node that is its sidecar")
	require.Eventually(t, func() bool {
		response, err := http.Get(s.node + "/healthz")
		if err == nil {
			_ = response.Body.Close()
		}
		return err != nil
	}, wait, wait/1000)
}

// What cannot be made good for is refused at the start, with a sentence.
func TestRefusedComponents(t *testing.T) {
	component := func(kind, more string) string {
		return "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: c\nspec:\n  type: " + kind + "\n  version: v1\n  metadata:\n" + more
	}
	for text, want := range map[string]string{
		component("state.mongodb", ""): "for which there is no native driver; there are: lock.redis",
		component("state.redis", "  - name: primaryEncryptionKey\n    value: abc\n"):    "encrypts what it keeps",
		component("state.redis", "  - name: actorStateStore\n    value: \"true\"\n"):    "keeps actors",
		component("state.redis", "  - name: redisHost\n    envRef: NOT_SET_ANYWHERE\n"): "where NOT_SET_ANYWHERE is not set",
		component("pubsub.rabbitmq", ""):                                                "connectionString is missing",
		"apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: c\n":     "resources of this kind mean nothing here",
		"kind: [": "not YAML",
		"# nothing here\n---\n---\nkind: Other\n":                                        `Other "": resources of this kind mean nothing here`,
		"Kind: Component\nmetadata:\n  name: misspelt\nspec:\n  type: state.in-memory\n": `"misspelt" says no kind`,
		declared: "--dapr-app-address",
	} {
		folder := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(folder, "c.yaml"), []byte(text), 0o600))
		ctx, cancel := context.WithTimeout(t.Context(), wait) // one that is not refused would go on
		cmd := exec.CommandContext(ctx, binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "--dapr-listen", "127.0.0.1:0", "--dapr-app-id", "app", "--dapr-resources-path", folder)
		printed, err := cmd.CombinedOutput()
		cancel()
		require.Error(t, err, text)
		require.Equal(t, 2, cmd.ProcessState.ExitCode(), string(printed))
		require.Contains(t, string(printed), want)
	}
}

// A store of the node is queried with the operators of Dapr, and keeps locks.
func TestQueryAndLocks(t *testing.T) {
	a := newApp(t, "[]")
	s := newFacade(t, nil, a)
	require.Equal(t, "204", s.call("POST", stateOf+"accounts", `[{"key":"a","value":{"city":"Ulm","n":1}},{"key":"b","value":{"city":"Bonn","n":9007199254740993}},{"key":"c","value":{"city":"Ulm","n":3}}]`))
	found := func(query string) string {
		_, _, body := s.exchange("POST", "/v1.0-alpha1/state/accounts/query", query)
		var keys []string
		for rest := body; ; {
			var is bool
			if _, rest, is = strings.Cut(rest, `"key":"`); !is {
				return strings.Join(keys, "")
			}
			keys = append(keys, rest[:1])
		}
	}
	for query, want := range map[string]string{
		`{}`: "abc",
		`{"filter":{"EQ":{"city":"Ulm"}},"sort":[{"key":"n","order":"DESC"}]}`:    "ca",
		`{"filter":{"NEQ":{"city":"Ulm"}}}`:                                       "b",
		`{"filter":{"AND":[{"EQ":{"city":"Ulm"}},{"GT":{"n":1}}]}}`:               "c",
		`{"filter":{"OR":[{"IN":{"city":["Bonn","Rome"]}},{"LTE":{"n":1}}]}}`:     "ab",
		`{"filter":{"EQ":{"n":9007199254740993}}}`:                                "b",
		`{"filter":{"EQ":{"n":9007199254740992}}}`:                                "",
		`{"page":{"limit":2}}`:                                                    "ab",
		`{"filter":{"GTE":{"n":3}},"sort":[{"key":"n","order":"ASC"}],"page":{}}`: "cb",
	} {
		require.Equal(t, want, found(query), query)
	}
	_, _, first := s.exchange("POST", "/v1.0-alpha1/state/accounts/query", `{"page":{"limit":2}}`)
	require.Equal(t, "c", found(`{"page":{"limit":2,"token":`+member(first, "token")+`}}`), "the token leads on")
	require.Equal(t, "400 ERR_MALFORMED_REQUEST", s.code("POST", "/v1.0-alpha1/state/accounts/query", `{"filter":{"LIKE":{"a":"b"}}}`))

	lock := func(do, owner, more string) string {
		return s.call("POST", "/v1.0-alpha1/"+do+"/auth", `{"resourceId":"door","lockOwner":"`+owner+`"`+more+`}`)
	}
	require.Equal(t, `200 {"success":true}`, lock("lock", "me", `,"expiryInSeconds":60`))
	require.Equal(t, `200 {"success":false}`, lock("lock", "you", `,"expiryInSeconds":60`))
	require.Equal(t, `200 {"status":2}`, lock("unlock", "you", ""))
	require.Equal(t, `200 {"status":0}`, lock("unlock", "me", ""))
	require.Equal(t, `200 {"status":1}`, lock("unlock", "me", ""))
	require.Equal(t, `200 {"success":true}`, lock("lock", "you", `,"expiryInSeconds":1`))
	require.Eventually(t, func() bool {
		return lock("unlock", "you", "") == `200 {"status":1}` || lock("lock", "me", `,"expiryInSeconds":60`) == `200 {"success":true}`
	}, wait, wait/1000)
}

// With no redeliveries an event goes at its first failure to where it is kept: the topic of dead letters, or those of the bus.
func TestNoRedeliveries(t *testing.T) {
	a := newApp(t, `[{"pubsubname":"bannou-pubsub","topic":"kept","route":"/on/kept","deadLetterTopic":"dead"},
		{"pubsubname":"bannou-pubsub","topic":"dead","route":"/on/dead"},{"pubsubname":"bannou-pubsub","topic":"plain","route":"/on/plain"},
		{"pubsubname":"bannou-pubsub","topic":"nowhere","route":"/nothing/here"}]`)
	s := newFacade(t, nil, a, "--dapr-retry-max-attempts", "0")
	native := *s
	native.url = s.node
	for _, topic := range []string{"kept", "plain", "nowhere"} {
		require.Equal(t, "204", s.call("POST", publish+"bannou-pubsub/"+topic, `{"mark":"to-`+topic+`","status":500,"once":true}`, "Content-Type", asJSON))
	}
	envelope := strings.Join(a.deliveries("/on/dead", "to-kept", 1, wait), "")
	require.Equal(t, `"kept"`, member(envelope, "topic"), "it says where it came from")
	require.Len(t, a.deliveries("/on/kept", "to-kept", 1, wait), 1)
	letters := ""
	require.Eventually(t, func() bool {
		letters = native.call("POST", "/messaging/dead-letters/list", `{}`, "Content-Type", asJSON)
		return strings.Contains(letters, `"plain"`) && strings.Contains(letters, `"nowhere"`)
	}, wait, wait/1000)
	require.Len(t, a.deliveries("/on/plain", "to-plain", 1, wait), 1)
	require.NotContains(t, letters, `"kept"`)
}
