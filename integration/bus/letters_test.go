package bus_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// readStore reads the whole dead-letter store; ack says which letters go.
func readStore(t *testing.T, d bus.Driver, ack func(id string) bool) (ids []string) {
	t.Helper()
	l, err := d.Letters(within(t, patience))
	require.NoError(t, err)
	for {
		x, err := l.Next(within(t, patience))
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		ids = append(ids, x.Message().ID)
		if ack(x.Message().ID) {
			require.NoError(t, x.Ack())
		}
	}
	require.NoError(t, l.Close(within(t, patience)))
	return ids
}

// A store of many windows is read in order, again and again, and what is taken out leaves the rest in order.
func TestManyLettersKeepTheirOrder(t *testing.T) {
	eachQueueType(t, func(t *testing.T, d *rabbitbus.Driver, _ string) {
		want := make([]string, 5_000)
		confirms := make([]func() error, len(want))
		for i := range want {
			want[i] = fmt.Sprintf("%05d", i)
		}
		for i, id := range want {
			confirms[i] = func() error {
				return d.Publish(within(t, patience), &bus.Message{Exchange: "bannou-dlx", RoutingKey: "dead-letter.a", ID: id,
					Body: []byte(strings.Repeat("x", i%100*30))})
			}
		}
		inParallel(t, 64, confirms)
		first := readStore(t, d, func(string) bool { return false })
		sorted := slices.Clone(first)
		slices.Sort(sorted)
		require.Equal(t, want, sorted, "all of them, each once")
		for range 2 { // also after having been given back
			sameOrder(t, first, readStore(t, d, func(string) bool { return false }))
		}
		third := func(id string) bool { return id[4]%3 == 0 }
		sameOrder(t, first, readStore(t, d, third))
		rest := slices.DeleteFunc(slices.Clone(first), third)
		sameOrder(t, rest, readStore(t, d, func(string) bool { return true }))
		require.Empty(t, readStore(t, d, func(string) bool { return true }))
	})
}

// sameOrder says where two long lists part.
func sameOrder(t *testing.T, want, got []string) {
	t.Helper()
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			require.Equal(t, want[i:min(i+20, len(want))], got[i:min(i+20, len(got))], "from letter %d of %d and %d", i, len(want), len(got))
		}
	}
	require.Len(t, got, len(want))
}

// inParallel runs all with so many at a time.
func inParallel(t *testing.T, workers int, all []func() error) {
	t.Helper()
	next, failed := make(chan func() error), make(chan error, workers)
	for range workers {
		go func() {
			var first error
			for f := range next {
				if err := f(); err != nil && first == nil {
					first = err
				}
			}
			failed <- first
		}()
	}
	for _, f := range all {
		next <- f
	}
	close(next)
	for range workers {
		require.NoError(t, <-failed)
	}
}

// A store that another version has made is used as it is.
func TestStoreWithOtherArguments(t *testing.T) {
	url := servers.RabbitMQ(t).URL
	ch := foreign(t, url)
	_, err := ch.QueueDeclare("bannou-dlx-store", true, false, false, false, amqp.Table{"x-max-length": int64(10)})
	require.NoError(t, err)
	d := open(t, url, func(*rabbitbus.Config) {})
	require.NoError(t, d.Publish(within(t, patience), &bus.Message{Exchange: "bannou-dlx", RoutingKey: "dead-letter.a", ID: "1"}))
	require.Equal(t, []string{"1"}, readStore(t, d, func(string) bool { return true }))
}
