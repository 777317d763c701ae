package eventstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// SubscriptionConfig describes a subscription.
type SubscriptionConfig struct {
	// Name is where it goes on from, also in another process. 1 to 255 bytes. Required.
	Name string

	// Category and Stream say which events it has: with neither all, with one those of it.
	Category string
	Stream   StreamID

	// From is the position after which a subscription begins that is new, or the version where it is one stream's. Default: 0, the beginning.
	From int64

	// Await is called once, by a goroutine of the subscription: no partition is asked for before it returns nil. With an error the subscription does
	// nothing until Close. ctx ends with Close. It is for who sends events to what may not be there yet. Default: nothing is waited for.
	Await func(ctx context.Context) error

	// Handle is given one event after the other. An event was handled when it returns nil; after a crash, or the loss of a lease, the last ones are
	// handled again, up to Batch of them. When a database is killed, it may have shown an event that it then does not have, and this may have been handled.
	// ctx ends when the part of the subscription is lost. One of the handlers is required.
	Handle func(ctx context.Context, e Recorded) error

	// HandleIn is Handle with a transaction of the log's own database, in which the event is marked as handled too: what it changes there is
	// changed once. The transaction may be of several events, and may be made again from its beginning. Engines in memory have none.
	HandleIn func(ctx context.Context, tx *sql.Tx, e Recorded) error

	// Begin is Handle without the wait, for what is sent elsewhere and confirmed later: it begins to handle an event, and returns what waits for its
	// end. Up to InFlight events are under way at a time, of one stream one: an event is begun when the one before it in its stream has ended well
	// or is parked. The position stays before the first that has not ended, so that after a crash up to Batch and four times InFlight events come
	// again. No event is begun after the lease has ended, also where the process was stopped meanwhile. Both functions are called by one
	// goroutine for each partition, and must return when ctx ends.
	Begin func(ctx context.Context, e Recorded) (end func() error)

	// InFlight is how many events of Begin are under way at most. Default: 256.
	InFlight int

	// HandleBatch and HandleBatchIn are Handle and HandleIn for several events at once, in their order, Batch at most. When they fail, each half
	// of the events is tried, down to the one that fails alone. HandleBatch is given only what a database that is killed then still has, for which a
	// transaction is made before the first batch of what was read.
	HandleBatch   func(ctx context.Context, events []Recorded) error
	HandleBatchIn func(ctx context.Context, tx *sql.Tx, events []Recorded) error

	// Partitions is how many consumers, in this process and others, can share the subscription. Each has some of the streams. Events of one stream are
	// handled in order, those of different partitions at the same time. It is the same for all consumers, and cannot be changed
	// later. Default: 1, and all events are handled in the order of the log.
	Partitions int

	// Lease is how long a consumer that says nothing keeps its partitions. Default: 15 s. At least 50 ms.
	Lease time.Duration

	// Poll is how often is looked for new events of which no hint came. Default: 250 ms.
	Poll time.Duration

	// Batch is after how many events at most the position is entered. Default: 100.
	Batch int

	// Attempts is how often an event is handled at most before its stream is parked. Errors that wrap state.ErrUnavailable or
	// state.ErrOutcomeUnknown do not count, nor do those of a transaction that its database has lost, or has no room for: the event waits for what is
	// away, and its partition with it. One that wraps ErrPoison is the last.
	// Default: 5.
	Attempts int

	// Backoff is the pause after the first failure of an event; each one after it is twice as long, up to 100 times this one. Default: 20 ms.
	Backoff time.Duration
}

// ErrPoison marks a handler's error as one that no further attempt mends: the event's stream is parked at once.
var ErrPoison = errors.New("the event cannot be handled")

// A Subscription hands the events of a log to a handler: those that there are, then those that come. It owns goroutines until Close.
type Subscription struct {
	store    *Store
	cfg      SubscriptionConfig
	consumer string // names this one among all
	metrics  *subscriptionMetrics

	ctx     context.Context //nolint:containedctx // ends the handlers
	cancel  context.CancelFunc
	stop    chan struct{} // closed when no more events are to be handled
	stopped sync.Once
	done    chan struct{} // closed when all goroutines have ended
}

// Subscribe starts a subscription. It does not wait for the engine: while that is away, nothing is handled.
func (s *Store) Subscribe(cfg SubscriptionConfig) (*Subscription, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("eventstore: subscription %q: %w", cfg.Name, err)
	}
	if cfg.transactional() && !s.engine.Transactional() {
		return nil, fmt.Errorf("eventstore: subscription %q: %w: this engine has no transactions for HandleIn; use Handle", cfg.Name, state.ErrUnsupported)
	}
	metrics, err := newSubscriptionMetrics(s.cfg.MeterProvider, cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("eventstore: subscription %q: metrics: %w", cfg.Name, err)
	}
	sub := &Subscription{store: s, cfg: cfg, consumer: rand.Text(), metrics: metrics, stop: make(chan struct{}), done: make(chan struct{})}
	sub.ctx, sub.cancel = context.WithCancel(context.Background())
	go sub.consume()
	return sub, nil
}

