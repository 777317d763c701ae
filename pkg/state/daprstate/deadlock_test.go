package daprstate

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A database that undoes a change for the sake of others does so for as long as they are at work: who began again without a pause had used up
// all tries before they were done.
func TestADeadlockIsGivenTime(t *testing.T) {
	for name, change := range map[string]func(e *engine) error{
		"one change": func(e *engine) error {
			return e.one(t.Context(), component{}, &state.Change{Key: "k", Value: []byte("1"), When: state.IfAbsent}, state.Record{}).Err
		},
		"a transaction": func(e *engine) error {
			return e.transact(t.Context(), []operation{{"upsert", request{Key: "k", Value: []byte("1")}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var begin sync.Once
			var over time.Time
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				begin.Do(func() { over = time.Now().Add(100 * time.Millisecond) })
				if time.Now().Before(over) {
					w.WriteHeader(http.StatusInternalServerError)
					_, _ = w.Write([]byte(`{"errorCode":"ERR_STATE_SAVE","message":"Error 1213 (40001): Deadlock found when trying to get lock"}`))
					return
				}
				w.WriteHeader(http.StatusNoContent)
			}))
			defer server.Close()
			require.NoError(t, change(&engine{driver: &Driver{sidecar: sidecar{base: server.URL, client: server.Client()}}}))
		})
	}
}
