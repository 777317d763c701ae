package sqlitestate

import (
	"context"
	"database/sql"

	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Database lends the file to a package that keeps tables of its own in it, beside pkg/state, such as sqliteevents. It makes the tables when
// they are absent. It lasts as long as the driver.
func (d *Driver) Database(ctx context.Context, table string, migrations func(table string) [][]string) (*sqlstate.Database, error) {
	if err := sqlstate.CheckTable(table); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if err := migrate(ctx, d.writer, table, migrations(table)); err != nil {
		return nil, failure(ctx, err)
	}
	run := func(db *sql.DB) func(ctx context.Context, fn func(*sql.DB) error) error {
		return func(ctx context.Context, fn func(*sql.DB) error) error {
			if err := fn(db); err != nil {
				return failure(ctx, err)
			}
			return nil
		}
	}
	return &sqlstate.Database{
		Writer: d.writer, Reader: d.reader,
		Prepare:  func(context.Context) error { return nil },
		Transact: d.transact,
		Own:      isOwn,
		Write:    run(d.writer),
		Read:     run(d.reader),
		Now:      nowMicros,
		Workers:  d.workers,
	}, nil
}
