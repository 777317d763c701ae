package sqlstate

import (
	"container/list"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"slices"
)

// A Conn is a driver's connection that keeps statements prepared.
type Conn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.QueryerContext
	Kept() *Kept
}

// badTries is how many connections are tried that turn out to be lost before the statement was sent.
const badTries = 3

// Read runs a query on a connection of the pool, and gives each row to fn: in the driver's own types, which are good until
// fn returns. Asked again on the same connection, it is prepared and kept. The connections must be Conns.
//
// It passes by what database/sql does for each query beyond lending a connection: a context and a goroutine that wait for
// its end, and conversions by reflection. The text has to be of the program's making: what comes from outside is bound, or there would
// be no end of texts.
func Read(ctx context.Context, db *sql.DB, text string, args []any, fn func(row []driver.Value) error) error {
	return read(ctx, db, query{text: text, args: args, keep: true}, fn)
}

// ReadOnce is Read of a text that is one of many, and not to be kept.
func ReadOnce(ctx context.Context, db *sql.DB, text string, args []any, fn func(row []driver.Value) error) error {
	return read(ctx, db, query{text: text, args: args}, fn)
}

type query struct {
	text string
	args []any
	keep bool
}

func read(ctx context.Context, db *sql.DB, q query, fn func(row []driver.Value) error) error {
	for try := 1; ; try++ {
		err := readOn(ctx, db, q, fn)
		if try == badTries || !errors.Is(err, driver.ErrBadConn) {
			return err
		}
	}
}

func readOn(ctx context.Context, db *sql.DB, q query, fn func(row []driver.Value) error) error {
	lent, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	err = lent.Raw(func(conn any) error {
		c := conn.(Conn) //nolint:forcetypeassert // the pool has no others
		return c.Kept().read(ctx, c, q, fn)
	})
	if closing := lent.Close(); closing != nil && !errors.Is(closing, sql.ErrConnDone) { // a bad one is closed already
		return errors.Join(err, closing)
	}
	return err
}

// maxKept is how many statements a connection keeps prepared. A MySQL server has room for 16 382 by default, for all connections.
const maxKept = 32

// Kept are the statements that were asked last on a connection, prepared when they were asked twice. Like the connection, it
// is used by one at a time.
type Kept struct {
	texts  map[string]*list.Element
	latest list.List // of *keptStatement, the one used last in front
	args   []driver.NamedValue
	row    []driver.Value
}

type keptStatement struct {
	text string
	stmt driver.Stmt // nil: asked once
}

func (k *Kept) read(ctx context.Context, c Conn, q query, fn func(row []driver.Value) error) (err error) {
	if err := k.bind(q.args); err != nil {
		return err
	}
	defer clear(k.args)
	rows, err := k.query(ctx, c, q)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	k.row = slices.Grow(k.row[:0], len(rows.Columns()))[:len(rows.Columns())]
	defer clear(k.row)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := rows.Next(k.row); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := fn(k.row); err != nil {
			return err
		}
	}
}

// query asks a statement that is kept, or else the text. What cannot be prepared is asked so too: the server has no room for another
// one, or the text is wrong and the answer says why.
func (k *Kept) query(ctx context.Context, c Conn, q query) (driver.Rows, error) {
	if q.keep {
		if stmt := k.take(ctx, c, q.text); stmt != nil {
			return stmt.QueryContext(ctx, k.args)
		}
	}
	rows, err := c.QueryContext(ctx, q.text, k.args)
	if !errors.Is(err, driver.ErrSkip) {
		return rows, err
	}
	stmt, err := k.prepare(ctx, c, k.add(q.text)) // the driver cannot put values into this text
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, k.args)
}

// take returns the statement of a text, or nil when the text is asked for the first time or cannot be prepared.
func (k *Kept) take(ctx context.Context, c Conn, text string) driver.StmtQueryContext {
	element, known := k.texts[text]
	if !known {
		k.add(text)
		return nil
	}
	k.latest.MoveToFront(element)
	stmt, err := k.prepare(ctx, c, element)
	if err != nil {
		return nil
	}
	return stmt
}

func (k *Kept) add(text string) *list.Element {
	if element, known := k.texts[text]; known {
		return element
	}
	if k.texts == nil {
		k.texts = map[string]*list.Element{}
	}
	element := k.latest.PushFront(&keptStatement{text: text})
	k.texts[text] = element
	if k.latest.Len() > maxKept {
		k.drop(k.latest.Back())
	}
	return element
}

func (k *Kept) prepare(ctx context.Context, c Conn, element *list.Element) (driver.StmtQueryContext, error) {
	s := element.Value.(*keptStatement) //nolint:forcetypeassert // nothing else is in the list
	if s.stmt == nil {
		stmt, err := c.PrepareContext(ctx, s.text)
		if err != nil {
			return nil, err
		}
		s.stmt = stmt
	}
	return s.stmt.(driver.StmtQueryContext), nil //nolint:forcetypeassert // both drivers have it
}

func (k *Kept) drop(element *list.Element) {
	s := k.latest.Remove(element).(*keptStatement) //nolint:forcetypeassert // nothing else is in the list
	delete(k.texts, s.text)
	if s.stmt != nil {
		_ = s.stmt.Close()
	}
}

// Close closes the statements. It is for the end of the connection.
func (k *Kept) Close() {
	for k.latest.Len() > 0 {
		k.drop(k.latest.Back())
	}
}

// bind makes the drivers' values of args.
func (k *Kept) bind(args []any) error {
	k.args = k.args[:0]
	for i, arg := range args {
		value, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return err
		}
		k.args = append(k.args, driver.NamedValue{Ordinal: i + 1, Value: value})
	}
	return nil
}
