package events

import (
	"context"
	"log/slog"
	"sync"
	"time"

	contract "github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// Hints tell the nodes that share a log of appends, over the bus: as EventsAppendedEvent, whose loss costs those who follow the log the time
// until they look by themselves. A burst of appends is one hint. A nil *Hints tells nobody.
type Hints struct {
	cfg  HintsConfig
	news chan int64 // the last position that nobody was told of

	end  context.CancelFunc
	done sync.WaitGroup
}

// HintsConfig describes Hints.
type HintsConfig struct {
	// Bus carries the hints. Required.
	Bus *bus.Bus
	// Log is the name that the log has on all nodes. Required.
	Log string
	// InstanceID is the name of this node's instance, whose own hints it need not hear. Required.
	InstanceID string
	// Logger hears of a bus that is away. Default: none.
	Logger *slog.Logger
}

const (
	hintGap   = 2 * time.Millisecond // between two hints
	hintRetry = time.Second          // between attempts to listen, while the bus is away
)

// NewHints makes hints that begin with the service.
func NewHints(cfg HintsConfig) *Hints {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Hints{cfg: cfg, news: make(chan int64, 1)}
}

// Appended tells others soon, and does not wait. It is for eventstore.Config.OnAppend.
func (h *Hints) Appended(_ context.Context, position int64) {
	for {
		select {
		case h.news <- position:
			return
		default:
		}
		select { // the one before is superseded
		case <-h.news:
		default:
		}
	}
}

// start tells and listens until stop, however long what starts it waits.
func (h *Hints) start(log *eventstore.Store) {
	if h == nil {
		return
	}
	var ctx context.Context
	ctx, h.end = context.WithCancel(context.Background())
	h.done.Go(func() { h.tell(ctx) })
	h.done.Go(func() { h.listen(ctx, log) })
}

func (h *Hints) stop() {
	if h != nil && h.end != nil {
		h.end()
		h.done.Wait()
	}
}

func (h *Hints) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case position := <-h.news:
			_, err := h.cfg.Bus.PublishWith(ctx, contract.TopicEventsAppended,
				&contract.EventsAppendedEvent{Log: h.cfg.Log, Position: position, SourceInstanceID: h.cfg.InstanceID}, bus.PublishOptions{Transient: true})
			if err != nil && ctx.Err() == nil {
				h.cfg.Logger.DebugContext(ctx, "other nodes were not told of an append; they look by themselves", "error", err)
			}
			if !pause(ctx, hintGap) {
				return
			}
		}
	}
}

// listen hears of other nodes' appends, as soon as there is a bus.
func (h *Hints) listen(ctx context.Context, log *eventstore.Store) {
	for {
		sub, err := bus.Subscribe(ctx, h.cfg.Bus, contract.TopicEventsAppended, func(_ context.Context, e *contract.EventsAppendedEvent) error {
			if e.Log == h.cfg.Log && e.SourceInstanceID != h.cfg.InstanceID {
				log.Hint()
			}
			return nil
		}, bus.SubscriptionOptions{AutoAck: true, NoDeadLetter: true, Service: "events"})
		if err != nil {
			if !pause(ctx, hintRetry) {
				return
			}
			continue
		}
		<-ctx.Done()
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := sub.Close(closing); err != nil {
			h.cfg.Logger.DebugContext(closing, "the queue of the hints did not close; it goes with its connection", "error", err)
		}
		return
	}
}

// pause returns false when ctx ends before d has passed.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
