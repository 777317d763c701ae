package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// A suite is a deployment of the services, spoken to by the service's name.
type suite struct {
	// at gives the URL at which a method of a service is called.
	at func(service, method string) string
	// nodes are the base URLs of all nodes.
	nodes []string
	// client is the caller's. Default: http.DefaultClient.
	client *http.Client
	// host is where the nodes reach programs of the test. Default: 127.0.0.1.
	host string
}

func (s suite) call(t *testing.T, method string, body any) (int, object) {
	t.Helper()
	service, _, _ := strings.Cut(method, "/")
	if service == "orchestrator" {
		service = "mesh"
	}
	return s.post(t, s.at(service, method), body)
}

func (s suite) post(t *testing.T, url string, body any) (int, object) {
	t.Helper()
	return postAs(t, s.caller(), url, body)
}

func (s suite) caller() *http.Client {
	if s.client == nil {
		return http.DefaultClient
	}
	return s.client
}

// receiver is a program of a user's that the nodes reach.
func (s suite) receiver(t *testing.T, answer func(n int64) int) (string, <-chan call) {
	t.Helper()
	if s.host == "" {
		return receiver(t, answer)
	}
	return receiverAt(t, s.host, answer)
}

func (s suite) must(t *testing.T, method string, body any) object {
	t.Helper()
	status, answer := s.call(t, method, body)
	require.Equal(t, http.StatusOK, status, "%s %v answered %v", method, body, answer)
	return answer
}

// direct calls every service on one node.
func direct(base string) suite {
	return suite{
		at:    func(_, method string) string { return base + "/" + method },
		nodes: []string{base},
	}
}

// TestStory is one story in every shape: what a user can do must not depend on how the suite is deployed.
func TestStory(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		tell(t, direct(startNode(t, quick()...).url))
	})
	t.Run("one process on real servers", func(t *testing.T) {
		tell(t, direct(startNode(t, append(quick(), realServers(t)...)...).url))
	})
	t.Run("one process on Redis as its broker", func(t *testing.T) {
		tell(t, direct(startNode(t, append(quick(), serversWith(t, "redis")...)...).url))
	})
	t.Run("three processes on the same servers", func(t *testing.T) {
		tell(t, split(t))
	})
	t.Run("external", func(t *testing.T) { tell(t, external(t)) })
}

// quick makes retries fast enough for a test.
func quick() []string { return []string{"--messaging-retry-delay-ms", "200"} }

func realServers(t *testing.T) []string { return serversWith(t, "rabbitmq") }

// serversWith names real servers to a node, and which of them is its broker.
func serversWith(t *testing.T, broker string) []string {
	args := []string{"--messaging-backend", broker, "--state-redis-url", servers.Redis(t).URL, "--state-mysql-dsn", servers.MySQL(t).DSN}
	if broker == "rabbitmq" {
		args = append(args, "--messaging-rabbitmq-urls", servers.RabbitMQ(t).URL)
	}
	return args // Redis is the broker and keeps the stores
}

// eachBroker runs a test with each kind of broker.
func eachBroker(t *testing.T, test func(t *testing.T, broker string)) {
	for _, broker := range []string{"rabbitmq", "redis"} {
		t.Run(broker, func(t *testing.T) { test(t, broker) })
	}
}

// split runs each service in a process of its own, with an app-id of its own, and calls them all through the mesh node.
func split(t *testing.T) suite {
	args := append(quick(), realServers(t)...)
	messaging := startNode(t, append(args, "--services", "messaging", "--app-id", "messaging-node")...)
	state := startNode(t, append(args, "--services", "state", "--app-id", "state-node")...)
	mesh := startNode(t, append(args, "--services", "mesh")...)

	status, answer := post(t, mesh.url+"/orchestrator/service-mappings/set",
		object{"mappings": object{"messaging": "messaging-node", "state": "state-node"}})
	require.Equal(t, http.StatusOK, status, "%v", answer)
	s := throughMesh(mesh.url)
	s.nodes = []string{messaging.url, state.url, mesh.url}
	return s
}

// throughMesh calls every service through a node of the mesh.
func throughMesh(base string) suite {
	return suite{at: func(service, method string) string {
		if service == "mesh" {
			return base + "/" + method
		}
		return base + "/v1.0/invoke/" + service + "/method/" + method
	}}
}

// tell is the story.
func tell(t *testing.T, s suite) {
	t.Run("state", func(t *testing.T) { stateStory(t, s) })
	t.Run("query", func(t *testing.T) { queryStory(t, s) })
	t.Run("messaging", func(t *testing.T) { messagingStory(t, s) })
	t.Run("failing callback", func(t *testing.T) { retryStory(t, s) })
	t.Run("tail", func(t *testing.T) { tailStory(t, s) })
	t.Run("mesh", func(t *testing.T) { meshStory(t, s) })
	t.Run("nodes", func(t *testing.T) { nodeStory(t, s) })
}

