package bus

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"sync"
)

const (
	// replayLanes is how many letters are replayed at a time. Those of one queue with the same partition key take the same
	// lane, so they keep their order.
	replayLanes = 64
	// maxNamed bounds the ids and the failures that an answer names; all are counted.
	maxNamed = 100
)

// SettleOptions are for replaying and discarding dead letters.
type SettleOptions struct {
	// DryRun only counts and names what would be done.
	DryRun bool
	// Progress is told after each letter, by one goroutine at a time. It must be quick: the work waits for it.
	Progress func(LetterProgress)
}

// LetterProgress is how far a replay or a discard has come.
type LetterProgress struct {
	Total   int64 // letters in the store when the reading began
	Read    int64 // of them, looked at
	Matched int64
	Done    int64 // replayed or discarded
	Failed  int64 // in the store still
}

// Settled is what a replay or a discard did.
type Settled struct {
	LetterProgress
	IDs      []string        // of the letters that were settled, or would be; at most 100
	Failures []LetterFailure // at most 100
}

// LetterFailure is a letter that stayed, and why.
type LetterFailure struct {
	ID  string
	Err error
}

// ReplayLetters puts dead letters back into the queue of the subscription that gave them up, and into no other, as first
// deliveries without their history and without an expiration. A letter is removed only when the broker has confirmed its
// copy: whatever dies in between, the event is delivered twice, never lost. Letters of one queue with the same partition
// key are sent in order.
//
// A letter whose queue is gone (ErrUnroutable) or unknown (ErrInvalid) stays, and is among the failures. The error is for
// what ended the work early; Settled, nil only where the filter is ErrInvalid, tells what was done until then. Two that replay at once take turns.
func (b *Bus) ReplayLetters(ctx context.Context, f LetterFilter, o SettleOptions) (*Settled, error) {
	return b.settleLetters(ctx, f, o, func(l *Letter) error { return b.replay(ctx, l) })
}

// DiscardLetters removes dead letters. It is counted as dropped (bannou.bus.dropped). The error is for what ended the work
// early; Settled tells what was done until then.
func (b *Bus) DiscardLetters(ctx context.Context, f LetterFilter, o SettleOptions) (*Settled, error) {
	done, err := b.settleLetters(ctx, f, o, func(*Letter) error { return nil })
	if done != nil && !o.DryRun {
		b.telemetry.discarded(ctx, done.Done)
	}
	return done, err
}

func (b *Bus) replay(ctx context.Context, l *Letter) error {
	if l.Queue == "" {
		return fmt.Errorf("%w: the letter does not say which queue gave it up; publish it again to its topic, or discard it", ErrInvalid)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.PublishTimeout)
	defer cancel()
	return b.driver.Redeliver(ctx, l.Queue, &Message{
		Exchange: cmp.Or(l.Exchange, b.cfg.Exchange), RoutingKey: l.Topic,
		ID: l.MessageID, Type: l.Type, ContentType: l.ContentType, Timestamp: l.QueuedAt, CorrelationID: l.CorrelationID,
		Priority: l.Priority, Headers: l.Headers, Body: l.Body,
	})
}

// settlement is one replay or discard at work.
type settlement struct {
	options SettleOptions
	act     func(*Letter) error

	mu   sync.Mutex
	done Settled
}

// handed is a letter on its way to a lane.
type handed struct {
	letter   *Letter
	delivery Delivery
}

func (b *Bus) settleLetters(ctx context.Context, f LetterFilter, o SettleOptions, act func(*Letter) error) (*Settled, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	s := &settlement{options: o, act: act}
	seed := maphash.MakeSeed()
	lanes := make([]chan handed, replayLanes)
	var working sync.WaitGroup
	for i := range lanes {
		lane := make(chan handed)
		lanes[i] = lane
		working.Go(func() {
			for h := range lane {
				s.settle(h)
			}
		})
	}
	err := b.readLetters(ctx, letterReader{
		opened: func(total int64) { s.done.Total = total },
		each: func(l *Letter, d Delivery) error {
			matched := f.matches(l)
			s.pass(matched)
			if matched {
				key := cmp.Or(l.Headers[HeaderPartitionKey], l.ID)
				lanes[maphash.String(seed, l.Queue+"\x00"+key)%replayLanes] <- handed{l, d}
			}
			return nil
		},
		finish: func() {
			for _, lane := range lanes {
				close(lane)
			}
			working.Wait()
		},
	})
	return &s.done, err
}

// pass counts a letter that was read.
func (s *settlement) pass(matched bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done.Read++
	if matched {
		s.done.Matched++
		return // settle tells of it
	}
	s.tell()
}

// settle does what is to be done with one letter, and takes it out of the store.
func (s *settlement) settle(h handed) {
	var err error
	if !s.options.DryRun {
		if err = s.act(h.letter); err == nil {
			err = h.delivery.Ack()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.done.Done++
		if len(s.done.IDs) < maxNamed {
			s.done.IDs = append(s.done.IDs, h.letter.ID)
		}
	} else {
		s.done.Failed++
		if len(s.done.Failures) < maxNamed {
			s.done.Failures = append(s.done.Failures, LetterFailure{h.letter.ID, err})
		}
	}
	s.tell()
}

func (s *settlement) tell() {
	if s.options.Progress != nil {
		s.options.Progress(s.done.LetterProgress)
	}
}
