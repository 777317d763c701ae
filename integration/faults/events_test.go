package faults_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// An eventFault is a harm that is done to a log of events, its writers or its consumers.
type eventFault struct {
	name  string
	times int // how often a long run does it; a quick one does it once
	harm  func(ctx context.Context, r *eventRun) error
}

// What happens to a log of events, its writers and its consumers. It compares no rates, and runs beside others, apart from those who count goroutines.
func TestEvents(t *testing.T) {
	t.Parallel()
	apart(t, 0, func(t *testing.T) {
		server := servers.NewMySQL(t, servers.MySQLOptions{})
		for _, f := range eventFaults(server) {
			t.Run(f.name, func(t *testing.T) { endureEvents(t, server, f) })
		}
	})
}

func eventFaults(server *servers.MySQLServer) []eventFault {
	return []eventFault{
		{"writer process killed", 4, func(_ context.Context, r *eventRun) error { return r.replaceWriter((*eventProcess).kill) }},
		{"server killed", 2, func(ctx context.Context, _ *eventRun) error { return errors.Join(server.Kill(), server.Restart(ctx)) }},
		{"leading consumer killed", 3, func(ctx context.Context, r *eventRun) error {
			leader, err := r.leader(ctx)
			if err != nil {
				return err
			}
			r.consumers = r.consumers[:len(r.consumers)-1]
			return errors.Join(leader.kill(), r.startConsumer(ctx))
		}},
		{"leading consumer stopped (SIGSTOP) for three leases", 2, func(ctx context.Context, r *eventRun) error {
			leader, err := r.leader(ctx)
			if err != nil {
				return err
			}
			return errors.Join(leader.signal(syscall.SIGSTOP), faults.Pause(ctx, 3*eventLease), leader.signal(syscall.SIGCONT))
		}},
		{"lease taken from a leader that works, so that two lead", 5, func(ctx context.Context, r *eventRun) error {
			return takeLease(ctx, r.db, ordered)
		}},
		{"deadlock storm", 1, func(ctx context.Context, r *eventRun) error { return stormEvents(ctx, r.db, briefly(3*time.Second)) }},
	}
}

// takeLease has a subscription's first partition be free, as if its lease had ended: who has it works on until it is told. Returns when somebody has claimed it.
func takeLease(ctx context.Context, db *sql.DB, subscription string) error {
	if _, err := db.ExecContext(ctx, "UPDATE events_positions SET token = token + 1, consumer = '', until = 0 WHERE name = ? AND part = 0", subscription); err != nil {
		return err
	}
	for consumer := ""; consumer == ""; {
		if err := faults.Pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("nobody took the lease: %w", err)
		}
		if err := db.QueryRowContext(ctx, "SELECT consumer FROM events_positions WHERE name = ? AND part = 0", subscription).Scan(&consumer); err != nil {
			return err
		}
	}
	return nil
}

// An eventRun is one fault's.
type eventRun struct {
	dsn                string
	db                 *sql.DB
	ledger             *faults.EventLedger
	started            int
	writers, consumers []*eventProcess
	known              []string // consumers that there have been
}

// endureEvents puts a log under load, harms it, and holds it to its promises.
func endureEvents(t *testing.T, server *servers.MySQLServer, f eventFault) {
	row := faults.EventRow{Fault: f.name, Engine: "mariadb", Times: 1, Seed: *seed}
	if *long {
		row.Times = f.times
	}
	dsn := server.NewDatabase(t).DSN
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	r := &eventRun{dsn: dsn, db: db, ledger: faults.NewEventLedger()}
	defer func() {
		for _, p := range append(r.writers, r.consumers...) {
			_ = p.kill() // those that were not ended
		}
		row.Failed = t.Failed()
		rows.Events = append(rows.Events, row)
		t.Logf("seed %d: %+v", *seed, row.EventTotals)
	}()
	store := openEvents(t, dsn)
	_, err = store.Head(within(t, patience)) // makes the tables
	require.NoError(t, err)
	_, err = db.Exec("CREATE TABLE handled (at BIGINT AUTO_INCREMENT PRIMARY KEY, subscription VARCHAR(16) NOT NULL, position BIGINT NOT NULL, id CHAR(36) NOT NULL) ENGINE=InnoDB")
	require.NoError(t, err)
	for range eventProcesses {
		require.NoError(t, r.startConsumer(within(t, patience)))
		require.NoError(t, r.start(&r.writers, "write"))
	}
	acknowledged := func() {
		wanted := r.ledger.Settled() + 200
		if *long {
			wanted += 800
		}
		require.Eventually(t, func() bool { return r.ledger.Settled() > wanted }, patience, pollPeriod, "events are acknowledged")
	}
	acknowledged()
	for range row.Times {
		require.NoError(t, f.harm(within(t, patience), r))
		acknowledged()
	}
	for _, p := range r.writers {
		require.NoError(t, p.end())
	}
	r.settle(t, store, &row)
}

