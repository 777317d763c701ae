package pairs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// written is an event of 512 B.
type written struct {
	Number int    `json:"number"`
	Text   string `json:"text"`
}

func newWritten(number int) written { return written{number, text[:480]} }

// stored is how many events are read.
const stored = 100_000

// BenchmarkEvents appends events of 512 B on MySQL, each to the stream of its caller, of which the version is expected. The raw side inserts the
// same rows into a table of its own with the same keys, the server flushing its log at each commit: it gives positions itself, which one process can,
// and expects nothing. It gathers what its callers insert as the event store does, and inserts it with one prepared statement.
func BenchmarkEvents(b *testing.B) {
	server := servers.NewMySQL(b, servers.MySQLOptions{})
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: server.DSN, MaxConns: mysqlConnections})
	require.NoError(b, err)
	factory := newFactory(b, driver)
	store, err := state.Open[account](b.Context(), factory, storeName)
	require.NoError(b, err)
	saveAccounts(b, store)
	events, err := mysqlevents.Open(driver, eventstore.Config{})
	require.NoError(b, err)
	_, err = events.Head(b.Context())
	require.NoError(b, err)
	db := openMySQL(b, server.DSN)
	for _, statement := range []string{"CREATE TABLE raw_events LIKE events", "CREATE TABLE raw_counter (last BIGINT NOT NULL)", "INSERT INTO raw_counter VALUES (0)"} {
		_, err := db.ExecContext(b.Context(), statement)
		require.NoError(b, err)
	}
	raw := &rawEvents{db: db, asked: make(chan *insertion, 64), counter: prepare(b, db, "UPDATE raw_counter SET last = LAST_INSERT_ID(last + 1)")}
	for n := range raw.inserts {
		raw.inserts[n] = prepare(b, db, rawInsert+strings.Repeat(", "+rawRow, n))
	}
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	go raw.gather(ctx)

	ours := appender(events)
	for range 500 { // what comes first would have a server that is not warm
		require.NoError(b, errors.Join(raw.commit(ctx, nil, []*insertion{raw.next(0)}), ours(ctx, 0)))
	}
	compareCalls(b, "append", []int{1}, func(ctx context.Context, caller int) error {
		return raw.commit(ctx, nil, []*insertion{raw.next(caller)})
	}, ours)
	compareCalls(b, "append", []int{32}, raw.together, ours)
	compareCalls(b, "append, beside a transaction each with a counter row", []int{32}, raw.each, ours)

	b.Run("append to handled at half the peak rate/32_callers/bannou", live(events))

	compare(b, "load an aggregate of 10000 events with a snapshot, beside a get/1_caller", from(1, getter(store)), from(1, loader(b, events)))

	fill(b, events, stored)
	_, err = db.ExecContext(b.Context(), "TRUNCATE raw_events")
	require.NoError(b, err)
	_, err = db.ExecContext(b.Context(), "INSERT INTO raw_events SELECT * FROM events")
	require.NoError(b, err)
	all := eventstore.ReadOptions{From: 1, Limit: stored}
	compare(b, "read 100000 events/1_caller", from(1, raw.reader(b, "position >= 1 ORDER BY position LIMIT 100000")), from(1, func(ctx context.Context, _ int) error {
		return readAll(events.ReadAll(ctx, all))
	}))
	compare(b, "read 100000 events of a category/1_caller", from(1, raw.reader(b, "category = 'bulk' ORDER BY position")), from(1, func(ctx context.Context, _ int) error {
		return readAll(events.ReadCategory(ctx, "bulk", eventstore.ReadOptions{}))
	}))
}

func readAll(events iter.Seq2[eventstore.Recorded, error]) error {
	n := 0
	for e, err := range events {
		if err := errors.Join(err, checkWritten(e.Data)); err != nil {
			return err
		}
		n++
	}
	return expect(n, stored)
}

func checkWritten(data []byte) error {
	var w written
	return json.Unmarshal(data, &w)
}

func expect(n, want int) error {
	if n != want {
		return fmt.Errorf("%d events were read, and not %d", n, want)
	}
	return nil
}

