package faults_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/bannou-mesh/bannou/integration/faults"
)

// enlisted waits until a subscription has a consumer that none of the known is: that of the process which was started last.
func enlisted(ctx context.Context, db *sql.DB, subscription string, known []string) (string, error) {
	for {
		all, err := consumersOf(ctx, db, subscription)
		for _, consumer := range all {
			if !slices.Contains(known, consumer) {
				return consumer, nil
			}
		}
		if paused := faults.Pause(ctx, pollPeriod); paused != nil {
			return "", fmt.Errorf("no further consumer comes: %w", errors.Join(paused, err))
		}
	}
}

func consumersOf(ctx context.Context, db *sql.DB, subscription string) (all []string, err error) {
	rows, err := db.QueryContext(ctx, "SELECT consumer FROM events_consumers WHERE name = ?", subscription)
	if err != nil {
		return nil, err // the table is made with the first of them
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var consumer string
		if err := rows.Scan(&consumer); err != nil {
			return nil, err
		}
		all = append(all, consumer)
	}
	return all, rows.Err()
}

// leads waits until one of these consumers has the lease of a subscription's first partition, and returns which.
func leads(ctx context.Context, db *sql.DB, subscription string, among []string) (int, error) {
	for {
		var consumer string
		err := db.QueryRowContext(ctx, "SELECT consumer FROM events_positions WHERE name = ? AND part = 0", subscription).Scan(&consumer)
		if i := slices.Index(among, consumer); err == nil && i >= 0 {
			return i, nil
		}
		if paused := faults.Pause(ctx, pollPeriod); paused != nil {
			return 0, fmt.Errorf("nobody leads: %w", errors.Join(paused, err))
		}
	}
}
