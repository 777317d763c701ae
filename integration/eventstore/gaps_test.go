package eventstore_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/eventstoretest"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// Three processes append, of which one is killed and replaced, while others' transactions in the same table are slow and half of them are
// rolled back. Who follows the end sees every event, once, in order; nothing that was acknowledged is missing. Beside it the same processes write a
// table with AUTO_INCREMENT, in transactions of several rows of which 5 % are rolled back, and a reader follows that by its highest id, as one
// does who knows no better: it has to miss rows, or this test would show nothing.
func TestNoGaps(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.Exec("CREATE TABLE naive (id BIGINT AUTO_INCREMENT PRIMARY KEY, data BLOB NOT NULL) ENGINE=InnoDB")
	require.NoError(t, err)
	s := open(t, dsn, eventstore.Config{})
	_, err = s.Head(t.Context()) // makes the tables
	require.NoError(t, err)

	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	var seen []eventstore.Recorded
	naive := map[int64]bool{}
	readers.Go(func() { seen = follow(ctx, t, s) })
	readers.Go(func() { followNaively(ctx, t, db, naive) })

	var said []string
	processes := []*process{startProcess(t, dsn, "gaps"), startProcess(t, dsn, "gaps"), startProcess(t, dsn, "gaps")}
	for round := range 3 {
		head, err := s.Head(t.Context())
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			now, err := s.Head(t.Context())
			return err == nil && now > head+200
		}, patience, 10*time.Millisecond)
		said = append(said, processes[round].kill(t)...)
		processes[round] = startProcess(t, dsn, "gaps")
	}
	missed := func(t require.TestingT) (n int64) {
		require.NoError(t, db.QueryRow("SELECT COUNT(*) FROM naive").Scan(&n))
		return n
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Greater(c, missed(c), int64(1000)) }, patience, 10*time.Millisecond)
	for _, p := range processes {
		said = append(said, p.end(t)...)
	}
	head, err := s.Head(t.Context())
	require.NoError(t, err)
	stop() // the readers read to the end once more
	readers.Wait()

	all := eventstoretest.CheckOrder(t, s)
	require.Len(t, all, int(head))
	require.Len(t, seen, len(all), "a reader who follows sees every event once")
	byID := map[string]eventstore.Recorded{}
	for i, e := range all {
		require.Equal(t, e.ID, seen[i].ID)
		byID[e.ID] = e
	}
	for _, line := range said {
		id, position, whole := strings.Cut(line, " ")
		if !whole {
			continue // the end of one that was killed
		}
		e, there := byID[id]
		require.True(t, there, "event %s was acknowledged and is lost", id)
		require.Equal(t, position, strconv.FormatInt(e.Position, 10)+".")
	}
	rows := missed(t)
	t.Logf("events %d, acknowledged %d, seen %d, lost 0; the naive reader saw %d of %d rows", len(all), len(said), len(seen), len(naive), rows)
	require.Less(t, int64(len(naive)), rows, "the naive reader has missed nothing, so this test shows nothing")
}

// follow reads what comes, until the context ends and nothing more is there.
func follow(ctx context.Context, t *testing.T, s *eventstore.Store) (seen []eventstore.Recorded) {
	for last := false; !last; {
		last = ctx.Err() != nil
		for e, err := range s.ReadAll(context.WithoutCancel(ctx), eventstore.ReadOptions{From: int64(len(seen)) + 1}) {
			if err != nil || e.Position != int64(len(seen))+1 {
				t.Errorf("position %d comes after %d: %v", e.Position, len(seen), err)
				return seen
			}
			seen = append(seen, e)
		}
	}
	return seen
}

// eachRow reads rows into variables, and calls fn after each.
func eachRow(db *sql.DB, text string, args, into []any, fn func() error) (err error) {
	rows, err := db.Query(text, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := errors.Join(rows.Scan(into...), fn()); err != nil {
			return err
		}
	}
	return rows.Err()
}

// followNaively does the same by ids that are given before the commit.
func followNaively(ctx context.Context, t *testing.T, db *sql.DB, seen map[int64]bool) {
	highest := int64(0)
	for last := false; !last; {
		last = ctx.Err() != nil
		err := eachRow(db, "SELECT id FROM naive WHERE id > ? ORDER BY id", []any{highest}, []any{&highest}, func() error {
			seen[highest] = true
			return nil
		})
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// writeWithGaps is what each of the processes does. It writes the id and position of each event that is acknowledged.
func writeWithGaps(ctx context.Context, dsn string, out io.Writer) error {
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: dsn})
	if err != nil {
		return err
	}
	s, err := mysqlevents.Open(driver, eventstore.Config{})
	if err != nil {
		return err
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return err
	}
	me := rand.Text()
	var mu sync.Mutex
	var wait sync.WaitGroup
	var failed error
	run := func(step func() error) {
		wait.Go(func() {
			for ctx.Err() == nil {
				if err := step(); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
			}
		})
	}
	for w := range 6 {
		run(func() error {
			events := make([]eventstore.Event, 1+mathrand.IntN(3))
			for i := range events {
				events[i] = eventstore.Event{ID: uuid.NewString(), Type: "written", Data: jsontext.Value("{}")}
			}
			appended, err := s.Append(context.WithoutCancel(ctx), eventstore.StreamID{Category: "gaps", ID: fmt.Sprint(me, w)}, eventstore.Any, events...)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for i := range events {
				fmt.Fprintf(out, "%s %d.\n", events[i].ID, appended.Position-int64(len(events)-1-i))
			}
			return nil
		})
	}
	run(func() error { return appendSlowly(ctx, db, me) })
	for range 4 {
		run(func() error { return insertNaively(ctx, db) })
	}
	wait.Wait()
	return failed
}

// appendSlowly is a transaction of somebody else who appends to the log, and takes its time. Half of them are rolled back. It may lose the race
// for the position.
func appendSlowly(ctx context.Context, db *sql.DB, me string) error {
	pause(ctx, 40*time.Millisecond)
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	id := uuid.New()
	_, err = tx.Exec("INSERT INTO events SELECT e.p, 'gaps', ?, v.v, ?, 'slow', 1, '{}', '{}', 0 FROM (SELECT MAX(position) + 1 AS p FROM events) e,"+
		" (SELECT COALESCE(MAX(version), 0) + 1 AS v FROM events WHERE category = 'gaps' AND stream = ?) v WHERE e.p IS NOT NULL", "slow"+me, id[:], "slow"+me)
	if err != nil {
		return nil // it has lost
	}
	pause(ctx, 10*time.Millisecond)
	if mathrand.IntN(2) == 0 {
		return nil
	}
	_ = tx.Commit()
	return nil
}

func insertNaively(ctx context.Context, db *sql.DB) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for range 1 + mathrand.IntN(3) {
		if _, err := tx.Exec("INSERT INTO naive (data) VALUES ('{}')"); err != nil {
			return err
		}
	}
	pause(ctx, 2*time.Millisecond)
	if mathrand.IntN(20) == 0 {
		return nil
	}
	return tx.Commit()
}

// pause waits for a random time, as a transaction with something to do would.
func pause(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(mathrand.N(most))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
