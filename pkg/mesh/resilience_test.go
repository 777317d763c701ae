package mesh_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

func TestAnOpenBreakerEndsCallsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failing(503)
		client := newFleet(t, 2, mesh.ClientConfig{Policy: mesh.Policy{Breaker: mesh.Breaker{Lasting: -1}}}, f)
		call := func() error {
			resp, err := client.Do(t.Context(), "app", request("POST", "/x", nil))
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		begin := time.Now()
		for range 20 {
			require.NoError(t, call(), "a response is no error")
		}
		err := call()
		require.ErrorIs(t, err, mesh.ErrCircuitOpen)
		open, ok := errors.AsType[*mesh.CircuitOpenError](err)
		require.True(t, ok)
		assert.Equal(t, "app", open.Target)
		assert.Equal(t, begin.Add(time.Second).UnixMilli(), open.Until.UnixMilli())
		require.ErrorContains(t, err, `every instance of "app" fails; the next trial is at `)
		status, code := mesh.ErrorStatus(err)
		assert.Equal(t, 503, status)
		assert.Equal(t, "circuit_open", code)
		for range 100 {
			require.ErrorIs(t, call(), mesh.ErrCircuitOpen)
		}
		require.Len(t, f.seen, 20)
		assert.Equal(t, mesh.BreakerOpen, client.Targets()[0].Breaker)

		pass(time.Second)
		require.NoError(t, call(), "the trial")
		require.ErrorIs(t, call(), mesh.ErrCircuitOpen, "which failed")
		pass(time.Second)
		f.answer = failing(200).answer
		for range 10 {
			require.NoError(t, call())
		}
		assert.Equal(t, mesh.BreakerClosed, client.Targets()[0].Breaker)
		assert.Equal(t, uint64(2), client.Targets()[0].BreakerOpened)
	})
}

// Trials are bounded while many call at once, and a trial whose caller goes away makes room for another.
func TestHalfOpenLetsFewThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failing(503)
		client := newFleet(t, 1, mesh.ClientConfig{Policy: mesh.Policy{Breaker: mesh.Breaker{Consecutive: 5, Lasting: -1, Trials: 2}}}, f)
		for range 5 {
			resp, err := client.Do(t.Context(), "app", request("POST", "/x", nil))
			require.NoError(t, err)
			resp.Body.Close()
		}
		pass(time.Second)
		f.answer = func(_ int, r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		ctx, cancel := context.WithCancel(t.Context())
		var refused atomic.Int32
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				if _, err := client.Do(ctx, "app", request("POST", "/x", nil)); errors.Is(err, mesh.ErrCircuitOpen) {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		assert.Len(t, f.seen, 5+2)
		cancel()
		callers.Wait()
		assert.Equal(t, int32(48), refused.Load())
		f.answer = failing(200).answer
		for range 3 {
			assert.Equal(t, "answer", get(t, client, "app", "/x"))
		}
	})
}

