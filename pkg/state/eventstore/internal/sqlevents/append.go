package sqlevents

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/internal/sequence"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// An addition is one append, and what came of it.
type addition struct {
	appends  []eventstore.Append
	appended []eventstore.Appended
}

// crowdedFor is how long after a lost race this process takes the turn before it appends.
const crowdedFor = time.Second

func (l *log) Append(ctx context.Context, appends []eventstore.Append) ([]eventstore.Appended, error) {
	size := int64(0)
	for _, a := range appends {
		for i := range a.Events {
			size += int64(len(a.Events[i].Data)) + 256
		}
	}
	made, err := l.gathering.Do(ctx, addition{appends: appends}, size)
	return made.appended, err
}

func (l *log) alone(ctx context.Context, call *sqlstate.Call[addition]) error {
	appends := call.Ask.appends
	if !l.dialect.Local && len(appends) == 1 && len(appends[0].Events) == 1 && !l.isCrowded() {
		appended, err := l.single(ctx, appends[0])
		switch {
		case errors.Is(err, sqlstate.ErrDuplicate): // of a position, a version, or an id
			if strings.Contains(err.Error(), "PRIMARY") { // the key of positions
				l.crowd()
			}
		case err != nil:
			return err
		case appended != nil:
			call.Ask.appended = []eventstore.Appended{*appended}
			return nil
		}
	}
	return l.together(ctx, []*sqlstate.Call[addition]{call})
}

const (
	columns = "position, category, stream, version, event_id, type, schema_version, metadata, data, recorded_at"
	oneRow  = "(?, ?, ?, ?, ?, ?, ?, ?, ?, "

	// One event alone. Its version is right, or it meets the unique key of its stream. That the version before it exists is looked for by the key,
	// and not compared in a condition with the highest there is: MySQL 8 was seen to take what such a statement was first executed with for what it
	// was given the next time.
	insertSingle = "INSERT INTO {t} (" + columns + ") SELECT LAST_INSERT_ID(p.next), ?, ?, "
	singleValues = ", ?, ?, ?, ?, ?, {now} FROM (SELECT COALESCE(MAX(position), 0) + 1 AS next FROM {t}) p"

	insertNew    = insertSingle + "1" + singleValues
	insertBehind = insertSingle + "s.version + 1" + singleValues + ", {t} s WHERE s.category = ? AND s.stream = ? AND s.version = ?"
	insertAny    = insertSingle + "s.version + 1" + singleValues + ", (SELECT COALESCE(MAX(version), 0) AS version FROM {t} WHERE category = ? AND stream = ?) s"
)

// single appends one event with one statement. Nil: the version before it does not exist.
func (l *log) single(ctx context.Context, a eventstore.Append) (*eventstore.Appended, error) {
	args := []any{a.Stream.Category, a.Stream.ID}
	values, err := valuesOf(&a.Events[0])
	if err != nil {
		return nil, err
	}
	args = append(args, values...)
	var text string
	switch a.Expected {
	case eventstore.NoStream:
		text = insertNew
	case eventstore.Any:
		text = insertAny
		args = append(args, a.Stream.Category, a.Stream.ID)
	default:
		text = insertBehind
		args = append(args, a.Stream.Category, a.Stream.ID, int64(a.Expected))
	}
	stmt, err := l.prepared(ctx, strings.ReplaceAll(text, "{now}", l.db.Now))
	if err != nil {
		return nil, err
	}
	appended := eventstore.Appended{Stream: a.Stream, Version: int64(a.Expected) + 1}
	var rows int64
	err = l.db.Write(ctx, func(*sql.DB) error {
		result, err := stmt.ExecContext(ctx, args...)
		if err != nil {
			return err
		}
		if rows, err = result.RowsAffected(); err != nil {
			return err
		}
		appended.Position, err = result.LastInsertId()
		return err
	})
	if err != nil || rows == 0 {
		return nil, err
	}
	if a.Expected == eventstore.Any {
		if appended.Version, err = l.versionAt(ctx, appended.Position); err != nil {
			return nil, fmt.Errorf("%w: the event was appended, and its version cannot be read: %w", state.ErrOutcomeUnknown, err)
		}
	}
	return &appended, nil
}

