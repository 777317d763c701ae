package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

func TestRabbitMQ(t *testing.T) {
	for _, kind := range []rabbitbus.QueueType{rabbitbus.Classic, rabbitbus.Quorum} {
		t.Run(string(kind), func(t *testing.T) {
			broker := servers.NewRabbitMQ(t, servers.RabbitOptions{})
			for _, f := range rabbitFaults(broker, kind) {
				if !t.Run(f.name, func(t *testing.T) { endure(t, rabbit(broker, kind), f) }) {
					broker = servers.NewRabbitMQ(t, servers.RabbitOptions{}) // it may be in any state
				}
			}
		})
	}
}

func rabbit(broker *servers.RabbitServer, kind rabbitbus.QueueType) system {
	return system{
		driver: "rabbitmq", kind: string(kind),
		open: func(log *slog.Logger) (bus.Driver, error) {
			return rabbitbus.New(rabbitbus.Config{URLs: []string{broker.URL}, QueueType: kind, Logger: log,
				RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second})
		},
		inspect: func(ctx context.Context) string {
			said, err := broker.Ctl(ctx, "list_queues", "name", "type", "state", "messages_ready", "messages_unacknowledged", "consumers")
			return fmt.Sprint(said, err)
		},
	}
}

// rabbitFaults are what is done to a RabbitMQ. Quorum queues get those that meet queues; the rest meets connections.
func rabbitFaults(broker *servers.RabbitServer, kind rabbitbus.QueueType) []fault {
	killed := fault{name: "killed", times: 10, harm: func(ctx context.Context, _ *run) error {
		return errors.Join(broker.Kill(), broker.Restart(ctx))
	}}
	return []fault{killed}
}
