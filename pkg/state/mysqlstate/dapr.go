package mysqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A daprTable is the table of Dapr's state.mysql. It is Dapr's, and used as it is: where it is missing it is made as Dapr would.
type daprTable struct {
	name   string // of the table, with that of the database where one was given
	db     *sql.DB
	made   atomic.Pointer[daprForm]
	closed atomic.Bool
}

// A daprForm is what a server and a table turned out to be.
type daprForm struct {
	mariaDB  bool
	exact    string // the collation that compares by code point
	collated string // of the column id
	keyChars int64  // that the column id has room for
}

// quoted is the table's name in a statement; it was checked.
func (t *daprTable) quoted() string { return "`" + strings.ReplaceAll(t.name, ".", "`.`") + "`" }

func (t *daprTable) sql(text string) string { return strings.ReplaceAll(text, "{table}", t.quoted()) }

// daprLive is the condition that a row has not expired, as Dapr has it.
const daprLive = "(expiredate IS NULL OR expiredate > CURRENT_TIMESTAMP)"

// form looks at the table, after it has made one that is missing.
func (t *daprTable) form(ctx context.Context) (*daprForm, error) {
	if t.closed.Load() {
		return nil, errClosed
	}
	if f := t.made.Load(); f != nil {
		return f, nil
	}
	f, err := t.look(ctx, true)
	if err != nil {
		return nil, failure(ctx, err, reading)
	}
	t.made.Store(f)
	return f, nil
}

// look returns nil where there is no table, and none is to be made.
func (t *daprTable) look(ctx context.Context, create bool) (*daprForm, error) {
	var version, current string
	if err := t.db.QueryRowContext(ctx, "SELECT VERSION(), COALESCE(DATABASE(), '')").Scan(&version, &current); err != nil {
		return nil, err
	}
	f := &daprForm{mariaDB: strings.Contains(version, "MariaDB"), exact: "utf8mb4_0900_bin"}
	if f.mariaDB {
		f.exact = "utf8mb4_nopad_bin"
	}
	database, table, qualified := strings.Cut(t.name, ".")
	if !qualified {
		database, table = current, database
	}
	for range 2 {
		columns, err := t.columns(ctx, f, database, table)
		if err != nil {
			return nil, err
		}
		if columns == "" && !create {
			return nil, nil //nolint:nilnil // no table, no rows
		}
		if columns == "" {
			if err := t.create(ctx, database, qualified, f); err != nil {
				return nil, err
			}
			continue
		}
		for _, column := range []string{"value", "isbinary", "insertdate", "updatedate", "etag", "expiredate"} {
			if !strings.Contains(columns, ","+column+",") {
				return nil, fmt.Errorf("%w: table %s has no column %s, so it is not Dapr's, or of a Dapr before 1.11, which adds what is missing when it starts", state.ErrInvalid, t.name, column)
			}
		}
		return f, nil
	}
	return nil, fmt.Errorf("%w: table %s was made and is not there", state.ErrUnavailable, t.name)
}

// columns are the names of the table's columns, each between commas; none: there is no table.
func (t *daprTable) columns(ctx context.Context, f *daprForm, database, table string) (names string, err error) {
	rows, err := t.db.QueryContext(ctx, "SELECT COLUMN_NAME, COALESCE(COLLATION_NAME, ''), COALESCE(CHARACTER_MAXIMUM_LENGTH, 0)"+
		" FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?", database, table)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name, collation string
		var chars int64
		if err := rows.Scan(&name, &collation, &chars); err != nil {
			return "", err
		}
		if name = strings.ToLower(name); name == "id" {
			f.collated, f.keyChars = collation, chars
		}
		names += "," + name + ","
	}
	return names, rows.Err()
}

// create makes the table that Dapr would make, with two differences: its ids are the same only where they are to the letter, and have room
// for a prefix beside a key of state.MaxKeyBytes.
func (t *daprTable) create(ctx context.Context, database string, qualified bool, f *daprForm) error {
	if qualified {
		if _, err := t.db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS `"+database+"`"); err != nil {
			return err
		}
	}
	_, err := t.db.ExecContext(ctx, t.sql("CREATE TABLE IF NOT EXISTS {table} ("+
		"id VARCHAR(512) CHARACTER SET utf8mb4 COLLATE "+f.exact+" NOT NULL PRIMARY KEY,"+
		"value JSON NOT NULL,"+
		"isbinary BOOLEAN NOT NULL,"+
		"insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,"+
		"updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,"+
		"eTag VARCHAR(36) NOT NULL,"+
		"expiredate TIMESTAMP NULL,"+
		"INDEX expiredate_idx(expiredate)"+
		") ENGINE=InnoDB ROW_FORMAT=DYNAMIC"))
	return err
}

// sweep deletes rows that have expired, a few at a time. Dapr does so each hour, as long as there is one.
func (t *daprTable) sweep(ctx context.Context) error {
	for t.made.Load() != nil {
		result, err := t.db.ExecContext(ctx, t.sql(fmt.Sprintf("DELETE FROM {table} WHERE expiredate <= CURRENT_TIMESTAMP ORDER BY expiredate LIMIT %d", sweepBatch)))
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n < sweepBatch {
			return err
		}
	}
	return nil
}