func stateStory(t *testing.T, s suite) {
	for _, store := range []string{"accounts", "auth"} {
		key := "ada-" + strconv.FormatInt(time.Now().UnixNano(), 36)
		at := object{"storeName": store, "key": key}

		status, answer := s.call(t, "state/get", at)
		require.Equal(t, http.StatusNotFound, status)
		require.Equal(t, "not_found", answer["code"])

		saved := s.must(t, "state/save", object{"storeName": store, "key": key, "value": json.RawMessage(`{"gold":9007199254740993,"rate":1.10}`)})
		got := s.must(t, "state/get", at)
		require.Equal(t, saved["etag"], got["etag"])
		require.Equal(t, object{"gold": json.Number("9007199254740993"), "rate": json.Number("1.10")}, got["value"], "numbers survive to the digit")

		status, answer = s.call(t, "state/save", object{"storeName": store, "key": key, "value": 1, "options": object{"etag": "no such etag"}})
		require.Equal(t, http.StatusConflict, status)
		require.Equal(t, "conflict", answer["code"])
		status, _ = s.call(t, "state/save", object{"storeName": store, "key": key, "value": 1, "options": object{"etag": ""}})
		require.Equal(t, http.StatusConflict, status, "an empty etag creates only")
		next := s.must(t, "state/save", object{"storeName": store, "key": key, "value": 2, "options": object{"etag": saved["etag"]}})
		require.NotEqual(t, saved["etag"], next["etag"])

		bulk := s.must(t, "state/bulk-get", object{"storeName": store, "keys": []string{key, "absent"}})["items"].([]any)
		require.Equal(t, true, bulk[0].(object)["found"])
		require.Equal(t, false, bulk[1].(object)["found"])

		require.Equal(t, true, s.must(t, "state/delete", at)["deleted"])
		require.Equal(t, false, s.must(t, "state/delete", at)["deleted"])
	}
	stores := s.must(t, "state/list-stores", object{"includeStats": true})["stores"].([]any)
	require.Len(t, stores, 13)
}

func queryStory(t *testing.T, s suite) {
	guild := "guild-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	for i, name := range []string{"ada", "bob", "cyd"} {
		s.must(t, "state/save", object{"storeName": "character", "key": guild + name,
			"value": object{"name": name, "level": i * 10, "guild": guild}})
	}
	page := s.must(t, "state/query", object{"storeName": "character",
		"filter": object{"guild": guild, "level": object{"$gte": 10}},
		"sort":   []any{object{"field": "level", "order": "desc"}}, "pageSize": 1})
	require.Equal(t, json.Number("2"), page["totalCount"])
	require.Equal(t, "cyd", page["results"].([]any)[0].(object)["name"])

	status, answer := s.call(t, "state/query", object{"storeName": "character", "filter": object{"level": object{"$near": 1}}})
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, "unknown_operator", answer["code"])
	require.Contains(t, answer["detail"], "$near")
}

// a call is one request that a receiver got.
type call struct {
	body   object
	header http.Header
	path   string
}

// receiver is a program of a user's that is called back. It answers what answer says.
func receiver(t *testing.T, answer func(n int64) int) (string, <-chan call) {
	t.Helper()
	return receiverAt(t, "127.0.0.1", answer)
}

func receiverAt(t *testing.T, host string, answer func(n int64) int) (string, <-chan call) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	require.NoError(t, err)
	calls := make(chan call, 100)
	var n atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		var body object
		_ = json.Unmarshal(raw, &body)
		w.WriteHeader(answer(n.Add(1)))
		_, _ = w.Write(raw)
		got := call{body, r.Header.Clone(), r.URL.Path}
		select {
		case calls <- got: // also of a caller that is gone: somebody may wait for it
			return
		default:
		}
		select {
		case calls <- got:
		case <-r.Context().Done(): // nobody reads, and the caller is gone: the server can be closed
		}
	}))
	require.NoError(t, server.Listener.Close()) // the one that httptest chose
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return server.URL, calls
}

func next(t *testing.T, calls <-chan call) call {
	t.Helper()
	select {
	case c := <-calls:
		return c
	case <-time.After(patience):
		t.Fatalf("no call came in %s", patience)
		return call{}
	}
}

func ok(int64) int { return http.StatusOK }

func topic(word string) string {
	return "story." + word + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
}

