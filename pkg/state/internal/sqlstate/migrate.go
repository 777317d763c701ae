package sqlstate

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

// Migrate brings a table to its newest form with goose. Statements holds the migrations in order, forward only, each a
// list of statements; they are made for the name of the table, which stores configure, and goose keeps the versions
// reached in "{table}_versions". The caller sees to it that one process at a time migrates a table.
func Migrate(ctx context.Context, db *sql.DB, dialect database.Dialect, table string, migrations [][]string) error {
	versions, err := database.NewStore(dialect, table+"_versions")
	if err != nil {
		return err
	}
	steps := make([]*goose.Migration, len(migrations))
	for i, statements := range migrations {
		up := func(ctx context.Context, tx *sql.Tx) error {
			for _, statement := range statements {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return err
				}
			}
			return nil
		}
		steps[i] = goose.NewGoMigration(int64(i+1), &goose.GoFunc{RunTx: up}, nil)
	}
	provider, err := goose.NewProvider(goose.DialectCustom, db, nil,
		goose.WithStore(versions), goose.WithGoMigrations(steps...),
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrating table %s: %w", table, err)
	}
	return nil
}
