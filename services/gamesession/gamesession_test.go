package gamesession_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/gamesession"
	"github.com/bannou-mesh/bannou/services/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = map[string]any

// node is the service on a host, and what the bus hears of it: topics, each with what is in the event.
type node struct {
	t      *testing.T
	url    string
	client *http.Client
	bus    *bus.Bus

	store *state.Store[object]

	mu    sync.Mutex
	heard []heard
	now   time.Time
}

type heard struct{ topic, id, about string }

func start(t *testing.T) *node {
	n := &node{t: t, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, now: time.Now()}
	driver, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	factory, err := state.NewFactory([]state.StoreConfig{{Name: gamesession.Store, Backend: "sqlite"}}, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	n.store, err = state.Open[object](t.Context(), factory, gamesession.Store)
	require.NoError(t, err)
	n.bus, err = bus.New(memorybus.New(memorybus.Config{}), bus.Config{})
	require.NoError(t, err)
	hear(n, events.TopicGameSessionJoinRequested, func(e *events.GameSessionJoinRequestedEvent) (string, string) { return e.EventID, e.JoinID })
	hear(n, events.TopicGameSessionInvited, func(e *events.GameSessionInvitedEvent) (string, string) { return e.EventID, e.JoinID })
	hear(n, events.TopicGameSessionJoinEnded, func(e *events.GameSessionJoinEndedEvent) (string, string) { return e.EventID, e.JoinID })
	hear(n, events.TopicGameSessionPlayerLeft, func(e *events.GameSessionPlayerLeftEvent) (string, string) { return e.EventID, e.SessionID })
	hear(n, events.TopicPermissionsSessionStateChanged, func(e *events.SessionStateChangeEvent) (string, string) {
		return e.EventID, e.SessionID + " " + e.NewState
	})
	service, err := gamesession.New(gamesession.Config{Factory: factory, Bus: n.bus, Now: func() time.Time {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.now
	}})
	require.NoError(t, err)
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, h.Add(service))
	ctx, cancel := context.WithCancel(context.Background())
	busCtx, endBus := context.WithCancel(context.Background())
	ran, served := make(chan error, 1), make(chan error, 1)
	go func() { ran <- n.bus.Run(busCtx) }()
	<-n.bus.Running()
	go func() { served <- h.Run(ctx) }()
	<-h.Started()
	n.url = "http://" + h.Addr().String()
	t.Cleanup(func() {
		n.client.CloseIdleConnections()
		cancel()
		require.NoError(t, <-served)
		endBus()
		require.NoError(t, <-ran)
		require.NoError(t, factory.Close())
	})
	return n
}

func hear[E any](n *node, topic string, of func(e *E) (id, about string)) {
	require.NoError(n.t, bus.Handle(n.bus, topic, "test", func(_ context.Context, e *E) error {
		id, about := of(e)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.heard = append(n.heard, heard{topic, id, about})
		return nil
	}, bus.SubscriptionOptions{}))
}

// hears waits until something was told, and says under how many ids.
func (n *node) hears(topic, about string) (ids int) {
	n.t.Helper()
	require.Eventually(n.t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		var all []string
		for _, h := range n.heard {
			if h.topic == topic && h.about == about && !slices.Contains(all, h.id) {
				all = append(all, h.id)
			}
		}
		ids = len(all)
		return ids > 0
	}, 20*time.Second, time.Millisecond, "%s %s", topic, about)
	return ids
}

func (n *node) call(path string, body object, headers ...string) (int, object) {
	raw, err := json.Marshal(body)
	require.NoError(n.t, err)
	req, err := http.NewRequest(http.MethodPost, n.url+"/game-session/"+path, bytes.NewReader(raw))
	require.NoError(n.t, err)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := n.client.Do(req)
	require.NoError(n.t, err)
	defer resp.Body.Close()
	raw, err = io.ReadAll(resp.Body)
	require.NoError(n.t, err)
	var answer object
	require.NoError(n.t, json.Unmarshal(raw, &answer), "%s", raw)
	return resp.StatusCode, answer
}

func (n *node) must(path string, body object) object {
	n.t.Helper()
	status, answer := n.call(path, body)
	require.Equal(n.t, http.StatusOK, status, "%s: %v", path, answer)
	return answer
}

func (n *node) refused(status int, path string, body object) {
	n.t.Helper()
	got, answer := n.call(path, body)
	require.Equal(n.t, status, got, "%s: %v", path, answer)
}

func (n *node) table(seats int) string {
	return n.must("create", object{"seats": seats})["gameSessionId"].(string)
}

