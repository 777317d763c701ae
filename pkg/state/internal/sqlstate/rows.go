package sqlstate

import (
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// InOrder puts the records found into the order of the keys asked for, with an absent record for each that is missing.
func InOrder(keys []string, found []state.Record) []state.Record {
	if len(keys) == 1 && len(found) == 1 && found[0].Key == keys[0] { // the rule
		return found
	}
	byKey := make(map[string]state.Record, len(found))
	for _, r := range found {
		byKey[r.Key] = r
	}
	records := make([]state.Record, len(keys))
	for i, key := range keys {
		records[i] = byKey[key]
		records[i].Key = key
	}
	return records
}

// Present says for each key whether read finds it: it gives each row, a key, to the function that it is called with.
func Present(keys []string, read func(row func([]driver.Value) error) error) ([]bool, error) {
	found := make(map[string]bool, len(keys))
	err := read(func(row []driver.Value) error {
		found[Text(row[0])] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	present := make([]bool, len(keys))
	for i, key := range keys {
		present[i] = found[key]
	}
	return present, nil
}

// Text is a driver's value as a string of its own; empty for what is none.
func Text(v driver.Value) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	default:
		return ""
	}
}

// CountOf reads the one number of the one row.
func CountOf(read func(row func([]driver.Value) error) error) (n int64, err error) {
	err = read(func(row []driver.Value) error {
		n, _ = row[0].(int64)
		return nil
	})
	return n, err
}

// KeysOf reads keys in their order, to the end, and the cursor that a walk goes on from: the last one, where there may be more
// than the limit.
func KeysOf(rows *sql.Rows, limit int) (keys []string, next string, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, "", err
		}
		keys = append(keys, key)
	}
	if len(keys) == limit {
		next = keys[len(keys)-1]
	}
	return keys, next, rows.Err()
}

// Number reads the one number of the one row, and closes the rows.
func Number(rows *sql.Rows) (n int64, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	if !rows.Next() {
		return 0, errors.Join(rows.Err(), sql.ErrNoRows)
	}
	if err := rows.Scan(&n); err != nil {
		return 0, err
	}
	return n, rows.Err()
}
