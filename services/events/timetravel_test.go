package events_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/services/events"
)

type added struct{ N int }

// sums is the aggregate of the category sum.
func sums(t *testing.T, log *eventstore.Store) map[string]events.Aggregate {
	t.Helper()
	types, err := eventstore.NewTypes(eventstore.TypeOf[added]("added", 1))
	require.NoError(t, err)
	a, err := eventstore.NewAggregate(log, eventstore.AggregateConfig[struct{ Sum int }]{Category: "sum", Types: types, Apply: func(s *struct{ Sum int }, e any) error {
		s.Sum += e.(added).N
		return nil
	}})
	require.NoError(t, err)
	return map[string]events.Aggregate{"sum": a}
}

// A stream is shown as it was: its state where the node has an aggregate, and otherwise how far it was.
func TestAtAndDiff(t *testing.T) {
	log := memoryevents.New(eventstore.Config{})
	n := start(t, events.Config{Log: log, Aggregates: sums(t, log)})
	for range 3 {
		n.must("/events/append", `{"streams":[{"category":"sum","id":"a","events":[{"type":"added","data":{"N":2}}]},{"category":"plain","id":"a","events":[{"type":"x","data":1}]}]}`)
	}
	at := n.must("/events/at", `{"category":"sum","id":"a","at":{"version":2}}`)
	require.EqualValues(t, 2, at["version"])
	require.Equal(t, object{"Sum": 4.0}, at["state"])
	require.EqualValues(t, 2, at["last"].(object)["version"])
	at = n.must("/events/at", `{"category":"sum","id":"a"}`)
	require.Equal(t, object{"Sum": 6.0}, at["state"])
	at = n.must("/events/at", `{"category":"plain","id":"a","at":{"time":"`+time.Now().Add(time.Hour).Format(time.RFC3339)+`"}}`)
	require.EqualValues(t, 3, at["version"])
	require.NotContains(t, at, "state")
	require.Equal(t, object{"version": 0.0}, n.must("/events/at", `{"category":"plain","id":"a","at":{"time":"2000-01-01T00:00:00Z"}}`))

	diff := n.must("/events/diff", `{"category":"sum","id":"a","from":{"version":0},"to":{"version":2}}`)
	require.Len(t, diff["events"], 2)
	require.Equal(t, []any{object{"path": "/Sum", "before": 0.0, "after": 4.0}}, diff["changes"])
	require.NotContains(t, diff, "next")
	diff = n.must("/events/diff", `{"category":"plain","id":"a","from":{"version":1},"limit":1}`)
	require.Equal(t, []any{1.0, 3.0, 3.0}, []any{diff["from"], diff["to"], diff["next"]})
	require.Len(t, diff["events"], 1)
	require.NotContains(t, diff, "changes")
	require.Empty(t, n.must("/events/diff", `{"category":"plain","id":"a","from":{"version":3}}`)["events"])

	for path, body := range map[string]string{
		"at":   `{"category":"sum","id":"a","at":{"version":4}}`,
		"diff": `{"category":"sum","id":"a","from":{"version":2},"to":{"version":1}}`,
	} {
		n.refused("/events/"+path, body, 400, "invalid_member")
	}
	no := n.refused("/events/at", `{"category":"sum","id":"none","at":{"version":1}}`, 400, "invalid_member")
	require.Contains(t, no["detail"], "there is no stream sum/none")
	n.refused("/events/at", `{"category":"sum","id":"a","at":{"version":1,"time":"2000-01-01T00:00:00Z"}}`, 400, "invalid_member")
}

// What is personal is null after an erasure, and listed.
func TestErase(t *testing.T) {
	n := start(t, events.Config{})
	n.must("/events/append", `{"streams":[{"category":"account","id":"a","events":[
		{"type":"x","data":{"name":"Ada","n":1},"personal":{"members":["/name"],"subject":"ada"}},{"type":"x","data":{"name":"Bob"},"personal":{"members":["/name"]}}]}]}`)
	n.must("/events/snapshot", `{"category":"account","id":"a","version":1,"data":{"name":"Ada"},"subject":"ada"}`)
	read := func() []any { return n.must("/events/read", `{}`)["events"].([]any) }
	require.Equal(t, object{"name": "Ada", "n": 1.0}, read()[0].(object)["data"])
	require.Equal(t, object{"erased": true}, n.must("/events/erase", `{"subject":"ada"}`))
	require.Equal(t, object{"erased": false}, n.must("/events/erase", `{"subject":"ada"}`))
	first, second := read()[0].(object), read()[1].(object)
	require.Equal(t, object{"name": nil, "n": 1.0}, first["data"])
	require.Equal(t, []any{"/name"}, first["erased"])
	require.Equal(t, object{"name": "Bob"}, second["data"])
	require.NotContains(t, second, "erased")
	require.Empty(t, n.must("/events/snapshot", `{"category":"account","id":"a"}`))
	require.Equal(t, object{"erased": true}, n.must("/events/erase", `{"subject":"account/a"}`))

	n.refused("/events/append", `{"streams":[{"category":"a","id":"a","events":[{"type":"x","data":1,"personal":{"subject":"ada"}}]}]}`, 400, "missing_member")
	n.refused("/events/append", `{"streams":[{"category":"a","id":"a","events":[{"type":"x","data":1,"personal":{"members":["name"]}}]}]}`, 400, "invalid_member")
	n.refused("/events/erase", `{}`, 400, "missing_member")
	n.refused("/events/rewrap", `{}`, 400, "unsupported")

	guarded := start(t, events.Config{Access: reserved(t)})
	guarded.refused("/events/erase", `{"subject":"ada"}`, 401, "unauthorized")
	guarded.as(auditToken).refused("/events/erase", `{"subject":"ada"}`, 403, "forbidden")
	guarded.as(auditToken).refused("/events/rewrap", `{}`, 403, "forbidden")
	guarded.as(bankToken).must("/events/erase", `{"subject":"ada"}`)
}

