package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Who listens hears of an instance that a node calls no more, whichever node it is.
func TestCircuitsAreAnnounced(t *testing.T) {
	n := startNode(t, "--instance-id", "self", "--mesh-balancer", "round-robin")
	s := direct(n.url)
	callback, heard := receiver(t, ok)
	s.must(t, "messaging/subscribe", object{"topic": "mesh.circuit.changed", "callbackUrl": callback})
	bad, _ := receiver(t, func(int64) int { return http.StatusInternalServerError })
	good, _ := receiver(t, ok)
	register(t, s, "game", "bad", bad)
	register(t, s, "game", "good", good)
	for late := time.After(patience); ; {
		select {
		case c := <-heard:
			require.Equal(t, "game", c.body["appId"])
			require.Equal(t, "bad", c.body["instanceId"])
			require.Equal(t, "closed", c.body["previousState"])
			require.Equal(t, "open", c.body["state"])
			require.Equal(t, "self", c.body["sourceInstanceId"])
			require.Equal(t, "calls failed in a row", c.body["reason"])
			return
		case <-late:
			t.Fatalf("nothing was announced:\n%s", n.log)
		default: // the node may not have heard of both yet
			_, _ = post(t, n.url+"/v1.0/invoke/game/method/x", object{})
		}
	}
}
