package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/relay"
)

// AnnouncementsConfig describes Announcements.
type AnnouncementsConfig struct {
	// Bus carries the events. Required.
	Bus *bus.Bus
	// Source is named in the events as the service that made the change.
	Source string
	// Outbox is where the events of SQL stores wait. Default: none, they are published after the change like those of others.
	Outbox state.OutboxConfig
	// MeterProvider receives the metrics bannou.state.outbox.*. Default: none.
	MeterProvider metric.MeterProvider
	// Logger hears of events that were not published. Default: nobody.
	Logger *slog.Logger
}

// Announcements publish a StateChangedEvent for each change of a store that has PublishChanges. Where the store's engine
// can, the event is in an outbox with the change, in one transaction, and is sent from there: none is lost, and none is
// made up. Otherwise it is published after the change: the process may die in between, and a bus that is away for two
// seconds does not undo the change, which is logged.
//
// They are a service of a host that sends what waits in the outboxes. Make them, give their Options to the factory, then
// Open the outboxes.
type Announcements struct {
	host.Base
	cfg    AnnouncementsConfig
	relays map[string]*relay.Relay // by backend; not changed after Open
	boxes  map[string]state.Outbox // as relays

	life context.Context //nolint:containedctx // of the relays, ended by Stop
	end  context.CancelFunc
	work sync.WaitGroup
}

var (
	_ host.Service  = (*Announcements)(nil)
	_ host.Measured = (*Announcements)(nil)
)

// NewAnnouncements makes the announcements of one factory.
func NewAnnouncements(cfg AnnouncementsConfig) *Announcements {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Announcements{cfg: cfg, relays: map[string]*relay.Relay{}, boxes: map[string]state.Outbox{}}
	a.life, a.end = context.WithCancel(context.Background())
	return a
}

// Options are o with the announcements in them.
func (a *Announcements) Options(o state.Options) state.Options {
	o.OnChange = a.publish
	if a.cfg.Outbox.Name != "" {
		o.Announce = &state.Announce{Outbox: a.cfg.Outbox, Entry: a.entry, Added: a.added}
	}
	return o
}

// Open opens the outboxes of the factory's stores, before anybody changes them.
func (a *Announcements) Open(ctx context.Context, f *state.Factory) error {
	for _, store := range f.Stores() {
		if _, open := a.relays[store.Backend]; open || a.cfg.Outbox.Name == "" || !store.PublishChanges {
			continue
		}
		box, err := f.Outbox(ctx, store.Backend, a.cfg.Outbox)
		if errors.Is(err, state.ErrUnsupported) {
			continue
		}
		if err != nil {
			return err
		}
		a.boxes[store.Backend] = box
		if a.relays[store.Backend], err = relay.New(relay.Config{
			Outbox: box, Bus: a.cfg.Bus, Service: "state", Attributes: []attribute.KeyValue{attribute.String("backend", store.Backend)},
			MeterProvider: a.cfg.MeterProvider, Logger: a.cfg.Logger,
		}); err != nil {
			return err
		}
	}
	return nil
}

// Relays are what sends the outboxes, by backend. It is called after Open.
func (a *Announcements) Relays() map[string]*relay.Relay { return maps.Clone(a.relays) }

// Outboxes reports whether there are any.
func (a *Announcements) Outboxes() bool { return len(a.relays) > 0 }

// Name is "state-changes".
func (a *Announcements) Name() string { return "state-changes" }

// Start begins to send what waits, what earlier processes have left included.
func (a *Announcements) Start(context.Context) error {
	for backend, r := range a.relays {
		a.work.Go(func() {
			a.retryParked(a.life, backend)
			r.Run(a.life)
		})
	}
	return nil
}

// retryParked has events wait again that were set aside: they were rows that an earlier version of the program could not read.
func (a *Announcements) retryParked(ctx context.Context, backend string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if n, err := a.boxes[backend].Unpark(ctx); err != nil {
		a.cfg.Logger.DebugContext(ctx, "events that were set aside could not be tried again", "backend", backend, "error", err)
	} else if n > 0 {
		a.cfg.Logger.InfoContext(ctx, "events that were set aside are tried again", "backend", backend, "count", n)
	}
}

