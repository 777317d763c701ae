package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// WatchConfig describes a Watch.
type WatchConfig struct {
	// Here and There are the two ways. They belong to the caller. Required.
	Here, There bus.Driver
	// Topics are those that are counted. Required.
	Topics []string
	// Place is where a topic is on the other way, which may keep it under another name. Default: under its own.
	Place func(topic string) bus.Binding
	// Counts says which messages there are events of the other way, where native ones lie in the same place: on Redis a topic's stream is that of
	// both. Default: all are.
	Counts func(m *bus.Message) bool
	// Ledger counts. Required.
	Ledger *Ledger
	// Retry is the pause after a side could not be subscribed to. Default: 1 s.
	Retry time.Duration
	// Logger hears of a side that is away. Default: none.
	Logger *slog.Logger
}

// A Watch counts events until it is stopped.
type Watch struct {
	cfg  WatchConfig
	end  context.CancelFunc
	work sync.WaitGroup
}

// Start begins to count. A side that is away is subscribed to once it is there: what was published until then is missing on it.
func Start(cfg WatchConfig) (*Watch, error) {
	if cfg.Here == nil || cfg.There == nil || cfg.Ledger == nil || len(cfg.Topics) == 0 {
		return nil, errors.New("mirror: a watch needs two drivers, topics and a ledger")
	}
	if cfg.Place == nil {
		cfg.Place = func(topic string) bus.Binding { return bus.Binding{Pattern: topic} }
	}
	if cfg.Counts == nil {
		cfg.Counts = func(*bus.Message) bool { return true }
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, end := context.WithCancel(context.Background())
	w := &Watch{cfg: cfg, end: end}
	for _, topic := range cfg.Topics {
		cfg.Ledger.Watch(topic)
		for side, driver := range []bus.Driver{Here: cfg.Here, There: cfg.There} {
			w.work.Go(func() { w.read(ctx, driver, Side(side), topic) })
		}
	}
	return w, nil
}

// Close ends the counting, by the context's deadline.
func (w *Watch) Close(ctx context.Context) error {
	w.end()
	done := make(chan struct{})
	go func() { w.work.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("mirror: the watch has not ended in time: %w", context.Cause(ctx))
	}
}

// read counts the events of a topic on one side.
func (w *Watch) read(ctx context.Context, d bus.Driver, side Side, topic string) {
	place := bus.Binding{Pattern: topic}
	if side == There {
		place = w.cfg.Place(topic)
	}
	queue := bus.Queue{Name: "mirror." + topic + "." + uuid.NewString(), Bindings: []bus.Binding{place}, Exclusive: true, Prefetch: 100}
	var consumer bus.Consumer
	for {
		var err error
		if consumer, err = d.Subscribe(ctx, queue); err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		w.cfg.Logger.WarnContext(ctx, "the events of a topic cannot be counted on one side now", "topic", topic, "broker", d.Backend(), "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.cfg.Retry):
		}
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = consumer.Close(closing)
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case delivery, open := <-consumer.Deliveries():
			if !open {
				return
			}
			if m := delivery.Message(); side == Here || w.cfg.Counts(m) {
				w.cfg.Ledger.Saw(topic, side, idOf(m))
			}
			_ = delivery.Ack() // one that is not, comes again as doubled
		}
	}
}

// idOf is the event's own id, which is the same however it travels, in an envelope of Dapr too; where the body has none, the envelope's,
// and without one the message's.
func idOf(m *bus.Message) string {
	var body struct {
		EventID string         `json:"eventId"`
		Version string         `json:"specversion"`
		ID      string         `json:"id"`
		Data    jsontext.Value `json:"data"`
	}
	if json.Unmarshal(m.Body, &body) != nil {
		return m.ID
	}
	if body.Version == "" {
		return cmp.Or(body.EventID, m.ID)
	}
	var data struct {
		EventID string `json:"eventId"`
	}
	if body.Data.Kind() == '{' {
		_ = json.Unmarshal(body.Data, &data) // what has none, goes by the envelope's
	}
	return cmp.Or(data.EventID, body.ID, m.ID)
}
