package sqlitestate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Config says where the file is. Only Path is needed.
type Config struct {
	// Path is the database file. It and its folder are created, for the owner alone, when they are absent.
	Path string

	// Readers is how many reads may run at once. Default: 4. Each reader caches up to 1 MiB of the file.
	Readers int

	// SweepInterval is how often expired rows are removed from the file; they are invisible from the moment they
	// expire. Default: one minute.
	SweepInterval time.Duration

	// Logger hears of failed sweeps. Default: none.
	Logger *slog.Logger
}

// A Driver is one SQLite file. It is a state.Driver, and safe for concurrent use.
type Driver struct {
	cfg    Config
	writer *sql.DB // one connection, so that changes come one after another
	reader *sql.DB

	mu      sync.Mutex
	tables  map[string]*table
	inboxes []*sqlstate.Inbox
	closed  bool

	announcements map[state.OutboxConfig]*sqlstate.Announcement

	gathering *sqlstate.Gathering[write] // of single changes of all stores
	workers   *sqlstate.Workers          // serve callers who share transactions
	stop      context.CancelFunc
	done      chan struct{} // closed when the sweeper has ended

	background func(work func(ctx context.Context)) // until Close, which waits for it
	working    sync.WaitGroup
}

var _ state.Driver = (*Driver)(nil)

// New opens the file, and creates it when it is absent. Its error says in one sentence what is wrong with the path.
func New(cfg Config) (*Driver, error) {
	if cfg.Readers <= 0 {
		cfg.Readers = 4
	}
	if cfg.SweepInterval <= 0 {
		cfg.SweepInterval = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	writer, reader, err := openFile(cfg.Path, cfg.Readers)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	d := &Driver{cfg: cfg, writer: writer, reader: reader, tables: map[string]*table{}, announcements: map[state.OutboxConfig]*sqlstate.Announcement{},
		workers: sqlstate.NewWorkers(), stop: stop, done: make(chan struct{})}
	d.gathering = &sqlstate.Gathering[write]{Alone: d.writeAlone, Together: d.writeTogether, Lanes: 1, Workers: d.workers}
	d.background = func(work func(ctx context.Context)) { d.working.Go(func() { work(ctx) }) }
	go d.sweep(ctx)
	return d, nil
}

// Backend returns "sqlite".
func (d *Driver) Backend() string { return "sqlite" }

// Path returns the database file, as Config has it.
func (d *Driver) Path() string { return d.cfg.Path }

// Open creates the store's table when it is absent. Stores that share a table share its statements.
func (d *Driver) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	return d.open(ctx, cfg, nil)
}

// OpenAnnouncing is Open for a store whose changes are announced in an outbox, whose tables it creates too.
func (d *Driver) OpenAnnouncing(ctx context.Context, cfg state.StoreConfig, box state.OutboxConfig) (state.Engine, error) {
	return d.open(ctx, cfg, &box)
}

func (d *Driver) open(ctx context.Context, cfg state.StoreConfig, box *state.OutboxConfig) (state.Engine, error) {
	name := cfg.TableName
	if err := sqlstate.CheckTable(name); err != nil {
		return nil, fmt.Errorf("store %q: %w", cfg.Name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	t := d.tables[name]
	if t == nil {
		if err := migrate(ctx, d.writer, name, migrations(name)); err != nil {
			return nil, failure(ctx, err)
		}
		var err error
		if t, err = prepareTable(ctx, d.writer, d.reader, name); err != nil {
			return nil, failure(ctx, err)
		}
		d.tables[name] = t
	}
	e := &engine{driver: d, table: t, store: cfg.Name}
	if box != nil {
		var err error
		if e.announcement, err = d.announcement(ctx, *box); err != nil {
			return nil, failure(ctx, err)
		}
	}
	indexes, err := sqlstate.NewIndexes(cfg.Indexes, e.terms)
	if err != nil {
		return nil, fmt.Errorf("store %q: %w", cfg.Name, err)
	}
	if len(indexes) > 0 {
		d.background(func(ctx context.Context) {
			sqlstate.MakeIndexes(ctx, indexes, &e.indexes, e.createIndex, func(ix sqlstate.Index, err error) {
				d.cfg.Logger.Warn("making an index failed and will be tried again; queries do without", "store", cfg.Name, "index", ix.Name, "error", err)
			})
		})
	}
	return e, nil
}

// Ready reads from the file.
func (d *Driver) Ready(ctx context.Context) error {
	var n int
	if err := d.reader.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&n); err != nil {
		return failure(ctx, err)
	}
	return nil
}

// Close waits for the change under way, ends the sweeper and closes the file.
func (d *Driver) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	tables, announcements := d.tables, d.announcements
	d.mu.Unlock()

	d.stop()
	<-d.done
	d.workers.Close()
	d.working.Wait()
	var errs []error
	for _, t := range tables {
		errs = append(errs, t.close())
	}
	for _, a := range announcements {
		errs = append(errs, a.Close())
	}
	return errors.Join(append(errs, d.reader.Close(), d.writer.Close())...)
}

// sweep removes expired rows until ctx ends.
func (d *Driver) sweep(ctx context.Context) {
	defer close(d.done)
	tick := time.NewTicker(d.cfg.SweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d.mu.Lock()
		tables := make([]*table, 0, len(d.tables))
		for _, t := range d.tables {
			tables = append(tables, t)
		}
		inboxes := slices.Clone(d.inboxes)
		d.mu.Unlock()
		for _, t := range tables {
			if err := t.sweep(ctx); err != nil && ctx.Err() == nil {
				d.cfg.Logger.Warn("removing expired rows failed", "table", t.name, "error", err)
			}
		}
		for _, b := range inboxes {
			if err := b.Clean(ctx); err != nil && ctx.Err() == nil {
				d.cfg.Logger.Warn("removing the marks of messages failed", "error", err)
			}
		}
	}
}
