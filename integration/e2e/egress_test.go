package e2e

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whoever may publish can announce an instance at any address. The node must not be led there.
func TestAnAnnouncedInstanceIsCalledOnlyWhereAllowed(t *testing.T) {
	base, calls := receiver(t, ok)
	u, err := url.Parse(base)
	require.NoError(t, err)
	port, err := strconv.Atoi(u.Port())
	require.NoError(t, err)
	n := startNode(t)
	s := direct(n.url)
	announce := func(app, host string) {
		s.must(t, "messaging/publish", object{"topic": "bannou-service-heartbeats", "payload": object{
			"appId": app, "instanceId": "stranger", "host": host, "port": port, "status": "healthy"}})
	}
	invoke := func(app string) (status int, code any) {
		require.Eventually(t, func() bool {
			var answer object
			status, answer = post(t, n.url+"/v1.0/invoke/"+app+"/method/hello", object{})
			code = answer["code"]
			return code != "unknown_target"
		}, patience, 10*time.Millisecond)
		return status, code
	}
	announce("allowed", "127.0.0.1")
	status, _ := invoke("allowed")
	require.Equal(t, http.StatusOK, status)
	next(t, calls)

	announce("elsewhere", net.IPv4zero.String()) // reaches this machine, and is on no list
	status, code := invoke("elsewhere")
	require.Equal(t, http.StatusForbidden, status)
	require.Equal(t, "host_not_allowed", code)
	require.Empty(t, calls)
}
