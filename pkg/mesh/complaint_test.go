package mesh

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whose target fails finds it in the log, also where there is no other instance to go to: once a minute, and when calls end and begin again.
func TestFailuresOfTheOnlyInstanceAreLogged(t *testing.T) {
	w := newPoolWorld(t, RoundRobin(), Ejection{}, 1)
	var log bytes.Buffer
	w.log = slog.New(slog.NewTextHandler(&log, nil))
	lines := func(text string) int { return strings.Count(log.String(), text) }
	fail := func(n int) {
		for range n {
			w.call(w.node(0), 60*time.Millisecond, failed)
		}
	}
	fail(4)
	require.Empty(t, log.String())
	fail(4)
	require.Equal(t, 1, lines("is called nevertheless"))
	require.Contains(t, log.String(), "instanceId=node-0")
	fail(30)
	require.Equal(t, 1, lines("is called nevertheless"))
	require.Equal(t, 1, lines("calls are not made for a while"))
	w.now += time.Minute
	fail(1)
	require.Equal(t, 2, lines("is called nevertheless"))
	require.Equal(t, 0, lines("calls are made again"))
	w.breaker.hope()
	w.breaker.hope()
	require.Equal(t, 1, lines("calls are made again"))
}
