package e2e

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	trips "github.com/bannou-mesh/bannou/integration/sagas"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/sagas"
	"github.com/bannou-mesh/bannou/services/host"
	sagassvc "github.com/bannou-mesh/bannou/services/sagas"
)

// full is a hotel that has no room, and does not take one back either.
type full struct{}

func (full) Call(_ context.Context, _, method, _ string, _ jsontext.Value) (jsontext.Value, error) {
	return nil, &sagas.Refusal{Status: 409, Detail: "no " + method}
}

// A saga that waits for a person is found, looked at, drawn, retried, compensated and ended from the command line.
func TestSagaCommands(t *testing.T) {
	driver := memorybus.New(memorybus.Config{})
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	trip, err := trips.Definition("").Build()
	require.NoError(t, err)
	engine, err := sagas.New(sagas.Config{Store: memoryevents.New(eventstore.Config{}), Bus: b, Caller: full{}, Sagas: []*sagas.Saga{trip}, Poll: 10 * time.Millisecond})
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h, err := host.New(host.Config{Listener: listener})
	require.NoError(t, err)
	require.NoError(t, h.Add(sagassvc.New(sagassvc.Config{Engine: engine})))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 2)
	go func() { ran <- b.Run(ctx) }()
	<-b.Running()
	go func() { ran <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, <-ran)
		require.NoError(t, driver.Close(context.Background()))
	})
	node := "--node=http://" + listener.Addr().String()
	bannou := func(code int, args ...string) string {
		stdout, stderr, exit := run(t, append(append([]string{"sagas"}, args...), node)...)
		require.Equal(t, code, exit, "%v: %s%s", args, stdout, stderr)
		return stdout + stderr
	}

	for _, key := range []string{"t-1", "t-2"} {
		for _, topic := range []string{"trip.asked", "seat.booked"} {
			_, err := b.Publish(t.Context(), topic, &trips.Ask{Trip: key})
			require.NoError(t, err)
			require.Eventually(t, func() bool { _, err := engine.Get(t.Context(), "trip", key); return err == nil }, patience, time.Millisecond)
		}
		require.Eventually(t, func() bool {
			i, err := engine.Get(t.Context(), "trip", key)
			return err == nil && i.Status == sagas.Parked
		}, patience, time.Millisecond)
	}
	require.Contains(t, bannou(0, "list"), "trip")
	list := bannou(0, "list", "trip", "--status", "parked")
	require.Contains(t, list, "t-1")
	require.Contains(t, list, `the undo of "room" was refused with 409: no free`)
	require.NotContains(t, bannou(0, "list", "trip", "--status", "completed,running"), "t-1")
	shown := bannou(0, "show", "trip", "t-1")
	require.Contains(t, shown, "room, seat")
	require.Contains(t, shown, "refusal")
	require.Contains(t, bannou(0, "show", "trip", "t-1", "--draw", "mermaid"), "class compensating parked")
	require.Contains(t, bannou(0, "show", "trip", "t-1", "--draw", "svg"), "</svg>")
	require.Contains(t, bannou(0, "retry", "trip", "t-1", "--actor", "ada"), "trip t-1 is compensating")
	require.Contains(t, bannou(0, "cancel", "trip", "t-2", "--yes", "--note", "by hand"), "trip t-2 is cancelled")
	require.Contains(t, bannou(1, "compensate", "trip", "t-2"), "it is cancelled")
	require.Contains(t, bannou(1, "show", "trip", "t-3"), "no instance has that key")
}