func (l *log) versionAt(ctx context.Context, position int64) (version int64, err error) {
	err = l.db.Read(ctx, func(*sql.DB) error {
		rows, err := l.queries.Query(ctx, l.sql("SELECT version FROM {t} WHERE position = ?"), position) //nolint:rowserrcheck // Number does
		if err != nil {
			return err
		}
		version, err = sqlstate.Number(rows)
		return err
	})
	return version, err
}

// together makes appends one after the other, in one transaction. What is refused is its caller's own.
func (l *log) together(ctx context.Context, calls []*sqlstate.Call[addition]) error {
	t, err := l.begin(ctx, calls)
	if err != nil {
		return err
	}
	careful := l.dialect.Local
	again := false
	return l.db.Transact(ctx, func(tx *sql.Tx) error {
		if again { // a position, a version or an id was there already
			l.crowd()
			careful = true
		}
		again = true
		if l.dialect.Turn != "" && l.isCrowded() {
			var one int
			if err := tx.QueryRowContext(ctx, l.sql(l.dialect.Turn)).Scan(&one); err != nil {
				return err
			}
		}
		rows, err := t.decide(ctx, tx, careful)
		if err != nil {
			return err
		}
		return t.insert(ctx, tx, rows)
	})
}

func (l *log) isCrowded() bool { return time.Now().UnixNano() < l.crowded.Load() }
func (l *log) crowd()          { l.crowded.Store(time.Now().Add(crowdedFor).UnixNano()) }

// A transaction appends for several callers.
type transaction struct {
	log     *log
	calls   []*sqlstate.Call[addition]
	streams []eventstore.StreamID
	ends    *sql.Stmt
	inserts map[int]*sql.Stmt // by the number of rows
}

// maxStreams and maxRows are how many streams and rows one prepared statement is about at most.
const (
	maxStreams = 64
	maxRows    = 64
)

