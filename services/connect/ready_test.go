package connect_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/host"
)

// slowBroker makes a queue of one node alone once it is told what becomes of it.
type slowBroker struct {
	*memorybus.Driver
	answers <-chan error
}

func (b slowBroker) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	if q.Expires > 0 {
		select {
		case err := <-b.answers:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return b.Driver.Subscribe(ctx, q)
}

// A node is not ready before its gateway takes connections: a client that is sent to it would be sent away. When the gateway has found that it
// cannot listen, the node is ready for all else.
func TestReadyWhenConnectionsAreTaken(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer error // of the broker
		status string
	}{
		{"listening", nil, `{"status":"ready"`},
		{"bus away", errors.New("away"), `{"status":"degraded"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, 0)
			answers := make(chan error)
			b, err := bus.New(slowBroker{w.broker, answers}, bus.Config{AppID: "connect"})
			require.NoError(t, err)
			service, err := connect.New(connect.Config{Factory: w.factory, Bus: b, Broker: w.broker, Caller: local{w.mux}, Auth: w.logins, InstanceID: uuid.NewString()})
			require.NoError(t, err)
			h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
			require.NoError(t, err)
			require.NoError(t, h.Add(service))
			w.run(b)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- h.Run(ctx) }()
			t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
			<-h.Started()
			ready := func() (int, string) {
				response, err := http.Get("http://" + h.Addr().String() + "/readyz")
				require.NoError(t, err)
				defer func() { _ = response.Body.Close() }()
				body, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				return response.StatusCode, string(body)
			}
			status, body := ready()
			require.Equal(t, http.StatusServiceUnavailable, status, body)
			require.Contains(t, body, "takes no connections yet")

			answers <- c.answer
			if c.answer == nil {
				close(answers) // those of the others are made at once
			}
			require.Eventually(t, func() bool { status, body = ready(); return status == http.StatusOK }, wait, time.Millisecond)
			require.True(t, strings.HasPrefix(body, c.status), body)
		})
	}
}
