package eventstore

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// DefaultTable is the table of a log on SQL engines, where Config names none.
const DefaultTable = "events"

// Config describes one log. The zero value is usable.
type Config struct {
	// Table is the log's table on SQL engines, and its name in memory. Other tables of the log have names that begin with it. Default:
	// DefaultTable.
	Table string

	// OnAppend is called after each append with the last position, by the goroutine that appended, before its call returns. It is for
	// telling other processes, which then call Store.Hint. Default: none.
	OnAppend func(ctx context.Context, position int64)

	// MasterKeys wrap the keys of subjects that Erase destroys: the first those that are made or wrapped anew, each those that it has wrapped. They
	// are the same for all programs that use the log. Default: none, and who has the database has the keys.
	MasterKeys []MasterKey

	// KeyCache is how long such a key is kept in memory, and so how long another process may still read of a subject that was erased. Default:
	// 10 s. Negative: each page of events with personal members asks for its keys.
	KeyCache time.Duration

	// Logger hears of subscriptions that fail. Default: none.
	Logger *slog.Logger

	// MeterProvider receives the metrics of subscriptions. Default: none.
	MeterProvider metric.MeterProvider
}

// A Store is one log. It is safe for concurrent use, and lives as long as the driver that keeps it.
type Store struct {
	engine  Engine
	cfg     Config
	keyring *keyring

	mu   sync.Mutex
	news chan struct{} // closed at the next append that this process hears of
}

// New returns the log of an engine. Programs call the Open of an engine's package.
func New(engine Engine, cfg Config) *Store {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{engine: engine, cfg: cfg, keyring: newKeyring(engine, &cfg), news: make(chan struct{})}
}

// Engine returns what keeps the log, for who stands in for a part of this package.
func (s *Store) Engine() Engine { return s.engine }

// Hint tells the subscriptions of this process that another one has appended. A hint that is lost, or wrong, costs nothing but time:
// subscriptions also look by themselves.
func (s *Store) Hint() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.news)
	s.news = make(chan struct{})
}

// News is closed at the next append that this process makes or has a hint of. Who waits for it asks for it before reading.
func (s *Store) News() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.news
}

func (s *Store) appended(ctx context.Context, position int64) {
	s.Hint()
	if s.cfg.OnAppend != nil {
		s.cfg.OnAppend(ctx, position)
	}
}
