package events_test

import (
	"fmt"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/services/events"
	"github.com/bannou-mesh/bannou/services/guard"
)

// What is read is what was appended: to several streams in one step, with versions that are expected.
func TestAppendAndRead(t *testing.T) {
	n := start(t, events.Config{})
	id := uuid.NewString()
	answer := n.must("/events/append", `{"streams":[
		{"category":"account","id":"a","expected":"none","events":[
			{"id":"`+id+`","type":"opened","schema":2,"data": {"n": 1.10, "big": 9007199254740993},"metadata":{"actor":"ada","correlationId":"r"}},
			{"type":"moved","data":1}]},
		{"category":"transfer","id":"x","events":[{"type":"made","data":null}]}]}`)
	require.Equal(t, []any{
		object{"category": "account", "id": "a", "version": 2.0, "position": 2.0, "repeated": false},
		object{"category": "transfer", "id": "x", "version": 1.0, "position": 3.0, "repeated": false},
	}, answer["streams"])

	_, text, page := n.post("/events/read", `{"category":"account","id":"a"}`)
	require.Contains(t, text, `{"n":1.10,"big":9007199254740993}`)
	require.NotContains(t, page, "next")
	first := page["events"].([]any)[0].(object)
	require.NotEmpty(t, first["recordedAt"])
	delete(first, "recordedAt")
	delete(first, "data")
	require.Equal(t, object{"position": 1.0, "category": "account", "stream": "a", "version": 1.0, "id": id, "type": "opened", "schema": 2.0,
		"metadata": object{"actor": "ada", "correlationId": "r"}}, first)

	for body, want := range map[string]string{
		`{}`:                                        "1 2 3",
		`{"limit":2}`:                               "1 2 next 3",
		`{"limit":2,"from":3}`:                      "3",
		`{"backward":true,"limit":1}`:               "3 next 2",
		`{"backward":true,"limit":1,"from":1}`:      "1",
		`{"category":"account"}`:                    "1 2",
		`{"category":"transfer"}`:                   "3",
		`{"category":"transfer","id":"x"}`:          "3",
		`{"category":"account","id":"a","from":2}`:  "2",
		`{"category":"account","id":"a","limit":1}`: "1 next 2",
		`{"category":"none"}`:                       "",
	} {
		require.Equal(t, want, positions(n.must("/events/read", body)), body)
	}

	// Again, with the same ids: it was done. Not with that id elsewhere, and not beside new ones.
	again := n.must("/events/append", `{"streams":[{"category":"account","id":"a","expected":"none","events":[{"id":"`+id+`","type":"opened","data":1}]}]}`)
	require.Equal(t, true, again["streams"].([]any)[0].(object)["repeated"])
	taken := n.refused("/events/append", `{"streams":[{"category":"account","id":"b","events":[{"id":"`+id+`","type":"opened","data":1}]}]}`, 409, "conflict")
	require.Contains(t, taken["detail"], id)
}

// A conflict names the stream and both versions.
func TestConflict(t *testing.T) {
	n := start(t, events.Config{})
	const one = `{"streams":[{"category":"account","id":"a","expected":%s,"events":[{"type":"x","data":1}]}]}`
	n.must("/events/append", fmt.Sprintf(one, "0"))
	n.must("/events/append", fmt.Sprintf(one, "1"))
	n.must("/events/append", fmt.Sprintf(one, `"any"`))
	for expected, version := range map[string]int{`"none"`: 0, "0": 0, "2": 2, "4": 4} {
		p := n.refused("/events/append", fmt.Sprintf(one, expected), 409, "conflict")
		require.Equal(t, "account/a", p["stream"])
		require.EqualValues(t, version, p["expectedVersion"])
		require.EqualValues(t, 3, p["actualVersion"])
	}
}

