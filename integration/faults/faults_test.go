package faults_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

var (
	long = flag.Bool("long", false, "harm often, instead of once")
	seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the schedule")
)

const patience = time.Minute

func TestMain(m *testing.M) { flag.Parse(); os.Exit(servers.Main(m)) }

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestFaults(t *testing.T) {
	broker := servers.NewRabbitMQ(t, servers.RabbitOptions{})
	ctl := func(t *testing.T, args ...string) error {
		_, err := broker.Ctl(within(t, time.Minute), args...)
		return err
	}
	for _, kind := range []rabbitbus.QueueType{rabbitbus.Classic, rabbitbus.Quorum} {
		for _, f := range []struct {
			name  string
			times int
			harm  func(t *testing.T) error
		}{
			{"killed", 10, func(t *testing.T) error { return errors.Join(broker.Kill(), broker.Restart(within(t, time.Minute))) }},
			{"connections closed", 10, func(t *testing.T) error { return ctl(t, "close_all_connections", "test") }},
		} {
			times := 1
			if *long {
				times = f.times
			}
			t.Run(fmt.Sprintf("%s, %s", f.name, kind), func(t *testing.T) {
				underLoad(t, broker.URL, kind, times, func() error { return f.harm(t) })
			})
		}
	}
}

func underLoad(t *testing.T, url string, kind rabbitbus.QueueType, times int, harm func() error) {
	existing := goleak.IgnoreCurrent()
	d, err := rabbitbus.New(rabbitbus.Config{URLs: []string{url}, QueueType: kind, DeadLetterExchange: "dlx-" + string(kind),
		RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second})
	require.NoError(t, err)
	b, err := bus.New(d, bus.Config{DeadLetterExchange: "dlx-" + string(kind)})
	require.NoError(t, err)
	topic, ledger := fmt.Sprintf("faults.n%d", time.Now().UnixNano()), new(faults.Ledger)
	require.NoError(t, faults.Handle(b, topic, ledger))
	ran, published := make(chan error, 1), make(chan struct{})
	go func() { ran <- b.Run(context.Background()) }()
	require.Eventually(t, func() bool { return b.Ready(t.Context()) == nil }, patience, 10*time.Millisecond)
	load, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { defer close(published); faults.Publish(load, b, topic, ledger, *seed) }()
	goesOn := func() {
		before := ledger.Totals().Confirmed
		assert.Eventually(t, func() bool { return ledger.Totals().Confirmed > before+1000 }, patience, 20*time.Millisecond, "publishing goes on")
	}
	goesOn()
	for range times {
		assert.NoError(t, harm())
		goesOn()
	}
	stop()
	<-published
	assert.Eventually(t, func() bool { return ledger.Totals().Lost == 0 }, patience, 50*time.Millisecond)
	assert.NoError(t, b.Close(within(t, patience)))
	assert.NoError(t, <-ran)
	assert.NoError(t, d.Close(within(t, patience)))
	assert.NoError(t, goleak.Find(existing))
	totals := ledger.Totals()
	t.Logf("%s queues, %d times, seed %d: %+v", kind, times, *seed, totals)
	assert.Zero(t, totals.Lost)
	assert.Zero(t, totals.Late, "publishes that returned later than their deadline")
}
