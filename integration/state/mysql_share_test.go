package state_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// While others hold up the store, those who come gather. What they share fails none of them for a neighbour's sake: one
// whose condition does not hold has its conflict, one whose value the server cannot read its error, and the others are
// made, those of one key one after the other.
func TestMySQLShares(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	e := openStore(t, newMySQL(t, mysqlstate.Config{DSN: dsn}))
	require.NoError(t, saveOne(t.Context(), e, "held"))
	require.NoError(t, saveOne(t.Context(), e, "there"))
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()

	for name, deep := range map[string]bool{"all good": false, "one cannot be read": true} {
		t.Run(name, func(t *testing.T) {
			release := holdRow(t, db, "held")
			var wait sync.WaitGroup
			for range 8 { // take all lanes, and wait
				wait.Go(func() {
					if err := saveOne(t.Context(), e, "held"); err != nil {
						t.Error(err)
					}
				})
			}
			require.Eventually(t, func() bool { return waitingFor(db) > 1 }, patience, time.Millisecond)
			impatient, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			err := saveOne(impatient, e, "held")
			cancel()
			require.ErrorIs(t, err, state.ErrUnavailable, "it was not its turn")
			require.NotErrorIs(t, err, state.ErrOutcomeUnknown)
			gone, leave := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, leave)
			err = saveOne(gone, e, "held")
			require.ErrorIs(t, err, context.Canceled)
			require.NotErrorIs(t, err, state.ErrOutcomeUnknown)
			const callers = 40
			outcomes, errs := make([]state.Outcome, callers), make([]error, callers)
			for i := range callers {
				c := state.Change{Key: fmt.Sprint(name, i), Value: []byte("1"), Expiry: state.Never}
				switch {
				case i == 7 && deep:
					c.Value = []byte(strings.Repeat("[", 200) + strings.Repeat("]", 200))
				case i%4 == 1:
					c.Key, c.When = "there", state.IfAbsent
				case i%4 == 2:
					c.Key, c.Expiry = "same "+name, state.Keep
				}
				wait.Go(func() {
					made, err := e.Apply(t.Context(), []state.Change{c})
					if errs[i] = err; err == nil {
						outcomes[i] = made[0]
					}
				})
			}
			release()
			wait.Wait()
			versions := map[int64]bool{}
			for i := range callers {
				switch {
				case i == 7 && deep:
					require.ErrorIs(t, errs[i], state.ErrInvalid)
				case i%4 == 1:
					require.NoError(t, errs[i])
					require.Equal(t, state.Outcome{Conflict: true}, outcomes[i])
				default:
					require.NoError(t, errs[i])
					require.True(t, outcomes[i].Done)
				}
				if i%4 == 2 {
					versions[outcomes[i].Version] = true
				}
			}
			require.Len(t, versions, callers/4, "each save of one key counts")
			records, err := e.Get(t.Context(), []string{"same " + name})
			require.NoError(t, err)
			require.EqualValues(t, callers/4, records[0].Version)
		})
	}
}

// hold locks a row until it is released.
func holdRow(t *testing.T, db *sql.DB, key string) (release func()) {
	t.Helper()
	tx, err := db.Begin()
	require.NoError(t, err)
	var value string
	require.NoError(t, tx.QueryRow("SELECT value FROM state_entries WHERE store = 's' AND `key` = ? FOR UPDATE", key).Scan(&value))
	return func() { require.NoError(t, tx.Rollback()) }
}

// waitingFor counts the statements of the store that are under way, which is to say, that wait for a lock; -1 when it cannot be told.
func waitingFor(db *sql.DB) (n int) {
	err := db.QueryRow("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE()" +
		" AND INFO LIKE 'INSERT INTO state_entries%'").Scan(&n)
	if err != nil {
		return -1
	}
	return n
}