func messagingStory(t *testing.T, s suite) {
	topic := topic("played")
	one, first := s.receiver(t, ok)
	two, second := s.receiver(t, ok)
	a := s.must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": one + "/a"})
	s.must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": two + "/b", "options": object{"durable": true}})
	require.Contains(t, a["queueName"], topic)

	published := s.must(t, "messaging/publish", object{"topic": topic, "payload": json.RawMessage(`{"score":9007199254740993}`)})
	require.Equal(t, true, published["success"])
	for _, calls := range []<-chan call{first, second} {
		got := next(t, calls)
		require.Equal(t, published["messageId"], got.body["eventId"], "the event's own body, unwrapped")
		require.Contains(t, got.body, "timestamp")
		require.Equal(t, topic, got.header.Get("Bannou-Topic"))
		require.Equal(t, published["messageId"], got.header.Get("Bannou-Message-Id"))
		require.Equal(t, "1", got.header.Get("Bannou-Delivery-Attempt"))
	}

	topics := s.must(t, "messaging/list-topics", object{})["topics"].([]any)
	var names []any
	for _, t := range topics {
		names = append(names, t.(object)["name"])
	}
	require.Contains(t, names, topic)

	require.Equal(t, true, s.must(t, "messaging/unsubscribe", object{"subscriptionId": a["subscriptionId"]})["success"])
	status, _ := s.call(t, "messaging/unsubscribe", object{"subscriptionId": a["subscriptionId"]})
	require.Equal(t, http.StatusNotFound, status)
	after := s.must(t, "messaging/publish", object{"topic": topic, "payload": object{"score": 2}})
	for next(t, second).body["eventId"] != after["messageId"] { // what was before it may come twice
	}
	for len(first) > 0 {
		require.Equal(t, published["messageId"], next(t, first).body["eventId"], "an ended subscription is not called")
	}

	status, answer := s.call(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": "http://192.0.2.1/"})
	require.Equal(t, http.StatusForbidden, status)
	require.Equal(t, "callback_not_allowed", answer["code"])
}

func retryStory(t *testing.T, s suite) {
	topic := topic("refused")
	failing, refused := s.receiver(t, func(n int64) int {
		if n <= 3 { // at once twice, then again after the delay
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	healthy, accepted := s.receiver(t, ok)
	s.must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": failing})
	s.must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": healthy})
	s.must(t, "messaging/publish", object{"topic": topic, "payload": object{}})

	next(t, accepted)
	for range 4 {
		next(t, refused)
	}
	for len(accepted) > 0 { // a message may come twice
		require.Equal(t, "1", next(t, accepted).header.Get("Bannou-Delivery-Attempt"), "the neighbour of a failing callback is not called again because of it")
	}

	gone, calls := s.receiver(t, func(int64) int { return http.StatusGone })
	sub := s.must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": gone})
	s.must(t, "messaging/publish", object{"topic": topic, "payload": object{}})
	next(t, calls)
	require.Eventually(t, func() bool {
		status, _ := s.call(t, "messaging/unsubscribe", object{"subscriptionId": sub["subscriptionId"]})
		return status == http.StatusNotFound
	}, patience, 20*time.Millisecond, "410 ends the subscription")
}

func tailStory(t *testing.T, s suite) {
	topic := topic("seen")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.at("messaging", "messaging/tail"), strings.NewReader(`{"topic":"`+topic+`"}`))
	require.NoError(t, err)
	res, err := s.caller().Do(request)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Contains(t, res.Header.Get("Content-Type"), "text/event-stream")

	s.must(t, "messaging/publish", object{"topic": topic, "payload": object{"hello": "tail"}})
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data:"); ok {
			require.Contains(t, data, `"hello":"tail"`)
			return
		}
	}
	t.Fatal("the stream ended before the event came")
}

func meshStory(t *testing.T, s suite) {
	app := "leaderboard-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	base, calls := s.receiver(t, ok)
	address, err := url.Parse(base)
	require.NoError(t, err)
	port, err := strconv.Atoi(address.Port())
	require.NoError(t, err)

	status, answer := s.post(t, s.at("mesh", "v1.0/invoke/"+app+"/method/scores/top"), object{"limit": 3})
	require.Equal(t, http.StatusNotFound, status, "%v", answer)

	s.must(t, "mesh/register", object{"appId": app, "instanceId": app + "-1", "host": address.Hostname(), "port": port, "services": []string{app + "-scores"}})
	endpoints := s.must(t, "mesh/endpoints/get", object{"appId": app})["endpoints"].([]any)
	require.Len(t, endpoints, 1)
	require.Equal(t, "healthy", endpoints[0].(object)["status"])
	require.Equal(t, endpoints, s.must(t, "orchestrator/service-endpoints", object{"appId": app})["endpoints"])

	require.Eventually(t, func() bool { // nodes hear of it by an event
		status, answer = s.post(t, s.at("mesh", "v1.0/invoke/"+app+"/method/scores/top"), object{"limit": 3})
		return status == http.StatusOK
	}, patience, 10*time.Millisecond, "%v", answer)
	require.Equal(t, json.Number("3"), answer["limit"])
	require.Equal(t, "/scores/top", next(t, calls).path)

	require.Equal(t, true, s.must(t, "mesh/deregister", object{"appId": app, "instanceId": app + "-1"})["success"])
	require.Empty(t, s.must(t, "mesh/endpoints/get", object{"appId": app})["endpoints"])
}

func nodeStory(t *testing.T, s suite) {
	for _, base := range s.nodes {
		for path, want := range map[string]string{
			"/healthz": "", "/readyz": "", "/metrics": "go_goroutines", "/openapi.yaml": "openapi: 3",
		} {
			res, err := s.caller().Get(base + path)
			require.NoError(t, err)
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, res.StatusCode, "%s%s: %s", base, path, body)
			require.Contains(t, string(body), want, path)
		}
	}
	list := s.must(t, "mesh/endpoints/list", object{})["endpoints"].([]any)
	require.GreaterOrEqual(t, len(list), len(s.nodes), "every node is a member of the mesh")
}
