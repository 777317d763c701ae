package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Worked is the event of a load.
type Worked struct {
	EventID   string    `json:"eventId"`
	Timestamp time.Time `json:"timestamp"`
	Number    int       `json:"number"`
	Text      string    `json:"text"`
}

// EventName is the type that the event travels with.
func (*Worked) EventName() string { return "WorkedEvent" }

// Stamp gives the event an id and a time.
func (e *Worked) Stamp(id string, at time.Time) (string, time.Time) {
	e.EventID, e.Timestamp = id, at
	return id, at
}

// errFirst is the failure of a handler that succeeds the next time.
var errFirst = errors.New("fails on the first delivery") //nolint:gochecknoglobals // a sentinel

// Handle registers the subscriptions of a load. The first fails on the first delivery of every tenth event.
func Handle(b *bus.Bus, topic string, l *Ledger) error {
	retry := &bus.RetryPolicy{Immediate: -1, MaxAttempts: 1000, Delay: 200 * time.Millisecond}
	for s := range Subscriptions {
		h := func(ctx context.Context, e *Worked) error {
			if r, _ := bus.ReceivedFrom(ctx); s == 0 && e.Number%10 == 7 && r.Attempt == 1 {
				return errFirst
			}
			l.Handled(s, e.Number)
			return nil
		}
		if err := bus.Handle(b, topic, fmt.Sprintf("load-%d", s), h, bus.SubscriptionOptions{Retry: retry, PrefetchCount: 100}); err != nil {
			return err
		}
	}
	return nil
}

// Publish publishes from several goroutines, each waiting for its own confirmation, and returns when ctx has ended and the
// last call has come back. Some events have partition keys, some deadlines are milliseconds.
func Publish(ctx context.Context, b *bus.Bus, topic string, l *Ledger, seed uint64) {
	var publishers sync.WaitGroup
	for p := range 16 {
		random := rand.New(rand.NewPCG(seed, uint64(p))) //nolint:gosec // a schedule to be repeated
		publishers.Go(func() {
			for ctx.Err() == nil {
				publish(b, topic, l, random)
			}
		})
	}
	publishers.Wait()
}

func publish(b *bus.Bus, topic string, l *Ledger, random *rand.Rand) {
	limit, o := 30*time.Second, bus.PublishOptions{Mandatory: random.IntN(2) == 0}
	switch random.IntN(20) {
	case 0:
		limit = time.Duration(5+random.IntN(45)) * time.Millisecond
	case 1:
		limit = time.Duration(1+random.IntN(2)) * time.Second
	}
	if random.IntN(4) == 0 {
		o.PartitionKey = fmt.Sprint(random.IntN(8))
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	n, begin := l.Begin(), time.Now()
	_, err := b.PublishWith(ctx, topic, &Worked{Number: n, Text: fmt.Sprintf("%256d", n)}, o)
	l.Published(n, err, time.Since(begin)-limit)
	if err != nil { // one that fails at once must not be a hot loop
		pause, stop := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer stop()
		<-pause.Done()
	}
}
