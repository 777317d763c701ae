package events_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bannou-mesh/bannou/events"
)

// The contract: what other programs rely on. A line here changes only when the wire does. After each topic stands the
// event, then its required members, then, behind a bar, the optional ones.
var contract = map[string]string{
	"bannou-service-registration":       "ServiceRegistrationEvent instanceId appId host port services maxConnections",
	"bannou-service-heartbeats":         "ServiceHeartbeatEvent appId instanceId status services loadPercent currentConnections maxConnections host port | externalHost",
	"bannou-full-service-mappings":      "FullServiceMappingsEvent mappings defaultAppId version sourceInstanceId",
	"mesh.endpoint.registered":          "MeshEndpointRegisteredEvent appId instanceId host port status loadPercent maxConnections currentConnections lastSeen registeredAt services | externalHost zone",
	"mesh.endpoint.deregistered":        "MeshEndpointDeregisteredEvent appId instanceId reason",
	"mesh.endpoint.degraded":            "MeshEndpointDegradedEvent appId instanceId host port status loadPercent maxConnections currentConnections lastSeen registeredAt services reason | externalHost zone",
	"mesh.circuit.changed":              "MeshCircuitChangedEvent appId instanceId previousState state sourceInstanceId | reason",
	"messaging.message.published":       "MessagePublishedEvent topic messageId | sourceService payloadSizeBytes",
	"messaging.subscription.created":    "SubscriptionCreatedEvent subscriptionId topic | subscriberAppId",
	"messaging.subscription.removed":    "SubscriptionRemovedEvent subscriptionId reason",
	"messaging.dead-letters.replayed":   "DeadLettersReplayedEvent actor appId matched count failed ids | filter",
	"messaging.dead-letters.discarded":  "DeadLettersDiscardedEvent actor appId matched count failed ids | filter",
	"state.changed":                     "StateChangedEvent storeName key operation | etag sourceService",
	"state.migration":                   "StoreMigrationEvent storeName status | keysProcessed totalKeys errorMessage",
	"events.appended":                   "EventsAppendedEvent log position sourceInstanceId",
	"account.created":                   "AccountCreatedEvent accountId | email displayName roles expectsCredentials",
	"account.updated":                   "AccountUpdatedEvent accountId changedFields | email displayName roles",
	"account.deleted":                   "AccountDeletedEvent accountId | reason",
	"account.registered":                "AccountRegisteredEvent accountId",
	"account.erased":                    "AccountErasedEvent accountId",
	"game-session.join-requested":       "GameSessionJoinRequestedEvent joinId gameSessionId sessionId | accountId",
	"game-session.join-answered":        "GameSessionJoinAnsweredEvent joinId accepted",
	"game-session.invited":              "GameSessionInvitedEvent joinId gameSessionId sessionId answerBefore",
	"game-session.join-ended":           "GameSessionJoinEndedEvent joinId gameSessionId sessionId",
	"game-session.player-joined":        "GameSessionPlayerJoinedEvent joinId gameSessionId sessionId | accountId",
	"game-session.player-left":          "GameSessionPlayerLeftEvent gameSessionId sessionId | accountId",
	"session.connected":                 "SessionConnectedEvent sessionId accountId instanceId | roles authorizations",
	"session.disconnected":              "SessionDisconnectedEvent sessionId accountId instanceId reason reconnectable",
	"session.reconnected":               "SessionReconnectedEvent sessionId accountId instanceId | previousInstanceId",
	"session.overflowed":                "SessionOverflowedEvent sessionId accountId",
	"session.updated":                   "SessionUpdatedEvent sessionId accountId roles reason | authorizations version",
	"session.invalidated":               "SessionInvalidatedEvent accountId sessionIds reason disconnectClients",
	"password.reset-requested":          "PasswordResetRequestedEvent accountId email token expiresAt",
	"permissions.service-registered":    "PermissionsServiceRegisteredEvent serviceName appId version endpoints",
	"permissions.session-state-changed": "SessionStateChangeEvent sessionId serviceName newState | previousState",
	"permissions.session-capabilities":  "SessionCapabilitiesEvent sessionId version capabilities",
	"permissions.capabilities-changed":  "CapabilitiesChangedEvent sessions capabilities",
	"service.error":                     "ServiceErrorEvent serviceName appId instanceId kind operation code message occurrences firstSeenAt lastSeenAt | topic messageId correlationId traceId",
}

func TestEveryTopicOfTheContractAndNoOther(t *testing.T) {
	topics := events.Topics()
	if !slices.IsSorted(topics) {
		t.Errorf("Topics are not sorted: %q", topics)
	}
	for topic := range contract {
		if !slices.Contains(topics, topic) {
			t.Errorf("topic %s of the contract is not among Topics", topic)
		}
	}
	for _, topic := range topics {
		if contract[topic] == "" {
			t.Errorf("topic %s is not in the contract: add it to this test", topic)
		}
	}
}

