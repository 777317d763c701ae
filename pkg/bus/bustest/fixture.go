package bustest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// patience is how long the suite waits for what must come; a case that passes waits for none of it. Under the race detector, with five other
// cases beside it on two processors, a retry and the dead letter after it have taken more than 15 seconds.
const patience = time.Minute

// retryDelay is how long a broker holds a failed event in the cases that wait for it.
const retryDelay = 30 * time.Millisecond

// Noted is the event of the cases: a number and a text.
type Noted struct {
	EventID   string    `json:"eventId"`
	Timestamp time.Time `json:"timestamp"`
	Number    int64     `json:"number"`
	Text      string    `json:"text"`
}

// EventName is the type that the event travels with.
func (*Noted) EventName() string { return "NotedEvent" }

// Stamp gives the event an id and a time.
func (e *Noted) Stamp(id string, at time.Time) (string, time.Time) {
	if e.EventID == "" {
		e.EventID = id
	}
	if e.Timestamp.IsZero() {
		e.Timestamp = at
	}
	return e.EventID, e.Timestamp
}

// fixture is one case at work: its broker, and names of its own.
type fixture struct {
	*testing.T
	setup    Setup
	features Features
	topic    string // of this case alone
}

func newFixture(t *testing.T, s Setup, f Features) *fixture {
	id := strings.ReplaceAll(uuid.NewString(), "-", "")
	return &fixture{T: t, setup: s, features: f, topic: "bustest.t" + id[:12]}
}

// ctx ends long after anything here should have, or with the test.
func (f *fixture) ctx() context.Context {
	ctx, cancel := context.WithTimeout(f.Context(), 4*patience)
	f.Cleanup(cancel)
	return ctx
}

// node is a bus on a further node of the broker, not running.
func (f *fixture) node(change ...func(*bus.Config)) *bus.Bus {
	f.Helper()
	cfg := f.setup.Config
	cfg.RetryDelay = retryDelay
	cfg.CloseTimeout = patience
	cfg.PublishTimeout = patience
	for _, c := range change {
		c(&cfg)
	}
	b, err := bus.New(f.setup.Node(f), cfg)
	require.NoError(f, err)
	f.Cleanup(func() { f.close(b) })
	return b
}

func (f *fixture) close(b *bus.Bus) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = b.Close(ctx) // a case that closes with an error has looked at it
}

// run runs the bus, and returns when it runs.
func (f *fixture) run(b *bus.Bus) {
	f.Helper()
	ended := make(chan error, 1)
	go func() { ended <- b.Run(context.Background()) }()
	f.Cleanup(func() {
		f.close(b)
		<-ended //nolint:errcheck // a case that closes with an error has looked at it
	})
	select {
	case <-b.Running():
	case err := <-ended:
		f.Fatalf("Run ended: %v", err)
	case <-time.After(patience):
		f.Fatal("the bus does not come to run")
	}
	require.Eventually(f, func() bool { return b.Ready(f.Context()) == nil }, patience, 5*time.Millisecond, "the bus is never ready")
}

func (f *fixture) publish(b *bus.Bus, e *Noted, o bus.PublishOptions) string {
	f.Helper()
	id, err := b.PublishWith(f.ctx(), f.topic, e, o)
	require.NoError(f, err)
	return id
}

// handle registers a handler on the case's topic that sends what it gets to the channel.
func (f *fixture) handle(b *bus.Bus, name string, o bus.SubscriptionOptions) <-chan *bus.Received {
	f.Helper()
	got := make(chan *bus.Received, 10_000)
	require.NoError(f, b.HandleRaw(f.topic, name, func(_ context.Context, r *bus.Received) error {
		got <- r
		return nil
	}, o))
	return got
}

// deadLetters yields the dead letters of the case's topic from now on.
func (f *fixture) deadLetters() <-chan *bus.Message {
	f.Helper()
	letters := make(chan *bus.Message, 1000)
	f.consume(bus.Queue{
		Name:      f.topic + ".letters",
		Exclusive: true,
		Prefetch:  100,
		Bindings:  []bus.Binding{{Exchange: f.deadLetterExchange(), Pattern: bus.DeadLetterKey + f.topic}},
	}, func(d bus.Delivery) {
		letters <- d.Message()
		_ = d.Ack()
	})
	return letters
}

// consume reads a queue with a driver of its own until the test ends.
func (f *fixture) consume(q bus.Queue, each func(bus.Delivery)) bus.Consumer {
	f.Helper()
	c, err := f.setup.Node(f).Subscribe(f.ctx(), q)
	require.NoError(f, err)
	var reading sync.WaitGroup
	reading.Go(func() {
		for d := range c.Deliveries() {
			each(d)
		}
	})
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = c.Close(ctx)
		reading.Wait()
	})
	return c
}

// queue is the broker's view of a queue; false: there is none. It is for conditions that are waited for, in which a test may not
// end.
func (f *fixture) queue(d bus.Driver, name string) (bus.QueueInfo, bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := d.Queues(ctx)
	for _, q := range all {
		if q.Name == name {
			return q, true, err
		}
	}
	return bus.QueueInfo{}, false, err
}

// gone reports whether the broker says that there is no such queue.
func (f *fixture) gone(d bus.Driver, name string) bool {
	_, there, err := f.queue(d, name)
	return err == nil && !there
}

// next is what comes next on a channel; nothing coming is a failure.
func next[T any](f *fixture, what string, c <-chan T) T {
	f.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		f.Fatalf("%s: nothing came", what)
		panic("unreachable")
	}
}

// none fails if something has come.
func none[T any](f *fixture, what string, c <-chan T) {
	f.Helper()
	select {
	case v := <-c:
		f.Fatalf("%s: %+v came", what, v)
	default:
	}
}

// number reads the event's number, for cases that count.
func number(f *fixture, r *bus.Received) int64 {
	f.Helper()
	var e Noted
	decode(f, r.Body, &e)
	return e.Number
}
