package bus_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// replaying is a queue and a store full of its dead letters.
type replaying struct {
	driver  *rabbitbus.Driver
	bus     *bus.Bus
	ids     []string
	mu      sync.Mutex
	handled map[string]int
}

const replayTopic = "game.scored"

func newReplaying(t *testing.T, url string, kind rabbitbus.QueueType, count int) *replaying {
	d := open(t, url, func(c *rabbitbus.Config) { c.QueueType = kind })
	b, err := bus.New(d, bus.Config{PublishTimeout: time.Minute})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close(context.Background())) })
	r := &replaying{driver: d, bus: b, handled: map[string]int{}}
	c := subscribe(t, d, bus.Queue{Name: replayTopic + ".board", Durable: true, Prefetch: 100, Bindings: []bus.Binding{{Pattern: replayTopic}}})
	var reading sync.WaitGroup
	reading.Go(func() {
		for x := range c.Deliveries() {
			r.mu.Lock()
			r.handled[x.Message().ID]++
			r.mu.Unlock()
			_ = x.Ack() // on a connection that is gone it fails, and the message comes again
		}
	})
	t.Cleanup(func() { _ = c.Close(context.Background()); reading.Wait() })
	confirms := make([]func() error, count)
	for i := range confirms {
		id := fmt.Sprintf("%05d", i)
		r.ids = append(r.ids, id)
		why := bus.DiscardPermanent
		if i%2 == 1 {
			why = bus.DiscardMaxRetries
		}
		confirms[i] = func() error {
			return d.Publish(within(t, patience), bus.DeadLetter(&bus.Message{RoutingKey: replayTopic, ID: id, Body: make([]byte, 1024)},
				bus.Discard{Exchange: "bannou", DeadLetterExchange: "bannou-dlx", Queue: replayTopic + ".board", Reason: why, Attempt: 1, At: time.Now()}))
		}
	}
	inParallel(t, 64, confirms)
	return r
}

// missing is how many have not been handled, twice how many were handled more than once.
func (r *replaying) missing() (missing, twice int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.ids {
		switch n := r.handled[id]; {
		case n == 0:
			missing++
		case n > 1:
			twice++
		}
	}
	return missing, twice
}

// Thousands are replayed and discarded by a filter, while others look at them.
func TestManyLettersAreReplayedAndDiscarded(t *testing.T) {
	t.Parallel()
	for _, kind := range []rabbitbus.QueueType{rabbitbus.Classic, rabbitbus.Quorum} {
		t.Run(string(kind), func(t *testing.T) {
			const count = 5000
			url := servers.RabbitMQ(t).URL
			r := newReplaying(t, url, kind, count)
			other, err := bus.New(open(t, url, func(c *rabbitbus.Config) { c.QueueType = kind }), bus.Config{})
			require.NoError(t, err)
			listed := make(chan error, 1)
			go func() { // before, in between or after: it sees a whole store
				list, err := other.ListLetters(context.Background(), bus.LetterFilter{Topic: "game.*"}, bus.LetterPage{Limit: 10})
				if err == nil && list.Matched != count && list.Matched != count/2 {
					err = fmt.Errorf("listed %d", list.Matched)
				}
				listed <- err
			}()
			done, err := r.bus.ReplayLetters(within(t, 3*patience), bus.LetterFilter{Reason: bus.DiscardPermanent}, bus.SettleOptions{})
			require.NoError(t, err)
			require.EqualValues(t, count/2, done.Done)
			require.NoError(t, <-listed)
			done, err = r.bus.DiscardLetters(within(t, 3*patience), bus.LetterFilter{Reason: bus.DiscardMaxRetries}, bus.SettleOptions{})
			require.NoError(t, err)
			require.EqualValues(t, count/2, done.Done)
			require.Zero(t, waiting(t, r.driver, "bannou-dlx-store"))
			require.Eventually(t, func() bool {
				missing, twice := r.missing()
				return missing == count/2 && twice == 0
			}, patience, 10*time.Millisecond, "those that were replayed were handled, each once")
			require.NoError(t, other.Close(context.Background()))
		})
	}
}

// A broker that dies under a replay: what was not confirmed is a dead letter still, and the next replay takes it.
func TestBrokerDiesUnderReplay(t *testing.T) {
	t.Parallel()
	for _, kind := range []rabbitbus.QueueType{rabbitbus.Classic, rabbitbus.Quorum} {
		t.Run(string(kind), func(t *testing.T) {
			broker := servers.NewRabbitMQ(t, servers.RabbitOptions{})
			const count = 4000
			r := newReplaying(t, broker.URL, kind, count)
			half := make(chan struct{})
			reached := sync.OnceFunc(func() { close(half) })
			ended := make(chan error, 1)
			go func() {
				_, err := r.bus.ReplayLetters(within(t, 3*patience), bus.LetterFilter{}, bus.SettleOptions{Progress: func(p bus.LetterProgress) {
					if p.Done > count/4 {
						reached()
					}
				}})
				ended <- err
			}()
			<-half
			require.NoError(t, broker.Kill())
			restarted := make(chan error, 1)
			go func() { restarted <- broker.Restart(within(t, 2*patience)) }() // while it starts its queues, the next replay begins
			first := <-ended
			require.ErrorIs(t, first, bus.ErrUnavailable, "it was in the middle")
			var rest *bus.Settled
			var err error
			if !assert.Eventually(t, func() bool {
				rest, err = r.bus.ReplayLetters(within(t, 3*patience), bus.LetterFilter{}, bus.SettleOptions{})
				return err == nil
			}, 3*patience, 100*time.Millisecond) {
				t.Fatal(err)
			}
			require.NoError(t, <-restarted)
			require.Zero(t, rest.Failed)
			if !assert.Eventually(t, func() bool { missing, _ := r.missing(); return missing == 0 }, patience, 10*time.Millisecond) {
				missing, twice := r.missing()
				t.Fatalf("the second replay took %+v; %d acknowledged and lost, %d were handled twice, %d are letters still", *rest, missing, twice, waiting(t, r.driver, "bannou-dlx-store"))
			}
			require.Zero(t, waiting(t, r.driver, "bannou-dlx-store"))
			_, twice := r.missing()
			t.Logf("%s: %d letters, the second replay took %d, %d were handled twice, none lost", kind, count, rest.Done, twice)
		})
	}
}