// begin prepares the statements: within the transaction there would be no connection to do that.
func (l *log) begin(ctx context.Context, calls []*sqlstate.Call[addition]) (*transaction, error) {
	t := &transaction{log: l, calls: calls, inserts: map[int]*sql.Stmt{}}
	seen := make(map[eventstore.StreamID]bool, len(calls))
	events := 0
	for _, call := range calls {
		for _, a := range call.Ask.appends {
			events += len(a.Events)
			if !seen[a.Stream] {
				seen[a.Stream] = true
				t.streams = append(t.streams, a.Stream)
			}
		}
	}
	var err error
	if t.ends, err = l.prepared(ctx, endsText(slots(len(t.streams)))); err != nil {
		return nil, err
	}
	for _, n := range []int{min(events, maxRows), events % maxRows} {
		if n > 0 && t.inserts[n] == nil {
			t.inserts[n], err = l.prepared(ctx, insertText(n, l.db.Now)) //nolint:sqlclosecheck // it is kept
			if err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// slots is how many streams a prepared statement has that is to serve n.
func slots(n int) int { return min(1<<bits.Len(uint(n-1)), maxStreams) }

func endsText(streams int) string {
	return "SELECT (SELECT MAX(position) FROM {t})" + strings.Repeat(", (SELECT MAX(version) FROM {t} WHERE category = ? AND stream = ?)", streams)
}

func insertText(rows int, now string) string {
	row := oneRow + now + ")"
	return "INSERT INTO {t} (" + columns + ") VALUES " + row + strings.Repeat(", "+row, rows-1)
}

// decide says what becomes of each call, and returns the rows to write.
func (t *transaction) decide(ctx context.Context, tx *sql.Tx, careful bool) ([]eventstore.Recorded, error) {
	end, err := t.end(ctx, tx)
	if err != nil {
		return nil, err
	}
	if careful {
		if err := t.look(ctx, tx, end); err != nil {
			return nil, err
		}
	}
	var rows []eventstore.Recorded
	for _, call := range t.calls {
		appended, added, err := end.Add(call.Ask.appends)
		if errors.Is(err, sequence.ErrLook) {
			return t.decide(ctx, tx, true)
		}
		call.Ask.appended, call.Err = appended, err
		rows = append(rows, added...)
	}
	return rows, nil
}

// end reads the end of the log and of the streams.
func (t *transaction) end(ctx context.Context, tx *sql.Tx) (*sequence.End, error) {
	end := &sequence.End{Versions: make(map[eventstore.StreamID]int64, len(t.streams)), Known: map[string]sequence.Place{}}
	ends := tx.StmtContext(ctx, t.ends)
	n := slots(len(t.streams))
	for begin := 0; begin < len(t.streams); begin += n {
		args := make([]any, 0, 2*n)
		found := make([]sql.NullInt64, 1+n)
		into := []any{&found[0]}
		for i := range n {
			s := t.streams[min(begin+i, len(t.streams)-1)]
			args = append(args, s.Category, s.ID)
			into = append(into, &found[1+i])
		}
		if err := ends.QueryRowContext(ctx, args...).Scan(into...); err != nil {
			return nil, err
		}
		if begin == 0 {
			end.Position = found[0].Int64
		}
		for i, version := range found[1:] {
			end.Versions[t.streams[min(begin+i, len(t.streams)-1)]] = version.Int64
		}
	}
	return end, nil
}

// look finds the events that are there already.
func (t *transaction) look(ctx context.Context, tx *sql.Tx, end *sequence.End) error {
	var ids []any
	for _, call := range t.calls {
		for _, a := range call.Ask.appends {
			for i := range a.Events {
				id, err := binary(a.Events[i].ID)
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
		}
	}
	for len(ids) > 0 {
		part := ids[:min(len(ids), 500)]
		ids = ids[len(part):]
		if err := t.lookFor(ctx, tx, end, part); err != nil {
			return err
		}
	}
	end.Looked = true
	return nil
}

func (t *transaction) lookFor(ctx context.Context, tx *sql.Tx, end *sequence.End, ids []any) (err error) {
	query := sqlstate.SQL(t.log.sql("SELECT event_id, category, stream, version, position FROM {t} WHERE event_id IN (@)"), sqlstate.Binds(ids))
	rows, err := tx.QueryContext(ctx, query.Text, query.Args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id uuid.UUID
		var raw []byte
		var p sequence.Place
		if err := rows.Scan(&raw, &p.Stream.Category, &p.Stream.ID, &p.Version, &p.Position); err != nil {
			return err
		}
		copy(id[:], raw)
		end.Known[id.String()] = p
	}
	return rows.Err()
}

// insert writes the rows with as few statements as fit: prepared ones, unless calls were refused and there are fewer rows than was thought.
func (t *transaction) insert(ctx context.Context, tx *sql.Tx, rows []eventstore.Recorded) error {
	for len(rows) > 0 {
		n := min(len(rows), maxRows)
		for n > 1 && sizeOf(rows[:n]) > maxBytes {
			n /= 2
		}
		args := make([]any, 0, 9*n)
		for i := range rows[:n] {
			r := &rows[i]
			values, err := valuesOf(&r.Event)
			if err != nil {
				return err
			}
			args = append(args, r.Position, r.Stream.Category, r.Stream.ID, r.Version)
			args = append(args, values...)
		}
		rows = rows[n:]
		var err error
		if stmt := t.inserts[n]; stmt != nil {
			_, err = tx.StmtContext(ctx, stmt).ExecContext(ctx, args...)
		} else {
			_, err = tx.ExecContext(ctx, t.log.sql(insertText(n, t.log.db.Now)), args...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxBytes keeps a statement below max_allowed_packet, whose default is 16 MiB on MariaDB.
const maxBytes = 2 << 20

func sizeOf(rows []eventstore.Recorded) (n int) {
	for i := range rows {
		n += len(rows[i].Data)
	}
	return n
}

// valuesOf are an event's own columns: id, type, schema, metadata, data.
func valuesOf(e *eventstore.Event) ([]any, error) {
	id, err := binary(e.ID)
	if err != nil {
		return nil, err
	}
	metadata := []byte("{}")
	if e.Metadata != (eventstore.Metadata{}) {
		if metadata, err = json.Marshal(e.Metadata); err != nil {
			return nil, fmt.Errorf("%w: the metadata of event %s: %w", state.ErrInvalid, e.ID, err)
		}
	}
	return []any{id, e.Type, e.Schema, metadata, []byte(e.Data)}, nil
}

func binary(id string) ([]byte, error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return nil, fmt.Errorf("%w: the id of an event: %w", state.ErrInvalid, err)
	}
	return parsed[:], nil
}