func (c *SubscriptionConfig) complete() error {
	switch {
	case c.Name == "" || len(c.Name) > MaxIDBytes:
		return fmt.Errorf("%w: its name has 1 to %d bytes", state.ErrInvalid, MaxIDBytes)
	case c.handlers() != 1:
		return fmt.Errorf("%w: it needs one of Handle, HandleIn, Begin, HandleBatch and HandleBatchIn", state.ErrInvalid)
	case c.Category != "" && c.Stream != StreamID{}:
		return fmt.Errorf("%w: it is of a category or of a stream", state.ErrInvalid)
	case c.From < 0 || c.Partitions < 0 || c.Partitions > 1024 || c.Poll < 0 || c.Batch < 0 || c.InFlight < 0 || c.Attempts < 0 || c.Backoff < 0:
		return fmt.Errorf("%w: its numbers are not negative, and it has 1024 partitions at most", state.ErrInvalid)
	}
	if c.Category != "" {
		if err := checkCategory(c.Category); err != nil {
			return err
		}
	}
	if (c.Stream != StreamID{}) {
		if err := c.Stream.check(); err != nil {
			return err
		}
	}
	if c.Partitions == 0 {
		c.Partitions = 1
	}
	if c.Lease == 0 {
		c.Lease = 15 * time.Second
	}
	if c.Lease < 50*time.Millisecond {
		return fmt.Errorf("%w: its lease is 50 ms at least", state.ErrInvalid)
	}
	if c.Poll == 0 {
		c.Poll = defaultPoll
	}
	if c.Batch == 0 {
		c.Batch = 100
	}
	if c.InFlight == 0 {
		c.InFlight = 256
	}
	if c.Attempts == 0 {
		c.Attempts = 5
	}
	if c.Backoff == 0 {
		c.Backoff = 20 * time.Millisecond
	}
	return nil
}

func (c *SubscriptionConfig) handlers() (n int) {
	for _, given := range []bool{c.Handle != nil, c.HandleIn != nil, c.Begin != nil, c.HandleBatch != nil, c.HandleBatchIn != nil} {
		if given {
			n++
		}
	}
	return n
}

// transactional reports whether events are marked as handled in the handler's own transaction.
func (c *SubscriptionConfig) transactional() bool { return c.HandleIn != nil || c.HandleBatchIn != nil }

