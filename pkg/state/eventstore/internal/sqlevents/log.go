// Package sqlevents is what the SQL engines of the event store share.
package sqlevents

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Dialect is what the engines differ in.
type Dialect struct {
	// Local is set where a statement costs no round trip: then all ids are looked for, and there is no statement for one event alone.
	Local bool
	// Turn locks the row of the table {t}_turn. Empty: a transaction has the log for itself anyway.
	Turn string
	// KeepNewer ends the INSERT of a snapshot: of two, the one of the later version stays.
	KeepNewer string
	// Prolong ends the INSERT of a consumer that is there already.
	Prolong string
	// ByCategory follows the table's name where a category is read from a position on: without it MariaDB was seen to read the index of the whole
	// category for each page.
	ByCategory string
	// Lock ends a SELECT of a row that the transaction will change.
	Lock string
}

// New returns the log of a table.
func New(db *sqlstate.Database, table string, d Dialect) eventstore.Engine {
	l := &log{db: db, table: table, dialect: d, preparing: make(chan struct{}, 1)}
	l.queries = sqlstate.NewPrepared(db.Reader, maxQueries, nil)
	l.gathering = sqlstate.Gathering[addition]{Alone: l.alone, Together: l.together, Lanes: 1, Workers: db.Workers}
	return l
}

// maxQueries is how many queries of readers are kept prepared: more than there are.
const maxQueries = 32

// A log is one table of events, and those beside it.
type log struct {
	db        *sqlstate.Database
	table     string
	dialect   Dialect
	gathering sqlstate.Gathering[addition]
	queries   *sqlstate.Prepared // of readers
	crowded   atomic.Int64       // until when another process is taken to append too, in nanoseconds since 1970

	tip        tip
	statements sync.Map      // of the writer, prepared: *sql.Stmt by statement
	preparing  chan struct{} // held by who prepares one
}

// sql puts the table's name, which has been checked, into a statement.
func (l *log) sql(text string) string { return strings.ReplaceAll(text, "{t}", l.table) }

// A statement of the writer is of a kind, and about so many rows or streams.
type statement struct {
	kind string
	n    int
}

func (l *log) text(s statement) string {
	switch s.kind {
	case "insert":
		return l.insertText(s.n)
	case "looking":
		return strings.Replace(l.insertText(s.n), "(?, ", "("+lookingPosition+", ", 1)
	case "trusting":
		return strings.Replace(l.insertText(s.n), "(?, ", "("+trustingPosition+", ", 1)
	case "ends":
		return endsText(s.n)
	default:
		return strings.ReplaceAll(s.kind, "{now}", l.db.Now)
	}
}

// prepared returns a statement of the writer that is prepared once. It must not be called within a transaction, which has the only
// connection in SQLite. The driver closes the statements with its connections.
func (l *log) prepared(ctx context.Context, of statement) (*sql.Stmt, error) {
	if s, ok := l.statements.Load(of); ok {
		return s.(*sql.Stmt), nil //nolint:forcetypeassert // nothing else is in the map
	}
	select {
	case l.preparing <- struct{}{}:
		defer func() { <-l.preparing }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: the statements were not prepared in time: %w", state.ErrUnavailable, ctx.Err())
	}
	if s, ok := l.statements.Load(of); ok {
		return s.(*sql.Stmt), nil //nolint:forcetypeassert // nothing else is in the map
	}
	var s *sql.Stmt
	err := l.db.Read(ctx, func(*sql.DB) (err error) { // to prepare changes nothing
		s, err = l.db.Writer.PrepareContext(ctx, l.sql(l.text(of))) //nolint:sqlclosecheck // the driver does, with its connections
		return err
	})
	if err != nil {
		return nil, err
	}
	l.statements.Store(of, s)
	return s, nil
}
