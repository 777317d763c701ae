package mysqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Config says which server to use. Only DSN is needed.
type Config struct {
	// DSN names the server, user, password and database as "user:password@tcp(host:3306)/database". Its options may set
	// TLS and timeouts. It never appears in errors or logs.
	DSN string

	// ReplicaDSN names a server that follows the first one, for reads of state.Store.Eventual. Its options are as those of
	// DSN. Default: none, and such reads go to the first one.
	ReplicaDSN string

	// MaxConns is how many connections are opened at most to each server, and kept. Default: 32. At least 2. Callers wait
	// for a connection until their deadline. A store has one more while an index of it is made.
	MaxConns int

	// MaxConnLifetime is when a connection is replaced by a new one, so that a failover or a load balancer's change is
	// followed. Default: 30 minutes.
	MaxConnLifetime time.Duration

	// SweepInterval is how often expired rows are deleted; they are invisible from the moment they expire. Default: one
	// minute.
	SweepInterval time.Duration

	// Logger hears of failed sweeps. Default: none.
	Logger *slog.Logger
}

// A Driver is one database of a server. It is a state.Driver, and safe for concurrent use.
type Driver struct {
	cfg     Config
	server  *connector
	db      *sql.DB
	replica *replica      // nil: none
	turn    chan struct{} // held by the one that makes tables: it takes two connections

	mu         sync.Mutex
	tables     map[string]*table
	daprs      map[string]*daprTable
	daprStores []*daprEngine // but for counterparts
	inboxes    []*sqlstate.Inbox
	closed     bool

	workers *sqlstate.Workers // serve callers who share transactions
	stop    context.CancelFunc
	done    chan struct{} // closed when the sweeper has ended

	background func(work func(ctx context.Context)) // until Close, which waits for it
	working    sync.WaitGroup
}

var _ state.Driver = (*Driver)(nil)

// New checks the configuration. It does not wait for the server.
func New(cfg Config) (*Driver, error) {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 32
	}
	cfg.MaxConns = max(cfg.MaxConns, 2) // a migration holds its lock on a connection of its own
	if cfg.MaxConnLifetime <= 0 {
		cfg.MaxConnLifetime = 30 * time.Minute
	}
	if cfg.SweepInterval <= 0 {
		cfg.SweepInterval = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := newConnector(cfg.DSN)
	if err != nil {
		return nil, err
	}
	follower, err := openReplica(cfg)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	d := &Driver{cfg: cfg, server: c, db: openPool(c, cfg), replica: follower, turn: make(chan struct{}, 1), tables: map[string]*table{}, daprs: map[string]*daprTable{}, workers: sqlstate.NewWorkers(), stop: stop, done: make(chan struct{})}
	d.background = func(work func(ctx context.Context)) { d.working.Go(func() { work(ctx) }) }
	go d.sweep(ctx)
	return d, nil
}

// openPool does not connect yet.
func openPool(c *connector, cfg Config) *sql.DB {
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(cfg.MaxConns)
	db.SetMaxIdleConns(cfg.MaxConns) // the default of 2 reconnects all the time
	db.SetConnMaxLifetime(cfg.MaxConnLifetime)
	return db
}

// Backend returns "mysql", for MariaDB too.
func (d *Driver) Backend() string { return "mysql" }

// Open names a store; its table is made by the first operation that reaches the server.
func (d *Driver) Open(_ context.Context, cfg state.StoreConfig) (state.Engine, error) {
	return d.open(cfg, nil)
}

// OpenAnnouncing names a store whose changes are announced in an outbox.
func (d *Driver) OpenAnnouncing(_ context.Context, cfg state.StoreConfig, box state.OutboxConfig) (state.Engine, error) {
	return d.open(cfg, newAnnouncement(d, box))
}

