package bus_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

// From Publish to the end of the handler: typed, through the whole middleware, one publisher at a time.
func BenchmarkPublishToHandled(b *testing.B) {
	for name, dynamic := range map[string]bool{"static": false, "dynamic": true} {
		b.Run(name, func(b *testing.B) {
			ctx := b.Context()
			d := memorybus.New(memorybus.Config{})
			defer func() { _ = d.Close(context.Background()) }()
			x, err := bus.New(d, bus.Config{PrefetchCount: 100})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = x.Close(context.Background()) }()
			var handled atomic.Int64
			all := make(chan struct{})
			h := func(context.Context, *AccountCreated) error {
				if handled.Add(1) == int64(b.N) {
					close(all)
				}
				return nil
			}
			if dynamic {
				_, err = bus.Subscribe(ctx, x, "account.created", h, bus.SubscriptionOptions{})
			} else {
				err = bus.Handle(x, "account.created", "h", h, bus.SubscriptionOptions{})
			}
			if err != nil {
				b.Fatal(err)
			}
			go func() { _ = x.Run(ctx) }()
			<-x.Running()
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := x.Publish(ctx, "account.created", &AccountCreated{AccountID: "a-1"}); err != nil {
					b.Fatal(err)
				}
			}
			<-all
		})
	}
}

// The floor: Watermill's gochannel alone, without queues, JSON, retries or telemetry, each publish acknowledged.
func BenchmarkGoChannel(b *testing.B) {
	c := gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, nil)
	defer func() { _ = c.Close() }()
	in, err := c.Subscribe(b.Context(), "account.created")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for msg := range in {
			msg.Ack()
		}
	}()
	body := []byte(`{"eventId":"0192","timestamp":"2025-01-02T03:04:05Z","accountId":"a-1"}`)
	b.ReportAllocs()
	for range b.N {
		if err := c.Publish("account.created", message.NewMessage("0192", body)); err != nil {
			b.Fatal(err)
		}
	}
}
