package inbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/inbox"
)

// A handler that adds up what arrives, in a table of its own. The event arrives twice and counts once.
func ExampleOnce() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "inbox")
	defer os.RemoveAll(dir)
	database, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(dir, "state.db")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer database.Close()
	driver := memorybus.New(memorybus.Config{})
	defer driver.Close(ctx)
	events, _ := bus.New(driver, bus.Config{})
	defer events.Close(ctx)

	box, err := database.OpenInbox(ctx, state.InboxConfig{Name: "totals"})
	if err != nil {
		fmt.Println(err)
		return
	}
	total := make(chan int, 2)
	add := inbox.Once(box, func(ctx context.Context, tx *sql.Tx, e *counted) error {
		if _, err := tx.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS totals (n INTEGER)"); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO totals (n) VALUES (?)", e.N); err != nil {
			return err
		}
		var sum int
		err := tx.QueryRowContext(ctx, "SELECT SUM(n) FROM totals").Scan(&sum)
		total <- sum
		return err
	})
	if _, err := bus.Subscribe(ctx, events, "counted", add, bus.SubscriptionOptions{PrefetchCount: 1}); err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range []counted{{EventID: "a", N: 3}, {EventID: "a", N: 3}, {EventID: "b", N: 4}} {
		if _, err := events.Publish(ctx, "counted", &e); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(<-total, <-total)
	// Output: 3 7
}