// What is wrong with a request is answered with the member at fault, and changes nothing.
func TestRefusals(t *testing.T) {
	n := start(t, events.Config{})
	const event = `"events":[{"type":"x","data":1}]`
	for _, c := range []struct{ path, body, code, member string }{
		{"append", `{}`, "missing_member", "streams"},
		{"append", `{"streams":[{"id":"a",` + event + `}]}`, "missing_member", "streams[0].category"},
		{"append", `{"streams":[{"category":"a",` + event + `}]}`, "missing_member", "streams[0].id"},
		{"append", `{"streams":[{"category":"a","id":"a"}]}`, "missing_member", "streams[0].events"},
		{"append", `{"streams":[{"category":"a","id":"a","events":[{"data":1}]}]}`, "missing_member", "streams[0].events[0].type"},
		{"append", `{"streams":[{"category":"a","id":"a","events":[{"type":"x"}]}]}`, "missing_member", "streams[0].events[0].data"},
		{"append", `{"streams":[{"category":"a","id":"a","expected":"some",` + event + `}]}`, "invalid_member", "streams[0].expected"},
		{"append", `{"streams":[{"category":"a","id":"a","expected":-1,` + event + `}]}`, "invalid_member", "streams[0].expected"},
		{"append", `{"streams":[{"category":"a","id":"a","expected":1.5,` + event + `}]}`, "invalid_member", "streams[0].expected"},
		{"append", `{"streams":[{"category":"A","id":"a",` + event + `}]}`, "invalid_member", ""},
		{"append", `{"streams":[{"category":"a","id":"a","events":[{"id":"no uuid","type":"x","data":1}]}]}`, "invalid_member", ""},
		{"read", `{"id":"a"}`, "missing_member", "category"},
		{"read", `{"limit":0}`, "invalid_member", "limit"},
		{"read", `{"limit":1001}`, "invalid_member", "limit"},
		{"read", `{"from":-1}`, "invalid_member", "from"},
		{"read", `{"category":"A b"}`, "invalid_member", ""},
		{"streams", `{}`, "missing_member", "category"},
		{"snapshot", `{"category":"a"}`, "missing_member", "id"},
		{"snapshot", `{"category":"a","id":"a","data":1}`, "invalid_member", "version"},
		{"snapshot", `{"category":"a","id":"a","data":1,"version":1}`, "invalid_member", ""},
		{"subscribe", `{"id":"a"}`, "missing_member", "category"},
		{"subscribe", `{"from":-1}`, "invalid_member", "from"},
	} {
		p := n.refused("/events/"+c.path, c.body, 400, c.code)
		if c.member != "" {
			require.Equal(t, c.member, p["member"], c.body)
		}
	}
	require.Empty(t, positions(n.must("/events/read", `{}`)))
}

func TestStreams(t *testing.T) {
	n := start(t, events.Config{})
	for i, id := range []string{"b", "a", "c", "a"} {
		n.must("/events/append", fmt.Sprintf(`{"streams":[{"category":"account","id":%q,"events":[{"type":"x","data":%d}]}]}`, id, i))
	}
	page := n.must("/events/streams", `{"category":"account","limit":2}`)
	require.Equal(t, object{"streams": []any{object{"id": "a", "version": 2.0}, object{"id": "b", "version": 1.0}}, "next": "b"}, page)
	page = n.must("/events/streams", `{"category":"account","limit":2,"after":"b"}`)
	require.Equal(t, object{"streams": []any{object{"id": "c", "version": 1.0}}}, page)
}

func TestSnapshot(t *testing.T) {
	n := start(t, events.Config{})
	n.must("/events/append", `{"streams":[{"category":"account","id":"a","events":[{"type":"x","data":1},{"type":"x","data":2}]}]}`)
	require.Empty(t, n.must("/events/snapshot", `{"category":"account","id":"a"}`))
	n.must("/events/snapshot", `{"category":"account","id":"a","version":2,"data":{"sum":3}}`)
	n.must("/events/snapshot", `{"category":"account","id":"a","version":1,"data":{"sum":1}}`)
	require.Equal(t, object{"version": 2.0, "data": object{"sum": 3.0}}, n.must("/events/snapshot", `{"category":"account","id":"a"}`))
	require.Empty(t, n.must("/events/snapshot", `{"category":"account","id":"a","schema":2}`))
}

const (
	bankToken  = "bank-token-0123456789"
	auditToken = "audit-token-0123456789"
)

