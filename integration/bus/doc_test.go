// Package bus_test runs the bus on a real RabbitMQ and a real Redis: the conformance suites, programs of others on the same broker, and
// what brokers do on bad days.
package bus_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/bustest"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

func TestMain(m *testing.M) {
	// The tests wait for brokers more than they compute, so more of them than there are processors run side by side.
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(max(6, runtime.GOMAXPROCS(0)))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := servers.Main(m)
	if code == 0 {
		if err := goleak.Find(bustest.WatermillGoroutines()...); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left behind:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// patience is what a broker that is well may take.
const patience = time.Minute

// within is the test's context, ended after d.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// open makes a driver that is closed when the test ends.
func open(t testing.TB, url string, change ...func(*rabbitbus.Config)) *rabbitbus.Driver {
	t.Helper()
	cfg := rabbitbus.Config{URLs: []string{url}, RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second}
	for _, c := range change {
		c(&cfg)
	}
	d, err := rabbitbus.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_ = d.Close(ctx) // with deliveries that the test left unsettled it waits for them, then says so
	})
	return d
}

// durable is a queue bound to one topic.
func durable(topic string) bus.Queue {
	return bus.Queue{Name: topic + ".bannou.test", Bindings: []bus.Binding{{Pattern: topic}}, Durable: true, Prefetch: 100}
}

// dynamic is a queue that goes with its consumer.
func dynamic(topic, id string) bus.Queue {
	return bus.Queue{Name: topic + ".dynamic." + id, Bindings: []bus.Binding{{Pattern: topic}}, Exclusive: true, Prefetch: 10}
}

// subscribe subscribes, and fails the test if that fails.
func subscribe(t testing.TB, d bus.Driver, q bus.Queue) bus.Consumer {
	t.Helper()
	c, err := d.Subscribe(within(t, patience), q)
	require.NoError(t, err)
	return c
}

// publish publishes a body, and fails the test if that fails.
func publish(t testing.TB, d bus.Driver, topic, id string) {
	t.Helper()
	require.NoError(t, d.Publish(within(t, patience), &bus.Message{RoutingKey: topic, ID: id, Body: []byte(id)}))
}

// next returns the next delivery.
func next(t testing.TB, c bus.Consumer) bus.Delivery {
	t.Helper()
	select {
	case d, ok := <-c.Deliveries():
		require.True(t, ok, "the consumer ended")
		return d
	case <-time.After(patience):
		require.Fail(t, "nothing was delivered")
		return nil
	}
}

// nothing makes sure that no delivery comes for a while.
func nothing(t testing.TB, c bus.Consumer) {
	t.Helper()
	select {
	case d := <-c.Deliveries():
		require.Fail(t, "unexpected delivery", "%+v", d.Message())
	case <-time.After(200 * time.Millisecond):
	}
}
