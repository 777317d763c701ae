package connect

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// recorded is a broker that knows what was published, and may be away.
type recorded struct {
	bus.Driver
	away bool
	told []told
}

type told struct {
	topic, id, instance string
	at                  time.Time
}

func (r *recorded) Publish(ctx context.Context, m *bus.Message) error {
	if r.away {
		return bus.ErrUnavailable
	}
	var e struct {
		InstanceID string `json:"instanceId"`
	}
	_ = json.Unmarshal(m.Body, &e)
	r.told = append(r.told, told{m.RoutingKey, m.ID, e.InstanceID, m.Timestamp})
	return r.Driver.Publish(ctx, m)
}

type nobody struct{}

func (nobody) Do(context.Context, string, *http.Request) (*http.Response, error) { panic("not called") }
func (nobody) Validate(context.Context, string) (Login, error)                   { panic("not called") }

// quiet is a gateway that does nothing by itself.
func quiet(t *testing.T) (*Service, *recorded) {
	factory, err := state.NewFactory([]state.StoreConfig{{Name: SessionStore, Backend: "memory"}}, []state.Driver{memorystate.New()}, state.Options{})
	require.NoError(t, err)
	broker := &recorded{Driver: memorybus.New(memorybus.Config{})}
	b, err := bus.New(broker, bus.Config{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, b.Close(context.Background()))
		require.NoError(t, broker.Close(context.Background()))
		require.NoError(t, factory.Close())
	})
	s, err := New(Config{Factory: factory, Bus: b, Broker: broker, Caller: nobody{}, Auth: nobody{}, InstanceID: "node"})
	require.NoError(t, err)
	return s, broker
}

func (r records) put(t *testing.T, id string, v record) {
	_, _, err := r.change(t.Context(), id, time.Hour, func(now *record, _ bool) error { *now = v; return nil })
	require.NoError(t, err)
}

func (r records) remove(t *testing.T, id string) {
	store, err := r.open(t.Context())
	require.NoError(t, err)
	_, err = store.Delete(t.Context(), id)
	require.NoError(t, err)
}

// That the client of a session does not come back is told once its record is gone, whatever comes between: the record was prolonged when the
// connection ended, or the bus is away.
func TestGivingUpIsTold(t *testing.T) {
	s, broker := quiet(t)
	prolonged, elsewhere := uuid.NewString(), uuid.NewString()
	s.records.put(t, prolonged, record{Epoch: 5})
	s.records.put(t, elsewhere, record{Epoch: 6})
	for _, id := range []string{prolonged, elsewhere} {
		s.waiting.add(id, waiter{epoch: 5})
		s.waiting.add(id, waiter{epoch: 4}) // of the connection before, whose node was slow to end it
	}
	s.GiveUpAll(t.Context())
	require.Contains(t, s.waiting.list, prolonged)
	require.NotContains(t, s.waiting.list, elsewhere, "whoever holds it now tells")
	s.records.remove(t, prolonged)
	broker.away = true
	s.GiveUpAll(t.Context())
	found := time.Now()
	broker.away = false
	s.GiveUpAll(t.Context())
	require.Empty(t, s.waiting.list)
	require.Len(t, broker.told, 1)
	require.Equal(t, events.TopicSessionDisconnected, broker.told[0].topic)
	require.False(t, broker.told[0].at.After(found), "it says when it was found")
	s.GiveUpAll(t.Context())
	require.Len(t, broker.told, 1)
}

// A store that is away when a connection ends keeps nobody from being told later that its client does not come back.
func TestAnEndThatCannotBeNoted(t *testing.T) {
	s, broker := quiet(t)
	v := s.newSession(uuid.NewString())
	v.record = record{Epoch: 1}
	away1, cancel := context.WithCancel(t.Context())
	cancel()
	s.disconnected(away1, v, away(0, "", events.SessionDisconnectedReasonClosed))
	broker.told = nil
	s.GiveUpAll(t.Context())
	require.Len(t, broker.told, 1)
}

// Who has noted that the events of a session are gone may die before others are told, and the client may have begun anew when that comes again:
// they are told late, and when it was.
func TestALossIsToldLate(t *testing.T) {
	s, broker := quiet(t)
	id := uuid.NewString()
	s.records.put(t, id, record{Epoch: 1, InstanceID: "first"})
	lost, err := s.records.lose(t.Context(), id, 0, time.Hour)
	require.NoError(t, err)
	require.NoError(t, s.lose(t.Context(), id, 0, false), "another message of the same")
	require.Empty(t, broker.told)
	anew := lost
	anew.Lost, anew.Anew, anew.InstanceID = false, 1, "second"
	s.records.put(t, id, anew)
	require.NoError(t, s.lose(t.Context(), id, 0, false))
	require.Empty(t, broker.told)
	for range 2 {
		require.NoError(t, s.lose(t.Context(), id, 0, true))
	}
	require.Len(t, broker.told, 4)
	require.Equal(t, broker.told[:2], broker.told[2:], "under the same ids")
	require.Equal(t, "first", broker.told[1].instance)
	require.True(t, lost.Loss.At.Equal(broker.told[1].at))
	anew.Anew = 2
	s.records.put(t, id, anew)
	require.NoError(t, s.lose(t.Context(), id, 0, true))
	require.Len(t, broker.told, 4, "of a time before it is not known when it was")
}

// A record that a node of before has written is read.
func TestRecordsOfBefore(t *testing.T) {
	var v record
	require.NoError(t, json.Unmarshal([]byte(`{"epoch":3,"anew":"4"}`), &v))
	require.EqualValues(t, 3, v.Epoch)
}