// account is for bank, and audit may read it; transfer is for bank alone; others are everyone's.
func reserved(t *testing.T) *guard.Access {
	t.Helper()
	tokens, err := guard.NewTokens(map[string][]string{"bank": {bankToken}, "audit": {auditToken}})
	require.NoError(t, err)
	access, err := guard.NewAccess(tokens, "category", map[string]guard.AccessRule{
		"account":  {Read: []string{"bank", "audit"}, Write: []string{"bank"}},
		"transfer": {Read: []string{"bank"}, Write: []string{"bank"}},
	})
	require.NoError(t, err)
	return access
}

// Every endpoint asks for the token of an app that may, and says no without a word of the token.
func TestCategoriesAreReservedForApps(t *testing.T) {
	n := start(t, events.Config{Access: reserved(t)})
	const write = `{"streams":[{"category":"open","id":"a","events":[{"type":"x","data":1}]},{"category":"account","id":"a","events":[{"type":"x","data":1}]}]}`
	n.refused("/events/append", write, 401, "unauthorized")
	n.as("a-token-of-nobody").refused("/events/append", write, 401, "unauthorized")
	p := n.as(auditToken).refused("/events/append", write, 403, "forbidden")
	require.NotContains(t, p["detail"], auditToken)
	n.as(bankToken).must("/events/append", write)
	n.must("/events/append", `{"streams":[{"category":"open","id":"a","events":[{"type":"x","data":1}]}]}`)

	for path, body := range map[string]string{
		"read": `{"category":"account"}`, "streams": `{"category":"account"}`, "snapshot": `{"category":"account","id":"a"}`,
	} {
		n.refused("/events/"+path, body, 401, "unauthorized")
		n.as(auditToken).must("/events/"+path, body)
	}
	n.refused("/events/subscribe", `{"category":"account"}`, 401, "unauthorized")
	n.as(auditToken).refused("/events/snapshot", `{"category":"account","id":"a","version":1,"data":1}`, 403, "forbidden")

	// The whole log is for who may read all of it.
	n.refused("/events/read", `{}`, 401, "unauthorized")
	n.as(auditToken).refused("/events/read", `{}`, 403, "forbidden")
	n.as(auditToken).refused("/events/subscribe", `{}`, 403, "forbidden")
	require.Equal(t, "1 2 3", positions(n.as(bankToken).must("/events/read", `{}`)))
	require.Equal(t, "1 3", positions(n.must("/events/read", `{"category":"open"}`)))
}

// positions are those of a page, and what the next one begins with.
func positions(page object) string {
	text := ""
	for _, e := range page["events"].([]any) {
		text += fmt.Sprint(e.(object)["position"]) + " "
	}
	if next, more := page["next"]; more {
		text += fmt.Sprint("next ", next, " ")
	}
	if text == "" {
		return ""
	}
	return text[:len(text)-1]
}

// What a service of the node keeps in the log can be read, and is changed by that service alone.
func TestInternalCategories(t *testing.T) {
	log := memoryevents.New(eventstore.Config{})
	n := start(t, events.Config{Log: log, Internal: []string{"kept."}})
	_, err := log.Append(t.Context(), eventstore.StreamID{Category: "kept.b", ID: "a"}, eventstore.NoStream,
		eventstore.Event{Type: "x", Data: jsontext.Value(`{"name":"Ada"}`), Personal: eventstore.Personal{Subject: "kept.b/a", Members: []jsontext.Pointer{"/name"}}})
	require.NoError(t, err)
	_, before, _ := n.post("/events/read", `{"category":"kept.b"}`)
	require.Contains(t, before, "Ada")
	for path, body := range map[string]string{
		"append":   `{"streams":[{"category":"open","id":"a","events":[{"type":"x","data":1}]},{"category":"kept.b","id":"a","events":[{"type":"x","data":1}]}]}`,
		"close":    `{"category":"kept.b","id":"a"}`,
		"archive":  `{"category":"kept.b","id":"a"}`,
		"snapshot": `{"category":"kept.b","id":"a","version":1,"data":1}`,
		"erase":    `{"subject":"kept.b/a"}`,
	} {
		n.refused("/events/"+path, body, 403, "forbidden")
	}
	_, after, _ := n.post("/events/read", `{"category":"kept.b"}`)
	require.Equal(t, before, after)
	n.must("/events/append", `{"streams":[{"category":"kept","id":"a","events":[{"type":"x","data":1}]}]}`)
}