// Another program that locks rows in another order, a hundred times a second, makes deadlocks. They are normal and reach no caller.
func TestMySQLDeadlocks(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	e := openStore(t, newMySQL(t, mysqlstate.Config{DSN: dsn}))
	keys := []string{"a", "b", "c", "d"}
	for _, key := range keys {
		require.NoError(t, saveOne(t.Context(), e, key))
	}
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	before, counts := deadlocks(t, db)
	stop := make(chan struct{})
	var other sync.WaitGroup
	other.Go(func() {
		again := time.NewTicker(10 * time.Millisecond)
		defer again.Stop()
		for {
			select {
			case <-stop:
				return
			case <-again.C:
				lockBackwards(db, keys)
			}
		}
	})
	var wait sync.WaitGroup
	errs := make([]error, 4)
	for worker := range errs {
		wait.Go(func() {
			for i := 0; i < 50 && errs[worker] == nil; i++ {
				var changes []state.Change
				for _, key := range keys {
					changes = append(changes, state.Change{Key: key, Value: []byte("1"), Expiry: state.Keep})
				}
				_, errs[worker] = e.Transact(t.Context(), changes)
			}
		})
	}
	wait.Wait()
	close(stop)
	other.Wait()
	after, _ := deadlocks(t, db)
	t.Log("deadlocks:", after-before)
	require.True(t, !counts || after > before, "there was none to see")
	require.NoError(t, errors.Join(errs...))
	records, err := e.Get(t.Context(), keys)
	require.NoError(t, err)
	for _, r := range records {
		require.EqualValues(t, 1+len(errs)*50, r.Version)
	}
}

// deadlocks counts those that the server has seen, where it says so: MySQL does not.
func deadlocks(t *testing.T, db *sql.DB) (n int, counts bool) {
	t.Helper()
	var name string
	err := db.QueryRow("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'").Scan(&name, &n)
	if !errors.Is(err, sql.ErrNoRows) {
		require.NoError(t, err)
	}
	return n, err == nil
}

// lockBackwards changes all rows, the last first. It may fail: it is the other one of a deadlock.
func lockBackwards(db *sql.DB, keys []string) {
	tx, err := db.Begin()
	if err != nil {
		return
	}
	defer func() { _ = tx.Rollback() }()
	for _, key := range slices.Backward(keys) {
		if _, err := tx.Exec("UPDATE state_entries SET updated_at = updated_at + INTERVAL 1 SECOND WHERE store = 's' AND `key` = ?", key); err != nil {
			return
		}
	}
}

// A save that got no connection of the pool in time was not sent, and is told so; one that was sent, and not answered, may be made yet.
func TestMySQLSaveThatGetsNoConnectionIsNotSent(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	patient := dsn + map[bool]string{true: "&", false: "?"}[strings.Contains(dsn, "?")] + "innodb_lock_wait_timeout=600" // nobody gives its connection back to try again
	d := newMySQL(t, mysqlstate.Config{DSN: patient, MaxConns: 2})
	e := openStore(t, d)
	require.NoError(t, saveOne(t.Context(), e, "held"))
	other, err := d.Open(t.Context(), state.StoreConfig{Name: "other", Backend: d.Backend(), TableName: "state_entries"}) // has lanes of its own
	require.NoError(t, err)
	db := openSQL(t, dsn)
	release := holdRow(t, db, "held")
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			if err := saveOne(t.Context(), e, "held"); err != nil {
				t.Error(err)
			}
		})
	}
	require.Eventually(t, func() bool { return waitingFor(db) == 2 }, patience, time.Millisecond)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = saveOne(short, other, "k")
	require.ErrorIs(t, err, state.ErrUnavailable)
	require.NotErrorIs(t, err, state.ErrOutcomeUnknown)
	release()
	wait.Wait()
	present, err := other.Exists(t.Context(), []string{"k"})
	require.NoError(t, err)
	require.False(t, present[0])

	release = holdRow(t, db, "held")
	gone, leave := context.WithCancel(t.Context())
	told := make(chan error, 1)
	go func() { told <- saveOne(gone, e, "held") }()
	require.Eventually(t, func() bool { return waitingFor(db) == 1 }, patience, time.Millisecond)
	leave()
	require.ErrorIs(t, <-told, state.ErrOutcomeUnknown)
	release()
}
