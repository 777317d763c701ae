package relay

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// stopped is the context of a process that was stopped: its time is over, and the timer that says so has not run yet.
type stopped struct{ context.Context }

func (stopped) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

// A process that was stopped and comes back begins nothing more of its batch.
func TestNothingIsBegunAfterTheClaim(t *testing.T) {
	driver := memorybus.New(memorybus.Config{})
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	e, err := NewEntry(t.Context(), bus.Prepared{Topic: "kept", Body: []byte(`{}`), Options: bus.PublishOptions{MessageID: "1", ContentType: "text/plain"}})
	require.NoError(t, err)
	r, err := New(Config{Outbox: unused{}, Bus: b, Service: "test"})
	require.NoError(t, err)
	require.Equal(t, []outcome{{done: true}}, r.send(t.Context(), []state.OutboxEntry{e}))
	require.Equal(t, []outcome{{}}, r.send(stopped{t.Context()}, []state.OutboxEntry{e}))
	require.NoError(t, driver.Close(context.Background()))
}

type unused struct{ state.Outbox }
