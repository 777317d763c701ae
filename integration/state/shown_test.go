package state_test

import (
	"context"
	"database/sql"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// What one reads that another has written and has no answer for is still there after the server is killed, if the server keeps a binary log that
// it syncs with each commit, as MySQL 8 does by default. Without one (MariaDB's default) it need not be: the log of the test tells how often it was not.
func TestWhatWasReadStaysWithABinaryLog(t *testing.T) {
	t.Run("without", func(t *testing.T) {
		gone := shownAndGone(t, servers.NewMySQL(t, servers.MySQLOptions{}))
		t.Logf("%d rows were read and gone after a kill", gone)
	})
	t.Run("with", func(t *testing.T) {
		require.Zero(t, shownAndGone(t, servers.NewMySQL(t, servers.MySQLOptions{Args: withBinaryLog()})))
	})
}

func withBinaryLog() []string {
	return []string{"--log-bin=changes", "--server-id=1", "--sync-binlog=1"}
}

// shownAndGone is how many rows a reader saw, under four writers and six kills, that the server does not have after its restart.
func shownAndGone(t *testing.T, server *servers.MySQLServer) (gone int) {
	db, err := sql.Open("mysql", server.DSN)
	require.NoError(t, err)
	defer db.Close()
	_, err = db.Exec("CREATE TABLE shown (id BIGINT AUTO_INCREMENT PRIMARY KEY, mark BIGINT NOT NULL) ENGINE=InnoDB")
	require.NoError(t, err)
	for round := range int64(6) {
		seen := shownUntilKilled(t, db, server, round)
		require.NoError(t, server.Restart(t.Context()))
		there := map[int64]bool{}
		require.NoError(t, read(t.Context(), db, round, there))
		for mark := range seen {
			if !there[mark] {
				gone++
			}
		}
	}
	return gone
}

func shownUntilKilled(t *testing.T, db *sql.DB, server *servers.MySQLServer, round int64) map[int64]bool {
	seen, enough := map[int64]bool{}, make(chan struct{})
	var all sync.WaitGroup
	for writer := range int64(4) {
		all.Go(func() {
			for i := int64(0); ; i++ {
				if _, err := db.Exec("INSERT INTO shown (mark) VALUES (?)", round<<40|writer<<32|i); err != nil {
					return
				}
			}
		})
	}
	all.Go(func() {
		told := sync.OnceFunc(func() { close(enough) })
		defer told()
		for read(t.Context(), db, round, seen) == nil || len(seen) == 0 {
			if len(seen) > 1500 {
				told()
			}
		}
	})
	<-enough
	require.NoError(t, server.Kill())
	all.Wait()
	return seen
}

// read adds the marks of a round that the server shows, also those that came before it broke off.
func read(ctx context.Context, db *sql.DB, round int64, seen map[int64]bool) error {
	rows, err := db.QueryContext(ctx, "SELECT mark FROM shown WHERE mark >= ? AND mark < ?", round<<40, (round+1)<<40)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var mark int64
		if err := rows.Scan(&mark); err != nil {
			return err
		}
		seen[mark] = true
	}
	return rows.Err()
}