// A closed stream takes no more events, and is read as before when it is archived.
func TestCloseAndArchive(t *testing.T) {
	n := start(t, events.Config{})
	const one = `{"streams":[{"category":"account","id":"a","events":[{"type":"x","data":{"n":1}}]}]}`
	n.must("/events/append", one)
	n.refused("/events/archive", `{"category":"account","id":"a"}`, 409, "conflict")
	n.refused("/events/close", `{"category":"account","id":"a","expected":2}`, 409, "conflict")
	n.refused("/events/close", `{"category":"account","id":"none"}`, 404, "not_found")
	require.EqualValues(t, 2, n.must("/events/close", `{"category":"account","id":"a","expected":1}`)["version"])
	p := n.refused("/events/append", one, 409, "conflict")
	require.Contains(t, p["detail"], "closed")
	before := n.must("/events/read", `{}`)
	require.Equal(t, object{"moved": 1.0}, n.must("/events/archive", `{"category":"account","id":"a"}`))
	require.Equal(t, before, n.must("/events/read", `{}`))
	n.refused("/events/append", `{"streams":[{"category":"account","id":"b","events":[{"type":"$closed","data":1}]}]}`, 400, "invalid_member")
}

// A stream that a subscription has set aside is shown with the reason, and handled when it is released.
func TestParked(t *testing.T) {
	log := memoryevents.New(eventstore.Config{})
	n := start(t, events.Config{Log: log})
	stream := eventstore.StreamID{Category: "account", ID: "a"}
	_, err := log.Append(t.Context(), stream, eventstore.NoStream, eventstore.Event{Type: "x", Data: jsontext.Value("1")}, eventstore.Event{Type: "x", Data: jsontext.Value("2")})
	require.NoError(t, err)
	handled := make(chan int64, 10)
	sub, err := log.Subscribe(eventstore.SubscriptionConfig{Name: "sub", Attempts: 1, Poll: 10 * time.Millisecond, Handle: func(_ context.Context, e eventstore.Recorded) error {
		if e.Version == 1 {
			return errors.New("no such account")
		}
		handled <- e.Version
		return nil
	}})
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Close(context.Background())) }()
	var parked []any
	n.becomes("/events/parked", `{"subscription":"sub"}`, func(answer object) bool {
		parked, _ = answer["streams"].([]any)
		return len(parked) == 1
	})
	p := parked[0].(object)
	require.Equal(t, []any{"account", "a", 1.0, "no such account", false}, []any{p["category"], p["id"], p["version"], p["failure"], p["released"]})
	n.must("/events/release", `{"subscription":"sub","category":"account","id":"a","skip":true}`)
	require.EqualValues(t, 2, <-handled)
	n.becomes("/events/parked", `{"subscription":"sub"}`, func(answer object) bool {
		left, told := answer["streams"].([]any)
		return told && len(left) == 0
	})
	n.refused("/events/release", `{"subscription":"sub","category":"account","id":"a"}`, 404, "not_found")
}

// A stream whose reason has bytes that are no letters, as one that was set aside by an earlier version may, is shown like the others.
func TestParkedForBytes(t *testing.T) {
	log := memoryevents.New(eventstore.Config{})
	n := start(t, events.Config{Log: log})
	lease, claimed, err := log.Engine().Claim(t.Context(), eventstore.Claim{Name: "sub", Parts: 1, Consumer: "before", Lives: time.Minute})
	require.NoError(t, err)
	require.True(t, claimed)
	for id, failure := range map[string]string{"a": "no such account", "b": "cut within \xe2\x80"} {
		stream := eventstore.StreamID{Category: "account", ID: id}
		e := eventstore.Event{ID: uuid.NewString(), Type: "x", Data: jsontext.Value("1")}
		_, err := log.Append(t.Context(), stream, eventstore.NoStream, e)
		require.NoError(t, err)
		require.NoError(t, log.Engine().Park(t.Context(), lease, eventstore.Parked{Stream: stream, Version: 1, EventID: e.ID, Failure: failure}))
	}
	failures := map[any]any{}
	for _, p := range n.must("/events/parked", `{"subscription":"sub"}`)["streams"].([]any) {
		failures[p.(object)["id"]] = p.(object)["failure"]
	}
	require.Equal(t, map[any]any{"a": "no such account", "b": "cut within \uFFFD"}, failures)
}
