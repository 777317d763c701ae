package eventstore_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

var measure = flag.Bool("measure", false, "measure, and write the tables in docs/eventstore.md")

// The ways to assign positions.
const (
	wayEnd       = "end"       // the event store's: the position after the last that is committed
	wayCounter   = "counter"   // a counter row, taken first in the transaction
	waySequencer = "sequencer" // one process numbers what is committed
)

// TestPositions compares them: how many events are appended in a second, and how soon they are seen.
func TestPositions(t *testing.T) {
	if !*measure {
		t.Skip("it measures, and is run by hand")
	}
	var table strings.Builder
	fmt.Fprintf(&table, "\nOn %s, two cores for all of it.\n\n| processes | writers in each | positions by | events/s | visible, p50 | p99 |\n| ---: | ---: | --- | ---: | ---: | ---: |\n",
		time.Now().UTC().Format(time.DateOnly))
	names := map[string]string{wayEnd: "the end of the log (ours)", wayCounter: "a counter row", waySequencer: "a sequencer"}
	for _, processes := range []int{1, 4} {
		for _, writers := range []int{1, 8, 32} {
			for _, way := range []string{wayEnd, wayCounter, waySequencer} {
				rate, lags := measureWay(t, way, processes, writers)
				fmt.Fprintf(&table, "| %d | %d | %s | %.0f | %.1f ms | %.1f ms |\n", processes, writers, names[way], rate,
					milliseconds(lags[len(lags)/2]), milliseconds(lags[len(lags)*99/100]))
			}
		}
	}
	t.Log(table.String())
	writeTable(t, "positions", table.String())
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// writeTable puts a table between its marks in docs/eventstore.md.
func writeTable(t *testing.T, name, table string) {
	t.Helper()
	const page = "../../docs/eventstore.md"
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), "<!-- "+name+":")
	require.True(t, found)
	comment, rest, found := strings.Cut(rest, "-->\n")
	require.True(t, found)
	_, after, found := strings.Cut(rest, "<!-- end -->")
	require.True(t, found)
	require.NoError(t, os.WriteFile(page, []byte(before+"<!-- "+name+":"+comment+"-->\n"+table+"\n<!-- end -->"+after), 0o600))
}

const measured = 1500 * time.Millisecond

