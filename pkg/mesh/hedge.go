package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Hedge says when a second attempt is made while the first one is under way: of reads (GET, HEAD, OPTIONS, without a
// body) whose response has not begun after a while, to another instance. The first good response is the call's; the other
// attempt is cancelled, which says nothing against its instance. It is one of the further attempts that [Retry] bounds by
// a budget. After J. Dean and L. Barroso, The Tail at Scale, 2013. The zero value makes none.
//
// PUT and DELETE, which may be sent again, are not hedged: the one that loses may still be carried out, after the one that
// won and after what the caller does next.
type Hedge struct {
	// On asks for it.
	On bool
	// Delay is how long the first attempt has. Default: what 95 of 100 of the target's latest 128 responses took to begin,
	// and no hedge until 32 have.
	Delay time.Duration
}

func (h Hedge) validate() error {
	if h.Delay < 0 {
		return fmt.Errorf("mesh: hedge after %v: choose a positive duration", h.Delay)
	}
	return nil
}

// hedgeable reports whether a request is a read that may be made twice at once.
func hedgeable(req *http.Request) bool {
	if len(req.Header["Upgrade"]) > 0 || req.Body != nil && req.Body != http.NoBody {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	default:
		return false
	}
}

// hedgeDelay is how long a first attempt has before a second one is made; 0: there is none.
func (p *pool) hedgeDelay() time.Duration {
	switch h := &p.policy.Hedge; {
	case !h.On:
		return 0
	case h.Delay > 0:
		return h.Delay
	default:
		return time.Duration(p.latencies.p95.Load())
	}
}

// errHedgeLost is why an attempt ended that another one was faster than.
var errHedgeLost = errors.New("another instance answered first")

// A race is a first attempt, and the second one if it comes to that. The first runs on the caller's goroutine, the second
// on its timer's, which ends with it.
type race struct {
	call   *call
	choice *choice
	tried  []*Instance  // the first attempt's among them
	winner atomic.Int32 // 1 or 2
	lose   context.CancelCauseFunc

	second     *Instance // set before result is sent
	loseSecond context.CancelCauseFunc
	secondCtx  context.Context //nolint:containedctx // of the attempt, made with it
	result     chan outcomeOfAttempt
}

// An outcomeOfAttempt is a response or an error.
type outcomeOfAttempt struct {
	resp *http.Response
	err  error
}

// hedged sends to an instance, and after a delay to another one.
func (k *call) hedged(req *http.Request, in *Instance, p permit, now, delay time.Duration) (*http.Response, error) {
	r := &race{call: k, choice: k.route.choice, tried: append(slices.Clone(k.tried), in), result: make(chan outcomeOfAttempt, 1)}
	var ctx context.Context
	ctx, r.lose = context.WithCancelCause(req.Context())
	r.secondCtx, r.loseSecond = context.WithCancelCause(req.Context())
	timer := time.AfterFunc(delay, func() { r.runSecond(req) })

	first, u := req.WithContext(ctx), *req.URL
	first.URL = &u // an attempt sets its host
	resp, err := k.attempt(first, in, p, now)
	alone := timer.Stop()
	switch good := k.good(resp, err); {
	case alone || good && r.winner.CompareAndSwap(0, 1):
		r.loseSecond(errHedgeLost)
		return r.finish(resp, err, r.lose)
	default:
		return r.awaitSecond(resp, err)
	}
}

// awaitSecond is called when the first attempt failed or lost.
func (r *race) awaitSecond(resp *http.Response, err error) (*http.Response, error) {
	other := <-r.result
	if r.second != nil {
		r.call.tried = append(r.call.tried, r.second)
	}
	if r.winner.Load() == 2 {
		discard(resp)
		r.lose(errHedgeLost)
		return r.finish(other.resp, other.err, r.loseSecond)
	}
	discard(other.resp)
	r.loseSecond(nil)
	return r.finish(resp, err, r.lose)
}

// finish has the context of the attempt that counts end with the response.
func (r *race) finish(resp *http.Response, err error, end context.CancelCauseFunc) (*http.Response, error) {
	if err != nil {
		end(nil)
		return nil, err
	}
	endWithBody(resp, func() { end(nil) })
	return resp, nil
}

// runSecond makes the second attempt, if there is an instance for it and the budget allows it.
func (r *race) runSecond(req *http.Request) {
	k, p, now := r.call, r.call.route.pool, r.call.client.balancing.clock()
	in := p.pick(r.choice, now, r.tried...)
	if in == nil || !p.breaker.closed.Load() || r.winner.Load() != 0 {
		r.result <- outcomeOfAttempt{err: errHedgeLost}
		return
	}
	if !p.budget.withdraw(now) {
		p.overBudget.Add(1)
		r.result <- outcomeOfAttempt{err: errHedgeLost}
		return
	}
	p.hedges.Add(1)
	r.second = in
	resp, err := k.attempt(again(r.secondCtx, req), in, permit{}, now) //nolint:bodyclose // it is discarded, or handed on
	if k.good(resp, err) {
		if !r.winner.CompareAndSwap(0, 2) {
			discard(resp)
			return
		}
		p.hedgesWon.Add(1)
		r.result <- outcomeOfAttempt{resp, err}
		r.lose(errHedgeLost)
		return
	}
	r.result <- outcomeOfAttempt{resp, err}
}

// A latencies is how long a target's latest responses took to begin.
type latencies struct {
	next    atomic.Uint32
	samples [128]atomic.Int64
	p95     atomic.Int64 // 0: not known yet
}

// renewLatencies is how many samples it takes to work the quantile out again.
const renewLatencies = 32

func (l *latencies) add(d time.Duration) {
	n := l.next.Add(1)
	l.samples[(n-1)%uint32(len(l.samples))].Store(int64(max(1, d)))
	if n%renewLatencies == 0 {
		l.renew()
	}
}

func (l *latencies) renew() {
	known := make([]int64, 0, len(l.samples))
	for i := range l.samples {
		if d := l.samples[i].Load(); d > 0 {
			known = append(known, d)
		}
	}
	slices.Sort(known)
	l.p95.Store(known[(len(known)*95+99)/100-1])
}
