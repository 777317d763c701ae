package mesh

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Retry says which requests are sent again, and how often. The zero value is its defaults.
//
// A request is sent again when that can do no harm: its method is GET, HEAD, OPTIONS, PUT or DELETE, or it has an
// Idempotency-Key (see [WithIdempotencyKey]), or no connection could be established, so that nothing was sent. Its body
// must be one that can be made again (http.Request.GetBody), and it may not be an Upgrade. Once the head of a response was
// handed on, nothing is sent again.
//
// Where no connection could be established, the other instances are tried at once, each once; that is not counted, for
// no server saw anything of it. Everything else is counted and under the budget, and goes to another instance first.
//
// One layer tries again: a request says in its header Bannou-Retries that its sender does ("caller"), or that it has
// begun to ("spent"). What NewProxy passes on with this header is not sent again by it; calls that a handler makes for
// a request with "spent" are not sent again either, see [Inbound].
type Retry struct {
	// Max is how often a call is sent again at most. Default 2; negative: never.
	Max int
	// Delay is the longest wait before the first further attempt; before each that follows it is twice as long, up to
	// MaxDelay. The wait is drawn evenly from 0 to that ("full jitter", as M. Brooker tells in Exponential Backoff And
	// Jitter, 2015). A Retry-After of the response is waited for instead if it is longer and no other instance is left to
	// ask; when the call's deadline comes first, the response stands. Default 25 ms, up to 250 ms.
	Delay, MaxDelay time.Duration
	// Constant waits exactly Delay each time.
	Constant bool
	// Statuses are those that are worth another attempt. Default 502, 503, 504.
	Statuses []int
	// BudgetPercent and BudgetPerSecond bound the further attempts of all calls of a target: so many for each hundred
	// calls of the last ten seconds, and so many for each of those seconds. Default 20 and 10; negative: none.
	BudgetPercent, BudgetPerSecond int
}

func (r Retry) withDefaults() (Retry, error) {
	r.Max = cmp.Or(r.Max, 2)
	r.Delay = cmp.Or(r.Delay, 25*time.Millisecond)
	r.MaxDelay = cmp.Or(r.MaxDelay, max(250*time.Millisecond, r.Delay))
	r.BudgetPercent = cmp.Or(r.BudgetPercent, 20)
	r.BudgetPerSecond = cmp.Or(r.BudgetPerSecond, 10)
	if r.Statuses == nil {
		r.Statuses = []int{http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}
	}
	if r.Delay < 0 || r.MaxDelay < r.Delay {
		return r, fmt.Errorf("mesh: retry delay %v, up to %v: choose positive durations, the longest no shorter than the first", r.Delay, r.MaxDelay)
	}
	for _, status := range r.Statuses {
		if status < 400 || status > 599 {
			return r, fmt.Errorf("mesh: retry on status %d: choose from 400 to 599", status)
		}
	}
	return r, nil
}

// wait is how long to wait before the n-th further attempt, n from 1.
func (r *Retry) wait(n int, random func() uint64) time.Duration {
	if r.Constant {
		return r.Delay
	}
	longest := r.Delay
	for i := 1; i < n && longest < r.MaxDelay; i++ {
		longest *= 2
	}
	longest = min(longest, r.MaxDelay)
	return time.Duration(float64(random()>>11) / (1 << 53) * float64(longest+1))
}

const (
	headerRetries        = "Bannou-Retries"
	headerIdempotencyKey = "Idempotency-Key"

	retriesCaller = "caller" // the sender tries again
	retriesSpent  = "spent"  // it has begun to
)

type idempotencyKey struct{}

// WithIdempotencyKey returns a context whose calls carry an Idempotency-Key, unless the request has one already. It says
// that the receiver knows a request by its key and does it once, so that a POST may be sent again. A key belongs to one
// request: derive a context for each.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, key)
}

// repeatable reports whether a request may be sent again after a server may have seen it.
func repeatable(req *http.Request) bool {
	if len(req.Header["Upgrade"]) > 0 || req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	default: // the names that net/http knows it by
		return len(req.Header[headerIdempotencyKey]) > 0 || len(req.Header["X-Idempotency-Key"]) > 0
	}
}

// A retrying is what is left of one call's further attempts.
type retrying struct {
	policy *Retry
	budget *budget
	random func() uint64
	ours   bool // and not someone else's
	safe   bool // it may be sent again though a server may have seen it
	left   int
	made   int
}

// newRetrying says in the request's header whose the further attempts are.
func newRetrying(req *http.Request, p *pool) retrying {
	r := retrying{policy: &p.policy.Retry, budget: p.budget, random: p.rand, left: p.policy.Retry.Max}
	if len(req.Header[headerRetries]) > 0 {
		r.left = 0 // they are someone else's
		return r
	}
	r.ours = true
	r.safe = r.left > 0 && repeatable(req)
	if r.safe {
		req.Header[headerRetries] = []string{retriesCaller}
	}
	return r
}

// worthwhile reports whether the outcome of an attempt is one to try again for.
func (r *retrying) worthwhile(resp *http.Response, err error) bool {
	if err != nil {
		return r.safe || neverConnected(err)
	}
	return r.safe && slices.Contains(r.policy.Statuses, resp.StatusCode)
}

// next takes a further attempt out of the budget, to be made after a wait. It reports false when there is none, or not
// before the context's deadline.
func (r *retrying) next(ctx context.Context, p *pool, now, atLeast time.Duration) (wait time.Duration, ok bool) {
	if r.left <= 0 {
		return 0, false
	}
	wait = max(atLeast, r.policy.wait(r.made+1, r.random))
	if deadline, bounded := responseBy(ctx); bounded && time.Until(deadline) <= wait {
		return 0, false
	}
	if !r.budget.withdraw(now) {
		p.overBudget.Add(1)
		return 0, false
	}
	r.left--
	r.made++
	p.retries.Add(1)
	return wait, true
}

// responseBy is when a call's response must have begun.
func responseBy(ctx context.Context) (deadline time.Time, bounded bool) {
	deadline, bounded = ctx.Deadline()
	if proxied, ok := ctx.Value(invocationKey{}).(*invocation); ok && (!bounded || proxied.headBy.Before(deadline)) {
		return proxied.headBy, true
	}
	return deadline, bounded
}

// again returns the request for a further attempt, without its body. The one before may still be in the transport's hands.
func again(ctx context.Context, req *http.Request) *http.Request {
	next := req.WithContext(ctx)
	u := *req.URL
	next.URL, next.Header = &u, req.Header.Clone()
	next.Header.Set(headerRetries, retriesSpent)
	setTimeout(ctx, next.Header)
	return next
}

// longestRetryAfter is more than any call waits.
const longestRetryAfter = 24 * time.Hour

// retryAfter is how long a response asks to wait; 0 when it does not, or not in a way that makes sense.
func retryAfter(resp *http.Response, now time.Time) time.Duration {
	if resp == nil {
		return 0
	}
	value := resp.Header.Get("Retry-After")
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, longestRetryAfter)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(0, at.Sub(now)), longestRetryAfter)
	}
	return 0
}

// pause waits, and reports whether the context lasted.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
