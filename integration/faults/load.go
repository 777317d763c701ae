package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

const (
	publishers = 16
	textBytes  = 256
	// afterFailure is a publisher's pause after an error: one that fails at once must not be a hot loop.
	afterFailure = 10 * time.Millisecond
	// easy is a publisher's pause after each event while the load is eased.
	easy = 20 * time.Millisecond
)

// Handle registers the subscriptions of a load, and has each event that they handle reported. The first subscription fails
// on the first delivery of every tenth event.
func Handle(b *bus.Bus, topic string, subscriptions int, handled func(subscription, number int)) error {
	// Whatever fails while the broker is away is to come back, not to become a dead letter.
	retry := &bus.RetryPolicy{Immediate: -1, MaxAttempts: 1000, Delay: 200 * time.Millisecond}
	for s := range subscriptions {
		h := func(ctx context.Context, e *Worked) error {
			if r, _ := bus.ReceivedFrom(ctx); r.Attempt == 1 && failsFirst(s, e.Number) {
				return errors.New("fails on the first delivery")
			}
			handled(s, e.Number)
			return nil
		}
		if err := bus.Handle(b, topic, fmt.Sprintf("load-%d", s), h, bus.SubscriptionOptions{Retry: retry, PrefetchCount: 100}); err != nil {
			return err
		}
	}
	return nil
}

func failsFirst(subscription, number int) bool { return subscription == 0 && number%10 == 7 }

// A Load publishes to one topic.
type Load struct {
	Topic     string
	Ledger    *Ledger
	Seed      uint64
	Mandatory bool // every event, rather than every second

	bus    atomic.Pointer[bus.Bus]
	eased  atomic.Bool
	stalls stalls
}

// Ease slows the load down to some hundreds of events a second, until it is called with false.
func (l *Load) Ease(eased bool) { l.eased.Store(eased) }

// Use has the load publish on this bus from now on.
func (l *Load) Use(b *bus.Bus) { l.bus.Store(b) }

// Publish publishes from several goroutines, each waiting for its own confirmation, and returns when ctx has ended and the
// last call has come back. Some events have partition keys, some deadlines are milliseconds.
func (l *Load) Publish(ctx context.Context) {
	defer l.stalls.watch(ctx)()
	var all sync.WaitGroup
	for p := range publishers {
		random := rand.New(rand.NewPCG(l.Seed, uint64(p))) //nolint:gosec // a schedule to be repeated
		all.Go(func() {
			for ctx.Err() == nil {
				err := l.publish(ctx, l.draw(random), textBytes)
				switch { // the loop looks at ctx itself
				case err != nil:
					_ = Pause(ctx, afterFailure)
				case l.eased.Load():
					_ = Pause(ctx, easy)
				}
			}
		})
	}
	all.Wait()
}

// PublishLarge publishes one event of so many bytes, which counts like the others.
func (l *Load) PublishLarge(ctx context.Context, bytes int) error {
	return l.publish(ctx, Properties{Mandatory: true, Deadline: 30 * time.Second}, bytes)
}

// draw chooses how the next event is published.
func (l *Load) draw(random *rand.Rand) Properties {
	p := Properties{Deadline: 30 * time.Second, Mandatory: random.IntN(2) == 0 || l.Mandatory}
	switch random.IntN(20) {
	case 0:
		p.Deadline = time.Duration(5+random.IntN(45)) * time.Millisecond
	case 1:
		p.Deadline = time.Duration(1+random.IntN(2)) * time.Second
	}
	if random.IntN(4) == 0 {
		p.PartitionKey = fmt.Sprint(random.IntN(8))
	}
	return p
}

// publish publishes one event. The end of ctx ends the wait for room, not the publish.
func (l *Load) publish(ctx context.Context, p Properties, bytes int) error {
	n, ok := l.Ledger.Begin(ctx, p)
	if !ok {
		return ctx.Err()
	}
	e := &Worked{Number: n, Text: fmt.Sprintf("%*d", bytes, n)}
	begun := time.Now()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.Deadline)
	defer cancel()
	_, err := l.bus.Load().PublishWith(bounded, l.Topic, e, bus.PublishOptions{PartitionKey: p.PartitionKey, Mandatory: p.Mandatory})
	l.Ledger.Published(n, err, l.stalls.overdue(begun.Add(p.Deadline), time.Now()))
	return err
}

// Pause returns after d, or with an error when ctx ends.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
