package e2e

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// One of two nodes is told to end under load: no call fails, though they are such as nobody may send twice.
func TestANodeThatEndsFailsNoCall(t *testing.T) {
	eachBroker(t, func(t *testing.T, broker string) {
		servers := serversWith(t, broker)
		worker := func(id string, args ...string) *node {
			return startNode(t, slices.Concat(servers, []string{"--services", "state", "--app-id", "workers", "--instance-id", id}, args)...)
		}
		worker("stays")
		leaves := worker("leaves", "--mesh-drain-notice", "5s") // longer than a busy machine stops for: then callers hear too late
		gateway := startNode(t, append(servers, "--services", "mesh", "--mesh-balancer", "round-robin")...)
		path := gateway.url + "/v1.0/invoke/workers/method/state/"
		status, answer := post(t, path+"save", object{"storeName": "auth", "key": "k", "value": 1})
		require.Equal(t, http.StatusOK, status, "%v", answer)

		var calls, failed atomic.Int64
		var end atomic.Bool
		var load sync.WaitGroup
		for range 4 {
			load.Go(func() {
				for !end.Load() {
					calls.Add(1)
					res, err := http.Post(path+"get", "application/json", strings.NewReader(`{"storeName":"auth","key":"k"}`))
					if err == nil {
						_, err = io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
					if err != nil || res.StatusCode != http.StatusOK {
						failed.Add(1)
						t.Log(err, res)
					}
				}
			})
		}
		more := func(n int64) {
			until := calls.Load() + n
			require.Eventually(t, func() bool { return calls.Load() >= until }, patience, time.Millisecond)
		}
		more(200)
		require.Equal(t, 0, leaves.stop(t))
		more(200)
		end.Store(true)
		load.Wait()
		t.Logf("%d calls, %d failed", calls.Load(), failed.Load())
		require.Zero(t, failed.Load())
	})
}

// Probes are off unless they are asked for; then an instance that answers nobody is degraded, whatever it says.
func TestProbesByConfiguration(t *testing.T) {
	n := startNode(t, "--mesh-probe-interval", "1s", "--mesh-probe-failures", "1", "--mesh-probe-timeout", "1m", "--instance-id", "self")
	s := direct(n.url)
	register(t, s, "game", "silent", "http://"+freeAddress(t))
	status := func(app string) any {
		return s.must(t, "mesh/endpoints/get", object{"appId": app, "includeUnhealthy": true})["endpoints"].([]any)[0].(object)["status"]
	}
	comesTrue(t, func() bool { return status("game") == "degraded" })
	require.Equal(t, "healthy", status("bannou"))
	require.Contains(t, n.log.String(), "does not answer probes")
}

// comesTrue waits for a condition that may itself end the test: it is asked in the test's own goroutine.
func comesTrue(t *testing.T, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); <-time.After(5 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "in vain")
	}
}
