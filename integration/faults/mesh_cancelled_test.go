package faults_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
)

// Calls that are cancelled half-way, one in two of them with a part of the answer, leave nothing: no goroutine and no connection, at the
// caller or at the instances. Nobody is ejected for them: they say nothing of an instance.
func TestMeshCallsCancelled(t *testing.T) {
	const calls = 10_000
	f := bareFleet(t).manned(t)
	endureMesh(t, f, meshFault{name: fmt.Sprintf("%d concurrent calls cancelled half-way", calls), times: 1, patient: true, harm: func(ctx context.Context, r *meshRun) error {
		r.load.Rest(true) // ten thousand connections that are made at once would make its calls late
		defer r.load.Rest(false)
		held, cancel := context.WithCancel(ctx)
		defer cancel()
		var under sync.WaitGroup
		var begun atomic.Int64
		failures := make(chan error, calls)
		for n := range calls {
			under.Go(func() {
				number := r.ledger.Begin()
				err := r.hold(held, n, &begun)
				r.ledger.End(faults.Outcome{Call: faults.Call{Number: number, Kind: faults.Reads, Target: "work"}, Err: err})
				if !errors.Is(err, context.Canceled) {
					failures <- fmt.Errorf("a call that was cancelled ended with: %w", err)
				}
			})
		}
		if err := r.until(ctx, func() bool { return begun.Load() == calls/2 && r.held(ctx) == calls }, "all calls are under way"); err != nil {
			return errors.Join(err, fmt.Errorf("%d answers have begun, %d calls are held", begun.Load(), r.held(ctx)))
		}
		ejected := ejections(r) // a busy machine may have kept connections from being made in time
		cancel()
		cancelled := time.Now()
		under.Wait()
		t.Logf("the last of %d calls returned %s after it was cancelled", calls, time.Since(cancelled).Round(time.Millisecond))
		close(failures)
		require.Equal(t, ejected, ejections(r), "somebody was ejected")
		return <-failures // nil when there is none
	}})
}

// ejections are the lengths of the last ones, by instance; zero where there was none.
func ejections(r *meshRun) map[string]time.Duration {
	last := map[string]time.Duration{}
	for _, target := range r.client.Targets() {
		for _, i := range target.Instances {
			last[i.InstanceID] = i.LastEjection
		}
	}
	return last
}

// hold makes a call that ends with ctx.
func (r *meshRun) hold(ctx context.Context, n int, begun *atomic.Int64) error {
	resp, err := r.client.Do(ctx, "work", &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/task/held/" + strconv.Itoa(n)}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	begun.Add(1)
	if _, err := io.ReadAll(resp.Body); err != nil {
		return err
	}
	return errors.New("it was answered")
}

// held is how many calls the instances hold.
func (r *meshRun) held(ctx context.Context) (all int) {
	for _, in := range r.instances {
		var n int
		if said, err := in.ask(ctx, "held", "held "); err == nil {
			_, _ = fmt.Sscan(said, &n)
		}
		all += n
	}
	return all
}
