package pairs

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

// BenchmarkMemoryBus publishes typed events, each caller waiting until its own was handled. A subscription of gochannel
// is given one message at a time, so the handler's prefetch is 1. Behind the same promise gochannel has no queue, no
// retries and no dead letters.
func BenchmarkMemoryBus(b *testing.B) {
	for _, callers := range []int{1, 16} {
		compare(b, named("publish to handled", callers), from(callers, viaGoChannel(b, callers)), from(callers, viaMemoryBus(b, callers)))
	}
}

// An inbox tells each caller which of its events was handled last.
type inbox []chan int

func newInbox(callers int) inbox {
	in := make(inbox, callers)
	for i := range in {
		in[i] = make(chan int, 1)
	}
	return in
}

func (in inbox) handled(e *placed) { in[e.Caller] <- e.Number }

func (in inbox) wait(ctx context.Context, e *placed) error {
	select {
	case number := <-in[e.Caller]:
		if number != e.Number {
			return fmt.Errorf("caller %d waited for event %d and event %d was handled", e.Caller, e.Number, number)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func viaGoChannel(b *testing.B, callers int) call {
	channel := gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, nil)
	b.Cleanup(func() { require.NoError(b, channel.Close()) })
	messages, err := channel.Subscribe(context.Background(), topic)
	require.NoError(b, err)
	in := newInbox(callers)
	go func() {
		for msg := range messages {
			e, err := decode(msg.Payload)
			if err != nil {
				b.Error(err)
				msg.Nack()
				continue
			}
			e.check(b)
			in.handled(e)
			msg.Ack()
		}
	}()
	sent := make([]int, callers)
	return func(ctx context.Context, caller int) error {
		sent[caller]++
		e := &placed{Caller: caller, Number: sent[caller], Text: text}
		body, err := e.encode()
		if err != nil {
			return err
		}
		if err := channel.Publish(topic, message.NewMessage(e.EventID, body)); err != nil {
			return err
		}
		return in.wait(ctx, e)
	}
}

func viaMemoryBus(b *testing.B, callers int) call {
	driver := memorybus.New(memorybus.Config{})
	b.Cleanup(func() { require.NoError(b, driver.Close(context.Background())) })
	x, err := bus.New(driver, bus.Config{PrefetchCount: 1})
	require.NoError(b, err)
	in := newInbox(callers)
	require.NoError(b, bus.Handle(x, topic, "bench", func(_ context.Context, e *placed) error {
		e.check(b)
		in.handled(e)
		return nil
	}, bus.SubscriptionOptions{}))
	runBus(b, x)
	sent := make([]int, callers)
	return func(ctx context.Context, caller int) error {
		sent[caller]++
		e := &placed{Caller: caller, Number: sent[caller], Text: text}
		if _, err := x.Publish(ctx, topic, e); err != nil {
			return err
		}
		return in.wait(ctx, e)
	}
}

// runBus runs a bus until the benchmark ends, or what it returns is called.
func runBus(b *testing.B, x *bus.Bus) (stop func()) {
	b.Helper()
	ended := make(chan error, 1)
	go func() { ended <- x.Run(context.Background()) }()
	<-x.Running()
	require.Eventually(b, func() bool { return x.Ready(b.Context()) == nil }, patience, time.Millisecond)
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(b, x.Close(ctx))
		require.NoError(b, <-ended)
	}
	b.Cleanup(stop)
	return stop
}