// Stop leaves what waits to the next process.
func (a *Announcements) Stop(context.Context) error {
	a.end()
	a.work.Wait()
	return nil
}

// Ready shows that events wait because the broker is away, that changes are refused because too many do, and that some
// were set aside. None of it makes the node unready: stores can be read, and those that announce nothing be written.
func (a *Announcements) Ready(context.Context) error {
	var errs []error
	for _, backend := range slices.Sorted(maps.Keys(a.relays)) {
		stats := a.relays[backend].Figures()
		switch {
		case stats.Depth >= a.cfg.Outbox.MaxEntries || stats.Bytes >= a.cfg.Outbox.MaxBytes:
			errs = append(errs, fmt.Errorf("the outbox on %s is full: changes of stores with publishChanges are refused", backend))
		case a.relays[backend].Away():
			errs = append(errs, fmt.Errorf("the broker is away: %d events wait in the outbox on %s", stats.Depth, backend))
		case stats.Parked > 0:
			errs = append(errs, fmt.Errorf("%d events of the outbox on %s cannot be sent and were set aside", stats.Parked, backend))
		}
	}
	return host.Degraded(errors.Join(errs...))
}

// Figures are those of the outboxes together: how many events wait, how long the oldest has waited in seconds, and how
// many were set aside because no broker takes them.
func (a *Announcements) Figures() map[string]float64 {
	sum := map[string]float64{"outboxDepth": 0, "outboxAgeSeconds": 0, "outboxParked": 0}
	for _, r := range a.relays {
		stats := r.Figures()
		sum["outboxDepth"] += float64(stats.Depth)
		sum["outboxParked"] += float64(stats.Parked)
		sum["outboxAgeSeconds"] = max(sum["outboxAgeSeconds"], r.Age().Seconds())
	}
	return sum
}

// publish is for stores whose engines have no outbox.
func (a *Announcements) publish(ctx context.Context, c state.Changed) {
	// The change is made: a caller that is gone does not keep it from being told.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if _, err := a.cfg.Bus.PublishWith(ctx, events.TopicStateChanged, a.event(c), bus.PublishOptions{PartitionKey: partition(c)}); err != nil {
		a.cfg.Logger.WarnContext(ctx, "a change of state was not announced", "store", c.Store, "error", err)
	}
}

// entry is the same event as a row of the outbox.
func (a *Announcements) entry(ctx context.Context, c state.Changed) (state.OutboxEntry, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return state.OutboxEntry{}, fmt.Errorf("cannot make an event id: %w", err)
	}
	e := a.event(c)
	e.Stamp(id.String(), time.Now().UTC())
	body, err := json.Marshal(e)
	if err != nil {
		return state.OutboxEntry{}, err
	}
	o := bus.PublishOptions{MessageID: id.String(), Type: e.EventName(), ContentType: "application/json", PartitionKey: partition(c)}
	if cause, handling := bus.ReceivedFrom(ctx); handling {
		o.CorrelationID = cmp.Or(cause.CorrelationID, cause.MessageID)
		o.Headers = map[string]string{bus.HeaderCausationID: cause.MessageID}
	}
	return relay.NewEntry(ctx, bus.Prepared{Topic: events.TopicStateChanged, Body: body, Options: o})
}

func (a *Announcements) added(backend string) {
	if r := a.relays[backend]; r != nil {
		r.Added(context.Background())
	}
}

func (a *Announcements) event(c state.Changed) *events.StateChangedEvent {
	return &events.StateChangedEvent{StoreName: c.Store, Key: c.Key,
		Operation: events.StateChangedOperation(c.Operation), ETag: c.ETag, SourceService: a.cfg.Source}
}

// partition keeps the changes of one key in order, within what a property may be long.
func partition(c state.Changed) string {
	key := c.Store + ":" + c.Key
	return strings.ToValidUTF8(key[:min(len(key), state.MaxKeyBytes)], "")
}
