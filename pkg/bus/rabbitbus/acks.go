package rabbitbus

import (
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// gatherFor is how long an acknowledgement waits for others at most. It waits only while as many deliveries are at work
// as wait to be acknowledged: what holds up the broker goes at once.
const gatherFor = 200 * time.Microsecond

// acks gathers the acknowledgements of one channel. What is settled without a gap goes as one with "multiple"; what lies
// behind a delivery that is still at work goes by itself, so that it does not take its place in the prefetch window.
//
// Consuming 1 KiB events with a prefetch of 100, thirteen go at a time, and an event takes 68 to 70 microseconds where one
// by one it takes 73 to 89.
type acks struct {
	ch   *amqp.Channel
	wake chan struct{} // has one slot: there is something to write
	due  chan struct{} // has one slot: it has to be written now

	writing sync.Mutex // held by who writes

	mu      sync.Mutex
	atWork  int                 // deliveries that are not answered yet
	through uint64              // every tag up to this one is settled, and the broker knows
	settled map[uint64]struct{} // tags above, settled; those answered one by one already are in it too
	pending []uint64            // tags to acknowledge
	spare   []uint64
	failure error
}

func newAcks(ch *amqp.Channel) *acks {
	return &acks{ch: ch, wake: make(chan struct{}, 1), due: make(chan struct{}, 1), settled: map[uint64]struct{}{}}
}

// arrived counts a delivery that is to be answered.
func (a *acks) arrived() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.atWork++
}

// ack acknowledges a delivery soon. The error is that of an earlier one: the channel is gone then, and the broker
// delivers again what it did not hear of.
func (a *acks) ack(tag uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure == nil && a.ch.IsClosed() {
		a.failure = amqp.ErrClosed
	}
	if a.failure != nil {
		return a.failure
	}
	a.atWork--
	a.pending = append(a.pending, tag)
	if len(a.pending) == 1 {
		signal(a.wake)
	}
	if a.isDue() {
		signal(a.due)
	}
	return nil
}

// ackNow acknowledges a delivery before it returns.
func (a *acks) ackNow(tag uint64) error { return a.now(tag, a.ch.Ack(tag, false)) }

// nack gives a delivery back to its queue.
func (a *acks) nack(tag uint64) error { return a.now(tag, a.ch.Nack(tag, false, true)) }

// now notes what was answered already, so that it leaves no gap.
func (a *acks) now(tag uint64, err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.atWork--
	a.settled[tag] = struct{}{}
	return err
}

// isDue reports whether what has gathered must not wait. The caller holds mu.
func (a *acks) isDue() bool { return len(a.pending) >= a.atWork }

// signal fills a channel's one slot.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes until the channel is gone.
func (a *acks) run(gone <-chan struct{}) {
	timer := time.NewTimer(gatherFor)
	defer timer.Stop()
	for {
		select {
		case <-a.wake:
			a.gather(timer, gone)
			a.flush()
		case <-gone:
			a.mu.Lock()
			defer a.mu.Unlock()
			a.failure = amqp.ErrClosed
			return
		}
	}
}

// gather waits until there is enough to write, or it must go.
func (a *acks) gather(timer *time.Timer, gone <-chan struct{}) {
	a.mu.Lock()
	now := a.isDue()
	a.mu.Unlock()
	if now {
		return
	}
	timer.Reset(gatherFor)
	select {
	case <-a.due:
	case <-timer.C:
	case <-gone:
	}
}

// flush writes what has gathered.
func (a *acks) flush() {
	a.writing.Lock()
	defer a.writing.Unlock()
	a.mu.Lock()
	batch := a.pending
	a.pending = a.spare[:0]
	for _, tag := range batch {
		a.settled[tag] = struct{}{}
	}
	through := a.through
	for {
		if _, found := a.settled[through+1]; !found {
			break
		}
		through++
		delete(a.settled, through)
	}
	advanced := through > a.through
	before := a.through
	a.through = through
	a.mu.Unlock()

	var err error
	if advanced {
		err = a.upTo(batch, before, through)
	}
	for _, tag := range batch {
		if tag > through && err == nil {
			err = a.ch.Ack(tag, false)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spare = batch
	if err != nil {
		a.failure = err
	}
}

// upTo acknowledges what of the batch lies in the gapless run. The last tag may have been answered by itself before, or
// nacked, and the broker closes a channel over a tag that it does not know: so the highest of the batch is named.
func (a *acks) upTo(batch []uint64, before, through uint64) error {
	var highest uint64
	for _, tag := range batch {
		if tag > before && tag <= through {
			highest = max(highest, tag)
		}
	}
	if highest == 0 {
		return nil
	}
	return a.ch.Ack(highest, true)
}
