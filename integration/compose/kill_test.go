package compose

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each container is killed as by a power cut, under load, and started again: every kind of node that the load goes through, the broker, and
// the databases. What was
// acknowledged is there in the end.
func TestKills(t *testing.T) {
	s := newStack(t)
	l := startLoad(t, s)
	for _, service := range append(append([]string{}, loaded[s.shape]...), servers...) {
		l.goesOn(t, 100)
		victim := s.containers(t, service)[0].Name
		begin, failed := time.Now(), l.failures.Load()
		execute(t, "docker", "kill", "--signal", "KILL", victim)
		ended := l.ended()
		require.Eventually(t, func() bool { return l.ended() >= ended+40 }, patience, 20*time.Millisecond, "the load goes on asking")
		execute(t, "docker", "start", victim)
		l.goesOn(t, 100)
		t.Logf("%s %s: killed, away %s until the load was whole again; %d requests were refused meanwhile", s.shape, service,
			time.Since(begin).Round(100*time.Millisecond), l.failures.Load()-failed)
	}
	l.stop()
	require.Eventually(t, func() bool { return l.events.Totals().Lost == 0 }, patience, 50*time.Millisecond, "%s", l.events.Missing())

	e, lost := l.events.Totals(), l.lost(t)
	t.Logf("%s events: published %d, acknowledged %d, handled %d, duplicated %d, lost %d", s.shape, e.Sent, e.Confirmed, e.Handled, e.Duplicated, e.Lost)
	t.Logf("%s saves: sent %d, acknowledged %d, lost %d", s.shape, len(l.kept)+l.refused, len(l.kept), lost)
	require.Zero(t, lost)
	require.NotZero(t, l.failures.Load(), "nothing was refused: were containers killed?")
}
