package sqlevents

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/internal/sequence"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// A tip is what this process knows of the end of the log, having appended the last event itself: then it need not read it. Others may have
// appended meanwhile; then a position is there already, and the insert fails. That the event of the tip is still there, and has not gone with a database
// that was set back, the insert looks at, but for a while after it has done so, on connections that have seen it: to look costs a lone writer a seventh.
// It belongs to the lane of appends.
type tip struct {
	position int64 // 0: nothing is known
	id       string
	versions map[eventstore.StreamID]int64 // of streams at that position

	token  int64     // what connections have in a variable that have seen the tip, or one before it; a number, which the server compares faster than a text
	looked time.Time // when that was
}

// lookAfter is for how long it is not looked. Nobody sets back a database in so short a time under who appends to it.
const lookAfter = 100 * time.Millisecond

// maxTip is how many streams' versions are known at most.
const maxTip = 10_000

func (k *tip) forget() { *k = tip{} }

// serves reports whether the version of the stream is known, or need not be.
func (k *tip) serves(a eventstore.Append) bool {
	if k.position == 0 {
		return false
	}
	_, known := k.versions[a.Stream]
	return known || a.Expected == eventstore.NoStream
}

// move is to the last of the rows, which were appended; versions are of their streams then.
func (k *tip) move(rows []eventstore.Recorded, versions map[eventstore.StreamID]int64) {
	first, last := &rows[0], &rows[len(rows)-1]
	if k.versions == nil || first.Position != k.position+1 || len(k.versions)+len(versions) > maxTip {
		k.versions = make(map[eventstore.StreamID]int64, len(versions))
	}
	k.position, k.id = last.Position, last.ID
	if k.token == 0 {
		k.token = 1 + rand.Int64N(math.MaxInt64-1) //nolint:gosec // it is no secret, and differs from those of other processes
	}
	for stream, version := range versions {
		k.versions[stream] = version
	}
}

// follow is move for one event.
func (k *tip) follow(e *eventstore.Event, a *eventstore.Appended) {
	k.move([]eventstore.Recorded{{Event: *e, Position: a.Position}}, map[eventstore.StreamID]int64{a.Stream: a.Version})
}

// What stands for the position of the first row. Without the event of the tip, or the variable, it is NULL, and the statement fails.
const (
	// The index has both columns, so that the event itself is not read. MySQL, which alone reads the comments, does not read what it inserts into, but for a table
	// that is made of it first.
	lookingPosition = "(SELECT IF((@bannou_events := ?) IS NULL, NULL, position + 1) FROM /*!50799 (SELECT position FROM */ {t} FORCE INDEX ({t}_event)" +
		" WHERE event_id = ? AND position = ? /*!50799 ) g */)"
	trustingPosition = "IF(@bannou_events = ?, ?, NULL)"
)

// onwards appends behind the tip with one statement. False: nothing was done, and the end has to be read.
func (t *transaction) onwards(ctx context.Context) (done bool, err error) {
	l := t.log
	if l.tip.position == 0 {
		return false, nil
	}
	end := &sequence.End{Position: l.tip.position, Versions: make(map[eventstore.StreamID]int64, len(t.streams))}
	if len(t.calls) > 1 {
		end.Known = make(map[string]sequence.Place, t.events)
	}
	rows := make([]eventstore.Recorded, 0, t.events)
	for _, call := range t.calls {
		for i := range call.Ask.appends {
			a := &call.Ask.appends[i]
			if !l.tip.serves(*a) {
				return false, nil
			}
			if _, there := end.Versions[a.Stream]; !there {
				end.Versions[a.Stream] = l.tip.versions[a.Stream]
			}
		}
		appended, added, err := end.Add(call.Ask.appends)
		if err != nil || len(added) == 0 {
			return false, nil //nolint:nilerr // it is decided anew by what is there
		}
		call.Ask.appended, call.Err = appended, nil
		rows = append(rows, added...)
	}
	if sizeOf(rows) > maxBytes {
		return false, nil
	}
	if time.Since(l.tip.looked) < lookAfter {
		err = t.insertTrusting(ctx, rows)
		if errors.Is(err, sqlstate.ErrNull) { // on a connection that has not seen it
			err = t.insertLooking(ctx, rows)
		}
	} else {
		err = t.insertLooking(ctx, rows)
	}
	switch {
	case err == nil:
		l.tip.move(rows, end.Versions)
		return true, nil
	case errors.Is(err, sqlstate.ErrDuplicate), errors.Is(err, sqlstate.ErrNull):
		l.tip.forget()
		return false, nil
	default:
		l.tip.forget()
		return true, err
	}
}

func (t *transaction) insertTrusting(ctx context.Context, rows []eventstore.Recorded) error {
	args := append(make([]any, 0, 9*len(rows)+1), t.log.tip.token)
	args, err := valuesOfAll(args, rows)
	if err != nil {
		return err
	}
	return t.log.execute(ctx, statement{"trusting", len(rows)}, args)
}

func (t *transaction) insertLooking(ctx context.Context, rows []eventstore.Recorded) error {
	tip := &t.log.tip
	id, err := binary(tip.id)
	if err != nil {
		return err
	}
	now := time.Now()
	args := append(make([]any, 0, 9*len(rows)+2), tip.token, id)
	if args, err = valuesOfAll(args, rows); err != nil {
		return err
	}
	args[2] = tip.position // in place of the first row's
	err = t.log.execute(ctx, statement{"looking", len(rows)}, args)
	if err == nil {
		tip.looked = now
	}
	return err
}

func (l *log) execute(ctx context.Context, of statement, args []any) error {
	stmt, err := l.prepared(ctx, of) //nolint:sqlclosecheck // it is kept
	if err != nil {
		return err
	}
	return l.db.Write(ctx, func(*sql.DB) error {
		_, err := stmt.ExecContext(ctx, args...)
		return err
	})
}