// settle waits until the subscriptions are at the end, and holds all against each other.
func (r *eventRun) settle(t *testing.T, store *eventstore.Store, row *faults.EventRow) {
	t.Helper()
	ctx := within(t, 2*patience)
	require.Eventually(t, func() bool { // a transaction whose writer was killed may end later
		head, err := store.Head(ctx)
		if err != nil {
			return false
		}
		behind := -1
		err = r.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM events_positions WHERE position < ?", head).Scan(&behind)
		return err == nil && behind == 0
	}, patience, pollPeriod, "the subscriptions come to the end")
	for _, p := range r.consumers {
		require.NoError(t, p.end())
	}
	var log []eventstore.Recorded
	for e, err := range store.ReadAll(within(t, patience), eventstore.ReadOptions{}) {
		require.NoError(t, err)
		log = append(log, e)
	}
	row.EventTotals = r.ledger.Totals(log)
	row.Handle(log, r.handled(t, ordered), func(*eventstore.Recorded) string { return "" })
	row.Handle(log, r.handled(t, parted), func(e *eventstore.Recorded) string { return e.Stream.String() })
	require.NoError(t, r.ledger.Wrong())
	assert.Zero(t, row.Lost, "acknowledged and lost")
	assert.Zero(t, row.Untrue, "refused and made")
	assert.Zero(t, row.Gaps, "positions or versions left out")
	assert.Zero(t, row.Unmade, "handled, and not in the log")
	assert.Zero(t, row.Twice, "handled twice")
	assert.Zero(t, row.Missed, "never handled")
	assert.Zero(t, row.Disordered, "handled out of order")
}

// handled are the events that a subscription has written, in their order.
func (r *eventRun) handled(t *testing.T, subscription string) (all []faults.HandledEvent) {
	t.Helper()
	rows, err := r.db.Query("SELECT position, id FROM handled WHERE subscription = ? ORDER BY at", subscription)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	for rows.Next() {
		var h faults.HandledEvent
		require.NoError(t, rows.Scan(&h.Position, &h.ID))
		all = append(all, h)
	}
	require.NoError(t, rows.Err())
	return all
}

func openEvents(t *testing.T, dsn string) *eventstore.Store {
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: dsn})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, driver.Close()) })
	store, err := mysqlevents.Open(driver, eventstore.Config{})
	require.NoError(t, err)
	return store
}

// stormEvents has others' transactions lock what writers and consumers lock, in the opposite order, and fails unless the server has found deadlocks.
func stormEvents(ctx context.Context, db *sql.DB, lasts time.Duration) error {
	deadlocks := func() (n int, err error) {
		var name string
		err = db.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'").Scan(&name, &n)
		return n, err
	}
	before, err := deadlocks()
	if err != nil {
		return err
	}
	storm, stop := context.WithTimeout(ctx, lasts)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for storm.Err() == nil {
			lockAgainst(storm, db, "SELECT position FROM events_positions FOR UPDATE", "SELECT at FROM handled ORDER BY at DESC LIMIT 5 FOR UPDATE")
		}
	}()
	for storm.Err() == nil {
		lockAgainst(storm, db, "SELECT position FROM events ORDER BY position DESC LIMIT 1 FOR UPDATE", "SELECT id FROM events_turn FOR UPDATE",
			"INSERT INTO events SELECT MAX(position) + 1, 'storm', 'storm', MAX(position) + 1, REPEAT('x', 16), 'x', 1, '{}', '{}', 0 FROM events")
	}
	<-done
	after, err := deadlocks()
	if err == nil && after == before {
		err = errors.New("the storm has caused no deadlock, so it shows nothing")
	}
	return err
}

// lockAgainst takes locks one after the other, and gives them back.
func lockAgainst(ctx context.Context, db *sql.DB, statements ...string) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return
	}
	defer func() { _ = tx.Rollback() }()
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return // it is the victim, or was killed with the server
		}
		_ = faults.Pause(ctx, time.Millisecond)
	}
}
