package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

func TestRabbitMQ(t *testing.T) {
	for _, kind := range []rabbitbus.QueueType{rabbitbus.Classic, rabbitbus.Quorum} {
		t.Run(string(kind), func(t *testing.T) {
			broker := servers.NewRabbitMQ(t, servers.RabbitOptions{})
			for _, f := range rabbitFaults(kind) {
				require.NoError(t, resendSoon(within(t, patience), broker))
				if !t.Run(f.name, func(t *testing.T) { endure(t, rabbit(broker, kind), f) }) {
					broker = servers.NewRabbitMQ(t, servers.RabbitOptions{}) // it may be in any state
				}
			}
		})
	}
}

func rabbit(broker *servers.RabbitServer, kind rabbitbus.QueueType) system {
	return system{
		rabbit: broker,
		url:    broker.URL,
		driver: "rabbitmq", kind: string(kind), share: faults.Share, slack: faults.Slack,
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

// rabbitFaults are what is done to a RabbitMQ: to quorum queues less often, and those that meet connections alone not so long. When one is
// deleted, RabbitMQ 3.10 ends the publishers' connection too.
func rabbitFaults(kind rabbitbus.QueueType) []fault {
	killed := fault{name: "killed", times: 10, harm: func(ctx context.Context, r *run) error {
		return errors.Join(r.system.rabbit.Kill(), r.system.rabbit.Restart(ctx))
	}}
	restarted := fault{name: "restarted", times: 1, harm: func(ctx context.Context, r *run) error { return r.system.rabbit.Restart(ctx) }}
	queue := fault{name: "queue deleted", times: 5, sole: true, harm: func(ctx context.Context, r *run) error {
		return withChannel(r.system.rabbit.URL, func(ch *amqp.Channel) error {
			_, err := ch.QueueDelete(r.load.Topic+".bannou.load-0", false, false, false)
			// What was published before the deletion returned may have gone with the queue. Whatever begins after it and is
			// confirmed has reached the queue that was declared anew: it is mandatory.
			r.load.Ledger.Excuse()
			return err
		})
	}}
	// An acknowledgement of what was never delivered ends a channel with 406.
	channels := `[catch rabbit_channel:do(P, {'basic.ack', 999999999999, false}) || P <- rabbit_channel:list_local()]`
	connections := `[catch rabbit_networking:close_connection(P, "faults") || P <- rabbit_networking:connections()]`
	both := func(lasts time.Duration) fault {
		return fault{name: "connections and channels closed every 200 ms", times: 1, harm: repeatedly(channels+`, timer:sleep(100), `+connections, lasts)}
	}
	if kind == rabbitbus.Quorum {
		killed.times, queue.times = 3, 2
		return []fault{killed, queue, poisoned(1), both(10 * time.Second)}
	}
	return []fault{
		killed, restarted, poisoned(3), reopened(5), consumerKilled(),
		both(time.Minute),
		{name: "channels closed every 200 ms", times: 1, harm: repeatedly(channels, 10*time.Second)},
		{name: "stopped (SIGSTOP) for 10 s", times: 1, harm: func(ctx context.Context, r *run) error {
			return errors.Join(r.system.rabbit.Pause(), faults.Pause(ctx, lasting(10*time.Second)), r.system.rabbit.Resume())
		}},
		{name: "short of memory for 5 s", times: 1, harm: func(ctx context.Context, r *run) error {
			broker := r.system.rabbit
			_, raised := broker.Ctl(ctx, "set_vm_memory_high_watermark", "0.00001")
			waited := faults.Pause(ctx, lasting(5*time.Second))
			_, cleared := broker.Ctl(ctx, "set_vm_memory_high_watermark", "0.4")
			return errors.Join(raised, waited, cleared)
		}},
		queue,
		{name: "exchange deleted", times: 5, sole: true, harm: func(_ context.Context, r *run) error {
			return withChannel(r.system.rabbit.URL, func(ch *amqp.Channel) error { return ch.ExchangeDelete("bannou", false, false) })
		}},
	}
}

// resendSoon shortens how long the broker waits before it hands a delayed message over once more, after the queue went away
// under it: by default three minutes, which the test would have to wait too.
func resendSoon(ctx context.Context, broker *servers.RabbitServer) error {
	_, err := broker.Ctl(ctx, "eval", "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 3000).")
	return err
}

// repeatedly has the broker do something to itself every 200 ms. rabbitmqctl takes too long to be called each time.
func repeatedly(harm string, lasts time.Duration) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		const every = 200 * time.Millisecond
		loop := fmt.Sprintf("[begin T = erlang:monotonic_time(millisecond), %s, timer:sleep(max(0, T + %d - erlang:monotonic_time(millisecond))) end || _ <- lists:seq(1, %d)], ok.",
			harm, every.Milliseconds(), lasting(lasts)/every)
		_, err := r.system.rabbit.Ctl(ctx, "eval", loop)
		return err
	}
}

// withChannel does something to a broker as another program would.
func withChannel(url string, do func(ch *amqp.Channel) error) error {
	connection, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	ch, err := connection.Channel()
	if err != nil {
		return err
	}
	return do(ch)
}
