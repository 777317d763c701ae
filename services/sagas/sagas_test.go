package sagas_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/sagas"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/host/hosttest"
	sagassvc "github.com/bannou-mesh/bannou/services/sagas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type joined struct {
	events.Base
	Player string `json:"player"`
}

func (*joined) EventName() string { return "Joined" }

type seat struct{ Player string }

// join asks for a seat, and waits for it.
func join(t *testing.T) *sagas.Saga {
	on := func(topic string) sagas.Topic[joined] {
		return sagas.Correlated(topic, func(e *joined) string { return e.Player })
	}
	says := func(s *seat) bus.Event { return &joined{Player: s.Player} }
	saga, err := sagas.Definition[seat]{
		Name:  "join",
		Start: []sagas.On[seat]{sagas.When(on("join.asked"), "seating", func(s *seat, e *joined) error { s.Player = e.Player; return nil })},
		States: []sagas.State[seat]{
			{Name: "seating", Do: sagas.Publish("seat.take", says), Undo: sagas.Publish("seat.leave", says), On: []sagas.On[seat]{
				sagas.When[seat](on("seat.taken"), "seated", nil), sagas.After[seat](time.Hour, sagas.Compensating, nil),
			}},
			{Name: "seated", End: true},
		},
	}.Build()
	require.NoError(t, err)
	return saga
}

// node is where the service is.
type node struct {
	url    string
	client *http.Client
}

// serve is the service over HTTP, with a bus to publish to.
func serve(t *testing.T) (*node, *bus.Bus) {
	driver := memorybus.New(memorybus.Config{})
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	engine, err := sagas.New(sagas.Config{Store: memoryevents.New(eventstore.Config{}), Bus: b, Sagas: []*sagas.Saga{join(t)}, Poll: 5 * time.Millisecond})
	require.NoError(t, err)
	service := sagassvc.New(sagassvc.Config{Engine: engine})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h, err := host.New(host.Config{Listener: listener})
	require.NoError(t, err)
	require.NoError(t, h.Add(service))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	<-b.Running()
	serving, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.Run(serving) }()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		stop()
		require.NoError(t, <-served)
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, driver.Close(context.Background()))
	})
	return &node{"http://" + listener.Addr().String(), client}, b
}

type object = map[string]any

func post(t *testing.T, server *node, path string, body object) (int, object) {
	raw, err := json.Marshal(body)
	require.NoError(t, err)
	resp, err := server.client.Post(server.url+path, "application/json", bytes.NewReader(raw))
	require.NoError(t, err)
	defer resp.Body.Close()
	answered, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var answer object
	require.NoError(t, json.Unmarshal(answered, &answer), "%s", answered)
	return resp.StatusCode, answer
}

func begin(t *testing.T, server *node, b *bus.Bus, player string) {
	_, err := b.Publish(t.Context(), "join.asked", &joined{Player: player})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		status, _ := post(t, server, "/sagas/get", object{"saga": "join", "key": player})
		return status == http.StatusOK
	}, 10*time.Second, time.Millisecond)
}

// What people look at, and what they ask for, is there over HTTP.
func TestSagas(t *testing.T) {
	server, b := serve(t)
	for _, player := range []string{"ada", "bob"} {
		begin(t, server, b, player)
	}
	status, answer := post(t, server, "/sagas/list", object{"saga": "join", "status": []string{"running"}, "limit": 1})
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, []any{object{"saga": "join", "version": 1.0}}, answer["sagas"])
	first := answer["instances"].([]any)[0].(object)
	require.Equal(t, "bob", first["key"])
	require.Equal(t, []any{"seating"}, first["owed"])
	_, answer = post(t, server, "/sagas/list", object{"saga": "join", "cursor": answer["cursor"]})
	require.Equal(t, "ada", answer["instances"].([]any)[0].(object)["key"])
	require.NotContains(t, answer, "cursor")

	status, answer = post(t, server, "/sagas/retry", object{"saga": "join", "key": "ada"})
	require.Equal(t, http.StatusConflict, status, "%v", answer)
	require.Contains(t, answer["detail"], "it is running, and not parked")
	status, answer = post(t, server, "/sagas/compensate", object{"saga": "join", "key": "ada", "note": "left"})
	require.Equal(t, http.StatusOK, status, "%v", answer)
	require.Eventually(t, func() bool {
		_, answer = post(t, server, "/sagas/get", object{"saga": "join", "key": "ada", "history": true})
		return answer["instance"].(object)["status"] == "compensated"
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, "asked for: left", answer["instance"].(object)["reason"])
	require.Equal(t, object{"Player": "ada"}, answer["data"])
	history := answer["history"].([]any)
	require.Len(t, history, 3)
	require.Equal(t, "join.asked", history[0].(object)["message"])
	require.Equal(t, []any{"seat.take"}, history[0].(object)["published"])

	status, answer = post(t, server, "/sagas/cancel", object{"saga": "join", "key": "bob"})
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "cancelled", answer["instance"].(object)["status"])
	status, answer = post(t, server, "/sagas/diagram", object{"saga": "join", "key": "ada"})
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, answer["diagram"], "<svg")
	require.Contains(t, answer["diagram"], "ada is compensated")
	_, answer = post(t, server, "/sagas/diagram", object{"saga": "join", "format": "mermaid"})
	require.Contains(t, answer["diagram"], "stateDiagram-v2")

	for path, body := range map[string]object{"/sagas/get": {"saga": "join", "key": "nobody"}, "/sagas/cancel": {"saga": "other", "key": "ada"}, "/sagas/diagram": {"saga": "join", "version": 7}} {
		status, answer = post(t, server, path, body)
		require.Equal(t, http.StatusNotFound, status, path)
		require.Equal(t, "not_found", answer["code"], path)
	}
}

// Bad input is refused with the member that is wrong.
func TestRefusals(t *testing.T) {
	server, b := serve(t)
	begin(t, server, b, "ada")
	target := hosttest.Target{URL: server.url, Client: server.client}
	endpoints := []hosttest.Endpoint{
		{Path: "/sagas/list", Valid: `{"saga":"join","status":["running"],"state":"seating","limit":5,"cursor":"900"}`, Members: map[string]hosttest.Kind{
			"saga": hosttest.String, "status": hosttest.Array, "state": hosttest.String, "limit": hosttest.Integer, "cursor": hosttest.String}},
		{Path: "/sagas/get", Valid: `{"saga":"join","key":"ada","history":true}`, Required: []string{"saga", "key"}, Members: map[string]hosttest.Kind{
			"saga": hosttest.String, "key": hosttest.String, "history": hosttest.Boolean}},
		{Path: "/sagas/diagram", Valid: `{"saga":"join","key":"ada","version":1,"format":"svg"}`, Required: []string{"saga"}, Members: map[string]hosttest.Kind{
			"saga": hosttest.String, "key": hosttest.String, "version": hosttest.Integer, "format": hosttest.String}},
		{Path: "/sagas/retry", Valid: `{"saga":"join","key":"ada","note":"x","actor":"y"}`, Status: http.StatusConflict, Required: []string{"saga", "key"}, Members: map[string]hosttest.Kind{
			"saga": hosttest.String, "key": hosttest.String, "note": hosttest.String, "actor": hosttest.String}},
	}
	for i := range endpoints {
		endpoints[i].MaxBytes = 64 << 10
	}
	hosttest.Refusals(t, target, endpoints)
}