// appender appends one event for a caller, whose stream nobody else has.
func appender(events *eventstore.Store) call {
	run := uuid.NewString()
	var versions [64]int64
	return func(ctx context.Context, caller int) error {
		data, err := json.Marshal(newWritten(caller))
		if err != nil {
			return err
		}
		stream := eventstore.StreamID{Category: "bench", ID: run + strconv.Itoa(caller)}
		appended, err := events.Append(ctx, stream, eventstore.Expected(versions[caller]), eventstore.Event{Type: "written", Data: data})
		versions[caller] = appended.Version
		return err
	}
}

// loader loads an aggregate with 10 000 events, whose snapshot is of the last one.
func loader(b *testing.B, events *eventstore.Store) call {
	b.Helper()
	types, err := eventstore.NewTypes(eventstore.TypeOf[written]("written", 1))
	require.NoError(b, err)
	aggregate, err := eventstore.NewAggregate(events, eventstore.AggregateConfig[written]{Category: "aggregate", Types: types,
		Snapshots: eventstore.SnapshotPolicy{Events: 100}, Apply: func(current *written, event any) error {
			current.Number++
			current.Text = event.(written).Text
			return nil
		}})
	require.NoError(b, err)
	for n := range 200 {
		decided := make([]any, 50)
		for i := range decided {
			decided[i] = newWritten(n)
		}
		_, err := aggregate.Decide(b.Context(), "a", func(eventstore.Loaded[written]) ([]any, error) { return decided, nil })
		require.NoError(b, err)
	}
	return func(ctx context.Context, _ int) error {
		loaded, err := aggregate.Load(ctx, "a")
		if err != nil {
			return err
		}
		return expect(int(loaded.Version), 10_000)
	}
}

// live measures the time from an event's due time to its handling by a subscription, at half the rate that 32 callers and the subscription carry.
func live(events *eventstore.Store) func(b *testing.B) {
	peak := 0.0
	return func(b *testing.B) {
		if peak == 0 {
			const burst = 5000
			begin := time.Now()
			t := newTally(burst)
			appendLive(b, events, burst, func(int) {}, t.add)
			peak = burst / time.Since(begin).Seconds()
		}
		p, n := newPace(b.N, peak/2)
		t := newTally(n)
		p.start()
		appendLive(b, events, n, p.wait, func(number int) {
			p.handled(number)
			t.add(number)
		})
		t.check(b)
		p.report(b)
		b.ReportMetric(float64(p.delay[len(p.delay)/2].Nanoseconds()), "ns/op")
		b.ReportMetric(float64(p.delay[len(p.delay)*99/100].Nanoseconds()), "p99-ns/op")
		b.Logf("%.0f events/s, half of the peak rate", peak/2)
	}
}

// appendLive appends n events from 32 callers, each when wait returns, and returns when a subscription has handled them all.
func appendLive(b *testing.B, events *eventstore.Store, n int, wait, handled func(number int)) {
	b.Helper()
	run := uuid.NewString()
	head, err := events.Head(b.Context())
	require.NoError(b, err)
	all := make(chan struct{})
	left := n
	sub, err := events.Subscribe(eventstore.SubscriptionConfig{Name: run, Category: "live", From: head, Handle: func(_ context.Context, e eventstore.Recorded) error {
		var w written
		if err := json.Unmarshal(e.Data, &w); err != nil {
			return err
		}
		handled(w.Number)
		if left--; left == 0 {
			close(all)
		}
		return nil
	}})
	require.NoError(b, err)
	together(b, 32, n, func(caller, number int) error {
		wait(number)
		data, err := json.Marshal(newWritten(number))
		if err != nil {
			return err
		}
		_, err = events.Append(b.Context(), eventstore.StreamID{Category: "live", ID: run + strconv.Itoa(caller)}, eventstore.Any, eventstore.Event{Type: "written", Data: data})
		return err
	})
	select {
	case <-all:
	case <-time.After(patience):
		b.Fatal("events were not handled")
	}
	require.NoError(b, sub.Close(b.Context()))
}