func measureWay(t *testing.T, way string, processes, writers int) (rate float64, lags []time.Duration) {
	dsn := servers.MySQL(t).DSN
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	if way == wayEnd {
		_, err = open(t, dsn, eventstore.Config{}).Head(t.Context())
		require.NoError(t, err)
	} else {
		makeRawTables(t, db)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	if way == waySequencer {
		running.Go(func() { sequence(ctx, t, db) })
	}
	var measuring atomic.Bool
	running.Go(func() { lags = watch(ctx, t, db, &measuring) })
	var all []*process
	for range processes {
		all = append(all, startProcess(t, dsn, way+" "+strconv.Itoa(writers)))
	}
	count := func() (n int64) {
		require.NoError(t, db.QueryRow("SELECT COUNT(*) FROM events").Scan(&n))
		return n
	}
	require.Eventually(t, func() bool { return count() > int64(20*processes) }, patience, 10*time.Millisecond) // warm
	begun, before := time.Now(), count()
	measuring.Store(true)
	<-time.After(measured)
	measuring.Store(false)
	rate = float64(count()-before) / time.Since(begun).Seconds()
	for _, p := range all {
		p.end(t)
	}
	stop()
	running.Wait()
	require.NotEmpty(t, lags)
	slices.Sort(lags)
	return rate, lags
}

// watch follows the positions without a pause, and returns how long it was from the append of each event, which has its begin as data, to here.
func watch(ctx context.Context, t *testing.T, db *sql.DB, measuring *atomic.Bool) (lags []time.Duration) {
	for position := int64(0); ctx.Err() == nil; {
		var data string
		var next int64
		const text = "SELECT position, data FROM events WHERE position > ? ORDER BY position LIMIT 1000"
		err := eachRow(db, text, []any{position}, []any{&next, &data}, func() error {
			if next != position+1 {
				return fmt.Errorf("position %d comes after %d", next, position)
			}
			position = next
			begun, err := strconv.ParseInt(strings.Trim(data, `" `), 10, 64)
			if measuring.Load() {
				lags = append(lags, time.Since(time.Unix(0, begun)))
			}
			return err
		})
		if err != nil {
			t.Error(err)
			return nil
		}
		pause(ctx, time.Millisecond)
	}
	return lags
}

// appendAll is what each process does: its writers append one event of 512 B after the other, each to a stream of its own.
func appendAll(ctx context.Context, dsn, way, number string) error {
	writers, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	add, err := adder(ctx, dsn, way)
	if err != nil {
		return err
	}
	var wait sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		stream := uuid.NewString()
		wait.Go(func() {
			for version := int64(0); ctx.Err() == nil; version++ {
				data := fmt.Sprintf("%q", fmt.Sprintf("%510d", time.Now().UnixNano()))
				if err := add(stream, version, []byte(data)); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func adder(ctx context.Context, dsn, way string) (func(stream string, version int64, data []byte) error, error) {
	if way == wayEnd {
		driver, err := mysqlstate.New(mysqlstate.Config{DSN: dsn})
		if err != nil {
			return nil, err
		}
		s, err := mysqlevents.Open(driver, eventstore.Config{})
		return func(stream string, version int64, data []byte) error {
			_, err := s.Append(context.WithoutCancel(ctx), eventstore.StreamID{Category: "measured", ID: stream}, eventstore.Expected(version),
				eventstore.Event{Type: "written", Data: jsontext.Value(data)})
			return err
		}, err
	}
	db, err := sql.Open("mysql", dsn+"?interpolateParams=true")
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(4)
	b := &batcher{asked: make(chan *ask, 1024), commit: func(asks []*ask) error { return commitRaw(db, way, asks) }}
	go b.run()
	return b.add, nil
}

// A batcher gathers what is asked for while a transaction is under way, as the event store does.
type batcher struct {
	asked  chan *ask
	commit func([]*ask) error
}

type ask struct {
	stream  string
	version int64
	data    []byte
	done    chan error
}

func (b *batcher) add(stream string, version int64, data []byte) error {
	a := &ask{stream: stream, version: version, data: data, done: make(chan error, 1)}
	b.asked <- a
	return <-a.done
}

func (b *batcher) run() {
	for a := range b.asked {
		asks := []*ask{a}
		for more := true; more && len(asks) < 512; {
			select {
			case a := <-b.asked:
				asks = append(asks, a)
			default:
				more = false
			}
		}
		err := b.commit(asks)
		for _, a := range asks {
			a.done <- err
		}
	}
}

func makeRawTables(t *testing.T, db *sql.DB) {
	for _, statement := range []string{
		"CREATE TABLE events (id BIGINT AUTO_INCREMENT PRIMARY KEY, position BIGINT NULL UNIQUE, category VARBINARY(64) NOT NULL, stream VARBINARY(255) NOT NULL," +
			" version BIGINT NOT NULL, event_id BINARY(16) NOT NULL, type VARBINARY(128) NOT NULL, schema_version INT NOT NULL, metadata BLOB NOT NULL," +
			" data LONGBLOB NOT NULL, recorded_at BIGINT NOT NULL, UNIQUE KEY (category, stream, version), UNIQUE KEY (event_id), KEY (category, position)) ENGINE=InnoDB",
		"CREATE TABLE counter (last BIGINT NOT NULL) ENGINE=InnoDB",
		"INSERT INTO counter VALUES (0)",
	} {
		_, err := db.Exec(statement)
		require.NoError(t, err)
	}
}

// commitRaw appends with one multi-row statement: that alone for the sequencer, and after the counter row otherwise.
func commitRaw(db *sql.DB, way string, asks []*ask) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	first := int64(0)
	if way == wayCounter {
		result, err := tx.Exec("UPDATE counter SET last = LAST_INSERT_ID(last + ?)", len(asks))
		if err != nil {
			return err
		}
		last, err := result.LastInsertId()
		if err != nil {
			return err
		}
		first = last - int64(len(asks)) + 1
	}
	args := make([]any, 0, 5*len(asks))
	for i, a := range asks {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		position := any(nil)
		if way == wayCounter {
			position = first + int64(i)
		}
		args = append(args, position, a.stream, a.version+1, id[:], a.data)
	}
	const row = "(?, 'measured', ?, ?, ?, 'written', 1, '{}', ?, 0)"
	_, err = tx.Exec("INSERT INTO events (position, category, stream, version, event_id, type, schema_version, metadata, data, recorded_at) VALUES "+
		row+strings.Repeat(", "+row, len(asks)-1), args...)
	if err != nil {
		return err
	}
	return tx.Commit()
}

// sequence numbers what is committed.
func sequence(ctx context.Context, t *testing.T, db *sql.DB) {
	for position := int64(0); ctx.Err() == nil; {
		var cases strings.Builder
		var ids []string
		var id int64
		err := eachRow(db, "SELECT id FROM events WHERE position IS NULL ORDER BY id LIMIT 500", nil, []any{&id}, func() error {
			position++
			fmt.Fprintf(&cases, " WHEN %d THEN %d", id, position)
			ids = append(ids, strconv.FormatInt(id, 10))
			return nil
		})
		if err != nil {
			t.Error(err)
			return
		}
		if len(ids) == 0 {
			pause(ctx, time.Millisecond)
			continue
		}
		if _, err := db.Exec("UPDATE events SET position = CASE id" + cases.String() + " END WHERE id IN (" + strings.Join(ids, ",") + ")"); err != nil {
			t.Error(err)
			return
		}
	}
}