// seat is what steps of the saga are asked with.
func seat(table, session, join string) object {
	return object{"gameSessionId": table, "sessionId": session, "joinId": join}
}

// Each step may come twice, as the saga asks again where an answer was lost: it is done once, and told under one id.
func TestStepsAreDoneOnce(t *testing.T) {
	n := start(t)
	table := n.table(1)
	for _, step := range []string{"reserve", "invite", "seat"} {
		n.must(step, seat(table, "s-1", "j-1"))
		n.must(step, seat(table, "s-1", "j-1"))
	}
	require.Equal(t, 1, n.hears(events.TopicGameSessionInvited, "j-1"))
	require.Equal(t, 1, n.hears(events.TopicPermissionsSessionStateChanged, "s-1 joined"))
	got := n.must("get", object{"gameSessionId": table})
	require.EqualValues(t, 0, got["free"])
	require.Equal(t, "joined", got["players"].([]any)[0].(object)["status"])

	n.refused(http.StatusConflict, "reserve", seat(table, "s-2", "j-2"))
	n.refused(http.StatusConflict, "reserve", seat(table, "s-1", "j-3"))
	n.refused(http.StatusConflict, "seat", seat(table, "s-2", "j-2"))
	n.must("release", seat(table, "s-2", "j-2")) // of what was never held
	require.EqualValues(t, 0, n.must("get", object{"gameSessionId": table})["free"])
	n.must("release", seat(table, "s-1", "j-1"))
	n.must("release", seat(table, "s-1", "j-1"))
	require.Equal(t, 1, n.hears(events.TopicPermissionsSessionStateChanged, "s-1 "))
	require.Equal(t, 1, n.hears(events.TopicGameSessionJoinEnded, "j-1"))
	require.EqualValues(t, 1, n.must("get", object{"gameSessionId": table})["free"])
}

// However many ask at once, no seat is given twice.
func TestSeatsAreNotOversold(t *testing.T) {
	n := start(t)
	const seats, players = 3, 12
	table := n.table(seats)
	var had sync.Map
	var asking sync.WaitGroup
	for range players {
		asking.Go(func() {
			session, join := uuid.NewString(), uuid.NewString()
			for status := 503; status == 503; { // it lost too many races
				status, _ = n.call("reserve", seat(table, session, join))
				if status == 200 {
					had.Store(session, true)
				}
			}
		})
	}
	asking.Wait()
	n1 := 0
	had.Range(func(any, any) bool { n1++; return true })
	require.Equal(t, seats, n1)
	require.Len(t, n.must("get", object{"gameSessionId": table})["players"], seats)
}

// A step that comes after it was undone holds a seat for a while, and not for ever.
func TestALateStepHoldsNoSeatForEver(t *testing.T) {
	n := start(t)
	table := n.table(1)
	n.must("release", seat(table, "s-1", "j-1"))
	n.must("reserve", seat(table, "s-1", "j-1"))
	n.refused(http.StatusConflict, "reserve", seat(table, "s-2", "j-2"))
	n.mu.Lock()
	n.now = n.now.Add(2 * time.Minute)
	n.mu.Unlock()
	n.refused(http.StatusConflict, "seat", seat(table, "s-1", "j-1"))
	n.must("reserve", seat(table, "s-2", "j-2"))
}

// Who leaves, whose session ends, and whose client does not come back has no seat; whose client may, has.
func TestLeaving(t *testing.T) {
	n := start(t)
	table := n.table(4)
	for _, s := range []string{"s-1", "s-2", "s-3", "s-4"} {
		n.must("reserve", seat(table, s, "j-"+s))
		n.must("seat", seat(table, s, "j-"+s))
	}
	require.Equal(t, object{"left": true}, n.must("leave", object{"gameSessionId": table, "sessionId": "s-1"}))
	require.Equal(t, object{"left": false}, n.must("leave", object{"gameSessionId": table, "sessionId": "s-1"}))
	for _, e := range []struct {
		topic string
		event bus.Event
	}{
		{events.TopicSessionInvalidated, &events.SessionInvalidatedEvent{SessionIDs: []string{"s-2", "nobody"}}},
		{events.TopicSessionDisconnected, &events.SessionDisconnectedEvent{SessionID: "s-3"}},
		{events.TopicSessionDisconnected, &events.SessionDisconnectedEvent{SessionID: "s-4", Reconnectable: true}},
	} {
		_, err := n.bus.Publish(t.Context(), e.topic, e.event)
		require.NoError(t, err)
	}
	for _, s := range []string{"s-1", "s-2", "s-3"} {
		require.Equal(t, 1, n.hears(events.TopicGameSessionPlayerLeft, s))
		require.Equal(t, 1, n.hears(events.TopicPermissionsSessionStateChanged, s+" "))
	}
	var players []any
	require.Eventually(t, func() bool {
		players = n.must("get", object{"gameSessionId": table})["players"].([]any)
		return len(players) == 1
	}, 20*time.Second, time.Millisecond)
	require.Equal(t, "s-4", players[0].(object)["sessionId"])
}