// A slow target takes no more of its callers than the bulkhead says; who waits gets its turn in order.
func TestBulkhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failing(0)
		f.answer = func(_ int, r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(time.Second):
				return answer(r, 200)
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}
		client := newFleet(t, 2, mesh.ClientConfig{Policies: map[string]mesh.Policy{
			"app": {Bulkhead: mesh.Bulkhead{MaxInFlight: 2, MaxWaiting: 3, MaxWait: 1500 * time.Millisecond}}}}, f)
		begin := time.Now()
		type result struct {
			at  time.Duration
			err error
		}
		results := make(chan result, 10)
		for range 8 {
			go func() {
				resp, err := client.Do(t.Context(), "app", request("POST", "/x", nil))
				if err == nil {
					resp.Body.Close()
				}
				results <- result{time.Since(begin), err}
			}()
		}
		synctest.Wait()
		state := client.Targets()[0]
		assert.Equal(t, 2, state.Calls)
		assert.Equal(t, 3, state.Waiting)
		assert.Equal(t, uint64(3), state.Overloaded)
		at := map[time.Duration]int{}
		for range 8 {
			r := <-results
			if r.err == nil {
				at[r.at]++
				continue
			}
			full, ok := errors.AsType[*mesh.OverloadedError](r.err)
			require.True(t, ok, "%v", r.err)
			require.ErrorIs(t, r.err, mesh.ErrOverloaded)
			assert.Equal(t, "app", full.Target)
			if r.at == 0 {
				assert.Contains(t, r.err.Error(), `2 calls of "app" are under way, 3 wait`)
				assert.Zero(t, full.Waited)
			} else {
				assert.Equal(t, 1500*time.Millisecond, r.at, "the fifth waited for as long as it may")
				assert.Equal(t, 1500*time.Millisecond, full.Waited)
			}
		}
		assert.Equal(t, map[time.Duration]int{time.Second: 2, 2 * time.Second: 2}, at)

		// A wait ends with the caller, too.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		for range 2 {
			go func() { _, _ = client.Do(t.Context(), "app", request("POST", "/x", nil)) }()
		}
		synctest.Wait()
		_, err := client.Do(ctx, "app", request("POST", "/x", nil))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, mesh.ErrOverloaded)
		status, code := mesh.ErrorStatus(err)
		assert.Equal(t, 503, status)
		assert.Equal(t, "overloaded", code)
		gone, leave := context.WithCancel(t.Context())
		leave()
		_, err = client.Do(gone, "app", request("POST", "/x", nil))
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, mesh.ErrOverloaded)
	})
}

// A place is held until the body is over, whichever way that happens.
func TestBulkheadHoldsAPlaceUntilTheBodyIsOver(t *testing.T) {
	f := failing(200)
	client := newFleet(t, 1, mesh.ClientConfig{Policy: mesh.Policy{Bulkhead: mesh.Bulkhead{MaxInFlight: 1}}}, f)
	for _, end := range []func(r *http.Response){
		func(r *http.Response) { r.Body.Close() },
		func(r *http.Response) { _, _ = io.ReadAll(r.Body); r.Body.Close(); r.Body.Close() },
		func(r *http.Response) { _, _ = io.ReadAll(r.Body) },
	} {
		resp, err := client.Do(t.Context(), "app", request("GET", "/x", nil))
		require.NoError(t, err)
		_, err = client.Do(t.Context(), "app", request("GET", "/x", nil))
		require.ErrorIs(t, err, mesh.ErrOverloaded)
		end(resp)
		assert.Zero(t, client.Targets()[0].Calls)
	}
	f.answer = func(int, *http.Request) (*http.Response, error) { return nil, errBroken }
	for range 3 {
		_, err := client.Do(t.Context(), "app", request("POST", "/x", nil))
		require.ErrorIs(t, err, errBroken)
	}
	assert.Zero(t, client.Targets()[0].Calls)
}

