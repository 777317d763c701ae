package sqlitestate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3/database"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// busyTimeout is how long a change waits for another process that is writing to the file, in milliseconds.
const busyTimeout = "5000"

// openFile opens the pools of the writer and the readers on a file that it has checked.
func openFile(path string, readers int) (writer, reader *sql.DB, err error) {
	if path == "" {
		return nil, nil, fmt.Errorf("%w: sqlite: the path of the database file is empty", state.ErrInvalid)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, nil, fmt.Errorf("sqlite: the path of the database file: %w", err)
	}
	if err := createFile(path); err != nil {
		return nil, nil, err
	}
	// The writer caches 2 MiB, a reader 1 MiB: SQLite's default of 2 MiB for each would double the process at rest.
	writer, err = openPool(path, url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(" + busyTimeout + ")", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-2048)"}})
	if err != nil {
		return nil, nil, unusable(path, err)
	}
	writer.SetMaxOpenConns(1)
	reader, err = openReaders(path, url.Values{"_pragma": {
		"busy_timeout(" + busyTimeout + ")", "query_only(1)", "cache_size(-1024)"}})
	if err != nil {
		return nil, nil, errors.Join(unusable(path, err), writer.Close())
	}
	reader.SetMaxOpenConns(readers)
	reader.SetMaxIdleConns(readers)
	if err := begin(writer); err != nil {
		return nil, nil, errors.Join(unusable(path, err), writer.Close(), reader.Close())
	}
	return writer, reader, nil
}

// begin makes the writer's connection. The readers find WAL mode in the file, so the writer sets it first. Of several
// processes that set it at once, all but one are told that the file is locked, and at once: no busy_timeout counts there.
// Reading the schema finds out whether the file is a database at all.
func begin(writer *sql.DB) error {
	const tries, pause = 100, 50 * time.Millisecond
	for try := 1; ; try++ {
		var n int
		err := writer.QueryRowContext(context.Background(), "SELECT count(*) FROM sqlite_schema").Scan(&n)
		if err == nil || resultCode(err) != sqlite3.SQLITE_BUSY || try == tries {
			return err
		}
		<-time.After(pause)
	}
}

// openPool does not touch the file yet.
func openPool(path string, options url.Values) (*sql.DB, error) {
	return sql.Open("sqlite", address(path, options))
}

func address(path string, options url.Values) string {
	return (&url.URL{Scheme: "file", Path: path, RawQuery: options.Encode()}).String()
}

// createFile makes the folder and the file, for the owner alone, and finds out whether they can be used.
func createFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("sqlite: the folder %s cannot be created: %w; name a folder that this user may write to", filepath.Dir(path), cause(err))
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("sqlite: the file %s cannot be opened: %w; name one in a folder that this user may read and write", path, cause(err))
	}
	return f.Close()
}

// cause drops the path that an os error repeats.
func cause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func unusable(path string, err error) error {
	if resultCode(err) == sqlite3.SQLITE_NOTADB {
		return fmt.Errorf("sqlite: the file %s is not a SQLite database; name another file, or move this one away", path)
	}
	return fmt.Errorf("sqlite: the file %s cannot be used: %w", path, err)
}

// resultCode is SQLite's primary result code of an error, 0 when it is none of SQLite's.
func resultCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// migrations are the statements that make a table, oldest first; released ones never change.
//
// The value is text, so that it comes back with every number as it was written. Instants are microseconds since 1970.
// Columns compare by bytes (BINARY is SQLite's default), so that the case of a key matters.
func migrations(table string) [][]string {
	return [][]string{{
		`CREATE TABLE IF NOT EXISTS ` + table + ` (
			store      TEXT    NOT NULL,
			key        TEXT    NOT NULL,
			value      TEXT    NOT NULL CHECK (json_valid(value)),
			etag       TEXT    NOT NULL,
			version    INTEGER NOT NULL,
			created_at INTEGER NOT NULL,
			updated_at INTEGER NOT NULL,
			expires_at INTEGER,
			PRIMARY KEY (store, key)
		)`,
		`CREATE INDEX IF NOT EXISTS ` + table + `_expiry ON ` + table + ` (expires_at, store) WHERE expires_at IS NOT NULL`,
	}}
}

// migrate makes the table. Another process may be doing so too: whoever comes second finds its steps made by the first,
// fails, and at its next try sees that nothing is left to do.
func migrate(ctx context.Context, writer *sql.DB, table string, migrations [][]string) error {
	const tries = 10
	var err error
	for range tries {
		if err = sqlstate.Migrate(ctx, writer, database.DialectSQLite3, table, migrations); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
	return err
}
