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
	if !l.dialect.Local && len(appends) == 1 && len(appends[0].Events) == 1 && !sequence.Closing(appends[0]) && !l.isCrowded() && !l.isInline() &&
		!l.tip.serves(appends[0]) {
		appended, err := l.single(ctx, appends[0])
		switch {
		case errors.Is(err, sqlstate.ErrDuplicate): // of a position, a version, or an id
			l.raced(err)
		case err != nil:
			l.tip.forget()
			return err
		case appended != nil:
			call.Ask.appended = []eventstore.Appended{*appended}
			l.tip.follow(&appends[0].Events[0], appended)
			return nil
		}
	}
	return l.together(ctx, []*sqlstate.Call[addition]{call})
}

const (
	columns = "position, category, stream, version, event_id, type, schema_version, metadata, data, recorded_at"
	oneRow  = "(?, ?, ?, ?, ?, ?, ?, ?, ?, "
)

// together makes appends one after the other, all in one step. What is refused is its caller's own.
func (l *log) together(ctx context.Context, calls []*sqlstate.Call[addition]) error {
	t := l.begin(calls)
	if !l.dialect.Local && !l.isCrowded() && !l.isInline() && t.events <= maxRows {
		if done, err := t.onwards(ctx); done || err != nil {
			return err
		}
		if done, err := t.hopefully(ctx); done || err != nil {
			return err
		}
	}
	l.tip.forget()
	if err := t.prepare(ctx); err != nil {
		return err
	}
	careful := l.dialect.Local
	again := false
	return l.verdict(ctx, func(tx *sql.Tx) (refused, err error) {
		if again { // a position, a version or an id was there already
			l.crowd()
			careful = true
		}
		again = true
		if l.dialect.Turn != "" && (l.isCrowded() || l.isInline()) { // inline, a transaction is long, and who has no turn would lose to the others each time
			var one int
			if err := tx.QueryRowContext(ctx, l.sql(l.dialect.Turn)).Scan(&one); err != nil {
				return nil, err
			}
		}
		rows, _, err := t.decide(ctx, within{tx}, careful)
		if err != nil {
			return nil, err
		}
		if err := t.insert(ctx, within{tx}, rows); err != nil || len(rows) == 0 || !l.isInline() {
			return nil, err
		}
		return l.project(ctx, tx)
	})
}

// hopefully does without a transaction, and its round trips: it reads the end, decides, and inserts all rows with one statement. That fails as a
// whole where another process was faster: a position, or a version, is there already. False: nothing was done.
func (t *transaction) hopefully(ctx context.Context) (done bool, err error) {
	l := t.log
	if err := t.prepare(ctx); err != nil {
		return true, err
	}
	var rows []eventstore.Recorded
	var end *sequence.End
	err = l.db.Read(ctx, func(db *sql.DB) (err error) {
		rows, end, err = t.decide(ctx, outside{db}, false)
		return err
	})
	if err != nil || len(rows) == 0 {
		return true, err
	}
	if sizeOf(rows) > maxBytes {
		return false, nil
	}
	err = l.db.Write(ctx, func(db *sql.DB) error { return t.insert(ctx, outside{db}, rows) })
	switch {
	case errors.Is(err, sqlstate.ErrDuplicate):
		l.raced(err)
		return false, nil
	case err != nil:
		l.tip.forget()
	default:
		l.tip.move(rows, end.Versions)
	}
	return true, err
}

// A connection is a transaction, or none.
type connection interface {
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error)
	prepared(ctx context.Context, stmt *sql.Stmt) *sql.Stmt
}

type within struct{ *sql.Tx }

func (w within) prepared(ctx context.Context, stmt *sql.Stmt) *sql.Stmt {
	return w.StmtContext(ctx, stmt)
}

type outside struct{ *sql.DB }

func (outside) prepared(_ context.Context, stmt *sql.Stmt) *sql.Stmt { return stmt }

func (l *log) isCrowded() bool { return time.Now().UnixNano() < l.crowded.Load() }
func (l *log) crowd()          { l.crowded.Store(time.Now().Add(crowdedFor).UnixNano()) }

// raced notes that a row is there already, if it is the position that another process was faster to take.
func (l *log) raced(err error) {
	if strings.Contains(err.Error(), "PRIMARY") { // the key of positions
		l.crowd()
	}
}

// A transaction appends for several callers, in one step.
type transaction struct {
	log     *log
	calls   []*sqlstate.Call[addition]
	streams []eventstore.StreamID
	events  int
	ends    *sql.Stmt         // these, once they are prepared
	inserts map[int]*sql.Stmt // by the number of rows
}

// maxStreams and maxRows are how many streams and rows one prepared statement is about at most.
const (
	maxStreams = 64
	maxRows    = 64
)

func (l *log) begin(calls []*sqlstate.Call[addition]) *transaction {
	t := &transaction{log: l, calls: calls}
	if len(calls) == 1 && len(calls[0].Ask.appends) == 1 {
		only := &calls[0].Ask.appends[0]
		t.events, t.streams = len(only.Events), []eventstore.StreamID{only.Stream}
		return t
	}
	seen := make(map[eventstore.StreamID]bool, len(calls))
	for _, call := range calls {
		for _, a := range call.Ask.appends {
			t.events += len(a.Events)
			if !seen[a.Stream] {
				seen[a.Stream] = true
				t.streams = append(t.streams, a.Stream)
			}
		}
	}
	return t
}