// A session that sits in two game sessions, and leaves one, is in the state "joined" until it leaves the other. Its states are told with the times at
// which it entered them, however late, and how often.
func TestTheStateOfTwoSeats(t *testing.T) {
	n := start(t)
	states := make(chan events.SessionStateChangeEvent, 100)
	sub, err := bus.Subscribe(t.Context(), n.bus, events.TopicPermissionsSessionStateChanged, func(_ context.Context, e *events.SessionStateChangeEvent) error {
		states <- *e
		return nil
	}, bus.SubscriptionOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Close(context.Background())) }()
	next := func() events.SessionStateChangeEvent {
		select {
		case e := <-states:
			return e
		case <-time.After(20 * time.Second):
			require.FailNow(t, "no state is told")
			panic("unreachable")
		}
	}
	began := n.time()
	var tables []string
	for _, join := range []string{"j-1", "j-2"} {
		tables = append(tables, n.table(1))
		n.must("reserve", seat(tables[len(tables)-1], "s-1", join))
		n.must("seat", seat(tables[len(tables)-1], "s-1", join))
		require.Equal(t, "joined", next().NewState)
	}
	n.later(time.Minute)
	n.must("seat", seat(tables[1], "s-1", "j-2"))
	again := next()
	require.Equal(t, "joined", again.NewState)
	require.True(t, began.Equal(again.Timestamp), "it is told again, as it was")
	n.later(-time.Minute) // the clock of another node
	require.Equal(t, object{"left": true}, n.must("leave", object{"gameSessionId": tables[0], "sessionId": "s-1"}))
	require.Equal(t, 1, n.hears(events.TopicGameSessionPlayerLeft, "s-1"))
	require.Equal(t, object{"left": true}, n.must("leave", object{"gameSessionId": tables[1], "sessionId": "s-1"}))
	left := next()
	require.Empty(t, left.NewState)
	require.True(t, left.Timestamp.After(began), "after it was joined, whatever the clock says")
	require.Eventually(t, func() bool { return n.hears(events.TopicGameSessionPlayerLeft, "s-1") == 2 }, 20*time.Second, time.Millisecond)
	require.Empty(t, states, "it is told once")
}

// That a client does not come back may be told late, or once more: what the session has got since is its own.
func TestLeavingThatIsToldLate(t *testing.T) {
	n := start(t)
	table, other, kept := n.table(1), n.table(1), n.table(1)
	sit := func(table, session, join string) {
		n.must("reserve", seat(table, session, join))
		n.must("seat", seat(table, session, join))
	}
	gone := &events.SessionDisconnectedEvent{SessionID: "s-1"}
	sit(table, "s-1", "j-1")
	sit(kept, "s-1", "j-k")
	n.later(time.Second)
	gone.Timestamp = n.time()
	tell := func() { // an event is one value each time
		e := *gone
		_, err := n.bus.Publish(t.Context(), events.TopicSessionDisconnected, &e)
		require.NoError(t, err)
	}
	tell()
	require.Eventually(t, func() bool { return n.seated(table)+n.seated(kept) == 0 }, 20*time.Second, time.Millisecond)
	n.later(time.Second)
	sit(table, "s-1", "j-2")
	n.must("reserve", seat(other, "s-1", "j-3"))
	sit(kept, "s-2", "j-4")
	tell()
	last := &events.SessionDisconnectedEvent{SessionID: "s-2"} // behind the other: it is through when this one is
	last.Timestamp = n.time().Add(time.Hour)                   // by a clock that is ahead
	n.later(time.Second)
	require.Eventually(t, func() bool {
		_, err := n.bus.Publish(t.Context(), events.TopicSessionDisconnected, last)
		return err == nil && n.seated(kept) == 0
	}, 20*time.Second, 10*time.Millisecond)
	require.Len(t, n.players(table), 1)
	require.Len(t, n.players(other), 1)

	_, err := n.bus.Publish(t.Context(), events.TopicSessionInvalidated, &events.SessionInvalidatedEvent{SessionIDs: []string{"s-1"}})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return n.seated(table)+n.seated(other) == 0 }, 20*time.Second, time.Millisecond,
		"it is not forgotten where it sits")
}

