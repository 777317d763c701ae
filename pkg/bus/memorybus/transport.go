package memorybus

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// transport carries messages from publishers to queues: a gochannel with one topic for each queue, read by that queue
// alone. Waiting for the acknowledgement is what keeps a publisher's messages in order and makes Publish a
// confirmation; gochannel alone would send each message from a goroutine of its own.
type transport struct {
	channel *gochannel.GoChannel
	made    atomic.Uint64
	readers sync.WaitGroup
}

func newTransport() *transport {
	return &transport{channel: gochannel.NewGoChannel(gochannel.Config{
		BlockPublishUntilSubscriberAck: true,
		PreserveContext:                true, // the message travels in it
	}, nil)}
}

type carriedKey struct{}

// open makes a topic for the queue and reads it, until close.
func (t *transport) open(q *queue) {
	// A queue of the same name may come again while this one's goroutines end.
	q.inlet = q.name + "#" + strconv.FormatUint(t.made.Add(1), 10)
	ctx, cancel := context.WithCancel(context.Background())
	q.shut = cancel
	in, err := t.channel.Subscribe(ctx, q.inlet)
	if err != nil {
		return // only when it is closed: nothing arrives any more
	}
	t.readers.Go(func() {
		for msg := range in {
			if m, ok := msg.Context().Value(carriedKey{}).(*bus.Message); ok {
				q.add(m)
			}
			msg.Ack()
		}
	})
}

func (t *transport) close(q *queue) { q.shut() }

// send returns when the queue has the message. A queue that was removed meanwhile takes nothing.
func (t *transport) send(q *queue, m *bus.Message) error {
	msg := message.NewMessage(m.ID, m.Body)
	msg.SetContext(context.WithValue(context.Background(), carriedKey{}, m))
	if err := t.channel.Publish(q.inlet, msg); err != nil {
		return fmt.Errorf("queue %q: %w", q.name, err)
	}
	return nil
}

func (t *transport) end() error {
	err := t.channel.Close()
	t.readers.Wait()
	return err
}