// prepare prepares the statements: within the transaction there would be no connection to do that.
func (t *transaction) prepare(ctx context.Context) (err error) {
	if t.ends != nil {
		return nil
	}
	if t.inserts == nil {
		t.inserts = map[int]*sql.Stmt{}
	}
	for _, n := range []int{min(t.events, maxRows), t.events % maxRows} {
		if n > 0 && t.inserts[n] == nil {
			t.inserts[n], err = t.log.prepared(ctx, statement{"insert", n}) //nolint:sqlclosecheck // it is kept
			if err != nil {
				return err
			}
		}
	}
	t.ends, err = t.log.prepared(ctx, statement{"ends", slots(len(t.streams))})
	return err
}

// slots is how many streams a prepared statement has that is to serve n.
func slots(n int) int { return min(1<<bits.Len(uint(n-1)), maxStreams) }

// endText is the version of a stream, negative where it is closed.
const endText = ", (SELECT CASE type WHEN '" + eventstore.ClosedType + "' THEN -version ELSE version END FROM {t} WHERE category = ? AND stream = ? ORDER BY version DESC LIMIT 1)"

func endsText(streams int) string {
	return "SELECT (SELECT MAX(position) FROM {t})" + strings.Repeat(endText, streams)
}

func (l *log) insertText(rows int) string {
	row := oneRow + l.db.Now + ")"
	return "INSERT INTO {t} (" + columns + ") VALUES " + row + strings.Repeat(", "+row, rows-1)
}

// decide says what becomes of each call, and returns the rows to write, and the end that there is then.
func (t *transaction) decide(ctx context.Context, c connection, careful bool) ([]eventstore.Recorded, *sequence.End, error) {
	end, err := t.end(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if careful {
		if err := t.look(ctx, c, end); err != nil {
			return nil, nil, err
		}
	}
	var rows []eventstore.Recorded
	for _, call := range t.calls {
		appended, added, err := end.Add(call.Ask.appends)
		if errors.Is(err, sequence.ErrLook) {
			return t.decide(ctx, c, true)
		}
		call.Ask.appended, call.Err = appended, err
		rows = append(rows, added...)
	}
	return rows, end, nil
}

// end reads the end of the log and of the streams.
func (t *transaction) end(ctx context.Context, c connection) (*sequence.End, error) {
	end := &sequence.End{Versions: make(map[eventstore.StreamID]int64, len(t.streams)), Known: map[string]sequence.Place{}}
	ends := c.prepared(ctx, t.ends) //nolint:sqlclosecheck // it is kept, or ends with the transaction
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
func (t *transaction) look(ctx context.Context, c connection, end *sequence.End) error {
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
		if err := t.lookFor(ctx, c, end, part); err != nil {
			return err
		}
	}
	end.Looked = true
	return nil
}

func (t *transaction) lookFor(ctx context.Context, c connection, end *sequence.End, ids []any) (err error) {
	query := sqlstate.SQL(t.log.sql("SELECT event_id, category, stream, version, position FROM {t} WHERE event_id IN (@)"), sqlstate.Binds(ids))
	rows, err := c.QueryContext(ctx, query.Text, query.Args...)
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
func (t *transaction) insert(ctx context.Context, c connection, rows []eventstore.Recorded) error {
	for len(rows) > 0 {
		n := min(len(rows), maxRows)
		for n > 1 && sizeOf(rows[:n]) > maxBytes {
			n /= 2
		}
		args, err := valuesOfAll(make([]any, 0, 9*n), rows[:n])
		if err != nil {
			return err
		}
		rows = rows[n:]
		if stmt := t.inserts[n]; stmt != nil {
			_, err = c.prepared(ctx, stmt).ExecContext(ctx, args...) //nolint:sqlclosecheck // it is kept, or ends with the transaction
		} else {
			_, err = c.ExecContext(ctx, t.log.sql(t.log.insertText(n)), args...)
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

// valuesOfAll adds the columns of rows, but for the instant.
func valuesOfAll(args []any, rows []eventstore.Recorded) (_ []any, err error) {
	for i := range rows {
		r := &rows[i]
		args = append(args, r.Position, r.Stream.Category, r.Stream.ID, r.Version)
		if args, err = valuesOf(args, &r.Event); err != nil {
			return nil, err
		}
	}
	return args, nil
}

// noMetadata is what events without metadata have.
const noMetadata = "{}"

// valuesOf adds an event's own columns: id, type, schema, metadata, data.
func valuesOf(args []any, e *eventstore.Event) ([]any, error) {
	id, err := binary(e.ID)
	if err != nil {
		return nil, err
	}
	metadata := []byte(noMetadata)
	if e.Metadata != (eventstore.Metadata{}) {
		if metadata, err = json.Marshal(e.Metadata); err != nil {
			return nil, fmt.Errorf("%w: the metadata of event %s: %w", state.ErrInvalid, e.ID, err)
		}
	}
	return append(args, id, e.Type, e.Schema, metadata, []byte(e.Data)), nil
}

func binary(id string) ([]byte, error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return nil, fmt.Errorf("%w: the id of an event: %w", state.ErrInvalid, err)
	}
	return parsed[:], nil
}