func TestHedgedReads(t *testing.T) {
	hedged := mesh.Policy{Hedge: mesh.Hedge{On: true, Delay: 100 * time.Millisecond}}
	slow := func(r *http.Request, d time.Duration, status int) (*http.Response, error) {
		select {
		case <-time.After(d):
			return answer(r, status)
		case <-r.Context().Done():
			return nil, context.Cause(r.Context())
		}
	}
	t.Run("the second is faster", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := failing(0)
			f.answer = func(_ int, r *http.Request) (*http.Response, error) {
				if len(f.nodes()) == 1 {
					return slow(r, 10*time.Second, 200)
				}
				return slow(r, 50*time.Millisecond, 200)
			}
			client := newFleet(t, 2, mesh.ClientConfig{Policy: hedged}, f)
			begin := time.Now()
			assert.Equal(t, "answer", get(t, client, "app", "/x"))
			assert.Equal(t, 150*time.Millisecond, time.Since(begin))
			require.Len(t, f.seen, 2)
			assert.NotEqual(t, f.seen[0].node, f.seen[1].node)
			assert.Equal(t, "spent", f.seen[1].header.Get("Bannou-Retries"))
			state := client.Targets()[0]
			assert.Equal(t, uint64(1), state.Hedges)
			assert.Equal(t, uint64(1), state.HedgesWon)
			for _, in := range state.Instances {
				assert.Zero(t, in.FailureShare, "who lost has not failed")
				assert.Zero(t, in.InFlight)
			}
		})
	})
	t.Run("the first is faster after all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := failing(0)
			f.answer = func(_ int, r *http.Request) (*http.Response, error) { return slow(r, 120*time.Millisecond, 200) }
			client := newFleet(t, 2, mesh.ClientConfig{Policy: hedged}, f)
			assert.Equal(t, "answer", get(t, client, "app", "/x"))
			synctest.Wait()
			state := client.Targets()[0]
			assert.Equal(t, uint64(1), state.Hedges)
			assert.Zero(t, state.HedgesWon)
			for _, in := range state.Instances {
				assert.Zero(t, in.FailureShare)
				assert.Zero(t, in.InFlight)
			}
		})
	})
	t.Run("the first fails while the second is under way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := failing(0)
			f.answer = func(_ int, r *http.Request) (*http.Response, error) {
				if len(f.nodes()) == 1 {
					return slow(r, 150*time.Millisecond, 503)
				}
				return slow(r, 200*time.Millisecond, 200)
			}
			client := newFleet(t, 2, mesh.ClientConfig{Policy: hedged}, f)
			begin := time.Now()
			assert.Equal(t, "answer", get(t, client, "app", "/x"))
			assert.Equal(t, 300*time.Millisecond, time.Since(begin))
			assert.Len(t, f.seen, 2)
		})
	})
	t.Run("both fail", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := failing(0)
			f.answer = func(_ int, r *http.Request) (*http.Response, error) { return slow(r, 150*time.Millisecond, 503) }
			policy := hedged
			policy.Retry.Max = -1
			client := newFleet(t, 3, mesh.ClientConfig{Policy: policy}, f)
			resp, err := client.Do(t.Context(), "app", request("GET", "/x", nil))
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, 503, resp.StatusCode)
			assert.Len(t, f.seen, 2)
		})
	})
	t.Run("what is no read is not hedged", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := failing(0)
			f.answer = func(_ int, r *http.Request) (*http.Response, error) { return slow(r, time.Second, 200) }
			client := newFleet(t, 2, mesh.ClientConfig{Policy: hedged}, f)
			for n, req := range []*http.Request{request("PUT", "/x", nil), request("DELETE", "/x", nil), request("POST", "/x", nil),
				request("GET", "/x", io.NopCloser(strings.NewReader("body"))), {Method: "GET", URL: request("GET", "/x", nil).URL,
					Header: http.Header{"Bannou-Retries": {"caller"}}}} {
				resp, err := client.Do(t.Context(), "app", req)
				require.NoError(t, err)
				resp.Body.Close()
				assert.Len(t, f.seen, n+1)
			}
		})
	})
	t.Run("after the p95, once it is known, and within the budget", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := failing(0)
			took := 10 * time.Millisecond
			f.answer = func(_ int, r *http.Request) (*http.Response, error) { return slow(r, took, 200) }
			policy := mesh.Policy{Hedge: mesh.Hedge{On: true}, Retry: mesh.Retry{BudgetPerSecond: -1}}
			client := newFleet(t, 2, mesh.ClientConfig{Policy: policy}, f)
			took = time.Second
			get(t, client, "app", "/x")
			took = 10 * time.Millisecond
			for range 31 {
				get(t, client, "app", "/x")
			}
			require.Zero(t, client.Targets()[0].Hedges, "32 responses are needed")
			took = 100 * time.Millisecond
			begin := len(f.seen)
			get(t, client, "app", "/x")
			require.Len(t, f.seen, begin+2)
			assert.Equal(t, 10*time.Millisecond, f.seen[begin+1].at.Sub(f.seen[begin].at), "the p95 leaves the slowest out")
			for range 60 {
				get(t, client, "app", "/x")
			}
			state := client.Targets()[0]
			assert.LessOrEqual(t, state.Hedges, uint64((33+60)/5))
			assert.Positive(t, state.RetriesRefused)
		})
	})
}
