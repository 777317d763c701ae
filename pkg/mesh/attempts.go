package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// A call is one request on its way to an instance, with what is known of its attempts.
type call struct {
	client   *Client
	route    route
	body     *keptBody
	retrying retrying
	tried    []*Instance // in this round
	rounds   int         // in which all instances were tried
}

// sendToOne sends to the instance that the balancer picks, and again, to another one if there is one, as the target's
// policy says. The last outcome is the call's. made is how many further attempts there were.
func (c *Client) sendToOne(req *http.Request, r route) (resp *http.Response, made int, err error) {
	body := keepBody(req)
	defer body.release()
	now := c.balancing.clock()
	r.pool.budget.called(now)
	k := &call{client: c, route: r, body: body, retrying: newRetrying(req, r.pool)}
	if err := body.attach(req, true); err != nil {
		return nil, 0, err
	}
	for {
		resp, err = k.try(req, now)
		next := k.again(req.Context(), resp, err)
		if next == nil {
			return resp, k.retrying.made, err
		}
		if req, err = next(req); err != nil {
			return nil, k.retrying.made, err
		}
		now = c.balancing.clock()
		k.renew(now)
	}
}

// renew takes in what changed meanwhile: instances may have gone, or been ejected.
func (k *call) renew(now time.Duration) {
	k.route.choose(k.client.directory.current.Load().apps[k.route.appID], now)
}

// try makes one attempt, or a hedged pair.
func (k *call) try(req *http.Request, now time.Duration) (*http.Response, error) {
	p := k.route.pool
	in := p.pick(k.route.choice, now, k.tried...)
	if in == nil {
		closeBody(req)
		return nil, noEndpoint(k.route.appID)
	}
	allowed, until, ok := p.breaker.admit(now)
	if !ok {
		closeBody(req)
		return nil, &CircuitOpenError{Target: k.route.appID, Until: time.Now().Add(until - now)}
	}
	defer func() { k.tried = append(k.tried, in) }()
	if delay := p.hedgeDelay(); delay > 0 && k.retrying.ours && hedgeable(req) {
		return k.hedged(req, in, allowed, now, delay)
	}
	return k.attempt(req, in, allowed, now)
}

// again decides whether an outcome is worth another attempt, and returns what makes the request for it; nil for none.
func (k *call) again(ctx context.Context, resp *http.Response, err error) func(*http.Request) (*http.Request, error) {
	p, now := k.route.pool, k.client.balancing.clock()
	if !k.retrying.worthwhile(resp, err) || ctx.Err() != nil || k.body.touched() || !p.breaker.closed.Load() {
		return nil
	}
	k.renew(now)
	if len(k.route.choice.instances) == 0 {
		return nil
	}
	elsewhere := k.route.choice.offersOther(k.tried)
	if elsewhere && k.rounds == 0 && neverHandled(resp, err) {
		last := k.tried[len(k.tried)-1]
		k.client.log.Warn("an instance cannot be reached; another is tried", "appId", k.route.appID, "instanceId", last.id,
			"address", last.address, "error", unhandled(resp, err))
		return func(req *http.Request) (*http.Request, error) { // at once and not counted: no handler saw anything
			discard(resp)
			return req, k.body.attach(req, false)
		}
	}
	var atLeast time.Duration
	if !elsewhere {
		atLeast, k.tried = retryAfter(resp, time.Now()), nil
		k.rounds++
	}
	wait, ok := k.retrying.next(ctx, p, now, atLeast)
	if !ok {
		return nil
	}
	noteRetry(ctx, wait, k.retrying.made, resp, err)
	return func(req *http.Request) (*http.Request, error) {
		discard(resp)
		if !pause(ctx, wait) {
			return nil, context.Cause(ctx)
		}
		next := again(ctx, req)
		return next, k.body.attach(next, false)
	}
}

// good reports whether an outcome is an answer, rather than one that another attempt might better.
func (k *call) good(resp *http.Response, err error) bool {
	return err == nil && !slices.Contains(k.route.pool.policy.Retry.Statuses, resp.StatusCode)
}

// attempt sends to one instance, and lets it know how that went.
func (k *call) attempt(req *http.Request, in *Instance, allowed permit, now time.Duration) (*http.Response, error) {
	a := in.begin(now)
	a.permit = allowed
	if limit := in.pool.policy.AttemptTimeout; limit > 0 {
		return k.client.boundAttempt(req, k.body, a, limit)
	}
	return k.client.roundTrip(req, k.body, a)
}

// errAttemptTimeout is why an attempt ended whose response did not begin in time.
var errAttemptTimeout = fmt.Errorf("the instance did not answer within the time of one attempt: %w", context.DeadlineExceeded)

// boundAttempt is an attempt that ends when its response does not begin in time. The time begins anew whenever the request's body
// moves, and does not run out while more of it is due from the caller: for that wait there is the time of the call.
func (c *Client) boundAttempt(req *http.Request, body *keptBody, a attempt, limit time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := &headTimer{timeout: limit, held: body.awaited}
	timer.start(func() { cancel(errAttemptTimeout) })
	body.prolongs(timer)
	resp, err := c.roundTrip(req.WithContext(ctx), body, a)
	if inTime := timer.stop(); !inTime && err == nil {
		_ = resp.Body.Close()
		err = errAttemptTimeout
	}
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errAttemptTimeout) && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		cancel(nil)
		return nil, err
	}
	endWithBody(resp, func() { cancel(nil) })
	return resp, nil
}

func (c *Client) roundTrip(req *http.Request, body *keptBody, a attempt) (*http.Response, error) {
	req.URL.Host = a.instance.address
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		a.end(c.balancing.clock(), blame(req, body))
		return nil, err
	}
	c.watch(resp, req, a)
	return resp, nil
}

// discardBytes and discardTime bound what is read of a response that nobody wants, to keep its connection.
const (
	discardBytes = 4 << 10
	discardTime  = 20 * time.Millisecond
)

func discard(resp *http.Response) {
	if resp == nil {
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.ContentLength < 0 || resp.ContentLength > discardBytes {
		return
	}
	stalled := time.AfterFunc(discardTime, func() { _ = resp.Body.Close() })
	defer stalled.Stop()
	_, _ = io.Copy(io.Discard, resp.Body)
}

// blame tells what an error says of the instance that was called: nothing, where the caller was the one that was waited for.
func blame(req *http.Request, body *keptBody) callOutcome {
	ctx := req.Context()
	switch {
	case body.broke():
		return unknownOutcome
	case ctx.Err() == nil:
		return failed
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded) && !body.awaited():
		return failed
	default:
		return unknownOutcome
	}
}

// neverConnected reports whether an error means that no connection was established, so that nothing was sent.
func neverConnected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
