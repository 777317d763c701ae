package sqlstate

import (
	"database/sql"
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

// PresentInOrder reads the keys found, to the end, and says for each one asked for whether it is among them.
func PresentInOrder(keys []string, rows *sql.Rows) (_ []bool, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	found := make(map[string]bool, len(keys))
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		found[key] = true
	}
	present := make([]bool, len(keys))
	for i, key := range keys {
		present[i] = found[key]
	}
	return present, rows.Err()
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
