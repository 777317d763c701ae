package bustest

import (
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// wire is what the bus above relies on in a driver and what no handler can see.
func wire() []testCase {
	return []testCase{
		{
			name: "DriverSettlesOnce",
			why:  "a handler that is cut short settles after its delivery was given back: the second word must change nothing",
			run:  driverSettlesOnce,
		},
		{
			name: "DriverRetriesInOneQueueAlone",
			why:  "a retry must not reach the other subscriptions of the topic, and must count",
			run:  driverRetriesInOneQueue,
		},
		{
			name: "DriverBoundsTheUnsettled",
			why:  "prefetch is the only bound on what a node holds of a queue",
			run:  driverBoundsTheUnsettled,
		},
		{
			name: "DriverKeepsExclusiveQueuesToOne",
			why:  "a client's own queue must not be readable by a second one",
			run:  driverKeepsExclusive,
		},
		{
			name: "DriverDeletesQueues",
			why:  "a removed subscription must not collect for ever",
			run:  driverDeletesQueues,
		},
	}
}

func (f *fixture) message(n byte) *bus.Message {
	return &bus.Message{RoutingKey: f.topic, ID: string('a' + rune(n)), Timestamp: time.Now(), Headers: map[string]string{}, Body: []byte{n}}
}

func (f *fixture) durable(name string, prefetch int) bus.Queue {
	return bus.Queue{Name: f.topic + "." + name, Durable: true, Prefetch: prefetch, Bindings: []bus.Binding{{Pattern: f.topic}}}
}

func driverSettlesOnce(f *fixture) {
	d := f.setup.Node(f)
	got := make(chan bus.Delivery, 10)
	f.consume(f.durable("q", 5), func(x bus.Delivery) { got <- x })
	require.NoError(f, d.Publish(f.ctx(), f.message(1)))
	x := next(f, "the delivery", got)
	require.NoError(f, x.Requeue())
	require.NoError(f, x.Ack())
	again := next(f, "the delivery that was given back", got)
	require.Equal(f, []byte{1}, again.Message().Body)
	require.NoError(f, again.Ack())
	require.NoError(f, again.Requeue())
	require.NoError(f, again.Retry(f.ctx(), time.Millisecond))
	require.NoError(f, d.Publish(f.ctx(), f.message(2)))
	require.Equal(f, []byte{2}, next(f, "the next delivery", got).Message().Body)
}

func driverRetriesInOneQueue(f *fixture) {
	d := f.setup.Node(f)
	one, two := make(chan bus.Delivery, 10), make(chan bus.Delivery, 10)
	f.consume(f.durable("one", 5), func(x bus.Delivery) { one <- x })
	f.consume(f.durable("two", 5), func(x bus.Delivery) { two <- x })
	m := f.message(1)
	m.Headers["tenant"] = "blue"
	m.CorrelationID = "talk"
	m.Type = "Noted"
	require.NoError(f, d.Publish(f.ctx(), m))
	require.NoError(f, next(f, "the other queue", two).Ack())
	var retried time.Time
	for attempt := 1; attempt <= 4; attempt++ {
		x := next(f, "the delivery", one)
		if attempt > 1 {
			require.GreaterOrEqual(f, time.Since(retried), retryDelay, "not before its time")
		}
		require.Equal(f, attempt, x.Attempt())
		require.Equal(f, f.topic, x.Message().RoutingKey, "the topic it was published under")
		require.Equal(f, "blue", x.Message().Headers["tenant"])
		require.Equal(f, "talk", x.Message().CorrelationID)
		require.Equal(f, "Noted", x.Message().Type)
		require.Equal(f, m.ID, x.Message().ID)
		require.Equal(f, m.Body, x.Message().Body)
		if attempt == 4 {
			require.NoError(f, x.Ack())
			break
		}
		retried = time.Now()
		require.NoError(f, x.Retry(f.ctx(), retryDelay))
	}
	none(f, "a retry in the other queue", two)
}

func driverBoundsTheUnsettled(f *fixture) {
	d := f.setup.Node(f)
	var mu sync.Mutex
	var held []bus.Delivery
	got := make(chan struct{}, 100)
	f.consume(f.durable("q", 3), func(x bus.Delivery) {
		mu.Lock()
		held = append(held, x)
		mu.Unlock()
		got <- struct{}{}
	})
	for i := range byte(9) {
		require.NoError(f, d.Publish(f.ctx(), f.message(i)))
	}
	for i := range 9 {
		next(f, "a delivery", got)
		if i < 2 {
			continue
		}
		require.Eventually(f, func() bool { return len(got) == 0 }, patience, time.Millisecond)
		mu.Lock()
		require.LessOrEqual(f, len(held), 3, "unsettled at a time")
		oldest := held[0]
		held = held[1:]
		mu.Unlock()
		require.EqualValues(f, i-2, oldest.Message().Body[0], "in the queue's order")
		require.NoError(f, oldest.Ack())
	}
}

func driverKeepsExclusive(f *fixture) {
	q := bus.Queue{Name: f.topic + ".mine", Exclusive: true, Prefetch: 1, Bindings: []bus.Binding{{Pattern: f.topic}}}
	c := f.consume(q, func(x bus.Delivery) { _ = x.Ack() })
	_, err := f.setup.Node(f).Subscribe(f.ctx(), q)
	require.Error(f, err)
	require.NoError(f, c.Close(f.ctx()))
	require.Eventually(f, func() bool {
		again, err := f.setup.Node(f).Subscribe(f.ctx(), q)
		if err != nil {
			return false
		}
		return again.Close(f.ctx()) == nil
	}, patience, 10*time.Millisecond, "free again once its reader has gone")
}

func driverDeletesQueues(f *fixture) {
	d := f.setup.Node(f)
	q := f.durable("q", 1)
	c, err := d.Subscribe(f.ctx(), q)
	require.NoError(f, err)
	require.NoError(f, c.Close(f.ctx()))
	require.NoError(f, d.Publish(f.ctx(), f.message(1)))
	require.NoError(f, d.DeleteQueue(f.ctx(), q.Name))
	require.NoError(f, d.DeleteQueue(f.ctx(), q.Name), "one that does not exist is no error")
	m := f.message(2)
	m.Mandatory = true
	require.ErrorIs(f, d.Publish(f.ctx(), m), bus.ErrUnroutable)
}