func (d *Driver) open(cfg state.StoreConfig, a *announcement) (state.Engine, error) {
	if cfg.InDaprsTable() {
		return d.openDapr(cfg, a)
	}
	if err := sqlstate.CheckTable(cfg.TableName); err != nil {
		return nil, fmt.Errorf("store %q: %w", cfg.Name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	t := d.tables[cfg.TableName]
	if t == nil {
		t = newTable(d.db, cfg.TableName, d.turn)
		if d.replica != nil {
			t.copy = newTable(d.replica.db, cfg.TableName, make(chan struct{}, 1))
			t.copy.follows = true
		}
		d.tables[cfg.TableName] = t
	}
	t.serves = t.serves || !cfg.Counterpart
	e := &engine{table: t, store: cfg.Name, replica: d.replica, announcement: a}
	e.gathering = newGathering(e, d.workers)
	indexes, err := sqlstate.NewIndexes(cfg.Indexes, t.terms)
	if err != nil {
		return nil, fmt.Errorf("store %q: %w", cfg.Name, err)
	}
	if len(indexes) > 0 {
		d.background(func(ctx context.Context) {
			sqlstate.MakeIndexes(ctx, indexes, &e.indexes, d.indexer(t), func(ix sqlstate.Index, err error) {
				d.cfg.Logger.Warn("making an index failed and will be tried again; queries do without", "store", cfg.Name, "index", ix.Name, "error", err)
			})
		})
	}
	return e, nil
}

// openDapr names a store in Dapr's rows, which has no replica: reads of state.Store.Eventual go to the first server.
func (d *Driver) openDapr(cfg state.StoreConfig, a *announcement) (state.Engine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	t := d.daprs[cfg.TableName]
	if t == nil {
		t = &daprTable{name: cfg.TableName, db: d.db}
		d.daprs[cfg.TableName] = t
	}
	e := &daprEngine{table: t, store: cfg.Name, prefix: cfg.KeyPrefix, announcement: a, begin: d.begin, patient: d.patient}
	e.gathering = &sqlstate.Gathering[write]{Alone: e.writeAlone, Together: e.writeTogether, Lanes: lanes, Workers: d.workers}
	if !cfg.Counterpart {
		d.daprStores = append(d.daprStores, e)
	}
	return e, nil
}

// Ready reports whether the server answers and the tables of the opened stores are there, but for those of counterparts. A replica may be away.
func (d *Driver) Ready(ctx context.Context) error {
	if err := d.db.PingContext(ctx); err != nil {
		return failure(ctx, err, reading)
	}
	tables, stores := d.serving()
	for _, t := range tables {
		if _, err := t.prepared(ctx); err != nil {
			return err
		}
	}
	for _, e := range stores {
		if _, err := e.ready(ctx); err != nil {
			return fmt.Errorf("store %q: %w", e.store, err)
		}
	}
	return nil
}

// patient is a pool beside the driver's, whose connections wait for an answer as long as the server takes. Who asks for it closes it.
func (d *Driver) patient() (*sql.DB, error) {
	c, err := d.server.patient()
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

// begin does work in the background; false: the driver is closed.
func (d *Driver) begin(work func(ctx context.Context)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.background(work)
	return true
}

// serving are the tables, and the stores in Dapr's rows, that are more than counterparts.
func (d *Driver) serving() ([]*table, []*daprEngine) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Values(d.tables)), func(t *table) bool { return !t.serves }), slices.Clone(d.daprStores)
}

// inDapr are the tables of Dapr's.
func (d *Driver) inDapr() []*daprTable {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.daprs))
}

// Close ends the sweeper, waits for shared transactions, 5 s at most, and closes the connections when their operations
// have ended.
func (d *Driver) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	d.mu.Unlock()
	d.stop()
	<-d.done
	d.workers.Close()
	d.working.Wait()
	var errs []error
	for _, t := range d.opened() {
		errs = append(errs, t.close())
	}
	for _, t := range d.inDapr() {
		t.closed.Store(true)
	}
	if d.replica != nil {
		errs = append(errs, d.replica.db.Close())
	}
	return errors.Join(append(errs, d.db.Close())...)
}

func (d *Driver) opened() []*table {
	d.mu.Lock()
	defer d.mu.Unlock()
	tables := make([]*table, 0, len(d.tables))
	for _, t := range d.tables {
		tables = append(tables, t)
	}
	return tables
}

// sweep deletes expired rows until ctx ends. Processes may do so at once: each deletes what it finds.
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
		for _, t := range d.opened() {
			if err := t.sweep(ctx); err != nil && ctx.Err() == nil {
				d.cfg.Logger.Warn("deleting expired rows failed", "table", t.name, "error", err)
			}
		}
		for _, t := range d.inDapr() {
			if err := t.sweep(ctx); err != nil && ctx.Err() == nil {
				d.cfg.Logger.Warn("deleting expired rows failed", "table", t.name, "error", err)
			}
		}
		d.mu.Lock()
		inboxes := slices.Clone(d.inboxes)
		d.mu.Unlock()
		for _, b := range inboxes {
			if err := b.Clean(ctx); err != nil && ctx.Err() == nil {
				d.cfg.Logger.Warn("deleting the marks of messages failed", "error", err)
			}
		}
	}
}