func fill(b *testing.B, events *eventstore.Store, total int) {
	b.Helper()
	for n := 0; n < total; n += eventstore.MaxAppendEvents {
		batch := make([]eventstore.Event, eventstore.MaxAppendEvents)
		for i := range batch {
			data, err := json.Marshal(newWritten(n + i))
			require.NoError(b, err)
			batch[i] = eventstore.Event{Type: "written", Data: data}
		}
		_, err := events.Append(b.Context(), eventstore.StreamID{Category: "bulk", ID: strconv.Itoa(n)}, eventstore.NoStream, batch...)
		require.NoError(b, err)
	}
}

const (
	rawRow    = "(?, 'bench', ?, ?, ?, 'written', 1, '{}', ?, CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED))"
	rawInsert = "INSERT INTO raw_events (position, category, stream, version, event_id, type, schema_version, metadata, data, recorded_at) VALUES " + rawRow
)

type rawEvents struct {
	db       *sql.DB
	inserts  [64]*sql.Stmt // of one row more than their number
	counter  *sql.Stmt
	asked    chan *insertion
	position atomic.Int64
	versions [64]int64
}

type insertion struct {
	stream  string
	version int64
	data    []byte
	done    chan error
}

func (r *rawEvents) next(caller int) *insertion {
	r.versions[caller]++
	data, err := json.Marshal(newWritten(caller))
	if err != nil {
		panic(err) // it is a struct of a number and a text
	}
	return &insertion{stream: "raw" + strconv.Itoa(caller), version: r.versions[caller], data: data, done: make(chan error, 1)}
}

// commit inserts rows with one statement.
func (r *rawEvents) commit(ctx context.Context, tx *sql.Tx, rows []*insertion) error {
	args := make([]any, 0, 5*len(rows))
	for _, row := range rows {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		args = append(args, r.position.Add(1), row.stream, row.version, id[:], row.data)
	}
	stmt := r.inserts[len(rows)-1]
	if tx != nil {
		stmt = tx.StmtContext(ctx, stmt)
	}
	_, err := stmt.ExecContext(ctx, args...)
	return err
}

// together hands a row to who gathers.
func (r *rawEvents) together(_ context.Context, caller int) error {
	row := r.next(caller)
	r.asked <- row
	return <-row.done
}

func (r *rawEvents) gather(ctx context.Context) {
	for {
		var rows []*insertion
		select {
		case row := <-r.asked:
			rows = append(rows, row)
		case <-ctx.Done():
			return
		}
		for more := true; more && len(rows) < len(r.inserts); {
			select {
			case row := <-r.asked:
				rows = append(rows, row)
			default:
				more = false
			}
		}
		err := r.commit(ctx, nil, rows)
		for _, row := range rows {
			row.done <- err
		}
	}
}

// each has a transaction for one row, which begins with the counter.
func (r *rawEvents) each(ctx context.Context, caller int) error {
	tx, err := r.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.StmtContext(ctx, r.counter).ExecContext(ctx); err != nil {
		return err
	}
	if err := r.commit(ctx, tx, []*insertion{r.next(caller)}); err != nil {
		return err
	}
	return tx.Commit()
}

// reader reads with one statement, which sends rows as they are asked for, and holds a connection.
func (r *rawEvents) reader(b *testing.B, which string) call {
	b.Helper()
	stmt := prepare(b, r.db, "SELECT position, category, stream, version, event_id, type, schema_version, metadata, data, recorded_at FROM raw_events WHERE "+which)
	return func(ctx context.Context, _ int) (err error) {
		rows, err := stmt.QueryContext(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		n := 0
		for ; rows.Next(); n++ {
			var position, version, recorded int64
			var category, stream, kind string
			var schema int
			var id, metadata, data []byte
			if err := rows.Scan(&position, &category, &stream, &version, &id, &kind, &schema, &metadata, &data, &recorded); err != nil {
				return err
			}
			if err := checkWritten(data); err != nil {
				return err
			}
		}
		return errors.Join(rows.Err(), expect(n, stored))
	}
}