// call hands events to the handler; there is one unless that takes several. That it panics is a failure like another.
func (c *SubscriptionConfig) call(ctx context.Context, tx *sql.Tx, events []Recorded) (err error) {
	defer recovered(&err)
	switch {
	case c.HandleBatchIn != nil:
		return c.HandleBatchIn(ctx, tx, events)
	case c.HandleBatch != nil:
		return c.HandleBatch(ctx, events)
	}
	for _, e := range events {
		switch {
		case c.HandleIn != nil:
			err = c.HandleIn(ctx, tx, e)
		case c.Begin != nil:
			err = c.Begin(ctx, e)()
		default:
			err = c.Handle(ctx, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// scope is what the subscription reads.
func (c *SubscriptionConfig) scope() Range {
	if (c.Stream != StreamID{}) {
		return Range{Category: c.Stream.Category, ID: c.Stream.ID}
	}
	return Range{Category: c.Category}
}

// partOf is the partition of a stream. Released ones never change.
func (c *SubscriptionConfig) partOf(s StreamID) int {
	if c.Partitions == 1 {
		return 0
	}
	return int(crc32.ChecksumIEEE([]byte(s.String())) % uint32(c.Partitions))
}

// Close waits until the events that are being handled are, enters the position and gives the partitions to others. When ctx ends first, the
// handlers' contexts end, and it waits for them to return.
func (s *Subscription) Close(ctx context.Context) error {
	s.stopped.Do(func() { close(s.stop) })
	select {
	case <-s.done:
	case <-ctx.Done():
		s.cancel()
		<-s.done
	}
	s.cancel()
	return s.metrics.close()
}

// stopping reports whether no more events are to be handled.
func (s *Subscription) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// consume has as many partitions as are this consumer's share, until Close.
func (s *Subscription) consume() {
	defer close(s.done)
	defer s.cancel()
	if !s.awaited() {
		return
	}
	parts := map[int]*part{}
	ended := make(chan *part, s.cfg.Partitions)
	tick := time.NewTicker(s.cfg.Lease / 3)
	defer tick.Stop()
	for !s.stopping() {
		s.share(parts, ended)
		select {
		case <-s.stop:
		case <-tick.C:
		case <-s.retry(parts):
		case p := <-ended:
			delete(parts, p.lease.Part)
		}
	}
	for len(parts) > 0 {
		p := <-ended
		delete(parts, p.lease.Part)
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Lease)
	defer cancel()
	if err := s.store.engine.Retire(ctx, s.cfg.Name, s.consumer); err != nil {
		s.warn("a consumer cannot say that it has ended; others wait for its lease to end", err)
	}
}

// awaited waits for what has to be there before events are handled. False: the subscription is closed.
func (s *Subscription) awaited() bool {
	if s.cfg.Await == nil {
		return true
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var err error
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		err = s.cfg.Await(ctx)
	}()
	select {
	case <-returned:
		if err == nil {
			return true
		}
		s.warn("the subscription cannot begin", err)
		<-s.stop
	case <-s.stop:
		cancel()
		<-returned
	}
	return false
}

// retry is soon where the consumer has fewer partitions than there are: one may be free by now.
func (s *Subscription) retry(parts map[int]*part) <-chan time.Time {
	if len(parts) == s.cfg.Partitions {
		return nil
	}
	return time.After(min(s.cfg.Lease/3, 4*s.cfg.Poll))
}

// share takes partitions that are free, or gives up some, so that each of the consumers has as many as its share.
func (s *Subscription) share(parts map[int]*part, ended chan<- *part) {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Lease)
	defer cancel()
	consumers, err := s.store.engine.Enlist(ctx, s.cfg.Name, s.consumer, s.cfg.Lease)
	if err != nil {
		s.warn("a consumer cannot enlist, and will try again", err)
		return
	}
	most := (s.cfg.Partitions + consumers - 1) / consumers
	stay := 0
	for _, p := range parts {
		if p.left.Load() {
			continue
		}
		if stay++; stay > most {
			p.left.Store(true)
		}
	}
	begin := int(crc32.ChecksumIEEE([]byte(s.consumer)) % uint32(s.cfg.Partitions)) // so that consumers do not all ask for the same
	for i := range s.cfg.Partitions {
		n := (begin + i) % s.cfg.Partitions
		if len(parts) >= most || s.stopping() {
			return
		}
		if parts[n] != nil {
			continue
		}
		asked := time.Now()
		lease, claimed, err := s.store.engine.Claim(ctx, Claim{Name: s.cfg.Name, Part: n, Parts: s.cfg.Partitions, From: s.cfg.From, Consumer: s.consumer, Lives: s.cfg.Lease})
		if err != nil {
			s.warn("a partition cannot be claimed, and will be tried again", err)
			return
		}
		if claimed {
			parts[n] = s.start(lease, asked, ended)
		}
	}
}

func (s *Subscription) warn(what string, err error) {
	if s.ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		s.store.cfg.Logger.Warn(what, "subscription", s.cfg.Name, "error", err)
	}
}

// Marks tells how far a subscription is, by partition.
func (s *Store) Marks(ctx context.Context, subscription string) ([]Mark, error) {
	marks, err := s.engine.Marks(ctx, subscription)
	if err != nil {
		return nil, fmt.Errorf("eventstore: subscription %q: %w", subscription, err)
	}
	return marks, nil
}

// Parked tells which streams are set aside in a subscription.
func (s *Store) Parked(ctx context.Context, subscription string) ([]Parked, error) {
	parked, err := s.engine.Parked(ctx, subscription)
	if err != nil {
		return nil, fmt.Errorf("eventstore: subscription %q: %w", subscription, err)
	}
	return parked, nil
}

// Unpark has a subscription go on with a stream that was set aside, at the event that could not be handled, or with skip behind it. It returns
// before that is done: the stream is parked until all its events are handled, and stays so if one fails. state.ErrNotFound: it is not parked.
func (s *Store) Unpark(ctx context.Context, subscription string, stream StreamID, skip bool) error {
	found, err := s.engine.Unpark(ctx, subscription, stream, skip)
	if err == nil && !found {
		err = fmt.Errorf("%w: stream %s is not parked", state.ErrNotFound, stream)
	}
	if err != nil {
		return fmt.Errorf("eventstore: subscription %q: %w", subscription, err)
	}
	return nil
}

// defaultPoll is how often is looked for events of which no hint came.
const defaultPoll = 250 * time.Millisecond
