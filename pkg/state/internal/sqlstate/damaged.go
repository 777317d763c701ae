package sqlstate

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Damaged is the error of a query that met a value which is no JSON. look selects the key of one such value of a store: it may have been put
// right meanwhile.
func Damaged(ctx context.Context, db *sql.DB, look, store string, met error) error {
	key := ""
	err := ReadOnce(ctx, db, look, []any{store}, func(row []driver.Value) error {
		key = Text(row[0])
		return nil
	})
	if err != nil || key == "" {
		return fmt.Errorf("%w: a value that the query looks at is no JSON: %w", state.ErrCorrupt, met)
	}
	return fmt.Errorf("%w: key %q: its value is no JSON: %w", state.ErrCorrupt, key, met)
}
