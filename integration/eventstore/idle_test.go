package eventstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// TestIdleCost counts what a server is asked by a subscription that is at the end of the log, with the defaults of its configuration.
func TestIdleCost(t *testing.T) {
	if !*measure {
		t.Skip("it measures, and is run by hand")
	}
	const counted = 20 * time.Second
	var table strings.Builder
	fmt.Fprintf(&table, "\n| subscription that is at the end | consumers | statements/s |\n| --- | ---: | ---: |\n")
	for _, c := range []struct {
		of                    string
		category              string
		partitions, consumers int
	}{{"of the log", "", 1, 1}, {"of a category", "c", 1, 1}, {"of a category", "c", 1, 3}, {"of a category, four partitions", "c", 4, 1}, {"of a category, four partitions", "c", 4, 3}} {
		server := servers.NewMySQL(t, servers.MySQLOptions{})
		db, err := sql.Open("mysql", server.DSN)
		require.NoError(t, err)
		db.SetMaxOpenConns(1)
		log := open(t, server.DSN, eventstore.Config{})
		for n := range 20 {
			appendTo(t, log, eventstore.StreamID{Category: "c", ID: fmt.Sprint(n)}, eventstore.NoStream, eventstore.MaxAppendEvents)
		}
		head, err := log.Head(t.Context())
		require.NoError(t, err)
		var subs []*eventstore.Subscription
		for range c.consumers {
			sub, err := open(t, server.DSN, eventstore.Config{}).Subscribe(eventstore.SubscriptionConfig{Name: "s", Category: c.category, Partitions: c.partitions,
				Handle: func(context.Context, eventstore.Recorded) error { return nil }})
			require.NoError(t, err)
			subs = append(subs, sub)
		}
		require.Eventually(t, func() bool {
			marks, err := log.Marks(t.Context(), "s")
			require.NoError(t, err)
			for _, m := range marks {
				if m.Position < head {
					return false
				}
			}
			return len(marks) == c.partitions
		}, patience, 10*time.Millisecond)
		before := statements(t, db)
		<-time.After(counted)
		asked := statements(t, db) - before - 1 // this one
		for _, sub := range subs {
			require.NoError(t, sub.Close(context.WithoutCancel(t.Context())))
		}
		require.NoError(t, db.Close())
		fmt.Fprintf(&table, "| %s | %d | %.1f |\n", c.of, c.consumers, float64(asked)/counted.Seconds())
	}
	t.Log(table.String())
	writeTable(t, "idle", table.String())
}

// statements is how many the server has run since it started, prepared ones too.
func statements(t *testing.T, db *sql.DB) (n int64) {
	t.Helper()
	var name string
	require.NoError(t, db.QueryRowContext(t.Context(), "SHOW GLOBAL STATUS LIKE 'Questions'").Scan(&name, &n))
	return n
}
