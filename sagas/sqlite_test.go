package sagas_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/sqliteevents"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/sagas"
)

// On a SQLite file instances complete, are compensated, and go on after a restart, from the file alone.
func TestSQLite(t *testing.T) { synctest.Test(t, testSQLite) }

func testSQLite(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "sagas.db")
	open := func() (closing func()) {
		driver, err := sqlitestate.New(sqlitestate.Config{Path: path})
		require.NoError(t, err)
		w.log, err = sqliteevents.Open(t.Context(), driver, eventstore.Config{})
		require.NoError(t, err)
		return func() { require.NoError(t, driver.Close()) }
	}
	closing := open()
	w.calls.set(func(_ context.Context, method, _ string) (jsontext.Value, error) {
		if method == "charge" && len(w.calls.seen())%2 == 0 {
			return nil, &sagas.Refusal{Status: 402, Detail: "too little"}
		}
		return nil, nil
	})
	d := orders()
	d.States[0].On[1] = sagas.After[Order](200*time.Millisecond, sagas.Compensating, nil)
	first := w.start(false, built(t, d))
	for n := range 10 {
		first.publish(t, "order.placed", fmt.Sprint("o-", n))
	}
	outcomes := map[sagas.Status]int{}
	for n := range 10 {
		key := fmt.Sprint("o-", n)
		require.Eventually(t, func() bool {
			i, err := first.Get(t.Context(), "order", key)
			if err == nil && i.Status.Ended() {
				outcomes[i.Status]++
			}
			return err == nil && i.Status.Ended()
		}, 20*time.Second, 2*time.Millisecond)
	}
	require.Positive(t, outcomes[sagas.Completed])
	require.Positive(t, outcomes[sagas.Compensated])
	first.stop()

	silent := w.start(true, built(t, d))
	silent.publish(t, "order.placed", "late")
	silent.becomes(t, "late", sagas.Running)
	silent.stop()
	closing()
	closing = open()
	second := w.start(true, built(t, d))
	second.becomes(t, "late", sagas.Undoing)
	second.publish(t, "stock.released", "late")
	second.becomes(t, "late", sagas.Compensated)
	require.Equal(t, []string{
		"order.placed -> reserving running", "timeout -> reserving compensating", "stock.released -> reserving compensated",
	}, second.history(t, "late"))
	second.stop()
	closing()
}