// A session that has a seat again, and whose leaving before was not followed to its end, leaves both.
func TestLeavingTwice(t *testing.T) {
	for _, way := range []string{"leaves", "ends"} {
		n := start(t)
		table := n.table(1)
		n.must("reserve", seat(table, "s-1", "j-1"))
		n.must("seat", seat(table, "s-1", "j-1"))
		kept, err := n.store.GetWithETag(t.Context(), table)
		require.NoError(t, err)
		kept.Value["players"].([]any)[0].(object)["status"] = "leaving" // who did it died behind that
		_, err = n.store.TrySaveWith(t.Context(), table, kept.Value, kept.ETag, state.SaveOptions{})
		require.NoError(t, err)
		n.must("reserve", seat(table, "s-1", "j-2"))
		n.must("seat", seat(table, "s-1", "j-2"))
		if way == "leaves" {
			n.must("leave", object{"gameSessionId": table, "sessionId": "s-1"})
		} else {
			_, err := n.bus.Publish(t.Context(), events.TopicSessionInvalidated, &events.SessionInvalidatedEvent{SessionIDs: []string{"s-1"}})
			require.NoError(t, err)
		}
		require.Eventually(t, func() bool { return len(n.must("get", object{"gameSessionId": table})["players"].([]any)) == 0 },
			20*time.Second, 5*time.Millisecond, way)
	}
}

// What comes through the gateway is of the session that the gateway names, whatever the request says.
func TestTheGatewaySaysWhoPlays(t *testing.T) {
	n := start(t)
	table := n.table(2)
	var asked *events.GameSessionJoinRequestedEvent
	sub, err := bus.Subscribe(t.Context(), n.bus, events.TopicGameSessionJoinRequested, func(_ context.Context, e *events.GameSessionJoinRequestedEvent) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		asked = e
		return nil
	}, bus.SubscriptionOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Close(context.Background())) }()
	status, _ := n.call("join", object{"gameSessionId": table, "sessionId": "victim"}, "Bannou-Session-Id", "own", "Bannou-Account-Id", "account")
	require.Equal(t, http.StatusOK, status)
	require.Eventually(t, func() bool { n.mu.Lock(); defer n.mu.Unlock(); return asked != nil }, 20*time.Second, time.Millisecond)
	require.Equal(t, []string{"own", "account"}, []string{asked.SessionID, asked.AccountID})
	n.must("reserve", seat(table, "victim", "j-1"))
	status, answer := n.call("leave", object{"gameSessionId": table, "sessionId": "victim"}, "Bannou-Session-Id", "own")
	require.Equal(t, []any{http.StatusOK, false}, []any{status, answer["left"]})
}

// What no topic can be made of, and a saga that runs nowhere, are told apart from a store and a bus that are away.
func TestWhatIsNotAway(t *testing.T) {
	n := start(t)
	table := n.table(1)
	for _, id := range []string{"Player_A", "a b", "*"} { // no words of a topic
		n.refused(http.StatusBadRequest, "join", object{"gameSessionId": table, "sessionId": id})
		for _, step := range []string{"reserve", "invite", "seat", "release"} {
			n.refused(http.StatusBadRequest, step, seat(table, id, "j"))
		}
	}
	status, nobody := n.call("answer-join", object{"joinId": "j", "accept": true})
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, nobody["detail"], "no node runs the saga")
}

func TestRefusals(t *testing.T) {
	n := start(t)
	n.refused(http.StatusBadRequest, "create", object{"seats": 0})
	n.refused(http.StatusBadRequest, "create", object{"seats": 257})
	n.refused(http.StatusBadRequest, "join", object{"gameSessionId": "x"})
	n.refused(http.StatusBadRequest, "reserve", object{"gameSessionId": "x"})
	n.refused(http.StatusNotFound, "join", object{"gameSessionId": "x", "sessionId": "s"})
	n.refused(http.StatusNotFound, "reserve", seat("x", "s", "j"))
	n.refused(http.StatusNotFound, "get", object{"gameSessionId": "player:s"})
	n.refused(http.StatusBadRequest, "list", object{"limit": 101})
	var all []string
	for range 3 {
		all = append(all, n.table(2))
	}
	page := n.must("list", object{"limit": 2})
	rest := n.must("list", object{"limit": 2, "cursor": page["cursor"]})
	var listed []string
	for _, g := range append(page["gameSessions"].([]any), rest["gameSessions"].([]any)...) {
		listed = append(listed, g.(object)["gameSessionId"].(string))
	}
	require.ElementsMatch(t, all, listed)
	require.NotContains(t, rest, "cursor")
}
