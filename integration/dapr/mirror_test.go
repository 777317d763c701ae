package dapr_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/daprstate"
	"github.com/bannou-mesh/bannou/pkg/state/mirror"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// A native store on the rows of a Dapr store is compared with what a real daprd says of them: the same, whoever wrote. The daprd is killed in
// the middle: callers do not notice, and the report says that it is away.
func TestMirrorOnDaprd(t *testing.T) {
	set := servers.All(t)
	daprd := servers.NewDaprd(t, servers.DaprdOptions{Resources: []string{
		component("accounts", "state.redis", "redisHost", set.Redis.Addr, "redisPassword", passwordOf(set.Redis), "redisDB", database(set.Redis)),
	}})
	there, err := daprstate.New(daprstate.Config{Endpoint: daprd.URL})
	require.NoError(t, err)
	native, err := redisstate.New(redisstate.Config{URLs: []string{set.Redis.URL}})
	require.NoError(t, err)
	ledger := mirror.NewLedger()
	here, err := mirror.Wrap(native, mirror.Config{Ledger: ledger, To: func(state.StoreConfig) (mirror.Counterpart, bool) {
		return mirror.Counterpart{Driver: there, NoExpiry: true, Timeout: wait}, true
	}})
	require.NoError(t, err)
	f, err := state.NewFactory([]state.StoreConfig{{Name: "accounts", Backend: "redis", KeyPrefix: "app||"}}, []state.Driver{here}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, f.Close())
		require.NoError(t, there.Close())
	})
	s, err := state.Open[jsontext.Value](t.Context(), f, "accounts")
	require.NoError(t, err)

	var keys []string
	for i := range 100 {
		key := fmt.Sprint("native-", i)
		_, err := s.Save(t.Context(), key, jsontext.Value(fmt.Sprintf(`{"n":%d,"b":[1.50,9007199254740993]}`, i)))
		require.NoError(t, err)
		res, err := http.Post(daprd.URL+"/v1.0/state/accounts", "application/json",
			strings.NewReader(fmt.Sprintf(`[{"key":"daprd-%d","value":{"n":%d}}]`, i, i)))
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusNoContent, res.StatusCode)
		keys = append(keys, key, fmt.Sprint("daprd-", i), fmt.Sprint("nobody-", i))
	}
	_, err = s.GetBulk(t.Context(), keys)
	require.NoError(t, err)
	var r mirror.Report
	require.Eventually(t, func() bool { r, _ = ledger.Report("accounts", time.Hour); return r.Compared >= 300 && r.Waiting == 0 }, wait, wait/1000)
	require.Zero(t, r.Different, "%+v", r)
	require.Zero(t, r.Failures, "%+v", r)

	require.NoError(t, daprd.Kill())
	for i := range 200 {
		_, err := s.Save(t.Context(), fmt.Sprint("native-", i), jsontext.Value(`1`))
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { r, _ = ledger.Report("accounts", time.Hour); return r.Failures > 0 }, wait, wait/1000)
	require.NotEmpty(t, r.LastFailure)
}
