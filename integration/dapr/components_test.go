package dapr_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// redisComponent is a component on the Redis of the test.
func redisComponent(name, kind string, r *servers.RedisServer) string {
	password := strings.TrimSuffix(strings.TrimPrefix(r.URL, "redis://:"), "@"+r.Addr+"/"+strconv.Itoa(r.DB))
	return "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: " + name + "\nspec:\n  type: " + kind + "\n  version: v1\n  metadata:\n" +
		"  - name: redisHost\n    value: " + strconv.Quote(r.Addr) + "\n  - name: redisPassword\n    value: " + strconv.Quote(password) + "\n  - name: redisDB\n    value: " + strconv.Itoa(r.DB) + "\n"
}

const declared = `apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata:
  name: old
spec:
  pubsubname: streams
  topic: declared-once
  route: /on/old
  deadLetterTopic: declared-dead
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata:
  name: new
spec:
  pubsubname: streams
  topic: declared-twice
  routes:
    rules:
    - match: event.type == "big"
      path: /on/big
    default: /on/rest
scopes: [app]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata:
  name: of-others
spec:
  pubsubname: streams
  topic: declared-elsewhere
  routes:
    default: /on/elsewhere
scopes: [another-app]
`

// Events go over Redis to subscriptions that files declare, of either version, and to none that is another app's; a failure is tried again.
func TestDeclaredSubscriptionsOnRedis(t *testing.T) {
	set := servers.All(t)
	a := newApp(t, `[{"pubsubname":"streams","topic":"declared-dead","route":"/on/dead"}]`)
	s := newFacade(t, []string{redisComponent("streams", "pubsub.redis", set.Redis), declared}, a)
	metadata := s.call("GET", "/v1.0/metadata", "")
	require.Contains(t, metadata, `"topic":"declared-twice"`)
	require.NotContains(t, metadata, "declared-elsewhere")

	envelope := s.sent("streams/declared-once", "/on/old", "to-old", asJSON, `{"mark":"to-old","n":9007199254740993,"answer":"RETRY","once":true}`)
	require.Equal(t, `"streams" "declared-once" "app"`, members(envelope, "pubsubname", "topic", "source"))
	require.Len(t, a.deliveries("/on/old", "to-old", 2, wait), 2, "once more after RETRY")
	require.Equal(t, "204", s.call("POST", publish+"streams/declared-once", `{"mark":"to-dead","answer":"DROP","once":true}`, "Content-Type", asJSON))
	require.Len(t, a.deliveries("/on/dead", "to-dead", 1, wait), 1)
	require.Len(t, a.deliveries("/on/old", "to-dead", 1, wait), 1)
	require.Equal(t, `{"mark":"to-rest"}`, member(s.sent("streams/declared-twice", "/on/rest", "to-rest", asJSON, `{"mark":"to-rest"}`), "data"))
	big := s.sent("streams/declared-twice?metadata.cloudevent.type=big", "/on/big", "to-big", asJSON, `{"mark":"to-big"}`)
	require.Equal(t, `{"mark":"to-big"}`, member(big, "data"))
}

// A lock component on Redis excludes the other instances of the app, and a store of another component on that Redis has no such key.
func TestLocksOnRedis(t *testing.T) {
	set := servers.All(t)
	resources := []string{redisComponent("locks", "lock.redis", set.Redis), redisComponent("values", "state.redis", set.Redis)}
	one, two := newFacade(t, resources, newApp(t, "[]")), newFacade(t, resources, newApp(t, "[]"))
	lock := func(s *side, do, owner, more string) string {
		return s.call("POST", "/v1.0-alpha1/"+do+"/locks", `{"resourceId":"door","lockOwner":"`+owner+`"`+more+`}`)
	}
	require.Equal(t, `200 {"success":true}`, lock(one, "lock", "me", `,"expiryInSeconds":60`))
	require.Equal(t, `200 {"success":false}`, lock(two, "lock", "you", `,"expiryInSeconds":60`))
	require.Equal(t, `200 {"status":2}`, lock(two, "unlock", "you", ""))
	require.Equal(t, "204", one.call("GET", stateOf+"values/door", ""))
	require.Equal(t, `200 {"status":0}`, lock(one, "unlock", "me", ""))
	require.Equal(t, `200 {"success":true}`, lock(two, "lock", "you", `,"expiryInSeconds":1`))
	require.Eventually(t, func() bool { return lock(one, "lock", "me", `,"expiryInSeconds":60`) == `200 {"success":true}` }, wait, wait/1000)
	require.Equal(t, `200 {"status":2}`, lock(two, "unlock", "you", ""), "it expired, and is another's")
	require.Equal(t, "400 ERR_MALFORMED_REQUEST", one.code(http.MethodPost, "/v1.0-alpha1/lock/locks", `{"resourceId":"guild||7||door","lockOwner":"me","expiryInSeconds":60}`),
		"its row would be taken for an actor's")
	require.Equal(t, "400 ERR_LOCK_STORE_NOT_FOUND", one.code(http.MethodPost, "/v1.0-alpha1/lock/nowhere", `{}`))
}
