package migration

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/migration/migrationapi"
)

//go:embed openapi.yaml
var openAPI []byte

// An Item is a store, a service's messaging, or calls to a target, as this node's settings have it.
type Item struct {
	Kind, Name, Block string

	Running string // the way that this process has since it started
	Engine  string // what keeps or carries it
	Setting string // the setting that chooses, over all decisions; empty: none does
	Chosen  string // the way that it chooses
	Rest    string // the way that is left when neither a setting nor a decision says anything
	NoDapr  string // the setting that says that there is no Dapr; empty: none does

	Obstacles []string // what keeps it from moving to the other way, each a sentence
}

// next is the way that the next start brings, and whether a decision is overruled by it.
func (i *Item) next(d *Decision) (way string, overruled bool) {
	switch {
	case i.Setting != "":
		return i.Chosen, d != nil && d.To != i.Chosen
	case d == nil:
		return i.Rest, false
	case d.To == Dapr && i.NoDapr != "":
		return i.Rest, true
	default:
		return d.To, false
	}
}

// Config describes a Service.
type Config struct {
	AppID, InstanceID string

	// File keeps the decisions. Required.
	File *File

	// Items are what this node has. Required.
	Items func(ctx context.Context) []Item

	// Target is the item of calls to a name that is not among Items. Default: only what is there can be switched.
	Target func(name string) Item

	// Compared is what comparing the two ways of an item has found within a span; false: it is not compared. Default: nothing is.
	Compared func(item Item, window time.Duration) (migrationapi.MigrationComparison, bool)

	// Check says what is wrong with the way that an item would go to, such as a broker that is away. Default: nothing is.
	Check func(ctx context.Context, item Item, to string) error

	// Obstacles are what is in the way of more than one item, each a sentence. Default: none.
	Obstacles func(ctx context.Context) []string

	// Bus hears of stores that are switched (state.migration). Required.
	Bus *bus.Bus

	// Least is how many keys or events must have been compared for a switch to be safe. Default: 100.
	Least int64
	// Retry is the pause after an event that the bus did not take. Default: 1 s.
	Retry time.Duration
	// Timeout bounds the work of one request. Default: 10 s.
	Timeout time.Duration
	// Logger hears of decisions. Default: none.
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// A Service is the migration service of a host.
type Service struct {
	host.Base
	cfg Config

	deciding   sync.Mutex
	end        context.CancelFunc
	background sync.WaitGroup
}

// New makes the service.
func New(cfg Config) (*Service, error) {
	if cfg.File == nil || cfg.Items == nil || cfg.Bus == nil {
		return nil, errors.New("migration: the service needs a file, items and a bus")
	}
	cfg.Least = cmp.Or(cfg.Least, 100)
	cfg.Retry = cmp.Or(cfg.Retry, time.Second)
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	if cfg.Compared == nil {
		cfg.Compared = func(Item, time.Duration) (c migrationapi.MigrationComparison, ok bool) { return c, false }
	}
	if cfg.Check == nil {
		cfg.Check = func(context.Context, Item, string) error { return nil }
	}
	if cfg.Obstacles == nil {
		cfg.Obstacles = func(context.Context) []string { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg, end: func() {}}, nil
}

// Name is "migration".
func (s *Service) Name() string { return "migration" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return openAPI }

// Start tells of the stores that were switched with this start, in the background.
func (s *Service) Start(ctx context.Context) error {
	var life context.Context
	life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.background.Go(func() { s.tellCompleted(life) })
	return nil
}

// Stop ends that. What was not told is told after the next start.
func (s *Service) Stop(context.Context) error {
	s.end()
	s.background.Wait()
	return nil
}

// tellCompleted tells of each decision that this process runs by, once.
func (s *Service) tellCompleted(ctx context.Context) {
	decided, err := s.cfg.File.Read()
	if err != nil {
		s.cfg.Logger.ErrorContext(ctx, "the stores that were switched cannot be told of", "error", err)
		return
	}
	running := map[string]string{}
	for _, item := range s.cfg.Items(ctx) {
		if item.Kind == KindStore {
			running[item.Name] = item.Running
		}
	}
	for _, d := range decided {
		if d.Kind != KindStore || d.Told || running[d.Name] != d.To {
			continue
		}
		for s.tell(ctx, s.cfg.Timeout, d.Name, events.StoreMigrationStatusCompleted, 0, 0, "") != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(s.cfg.Retry):
			}
		}
		if err := s.cfg.File.MarkTold(d); err != nil {
			s.cfg.Logger.ErrorContext(ctx, "that a store was switched was told, and will be again", "store", d.Name, "error", err)
		}
	}
}

// tell publishes how far the switch of a store is, within a time. What is told of one store is handled in its order.
func (s *Service) tell(ctx context.Context, within time.Duration, store string, status events.StoreMigrationStatus, compared, total int64, failure string) error {
	trying, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := s.cfg.Bus.PublishWith(trying, events.TopicStateMigration, &events.StoreMigrationEvent{
		StoreName: store, Status: status, KeysProcessed: compared, TotalKeys: total, ErrorMessage: failure,
	}, bus.PublishOptions{PartitionKey: store})
	if err != nil && ctx.Err() == nil {
		s.cfg.Logger.WarnContext(ctx, "nobody could be told of the switch of a store", "store", store, "status", string(status), "error", err)
	}
	return err
}
