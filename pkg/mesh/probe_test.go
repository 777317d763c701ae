package mesh_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

// probed answers probes by port, and counts them.
type probed struct {
	mu     sync.Mutex
	status map[string]int // by host:port; 0: no connection
	asked  int
}

func (p *probed) set(address string, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status[address] = status
}

func (p *probed) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *probed) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	status := p.status[r.URL.Host]
	if r.URL.Path != "/healthz" || status == 0 {
		return nil, errors.New("connection refused")
	}
	header := http.Header{"Location": {"http://elsewhere/healthz"}}
	return &http.Response{StatusCode: status, Header: header, Body: http.NoBody, Request: r}, nil
}

// probing runs n probers for the length of the test, which ends them by the function returned.
func probing(t *testing.T, r *mesh.Registry, transport http.RoundTripper, n int) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for range n {
		p, err := mesh.NewProber(mesh.ProberConfig{Registry: r, Transport: transport})
		require.NoError(t, err)
		running.Go(func() { p.Run(ctx) })
	}
	return func() { cancel(); running.Wait() }
}

// alive sends heartbeats of an instance while time passes, each second.
func alive(t *testing.T, r *mesh.Registry, e mesh.Endpoint, d time.Duration) {
	for range int(d / time.Second) {
		require.NoError(t, r.Heartbeat(t.Context(), e))
		pass(time.Second)
	}
}

func statuses(t *testing.T, r *mesh.Registry) string {
	return strings.Join(ids(t, r, "bannou", true), ", ")
}

// An instance that sends heartbeats and answers nobody is degraded until it answers: its own word does not change that.
func TestProbesFindWhoDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := new(meshtest.Feed)
		r := newRegistry(t, meshtest.NewTable(), feed)
		e := endpoint("bannou", "node-1")
		require.NoError(t, r.Register(t.Context(), e))
		answers := &probed{status: map[string]int{e.Address(): 200}}
		stop := probing(t, r, answers, 1)
		defer stop()
		alive(t, r, e, 60*time.Second)
		require.Equal(t, "node-1 healthy", statuses(t, r))

		var unreachable []bool
		unwatch, err := feed.Watch(t.Context(), func(c mesh.Change) { unreachable = append(unreachable, c.Unreachable) })
		require.NoError(t, err)
		defer unwatch()
		heard := listen(t, feed)
		answers.set(e.Address(), 0)
		alive(t, r, e, 16*time.Second)
		assert.Equal(t, "node-1 healthy", statuses(t, r), "one or two failures are not enough")
		alive(t, r, e, 60*time.Second)
		assert.Equal(t, "node-1 degraded", statuses(t, r))
		assert.Equal(t, []string{"degraded node-1 degraded"}, heard.take(), "said once")
		assert.Equal(t, []bool{true}, unreachable, "and why")

		answers.set(e.Address(), 404)
		alive(t, r, e, 30*time.Second)
		assert.Equal(t, "node-1 healthy", statuses(t, r), "a program without the path lives too")
		assert.Equal(t, []string{"registered node-1 healthy"}, heard.take())
		answers.set(e.Address(), 503)
		alive(t, r, e, 70*time.Second)
		assert.Equal(t, "node-1 degraded", statuses(t, r))
		answers.set(e.Address(), 302)
		alive(t, r, e, 30*time.Second)
		assert.Equal(t, "node-1 healthy", statuses(t, r), "it answered; elsewhere nobody is asked")
	})
}

// Whatever probes find, an instance lives for 90 s after its last heartbeat, and not longer.
func TestProbesProlongNoLife(t *testing.T) {
	for name, status := range map[string]int{"answering": 200, "not answering": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				feed := new(meshtest.Feed)
				r := newRegistry(t, meshtest.NewTable(), feed)
				heard := listen(t, feed)
				e := endpoint("bannou", "node-1")
				require.NoError(t, r.Register(t.Context(), e))
				begin := time.Now()
				stop := probing(t, r, &probed{status: map[string]int{e.Address(): status}}, 1)
				defer stop()
				pass(59 * time.Second)
				list, err := r.Endpoints(t.Context(), "bannou", true)
				require.NoError(t, err)
				require.Len(t, list, 1)
				assert.True(t, list[0].LastSeen.Equal(begin), "when it was last seen is when it last said so")
				pass(time.Second)
				assert.Equal(t, "node-1 degraded", statuses(t, r))
				require.NoError(t, r.Sweep(t.Context()))
				pass(29 * time.Second)
				assert.Equal(t, "node-1 degraded", statuses(t, r))
				pass(time.Second)
				assert.Empty(t, statuses(t, r))
				require.NoError(t, r.Sweep(t.Context()))
				said := heard.take()
				assert.Equal(t, "deregistered node-1 unavailable", said[len(said)-1])
			})
		})
	}
}

// What probes found does not outlive the probing, nor the process that was probed.
func TestWhatProbesFoundPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(t, meshtest.NewTable(), new(meshtest.Feed))
		e := endpoint("bannou", "node-1")
		require.NoError(t, r.Register(t.Context(), e))
		silent := &probed{status: map[string]int{}}
		stop := probing(t, r, silent, 1)
		alive(t, r, e, 70*time.Second)
		require.Equal(t, "node-1 degraded", statuses(t, r))
		require.NoError(t, r.Register(t.Context(), e))
		assert.Equal(t, "node-1 healthy", statuses(t, r), "started again")
		alive(t, r, e, 70*time.Second)
		require.Equal(t, "node-1 degraded", statuses(t, r))
		stop()
		alive(t, r, e, 60*time.Second)
		assert.Equal(t, "node-1 degraded", statuses(t, r))
		alive(t, r, e, 31*time.Second)
		assert.Equal(t, "node-1 healthy", statuses(t, r), "nobody probes any more")
	})
}

// Probers share the work: each instance is asked once an interval, however many there are. Those that take none are not.
func TestProbersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(t, meshtest.NewTable(), new(meshtest.Feed))
		e, leaving := endpoint("bannou", "node-1"), endpoint("bannou", "node-2")
		leaving.Status = mesh.StatusShuttingDown
		require.NoError(t, r.Register(t.Context(), e))
		require.NoError(t, r.Register(t.Context(), leaving))
		answers := &probed{status: map[string]int{e.Address(): 200}}
		stop := probing(t, r, answers, 5)
		defer stop()
		for range 900 {
			require.NoError(t, r.Heartbeat(t.Context(), leaving))
			alive(t, r, e, time.Second)
		}
		assert.LessOrEqual(t, answers.count(), 101, "900 s, and not sooner than 9 s after the one before")
		assert.Greater(t, answers.count(), 60)
	})
	_, err := mesh.NewProber(mesh.ProberConfig{})
	require.Error(t, err)
}