func TestEventsHaveTheMembersOfTheContract(t *testing.T) {
	for topic, line := range contract {
		required, optional, _ := strings.Cut(line, " | ")
		want := strings.Fields(required)
		e, ok := events.New(topic)
		if !ok {
			t.Errorf("New does not know %s", topic)
			continue
		}
		if e.EventName() != want[0] || events.TypeName(topic) != want[0] {
			t.Errorf("%s carries %s, and %s by TypeName; want %s", topic, e.EventName(), events.TypeName(topic), want[0])
		}
		// An empty event has the members that are always written, a full one has all.
		always := append([]string{"eventId", "timestamp"}, want[1:]...)
		sameMembers(t, topic+", empty", encode(t, e), always)
		fill(reflect.ValueOf(e))
		sameMembers(t, topic+", full", encode(t, e), append(always, strings.Fields(optional)...))
	}
}

// Who appends such an event to a log relies on these members being encrypted there, and erased with the subject. A line may get more members; none is taken
// away: what was appended since would outlive the erasure.
var personal = map[string]string{
	"account.created":          "subject accountId | email displayName",
	"account.updated":          "subject accountId | email displayName",
	"account.deleted":          "subject accountId | reason",
	"password.reset-requested": "subject accountId | email",
}

func TestMembersAboutPersons(t *testing.T) {
	for _, topic := range events.Topics() {
		e, _ := events.New(topic)
		got, marked := "", ""
		for _, f := range reflect.VisibleFields(reflect.TypeOf(e).Elem()) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch f.Tag.Get("personal") {
			case "subject":
				got += "subject " + name + " |"
			case "data":
				marked += " " + name
			}
		}
		if got += marked; got != personal[topic] {
			t.Errorf("%s has as members about persons %q, want %q", topic, got, personal[topic])
		}
	}
}

func TestEventsSurviveTheWire(t *testing.T) {
	for _, topic := range events.Topics() {
		sent, _ := events.New(topic)
		fill(reflect.ValueOf(sent))
		received, _ := events.New(topic)
		if err := json.Unmarshal(encode(t, sent), received); err != nil {
			t.Errorf("%s: %v", topic, err)
		} else if !reflect.DeepEqual(sent, received) {
			t.Errorf("%s: sent %+v, received %+v", topic, sent, received)
		}
	}
}

func TestNewReturnsAnEventOfItsOwn(t *testing.T) {
	a, _ := events.New(events.TopicAccountDeleted)
	b, _ := events.New(events.TopicAccountDeleted)
	a.Stamp("a", noon)
	if id, _ := b.Stamp("b", noon); id != "b" {
		t.Error("two events from New are the same")
	}
}

func TestUnknownTopic(t *testing.T) {
	for _, topic := range []string{"", "account", "account.Created", "bannou.account.created"} {
		if e, ok := events.New(topic); ok || e != nil || events.TypeName(topic) != "" {
			t.Errorf("%q is taken for a topic: %v, %q", topic, e, events.TypeName(topic))
		}
	}
}

func TestSubscriptions(t *testing.T) {
	want := map[string][]string{
		"mesh":        {"bannou-service-registration", "bannou-service-heartbeats", "bannou-full-service-mappings", "mesh.endpoint.registered", "mesh.endpoint.deregistered", "mesh.endpoint.degraded"},
		"auth":        {"account.updated", "account.deleted"},
		"connect":     {"session.invalidated", "permissions.session-capabilities", "permissions.capabilities-changed"},
		"permissions": {"permissions.service-registered", "permissions.session-state-changed", "session.connected", "session.updated", "session.reconnected", "session.disconnected", "session.invalidated"},
		"messaging":   {"messaging.subscription.removed"},
		"state":       nil,
		"unheard-of":  nil,
	}
	handlers := map[string]bool{}
	for service, topics := range want {
		var got []string
		for _, s := range events.Subscriptions(service) {
			got = append(got, s.Topic)
			if s.Event != events.TypeName(s.Topic) {
				t.Errorf("%s expects %s on %s, which carries %s", service, s.Event, s.Topic, events.TypeName(s.Topic))
			}
			if handlers[s.Handler] || !strings.HasPrefix(s.Handler, service+".") {
				t.Errorf("handler %s of %s could share its queue with another service", s.Handler, service)
			}
			handlers[s.Handler] = true
		}
		if !slices.Equal(got, topics) {
			t.Errorf("%s listens to %q, want %q", service, got, topics)
		}
	}
}

func encode(t *testing.T, e events.Event) []byte {
	t.Helper()
	body, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func sameMembers(t *testing.T, what string, body []byte, want []string) {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		t.Fatal(err)
	}
	for _, name := range want {
		if _, ok := members[name]; !ok {
			t.Errorf("%s: %s has no member %s", what, body, name)
		}
		delete(members, name)
	}
	for name := range members {
		t.Errorf("%s: %s has the member %s, which is not in the contract", what, body, name)
	}
}

// fill gives every field of an event a value other than its zero, numbers that a float64 could not hold included.
func fill(v reflect.Value) {
	switch {
	case v.Kind() == reflect.Pointer:
		fill(v.Elem())
	case v.Type() == reflect.TypeOf(noon):
		v.Set(reflect.ValueOf(noon))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case v.Kind() == reflect.Map:
		value := reflect.New(v.Type().Elem()).Elem()
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key"), value)
	case v.Kind() == reflect.String:
		v.SetString("text \u2028 \"<é>\"")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(1<<53 + 1)
	case v.CanFloat():
		v.SetFloat(0.1)
	default:
		panic("fill does not know " + v.Type().String())
	}
}
